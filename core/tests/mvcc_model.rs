//! The store against a plain model: every answer, every old revision, the history and the hash,
//! through batches, crashes between jobs, restarts and compactions.

mod mvcc_disk;
mod mvcc_plain;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use detkv_core::api::{ReadReady, Request, Response};
use detkv_core::error::ApiError;
use detkv_core::mvcc::{
    Applied, DB_PATH, Previous, ReadResult, Store, StoreEvent, StoreOptions, txn_is_read_only,
    validate,
};
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::pb::etcdserverpb::request_op::Request as Op;
use detkv_core::pb::mvccpb::KeyValue;
use detkv_core::time::Instant;
use mvcc_disk::{Loss, MemFiles, options, run_jobs};
use mvcc_plain::Plain;
use proptest::prelude::*;
use prost::Message;

/// Leases 1 to 3 exist.
fn lease_exists(id: i64) -> bool {
    (1..=3).contains(&id)
}

#[derive(Clone, Debug)]
enum Step {
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact {
        back: i64,
    },
    Range(pb::RangeRequest),
    /// Jobs for some virtual milliseconds; the WAL is persisted up to `lag` entries ago.
    Jobs {
        ms: u64,
        lag: u64,
    },
    /// A job is cut and runs only at the next `Jobs`, `Reopen` or the end.
    CutJob {
        lag: u64,
    },
    Reopen {
        loss: Loss,
    },
    /// A defragmentation begins, and goes on with the jobs.
    Defrag,
    Check {
        from: i64,
        key: u8,
        end: u8,
    },
}

fn key() -> impl Strategy<Value = Bytes> {
    (0u8..6).prop_map(|k| Bytes::copy_from_slice(&[b'a' + k]))
}

fn end() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        3 => Just(Bytes::new()),
        3 => (0u8..7).prop_map(|k| Bytes::copy_from_slice(&[b'a' + k])),
        1 => Just(Bytes::from_static(b"\0")),
    ]
}

fn value() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        4 => (0u8..4).prop_map(|v| Bytes::copy_from_slice(&[b'0' + v])),
        1 => Just(Bytes::new()),
        1 => (0usize..9000).prop_map(|n| Bytes::from(vec![b'x'; n])),
    ]
}

fn put() -> impl Strategy<Value = pb::PutRequest> {
    let flags = (any::<bool>(), prop::bool::weighted(0.15), prop::bool::weighted(0.15));
    (key(), value(), 0i64..5, flags).prop_map(|(key, value, lease, flags)| {
        let (prev_kv, ignore_value, ignore_lease) = flags;
        pb::PutRequest {
            key,
            value: if ignore_value { Bytes::new() } else { value },
            lease: if ignore_lease { 0 } else { lease },
            prev_kv,
            ignore_value,
            ignore_lease,
        }
    })
}

fn delete() -> impl Strategy<Value = pb::DeleteRangeRequest> {
    (key(), end(), any::<bool>()).prop_map(|(key, range_end, prev_kv)| pb::DeleteRangeRequest {
        key,
        range_end,
        prev_kv,
    })
}

fn range() -> impl Strategy<Value = pb::RangeRequest> {
    let filters = prop::array::uniform4(prop_oneof![5 => Just(0i64), 1 => 0i64..40]);
    let flags = (prop::bool::weighted(0.2), prop::bool::weighted(0.2), any::<bool>());
    (key(), end(), -1i64..5, -2i64..40, (0..3, 0..5), filters, flags).prop_map(
        |(key, range_end, limit, revision, (sort_order, sort_target), filters, flags)| {
            let (keys_only, count_only, serializable) = flags;
            pb::RangeRequest {
                key,
                range_end,
                limit,
                revision: if revision < 10 { revision.min(0) } else { revision },
                sort_order,
                sort_target,
                serializable,
                keys_only,
                count_only,
                min_mod_revision: filters[0],
                max_mod_revision: filters[1],
                min_create_revision: filters[2],
                max_create_revision: filters[3],
            }
        },
    )
}

fn compare() -> impl Strategy<Value = pb::Compare> {
    use pb::compare::TargetUnion as U;
    let union = prop_oneof![
        Just(None),
        (0i64..4).prop_map(|v| Some(U::Version(v))),
        (0i64..30).prop_map(|v| Some(U::CreateRevision(v))),
        (0i64..30).prop_map(|v| Some(U::ModRevision(v))),
        value().prop_map(|v| Some(U::Value(v))),
        (0i64..4).prop_map(|v| Some(U::Lease(v))),
    ];
    (key(), end(), 0..5, 0..6, union, any::<bool>()).prop_map(
        |(key, range_end, result, target, union, fits)| {
            // Half of the operands fit their target.
            let target = match (&union, fits) {
                (Some(U::Version(_)), true) => 0,
                (Some(U::CreateRevision(_)), true) => 1,
                (Some(U::ModRevision(_)), true) => 2,
                (Some(U::Value(_)), true) => 3,
                (Some(U::Lease(_)), true) => 4,
                _ => target,
            };
            pb::Compare { result, target, key, range_end, target_union: union }
        },
    )
}

