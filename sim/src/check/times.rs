//! What may have kept the members from their work, and when: clocks, leaderships, faults.

use std::collections::BTreeMap;
use std::time::Duration;

use detkv_core::{Instant, MemberId};

use super::Case;
use crate::history::{Fact, History, RaftStep, Rare};

/// When what may have disturbed a leader.
#[derive(Debug)]
pub struct Times {
    pub end: Instant,
    drift_ppm: u64,
    /// (when, forward by this much, ns).
    steps: Vec<(Instant, i64)>,
    /// (from, until).
    leaderships: Vec<(Instant, Instant)>,
    /// Times in which some fault was active; disjoint, ascending.
    faults: Vec<(Instant, Instant)>,
}

impl Times {
    pub fn new(case: &Case) -> Self {
        let history = case.history;
        let facts = history.facts().last().map(|(at, _)| *at);
        let ended = history.operations().iter().map(|op| op.ended).filter(|at| *at < Instant::FAR);
        let end = ended.chain(facts).max().unwrap_or(Instant::ZERO);
        let steps = history.facts().iter().filter_map(|(at, fact)| match fact {
            Fact::ClockStepped { ns, .. } => Some((*at, *ns)),
            _ => None,
        });
        Self {
            end,
            drift_ppm: u64::from(history.settings().drift_ppm),
            steps: steps.collect(),
            leaderships: leaderships(history),
            faults: fault_times(history),
        }
    }

    /// How much more than true time a member's clock may have counted between two times.
    pub fn fast(&self, from: Instant, to: Instant) -> Duration {
        let steps = self.steps.iter().filter(|(at, ns)| *at >= from && *at <= to && *ns > 0);
        let stepped: u64 = steps.map(|(_, ns)| ns.unsigned_abs()).sum();
        Duration::from_nanos(stepped + self.drifted(from, to))
    }

    fn drifted(&self, from: Instant, to: Instant) -> u64 {
        (u128::from(to.since(from).as_nanos() as u64) * u128::from(self.drift_ppm) / 1_000_000)
            as u64
    }

    /// The last leadership that began by `until`: when, and when it was over.
    pub fn last_leadership(&self, until: Instant) -> Option<(Instant, Instant)> {
        self.leaderships.iter().filter(|(from, _)| *from <= until).max().copied()
    }

    /// How long a leader may have been kept from its work between two times.
    pub fn troubled(&self, from: Instant, to: Instant) -> Duration {
        let overlap = |(begin, end): &(Instant, Instant)| {
            (*end).min(to).ns.saturating_sub((*begin).max(from).ns)
        };
        let faults: u64 = self.faults.iter().map(overlap).sum();
        let back = self.steps.iter().filter(|(at, ns)| *at >= from && *at <= to && *ns < 0);
        let back: u64 = back.map(|(_, ns)| ns.unsigned_abs()).sum();
        Duration::from_nanos(faults + back + self.drifted(from, to))
    }
}

/// From when until when each member led; `FAR` when it still did at the end.
fn leaderships(history: &History) -> Vec<(Instant, Instant)> {
    let mut led = Vec::new();
    let mut leads: BTreeMap<MemberId, Instant> = BTreeMap::new();
    for step in history.raft().steps() {
        let RaftStep::Rare { at, member, what } = step else { continue };
        if matches!(what, Rare::Leads { .. } | Rare::Follows { .. } | Rare::Ended { .. }) {
            led.extend(leads.remove(&member).map(|from| (from, at)));
        }
        if matches!(what, Rare::Leads { .. }) {
            leads.insert(member, at);
        }
    }
    led.extend(leads.into_values().map(|from| (from, Instant::FAR)));
    led
}

/// What happens at once (a kill, a restart, a step of a clock) is felt for so long.
const AFTERMATH: Duration = Duration::from_secs(5);

/// Merged times of all faults. A run ends every fault that lasts: one without an end happened at once.
fn fault_times(history: &History) -> Vec<(Instant, Instant)> {
    let mut open: BTreeMap<u32, Instant> = BTreeMap::new();
    let mut times = Vec::new();
    for (at, fact) in history.facts() {
        match fact {
            Fact::FaultBegan { fault, .. } => {
                open.insert(*fault, *at);
            }
            Fact::FaultEnded { fault } => {
                times.extend(open.remove(fault).map(|began| (began, *at)));
            }
            _ => {}
        }
    }
    times.extend(open.into_values().map(|began| (began, began + AFTERMATH)));
    times.sort_unstable();
    let mut merged: Vec<(Instant, Instant)> = Vec::new();
    for (begin, end) in times {
        match merged.last_mut() {
            Some((_, last)) if begin <= *last => *last = end.max(*last),
            _ => merged.push((begin, end)),
        }
    }
    merged
}
