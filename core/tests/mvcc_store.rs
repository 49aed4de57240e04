//! The store and its file: batches, durability, reopening, compaction, snapshots, damage.

mod mvcc_disk;

use std::time::Duration;

use bytes::Bytes;
use detkv_core::api::{ReadReady, Request, Response};
use detkv_core::error::{ApiError, OpenError};
use detkv_core::mvcc::{
    Bucket, DB_PATH, ReadResult, SnapshotReceiver, Store, StoreEvent, StoreOptions, StoreReader,
};
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::pb::mvccpb::KeyValue;
use detkv_core::pb::mvccpb::event::EventType;
use detkv_core::pb::raftpb::ConfState;
use detkv_core::time::Instant;
use mvcc_disk::{Loss, MemFiles, flush, open, options, run_jobs};
use prost::Message;

fn put(store: &mut Store, index: u64, key: &str, value: &str) -> i64 {
    let req = pb::PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        ..Default::default()
    };
    let applied = store.put(&req, &|_| true).expect("a plain put is applied");
    store.set_applied(index, 1);
    applied.events.expect("a put makes an event").revision
}

fn delete(store: &mut Store, index: u64, key: &str) {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let req = pb::DeleteRangeRequest { key, ..Default::default() };
    store.delete_range(&req).expect("a delete is applied");
    store.set_applied(index, 1);
}

fn value_at(reader: &StoreReader, key: &str, revision: i64) -> Result<Option<String>, ApiError> {
    let kv = reader.key_at(key.as_bytes(), revision)?;
    Ok(kv.map(|kv| String::from_utf8(kv.value.to_vec()).expect("text")))
}

fn range_all(reader: &StoreReader, revision: i64) -> Vec<KeyValue> {
    let all = Bytes::from_static(b"\0");
    let req = pb::RangeRequest { key: all.clone(), range_end: all, revision, ..Default::default() };
    let ready = ReadReady { request: Request::Range(req), header: Default::default() };
    match reader.read(&ready).expect("a readable revision") {
        ReadResult::Range(rows) => {
            rows.kvs.iter().map(|kv| KeyValue::decode(kv.clone()).expect("a KeyValue")).collect()
        }
        _ => unreachable!("a range answers a range"),
    }
}

#[test]
fn a_fresh_store_is_at_revision_1_and_was_never_compacted() {
    let store = open(&MemFiles::new());
    assert_eq!((store.revision(), store.compact_revision()), (1, -1));
    assert_eq!(store.durable_index(), 0);
    assert_eq!(store.reader().hash_kv(0).expect("hash").hash, 1_084_519_789);
    assert!(store.is_durable());
}

#[test]
fn old_revisions_are_read_from_batch_job_and_file() {
    let files = MemFiles::new();
    let mut store = open(&files);
    let reader = store.reader();
    let mut now = Instant::ZERO;
    for (index, value) in [(1, "a"), (2, "b"), (3, "c")] {
        assert_eq!(put(&mut store, index, "k", value), index as i64 + 1);
        if index == 1 {
            flush(&mut store, &mut now);
        }
        if index == 2 {
            now = now + Duration::from_secs(1);
            assert!(store.poll(now, 2).is_none(), "the batch is young");
        }
    }
    now = now + Duration::from_secs(1);
    let job = store.poll(now, 2).expect("the batch is due");
    let expected = |revision: i64| ["a", "b", "c"][revision as usize - 2];
    let check = |reader: &StoreReader| {
        assert_eq!(value_at(reader, "k", 1), Ok(None));
        for revision in 2..=4 {
            assert_eq!(value_at(reader, "k", revision), Ok(Some(expected(revision).into())));
        }
        assert_eq!(value_at(reader, "k", 5), Err(ApiError::FutureRevision));
    };
    check(&reader);
    let done = job.run();
    check(&reader);
    store.handle_done(now, done).expect("the commit succeeds");
    check(&reader);
    flush(&mut store, &mut now);
    drop(store);
    check(&open(&files.crash(Loss::Everything)).reader());
}