fn op(depth: u32) -> BoxedStrategy<pb::RequestOp> {
    let leaf = prop_oneof![
        4 => put().prop_map(Op::RequestPut),
        2 => delete().prop_map(Op::RequestDeleteRange),
        3 => range().prop_map(Op::RequestRange),
    ];
    let request = if depth == 0 {
        leaf.boxed()
    } else {
        prop_oneof![5 => leaf, 1 => txn(depth - 1).prop_map(Op::RequestTxn)].boxed()
    };
    request.prop_map(|request| pb::RequestOp { request: Some(request) }).boxed()
}

fn txn(depth: u32) -> BoxedStrategy<pb::TxnRequest> {
    let list = move || prop::collection::vec(op(depth), 0..4);
    (prop::collection::vec(compare(), 0..3), list(), list())
        .prop_map(|(compare, success, failure)| pb::TxnRequest { compare, success, failure })
        .boxed()
}

fn loss() -> impl Strategy<Value = Loss> {
    prop_oneof![
        Just(Loss::Nothing),
        Just(Loss::Everything),
        any::<u64>().prop_map(Loss::Torn),
        any::<u64>().prop_map(Loss::Torn),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => put().prop_map(Step::Put),
        3 => delete().prop_map(Step::Delete),
        6 => txn(2).prop_map(Step::Txn),
        2 => (-1i64..12).prop_map(|back| Step::Compact { back }),
        4 => range().prop_map(Step::Range),
        3 => (0u64..1500, 0u64..4).prop_map(|(ms, lag)| Step::Jobs { ms, lag }),
        2 => (0u64..4).prop_map(|lag| Step::CutJob { lag }),
        1 => loss().prop_map(|loss| Step::Reopen { loss }),
        1 => Just(Step::Defrag),
        3 => (0i64..12, 0u8..7, 0u8..9).prop_map(|(from, key, end)| Step::Check { from, key, end }),
    ]
}

/// A write as the log has it.
#[derive(Clone, Debug)]
enum Entry {
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(i64),
}

type Outcome = Result<Option<Response>, ApiError>;

struct World {
    options: StoreOptions,
    files: Arc<MemFiles>,
    store: Store,
    plain: Plain,
    now: Instant,
    /// Everything applied, with its outcome and the state hash after it; entry i has index i + 1.
    log: Vec<(Entry, Outcome, u64)>,
    job: Option<detkv_core::mvcc::BackendJob>,
    /// A copy that is durable and has not taken the file's place.
    copied: Option<String>,
    /// (hash, compact revision) at each compaction, under the compact revision it found.
    compactions: BTreeMap<i64, (u32, i64)>,
}

impl World {
    fn new(resident_bytes_max: Option<u64>) -> Self {
        let files = MemFiles::new();
        let options = StoreOptions { resident_bytes_max, ..options() };
        let store = Store::open(files.clone(), DB_PATH, options.clone()).expect("the file opens");
        Self {
            options,
            files,
            store,
            plain: Plain::new(),
            now: Instant::ZERO,
            log: Vec::new(),
            job: None,
            copied: None,
            compactions: BTreeMap::new(),
        }
    }

    fn apply_to_store(store: &mut Store, index: u64, entry: &Entry) -> Outcome {
        let applied = match entry {
            Entry::Put(req) => store.put(req, &lease_exists).map(Some),
            Entry::Delete(req) => store.delete_range(req).map(Some),
            Entry::Txn(req) => store.txn(req, &lease_exists).map(Some),
            Entry::Compact(revision) => store.compact(*revision).map(|()| None),
        };
        store.set_applied(index, 1);
        let applied = applied?;
        if let Some(applied) = &applied {
            Self::check_previous(store, applied);
        }
        Ok(applied.map(|applied| applied.response))
    }

