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

    let txn = |success, failure| {
        Request::Txn(pb::TxnRequest { success, failure, ..Default::default() })
    };
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
