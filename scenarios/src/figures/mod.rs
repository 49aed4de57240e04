//! The figures of a run, from its history: what `expect` judges, `--json` says, and pages and tables show.
//!
//! Start at [`FIGURES`], the list of all, and [`Figures::of`], which counts them. One file per subject.

mod alarms;
mod cost;
mod leaders;
mod puts;
mod reads;
mod refusals;
mod snapshots;
mod syncs;
mod watches;

use std::collections::BTreeMap;

use detkv_core::Instant;
use detkv_sim_world::RunOutcome;
use detkv_sim_world::history::{History, Phase};

pub use leaders::Leaders;
pub use puts::Puts;

use crate::run::Finished;
use crate::scenario::{Scenario, Workload};

/// One figure: a whole number of a run.
pub struct Figure {
    pub name: &'static str,
    pub what: &'static str,
}

macro_rules! figures {
    ($($name:ident: $what:literal,)*) => {
        /// Every figure that `expect` and `show` may name.
        pub const FIGURES: &[Figure] = &[$(Figure { name: stringify!($name), what: $what },)*];
    };
}

figures! {
    leader_changes: "leaderships that began after the first one",
    elections: "terms for which a member campaigned",
    split_votes: "terms with a campaign and without a leader",
    terms: "the highest term",
    term_growth: "terms that the warmed-up cluster went through",
    two_leaders_ms: "longest time that a member took itself for the leader after another one had a higher term",
    planned_transfers: "leaderships handed over on purpose",
    slow_disk_alarm: "whether any member raised its slow-disk alarm (true or false)",
    converge_ms: "from the end of all faults until all members agree on a leader for good",
    converge_elections: "the same in election timeouts",
    puts_ok: "puts that succeeded",
    puts_failed: "puts that were refused or not answered in time",
    put_p50_us: "latency of successful puts",
    put_p99_us: "latency of successful puts",
    longest_put_gap_ms: "longest time between successive successful put returns over all clients",
    longest_put_gap_elections: "the same in election timeouts",
    gets_ok: "linearizable reads that were answered",
    gets_failed: "linearizable reads that were refused or not answered in time",
    get_p50_us: "latency of linearizable reads",
    get_p99_us: "latency of linearizable reads",
    stale_gets: "linearizable reads older than a write acknowledged before their call",
    serializable_ok: "serializable reads that were answered",
    serializable_p50_us: "latency of serializable reads",
    serializable_p99_us: "latency of serializable reads",
    stale_serializable: "serializable reads older than a write acknowledged before their call",
    stalest_serializable_ms: "how long before the read the oldest write that it missed was acknowledged",
    watch_events: "events shown to watchers",
    delivery_p50_us: "from a put's call to its event at a watcher that takes what comes",
    delivery_p99_us: "from a put's call to its event at a watcher that takes what comes",
    watch_lag_revisions: "the furthest any watcher fell behind the acknowledged writes",
    watch_buffered_bytes: "the most that a member held for watchers that had not taken it",
    watches_compacted: "watches that ended because what they had not read was compacted",
    members_alarmed: "members that raised an alarm for want of space",
    members_no_space: "members that refused something for want of space",
    puts_no_space: "puts refused for want of space",
    txns_no_space: "txns refused for want of space",
    grants_no_space: "lease grants refused for want of space",
    gets_under_alarm: "linearizable reads that were answered while the cluster was out of space",
    deletes_under_alarm: "deletes that succeeded while the cluster was out of space",
    compactions_under_alarm: "compactions that succeeded while the cluster was out of space",
    watch_events_under_alarm: "events shown to watchers while the cluster was out of space",
    deletes_ok: "deletes that succeeded",
    compactions_ok: "compactions that succeeded",
    snapshots_sent: "transfers of a snapshot that a leader began",
    snapshots_installed: "snapshots that a follower took from a leader",
    snapshot_transfer_ms: "the longest time from the start of a snapshot's transfer to its installation",
    serializable_in_transfer: "serializable reads that a follower answered while it was being sent a snapshot",
    snapshot_bytes: "sent to followers as snapshots",
    snapshot_bytes_per_sec: "the same over the time of all transfers",
    halts: "members that stopped by themselves: a failed disk",
    leader_syncs: "WAL syncs of the member that led",
    leader_syncs_over_1s: "of these, those that took a second or longer",
    leader_syncs_over_2s: "of these, those that took two seconds or longer",
    fsyncs_per_1000_calls: "of all members, all files",
    wal_fsyncs_per_1000_calls: "of all members, the WAL alone",
    peer_messages_per_1000_calls: "between members, heartbeats included",
    peer_bytes_per_call: "between members, heartbeats included",
    client_bytes_per_call: "between clients and members, both ways",
    disk_bytes_per_call: "written by all members",
}

/// The figure of this name.
///
/// Errors: there is none; says which there are.
pub fn find(name: &str) -> Result<&'static str, String> {
    let found = FIGURES.iter().find(|figure| figure.name == name);
    found.map(|figure| figure.name).ok_or_else(|| {
        let names: Vec<&str> = FIGURES.iter().map(|figure| figure.name).collect();
        format!("unknown figure `{name}`, expected one of {}", names.join(", "))
    })
}

/// Whether a figure is told as true or false.
pub fn is_flag(name: &str) -> bool {
    name == "slow_disk_alarm"
}

/// With a blank before it, for after the number.
pub fn unit(name: &str) -> &'static str {
    match name.rsplit_once('_') {
        Some((_, "ms")) => " ms",
        Some((_, "us")) => " µs",
        _ if name.contains("_bytes") => " bytes",
        _ => "",
    }
}

pub fn ms(at: Instant) -> u64 {
    at.ns / 1_000_000
}

