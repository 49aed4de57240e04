//! What the world sees of its members' Raft logs: every entry, commit, vote and leadership, for the
//! raft, lease, durability and quota checkers. Looks only; nothing here is folded into the event hash.

use detkv_core::pb::etcdserverpb as pb;
use detkv_core::pb::peer::{Frame, RaftMessage, frame::Body};
use detkv_core::{LogEntry, Member, MemberId, RaftFacts, Role};
use prost::Message as _;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::World;
use super::node::Process;
use crate::history::{AlarmEntry, Entry, EntryId, Event, Fact, LeaseEntry, RaftTrace, Rare};

/// raft-rs' message numbers.
const APPEND_RESPONSE: u32 = 4;
const REQUEST_VOTE: u32 = 5;
const REQUEST_VOTE_RESPONSE: u32 = 6;

/// Fields of `InternalRaftRequest`.
const ID: u64 = 1;
const COMPACTION: u64 = 7;
const LEASE_GRANT: u64 = 8;
const LEASE_REVOKE: u64 = 9;
const ALARM: u64 = 10;

/// What was last recorded of a process.
#[derive(Clone, Default, Debug)]
pub(super) struct RaftSeen {
    is_open: bool,
    term: u64,
    /// The term it leads.
    leads: Option<u64>,
    commit: u64,
    offset: u64,
    /// The newest vote it told of.
    voted: Option<(u64, MemberId)>,
    /// The last index that it told a leader to be durable here, or counted for itself as the leader.
    /// Lowered when the log is cut.
    acknowledged: u64,
}

impl World {
    /// After recovery and after each burst.
    pub(super) fn observe_raft(&mut self, node: u32) {
        if !self.config.trace.raft {
            return;
        }
        let at = self.kernel.now();
        let trace = self.history.raft_mut();
        let n = &mut self.nodes[node as usize];
        let Process::Up(member) = &mut n.process else { return };
        let facts = member.take_raft_facts();
        let (id, seen) = (n.id, &mut n.raft);
        let mut rare = |what| trace.rare(at, id, what);
        if !seen.is_open {
            let offset_term = member.log_term(facts.offset).unwrap_or(0);
            let (term, vote, offset) = (facts.term, facts.vote, facts.offset);
            rare(Rare::Opened { term, vote, offset, offset_term });
            *seen = RaftSeen { is_open: true, term, offset, ..RaftSeen::default() };
        }
        let leads = (facts.role == Role::Leader).then_some(facts.term);
        if seen.leads.is_some() && leads != seen.leads {
            rare(Rare::Follows { term: facts.term });
        }
        if facts.term > seen.term {
            seen.term = facts.term;
            rare(Rare::Term { term: facts.term });
        }
        let is_reset = facts.changed_from == Some(facts.offset + 1) && facts.offset != seen.offset;
        if is_reset {
            let term = member.log_term(facts.offset).unwrap_or(0);
            rare(Rare::Installed { index: facts.offset, term });
        }
        seen.offset = facts.offset;
        if let Some(from) = facts.changed_from {
            seen.acknowledged = seen.acknowledged.min(from - 1);
            let mut log = Log { at, id, member, trace, ids: &mut self.entry_ids };
            log.record(from, &facts);
        }
        // Its own log is one of the majority that commits (of one member alone, all of it).
        if leads.is_some() {
            let counted = facts.persisted_index.min(facts.last_index);
            seen.acknowledged = seen.acknowledged.max(counted);
        }
        // Behind what was appended, ahead of a new leadership: a leader's commits are its own.
        if facts.commit_index > seen.commit {
            seen.commit = facts.commit_index;
            self.history.raft_mut().committed(id, facts.commit_index);
        }
        if let Some(term) = leads.filter(|_| leads != seen.leads) {
            self.history.raft_mut().rare(at, id, Rare::Leads { term });
        }
        seen.leads = leads;
    }

    /// A frame leaves: votes and acknowledgements are promises.
    pub(super) fn observe_frame(&mut self, node: u32, to: MemberId, frame: &Frame) {
        let Some(Body::Raft(RaftMessage { msg_type, term, index, reject, .. })) = &frame.body
        else {
            return;
        };
        let n = &mut self.nodes[node as usize];
        let voted = match *msg_type {
            APPEND_RESPONSE if !reject => {
                n.raft.acknowledged = n.raft.acknowledged.max(*index);
                return;
            }
            REQUEST_VOTE => (*term, n.id),
            REQUEST_VOTE_RESPONSE if !reject => (*term, to),
            _ => return,
        };
        if n.raft.voted != Some(voted) && self.config.trace.raft {
            n.raft.voted = Some(voted);
            let (term, candidate) = voted;
            let (at, id) = (self.kernel.now(), n.id);
            self.history.raft_mut().rare(at, id, Rare::Voted { term, candidate });
        }
    }

