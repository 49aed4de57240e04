//! Defragment: the store copies itself in the background; here its new file takes the old one's place.
//!
//! ```text
//! copy, in jobs ─► durable ─► renamed over `db`, directory synced ─► swapped in, commits go on
//! ```
//! No commit is made between the last sync of the copy and the swap, so whichever of the two files a
//! crash leaves under the name holds everything that was ever called durable.

use super::Member;
use crate::api::{RequestId, Response};
use crate::error::ApiError;
use crate::event::{DiskAction, Level, Ticket};
use crate::limits;
use crate::mvcc::{DB_PATH, Sizes};
use crate::pb::etcdserverpb as pb;
use crate::time::Instant;
use crate::wal::SNAP_DIR;

/// Names of the files that copies go to begin so.
pub const COPY_PREFIX: &str = "db.tmp.";

#[derive(Default, Debug)]
pub struct DefragDesk {
    clients: Vec<RequestId>,
    started: Instant,
    /// Of the old file, when the new one held the same.
    before: Sizes,
    /// Since open: each copy has a file of its own, as jobs of one that was given up may be queued.
    copies: u64,
    /// The rename is durable with this ticket of the snapshot lane.
    placing: Option<Ticket>,
}

impl Member {
    /// Whoever asks during a defragmentation is answered at its end.
    pub(super) fn handle_defragment(&mut self, client: RequestId) {
        if self.defrag.clients.len() >= limits::PENDING_REQUESTS_MAX {
            return self.reply(client, Err(ApiError::TooManyRequests));
        }
        self.defrag.clients.push(client);
        // A received snapshot on its way into place is a new file without holes.
        if self.node.is_installing() {
            return;
        }
        let path = format!("{SNAP_DIR}/{COPY_PREFIX}{}", self.defrag.copies + 1);
        if self.store.begin_defrag(self.files.clone(), &path) {
            self.defrag.copies += 1;
            self.defrag.started = self.now;
            let fields = vec![("path", DB_PATH.to_owned())];
            self.log(Level::Info, "defragmenting", fields);
        }
    }

    /// The copy holds everything and is durable.
    pub(super) fn on_copied(&mut self, path: String) {
        self.defrag.before = self.store.sizes();
        let lane = &mut self.snapshot_lane;
        lane.push(DiskAction::Rename { from: path, to: DB_PATH.to_owned() });
        let synced = lane.push(DiskAction::SyncDir { path: SNAP_DIR.to_owned() });
        self.defrag.placing = Some(synced);
    }

    pub(super) fn on_copy_failed(&mut self, path: String, error: &str) {
        let fields = vec![("path", path.clone()), ("error", error.to_owned())];
        self.log(Level::Error, "failed to defragment", fields);
        self.snapshots.abandon(path);
        self.answer_defrag(&Err(ApiError::Defragment(error.to_owned())));
    }

    pub(crate) fn on_defrag_synced(&mut self, up_to: Ticket) {
        if self.defrag.placing.take_if(|ticket| *ticket <= up_to).is_none() {
            return;
        }
        self.measured_at = None;
        for event in self.store.finish_defrag() {
            self.on_store_event(event);
        }
        let (before, after) = (self.defrag.before, self.store.sizes());
        let fields = vec![
            ("path", DB_PATH.to_owned()),
            ("current-db-size-bytes-diff", signed(after.total_bytes, before.total_bytes)),
            ("current-db-size-bytes", after.total_bytes.to_string()),
            ("current-db-size-in-use-bytes-diff", signed(after.in_use_bytes, before.in_use_bytes)),
            ("current-db-size-in-use-bytes", after.in_use_bytes.to_string()),
            ("took", format!("{:?}", self.now.since(self.defrag.started))),
        ];
        self.log(Level::Info, "finished defragmenting directory", fields);
        self.metrics.add(&self.metrics.defrags_total);
        self.answer_defrag(&Ok(()));
    }

    pub(crate) fn answer_defrag(&mut self, result: &Result<(), ApiError>) {
        for client in std::mem::take(&mut self.defrag.clients) {
            let response = Response::Defragment(pb::DefragmentResponse::default());
            self.reply(client, result.clone().map(|()| response));
        }
    }

    /// A received snapshot is to take the store's place. Clients wait for that instead.
    pub(crate) fn abort_defrag(&mut self) {
        if self.store.abort_defrag() {
            let path = format!("{SNAP_DIR}/{COPY_PREFIX}{}", self.defrag.copies);
            self.snapshots.abandon(path);
        }
    }
}

fn signed(after: u64, before: u64) -> String {
    (i128::from(after) - i128::from(before)).to_string()
}
