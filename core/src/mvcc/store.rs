//! The member's end of the store: applies writes in log order and remembers what the file lacks.

use std::sync::Arc;

use bytes::Bytes;

use super::apply::Writer;
use super::batch::{Batch, BucketOp};
use super::compact::Scheduled;
use super::counters::StoreMetrics;
use super::evict::Evictor;
use super::job::{BackendJob, Work};
use super::load::{Load, Loaded};
use super::meta;
use super::reader::StoreReader;
use super::schedule::Schedule;
use super::small::SmallBuckets;
use super::snapshot::SnapshotPin;
use super::state::Shared;
use super::txn::{check_path, check_put_key, check_put_lease, choose_path};
use super::{Applied, Bucket, Consistent, Sizes, StoreOptions};
use crate::api::Response;
use crate::error::{ApiError, Halt, OpenError};
use crate::event::SharedFiles;
use crate::pb::etcdserverpb as pb;
use crate::pb::raftpb::ConfState;

/// The member's end: applies writes, cuts batches into jobs.
///
/// An entry is applied by at most one of `put`, `delete_range`, `txn`, `delete_keys`, `compact`,
/// any number of row changes and at most one `set_conf_state`, followed by `set_applied`, which
/// binds all of it to the entry's index.
#[derive(Debug)]
pub struct Store {
    pub(super) shared: Arc<Shared>,
    pub(super) small: SmallBuckets,
    pub(super) batch: Batch,
    pub(super) consistent: Consistent,
    pub(super) schedule: Schedule,
    pub(super) evictor: Evictor,
    /// What the next `install_loaded` takes.
    pub(super) loaded: Option<Box<Loaded>>,
}

impl Store {
    /// Opens or creates the file at `path`, rebuilds the index, resumes an unfinished compaction.
    ///
    /// Errors: `FileDamaged` when a page, a row or a meta value is not what was written.
    pub fn open(files: SharedFiles, path: &str, options: StoreOptions) -> Result<Self, OpenError> {
        let Loaded { state, small, meta } = Loaded::open(&files, path, options.resident_bytes_max)?;
        Ok(Self {
            shared: Arc::new(Shared::new(state)),
            small,
            batch: Batch::default(),
            evictor: Evictor::new(options.resident_bytes_max),
            schedule: Schedule::new(options, 0, &meta),
            consistent: meta.consistent,
            loaded: None,
        })
    }

    /// A handle for reads, on any thread.
    pub fn reader(&self) -> StoreReader {
        StoreReader::new(self.shared.clone())
    }

    /// Counters and histograms, shared with the readers.
    pub fn metrics(&self) -> Arc<StoreMetrics> {
        self.shared.metrics.clone()
    }

    /// As of the last `set_applied`.
    pub fn consistent(&self) -> &Consistent {
        &self.consistent
    }

    /// Index of the last `Immediate` commit; the WAL is kept back to it.
    pub fn durable_index(&self) -> u64 {
        self.schedule.durable_index()
    }

    /// Main revision of the last change; 1 in a fresh store.
    pub fn revision(&self) -> i64 {
        self.shared.state.read().revision
    }

    /// −1 on a store that was never compacted.
    pub fn compact_revision(&self) -> i64 {
        self.shared.state.read().compact_revision
    }

    /// Rows that compactions have removed since open.
    pub fn compacted_rows(&self) -> u64 {
        self.schedule.compaction.rows()
    }

    /// Newest compaction whose rows are gone from the file; −1 when there was none.
    pub fn finished_compaction(&self) -> i64 {
        self.schedule.compaction.finished()
    }

    /// Of the file; what is not in it yet is counted apart.
    pub fn sizes(&self) -> Sizes {
        let state = self.shared.state.read();
        let usage = *state.backend.usage.lock();
        Sizes { unwritten_bytes: state.unwritten_bytes, ..usage.sizes(state.live_keys) }
    }

    // -- apply: deterministic, no time, no randomness

    /// Errors: `LeaseNotFound`; `KeyNotFound` with `ignore_value` or `ignore_lease`.
    pub fn put(
        &mut self,
        req: &pb::PutRequest,
        lease_exists: &dyn Fn(i64) -> bool,
    ) -> Result<Applied, ApiError> {
        check_put_lease(req, lease_exists)?;
        let mut writer = Writer::new(&self.shared);
        check_put_key(&writer, req)?;
        let response = writer.put(req)?;
        Ok(writer
            .finish(|header| Response::Put(pb::PutResponse { header: Some(header), ..response })))
    }

    /// Deleting nothing is a success that does not move the revision.
    pub fn delete_range(&mut self, req: &pb::DeleteRangeRequest) -> Result<Applied, ApiError> {
        let mut writer = Writer::new(&self.shared);
        let response = writer.delete_range(req)?;
        Ok(writer.finish(|header| {
            Response::DeleteRange(pb::DeleteRangeResponse { header: Some(header), ..response })
        }))
    }

    /// Errors: those of the taken path (surface spec §3.5, evaluation step 2); nothing is applied.
    pub fn txn(
        &mut self,
        req: &pb::TxnRequest,
        lease_exists: &dyn Fn(i64) -> bool,
    ) -> Result<Applied, ApiError> {
        let mut writer = Writer::new(&self.shared);
        let path = choose_path(&writer, req)?;
        check_path(&writer, req, &path, lease_exists)?;
        let response = writer.txn(req, &path)?;
        Ok(writer
            .finish(|header| Response::Txn(pb::TxnResponse { header: Some(header), ..response })))
    }

