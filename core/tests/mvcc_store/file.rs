//! Batches, durability, reopening, damage.

use std::time::Duration;

use bytes::Bytes;
use detkv_core::api::Response;
use detkv_core::error::{ApiError, OpenError};
use detkv_core::mvcc::{Bucket, DB_PATH, Store, StoreEvent, StoreOptions, StoreReader};
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::pb::raftpb::ConfState;
use detkv_core::time::Instant;

use crate::mvcc_disk::{Loss, MemFiles, flush, open, options, run_jobs};
use crate::{put, range_all, value_at};

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
