//! Leaders: who led when, and what the members reported of it.

use std::collections::{BTreeMap, BTreeSet};

use detkv_core::member::Role as CoreRole;
use detkv_core::{Instant, MemberId};
use detkv_sim_world::history::{Fact, History, Phase};

use super::Set;

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
    /// The highest term when the cluster had warmed up.
    warm_term: u64,
    /// From the end of the faults until the members agree for good; `None` if they never do.
    converge_ms: Option<u64>,
    /// The longest that a member took itself for the leader after another one had a higher term.
    two_leaders_ms: u64,
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
                Fact::Phase(Phase::WarmedUp) => leaders.warm_term = leaders.highest_term,
                _ => {}
            }
        }
        leaders.converge_ms = converge_ms(history);
        leaders.two_leaders_ms = two_leaders_ms(history);
        leaders.changes = leaders.began.len().saturating_sub(1) as u64;
        leaders.elections = campaigned.len() as u64;
        leaders.split_votes = campaigned.difference(&led).count() as u64;
        leaders
    }
}

impl Leaders {
    /// Who led at this time, dead or alive: the last one that began.
    pub(super) fn at(&self, at: Instant) -> Option<MemberId> {
        let begun = self.began.partition_point(|(began, _, _)| *began <= at);
        begun.checked_sub(1).map(|last| self.began[last].1)
    }

    pub(super) fn figures(&self, set: Set<'_>) {
        set("leader_changes", Some(self.changes));
        set("elections", Some(self.elections));
        set("split_votes", Some(self.split_votes));
        set("terms", Some(self.highest_term));
        set("term_growth", Some(self.highest_term - self.warm_term));
        set("planned_transfers", Some(self.planned_transfers));
        set("slow_disk_alarm", Some(self.slow_disk_alarm.into()));
        set("converge_ms", self.converge_ms);
        set("two_leaders_ms", Some(self.two_leaders_ms));
    }
}

/// From the end of all faults until every member is up and follows one leader in one term, for good.
fn converge_ms(history: &History) -> Option<u64> {
    let healed = history.phase(Phase::FaultsOver)?;
    let mut views: BTreeMap<MemberId, Option<(u64, MemberId)>> = BTreeMap::new();
    let mut agreed: Option<Instant> = None;
    for (at, fact) in history.facts() {
        match fact {
            Fact::Recovering { member } | Fact::Down { member, .. } => {
                views.insert(*member, None);
            }
            Fact::Role { member, term, leader, .. } => {
                views.insert(*member, leader.map(|leader| (*term, leader)));
            }
            _ => continue,
        }
        let first = views.values().next().copied().flatten();
        let agree = first.is_some() && views.values().all(|view| *view == first);
        agreed = agree.then(|| agreed.unwrap_or(*at));
    }
    agreed.map(|at| at.max(healed).since(healed).as_millis() as u64)
}

/// The longest time from a new leader's beginning until an earlier one, alive all the while, stopped taking itself for it.
fn two_leaders_ms(history: &History) -> u64 {
    // Who leads by its own account: in which term, and since when there has been another one.
    let mut leading: BTreeMap<MemberId, (u64, Option<Instant>)> = BTreeMap::new();
    let mut longest = 0;
    let mut stops = |at: Instant, led: Option<(u64, Option<Instant>)>| {
        if let Some((_, Some(since))) = led {
            longest = longest.max(at.since(since).as_millis() as u64);
        }
    };
    for (at, fact) in history.facts() {
        match fact {
            Fact::Role { member, role: CoreRole::Leader, term, .. } => {
                let earlier = leading.values_mut().filter(|(other, _)| other < term);
                earlier.for_each(|(_, since)| _ = since.get_or_insert(*at));
                leading.entry(*member).or_insert((*term, None));
            }
            Fact::Role { member, .. } => stops(*at, leading.remove(member)),
            // A dead one takes itself for nothing.
            Fact::Down { member, .. } => _ = leading.remove(member),
            _ => {}
        }
    }
    longest
}
