//! Readers on threads of their own against a member that writes, compacts, commits and installs.

mod mvcc_disk;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use detkv_core::api::{ReadReady, Request};
use detkv_core::error::ApiError;
use detkv_core::mvcc::{DB_PATH, ReadResult, SnapshotReceiver, Store, StoreReader};
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::pb::etcdserverpb::request_op::Request as Op;
use detkv_core::pb::mvccpb::KeyValue;
use detkv_core::time::Instant;
use mvcc_disk::{MemFiles, flush, open};
use parking_lot::Mutex;
use prost::Message;

/// More than two chunks of a reader.
const KEYS: usize = 600;
const ROUNDS: u64 = 110;

fn key(n: usize) -> Bytes {
    Bytes::from(format!("k{n:04}"))
}

/// Every round puts its number into every key, in one revision.
fn round(n: u64) -> pb::TxnRequest {
    let put = |i| pb::PutRequest {
        key: key(i),
        value: Bytes::from(format!("{n:0100}")),
        ..Default::default()
    };
    let op = |i| pb::RequestOp { request: Some(Op::RequestPut(put(i))) };
    pb::TxnRequest { success: (0..KEYS).map(op).collect(), ..Default::default() }
}

/// At every revision from 2 on all keys have the same value and the same mod revision.
fn read_all(reader: &StoreReader, revision: i64) -> Result<i64, ApiError> {
    let all = Bytes::from_static(b"\0");
    let req = pb::RangeRequest { key: all.clone(), range_end: all, revision, ..Default::default() };
    let ready = ReadReady { request: Request::Range(req), header: Default::default() };
    let ReadResult::Range(rows) = reader.read(&ready)? else { panic!("a range answers a range") };
    let kvs: Vec<KeyValue> =
        rows.kvs.iter().map(|kv| KeyValue::decode(kv.clone()).expect("a KeyValue")).collect();
    assert_eq!((kvs.len(), rows.count), (KEYS, KEYS as i64));
    let first = &kvs[0];
    for (i, kv) in kvs.iter().enumerate() {
        assert_eq!(kv.key, key(i));
        assert_eq!((&kv.value, kv.mod_revision), (&first.value, first.mod_revision), "torn read");
    }
    let expected = if revision == 0 { rows.header.revision } else { revision };
    assert_eq!(first.mod_revision, expected);
    assert!(rows.header.revision >= first.mod_revision);
    Ok(first.mod_revision)
}

fn read_history(reader: &StoreReader) -> Result<(), ApiError> {
    let to = reader.revision();
    let from = reader.compact_revision().max(2).max(to - 5);
    let (changes, next) = reader.changes(from, to, b"k", b"l", 3)?;
    assert!(next > from && !changes.is_empty());
    for (change, revision) in changes.iter().zip(from..) {
        assert_eq!((change.revision, change.events.len()), (revision, KEYS), "a split revision");
    }
    Ok(())
}

/// HashKV of a revision under a compact revision never changes.
fn read_hash(
    reader: &StoreReader,
    seen: &Mutex<BTreeMap<(i64, i64), u32>>,
) -> Result<(), ApiError> {
    let answer = reader.hash_kv(0)?;
    let key = (answer.hash_revision, answer.compact_revision);
    assert_eq!(*seen.lock().entry(key).or_insert(answer.hash), answer.hash, "{key:?}");
    Ok(())
}

/// A copy of the store, installed in its place.
fn reinstall(store: &mut Store, files: &Arc<MemFiles>, now: &mut Instant) {
    flush(store, now);
    let mut pin = store.pin_snapshot().expect("a snapshot");
    let receiver = SnapshotReceiver::create(files.clone(), "tmp").expect("a receiver");
    loop {
        let rows = pin.next_rows(64 << 10).expect("rows");
        if rows.is_empty() {
            break;
        }
        store.handle_done(*now, receiver.write_rows(rows).run()).expect("written");
    }
    store.handle_done(*now, receiver.finish().run()).expect("durable");
    let hash = store.state_hash();
    files.rename("tmp", DB_PATH);
    let job = store.load(files.clone(), DB_PATH);
    store.handle_done(*now, job.run()).expect("the file opens");
    store.install_loaded();
    assert_eq!(store.state_hash(), hash);
}

/// Tells the readers to stop, however the writer ends.
struct OnEnd<'a>(&'a AtomicBool);

impl Drop for OnEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn apply_round(store: &mut Store, n: u64) {
    store.txn(&round(n), &|_| true).expect("applied");
    store.set_applied(store.consistent().index + 1, 1);
}

fn write(store: &mut Store, files: &Arc<MemFiles>) {
    let mut now = Instant::ZERO;
    for n in 2..ROUNDS {
        apply_round(store, n);
        if n % 11 == 0 {
            store.compact(store.revision() - (n as i64 / 11 % 3) * 4).expect("a past revision");
            store.set_applied(store.consistent().index + 1, 1);
        }
        if n % 50 == 0 {
            reinstall(store, files, &mut now);
        }
        now = now + Duration::from_millis(60);
        let Some(job) = store.poll(now, store.consistent().index - n % 4) else { continue };
        // The job runs while this thread goes on applying.
        let done = thread::scope(|scope| {
            let running = scope.spawn(|| job.run());
            apply_round(store, n);
            running.join().expect("the job does not panic")
        });
        store.handle_done(now, done).expect("the commit succeeds");
    }
}

#[test]
fn readers_see_whole_revisions_while_the_member_goes_on() {
    let files = MemFiles::new();
    let mut store = open(&files);
    apply_round(&mut store, 1);
    let over = AtomicBool::new(false);
    let (good, compacted) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let hashes = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for i in 0..4i64 {
            let reader = store.reader();
            let (over, good, compacted, hashes) = (&over, &good, &compacted, &hashes);
            scope.spawn(move || {
                let mut newest = 0;
                while !over.load(Ordering::Relaxed) {
                    let at = (reader.revision() - 3 * i).max(2);
                    let result = match i {
                        0 => read_all(&reader, 0).map(|revision| {
                            assert!(revision >= newest, "a later read is not older");
                            newest = revision;
                        }),
                        1 => read_all(&reader, at).map(|_| ()),
                        2 => read_history(&reader),
                        _ => read_hash(&reader, hashes),
                    };
                    match result {
                        Ok(()) => good.fetch_add(1, Ordering::Relaxed),
                        Err(ApiError::Compacted) if i != 0 => {
                            compacted.fetch_add(1, Ordering::Relaxed)
                        }
                        Err(error) => panic!("reader {i}: {error}"),
                    };
                }
            });
        }
        let _end = OnEnd(&over);
        write(&mut store, &files);
    });
    assert!(good.load(Ordering::Relaxed) > 100, "{good:?} reads, {compacted:?} overtaken");
}
