//! No space, and defragmentation: with simulated clients, disks that take their time, and kills.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb::{self as pb, AlarmType, alarm_request::AlarmAction};
use detkv_core::{ApiError, MemberId};
use detkv_sim::check::{self, Case};
use detkv_sim::client::{
    Clients, Compactor, Maintainer, Mixed, PutLoad, Readout, WatchProgress, Watcher,
};
use detkv_sim::fault::{Kill, PowerLoss, Restart, Target};
use detkv_sim::history::{Fact, Failure, Outcome};
use detkv_sim::{Handle, Reply, RunOutcome, Sim, SimConfig};

const SECOND: Duration = Duration::from_secs(1);
const QUOTA_BYTES: u64 = 3 << 20;

async fn until_leader(world: &Handle) {
    while world.leader().is_none() {
        world.sleep(Duration::from_millis(10)).await;
    }
}

/// Every checker agrees, and nothing panicked.
fn judge(outcome: &RunOutcome) {
    assert_eq!(outcome.panics, Vec::<String>::new());
    let case = Case::new(&outcome.history);
    for checker in check::all() {
        let verdict = checker.check(&case);
        assert!(verdict.is_ok(), "{}: {:?}", checker.name(), verdict.err());
    }
    let hashes = outcome.history.facts().iter();
    let hashes = hashes.filter(|(_, fact)| matches!(fact, Fact::KvHash { .. })).count();
    assert!(hashes >= 3, "every member was asked for its hash");
}

fn alarm(action: AlarmAction, alarm: pb::AlarmMember) -> Request {
    let pb::AlarmMember { member_id, alarm } = alarm;
    Request::Alarm(pb::AlarmRequest { action: action.into(), member_id, alarm })
}

fn big(n: u32) -> Request {
    let value = vec![b'x'; 32 << 10].into();
    Request::Put(pb::PutRequest { key: format!("big{n}").into(), value, ..Default::default() })
}

#[test]
fn a_full_cluster_refuses_everywhere_and_recovers() {
    let mut config = SimConfig::new(21);
    config.tune = Some(Rc::new(|_, member| member.quota_bytes = Some(QUOTA_BYTES)));
    let outcome = Sim::run(config, |world| async move {
        until_leader(&world).await;
        let clients = Clients::new(world.clone());
        let progress = WatchProgress::default();
        Watcher { clients: 2, ..Watcher::default() }.start(&clients, &progress);
        let operators: Vec<_> =
            world.members().into_iter().map(|member| clients.pinned(member, 20 * SECOND)).collect();
        let mut taken = 0;
        while operators[0].call(big(taken)).await.is_ok() {
            taken += 1;
            assert!(taken < 200, "the quota is not enforced");
        }
        assert!(taken > 40, "{taken}");
        for operator in &operators {
            let refused = operator.call(big(1000)).await;
            assert_eq!(refused, Err(Failure::Api(ApiError::NoSpace)));
        }
        let everything = pb::DeleteRangeRequest {
            key: "\0".into(),
            range_end: "\0".into(),
            ..Default::default()
        };
        let deleted =
            operators[1].call(Request::DeleteRange(everything)).await.expect("deletes go on");
        let Reply::DeleteRange(deleted) = deleted else { panic!("{deleted:?}") };
        let revision = deleted.header.expect("a header").revision;
        let compact = pb::CompactionRequest { revision, physical: true };
        operators[1].call(Request::Compact(compact)).await.expect("compaction goes on");
        world.sleep(3 * SECOND).await;
        for operator in &operators {
            let began = world.now();
            operator
                .call(Request::Defragment(pb::DefragmentRequest {}))
                .await
                .expect("defragmented");
            assert!(world.now() > began, "the copy takes time");
            let status = operator.call(Request::Status(pb::StatusRequest {})).await.expect("local");
            let Reply::Status(status) = status else { panic!("{status:?}") };
            assert!(status.db_size < QUOTA_BYTES as i64 / 4, "{status:?}");
        }
        let get = pb::AlarmMember::default();
        let listed = operators[2].call(alarm(AlarmAction::Get, get)).await.expect("alarms");
        let Reply::Alarm(listed) = listed else { panic!("{listed:?}") };
        assert!(!listed.alarms.is_empty());
        for raised in listed.alarms {
            assert_eq!(raised.alarm(), AlarmType::Nospace);
            operators[2].call(alarm(AlarmAction::Deactivate, raised)).await.expect("disarmed");
        }
        for operator in &operators {
            operator.call(big(2000)).await.expect("there is room again");
        }
        let read = Readout { limit: 30 * SECOND }.run(&clients, &progress).await;
        assert_eq!(read, Ok(()));
    });
    judge(&outcome);
}

/// Defragmentation of every member again and again, under load, with kills in the middle of it.
fn defrag_under_kills(seed: u64) -> RunOutcome {
    let read = Rc::new(RefCell::new(None));
    let into = read.clone();
    let outcome = Sim::run(SimConfig::new(seed), |world| async move {
        until_leader(&world).await;
        let clients = Clients::new(world.clone());
        let progress = WatchProgress::default();
        let end = world.now() + 8 * SECOND;
        Mixed::default().start(&clients, end);
        PutLoad { keys: 50, puts_per_sec: 60, value_bytes: 2_000, ..PutLoad::default() }
            .start(&clients, end);
        Watcher { clients: 1, ..Watcher::default() }.start(&clients, &progress);
        Compactor { every: SECOND, keep: 100, timeout: SECOND }.start(&clients, end);
        Maintainer {
            every: Duration::from_millis(700),
            timeout: 3 * SECOND,
            ..Maintainer::default()
        }
        .start(&clients, end);
        for round in 0..4 {
            world.sleep(Duration::from_millis(1_100 + 37 * (seed * 7 + round) % 500)).await;
            let node = Target::Member(MemberId(round % 3 + 1));
            world.inject(if round % 2 == 0 {
                Kill { node }.into()
            } else {
                PowerLoss { node }.into()
            });
            world.sleep(Duration::from_millis(300)).await;
            world.inject(Restart { node }.into());
        }
        world.heal_all();
        world.sleep_until(end + 4 * SECOND).await;
        *into.borrow_mut() = Some(Readout { limit: 60 * SECOND }.run(&clients, &progress).await);
    });
    assert_eq!(read.take(), Some(Ok(())), "seed {seed}");
    outcome
}

#[test]
fn defragmentation_under_load_and_kills_loses_nothing() {
    let mut defragmented = 0;
    for seed in 1..=2 {
        let outcome = defrag_under_kills(seed);
        judge(&outcome);
        let operations = outcome.history.operations().iter();
        defragmented += operations
            .filter(|op| {
                op.call.kind() == "defragment" && matches!(op.outcome, Outcome::Done { .. })
            })
            .count();
    }
    assert!(defragmented > 10, "{defragmented} defragmentations came to their end");
}

#[test]
fn equal_seeds_defragment_equally() {
    assert_eq!(defrag_under_kills(9).event_hash, defrag_under_kills(9).event_hash);
}
