//! Disk: a member that cannot write stops, loses nothing, and is back when it can.

use std::time::Duration;

use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb::PutRequest;
use detkv_sim::check::{Case, Checker as _, Durability};
use detkv_sim::client::{Clients, Readout, WatchProgress};
use detkv_sim::disk::{DiskLane, DiskOp, Episodes};
use detkv_sim::fault::{
    BitRot, DiskError, DiskFull, Fault, FsyncFailsClean, LostWrite, MisdirectedWrite, PowerLoss,
    ReadError, Restart, TornWrite,
};
use detkv_sim::history::{DownHow, Fact};
use detkv_sim::{RunOutcome, Sim, SimConfig};

use super::{SECOND, config, downs, judged, m, ms, reason, told, until_leader};

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
        count: Some(1),
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
            count: None,
            duration: 2 * SECOND,
        };
        let restart: Fault = Restart { node: m(3) }.into();
        let faults = vec![(SECOND, fault.into()), (SECOND + ms(1), restart)];
        let outcome = judged(config(3), 4 * SECOND, faults);
        let why = reason(&outcome, 3);
        assert!(why.contains("input/output error") && why.contains(part), "{why}");
    }
}

#[test]
fn a_sync_that_fails_and_forgets_stops_the_member_and_what_was_lost_comes_from_its_peers() {
    for (seed, lane) in (30..).zip([DiskLane::Log, DiskLane::Backend, DiskLane::Snapshot]) {
        let fault = FsyncFailsClean {
            node: m(2),
            lane: Some(lane),
            path: String::new(),
            after: 2,
            count: Some(1),
            duration: 3 * SECOND,
        };
        let faults = vec![
            (SECOND, fault.into()),
            (ms(3500), PowerLoss { node: m(2) }.into()),
            (4 * SECOND, Restart { node: m(2) }.into()),
        ];
        let outcome = judged(config(seed), 6 * SECOND, faults);
        assert!(reason(&outcome, 2).contains("input/output error"), "{lane:?}");
    }
}

/// Rot in files that fit `path`, then a restart: what the member says of it, in giving up or in its log.
fn rotten(seed: u64, path: &str) -> Vec<String> {
    let path = path.to_owned();
    let rot: Fault = BitRot { node: m(2), path, bits: 40, duration: 2 * SECOND }.into();
    let restart: Fault = Restart { node: m(2) }.into();
    let faults = vec![(2 * SECOND, rot), (2 * SECOND + ms(1), restart)];
    let outcome = judged(config(seed), 5 * SECOND, faults);
    let reasons = downs(&outcome).into_iter().filter_map(|(_, how)| match how {
        DownHow::OpenFailed(why) | DownHow::Halted(why) => Some(why),
        _ => None,
    });
    let lines = outcome.log.iter().map(ToString::to_string);
    reasons.chain(lines.filter(|line| line.contains("damaged"))).collect()
}

#[test]
fn rotten_files_are_reported_and_never_repaired_in_silence() {
    for (seed, path) in (0..).zip(["*.wal", "*.snap", "db", "*.wal", "*.snap", "db"]) {
        let said = rotten(seed, path);
        assert!(said.iter().any(|why| why.contains("damaged")), "{seed} {path}: {said:?}");
    }
}

/// One member whose disk meets `fault`, a put, a power loss, a restart. Whether durability holds.
fn alone(fault: Fault) -> (bool, RunOutcome) {
    let outcome = Sim::run(SimConfig { members: 1, ..SimConfig::new(3) }, |world| async move {
        until_leader(&world).await;
        world.inject(fault);
        let clients = Clients::new(world.clone());
        let client = clients.client(world.members(), SECOND);
        for n in 0..20 {
            let (key, value) = (format!("k{n}").into(), vec![n; 3000].into());
            let put = Request::Put(PutRequest { key, value, ..Default::default() });
            client.call(put).await.expect("it is acknowledged");
        }
        world.inject(PowerLoss { node: m(1) }.into());
        world.heal_all();
        drop(client);
        let readout = Readout { limit: 10 * SECOND };
        // A member that finds out what happened does not come up.
        let _ = readout.run(&clients, &WatchProgress::default()).await;
    });
    let verdict = Durability.check(&Case::new(&outcome.history));
    (verdict.is_ok(), outcome)
}

fn lies(path: &str) -> (String, Duration) {
    (path.to_owned(), 20 * SECOND)
}

#[test]
fn the_durability_checker_sees_that_a_disk_lied() {
    let (path, duration) = lies("*.wal");
    let lie = LostWrite { node: m(1), lane: None, path, after: 5, count: None, duration };
    let (kept, outcome) = alone(lie.into());
    assert!(!kept, "{:?}", downs(&outcome));
}

#[test]
fn torn_and_misdirected_writes_are_damage_or_loss_and_never_pass_for_whole() {
    let (path, duration) = lies("*.wal");
    let torn = TornWrite { node: m(1), lane: None, path, after: 5, count: None, duration };
    let (path, duration) = lies("*.wal");
    let misdirected =
        MisdirectedWrite { node: m(1), lane: None, path, after: 5, count: Some(1), duration };
    for fault in [torn.into(), misdirected.into()] {
        let (kept, outcome) = alone(fault);
        let refused = downs(&outcome)
            .iter()
            .any(|(_, how)| matches!(how, DownHow::OpenFailed(why) if why.contains("damaged")));
        assert!(refused || !kept, "{:?}: {:?}", told(&outcome), downs(&outcome));
    }
}

#[test]
fn a_disk_with_bad_episodes_is_slow_in_runs() {
    let mut slow = config(4);
    let (good, bad) = (SECOND, ms(500));
    slow.disk.episodes = Some(Episodes { good, bad, stall: true, slower: 1 });
    slow.trace.syncs = true;
    let outcome = judged(slow, 6 * SECOND, vec![]);
    let late: Vec<bool> =
        outcome.syncs.iter().map(|sync| sync.done.since(sync.at) > ms(50)).collect();
    assert!(late.iter().filter(|late| **late).count() >= 3, "{} syncs", late.len());
    let up = |fact: &&(_, Fact)| matches!(fact.1, Fact::Down { .. });
    assert_eq!(outcome.history.facts().iter().filter(up).count(), 0, "slow is not broken");
}
