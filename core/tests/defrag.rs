//! Defragment on a member: beside snapshots, stops and crashes. What is refused of a received snapshot.

mod support;

use std::time::Duration;

use detkv_core::api::{Request, Response};
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::pb::peer::{self, Frame, frame::Body};
use detkv_core::{ApiError, DiskAction, Files, Halt, Input, MemberId, Profile};
use support::{Cluster, put};

const SNAP_DIR: &str = "member/snap";

fn defrag() -> Request {
    Request::Defragment(pb::DefragmentRequest {})
}

const DONE: Result<Response, ApiError> =
    Ok(Response::Defragment(pb::DefragmentResponse { header: None }));

fn files(c: &Cluster, id: MemberId) -> Vec<String> {
    c.nodes[&id].disk.list(SNAP_DIR).expect("a directory")
}

fn has_copy(c: &Cluster, id: MemberId) -> bool {
    files(c, id).iter().any(|name| name.starts_with("db.tmp."))
}

fn filled(size: u64, seed: u64) -> (Cluster, MemberId) {
    let mut c = Cluster::new(size, Profile::Decoupled, seed);
    let leader = c.elect();
    for n in 0..200 {
        c.put(leader, &format!("k{}", n % 20), &"v".repeat(500));
    }
    c.ms(3_000);
    (c, leader)
}

#[test]
fn reads_and_writes_go_on_during_a_defragmentation_and_all_who_ask_are_answered() {
    let (mut c, leader) = filled(3, 1);
    c.nodes.get_mut(&leader).expect("a node").jobs_stalled = true;
    let (first, second) = (c.send(leader, defrag()), c.send(leader, defrag()));
    for n in 0..50 {
        c.put(leader, &format!("during{n}"), "v");
        assert!(c.get(leader, "k1").is_some());
        c.run_job(leader);
    }
    c.nodes.get_mut(&leader).expect("a node").jobs_stalled = false;
    c.poll(leader);
    c.ms(3_000);
    assert_eq!(c.reply(leader, first), Some(DONE));
    assert_eq!(c.reply(leader, second), Some(DONE));
    assert!(!has_copy(&c, leader), "{:?}", files(&c, leader));
    c.kill(leader);
    c.start(leader);
    c.elect();
    c.assert_converged();
}

#[test]
fn what_was_applied_before_is_in_the_copy_however_rarely_batches_are_committed() {
    let mut c = Cluster::with(1, 11, |config| {
        config.backend_batch_interval = Duration::from_secs(3_600);
    });
    let id = c.elect();
    c.ms(2_000);
    for n in 0..200 {
        c.put(id, &format!("k{n}"), &"v".repeat(5_000));
    }
    let asked = c.send(id, defrag());
    c.ms(3_000);
    assert_eq!(c.reply(id, asked), Some(DONE));
    let status = match c.call(id, Request::Status(pb::StatusRequest {})) {
        Ok(Response::Status(status)) => status,
        other => panic!("{other:?}"),
    };
    assert!(status.db_size_in_use > 1_000_000, "{status:?}");
    let [.., done] = &c.nodes[&id].log_lines[..] else { panic!("it logs its end") };
    assert_eq!(done.msg, "finished defragmenting directory");
    let field = |name: &str| done.fields.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone());
    let diff = field("current-db-size-in-use-bytes-diff").expect("a field");
    let diff: i64 = diff.parse().expect("a number");
    assert!(diff.abs() * 10 < status.db_size_in_use, "both files held the same: {diff}");
}

#[test]
fn a_defragmentation_waits_for_a_log_that_is_not_durable_and_then_holds_all_of_it() {
    let (mut c, leader) = filled(3, 12);
    c.nodes.get_mut(&leader).expect("a node").log_stalled = true;
    let put = c.send(leader, put("late", "v"));
    c.ms(500);
    assert!(c.reply(leader, put).is_some(), "two others have it");
    let asked = c.send(leader, defrag());
    c.ms(500);
    assert_eq!(c.reply(leader, asked), None);
    c.nodes.get_mut(&leader).expect("a node").log_stalled = false;
    c.poll(leader);
    c.ms(1_000);
    assert_eq!(c.reply(leader, asked), Some(DONE));
    c.assert_converged();
}

