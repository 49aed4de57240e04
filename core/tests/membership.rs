//! Members come, learn, go, and are replaced; in virtual time, on disks that lose nothing.

mod support;

use bytes::Bytes;
use detkv_core::api::{Request, Response};
use detkv_core::pb::{etcdserverpb as pb, peer};
use detkv_core::{ApiError, Halt, Input, MemberId, Profile};
use support::{Cluster, put};

fn add(n: u64, is_learner: bool) -> Request {
    let peer_ur_ls = vec![format!("http://10.0.0.{n}:2380")];
    Request::MemberAdd(pb::MemberAddRequest { peer_ur_ls, is_learner })
}

fn remove(id: MemberId) -> Request {
    Request::MemberRemove(pb::MemberRemoveRequest { id: id.0 })
}

fn promote(id: MemberId) -> Request {
    Request::MemberPromote(pb::MemberPromoteRequest { id: id.0 })
}

/// Adds a member through `via` and starts it.
fn grow(c: &mut Cluster, via: MemberId, n: u64, is_learner: bool) -> MemberId {
    let added = match c.call(via, add(n, is_learner)) {
        Ok(Response::MemberAdd(added)) => added,
        other => panic!("the member is added: {other:?}"),
    };
    let new = added.member.expect("the answer says who was added");
    assert_eq!((new.is_learner, new.name.as_str()), (is_learner, ""));
    assert!(added.members.iter().any(|m| m.id == new.id));
    assert_eq!(added.header.expect("a header").revision, 0);
    let id = MemberId(new.id);
    c.join(id, &added.members);
    c.ms(3_000);
    id
}

fn voters(c: &Cluster, at: MemberId) -> Vec<MemberId> {
    c.member(at).status().voters
}

/// Elected, and connected for long enough to be healthy.
fn healthy(size: u64, profile: Profile) -> (Cluster, MemberId) {
    let mut c = Cluster::new(size, profile, 7);
    let leader = c.elect();
    c.put(leader, "k", "v");
    c.ms(6_000);
    (c, leader)
}

#[test]
fn a_cluster_grows_from_one_to_three_and_everybody_has_everything() {
    for profile in [Profile::Coupled, Profile::Decoupled] {
        let (mut c, leader) = healthy(1, profile);
        let second = grow(&mut c, leader, 8, false);
        c.put(leader, "l", "w");
        c.ms(6_000);
        let third = grow(&mut c, second, 9, false);
        for id in [leader, second, third] {
            assert_eq!(voters(&c, id).len(), 3);
            assert_eq!(c.get(id, "k").as_deref(), Some("v"));
            assert_eq!(c.get(id, "l").as_deref(), Some("w"));
        }
        c.kill(leader);
        c.ms(4_000);
        assert!(c.put(second, "m", "x") > 3, "two of three go on");
        c.start(leader);
        c.assert_converged();
    }
}

#[test]
fn a_learner_serves_only_serializable_reads_until_it_is_promoted() {
    let (mut c, leader) = healthy(3, Profile::Decoupled);
    let learner = grow(&mut c, leader, 9, true);
    let status = c.member(leader).status();
    assert_eq!((status.voters.len(), status.learners.as_slice()), (3, &[learner][..]));
    assert_eq!(c.call(learner, put("k", "w")), Err(ApiError::NotSupportedForLearner));
    let list = Request::MemberList(pb::MemberListRequest { linearizable: false });
    assert_eq!(c.call(learner, list), Err(ApiError::NotSupportedForLearner));
    let range = pb::RangeRequest { key: "k".into(), serializable: true, ..Default::default() };
    assert!(matches!(c.call(learner, Request::Range(range)), Ok(Response::ReadReady(_))));
    let to = Request::MoveLeader(pb::MoveLeaderRequest { target_id: learner.0 });
    assert_eq!(c.call(leader, to), Err(ApiError::BadLeaderTransferee));
    assert_eq!(c.call(leader, add(10, true)), Err(ApiError::TooManyLearners));

    let follower = c.followers().into_iter().find(|id| *id != learner).expect("a follower");
    let Ok(Response::MemberPromote(done)) = c.call(follower, promote(learner)) else { panic!() };
    assert!(done.members.iter().all(|m| !m.is_learner));
    c.ms(500);
    assert_eq!(voters(&c, learner).len(), 4);
    assert!(c.put(learner, "k", "w") > 2);
    assert_eq!(c.call(leader, promote(learner)), Err(ApiError::MemberNotLearner));
    let promotions = |c: &Cluster, at| c.member(at).metrics().learner_promote_successes.load();
    assert_eq!((promotions(&c, leader), promotions(&c, follower)), (1, 0), "the leader's doing");
    c.assert_converged();
}

