//! What a member counts, seen where it happens. Names and units on the page are the driver's.

mod support;

use std::time::Duration;

use detkv_core::api::{Request, Response};
use detkv_core::metrics::TransfersByPeer;
use detkv_core::mvcc::ReadResult;
use detkv_core::pb::etcdserverpb::{self as pb, request_op::Request as Op};
use detkv_core::{MemberId, Metrics, Profile};
use support::{Cluster, put};

fn range(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.to_owned().into(), ..Default::default() }
}

fn txn(ops: Vec<Op>) -> Request {
    let success = ops.into_iter().map(|op| pb::RequestOp { request: Some(op) }).collect();
    Request::Txn(pb::TxnRequest { success, ..Default::default() })
}

/// A read at its member's reader, as a driver runs it.
fn read(c: &mut Cluster, at: MemberId, request: Request) -> ReadResult {
    match c.call(at, request) {
        Ok(Response::ReadReady(ready)) => c.member(at).reader().read(&ready).expect("readable"),
        other => panic!("{other:?}"),
    }
}

/// Puts, deletes, ranges, txns.
fn operations(m: &Metrics) -> [u64; 4] {
    let s = &m.store;
    [&s.puts_total, &s.deletes_total, &s.ranges_total, &s.txns_total].map(|v| v.load())
}

#[test]
fn operations_are_counted_alone_and_inside_a_txn() {
    let mut c = Cluster::new(3, Profile::Decoupled, 7);
    let leader = c.elect();
    let m = c.member(leader).metrics();
    assert_eq!(operations(&m), [0; 4]);
    c.put(leader, "k1", "four");
    c.put(leader, "k2", "v");
    assert_eq!(operations(&m), [2, 0, 0, 0]);
    assert_eq!(m.store.put_bytes_total.load(), 2 + 4 + 2 + 1);
    read(&mut c, leader, Request::Range(range("k1")));
    assert_eq!(operations(&m), [2, 0, 1, 0]);
    read(&mut c, leader, txn(vec![Op::RequestRange(range("k1")), Op::RequestRange(range("k2"))]));
    assert_eq!(operations(&m), [2, 0, 3, 1]);
    let three = pb::PutRequest { key: "m".into(), value: "v".into(), ..Default::default() };
    let all = pb::DeleteRangeRequest { key: "k".into(), range_end: "l".into(), prev_kv: false };
    let ops = vec![
        Op::RequestPut(three),
        Op::RequestRange(range("m")),
        Op::RequestDeleteRange(all.clone()),
    ];
    c.call(leader, txn(ops)).expect("applied");
    assert_eq!(operations(&m), [3, 1, 4, 2]);
    // One operation, though in a txn; and one that finds nothing.
    c.call(leader, txn(vec![Op::RequestDeleteRange(all)])).expect("applied");
    assert_eq!(operations(&m), [3, 2, 4, 2]);
    let follower = c.member(c.followers()[0]).metrics();
    assert_eq!(operations(&follower), [3, 2, 1, 1], "it applied the same and read nothing");
}

#[test]
fn leases_are_counted_with_their_time_to_live() {
    let mut c = Cluster::new(1, Profile::Decoupled, 7);
    let leader = c.elect();
    let m = c.member(leader).metrics();
    for (id, ttl) in [(1, 5), (2, 60)] {
        let grant = pb::LeaseGrantRequest { id, ttl };
        c.call(leader, Request::LeaseGrant(grant)).expect("granted");
    }
    assert_eq!((m.lease_ttl.count(), m.lease_ttl.sum()), (2, Duration::from_secs(65)));
    let up_to_8 = m.lease_ttl.cumulative().find(|(bound, _)| *bound == Duration::from_secs(8));
    assert_eq!(up_to_8, Some((Duration::from_secs(8), 1)));
    for id in [1, 99] {
        let keep_alive = pb::LeaseKeepAliveRequest { id };
        c.call(leader, Request::LeaseKeepAlive(keep_alive)).expect("answered");
    }
    assert_eq!(m.lease_renewed_total.load(), 1, "one of them does not exist");
    for key in ["a", "b"] {
        let put = pb::PutRequest { key: key.into(), lease: 1, ..Default::default() };
        c.call(leader, Request::Put(put)).expect("put");
    }
    c.call(leader, Request::LeaseRevoke(pb::LeaseRevokeRequest { id: 1 })).expect("revoked");
    assert_eq!(operations(&m), [2, 2, 0, 1], "both keys went, in one revision");
}

#[test]
fn a_compaction_is_timed_slice_by_slice_and_as_a_whole() {
    let mut c = Cluster::new(1, Profile::Decoupled, 7);
    let leader = c.elect();
    let m = c.member(leader).metrics();
    for n in 0..10 {
        c.put(leader, "k", &n.to_string());
    }
    c.ms(2_000);
    let s = &m.store;
    assert_eq!((s.compaction_total.count(), s.compacted_at_ns.load()), (0, 0));
    c.nodes.get_mut(&leader).unwrap().jobs_stalled = true;
    let compact = pb::CompactionRequest { revision: 8, physical: false };
    c.call(leader, Request::Compact(compact)).expect("compacted");
    // Batch and hash come first; then a slice is cut, and is done 40 ms later.
    while m.compaction_rows_total.load() == 0 {
        c.ms(40);
        c.run_job(leader);
    }
    assert_eq!(s.compaction_total.count(), 0, "the rows are still in the file");
    c.ms(40);
    c.run_job(leader);
    let took = Duration::from_millis(40);
    assert_eq!((s.compaction_pause.count(), s.compaction_total.count()), (1, 1));
    assert_eq!((s.compaction_pause.sum(), s.compaction_total.sum()), (took, took));
    assert_eq!(s.compacted_at_ns.load(), c.now.ns);
}

