//! Leader changes per hour on disks that real clusters had, clustered and not, in both profiles.
//!
//! A histogram has no time axis: how its slow syncs follow each other may decide how often a leader is lost, so
//! both ends are shown, drawn one by one and in runs. Beside what was counted stands what the histogram alone
//! makes one expect (`scenarios/README.md`, "Incidents"): see [`expected_per_hour`].

use std::path::Path;
use std::time::Duration;

use detkv_reports::incidents::{IncidentRow, IncidentsReport};
use detkv_reports::run::{RunSummary, Verdict};
use detkv_sim_world::empirical::Empirical;
use detkv_sim_world::prometheus::Histogram;

use crate::child::Job;
use crate::library::{self, Source};
use crate::scenario::Profile;
use crate::sweep::{reasons, sweep};

/// Virtual minutes of one run: long enough that the start does not count, short enough to run in parallel.
const RUN_MINUTES: u64 = 10;
const RUNS_PER_HOUR: u64 = 60 / RUN_MINUTES;
const SCENARIO: &str = "slow-disk";
const CLUSTERED: &str = "-clustered";
/// What is needed of each run; to name them is to have syncs recorded.
const SHOW: &str = r#"show=["leader_changes", "leader_syncs", "leader_syncs_over_1s"]"#;

/// The committed incidents' names.
fn incidents() -> Vec<String> {
    let names = library::names();
    let clustered = names.iter().filter_map(|name| name.strip_suffix(CLUSTERED));
    clustered
        .filter_map(|name| name.strip_prefix(SCENARIO)?.strip_prefix('-'))
        .map(str::to_owned)
        .collect()
}

/// What a row is about.
struct Cell {
    incident: String,
    clustered: bool,
    profile: Profile,
    disk: Empirical,
}

/// Runs every incident for so many virtual hours. `job` makes the job of a seed; `reproduce` is the command that
/// repeats all of it.
///
/// Errors: a run crashed.
pub fn run(
    binary: &Path,
    hours: u64,
    parallel: usize,
    job: impl Fn(&Source, u64, Profile) -> Job,
    reproduce: String,
) -> anyhow::Result<IncidentsReport> {
    let started = std::time::Instant::now();
    let seeds = hours * RUNS_PER_HOUR;
    let sets = [format!("duration=\"{RUN_MINUTES}m\""), SHOW.to_owned()];
    let (mut cells, mut jobs) = (Vec::new(), Vec::new());
    for incident in incidents() {
        let text = library::read_incident(&format!("incidents/{incident}.prom"))
            .map_err(|why| anyhow::anyhow!("{incident}: {why}"))?;
        let histogram = Histogram::parse(&text)
            .map_err(|error| anyhow::anyhow!("{incident}: {}", error.message))?;
        let disk =
            Empirical::new(&histogram).map_err(|error| anyhow::anyhow!("{incident}: {error}"))?;
        for suffix in ["", CLUSTERED] {
            let source = library::find(&format!("{SCENARIO}-{incident}{suffix}"), &sets)?;
            for profile in &source.scenario.profiles {
                jobs.extend((0..seeds).map(|seed| job(&source, seed, *profile)));
                let (incident, disk) = (incident.clone(), disk.clone());
                let clustered = !suffix.is_empty();
                cells.push(Cell { incident, clustered, profile: *profile, disk });
            }
        }
    }
    let mut runs = sweep(binary, &jobs, parallel).into_iter();
    let rows = cells.into_iter().map(|cell| {
        let own: Vec<RunSummary> =
            runs.by_ref().take(seeds as usize).collect::<anyhow::Result<_>>()?;
        Ok(row(cell, hours, &own))
    });
    let rows = rows.collect::<anyhow::Result<Vec<IncidentRow>>>()?;
    let wall_ms = started.elapsed().as_millis() as u64;
    Ok(IncidentsReport { hours, rows, wall_ms, reproduce })
}

fn row(cell: Cell, hours: u64, runs: &[RunSummary]) -> IncidentRow {
    let sum = |figure: fn(&RunSummary) -> u64| runs.iter().map(figure).sum::<u64>();
    let named = |name: &str| runs.iter().filter_map(|run| run.figures.get(name)).sum::<u64>();
    // Seeds merged hour by hour: their spread is that of any hour.
    let each_hour: Vec<u64> = runs
        .chunks(RUNS_PER_HOUR as usize)
        .map(|hour| hour.iter().map(|run| run.leader_changes).sum())
        .collect();
    let failed = runs.iter().filter(|run| run.verdict == Verdict::Fail);
    let leader_changes = sum(|run| run.leader_changes);
    let leader_syncs = named("leader_syncs");
    let per_hour = leader_syncs as f64 / hours as f64;
    let expected = expected_per_hour(&cell.disk, cell.profile, per_hour);
    IncidentRow {
        incident: cell.incident,
        clustered: cell.clustered,
        profile: cell.profile.to_string(),
        leader_changes,
        least_of_an_hour: each_hour.iter().min().copied().unwrap_or(0),
        most_of_an_hour: each_hour.iter().max().copied().unwrap_or(0),
        elections: sum(|run| run.elections) - runs.len() as u64,
        leader_syncs,
        leader_syncs_over_1s: named("leader_syncs_over_1s"),
        expected_per_hour: expected,
        longest_put_gap_ms: runs.iter().map(|run| run.longest_put_gap_ms).max().unwrap_or(0),
        puts_ok: sum(|run| run.puts_ok),
        puts_failed: sum(|run| run.puts_failed),
        cpu_ms: sum(|run| run.cpu_ms),
        failures: failed
            .map(|run| {
                format!("seed {}: {} ({})", run.seed, reasons(run).join("; "), run.reproduce)
            })
            .collect(),
    }
}

