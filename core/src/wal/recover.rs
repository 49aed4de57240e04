//! Reading the log at open: one segment per step, then the repair of a torn tail.
//!
//! ```text
//! Snaps → Segment 0 → … → Segment n → Repair → Done
//! ```

use std::collections::VecDeque;

use bytes::Bytes;
use raft::eraftpb;

use super::names::{SegmentName, TEMPORARY_SUFFIX};
use super::replay::Replay;
use super::scan::{End, scan};
use super::segment::Segment;
use super::snap::{SnapFiles, list};
use super::write::{Tail, Wal};
use super::{SNAP_DIR, WAL_DIR, WalMetadata};
use crate::error::OpenError;
use crate::event::{DiskAction, DiskOp, LaneQueue, SharedFiles};
use crate::pb::raftpb;
use crate::sometimes;

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
    /// Damaged snap files that recovery could do without, with what is wrong. They were not changed.
    pub damaged_snaps: Vec<(String, String)>,
}

/// Reading the log, one segment (or repair) per step.
#[derive(Debug)]
pub struct WalRecovery {
    files: SharedFiles,
    segment_bytes: u64,
    segments: VecDeque<SegmentName>,
    leftovers: Vec<String>,
    state: State,
    replay: Replay,
    crc: u32,
}

#[derive(Debug)]
enum State {
    Snaps,
    Segment(usize),
    Repair { segment: Segment, end: End },
    Done { end: End },
}

#[derive(Debug)]
pub enum WalStep {
    /// Bytes read by this step; call again.
    Read(u64),
    /// Perform these, all of them, then call again.
    Perform(Vec<DiskOp>),
    Done(Box<Recovered>),
}

impl WalRecovery {
    /// `None` when there is no log (a fresh data directory, or a crash before the first segment was in place).
    pub fn new(files: SharedFiles, segment_bytes: u64) -> Result<Option<Self>, OpenError> {
        let names = list(files.as_ref(), WAL_DIR)?;
        let mut segments: Vec<_> = names.iter().filter_map(|n| SegmentName::parse(n)).collect();
        segments.sort_unstable();
        if segments.is_empty() {
            return check_fresh(&files, &names).map(|()| None);
        }
        for pair in segments.windows(2) {
            // First indexes may go back: a segment can end with entries that replace a suffix.
            if pair[1].seq != pair[0].seq + 1 {
                let what = format!(
                    "segments are not contiguous: {} is followed by {}",
                    pair[0].file_name(),
                    pair[1].file_name()
                );
                return Err(OpenError::FileDamaged { path: WAL_DIR.to_owned(), what });
            }
        }
        let leftovers = names.into_iter().filter(|n| n.ends_with(TEMPORARY_SUFFIX)).collect();
        Ok(Some(Self {
            files,
            segment_bytes,
            segments: segments.into(),
            leftovers,
            state: State::Snaps,
            replay: Replay::default(),
            crc: 0,
        }))
    }

    /// `out` numbers the repair actions; the same queue is used by the `Wal` afterwards.
    pub fn step(&mut self, out: &mut LaneQueue) -> Result<WalStep, OpenError> {
        match std::mem::replace(&mut self.state, State::Snaps) {
            State::Snaps => {
                self.replay = Replay::new(SnapFiles::read(self.files.as_ref())?);
                self.state = State::Segment(0);
                Ok(WalStep::Read(self.replay.snaps.bytes_read))
            }
            State::Segment(i) => self.read_segment(i),
            State::Repair { segment, end } => {
                self.repair(&segment, end, out);
                self.state = State::Done { end };
                Ok(WalStep::Perform(std::mem::take(&mut out.ops)))
            }
            State::Done { end } => Ok(WalStep::Done(Box::new(self.finish(end)))),
        }
    }

    /// The last index of the log once its torn tail is cut off; `None` when the next step cuts nothing.
    pub fn cut_to(&self) -> Option<u64> {
        match &self.state {
            State::Repair { end, .. } if end.torn_bytes > 0 => Some(self.replay.last_index()),
            _ => None,
        }
    }

