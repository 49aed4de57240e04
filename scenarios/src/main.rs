//! `detkv-sim`: runs scenarios in the simulated world, one process per seed.
//!
//! | Module | What |
//! |---|---|
//! | `cli` | the command line |
//! | `scenario`, `options`, `variant`, `library` | scenario files: reading, finding |
//! | `place` | where a mistake is |
//! | `expect` | judging |
//! | `faults` | the kinds of fault, listed |
//! | `run` | one run in this process |
//! | `figures`, `timeline`, `report`, `story` | what came of it |
//! | `child` | starting this program again for one seed |
//! | `sweep`, `determinism`, `incidents` | many seeds |
//! | `baseline` | exact figures, compared with files |
//! | `swarm` | many seeds, each with options of its own |

mod alloc;
mod baseline;
mod child;
mod cli;
mod determinism;
mod expect;
mod faults;
mod figures;
mod history_files;
mod incidents;
mod library;
mod options;
mod place;
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

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Parser as _;
use detkv_reports::run::{RunReport, RunSummary, Verdict};
use serde::Serialize;

use child::{Job, Surroundings};
use cli::{Cli, Command};
use library::Source;
use scenario::Profile;

#[global_allocator]
static ALLOCATOR: alloc::MiMalloc = alloc::MiMalloc;

/// How the program ends, when it ends well enough to say so.
enum End {
    Pass,
    Fail,
    Nondeterminism,
}

/// Exit code of a mistake in the command line or a scenario file.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    // A closed pipe (`| head`) ends the program quietly, as it does others.
    // SAFETY: nothing else runs yet, and the default action needs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    match dispatch(Cli::parse().command) {
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

enum Failure {
    /// The user's mistake.
    Usage(anyhow::Error),
    /// A run crashed, or a result could not be written.
    Run(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure::Run(error)
    }
}

fn dispatch(command: Command) -> Result<End, Failure> {
    match command {
        Command::Run { scenario, set, seed, profile, json, trace, history, report } => {
            let source = library::for_seed(&scenario, &set, seed).map_err(Failure::Usage)?;
            Ok(run_one(&source, seed, profile, &Outputs { json, trace, history, report })?)
        }
        Command::List => Ok(list()?),
        Command::Faults { json } => {
            if json {
                println!("{}", faults::json().context("cannot write the list")?);
            } else {
                print!("{}", faults::table());
            }
            Ok(End::Pass)
        }
        Command::Table { scenarios, seeds, jobs, report, json } => {
            run_table(&scenarios, seeds, parallel(jobs), &report, json.as_deref())
        }
        Command::Baseline { update, dir, jobs } => Ok(run_baseline(&dir, update, parallel(jobs))?),
        Command::Incidents { hours, jobs, report, json } => {
            Ok(run_incidents(hours, parallel(jobs), &report, json.as_deref())?)
        }
        Command::Figures => {
            let figures = figures::FIGURES.iter();
            figures.for_each(|figure| println!("{:<30}{}", figure.name, figure.what));
            Ok(End::Pass)
        }
        Command::Sweep { scenario, set, seeds, profile, jobs, shard, json } => {
            let source = library::find(&scenario, &set).map_err(Failure::Usage)?;
            let seeds = match shard {
                Some((part, of)) => sweep::shard(seeds, part, of),
                None => seeds.collect(),
            };
            Ok(run_sweep(&source, &seeds, profile, jobs, json.as_deref())?)
        }
        Command::Swarm { seeds, jobs, shard, report, json, require_marks } => {
            let seeds = match shard {
                Some((part, of)) => sweep::shard(seeds, part, of),
                None => seeds.collect(),
            };
            Ok(run_swarm(&seeds, jobs, &report, json.as_deref(), require_marks)?)
        }
        Command::CheckDeterminism { scenario, set, seeds, profile, jobs, other_binary } => {
            let other = other_build(other_binary).map_err(Failure::Usage)?;
            let list =
                determinism_jobs(&scenario, &set, &seeds, profile).map_err(Failure::Usage)?;
            Ok(check_determinism(&scenario, seeds, &list, jobs, other)?)
        }
        Command::Draw { seed } => {
            print!("{}", swarm::draw(seed).text);
            Ok(End::Pass)
        }
        Command::LeakZoo => Ok(leak_zoo()?),
        Command::Child { job } => {
            child::child_main(&job)?;
            Ok(End::Pass)
        }
        Command::Sources => {
            println!("{}", determinism::SOURCES);
            Ok(End::Pass)
        }
    }
}

