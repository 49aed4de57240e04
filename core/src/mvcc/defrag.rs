//! Defragmentation: the live rows go to a new file, in slices, while the old one is read and written.
//!
//! ```text
//! old file  |k k k k k k k|k k k k …|meta|lease|…   every slice reads from a view of now
//! new file  |k k k k k k k|                         what lies before the position is the same in both
//!                         ^ position
//! ```
//! There is nothing to catch up with: a commit of the old file is repeated in the new one as far as it
//! lies before the position, in the same job; what lies behind it is found there when the position
//! comes by. Rows of the key space only append, so that is nearly always nothing but a compaction's
//! deletes. At the end the new file is made durable, then takes the name of the old one (the
//! member's part), and only then commits go on, there.
//!
//! redb's own `compact` needs the file for itself and leaves pages half full.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::Bucket;
use super::backend::{Backend, FileError};
use super::batch::BucketOp;
use super::job::{Commit, Outcome, append, insert, remove, set_durability};
use crate::event::SharedFiles;
use crate::limits::{DEFRAG_SLICE_BYTES, DEFRAG_SLICE_ROWS, DEFRAG_SYNC_BYTES};
use crate::{buggify, sometimes};

/// The new file and how far it has come. Shared by the schedule and the jobs.
#[derive(Debug)]
pub(crate) struct Copy {
    files: SharedFiles,
    path: String,
    state: Mutex<CopyState>,
}

struct CopyState {
    /// Opened by the first job: only jobs write.
    backend: Option<Arc<Backend>>,
    /// The bucket being copied and its last row; `None` once all are.
    position: Option<(Bucket, Bound<Bytes>)>,
    rows: u64,
    unsynced_bytes: usize,
}

impl fmt::Debug for CopyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyState").field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl Copy {
    pub fn new(files: SharedFiles, path: String) -> Arc<Self> {
        let state = CopyState {
            backend: None,
            position: Some((Bucket::Key, Bound::Unbounded)),
            rows: 0,
            unsynced_bytes: 0,
        };
        Arc::new(Self { files, path, state: Mutex::new(state) })
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn rows(&self) -> u64 {
        self.state.lock().rows
    }

    /// The new file, once there is one.
    pub fn backend(&self) -> Option<Arc<Backend>> {
        self.state.lock().backend.clone()
    }

    /// Repeats a commit of the old file as far as it lies before the position.
    pub fn mirror(&self, commit: &Commit) -> Result<(), FileError> {
        let state = self.state.lock();
        let Some(backend) = state.backend.clone() else { return Ok(()) };
        sometimes!("defrag.mirrored");
        let _open = backend.open_fence();
        let mut usage = *backend.usage.lock();
        let mut txn = backend.db.begin_write()?;
        set_durability(&mut txn, false)?;
        if !commit.rows.is_empty() || !commit.deleted.is_empty() {
            let mut table = txn.open_table(Bucket::Key.table())?;
            for row in commit.rows.iter() {
                if state.is_behind(Bucket::Key, row.key().as_bytes()) {
                    insert(&mut table, &mut usage, row.key().as_bytes(), &row.value)?;
                }
            }
            for key in &commit.deleted {
                if state.is_behind(Bucket::Key, key.as_bytes()) {
                    remove(&mut table, &mut usage, key.as_bytes())?;
                }
            }
        }
        for BucketOp { bucket, key, value } in commit.ops.iter().chain(&commit.consistent_ops()) {
            if !state.is_behind(*bucket, key) {
                continue;
            }
            let mut table = txn.open_table(bucket.table())?;
            match value {
                Some(value) => insert(&mut table, &mut usage, key, value)?,
                None => remove(&mut table, &mut usage, key)?,
            }
        }
        txn.commit()?;
        *backend.usage.lock() = usage;
        Ok(())
    }
}

impl CopyState {
    /// Whether a row of this key has been copied, if there is one.
    fn is_behind(&self, bucket: Bucket, key: &[u8]) -> bool {
        match &self.position {
            None => true,
            Some((at, Bound::Excluded(last))) if bucket == *at => key <= &last[..],
            Some((at, _)) => bucket < *at,
        }
    }

    /// The next rows of the old file; moves the position behind them.
    fn take_rows(&mut self, source: &Arc<Backend>) -> Result<Vec<Taken>, FileError> {
        let view = source.view()?;
        let rows_max = if buggify!("defrag.small-slice") { 3 } else { DEFRAG_SLICE_ROWS };
        let mut rows: Vec<Taken> = Vec::new();
        let mut bytes = 0;
        while let Some((bucket, after)) = self.position.take() {
            let from = after.as_ref().map(|key| &key[..]);
            let is_finished = view.for_each(bucket, from, |key, value| {
                bytes += key.len() + value.len();
                let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
                rows.push((bucket, key, value));
                Ok(bytes < DEFRAG_SLICE_BYTES && rows.len() < rows_max)
            })?;
            if is_finished {
                let next = Bucket::from_number(bucket as u32 + 1);
                self.position = next.map(|bucket| (bucket, Bound::Unbounded));
            } else {
                let last = rows.last().expect("a walk is ended by a row").1.clone();
                self.position = Some((bucket, Bound::Excluded(last)));
                break;
            }
        }
        self.rows += rows.len() as u64;
        self.unsynced_bytes += bytes;
        Ok(rows)
    }
}

/// A row on its way from file to file.
type Taken = (Bucket, Bytes, Bytes);

/// What a slice came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CopyStep {
    /// There is more to copy.
    More,
    /// The new file holds everything and is durable.
    Finished,
}

/// A job: copies the next rows; the one that finds none left makes the new file durable.
pub(crate) struct CopySlice {
    pub source: Arc<Backend>,
    pub copy: Arc<Copy>,
}

impl CopySlice {
    /// Rows it will copy, about.
    pub fn rows(&self) -> usize {
        let (total, _) = self.source.usage.lock().row_totals();
        let left = total.saturating_sub(self.copy.rows());
        usize::try_from(left).unwrap_or(usize::MAX).min(DEFRAG_SLICE_ROWS)
    }

    pub fn run(self) -> Outcome {
        let step = super::backend::guarded(|| self.step()).map_err(|error| error.0);
        Outcome::Copied { copy: self.copy, step }
    }

    fn step(&self) -> Result<CopyStep, FileError> {
        let mut state = self.copy.state.lock();
        let backend = match &state.backend {
            Some(backend) => backend.clone(),
            None => {
                let new = Arc::new(Backend::create(&self.copy.files, &self.copy.path)?);
                state.backend.insert(new).clone()
            }
        };
        let is_finished = state.position.is_none();
        let rows = state.take_rows(&self.source)?;
        let _open = backend.open_fence();
        let mut usage = *backend.usage.lock();
        let mut txn = backend.db.begin_write()?;
        let immediate = is_finished || state.unsynced_bytes >= DEFRAG_SYNC_BYTES;
        set_durability(&mut txn, immediate)?;
        for run in rows.chunk_by(|a, b| a.0 == b.0) {
            let mut table = txn.open_table(run[0].0.table())?;
            let rows = run.iter().map(|(_, key, value)| (&key[..], &value[..]));
            append(&mut table, &mut usage, rows)?;
        }
        txn.commit()?;
        if immediate {
            state.unsynced_bytes = 0;
        }
        if is_finished {
            let txn = backend.db.begin_write()?;
            usage.walk(&txn)?;
            txn.abort()?;
        }
        *backend.usage.lock() = usage;
        Ok(if is_finished { CopyStep::Finished } else { CopyStep::More })
    }
}
