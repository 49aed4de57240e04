//! Performing what a burst wants done, and handing back what became of it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use detkv_core::event::{DiskAction, DiskOp, Input, Lane, Ticket};
use detkv_core::mvcc::{BackendJob, JobDone};
use detkv_core::{Instant, LogLine, MemberId, Peer};

use super::node::panic_text;
use super::{Event, FrameLane, World};
use crate::config::{LogRecord, SyncRecord};
use crate::fault::Passing;
use crate::trace::Kind;

fn lane_index(lane: Lane) -> usize {
    match lane {
        Lane::Log => 0,
        Lane::Backend => 1,
        Lane::Snapshot => 2,
    }
}

impl World {
    /// Performs every output of the burst that is done. The vectors are emptied and kept.
    pub(super) fn perform(&mut self, node: u32) {
        let spare = self.spare_outputs.take().unwrap_or_default();
        let mut out = std::mem::replace(&mut self.node_mut(node).out, spare);
        let epoch = self.node(node).epoch;
        each(&mut out.log_lines, |line| self.on_log_line(node, line));
        if let Some(peers) = out.peers.take() {
            self.on_peers(node, &peers, &out.removed);
        }
        each(&mut out.messages, |(to, frame)| {
            self.observe_frame(node, to, &frame);
            self.send_frame(node, to, FrameLane::Messages, frame);
        });
        each(&mut out.snapshot_frames, |(to, frame)| {
            self.send_frame(node, to, FrameLane::Snapshot, frame);
        });
        self.perform_lane(node, Lane::Log, &out.log);
        self.perform_lane(node, Lane::Snapshot, &out.snapshot);
        out.log.clear();
        out.snapshot.clear();
        each(&mut out.jobs, |(ticket, job)| self.run_job(node, ticket, job));
        each(&mut out.replies, |(id, result)| self.on_reply(node, id, result));
        each(&mut out.refused_streams, |(stream, _)| self.lose_stream(stream));
        each(&mut out.watch, |(stream, message)| self.on_watch_output(node, stream, message));
        let halt = out.halt.take();
        if self.node(node).epoch == epoch {
            self.spare_outputs = Some(std::mem::replace(&mut self.node_mut(node).out, out));
            if let Some(halt) = halt {
                self.on_halt(node, halt);
            }
        }
    }

    /// Gives a batch of actions to the disk: one completion for all of them.
    fn perform_lane(&mut self, node: u32, lane: Lane, ops: &[DiskOp]) {
        let Some(last) = ops.last().map(|op| op.ticket) else { return };
        if self.node(node).lane_failed[lane_index(lane)] {
            return;
        }
        let now = self.now_ns();
        let (id, epoch) = (self.node(node).id.0, self.node(node).epoch);
        let mut at = self.node(node).lane_free_at[lane_index(lane)].max(now);
        for op in ops {
            let result = self.node(node).disk.perform(now, at, &op.action);
            self.fold(Kind::Disk, id, |out| {
                encode_action(&op.action, out);
                out.extend_from_slice(&result.as_ref().map_or(0, |done| *done).to_le_bytes());
            });
            match result {
                Ok(done) => {
                    if lane == Lane::Log && self.config.trace.syncs {
                        self.record_sync(node, &op.action, at, done);
                    }
                    self.pass_action(node, &op.action, at, done);
                    at = done;
                }
                Err(error) => {
                    let error = error.to_string();
                    self.node_mut(node).lane_failed[lane_index(lane)] = true;
                    return self.schedule(at, Event::LaneFailed { node, epoch, lane, error });
                }
            }
        }
        self.node_mut(node).lane_free_at[lane_index(lane)] = at;
        self.schedule(at, Event::LaneDone { node, epoch, lane, up_to: last });
    }

    fn record_sync(&mut self, node: u32, action: &DiskAction, at: u64, done: u64) {
        if let DiskAction::SyncData { .. } = action {
            let member = self.node(node).id;
            let (at, done) = (Instant { ns: at }, Instant { ns: done });
            self.syncs.push(SyncRecord { member, at, done });
        }
    }

    pub(super) fn on_lane_done(&mut self, node: u32, epoch: u32, lane: Lane, up_to: Ticket) {
        if self.node(node).epoch == epoch {
            let id = self.node(node).id.0;
            self.fold(Kind::DiskDone, id, |out| {
                out.push(lane_index(lane) as u8);
                out.extend_from_slice(&up_to.0.to_le_bytes());
            });
            self.give(node, Input::Synced { lane, up_to }, 0);
        }
    }

    pub(super) fn on_lane_failed(&mut self, node: u32, epoch: u32, lane: Lane, error: String) {
        if self.node(node).epoch == epoch {
            let id = self.node(node).id.0;
            self.fold(Kind::DiskDone, id, |out| out.extend_from_slice(error.as_bytes()));
            self.give(node, Input::DiskFailed { lane, error }, 0);
        }
    }

