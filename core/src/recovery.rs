//! Opening a data directory, in steps, so that a crash in the middle of it can be simulated.
//!
//! ```text
//! no log ──► create it ──────────────┐
//! log ──► read, cut a torn tail ──► finish an install cut short ──► open the store ──► Member
//! ```

use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use crate::config::Config;
use crate::error::OpenError;
use crate::event::{DiskAction, DiskOp, LaneQueue, SharedFiles};
use crate::limits;
use crate::member::{COPY_PREFIX, Member, Parts};
use crate::mvcc::{DB_PATH, Store, StoreOptions, consistent_index};
use crate::pb::raftpb;
use crate::raft::{RaftNode, Restart, conf_state_from_pb};
use crate::snapshot::{RECEIVING_PREFIX, received_path};
use crate::sometimes;
use crate::time::Instant;
use crate::wal::{Recovered, SNAP_DIR, Wal, WalMetadata, WalRecovery, WalStep, encode_snap};

/// What the driver does next.
#[derive(Debug)]
pub enum RecoveryStep {
    /// Perform these, all of them, in order, then call `step` again.
    Perform(Vec<DiskOp>),
    /// The last step read this many bytes. Call `step` again.
    Read {
        bytes: u64,
    },
    Ready(Box<Member>),
}

#[derive(Debug)]
pub struct Recovery {
    config: Config,
    files: SharedFiles,
    seed: u64,
    lane: LaneQueue,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Start,
    Wal(Box<WalRecovery>),
    /// The log is there; the store is not open yet.
    Log(Box<Recovered>),
    Done,
}

fn io(path: &str, error: std::io::Error) -> OpenError {
    OpenError::Io { path: path.to_owned(), error: error.to_string() }
}

impl Recovery {
    /// `seed` is the root of the member's random streams; a real driver draws a new one each time.
    pub fn new(config: Config, files: SharedFiles, seed: u64) -> Result<Self, OpenError> {
        let voters = config.initial_cluster.iter().filter(|m| m.id == config.id).count();
        if voters != 1 && !config.join {
            let id = config.id;
            return Err(OpenError::Config(format!("member {id} is not in the initial cluster")));
        }
        Ok(Self { config, files, seed, lane: LaneQueue::new(), stage: Stage::Start })
    }