/// By name; one that did not come to be (the p99 of nothing) is left out.
pub type Values = BTreeMap<String, u64>;

/// The part of a run that counts: calls made after the warm-up and before the faults were over.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub warm: Instant,
    pub end: Instant,
    /// When the run ended, for calls that were still open.
    pub last: Instant,
}

impl Window {
    pub fn of(outcome: &RunOutcome) -> Self {
        let history = &outcome.history;
        Self {
            warm: history.phase(Phase::WarmedUp).unwrap_or(Instant::FAR),
            end: history.phase(Phase::FaultsOver).unwrap_or(Instant::FAR),
            last: Instant { ns: outcome.virtual_ns },
        }
    }

    fn has(&self, called: Instant) -> bool {
        self.warm <= called && called < self.end
    }
}

/// Everything counted of a run.
pub struct Figures {
    pub puts: Puts,
    pub leaders: Leaders,
    pub values: Values,
}

impl Figures {
    pub fn of(scenario: &Scenario, finished: &Finished) -> Self {
        let outcome = &finished.outcome;
        let (history, window) = (&outcome.history, Window::of(outcome));
        let (puts, leaders) = (Puts::of(history, window), Leaders::of(history));
        let mut values = Values::new();
        let mut set = |name: &'static str, value: Option<u64>| {
            assert!(FIGURES.iter().any(|figure| figure.name == name), "{name} is in the list");
            values.extend(value.map(|value| (name.to_owned(), value)));
        };
        puts.figures(&mut set);
        leaders.figures(&mut set);
        reads::figures(history, window, &mut set);
        let is_slow = |client: u32| {
            let workload = finished.groups.iter().find(|(clients, _)| clients.contains(&client));
            workload.is_some_and(|(_, place)| is_slow_watcher(&scenario.workloads[*place]))
        };
        watches::figures(history, window, is_slow, &mut set);
        refusals::figures(history, window, &mut set);
        alarms::figures(history, &mut set);
        snapshots::figures(finished, &mut set);
        set("watch_buffered_bytes", Some(finished.watch_buffered_bytes));
        cost::figures(finished, window, &mut set);
        syncs::figures(finished, &leaders, window, &mut set);
        Self { puts, leaders, values }
    }
}

/// A watcher that does not take what comes as it comes.
fn is_slow_watcher(workload: &Workload) -> bool {
    matches!(workload, Workload::SlowWatcher(_))
}

/// Takes the figures of one subject.
type Set<'s> = &'s mut dyn FnMut(&'static str, Option<u64>);

/// Durations of which percentiles are wanted, in microseconds.
#[derive(Debug, Default)]
pub struct Latencies(Vec<u64>);

impl Latencies {
    pub fn push(&mut self, from: Instant, to: Instant) {
        self.0.push(to.since(from).as_micros() as u64);
    }

    /// Exact: the smallest value that 50 and 99 percent of all values do not exceed.
    pub fn p50_p99(mut self) -> (Option<u64>, Option<u64>) {
        self.0.sort_unstable();
        (percentile(&self.0, 50), percentile(&self.0, 99))
    }
}

/// Exact: the smallest value that `percent` of all values do not exceed.
fn percentile(sorted: &[u64], percent: usize) -> Option<u64> {
    let place = (sorted.len() * percent).div_ceil(100);
    sorted.get(place.saturating_sub(1)).copied()
}

/// Writes by the time of their acknowledgement: what a read called later must not miss.
struct Acknowledged {
    /// (returned, highest revision acknowledged by then), rising in both.
    steps: Vec<(Instant, i64)>,
}

impl Acknowledged {
    fn of(history: &History) -> Self {
        use detkv_sim_world::history::Outcome;
        let mut returns: Vec<(Instant, i64)> = history
            .operations()
            .iter()
            .filter(|op| op.call.may_write())
            .filter_map(|op| match op.outcome {
                Outcome::Done { revision, .. } => Some((op.returned, revision)),
                _ => None,
            })
            .collect();
        returns.sort_unstable();
        let mut steps: Vec<(Instant, i64)> = Vec::new();
        for (at, revision) in returns {
            if steps.last().is_none_or(|(_, highest)| *highest < revision) {
                steps.push((at, revision));
            }
        }
        Self { steps }
    }

    /// The highest revision acknowledged before `at`.
    fn before(&self, at: Instant) -> i64 {
        let place = self.steps.partition_point(|(returned, _)| *returned < at);
        place.checked_sub(1).map_or(0, |place| self.steps[place].1)
    }

    /// When it was first known that there is more than `revision`.
    fn first_above(&self, revision: i64) -> Option<Instant> {
        let place = self.steps.partition_point(|(_, highest)| *highest <= revision);
        self.steps.get(place).map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<u64> = (1..=200).collect();
        assert_eq!((percentile(&values, 50), percentile(&values, 99)), (Some(100), Some(198)));
        assert_eq!(percentile(&[7], 99), Some(7));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn a_read_misses_what_was_acknowledged_before_it() {
        let at = |ns| Instant { ns };
        let acknowledged = Acknowledged { steps: vec![(at(10), 5), (at(20), 8)] };
        let before: Vec<i64> = [10, 11, 20, 21].map(|ns| acknowledged.before(at(ns))).to_vec();
        assert_eq!(before, [0, 5, 5, 8]);
        assert_eq!(acknowledged.first_above(5), Some(at(20)));
        assert_eq!(acknowledged.first_above(8), None);
    }

    #[test]
    fn the_readme_tells_every_figure() {
        let readme = include_str!("../../README.md");
        for figure in FIGURES {
            assert!(readme.contains(&format!("`{}`", figure.name)), "{}", figure.name);
        }
    }
}