    /// Runs a backend job at once on the live file; it completes at its last stamp (rules 14).
    fn run_job(&mut self, node: u32, ticket: Ticket, job: BackendJob) {
        if self.node(node).lane_failed[lane_index(Lane::Backend)] {
            return;
        }
        let now = self.now_ns();
        let (kind, rows) = (job.kind(), job.rows() as u64);
        let work_ns = rows * self.node(node).cpu.backend_row_ns;
        self.probes.enter(self.node(node).id.0);
        let n = self.node_mut(node);
        let (id, epoch) = (n.id.0, n.epoch);
        let from = n.lane_free_at[lane_index(Lane::Backend)].max(now);
        let at = n.slowdowns.done_at(from, work_ns);
        n.disk.begin(now, at);
        let done = match catch_unwind(AssertUnwindSafe(|| job.run())) {
            Ok(done) => done,
            Err(panic) => return self.on_panic(node, panic_text(&*panic)),
        };
        let end = n.disk.end();
        n.lane_free_at[lane_index(Lane::Backend)] = end;
        n.lane_failed[lane_index(Lane::Backend)] = done.error().is_some();
        self.pass(node, Passing::Job(kind), at, end);
        self.fold(Kind::Disk, id, |out| {
            out.extend_from_slice(kind.as_bytes());
            for n in [ticket.0, rows, end] {
                out.extend_from_slice(&n.to_le_bytes());
            }
        });
        let done = Box::new(done);
        self.schedule(end, Event::JobDone { node, epoch, ticket, done });
    }

    pub(super) fn on_job_done(&mut self, node: u32, epoch: u32, ticket: Ticket, done: JobDone) {
        if self.node(node).epoch == epoch {
            let id = self.node(node).id.0;
            let error = done.error().unwrap_or("");
            self.fold(Kind::DiskDone, id, |out| {
                out.push(u8::MAX);
                out.extend_from_slice(&ticket.0.to_le_bytes());
                out.extend_from_slice(error.as_bytes());
            });
            self.give(node, Input::JobDone { ticket, done }, 0);
        }
    }

    fn on_log_line(&mut self, node: u32, line: LogLine) {
        let member = self.node(node).id;
        self.fold(Kind::Log, member.0, |out| {
            out.push(line.level as u8);
            out.extend_from_slice(line.msg.as_bytes());
            for (name, value) in &line.fields {
                out.extend_from_slice(name.as_bytes());
                out.push(0);
                out.extend_from_slice(value.as_bytes());
            }
        });
        if self.config.log_level.is_some_and(|level| line.level >= level) {
            let at = self.now();
            self.log.push(LogRecord { at, member, line });
        }
    }

    fn on_peers(&mut self, node: u32, peers: &[Peer], removed: &[MemberId]) {
        let n = self.node_mut(node);
        n.wanted = peers.iter().map(|peer| peer.id).collect();
        n.refuses = removed.iter().copied().collect();
        self.dial_wanted(node);
    }

    /// Connects to everybody the member wants who is there.
    pub(super) fn dial_wanted(&mut self, node: u32) {
        let wanted = &self.node(node).wanted;
        let is_wanted = |place: &u32| wanted.contains(&self.node(*place).id);
        let places: Vec<u32> = (0..self.nodes.len() as u32).filter(is_wanted).collect();
        self.want_peers(node, places);
    }
}

/// Empties a list. Most lists of a burst are empty.
fn each<T>(list: &mut Vec<T>, perform: impl FnMut(T)) {
    if !list.is_empty() {
        list.drain(..).for_each(perform);
    }
}

/// Bytes that tell an action from every other.
fn encode_action(action: &DiskAction, out: &mut Vec<u8>) {
    let mut put = |tag: u8, path: &str, number: u64, bytes: &[u8]| {
        out.push(tag);
        out.extend_from_slice(path.as_bytes());
        out.push(0);
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(bytes);
    };
    match action {
        DiskAction::CreateDir { path } => put(1, path, 0, &[]),
        DiskAction::Create { path } => put(2, path, 0, &[]),
        DiskAction::Allocate { path, len } => put(3, path, *len, &[]),
        DiskAction::WriteAt { path, offset, data } => put(4, path, *offset, data),
        DiskAction::Truncate { path, len } => put(5, path, *len, &[]),
        DiskAction::SyncData { path } => put(6, path, 0, &[]),
        DiskAction::Rename { from, to } => put(7, from, 0, to.as_bytes()),
        DiskAction::SyncDir { path } => put(8, path, 0, &[]),
        DiskAction::Remove { path } => put(9, path, 0, &[]),
    }
}
