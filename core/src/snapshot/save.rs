//! Noting in the log that the backend holds everything up to an index: snap file durable, then the
//! WAL's snapshot record, then old segments and entries may go (rules 16).

use std::time::Duration;

use crate::event::{DiskAction, Ticket};
use crate::limits;
use crate::member::Member;
use crate::pb::{raftpb, walpb};
use crate::time::Instant;
use crate::wal::{SNAP_DIR, encode_snap};
use crate::{buggify, sometimes};

#[derive(Debug)]
pub struct Saving {
    ticket: Ticket,
    name: String,
    metadata: raftpb::SnapshotMetadata,
    since: Instant,
}

/// How long the log is kept for a peer that has installed a snapshot (etcd's `releaseDelayAfterSnapshot`).
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(30);

/// Snap files kept: should the newest be damaged, the one before it may do.
const SNAP_FILES_KEPT: usize = 2;

impl Member {
    /// The backend has made everything up to `durable` safe.
    pub(crate) fn maybe_save_snapshot(&mut self, durable: u64) {
        let s = &self.snapshots;
        let due = durable >= s.saved_index + self.config.snapshot_count
            || self.node.store().bytes() > limits::LOG_BYTES_MAX
            || buggify!("snapshot.save-now");
        if !due || durable <= s.saved_index || s.saving.is_some() || self.node.is_installing() {
            return;
        }
        // The configuration at `durable` is the present one only if none came after it.
        if s.last_conf_index > durable {
            return;
        }
        let Some(term) = self.node.term_at(durable) else { return };
        let Some(conf_state) = self.store.consistent().conf_state.clone() else { return };
        let metadata = raftpb::SnapshotMetadata { conf_state, index: durable, term };
        let (name, ticket) = self.write_snap_file(&metadata);
        self.snapshots.saving = Some(Saving { ticket, name, metadata, since: self.now });
    }

    /// Temporary name, sync, rename, directory sync.
    pub(crate) fn write_snap_file(
        &mut self,
        metadata: &raftpb::SnapshotMetadata,
    ) -> (String, Ticket) {
        let (name, data) = encode_snap(metadata);
        let path = format!("{SNAP_DIR}/{name}");
        let tmp = format!("{path}.tmp");
        let lane = &mut self.snapshot_lane;
        lane.push(DiskAction::Create { path: tmp.clone() });
        lane.push(DiskAction::WriteAt { path: tmp.clone(), offset: 0, data });
        lane.push(DiskAction::SyncData { path: tmp.clone() });
        lane.push(DiskAction::Rename { from: tmp, to: path });
        let ticket = lane.push(DiskAction::SyncDir { path: SNAP_DIR.to_owned() });
        (name, ticket)
    }

    pub(crate) fn on_snapshot_lane_synced(&mut self, up_to: Ticket) {
        self.on_install_synced(up_to);
        self.on_defrag_synced(up_to);
        let Some(done) = self.snapshots.saving.take_if(|s| s.ticket <= up_to) else { return };
        self.metrics.snap_save_total_duration.observe(self.now.since(done.since));
        let raftpb::SnapshotMetadata { index, term, conf_state } = done.metadata;
        if index <= self.snapshots.saved_index {
            return; // an install overtook it
        }
        let record = walpb::Snapshot { index, term, conf_state: Some(conf_state) };
        let keep = self.config.snapshot_catchup_entries;
        let keep = if buggify!("snapshot.forget-log") { 0 } else { keep };
        sometimes!("snapshot.saved");
        let over = self.node.store().bytes() > limits::LOG_BYTES_MAX;
        let discard_to = if over {
            index
        } else {
            let most = index.saturating_sub(keep);
            self.snapshots.least_sent().unwrap_or(u64::MAX).min(self.least_awaited(most)).min(most)
        };
        let recorded = self.node.on_snapshot_saved(&record, index, discard_to);
        self.note_snap_file(index, done.name);
        self.snapshots.recorded = recorded;
        let fields = vec![("snapshot-index", index.to_string())];
        self.log(crate::event::Level::Info, "saved snapshot to disk", fields);
    }

    /// Who was sent a snapshot goes on from the log behind it: cut off before it has caught up with `most`, it
    /// would only be sent the next one. It is waited for as long as etcd does.
    fn least_awaited(&mut self, most: u64) -> u64 {
        let (now, node) = (self.now, &self.node);
        let has_matched = |peer| node.progress_of(peer).map_or(0, |(matched, _)| matched);
        let sent = &mut self.snapshots.sent;
        sent.retain(|peer, (_, at)| now < *at + CATCH_UP_PATIENCE && has_matched(*peer) < most);
        let awaited = sent.iter().map(|(peer, (index, _))| has_matched(*peer).max(*index));
        awaited.min().unwrap_or(u64::MAX)
    }

    pub(crate) fn note_snap_file(&mut self, index: u64, name: String) {
        self.snapshots.saved_index = index;
        self.snapshots.snap_files.push(name);
    }

    /// Old snap files go once the record of the newest one is durable: until then the log may end
    /// at an older record, and needs the file of that one.
    pub(crate) fn remove_old_snap_files(&mut self, up_to: Ticket) {
        if up_to < self.snapshots.recorded {
            return;
        }
        let files = &mut self.snapshots.snap_files;
        let old = files.len().saturating_sub(SNAP_FILES_KEPT);
        for name in files.drain(..old) {
            let path = format!("{SNAP_DIR}/{name}");
            self.snapshot_lane.push(DiskAction::Remove { path });
        }
    }
}
