//! Why a cluster does not converge: what each member holds, and which entry, vote or snapshot is missing.
//!
//! Looks at members that are up and, read-only, at the WAL on the disk of those that are not, so that it can say
//! where the only copy of an entry lies.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use detkv_core::wal::{WalRecovery, WalStep};
use detkv_core::{LaneQueue, Member, MemberId, Role};

use super::World;
use super::node::{Node, Process};
use crate::history::{DownHow, Fact};
use crate::net::Endpoint;

/// A disk that has so much to do is worth a line.
const BUSY: Duration = Duration::from_secs(2);
/// And a link.
const QUEUED: u64 = 1 << 20;

/// One member's log.
struct Copy {
    id: MemberId,
    /// It takes part: up and not paused.
    is_up: bool,
    /// Up: role and leader. Down: why.
    state: String,
    term: u64,
    commit: u64,
    applied: u64,
    /// Term by index, of the entries kept.
    entries: BTreeMap<u64, u64>,
    /// Index before the first entry kept.
    offset: u64,
    last: (u64, u64),
    voters: Vec<MemberId>,
    is_leader: bool,
}

impl Copy {
    fn last_index(&self) -> u64 {
        self.last.1
    }

    fn holds(&self, index: u64, term: u64) -> bool {
        index <= self.offset || self.entries.get(&index) == Some(&term)
    }

    fn of_member(node: &Node, member: &Member) -> Self {
        let status = member.status();
        let (last, commit) = (status.last_index, status.commit_index);
        // Downwards, from what a blocked loop has not taken into its log yet to what is no longer kept.
        let entries: BTreeMap<u64, u64> = (1..=last)
            .rev()
            .map(|index| member.log_entry(index).map(|entry| (index, entry.term)))
            .skip_while(Option::is_none)
            .map_while(|entry| entry)
            .collect();
        let newest = entries.last_key_value().map(|(index, term)| (*term, *index));
        let offset = entries.keys().next().map_or(last, |first| first - 1);
        let leader =
            status.leader.map_or("knows no leader".to_owned(), |id| format!("follows m{id}"));
        let role = match status.role {
            Role::Leader => "leads".to_owned(),
            Role::Candidate | Role::PreCandidate => "campaigns".to_owned(),
            Role::Follower => leader,
        };
        Self {
            id: node.id,
            is_up: !node.is_paused(),
            state: if node.is_paused() { "paused".to_owned() } else { role },
            term: status.term,
            commit,
            applied: status.applied_index,
            offset,
            last: newest.unwrap_or_else(|| (member.log_term(last).unwrap_or(0), last)),
            entries,
            voters: status.voters,
            is_leader: status.role == Role::Leader && !node.is_paused(),
        }
    }

    /// What the WAL on its disk says. Changes nothing: repairs are not performed.
    fn of_disk(node: &Node, why: String) -> Self {
        let mut copy = Self {
            id: node.id,
            is_up: false,
            state: why,
            term: 0,
            commit: 0,
            applied: 0,
            entries: BTreeMap::new(),
            offset: 0,
            last: (0, 0),
            voters: Vec::new(),
            is_leader: false,
        };
        let mut lane = LaneQueue::new();
        let mut wal = match WalRecovery::new(node.disk.files(), node.config.wal_segment_bytes) {
            Ok(Some(wal)) => wal,
            Ok(None) => {
                copy.state.push_str(", its disk holds no log");
                return copy;
            }
            Err(error) => {
                copy.state = format!("{}, its log cannot be read: {error}", copy.state);
                return copy;
            }
        };
        loop {
            match wal.step(&mut lane) {
                Ok(WalStep::Done(log)) => {
                    let snapshot = log.snapshot.map_or((0, 0), |s| (s.term, s.index));
                    copy.term = log.hard_state.term;
                    copy.commit = log.hard_state.commit.max(snapshot.1);
                    copy.offset = snapshot.1;
                    copy.entries = log.entries.iter().map(|e| (e.index, e.term)).collect();
                    copy.last = log.entries.last().map_or(snapshot, |e| (e.term, e.index));
                    return copy;
                }
                Ok(_) => {}
                Err(error) => {
                    copy.state = format!("{}, its log cannot be read: {error}", copy.state);
                    return copy;
                }
            }
        }
    }
}

fn names(ids: impl IntoIterator<Item = MemberId>) -> String {
    let names: Vec<String> = ids.into_iter().map(|id| format!("m{}", id.0)).collect();
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}