#[test]
fn a_crash_between_the_copy_and_its_rename_leaves_the_old_file() {
    let (mut c, leader) = filled(3, 2);
    c.nodes.get_mut(&leader).expect("a node").snapshot_lane_stalled = true;
    let id = c.send(leader, defrag());
    for n in 0..20 {
        c.put(leader, &format!("during{n}"), "v");
        c.ms(100);
    }
    assert_eq!(c.reply(leader, id), None, "nothing is in place yet");
    assert!(has_copy(&c, leader));
    c.kill(leader);
    c.nodes.get_mut(&leader).expect("a node").snapshot_lane_stalled = false;
    c.start(leader);
    assert!(!has_copy(&c, leader), "recovery removes it: {:?}", files(&c, leader));
    c.elect();
    c.assert_converged();
}

#[test]
fn a_planned_stop_gives_a_defragmentation_up() {
    let (mut c, id) = filled(1, 3);
    c.nodes.get_mut(&id).expect("a node").jobs_stalled = true;
    let asked = c.send(id, defrag());
    c.input(id, Input::Stop);
    c.nodes.get_mut(&id).expect("a node").jobs_stalled = false;
    c.poll(id);
    c.ms(2_000);
    assert_eq!(c.reply(id, asked), Some(Err(ApiError::Stopped)));
    assert_eq!(c.nodes[&id].halt, Some(Halt::Stopped));
    c.start(id);
    c.elect();
    assert!(!has_copy(&c, id));
    assert_eq!(c.get(id, "k3").map(|v| v.len()), Some(500));
}

fn behind_the_log(seed: u64) -> (Cluster, MemberId, MemberId) {
    let mut c = Cluster::with(3, seed, |config| {
        config.snapshot_count = 20;
        config.snapshot_catchup_entries = 5;
    });
    let leader = c.elect();
    c.put(leader, "first", "v");
    c.ms(2_500);
    let behind = c.followers()[0];
    (c, leader, behind)
}

#[test]
fn a_received_snapshot_takes_the_place_of_a_defragmentation() {
    let (mut c, leader, behind) = behind_the_log(4);
    c.kill(behind);
    for n in 0..100 {
        c.put(leader, &format!("k{n}"), "v");
        c.ms(50);
    }
    c.hold_snapshots = true;
    c.start(behind);
    c.ms(2_000);
    assert!(c.holds_snapshots());
    c.nodes.get_mut(&behind).expect("a node").jobs_stalled = true;
    let id = c.send(behind, defrag());
    c.release_snapshots();
    c.nodes.get_mut(&behind).expect("a node").jobs_stalled = false;
    c.poll(behind);
    c.ms(4_000);
    assert_eq!(c.reply(behind, id), Some(DONE));
    assert!(!has_copy(&c, behind), "{:?}", files(&c, behind));
    c.assert_converged();
    assert_eq!(c.call(behind, defrag()), DONE, "and another one works");
    c.assert_converged();
}

#[test]
fn a_compaction_awaited_with_physical_is_answered_after_an_installed_snapshot() {
    let (mut c, leader, behind) = behind_the_log(5);
    let waiting = {
        // Applied, and its rows never go: jobs stand still until the snapshot is there.
        c.nodes.get_mut(&behind).expect("a node").jobs_stalled = true;
        let revision = c.member(behind).status().revision;
        let compact = pb::CompactionRequest { revision, physical: true };
        let waiting = c.send(behind, Request::Compact(compact));
        c.ms(500);
        assert_eq!(c.reply(behind, waiting), None);
        waiting
    };
    c.isolated.insert(behind);
    for n in 0..100 {
        c.put(leader, &format!("k{n}"), "v");
        c.ms(50);
    }
    c.ms(2_000);
    c.isolated.clear();
    for other in [MemberId(1), MemberId(2), MemberId(3)] {
        if other != behind {
            c.input(other, Input::PeerUp { peer: behind });
        }
    }
    c.nodes.get_mut(&behind).expect("a node").jobs_stalled = false;
    c.poll(behind);
    c.ms(5_000);
    assert!(matches!(c.reply(behind, waiting), Some(Ok(Response::Compact(_)))));
    c.assert_converged();
}

