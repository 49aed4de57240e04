//! Many seeds: children in parallel, then least, median and most of each figure.

use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use detkv_reports::run::{RunSummary, Verdict, is_good};
use indicatif::{ProgressBar, ProgressStyle};

use crate::child::{Job, spawn};

/// Runs `work` on every item on `jobs` threads, in order; a progress bar on a terminal.
pub fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    jobs: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {elapsed} ({eta} left)")
        .expect("the template is right");
    // Draws on a terminal only.
    let bar = ProgressBar::new(items.len() as u64).with_style(style);
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, R)>> = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(place) else { return };
                    let result = work(item);
                    results.lock().expect("no worker panics holding it").push((place, result));
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut results = results.into_inner().expect("no worker panics holding it");
    results.sort_by_key(|(place, _)| *place);
    results.into_iter().map(|(_, result)| result).collect()
}

/// The seeds of one of several machines: every `of`-th, from the `shard`-th on.
pub fn shard(seeds: Range<u64>, shard: u64, of: u64) -> Vec<u64> {
    seeds.filter(|seed| seed % of == (shard - 1) % of).collect()
}

/// Every run's summary, or how it crashed.
pub fn sweep(binary: &Path, jobs: &[Job], parallel: usize) -> Vec<anyhow::Result<RunSummary>> {
    in_parallel(jobs, parallel, |job| spawn(binary, job).map(|child| child.report.summary))
}

/// The table of one profile's runs.
pub fn table(profile: &str, runs: &[&RunSummary]) -> Vec<String> {
    let mut lines = vec![format!(
        "{profile}: {} runs, {} failed",
        runs.len(),
        runs.iter().filter(|run| run.verdict == Verdict::Fail).count()
    )];
    type Figure = (&'static str, fn(&RunSummary) -> Option<u64>);
    let figures: [Figure; 11] = [
        ("longest put gap, ms", |run| Some(run.longest_put_gap_ms)),
        ("leader changes", |run| Some(run.leader_changes)),
        ("split votes", |run| Some(run.split_votes)),
        ("planned transfers", |run| Some(run.planned_transfers)),
        ("puts ok", |run| Some(run.puts_ok)),
        ("puts failed", |run| Some(run.puts_failed)),
        ("put p50, µs", |run| run.put_p50_us),
        ("put p99, µs", |run| run.put_p99_us),
        ("virtual ms", |run| Some(run.virtual_ms)),
        ("wall ms", |run| Some(run.wall_ms)),
        ("CPU ms", |run| Some(run.cpu_ms)),
    ];
    lines.push(format!("  {:<22}{:>12}{:>12}{:>12}", "", "min", "median", "max"));
    for (name, figure) in figures {
        let mut values: Vec<u64> = runs.iter().filter_map(|run| figure(run)).collect();
        values.sort_unstable();
        if let (Some(min), Some(max)) = (values.first(), values.last()) {
            let median = values[(values.len() - 1) / 2];
            lines.push(format!("  {name:<22}{min:>12}{median:>12}{max:>12}"));
        }
    }
    lines
}

/// Why a run failed, one line each.
pub fn reasons(run: &RunSummary) -> Vec<String> {
    let bad = run.checkers.iter().filter(|(_, verdict)| !is_good(verdict));
    let mut lines: Vec<String> = bad.map(|(name, verdict)| format!("{name}: {verdict}")).collect();
    lines.extend(run.expectations.iter().filter(|expectation| !expectation.ok).map(
        |expectation| {
            let (name, actual) = (&expectation.name, &expectation.actual);
            format!("{name}: {actual}, expected {}", expectation.expected)
        },
    ));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_all_seeds_and_repeat_none() {
        let mut all: Vec<u64> = (1..=3).flat_map(|k| shard(0..50, k, 3)).collect();
        all.sort_unstable();
        assert_eq!(all, (0..50).collect::<Vec<u64>>());
    }

    #[test]
    fn results_keep_the_order_of_the_items() {
        let items: Vec<u64> = (0..100).collect();
        assert_eq!(in_parallel(&items, 7, |n| n * 2), (0..200).step_by(2).collect::<Vec<u64>>());
    }
}