#[test]
fn a_learner_that_lags_is_not_promoted() {
    let (mut c, leader) = healthy(3, Profile::Decoupled);
    let learner = grow(&mut c, leader, 9, true);
    c.kill(learner);
    for i in 0..200 {
        c.put(leader, "k", &i.to_string());
    }
    assert_eq!(c.call(leader, promote(learner)), Err(ApiError::LearnerNotReady));
    let follower = c.followers().into_iter().find(|id| *id != learner).expect("a follower");
    assert_eq!(c.call(follower, promote(learner)), Err(ApiError::LearnerNotReady));
    let failures = c.member(leader).metrics().learner_promote_failures.lock().clone();
    assert_eq!(failures, [(ApiError::LearnerNotReady.to_string(), 2)].into());
    c.start(learner);
    c.ms(2_000);
    assert!(c.call(follower, promote(learner)).is_ok());
}

/// Issue 19406: a promotion that was answered must be on disk with the index it was made at.
#[test]
fn a_promotion_survives_a_crash_of_every_member() {
    let (mut c, leader) = healthy(3, Profile::Decoupled);
    let learner = grow(&mut c, leader, 9, true);
    // The store's file stays behind the log: the change comes back from there.
    let all: Vec<MemberId> = c.nodes.keys().copied().collect();
    for id in &all {
        c.nodes.get_mut(id).unwrap().jobs_stalled = true;
    }
    c.call(leader, promote(learner)).expect("promoted");
    c.ms(300);
    for id in &all {
        c.kill(*id);
    }
    for id in &all {
        c.nodes.get_mut(id).unwrap().jobs_stalled = false;
        c.start(*id);
    }
    c.elect();
    for id in &all {
        let status = c.member(*id).status();
        assert_eq!((status.voters.len(), status.learners.len()), (4, 0), "member {id}");
    }
    c.assert_converged();
    // The backend commits once a second.
    c.ms(2_000);
    for id in &all {
        c.kill(*id);
        c.start(*id);
        assert_eq!(c.member(*id).status().voters.len(), 4, "and from the file");
    }
}

#[test]
fn changes_that_cannot_be_made_have_etcds_errors_on_every_member() {
    let (mut c, leader) = healthy(3, Profile::Decoupled);
    let follower = c.followers()[0];
    for at in [leader, follower] {
        let bad = Request::MemberAdd(pb::MemberAddRequest {
            peer_ur_ls: vec!["http://10.0.0.1".to_owned()],
            is_learner: false,
        });
        assert_eq!(c.call(at, bad), Err(ApiError::MemberBadUrls));
        let taken = Request::MemberAdd(pb::MemberAddRequest {
            peer_ur_ls: vec!["http://127.0.0.1:2381".to_owned()],
            is_learner: false,
        });
        assert_eq!(c.call(at, taken), Err(ApiError::PeerUrlExists));
        assert_eq!(c.call(at, remove(MemberId(99))), Err(ApiError::MemberNotFound));
        assert_eq!(c.call(at, promote(MemberId(99))), Err(ApiError::MemberNotFound));
        let update = |id, url: &str| {
            let peer_ur_ls = vec![url.to_owned()];
            Request::MemberUpdate(pb::MemberUpdateRequest { id, peer_ur_ls })
        };
        assert_eq!(c.call(at, update(99, "http://h:1")), Err(ApiError::MemberNotFound));
        assert_eq!(c.call(at, update(1, "http://127.0.0.1:2382")), Err(ApiError::PeerUrlExists));
        let Ok(Response::MemberUpdate(done)) = c.call(at, update(3, "http://moved:9")) else {
            panic!("the URLs of member 3 change")
        };
        assert_eq!(done.members[2].peer_ur_ls, ["http://moved:9"]);
        assert_eq!(done.members[2].name, "m3", "only the URLs");
    }
    assert_eq!(voters(&c, leader).len(), 3);
    c.assert_converged();
}

