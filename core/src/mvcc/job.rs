//! Backend jobs: the only code that writes the file.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use redb::{CursorError, Durability, Table as RedbTable, WriteTransaction};

use super::backend::{Backend, FileError, guarded};
use super::background::HashTask;
use super::batch::BucketOp;
use super::defrag::{Copy, CopySlice, CopyStep};
use super::load::{Load, Loaded};
use super::meta;
use super::rows::{Row, RowKey};
use super::snapshot::Receive;
use super::usage::Usage;
use super::{Bucket, Consistent};
use crate::pb::raftpb::ConfState;

/// A piece of backend work: core's own code, run where and when the driver decides, one at a time.
pub struct BackendJob {
    /// Of the store that cut the job; `None` for a receiver's.
    pub(crate) epoch: Option<u64>,
    pub(crate) work: Work,
}

/// What a job of the store writes in one transaction.
pub(crate) struct Commit {
    pub backend: Arc<Backend>,
    pub purpose: Purpose,
    pub rows: Arc<Vec<Row>>,
    pub deleted: Vec<RowKey>,
    pub ops: Vec<BucketOp>,
    /// (index, term, configuration if it changed); `None` leaves what the file has.
    pub consistent: Option<(u64, u64, Option<Arc<ConfState>>)>,
    /// `Immediate` with quick repair; otherwise visible and not durable.
    pub immediate: bool,
    /// A defragmentation under way: the commit is repeated in its file.
    pub mirror: Option<Arc<Copy>>,
}

/// What a commit is for, and what has to be told once it is in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// A batch; `compaction` when one was scheduled in it.
    Batch { compaction: Option<i64> },
    /// A slice of a compaction; `finished` in the last one.
    Compaction { finished: Option<i64> },
}

impl Purpose {
    fn ends_compaction(self) -> bool {
        matches!(self, Purpose::Compaction { finished: Some(_) })
    }
}

pub(crate) enum Work {
    Commit(Box<Commit>),
    Receive(Receive),
    Copy(CopySlice),
    Hash(Box<HashTask>),
    Load(Load),
    /// A read of the file failed; the member learns it the way it learns of failed writes.
    Fail(FileError),
}

/// The outcome of a job, to be handed back in `Input::JobDone`.
#[derive(Debug)]
pub struct JobDone {
    pub(crate) outcome: Result<Outcome, String>,
    /// Of the store that cut the job.
    pub(crate) epoch: Option<u64>,
}

#[derive(Debug)]
pub(crate) enum Outcome {
    Committed {
        index: Option<u64>,
        immediate: bool,
        purpose: Purpose,
        /// The copy that could not follow, and why: the file itself is as it should be.
        lost_mirror: Option<(Arc<Copy>, String)>,
    },
    /// Path of the receiver's file.
    ReceivedChunk(String),
    /// Its path, and what it says it holds.
    ReceivedAll(String, Consistent),
    Loaded(Box<Loaded>),
    Copied {
        copy: Arc<Copy>,
        step: Result<CopyStep, String>,
    },
    Hashed {
        task: Box<HashTask>,
        /// Whether the walk came to its end.
        is_finished: Result<bool, String>,
    },
}

impl JobDone {
    /// The error, if the job failed: the member will halt.
    pub fn error(&self) -> Option<&str> {
        self.outcome.as_ref().err().map(String::as_str)
    }
}

impl fmt::Debug for BackendJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendJob")
            .field("kind", &self.kind())
            .field("rows", &self.rows())
            .finish_non_exhaustive()
    }
}

impl BackendJob {
    /// Everything that [`BackendJob::kind`] says.
    pub const KINDS: [&str; 8] =
        ["commit", "sync", "compact", "receive", "defrag", "hash", "load", "fail"];

    /// Writes through redb. Blocking; a real driver runs it on its backend thread.
    pub fn run(self) -> JobDone {
        let outcome = match self.work {
            Work::Commit(commit) => guarded(|| commit.run()).map_err(|e| e.0),
            Work::Receive(receive) => guarded(|| receive.run()).map_err(|e| e.0),
            Work::Copy(slice) => Ok(slice.run()),
            Work::Hash(task) => Ok(task.run()),
            Work::Load(load) => load.run(),
            Work::Fail(error) => Err(error.0),
        };
        JobDone { outcome, epoch: self.epoch }
    }

    /// What it is, for logs and CPU cost: one of [`BackendJob::KINDS`].
    pub fn kind(&self) -> &'static str {
        match &self.work {
            Work::Commit(commit) => match commit.purpose {
                Purpose::Compaction { .. } => "compact",
                Purpose::Batch { .. } if commit.immediate => "sync",
                Purpose::Batch { .. } => "commit",
            },
            Work::Receive(_) => "receive",
            Work::Copy(_) => "defrag",
            Work::Hash(_) => "hash",
            Work::Load(_) => "load",
            Work::Fail(_) => "fail",
        }
    }

    /// Rows written, deleted, copied or looked at.
    pub fn rows(&self) -> usize {
        match &self.work {
            Work::Commit(commit) => commit.rows.len() + commit.deleted.len() + commit.ops.len(),
            Work::Receive(receive) => receive.rows(),
            Work::Copy(slice) => slice.rows(),
            Work::Hash(task) => task.rows(),
            // How many the file has is not known before; what reading it takes is the disk's.
            Work::Load(_) => 0,
            Work::Fail(_) => 0,
        }
    }
}

