//! raft-rs' messages to and from `detkv.peer.v1`: raft-rs' own decoder never sees outside bytes.

use raft::eraftpb;

use crate::pb::{peer, raftpb};

/// raft-rs' message as our wire message. A snapshot is left out: it travels on its own lane.
pub fn message_to_pb(mut m: eraftpb::Message) -> peer::RaftMessage {
    let mut entries = Vec::with_capacity(m.entries.len());
    entries.extend(m.entries.iter_mut().map(|e| peer::Entry {
        entry_type: e.entry_type as u32,
        term: e.term,
        index: e.index,
        data: std::mem::take(&mut e.data),
    }));
    peer::RaftMessage {
        msg_type: m.msg_type as u32,
        to: m.to,
        from: m.from,
        term: m.term,
        log_term: m.log_term,
        index: m.index,
        entries,
        commit: m.commit,
        commit_term: m.commit_term,
        reject: m.reject,
        reject_hint: m.reject_hint,
        context: std::mem::take(&mut m.context),
        request_snapshot: m.request_snapshot,
        priority: m.priority,
    }
}

/// The other way round.
///
/// Returns `None` for what no peer may send: an unknown or local message type, an unknown entry
/// type, entries whose indexes do not follow `index` one by one or whose terms go down.
pub fn message_from_pb(m: peer::RaftMessage) -> Option<eraftpb::Message> {
    use eraftpb::MessageType as T;
    let msg_type = message_type(m.msg_type)?;
    let local = [
        T::MsgHup,
        T::MsgBeat,
        T::MsgPropose,
        T::MsgUnreachable,
        T::MsgSnapStatus,
        T::MsgCheckQuorum,
        T::MsgTransferLeader,
    ];
    if local.contains(&msg_type) {
        return None;
    }
    let append = msg_type == T::MsgAppend;
    let mut term = m.log_term;
    let mut entries = Vec::with_capacity(m.entries.len());
    for (at, e) in m.entries.into_iter().enumerate() {
        if append && (e.index != m.index + 1 + at as u64 || e.term < term || e.term > m.term) {
            return None;
        }
        term = e.term;
        let mut entry = eraftpb::Entry::default();
        entry.set_entry_type(entry_type(e.entry_type)?);
        entry.term = e.term;
        entry.index = e.index;
        entry.data = e.data;
        entries.push(entry);
    }
    // raft-rs indexes the first entry of both without looking.
    if matches!(msg_type, T::MsgReadIndex | T::MsgReadIndexResp) && entries.len() != 1 {
        return None;
    }
    let mut out = eraftpb::Message::default();
    out.set_msg_type(msg_type);
    out.to = m.to;
    out.from = m.from;
    out.term = m.term;
    out.log_term = m.log_term;
    out.index = m.index;
    out.set_entries(entries.into());
    out.commit = m.commit;
    out.commit_term = m.commit_term;
    out.reject = m.reject;
    out.reject_hint = m.reject_hint;
    out.context = m.context;
    out.request_snapshot = m.request_snapshot;
    out.priority = m.priority;
    Some(out)
}

fn message_type(number: u32) -> Option<eraftpb::MessageType> {
    use eraftpb::MessageType as T;
    const ALL: [T; 19] = [
        T::MsgHup,
        T::MsgBeat,
        T::MsgPropose,
        T::MsgAppend,
        T::MsgAppendResponse,
        T::MsgRequestVote,
        T::MsgRequestVoteResponse,
        T::MsgSnapshot,
        T::MsgHeartbeat,
        T::MsgHeartbeatResponse,
        T::MsgUnreachable,
        T::MsgSnapStatus,
        T::MsgCheckQuorum,
        T::MsgTransferLeader,
        T::MsgTimeoutNow,
        T::MsgReadIndex,
        T::MsgReadIndexResp,
        T::MsgRequestPreVote,
        T::MsgRequestPreVoteResponse,
    ];
    ALL.into_iter().find(|t| *t as u32 == number)
}

fn entry_type(number: u32) -> Option<eraftpb::EntryType> {
    use eraftpb::EntryType as T;
    [T::EntryNormal, T::EntryConfChange, T::EntryConfChangeV2]
        .into_iter()
        .find(|t| *t as u32 == number)
}

pub fn conf_state_from_pb(cs: &raftpb::ConfState) -> eraftpb::ConfState {
    let mut out = eraftpb::ConfState::default();
    out.set_voters(cs.voters.clone());
    out.set_learners(cs.learners.clone());
    out.set_voters_outgoing(cs.voters_outgoing.clone());
    out.set_learners_next(cs.learners_next.clone());
    out.set_auto_leave(cs.auto_leave);
    out
}

/// Ids sorted: raft-rs keeps them in hash sets, and the result is stored and compared.
pub fn conf_state_to_pb(cs: &eraftpb::ConfState) -> raftpb::ConfState {
    let sorted = |ids: &[u64]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    raftpb::ConfState {
        voters: sorted(&cs.voters),
        learners: sorted(&cs.learners),
        voters_outgoing: sorted(&cs.voters_outgoing),
        learners_next: sorted(&cs.learners_next),
        auto_leave: cs.auto_leave,
    }
}

/// etcd's change as raft-rs' (rules 5): the numbers of the two enums differ.
/// `None` for an update, which changes nothing in Raft.
pub fn conf_change_v2(change: &raftpb::ConfChange) -> Option<eraftpb::ConfChangeV2> {
    use raftpb::ConfChangeType as T;
    let change_type = match change.r#type() {
        T::ConfChangeAddNode => eraftpb::ConfChangeType::AddNode,
        T::ConfChangeRemoveNode => eraftpb::ConfChangeType::RemoveNode,
        T::ConfChangeAddLearnerNode => eraftpb::ConfChangeType::AddLearnerNode,
        T::ConfChangeUpdateNode => return None,
    };
    let mut single = eraftpb::ConfChangeSingle::default();
    single.set_change_type(change_type);
    single.node_id = change.node_id;
    let mut out = eraftpb::ConfChangeV2::default();
    out.set_changes(vec![single].into());
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn append() -> peer::RaftMessage {
        let entry = |index, term| peer::Entry { term, index, ..Default::default() };
        peer::RaftMessage {
            msg_type: eraftpb::MessageType::MsgAppend as u32,
            term: 3,
            log_term: 2,
            index: 10,
            entries: vec![entry(11, 2), entry(12, 3)],
            context: Bytes::from_static(b"c"),
            ..Default::default()
        }
    }

    #[test]
    fn messages_survive_the_round_trip() {
        let m = append();
        assert_eq!(message_to_pb(message_from_pb(m.clone()).unwrap()), m);
    }

    #[test]
    fn what_no_peer_may_send_is_refused() {
        let mut gap = append();
        gap.entries[1].index = 13;
        let mut falling = append();
        falling.entries[1].term = 1;
        let mut unknown = append();
        unknown.msg_type = 99;
        let mut local = append();
        local.msg_type = eraftpb::MessageType::MsgHup as u32;
        let mut entry_type = append();
        entry_type.entries[0].entry_type = 7;
        for bad in [gap, falling, unknown, local, entry_type] {
            assert_eq!(message_from_pb(bad), None);
        }
    }
}
