//! Who belongs to the cluster (Raft thesis §4; surface spec §6).
//!
//! | Promise | Broken when |
//! |---|---|
//! | member lists agree | two members apply different changes, or reach different lists, at an index |
//! | one change at a time | a list differs from the one before it by more than its change |
//! | removed for good | a removed id is in a later list, or is added again |
//! | a learner has no vote | a learner stands for election or leads, or its vote makes a leader |
//! | a removed member is silent | it stands for election, or answers a request, after it applied its removal |
//! | a quorum elects | fewer than a majority of the voters that a leader knew voted for it |

use std::collections::{BTreeMap, BTreeSet};

use detkv_core::member::{AppliedChange, ChangeKind, Role};
use detkv_core::{Instant, MemberId};

use super::{Case, Checker, Violation};
use crate::history::{Fact, Outcome, RaftStep, Rare};

#[derive(Debug)]
pub struct Membership;

impl Checker for Membership {
    fn name(&self) -> &'static str {
        "membership"
    }

    fn check(&self, case: &Case) -> Result<(), Violation> {
        let changes = lists_agree(case)?;
        one_at_a_time(&changes)?;
        let lives = roles_fit(case)?;
        removed_are_silent(case, &lives)?;
        elected_by_voters(case, &changes)
    }
}

fn broken(promise: &'static str, message: String) -> Violation {
    Violation::new(promise, message, Vec::new())
}

/// Every change by its index, as all members that applied it have it.
fn lists_agree<'h>(case: &Case<'h>) -> Result<BTreeMap<u64, &'h AppliedChange>, Violation> {
    let mut changes: BTreeMap<u64, (MemberId, &AppliedChange)> = BTreeMap::new();
    for (_, fact) in case.history.facts() {
        let Fact::Membership { member, change } = fact else { continue };
        let (other, first) = *changes.entry(change.index).or_insert((*member, change));
        if first != change {
            let index = change.index;
            let message = format!(
                "at index {index} member {other} has {first:?}, member {member} {change:?}"
            );
            return Err(broken("member lists agree", message));
        }
    }
    Ok(changes.into_iter().map(|(index, (_, change))| (index, change)).collect())
}

fn one_at_a_time(changes: &BTreeMap<u64, &AppliedChange>) -> Result<(), Violation> {
    let mut removed: BTreeSet<MemberId> = BTreeSet::new();
    let mut before: Option<&AppliedChange> = None;
    for change in changes.values() {
        let members = || change.voters.iter().chain(&change.learners);
        if let Some(id) = members().find(|id| removed.contains(id)) {
            let message = format!("member {id} was removed before index {}", change.index);
            return Err(broken("removed for good", message));
        }
        if change.kind == ChangeKind::Remove {
            removed.insert(change.member);
        }
        if let Some(before) = before
            && !follows(before, change)
        {
            let message = format!("{before:?} is followed by {change:?}");
            return Err(broken("one change at a time", message));
        }
        if !is_made(change) {
            let message = format!("{change:?} did not make the change that it is");
            return Err(broken("one change at a time", message));
        }
        before = Some(change);
    }
    Ok(())
}

/// The list after `change` is the one before it with nothing but the change.
fn follows(before: &AppliedChange, change: &AppliedChange) -> bool {
    let mut voters: BTreeSet<MemberId> = before.voters.iter().copied().collect();
    let mut learners: BTreeSet<MemberId> = before.learners.iter().copied().collect();
    let id = change.member;
    match change.kind {
        ChangeKind::AddVoter => {
            voters.insert(id);
        }
        ChangeKind::AddLearner => {
            learners.insert(id);
        }
        ChangeKind::Promote => {
            learners.remove(&id);
            voters.insert(id);
        }
        ChangeKind::Remove => {
            voters.remove(&id);
            learners.remove(&id);
        }
        ChangeKind::Update => {}
    }
    voters.into_iter().eq(change.voters.iter().copied())
        && learners.into_iter().eq(change.learners.iter().copied())
}

fn is_made(change: &AppliedChange) -> bool {
    let (votes, learns) =
        (change.voters.contains(&change.member), change.learners.contains(&change.member));
    match change.kind {
        ChangeKind::AddVoter | ChangeKind::Promote => votes && !learns,
        ChangeKind::AddLearner => learns && !votes,
        ChangeKind::Remove => !votes && !learns,
        ChangeKind::Update => votes || learns,
    }
}

/// When each removed member applied its removal.
type Removals = BTreeMap<MemberId, Instant>;

/// What members do fits what they know of themselves.
fn roles_fit(case: &Case) -> Result<Removals, Violation> {
    let mut removals = Removals::new();
    // By member: the newest list of its own that has it as a learner, and of anybody's as a voter.
    let mut learns: BTreeMap<MemberId, u64> = BTreeMap::new();
    let mut votes: BTreeMap<MemberId, u64> = BTreeMap::new();
    for (at, fact) in case.history.facts() {
        match fact {
            Fact::Membership { member, change } => {
                if change.kind == ChangeKind::Remove && change.member == *member {
                    removals.entry(*member).or_insert(*at);
                }
                if change.learners.contains(member) {
                    learns.insert(*member, change.index);
                }
                // Its promotion may reach a learner inside a snapshot: then it tells of none, others do.
                for voter in &change.voters {
                    let newest = votes.entry(*voter).or_default();
                    *newest = change.index.max(*newest);
                }
            }
            Fact::Role { member, role, term, .. } => {
                let stands = matches!(role, Role::Candidate | Role::PreCandidate);
                let leads = *role == Role::Leader;
                let is_learner = learns.get(member) > votes.get(member);
                if is_learner && (stands || leads) {
                    let message = format!("learner {member} is {role:?} in term {term}");
                    return Err(broken("a learner has no vote", message));
                }
                if removals.contains_key(member) && stands {
                    let message = format!("removed member {member} is {role:?} in term {term}");
                    return Err(broken("a removed member is silent", message));
                }
            }
            _ => {}
        }
    }
    Ok(removals)
}

