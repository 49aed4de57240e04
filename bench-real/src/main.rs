//! `detkv-bench`: the throughput table on real disks, real etcd beside us.
//!
//! Starts three members as processes, drives them over gRPC and prints medians with their spread. What each
//! row means is in `bench-real/README.md`.
//!
//! | Module | What |
//! |---|---|
//! | [`rows`] | the rows of the table |
//! | [`schedule`] | the order of visits: A B A B |
//! | [`peers`] | three members as child processes |
//! | [`load`] | the closed-loop clients |
//! | [`client`] | one HTTP/2 connection |
//! | [`machine`] | machine facts and the fsync probe |
//! | [`stats`] | medians, spread, ratios |
//! | [`table`] | the table on the terminal |

mod client;
mod load;
mod machine;
mod peers;
mod rows;
mod schedule;
mod stats;
mod table;

/// etcd's messages and client stubs, generated from `core/proto`.
mod pb {
    #![allow(
        clippy::all,
        dead_code,
        reason = "generated code, most of which a bench does not call"
    )]
    include!(concat!(env!("OUT_DIR"), "/pb.rs"));
}

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use detkv_reports::bench::{BUSY_PER_CORE, BenchReport, Store, bench_page};

use peers::Program;
use rows::{ROWS, Row};
use schedule::{DataDir, Plan};

/// tonic allocates two 8 KiB buffers per call: with this allocator they cost the client less of the servers' CPU.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BUILD_HINT: &str =
    "build it with `cargo build --release --bin detkv`, or name a binary with --detkv";

/// Measures detkv, alone or beside real etcd, as three members on this machine.
#[derive(Debug, Parser)]
#[command(name = "detkv-bench", version, about)]
struct Args {
    /// The binary to measure; any program that takes etcd's flags [default: detkv beside this binary]
    #[arg(long, value_name = "PATH")]
    detkv: Option<PathBuf>,
    /// An etcd binary to measure in turn with it; may be given more than once
    #[arg(long, value_name = "PATH")]
    compare: Vec<PathBuf>,
    /// Visits to each store
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    repeats: u16,
    /// Measured seconds per row and visit
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    seconds: f64,
    /// Seconds of load before measuring, per row and visit
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    warm_up: f64,
    /// Only rows whose name or title contains one of these comma-separated words
    #[arg(long, value_name = "FILTER")]
    rows: Option<String>,
    /// One visit, half a second per row: to see that everything works, not to quote
    #[arg(long)]
    quick: bool,
    /// Threads of the load generator
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    client_threads: u16,
    /// Directory for the members' data; must be on a disk [default: target/bench-data]
    #[arg(long, value_name = "DIR")]
    data_root: Option<PathBuf>,
    /// Accept a data root in memory, where fsync costs nothing
    #[arg(long)]
    allow_tmpfs: bool,
    /// Write everything measured as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Print the rows and stop
    #[arg(long)]
    list: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(secs) if (0.0..=3600.0).contains(&secs) && secs > 0.0 => Ok(secs),
        _ => Err("a number of seconds above 0 and at most 3600".to_owned()),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        for row in &ROWS {
            println!("{:32} {}", row.title(), row.name());
        }
        return ExitCode::SUCCESS;
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("detkv-bench: no async runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    // On a signal the bench's future is dropped, and with it the members and their files.
    let result = runtime.block_on(async {
        tokio::select! {
            result = bench(&args) => result,
            signal = interrupted() => Err(signal),
        }
    });
    // Load threads of an interrupted row may still be waiting for answers: they end with the process.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("detkv-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Waits for Ctrl-C or SIGTERM and returns it as the error that ends the bench.
async fn interrupted() -> anyhow::Error {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(stream) => stream,
        Err(error) => return anyhow::Error::new(error).context("cannot listen for SIGTERM"),
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => anyhow::anyhow!("interrupted; the members are stopped"),
        _ = terminate.recv() => anyhow::anyhow!("terminated; the members are stopped"),
    }
}

async fn bench(args: &Args) -> Result<()> {
    let rows = chosen_rows(args.rows.as_deref())?;
    let programs = programs(args)?;
    let root = args.data_root.clone().unwrap_or_else(|| PathBuf::from("target/bench-data"));
    std::fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
    if !args.allow_tmpfs {
        machine::refuse_memory_filesystem(&root)?;
    }
    // Members are given paths: they must not depend on where they are started.
    let root = root.canonicalize().with_context(|| format!("no directory {}", root.display()))?;
    let data_dir = DataDir::create(&root)?;
    let (repeats, measured, warm_up) =
        if args.quick { (1, 0.5, 0.2) } else { (args.repeats, args.seconds, args.warm_up) };
    let plan = Plan {
        programs,
        rows,
        repeats: usize::from(repeats),
        warm_up: Duration::from_secs_f64(warm_up),
        measured: Duration::from_secs_f64(measured),
        threads: usize::from(args.client_threads),
        data_dir: data_dir.path().to_owned(),
    };
    let mut report = empty_report(&plan, &root)?;
    print!("{}", table::head(&report));
    if report.machine.load_average > BUSY_PER_CORE * report.machine.cores as f64 {
        eprintln!("warning: this machine is busy (load {:.2})", report.machine.load_average);
    }
    report.rows = schedule::run(&plan).await?;
    println!("{}", table::rows(&report));
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&report).context("the report as JSON")?;
        write_file(path, &json)?;
    }
    if let Some(path) = &args.report {
        write_file(path, &bench_page(&report))?;
    }
    Ok(())
}