    /// What the store says of the keys before a change is what a read of the revision before says.
    fn check_previous(store: &Store, applied: &Applied) {
        let Some(events) = &applied.events else { return };
        assert_eq!(events.events.len(), applied.previous.len());
        for (event, previous) in events.events.iter().zip(&applied.previous) {
            let key = &event.kv.as_ref().expect("an event has a kv").key;
            let read =
                store.reader().key_at(key, events.revision - 1).expect("it is not compacted");
            match previous {
                Previous::Absent => assert_eq!(read, None, "{key:?}"),
                Previous::Here(encoded) => {
                    let decoded = KeyValue::decode(encoded.clone()).expect("an encoded KeyValue");
                    assert_eq!(read, Some(decoded), "{key:?}");
                }
                Previous::Unread => {}
            }
        }
    }

    fn apply(&mut self, entry: Entry) {
        let index = self.log.len() as u64 + 1;
        let outcome = Self::apply_to_store(&mut self.store, index, &entry);
        let expected = match &entry {
            Entry::Put(req) => self.plain.put(req, &lease_exists).map(Response::Put).map(Some),
            Entry::Delete(req) => Ok(Some(Response::DeleteRange(self.plain.delete_range(req)))),
            Entry::Txn(req) => self.plain.txn(req, &lease_exists).map(Response::Txn).map(Some),
            Entry::Compact(revision) => {
                let hash = self.plain.hash_kv(*revision);
                let compacted = self.plain.compact(*revision);
                if let (Ok(hash), Ok(())) = (hash, &compacted) {
                    self.compactions.insert(*revision, hash);
                }
                compacted.map(|()| None)
            }
        };
        assert_eq!(outcome, expected, "{entry:?}");
        assert_eq!(self.store.revision(), self.plain.revision);
        assert_eq!(self.store.compact_revision(), self.plain.compact_revision);
        assert_eq!(self.store.sizes().keys, self.plain.at(self.plain.revision).len() as u64);
        self.log.push((entry, outcome, self.store.state_hash()));
    }

    fn finish_job(&mut self) {
        if let Some(job) = self.job.take() {
            let done = job.run();
            let events = self.store.handle_done(self.now, done).expect("the job succeeds");
            self.note_copied(&events);
        }
    }

    fn note_copied(&mut self, events: &[StoreEvent]) {
        for event in events {
            if let StoreEvent::Copied { path } = event {
                self.copied = Some(path.clone());
            }
        }
    }

    fn place_copy(&mut self) {
        if let Some(path) = self.copied.take() {
            assert!(self.store.next_deadline().is_none(), "commits wait for the new file");
            self.files.rename(&path, DB_PATH);
            self.store.finish_defrag();
        }
    }

    /// A crash; a cut job may or may not have run. Then the log is applied again.
    fn reopen(&mut self, loss: Loss) {
        if let Some(job) = self.job.take() {
            job.run();
        }
        let durable_index = self.store.durable_index();
        if let (Some(path), Loss::Torn(_)) = (self.copied.take(), loss) {
            // The crash came after the rename.
            self.files.rename(&path, DB_PATH);
        }
        self.files = self.files.crash(loss);
        self.store =
            Store::open(self.files.clone(), DB_PATH, self.options.clone()).expect("the file opens");
        let index = self.store.consistent().index;
        assert!(index >= durable_index, "{index} of {durable_index} durable entries are left");
        assert!(index <= self.log.len() as u64);
        for (i, (entry, outcome, hash)) in self.log.iter().enumerate().skip(index as usize) {
            let again = Self::apply_to_store(&mut self.store, i as u64 + 1, entry);
            assert_eq!(&again, outcome, "replayed differently: {entry:?}");
            assert_eq!(self.store.state_hash(), *hash, "another state after {entry:?}");
        }
        assert_eq!(
            self.store.state_hash(),
            self.log.last().map_or(self.store.state_hash(), |l| l.2)
        );
    }

    fn range(&self, req: &pb::RangeRequest) {
        let ready = ReadReady { request: Request::Range(req.clone()), header: Default::default() };
        let result = self.store.reader().read(&ready).map(|result| match result {
            ReadResult::Range(rows) => pb::RangeResponse {
                header: Some(rows.header),
                kvs: rows.kvs.iter().map(|kv| KeyValue::decode(kv.clone()).expect("kv")).collect(),
                more: rows.more,
                count: rows.count,
            },
            _ => panic!("a range answers a range"),
        });
        assert_eq!(result, self.plain.range(req), "{req:?}");
    }

    fn read_txn(&self, req: &pb::TxnRequest) {
        let ready = ReadReady { request: Request::Txn(req.clone()), header: Default::default() };
        let result = self.store.reader().read(&ready);
        let expected = self.plain.clone().txn(req, &lease_exists);
        assert_eq!(result, expected.map(ReadResult::Txn), "{req:?}");
    }

