//! What a compaction takes, and when.

use std::time::Duration;

use detkv_core::error::ApiError;
use detkv_core::mvcc::{Store, StoreEvent};
use detkv_core::pb::mvccpb::event::EventType;
use detkv_core::time::Instant;

use crate::mvcc_disk::{Loss, MemFiles, flush, open};
use crate::{compacted, delete, put, range_all, value_at};

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
