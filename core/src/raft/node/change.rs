//! Membership in Raft: proposing and applying a change, a member that joins with nothing.

use bytes::Bytes;
use raft::eraftpb::{ConfChangeV2, ConfState, Entry, EntryType, Message, MessageType};

use super::RaftNode;
use crate::event::MemberId;

impl RaftNode {
    /// A membership change is in the log and not yet applied: raft-rs would replace a second one by
    /// an empty entry (rules 5).
    pub fn has_pending_conf(&self) -> bool {
        self.raw.raft.has_pending_conf()
    }

    /// Appends a membership change to the log of a leader. False when it was not taken.
    ///
    /// `data` is etcd's ConfChange. This is what raft-rs does with a proposed change, but for its
    /// look into `data`: it reads its own enum there, which has no 3, etcd's AddLearnerNode.
    pub fn propose_change(&mut self, data: Bytes) -> bool {
        assert!(!self.has_pending_conf(), "one membership change at a time");
        assert!(self.is_leader(), "a non-leader forwards changes itself");
        if self.is_outside() || self.is_transferring() {
            return false;
        }
        let mut entry = Entry { data, ..Default::default() };
        entry.set_entry_type(EntryType::EntryConfChange);
        let raft = &mut self.raw.raft;
        if !raft.append_entry(&mut [entry]) {
            return false;
        }
        raft.pending_conf_index = raft.raft_log.last_index();
        raft.bcast_append();
        true
    }

    /// Errors: raft-rs refuses it. What was checked at apply is never refused.
    pub fn apply_conf_change(&mut self, change: &ConfChangeV2) -> Result<ConfState, raft::Error> {
        let state = self.raw.apply_conf_change(change)?;
        self.draw_timeout();
        Ok(state)
    }

    /// How far `peer` is known to have the log, and this leader's own end of it.
    /// `None` when this is no leader or `peer` is not in the configuration.
    pub fn progress_of(&self, peer: MemberId) -> Option<(u64, u64)> {
        let progress = self.raw.raft.prs().get(peer.0)?;
        self.is_leader().then(|| (progress.matched, self.last_index()))
    }

    /// This leader knows of an active voter that has been told of the commit of `index`, and of no
    /// active voter that has not.
    pub fn have_voters_committed(&self, index: u64) -> bool {
        let prs = self.raw.raft.prs();
        let others = prs.iter().filter(|(id, progress)| {
            **id != self.id && prs.conf().voters().contains(**id) && progress.recent_active
        });
        let mut told = others.map(|(_, progress)| progress.committed_index >= index).peekable();
        told.peek().is_some() && told.all(|told| told)
    }

    /// A member that joined with an empty directory and knows no configuration yet.
    pub fn is_blank(&self) -> bool {
        self.raw.raft.prs().conf().voters().ids().is_empty()
    }

    /// No longer part of the configuration that it has applied.
    pub fn is_outside(&self) -> bool {
        !self.is_blank() && self.raw.raft.prs().get(self.id).is_none()
    }

    /// Whether Raft may see `m` at all.
    ///
    /// A blank member must not take entries: the configuration of the first members is not in the
    /// log, so it asks the leader for a snapshot instead. A removed one votes for nobody and starts
    /// no reads.
    pub(super) fn is_welcome(&mut self, m: &Message) -> bool {
        use MessageType as T;
        match m.get_msg_type() {
            T::MsgAppend if self.is_blank() => {
                self.ask_for_snapshot(m);
                false
            }
            T::MsgRequestVote | T::MsgRequestPreVote | T::MsgReadIndex => !self.is_outside(),
            // The only voter elects itself in a way of its own.
            T::MsgTimeoutNow | T::MsgRequestPreVoteResponse => !self.is_only_voter(),
            T::MsgAppendResponse if !m.reject && self.is_leader() && self.is_outside() => {
                self.note_progress(m);
                false
            }
            _ => true,
        }
    }

    /// What a leader that has applied its own removal takes from an acknowledgement: how far the others
    /// are. It commits nothing more, and raft-rs would look for its own progress and panic.
    fn note_progress(&mut self, m: &Message) {
        let raft = &mut self.raw.raft;
        if m.term == raft.term
            && let Some(progress) = raft.mut_prs().get_mut(m.from)
        {
            progress.recent_active = true;
            progress.maybe_update(m.index);
            progress.update_committed(m.commit);
        }
    }

    /// The answer to an append: rejected, send a snapshot. It promises nothing, so nothing is
    /// written before it.
    fn ask_for_snapshot(&mut self, append: &Message) {
        let mut m = Message::default();
        m.set_msg_type(MessageType::MsgAppendResponse);
        (m.from, m.to, m.term) = (self.id, append.from, append.term);
        (m.index, m.reject, m.reject_hint) = (append.index, true, self.last_index());
        m.request_snapshot = 1;
        self.held.push_back((self.durable_ready, vec![m]));
    }
}
