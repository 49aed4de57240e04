//! The tail of the Raft log in memory: what raft-rs reads, and what is sent to followers.
//!
//! The WAL holds at least as much. Invariant: `entries[i].index == offset + 1 + i`.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

#[derive(Debug)]
pub struct LogStorage {
    /// Index and term just before the first entry kept.
    offset: u64,
    offset_term: u64,
    entries: VecDeque<Entry>,
    bytes: usize,
    hard_state: HardState,
    conf_state: ConfState,
    snapshots: RefCell<Snapshots>,
    /// The first index that was written since somebody asked.
    changed_from: Option<u64>,
}

/// The meeting point with the store: raft-rs asks for a snapshot in the middle of a step, when the
/// store cannot be reached; the wish is noted, a read snapshot pinned later, its metadata given out
/// when raft-rs asks again.
#[derive(Default, Debug)]
struct Snapshots {
    /// Peer → least index wanted.
    wanted: BTreeMap<u64, u64>,
    /// Peer → metadata of the read snapshot pinned for it.
    pinned: BTreeMap<u64, Snapshot>,
}

impl LogStorage {
    /// Shape: `entries` start right after `offset`.
    pub fn new(
        (offset, offset_term): (u64, u64),
        entries: Vec<Entry>,
        hard_state: HardState,
        conf_state: ConfState,
    ) -> Self {
        let bytes = entries.iter().map(entry_bytes).sum();
        let changed_from = Some(offset + 1);
        Self {
            offset,
            offset_term,
            entries: entries.into(),
            bytes,
            hard_state,
            conf_state,
            snapshots: RefCell::default(),
            changed_from,
        }
    }

    /// The first index written, or replaced, since the last call; all of it after open.
    pub fn take_changed(&mut self) -> Option<u64> {
        self.changed_from.take()
    }

    fn on_changed(&mut self, from: u64) {
        self.changed_from = Some(self.changed_from.map_or(from, |before| before.min(from)));
    }

    pub fn last(&self) -> u64 {
        self.offset + self.entries.len() as u64
    }

    pub fn first(&self) -> u64 {
        self.offset + 1
    }

    /// Payload bytes kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends, replacing a conflicting suffix.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            first.index > self.offset && first.index <= self.last() + 1,
            "log append at {} does not follow {}..={}",
            first.index,
            self.offset,
            self.last()
        );
        self.truncate_suffix(first.index);
        self.on_changed(first.index);
        self.bytes += entries.iter().map(entry_bytes).sum::<usize>();
        self.entries.extend(entries.iter().cloned());
    }

    fn truncate_suffix(&mut self, from: u64) {
        while self.last() >= from {
            let entry = self.entries.pop_back().expect("last() counts it");
            self.bytes -= entry_bytes(&entry);
        }
    }

    /// Forgets everything up to and including `index`.
    pub fn discard_prefix(&mut self, index: u64) {
        assert!(index <= self.last(), "discarding past the end of the log");
        while self.offset < index {
            let entry = self.entries.pop_front().expect("index is at most last()");
            self.bytes -= entry_bytes(&entry);
            self.offset = entry.index;
            self.offset_term = entry.term;
        }
    }

    /// A snapshot replaced the log.
    pub fn reset_to_snapshot(&mut self, index: u64, term: u64) {
        self.entries.clear();
        self.bytes = 0;
        self.offset = index;
        self.offset_term = term;
        self.changed_from = Some(index + 1);
    }

    pub fn entry(&self, index: u64) -> Option<&Entry> {
        self.entries.get(index.checked_sub(self.first())? as usize)
    }

    pub fn has_wanted(&self) -> bool {
        !self.snapshots.borrow().wanted.is_empty()
    }

    /// Snapshots raft-rs asked for since the last call: (peer, least index).
    pub fn take_wanted(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.snapshots.borrow_mut().wanted).into_iter().collect()
    }

    /// A read snapshot is pinned for `peer`; raft-rs gets it when it asks again.
    pub fn offer_snapshot(&self, peer: u64, snapshot: Snapshot) {
        self.snapshots.borrow_mut().pinned.insert(peer, snapshot);
    }

    pub fn withdraw_snapshot(&self, peer: u64) {
        self.snapshots.borrow_mut().pinned.remove(&peer);
    }
}

fn entry_bytes(entry: &Entry) -> usize {
    entry.data.len() + 32
}

impl Storage for LogStorage {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first() {
            return Err(StorageError::Compacted.into());
        }
        assert!(high <= self.last() + 1, "entries past the end of the log");
        let max = max_size.into().unwrap_or(u64::MAX);
        let from = (low - self.first()) as usize;
        let mut size = 0;
        // Mostly one or a few; more may be cut by their size.
        let mut out = Vec::with_capacity((high - low).min(16) as usize);
        for entry in self.entries.range(from..(high - self.first()) as usize) {
            size += entry_bytes(entry) as u64;
            if !out.is_empty() && size > max {
                break;
            }
            out.push(entry.clone());
        }
        Ok(out)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.offset {
            return Ok(self.offset_term);
        }
        if index < self.offset {
            return Err(StorageError::Compacted.into());
        }
        self.entry(index).map(|e| e.term).ok_or_else(|| StorageError::Unavailable.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let mut snapshots = self.snapshots.borrow_mut();
        match snapshots.pinned.get(&to) {
            Some(s) if s.get_metadata().index >= request_index.max(self.offset) => Ok(s.clone()),
            _ => {
                snapshots.wanted.insert(to, request_index.max(self.offset));
                Err(StorageError::SnapshotTemporarilyUnavailable.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, ..Default::default() }
    }

    fn storage() -> LogStorage {
        let entries = (1..=5).map(|i| entry(i, 1)).collect();
        LogStorage::new((0, 0), entries, HardState::default(), ConfState::default())
    }

    #[test]
    fn an_append_replaces_the_conflicting_suffix() {
        let mut log = storage();
        log.append(&[entry(4, 2)]);
        assert_eq!(log.last(), 4);
        assert_eq!(log.term(4).unwrap(), 2);
        assert_eq!(log.term(3).unwrap(), 1);
        assert_eq!(log.bytes(), 4 * 32);
    }

    #[test]
    fn what_was_written_since_the_last_look_is_told_once() {
        let mut log = storage();
        assert_eq!((log.take_changed(), log.take_changed()), (Some(1), None));
        log.append(&[entry(6, 2), entry(7, 2)]);
        log.append(&[entry(5, 3)]);
        assert_eq!(log.take_changed(), Some(5));
        log.reset_to_snapshot(9, 3);
        assert_eq!(log.take_changed(), Some(10));
    }

    #[test]
    fn a_discarded_prefix_keeps_the_term_before_it() {
        let mut log = storage();
        log.discard_prefix(3);
        assert_eq!(log.term(3).unwrap(), 1);
        assert_eq!(log.term(2), Err(StorageError::Compacted.into()));
        assert_eq!(log.first(), 4);
        assert_eq!(log.entry(3), None);
    }

    #[test]
    fn a_snapshot_is_given_out_only_once_it_is_pinned() {
        let log = storage();
        assert!(log.snapshot(2, 7).is_err());
        assert_eq!(log.take_wanted(), [(7, 2)]);
        let mut pinned = Snapshot::default();
        pinned.mut_metadata().index = 3;
        log.offer_snapshot(7, pinned);
        assert_eq!(log.snapshot(2, 7).unwrap().get_metadata().index, 3);
        assert!(log.snapshot(4, 7).is_err(), "older than what is asked for");
    }
}