#[test]
fn a_transfer_of_a_snapshot_is_timed_at_both_ends_and_its_view_is_open() {
    let mut c = Cluster::with(3, 5, |config| {
        config.snapshot_count = 20;
        config.snapshot_catchup_entries = 5;
    });
    let leader = c.elect();
    let behind = c.followers()[0];
    c.kill(behind);
    for n in 0..120 {
        c.put(leader, &format!("k{}", n % 30), &n.to_string());
        c.ms(40);
    }
    assert_eq!(c.member(leader).reader().open_views(), 0);
    c.hold_snapshots = true;
    c.start(behind);
    c.ms(3_000);
    assert!(c.holds_snapshots());
    assert_eq!(c.member(leader).reader().open_views(), 1);
    c.nodes.get_mut(&behind).unwrap().snapshot_lane_stalled = true;
    c.release_snapshots();
    c.ms(200);
    let (to, from) = (c.member(behind).metrics(), c.member(leader).metrics());
    assert_eq!((to.snap_db_save_total_duration.count(), to.snap_db_fsync_duration.count()), (1, 1));
    assert_eq!(to.snapshot_apply_in_progress.load(), 1);
    assert_eq!(transfers(&to.snapshot_receives), [(leader, 0, 1, 0)]);
    assert_eq!(transfers(&from.snapshot_sends), [(behind, 1, 0, 0)], "not installed so far");
    assert_eq!(from.backend_snapshot_duration.count(), 0);
    c.nodes.get_mut(&behind).unwrap().snapshot_lane_stalled = false;
    c.poll(behind);
    c.ms(500);
    assert_eq!(to.snapshot_apply_in_progress.load(), 0);
    assert_eq!(from.backend_snapshot_duration.count(), 1);
    assert!(from.backend_snapshot_duration.sum() > Duration::from_secs(1), "it was held back");
    assert_eq!(transfers(&from.snapshot_sends), [(behind, 0, 1, 0)]);
    assert_eq!(c.member(leader).reader().open_views(), 0);
    assert!(from.snap_save_total_duration.count() > 0, "it was the log's beginning");
    c.assert_converged();
}

/// Peer, under way, succeeded, failed.
fn transfers(of: &TransfersByPeer) -> Vec<(MemberId, u64, u64, u64)> {
    let mut all = Vec::new();
    of.for_each(|peer, t| all.push((peer, t.under_way, t.succeeded, t.failed)));
    all
}

#[test]
fn a_transfer_that_breaks_off_is_a_failure_at_both_ends() {
    let mut c = Cluster::with(3, 5, |config| {
        config.snapshot_count = 20;
        config.snapshot_catchup_entries = 5;
    });
    let leader = c.elect();
    let behind = c.followers()[0];
    c.kill(behind);
    for n in 0..120 {
        c.put(leader, &format!("k{}", n % 30), &n.to_string());
        c.ms(40);
    }
    // The rows arrive and are written by nobody.
    c.start(behind);
    c.nodes.get_mut(&behind).unwrap().jobs_stalled = true;
    c.ms(3_000);
    let (to, from) = (c.member(behind).metrics(), c.member(leader).metrics());
    assert_eq!(transfers(&to.snapshot_receives), [(leader, 1, 0, 0)]);
    assert_eq!(transfers(&from.snapshot_sends), [(behind, 1, 0, 0)]);
    c.ms(60_000);
    let [(_, _, 0, failed)] = transfers(&from.snapshot_sends)[..] else { panic!("one peer") };
    assert!(failed > 0, "the leader gave up and began again");
    let [(_, _, 0, failed)] = transfers(&to.snapshot_receives)[..] else { panic!("one peer") };
    assert!(failed > 0, "it was replaced by the next");
}

#[test]
fn a_leader_whose_loop_stands_still_counts_the_heartbeats_it_sent_late() {
    for (profile, late) in [(Profile::Coupled, 2), (Profile::Decoupled, 0)] {
        let mut c = Cluster::new(3, profile, 7);
        let leader = c.elect();
        let m = c.member(leader).metrics();
        c.nodes.get_mut(&leader).unwrap().log_stalled = true;
        c.send(leader, put("k", "v"));
        c.ms(500);
        assert_eq!(m.heartbeat_send_failures_total.load(), 0, "nothing was sent late so far");
        c.nodes.get_mut(&leader).unwrap().log_stalled = false;
        c.poll(leader);
        c.ms(500);
        assert_eq!(m.heartbeat_send_failures_total.load(), late, "{profile:?}");
    }
}

#[test]
fn reads_that_nobody_answers_in_time_and_those_of_an_old_leader_are_counted_apart() {
    let mut c = Cluster::new(3, Profile::Decoupled, 7);
    let old = c.elect();
    let m = c.member(old).metrics();
    let counted =
        |m: &Metrics| (m.slow_read_indexes_total.load(), m.read_indexes_failed_total.load());
    c.call(old, Request::Range(range("k"))).expect("readable");
    assert_eq!(counted(&m), (0, 0));
    c.isolated.insert(old);
    let lost = c.send(old, Request::Range(range("k")));
    c.ms(10_000);
    assert!(matches!(c.reply(old, lost), Some(Err(_))));
    assert_eq!(counted(&m), (1, 0), "nobody answered");
    // The next one is on its way when the new leader is heard of.
    c.send(old, Request::Range(range("k")));
    c.isolated.clear();
    c.ms(1_000);
    assert_eq!(counted(&m), (1, 1));
}
