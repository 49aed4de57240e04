//! What changes with the leader: promotion and demotion, hand-over of a stalled leader, the
//! member's announcement of itself, planned stop.

use super::Member;
use crate::api::{RequestId, Response};
use crate::error::{ApiError, Halt};
use crate::event::{Level, MemberId};
use crate::limits;
use crate::pb::{etcdserverpb as pb, membershippb};
use crate::sometimes;
use crate::time::Instant;

#[derive(Debug)]
pub struct Lead {
    known: Option<MemberId>,
    was_leader: bool,
    /// When the present leader became known.
    pub elected_at: Instant,
    /// The first entry of this leader's term is applied.
    pub term_started: bool,
    /// Repeat the ReadIndex round in flight now: the leader could not answer it before.
    pub retry_reads: bool,
    /// Queued requests may have somebody to go to.
    pub dispatch: bool,
    /// Clients of MoveLeader: target, deadline.
    moving: Vec<(RequestId, MemberId, Instant)>,
    /// Leadership was handed over because of this stall.
    handed_over: bool,
    /// This member's own proposals under way.
    publishing: Option<u64>,
    pub versioning: Option<u64>,
    /// Both are done: nothing to look at in every burst.
    pub introduced: bool,
    /// Index of the entry that removed this member.
    pub removed_at: Option<u64>,
    /// A planned stop began.
    pub stopping: Option<Instant>,
    /// Applied when nothing was left to hand over: the stop makes it durable.
    last_applied: Option<u64>,
}

impl Lead {
    pub fn new(now: Instant) -> Self {
        Self {
            known: None,
            was_leader: false,
            elected_at: now,
            term_started: false,
            retry_reads: false,
            dispatch: false,
            moving: Vec::new(),
            handed_over: false,
            publishing: None,
            versioning: None,
            introduced: false,
            removed_at: None,
            stopping: None,
            last_applied: None,
        }
    }
}

impl Member {
    /// Reacts to a change of leader or role. Returns whether something was sent.
    pub(super) fn on_leadership(&mut self) -> bool {
        let leader = self.node.leader();
        let is_leader = self.node.is_leader();
        if self.lead.was_leader && !is_leader {
            self.lead.term_started = false;
            self.on_lessor_demoted();
            self.abort_sends();
        }
        self.lead.was_leader = is_leader;
        let mut sent = std::mem::take(&mut self.lead.dispatch);
        if leader != self.lead.known {
            self.lead.known = leader;
            self.lead.introduced = false;
            if leader.is_some() {
                self.lead.elected_at = self.now;
                self.metrics.add(&self.metrics.leader_changes_seen_total);
                let failed = self.reads.fail_flight();
                self.metrics.read_indexes_failed_total.add((!failed.is_empty()).into());
                sometimes!(!failed.is_empty(), "reads.failed-by-new-leader");
                self.fail_reads(failed);
                sent = true;
            }
        }
        if sent {
            self.dispatch();
            self.send_lease_asks();
        }
        self.finish_moves();
        self.introduce() || sent
    }

    /// Once there is a leader: this member publishes its name and client URLs, the leader the
    /// cluster version.
    fn introduce(&mut self) -> bool {
        let quiet = self.lead.introduced || self.lead.stopping.is_some();
        if quiet || self.node.leader().is_none() {
            return false;
        }
        let mut sent = false;
        let done = self.lead.publishing.is_none_or(|id| self.pending.get(id).is_none());
        if done && !self.cluster.is_published(&self.config) && !self.is_overtaken() {
            let attributes = membershippb::Attributes {
                name: self.config.name.clone(),
                client_urls: self.config.client_urls.clone(),
            };
            let set = membershippb::ClusterMemberAttrSetRequest {
                member_id: self.config.id.0,
                member_attributes: Some(attributes),
            };
            let request = pb::InternalRaftRequest {
                cluster_member_attr_set: Some(set),
                ..Default::default()
            };
            self.lead.publishing = self.propose_own(request);
            sent |= self.lead.publishing.is_some();
        }
        sent |= self.maybe_set_version();
        let is_settled = !self.node.is_leader() || self.cluster_version_due().is_none();
        self.lead.introduced = self.cluster.version().is_some()
            && is_settled
            && self.cluster.is_published(&self.config);
        sent
    }

    /// `None` when it was refused (the member is overloaded): tried again in the next burst.
    pub(super) fn propose_own(&mut self, request: pb::InternalRaftRequest) -> Option<u64> {
        let id = self.propose(None, request, false).ok()?;
        self.pending.get(id).is_some().then_some(id)
    }

