//! The command line of `detkv-sim`.

use std::ops::Range;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::scenario::Profile;

/// Runs scenarios in the simulated world: a seed names a run, and gives the same one on every machine.
///
/// Exit codes: 0 pass, 1 an expectation or checker failed, 2 usage, 3 nondeterminism.
#[derive(Parser, Debug)]
#[command(name = "detkv-sim", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Runs a scenario with one seed, in each of its profiles, tells the story and writes the page
    Run {
        /// Name (see `list`), path of a .toml file, FILE.toml:VARIANT, or `swarm`: what it draws from the seed
        scenario: String,
        /// Replace a value of the file, such as disk.parallelism=1; may be given again
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        #[arg(long)]
        seed: u64,
        /// Only this profile
        #[arg(long, value_parser = profile)]
        profile: Option<Profile>,
        /// Write the figures: an object, or an array when there are several profiles
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Write the decision trace as JSON lines; with several profiles one file each
        #[arg(long, value_name = "FILE")]
        trace: Option<PathBuf>,
        /// Write the history as etcd's robustness tests report it; with several profiles one folder each
        #[arg(long, value_name = "DIR")]
        history: Option<PathBuf>,
        /// Where the page goes [default: out/<scenario>-<seed>.html]
        #[arg(long, value_name = "FILE.html")]
        report: Option<PathBuf>,
    },
    /// Lists the scenarios
    List,
    /// Lists the kinds of fault by family, with their parameters, units, defaults and an example
    Faults {
        /// As an array for programs
        #[arg(long)]
        json: bool,
    },
    /// The documented failure modes, each in its profiles, over many seeds: a table and a page
    Table {
        /// Scenarios [default: the seven failure modes]
        scenarios: Vec<String>,
        #[arg(long, value_name = "A..B", value_parser = seeds)]
        seeds: Range<u64>,
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        jobs: Option<u32>,
        /// Where the page goes
        #[arg(long, value_name = "FILE.html", default_value = "out/table.html")]
        report: PathBuf,
        /// Write the table as JSON
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Compares the latency scenarios' figures with reports/baselines: exactly
    Baseline {
        /// Make the figures of now the baseline, and print what moved
        #[arg(long)]
        update: bool,
        #[arg(long, value_name = "FOLDER", default_value = "reports/baselines")]
        dir: PathBuf,
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        jobs: Option<u32>,
    },
    /// Leader changes per hour on disks of real clusters, clustered and not, in both profiles
    Incidents {
        /// Virtual hours of each
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
        hours: u64,
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        jobs: Option<u32>,
        /// Where the page goes
        #[arg(long, value_name = "FILE.html", default_value = "out/incidents.html")]
        report: PathBuf,
        /// Write the report as JSON
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Lists the figures that a scenario may expect
    Figures,
    /// Runs a scenario over many seeds, one process each
    Sweep {
        scenario: String,
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// First seed and the one behind the last
        #[arg(long, value_name = "A..B", value_parser = seeds)]
        seeds: Range<u64>,
        #[arg(long, value_parser = profile)]
        profile: Option<Profile>,
        /// Processes at a time [default: the number of cores]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        jobs: Option<u32>,
        /// Only the K-th of M parts of the seeds, from 1
        #[arg(long, value_name = "K/M", value_parser = shard)]
        shard: Option<(u64, u64)>,
        /// Write every run's figures as an array
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Runs many seeds, each with options of its own: members, disks, network, clocks, load, faults
    Swarm {
        #[arg(long, value_name = "A..B", value_parser = seeds)]
        seeds: Range<u64>,
        /// Processes at a time [default: the number of cores]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        jobs: Option<u32>,
        /// Only the K-th of M parts of the seeds, from 1
        #[arg(long, value_name = "K/M", value_parser = shard)]
        shard: Option<(u64, u64)>,
        /// Where the page goes
        #[arg(long, value_name = "FILE.html", default_value = "out/swarm.html")]
        report: PathBuf,
        /// Write the totals
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Fail when a rare path of the code was taken in no run
        #[arg(long)]
        require_marks: bool,
    },
    /// Runs each seed in two unlike processes, in release and debug where both are built, and compares
    CheckDeterminism {
        /// A scenario, `swarm`, or `all` that are committed
        scenario: String,
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        #[arg(long, value_name = "A..B", value_parser = seeds)]
        seeds: Range<u64>,
        #[arg(long, value_parser = profile)]
        profile: Option<Profile>,
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        jobs: Option<u32>,
        /// The same program, built otherwise [default: target/debug beside target/release]
        #[arg(long, value_name = "PATH")]
        other_binary: Option<PathBuf>,
    },
    /// Prints the scenario file that the swarm draws from a seed: to keep, to edit, to shorten
    Draw {
        #[arg(long)]
        seed: u64,
    },
    /// Plants ten leaks on purpose and shows what the determinism check says of each
    LeakZoo,
    #[command(name = crate::child::SUBCOMMAND, hide = true)]
    Child,
    /// Prints the fingerprint of the sources it was built from
    #[command(hide = true)]
    Sources,
}

fn profile(text: &str) -> Result<Profile, String> {
    match text {
        "coupled" => Ok(Profile::Coupled),
        "decoupled" => Ok(Profile::Decoupled),
        _ => Err("expected \"coupled\" or \"decoupled\"".to_owned()),
    }
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let expected = || "expected two numbers such as 0..50, the second behind the last".to_owned();
    let (from, to) = text.split_once("..").ok_or_else(expected)?;
    let number = |digits: &str| digits.parse::<u64>().map_err(|_| expected());
    let seeds = number(from)?..number(to)?;
    if seeds.is_empty() { Err(expected()) } else { Ok(seeds) }
}

fn shard(text: &str) -> Result<(u64, u64), String> {
    let expected = || "expected a part and their number such as 1/4".to_owned();
    let (part, of) = text.split_once('/').ok_or_else(expected)?;
    let number = |digits: &str| digits.parse::<u64>().map_err(|_| expected());
    let (part, of) = (number(part)?, number(of)?);
    if (1..=of).contains(&part) { Ok((part, of)) } else { Err(expected()) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn ranges_and_shards_are_checked() {
        assert_eq!(seeds("0..50"), Ok(0..50));
        assert_eq!(shard("2/4"), Ok((2, 4)));
        for text in ["5", "5..5", "9..5", "a..b", "..", "0..=5"] {
            assert!(seeds(text).is_err(), "{text}");
        }
        for text in ["0/4", "5/4", "1", "a/b", "1/0"] {
            assert!(shard(text).is_err(), "{text}");
        }
    }
}
