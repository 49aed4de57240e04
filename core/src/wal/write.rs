//! The writing end of the log.
//!
//! ```text
//! segment:  crc · metadata · [snapshot {0,0} in the first | hard state in the others] · records …
//! ```

use std::collections::VecDeque;

use bytes::Bytes;
use raft::eraftpb;

use super::names::SegmentName;
use super::{SNAP_DIR, WAL_DIR, WalMetadata, payload};
use crate::event::{DiskAction, LaneQueue};
use crate::pb::walpb;
use crate::{buggify, sometimes};

/// The writing end: frames records and pushes the disk actions.
///
/// Invariant: bytes past `offset` in the newest segment are zero up to its length.
#[derive(Debug)]
pub struct Wal {
    metadata: WalMetadata,
    segment_bytes: u64,
    /// Segments on disk, oldest first; the last one is written to.
    segments: VecDeque<SegmentName>,
    /// Path of the newest one, made once and not for every write.
    path: String,
    /// Where the next record goes in the newest segment. Invariant: a multiple of 8.
    offset: u64,
    /// Rolling CRC of everything written.
    crc: u32,
    /// Repeated at the head of each new segment.
    hard_state: eraftpb::HardState,
    last_index: u64,
    /// The newest segment holds bytes no sync was pushed for.
    unsynced: bool,
    bytes_appended: u64,
}

/// Where recovery found the end of the log.
#[derive(Debug)]
pub(super) struct Tail {
    pub segments: VecDeque<SegmentName>,
    pub offset: u64,
    pub crc: u32,
    pub hard_state: eraftpb::HardState,
    pub last_index: u64,
}

impl Wal {
    /// A fresh log: directories, first segment (crc, metadata, snapshot {0,0}), preallocated, synced, directory synced.
    /// Written under a temporary name and renamed, so that a crash leaves either nothing or a valid log.
    pub fn create(metadata: WalMetadata, segment_bytes: u64, out: &mut LaneQueue) -> Self {
        for path in [WAL_DIR, SNAP_DIR] {
            out.push(DiskAction::CreateDir { path: path.to_owned() });
        }
        let mut wal = Self {
            metadata,
            segment_bytes,
            segments: VecDeque::new(),
            path: String::new(),
            offset: 0,
            crc: 0,
            hard_state: eraftpb::HardState::default(),
            last_index: 0,
            unsynced: false,
            bytes_appended: 0,
        };
        wal.begin_segment(SegmentName { seq: 0, first_index: 0 }, out);
        // The new directories' own names, up to the data directory.
        for path in ["member", ""] {
            out.push(DiskAction::SyncDir { path: path.to_owned() });
        }
        wal
    }

    pub(super) fn resume(metadata: WalMetadata, segment_bytes: u64, tail: Tail) -> Self {
        assert!(tail.offset.is_multiple_of(8), "records begin at multiples of 8");
        Self {
            metadata,
            segment_bytes,
            path: tail.segments.back().expect("recovery read a segment").path(),
            segments: tail.segments,
            offset: tail.offset,
            crc: tail.crc,
            hard_state: tail.hard_state,
            last_index: tail.last_index,
            unsynced: false,
            bytes_appended: 0,
        }
    }

    /// Appends one batch: entries before the hard state. Cuts the segment when it is over size
    /// (the cut syncs the old one). One `WriteAt` per batch and segment. No sync of the tail: see [`Wal::sync`].
    pub fn append(
        &mut self,
        entries: &[eraftpb::Entry],
        hard_state: Option<&eraftpb::HardState>,
        out: &mut LaneQueue,
    ) {
        let payload_bytes: usize = entries.iter().map(|e| e.data.len() + ENTRY_OVERHEAD).sum();
        let mut buf = Vec::with_capacity(payload_bytes + ENTRY_OVERHEAD);
        for entry in entries {
            self.crc = payload::put_entry(&mut buf, self.crc, entry);
            self.last_index = entry.index;
        }
        if let Some(state) = hard_state {
            self.crc = payload::put_hard_state(&mut buf, self.crc, state);
            self.hard_state = state.clone();
        }
        self.write(buf, out);
    }

