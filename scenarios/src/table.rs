//! The documented failure modes side by side: every scenario in each of its profiles, over many seeds.

use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use detkv_reports::run::{RunSummary, Verdict};
use detkv_reports::table::{FigureRow, ProfileColumn, ScenarioTable, Spread, TableReport, words};

use crate::child::Job;
use crate::figures::{FIGURES, unit};
use crate::library::Source;
use crate::scenario::Profile;
use crate::sweep::{reasons, sweep};

/// The failure modes of the table, in its order.
pub const FAILURE_MODES: [&str; 7] = [
    "slow-disk",
    "minority-leader",
    "leader-storm",
    "watch-starvation",
    "snapshot-transfer",
    "quota",
    "disk-full",
];

/// Runs every source over `seeds`. `job` makes the job of a seed; `reproduce` is the command that repeats all of it.
/// A run that crashed counts as failed.
pub fn run(
    binary: &Path,
    sources: &[Source],
    seeds: Range<u64>,
    parallel: usize,
    job: impl Fn(&Source, u64, Profile) -> Job,
    reproduce: String,
) -> TableReport {
    let started = Instant::now();
    // Seeds outside: the bar's guess of what is left is fair from the start.
    let mut jobs = Vec::new();
    for seed in seeds.clone() {
        for source in sources {
            let profiles = source.scenario.profiles.iter();
            jobs.extend(profiles.map(|profile| job(source, seed, *profile)));
        }
    }
    let runs: Vec<(&Job, anyhow::Result<RunSummary>)> =
        jobs.iter().zip(sweep(binary, &jobs, parallel)).collect();
    TableReport {
        seeds: seeds.end - seeds.start,
        scenarios: sources.iter().map(|source| scenario_table(source, &runs)).collect(),
        wall_ms: started.elapsed().as_millis() as u64,
        reproduce,
    }
}

fn scenario_table(source: &Source, runs: &[(&Job, anyhow::Result<RunSummary>)]) -> ScenarioTable {
    let scenario = &source.scenario;
    let own = |profile: Profile| {
        runs.iter().filter(move |(job, _)| job.name == scenario.name && job.profile == profile)
    };
    let profiles = scenario.profiles.iter().map(|profile| ProfileColumn {
        name: profile.to_string(),
        runs: own(*profile).count() as u64,
        failures: own(*profile).filter_map(|(job, result)| failure(job, result)).collect(),
    });
    let figures = scenario.show.iter().map(|name| {
        let values = |profile: &Profile| {
            let runs = own(*profile).filter_map(|(_, result)| result.as_ref().ok());
            Spread::of(runs.filter_map(|run| run.figures.get(*name).copied()).collect())
        };
        let figure = FIGURES.iter().find(|figure| figure.name == *name);
        FigureRow {
            name: (*name).to_owned(),
            what: figure.map_or(String::new(), |figure| figure.what.to_owned()),
            unit: unit(name).to_owned(),
            spreads: scenario.profiles.iter().map(values).collect(),
        }
    });
    ScenarioTable {
        name: scenario.name.clone(),
        about: scenario.about.clone(),
        profiles: profiles.collect(),
        figures: figures.collect(),
    }
}

fn failure(job: &Job, result: &anyhow::Result<RunSummary>) -> Option<String> {
    match result {
        Err(crash) => Some(crash.to_string()),
        Ok(run) if run.verdict == Verdict::Fail => {
            let why = reasons(run).join("; ");
            Some(format!("seed {}: {why}\n  {}", job.seed, run.reproduce))
        }
        Ok(_) => None,
    }
}

/// The table for a terminal.
pub fn lines(report: &TableReport) -> Vec<String> {
    let mut lines = Vec::new();
    for scenario in &report.scenarios {
        lines.push(format!("{}: {}", scenario.name, scenario.about));
        let heads = scenario.profiles.iter().map(|profile| {
            let (name, runs, failed) = (&profile.name, profile.runs, profile.failures.len());
            format!("{:>40}", format!("{name} ({runs} runs, {failed} failed)"))
        });
        lines.push(format!("  {:<28}{}", "", heads.collect::<String>()));
        for row in &scenario.figures {
            let cell = |spread: &Option<Spread>| {
                let text = spread.map_or("–".to_owned(), |spread| words(spread, &row.unit));
                format!("{text:>40}")
            };
            let cells: String = row.spreads.iter().map(cell).collect();
            lines.push(format!("  {:<28}{cells}", row.name));
        }
        for failure in scenario.profiles.iter().flat_map(|profile| &profile.failures) {
            lines.push(format!("  FAIL {failure}"));
        }
    }
    lines
}
