//! Backend jobs: the only code that writes the file.

use std::fmt;
use std::sync::Arc;

use redb::{Durability, Table as RedbTable, WriteTransaction};

use super::Bucket;
use super::backend::{Backend, FileError, guarded};
use super::batch::BucketOp;
use super::meta::{self, CONF_STATE, CONSISTENT_INDEX, TERM};
use super::rows::{Row, RowKey};
use super::snapshot::Receive;
use super::usage::Usage;
use crate::pb::raftpb::ConfState;

/// A piece of backend work: core's own code, run where and when the driver decides, one at a time.
pub struct BackendJob {
    pub(crate) work: Work,
}

/// What a job of the store writes in one transaction.
pub(crate) struct Commit {
    pub epoch: u64,
    pub backend: Arc<Backend>,
    pub purpose: Purpose,
    pub rows: Arc<Vec<Row>>,
    pub deleted: Vec<RowKey>,
    pub ops: Vec<BucketOp>,
    /// (index, term, configuration if it changed); `None` leaves what the file has.
    pub consistent: Option<(u64, u64, Option<Arc<ConfState>>)>,
    /// `Immediate` with quick repair; otherwise visible and not durable.
    pub immediate: bool,
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
    },
    /// Path of the receiver's file.
    ReceivedChunk(String),
    ReceivedAll(String),
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
    /// Writes through redb. Blocking; a real driver runs it on its backend thread.
    pub fn run(self) -> JobDone {
        match self.work {
            Work::Commit(commit) => {
                let epoch = Some(commit.epoch);
                let outcome = guarded(|| commit.run());
                JobDone { outcome: outcome.map_err(|e| e.0), epoch }
            }
            Work::Receive(receive) => {
                JobDone { outcome: guarded(|| receive.run()).map_err(|e| e.0), epoch: None }
            }
            Work::Fail(error) => JobDone { outcome: Err(error.0), epoch: None },
        }
    }

    /// What it is, for logs and CPU cost: "commit", "sync", "compact", "receive", "fail".
    pub fn kind(&self) -> &'static str {
        match &self.work {
            Work::Commit(commit) => match commit.purpose {
                Purpose::Compaction { .. } => "compact",
                Purpose::Batch { .. } if commit.immediate => "sync",
                Purpose::Batch { .. } => "commit",
            },
            Work::Receive(_) => "receive",
            Work::Fail(_) => "fail",
        }
    }

    /// Rows written or deleted.
    pub fn rows(&self) -> usize {
        match &self.work {
            Work::Commit(commit) => commit.rows.len() + commit.deleted.len() + commit.ops.len(),
            Work::Receive(receive) => receive.rows(),
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
        Ok(Outcome::Committed {
            index: self.consistent.as_ref().map(|(index, ..)| *index),
            immediate: self.immediate,
            purpose: self.purpose,
        })
    }

    fn write(&self, txn: &WriteTransaction, usage: &mut Usage) -> Result<(), FileError> {
        if !self.rows.is_empty() || !self.deleted.is_empty() {
            let mut table = txn.open_table(Bucket::Key.table())?;
            for row in self.rows.iter() {
                insert(&mut table, usage, row.key().as_bytes(), &row.value)?;
            }
            for key in &self.deleted {
                remove(&mut table, usage, key.as_bytes())?;
            }
        }
        for op in &self.ops {
            let mut table = txn.open_table(op.bucket.table())?;
            match &op.value {
                Some(value) => insert(&mut table, usage, &op.key, value)?,
                None => remove(&mut table, usage, &op.key)?,
            }
        }
        if let Some((index, term, conf_state)) = &self.consistent {
            let mut table = txn.open_table(Bucket::Meta.table())?;
            insert(&mut table, usage, CONSISTENT_INDEX, &index.to_be_bytes())?;
            insert(&mut table, usage, TERM, &term.to_be_bytes())?;
            if let Some(conf_state) = conf_state {
                insert(&mut table, usage, CONF_STATE, &meta::encode_conf_state(conf_state))?;
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

fn remove(table: &mut Rows<'_>, usage: &mut Usage, key: &[u8]) -> Result<(), FileError> {
    if let Some(removed) = table.remove(key)? {
        usage.removed(key.len(), removed.value().len());
    }
    Ok(())
}
