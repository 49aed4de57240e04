//! What a participant knows, and what it waits for.

use std::time::Duration;

use raft::StateRole;
use raft::eraftpb::{ConfState, Entry, Message, MessageType};

use super::RaftNode;
use crate::config::Profile;
use crate::event::{LogLine, MemberId};
use crate::member::Role;
use crate::raft::storage::LogStorage;
use crate::time::Instant;

impl RaftNode {
    /// Coupled: the one loop waits for the WAL sync in flight (rules 1).
    pub fn is_loop_blocked(&self) -> bool {
        self.profile == Profile::Coupled && self.in_flight.is_some()
    }

    /// Raft accepted a snapshot that no `Ready` has brought out yet.
    pub fn has_snapshot(&self) -> bool {
        self.raw.snap().is_some()
    }

    pub fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    pub fn has_sync_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    pub fn is_wal_idle(&self) -> bool {
        self.in_flight.is_none() && !self.batch.must_sync
    }

    /// How long the sync in flight has been under way.
    pub fn stalled_for(&self, now: Instant) -> Duration {
        self.in_flight.as_ref().map_or(Duration::ZERO, |f| now.since(f.since))
    }

    /// When the sync in flight will have taken `d`.
    pub fn stall_deadline(&self, d: Duration) -> Option<Instant> {
        self.in_flight.as_ref().map(|f| f.since + d)
    }

    pub fn unsynced_bytes(&self) -> usize {
        self.batch.bytes + self.in_flight.as_ref().map_or(0, |f| f.bytes)
    }

    /// How far entries may be applied: committed is durable on a quorum, wherever this member's own
    /// disk is (design §4). Coupled: what the `Ready`s allowed, as in etcd.
    pub fn apply_limit(&self) -> u64 {
        if self.installing.is_some() {
            return 0;
        }
        match self.profile {
            Profile::Coupled => self.ready_committed,
            Profile::Decoupled => self.commit_index().min(self.store().last()),
        }
    }

    pub fn entry(&self, index: u64) -> Option<&Entry> {
        self.store().entry(index)
    }

    /// Term of an entry still in memory, or of the one just before the first.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        raft::Storage::term(self.store(), index).ok()
    }

    pub fn store(&self) -> &LogStorage {
        self.raw.store()
    }

    /// The first index written to the log since the last call.
    pub fn take_log_change(&mut self) -> Option<u64> {
        self.raw.mut_store().take_changed()
    }

    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    /// Whom it voted for in its term; 0 is nobody.
    pub fn vote(&self) -> u64 {
        self.raw.raft.vote
    }

    pub fn commit_index(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    /// The commit index as far as the entries in the store are the committed ones. Behind an append or a
    /// snapshot that no `Ready` has brought out yet the store still holds what it replaces.
    pub fn visible_commit(&self) -> u64 {
        let log = &self.raw.raft.raft_log;
        if self.has_snapshot() {
            return log.applied;
        }
        log.committed.min(log.unstable.offset - 1)
    }

    pub fn last_index(&self) -> u64 {
        self.raw.raft.raft_log.last_index()
    }

    pub fn persisted_index(&self) -> u64 {
        self.raw.raft.raft_log.persisted
    }

    pub fn leader(&self) -> Option<MemberId> {
        let id = self.raw.raft.leader_id;
        (id != raft::INVALID_ID).then_some(MemberId(id))
    }

    pub fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    pub fn role(&self) -> Role {
        match self.raw.raft.state {
            StateRole::Follower => Role::Follower,
            StateRole::PreCandidate => Role::PreCandidate,
            StateRole::Candidate => Role::Candidate,
            StateRole::Leader => Role::Leader,
        }
    }

    pub fn is_transferring(&self) -> bool {
        self.raw.raft.lead_transferee.is_some()
    }

    pub fn is_voter(&self, id: MemberId) -> bool {
        self.raw.raft.prs().conf().voters().contains(id.0)
    }

    pub fn is_learner(&self) -> bool {
        self.raw.raft.prs().conf().learners().contains(&self.id)
    }

    /// A heartbeat that commits more than this log holds: the disk lost what it had acknowledged.
    pub fn is_past_our_log(&self, m: &Message) -> bool {
        m.get_msg_type() == MessageType::MsgHeartbeat
            && m.term >= self.term()
            && m.commit > self.last_index()
    }

    pub fn conf_state(&self) -> ConfState {
        self.raw.raft.prs().conf().to_conf_state()
    }

    /// The voter to hand leadership to: recently heard of, furthest in the log, smallest id.
    pub fn best_transferee(&self) -> Option<MemberId> {
        let prs = self.raw.raft.prs();
        prs.iter()
            .filter(|(id, p)| {
                **id != self.id && prs.conf().voters().contains(**id) && p.recent_active
            })
            .max_by_key(|(id, p)| (p.matched, std::cmp::Reverse(**id)))
            .map(|(id, _)| MemberId(*id))
    }

    pub fn wal_bytes(&self) -> u64 {
        self.wal.bytes_appended()
    }

    pub fn take_log_lines(&mut self, into: &mut Vec<LogLine>) {
        self.lines.take(into);
    }
}
