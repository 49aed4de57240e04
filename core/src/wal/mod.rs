//! The write-ahead log in etcd's format (surface spec §17.2) and the snap files beside it (§17.3).
//!
//! Start at [`Wal`] (writing) and [`WalRecovery`] (reading and repair). No I/O: writing pushes
//! actions into a [`crate::LaneQueue`]; reading goes through [`crate::Files`], one bounded step at a time.
//!
//! | File | What |
//! |---|---|
//! | `names` | file names of segments and snap files |
//! | `frame` | length field, record, padding |
//! | `payload` | entries, hard states, metadata, snapshot records |
//! | `write` | append, cut, release |
//! | `scan` | the records of one segment; torn or damaged |
//! | `replay` | what the records add up to |
//! | `recover` | the steps of opening, repair |
//! | `snap` | snap files |

mod frame;
mod names;
mod payload;
mod recover;
mod replay;
mod scan;
mod segment;
mod snap;
mod write;

pub use recover::{Recovered, WalRecovery, WalStep};
pub use snap::encode_snap;
pub use write::Wal;

/// Directory of the segments, relative to the data directory.
pub const WAL_DIR: &str = "member/wal";
/// Directory of snap files and of the backend file.
pub const SNAP_DIR: &str = "member/snap";

/// Who the log belongs to; in the second record of every segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalMetadata {
    pub node_id: u64,
    pub cluster_id: u64,
}
