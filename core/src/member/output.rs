//! What goes out: after a burst of inputs everything that is due is done, and the outputs are handed over.

use super::Member;
use super::auto_compact::AutoCompactor;
use crate::event::Outputs;
use crate::mvcc::BackendJob;
use crate::raft::RaftOutput;
use crate::time::Instant;

/// Appends `from` to `to`. Mostly there is nothing to move, or only the vector itself.
fn hand_over<T>(from: &mut Vec<T>, to: &mut Vec<T>) {
    if from.is_empty() {
        return;
    }
    if to.is_empty() {
        std::mem::swap(from, to);
    } else {
        to.append(from);
    }
}

impl Member {
    /// Everything that is due and everything that came of the burst.
    pub fn poll(&mut self, now: Instant, out: &mut Outputs) {
        if self.halted {
            return;
        }
        self.now = self.now.max(now);
        if self.halt.is_none() {
            self.on_time();
            // Applying may let reads start, reads may bring messages: until nothing moves.
            while self.turn() && self.halt.is_none() {}
            self.settle_space();
        }
        if self.halt.is_none() {
            self.drive_install();
            self.send_snapshots(&mut out.snapshot_frames);
            self.maybe_finish_stop();
            self.remove_abandoned();
            self.poll_jobs();
            if self.watches.has_work(self.now) {
                let header = self.header();
                self.watches.poll(self.now, &self.reader, &header, &mut out.watch);
            }
        }
        self.hand_out(out);
    }

    /// Takes ticks, gives up on what waited too long.
    fn on_time(&mut self) {
        self.node.maybe_tick(self.now);
        self.expire_proposals();
        self.expire_leases();
        self.maybe_look_after();
        self.check_stall();
        self.auto_compact();
        self.expire_snapshots();
        self.end_farewells();
    }

    /// Reads, Raft, apply, once. Returns whether there may be more to do.
    fn turn(&mut self) -> bool {
        self.check_corruption();
        let retry = std::mem::take(&mut self.lead.retry_reads);
        if let Some(context) = self.reads.maybe_send(self.now, retry) {
            self.node.read_index(context);
        }
        let mut raft = RaftOutput::default();
        std::mem::swap(&mut raft.frames, &mut self.raft_frames);
        self.node.pump(self.now, &mut raft);
        std::mem::swap(&mut raft.frames, &mut self.raft_frames);
        let moved = !raft.read_states.is_empty();
        if moved {
            for state in raft.read_states {
                if !self.reads.on_read_state(&state.request_ctx, state.index) {
                    self.metrics.add(&self.metrics.slow_read_indexes_total);
                }
            }
        }
        if !raft.snapshots.is_empty() {
            raft.snapshots.into_iter().for_each(|message| self.start_snapshot(message));
        }
        if let Some(snapshot) = raft.install {
            self.begin_install(snapshot);
        }
        let led = self.on_leadership();
        let others = self.apply_committed();
        self.serve_reads();
        moved || led || others || self.corruption.is_due(self.now)
    }

    fn poll_jobs(&mut self) {
        // While a received snapshot takes the store's place its own batches stop (rules 12).
        if self.node.is_installing() || self.halt.is_some() {
            return;
        }
        if let Some(job) = self.store.poll(self.now, self.node.persisted_index()) {
            self.push_job(job);
        }
    }

    pub(crate) fn push_job(&mut self, job: BackendJob) {
        self.last_job.0 += 1;
        self.jobs_under_way += 1;
        self.jobs.push((self.last_job, job));
    }

    fn hand_out(&mut self, out: &mut Outputs) {
        self.node.take_log_lines(&mut self.log_lines);
        self.update_metrics();
        hand_over(&mut self.node.lane.ops, &mut out.log);
        hand_over(&mut self.snapshot_lane.ops, &mut out.snapshot);
        hand_over(&mut self.jobs, &mut out.jobs);
        hand_over(&mut self.replies, &mut out.replies);
        hand_over(&mut self.refused_streams, &mut out.refused_streams);
        hand_over(&mut self.log_lines, &mut out.log_lines);
        hand_over(&mut self.raft_frames, &mut out.messages);
        if !self.node.is_loop_blocked() {
            hand_over(&mut self.frames, &mut out.messages);
        }
        if std::mem::take(&mut self.peers_changed) {
            out.peers = Some(self.peers());
            out.removed = self.cluster.removed().collect();
        }
        if let Some(halt) = self.halt.take() {
            self.halted = true;
            out.halt = Some(halt);
        }
    }

    /// When `handle(Input::Deadline)` must be called at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.halted {
            return None;
        }
        // Asked after every burst, and mostly there is none.
        let mut earliest = self.node.next_deadline().unwrap_or(Instant::FAR);
        let mut due = |at: Option<Instant>| earliest = earliest.min(at.unwrap_or(Instant::FAR));
        if !self.node.is_installing() {
            due(self.store.next_deadline());
        }
        if !self.node.is_transferring() {
            due(self.lessor.next_deadline());
        }
        due(self.watches.next_deadline());
        due(self.pending.next_deadline());
        due(self.reads.next_deadline());
        due(self.look_after);
        due(self.stall_deadline());
        due(self.snapshots.next_deadline());
        due(self.auto_compactor.as_ref().map(AutoCompactor::next_deadline));
        due(self.corruption.next_deadline());
        (earliest != Instant::FAR).then_some(earliest)
    }
}
