//! Quota and alarms (surface spec §7.1, §16.6, §16.7).

mod support;

use detkv_core::api::{Request, Response};
use detkv_core::pb::etcdserverpb::{self as pb, AlarmType, alarm_request::AlarmAction};
use detkv_core::{ApiError, MemberId};
use support::{Cluster, put};

const QUOTA_BYTES: u64 = 4 << 20;
const VALUE_BYTES: usize = 64 << 10;

fn cluster(size: u64) -> Cluster {
    Cluster::with(size, 7, |config| config.quota_bytes = Some(QUOTA_BYTES))
}

fn big(n: usize) -> Request {
    put(&format!("big{n}"), &"x".repeat(VALUE_BYTES))
}

fn delete_all() -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() }
}

fn put_op(key: &str) -> pb::RequestOp {
    let put = pb::PutRequest { key: key.to_owned().into(), ..Default::default() };
    pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
}

fn delete_op(key: &str) -> pb::RequestOp {
    let delete = pb::DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() };
    pb::RequestOp { request: Some(pb::request_op::Request::RequestDeleteRange(delete)) }
}

fn alarm(action: AlarmAction, member: MemberId, alarm: AlarmType) -> Request {
    Request::Alarm(pb::AlarmRequest {
        action: action.into(),
        member_id: member.0,
        alarm: alarm.into(),
    })
}

fn alarms(c: &mut Cluster, at: MemberId) -> Vec<pb::AlarmMember> {
    match c.call(at, alarm(AlarmAction::Get, MemberId(0), AlarmType::None)) {
        Ok(Response::Alarm(r)) => r.alarms,
        other => panic!("{other:?}"),
    }
}

/// Puts through `at` until the quota is reached; how many were taken.
fn fill(c: &mut Cluster, at: MemberId) -> usize {
    for n in 0..200 {
        match c.call(at, big(n)) {
            Ok(_) => {}
            Err(ApiError::NoSpace) => return n,
            Err(other) => panic!("{other:?}"),
        }
        c.ms(100);
    }
    panic!("200 puts of {VALUE_BYTES} bytes fit into {QUOTA_BYTES}");
}

fn nospace(member: MemberId) -> pb::AlarmMember {
    pb::AlarmMember { member_id: member.0, alarm: AlarmType::Nospace.into() }
}

#[test]
fn a_put_over_the_quota_raises_the_alarm_and_every_member_refuses_puts() {
    let mut c = cluster(3);
    let leader = c.elect();
    let follower = c.followers()[0];
    let grant = pb::LeaseGrantRequest { id: 5, ttl: 600 };
    c.call(leader, Request::LeaseGrant(grant)).expect("there is room");
    let taken = fill(&mut c, follower);
    let expected = QUOTA_BYTES as usize / VALUE_BYTES;
    assert!((expected / 2..=expected).contains(&taken), "{taken} puts were taken");
    assert_eq!(alarms(&mut c, leader), [nospace(follower)], "raised for whoever saw it");

    let txn =
        |success, failure| Request::Txn(pb::TxnRequest { success, failure, ..Default::default() });
    for id in [leader, follower, c.followers()[1]] {
        // The member's own check may raise its own alarm too: refused in any case.
        for refused in [
            put("small", "1"),
            txn(vec![put_op("a")], vec![delete_op("a")]),
            txn(vec![delete_op("a")], vec![put_op("a")]),
            Request::LeaseGrant(pb::LeaseGrantRequest { id: 6, ttl: 600 }),
        ] {
            assert_eq!(c.call(id, refused.clone()), Err(ApiError::NoSpace), "{refused:?}");
        }
        assert_eq!(c.get(id, "small"), None);
        assert!(c.get(id, "big0").is_some_and(|v| v.len() == VALUE_BYTES));
        c.call(id, txn(vec![delete_op("a")], vec![])).expect("a txn without puts goes on");
    }
    let deleted = pb::DeleteRangeRequest { key: "big1".into(), ..Default::default() };
    c.call(leader, Request::DeleteRange(deleted)).expect("deletes go on");
    let revision = c.member(leader).status().revision;
    let compact = pb::CompactionRequest { revision, physical: true };
    c.call(leader, Request::Compact(compact)).expect("compaction goes on");
    c.call(leader, Request::LeaseRevoke(pb::LeaseRevokeRequest { id: 5 })).expect("revokes go on");
    c.assert_converged();
}

