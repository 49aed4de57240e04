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

use crate::event::MemberId;
use crate::time::Instant;

/// A transfer that makes no progress for this long is given up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Name of the backend file of a received snapshot between rename and swap.
pub fn received_path(index: u64) -> String {
    format!("{}/{index:016x}.snap.db", crate::wal::SNAP_DIR)
}

/// Where rows of a snapshot under way go.
pub const RECEIVING_PATH: &str = "member/snap/receiving.tmp";

#[derive(Debug)]
pub struct Snapshots {
    /// Index of the newest snap file.
    pub saved_index: u64,
    /// Index of the last applied configuration change.
    pub last_conf_index: u64,
    snap_files: Vec<String>,
    saving: Option<save::Saving>,
    next_id: u64,
    pinned: BTreeMap<MemberId, send::Pinned>,
    sending: BTreeMap<MemberId, send::Sending>,
    receiving: Option<receive::Receiving>,
    install: Option<install::Install>,
}

impl Snapshots {
    pub fn new(saved_index: u64, snap_files: Vec<String>) -> Self {
        Self {
            saved_index,
            last_conf_index: 0,
            snap_files,
            saving: None,
            next_id: 0,
            pinned: BTreeMap::new(),
            sending: BTreeMap::new(),
            receiving: None,
            install: None,
        }
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        let sending = self.sending.values().map(|s| s.last_progress);
        let pinned = self.pinned.values().map(|p| p.since);
        let receiving = self.receiving.iter().map(|r| r.last_progress);
        sending.chain(pinned).chain(receiving).min().map(|at| at + PATIENCE)
    }
}