#[test]
fn strict_checks_protect_the_quorum() {
    let mut c = Cluster::new(3, Profile::Decoupled, 7);
    let leader = c.elect();
    assert_eq!(c.call(leader, add(9, false)), Err(ApiError::Unhealthy), "connected for < 5 s");
    c.ms(6_000);
    let others = c.followers();
    c.kill(others[0]);
    c.ms(200);
    assert_eq!(c.call(leader, add(9, false)), Err(ApiError::Unhealthy), "2 of 4 is no quorum");
    assert_eq!(c.call(leader, remove(others[1])), Err(ApiError::Unhealthy));
    assert!(c.call(leader, remove(others[0])).is_ok(), "one that is down may go");
    // It never started: the two others are no quorum of four that could lose one more.
    assert!(c.call(leader, add(9, false)).is_ok());
    assert_eq!(c.call(leader, add(10, false)), Err(ApiError::NotEnoughStarted));
    let (mut one, leader) = healthy(1, Profile::Decoupled);
    assert_eq!(one.call(leader, remove(leader)), Err(ApiError::NotEnoughStarted));
}

#[test]
fn changes_asked_at_once_are_made_one_after_the_other() {
    let (mut c, leader) = healthy(3, Profile::Decoupled);
    let followers = c.followers();
    let asked = [
        (leader, c.submit(leader, add(11, false))),
        (followers[0], c.submit(followers[0], add(12, true))),
        (followers[1], c.submit(followers[1], add(13, false))),
    ];
    for id in [leader, followers[0], followers[1]] {
        c.poll(id);
    }
    c.ms(1_000);
    for (at, id) in asked {
        let reply = c.reply(at, id).expect("answered");
        assert!(matches!(reply, Ok(Response::MemberAdd(_))), "{reply:?}");
    }
    let status = c.member(leader).status();
    assert_eq!((status.voters.len(), status.learners.len()), (5, 1));
}

#[test]
fn a_leader_that_is_to_go_hands_over_first() {
    for profile in [Profile::Coupled, Profile::Decoupled] {
        let (mut c, leader) = healthy(3, profile);
        let id = c.send(leader, remove(leader));
        c.ms(2_000);
        let reply = c.reply(leader, id).expect("the removed member answers its client");
        assert!(matches!(reply, Ok(Response::MemberRemove(_))), "{reply:?}");
        assert_eq!(c.nodes[&leader].halt, Some(Halt::Removed));
        let next = c.leader().expect("somebody else leads already");
        assert_eq!(c.member(next).status().voters.len(), 2);
        assert!(c.put(next, "k", "w") > 2);
    }
}

/// The leader falls while its successor has the entry that removes the successor.
#[test]
fn a_leader_that_commits_its_own_removal_tells_the_others_and_stops() {
    let (mut c, leader) = healthy(3, Profile::Decoupled);
    let [heir, other] = c.followers()[..] else { panic!() };
    // `heir` has the entry before anybody acknowledges it.
    c.nodes.get_mut(&leader).unwrap().log_stalled = true;
    c.nodes.get_mut(&heir).unwrap().log_stalled = true;
    c.nodes.get_mut(&other).unwrap().log_stalled = true;
    let last = c.member(heir).status().last_index;
    c.send(leader, remove(heir));
    assert_eq!(c.member(heir).status().last_index, last + 1);
    c.kill(leader);
    c.isolated.insert(leader);
    c.nodes.get_mut(&heir).unwrap().log_stalled = false;
    c.nodes.get_mut(&other).unwrap().log_stalled = false;
    c.ms(10_000);
    // Whoever won, the entry is in the log of both and was committed.
    assert_eq!(c.nodes[&heir].halt, Some(Halt::Removed));
    assert_eq!(voters(&c, other), {
        let mut left = vec![leader, other];
        left.sort();
        left
    });
    c.isolated.clear();
    c.nodes.get_mut(&leader).unwrap().log_stalled = false;
    c.start(leader);
    c.elect();
    assert!(c.put(other, "k", "w") > 2);
}