fn removed_are_silent(case: &Case, removals: &Removals) -> Result<(), Violation> {
    for (place, op) in case.history.operations().iter().enumerate() {
        let Some(removed) = removals.get(&op.member) else { continue };
        if op.called > *removed && matches!(op.outcome, Outcome::Done { .. }) {
            let message = format!("removed member {} answers op {place}", op.member);
            let ops = vec![crate::history::OpId(place as u32)];
            return Err(Violation::new("a removed member is silent", message, ops));
        }
    }
    Ok(())
}

/// Every leader has the votes of a majority of one list: that of the newest change that it had
/// applied, or of a later one (which it may have from a snapshot, or applied before its last crash).
fn elected_by_voters(
    case: &Case,
    changes: &BTreeMap<u64, &AppliedChange>,
) -> Result<(), Violation> {
    let Some(first) = first_list(case, changes) else { return Ok(()) };
    let mut lists: BTreeMap<u64, BTreeSet<MemberId>> = BTreeMap::from([(0, first)]);
    lists.extend(changes.iter().map(|(at, change)| (*at, change.voters.iter().copied().collect())));
    let mut votes: BTreeMap<(u64, MemberId), BTreeSet<MemberId>> = BTreeMap::new();
    let mut floors = Floors::new(case);
    for step in case.history.raft().steps() {
        let RaftStep::Rare { at, member, what } = step else { continue };
        match what {
            Rare::Opened { offset, .. } => floors.reach(member, *offset),
            Rare::Installed { index, .. } => floors.reach(member, *index),
            // What it applied and had not in its file is applied again.
            Rare::Ended { .. } => floors.forget(member, at),
            Rare::Voted { term, candidate } => {
                votes.entry((*term, *candidate)).or_default().insert(member);
            }
            Rare::Leads { term } => {
                let mut voted = votes.remove(&(*term, member)).unwrap_or_default();
                voted.insert(member);
                let floor = floors.of(member, at);
                let newest = lists.range(..=floor).next_back().map_or(0, |(index, _)| *index);
                let has_quorum =
                    |list: &BTreeSet<MemberId>| list.intersection(&voted).count() > list.len() / 2;
                if !lists.range(newest..).any(|(_, list)| has_quorum(list)) {
                    let message = format!(
                        "{member} leads term {term} by the votes of {voted:?} alone; it knew the list of index {newest}: {:?}",
                        lists[&newest]
                    );
                    return Err(broken("a quorum elects", message));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Up to which index each member is known to have applied changes, as the logs are walked.
struct Floors<'h> {
    /// Changes that members tell of, in the order of time.
    facts: std::slice::Iter<'h, (Instant, Fact)>,
    floors: BTreeMap<MemberId, u64>,
}

impl<'h> Floors<'h> {
    fn new(case: &Case<'h>) -> Self {
        Self { facts: case.history.facts().iter(), floors: BTreeMap::new() }
    }

    fn reach(&mut self, member: MemberId, index: u64) {
        let floor = self.floors.entry(member).or_default();
        *floor = index.max(*floor);
    }

    fn forget(&mut self, member: MemberId, at: Instant) {
        self.advance(at);
        self.floors.remove(&member);
    }

    fn of(&mut self, member: MemberId, at: Instant) -> u64 {
        self.advance(at);
        self.floors.get(&member).copied().unwrap_or(0)
    }

    /// Takes what was told before `at`: of the same time is what a leader applied after its election.
    fn advance(&mut self, at: Instant) {
        while let Some((told, fact)) = self.facts.as_slice().first()
            && *told < at
        {
            self.facts.next();
            if let Fact::Membership { member, change } = fact {
                self.reach(*member, change.index);
            }
        }
    }
}

/// Voters in the beginning: those the members were given, else what the first change leaves to guess.
fn first_list(case: &Case, changes: &BTreeMap<u64, &AppliedChange>) -> Option<BTreeSet<MemberId>> {
    let given = case.history.first_voters();
    if !given.is_empty() {
        return Some(given.iter().copied().collect());
    }
    changes.values().next().map(|first| list_before(first))
}

/// Voters before the first change that was seen.
fn list_before(first: &AppliedChange) -> BTreeSet<MemberId> {
    let mut voters: BTreeSet<MemberId> = first.voters.iter().copied().collect();
    match first.kind {
        ChangeKind::AddVoter | ChangeKind::Promote => {
            voters.remove(&first.member);
        }
        ChangeKind::Remove => {
            voters.insert(first.member);
        }
        ChangeKind::AddLearner | ChangeKind::Update => {}
    }
    voters
}
