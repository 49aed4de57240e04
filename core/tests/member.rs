//! The member's loop, three members at a time, in virtual time.

mod support;

use std::time::Duration;

use detkv_core::api::{Request, Response};
use detkv_core::pb::{etcdserverpb as pb, peer};
use detkv_core::{
    ApiError, DiskAction, Files as _, Halt, Input, MemberId, OpenError, Outputs, Profile, Role,
};
use support::{Cluster, put};

/// A cluster whose log is soon too short for whoever was away.
fn short_log(profile: Profile) -> Cluster {
    Cluster::with(3, 5, |config| {
        config.profile = profile;
        config.snapshot_count = 20;
        config.snapshot_catchup_entries = 5;
    })
}

/// Kills a follower, writes past the end of the log, and starts it again. Returns leader, follower.
fn fall_behind(c: &mut Cluster) -> (MemberId, MemberId) {
    let leader = c.elect();
    let behind = c.followers()[0];
    c.kill(behind);
    for i in 0..4 {
        for k in 0..30 {
            c.put(leader, &format!("k{k}"), &i.to_string());
        }
        c.run(Duration::from_millis(1_200));
    }
    c.start(behind);
    (leader, behind)
}

fn three() -> Cluster {
    Cluster::new(3, Profile::Decoupled, 7)
}

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
fn a_single_member_acknowledges_only_after_its_sync() {
    let mut c = Cluster::new(1, Profile::Decoupled, 1);
    let leader = c.elect();
    c.nodes.get_mut(&leader).unwrap().log_stalled = true;
    let id = c.send(leader, put("k", "v"));
    c.ms(500);
    assert!(c.reply(leader, id).is_none());
    c.nodes.get_mut(&leader).unwrap().log_stalled = false;
    c.ms(100);
    assert!(c.reply(leader, id).is_some());
}

/// The swarm's seed 7130: the vote's write failed, and the next life led the same term again, with another
/// entry of the same index and term.
#[test]
fn a_single_member_leads_only_once_its_vote_is_durable() {
    for profile in [Profile::Coupled, Profile::Decoupled] {
        let mut c = Cluster::new(1, profile, 1);
        let id = MemberId(1);
        c.nodes.get_mut(&id).unwrap().log_stalled = true;
        c.ms(10_000);
        let status = c.member(id).status();
        assert_eq!((status.role, status.term, status.last_index), (Role::Candidate, 1, 0));
        c.nodes.get_mut(&id).unwrap().log_stalled = false;
        c.poll(id);
        assert_eq!((c.leader(), c.member(id).status().term), (Some(id), 1), "{profile:?}");
        assert_eq!(c.put(id, "k", "v"), 2);
    }
}

/// The swarm's seed 3953: a coupled member that waits for its disk had accepted an append, and said that what
/// its log still held there was committed.
#[test]
fn an_entry_about_to_be_replaced_is_not_shown_as_committed() {
    let mut c = Cluster::new(3, Profile::Coupled, 7);
    let old = c.elect();
    c.put(old, "a", "1");
    c.ms(500);
    let new = c.followers()[0];
    c.isolated.insert(old);
    c.send(old, put("a", "lost"));
    let (term, last) = (c.member(old).status().term, c.member(old).status().last_index);
    c.nodes.get_mut(&old).unwrap().log_stalled = true;
    let told = |c: &mut Cluster, m: peer::RaftMessage| {
        let m = peer::RaftMessage { from: new.0, to: old.0, term: term + 1, ..m };
        let frame = peer::Frame { body: Some(peer::frame::Body::Raft(m)) };
        c.input(old, Input::Peer { from: new, frame });
        c.poll(old);
        let member = c.nodes.get_mut(&old).unwrap().member.as_mut().unwrap();
        let facts = member.take_raft_facts();
        assert_eq!((facts.term, facts.last_index), (term + 1, last));
        (facts.commit_index, member.log_term(last))
    };
    const MSG_APPEND: u32 = 3;
    const MSG_HEARTBEAT: u32 = 8;
    // The new term is being written; the append is accepted and waits behind it.
    let heartbeat = peer::RaftMessage { msg_type: MSG_HEARTBEAT, ..Default::default() };
    assert_eq!(told(&mut c, heartbeat.clone()), (last - 1, Some(term)));
    let entry = peer::Entry { term: term + 1, index: last, ..Default::default() };
    let append = peer::RaftMessage {
        msg_type: MSG_APPEND,
        log_term: term,
        index: last - 1,
        entries: vec![entry],
        commit: last,
        ..Default::default()
    };
    assert_eq!(told(&mut c, append), (last - 1, Some(term)));
    c.nodes.get_mut(&old).unwrap().log_stalled = false;
    c.poll(old);
    assert_eq!(told(&mut c, heartbeat), (last, Some(term + 1)));
}