/// Each fitted when it was proposed. Whoever is told "no space" waits for the alarm, and for no tick.
#[test]
fn puts_that_go_past_the_quota_when_they_are_applied_are_answered_at_once() {
    let mut c = cluster(1);
    let leader = c.elect();
    let sent: Vec<_> = (0..80).map(|n| c.submit(leader, big(n))).collect();
    c.poll(leader);
    c.deliver();
    let answers: Vec<_> = sent.into_iter().filter_map(|id| c.reply(leader, id)).collect();
    assert_eq!(answers.len(), 80, "no time has passed");
    assert!(answers.iter().any(|answer| *answer == Err(ApiError::NoSpace)), "{answers:?}");
    assert_eq!(alarms(&mut c, leader), [nospace(leader)]);
}

/// Deletes, compacts, defragments everywhere.
fn make_room(c: &mut Cluster, at: MemberId) {
    c.call(at, Request::DeleteRange(delete_all())).expect("deletes go on");
    let revision = c.member(at).status().revision;
    let compact = pb::CompactionRequest { revision, physical: true };
    c.call(at, Request::Compact(compact)).expect("compaction goes on");
    c.ms(2_000);
    for id in c.nodes.keys().copied().collect::<Vec<_>>() {
        let before = db_size(c, id);
        let done = c.call(id, Request::Defragment(pb::DefragmentRequest {}));
        assert_eq!(done, Ok(Response::Defragment(pb::DefragmentResponse::default())));
        let after = db_size(c, id);
        assert!(after <= before && after < QUOTA_BYTES as i64 / 4, "{after} after {before}");
    }
}

fn db_size(c: &mut Cluster, at: MemberId) -> i64 {
    match c.call(at, Request::Status(pb::StatusRequest {})) {
        Ok(Response::Status(r)) => {
            assert!(r.db_size_in_use <= r.db_size, "{r:?}");
            r.db_size
        }
        other => panic!("{other:?}"),
    }
}

fn disarm_all(c: &mut Cluster, at: MemberId) -> usize {
    let raised = alarms(c, at);
    for raised in &raised {
        let disarm = alarm(AlarmAction::Deactivate, MemberId(raised.member_id), raised.alarm());
        match c.call(at, disarm) {
            Ok(Response::Alarm(r)) => assert_eq!(r.alarms, [*raised]),
            other => panic!("{other:?}"),
        }
    }
    raised.len()
}

#[test]
fn compacted_defragmented_and_disarmed_the_cluster_takes_puts_again() {
    let mut c = cluster(3);
    let leader = c.elect();
    fill(&mut c, leader);
    make_room(&mut c, leader);
    assert_eq!(c.call(leader, put("k", "v")), Err(ApiError::NoSpace), "the alarm stays");
    let follower = c.followers()[0];
    assert!(disarm_all(&mut c, follower) >= 1);
    c.put(leader, "k", "v");
    assert!(fill(&mut c, leader) > 10, "there is room again");
    c.assert_converged();
}

#[test]
fn alarms_survive_a_restart_of_everybody_and_a_change_of_the_leader() {
    let mut c = cluster(3);
    let leader = c.elect();
    fill(&mut c, leader);
    c.kill(leader);
    let next = c.elect();
    assert_eq!(c.call(next, put("k", "v")), Err(ApiError::NoSpace));
    c.start(leader);
    for id in [MemberId(1), MemberId(2), MemberId(3)] {
        c.kill(id);
    }
    for id in [MemberId(1), MemberId(2), MemberId(3)] {
        c.start(id);
    }
    let leader = c.elect();
    assert_eq!(c.call(leader, put("k", "v")), Err(ApiError::NoSpace));
    assert!(!alarms(&mut c, leader).is_empty());
    c.assert_converged();
}

#[test]
fn disarmed_while_over_the_quota_the_alarm_is_raised_by_the_next_put() {
    let mut c = cluster(1);
    let id = c.elect();
    fill(&mut c, id);
    assert_eq!(disarm_all(&mut c, id), 1);
    assert_eq!(alarms(&mut c, id), []);
    assert_eq!(c.call(id, big(0)), Err(ApiError::NoSpace));
    assert_eq!(alarms(&mut c, id), [nospace(id)]);
}

