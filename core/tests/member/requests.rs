//! What clients ask, and leases.

use detkv_core::api::{Request, Response};
use detkv_core::pb::{etcdserverpb as pb, peer};
use detkv_core::{ApiError, Input, MemberId, Outputs};

use crate::support::{Cluster, put};
use crate::three;

#[test]
fn a_put_is_readable_on_every_member() {
    let mut c = three();
    let leader = c.elect();
    assert_eq!(c.put(leader, "k", "v1"), 2);
    let follower = c.followers()[0];
    assert_eq!(c.put(follower, "k", "v2"), 3);
    for id in [1, 2, 3].map(MemberId) {
        assert_eq!(c.get(id, "k").as_deref(), Some("v2"));
    }
    c.assert_converged();
}

#[test]
fn an_isolated_leader_serves_no_linearizable_read() {
    let mut c = three();
    let leader = c.elect();
    c.put(leader, "k", "old");
    c.isolated.insert(leader);
    let request = pb::RangeRequest { key: "k".into(), ..Default::default() };
    let id = c.send(leader, Request::Range(request));
    c.ms(8_000);
    match c.reply(leader, id) {
        Some(Err(ApiError::Timeout)) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_without_a_leader_waits_and_then_gives_up() {
    let mut c = three();
    let leader = c.elect();
    let lonely = c.followers()[0];
    for id in [leader, c.followers()[1]] {
        c.kill(id);
    }
    c.ms(3_000);
    let id = c.send(lonely, put("k", "v"));
    c.ms(6_900);
    assert!(c.reply(lonely, id).is_none());
    c.ms(200);
    assert_eq!(c.reply(lonely, id), Some(Err(ApiError::DeadlineExceeded)));
}

#[test]
fn a_lease_expires_once_and_takes_its_keys() {
    let mut c = three();
    let leader = c.elect();
    let grant = Request::LeaseGrant(pb::LeaseGrantRequest { ttl: 2, id: 9 });
    assert!(c.call(leader, grant).is_ok());
    let attached = pb::PutRequest { key: "k".into(), lease: 9, ..Default::default() };
    c.call(leader, Request::Put(attached)).unwrap();
    let follower = c.followers()[0];
    for _ in 0..3 {
        c.ms(1_500);
        let alive = Request::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id: 9 });
        let Ok(Response::LeaseKeepAlive(r)) = c.call(follower, alive) else { panic!() };
        assert_eq!(r.ttl, 2);
    }
    assert!(c.get(leader, "k").is_some());
    c.ms(3_100);
    assert_eq!(c.get(leader, "k"), None);
    let ttl = Request::LeaseTimeToLive(pb::LeaseTimeToLiveRequest { id: 9, keys: true });
    let Ok(Response::LeaseTimeToLive(r)) = c.call(follower, ttl) else { panic!() };
    assert_eq!((r.ttl, r.granted_ttl), (-1, 0));
    c.assert_converged();
}

/// The swarm's seed 6243: an answer that came after a restart was taken for that to another question.
#[test]
fn an_answer_to_an_earlier_life_renews_no_lease_of_this_one() {
    let mut c = three();
    let leader = c.elect();
    for (id, ttl) in [(8, 2), (9, 3)] {
        let grant = Request::LeaseGrant(pb::LeaseGrantRequest { ttl, id });
        assert!(c.call(leader, grant).is_ok());
    }
    let follower = c.followers()[0];
    // Asks for a renewal; the question goes no further than this.
    let ask = |c: &mut Cluster, id: i64| {
        let alive = Request::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id });
        let request = c.submit(follower, alive);
        let mut out = Outputs::default();
        let now = c.now;
        let member = c.nodes.get_mut(&follower).unwrap().member.as_mut().unwrap();
        member.poll(now, &mut out);
        let asked = out.messages.into_iter().find_map(|(_, frame)| match frame.body {
            Some(peer::frame::Body::LeaseForward(asked)) => Some(asked.request_id),
            _ => None,
        });
        (request, asked.expect("a follower asks the leader"))
    };
    let (_, earlier) = ask(&mut c, 8);
    c.kill(follower);
    c.start(follower);
    c.ms(500);
    let (request, now) = ask(&mut c, 9);
    for (request_id, lease_id, ttl) in [(earlier, 8, 2), (now, 9, 3)] {
        assert!(c.reply(follower, request).is_none());
        let answer =
            peer::LeaseReply { request_id, lease_id, found: true, ttl, ..Default::default() };
        let frame = peer::Frame { body: Some(peer::frame::Body::LeaseReply(answer)) };
        c.input(follower, Input::Peer { from: leader, frame });
        c.poll(follower);
    }
    let Some(Ok(Response::LeaseKeepAlive(r))) = c.reply(follower, request) else { panic!() };
    assert_eq!((r.id, r.ttl), (9, 3));
}

/// prost gives up at 100 levels; a txn that deep would be in the log of every member for good.
#[test]
fn a_txn_nested_too_deep_for_the_log_is_refused() {
    let mut c = three();
    let leader = c.elect();
    let nested = (0..60).fold(pb::TxnRequest::default(), |inner, _| {
        let request = Some(pb::request_op::Request::RequestTxn(inner));
        pb::TxnRequest { success: vec![pb::RequestOp { request }], ..Default::default() }
    });
    for id in [leader, c.followers()[0]] {
        let refused = c.call(id, Request::Txn(nested.clone()));
        assert!(matches!(refused, Err(ApiError::InvalidArgument(_))), "{refused:?}");
    }
    c.put(leader, "k", "v");
    c.assert_converged();
}

#[test]
fn a_forwarded_request_is_checked_before_it_enters_the_log() {
    let mut c = three();
    let leader = c.elect();
    let from = c.followers()[0];
    let before = c.member(leader).status().last_index;
    let grant = pb::LeaseGrantRequest { ttl: 10, id: 0 };
    let no_id = pb::InternalRaftRequest { lease_grant: Some(grant), ..Default::default() };
    let no_key =
        pb::InternalRaftRequest { put: Some(pb::PutRequest::default()), ..Default::default() };
    for request in [no_id, no_key] {
        let request = prost::Message::encode_to_vec(&request).into();
        let forward = peer::Forward { request_id: 1, request, conf_change: false };
        let frame = peer::Frame { body: Some(peer::frame::Body::Forward(forward)) };
        c.input(leader, Input::Peer { from, frame });
        c.poll(leader);
    }
    assert_eq!(c.member(leader).status().last_index, before);
}
