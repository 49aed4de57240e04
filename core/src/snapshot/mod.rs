//! Snapshots: noting one in the log, streaming the store to a follower that lags behind the log,
//! installing a received one (rules 12).
//!
//! ```text
//! leader: raft-rs wants one ─► pin a read snapshot ─► MsgSnapshot withheld ─► header, chunks under credit, end
//! follower: rows ─► temporary file ─► MsgSnapshot into Raft ─► file renamed, snap file, WAL record,
//!           each durable before the next ─► swapped in
//! ```

mod install;
mod receive;
mod save;
mod send;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::event::{MemberId, Ticket};
use crate::time::Instant;

/// A transfer that makes no progress for this long is given up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Name of the backend file of a received snapshot between rename and swap.
pub fn received_path(index: u64) -> String {
    format!("{}/{index:016x}.snap.db", crate::wal::SNAP_DIR)
}

/// Names of the files that rows of a snapshot under way go to begin so.
pub const RECEIVING_PREFIX: &str = "receiving-";

/// Where the rows of the `n`th transfer since open go. Each has its own: jobs of one that was given
/// up, and the removal of its file, may still be queued when the next begins.
fn receiving_path(n: u64) -> String {
    format!("{}/{RECEIVING_PREFIX}{n}.tmp", crate::wal::SNAP_DIR)
}

#[derive(Debug)]
pub struct Snapshots {
    /// Index of the newest snap file.
    pub saved_index: u64,
    /// Index of the last applied configuration change.
    pub last_conf_index: u64,
    /// Oldest first.
    snap_files: Vec<String>,
    /// The newest snapshot record is durable with this ticket of the log lane.
    recorded: Ticket,
    saving: Option<save::Saving>,
    next_id: u64,
    pinned: BTreeMap<MemberId, send::Pinned>,
    sending: BTreeMap<MemberId, send::Sending>,
    /// Who was sent a snapshot and goes on from the log behind it: its index, and when it came to its end.
    sent: BTreeMap<MemberId, (u64, Instant)>,
    receiving: Option<receive::Receiving>,
    receivings: u64,
    /// Files of transfers and copies that were given up: removed when no job can make them again.
    abandoned: Vec<String>,
    install: Option<install::Install>,
}

impl Snapshots {
    pub fn new(saved_index: u64, snap_files: Vec<String>) -> Self {
        Self {
            saved_index,
            last_conf_index: 0,
            snap_files,
            recorded: Ticket(0),
            saving: None,
            next_id: 0,
            pinned: BTreeMap::new(),
            sending: BTreeMap::new(),
            sent: BTreeMap::new(),
            receiving: None,
            receivings: 0,
            abandoned: Vec::new(),
            install: None,
        }
    }

    /// The file at `path` will not be needed: removed when no job can make it again.
    pub fn abandon(&mut self, path: String) {
        self.abandoned.push(path);
    }

    /// The oldest index of a snapshot that is pinned for a peer or on its way.
    fn least_sent(&self) -> Option<u64> {
        let sending = self.sending.values().map(send::Sending::index);
        sending.chain(self.pinned.values().map(send::Pinned::index)).min()
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        if self.sending.is_empty() && self.pinned.is_empty() && self.receiving.is_none() {
            return None;
        }
        let sending = self.sending.values().map(|s| s.last_progress);
        let pinned = self.pinned.values().map(|p| p.since);
        // One that is complete waits for this member's own disk, as long as that takes.
        let receiving = self.receiving.iter().filter(|r| !r.finished).map(|r| r.last_progress);
        sending.chain(pinned).chain(receiving).min().map(|at| at + PATIENCE)
    }
}
