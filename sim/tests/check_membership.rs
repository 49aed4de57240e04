//! The membership checker rejects a planted history for each promise.

mod check_support;

use std::time::Duration;

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
fn a_learner_whose_promotion_came_in_a_snapshot_may_campaign() {
    // It tells of no promotion of its own; whoever sent the snapshot has told of it.
    let mut script = Script::new();
    let learns = change(10, ChangeKind::AddLearner, D, &[A, B, C], &[D]);
    let votes = change(20, ChangeKind::Promote, D, &[A, B, C, D], &[]);
    // The others are ahead of it all the time.
    for (member, change) in [(A, &learns), (A, &votes), (D, &learns)] {
        applies(&mut script, member, change);
    }
    is(&mut script, D, Role::Candidate);
    accepts(&script, &Membership);
}

/// These vote for B in term 9, and B leads.
fn elect(script: &mut Script, voters: &[MemberId]) {
    let (at, raft) = (script.now + Duration::from_nanos(1), script.history.raft_mut());
    for voter in voters {
        raft.rare(at, *voter, Rare::Voted { term: 9, candidate: B });
    }
    raft.rare(at, B, Rare::Leads { term: 9 });
}

#[test]
fn a_leader_without_a_majority_of_a_cluster_that_never_changes_is_rejected() {
    for (voters, is_right) in [(&[B, C][..], true), (&[B], false), (&[B, D], false)] {
        let mut script = Script::new();
        script.history.set_first_voters(vec![A, B, C]);
        elect(&mut script, voters);
        if is_right {
            accepts(&script, &Membership);
        } else {
            rejects(&script, &Membership, "a quorum elects");
        }
    }
}

#[test]
fn a_leader_by_a_list_older_than_the_one_it_applied_is_rejected() {
    // Two of A, B, C were enough before D got its vote.
    let (mut script, _) = history();
    script.history.set_first_voters(vec![A, B, C]);
    elect(&mut script, &[A, B]);
    rejects(&script, &Membership, "a quorum elects");
    // It had applied nothing but D's coming, as a learner.
    let mut script = Script::new();
    script.history.set_first_voters(vec![A, B, C]);
    let learns = change(10, ChangeKind::AddLearner, D, &[A, B, C], &[D]);
    let votes = change(20, ChangeKind::Promote, D, &[A, B, C, D], &[]);
    for (member, change) in [(A, &learns), (A, &votes), (B, &learns)] {
        applies(&mut script, member, change);
    }
    elect(&mut script, &[A, B]);
    accepts(&script, &Membership);
    // The promotion lay in a snapshot that it had installed.
    let at = script.now;
    let raft = script.history.raft_mut();
    raft.rare(at, B, Rare::Installed { index: 25, term: 9 });
    elect(&mut script, &[A, B]);
    rejects(&script, &Membership, "a quorum elects");
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