#[test]
fn two_become_one_whichever_goes() {
    for profile in [Profile::Coupled, Profile::Decoupled] {
        for leader_goes in [false, true] {
            let (mut c, leader) = healthy(2, profile);
            let follower = c.followers()[0];
            let (goes, stays) = if leader_goes { (leader, follower) } else { (follower, leader) };
            let asked = c.send(stays, remove(goes));
            c.ms(3_000);
            assert!(matches!(c.reply(stays, asked), Some(Ok(_))), "{profile:?} {leader_goes}");
            assert_eq!(c.nodes[&goes].halt, Some(Halt::Removed));
            assert_eq!((c.leader(), voters(&c, stays)), (Some(stays), vec![stays]));
            assert!(c.put(stays, "k", "w") > 2);
            c.kill(stays);
            c.start(stays);
            c.elect();
            assert_eq!(c.get(stays, "k").as_deref(), Some("w"));
        }
    }
}

/// Rules 7: raft-rs asserts that a new leader's log is durable. The last voter wins at once, so it
/// must not even begin before its disk has caught up.
#[test]
fn the_last_voter_waits_for_its_disk_before_it_campaigns() {
    let (mut c, leader) = healthy(2, Profile::Decoupled);
    let gone = c.followers()[0];
    c.call(leader, remove(gone)).expect("removed");
    c.ms(1_000);
    c.nodes.get_mut(&leader).unwrap().log_stalled = true;
    c.send(leader, put("k", "w"));
    let term = c.member(leader).status().term + 1;
    // A word of a later term from a member that has gone.
    let heartbeat = raft_heartbeat(gone, leader, term);
    c.input(leader, Input::Peer { from: gone, frame: heartbeat });
    c.poll(leader);
    assert_eq!(c.leader(), None, "it stepped down with an append under way");
    c.ms(10_000);
    assert_eq!(c.leader(), None);
    c.nodes.get_mut(&leader).unwrap().log_stalled = false;
    c.ms(5_000);
    assert_eq!(c.leader(), Some(leader));
    assert_eq!(c.get(leader, "k").as_deref(), Some("w"));
}

fn raft_heartbeat(from: MemberId, to: MemberId, term: u64) -> peer::Frame {
    let message = peer::RaftMessage {
        msg_type: 8, // raft-rs' MsgHeartbeat
        from: from.0,
        to: to.0,
        term,
        context: Bytes::new(),
        ..Default::default()
    };
    peer::Frame { body: Some(peer::frame::Body::Raft(message)) }
}

#[test]
fn a_removed_member_stays_out_whatever_it_missed() {
    let (mut c, leader) = healthy(3, Profile::Decoupled);
    let [gone, missed] = c.followers()[..] else { panic!() };
    // One that was away learns it from whoever refuses it.
    c.kill(missed);
    c.ms(200);
    c.call(leader, remove(missed)).expect("one that is down may go");
    c.ms(500);
    c.start(missed);
    assert_eq!(c.nodes[&missed].halt, None);
    c.input(missed, Input::RefusedAsRemoved { peer: leader });
    c.poll(missed);
    assert_eq!(c.nodes[&missed].halt, Some(Halt::Removed));

    c.call(leader, remove(gone)).expect("removed");
    c.ms(2_000);
    assert_eq!(c.nodes.get_mut(&gone).unwrap().halt.take(), Some(Halt::Removed));
    c.start(gone);
    assert_eq!(c.nodes[&gone].halt, Some(Halt::Removed), "its directory says so");
    assert!(c.put(leader, "k", "w") > 2);
}

/// It is behind the log of everybody, and the only one who can send it a snapshot is one that its member list
/// does not name: unless it answers strangers, it stays behind for ever.
#[test]
fn one_that_missed_a_join_is_caught_up_by_the_new_member() {
    let mut c = Cluster::with(3, 7, |config| {
        (config.snapshot_count, config.snapshot_catchup_entries) = (8, 2);
    });
    let leader = c.elect();
    c.put(leader, "k", "v");
    c.ms(6_000);
    let [missed, other] = c.followers()[..] else { panic!() };
    c.isolated.insert(missed);
    let new = grow(&mut c, leader, 8, true);
    c.call(leader, promote(new)).expect("it has everything");
    for n in 0..40 {
        c.put(leader, "k", &n.to_string());
    }
    c.ms(6_000);
    let target_id = new.0;
    let moves = Request::MoveLeader(pb::MoveLeaderRequest { target_id });
    c.call(leader, moves).expect("the new member leads");
    c.call(other, remove(leader)).expect("the old leader goes");
    c.ms(2_000);
    assert_eq!((c.leader(), voters(&c, missed).contains(&new)), (Some(new), false));

    c.isolated.remove(&missed);
    c.ms(3_000);
    assert_eq!(voters(&c, missed), voters(&c, new));
    assert_eq!(c.get(missed, "k").as_deref(), Some("39"));
}

