//! When a batch becomes a job.

mod mvcc_disk;

use std::time::Duration;

use detkv_core::mvcc::{DB_PATH, Store, StoreOptions};
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::time::Instant;
use mvcc_disk::{MemFiles, options};

const BATCH: Duration = Duration::from_millis(100);
const QUIET: Duration = Duration::from_secs(5);

/// A store that counts as quiet with less than 10 changes.
fn store() -> Store {
    let options = StoreOptions { quiet_ops: 10, quiet_interval: QUIET, ..options() };
    assert_eq!(options.batch_interval, BATCH);
    Store::open(MemFiles::new(), DB_PATH, options).expect("the file opens")
}

fn put(store: &mut Store, index: u64, value_bytes: usize) {
    let value = vec![7; value_bytes].into();
    let request = pb::PutRequest { key: "k".into(), value, ..Default::default() };
    store.put(&request, &|_| false).expect("a plain put");
    store.set_applied(index, 1);
}

#[test]
fn few_changes_wait_longer_than_many() {
    let mut store = store();
    let start = Instant::ZERO;
    for index in 1..=9 {
        put(&mut store, index, 10);
    }
    assert!(store.poll(start, u64::MAX).is_none());
    assert_eq!(store.next_deadline(), Some(start + QUIET));
    assert!(store.poll(start + BATCH, u64::MAX).is_none());
    put(&mut store, 10, 10);
    assert_eq!(store.next_deadline(), Some(start + BATCH), "the tenth");
    let job = store.poll(start + BATCH, u64::MAX).expect("the batch is due");
    assert_eq!(job.rows(), 10);
}

#[test]
fn what_is_wanted_or_large_waits_for_nothing() {
    let mut wanted = store();
    put(&mut wanted, 1, 10);
    assert!(wanted.poll(Instant::ZERO, u64::MAX).is_none());
    wanted.request_commit();
    assert!(wanted.poll(Instant::ZERO, u64::MAX).is_some());

    let mut large = store();
    for index in 1..=8 {
        put(&mut large, index, 2 << 20);
        let is_due = large.poll(Instant::ZERO, u64::MAX).is_some();
        assert_eq!(is_due, index == 8, "16 MiB in all");
    }
}