/// The program built otherwise: as given, or the one that lies beside.
///
/// Errors: the given one is not there, or is of other sources. One that lies beside is then left out.
fn other_build(given: Option<PathBuf>) -> anyhow::Result<Option<PathBuf>> {
    match given {
        Some(path) if !path.is_file() => {
            bail!("--other-binary {}: no such file", path.display())
        }
        Some(path) if !determinism::has_same_sources(&path) => {
            bail!("--other-binary {}: it is built from other sources", path.display())
        }
        Some(path) => Ok(Some(path)),
        None => {
            let beside = determinism::sibling(&this_binary()?);
            if let Some(path) = beside.as_ref().filter(|path| !determinism::has_same_sources(path))
            {
                let path = path.display();
                eprintln!("warning: {path} is built from other sources and is left out");
                return Ok(None);
            }
            Ok(beside)
        }
    }
}

/// Where `run` writes.
struct Outputs {
    json: Option<PathBuf>,
    trace: Option<PathBuf>,
    history: Option<PathBuf>,
    report: Option<PathBuf>,
}

fn profiles(source: &Source, only: Option<Profile>) -> Vec<Profile> {
    only.map_or_else(|| source.scenario.profiles.clone(), |profile| vec![profile])
}

fn job(source: &Source, seed: u64, profile: Profile) -> Job {
    Job {
        scenario: source.given.clone(),
        path: source.path.clone(),
        text: source.text.clone(),
        name: source.scenario.name.clone(),
        files: source.scenario.files.clone(),
        seed,
        profile,
        with_timeline: false,
        trace_file: None,
        history_dir: None,
        full: 0..0,
        surroundings: Surroundings::Plain,
        wall_secs_max: 0,
        leak: None,
    }
}

fn this_binary() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find this program's own file")
}

fn run_one(
    source: &Source,
    seed: u64,
    only: Option<Profile>,
    outputs: &Outputs,
) -> anyhow::Result<End> {
    let binary = this_binary()?;
    let profiles = profiles(source, only);
    println!("{}: {}", source.scenario.name, source.scenario.about);
    println!("seed {seed}");
    for (name, value) in report::options(&source.scenario) {
        println!("  {name} = {value}");
    }
    let mut reports: Vec<RunReport> = Vec::new();
    for profile in &profiles {
        let trace_file = outputs.trace.as_deref().map(|path| {
            if profiles.len() == 1 { Ok(absolute(path)?) } else { with_profile(path, *profile) }
        });
        let trace_file = trace_file.transpose()?;
        let history_dir = outputs.history.as_deref().map(|path| {
            let folder =
                if profiles.len() == 1 { path.to_owned() } else { path.join(profile.to_string()) };
            absolute(&folder)
        });
        let history_dir = history_dir.transpose()?;
        let job =
            Job { with_timeline: true, trace_file, history_dir, ..job(source, seed, *profile) };
        let child = child::spawn(&binary, &job)?;
        if child.is_randomised {
            eprintln!("warning: addresses are still randomised: this machine refuses to fix them");
        }
        for line in story::story(&child.report) {
            println!("{line}");
        }
        if let Some(path) = job.trace_file {
            println!("  trace {}", path.display());
        }
        if let Some(path) = job.history_dir {
            println!("  history {}", path.display());
        }
        reports.push(child.report);
    }
    write_outputs(source, seed, outputs, &reports)?;
    let mut end = End::Pass;
    for report in &reports {
        let summary = &report.summary;
        println!("{} {}", story::word(summary.verdict), summary.profile);
        if summary.verdict == Verdict::Fail {
            end = End::Fail;
        }
    }
    let only = only.map_or(String::new(), |profile| format!(" --profile {profile}"));
    println!(
        "again: cargo run --release --bin detkv-sim -- run {} --seed {seed}{only}",
        source.given
    );
    Ok(end)
}

fn write_outputs(
    source: &Source,
    seed: u64,
    outputs: &Outputs,
    reports: &[RunReport],
) -> anyhow::Result<()> {
    if let Some(path) = &outputs.json {
        match reports {
            [one] => write_json(path, &one.summary)?,
            several => {
                let all: Vec<&RunSummary> = several.iter().map(|report| &report.summary).collect();
                write_json(path, &all)?;
            }
        }
        println!("figures {}", path.display());
    }
    let default = || PathBuf::from(format!("out/{}-{seed}.html", source.scenario.name));
    let page = outputs.report.clone().unwrap_or_else(default);
    write_file(&page, detkv_reports::page::run_page(reports).as_bytes())?;
    println!("page {}", page.display());
    Ok(())
}

fn list() -> anyhow::Result<End> {
    for Source { scenario, .. } in library::all()? {
        let profiles: Vec<String> = scenario.profiles.iter().map(ToString::to_string).collect();
        println!("{:<18}{} ({})", scenario.name, scenario.about, profiles.join(", "));
    }
    let names = library::names();
    let variants: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| library::is_variant(name)).collect();
    println!("variants: {}", variants.join(", "));
    Ok(End::Pass)
}

