//! What an operator or a checker may look at, between bursts.

use std::sync::Arc;

use bytes::Bytes;
use raft::eraftpb::EntryType;

use super::Member;
use crate::event::MemberId;
use crate::metrics::Metrics;
use crate::pb::etcdserverpb as pb;

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct MemberStatus {
    pub id: MemberId,
    pub role: Role,
    pub leader: Option<MemberId>,
    pub term: u64,
    /// Known committed.
    pub commit_index: u64,
    /// Applied: visible to readers. Invariant: `applied_index <= commit_index`.
    pub applied_index: u64,
    /// Last index in the local log.
    pub last_index: u64,
    /// Last index that is durable in the local WAL.
    pub persisted_index: u64,
    pub revision: i64,
    pub compact_revision: i64,
    pub voters: Vec<MemberId>,
    pub learners: Vec<MemberId>,
    /// `X.Y.0`, once the leader has set it.
    pub cluster_version: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Role {
    #[default]
    Follower,
    PreCandidate,
    Candidate,
    Leader,
}

/// What a checker sees of a member's Raft state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RaftFacts {
    pub role: Role,
    pub term: u64,
    /// Whom it voted for in its term.
    pub vote: Option<MemberId>,
    /// Known committed, and in the log here: what Raft accepted and nothing has written is not.
    pub commit_index: u64,
    /// Last index of the log in memory.
    pub last_index: u64,
    /// Last index that is durable here: what a leader counts for itself.
    pub persisted_index: u64,
    /// Index before the first entry kept.
    pub offset: u64,
    /// The first index written since the last look; after open that of the first entry kept.
    pub changed_from: Option<u64>,
}

/// An entry of the log, as a checker sees it.
#[derive(Clone, Copy, Debug)]
pub struct LogEntry<'a> {
    pub term: u64,
    /// A configuration change.
    pub is_change: bool,
    /// An encoded `InternalRaftRequest` or `ConfChange`; empty at the start of a term.
    pub data: &'a Bytes,
}

impl Member {
    pub fn status(&self) -> MemberStatus {
        let state = self.node.conf_state();
        let ids = |ids: &[u64]| {
            let mut ids: Vec<MemberId> = ids.iter().copied().map(MemberId).collect();
            ids.sort_unstable();
            ids
        };
        MemberStatus {
            id: self.config.id,
            role: self.node.role(),
            leader: self.node.leader(),
            term: self.node.term(),
            commit_index: self.node.commit_index(),
            applied_index: self.applied,
            last_index: self.node.last_index(),
            persisted_index: self.node.persisted_index(),
            revision: self.store.revision(),
            compact_revision: self.store.compact_revision(),
            voters: ids(&state.voters),
            learners: ids(&state.learners),
            cluster_version: self.cluster.version().map(str::to_owned),
        }
    }

    /// Role, term and known leader: the part of the status that costs nothing to look at.
    pub fn raft_view(&self) -> (Role, u64, Option<MemberId>) {
        (self.node.role(), self.node.term(), self.node.leader())
    }

    /// The Raft state, for a checker; marks the log as looked at.
    pub fn take_raft_facts(&mut self) -> RaftFacts {
        let changed_from = self.node.take_log_change();
        let vote = self.node.vote();
        let last_index = self.node.store().last();
        RaftFacts {
            role: self.node.role(),
            term: self.node.term(),
            vote: (vote != 0).then_some(MemberId(vote)),
            commit_index: self.node.visible_commit(),
            last_index,
            persisted_index: self.node.persisted_index(),
            offset: self.node.store().first() - 1,
            changed_from,
        }
    }

    /// An entry that is still in memory.
    pub fn log_entry(&self, index: u64) -> Option<LogEntry<'_>> {
        let entry = self.node.entry(index)?;
        let is_change = entry.get_entry_type() != EntryType::EntryNormal;
        Some(LogEntry { term: entry.term, is_change, data: &entry.data })
    }

    /// Term of an entry in memory, or of the one just before the first.
    pub fn log_term(&self, index: u64) -> Option<u64> {
        self.node.term_at(index)
    }

    /// Serves what a learner may; so does a member that knows no configuration yet.
    pub(super) fn is_learner(&self) -> bool {
        self.node.is_learner() || self.node.is_blank()
    }

    pub(super) fn status_response(&self) -> pb::StatusResponse {
        let sizes = self.store.sizes();
        let mut errors = Vec::new();
        if self.node.leader().is_none() {
            errors.push("etcdserver: no leader".to_owned());
        }
        errors.extend(self.cluster.alarms().map(|a| {
            let alarm = a.alarm().as_str_name();
            format!("memberID:{} alarm:{alarm} ", a.member_id)
        }));
        pb::StatusResponse {
            header: Some(self.header()),
            version: self.config.version.clone(),
            db_size: sizes.total_bytes as i64,
            leader: self.node.leader().map_or(0, |l| l.0),
            raft_index: self.node.commit_index(),
            raft_term: self.node.term(),
            raft_applied_index: self.applied,
            errors,
            db_size_in_use: sizes.in_use_bytes as i64,
            is_learner: self.is_learner(),
            storage_version: crate::cluster::cluster_version(&self.config.version),
            db_size_quota: self.config.quota_bytes.unwrap_or(0) as i64,
            downgrade_info: Some(pb::DowngradeInfo::default()),
        }
    }

    /// Counters and gauges of the member, shared; the driver renders them for /metrics.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// (applied index, hash over the whole replicated state): equal on all members with the same
    /// applied index.
    pub fn state_hash(&self) -> (u64, u64) {
        (self.applied, self.store.state_hash())
    }

    pub(super) fn update_metrics(&mut self) {
        let m = &self.metrics;
        let watches = self.watches.counts();
        m.has_leader.set(self.node.leader().is_some().into());
        m.is_leader.set(self.node.is_leader().into());
        m.is_learner.set(self.is_learner().into());
        m.proposals_committed_total.set(self.node.commit_index());
        m.proposals_applied_total.set(self.applied);
        m.proposals_pending.set(self.pending.len() as u64);
        m.wal_write_bytes_total.set(self.node.wal_bytes());
        m.compaction_rows_total.set(self.store.compacted_rows());
        m.defrag_inflight.set(self.store.has_defrag().into());
        m.heartbeat_send_failures_total.set(self.node.late_heartbeats());
        m.snapshot_apply_in_progress.set(self.node.is_installing().into());
        m.watcher_total.set(watches.watchers);
        m.watch_stream_total.set(watches.streams);
        m.slow_watcher_total.set(watches.slow);
        m.watch_buffered_bytes.set(watches.buffered_bytes);
        // The rest lies behind the store's lock, and only an entry, a job or a new file changes it.
        let now = Some((self.applied, self.last_job, self.jobs_under_way));
        if std::mem::replace(&mut self.measured_at, now) != now {
            let m = &self.metrics;
            let sizes = self.store.sizes();
            m.db_total_size_in_bytes.set(sizes.total_bytes);
            m.db_total_size_in_use_in_bytes.set(sizes.in_use_bytes);
            m.keys_total.set(sizes.keys);
            m.current_revision.set(self.store.revision() as u64);
            m.compact_revision.set(self.store.compact_revision().max(0) as u64);
        }
    }
}
