//! The election of the only voter: it needs nobody's answer, but its own vote on disk.
//!
//! raft-rs makes it leader in the very step in which it votes for itself. A crash, or a write that fails,
//! would then take the vote back; the next life leads the same term again, with other entries of the
//! same index and term. So its vote is written first, and it leads when that is durable.

use raft::StateRole;
use raft::eraftpb::EntryType;

use super::RaftNode;

impl RaftNode {
    pub(super) fn is_only_voter(&self) -> bool {
        let voters = self.raw.raft.prs().conf().voters();
        voters.contains(self.id) && voters.ids().len() == 1
    }

    /// Votes for itself in a new term. As for any candidate, a committed membership change that is not
    /// applied comes first: it may bring another voter.
    pub(super) fn campaign_alone(&mut self) {
        if !self.awaits_own_vote() && !self.has_unapplied_change() {
            self.raw.raft.become_candidate();
        }
    }

    /// Takes the lead once the vote is durable.
    pub(super) fn maybe_lead_alone(&mut self) {
        let is_candidate = self.raw.raft.state == StateRole::Candidate;
        if is_candidate && self.is_only_voter() && !self.awaits_own_vote() {
            self.raw.raft.become_leader();
            self.raw.raft.bcast_append();
            self.draw_timeout();
        }
    }

    /// A candidate whose vote is not known to be on disk.
    fn awaits_own_vote(&self) -> bool {
        let raft = &self.raw.raft;
        let is_durable = self.vote == (raft.term, self.id) && self.vote_ready <= self.durable_ready;
        raft.state == StateRole::Candidate && !is_durable
    }

    fn has_unapplied_change(&self) -> bool {
        let log = &self.raw.raft.raft_log;
        let mut entries = (log.applied + 1..=log.committed).filter_map(|index| self.entry(index));
        entries.any(|entry| entry.get_entry_type() != EntryType::EntryNormal)
    }
}
