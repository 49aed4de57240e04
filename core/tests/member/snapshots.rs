//! A follower that lags behind the log.

use std::time::Duration;

use detkv_core::pb::peer;
use detkv_core::{Files as _, Input, Profile};

use crate::support::Cluster;
use crate::{fall_behind, short_log};

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