    fn check(&self, from_back: i64, key: u8, end: u8) {
        let reader = self.store.reader();
        let from = (self.plain.revision - from_back).max(0);
        let key = [b'a' + key];
        let end = match end {
            7 => vec![],
            8 => vec![0],
            end => vec![b'a' + end],
        };
        let mut seen = Vec::new();
        let mut next = from;
        let result = loop {
            match reader.changes(next, self.plain.revision, &key, &end, 3) {
                Err(error) => break Err(error),
                Ok((changes, after)) => {
                    seen.extend(changes.into_iter().map(|c| (c.revision, c.events)));
                    if after > self.plain.revision {
                        break Ok(seen);
                    }
                    next = after;
                }
            }
        };
        assert_eq!(result, self.plain.changes(from, &key, &end), "{from} {key:?} {end:?}");
        for revision in [0, from] {
            let hash = reader.hash_kv(revision).map(|r| (r.hash, r.compact_revision));
            let stored = reader.compaction_hashes();
            let is_stored = stored.iter().any(|hash| hash.revision == revision) && revision > 0;
            let expected = match is_stored {
                true => Ok(self.compactions[&revision]),
                false => self.plain.hash_kv(revision),
            };
            assert_eq!(hash, expected, "HashKV({revision})");
            let kv = reader.key_at(&key, revision);
            assert_eq!(kv, self.plain.key_at(&key, revision));
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Put(req) => self.apply(Entry::Put(req)),
            Step::Delete(req) => self.apply(Entry::Delete(req)),
            Step::Txn(req) => {
                let is_valid = validate(&Request::Txn(req.clone()), 128).is_ok();
                if is_valid && txn_is_read_only(&req).is_some() {
                    self.read_txn(&req);
                }
                if is_valid {
                    self.apply(Entry::Txn(req));
                }
            }
            Step::Compact { back } => self.apply(Entry::Compact(self.plain.revision - back)),
            Step::Range(req) => self.range(&req),
            Step::Jobs { ms, lag } => {
                self.finish_job();
                self.place_copy();
                let persisted = (self.log.len() as u64).saturating_sub(lag);
                let until = self.now + Duration::from_millis(ms);
                let events = run_jobs(&mut self.store, &mut self.now, until, persisted);
                self.note_copied(&events);
            }
            Step::Defrag => {
                self.store.begin_defrag(self.files.clone(), "copy");
            }
            Step::CutJob { lag } => {
                self.finish_job();
                let persisted = (self.log.len() as u64).saturating_sub(lag);
                self.now = self.now + Duration::from_millis(200);
                self.job = self.store.poll(self.now, persisted);
                self.job = self.job.take().or_else(|| {
                    self.now = self.now + Duration::from_millis(200);
                    self.store.poll(self.now, persisted)
                });
            }
            Step::Reopen { loss } => self.reopen(loss),
            Step::Check { from, key, end } => self.check(from, key, end),
        }
    }
}

fn puts_of_many_keys() -> pb::TxnRequest {
    let put = |n: usize| {
        let key = Bytes::from(format!("b{n:02}"));
        let put = pb::PutRequest { key, value: Bytes::from_static(b"v"), ..Default::default() };
        pb::RequestOp { request: Some(Op::RequestPut(put)) }
    };
    pb::TxnRequest { success: (0..80).map(put).collect(), ..Default::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn store_matches_model(
        many_keys in prop::bool::weighted(0.3),
        resident_bytes_max in prop::option::of(0u64..3_000),
        steps in prop::collection::vec(step(), 1..70),
    ) {
        let mut world = World::new(resident_bytes_max);
        if many_keys {
            // So many that the history of an interval is read row by row.
            world.apply(Entry::Txn(puts_of_many_keys()));
        }
        for step in steps {
            world.step(step);
        }
        world.finish_job();
        world.check(100, 0, 8);
        world.step(Step::Jobs { ms: 5_000, lag: 0 });
        world.place_copy();
        world.check(100, 0, 8);
        world.store.request_immediate();
        let until = world.now + Duration::from_secs(5);
        run_jobs(&mut world.store, &mut world.now, until, u64::MAX);
        prop_assert!(world.store.is_durable());
        world.check(100, 0, 8);
        let reopened = Store::open(world.files.crash(Loss::Everything), DB_PATH, options());
        let reopened = reopened.expect("the file opens");
        prop_assert_eq!(reopened.consistent().index, world.log.len() as u64);
        prop_assert_eq!(reopened.state_hash(), world.store.state_hash());
        prop_assert_eq!(reopened.leased_keys(), world.store.leased_keys());
    }
}
