//! Watches: one test per sentence of surface spec §4, and a model that sees random use.

mod model;
mod spec;
mod world;