/// What was queued or in the log before the limit was seen is applied; its client is told all the same.
#[test]
fn puts_that_cross_the_limit_together_are_applied_and_refused_the_same_everywhere() {
    let mut c = cluster(3);
    let leader = c.elect();
    let node = c.nodes.get_mut(&leader).expect("a node");
    node.jobs_stalled = true;
    let ids: Vec<_> = (0..120).map(|n| c.submit(leader, big(n))).collect();
    c.poll(leader);
    c.ms(1_000);
    c.nodes.get_mut(&leader).expect("a node").jobs_stalled = false;
    c.poll(leader);
    c.ms(1_000);
    let replies: Vec<_> = ids.iter().map(|id| c.reply(leader, *id).expect("answered")).collect();
    let taken = replies.iter().filter(|r| r.is_ok()).count();
    assert!(replies.iter().all(|r| r.is_ok() || *r == Err(ApiError::NoSpace)));
    assert!((20..80).contains(&taken), "{taken} were taken");
    // All of them were proposed before anything was known: applied in spite of the answer.
    assert!(c.get(leader, &format!("big{taken}")).is_some());
    assert_eq!(c.call(leader, put("k", "v")), Err(ApiError::NoSpace));
    c.assert_converged();
}

#[test]
fn puts_queued_without_a_leader_are_decided_when_they_are_applied() {
    let mut c = cluster(3);
    let leader = c.elect();
    fill(&mut c, leader);
    make_room(&mut c, leader);
    // There is room again, so these pass the first look; the alarm still stands when they are applied.
    let follower = c.followers()[0];
    c.isolated.extend([MemberId(1), MemberId(2), MemberId(3)]);
    c.ms(3_000);
    assert_eq!(c.member(follower).status().leader, None);
    let id = c.send(follower, put("queued", "v"));
    assert_eq!(c.reply(follower, id), None);
    c.isolated.clear();
    c.elect();
    c.ms(1_000);
    assert_eq!(c.reply(follower, id), Some(Err(ApiError::NoSpace)));
    assert_eq!(c.get(follower, "queued"), None);
}

#[test]
fn a_corrupt_alarm_stops_every_change_and_no_read() {
    let mut c = cluster(3);
    let leader = c.elect();
    c.put(leader, "k", "v");
    c.call(leader, Request::LeaseGrant(pb::LeaseGrantRequest { id: 5, ttl: 600 })).expect("grant");
    let raise = alarm(AlarmAction::Activate, MemberId(2), AlarmType::Corrupt);
    c.call(leader, raise).expect("raised");
    let delete = pb::DeleteRangeRequest { key: "k".into(), ..Default::default() };
    let txn = pb::TxnRequest { success: vec![delete_op("k")], ..Default::default() };
    for refused in [
        put("k", "w"),
        Request::DeleteRange(delete),
        Request::Txn(txn),
        Request::Compact(pb::CompactionRequest { revision: 2, physical: true }),
        Request::LeaseGrant(pb::LeaseGrantRequest { id: 6, ttl: 600 }),
        Request::LeaseRevoke(pb::LeaseRevokeRequest { id: 5 }),
    ] {
        assert_eq!(c.call(leader, refused.clone()), Err(ApiError::Corrupt), "{refused:?}");
    }
    assert_eq!(c.get(leader, "k").as_deref(), Some("v"));
    let Response::Status(status) =
        c.call(leader, Request::Status(pb::StatusRequest {})).expect("local")
    else {
        panic!("a status")
    };
    assert_eq!(status.errors, ["memberID:2 alarm:CORRUPT "]);
    assert_eq!(disarm_all(&mut c, leader), 1);
    c.put(leader, "k", "w");
    c.assert_converged();
}

#[test]
fn alarms_are_listed_by_type_and_raised_once() {
    let mut c = cluster(1);
    let id = c.elect();
    for _ in 0..2 {
        let raise = alarm(AlarmAction::Activate, MemberId(9), AlarmType::Corrupt);
        match c.call(id, raise) {
            Ok(Response::Alarm(r)) => assert_eq!(r.alarms.len(), 1),
            other => panic!("{other:?}"),
        }
    }
    c.call(id, alarm(AlarmAction::Activate, MemberId(9), AlarmType::Nospace)).expect("raised");
    match c.call(id, alarm(AlarmAction::Activate, MemberId(9), AlarmType::None)) {
        Ok(Response::Alarm(r)) => assert_eq!(r.alarms, [], "type NONE does nothing"),
        other => panic!("{other:?}"),
    }
    assert_eq!(alarms(&mut c, id).len(), 2);
    match c.call(id, alarm(AlarmAction::Get, MemberId(77), AlarmType::Nospace)) {
        Ok(Response::Alarm(r)) => assert_eq!(r.alarms, [nospace(MemberId(9))]),
        other => panic!("{other:?}"),
    }
    match c.call(id, alarm(AlarmAction::Deactivate, MemberId(8), AlarmType::Corrupt)) {
        Ok(Response::Alarm(r)) => assert_eq!(r.alarms, [], "there is none of member 8"),
        other => panic!("{other:?}"),
    }
}