#[test]
fn a_commit_notice_is_not_answered() {
    let mut c = three();
    let leader = c.elect();
    c.ms(500);
    c.put(leader, "a", "1");
    let before = c.append_answers;
    c.put(leader, "b", "2");
    assert_eq!(c.append_answers - before, 2, "one answer per follower, to the entry");
}

#[test]
fn a_lost_acknowledgement_comes_again_after_a_heartbeat() {
    let mut c = three();
    let leader = c.elect();
    c.ms(500);
    c.lose_append_answers = true;
    let id = c.send(leader, put("a", "1"));
    c.deliver();
    c.lose_append_answers = false;
    assert!(c.reply(leader, id).is_none(), "nobody told the leader");
    c.ms(250);
    assert!(matches!(c.reply(leader, id), Some(Ok(_))), "the next heartbeats brought it");
}

/// On a slow link a probe is repeated with every heartbeat that was under way before it.
#[test]
fn a_peer_whose_log_is_not_known_is_sent_little_and_then_each_entry_once() {
    let mut c = three();
    let leader = c.elect();
    let follower = c.followers()[0];
    c.isolated.insert(follower);
    let value = "v".repeat(8 << 10);
    for n in 0..40 {
        c.put(leader, &format!("key-{n}"), &value);
    }
    c.appends.clear();
    c.isolated.clear();
    c.ms(500);
    let sent: Vec<usize> =
        c.appends.iter().filter(|(to, _)| *to == follower).map(|(_, bytes)| *bytes).collect();
    assert!((8 << 10..=64 << 10).contains(&sent[0]), "the probe: {sent:?}");
    assert!(sent.iter().sum::<usize>() < 41 * (9 << 10), "no entry comes twice: {sent:?}");
    c.assert_converged();
}

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
fn a_stalled_leader_disk_stops_nothing_when_decoupled() {
    let mut c = three();
    let leader = c.elect();
    let term = c.member(leader).status().term;
    c.nodes.get_mut(&leader).unwrap().log_stalled = true;
    for i in 0..40 {
        let id = c.send(leader, put("k", &i.to_string()));
        assert!(c.reply(leader, id).is_some(), "a quorum of followers is enough");
        c.ms(100);
    }
    let status = c.member(leader).status();
    assert_eq!((status.term, c.leader()), (term, Some(leader)));
    assert!(status.persisted_index < status.applied_index);
    c.nodes.get_mut(&leader).unwrap().log_stalled = false;
    c.ms(500);
    c.assert_converged();
}

#[test]
fn a_stalled_leader_disk_costs_the_lead_when_coupled() {
    let mut c = Cluster::new(3, Profile::Coupled, 7);
    let leader = c.elect();
    c.nodes.get_mut(&leader).unwrap().log_stalled = true;
    let id = c.send(leader, put("k", "v"));
    c.ms(4_000);
    assert!(c.reply(leader, id).is_none());
    let others = c.followers();
    assert!(c.leader().is_some_and(|l| l != leader), "a follower leads: {others:?}");
    c.nodes.get_mut(&leader).unwrap().log_stalled = false;
    c.ms(1_000);
    c.assert_converged();
}

