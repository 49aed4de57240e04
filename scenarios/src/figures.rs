//! The figures of a run, from its history: what `--json` says and what the page draws.

use std::collections::{BTreeMap, BTreeSet};

use detkv_core::member::Role as CoreRole;
use detkv_core::{Instant, MemberId};
use detkv_reports::run::{PutGap, PutSample};
use detkv_sim_world::history::{Call, Fact, History, Outcome, Phase};

/// Gaps of at least this are marked on the page.
const GAP_MARKED_MS: u64 = 50;

pub fn ms(at: Instant) -> u64 {
    at.ns / 1_000_000
}

/// The puts of the measured part: called after the warm-up and before the faults were over.
#[derive(Debug, Default)]
pub struct Puts {
    pub ok: u64,
    pub failed: u64,
    pub longest_gap_ms: u64,
    pub p50_us: Option<u64>,
    pub p99_us: Option<u64>,
    /// All puts of the run, also those of the warm-up.
    pub samples: Vec<PutSample>,
    pub gaps: Vec<PutGap>,
}

impl Puts {
    /// `last`: when the run ended, for calls that were still open.
    pub fn of(history: &History, last: Instant) -> Self {
        let end = history.phase(Phase::FaultsOver).unwrap_or(Instant::FAR);
        let warm = history.phase(Phase::WarmedUp).unwrap_or(Instant::FAR);
        let mut puts = Self::default();
        let mut latencies_us = Vec::new();
        let mut returns = Vec::new();
        for op in history.operations() {
            if !matches!(op.call, Call::Put(_)) {
                continue;
            }
            let ok = matches!(op.outcome, Outcome::Done { .. });
            let latency_us = op.ended.min(last).since(op.called).as_micros() as u64;
            puts.samples.push(PutSample {
                time_ms: ms(op.called),
                latency_us,
                ok,
                member: op.member.0,
            });
            if ok && op.returned >= warm {
                returns.push(op.returned);
            }
            if op.called < warm || op.called >= end {
                continue;
            }
            if ok {
                puts.ok += 1;
                latencies_us.push(latency_us);
            } else {
                puts.failed += 1;
            }
        }
        latencies_us.sort_unstable();
        puts.p50_us = percentile(&latencies_us, 50);
        puts.p99_us = percentile(&latencies_us, 99);
        puts.measure_gaps(warm, end, returns);
        puts
    }

    /// Gaps between successive returns; the ends of the measured part count as returns, so that an outage that
    /// lasts to the end is not left out.
    fn measure_gaps(&mut self, warm: Instant, end: Instant, mut returns: Vec<Instant>) {
        if self.ok + self.failed == 0 {
            return;
        }
        returns.push(warm);
        returns.push(end);
        returns.sort_unstable();
        for pair in returns.windows(2).filter(|pair| pair[1] <= end) {
            let gap_ms = pair[1].since(pair[0]).as_millis() as u64;
            self.longest_gap_ms = self.longest_gap_ms.max(gap_ms);
            if gap_ms >= GAP_MARKED_MS {
                self.gaps.push(PutGap { from_ms: ms(pair[0]), to_ms: ms(pair[1]) });
            }
        }
    }
}

/// Exact: the smallest value that `percent` of all values do not exceed.
fn percentile(sorted: &[u64], percent: usize) -> Option<u64> {
    let place = (sorted.len() * percent).div_ceil(100);
    sorted.get(place.saturating_sub(1)).copied()
}

/// Who led when, and what the members reported.
#[derive(Debug, Default)]
pub struct Leaders {
    /// Leaderships that began after the first one.
    pub changes: u64,
    pub highest_term: u64,
    /// Terms for which a member campaigned.
    pub elections: u64,
    /// Terms with a campaign and without a leader.
    pub split_votes: u64,
    pub planned_transfers: u64,
    pub slow_disk_alarm: bool,
    /// When each leadership began.
    pub began: Vec<(Instant, MemberId, u64)>,
}

impl Leaders {
    pub fn of(history: &History) -> Self {
        let mut leaders = Self::default();
        let mut campaigned = BTreeSet::new();
        let mut led = BTreeSet::new();
        let mut transfers: BTreeMap<MemberId, u64> = BTreeMap::new();
        for (at, fact) in history.facts() {
            match fact {
                Fact::Role { member, role, term, .. } => {
                    leaders.highest_term = leaders.highest_term.max(*term);
                    if *role == CoreRole::Leader && led.insert(*term) {
                        leaders.began.push((*at, *member, *term));
                    }
                    // A lone voter leads without having been seen as candidate.
                    if matches!(role, CoreRole::Candidate | CoreRole::Leader) {
                        campaigned.insert(*term);
                    }
                }
                Fact::Metric { member, name: "planned_transfers_total", value } => {
                    let before = transfers.insert(*member, *value).unwrap_or(0);
                    leaders.planned_transfers += value.saturating_sub(before);
                }
                Fact::Metric { name: "slow_disk_alarm", value, .. } => {
                    leaders.slow_disk_alarm |= *value > 0;
                }
                // Counters start again with the process.
                Fact::Down { member, .. } => {
                    transfers.remove(member);
                }
                _ => {}
            }
        }
        leaders.changes = leaders.began.len().saturating_sub(1) as u64;
        leaders.elections = campaigned.len() as u64;
        leaders.split_votes = campaigned.difference(&led).count() as u64;
        leaders
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
    fn an_outage_to_the_end_is_a_gap() {
        let at = |ms: u64| Instant { ns: ms * 1_000_000 };
        let mut puts = Puts { ok: 3, ..Puts::default() };
        puts.measure_gaps(at(1000), at(5000), vec![at(1010), at(1030), at(1100)]);
        assert_eq!(puts.longest_gap_ms, 3900);
        assert_eq!(puts.gaps.len(), 2, "70 ms and 3900 ms");
    }
}
