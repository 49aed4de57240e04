//! Work of the backend lane that can wait: hashes and the copy of a defragmentation, in slices.
//!
//! One slice at a time, none twice in a row while a batch or a compaction is due, and after each a
//! pause as long as it took: at most half of the disk goes to them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::defrag::{Copy, CopySlice, CopyStep};
use super::hash::{HashWalk, KvHash, RESTARTS_MAX};
use super::job::{BackendJob, Outcome, Work};
use super::store::Store;
use super::{HashId, StoreEvent};
use crate::error::ApiError;
use crate::event::SharedFiles;
use crate::limits::HASH_SLICE_ROWS;
use crate::time::Instant;
use crate::{buggify, sometimes};

/// Longest pause after a slice.
const PAUSE_MAX: Duration = Duration::from_millis(100);

#[derive(Default, Debug)]
pub(crate) struct Background {
    defrag: Option<Defrag>,
    hashes: VecDeque<HashTask>,
    /// The last job was a slice of these.
    pub was_last: bool,
    /// When the slice under way was cut; the next one's time.
    cut_at: Instant,
    next_at: Instant,
}

#[derive(Debug)]
struct Defrag {
    copy: Arc<Copy>,
    /// The copy begins once the file holds this index: what was applied when it was asked for.
    awaits: Option<u64>,
    /// Complete and durable: no commits until it is the store's file.
    is_finished: bool,
}

/// A hash that is being taken. Travels with its job.
#[derive(Debug)]
pub(crate) struct HashTask {
    what: HashWhat,
    restarts: usize,
    walk: HashWalk,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum HashWhat {
    /// For the store's own list.
    Compaction,
    Asked {
        id: HashId,
        revision: i64,
    },
}

impl HashTask {
    pub fn of_compaction(walk: HashWalk) -> Self {
        Self { what: HashWhat::Compaction, restarts: 0, walk }
    }

    /// Rows it will walk over, about.
    pub fn rows(&self) -> usize {
        usize::try_from(self.walk.rows_left()).unwrap_or(usize::MAX).min(HASH_SLICE_ROWS)
    }

    /// A job: the next rows.
    pub fn run(mut self: Box<Self>) -> Outcome {
        let rows_max = if buggify!("hash.small-slice") { 3 } else { HASH_SLICE_ROWS };
        let step = super::backend::guarded(|| self.walk.advance(rows_max));
        Outcome::Hashed { is_finished: step.map_err(|error| error.0), task: self }
    }
}

impl Background {
    /// The new file is about to take the old one's place.
    pub fn is_swapping(&self) -> bool {
        self.defrag.as_ref().is_some_and(|defrag| defrag.is_finished)
    }

    /// The copy that commits are repeated in.
    pub fn mirror(&self) -> Option<Arc<Copy>> {
        self.defrag.as_ref().map(|defrag| defrag.copy.clone())
    }

    pub fn push_hash(&mut self, task: HashTask) {
        self.hashes.push_back(task);
    }

    /// The file holds `index`.
    pub fn on_committed(&mut self, index: u64) {
        if let Some(defrag) = &mut self.defrag {
            defrag.awaits.take_if(|awaited| *awaited <= index);
        }
    }

    pub fn next_at(&self) -> Option<Instant> {
        let can_copy = self.defrag.as_ref().is_some_and(|defrag| defrag.awaits.is_none());
        let has_work = can_copy || !self.hashes.is_empty();
        has_work.then_some(self.next_at)
    }

    pub fn is_due(&self, now: Instant) -> bool {
        self.next_at().is_some_and(|at| now >= at)
    }

    fn pause(&mut self, now: Instant) {
        let took = now.since(self.cut_at);
        self.next_at = now + took.min(PAUSE_MAX);
    }
}

impl Store {
    /// Starts a defragmentation into the file at `path` (a temporary name). `StoreEvent::Copied` tells
    /// when it may be renamed; then `finish_defrag`.
    ///
    /// What is applied is committed first, as etcd does: else rows that wait for their commit would be
    /// laid into the new file behind the copy, and its size at the end would say nothing.
    /// False when one is under way: its end is this one's too.
    pub fn begin_defrag(&mut self, files: SharedFiles, path: &str) -> bool {
        let begins = !self.has_defrag();
        if begins {
            let index = self.request_commit();
            let awaits = Some(index).filter(|index| *index > self.committed_index());
            let copy = Copy::new(files, path.to_owned());
            let defrag = Defrag { copy, awaits, is_finished: false };
            self.schedule.background.defrag = Some(defrag);
        }
        begins
    }

