//! Turns what a run or a bench recorded into files a person reads: one self-contained HTML page, or JSON.
//!
//! Start from [`run::RunReport`] (a simulated run, filled by `scenarios`), of which [`page::run_page`] makes a
//! page, and from [`bench::BenchReport`] (measured by `bench-real`), of which [`bench::bench_page`] makes one.
//! This crate knows no driver: it sees only these records.
//!
//! | Module | What |
//! |---|---|
//! | [`run`] | the record of a simulated run and its JSON summary |
//! | [`page`] | the page of one or several runs |
//! | [`bench`] | the record of a bench of real processes, and its page |
//! | [`incidents`] | leader changes per hour on disks of real clusters: the record and its page |
//! | [`swarm`] | many runs, each with options of its own: the record and its page |
//! | [`table`] | scenarios over many seeds: the record and its page |
//! | `timeline` | a run's picture: faults, roles, latency over virtual time |
//! | `thin` | thins 100,000 puts out to what a page can show, outliers kept |
//! | `scale`, `html` | axes; escaping and words for numbers |

pub mod bench;
mod html;
pub mod incidents;
pub mod page;
pub mod run;
mod scale;
pub mod swarm;
pub mod table;
mod thin;
mod timeline;
