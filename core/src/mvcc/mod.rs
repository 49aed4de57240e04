//! Revisions of keys: in memory the index and every current value, in redb every row.
//!
//! Start at [`Store`] (the member's writing end) and [`StoreReader`] (a thread-safe handle).

use std::sync::Arc;

use bytes::Bytes;

use crate::api::{RangeRows, ReadReady, Request, Response, RevisionEvents};
use crate::error::{ApiError, Halt, OpenError};
use crate::event::SharedFiles;
use crate::pb::etcdserverpb as pb;
use crate::pb::mvccpb::KeyValue;
use crate::pb::peer::SnapshotRow;
use crate::pb::raftpb::ConfState;
use crate::time::Instant;

/// Path of the backend file, relative to the data directory.
pub const DB_PATH: &str = "member/snap/db";

/// Tables named after etcd's buckets (surface spec §17.4). The number goes over the peer wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Bucket {
    Key = 0,
    Meta = 1,
    Lease = 2,
    Alarm = 3,
    Members = 4,
    MembersRemoved = 5,
    Cluster = 6,
    Auth = 7,
    AuthUsers = 8,
    AuthRoles = 9,
}

/// How far the log has been applied to a store.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Consistent {
    pub index: u64,
    pub term: u64,
    /// The configuration at `index`; `None` in a fresh store.
    pub conf_state: Option<ConfState>,
}

#[derive(Clone, Debug)]
pub struct StoreOptions {
    pub batch_interval: std::time::Duration,
    pub batch_ops: usize,
    pub sync_interval: std::time::Duration,
}

/// A key changed its lease (0 = none).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseMove {
    pub key: Bytes,
    pub from: i64,
    pub to: i64,
}

/// What applying a write did.
#[derive(Debug)]
pub struct Applied {
    /// Response without cluster_id, member_id, raft_term; the header's revision is set.
    pub response: Response,
    /// `None` when nothing changed.
    pub events: Option<Arc<RevisionEvents>>,
    pub lease_moves: Vec<LeaseMove>,
}

/// What a finished job means to the member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreEvent {
    /// The newest `Immediate` commit holds everything up to this index.
    Durable { index: u64 },
    /// All rows of a compaction are gone from the file.
    CompactionFinished { revision: i64 },
    /// A chunk of a received snapshot was written.
    ReceivedChunk,
    /// The received snapshot is durable in its temporary file.
    ReceivedAll,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Sizes {
    /// Allocated pages, bytes.
    pub total_bytes: u64,
    /// Pages in use, bytes.
    pub in_use_bytes: u64,
    pub keys: u64,
}

/// The member's end: applies writes, cuts batches into jobs.
#[derive(Debug)]
pub struct Store {}

impl Store {
    /// Opens or creates the file at `path`, rebuilds the index, resumes an unfinished compaction.
    pub fn open(
        _files: SharedFiles,
        _path: &str,
        _options: StoreOptions,
    ) -> Result<Self, OpenError> {
        unimplemented!()
    }

    pub fn reader(&self) -> StoreReader {
        unimplemented!()
    }

    /// As of the last `set_applied`.
    pub fn consistent(&self) -> &Consistent {
        unimplemented!()
    }

    /// Index of the last `Immediate` commit; the WAL is kept back to it.
    pub fn durable_index(&self) -> u64 {
        unimplemented!()
    }

    pub fn revision(&self) -> i64 {
        unimplemented!()
    }

    /// −1 on a store that was never compacted.
    pub fn compact_revision(&self) -> i64 {
        unimplemented!()
    }

    pub fn sizes(&self) -> Sizes {
        unimplemented!()
    }

    // -- apply: deterministic, no time, no randomness

    pub fn put(
        &mut self,
        _req: &pb::PutRequest,
        _lease_exists: &dyn Fn(i64) -> bool,
    ) -> Result<Applied, ApiError> {
        unimplemented!()
    }

    pub fn delete_range(&mut self, _req: &pb::DeleteRangeRequest) -> Result<Applied, ApiError> {
        unimplemented!()
    }

    pub fn txn(
        &mut self,
        _req: &pb::TxnRequest,
        _lease_exists: &dyn Fn(i64) -> bool,
    ) -> Result<Applied, ApiError> {
        unimplemented!()
    }

    /// Deletes exactly these keys (a revoked lease's) in ascending order, in one revision.
    pub fn delete_keys(&mut self, _keys: &[Bytes]) -> Applied {
        unimplemented!()
    }

    pub fn compact(&mut self, _revision: i64) -> Result<(), ApiError> {
        unimplemented!()
    }

    /// Rows of the small buckets (not `Key`, not `Meta`): kept in memory, written with the batch.
    pub fn put_row(&mut self, _bucket: Bucket, _key: Bytes, _value: Bytes) {
        unimplemented!()
    }

    pub fn delete_row(&mut self, _bucket: Bucket, _key: &[u8]) {
        unimplemented!()
    }

    pub fn rows(&self, _bucket: Bucket) -> Vec<(Bytes, Bytes)> {
        unimplemented!()
    }

    /// Call after each applied entry: goes into the same transaction as its data.
    pub fn set_applied(&mut self, _index: u64, _term: u64) {
        unimplemented!()
    }

    pub fn set_conf_state(&mut self, _conf_state: ConfState) {
        unimplemented!()
    }

    /// Keys with the lease each is attached to, from the index; to rebuild the lessor after open.
    pub fn leased_keys(&self) -> Vec<(Bytes, i64)> {
        unimplemented!()
    }

    // -- backend jobs

    pub fn next_deadline(&self) -> Option<Instant> {
        unimplemented!()
    }