    /// Deletes exactly these keys (a revoked lease's) in ascending order, in one revision.
    ///
    /// The response is a `LeaseRevokeResponse`.
    pub fn delete_keys(&mut self, keys: &[Bytes]) -> Applied {
        assert!(keys.is_sorted(), "the keys of a revoked lease are deleted in ascending order");
        let mut writer = Writer::new(&self.shared);
        for key in keys {
            writer.delete(key);
        }
        writer.finish(|header| {
            Response::LeaseRevoke(pb::LeaseRevokeResponse { header: Some(header) })
        })
    }

    /// Makes everything below `revision` unreadable at once; its rows go later, in slices.
    ///
    /// Errors: `Compacted`, `FutureRevision`.
    pub fn compact(&mut self, revision: i64) -> Result<(), ApiError> {
        let mut state = self.shared.state.write();
        if revision <= state.compact_revision {
            return Err(ApiError::Compacted);
        }
        if revision > state.revision {
            return Err(ApiError::FutureRevision);
        }
        let previous = std::mem::replace(&mut state.compact_revision, revision);
        self.schedule.compaction.on_applied(Scheduled { revision, previous });
        self.batch.push_op(meta::scheduled_compaction(revision));
        self.batch.set_compaction(revision);
        Ok(())
    }

    /// Rows of the small buckets (not `Key`, not `Meta`): kept in memory, written with the batch.
    pub fn put_row(&mut self, bucket: Bucket, key: Bytes, value: Bytes) {
        assert!(bucket.is_small(), "bucket {} is written by the store alone", bucket.name());
        self.small.put(bucket, key.clone(), value.clone());
        self.batch.push_op(BucketOp { bucket, key, value: Some(value) });
    }

    pub fn delete_row(&mut self, bucket: Bucket, key: &[u8]) {
        assert!(bucket.is_small(), "bucket {} is written by the store alone", bucket.name());
        if self.small.delete(bucket, key) {
            let key = Bytes::copy_from_slice(key);
            self.batch.push_op(BucketOp { bucket, key, value: None });
        }
    }

    /// All rows of a small bucket in key order.
    pub fn rows(&self, bucket: Bucket) -> Vec<(Bytes, Bytes)> {
        self.small.rows(bucket)
    }

    /// Call after each applied entry: goes into the same transaction as its data.
    pub fn set_applied(&mut self, index: u64, term: u64) {
        assert!(
            index > self.consistent.index,
            "entries are applied in log order: {index} after {}",
            self.consistent.index
        );
        self.consistent.index = index;
        self.consistent.term = term;
        let pending_rows = self.shared.state.read().pending.len();
        self.batch.mark(index, term, pending_rows);
    }

    /// Call before the `set_applied` of the entry that changed the configuration.
    pub fn set_conf_state(&mut self, conf_state: ConfState) {
        self.batch.set_conf_state(conf_state.clone());
        self.consistent.conf_state = Some(conf_state);
    }

    /// Keys with the lease each is attached to, from the index; to rebuild the lessor after open.
    pub fn leased_keys(&self) -> Vec<(Bytes, i64)> {
        let state = self.shared.state.read();
        let lease = |entry: &super::index::KeyIndex| entry.current.as_ref().map_or(0, |c| c.lease);
        state
            .index
            .iter()
            .filter(|(_, entry)| lease(entry) != 0)
            .map(|(key, entry)| (key.clone(), lease(entry)))
            .collect()
    }

    // -- snapshots

    /// Pins a read snapshot of what is in the file now.
    pub fn pin_snapshot(&self) -> Result<SnapshotPin, Halt> {
        let backend = self.shared.state.read().backend.clone();
        SnapshotPin::new(&backend).map_err(|error| Halt::Backend(error.0))
    }

    /// A job that reads the file at `path` (already renamed into place), which is to replace the
    /// whole store; `StoreEvent::Loaded` tells when `install_loaded` may do so.
    pub fn load(&self, files: SharedFiles, path: &str) -> BackendJob {
        let resident_bytes_max = self.schedule.options().resident_bytes_max;
        let load = Load { files, path: path.to_owned(), resident_bytes_max };
        BackendJob { epoch: None, work: Work::Load(load) }
    }

    /// Replaces the whole store by what was loaded.
    /// Readers handed out before go on with the new content.
    ///
    /// What was applied and not written is forgotten; the result of a job of the old file that is
    /// under way is ignored.
    pub fn install_loaded(&mut self) {
        let loaded = self.loaded.take().expect("a file is loaded before it is installed");
        let Loaded { state: mut loaded, small, meta } = *loaded;
        let mut state = self.shared.state.write();
        loaded.epoch = state.epoch + 1;
        self.schedule = Schedule::new(self.schedule.options().clone(), loaded.epoch, &meta);
        self.small = small;
        self.batch = Batch::default();
        self.consistent = meta.consistent;
        let old = std::mem::replace(&mut *state, loaded);
        drop(state);
        // A large map takes a while to free: not under the lock.
        drop(old);
    }

    /// Hash of the whole replicated state in memory: key space at the current revision, revisions,
    /// small buckets. O(1): kept up to date by every change.
    ///
    /// Equal on all members that have applied the same entries, however far their files and
    /// compactions have come.
    pub fn state_hash(&self) -> u64 {
        let state = self.shared.state.read();
        let words = [
            state.live_hash,
            self.small.hash(),
            state.revision as u64,
            state.compact_revision as u64,
            state.live_keys,
        ];
        let mut bytes = [0; 40];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        xxhash_rust::xxh3::xxh3_64(&bytes)
    }
}