impl World {
    /// What keeps the cluster from being whole, a line each; every line stands for itself.
    pub fn explain(&self) -> Vec<String> {
        let copies: Vec<Copy> = self.nodes.iter().map(|node| self.copy_of(node)).collect();
        let mut lines: Vec<String> = copies
            .iter()
            .map(|c| {
                format!(
                    "m{} {}: term {}, log {}–{}, last entry of term {}, commit {}, applied {}",
                    c.id.0,
                    c.state,
                    c.term,
                    c.offset + 1,
                    c.last.1,
                    c.last.0,
                    c.commit,
                    c.applied
                )
            })
            .collect();
        lines.extend(self.explain_cuts());
        lines.extend(self.explain_lanes());
        lines.extend(self.explain_queues());
        lines.extend(self.explain_operations());
        let newest = copies.iter().filter(|c| !c.voters.is_empty()).max_by_key(|c| c.applied);
        let all = || self.nodes.iter().map(|node| node.id).collect();
        let voters: BTreeSet<MemberId> =
            newest.map_or_else(all, |c| c.voters.iter().copied().collect());
        lines.extend(explain_votes(self, &copies, &voters));
        lines.extend(explain_lag(&copies));
        lines.extend(explain_copies(&copies, &voters));
        lines.into_iter().map(|line| self.with_numbers(line)).collect()
    }

    fn copy_of(&self, node: &Node) -> Copy {
        match &node.process {
            Process::Up(member) => Copy::of_member(node, member),
            Process::Recovering(_) => Copy::of_disk(node, "is still recovering".to_owned()),
            Process::Down => {
                let how = self.history.facts().iter().rev().find_map(|(_, fact)| match fact {
                    Fact::Down { member, how } if *member == node.id => Some(how),
                    _ => None,
                });
                Copy::of_disk(
                    node,
                    match how {
                        Some(DownHow::Killed) => "is down (killed)".to_owned(),
                        Some(DownHow::PowerLoss) => "is down (power)".to_owned(),
                        Some(DownHow::Stopped) => "is down (stopped)".to_owned(),
                        Some(DownHow::Halted(why)) => format!("is down: it gave up: {why}"),
                        Some(DownHow::OpenFailed(why)) => {
                            format!("is down: it cannot open its data directory: {why}")
                        }
                        None => "is down".to_owned(),
                    },
                )
            }
        }
    }

    fn is_cut(&self, from: MemberId, to: MemberId) -> bool {
        let (Some(from), Some(to)) = (self.place(from), self.place(to)) else { return true };
        self.net.is_cut(Endpoint::Node(from), Endpoint::Node(to))
    }

    /// Disks that have far more to do than they should: acknowledgements wait for the log lane, applying for the others.
    fn explain_lanes(&self) -> Vec<String> {
        let now = self.now_ns();
        let lanes = |node: &Node| {
            let id = node.id.0;
            let busy = ["log", "backend", "snapshot"].into_iter().zip(node.lane_free_at);
            let busy = busy
                .map(|(lane, free_at)| (lane, Duration::from_nanos(free_at.saturating_sub(now))));
            let busy = busy.filter(|(_, left)| *left >= BUSY);
            busy.map(|(lane, left)| format!("the {lane} lane of m{id} is busy for {left:?} more"))
                .collect::<Vec<String>>()
        };
        self.nodes.iter().filter(|node| node.member().is_some()).flat_map(lanes).collect()
    }

    /// Links that are behind: everything that is sent now arrives late.
    fn explain_queues(&self) -> Vec<String> {
        let line = |(from, to, bytes): (Endpoint, Endpoint, u64)| match (from, to) {
            (Endpoint::Node(from), Endpoint::Node(to)) => {
                let (from, to) = (self.node(from).id.0, self.node(to).id.0);
                Some(format!("{bytes} bytes wait to be sent from m{from} to m{to}"))
            }
            _ => None,
        };
        self.net.queues().filter(|(.., bytes)| *bytes >= QUEUED).filter_map(line).collect()
    }

    fn explain_cuts(&self) -> Vec<String> {
        let ids = || self.nodes.iter().map(|node| node.id);
        let pairs = ids().flat_map(|a| ids().map(move |b| (a, b)));
        let cuts = pairs.filter(|(a, b)| a != b && self.is_cut(*a, *b));
        cuts.map(|(a, b)| format!("nothing gets from m{} to m{}", a.0, b.0)).collect()
    }
}