fn chosen_rows(filter: Option<&str>) -> Result<Vec<Row>> {
    let rows: Vec<Row> =
        ROWS.into_iter().filter(|row| filter.is_none_or(|filter| row.matches(filter))).collect();
    if rows.is_empty() {
        bail!("no row matches {:?}; see --list", filter.unwrap_or(""));
    }
    Ok(rows)
}

/// Ours first, then those to compare with; equal names get a number.
fn programs(args: &Args) -> Result<Vec<Program>> {
    let detkv = match &args.detkv {
        Some(path) => path.clone(),
        None => std::env::current_exe().context("own path")?.with_file_name("detkv"),
    };
    let mut programs = vec![Program::find(&detkv, BUILD_HINT)?];
    for path in &args.compare {
        programs.push(Program::find(path, "--compare takes the path to an etcd binary")?);
    }
    let labels: Vec<String> = programs.iter().map(|program| program.label.clone()).collect();
    for (i, program) in programs.iter_mut().enumerate() {
        let earlier = labels[..i].iter().filter(|label| **label == program.label).count();
        if earlier > 0 {
            program.label = format!("{} #{}", program.label, earlier + 1);
        }
    }
    Ok(programs)
}

fn empty_report(plan: &Plan, root: &Path) -> Result<BenchReport> {
    let machine = machine::facts(root);
    let stores = plan.programs.iter().map(|program| Store {
        label: program.label.clone(),
        version: program.version.clone(),
        path: program.path.display().to_string(),
    });
    Ok(BenchReport {
        date: machine::today(),
        command: std::env::args().collect::<Vec<_>>().join(" "),
        machine,
        fsync_probe: machine::probe_fsync(&plan.data_dir)?,
        stores: stores.collect(),
        repeats: plan.repeats as u64,
        seconds: plan.measured.as_secs_f64(),
        warm_up_seconds: plan.warm_up.as_secs_f64(),
        client_threads: plan.threads as u64,
        rows: Vec::new(),
    })
}

fn write_file(path: &Path, text: &str) -> Result<()> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn nonsense_times_are_refused() {
        assert!(seconds("0").is_err() && seconds("-1").is_err() && seconds("NaN").is_err());
        assert!(seconds("1e9").is_err());
        assert_eq!(seconds("0.5"), Ok(0.5));
    }

    #[test]
    fn a_filter_without_a_row_is_an_error() {
        assert_eq!(chosen_rows(None).expect("all rows").len(), ROWS.len());
        assert!(chosen_rows(Some("no such row")).is_err());
    }
}