fn run_table(
    named: &[String],
    seeds: Range<u64>,
    parallel: usize,
    page: &Path,
    json: Option<&Path>,
) -> Result<End, Failure> {
    let failure_modes = table::FAILURE_MODES.map(str::to_owned);
    let scenarios = if named.is_empty() { &failure_modes } else { named };
    let sources: anyhow::Result<Vec<Source>> =
        scenarios.iter().map(|name| library::find(name, &[])).collect();
    let sources = sources.map_err(Failure::Usage)?;
    let names: String = named.iter().map(|name| format!(" {name}")).collect();
    let Range { start, end } = seeds;
    let again =
        format!("cargo run --release --bin detkv-sim -- table{names} --seeds {start}..{end}");
    let report = table::run(&this_binary()?, &sources, seeds, parallel, job, again);
    table::lines(&report).iter().for_each(|line| println!("{line}"));
    write_file(page, detkv_reports::table::table_page(&report).as_bytes())?;
    println!("page {}", page.display());
    if let Some(path) = json {
        write_json(path, &report)?;
        println!("figures {}", path.display());
    }
    println!("{} runs failed, {} s of wall time", report.failed(), report.wall_ms / 1000);
    println!("again: {}", report.reproduce);
    Ok(if report.failed() == 0 { End::Pass } else { End::Fail })
}

fn run_baseline(folder: &Path, update: bool, parallel: usize) -> anyhow::Result<End> {
    let compared = baseline::run(&this_binary()?, folder, update, parallel, job)?;
    let mut moved = 0;
    for one in &compared {
        println!("{}: {} figures, {} moved", one.scenario, one.figures, one.differences.len());
        one.differences.iter().for_each(|line| println!("  {line}"));
        moved += one.differences.len();
    }
    if moved > 0 && !update {
        println!("if that is meant: cargo run --release --bin detkv-sim -- baseline --update");
        return Ok(End::Fail);
    }
    Ok(End::Pass)
}

fn run_incidents(
    hours: u64,
    parallel: usize,
    page: &Path,
    json: Option<&Path>,
) -> anyhow::Result<End> {
    println!("{hours} virtual hours each, {parallel} processes at a time");
    let again = format!("cargo run --release --bin detkv-sim -- incidents --hours {hours}");
    let report = incidents::run(&this_binary()?, hours, parallel, job, again)?;
    incidents::table(&report).iter().for_each(|line| println!("{line}"));
    write_file(page, detkv_reports::incidents::incidents_page(&report).as_bytes())?;
    println!("page {}", page.display());
    if let Some(path) = json {
        write_json(path, &report)?;
        println!("figures {}", path.display());
    }
    println!("again: {}", report.reproduce);
    Ok(if report.rows.iter().all(|row| row.failures.is_empty()) { End::Pass } else { End::Fail })
}

/// Processes at a time.
fn parallel(jobs: Option<u32>) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    jobs.map_or_else(cores, |jobs| jobs as usize)
}

fn run_sweep(
    source: &Source,
    seeds: &[u64],
    only: Option<Profile>,
    jobs: Option<u32>,
    json: Option<&Path>,
) -> anyhow::Result<End> {
    let profiles = profiles(source, only);
    println!("{}: {}", source.scenario.name, source.scenario.about);
    println!(
        "{} seeds, {} profiles, {} processes at a time",
        seeds.len(),
        profiles.len(),
        parallel(jobs)
    );
    let list: Vec<Job> = seeds
        .iter()
        .flat_map(|seed| profiles.iter().map(|profile| job(source, *seed, *profile)))
        .collect();
    let results = sweep::sweep(&this_binary()?, &list, parallel(jobs));
    let mut failures: Vec<String> = Vec::new();
    for result in &results {
        match result {
            Err(crash) => failures.push(crash.to_string()),
            Ok(run) if run.verdict == Verdict::Fail => {
                failures.push(format!("seed {} {} FAIL", run.seed, run.profile));
                failures
                    .extend(sweep::reasons(run).into_iter().map(|reason| format!("  {reason}")));
                failures.push(format!("  {}", run.reproduce));
            }
            Ok(_) => {}
        }
    }
    let runs: Vec<&RunSummary> = results.iter().flatten().collect();
    for profile in &profiles {
        let name = profile.to_string();
        let own: Vec<&RunSummary> =
            runs.iter().copied().filter(|run| run.profile == name).collect();
        sweep::table(&name, &own).iter().for_each(|line| println!("{line}"));
    }
    if let Some(path) = json {
        write_json(path, &runs)?;
        println!("figures {}", path.display());
    }
    failures.iter().for_each(|line| println!("{line}"));
    let failed = results
        .iter()
        .filter(|result| result.as_ref().map_or(true, |run| run.verdict == Verdict::Fail))
        .count();
    println!(
        "{} {} of {} runs failed",
        if failed == 0 { "PASS" } else { "FAIL" },
        failed,
        results.len()
    );
    let shown = seeds.first().zip(seeds.last()).map(|(first, last)| (first, last + 1));
    if let Some((first, behind)) = shown {
        println!(
            "again: cargo run --release --bin detkv-sim -- sweep {} --seeds {first}..{behind}",
            source.given
        );
    }
    Ok(if failed == 0 { End::Pass } else { End::Fail })
}

