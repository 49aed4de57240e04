//! Copies of a whole store on the wire: reading one from a pinned view, writing one to a new file.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::backend::{Backend, FileError, FileView};
use super::job::{BackendJob, Outcome, Work, append, set_durability};
use super::meta::Meta;
use super::{Bucket, Consistent};
use crate::error::Halt;
use crate::event::SharedFiles;
use crate::pb::peer::SnapshotRow;

/// A pinned read snapshot, streamed to a peer in bucket and key order while writes go on.
pub struct SnapshotPin {
    view: FileView,
    consistent: Consistent,
    size_hint: (u64, u64),
    /// The bucket being read and its last row sent; `None` at the end.
    position: Option<(Bucket, Bound<Bytes>)>,
}

impl fmt::Debug for SnapshotPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotPin")
            .field("consistent", &self.consistent)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl SnapshotPin {
    pub(crate) fn new(backend: &Arc<Backend>) -> Result<Self, FileError> {
        let view = backend.view()?;
        let consistent = Meta::read(&view)?.consistent;
        let size_hint = backend.usage.lock().row_totals();
        let position = Some((Bucket::Key, Bound::Unbounded));
        Ok(Self { view, consistent, size_hint, position })
    }

    /// What the snapshot holds: everything up to this index.
    pub fn consistent(&self) -> &Consistent {
        &self.consistent
    }

    /// (rows, bytes) of the whole snapshot, an estimate for progress display.
    pub fn size_hint(&self) -> (u64, u64) {
        self.size_hint
    }

    /// The next rows, about `max_bytes` of them; empty at the end.
    pub fn next_rows(&mut self, max_bytes: usize) -> Result<Vec<SnapshotRow>, Halt> {
        self.read_rows(max_bytes).map_err(|error| Halt::Backend(error.0))
    }

    fn read_rows(&mut self, max_bytes: usize) -> Result<Vec<SnapshotRow>, FileError> {
        let mut rows: Vec<SnapshotRow> = Vec::new();
        let mut bytes = 0;
        while let Some((bucket, after)) = self.position.take() {
            let after = after.as_ref().map(|key| &key[..]);
            let is_finished = self.view.for_each(bucket, after, |key, value| {
                bytes += key.len() + value.len();
                rows.push(SnapshotRow {
                    bucket: bucket as u32,
                    key: Bytes::copy_from_slice(key),
                    value: Bytes::copy_from_slice(value),
                });
                Ok(bytes < max_bytes)
            })?;
            if is_finished {
                let next = Bucket::from_number(bucket as u32 + 1);
                self.position = next.map(|bucket| (bucket, Bound::Unbounded));
            } else {
                let last = rows.last().expect("a walk is ended by a row").key.clone();
                self.position = Some((bucket, Bound::Excluded(last)));
                break;
            }
        }
        Ok(rows)
    }
}

/// Builds the file of a received snapshot through backend jobs.
#[derive(Clone, Debug)]
pub struct SnapshotReceiver {
    target: Arc<Target>,
}

#[derive(Debug)]
struct Target {
    files: SharedFiles,
    path: String,
    /// Opened by the first job: only jobs write.
    backend: Mutex<Option<Backend>>,
}

impl SnapshotReceiver {
    /// Starts an empty file at `path` (temporary name). What is there is overwritten.
    pub fn create(files: SharedFiles, path: &str) -> Result<Self, Halt> {
        let target = Target { files, path: path.to_owned(), backend: Mutex::new(None) };
        Ok(Self { target: Arc::new(target) })
    }

    pub fn write_rows(&self, rows: Vec<SnapshotRow>) -> BackendJob {
        self.job(Some(rows))
    }

    /// `Immediate` commit; closes the file.
    pub fn finish(&self) -> BackendJob {
        self.job(None)
    }

    fn job(&self, rows: Option<Vec<SnapshotRow>>) -> BackendJob {
        let work = Work::Receive(Receive { target: self.target.clone(), rows });
        BackendJob { epoch: None, work }
    }
}

/// A job of a receiver.
pub(crate) struct Receive {
    target: Arc<Target>,
    /// `None` ends the file.
    rows: Option<Vec<SnapshotRow>>,
}

impl Receive {
    pub fn rows(&self) -> usize {
        self.rows.as_ref().map_or(0, Vec::len)
    }

    pub fn run(self) -> Result<Outcome, FileError> {
        let mut slot = self.target.backend.lock();
        let backend = match slot.take() {
            Some(backend) => backend,
            None => Backend::create(&self.target.files, &self.target.path)?,
        };
        let _open = backend.open_fence();
        let mut usage = *backend.usage.lock();
        let mut txn = backend.db.begin_write()?;
        set_durability(&mut txn, self.rows.is_none())?;
        for run in self.rows.iter().flat_map(|rows| rows.chunk_by(|a, b| a.bucket == b.bucket)) {
            let number = run[0].bucket;
            let bucket = Bucket::from_number(number).ok_or_else(|| {
                FileError(format!("a received row is of unknown bucket {number}"))
            })?;
            let mut table = txn.open_table(bucket.table())?;
            let rows = run.iter().map(|row| (&row.key[..], &row.value[..]));
            append(&mut table, &mut usage, rows)?;
        }
        txn.commit()?;
        *backend.usage.lock() = usage;
        if self.rows.is_some() {
            *slot = Some(backend);
            Ok(Outcome::ReceivedChunk(self.target.path.clone()))
        } else {
            let backend = Arc::new(backend);
            let holds = Meta::read(&backend.view()?)?.consistent;
            let backend = Arc::into_inner(backend).expect("the view of it is gone");
            backend.db.close()?;
            Ok(Outcome::ReceivedAll(self.target.path.clone(), holds))
        }
    }
}