#[test]
fn a_snapshot_that_is_not_what_its_header_says_is_refused() {
    let (mut c, leader) = filled(3, 6);
    let follower = c.followers()[0];
    let status = c.member(follower).status();
    let index = status.applied_index + 1_000;
    let message = peer::RaftMessage {
        msg_type: 7,
        to: follower.0,
        from: leader.0,
        term: status.term,
        ..Default::default()
    };
    let header = peer::SnapshotHeader {
        snapshot_id: 77,
        message: Some(message),
        index,
        term: status.term,
        conf_state: Some(peer::ConfState { voters: vec![1, 2, 3], learners: vec![] }),
        ..Default::default()
    };
    let end = peer::SnapshotEnd { snapshot_id: 77, chunks: 0, hash: 0 };
    for body in [Body::SnapshotHeader(header), Body::SnapshotEnd(end)] {
        c.input(follower, Input::Peer { from: leader, frame: Frame { body: Some(body) } });
        c.poll(follower);
    }
    c.ms(1_000);
    let after = c.member(follower).status();
    assert_eq!((after.revision, after.term), (status.revision, status.term), "as it was");
    assert!(!files(&c, follower).iter().any(|name| name.starts_with("receiving-")));
    c.put(leader, "k", "v");
    c.assert_converged();
}

#[test]
fn a_damaged_snap_file_that_was_passed_over_is_renamed() {
    let mut c = Cluster::with(1, 7, |config| config.snapshot_count = 20);
    let id = c.elect();
    for n in 0..120 {
        c.put(id, &format!("k{n}"), "v");
        c.ms(100);
    }
    c.ms(3_000);
    c.kill(id);
    let snaps = |c: &Cluster| -> Vec<String> {
        files(c, id).into_iter().filter(|name| name.ends_with(".snap")).collect()
    };
    let before = snaps(&c);
    let [.., newest] = &before[..] else { panic!("no snap file") };
    let path = format!("{SNAP_DIR}/{newest}");
    let data = bytes::Bytes::from_static(b"damage");
    c.nodes[&id].disk.perform(&DiskAction::WriteAt { path, offset: 10, data });
    c.start(id);
    assert!(files(&c, id).contains(&format!("{newest}.broken")), "{:?}", files(&c, id));
    assert!(!snaps(&c).contains(newest));
    c.elect();
    assert_eq!(c.get(id, "k119").as_deref(), Some("v"));
}

// -- back-pressure (surface spec §16.2)

#[test]
fn a_request_larger_than_the_limit_is_refused_and_the_next_is_not() {
    let mut c = Cluster::with(1, 8, |config| config.request_bytes_max = 10_000);
    let id = c.elect();
    assert_eq!(c.call(id, put("k", &"x".repeat(10_000))), Err(ApiError::RequestTooLarge));
    c.put(id, "k", &"x".repeat(9_900));
}

#[test]
fn proposals_without_a_quorum_are_bounded_in_number() {
    let mut c = Cluster::new(3, Profile::Decoupled, 9);
    let leader = c.elect();
    c.isolated.extend([MemberId(1), MemberId(2), MemberId(3)]);
    for _ in 0..70_000 {
        c.submit(leader, put("k", "v"));
    }
    c.poll(leader);
    let replies = c.nodes[&leader].replies.iter();
    let refused = replies.filter(|(_, r)| *r == Err(ApiError::TooManyRequests)).count();
    assert!(refused >= 70_000 - 65_536, "{refused} were refused");
}

#[test]
fn writes_that_the_disk_does_not_take_are_bounded_in_bytes() {
    let mut c = Cluster::new(3, Profile::Decoupled, 10);
    let leader = c.elect();
    c.nodes.get_mut(&leader).expect("a node").log_stalled = true;
    let value = "x".repeat(1 << 20);
    let mut sent = 0;
    let refused = (0..100).find_map(|n| {
        let id = c.send(leader, put(&format!("k{n}"), &value));
        sent += 1;
        match c.reply(leader, id) {
            Some(Err(error)) => Some(error),
            _ => None,
        }
    });
    assert_eq!(refused, Some(ApiError::TooManyRequests));
    assert!((60..=70).contains(&sent), "64 MiB may be un-synced, {sent} MiB were");
}
