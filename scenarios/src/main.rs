//! `detkv-sim`: runs scenarios in the simulated world, one process per seed.
//!
//! | Module | What |
//! |---|---|
//! | `cli`, `commands` | the command line; what each command does |
//! | `scenario`, `options`, `variant`, `library` | scenario files: reading, finding |
//! | `place` | where a mistake is |
//! | `chosen` | what a scenario chose, in a few lines |
//! | `expect`, `excuse` | judging |
//! | `faults` | the kinds of fault, listed |
//! | `run` | one run in this process |
//! | `figures`, `timeline`, `report`, `story` | what came of it |
//! | `child` | starting this program again for one seed |
//! | `sweep`, `determinism`, `incidents` | many seeds |
//! | `baseline` | exact figures, compared with files |
//! | `swarm` | many seeds, each with options of its own |

mod baseline;
mod child;
mod chosen;
mod cli;
mod commands;
mod determinism;
mod excuse;
mod expect;
mod faults;
mod figures;
mod history_files;
mod incidents;
mod library;
mod options;
mod place;
#[cfg(test)]
mod readme;
mod report;
mod run;
mod scenario;
mod story;
mod swarm;
mod sweep;
mod table;
mod timeline;
mod variant;
mod zoo;

use std::process::ExitCode;

use clap::Parser as _;

use cli::Cli;
use commands::{End, Failure};

/// A run allocates and frees per event: 10 % faster than with the C library's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code of a mistake in the command line or a scenario file.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    // A closed pipe (`| head`) ends the program quietly, as it does others.
    // SAFETY: nothing else runs yet, and the default action needs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    match commands::dispatch(Cli::parse().command) {
        Ok(End::Pass) => ExitCode::SUCCESS,
        Ok(End::Fail) => ExitCode::from(1),
        Ok(End::Nondeterminism) => ExitCode::from(3),
        Err(Failure::Usage(error)) => {
            eprintln!("error: {error:#}");
            ExitCode::from(USAGE)
        }
        Err(Failure::Run(error)) => {
            eprintln!("error: {error:#}");
            ExitCode::from(1)
        }
    }
}