    pub fn step(&mut self, now: Instant) -> Result<RecoveryStep, OpenError> {
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Start => self.start(),
            Stage::Wal(recovery) => self.read_wal(recovery),
            Stage::Log(recovered) => self.open_store(*recovered, now),
            Stage::Done => panic!("recovery is over: it gave a member or an error"),
        }
    }

    fn start(&mut self) -> Result<RecoveryStep, OpenError> {
        let segment = self.config.wal_segment_bytes;
        if let Some(recovery) = WalRecovery::new(self.files.clone(), segment)? {
            self.stage = Stage::Wal(Box::new(recovery));
            return Ok(RecoveryStep::Read { bytes: 0 });
        }
        let metadata = self.metadata();
        let wal = Wal::create(metadata, segment, &mut self.lane);
        self.lane.push(DiskAction::CreateDir { path: SNAP_DIR.to_owned() });
        self.stage = Stage::Log(Box::new(Recovered {
            metadata,
            hard_state: Default::default(),
            entries: Vec::new(),
            snapshot: None,
            wal,
            torn_bytes: 0,
            damaged_snaps: Vec::new(),
        }));
        Ok(self.perform())
    }

    fn metadata(&self) -> WalMetadata {
        WalMetadata { node_id: self.config.id.0, cluster_id: self.config.cluster_id }
    }

    fn perform(&mut self) -> RecoveryStep {
        RecoveryStep::Perform(std::mem::take(&mut self.lane.ops))
    }

    fn read_wal(&mut self, mut recovery: Box<WalRecovery>) -> Result<RecoveryStep, OpenError> {
        if let Some(last_index) = recovery.cut_to() {
            self.check_cut(last_index)?;
        }
        match recovery.step(&mut self.lane)? {
            WalStep::Read(bytes) => {
                self.stage = Stage::Wal(recovery);
                Ok(RecoveryStep::Read { bytes })
            }
            WalStep::Perform(ops) => {
                self.stage = Stage::Wal(recovery);
                Ok(RecoveryStep::Perform(ops))
            }
            WalStep::Done(recovered) => {
                self.check_owner(recovered.metadata)?;
                self.finish_install(recovered.snapshot.as_ref())?;
                self.put_aside(&recovered.damaged_snaps);
                self.stage = Stage::Log(recovered);
                Ok(self.perform())
            }
        }
    }

    /// Before a torn tail is cut off: nothing gets into the store that was not durable in the log. Where the store
    /// has more than would be left, no crash tore that tail: it is damaged, and stays as it is for whoever can
    /// read it right.
    fn check_cut(&self, last_index: u64) -> Result<(), OpenError> {
        let has_store = self.files.len(DB_PATH).map_err(|e| io(DB_PATH, e))?.is_some();
        let consistent_index = if has_store { consistent_index(&self.files, DB_PATH)? } else { 0 };
        if consistent_index > last_index {
            return Err(OpenError::BackendAhead { consistent_index, last_index });
        }
        Ok(())
    }

    fn check_owner(&self, found: WalMetadata) -> Result<(), OpenError> {
        let expected = self.metadata();
        if found == expected {
            return Ok(());
        }
        Err(OpenError::OtherCluster {
            found: found.cluster_id,
            found_member: found.node_id,
            expected: expected.cluster_id,
            expected_member: expected.node_id,
        })
    }

    /// An older snap file did: the damaged ones get another name, for somebody to look at.
    fn put_aside(&mut self, damaged: &[(String, String)]) {
        for (path, _) in damaged {
            let to = format!("{path}.broken");
            self.lane.push(DiskAction::Rename { from: path.clone(), to });
        }
        if !damaged.is_empty() {
            self.lane.push(DiskAction::SyncDir { path: SNAP_DIR.to_owned() });
        }
    }

    /// The WAL says that a snapshot was installed: its file may still have its own name.
    fn finish_install(
        &mut self,
        snapshot: Option<&raftpb::SnapshotMetadata>,
    ) -> Result<(), OpenError> {
        let sync = DiskAction::SyncDir { path: SNAP_DIR.to_owned() };
        if let Some(snapshot) = snapshot {
            let from = received_path(snapshot.index);
            if self.files.len(&from).map_err(|e| io(&from, e))?.is_some() {
                sometimes!("snapshot.install-finished-by-recovery");
                self.lane.push(DiskAction::Rename { from, to: DB_PATH.to_owned() });
                self.lane.push(sync.clone());
            }
        }
        // What a crash left of a copy, of a transfer or of an install that was not in the WAL yet.
        let names = self.files.list(SNAP_DIR).map_err(|e| io(SNAP_DIR, e))?;
        let kept = snapshot.map(|s| received_path(s.index));
        for name in names {
            let path = format!("{SNAP_DIR}/{name}");
            let stale = name.ends_with(".snap.db") && Some(&path) != kept.as_ref();
            let unfinished = [RECEIVING_PREFIX, COPY_PREFIX].iter().any(|p| name.starts_with(p));
            if stale || unfinished || name.ends_with(".snap.tmp") {
                sometimes!("snapshot.leftover-removed");
                self.lane.push(DiskAction::Remove { path });
            }
        }
        Ok(())
    }

    fn open_store(&mut self, log: Recovered, now: Instant) -> Result<RecoveryStep, OpenError> {
        let snapshot_count = usize::try_from(self.config.snapshot_count).unwrap_or(usize::MAX);
        let options = StoreOptions {
            batch_interval: self.config.backend_batch_interval,
            batch_ops: self.config.backend_batch_ops,
            // A snapshot is of what is durable in the file: where one is soon due, so is a commit.
            quiet_ops: limits::BACKEND_QUIET_OPS.min(snapshot_count),
            quiet_interval: self.config.backend_quiet_interval,
            sync_interval: self.config.backend_sync_interval,
            resident_bytes_max: None,
        };
        let mut store = Store::open(self.files.clone(), DB_PATH, options)?;
        let applied = store.consistent().index;
        let offset = log.snapshot.as_ref().map_or((0, 0), |s| (s.index, s.term));
        let last_index = log.entries.last().map_or(offset.0, |e| e.index);
        if applied > last_index {
            return Err(OpenError::BackendAhead { consistent_index: applied, last_index });
        }
        if applied < offset.0 {
            let what = format!(
                "the backend ends at index {applied}, the WAL begins after snapshot {}",
                offset.0
            );
            return Err(OpenError::FileDamaged { path: DB_PATH.to_owned(), what });
        }
        let mut hard_state = log.hard_state;
        hard_state.commit = hard_state.commit.max(offset.0).max(applied).min(last_index);
        // Entries are written before the hard state of their batch: a crash between leaves a term
        // that nobody was told of.
        let last_term = log.entries.last().map_or(offset.1, |e| e.term);
        sometimes!(applied < hard_state.commit, "recovery.backend-behind");
        if last_term > hard_state.term {
            sometimes!("recovery.term-from-entries");
            hard_state.term = last_term;
            hard_state.vote = 0;
        }
        let conf_state = match &store.consistent().conf_state {
            Some(state) => state.clone(),
            None => {
                let state = self.initial_conf_state();
                store.set_conf_state(state.clone());
                state
            }
        };
        let restart = Restart {
            offset,
            entries: log.entries,
            hard_state,
            conf_state: conf_state_from_pb(&conf_state),
            applied,
        };
        let mut lane = std::mem::take(&mut self.lane);
        lane.ops.clear();
        // A life of its own for every start, also where the driver's seed is the same.
        let life = crate::raft::mix(now.ns ^ last_index) ^ crate::raft::mix(self.config.id.0);
        let seed = self.seed ^ life;
        let node = RaftNode::new(&self.config, self.seed, restart, log.wal, lane, now);
        let mut member = Member::new(
            Parts {
                config: self.config.clone(),
                files: self.files.clone(),
                rng: ChaCha8Rng::seed_from_u64(seed),
                node,
                store,
                snapshot_index: offset.0,
                snap_files: self.snap_files(log.snapshot.as_ref())?,
            },
            now,
        );
        for (path, what) in &log.damaged_snaps {
            member.report_damage(path, what);
        }
        if log.torn_bytes > 0 {
            member.report_torn_tail(log.torn_bytes);
        }
        Ok(RecoveryStep::Ready(Box::new(member)))
    }

    fn initial_conf_state(&self) -> raftpb::ConfState {
        if self.config.join {
            return raftpb::ConfState::default();
        }
        let mut voters: Vec<u64> = self.config.initial_cluster.iter().map(|m| m.id.0).collect();
        voters.sort_unstable();
        raftpb::ConfState { voters, ..Default::default() }
    }

    /// Oldest first: names start with term and index in hex. What lies past `newest` belongs to no
    /// record of the log (an install was cut short) and must not count as one to keep.
    fn snap_files(
        &self,
        newest: Option<&raftpb::SnapshotMetadata>,
    ) -> Result<Vec<String>, OpenError> {
        let Some(newest) = newest.map(|metadata| encode_snap(metadata).0) else {
            return Ok(Vec::new());
        };
        let names = self
            .files
            .list(SNAP_DIR)
            .map_err(|e| OpenError::Io { path: SNAP_DIR.to_owned(), error: e.to_string() })?;
        Ok(names.into_iter().filter(|n| n.ends_with(".snap") && *n <= newest).collect())
    }
}
