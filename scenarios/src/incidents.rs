//! Leader changes per hour on disks that real clusters had, clustered and not, in both profiles.
//!
//! A histogram has no time axis: how its slow syncs follow each other decides how often a leader is lost, so
//! both ends are shown, drawn one by one and in runs.

use std::path::Path;

use detkv_reports::run::{RunSummary, Verdict};
use serde::Serialize;

use crate::child::Job;
use crate::library::{self, Source};
use crate::scenario::Profile;
use crate::sweep::{reasons, sweep};

/// Virtual minutes of one run: long enough that the start does not count, short enough to run in parallel.
const RUN_MINUTES: u64 = 10;
const RUNS_PER_HOUR: u64 = 60 / RUN_MINUTES;
const SCENARIO: &str = "slow-disk";
const CLUSTERED: &str = "-clustered";

/// What came of one disk in one profile.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub incident: String,
    pub clustered: bool,
    pub profile: String,
    pub virtual_hours: u64,
    pub leader_changes: u64,
    pub leader_changes_per_hour: f64,
    /// One standard deviation, if changes come at random.
    pub spread_per_hour: f64,
    pub elections: u64,
    pub longest_put_gap_ms: u64,
    pub puts_ok: u64,
    pub puts_failed: u64,
    /// Runs that failed a checker, with why.
    pub failures: Vec<String>,
}

/// The committed incidents' names.
fn incidents() -> Vec<String> {
    let names = library::names();
    let clustered = names.iter().filter_map(|name| name.strip_suffix(CLUSTERED));
    clustered
        .filter_map(|name| name.strip_prefix(SCENARIO)?.strip_prefix('-'))
        .map(str::to_owned)
        .collect()
}

/// Runs every incident for so many virtual hours. `job` makes the job of a seed.
///
/// Errors: a run crashed.
pub fn run(
    binary: &Path,
    hours: u64,
    parallel: usize,
    job: impl Fn(&Source, u64, Profile) -> Job,
) -> anyhow::Result<Vec<Row>> {
    let seeds = hours * RUNS_PER_HOUR;
    let sets = [format!("duration=\"{RUN_MINUTES}m\"")];
    let (mut rows, mut jobs) = (Vec::new(), Vec::new());
    for incident in incidents() {
        for suffix in ["", CLUSTERED] {
            let source = library::find(&format!("{SCENARIO}-{incident}{suffix}"), &sets)?;
            for profile in &source.scenario.profiles {
                jobs.extend((0..seeds).map(|seed| job(&source, seed, *profile)));
                rows.push((incident.clone(), !suffix.is_empty(), *profile));
            }
        }
    }
    let mut runs = sweep(binary, &jobs, parallel).into_iter();
    rows.into_iter()
        .map(|(incident, clustered, profile)| {
            let own: Vec<RunSummary> =
                runs.by_ref().take(seeds as usize).collect::<anyhow::Result<_>>()?;
            Ok(row(incident, clustered, profile, hours, &own))
        })
        .collect()
}

fn row(
    incident: String,
    clustered: bool,
    profile: Profile,
    hours: u64,
    runs: &[RunSummary],
) -> Row {
    let sum = |figure: fn(&RunSummary) -> u64| runs.iter().map(figure).sum::<u64>();
    let leader_changes = sum(|run| run.leader_changes);
    let failed = runs.iter().filter(|run| run.verdict == Verdict::Fail);
    Row {
        incident,
        clustered,
        profile: profile.to_string(),
        virtual_hours: hours,
        leader_changes,
        leader_changes_per_hour: leader_changes as f64 / hours as f64,
        spread_per_hour: (leader_changes as f64).sqrt() / hours as f64,
        elections: sum(|run| run.elections) - runs.len() as u64,
        longest_put_gap_ms: runs.iter().map(|run| run.longest_put_gap_ms).max().unwrap_or(0),
        puts_ok: sum(|run| run.puts_ok),
        puts_failed: sum(|run| run.puts_failed),
        failures: failed
            .map(|run| {
                format!("seed {}: {} ({})", run.seed, reasons(run).join("; "), run.reproduce)
            })
            .collect(),
    }
}

/// One line per disk.
pub fn table(rows: &[Row]) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<24}{:<11}{:<11}{:>14}{:>16}{:>16}{:>13}",
        "disk of every member",
        "slow syncs",
        "profile",
        "changes / h",
        "longest gap ms",
        "puts failed",
        "of puts"
    )];
    for row in rows {
        let (order, puts) =
            (if row.clustered { "in runs" } else { "at random" }, row.puts_ok + row.puts_failed);
        let rate = format!("{:.1} ± {:.1}", row.leader_changes_per_hour, row.spread_per_hour);
        lines.push(format!(
            "{:<24}{order:<11}{:<11}{rate:>14}{:>16}{:>16}{puts:>13}",
            row.incident, row.profile, row.longest_put_gap_ms, row.puts_failed
        ));
        lines.extend(row.failures.iter().map(|failure| format!("  FAIL {failure}")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_incident_has_a_variant_of_each_kind() {
        let expected =
            ["etcd-10273-hdd", "etcd-12405-slow-member", "etcd-7312", "etcd-9407", "etcd-9544"];
        let mut found = incidents();
        found.sort();
        assert_eq!(found, expected);
    }
}
