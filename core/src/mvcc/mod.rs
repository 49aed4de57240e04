//! Revisions of keys: in memory the index and every current value, in redb every row.
//!
//! Start at [`Store`] (the member's writing end) and [`StoreReader`] (a thread-safe handle).
//!
//! ```text
//! apply ──► state (index, current values) ◄── readers, in short turns
//!   └─────► pending rows ─cut─► in flight ─job─► file ◄── readers of old revisions, snapshots
//! ```
//!
//! | File | What |
//! |---|---|
//! | `store`, `apply`, `txn` | a write: checks, compares, changes |
//! | `reader`, `range`, `changes`, `hash` | reads beside the member |
//! | `check`, `cost` | static checks of requests, what they may cost of the quota |
//! | `state`, `index`, `rows`, `small`, `evict` | what is in memory |
//! | `batch`, `schedule`, `job`, `compact` | how it gets into the file, and out again |
//! | `backend`, `load`, `meta`, `usage` | the file |
//! | `background`, `defrag` | what can wait: hashes, a copy without holes |
//! | `counters` | what was done, for /metrics |
//! | `snapshot` | a whole store to and from a peer |

mod apply;
mod backend;
mod background;
mod batch;
mod changes;
mod check;
mod compact;
mod cost;
mod counters;
mod defrag;
mod evict;
mod hash;
mod index;
mod job;
mod load;
mod meta;
mod range;
mod reader;
mod rows;
mod schedule;
mod small;
mod snapshot;
mod state;
mod store;
mod txn;
mod usage;

use std::sync::Arc;

use bytes::Bytes;

use crate::api::{Response, RevisionEvents};
use crate::error::ApiError;
use crate::pb::raftpb::ConfState;

pub use check::{validate, validate_entry};
pub use cost::Cost;
pub use counters::StoreMetrics;
pub use hash::KvHash;
pub use job::{BackendJob, JobDone};
pub(crate) use load::consistent_index;
pub use reader::{Hashed, ReadResult, StoreReader};
pub(crate) use rows::decode_kv;
pub use snapshot::{SnapshotPin, SnapshotReceiver};
pub use store::Store;
pub use txn::txn_is_read_only;

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
    /// Fewer changes than this may wait for `quiet_interval`.
    pub quiet_ops: usize,
    pub quiet_interval: std::time::Duration,
    pub sync_interval: std::time::Duration,
    /// Bytes of current values kept in memory; beyond, some are read from the file. `None` = all.
    pub resident_bytes_max: Option<u64>,
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
    /// Of each event, what its key was before the revision.
    pub previous: Vec<Previous>,
    pub lease_moves: Vec<LeaseMove>,
}

/// What a key was before the revision that changed it: mostly at hand when it is changed, and then a
/// watcher with `prev_kv` need not read it again.
#[derive(Clone, PartialEq, Debug)]
pub enum Previous {
    /// It did not exist.
    Absent,
    /// An encoded `KeyValue`.
    Here(Bytes),
    /// Not in memory, or the revision changed the key twice: to be read.
    Unread,
}

/// The member's name for a hash that it asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HashId(pub u64);

/// What a finished job means to the member.
#[derive(Clone, PartialEq, Debug)]
pub enum StoreEvent {
    /// The newest `Immediate` commit holds everything up to this index.
    Durable {
        index: u64,
    },
    /// All rows of a compaction are gone from the file.
    CompactionFinished {
        revision: i64,
    },
    /// A chunk of a received snapshot was written to its temporary file.
    ReceivedChunk {
        path: String,
    },
    /// The received snapshot is durable in its temporary file.
    ReceivedAll {
        path: String,
        holds: Consistent,
    },
    /// The file that is to replace the store's was read: `install_loaded`.
    Loaded,
    /// A defragmentation's file is complete and durable: it may take the old one's name.
    Copied {
        path: String,
    },
    /// A defragmentation was given up; its file may be removed.
    CopyFailed {
        path: String,
        error: String,
    },
    Hashed {
        id: HashId,
        result: Result<KvHash, ApiError>,
    },
    /// The hash that belongs to a compaction was taken.
    HashStored(KvHash),
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Sizes {
    /// Allocated pages, bytes.
    pub total_bytes: u64,
    /// Pages in use, bytes.
    pub in_use_bytes: u64,
    /// Of rows that are applied and not in the file yet, estimated.
    pub unwritten_bytes: u64,
    pub keys: u64,
}

/// A txn that only reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadOnlyTxn {
    pub serializable: bool,
}
