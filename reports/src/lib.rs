//! Turns what a run or a bench recorded into files a person reads: one self-contained HTML page, or JSON.
//!
//! Start from [`run::RunReport`] (a simulated run, filled by `scenarios`) and the bench record
//! (a measured table, filled by `bench-real`). This crate knows no driver: it sees only these records.
//!
//! | Module | What |
//! |---|---|
//! | [`run`] | the record of a simulated run and its JSON summary |

pub mod run;
