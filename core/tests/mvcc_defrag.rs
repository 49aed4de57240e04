//! Defragmentation of a store: the copy, its crashes, its failures.

mod mvcc_disk;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use detkv_core::mvcc::{DB_PATH, Store, StoreEvent};
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::time::Instant;
use mvcc_disk::{Loss, MemFiles, flush, open, options};

const COPY: &str = "db.tmp.1";

fn put(store: &mut Store, key: &str, bytes: usize) {
    let value = Bytes::from(vec![b'x'; bytes]);
    let req = pb::PutRequest { key: key.to_owned().into(), value, ..Default::default() };
    store.put(&req, &|_| true).expect("a plain put is applied");
    applied(store);
}

fn applied(store: &mut Store) {
    store.set_applied(store.consistent().index + 1, 1);
}

/// Runs jobs until the copy is complete; `between` is called before each. How many jobs ran.
fn copy(store: &mut Store, now: &mut Instant, mut between: impl FnMut(&mut Store, u64)) -> u64 {
    for n in 1..10_000 {
        between(store, n);
        *now = *now + Duration::from_millis(40);
        let Some(job) = store.poll(*now, u64::MAX) else { continue };
        let events = store.handle_done(*now, job.run()).expect("a working disk");
        if events.contains(&StoreEvent::Copied { path: COPY.to_owned() }) {
            return n;
        }
    }
    panic!("the copy never ends");
}

fn place(files: &Arc<MemFiles>, store: &mut Store) {
    files.rename(COPY, DB_PATH);
    store.finish_defrag();
}

#[test]
fn what_compaction_freed_is_gone_from_the_new_file_and_everything_else_is_there() {
    let files = MemFiles::new();
    let mut store = open(&files);
    let mut now = Instant::ZERO;
    for n in 0..3_000 {
        put(&mut store, &format!("k{}", n % 100), 2_000);
    }
    flush(&mut store, &mut now);
    let full = store.sizes();
    store.compact(store.revision()).expect("the current revision");
    applied(&mut store);
    flush(&mut store, &mut now);
    let (hash, kv) = (store.state_hash(), store.reader().hash_kv(0));
    assert!(store.begin_defrag(files.clone(), COPY));
    assert!(!store.begin_defrag(files.clone(), COPY), "one at a time");
    copy(&mut store, &mut now, |_, _| {});
    assert!(store.poll(now + Duration::from_secs(9), u64::MAX).is_none(), "commits wait");
    place(&files, &mut store);
    let dense = store.sizes();
    assert!(dense.total_bytes * 5 < full.total_bytes, "{dense:?} after {full:?}");
    assert!(dense.in_use_bytes <= dense.total_bytes && dense.in_use_bytes > 100 * 2_000);
    assert_eq!((store.state_hash(), store.reader().hash_kv(0)), (hash, kv));

    put(&mut store, "after", 10);
    flush(&mut store, &mut now);
    let reopened = open(&files.crash(Loss::Everything));
    assert_eq!(reopened.state_hash(), store.state_hash());
    assert_eq!(reopened.sizes().keys, 101);
}

/// Puts, deletes, a compaction and leases go on in every phase of the copy.
fn load(store: &mut Store, n: u64) {
    put(store, &format!("k{}", n % 30), 900);
    if n.is_multiple_of(7) {
        let key = Bytes::from(format!("k{}", n % 30));
        let req = pb::DeleteRangeRequest { key, ..Default::default() };
        store.delete_range(&req).expect("a plain delete is applied");
        applied(store);
    }
    if n.is_multiple_of(9) {
        store.compact(store.revision() - 5).expect("a past revision");
        applied(store);
    }
    let lease = Bytes::copy_from_slice(&(n % 5).to_be_bytes());
    if n.is_multiple_of(2) {
        store.put_row(detkv_core::mvcc::Bucket::Lease, lease, Bytes::from_static(b"lease"));
    } else {
        store.delete_row(detkv_core::mvcc::Bucket::Lease, &lease);
    }
    applied(store);
}

fn filled(files: &Arc<MemFiles>, now: &mut Instant) -> Store {
    let mut store = open(files);
    for n in 0..6_000 {
        put(&mut store, &format!("k{}", n % 40), 900);
    }
    flush(&mut store, now);
    store
}