/// No quorum, or no leader: whose vote is missing, and why.
fn explain_votes(world: &World, copies: &[Copy], voters: &BTreeSet<MemberId>) -> Vec<String> {
    if copies.iter().any(|c| c.is_leader) {
        return Vec::new();
    }
    let needed = voters.len() / 2 + 1;
    let up: Vec<&Copy> = copies.iter().filter(|c| c.is_up && voters.contains(&c.id)).collect();
    if up.len() < needed {
        let missing = copies.iter().filter(|c| !c.is_up && voters.contains(&c.id));
        return vec![format!(
            "no quorum: {} of {} voters are up, {needed} are needed; missing: {}",
            up.len(),
            voters.len(),
            names(missing.map(|c| c.id))
        )];
    }
    let mut lines = Vec::new();
    for candidate in &up {
        let (mut yes, mut no) = (0, Vec::new());
        for voter in &up {
            let is_apart = voter.id != candidate.id
                && (world.is_cut(candidate.id, voter.id) || world.is_cut(voter.id, candidate.id));
            if is_apart {
                no.push(format!("m{} (the link is cut)", voter.id.0));
            } else if voter.last > candidate.last {
                let (term, index) = voter.last;
                no.push(format!(
                    "m{} (its log ends later: entry {index} of term {term})",
                    voter.id.0
                ));
            } else {
                yes += 1;
            }
        }
        if yes < needed {
            lines.push(format!(
                "m{} cannot be elected: {yes} of {needed} votes; missing: {}",
                candidate.id.0,
                no.join(", ")
            ));
        } else {
            lines.push(format!(
                "m{} could be elected by {yes} of {} voters",
                candidate.id.0,
                voters.len()
            ));
        }
    }
    lines
}

/// With a leader: who lags, from which entry on, and whether only a snapshot helps.
fn explain_lag(copies: &[Copy]) -> Vec<String> {
    let Some(leader) = copies.iter().filter(|c| c.is_leader).max_by_key(|c| c.term) else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    for copy in copies.iter().filter(|c| c.is_up && c.id != leader.id) {
        let same = (0..=copy.last_index().min(leader.last_index()))
            .rev()
            .find(|index| {
                *index <= copy.offset.min(leader.offset)
                    || leader.entries.get(index).is_some_and(|term| copy.holds(*index, *term))
                    || (*index <= leader.offset && copy.entries.contains_key(index))
            })
            .unwrap_or(0);
        if same < leader.last_index() {
            let how = if same < leader.offset {
                format!(
                    "m{} keeps them from {} only: a snapshot is needed",
                    leader.id.0,
                    leader.offset + 1
                )
            } else {
                format!("m{} has them", leader.id.0)
            };
            lines.push(format!(
                "m{} lacks entries {}–{}: {how}",
                copy.id.0,
                same + 1,
                leader.last_index()
            ));
        } else if copy.applied < leader.commit {
            lines.push(format!(
                "m{} has every entry and applied {} of {} committed",
                copy.id.0, copy.applied, leader.commit
            ));
        }
    }
    lines
}

/// Entries that fewer than a quorum hold, with the places of their copies.
fn explain_copies(copies: &[Copy], voters: &BTreeSet<MemberId>) -> Vec<String> {
    let needed = voters.len() / 2 + 1;
    let committed = copies.iter().map(|c| c.commit).max().unwrap_or(0);
    let mut ranges: Vec<(u64, u64, u64, Vec<MemberId>)> = Vec::new();
    let all: BTreeSet<(u64, u64)> =
        copies.iter().flat_map(|c| c.entries.iter().map(|(index, term)| (*index, *term))).collect();
    for (index, term) in all {
        let holders: Vec<MemberId> =
            copies.iter().filter(|c| c.holds(index, term)).map(|c| c.id).collect();
        if holders.iter().filter(|id| voters.contains(id)).count() >= needed {
            continue;
        }
        match ranges.last_mut() {
            Some((_, to, of, who)) if *to + 1 == index && *of == term && *who == holders => {
                *to = index
            }
            _ => ranges.push((index, index, term, holders)),
        }
    }
    let line = |(from, to, term, holders): (u64, u64, u64, Vec<MemberId>)| {
        let only = if holders.len() == 1 { "the only copy is on" } else { "copies are on" };
        let state = if from <= committed { "committed" } else { "not known to be committed" };
        format!("entries {from}–{to} of term {term} ({state}): {only} {}", names(holders))
    };
    ranges.into_iter().map(line).collect()
}
