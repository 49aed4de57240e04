//! When the file is written: batches every `batch_interval`, an `Immediate` commit about once per
//! `sync_interval`, compaction slices in between, hashes and copies when there is time. One job at a
//! time.

use std::sync::Arc;
use std::time::Duration;

use super::background::{Background, HashTask};
use super::compact::Compaction;
use super::hash::HashWalk;
use super::job::{BackendJob, Commit, JobDone, Outcome, Purpose, Work};
use super::meta::Meta;
use super::store::Store;
use super::{StoreEvent, StoreOptions};
use crate::error::Halt;
use crate::limits::BACKEND_BATCH_BYTES;
use crate::time::Instant;
use crate::{buggify, sometimes};

/// Pause between two compaction slices (etcd's value).
pub(super) const COMPACTION_PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(crate) struct Schedule {
    options: StoreOptions,
    /// Results of jobs cut before an `install` carry another number.
    epoch: u64,
    job_under_way: bool,
    /// Since when something waits for a job.
    batch_since: Option<Instant>,
    /// The batch is due, but nothing in it is persisted in the WAL: only that can unblock it.
    is_blocked: bool,
    /// In the file, durable or not.
    committed_index: u64,
    /// Invariant: `durable_index <= committed_index`.
    durable_index: u64,
    /// `None` before the first `Immediate` commit after open.
    synced_at: Option<Instant>,
    /// The file is wanted up to this index as soon as may be.
    wanted_index: u64,
    /// Everything at once and `Immediate`.
    immediate_always: bool,
    pub(super) compaction: Compaction,
    pub(super) background: Background,
}

impl Schedule {
    pub fn new(options: StoreOptions, epoch: u64, meta: &Meta) -> Self {
        Self {
            options,
            epoch,
            job_under_way: false,
            batch_since: None,
            is_blocked: false,
            committed_index: meta.consistent.index,
            durable_index: meta.consistent.index,
            synced_at: None,
            wanted_index: 0,
            immediate_always: false,
            compaction: Compaction::resume(meta.scheduled_compaction, meta.finished_compaction),
            background: Background::default(),
        }
    }

    pub fn options(&self) -> &StoreOptions {
        &self.options
    }

    pub fn durable_index(&self) -> u64 {
        self.durable_index
    }

    fn is_unsynced(&self) -> bool {
        self.durable_index < self.committed_index
    }

    /// The file holds everything that was ever written to it, durably.
    pub fn on_all_durable(&mut self) -> Vec<StoreEvent> {
        let is_news = self.is_unsynced();
        self.durable_index = self.committed_index;
        is_news.then_some(StoreEvent::Durable { index: self.durable_index }).into_iter().collect()
    }

    /// When the file should next be synced, if it has something to sync.
    fn sync_at(&self) -> Instant {
        self.synced_at.map_or(Instant::ZERO, |at| at + self.options.sync_interval)
    }
}

impl Store {
    // -- backend jobs

    /// When `poll` may have something to do; `None` while a job is under way.
    pub fn next_deadline(&self) -> Option<Instant> {
        let schedule = &self.schedule;
        if schedule.job_under_way || schedule.background.is_swapping() {
            return None;
        }
        let batch_at = schedule.batch_since.filter(|_| !schedule.is_blocked).map(|since| {
            if self.is_batch_forced() { since } else { since + self.batch_interval() }
        });
        let sync_at = schedule.is_unsynced().then(|| schedule.sync_at());
        let slice_at = schedule.compaction.next_slice_at();
        let background_at = schedule.background.next_at();
        [batch_at, sync_at, slice_at, background_at].into_iter().flatten().min()
    }

    /// Cuts a batch or a compaction slice into a job when one is due and none is under way.
    /// Nothing applied past `persisted_index` (locally durable in the WAL) goes into a job.
    pub fn poll(&mut self, now: Instant, persisted_index: u64) -> Option<BackendJob> {
        if self.schedule.job_under_way || self.is_swapping() {
            return None;
        }
        let job = self.next_job(now, persisted_index);
        self.schedule.job_under_way = job.is_some();
        job
    }