    /// Appends a snapshot record; call only when the snap file it names is durable.
    ///
    /// When a hard state commits the snapshot's index and the log does not reach it, this comes first:
    /// a log whose hard state commits more than the log has is refused at open.
    pub fn append_snapshot(&mut self, snapshot: &walpb::Snapshot, out: &mut LaneQueue) {
        let mut buf = Vec::new();
        self.crc = payload::put_snapshot(&mut buf, self.crc, snapshot);
        self.last_index = self.last_index.max(snapshot.index);
        self.write(buf, out);
    }

    /// Syncs what was appended. Pushes nothing when the last sync or cut already covers it.
    pub fn sync(&mut self, out: &mut LaneQueue) {
        if std::mem::take(&mut self.unsynced) {
            out.push(DiskAction::SyncData { path: self.path.clone() });
        }
    }

    /// Removes segments that hold only entries below `index` (never the one that holds `index`).
    ///
    /// `index` must not exceed the newest snapshot record's: recovery starts there.
    pub fn release_to(&mut self, index: u64, out: &mut LaneQueue) {
        let mut removed = false;
        // Oldest first and each before the next: whatever a crash leaves has no gap.
        while self.segments.len() > 1 && self.segments[1].first_index <= index {
            let name = self.segments.pop_front().expect("there are at least two");
            out.push(DiskAction::Remove { path: name.path() });
            out.push(DiskAction::SyncDir { path: WAL_DIR.to_owned() });
            removed = true;
            sometimes!("wal.segment-released");
        }
        debug_assert!(!removed || self.segments[0].first_index <= index);
    }

    /// Bytes appended since open.
    pub fn bytes_appended(&self) -> u64 {
        self.bytes_appended
    }

    fn newest(&self) -> SegmentName {
        *self.segments.back().expect("a log always has a segment")
    }

    /// Pushes one write, then cuts if the segment is over size.
    fn write(&mut self, buf: Vec<u8>, out: &mut LaneQueue) {
        if buf.is_empty() {
            return;
        }
        let len = buf.len() as u64;
        let path = self.path.clone();
        out.push(DiskAction::WriteAt { path, offset: self.offset, data: Bytes::from(buf) });
        self.offset += len;
        self.bytes_appended += len;
        self.unsynced = true;
        if self.offset >= self.segment_bytes || buggify!("wal.cut-early") {
            sometimes!("wal.segment-cut");
            self.cut(out);
        }
    }

    /// Ends the newest segment and begins the next.
    fn cut(&mut self, out: &mut LaneQueue) {
        let old = self.newest();
        out.push(DiskAction::Truncate { path: old.path(), len: self.offset });
        // Before the next segment can exist: only the last segment may have a torn tail.
        self.sync(out);
        let first_index = self.last_index + 1;
        self.begin_segment(SegmentName { seq: old.seq + 1, first_index }, out);
    }

    /// Makes a segment under a temporary name, with its head, and renames it into place when it is durable.
    fn begin_segment(&mut self, name: SegmentName, out: &mut LaneQueue) {
        let mut head = Vec::with_capacity(256);
        payload::put_crc(&mut head, self.crc);
        self.crc = payload::put_metadata(&mut head, self.crc, self.metadata);
        if name.seq == 0 {
            let origin = walpb::Snapshot { index: 0, term: 0, conf_state: None };
            self.crc = payload::put_snapshot(&mut head, self.crc, &origin);
        } else if self.hard_state != eraftpb::HardState::default() {
            self.crc = payload::put_hard_state(&mut head, self.crc, &self.hard_state);
        }
        let path = name.temporary_path();
        self.offset = head.len() as u64;
        out.push(DiskAction::Create { path: path.clone() });
        out.push(DiskAction::Allocate { path: path.clone(), len: self.segment_bytes });
        out.push(DiskAction::WriteAt { path: path.clone(), offset: 0, data: Bytes::from(head) });
        out.push(DiskAction::SyncData { path: path.clone() });
        self.path = name.path();
        out.push(DiskAction::Rename { from: path, to: self.path.clone() });
        out.push(DiskAction::SyncDir { path: WAL_DIR.to_owned() });
        self.segments.push_back(name);
        self.unsynced = false;
    }
}

/// Upper bound for everything around an entry's data in its frame; a hard state fits too.
const ENTRY_OVERHEAD: usize = 80;
