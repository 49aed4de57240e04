//! Clients behave as real ones: reads are retried elsewhere, writes never; watches resume where they were.

use std::time::Duration;

use detkv_core::MemberId;
use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb as pb;
use detkv_sim::check::{Case, Checker as _, Membership, Watch};
use detkv_sim::client::{
    Clients, Maintainer, MemberChanges, PutLoad, Readout, WatchProgress, Watcher,
};
use detkv_sim::fault::{Fault, Kill, Pause, Restart, Target};
use detkv_sim::history::{Call, Fact, History, Outcome};
use detkv_sim::{Handle, Sim, SimConfig};

const SECOND: Duration = Duration::from_secs(1);

/// Runs `script` once there is a leader.
fn run<F, Fut>(script: F) -> History
where
    F: FnOnce(Clients) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let outcome = Sim::run(SimConfig::new(11), |handle: Handle| async move {
        while handle.leader().is_none() {
            handle.sleep(Duration::from_millis(10)).await;
        }
        script(Clients::new(handle)).await;
    });
    assert_eq!(outcome.panics, Vec::<String>::new());
    outcome.history
}

fn put(key: &'static str) -> Request {
    Request::Put(pb::PutRequest { key: key.into(), value: "1".into(), ..Default::default() })
}

fn get(key: &'static str) -> Request {
    Request::Range(pb::RangeRequest { key: key.into(), ..Default::default() })
}

fn follower(handle: &Handle) -> MemberId {
    let leader = handle.leader().expect("there is one");
    handle.members().into_iter().find(|member| *member != leader).expect("there are three")
}

#[test]
fn a_put_without_an_answer_is_sent_once_and_its_outcome_is_unknown() {
    let history = run(|clients| async move {
        let handle = clients.handle();
        let member = follower(handle);
        let node = Target::Member(member);
        handle.inject(Fault::Pause(Pause { node, duration: 3 * SECOND }));
        let client = clients.pinned(member, SECOND);
        assert!(client.call(put("a")).await.is_err());
        handle.sleep(4 * SECOND).await;
    });
    let [op] = history.operations() else { panic!("one call, one operation: {history:?}") };
    assert_eq!(op.outcome, Outcome::Unknown);
    assert_eq!(op.ended.since(op.called), SECOND);
}

#[test]
fn a_read_moves_on_to_the_next_member_and_each_try_is_recorded() {
    let history = run(|clients| async move {
        let handle = clients.handle();
        let dead = handle.members()[0];
        handle.inject(Fault::Kill(Kill { node: Target::Member(dead) }));
        let client = clients.roaming(0, SECOND);
        assert!(client.read(get("a"), 10).await.is_ok());
        assert_ne!(client.endpoint(), dead);
    });
    let tries = history.operations();
    assert!(tries.len() > 1 && tries.iter().all(|op| matches!(op.call, Call::Range(_))));
    assert!(matches!(tries[tries.len() - 1].outcome, Outcome::Done { .. }));
}

#[test]
fn a_watcher_resumes_behind_the_last_revision_it_was_shown() {
    let history = run(|clients| async move {
        let handle = clients.handle().clone();
        let progress = WatchProgress::default();
        Watcher { clients: 3, ..Watcher::default() }.start(&clients, &progress);
        PutLoad::default().start(&clients, handle.now() + 4 * SECOND);
        handle.sleep(SECOND).await;
        let node = Target::Member(follower(&handle));
        handle.inject(Fault::Kill(Kill { node }));
        handle.sleep(SECOND).await;
        handle.inject(Fault::Restart(Restart { node }));
        handle.sleep(4 * SECOND).await;
        let readout = Readout { limit: 10 * SECOND };
        assert_eq!(readout.run(&clients, &progress).await, Ok(()));
    });
    let watches = history.watches();
    let lost = watches
        .iter()
        .find(|watch| watch.end.is_some() && !watch.events.is_empty())
        .expect("the killed member had a watcher");
    let last = history.kv(lost.events.last().expect("not empty").kv).mod_revision;
    let next = watches
        .iter()
        .find(|watch| watch.client == lost.client && watch.opened > lost.opened)
        .expect("it opened another");
    assert_eq!(next.start_revision, last + 1);
    assert_eq!(Watch.check(&Case::new(&history)), Ok(()));
}

#[test]
fn an_open_loop_keeps_its_pace_while_a_member_is_stuck() {
    let history = run(|clients| async move {
        let handle = clients.handle().clone();
        let node = Target::Member(follower(&handle));
        handle.inject(Fault::Pause(Pause { node, duration: 3 * SECOND }));
        PutLoad::default().start(&clients, handle.now() + 3 * SECOND);
        handle.sleep(5 * SECOND).await;
        assert!(clients.are_done());
    });
    // 200 a second, answered or not.
    assert!((590..=610).contains(&history.operations().len()), "{}", history.operations().len());
}

#[test]
fn an_operator_changes_the_members_and_every_call_of_it_is_in_the_history() {
    let history = run(|clients| async move {
        let handle = clients.handle().clone();
        let progress = WatchProgress::default();
        Watcher::default().start(&clients, &progress);
        MemberChanges::default().start(&clients, handle.now() + 60 * SECOND);
        PutLoad::default().start(&clients, handle.now() + 60 * SECOND);
        handle.sleep(65 * SECOND).await;
        assert!(clients.are_done());
        let readout = Readout { limit: 10 * SECOND };
        assert_eq!(readout.run(&clients, &progress).await, Ok(()));
    });
    for kind in ["member add", "member promote", "member remove", "move leader"] {
        let is_it = |call: &Call| matches!(call, Call::Other(name) if *name == kind);
        let done = |outcome: &Outcome| matches!(outcome, Outcome::Done { .. });
        let ops = history.operations().iter().filter(|op| is_it(&op.call));
        assert!(ops.filter(|op| done(&op.outcome)).count() > 0, "no {kind} was answered");
    }
    let voters = history.facts().iter().filter_map(|(_, fact)| match fact {
        Fact::Membership { change, .. } => Some(change.voters.len()),
        _ => None,
    });
    assert!(voters.clone().all(|voters| (3..=7).contains(&voters)));
    assert!(voters.max() > Some(3));
    assert_eq!(Membership.check(&Case::new(&history)), Ok(()));
}

#[test]
fn a_maintainer_has_one_call_open_when_the_load_ends() {
    run(|clients| async move {
        let handle = clients.handle().clone();
        for member in handle.members() {
            let node = Target::Member(member);
            handle.inject(Fault::Pause(Pause { node, duration: 60 * SECOND }));
        }
        let end = handle.now() + 2 * SECOND;
        Maintainer { every: SECOND, timeout: 5 * SECOND, ..Maintainer::default() }
            .start(&clients, end);
        handle.sleep(7 * SECOND).await;
        assert!(clients.are_done());
    });
}
