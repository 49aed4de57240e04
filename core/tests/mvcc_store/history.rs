//! Changes for watchers; a whole store for a peer.

use std::time::Duration;

use bytes::Bytes;
use detkv_core::error::ApiError;
use detkv_core::mvcc::{Bucket, DB_PATH, SnapshotReceiver, Store, StoreEvent};
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::pb::raftpb::ConfState;
use detkv_core::time::Instant;

use crate::mvcc_disk::{Loss, MemFiles, flush, open, options};
use crate::{compacted, put, range_all};

#[test]
fn a_snapshot_is_what_was_in_the_file_when_it_was_pinned_and_installs_elsewhere() {
    let files = MemFiles::new();
    let mut store = open(&files);
    let mut now = Instant::ZERO;
    store.set_conf_state(ConfState { voters: vec![1], ..Default::default() });
    for index in 1..=300 {
        put(&mut store, index, &format!("k{index}"), &"v".repeat(100));
    }
    store.put_row(Bucket::Lease, Bytes::from_static(b"l"), Bytes::from_static(b"x"));
    store.set_applied(301, 2);
    flush(&mut store, &mut now);
    let hash = store.state_hash();
    let mut pin = store.pin_snapshot().expect("a snapshot");
    assert_eq!(pin.consistent().index, 301);
    assert!(pin.size_hint().0 >= 301);
    put(&mut store, 302, "later", "v");
    flush(&mut store, &mut now);

    let receiver_files = MemFiles::new();
    let mut target = open(&receiver_files);
    let reader = target.reader();
    put(&mut target, 1, "own", "v");
    let stale_job = target.poll(now + Duration::from_secs(9), 1);
    let stale_job = stale_job.or_else(|| target.poll(now + Duration::from_secs(19), 1));
    let receiver = SnapshotReceiver::create(receiver_files.clone(), "tmp").expect("a receiver");
    let path = "tmp".to_owned();
    let mut chunks = 0;
    loop {
        let rows = pin.next_rows(4096).expect("rows");
        if rows.is_empty() {
            break;
        }
        chunks += 1;
        let done = receiver.write_rows(rows).run();
        let event = StoreEvent::ReceivedChunk { path: path.clone() };
        assert_eq!(target.handle_done(now, done), Ok(vec![event]));
    }
    assert!(chunks > 5, "{chunks}");
    let done = receiver.finish().run();
    let holds = pin.consistent().clone();
    assert_eq!(target.handle_done(now, done), Ok(vec![StoreEvent::ReceivedAll { path, holds }]));
    let crashed = receiver_files.crash(Loss::Everything);
    let mut received = Store::open(crashed, "tmp", options()).expect("durable");
    assert_eq!(received.state_hash(), hash);
    flush(&mut received, &mut now);

    receiver_files.rename("tmp", DB_PATH);
    let job = target.load(receiver_files.clone(), DB_PATH);
    assert_eq!(target.handle_done(now, job.run()), Ok(vec![StoreEvent::Loaded]));
    target.install_loaded();
    let stale = stale_job.expect("a job of the old file was under way").run();
    assert_eq!(target.handle_done(now, stale), Ok(vec![]));
    assert_eq!(target.state_hash(), hash);
    assert_eq!(target.consistent().index, 301);
    assert_eq!(target.consistent().conf_state.as_ref().expect("a configuration").voters, [1]);
    assert_eq!(range_all(&reader, 0).len(), 300, "readers go on with the new content");
    assert_eq!(target.revision(), 301);
    put(&mut target, 302, "later", "v");
    assert_eq!(target.state_hash(), store.state_hash());
}

#[test]
fn changes_come_whole_in_order_and_say_where_to_go_on() {
    let files = MemFiles::new();
    let mut store = open(&files);
    let reader = store.reader();
    let mut now = Instant::ZERO;
    // Revision r puts k{r} for r in 2..=301, the middle third in a job, the last in the batch.
    let mut job = None;
    for index in 1..=300u64 {
        put(&mut store, index, &format!("k{:03}", index + 1), "v");
        if index == 100 {
            flush(&mut store, &mut now);
        }
        if index == 200 {
            assert!(store.poll(now, 200).is_none());
            now = now + Duration::from_secs(5);
            job = store.poll(now, 200);
        }
    }
    let job = job.expect("a job under way");
    let collect = |key: &[u8], end: &[u8], max: usize| {
        let (mut from, mut seen) = (2, Vec::new());
        while from <= 301 {
            let (changes, next) = reader.changes(from, 1_000, key, end, max).expect("history");
            assert!(changes.len() <= max && next > from);
            seen.extend(changes.iter().map(|c| c.revision));
            from = next;
        }
        seen
    };
    let all: Vec<i64> = (2..=301).collect();
    let check = || {
        assert_eq!(collect(b"k", b"l", 7), all);
        assert_eq!(collect(b"k", b"l", 1_000), all);
        assert_eq!(collect(b"k090", b"k110", 3), (90..110).collect::<Vec<_>>());
        assert_eq!(collect(b"k250", b"", 3), [250]);
        assert_eq!(collect(b"k250", b"\0", 100), (250..=301).collect::<Vec<_>>());
    };
    check();
    let done = job.run();
    check();
    store.handle_done(now, done).expect("the commit succeeds");
    check();
    compacted(&mut store, 301, 50).expect("a past revision");
    assert!(matches!(reader.changes(49, 60, b"k", b"l", 9), Err(ApiError::Compacted)));
    let (changes, _) = reader.changes(50, 60, b"k", b"l", 9).expect("history");
    assert_eq!(changes[0].revision, 50);
}

/// A nested put before a sibling nested delete of the same key is the one way to get two changes
/// of a key in one revision.
#[test]
fn at_the_compact_revision_only_the_last_change_of_a_key_shows() {
    let files = MemFiles::new();
    let mut store = open(&files);
    let mut now = Instant::ZERO;
    put(&mut store, 1, "l", "1"); // 2
    let key = Bytes::from_static(b"k");
    let nested = |request| {
        let success = vec![pb::RequestOp { request: Some(request) }];
        let txn = pb::TxnRequest { success, ..Default::default() };
        pb::RequestOp { request: Some(pb::request_op::Request::RequestTxn(txn)) }
    };
    let put_k = pb::PutRequest { key: key.clone(), ..Default::default() };
    let delete_k = pb::DeleteRangeRequest { key, ..Default::default() };
    let success = vec![
        nested(pb::request_op::Request::RequestPut(put_k)),
        nested(pb::request_op::Request::RequestDeleteRange(delete_k)),
    ];
    let req = pb::TxnRequest { success, ..Default::default() };
    store.txn(&req, &|_| true).expect("a txn is applied"); // 3
    store.set_applied(2, 1);
    let seen = |store: &Store, key: &[u8], end: &[u8]| {
        let (changes, _) = store.reader().changes(3, 3, key, end, 9).expect("history");
        changes.iter().flat_map(|c| c.events.iter().map(|e| e.r#type)).collect::<Vec<_>>()
    };
    assert_eq!(seen(&store, b"k", b""), [0, 1]);
    compacted(&mut store, 3, 3).expect("the current revision");
    assert_eq!(seen(&store, b"k", b""), [1], "before the rows are removed");
    flush(&mut store, &mut now);
    assert_eq!(seen(&store, b"k", b""), [1], "and after");
}
