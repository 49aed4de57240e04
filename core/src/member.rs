//! The member: one burst in, one set of outputs out.
//!
//! ```text
//! loop { handle(now, input)*  →  poll(&mut out)  →  the driver performs out }
//! ```
//!
//! * `open`: [`Recovery`] reads the data directory in steps and ends in a `Member`.
//! * `handle`: one thing happened. Never fails, never blocks. Spurious deadlines are no-ops.
//! * `poll`: after a burst: WAL write, message batch, replies, events, jobs.
//! * `next_deadline`: when to call `handle(Input::Deadline)` at the latest.

use std::sync::Arc;

use crate::config::Config;
use crate::error::OpenError;
use crate::event::{DiskOp, Input, MemberId, Outputs, SharedFiles};
use crate::mvcc::StoreReader;
use crate::time::Instant;

/// Opening a data directory, in steps, so that a crash in the middle of it can be simulated.
#[derive(Debug)]
pub struct Recovery {}

/// What the driver does next.
#[derive(Debug)]
pub enum RecoveryStep {
    /// Perform these (log lane), all of them, then call `step` again.
    Perform(Vec<DiskOp>),
    /// Call `step` again; the last step read this many bytes.
    Read {
        bytes: u64,
    },
    Ready(Box<Member>),
}

impl Recovery {
    /// `seed` is the root of the member's random streams.
    pub fn new(_config: Config, _files: SharedFiles, _seed: u64) -> Result<Self, OpenError> {
        unimplemented!()
    }

    pub fn step(&mut self, _now: Instant) -> Result<RecoveryStep, OpenError> {
        unimplemented!()
    }
}

#[derive(Debug)]
pub struct Member {}

/// What an operator or a checker may look at, between bursts.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct MemberStatus {
    pub id: MemberId,
    pub role: Role,
    pub leader: Option<MemberId>,
    pub term: u64,
    /// Known committed.
    pub commit_index: u64,
    /// Applied: visible to readers. Invariant: `applied_index <= commit_index`.
    pub applied_index: u64,
    /// Last index in the local log.
    pub last_index: u64,
    /// Last index that is durable in the local WAL.
    pub persisted_index: u64,
    pub revision: i64,
    pub compact_revision: i64,
    pub voters: Vec<MemberId>,
    pub learners: Vec<MemberId>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Role {
    #[default]
    Follower,
    PreCandidate,
    Candidate,
    Leader,
}

impl Member {
    pub fn handle(&mut self, _now: Instant, _input: Input) {
        unimplemented!()
    }

    pub fn poll(&mut self, _now: Instant, _out: &mut Outputs) {
        unimplemented!()
    }

    /// When `handle(Input::Deadline)` must be called at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        unimplemented!()
    }

    pub fn status(&self) -> MemberStatus {
        unimplemented!()
    }

    /// Counters and gauges of the member, shared; the driver renders them for /metrics.
    pub fn metrics(&self) -> Arc<Metrics> {
        unimplemented!()
    }

    /// A thread-safe handle for reads.
    pub fn reader(&self) -> StoreReader {
        unimplemented!()
    }

    /// Hash over the whole replicated state (all buckets in memory and batch, revision, leases) at
    /// the applied index: equal on all members with the same applied index.
    pub fn state_hash(&self) -> (u64, u64) {
        unimplemented!()
    }
}

/// Counters and gauges; names as in surface spec §14 without the prefix.
#[derive(Default, Debug)]
pub struct Metrics {
    pub has_leader: std::sync::atomic::AtomicU64,
    pub is_leader: std::sync::atomic::AtomicU64,
    pub is_learner: std::sync::atomic::AtomicU64,
    pub leader_changes_seen_total: std::sync::atomic::AtomicU64,
    pub proposals_committed_total: std::sync::atomic::AtomicU64,
    pub proposals_applied_total: std::sync::atomic::AtomicU64,
    pub proposals_pending: std::sync::atomic::AtomicU64,
    pub proposals_failed_total: std::sync::atomic::AtomicU64,
    pub slow_disk_alarm: std::sync::atomic::AtomicU64,
    pub wal_write_bytes_total: std::sync::atomic::AtomicU64,
    pub db_total_size_in_bytes: std::sync::atomic::AtomicU64,
    pub db_total_size_in_use_in_bytes: std::sync::atomic::AtomicU64,
    pub current_revision: std::sync::atomic::AtomicU64,
    pub compact_revision: std::sync::atomic::AtomicU64,
    pub keys_total: std::sync::atomic::AtomicU64,
    pub watcher_total: std::sync::atomic::AtomicU64,
    pub watch_stream_total: std::sync::atomic::AtomicU64,
    pub slow_watcher_total: std::sync::atomic::AtomicU64,
    pub mvcc_put_total: std::sync::atomic::AtomicU64,
    pub mvcc_delete_total: std::sync::atomic::AtomicU64,
    pub mvcc_txn_total: std::sync::atomic::AtomicU64,
    pub lease_granted_total: std::sync::atomic::AtomicU64,
    pub lease_revoked_total: std::sync::atomic::AtomicU64,
    pub lease_expired_total: std::sync::atomic::AtomicU64,
    pub snapshots_sent_total: std::sync::atomic::AtomicU64,
    pub snapshots_installed_total: std::sync::atomic::AtomicU64,
    pub planned_transfers_total: std::sync::atomic::AtomicU64,
}
