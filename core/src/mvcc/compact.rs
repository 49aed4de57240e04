//! Removing what a compaction made unreadable, in slices along the key index.
//!
//! `Store::compact` only moves the compact revision. Once that is in the file, the hash of what the
//! compaction finds is taken (surface spec §17.6); then slices walk the index in key order: each takes the superseded changes of some keys out of the index and hands
//! their rows to a job. All rows of a key that go, go in one transaction, so a half-done
//! compaction never shows a key's history with its end missing.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;

use super::counters::StoreMetrics;
use super::index::KeyIndex;
use super::rows::RowKey;
use super::schedule::COMPACTION_PAUSE;
use crate::limits::{COMPACTION_HASHES_MAX, COMPACTION_SLICE_ROWS};
use crate::time::Instant;
use crate::{buggify, sometimes};

/// Index entries one slice visits at most: bounds the time under the lock.
const SLICE_KEYS_MAX: usize = 10_000;

#[derive(Debug)]
pub(crate) struct Compaction {
    /// Newest compaction that is scheduled in the file.
    scheduled: i64,
    /// Newest compaction whose rows are gone, or going with the job under way.
    finished: i64,
    /// Compactions whose hash is to be taken, oldest first.
    unhashed: VecDeque<Scheduled>,
    /// What the next pass goes to, once the hashes under way are taken.
    round: Option<i64>,
    hashes_under_way: usize,
    pass: Option<Pass>,
    slice_at: Instant,
    /// When the slice under way was cut.
    slice_began: Instant,
    /// When the pass under way, or about to end, began.
    pass_began: Instant,
    /// Rows removed since open.
    rows: u64,
}

/// A compaction, and the compact revision that it found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Scheduled {
    pub revision: i64,
    pub previous: i64,
}

/// One walk over the index.
#[derive(Debug)]
struct Pass {
    revision: i64,
    /// The last key visited.
    after: Option<Bytes>,
}

/// What one job deletes.
#[derive(Debug)]
pub(crate) struct Slice {
    pub deleted: Vec<RowKey>,
    /// The compaction's revision, in its last slice.
    pub finished: Option<i64>,
}

impl Compaction {
    /// As a file has it; an unfinished compaction starts again from the first key.
    pub fn resume(scheduled: i64, finished: i64) -> Self {
        sometimes!(finished < scheduled, "mvcc.compaction-resumed");
        Self {
            scheduled,
            finished,
            unhashed: VecDeque::new(),
            round: None,
            hashes_under_way: 0,
            pass: None,
            slice_at: Instant::ZERO,
            slice_began: Instant::ZERO,
            pass_began: Instant::ZERO,
            rows: 0,
        }
    }

    /// Newest compaction whose rows are gone.
    pub fn finished(&self) -> i64 {
        self.finished
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// A compaction was applied. Its hash is taken when it is in the file.
    pub fn on_applied(&mut self, compaction: Scheduled) {
        if self.unhashed.len() == COMPACTION_HASHES_MAX {
            self.unhashed.pop_front();
        }
        self.unhashed.push_back(compaction);
    }

    /// When no pass is under way: the compactions to hash before the next one. Each is to be
    /// answered with `on_hashed`.
    pub fn take_unhashed(&mut self) -> Vec<Scheduled> {
        let is_idle = self.pass.is_none() && self.round.is_none();
        if !is_idle || self.finished >= self.scheduled {
            return Vec::new();
        }
        let scheduled = self.scheduled;
        self.round = Some(scheduled);
        let count = self.unhashed.iter().take_while(|c| c.revision <= scheduled).count();
        self.hashes_under_way = count;
        self.unhashed.drain(..count).collect()
    }

    pub fn on_hashed(&mut self) {
        self.hashes_under_way -= 1;
    }

    /// When to call `next_slice`; `None` when there is nothing to remove.
    pub fn next_slice_at(&self) -> Option<Instant> {
        let has_work = self.pass.is_some() || self.finished < self.scheduled;
        (has_work && self.hashes_under_way == 0).then_some(self.slice_at)
    }

    /// A compaction to `revision` is in the file. One under way goes to its end first.
    pub fn on_scheduled(&mut self, now: Instant, revision: i64) {
        self.scheduled = self.scheduled.max(revision);
        self.slice_at = self.slice_at.max(now);
    }

    /// A slice is in the file; `is_last` of its compaction.
    pub fn on_slice_done(&mut self, now: Instant, is_last: bool, metrics: &StoreMetrics) {
        self.slice_at = now + COMPACTION_PAUSE;
        metrics.on_compaction_slice(now, self.slice_began);
        if is_last {
            metrics.on_compacted(now, self.pass_began);
        }
    }

    /// Takes the next slice out of `index`; `None` when none is due or it found nothing to delete
    /// (then the next one is due at once).
    pub fn next_slice(
        &mut self,
        now: Instant,
        index: &mut BTreeMap<Bytes, KeyIndex>,
    ) -> Option<Slice> {
        if self.next_slice_at().is_none_or(|at| now < at) {
            return None;
        }
        let round = &mut self.round;
        let pass = match &mut self.pass {
            Some(pass) => pass,
            none => {
                self.pass_began = now;
                none.insert(Pass { revision: round.take()?, after: None })
            }
        };
        self.slice_began = now;
        let (deleted, is_finished) = pass.advance(index);
        self.rows += deleted.len() as u64;
        let revision = pass.revision;
        sometimes!(!is_finished, "mvcc.compaction-in-slices");
        if is_finished {
            self.pass = None;
            self.finished = revision;
            return Some(Slice { deleted, finished: Some(revision) });
        }
        (!deleted.is_empty()).then_some(Slice { deleted, finished: None })
    }
}

impl Pass {
    /// Visits the next keys; the rows to delete, and whether the last key was visited.
    fn advance(&mut self, index: &mut BTreeMap<Bytes, KeyIndex>) -> (Vec<RowKey>, bool) {
        let mut dropped = Vec::new();
        let mut emptied = Vec::new();
        let keys_max = if buggify!("mvcc.compact-one-key") { 1 } else { SLICE_KEYS_MAX };
        let lower = self.after.take().map_or(Bound::Unbounded, Bound::Excluded);
        for (visited, (key, entry)) in index.range_mut((lower, Bound::Unbounded)).enumerate() {
            if entry.compact(self.revision, &mut dropped) {
                emptied.push(key.clone());
            }
            if visited + 1 >= keys_max || dropped.len() >= COMPACTION_SLICE_ROWS {
                self.after = Some(key.clone());
                break;
            }
        }
        for key in emptied {
            index.remove(&key);
        }
        let rows = dropped.iter().map(|c| RowKey::new(c.revision(), c.is_tombstone())).collect();
        (rows, self.after.is_none())
    }
}
