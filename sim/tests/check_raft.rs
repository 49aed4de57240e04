//! The raft checker, and durability of what members acknowledged, reject a planted trace for each promise.

mod check_support;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use check_support::{Script, accepts, put, rejects};
use detkv_core::member::Role;
use detkv_core::{Instant, MemberId};
use detkv_sim::check::{Case, Checker as _, Durability, Raft};
use detkv_sim::fault::{Kill, Target};
use detkv_sim::history::{Entry, EntryId, Fact, RaftStep, Rare};
use detkv_sim::{ClientId, Sim, SimConfig};

const A: MemberId = MemberId(1);
const B: MemberId = MemberId(2);
const C: MemberId = MemberId(3);

/// Writes a Raft trace.
struct Logs {
    script: Script,
}

impl Logs {
    /// Three members with empty logs.
    fn new() -> Self {
        let mut logs = Self { script: Script::new() };
        for member in [A, B, C] {
            logs.rare(member, Rare::Opened { term: 0, vote: None, offset: 0, offset_term: 0 });
        }
        logs
    }

    fn rare(&mut self, member: MemberId, what: Rare) -> &mut Self {
        self.script.history.raft_mut().rare(Instant::ZERO, member, what);
        self
    }

    /// Entries of these terms from `from` on; `salt` makes bytes differ.
    fn append_salted(&mut self, member: MemberId, from: u64, prev: u64, terms: &[u64], salt: u64) {
        let trace = self.script.history.raft_mut();
        let mut prev_term = prev;
        let mut ids: Vec<EntryId> = Vec::new();
        for (index, term) in (from..).zip(terms) {
            let hash = index * 1000 + term + salt;
            ids.push(trace.entry_id(Entry { index, term: *term, prev_term, hash }).0);
            prev_term = *term;
        }
        trace.appended(member, from, &ids);
    }

    fn append(&mut self, member: MemberId, from: u64, prev: u64, terms: &[u64]) -> &mut Self {
        self.append_salted(member, from, prev, terms, 0);
        self
    }

    fn commit(&mut self, member: MemberId, index: u64) -> &mut Self {
        self.script.history.raft_mut().committed(member, index);
        self
    }

    fn leads(&mut self, member: MemberId, term: u64) -> &mut Self {
        self.rare(member, Rare::Term { term }).rare(member, Rare::Leads { term })
    }

    /// A leads term 1 and commits three entries that B has too.
    fn three_committed() -> Self {
        let mut logs = Self::new();
        logs.leads(A, 1).append(A, 1, 0, &[1, 1, 1]).append(B, 1, 0, &[1, 1, 1]);
        logs.rare(B, Rare::Term { term: 1 }).commit(A, 3).commit(B, 3);
        logs
    }

    #[track_caller]
    fn rejects(&self, promise: &str) {
        rejects(&self.script, &Raft, promise);
    }

    #[track_caller]
    fn accepts(&self) {
        accepts(&self.script, &Raft);
    }
}

#[test]
fn checker_accepts_a_change_of_leader_that_replaces_an_uncommitted_tail() {
    let mut logs = Logs::three_committed();
    // A appends two more that nobody gets; B leads on.
    logs.append(A, 4, 1, &[1, 1]).leads(B, 2).append(B, 4, 1, &[2]);
    logs.rare(A, Rare::Follows { term: 2 }).rare(A, Rare::Term { term: 2 });
    logs.append(A, 4, 1, &[2]).commit(B, 4).commit(A, 4);
    // C gets a snapshot and goes on behind it.
    logs.rare(C, Rare::Term { term: 2 }).rare(C, Rare::Installed { index: 3, term: 1 });
    logs.append(C, 4, 1, &[2]).commit(C, 4);
    logs.accepts();
}

#[test]
fn checker_rejects_two_leaders_of_one_term() {
    let mut script = Script::new();
    let leads =
        |member, term| Fact::Role { member, role: Role::Leader, term, leader: Some(member) };
    script.fact(leads(A, 2));
    script.fact(leads(B, 3));
    script.fact(leads(A, 4));
    accepts(&script, &Raft);
    script.fact(leads(B, 4));
    rejects(&script, &Raft, "one leader per term");
}