    /// A fault took durable bytes of a node's disk (emptied, swapped, rotten, a sync that lied): the
    /// checkers hold nothing against it that it had acknowledged before. Call it when the process is down.
    pub fn note_disk_damage(&mut self, node: u32) {
        let (at, id) = (self.kernel.now(), self.node(node).id);
        self.history.raft_mut().rare(at, id, Rare::DiskDamaged);
        self.node_mut(node).is_damaged = true;
        self.record(Event::Fact(Fact::DiskDamaged { member: id }));
    }

    /// The process is over.
    pub(super) fn observe_end(&mut self, node: u32) {
        let at = self.kernel.now();
        let n = &mut self.nodes[node as usize];
        let seen = std::mem::take(&mut n.raft);
        if seen.is_open {
            let ended = Rare::Ended { acknowledged: seen.acknowledged };
            self.history.raft_mut().rare(at, n.id, ended);
        }
    }
}

/// Reads the changed part of a log.
struct Log<'a> {
    at: detkv_core::Instant,
    id: MemberId,
    member: &'a Member,
    trace: &'a mut RaftTrace,
    ids: &'a mut Vec<EntryId>,
}

impl Log<'_> {
    fn record(&mut self, from: u64, facts: &RaftFacts) {
        // What was written and then discarded between two looks lies in a snapshot already.
        let from = from.max(facts.offset + 1);
        let Some(mut prev_term) = self.member.log_term(from - 1) else { return };
        self.ids.clear();
        for index in from..=facts.last_index {
            let Some(entry) = self.member.log_entry(index) else { break };
            let hash = xxh3_64_with_seed(entry.data, u64::from(entry.is_change));
            let known = Entry { index, term: entry.term, prev_term, hash };
            let (id, is_new) = self.trace.entry_id(known);
            if is_new {
                self.on_new(id, &entry);
            }
            self.ids.push(id);
            prev_term = entry.term;
        }
        self.trace.appended(self.id, from, self.ids);
    }

    fn on_new(&mut self, id: EntryId, entry: &LogEntry) {
        self.trace.keep_payload(id, entry.is_change, entry.data);
        let field = if entry.is_change { None } else { first_field(entry.data) };
        if !matches!(field, Some(COMPACTION | LEASE_GRANT | LEASE_REVOKE | ALARM)) {
            return;
        }
        let Ok(request) = pb::InternalRaftRequest::decode(entry.data.clone()) else { return };
        let (at, member) = (self.at, self.id);
        let mut lease = |lease, granted_ttl_secs| {
            self.trace.lease(LeaseEntry { entry: id, at, member, lease, granted_ttl_secs });
        };
        if let Some(grant) = request.lease_grant {
            lease(grant.id, Some(grant.ttl));
        } else if let Some(revoke) = request.lease_revoke {
            lease(revoke.id, None);
        } else if let Some(pb::AlarmRequest { action, member_id, alarm }) = request.alarm {
            self.trace.alarm(AlarmEntry { entry: id, at, action, alarm, of: member_id });
        } else if let Some(compaction) = request.compaction {
            self.trace.compaction(compaction.revision);
        }
    }
}

/// Number of the first field behind the id: which request it is, without decoding it.
fn first_field(data: &[u8]) -> Option<u64> {
    let mut rest = data;
    loop {
        let key = prost::encoding::decode_varint(&mut rest).ok()?;
        if key >> 3 != ID {
            return Some(key >> 3);
        }
        prost::encoding::decode_varint(&mut rest).ok()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_a_request_is_told_without_decoding_it() {
        let revoke = pb::LeaseRevokeRequest { id: 7 };
        let header = pb::RequestHeader { id: 5, ..Default::default() };
        for id in [0, 300] {
            let request = pb::InternalRaftRequest {
                id,
                header: Some(header.clone()),
                lease_revoke: Some(revoke),
                ..Default::default()
            };
            assert_eq!(first_field(&request.encode_to_vec()), Some(LEASE_REVOKE));
        }
        assert_eq!(first_field(b""), None);
        assert_eq!(first_field(b"\xff"), None);
    }
}