#[test]
fn a_lost_disk_is_replaced_under_a_new_id() {
    let (mut c, leader) = healthy(3, Profile::Decoupled);
    let lost = c.followers()[0];
    c.kill(lost);
    for i in 0..50 {
        c.put(leader, &format!("k{i}"), "v");
    }
    c.call(leader, remove(lost)).expect("removed");
    c.nodes.remove(&lost);
    c.ms(6_000);
    let url = vec![format!("http://127.0.0.1:{}", 2380 + lost.0)];
    let again = Request::MemberAdd(pb::MemberAddRequest { peer_ur_ls: url, is_learner: false });
    let Ok(Response::MemberAdd(added)) = c.call(leader, again) else { panic!() };
    let new = MemberId(added.member.expect("who was added").id);
    assert_ne!(new, lost);
    c.join(new, &added.members);
    c.ms(3_000);
    assert_eq!(c.get(new, "k49").as_deref(), Some("v"));
    c.assert_converged();
}

#[test]
fn a_follower_does_not_pass_a_change_to_a_leader_of_the_first_wire_version() {
    let mut c = Cluster::with(3, 7, |config| {
        config.wire_version = if config.id == MemberId(1) { 1 } else { 2 };
    });
    c.elect();
    c.ms(6_000);
    for old in [2, 3].map(MemberId) {
        let version = "3.5.0".to_owned();
        c.input(old, Input::PeerVersion { peer: MemberId(1), wire: 1, version });
    }
    let leader = c.leader().expect("elected");
    if leader != MemberId(1) {
        let to = Request::MoveLeader(pb::MoveLeaderRequest { target_id: 1 });
        c.call(leader, to).expect("member 1 leads");
    }
    assert_eq!(c.call(MemberId(2), add(9, false)), Err(ApiError::NotLeader));
    assert!(c.call(MemberId(1), add(9, false)).is_ok());
}

#[test]
fn the_cluster_version_is_that_of_the_oldest_member_and_rises_with_it() {
    let mut c = Cluster::new(3, Profile::Decoupled, 7);
    let say = |c: &mut Cluster, version: &str| {
        for at in [1, 2].map(MemberId) {
            let version = version.to_owned();
            c.input(at, Input::PeerVersion { peer: MemberId(3), wire: 1, version });
        }
    };
    say(&mut c, "3.5.4");
    c.isolated.insert(MemberId(3));
    let leader = c.elect();
    c.isolated.clear();
    c.ms(2_000);
    assert_eq!(c.member(leader).status().cluster_version.as_deref(), Some("3.5.0"));
    say(&mut c, "3.6.1");
    c.ms(1_000);
    assert_eq!(c.member(leader).status().cluster_version.as_deref(), Some("3.6.0"));
    say(&mut c, "3.5.4");
    c.ms(1_000);
    assert_eq!(c.member(leader).status().cluster_version.as_deref(), Some("3.6.0"), "never down");
}

/// The only voter elects itself before its vote is durable. A crash then takes the term back, and the
/// same term would name other entries: until the sync nobody may hear of it.
#[test]
fn a_learner_hears_of_a_term_only_once_the_vote_is_durable() {
    for profile in [Profile::Coupled, Profile::Decoupled] {
        let (mut c, leader) = healthy(1, profile);
        let learner = grow(&mut c, leader, 9, true);
        let (term, last) = (c.member(learner).status().term, c.member(learner).status().last_index);
        c.kill(leader);
        c.start(leader);
        c.nodes.get_mut(&leader).unwrap().log_stalled = true;
        c.ms(5_000);
        assert!(c.member(leader).status().term > term, "{profile:?}: it campaigned");
        let heard = c.member(learner).status();
        assert_eq!((heard.term, heard.last_index), (term, last), "{profile:?}");
        c.nodes.get_mut(&leader).unwrap().log_stalled = false;
        c.ms(3_000);
        assert!(c.put(leader, "k", "w") > 2);
        c.ms(500);
        assert!(c.member(learner).status().term > term);
    }
}