    fn next_job(&mut self, now: Instant, persisted_index: u64) -> Option<BackendJob> {
        if let Some(error) = self.shared.failure.lock().clone() {
            return Some(self.job(Work::Fail(error)));
        }
        if self.batch.is_empty() {
            self.schedule.batch_since = None;
        } else {
            self.schedule.batch_since.get_or_insert(now);
        }
        let at_once = buggify!("mvcc.commit-now");
        let immediate = at_once || self.schedule.immediate_always || now >= self.schedule.sync_at();
        let is_held = !self.schedule.immediate_always && buggify!("mvcc.slow-batch");
        let batch_due = self.schedule.batch_since.filter(|_| !is_held).is_some_and(|since| {
            at_once || self.is_batch_forced() || now >= since + self.batch_interval()
        });
        let can_cut = self.batch.has_up_to(persisted_index);
        self.schedule.is_blocked = batch_due && !can_cut;
        sometimes!(self.schedule.is_blocked, "mvcc.batch-blocked");
        let sync_due = self.schedule.is_unsynced() && immediate;
        self.begin_compaction_hashes();
        let background = &mut self.schedule.background;
        if background.is_due(now) && !std::mem::replace(&mut background.was_last, true) {
            return self.cut_background(now);
        }
        let is_background_due = background.is_due(now);
        background.was_last = false;
        if (batch_due && can_cut) || sync_due {
            return Some(self.cut_batch(now, persisted_index, immediate));
        }
        if let Some(slice) = self.cut_slice(now) {
            return Some(slice);
        }
        self.schedule.background.was_last = is_background_due;
        is_background_due.then(|| self.cut_background(now)).flatten()
    }

    /// What a compaction finds is hashed before the first of its rows goes.
    fn begin_compaction_hashes(&mut self) {
        for compaction in self.schedule.compaction.take_unhashed() {
            let (revision, previous) = (compaction.revision, compaction.previous);
            match HashWalk::of_compaction(&self.shared, revision, previous) {
                Ok(walk) => self.schedule.background.push_hash(HashTask::of_compaction(walk)),
                Err(error) => self.shared.fail(error),
            }
        }
    }

    pub(super) fn job(&self, work: Work) -> BackendJob {
        BackendJob { epoch: Some(self.schedule.epoch), work }
    }

    fn is_batch_forced(&self) -> bool {
        self.schedule.immediate_always
            || self.batch.urgent > 0
            || self.schedule.wanted_index > self.schedule.committed_index
            || self.batch.len() >= self.schedule.options.batch_ops
            || self.shared.state.read().unwritten_bytes >= BACKEND_BATCH_BYTES
    }

    /// How long the batch may wait.
    fn batch_interval(&self) -> Duration {
        let options = &self.schedule.options;
        let is_quiet = self.batch.len() < options.quiet_ops;
        if is_quiet { options.quiet_interval } else { options.batch_interval }
    }

    fn cut_batch(&mut self, now: Instant, persisted_index: u64, immediate: bool) -> BackendJob {
        let cut = self.batch.cut(persisted_index);
        self.schedule.batch_since = (!self.batch.is_empty()).then_some(now);
        let mut state = self.shared.state.write();
        let rows = match &cut {
            Some(cut) => {
                let rest = state.pending.split_off(cut.rows);
                std::mem::replace(&mut state.pending, rest)
            }
            None => Vec::new(),
        };
        state.in_flight = Arc::new(rows);
        let mut commit = Commit {
            backend: state.backend.clone(),
            purpose: Purpose::Batch { compaction: None },
            rows: state.in_flight.clone(),
            deleted: Vec::new(),
            ops: Vec::new(),
            consistent: None,
            immediate,
            mirror: self.schedule.background.mirror(),
        };
        drop(state);
        if let Some(cut) = cut {
            commit.purpose = Purpose::Batch { compaction: cut.compaction };
            commit.ops = cut.ops;
            commit.consistent = Some((cut.index, cut.term, cut.conf_state));
        }
        self.job(Work::Commit(Box::new(commit)))
    }