    fn read_segment(&mut self, i: usize) -> Result<WalStep, OpenError> {
        let path = self.segments[i].path();
        let is_last = i + 1 == self.segments.len();
        let mut segment = Segment::read(self.files.as_ref(), &path)?;
        let damaged = |offset: usize, what: String| OpenError::WalDamaged {
            path: path.clone(),
            offset: offset as u64,
            what,
        };
        let replay = &mut self.replay;
        let end =
            scan(&mut segment, is_last, &mut self.crc, |record, crc| replay.on_record(record, crc))
                .map_err(|damage| damaged(damage.offset, damage.what))?;
        self.replay.end_segment().map_err(|what| damaged(end.offset, what))?;
        let bytes_read = segment.len() as u64;
        if is_last {
            self.replay.finish(&path, end.offset as u64)?;
            self.state = State::Repair { segment, end };
        } else {
            self.state = State::Segment(i + 1);
        }
        Ok(WalStep::Read(bytes_read))
    }

    /// Removes leftovers, cuts a torn tail off, and makes durable what was read.
    ///
    /// A crash at any point of it leaves a log that recovers to the same state.
    fn repair(&self, segment: &Segment, end: End, out: &mut LaneQueue) {
        for name in &self.leftovers {
            sometimes!("wal.leftover-segment");
            out.push(DiskAction::Remove { path: format!("{WAL_DIR}/{name}") });
        }
        let path = self.segments[self.segments.len() - 1].path();
        if end.torn_bytes > 0 {
            sometimes!("wal.torn-tail");
            let written = end.offset + end.torn_bytes;
            let broken = format!("{path}.broken");
            let data = segment.head(written);
            out.push(DiskAction::Create { path: broken.clone() });
            out.push(DiskAction::WriteAt { path: broken.clone(), offset: 0, data });
            out.push(DiskAction::SyncData { path: broken });
            out.push(DiskAction::SyncDir { path: WAL_DIR.to_owned() });
            // Not merely the first length field: else a record behind it could come back after
            // the next append (rules 16). Before the file may grow: what was past its end must not
            // turn from "cut off by the end of the file" into zero bytes of a damaged record.
            let data = Bytes::from(vec![0; end.torn_bytes]);
            let offset = end.offset as u64;
            out.push(DiskAction::WriteAt { path: path.clone(), offset, data });
            out.push(DiskAction::SyncData { path: path.clone() });
        }
        if (segment.len() as u64) < self.segment_bytes {
            out.push(DiskAction::Allocate { path: path.clone(), len: self.segment_bytes });
        }
        // What was read may lie in the page cache only (the process was killed, not the machine); the
        // member is about to vote and acknowledge on the strength of it.
        out.push(DiskAction::SyncData { path });
        out.push(DiskAction::SyncDir { path: WAL_DIR.to_owned() });
    }

    fn finish(&mut self, end: End) -> Recovered {
        let replay = std::mem::take(&mut self.replay);
        let metadata = replay.metadata.expect("each segment was checked to have metadata");
        let tail = Tail {
            segments: std::mem::take(&mut self.segments),
            offset: end.offset as u64,
            crc: self.crc,
            hard_state: replay.hard_state.clone(),
            last_index: replay.last_index(),
        };
        Recovered {
            metadata,
            hard_state: replay.hard_state,
            entries: replay.entries,
            snapshot: replay.snapshot,
            wal: Wal::resume(metadata, self.segment_bytes, tail),
            torn_bytes: end.torn_bytes as u64,
            damaged_snaps: replay.snaps.damaged,
        }
    }
}

/// Without a segment the directory may hold the first one's temporary file, and nothing else may
/// show that there was a log before.
fn check_fresh(files: &SharedFiles, names: &[String]) -> Result<(), OpenError> {
    let first = SegmentName { seq: 0, first_index: 0 }.file_name() + TEMPORARY_SUFFIX;
    let snaps = list(files.as_ref(), SNAP_DIR)?;
    let other = names.iter().find(|name| **name != first);
    let snap = snaps.iter().find(|name| super::names::parse_snap_name(name).is_some());
    match other.or(snap) {
        None => Ok(()),
        Some(name) => Err(OpenError::FileDamaged {
            path: WAL_DIR.to_owned(),
            what: format!("no segment of the log is left, but {name} is there"),
        }),
    }
}
