//! Installing a received snapshot: a barrier across the lanes (rules 12).
//!
//! ```text
//! Offered ─ Raft took it ─► Draining ─ WAL and backend idle ─► Files ─ renamed, snap file durable ─►
//! Log ─ snapshot record and hard state durable ─► Swap ─ `db` renamed, durable ─► Load ─ read, in a
//! job ─► the new store
//! ```
//! A crash before `Log` is over leaves the old state (and a file to remove); after it, recovery
//! finds the snapshot record and, if need be, does the last rename itself.

use raft::eraftpb::Snapshot;

use super::received_path;
use crate::event::{DiskAction, Level, MemberId, Ticket};
use crate::member::Member;
use crate::mvcc::DB_PATH;
use crate::pb::{raftpb, walpb};
use crate::raft::conf_state_to_pb;
use crate::sometimes;
use crate::wal::SNAP_DIR;

#[derive(Debug)]
pub struct Install {
    from: MemberId,
    snapshot_id: u64,
    index: u64,
    /// The temporary file with the rows.
    path: String,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Stepped into Raft; not yet known whether it takes it.
    Offered,
    Draining(raftpb::SnapshotMetadata),
    Files {
        ticket: Ticket,
        name: String,
        metadata: raftpb::SnapshotMetadata,
    },
    Log {
        ticket: Ticket,
        name: String,
    },
    Swap {
        ticket: Ticket,
        name: String,
    },
    Load {
        name: String,
    },
}

impl Install {
    pub fn offered(from: MemberId, snapshot_id: u64, index: u64, path: String) -> Self {
        Self { from, snapshot_id, index, path, stage: Stage::Offered }
    }
}

impl Member {
    /// Raft took the snapshot out of a `Ready`.
    pub(crate) fn begin_install(&mut self, snapshot: Snapshot) {
        let meta = snapshot.get_metadata();
        let install = self.snapshots.install.as_mut().filter(|i| i.index == meta.index);
        let install = install.expect("Raft takes only the snapshot that was offered to it");
        let conf_state = conf_state_to_pb(meta.get_conf_state());
        install.stage = Stage::Draining(raftpb::SnapshotMetadata {
            conf_state,
            index: meta.index,
            term: meta.term,
        });
        let fields = vec![("incoming-snapshot-index", meta.index.to_string())];
        self.log(Level::Info, "applying snapshot", fields);
        self.abort_defrag();
    }

    /// After every burst: refused snapshots are dropped, drained lanes let the install go on.
    pub(crate) fn drive_install(&mut self) {
        match self.snapshots.install.as_ref().map(|i| &i.stage) {
            // A coupled loop takes it out of Raft only after the sync in flight.
            Some(Stage::Offered) if self.node.has_snapshot() => {}
            Some(Stage::Offered) => {
                // Raft had it already, or a newer leader spoke: nothing to install.
                sometimes!("snapshot.not-wanted");
                let install = self.snapshots.install.take().expect("matched above");
                self.snapshots.abandoned.push(install.path);
                self.ack_done(install.from, install.snapshot_id);
            }
            Some(Stage::Draining(_))
                if !self.node.has_sync_in_flight()
                    && self.jobs_under_way == 0
                    && !self.store.is_swapping() =>
            {
                self.install_files();
            }
            _ => {}
        }
    }

    fn install_files(&mut self) {
        let install = self.snapshots.install.as_mut().expect("an install is under way");
        let Stage::Draining(metadata) = &install.stage else { unreachable!("checked by caller") };
        let metadata = metadata.clone();
        let to = received_path(install.index);
        let from = install.path.clone();
        self.snapshot_lane.push(DiskAction::Rename { from, to });
        let (name, ticket) = self.write_snap_file(&metadata);
        let install = self.snapshots.install.as_mut().expect("an install is under way");
        install.stage = Stage::Files { ticket, name, metadata };
    }

    pub(crate) fn on_install_synced(&mut self, up_to: Ticket) {
        let Some(install) = &mut self.snapshots.install else { return };
        match &install.stage {
            Stage::Files { ticket, name, metadata } if *ticket <= up_to => {
                let record = walpb::Snapshot {
                    index: metadata.index,
                    term: metadata.term,
                    conf_state: Some(metadata.conf_state.clone()),
                };
                let ticket = self.node.write_snapshot(&record);
                install.stage = Stage::Log { ticket, name: name.clone() };
            }
            Stage::Swap { ticket, name } if *ticket <= up_to => {
                install.stage = Stage::Load { name: name.clone() };
                let job = self.store.load(self.files.clone(), DB_PATH);
                self.push_job(job);
            }
            _ => {}
        }
    }

    pub(crate) fn on_log_synced(&mut self, up_to: Ticket) {
        self.remove_old_snap_files(up_to);
        let Some(install) = &mut self.snapshots.install else { return };
        if let Stage::Log { ticket, name } = &install.stage
            && *ticket <= up_to
        {
            let from = received_path(install.index);
            let name = name.clone();
            self.snapshot_lane.push(DiskAction::Rename { from, to: DB_PATH.to_owned() });
            let ticket = self.snapshot_lane.push(DiskAction::SyncDir { path: SNAP_DIR.to_owned() });
            install.stage = Stage::Swap { ticket, name };
        }
    }

    pub(crate) fn finish_install(&mut self) {
        let install = self.snapshots.install.take().expect("an install is under way");
        let Stage::Load { name } = install.stage else {
            unreachable!("a file is loaded at the end of an install")
        };
        self.store.install_loaded();
        let index = self.store.consistent().index;
        assert_eq!(index, install.index, "the file was checked against its header");
        self.applied = index;
        self.reload();
        self.watches.on_store_replaced();
        self.node.on_installed();
        self.node.on_applied(index);
        self.note_snap_file(index, name);
        sometimes!("snapshot.installed");
        self.metrics.add(&self.metrics.snapshots_installed_total);
        self.answer_physical();
        self.on_hashes_lost();
        self.answer_defrag(&Ok(()));
        self.ack_done(install.from, install.snapshot_id);
        self.log(Level::Info, "applied snapshot", vec![("snapshot-index", index.to_string())]);
    }
}