#[test]
fn checker_rejects_two_votes_in_one_term() {
    let mut logs = Logs::new();
    logs.rare(A, Rare::Voted { term: 1, candidate: B })
        .rare(A, Rare::Voted { term: 2, candidate: C });
    logs.accepts();
    logs.rare(A, Rare::Voted { term: 2, candidate: A });
    logs.rejects("one vote per term");
}

#[test]
fn checker_rejects_a_vote_that_was_forgotten() {
    for (term, vote, is_right) in
        [(2, Some(B), true), (3, None, true), (2, None, false), (1, Some(B), false)]
    {
        let mut logs = Logs::new();
        logs.rare(A, Rare::Term { term: 2 }).rare(A, Rare::Voted { term: 2, candidate: B });
        logs.rare(A, Rare::Ended { acknowledged: 0 });
        logs.rare(A, Rare::Opened { term, vote, offset: 0, offset_term: 0 });
        if is_right { logs.accepts() } else { logs.rejects("a vote was forgotten") }
    }
}

#[test]
fn checker_rejects_a_leader_that_replaces_its_own_log() {
    let mut logs = Logs::new();
    logs.leads(A, 1).append(A, 1, 0, &[1, 1]).append(A, 3, 1, &[1]);
    logs.accepts();
    logs.append(A, 2, 1, &[1]);
    logs.rejects("leader append-only");
}

#[test]
fn checker_rejects_logs_that_do_not_match() {
    // Equal index and term, other bytes.
    let mut logs = Logs::three_committed();
    logs.append_salted(C, 1, 0, &[1], 7);
    logs.rejects("log matching");
    // Equal entry, other history.
    let mut logs = Logs::three_committed();
    logs.append(A, 4, 1, &[3]);
    logs.append_salted(C, 4, 2, &[3], 0);
    logs.rejects("log matching");
}

#[test]
fn checker_rejects_two_entries_committed_at_one_index() {
    let mut logs = Logs::three_committed();
    logs.rare(C, Rare::Term { term: 2 }).append(C, 1, 0, &[1, 1, 2]).commit(C, 3);
    logs.rejects("committed never changes");
}

#[test]
fn checker_rejects_a_committed_entry_that_is_cut() {
    let mut logs = Logs::three_committed();
    logs.rare(B, Rare::Term { term: 2 }).append(B, 3, 1, &[2]);
    logs.rejects("committed never changes");
    // Cut short, nothing in its place.
    let mut logs = Logs::three_committed();
    logs.append(B, 3, 1, &[]);
    logs.rejects("committed never changes");
}

#[test]
fn checker_rejects_a_leader_without_a_committed_entry() {
    let mut logs = Logs::three_committed();
    logs.append(C, 1, 0, &[1, 1]).leads(C, 2);
    logs.rejects("leader completeness");
    // The commit was seen only after the leadership had begun.
    let mut logs = Logs::new();
    logs.leads(A, 1).append(A, 1, 0, &[1, 1]).append(C, 1, 0, &[1]);
    logs.leads(C, 2).commit(A, 2);
    logs.rejects("leader completeness");
}

#[test]
fn checker_accepts_a_late_look_at_a_leader_that_was_deposed_meanwhile() {
    // A was elected in term 1, stopped, and is seen to lead after term 2 has committed something.
    let mut logs = Logs::new();
    logs.leads(B, 2).append(B, 1, 0, &[2]).commit(B, 1).leads(A, 1);
    logs.accepts();
}

#[test]
fn checker_rejects_an_old_entry_that_was_committed_by_counting() {
    // Figure 8 of the Raft paper: an entry of term 1, counted by a leader of term 2.
    let mut logs = Logs::new();
    logs.append(A, 1, 0, &[1]).leads(A, 2).append(A, 2, 1, &[2]).commit(A, 1);
    logs.rejects("committed by counting");
    let mut logs = Logs::new();
    logs.append(A, 1, 0, &[1]).leads(A, 2).append(A, 2, 1, &[2]).commit(A, 2);
    logs.accepts();
}

