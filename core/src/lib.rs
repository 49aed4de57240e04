//! One member of an etcd-compatible store, as a state machine without I/O, clock, thread or async.
//!
//! Everything that happens to a member goes in as an [`Input`]; everything it wants done comes out
//! in [`Outputs`]. Start at [`Member`]; `event.rs` is the whole seam.
//!
//! | Module | What |
//! |---|---|
//! | `member` | the loop: `handle`, `poll`, `next_deadline` |
//! | `event`, `api` | what goes in and out; typed requests and answers |
//! | `entry` | the request in a log entry |
//! | `raft` | driving raft-rs: log storage, apply cursor, reads, profiles |
//! | `wal` | etcd's WAL format: framing, CRC chain, segments, repair, snap files |
//! | `mvcc` | revisions, key index, transactions, compaction; redb behind it |
//! | `recovery` | a data directory becomes a member, step by step |
//! | `watch`, `lease`, `cluster` | what their names say |
//! | `metrics` | what is counted, for /metrics |
//! | `snapshot` | sending a store to a lagging follower and installing it |
//! | `probe` | in-code faults and marks of the simulator; nothing in the shipped server |

pub mod api;
mod cluster;
pub mod config;
pub mod entry;
pub mod error;
pub mod event;
pub mod lease;
pub mod limits;
pub mod member;
pub mod metrics;
pub mod mvcc;
pub mod pb;
pub mod probe;
mod raft;
mod recovery;
mod snapshot;
pub mod time;
pub mod wal;
pub mod watch;

pub use config::{AutoCompaction, BootMember, Config, Profile};
pub use error::{ApiError, Halt, OpenError};
pub use event::{
    DiskAction, DiskOp, Files, Input, Lane, LaneQueue, Level, LogLine, MemberId, Outputs, Peer,
    SharedFiles, Ticket,
};
pub use member::{LogEntry, Member, MemberStatus, Metrics, RaftFacts, Role};
pub use mvcc::{BackendJob, JobDone, StoreReader};
pub use recovery::{Recovery, RecoveryStep};
pub use time::Instant;
