//! The pump: what raft-rs has ready goes to the peers, to the WAL, or waits for it.

use raft::eraftpb::{Message, MessageType};

use super::pieces::in_pieces;
use super::{InFlight, RaftNode, RaftOutput};
use crate::config::Profile;
use crate::event::{MemberId, Ticket};
use crate::pb::peer::{Frame, frame::Body};
use crate::pb::walpb;
use crate::raft::convert::message_to_pb;
use crate::time::Instant;
use crate::{buggify, sometimes};

impl RaftNode {
    /// Takes every `Ready` there is, hands messages out or holds them, writes the WAL.
    pub fn pump(&mut self, now: Instant, out: &mut RaftOutput) {
        loop {
            if self.in_flight.is_none() && !self.batch.must_sync && self.installing.is_none() {
                self.persisted(self.last_ready);
            }
            self.maybe_lead_alone();
            self.release_held(out);
            if self.is_loop_blocked() || self.installing.is_some() || !self.raw.has_ready() {
                break;
            }
            self.take_ready(out);
            if self.profile == Profile::Coupled && self.batch.must_sync {
                self.write_batch(now);
            }
        }
        self.write_batch(now);
    }

    fn take_ready(&mut self, out: &mut RaftOutput) {
        let mut ready = self.raw.ready();
        self.last_ready = ready.number();
        if let Some(hs) = ready.hs() {
            // Entries alone must be synced too: `must_sync` does not tell the two apart.
            if (hs.term, hs.vote) != self.vote {
                self.vote = (hs.term, hs.vote);
                self.vote_ready = ready.number();
            }
            self.batch.hard_state = Some(hs.clone());
        }
        out.read_states.append(&mut ready.take_read_states());
        let mut messages = ready.take_messages();
        for mut m in messages.drain(..) {
            self.shorten_probe(&mut m);
            in_pieces(m, |piece| send(piece, out));
        }
        self.reuse(messages);
        let waiting = ready.take_persisted_messages();
        if !waiting.is_empty() {
            self.hold(ready.number(), waiting, out);
        }
        if let Some(last) = ready.committed_entries().last() {
            self.ready_committed = last.index;
        }
        if !ready.snapshot().is_empty() {
            let meta = ready.snapshot().get_metadata();
            self.raw.mut_store().reset_to_snapshot(meta.index, meta.term);
            self.ready_committed = meta.index;
            self.installing = Some(ready.number());
            // Not written yet and replaced: behind the snapshot record they would come back.
            self.batch.entries.clear();
            self.batch.bytes = 0;
            out.install = Some(ready.snapshot().clone());
        }
        let entries = ready.take_entries();
        self.raw.mut_store().append(&entries);
        self.batch.bytes += entries.iter().map(|e| e.data.len() + 32).sum::<usize>();
        self.batch.must_sync |= ready.must_sync();
        if self.batch.entries.is_empty() {
            self.batch.entries = entries;
        } else {
            self.batch.entries.extend(entries);
        }
        self.raw.advance_append_async(ready);
    }

    /// Messages of a non-leader wait for the sync, but for those that promise nothing about the log
    /// (rules 4): else two slow follower disks would depose a healthy leader.
    fn hold(&mut self, ready: u64, mut messages: Vec<Message>, out: &mut RaftOutput) {
        let free = self.profile == Profile::Decoupled && self.vote_ready <= self.durable_ready;
        let mut held = Vec::new();
        for m in messages.drain(..) {
            let promises_nothing = matches!(
                m.get_msg_type(),
                MessageType::MsgHeartbeatResponse | MessageType::MsgReadIndex
            );
            if free && promises_nothing {
                sometimes!(self.in_flight.is_some(), "raft.heartbeat-answered-during-sync");
                send(m, out)
            } else {
                held.push(m)
            }
        }
        self.reuse(messages);
        if !held.is_empty() {
            sometimes!(self.vote_ready > self.durable_ready, "raft.vote-while-unsynced");
            self.held.push_back((ready, held));
        }
    }

    /// Gives raft-rs an emptied vector for its next messages: it takes a new one for each `Ready`.
    fn reuse(&mut self, messages: Vec<Message>) {
        let next = &mut self.raw.raft.msgs;
        if next.capacity() == 0 {
            *next = messages;
        }
    }

    fn release_held(&mut self, out: &mut RaftOutput) {
        while self.held.front().is_some_and(|(ready, _)| *ready <= self.durable_ready) {
            let (_, mut messages) = self.held.pop_front().expect("looked at above");
            messages.drain(..).for_each(|m| send(m, out));
            self.reuse(messages);
        }
    }

    pub(super) fn persisted(&mut self, ready: u64) {
        if ready > self.durable_ready {
            self.durable_ready = ready;
            // A leader that has applied its own removal stays until the others know. raft-rs would look
            // for its progress and panic; its own log counts for nothing any more.
            if !(self.is_leader() && self.is_outside()) {
                self.raw.on_persist_ready(ready);
            }
        }
    }

    /// One write and one sync for everything gathered, when none is in flight.
    fn write_batch(&mut self, now: Instant) {
        // A snapshot's hard state goes into the WAL behind its snapshot record: `write_snapshot`.
        if !self.batch.must_sync || self.in_flight.is_some() || self.installing.is_some() {
            return;
        }
        // The next burst comes with the next tick at the latest.
        if buggify!("raft.hold-batch") {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        sometimes!(batch.entries.len() > 1, "raft.group-commit");
        self.wal.append(&batch.entries, batch.hard_state.as_ref(), &mut self.lane);
        self.wal.sync(&mut self.lane);
        self.in_flight = Some(InFlight {
            ready: self.last_ready,
            ticket: self.lane.last(),
            since: now,
            bytes: batch.bytes,
        });
    }

    /// During an install: the snapshot record and the hard state, synced. Returns the ticket to wait for.
    pub fn write_snapshot(&mut self, snapshot: &walpb::Snapshot) -> Ticket {
        assert!(self.in_flight.is_none(), "an install waits for the sync in flight");
        let batch = std::mem::take(&mut self.batch);
        self.wal.append_snapshot(snapshot, &mut self.lane);
        self.wal.append(&batch.entries, batch.hard_state.as_ref(), &mut self.lane);
        self.wal.sync(&mut self.lane);
        self.lane.last()
    }

    /// A snap file for `index` is durable: note it in the WAL and let go of what lies before.
    /// Returns the ticket that makes the note durable.
    pub fn on_snapshot_saved(
        &mut self,
        snapshot: &walpb::Snapshot,
        keep_from: u64,
        discard_to: u64,
    ) -> Ticket {
        self.wal.append_snapshot(snapshot, &mut self.lane);
        self.wal.sync(&mut self.lane);
        let recorded = self.lane.last();
        self.wal.release_to(keep_from, &mut self.lane);
        let log = &self.raw.raft.raft_log;
        let to = discard_to.min(log.applied);
        if to >= log.store.first() {
            self.raw.mut_store().discard_prefix(to);
        }
        recorded
    }
}

fn send(m: Message, out: &mut RaftOutput) {
    if m.get_msg_type() == MessageType::MsgSnapshot {
        out.snapshots.push(m);
    } else {
        let to = MemberId(m.to);
        out.frames.push((to, Frame { body: Some(Body::Raft(message_to_pb(m))) }));
    }
}