fn run_swarm(
    seeds: &[u64],
    jobs: Option<u32>,
    page: &Path,
    json: Option<&Path>,
    require_marks: bool,
) -> anyhow::Result<End> {
    let (first, last) = (seeds[0], seeds[seeds.len() - 1]);
    println!(
        "swarm: {} seeds from {first} to {last}, {} processes at a time; every option is drawn from the seed",
        seeds.len(),
        parallel(jobs)
    );
    let totals = swarm::swarm(&this_binary()?, seeds, parallel(jobs))?;
    totals.lines().iter().for_each(|line| println!("{line}"));
    let again =
        format!("cargo run --release --bin detkv-sim -- swarm --seeds {first}..{}", last + 1);
    let report = totals.report(again.clone());
    write_file(page, detkv_reports::swarm::swarm_page(&report).as_bytes())?;
    println!("page {}", page.display());
    if let Some(path) = json {
        write_json(path, &totals)?;
        println!("figures {}", path.display());
    }
    let unmarked = if require_marks { totals.marks_missing().len() } else { 0 };
    if unmarked > 0 {
        println!("FAIL {unmarked} marks were never passed: nothing tests what they stand for");
    }
    let verdict = if totals.failed == 0 { "PASS" } else { "FAIL" };
    println!("{verdict} {} of {} runs failed", totals.failed, totals.runs);
    println!("again: {again}");
    Ok(if totals.failed == 0 && unmarked == 0 { End::Pass } else { End::Fail })
}

fn leak_zoo() -> anyhow::Result<End> {
    let (lines, right) = zoo::show(&this_binary()?)?;
    lines.iter().for_each(|line| println!("{line}"));
    let all = zoo::LEAKS.len();
    println!("{} leak zoo: {right}/{all} as stated", if right == all { "PASS" } else { "FAIL" });
    Ok(if right == all { End::Pass } else { End::Fail })
}

/// Every run to be checked: of one scenario, of `all`, or of the swarm.
fn determinism_jobs(
    scenario: &str,
    sets: &[String],
    seeds: &Range<u64>,
    only: Option<Profile>,
) -> anyhow::Result<Vec<Job>> {
    let mut list = Vec::new();
    for seed in seeds.clone() {
        let sources = match scenario {
            "all" => library::all()?,
            one => vec![library::for_seed(one, sets, seed)?],
        };
        for source in &sources {
            let own = profiles(source, only);
            list.extend(own.into_iter().map(|profile| job(source, seed, profile)));
        }
    }
    Ok(list)
}

fn check_determinism(
    scenario: &str,
    seeds: Range<u64>,
    list: &[Job],
    jobs: Option<u32>,
    other: Option<PathBuf>,
) -> anyhow::Result<End> {
    let binary = this_binary()?;
    let builds = match &other {
        Some(path) => format!("this build and {}", path.display()),
        None => "this build only: no other is there".to_owned(),
    };
    println!("{scenario}: seeds {}..{}, {builds}", seeds.start, seeds.end);
    let results = sweep::in_parallel(list, parallel(jobs), |job| {
        determinism::check(&binary, other.as_deref(), job)
    });
    let mut differences = Vec::new();
    for result in results {
        differences.extend(result?);
    }
    for difference in &differences {
        difference.lines.iter().for_each(|line| println!("{line}"));
    }
    let processes = if other.is_some() { 3 } else { 2 };
    if differences.is_empty() {
        println!("PASS {} runs, equal event hashes in {processes} processes each", list.len());
    } else {
        let seeds: Vec<String> = differences.iter().map(|d| d.seed.to_string()).collect();
        println!("FAIL {} of {} runs differ: seeds {}", seeds.len(), list.len(), seeds.join(", "));
    }
    println!(
        "again: cargo run --release --bin detkv-sim -- check-determinism {scenario} --seeds {}..{}",
        seeds.start, seeds.end
    );
    Ok(if differences.is_empty() { End::Pass } else { End::Nondeterminism })
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{}: no such path", path.display()))
}

/// `t.coupled.json` of `t.json`.
fn with_profile(path: &Path, profile: Profile) -> anyhow::Result<PathBuf> {
    let path = absolute(path)?;
    let extension = path.extension().and_then(|extension| extension.to_str());
    let extension = extension.map_or(profile.to_string(), |old| format!("{profile}.{old}"));
    Ok(path.with_extension(extension))
}

fn write_json(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    write_file(path, text.as_bytes())
}

fn write_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