#[test]
fn nothing_past_the_persisted_index_reaches_the_file() {
    let files = MemFiles::new();
    let mut store = open(&files);
    let mut now = Instant::ZERO;
    put(&mut store, 1, "a", "1");
    put(&mut store, 2, "b", "2");
    put(&mut store, 3, "c", "3");
    let until = Instant::ZERO + Duration::from_secs(10);
    let events = run_jobs(&mut store, &mut now, until, 2);
    assert_eq!(events, [StoreEvent::Durable { index: 2 }]);
    assert_eq!(store.next_deadline(), None, "only the WAL can unblock the rest");
    let reopened = open(&files.crash(Loss::Nothing));
    assert_eq!(reopened.consistent().index, 2);
    assert_eq!(reopened.revision(), 3);
    assert_eq!(value_at(&reopened.reader(), "c", 0), Ok(None));
}

#[test]
fn the_first_commit_is_immediate_then_about_one_per_sync_interval() {
    let files = MemFiles::new();
    let mut store = open(&files);
    let mut now = Instant::ZERO;
    let mut kinds = Vec::new();
    for index in 1..=30 {
        put(&mut store, index, "k", "v");
        now = now + Duration::from_millis(100);
        if let Some(job) = store.poll(now, index) {
            kinds.push(job.kind());
            store.handle_done(now, job.run()).expect("the commit succeeds");
        }
    }
    let syncs: Vec<usize> = (0..kinds.len()).filter(|i| kinds[*i] == "sync").collect();
    assert_eq!(kinds[0], "sync");
    assert_eq!(syncs.len(), 3, "{kinds:?}");
}

#[test]
fn a_crash_goes_back_to_the_last_immediate_commit_with_its_consistent_index() {
    let files = MemFiles::new();
    let mut store = open(&files);
    let mut now = Instant::ZERO;
    let conf_state = ConfState { voters: vec![1, 2, 3], ..Default::default() };
    store.set_conf_state(conf_state.clone());
    store.set_applied(1, 1);
    put(&mut store, 2, "a", "1");
    flush(&mut store, &mut now);
    assert_eq!(store.durable_index(), 2);
    put(&mut store, 3, "b", "2");
    let until = now + Duration::from_millis(200);
    now = now + Duration::from_millis(1);
    let job_events = run_jobs(&mut store, &mut now, until, 3);
    assert_eq!(store.durable_index(), if job_events.is_empty() { 2 } else { 3 });
    for loss in [Loss::Everything, Loss::Torn(1), Loss::Torn(2)] {
        let reopened = open(&files.crash(loss));
        assert_eq!(reopened.consistent().index, store.durable_index(), "{loss:?}");
        assert_eq!(reopened.consistent().conf_state, Some(conf_state.clone()));
        assert_eq!(value_at(&reopened.reader(), "a", 0), Ok(Some("1".into())));
    }
}

#[test]
fn dropping_a_store_writes_nothing() {
    let files = MemFiles::new();
    let mut store = open(&files);
    let mut now = Instant::ZERO;
    put(&mut store, 1, "a", "1");
    flush(&mut store, &mut now);
    let _reader = store.reader();
    let writes = files.writes(DB_PATH);
    drop(store);
    drop(_reader);
    assert_eq!(files.writes(DB_PATH), writes);
}

#[test]
fn equal_operations_give_equal_files() {
    let run = || {
        let files = MemFiles::new();
        let mut store = open(&files);
        let mut now = Instant::ZERO;
        for index in 1..400u64 {
            put(&mut store, index, &format!("k{}", index % 37), &"v".repeat(index as usize % 900));
            if index % 50 == 0 {
                let until = now + Duration::from_millis(300);
                run_jobs(&mut store, &mut now, until, index);
            }
        }
        store.compact(300).expect("a past revision");
        store.set_applied(400, 1);
        flush(&mut store, &mut now);
        (files.bytes(DB_PATH), store.state_hash())
    };
    let (a, b) = (run(), run());
    assert_eq!(a.1, b.1);
    assert!(a.0 == b.0, "the files differ");
}

#[test]
fn planned_stop_makes_everything_durable() {
    let files = MemFiles::new();
    let mut store = open(&files);
    let mut now = Instant::ZERO;
    put(&mut store, 1, "a", "1");
    store.request_immediate();
    assert!(!store.is_durable());
    assert_eq!(store.next_deadline(), None, "the member polls after it has asked");
    let job = store.poll(now, 1).expect("at once");
    assert_eq!(job.kind(), "sync");
    assert!(!store.is_durable());
    store.handle_done(now, job.run()).expect("the commit succeeds");
    assert!(store.is_durable());
    now = now + Duration::from_millis(1);
    put(&mut store, 2, "b", "2");
    assert!(store.poll(now, 2).is_some(), "from now on everything at once");
}

