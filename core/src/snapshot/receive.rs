//! The receiving end: rows go into a temporary file through backend jobs; only when that is
//! durable does Raft hear of the snapshot.

use crate::event::{DiskAction, Level, MemberId};
use crate::limits;
use crate::member::Member;
use crate::mvcc::{Consistent, SnapshotReceiver};
use crate::pb::peer::{self, Frame, frame::Body};
use crate::raft::{conf_state_from_pb, message_from_pb};
use crate::sometimes;
use crate::time::Instant;

use super::install::Install;
use super::receiving_path;
use super::send::{chain_crc, rows_crc};

#[derive(Debug)]
pub struct Receiving {
    pub from: MemberId,
    pub header: peer::SnapshotHeader,
    path: String,
    receiver: SnapshotReceiver,
    next: u64,
    written: u64,
    crc: u32,
    pub finished: bool,
    began: Instant,
    /// Since the last row, when finished.
    finished_at: Instant,
    pub last_progress: Instant,
}

impl Receiving {
    /// Whether the rows that came hold what the header said.
    fn is_about(&self, holds: &Consistent) -> bool {
        let expected = self.header.conf_state.clone().unwrap_or_default();
        let found = holds.conf_state.clone().unwrap_or_default();
        (holds.index, holds.term) == (self.header.index, self.header.term)
            && (found.voters, found.learners) == (expected.voters, expected.learners)
    }
}

impl Member {
    pub(crate) fn handle_snapshot_header(&mut self, from: MemberId, header: peer::SnapshotHeader) {
        if self.snapshots.install.is_some() {
            sometimes!("snapshot.refused-during-install");
            return self.ack_snapshot(
                from,
                header.snapshot_id,
                "another snapshot is being installed",
            );
        }
        if header.index <= self.applied {
            // Nothing to install; Raft on the other side goes on from our next answer.
            return self.ack_done(from, header.snapshot_id);
        }
        sometimes!(self.snapshots.receiving.is_some(), "snapshot.replaced");
        self.drop_receiving("replaced by a newer snapshot");
        self.snapshots.receivings += 1;
        let path = receiving_path(self.snapshots.receivings);
        let receiver = match SnapshotReceiver::create(self.files.clone(), &path) {
            Ok(receiver) => receiver,
            Err(halt) => {
                self.halt = Some(halt);
                return;
            }
        };
        let fields = vec![("from", from.to_string()), ("snapshot-index", header.index.to_string())];
        self.log(Level::Info, "receiving database snapshot", fields);
        self.metrics.snapshot_receives.on_begin(from);
        self.snapshots.receiving = Some(Receiving {
            from,
            header,
            path,
            receiver,
            next: 0,
            written: 0,
            crc: 0,
            finished: false,
            began: self.now,
            finished_at: self.now,
            last_progress: self.now,
        });
    }

    fn receiving_of(&mut self, from: MemberId, id: u64) -> Option<&mut Receiving> {
        self.snapshots
            .receiving
            .as_mut()
            .filter(|r| r.from == from && r.header.snapshot_id == id && !r.finished)
    }

    pub(crate) fn handle_snapshot_chunk(&mut self, from: MemberId, chunk: peer::SnapshotChunk) {
        let now = self.now;
        let Some(r) = self.receiving_of(from, chunk.snapshot_id) else { return };
        if chunk.sequence != r.next || rows_crc(&chunk.rows) != chunk.crc {
            return self.drop_receiving("a chunk was out of order or damaged");
        }
        if r.next >= r.written + limits::SNAPSHOT_WINDOW_CHUNKS {
            return self.drop_receiving("the sender went beyond its credit");
        }
        r.next += 1;
        r.crc = chain_crc(r.crc, chunk.crc);
        r.last_progress = now;
        let job = r.receiver.write_rows(chunk.rows);
        self.push_job(job);
    }

