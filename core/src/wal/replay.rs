//! Folds the records of the log, in order, into the state they describe.

use raft::eraftpb;

use super::frame::{RecordRef, RecordType};
use super::snap::SnapFiles;
use super::{SNAP_DIR, WalMetadata, payload};
use crate::error::OpenError;
use crate::pb::{raftpb, walpb};

/// The state after the records read so far.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub snaps: SnapFiles,
    pub metadata: Option<WalMetadata>,
    pub hard_state: eraftpb::HardState,
    /// Contiguous; those at or below `snapshot` are dropped as soon as it is known.
    pub entries: Vec<eraftpb::Entry>,
    /// Newest snapshot record that has a valid snap file.
    pub snapshot: Option<raftpb::SnapshotMetadata>,
    /// Newest snapshot record, valid file or not.
    newest_record: Option<walpb::Snapshot>,
    /// Records read of the current segment.
    records: u64,
    /// No segment has been read: its CRC is where the chain begins.
    is_oldest_segment: bool,
}

impl Replay {
    pub(super) fn new(snaps: SnapFiles) -> Self {
        Self { snaps, is_oldest_segment: true, ..Self::default() }
    }

    /// Call when all records of a segment were read: a segment has at least its head.
    pub(super) fn end_segment(&mut self) -> Result<(), String> {
        if self.records < 2 {
            return Err("segment has no metadata record".to_owned());
        }
        self.records = 0;
        self.is_oldest_segment = false;
        Ok(())
    }

    /// One record, given the CRC before it; returns the CRC after it, or what is wrong with it.
    pub(super) fn on_record(&mut self, record: RecordRef<'_>, crc: u32) -> Result<u32, String> {
        self.records += 1;
        let wanted = match self.records {
            1 => Some(RecordType::Crc),
            2 => Some(RecordType::Metadata),
            _ => None,
        };
        let at_head = matches!(record.record_type, RecordType::Crc | RecordType::Metadata);
        if wanted.is_some_and(|w| w != record.record_type) || (wanted.is_none() && at_head) {
            return Err(format!("{:?} record out of place", record.record_type));
        }
        let data = record.data;
        match record.record_type {
            RecordType::Crc if !self.is_oldest_segment && record.crc != crc => {
                return Err("segment does not continue the one before it: CRC mismatch".to_owned());
            }
            RecordType::Crc => return Ok(record.crc),
            RecordType::Metadata => {
                self.on_metadata(payload::read_metadata(data).ok_or("not a metadata record")?)?;
            }
            RecordType::Entry => self.on_entry(payload::read_entry(data).ok_or("not an entry")?),
            RecordType::State => {
                self.on_hard_state(payload::read_hard_state(data).ok_or("not a hard state")?)?;
            }
            RecordType::Snapshot => {
                self.on_snapshot(payload::read_snapshot(data).ok_or("not a snapshot record")?);
            }
        }
        Ok(record.crc)
    }

    fn on_metadata(&mut self, metadata: WalMetadata) -> Result<(), String> {
        if *self.metadata.get_or_insert(metadata) != metadata {
            return Err("metadata differs from the segment before".to_owned());
        }
        Ok(())
    }

    /// A later append replaces what it conflicts with, and all after it.
    fn on_entry(&mut self, entry: eraftpb::Entry) {
        if self.snapshot.as_ref().is_some_and(|s| entry.index <= s.index) {
            return;
        }
        match self.entries.first().map(|first| first.index) {
            Some(first) if entry.index >= first => {
                // Beyond the end: a gap, which `finish` finds unless a snapshot covers it.
                let keep = usize::try_from(entry.index - first).unwrap_or(usize::MAX);
                if keep > self.entries.len() {
                    self.entries.clear();
                } else {
                    self.entries.truncate(keep);
                }
            }
            _ => self.entries.clear(),
        }
        self.entries.push(entry);
    }

    fn on_hard_state(&mut self, state: eraftpb::HardState) -> Result<(), String> {
        if state.term < self.hard_state.term {
            return Err("term of the hard state goes back".to_owned());
        }
        self.hard_state = state;
        Ok(())
    }

    fn on_snapshot(&mut self, record: walpb::Snapshot) {
        if self.newest_record.as_ref().is_some_and(|newest| record.index < newest.index) {
            return;
        }
        if let Some(metadata) = self.snaps.find(record.term, record.index) {
            // Raft, InstallSnapshot 6 and 7: entries behind a snapshot stay only if the log agrees
            // with it. Those of a received one can be a suffix that never was committed.
            let last = self.entries.iter().find(|e| e.index == record.index);
            if last.is_some_and(|e| e.term != record.term) {
                self.entries.clear();
            }
            let kept = self.entries.iter().position(|e| e.index > record.index);
            self.entries.drain(..kept.unwrap_or(self.entries.len()));
            self.snapshot = Some(metadata.clone());
        }
        self.newest_record = Some(record);
    }

    pub(super) fn last_index(&self) -> u64 {
        let snapshot = self.snapshot.as_ref().map_or(0, |s| s.index);
        self.entries.last().map_or(snapshot, |e| e.index)
    }

    /// Checks what only the whole log can tell. `path` and `end`: the last segment, for the error.
    pub(super) fn finish(&self, path: &str, end: u64) -> Result<(), OpenError> {
        let damaged =
            |what| Err(OpenError::WalDamaged { path: path.to_owned(), offset: end, what });
        let base = self.snapshot.as_ref().map_or(0, |s| s.index);
        let has_gap = self.entries.first().is_some_and(|first| first.index != base + 1);
        let newest = self.newest_record.as_ref().map_or((0, 0), |r| (r.term, r.index));
        if has_gap || self.last_index() < newest.1 {
            if newest.1 > base {
                return Err(self.missing_snap(newest.0, newest.1));
            }
            let first = self.entries.first().map_or(0, |e| e.index);
            return damaged(format!("entries {} to {} are missing", base + 1, first - 1));
        }
        if self.hard_state.commit > self.last_index() {
            let (commit, last) = (self.hard_state.commit, self.last_index());
            return damaged(format!("index {commit} is committed, but the log ends at {last}"));
        }
        Ok(())
    }

    /// The log needs a snapshot that cannot be used.
    fn missing_snap(&self, term: u64, index: u64) -> OpenError {
        let path = format!("{SNAP_DIR}/{}", super::names::snap_name(term, index));
        let what = self.snaps.damaged.iter().find(|(damaged, _)| *damaged == path);
        let what = what.map_or("snap file is missing", |(_, what)| what);
        let what = format!("{what}, and the log does not reach back to an older snapshot");
        OpenError::FileDamaged { path, what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_snapshot_of_term(term: u64) -> Vec<u64> {
        let metadata = raftpb::SnapshotMetadata { index: 10, term, ..Default::default() };
        let snaps = SnapFiles { valid: vec![metadata], ..Default::default() };
        let mut replay = Replay::new(snaps);
        for index in 8..=12 {
            replay.on_entry(eraftpb::Entry { index, term: 4, ..Default::default() });
        }
        replay.on_snapshot(walpb::Snapshot { index: 10, term, conf_state: None });
        replay.entries.iter().map(|e| e.index).collect()
    }

    #[test]
    fn entries_behind_a_snapshot_stay_if_the_log_agrees_with_it() {
        assert_eq!(after_snapshot_of_term(4), [11, 12]);
    }

    #[test]
    fn a_snapshot_that_the_log_contradicts_replaces_all_of_it() {
        assert_eq!(after_snapshot_of_term(5), [0; 0]);
    }
}