#[test]
fn a_failed_disk_ends_in_halt_and_in_no_panic() {
    let files = MemFiles::new();
    let mut store = open(&files);
    put(&mut store, 1, "a", "1");
    let job = store.poll(Instant::ZERO, 1);
    assert!(job.is_none());
    let now = Instant::ZERO + Duration::from_secs(1);
    let job = store.poll(now, 1).expect("due");
    files.fail(true);
    let done = job.run();
    assert!(done.error().is_some());
    assert!(store.handle_done(now, done).is_err());
}

#[test]
fn small_buckets_survive_and_replace_nothing_of_the_key_space() {
    let files = MemFiles::new();
    let mut store = open(&files);
    let mut now = Instant::ZERO;
    let b = |s: &'static str| Bytes::from_static(s.as_bytes());
    store.put_row(Bucket::Lease, b("1"), b("x"));
    store.put_row(Bucket::Lease, b("2"), b("y"));
    store.put_row(Bucket::Members, b("8e9e"), b("{}"));
    store.set_applied(1, 1);
    store.delete_row(Bucket::Lease, b"1");
    store.delete_row(Bucket::Lease, b"none");
    store.set_applied(2, 1);
    flush(&mut store, &mut now);
    let reopened = open(&files.crash(Loss::Everything));
    assert_eq!(reopened.rows(Bucket::Lease), [(b("2"), b("y"))]);
    assert_eq!(reopened.rows(Bucket::Members), [(b("8e9e"), b("{}"))]);
    assert_eq!(reopened.rows(Bucket::Alarm), []);
    assert_eq!(reopened.state_hash(), store.state_hash());
}

fn compacted(store: &mut Store, index: u64, revision: i64) -> Result<(), ApiError> {
    let result = store.compact(revision);
    store.set_applied(index, 1);
    result
}