/// Leaders lost per hour by the disk alone, at least and at most, for a leader with so many WAL syncs.
///
/// A coupled leader says nothing while it syncs, and has been silent for up to a heartbeat before. Followers wait for
/// 1 s to 2 s, each drawn anew in every term, and between two syncs the leader's appends start all waits anew. So
/// the order of the syncs has no part in it. A decoupled one waits for no sync, and hands over after ten timeouts.
fn expected_per_hour(disk: &Empirical, profile: Profile, syncs_per_hour: f64) -> (f64, f64) {
    let election = Duration::from_secs(1);
    let heartbeat = Duration::from_millis(100);
    let (least, most) = match profile {
        Profile::Coupled => (election * 2, election - heartbeat),
        Profile::Decoupled => (election * 10, election * 10),
    };
    (disk.share_from(least) * syncs_per_hour, disk.share_from(most) * syncs_per_hour)
}

/// One line per disk.
pub fn table(report: &IncidentsReport) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<24}{:<11}{:<11}{:>20}{:>16}{:>12}{:>10}{:>12}{:>10}{:>13}{:>12}",
        "disk of every member",
        "slow syncs",
        "profile",
        "changes/h (of an h)",
        "by histogram/h",
        "elections/h",
        "syncs/s",
        "over 1 s/h",
        "gap ms",
        "puts failed",
        "of puts"
    )];
    for row in &report.rows {
        let order = if row.clustered { "in runs" } else { "at random" };
        let per_hour = |n: u64| n as f64 / report.hours as f64;
        let changes = format!(
            "{:.2} ± {:.2} ({}..{})",
            per_hour(row.leader_changes),
            (row.leader_changes as f64).sqrt() / report.hours as f64,
            row.least_of_an_hour,
            row.most_of_an_hour
        );
        let expected = match row.expected_per_hour {
            (0.0, 0.0) => "0".to_owned(),
            (least, most) => format!("{least:.2}..{most:.2}"),
        };
        lines.push(format!(
            "{:<24}{order:<11}{:<11}{changes:>20}{expected:>16}{:>12.2}{:>10.1}{:>12.2}{:>10}{:>13}{:>12}",
            row.incident,
            row.profile,
            per_hour(row.elections),
            per_hour(row.leader_syncs) / 3600.0,
            per_hour(row.leader_syncs_over_1s),
            row.longest_put_gap_ms,
            row.puts_failed,
            row.puts_ok + row.puts_failed
        ));
        lines.extend(row.failures.iter().map(|failure| format!("  FAIL {failure}")));
    }
    let (cpu_ms, cells) =
        (report.rows.iter().map(|row| row.cpu_ms).sum::<u64>(), report.rows.len() as u64);
    let hours = (report.hours * cells).max(1);
    lines.push(format!(
        "{hours} virtual hours: {}.{} s of CPU each, {} s on the wall",
        cpu_ms / hours / 1000,
        cpu_ms / hours / 100 % 10,
        report.wall_ms / 1000
    ));
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

    #[test]
    fn the_disk_alone_bounds_how_often_a_leader_is_lost() {
        let text = library::read_incident("incidents/etcd-9407.prom").expect("it comes with us");
        let histogram = Histogram::parse(&text).expect("it is a histogram");
        let disk = Empirical::new(&histogram).expect("its sum fits its buckets");
        // 447 of 56,055,631 took more than 2.048 s, 2,262 more than 1.024 s, 16,848 more than 0.512 s.
        let (least, most) = expected_per_hour(&disk, Profile::Coupled, 56_055_631.0);
        assert!((447.0..600.0).contains(&least), "{least}");
        assert!((2_262.0..8_000.0).contains(&most), "{most}");
        // 43 took more than 8.192 s.
        let (least, most) = expected_per_hour(&disk, Profile::Decoupled, 56_055_631.0);
        assert!(least == most && (20.0..43.0).contains(&least), "{least}");
    }
}