    /// A restarted member publishes only after it has applied what the log already says of it.
    fn is_overtaken(&self) -> bool {
        self.applied < self.node.commit_index()
    }

    // -- hand-over

    pub(super) fn handle_move_leader(&mut self, id: RequestId, target: MemberId) {
        if !self.node.is_leader() {
            return self.reply(id, Err(ApiError::NotLeader));
        }
        if !self.node.is_voter(target) {
            return self.reply(id, Err(ApiError::BadLeaderTransferee));
        }
        let deadline = self.now + self.config.election;
        self.lead.moving.push((id, target, deadline));
        if target != self.config.id {
            self.node.transfer_leader(target);
        }
    }

    fn finish_moves(&mut self) {
        if self.lead.moving.is_empty() {
            return;
        }
        let (leader, now) = (self.node.leader(), self.now);
        let over: Vec<_> = self
            .lead
            .moving
            .extract_if(.., |(_, target, deadline)| leader == Some(*target) || now >= *deadline)
            .collect();
        for (id, target, _) in over {
            let moved = leader == Some(target);
            let response = Response::MoveLeader(pb::MoveLeaderResponse::default());
            self.reply(id, if moved { Ok(response) } else { Err(ApiError::TimeoutLeaderTransfer) });
        }
    }

    fn stall_limit(&self) -> std::time::Duration {
        self.config.election * limits::STALL_ELECTION_TIMEOUTS
    }

    /// A leader whose disk has not answered for 10 election timeouts hands leadership to a healthy
    /// follower (rules 2). Coupled, it lost it long before.
    pub(super) fn check_stall(&mut self) {
        let stalled = self.node.stalled_for(self.now);
        let alarm = u64::from(stalled >= self.config.election);
        if alarm == 1 && self.metrics.slow_disk_alarm.load() == 0 {
            let took = format!("{} ms", stalled.as_millis());
            self.log(Level::Warn, "slow fdatasync", vec![("took", took)]);
        }
        self.metrics.slow_disk_alarm.set(alarm);
        if stalled < self.stall_limit() {
            self.lead.handed_over = false;
            return;
        }
        if self.lead.handed_over || !self.node.is_leader() {
            return;
        }
        if let Some(to) = self.node.best_transferee() {
            self.lead.handed_over = true;
            sometimes!("lead.handed-over");
            self.transfer(to, "slow disk");
        }
    }

    pub(super) fn stall_deadline(&self) -> Option<Instant> {
        let limits = [self.config.election, self.stall_limit()];
        limits.into_iter().filter_map(|d| self.node.stall_deadline(d)).find(|at| *at > self.now)
    }

    // -- planned stop

    pub(super) fn handle_stop(&mut self) {
        if self.lead.stopping.is_some() {
            return;
        }
        self.lead.stopping = Some(self.now);
        self.abort_defrag();
        self.answer_defrag(&Err(ApiError::Stopped));
        if self.node.is_leader()
            && let Some(to) = self.node.best_transferee()
        {
            self.transfer(to, "planned stop");
        }
    }

    pub(super) fn transfer(&mut self, to: MemberId, reason: &str) {
        self.metrics.add(&self.metrics.planned_transfers_total);
        let fields = vec![("to", to.to_string()), ("reason", reason.to_owned())];
        self.log(Level::Info, "leadership transfer starting", fields);
        self.node.transfer_leader(to);
    }

    /// Leadership gone (or nobody to take it), everything applied by then durable: over.
    ///
    /// A follower goes on getting entries; it does not wait for the leader to fall silent.
    pub(super) fn maybe_finish_stop(&mut self) {
        let Some(since) = self.lead.stopping else { return };
        let waits = self.is_seeing_removal_through() || self.node.is_transferring();
        let leads = self.node.is_leader();
        if leads && waits && self.now < since + self.config.election {
            return;
        }
        self.store.request_immediate();
        if self.store.is_swapping() {
            return;
        }
        let last = *self.lead.last_applied.get_or_insert(self.applied);
        // A quorum of one commits nothing without its own disk, so an idle WAL says all is applied.
        let is_durable = if leads {
            self.node.is_wal_idle() && self.store.is_durable()
        } else {
            self.store.durable_index() >= last
        };
        if is_durable && self.jobs_under_way == 0 {
            sometimes!("lead.planned-stop");
            let removed = self.lead.removed_at.is_some();
            self.halt = Some(if removed { Halt::Removed } else { Halt::Stopped });
        }
    }
}