    pub(crate) fn handle_snapshot_end(&mut self, from: MemberId, end: peer::SnapshotEnd) {
        let now = self.now;
        let Some(r) = self.receiving_of(from, end.snapshot_id) else { return };
        if end.chunks != r.next || end.hash != r.crc {
            return self.drop_receiving("the hash over all chunks does not match");
        }
        r.finished = true;
        r.finished_at = now;
        let job = r.receiver.finish();
        self.push_job(job);
    }

    pub(crate) fn on_received_chunk(&mut self, path: &str) {
        let Some(r) = self.snapshots.receiving.as_mut().filter(|r| r.path == path) else { return };
        r.written += 1;
        let ack = peer::SnapshotAck {
            snapshot_id: r.header.snapshot_id,
            received: r.written,
            ..Default::default()
        };
        let to = r.from;
        self.frames.push((to, Frame { body: Some(Body::SnapshotAck(ack)) }));
    }

    /// The temporary file is durable: now Raft may take the snapshot.
    pub(crate) fn on_received_all(&mut self, path: &str, holds: &Consistent) {
        if !self.snapshots.receiving.as_ref().is_some_and(|r| r.path == path && r.is_about(holds)) {
            return self.drop_receiving_at(path, "the rows are not what the header said");
        }
        let Some(r) = self.snapshots.receiving.take() else { return };
        let took = self.now.since(r.began);
        self.metrics.snapshot_receives.on_end(r.from, Some(took));
        self.metrics.snap_db_save_total_duration.observe(took);
        self.metrics.snap_db_fsync_duration.observe(self.now.since(r.finished_at));
        let header = r.header;
        let conf_state = header.conf_state.unwrap_or_default();
        let message = header.message.and_then(message_from_pb);
        let Some(mut message) = message.filter(|m| m.from == r.from.0) else {
            self.snapshots.abandoned.push(r.path);
            return self.ack_snapshot(r.from, header.snapshot_id, "malformed header");
        };
        let meta = message.mut_snapshot().mut_metadata();
        meta.index = header.index;
        meta.term = header.term;
        meta.set_conf_state(conf_state_from_pb(&crate::pb::raftpb::ConfState {
            voters: conf_state.voters,
            learners: conf_state.learners,
            ..Default::default()
        }));
        self.snapshots.install =
            Some(Install::offered(r.from, header.snapshot_id, header.index, r.path));
        self.node.step(message);
    }

    pub(crate) fn ack_done(&mut self, to: MemberId, snapshot_id: u64) {
        let ack = peer::SnapshotAck { snapshot_id, done: true, ..Default::default() };
        self.frames.push((to, Frame { body: Some(Body::SnapshotAck(ack)) }));
    }

    fn ack_snapshot(&mut self, to: MemberId, snapshot_id: u64, error: &str) {
        let error = error.to_owned();
        let ack = peer::SnapshotAck { snapshot_id, error, ..Default::default() };
        self.frames.push((to, Frame { body: Some(Body::SnapshotAck(ack)) }));
    }

    fn drop_receiving_at(&mut self, path: &str, why: &str) {
        if self.snapshots.receiving.as_ref().is_some_and(|r| r.path == path) {
            self.drop_receiving(why);
        }
    }

    fn drop_receiving(&mut self, why: &str) {
        let Some(r) = self.snapshots.receiving.take() else { return };
        self.metrics.snapshot_receives.on_end(r.from, None);
        self.ack_snapshot(r.from, r.header.snapshot_id, why);
        self.snapshots.abandoned.push(r.path);
        let fields = vec![("from", r.from.to_string()), ("error", why.to_owned())];
        self.log(Level::Warn, "failed to receive database snapshot", fields);
    }

    pub(crate) fn remove_abandoned(&mut self) {
        if self.jobs_under_way == 0 && !self.snapshots.abandoned.is_empty() {
            for path in std::mem::take(&mut self.snapshots.abandoned) {
                self.snapshot_lane.push(DiskAction::Remove { path });
            }
        }
    }

    pub(crate) fn expire_receiving(&mut self, old: Instant) {
        if self.snapshots.receiving.as_ref().is_some_and(|r| !r.finished && r.last_progress <= old)
        {
            self.drop_receiving("no progress for 30 s");
        }
    }
}
