//! The write-ahead log in etcd's format (surface spec §17.2) and the snap files beside it (§17.3).
//!
//! Start at [`Wal`] (writing) and [`WalRecovery`] (reading and repair). No I/O: writing pushes
//! actions into a [`LaneQueue`]; reading goes through [`crate::Files`], one bounded step at a time.

use bytes::Bytes;
use raft::eraftpb;

use crate::error::OpenError;
use crate::event::{DiskOp, LaneQueue, SharedFiles};
use crate::pb::{raftpb, walpb};

/// Directory of the segments, relative to the data directory.
pub const WAL_DIR: &str = "member/wal";
/// Directory of snap files and of the backend file.
pub const SNAP_DIR: &str = "member/snap";

/// Who the log belongs to; in the first record of every segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalMetadata {
    pub node_id: u64,
    pub cluster_id: u64,
}

/// The writing end.
#[derive(Debug)]
pub struct Wal {}

impl Wal {
    /// A fresh log: directories, first segment (crc, metadata, snapshot {0,0}), preallocated, synced, directory synced.
    /// Written under a temporary name and renamed, so that a crash leaves either nothing or a valid log.
    pub fn create(_metadata: WalMetadata, _segment_bytes: u64, _out: &mut LaneQueue) -> Self {
        unimplemented!()
    }

    /// Appends one batch: entries before the hard state. Cuts the segment when it is over size
    /// (the cut syncs the old one). One `WriteAt` per batch and segment. No sync of the tail: see [`Wal::sync`].
    pub fn append(
        &mut self,
        _entries: &[eraftpb::Entry],
        _hard_state: Option<&eraftpb::HardState>,
        _out: &mut LaneQueue,
    ) {
        unimplemented!()
    }

    /// Appends a snapshot record; call only when the snap file it names is durable.
    pub fn append_snapshot(&mut self, _snapshot: &walpb::Snapshot, _out: &mut LaneQueue) {
        unimplemented!()
    }

    /// Syncs what was appended.
    pub fn sync(&mut self, _out: &mut LaneQueue) {
        unimplemented!()
    }

    /// Removes segments that hold only entries below `index` (never the one that holds `index`).
    pub fn release_to(&mut self, _index: u64, _out: &mut LaneQueue) {
        unimplemented!()
    }

    /// Bytes appended since open.
    pub fn bytes_appended(&self) -> u64 {
        unimplemented!()
    }
}

/// What the log said.
#[derive(Debug)]
pub struct Recovered {
    pub metadata: WalMetadata,
    pub hard_state: eraftpb::HardState,
    /// Entries after `snapshot`, contiguous, later appends having replaced conflicting suffixes.
    pub entries: Vec<eraftpb::Entry>,
    /// The newest snapshot record that has a matching, valid snap file; `None` at {0,0}.
    pub snapshot: Option<raftpb::SnapshotMetadata>,
    /// Ready to append.
    pub wal: Wal,
    /// Bytes of a torn tail that were cut off (a copy is kept as `<segment>.broken`).
    pub torn_bytes: u64,
}

/// Reading the log, one segment (or repair) per step.
#[derive(Debug)]
pub struct WalRecovery {}

#[derive(Debug)]
pub enum WalStep {
    /// Bytes read by this step; call again.
    Read(u64),
    /// Perform these, all of them, then call again.
    Perform(Vec<DiskOp>),
    Done(Box<Recovered>),
}

impl WalRecovery {
    /// `None` when there is no log (a fresh data directory).
    pub fn new(_files: SharedFiles, _segment_bytes: u64) -> Result<Option<Self>, OpenError> {
        unimplemented!()
    }

    /// `out` numbers the repair actions; the same queue is used by the `Wal` afterwards.
    pub fn step(&mut self, _out: &mut LaneQueue) -> Result<WalStep, OpenError> {
        unimplemented!()
    }
}

/// File name `<term %016x>-<index %016x>.snap` and bytes of a snap file (without data: the data is in the backend).
pub fn encode_snap(_metadata: &raftpb::SnapshotMetadata) -> (String, Bytes) {
    unimplemented!()
}
