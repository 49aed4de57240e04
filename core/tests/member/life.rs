//! Starts, stops and ends.

use std::time::Duration;

use detkv_core::api::{Request, Response};
use detkv_core::pb::{etcdserverpb as pb, peer};
use detkv_core::{DiskAction, Files as _, Halt, Input, MemberId, OpenError, Profile};

use crate::support::Cluster;
use crate::three;

#[test]
fn members_publish_themselves_and_agree_on_a_version() {
    let mut c = three();
    let leader = c.elect();
    c.ms(500);
    let request = Request::MemberList(pb::MemberListRequest { linearizable: true });
    let Ok(Response::MemberList(list)) = c.call(leader, request) else { panic!() };
    assert_eq!(list.header.unwrap().revision, 0);
    assert!(list.members.iter().all(|m| m.client_ur_ls.len() == 1), "{list:?}");
    assert_eq!(c.member(leader).status().cluster_version.as_deref(), Some("3.6.0"));
}

#[test]
fn a_restarted_cluster_has_everything() {
    let mut c = three();
    let leader = c.elect();
    for i in 0..50 {
        c.put(leader, &format!("k{i}"), "v");
    }
    let ids: Vec<_> = c.nodes.keys().copied().collect();
    ids.iter().for_each(|id| c.kill(*id));
    c.ms(100);
    ids.iter().for_each(|id| c.start(*id));
    let leader = c.elect();
    assert_eq!(c.get(leader, "k49").as_deref(), Some("v"));
    assert_eq!(c.put(leader, "k", "v"), 52);
    c.assert_converged();
}

#[test]
fn a_tail_that_the_store_knows_to_be_whole_is_not_cut_off() {
    let mut c = Cluster::new(1, Profile::Decoupled, 7);
    let id = c.elect();
    // A flipped bit beside a sector of zeros looks like a write that a crash has torn.
    c.put(id, "zeros", &"\0".repeat(2_000));
    for n in 0..5 {
        c.put(id, "k", &n.to_string());
    }
    c.run(Duration::from_secs(6));
    c.kill(id);
    let disk = c.nodes[&id].disk.clone();
    let name = disk.list("member/wal").unwrap().remove(0);
    let path = format!("member/wal/{name}");
    let read = || disk.read(&path, 0, 1 << 20).unwrap();
    let zeros = read().windows(1_900).position(|w| w.iter().all(|b| *b == 0)).unwrap();
    let flip = |with: &'static [u8]| {
        let (path, data) = (path.clone(), with.into());
        disk.perform(&DiskAction::WriteAt { path, offset: zeros as u64, data });
    };
    flip(b"\x01");
    let damaged = read();
    let refused = c.open(id).unwrap_err();
    assert!(matches!(refused, OpenError::BackendAhead { .. }), "{refused}");
    assert!(read() == damaged, "nothing was changed");
    flip(b"\0");
    c.start(id);
    c.elect();
    assert_eq!(c.get(id, "k").as_deref(), Some("4"));
}

#[test]
fn a_planned_stop_hands_over_and_leaves_everything_durable() {
    let mut c = three();
    let leader = c.elect();
    c.put(leader, "k", "v");
    let now = c.now;
    c.nodes.get_mut(&leader).unwrap().member.as_mut().unwrap().handle(now, Input::Stop);
    c.ms(1_500);
    assert_eq!(c.nodes[&leader].halt, Some(Halt::Stopped));
    assert!(c.leader().is_some());
    c.start(leader);
    c.ms(500);
    c.assert_converged();
}

#[test]
fn a_member_that_cannot_publish_itself_goes_on() {
    let mut c = Cluster::with(1, 1, |config| config.request_bytes_max = 8);
    let leader = c.elect();
    assert_eq!(c.get(leader, "k"), None);
}

#[test]
fn a_member_that_never_saw_a_quorum_can_be_stopped() {
    let mut c = three();
    let [lonely, a, b] = [1, 2, 3].map(MemberId);
    c.kill(a);
    c.kill(b);
    c.input(lonely, Input::Stop);
    c.ms(2_000);
    assert_eq!(c.nodes[&lonely].halt, Some(Halt::Stopped));
}

#[test]
fn a_planned_stop_ends_although_entries_keep_coming() {
    let mut c = three();
    let leader = c.elect();
    let stopping = c.followers()[0];
    c.nodes.get_mut(&stopping).unwrap().jobs_stalled = true;
    c.put(leader, "k", "v");
    c.input(stopping, Input::Stop);
    for _ in 0..20 {
        c.put(leader, "k", "v");
        c.run_job(stopping);
        c.ms(10);
    }
    assert_eq!(c.nodes[&stopping].halt, Some(Halt::Stopped));
    c.nodes.get_mut(&stopping).unwrap().jobs_stalled = false;
    c.start(stopping);
    c.ms(500);
    c.assert_converged();
}

#[test]
fn a_member_that_lost_acknowledged_entries_stops_with_a_reason() {
    let mut c = three();
    let leader = c.elect();
    let victim = c.followers()[0];
    let status = c.member(victim).status();
    let heartbeat = peer::RaftMessage {
        msg_type: 8,
        to: victim.0,
        from: leader.0,
        term: status.term,
        commit: status.last_index + 100,
        ..Default::default()
    };
    let frame = peer::Frame { body: Some(peer::frame::Body::Raft(heartbeat)) };
    c.input(victim, Input::Peer { from: leader, frame });
    c.poll(victim);
    assert!(matches!(c.nodes[&victim].halt, Some(Halt::Backend(_))));
}