impl Commit {
    fn run(self) -> Result<Outcome, FileError> {
        let backend = self.backend.clone();
        let _open = backend.open_fence();
        let mut usage = *backend.usage.lock();
        let mut txn = backend.db.begin_write()?;
        set_durability(&mut txn, self.immediate)?;
        self.write(&txn, &mut usage)?;
        txn.commit()?;
        if self.immediate && usage.is_walk_due(self.purpose.ends_compaction()) {
            // In a transaction of its own: the commit has freed the pages it replaced.
            let txn = backend.db.begin_write()?;
            usage.walk(&txn)?;
            txn.abort()?;
        }
        *backend.usage.lock() = usage;
        let lost = |copy: &Arc<Copy>| {
            let error = guarded(|| copy.mirror(&self)).err()?;
            Some((copy.clone(), error.0))
        };
        Ok(Outcome::Committed {
            index: self.consistent.as_ref().map(|(index, ..)| *index),
            immediate: self.immediate,
            purpose: self.purpose,
            lost_mirror: self.mirror.as_ref().and_then(lost),
        })
    }

    /// The rows of `meta` that say how far the log has been applied.
    pub fn consistent_ops(&self) -> Vec<BucketOp> {
        let consistent = self.consistent.as_ref();
        consistent.map_or_else(Vec::new, |(index, term, conf_state)| {
            meta::consistent(*index, *term, conf_state.as_deref())
        })
    }

    fn write(&self, txn: &WriteTransaction, usage: &mut Usage) -> Result<(), FileError> {
        if !self.rows.is_empty() || !self.deleted.is_empty() {
            let mut table = txn.open_table(Bucket::Key.table())?;
            let keys: Vec<RowKey> = self.rows.iter().map(Row::key).collect();
            let rows = keys.iter().zip(self.rows.iter());
            append(&mut table, usage, rows.map(|(key, row)| (key.as_bytes(), &row.value[..])))?;
            remove_rows(&mut table, usage, &self.deleted)?;
        }
        for op in self.ops.iter().chain(&self.consistent_ops()) {
            let mut table = txn.open_table(op.bucket.table())?;
            match &op.value {
                Some(value) => insert(&mut table, usage, &op.key, value)?,
                None => remove(&mut table, usage, &op.key)?,
            }
        }
        Ok(())
    }
}

/// `Immediate` commits carry the allocator's state, so that reopening after a crash needs no
/// rebuild of it; the others cost no sync and are gone after a crash.
pub(crate) fn set_durability(txn: &mut WriteTransaction, immediate: bool) -> Result<(), FileError> {
    if immediate {
        txn.set_durability(Durability::Immediate)?;
        txn.set_quick_repair(true);
    } else {
        txn.set_durability(Durability::None)?;
    }
    Ok(())
}

type Rows<'txn> = RedbTable<'txn, &'static [u8], &'static [u8]>;

pub(crate) fn insert(
    table: &mut Rows<'_>,
    usage: &mut Usage,
    key: &[u8],
    value: &[u8],
) -> Result<(), FileError> {
    if let Some(replaced) = table.insert(key, value)? {
        usage.removed(key.len(), replaced.value().len());
    }
    usage.added(key.len(), value.len());
    Ok(())
}

/// Inserts rows in ascending order, mostly behind all that the table holds: the leaves are built
/// once, full, instead of a way down the tree and a split for each row.
pub(crate) fn append<'a>(
    table: &mut Rows<'_>,
    usage: &mut Usage,
    rows: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<(), FileError> {
    let mut end = table.upper_bound_mut(Bound::<&[u8]>::Unbounded)?;
    for (key, value) in rows {
        match end.insert_before(key, value) {
            Ok(()) => usage.added(key.len(), value.len()),
            Err(CursorError::UnorderedKey) => {
                end.close()?;
                insert(table, usage, key, value)?;
                end = table.upper_bound_mut(Bound::<&[u8]>::Unbounded)?;
            }
            Err(CursorError::Storage(error)) => return Err(error.into()),
            Err(error) => return Err(FileError(error.to_string())),
        }
    }
    Ok(end.close()?)
}

/// A walk over a row costs a twentieth of finding and removing one.
const WALKED_PER_REMOVED_MAX: i64 = 16;

/// Deletes rows of the key bucket. A compaction deletes most of what lies between its first and its
/// last: that is walked over once, and its leaves are rewritten together.
fn remove_rows(
    table: &mut Rows<'_>,
    usage: &mut Usage,
    deleted: &[RowKey],
) -> Result<(), FileError> {
    let mut sorted = deleted.to_vec();
    sorted.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else { return Ok(()) };
    // Every revision between them has a row at least, if compactions left it.
    let revisions = last.main() - first.main();
    if revisions > sorted.len() as i64 * WALKED_PER_REMOVED_MAX {
        return sorted.iter().try_for_each(|key| remove(table, usage, key.as_bytes()));
    }
    let mut next = sorted.iter().peekable();
    table.retain_in(first.as_bytes()..=last.as_bytes(), |key, value| {
        while next.next_if(|deleted| deleted.as_bytes() < key).is_some() {}
        let goes = next.next_if(|deleted| deleted.as_bytes() == key).is_some();
        if goes {
            usage.removed(key.len(), value.len());
        }
        !goes
    })?;
    Ok(())
}

pub(crate) fn remove(table: &mut Rows<'_>, usage: &mut Usage, key: &[u8]) -> Result<(), FileError> {
    if let Some(removed) = table.remove(key)? {
        usage.removed(key.len(), removed.value().len());
    }
    Ok(())
}