    /// Cuts a batch or a compaction slice into a job when one is due and none is under way.
    /// Nothing applied past `persisted_index` (locally durable in the WAL) goes into a job.
    pub fn poll(&mut self, _now: Instant, _persisted_index: u64) -> Option<BackendJob> {
        unimplemented!()
    }

    pub fn handle_done(&mut self, _now: Instant, _done: JobDone) -> Result<Vec<StoreEvent>, Halt> {
        unimplemented!()
    }

    /// From now on `poll` writes everything with an `Immediate` commit at once (planned stop, first after open).
    pub fn request_immediate(&mut self) {
        unimplemented!()
    }

    /// Nothing un-written and the last commit was `Immediate`.
    pub fn is_durable(&self) -> bool {
        unimplemented!()
    }

    // -- snapshots

    /// Pins a read snapshot of what is in the file now.
    pub fn pin_snapshot(&self) -> Result<SnapshotPin, Halt> {
        unimplemented!()
    }

    /// Replaces the whole store by the file at `path` (already renamed into place).
    /// Readers handed out before go on with the new content.
    pub fn install(&mut self, _files: SharedFiles, _path: &str) -> Result<(), OpenError> {
        unimplemented!()
    }

    /// CRC-32C over the whole replicated state in memory (key space at the current revision, small buckets).
    pub fn state_hash(&self) -> u64 {
        unimplemented!()
    }
}

/// Thread-safe, cloneable; runs reads while the member goes on.
#[derive(Clone, Debug)]
pub struct StoreReader {}

/// The answer to a `ReadReady`.
#[derive(Clone, PartialEq, Debug)]
pub enum ReadResult {
    Range(RangeRows),
    Txn(pb::TxnResponse),
}

impl StoreReader {
    pub fn revision(&self) -> i64 {
        unimplemented!()
    }

    pub fn compact_revision(&self) -> i64 {
        unimplemented!()
    }

    /// Range or read-only Txn, taking the lock in chunks of `READ_CHUNK_KEYS`.
    pub fn read(&self, _ready: &ReadReady) -> Result<ReadResult, ApiError> {
        unimplemented!()
    }

    /// The key as of `revision`.
    pub fn key_at(&self, _key: &[u8], _revision: i64) -> Result<Option<KeyValue>, ApiError> {
        unimplemented!()
    }

    /// Changes with `from <= main <= to` that touch a key in the interval, at most `max_revisions` distinct
    /// revisions, never splitting one. Second value: the next revision to ask for (`to + 1` at the end).
    pub fn changes(
        &self,
        _from: i64,
        _to: i64,
        _key: &[u8],
        _range_end: &[u8],
        _max_revisions: usize,
    ) -> Result<(Vec<RevisionEvents>, i64), ApiError> {
        unimplemented!()
    }

    /// HashKV of surface spec §17.6.
    pub fn hash_kv(&self, _revision: i64) -> Result<pb::HashKvResponse, ApiError> {
        unimplemented!()
    }
}

/// Static checks of a request, before it is proposed or read (surface spec §3): flags, sizes, duplicate keys, sort options.
pub fn validate(_request: &Request, _txn_ops_max: usize) -> Result<(), ApiError> {
    unimplemented!()
}

/// A txn that has only top-level ranges; `serializable` when none of them is linearizable.
pub fn txn_is_read_only(_req: &pb::TxnRequest) -> Option<ReadOnlyTxn> {
    unimplemented!()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadOnlyTxn {
    pub serializable: bool,
}

/// A piece of backend work: core's own code, run where and when the driver decides, one at a time.
#[derive(Debug)]
pub struct BackendJob {}

impl BackendJob {
    /// Writes through redb. Blocking; a real driver runs it on its backend thread.
    pub fn run(self) -> JobDone {
        unimplemented!()
    }

    /// What it is, for logs and CPU cost: "commit", "sync", "compact", "receive".
    pub fn kind(&self) -> &'static str {
        unimplemented!()
    }

    /// Rows written or deleted.
    pub fn rows(&self) -> usize {
        unimplemented!()
    }
}

/// The outcome of a job, to be handed back in `Input::JobDone`.
#[derive(Debug)]
pub struct JobDone {}

impl JobDone {
    /// The error, if the job failed: the member will halt.
    pub fn error(&self) -> Option<&str> {
        unimplemented!()
    }
}

/// A pinned read snapshot, streamed to a peer in key order while writes go on.
#[derive(Debug)]
pub struct SnapshotPin {}

impl SnapshotPin {
    pub fn consistent(&self) -> &Consistent {
        unimplemented!()
    }

    /// (rows, bytes) of the whole snapshot, an estimate for progress display.
    pub fn size_hint(&self) -> (u64, u64) {
        unimplemented!()
    }

    /// The next rows, about `max_bytes` of them; empty at the end.
    pub fn next_rows(&mut self, _max_bytes: usize) -> Result<Vec<SnapshotRow>, Halt> {
        unimplemented!()
    }
}

/// Builds the file of a received snapshot through backend jobs.
#[derive(Clone, Debug)]
pub struct SnapshotReceiver {}

impl SnapshotReceiver {
    /// Starts an empty file at `path` (temporary name).
    pub fn create(_files: SharedFiles, _path: &str) -> Result<Self, Halt> {
        unimplemented!()
    }

    pub fn write_rows(&self, _rows: Vec<SnapshotRow>) -> BackendJob {
        unimplemented!()
    }

    /// `Immediate` commit.
    pub fn finish(&self) -> BackendJob {
        unimplemented!()
    }
}
