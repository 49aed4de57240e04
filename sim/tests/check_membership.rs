//! The membership checker rejects a planted history for each promise.

mod check_support;

use check_support::{Script, accepts, put, rejects};
use detkv_core::member::{AppliedChange, ChangeKind, Role};
use detkv_core::{Instant, MemberId};
use detkv_sim::check::Membership;
use detkv_sim::history::{Fact, Rare};

const A: MemberId = MemberId(1);
const B: MemberId = MemberId(2);
const C: MemberId = MemberId(3);
const D: MemberId = MemberId(4);

fn change(
    index: u64,
    kind: ChangeKind,
    member: MemberId,
    voters: &[MemberId],
    learners: &[MemberId],
) -> AppliedChange {
    AppliedChange { index, kind, member, voters: voters.to_vec(), learners: learners.to_vec() }
}

fn applies(script: &mut Script, member: MemberId, change: &AppliedChange) {
    script.fact(Fact::Membership { member, change: change.clone() });
}

fn is(script: &mut Script, member: MemberId, role: Role) {
    script.fact(Fact::Role { member, role, term: 7, leader: None });
}

/// D joins as a learner, gets a vote, and A is removed.
fn history() -> (Script, [AppliedChange; 3]) {
    let mut script = Script::new();
    let changes = [
        change(10, ChangeKind::AddLearner, D, &[A, B, C], &[D]),
        change(20, ChangeKind::Promote, D, &[A, B, C, D], &[]),
        change(30, ChangeKind::Remove, A, &[B, C, D], &[]),
    ];
    for change in &changes {
        for member in [A, B, C, D] {
            applies(&mut script, member, change);
        }
    }
    (script, changes)
}

#[test]
fn a_good_history_is_accepted() {
    let (mut script, _) = history();
    is(&mut script, D, Role::Candidate);
    is(&mut script, D, Role::Leader);
    // A removed leader may still say so until it has handed over.
    is(&mut script, A, Role::Follower);
    accepts(&script, &Membership);
}

#[test]
fn two_lists_at_one_index_are_rejected() {
    let (mut script, _) = history();
    applies(&mut script, A, &change(40, ChangeKind::Remove, B, &[C, D], &[]));
    applies(&mut script, C, &change(40, ChangeKind::Remove, C, &[B, D], &[]));
    rejects(&script, &Membership, "member lists agree");
}

#[test]
fn two_changes_at_once_are_rejected() {
    let (mut script, _) = history();
    applies(&mut script, B, &change(40, ChangeKind::AddVoter, MemberId(6), &[B, C], &[]));
    rejects(&script, &Membership, "one change at a time");
    let (mut script, _) = history();
    let both = change(40, ChangeKind::Remove, B, &[D], &[]);
    applies(&mut script, C, &both);
    rejects(&script, &Membership, "one change at a time");
}

#[test]
fn a_change_that_was_not_made_is_rejected() {
    let (mut script, _) = history();
    applies(&mut script, C, &change(40, ChangeKind::Remove, B, &[B, C, D], &[]));
    rejects(&script, &Membership, "one change at a time");
}

#[test]
fn a_removed_member_that_comes_back_is_rejected() {
    let (mut script, _) = history();
    applies(&mut script, C, &change(40, ChangeKind::AddVoter, A, &[A, B, C, D], &[]));
    rejects(&script, &Membership, "removed for good");
}

#[test]
fn a_learner_that_campaigns_is_rejected() {
    for role in [Role::PreCandidate, Role::Candidate, Role::Leader] {
        let mut script = Script::new();
        let learns = change(10, ChangeKind::AddLearner, D, &[A, B, C], &[D]);
        applies(&mut script, D, &learns);
        is(&mut script, D, role);
        rejects(&script, &Membership, "a learner has no vote");
    }
}

#[test]
fn a_removed_member_that_campaigns_is_rejected() {
    let (mut script, _) = history();
    is(&mut script, A, Role::Candidate);
    rejects(&script, &Membership, "a removed member is silent");
}

#[test]
fn a_removed_member_that_answers_is_rejected() {
    let (mut script, _) = history();
    let op = script.call_at(1, A, put("k", "v"));
    let reply = script.take_effect(op);
    script.answer(op, reply);
    rejects(&script, &Membership, "a removed member is silent");
}

#[test]
fn a_leader_by_the_votes_of_learners_is_rejected() {
    let (mut script, _) = history();
    // Two of the three voters of the last list are a quorum; one and a stranger are not.
    let vote = |script: &mut Script, member| {
        let rare = Rare::Voted { term: 9, candidate: B };
        script.history.raft_mut().rare(Instant::ZERO, member, rare);
    };
    vote(&mut script, B);
    vote(&mut script, MemberId(9));
    script.history.raft_mut().rare(Instant::ZERO, B, Rare::Leads { term: 9 });
    rejects(&script, &Membership, "a quorum elects");
    let (mut script, _) = history();
    vote(&mut script, B);
    vote(&mut script, D);
    script.history.raft_mut().rare(Instant::ZERO, B, Rare::Leads { term: 9 });
    accepts(&script, &Membership);
}
