//! The disk fails, or the machine loses power, at each write of a store's life in turn.
//!
//! One test alone in its process: it counts panics, those that the store turns into errors too.

mod mvcc_disk;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use detkv_core::error::Halt;
use detkv_core::mvcc::{DB_PATH, Store};
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::time::Instant;
use mvcc_disk::{Loss, MemFiles, options};

static PANICS: AtomicUsize = AtomicUsize::new(0);

const ENTRIES: u64 = 60;

fn apply(store: &mut Store, index: u64) {
    if index.is_multiple_of(20) {
        store.compact(store.revision() - 3).expect("a past revision");
    } else {
        let value = vec![index as u8; 50 * index as usize];
        let key = Bytes::from(format!("k{}", index % 7));
        let req = pb::PutRequest { key, value: value.into(), ..Default::default() };
        store.put(&req, &|_| true).expect("a plain put is applied");
    }
    store.set_applied(index, 1);
}

/// Opens the store and lives on until the disk fails or everything is done and durable; the
/// durable index. State hashes of every index are checked against `hashes`, or recorded there.
fn live(files: &Arc<MemFiles>, hashes: &mut Vec<u64>) -> (u64, Result<(), Halt>) {
    let Ok(mut store) = Store::open(files.clone(), DB_PATH, options()) else {
        return (0, Err(Halt::Backend("did not open".into())));
    };
    let mut now = Instant::ZERO;
    let mut run = |store: &mut Store, persisted| {
        now = now + Duration::from_millis(60);
        while let Some(job) = store.poll(now, persisted) {
            store.handle_done(now, job.run())?;
        }
        Ok(())
    };
    for index in store.consistent().index + 1..=ENTRIES {
        apply(&mut store, index);
        match hashes.get(index as usize - 1) {
            Some(hash) => assert_eq!(store.state_hash(), *hash, "at index {index}"),
            None => hashes.push(store.state_hash()),
        }
        if let Err(halt) = run(&mut store, index) {
            return (store.durable_index(), Err(halt));
        }
    }
    store.request_immediate();
    let result = run(&mut store, ENTRIES);
    (store.durable_index(), result)
}

#[test]
fn a_failure_at_any_write_halts_and_loses_nothing_durable() {
    std::panic::set_hook(Box::new(|panic| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        eprintln!("{panic}");
    }));
    let mut hashes = Vec::new();
    let whole = MemFiles::new();
    assert_eq!(live(&whole, &mut hashes), (ENTRIES, Ok(())));
    let writes = whole.writes(DB_PATH);
    assert!(writes > 100, "{writes}");
    for n in 0..writes {
        let files = MemFiles::new();
        files.fail_after(n);
        let (durable_index, result) = live(&files, &mut hashes);
        assert!(result.is_err(), "write {n} failed and nobody noticed");
        for loss in [Loss::Nothing, Loss::Everything, Loss::Torn(n), Loss::Torn(n << 32)] {
            let files = files.crash(loss);
            let store = Store::open(files.clone(), DB_PATH, options())
                .unwrap_or_else(|error| panic!("after write {n}, {loss:?}: {error}"));
            let index = store.consistent().index;
            assert!(index >= durable_index, "{index} of {durable_index}, write {n}, {loss:?}");
            if index > 0 {
                assert_eq!(store.state_hash(), hashes[index as usize - 1]);
            }
            drop(store);
            assert_eq!(live(&files, &mut hashes), (ENTRIES, Ok(())), "write {n}, {loss:?}");
        }
    }
    assert_eq!(PANICS.load(Ordering::SeqCst), 0, "a failed write is an error, not a panic");
}