    pub fn has_defrag(&self) -> bool {
        self.schedule.background.defrag.is_some()
    }

    /// Complete and durable, not yet in place: commits wait.
    pub fn is_swapping(&self) -> bool {
        self.schedule.background.is_swapping()
    }

    /// Gives the copy up, unless it is about to take its place. Returns whether there was one; its
    /// file may be removed once no job is under way.
    pub fn abort_defrag(&mut self) -> bool {
        let has_given_up = !self.is_swapping() && self.schedule.background.defrag.take().is_some();
        sometimes!(has_given_up, "defrag.given-up");
        has_given_up
    }

    /// The new file has the old one's name, durably: from here on it is the store's. Readers and
    /// pinned snapshots of the old one go on until they are dropped.
    pub fn finish_defrag(&mut self) -> Vec<StoreEvent> {
        let defrag = self.schedule.background.defrag.take_if(|defrag| defrag.is_finished);
        let defrag = defrag.expect("a defragmentation is finished once, after its copy");
        let new = defrag.copy.backend().expect("a finished copy has a file");
        let old = std::mem::replace(&mut self.shared.state.write().backend, new);
        sometimes!("defrag.finished");
        // Closing a file takes a while: not under the lock.
        drop(old);
        self.schedule.on_all_durable()
    }

    /// Starts to hash the key space at `revision` (0 and below: the current one), in slices beside
    /// everything else; `StoreEvent::Hashed` has the result, unless it is known at once.
    ///
    /// Errors: `Compacted`, `FutureRevision`; `Stopped` when the file cannot be read.
    pub fn begin_hash(&mut self, id: HashId, revision: i64) -> Result<Option<KvHash>, ApiError> {
        if let Some(stored) = self.shared.state.read().hashes.find(revision) {
            return Ok(Some(stored));
        }
        let walk = HashWalk::asked(&self.shared, revision)?;
        let task = HashTask { what: HashWhat::Asked { id, revision }, restarts: 0, walk };
        self.schedule.background.push_hash(task);
        Ok(None)
    }

    /// The next slice, of a hash first: the walk keeps old pages.
    pub(super) fn cut_background(&mut self, now: Instant) -> Option<BackendJob> {
        let background = &mut self.schedule.background;
        background.cut_at = now;
        if let Some(task) = background.hashes.pop_front() {
            return Some(self.job(Work::Hash(Box::new(task))));
        }
        let copy = background.defrag.as_ref()?.copy.clone();
        let source = self.shared.state.read().backend.clone();
        Some(self.job(Work::Copy(CopySlice { source, copy })))
    }

    pub(super) fn on_copied(
        &mut self,
        now: Instant,
        copy: &Arc<Copy>,
        step: Result<CopyStep, String>,
    ) -> Option<StoreEvent> {
        let background = &mut self.schedule.background;
        background.pause(now);
        let defrag = background.defrag.as_mut().filter(|defrag| Arc::ptr_eq(&defrag.copy, copy))?;
        let path = copy.path().to_owned();
        match step {
            Ok(CopyStep::More) => None,
            Ok(CopyStep::Finished) => {
                defrag.is_finished = true;
                Some(StoreEvent::Copied { path })
            }
            Err(error) => {
                background.defrag = None;
                Some(StoreEvent::CopyFailed { path, error })
            }
        }
    }

    pub(super) fn on_hashed(
        &mut self,
        now: Instant,
        mut task: Box<HashTask>,
        is_finished: bool,
    ) -> Option<StoreEvent> {
        self.schedule.background.pause(now);
        if !is_finished {
            self.schedule.background.hashes.push_front(*task);
            return None;
        }
        let result = match (task.walk.result(), task.what) {
            (Some(hash), _) => Ok(hash),
            (None, HashWhat::Asked { revision, .. }) if task.restarts < RESTARTS_MAX => {
                // Overtaken by a compaction: from the beginning.
                sometimes!("hash.overtaken");
                match HashWalk::asked(&self.shared, revision) {
                    Ok(walk) => {
                        task.walk = walk;
                        task.restarts += 1;
                        self.schedule.background.hashes.push_back(*task);
                        return None;
                    }
                    Err(error) => Err(error),
                }
            }
            (None, _) => Err(ApiError::TooManyRequests),
        };
        match task.what {
            HashWhat::Asked { id, .. } => Some(StoreEvent::Hashed { id, result }),
            HashWhat::Compaction => {
                self.schedule.compaction.on_hashed();
                let hash = result.ok()?;
                self.shared.state.write().hashes.push(hash);
                sometimes!("hash.stored");
                Some(StoreEvent::HashStored(hash))
            }
        }
    }
}