#[test]
fn writes_and_compactions_during_the_copy_are_in_the_new_file() {
    let files = MemFiles::new();
    let mut now = Instant::ZERO;
    let mut store = filled(&files, &mut now);
    store.begin_defrag(files.clone(), COPY);
    let jobs = copy(&mut store, &mut now, load);
    assert!(jobs > 6, "several slices, {jobs}");
    for n in 0..40 {
        load(&mut store, n);
    }
    place(&files, &mut store);
    flush(&mut store, &mut now);
    let reopened = open(&files.crash(Loss::Everything));
    assert_eq!(reopened.consistent(), store.consistent());
    assert_eq!(reopened.state_hash(), store.state_hash());
    let revision = store.revision();
    // At the compact revision itself only this life knows the hash taken then.
    for revision in store.compact_revision() + 1..=revision {
        let ours = store.reader().hash_kv(revision);
        assert_eq!(reopened.reader().hash_kv(revision).map(|h| h.hash), ours.map(|h| h.hash));
    }
}

#[test]
fn a_crash_at_any_job_and_on_both_sides_of_the_rename_loses_nothing_durable() {
    let files = MemFiles::new();
    let mut now = Instant::ZERO;
    let mut store = filled(&files, &mut now);
    store.begin_defrag(files.clone(), COPY);
    let mut hashes = Vec::new();
    let check = |files: &Arc<MemFiles>, store: &Store, hashes: &[(u64, u64)]| {
        for loss in [Loss::Nothing, Loss::Everything, Loss::Torn(3), Loss::Torn(7)] {
            let reopened = Store::open(files.crash(loss), DB_PATH, options()).expect("it opens");
            let index = reopened.consistent().index;
            assert!(index >= store.durable_index(), "{loss:?}");
            if let Some((_, hash)) = hashes.iter().find(|(at, _)| *at == index) {
                assert_eq!(reopened.state_hash(), *hash, "{loss:?}");
            }
        }
    };
    hashes.push((store.consistent().index, store.state_hash()));
    let note = |hashes: &mut Vec<_>, store: &Store| {
        hashes.push((store.consistent().index, store.state_hash()));
    };
    copy(&mut store, &mut now, |store, n| {
        load(store, n);
        note(&mut hashes, store);
        check(&files, store, &hashes);
    });
    check(&files, &store, &hashes);
    files.rename(COPY, DB_PATH);
    check(&files, &store, &hashes);
    store.finish_defrag();
    check(&files, &store, &hashes);
    flush(&mut store, &mut now);
    note(&mut hashes, &store);
    check(&files, &store, &hashes);
}

#[test]
fn a_copy_that_cannot_be_written_is_given_up_and_the_store_goes_on() {
    let files = MemFiles::new();
    let mut now = Instant::ZERO;
    let mut store = filled(&files, &mut now);
    store.begin_defrag(files.clone(), COPY);
    for _ in 0..3 {
        now = now + Duration::from_millis(40);
        let job = store.poll(now, u64::MAX).expect("a slice");
        assert_eq!(job.kind(), "defrag");
        store.handle_done(now, job.run()).expect("a working disk");
    }
    files.fail_after(2);
    // redb writes what is not to be durable when it likes, at the latest with the last sync.
    let failed = (0..20).any(|_| {
        now = now + Duration::from_millis(40);
        let job = store.poll(now, u64::MAX).expect("a slice");
        let events = store.handle_done(now, job.run()).expect("no reason to halt");
        matches!(&events[..], [StoreEvent::CopyFailed { path, .. }] if path == COPY)
    });
    assert!(failed, "the copy cannot be written");
    files.fail_after(u64::MAX);
    put(&mut store, "after", 10);
    flush(&mut store, &mut now);
    assert_eq!(open(&files.crash(Loss::Everything)).state_hash(), store.state_hash());
}

#[test]
fn an_aborted_copy_leaves_the_store_as_it_was_and_another_may_begin() {
    let files = MemFiles::new();
    let mut now = Instant::ZERO;
    let mut store = filled(&files, &mut now);
    store.begin_defrag(files.clone(), COPY);
    let job = store.poll(now, u64::MAX).expect("a slice");
    assert!(store.abort_defrag());
    assert!(!store.abort_defrag());
    assert_eq!(store.handle_done(now, job.run()), Ok(vec![]), "of nobody's interest");
    store.begin_defrag(files.clone(), COPY);
    copy(&mut store, &mut now, load);
    assert!(!store.abort_defrag(), "too late");
    place(&files, &mut store);
    flush(&mut store, &mut now);
    assert_eq!(open(&files.crash(Loss::Everything)).state_hash(), store.state_hash());
}
