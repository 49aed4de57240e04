//! What a probe carries.
//!
//! A leader that does not know where a peer's log ends sends one append and waits. raft-rs repeats it on
//! every heartbeat response, also on those that were under way when it was sent: behind 1 MiB on a link of
//! 10 Mbit/s there are eight, and each brings the same megabyte again. The peer then falls further behind
//! than the log goes back, and is sent snapshot after snapshot. A probe asks where the log ends; the bulk
//! follows once that is known, each entry once.

use raft::eraftpb::{Message, MessageType};
use raft::{ProgressState, util};

use super::RaftNode;
use crate::limits::PROBE_BYTES_MAX;

impl RaftNode {
    /// Shortens an append to a peer that is being probed: as if it had been sent with fewer entries. What
    /// is left out counts as not sent, because only replication moves a peer's next index forward.
    pub(super) fn shorten_probe(&self, m: &mut Message) {
        if m.get_msg_type() != MessageType::MsgAppend || m.entries.len() < 2 {
            return;
        }
        let progress = self.raw.raft.prs().get(m.to);
        if progress.is_some_and(|progress| progress.state == ProgressState::Probe) {
            let mut entries = m.take_entries().into_vec();
            util::limit_size(&mut entries, Some(PROBE_BYTES_MAX));
            m.set_entries(entries.into());
        }
    }
}