    fn cut_slice(&mut self, now: Instant) -> Option<BackendJob> {
        if self.schedule.compaction.next_slice_at().is_none_or(|at| now < at) {
            return None;
        }
        let mut state = self.shared.state.write();
        let slice = self.schedule.compaction.next_slice(now, &mut state.index)?;
        let commit = Commit {
            backend: state.backend.clone(),
            purpose: Purpose::Compaction { finished: slice.finished },
            rows: Arc::default(),
            deleted: slice.deleted,
            ops: slice.finished.map(super::meta::finished_compaction).into_iter().collect(),
            consistent: None,
            immediate: true,
            mirror: self.schedule.background.mirror(),
        };
        drop(state);
        Some(self.job(Work::Commit(Box::new(commit))))
    }

    /// Takes the result of a job, of a snapshot receiver's too.
    ///
    /// Errors: the job failed. Nobody knows what the file holds then: the member halts.
    pub fn handle_done(&mut self, now: Instant, done: JobDone) -> Result<Vec<StoreEvent>, Halt> {
        let outcome = done.outcome.map_err(Halt::Backend)?;
        match outcome {
            Outcome::ReceivedChunk(path) => return Ok(vec![StoreEvent::ReceivedChunk { path }]),
            Outcome::ReceivedAll(path, holds) => {
                return Ok(vec![StoreEvent::ReceivedAll { path, holds }]);
            }
            Outcome::Loaded(loaded) => {
                self.loaded = Some(loaded);
                return Ok(vec![StoreEvent::Loaded]);
            }
            _ if done.epoch != Some(self.schedule.epoch) => return Ok(Vec::new()),
            _ => {}
        }
        assert!(self.schedule.job_under_way, "a result belongs to the one job under way");
        self.schedule.job_under_way = false;
        match outcome {
            Outcome::Committed { index, immediate, purpose, lost_mirror } => {
                let mut events = self.on_committed(now, index, immediate, purpose);
                let lost = lost_mirror.map(|(copy, error)| (copy, Err(error)));
                events.extend(lost.and_then(|(copy, step)| self.on_copied(now, &copy, step)));
                Ok(events)
            }
            Outcome::Copied { copy, step } => {
                Ok(self.on_copied(now, &copy, step).into_iter().collect())
            }
            Outcome::Hashed { task, is_finished } => {
                let is_finished = is_finished.map_err(Halt::Backend)?;
                Ok(self.on_hashed(now, task, is_finished).into_iter().collect())
            }
            Outcome::ReceivedChunk(_) | Outcome::ReceivedAll(..) | Outcome::Loaded(_) => {
                unreachable!("handled above")
            }
        }
    }

    fn on_committed(
        &mut self,
        now: Instant,
        index: Option<u64>,
        immediate: bool,
        purpose: Purpose,
    ) -> Vec<StoreEvent> {
        // Freed after the lock is released: there may be thousands.
        let written = self.shared.state.write().take_written();
        drop(written);
        self.evictor.run(&self.shared.state);
        self.schedule.committed_index = index.unwrap_or(self.schedule.committed_index);
        self.schedule.background.on_committed(self.schedule.committed_index);
        let mut events = Vec::new();
        if immediate {
            self.schedule.synced_at = Some(now);
            events = self.schedule.on_all_durable();
        }
        match purpose {
            Purpose::Batch { compaction: Some(revision) } => {
                self.schedule.compaction.on_scheduled(now, revision);
            }
            Purpose::Batch { compaction: None } => {}
            Purpose::Compaction { finished } => {
                let compaction = &mut self.schedule.compaction;
                compaction.on_slice_done(now, finished.is_some(), &self.shared.metrics);
                events.extend(finished.map(|revision| StoreEvent::CompactionFinished { revision }));
            }
        }
        events
    }

    /// Makes what is applied due for the file. Returns its index: see `committed_index`.
    pub fn request_commit(&mut self) -> u64 {
        self.schedule.wanted_index = self.consistent.index;
        self.consistent.index
    }

    /// What is in the file, durable or not.
    pub fn committed_index(&self) -> u64 {
        self.schedule.committed_index
    }

    /// From now on `poll` writes everything with an `Immediate` commit at once (planned stop).
    pub fn request_immediate(&mut self) {
        self.schedule.immediate_always = true;
    }

    /// Nothing un-written and the last commit was `Immediate`.
    pub fn is_durable(&self) -> bool {
        self.batch.is_empty() && !self.schedule.job_under_way && !self.schedule.is_unsynced()
    }
}