#[test]
fn compaction_rules_are_etcds() {
    let files = MemFiles::new();
    let mut store = open(&files);
    let reader = store.reader();
    let mut now = Instant::ZERO;
    assert_eq!(compacted(&mut store, 1, 0), Ok(()));
    assert_eq!(compacted(&mut store, 2, 0), Err(ApiError::Compacted));
    assert_eq!(compacted(&mut store, 3, 2), Err(ApiError::FutureRevision));
    put(&mut store, 4, "k", "a"); // 2
    put(&mut store, 5, "k", "b"); // 3
    delete(&mut store, 6, "k"); // 4
    put(&mut store, 7, "l", "c"); // 5
    assert_eq!(compacted(&mut store, 8, 3), Ok(()));
    assert_eq!(value_at(&reader, "k", 2), Err(ApiError::Compacted));
    assert_eq!(value_at(&reader, "k", 3), Ok(Some("b".into())), "the compact revision is readable");
    let events = flush(&mut store, &mut now);
    // One pass does for both compactions that were in the batch.
    assert!(events.contains(&StoreEvent::CompactionFinished { revision: 3 }), "{events:?}");
    assert_eq!(value_at(&reader, "k", 3), Ok(Some("b".into())));
    assert_eq!(compacted(&mut store, 9, 4), Ok(()));
    flush(&mut store, &mut now);
    let (changes, next) = reader.changes(4, 4, b"k", b"", 10).expect("the tombstone is there");
    assert_eq!((changes.len(), next), (1, 5));
    assert_eq!(changes[0].events[0].r#type, i32::from(EventType::Delete));
    assert_eq!(compacted(&mut store, 10, 5), Ok(()));
    flush(&mut store, &mut now);
    assert_eq!(range_all(&reader, 5).len(), 1);
    let pin = store.pin_snapshot().expect("a snapshot");
    let rows = {
        let mut pin = pin;
        pin.next_rows(usize::MAX).expect("rows")
    };
    assert_eq!(rows.iter().filter(|row| row.bucket == 0).count(), 1, "only l is left");
    assert_eq!(compacted(&mut store, 11, 5), Err(ApiError::Compacted));
}

/// `gap` other keys between two changes of the same ones: what goes lies close together, or not.
#[test]
fn compaction_takes_the_same_rows_whether_they_lie_close_or_far() {
    for gap in [0, 1, 200] {
        let files = MemFiles::new();
        let mut store = open(&files);
        let (mut now, mut index) = (Instant::ZERO, 0);
        let mut write = |store: &mut Store, key: &str| {
            index += 1;
            put(store, index, key, &format!("value {index}"));
            index
        };
        for round in 0..4 {
            for key in ["a", "b"] {
                write(&mut store, key);
                (0..gap).for_each(|n| _ = write(&mut store, &format!("{key}-{round}-{n}")));
            }
        }
        let last = write(&mut store, "last");
        flush(&mut store, &mut now);
        let rows = |store: &Store| store.pin_snapshot().expect("a snapshot").size_hint().0;
        let (rows_before, live) = (rows(&store), range_all(&store.reader(), 0));
        let current = store.revision();
        compacted(&mut store, last + 1, current).expect("the current revision");
        flush(&mut store, &mut now);
        let reopened = open(&files.crash(Loss::Everything));
        assert_eq!(rows(&store), rows(&reopened), "what was counted is what is there");
        // Three rounds of two keys; the compaction leaves two rows that say how far it came.
        assert_eq!(rows(&reopened), rows_before - 6 + 2, "gap {gap}");
        assert_eq!(range_all(&reopened.reader(), 0), live);
        assert_eq!(reopened.reader().hash_kv(0), store.reader().hash_kv(0));
    }
}

#[test]
fn the_revision_never_goes_back_when_compaction_takes_the_newest_row() {
    let files = MemFiles::new();
    let mut store = open(&files);
    let mut now = Instant::ZERO;
    put(&mut store, 1, "k", "a"); // 2
    delete(&mut store, 2, "k"); // 3
    compacted(&mut store, 3, 3).expect("3 is the current revision");
    flush(&mut store, &mut now);
    assert_eq!(open(&files.crash(Loss::Everything)).revision(), 3);
    put(&mut store, 4, "l", "b"); // 4
    delete(&mut store, 5, "l"); // 5
    compacted(&mut store, 6, 5).expect("5 is the current revision");
    flush(&mut store, &mut now);
    let reopened = open(&files.crash(Loss::Everything));
    assert_eq!((reopened.revision(), reopened.compact_revision()), (5, 5));
    assert_eq!(reopened.state_hash(), store.state_hash());
}

#[test]
fn a_compaction_goes_on_after_a_restart() {
    let files = MemFiles::new();
    let mut store = open(&files);
    let mut now = Instant::ZERO;
    for index in 1..=5_000 {
        put(&mut store, index, &format!("k{}", index % 10), "v");
    }
    compacted(&mut store, 5_001, 5_001).expect("the current revision");
    let hash = store.reader().hash_kv(0).expect("hash");
    now = now + Duration::from_secs(1);
    let job = store.poll(now, u64::MAX).expect("a waiting compaction makes the batch due");
    store.handle_done(now, job.run()).expect("the commit succeeds");
    assert_eq!(store.reader().hash_kv(0), Ok(hash), "before any slice");
    let walk = store.poll(now, u64::MAX).expect("what the compaction finds is hashed first");
    assert_eq!((walk.kind(), store.next_deadline()), ("hash", None));
    let events = store.handle_done(now, walk.run()).expect("the file can be read");
    let [StoreEvent::HashStored(stored)] = events[..] else { panic!("{events:?}") };
    assert_eq!((stored.compact_revision, stored.revision), (-1, 5_001));
    let slice = store.poll(now, u64::MAX).expect("a slice");
    assert_eq!((slice.kind(), store.next_deadline()), ("compact", None));
    let done = slice.run();
    assert_eq!(store.handle_done(now, done), Ok(vec![]));
    assert_eq!(store.reader().hash_kv(0), Ok(hash), "after one slice");
    assert!(store.poll(now, u64::MAX).is_none(), "slices keep a pause");

    let mut reopened = open(&files.crash(Loss::Everything));
    assert_eq!(reopened.compact_revision(), 5_001);
    assert_eq!(reopened.reader().hash_kv(0), Ok(hash), "half done, after a restart");
    let events = flush(&mut reopened, &mut now);
    assert_eq!(events, [StoreEvent::CompactionFinished { revision: 5_001 }]);
    assert_eq!(reopened.reader().hash_kv(0), Ok(hash), "finished");
    let mut pin = reopened.pin_snapshot().expect("a snapshot");
    let rows = pin.next_rows(usize::MAX).expect("rows");
    assert_eq!(rows.iter().filter(|row| row.bucket == 0).count(), 10);
    assert_eq!(open(&files.crash(Loss::Everything)).state_hash(), store.state_hash());
}

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

#[test]
fn a_damaged_file_is_refused_and_left_alone() {
    let files = MemFiles::new();
    let mut store = open(&files);
    let mut now = Instant::ZERO;
    for index in 1..=200 {
        put(&mut store, index, &format!("k{index}"), &"v".repeat(200));
    }
    flush(&mut store, &mut now);
    drop(store);
    let whole = files.bytes(DB_PATH);
    let sound = open(&files.crash(Loss::Nothing)).state_hash();
    let (mut refused, mut unharmed) = (0, 0);
    for i in 0..150usize {
        let copy = files.crash(Loss::Nothing);
        copy.damage(DB_PATH, |bytes| {
            let at = i * 7919 * 13 % whole.len();
            bytes[at] ^= 0x5a;
        });
        match Store::open(copy, DB_PATH, options()) {
            Err(OpenError::FileDamaged { path, .. }) => {
                assert_eq!(path, DB_PATH);
                refused += 1;
            }
            Err(other) => panic!("{other}"),
            // Free pages and padding.
            Ok(store) => {
                assert_eq!(store.state_hash(), sound, "damage at {i} went unnoticed");
                unharmed += 1;
            }
        }
    }
    assert!(refused > 0 && unharmed > 0, "{refused} {unharmed}");
    for len in [10, 4096, whole.len() / 2] {
        let copy = files.crash(Loss::Nothing);
        copy.damage(DB_PATH, |bytes| bytes.truncate(len));
        let result = Store::open(copy, DB_PATH, options());
        assert!(matches!(result, Err(OpenError::FileDamaged { .. })), "cut to {len}");
    }
    let copy = files.crash(Loss::Nothing);
    copy.damage(DB_PATH, |bytes| bytes[..4096].fill(0));
    let result = Store::open(copy, DB_PATH, options());
    assert!(matches!(result, Err(OpenError::FileDamaged { .. })), "first page gone");
}

#[test]
fn values_over_the_budget_are_read_from_the_file() {
    let files = MemFiles::new();
    let options = StoreOptions { resident_bytes_max: Some(10_000), ..options() };
    let mut store = Store::open(files.clone(), DB_PATH, options.clone()).expect("the file opens");
    let mut now = Instant::ZERO;
    for index in 1..=100 {
        put(&mut store, index, &format!("k{index:03}"), &"v".repeat(1_000));
    }
    let all = |store: &Store| range_all(&store.reader(), 0);
    let expected = all(&store);
    flush(&mut store, &mut now);
    let hash = store.state_hash();
    let reopened = Store::open(files.crash(Loss::Everything), DB_PATH, options);
    for mut store in [store, reopened.expect("the file opens")] {
        assert_eq!(store.state_hash(), hash);
        assert_eq!(all(&store), expected);
        let revision = put(&mut store, 101, "k050", "w");
        let kv = store.reader().key_at(b"k050", 0).expect("readable").expect("there");
        assert_eq!((kv.version, kv.mod_revision, &kv.value[..]), (2, revision, &b"w"[..]));
        let delete = pb::DeleteRangeRequest {
            key: Bytes::from_static(b"k"),
            range_end: Bytes::from_static(b"l"),
            prev_kv: true,
        };
        let applied = store.delete_range(&delete).expect("applied");
        let Response::DeleteRange(response) = applied.response else { panic!("a delete") };
        assert_eq!(response.prev_kvs.len(), 100);
        assert_eq!(response.prev_kvs[0].value.len(), 1_000);
    }
}

#[test]
fn sizes_follow_what_is_written_and_compacted() {
    let files = MemFiles::new();
    let mut store = open(&files);
    let mut now = Instant::ZERO;
    let empty = store.sizes();
    for index in 1..=20_000 {
        put(&mut store, index, "k", &"v".repeat(1000));
    }
    flush(&mut store, &mut now);
    let full = store.sizes();
    assert_eq!(full.keys, 1);
    assert!(full.total_bytes > empty.total_bytes + 20_000_000, "{full:?}");
    assert!(full.total_bytes < 40_000_000, "{full:?}");
    assert!(full.in_use_bytes <= full.total_bytes);
    compacted(&mut store, 20_001, 20_001).expect("the current revision");
    flush(&mut store, &mut now);
    let compacted = store.sizes();
    assert!(compacted.total_bytes < 2_000_000, "{compacted:?}");
}