#[test]
fn checker_rejects_an_acknowledged_entry_that_a_crash_took() {
    for (recovered, acknowledged, is_right) in
        [(&[1, 1, 1][..], 3, true), (&[1, 1], 2, true), (&[1, 1], 3, false), (&[], 1, false)]
    {
        let mut logs = Logs::three_committed();
        logs.rare(B, Rare::Ended { acknowledged });
        logs.rare(B, Rare::Opened { term: 1, vote: None, offset: 0, offset_term: 0 });
        logs.append(B, 1, 0, recovered);
        let verdict = Durability.check(&Case::new(&logs.script.history));
        let promise = verdict.expect_err("nothing was read back").promise;
        assert_eq!(promise == "an acknowledged entry is lost", !is_right, "{promise}");
    }
}

/// What the members of a world had acknowledged when the leader was killed: its id and trace.
fn killed_leader(members: u64) -> (MemberId, Script) {
    let mut config = SimConfig::new(3);
    config.members = members;
    let leader = Rc::new(Cell::new(MemberId(0)));
    let led = leader.clone();
    let outcome = Sim::run(config, |world| async move {
        while world.leader().is_none() {
            world.sleep(Duration::from_millis(10)).await;
        }
        led.set(world.leader().expect("just seen"));
        let wait = Duration::from_secs(3);
        for key in ["a", "b", "c"] {
            let answer = world.call(ClientId(1), led.get(), put(key, "1"), wait).await;
            assert!(matches!(answer, Ok(Ok(_))), "{answer:?}");
        }
        world.inject(Kill { node: Target::Member(led.get()) }.into());
        world.sleep(Duration::from_millis(1)).await;
    });
    let mut script = Script::new();
    script.history = outcome.history;
    (leader.get(), script)
}

#[test]
fn checker_rejects_what_a_leader_had_counted_for_itself_and_lost() {
    // Alone, or the first of three: nobody else was told of what its own disk holds.
    for members in [1, 3] {
        for lost in [0, 1, 4] {
            let (leader, mut script) = killed_leader(members);
            let trace = script.history.raft();
            let mut log: Vec<EntryId> = Vec::new();
            for step in trace.steps() {
                if let RaftStep::Appended { member, from, entries } = step
                    && member == leader
                {
                    log.truncate(from as usize - 1);
                    log.extend_from_slice(entries);
                }
            }
            let ended = trace.steps().find_map(|step| match step {
                RaftStep::Rare { member, what: Rare::Ended { acknowledged }, .. }
                    if member == leader =>
                {
                    Some(*acknowledged)
                }
                _ => None,
            });
            assert_eq!(ended, Some(log.len() as u64), "everything was durable and counted");
            // It comes back with a shorter log.
            let now = script.history.facts().last().expect("there are facts").0;
            let trace = script.history.raft_mut();
            let opened = Rare::Opened { term: 9, vote: None, offset: 0, offset_term: 0 };
            trace.rare(now, leader, opened);
            trace.appended(leader, 1, &log[..log.len() - lost]);
            let verdict = Durability.check(&Case::new(&script.history));
            let promise = verdict.expect_err("nothing was read back").promise;
            assert_eq!(promise == "an acknowledged entry is lost", lost > 0, "{promise}");
        }
    }
}

#[test]
fn checker_forgives_a_member_whose_disk_was_damaged() {
    let mut logs = Logs::three_committed();
    logs.rare(B, Rare::Voted { term: 1, candidate: A }).rare(B, Rare::Ended { acknowledged: 3 });
    logs.rare(B, Rare::DiskDamaged);
    logs.rare(B, Rare::Opened { term: 0, vote: None, offset: 0, offset_term: 0 });
    logs.append(B, 1, 0, &[]);
    logs.accepts();
    let verdict = Durability.check(&Case::new(&logs.script.history));
    assert_eq!(verdict.expect_err("nothing was read back").promise, "undecided");
}

#[test]
fn checker_accepts_a_restart_from_a_snapshot() {
    let mut logs = Logs::three_committed();
    logs.rare(B, Rare::Ended { acknowledged: 3 });
    logs.rare(B, Rare::Opened { term: 1, vote: None, offset: 2, offset_term: 1 });
    logs.append(B, 3, 1, &[1]).commit(B, 3);
    logs.accepts();
    let verdict = Durability.check(&Case::new(&logs.script.history));
    assert_eq!(verdict.expect_err("nothing was read back").promise, "undecided");
}