#[test]
fn a_long_stall_hands_leadership_over_once() {
    let mut c = three();
    let leader = c.elect();
    c.nodes.get_mut(&leader).unwrap().log_stalled = true;
    c.send(leader, put("k", "v"));
    c.ms(9_900);
    assert_eq!(c.leader(), Some(leader));
    c.ms(20_000);
    assert_ne!(c.leader(), Some(leader));
    assert_eq!(c.member(leader).metrics().planned_transfers_total.load(), 1);
}

#[test]
fn two_slow_follower_disks_do_not_depose_the_leader() {
    let mut c = three();
    let leader = c.elect();
    for id in c.followers() {
        c.nodes.get_mut(&id).unwrap().log_stalled = true;
    }
    let id = c.send(leader, put("k", "v"));
    c.ms(5_000);
    assert_eq!(c.leader(), Some(leader));
    assert!(c.reply(leader, id).is_none(), "nothing is durable on a quorum");
    for id in c.followers() {
        c.nodes.get_mut(&id).unwrap().log_stalled = false;
    }
    c.ms(300);
    assert!(matches!(c.reply(leader, id), Some(Ok(_))));
}

/// Under load an append carries entries and a newer commit index at once. That is no vote: what the
/// follower says to heartbeats must not wait for its disk.
#[test]
fn a_slow_follower_answers_heartbeats_while_the_commit_index_moves() {
    let mut c = three();
    c.bursts = true;
    let leader = c.elect();
    let [slow, other] = c.followers()[..] else { panic!() };
    c.nodes.get_mut(&slow).unwrap().log_stalled = true;
    // The other's acknowledgement of `a` and its forwarded `b` reach the leader in one burst.
    c.submit(other, put("b", "v"));
    c.submit(leader, put("a", "v"));
    c.poll(leader);
    c.deliver();
    c.kill(other);
    c.ms(5_000);
    assert_eq!(c.leader(), Some(leader));
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
fn a_follower_behind_the_log_gets_a_snapshot() {
    let mut c = Cluster::with(3, 5, |config| {
        config.snapshot_count = 20;
        config.snapshot_catchup_entries = 5;
    });
    let leader = c.elect();
    let behind = c.followers()[0];
    c.kill(behind);
    for i in 0..10 {
        for k in 0..10 {
            c.put(leader, &format!("k{k}"), &i.to_string());
        }
        c.run(Duration::from_millis(1_200));
    }
    c.start(behind);
    c.ms(3_000);
    assert_eq!(c.member(behind).metrics().snapshots_installed_total.load(), 1);
    assert_eq!(c.get(behind, "k9").as_deref(), Some("9"));
    c.put(leader, "after", "it");
    c.assert_converged();
    // And the installed state survives a restart.
    c.kill(behind);
    c.start(behind);
    c.ms(1_000);
    c.assert_converged();
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

/// Raft has the snapshot, but a coupled loop takes nothing out of it before the sync is over.
#[test]
fn a_coupled_member_installs_a_snapshot_that_came_during_a_sync() {
    let mut c = short_log(Profile::Coupled);
    c.hold_snapshots = true;
    let (leader, behind) = fall_behind(&mut c);
    c.ms(3_000);
    assert!(c.holds_snapshots());
    c.nodes.get_mut(&behind).unwrap().log_stalled = true;
    // An append from before, late.
    let status = c.member(behind).status();
    let entry =
        peer::Entry { term: status.term, index: status.last_index + 1, ..Default::default() };
    let append = peer::RaftMessage {
        msg_type: 3,
        from: leader.0,
        to: behind.0,
        term: status.term,
        log_term: status.term,
        index: status.last_index,
        entries: vec![entry],
        ..Default::default()
    };
    let frame = peer::Frame { body: Some(peer::frame::Body::Raft(append)) };
    c.input(behind, Input::Peer { from: leader, frame });
    c.poll(behind);
    c.release_snapshots();
    c.ms(500);
    c.nodes.get_mut(&behind).unwrap().log_stalled = false;
    c.poll(behind);
    c.ms(1_000);
    assert_eq!(c.member(behind).metrics().snapshots_installed_total.load(), 1);
    c.assert_converged();
}

/// The backend lane of the receiver is so slow that the sender gives up and begins again, and the
/// snapshot lane still has the removal of the first file before it when the second is complete.
#[test]
fn a_snapshot_sent_again_does_not_meet_what_is_left_of_the_first() {
    let mut c = short_log(Profile::Decoupled);
    c.hold_snapshots = true;
    let (leader, behind) = fall_behind(&mut c);
    c.ms(1_000);
    let node = c.nodes.get_mut(&behind).unwrap();
    (node.jobs_stalled, node.snapshot_lane_stalled) = (true, true);
    c.release_snapshots();
    c.ms(31_500);
    assert_eq!(c.member(leader).metrics().snapshots_sent_total.load(), 0);
    c.nodes.get_mut(&behind).unwrap().jobs_stalled = false;
    c.poll(behind);
    c.ms(500);
    c.nodes.get_mut(&behind).unwrap().snapshot_lane_stalled = false;
    c.poll(behind);
    c.ms(2_000);
    assert_eq!(c.member(behind).metrics().snapshots_installed_total.load(), 1);
    c.assert_converged();
    let left = c.nodes[&behind].disk.list("member/snap").unwrap();
    assert!(left.iter().all(|name| !name.starts_with("receiving")), "{left:?}");
}

#[test]
fn a_complete_snapshot_waits_for_a_slow_disk_without_spinning() {
    let mut c = short_log(Profile::Decoupled);
    c.hold_snapshots = true;
    let (leader, behind) = fall_behind(&mut c);
    c.ms(1_000);
    c.nodes.get_mut(&behind).unwrap().jobs_stalled = true;
    c.release_snapshots();
    c.kill(leader);
    c.ms(40_000);
    c.nodes.get_mut(&behind).unwrap().jobs_stalled = false;
    c.start(leader);
    c.ms(3_000);
    c.assert_converged();
}

/// Until the new snapshot record is durable, the log may end at any record before it: the snap
/// file of that one must be there.
#[test]
fn an_old_snap_file_goes_only_after_the_record_of_the_new_one_is_durable() {
    let mut c = Cluster::with(1, 1, |config| config.snapshot_count = 20);
    let leader = c.elect();
    let snaps = |c: &Cluster| {
        let names = c.nodes[&leader].disk.list("member/snap").unwrap();
        names.into_iter().filter(|name| name.ends_with(".snap")).count()
    };
    for _ in 0..4 {
        for _ in 0..30 {
            c.put(leader, "k", "v");
        }
        c.ms(1_200);
    }
    assert_eq!(snaps(&c), 2);
    for _ in 0..30 {
        c.put(leader, "k", "v");
    }
    c.nodes.get_mut(&leader).unwrap().log_stalled = true;
    c.ms(1_200);
    assert_eq!(snaps(&c), 3);
    c.nodes.get_mut(&leader).unwrap().log_stalled = false;
    c.ms(200);
    assert_eq!(snaps(&c), 2);
}

/// Else a transfer that takes longer than the log lasts would be followed by the next for ever.
#[test]
fn the_log_waits_for_a_snapshot_under_way() {
    let mut c = short_log(Profile::Decoupled);
    c.hold_snapshots = true;
    let (leader, behind) = fall_behind(&mut c);
    c.ms(1_000);
    for _ in 0..4 {
        for _ in 0..30 {
            c.put(leader, "k", "v");
        }
        c.ms(1_200);
    }
    c.release_snapshots();
    c.ms(3_000);
    assert_eq!(c.member(behind).metrics().snapshots_installed_total.load(), 1);
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
