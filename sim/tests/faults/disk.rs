//! Disk: a member that cannot write stops, loses nothing, and is back when it can.

use detkv_sim::RunOutcome;
use detkv_sim::disk::{DiskLane, DiskOp};
use detkv_sim::fault::{DiskError, DiskFull, Fault, ReadError, Restart};

use super::{SECOND, config, downs, judged, m, ms, reason, told};

fn full(seed: u64, ops: Vec<DiskOp>, lane: Option<DiskLane>) -> RunOutcome {
    let path = String::new();
    let fault = DiskFull { node: m(2), ops, lane, path, after: 0, duration: 3 * SECOND };
    judged(config(seed), 6 * SECOND, vec![(SECOND, fault.into())])
}

#[test]
fn a_member_whose_disk_is_full_stops_and_rejoins_when_there_is_room() {
    let outcome = full(1, vec![], None);
    assert!(reason(&outcome, 2).contains("no space left on device"));
    assert_eq!(told(&outcome), ["disk of m2 is full for 3s"]);
}

#[test]
fn every_operation_that_needs_room_may_be_the_one_that_finds_none() {
    for (seed, (op, lane, path)) in (1..).zip([
        (DiskOp::Write, DiskLane::Log, "member/wal/"),
        (DiskOp::Allocate, DiskLane::Log, "member/wal/"),
        (DiskOp::Rename, DiskLane::Log, "member/wal/"),
        (DiskOp::Sync, DiskLane::Log, "member/wal/"),
        (DiskOp::Create, DiskLane::Snapshot, "member/snap/"),
        (DiskOp::Rename, DiskLane::Snapshot, "member/snap/"),
        (DiskOp::Write, DiskLane::Backend, "member/snap/db"),
        (DiskOp::Grow, DiskLane::Backend, "member/snap/db"),
        (DiskOp::Sync, DiskLane::Backend, "member/snap/db"),
    ]) {
        let outcome = full(seed, vec![op], Some(lane));
        let downs = downs(&outcome);
        assert!(downs.len() == 1, "{op} of {lane:?}: {downs:?}");
        let why = reason(&outcome, 2);
        assert!(why.contains("no space left on device"), "{op} of {lane:?}: {why}");
        assert!(why.contains(path), "{op} of {lane:?}: {why}");
    }
}

fn failing(seed: u64, op: DiskOp, lane: DiskLane) -> String {
    let fault = DiskError {
        node: m(1),
        ops: vec![op],
        lane: Some(lane),
        path: String::new(),
        after: 0,
        times: Some(1),
        duration: 3 * SECOND,
    };
    let outcome = judged(config(seed), 5 * SECOND, vec![(SECOND, fault.into())]);
    reason(&outcome, 1)
}

#[test]
fn one_failed_write_or_sync_stops_the_member_for_good() {
    for (op, lane) in [
        (DiskOp::Write, DiskLane::Log),
        (DiskOp::Sync, DiskLane::Log),
        (DiskOp::Write, DiskLane::Backend),
        (DiskOp::Sync, DiskLane::Backend),
        (DiskOp::SyncDir, DiskLane::Snapshot),
    ] {
        let why = failing(7, op, lane);
        assert!(why.contains("input/output error"), "{op} of {lane:?}: {why}");
    }
}

#[test]
fn a_member_that_cannot_read_its_files_does_not_start() {
    for (path, part) in [("*.wal", "member/wal"), ("db", "member/snap/db")] {
        let fault = ReadError {
            node: m(3),
            lane: None,
            path: path.to_owned(),
            after: 0,
            times: None,
            duration: 2 * SECOND,
        };
        let restart: Fault = Restart { node: m(3) }.into();
        let faults = vec![(SECOND, fault.into()), (SECOND + ms(1), restart)];
        let outcome = judged(config(3), 4 * SECOND, faults);
        let why = reason(&outcome, 3);
        assert!(why.contains("input/output error") && why.contains(part), "{why}");
    }
}
