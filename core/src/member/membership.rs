//! Membership changes: checked, proposed one at a time, applied; the end of a member that is removed.
//!
//! ```text
//! client ─► guards (serving member) ─► leader: valid? none pending? not itself? ─► log ─► apply: valid? ─► list, Raft
//!                                        └─ itself: leadership goes first, the change waits ─┘
//! ```

use bytes::Bytes;
use prost::Message as _;
use raft::eraftpb::Entry;
use rand_core::Rng as _;

use super::Member;
use super::pending::{Place, Proposal};
use crate::api::{Request, RequestId, Response};
use crate::cluster::{Change, MemberInfo, new_member_id, parse_urls};
use crate::error::{ApiError, Halt};
use crate::event::{Level, MemberId, Peer};
use crate::pb::etcdserverpb as pb;
use crate::pb::peer::{self, Frame, forward_refused::Refusal, frame::Body};
use crate::pb::raftpb;
use crate::raft::{conf_change_v2, conf_state_to_pb};
use crate::sometimes;

/// A peer counts as connected after so long without a break (etcd's value).
const HEALTHY_AFTER: std::time::Duration = std::time::Duration::from_secs(5);
/// The wire version that forwards membership changes.
const WIRE_CHANGES: u32 = 2;
/// A learner is in sync with this many percent of the leader's log (etcd's value).
const READY_PERCENT: u64 = 90;

/// Heartbeats for which the connection to a removed member is kept.
const FAREWELL_HEARTBEATS: u32 = 10;

/// Remotes that are connected to at once.
const REMOTES_MAX: usize = 16;

/// Changes kept for [`Member::take_changes`].
const CHANGES_KEPT: usize = 64;

/// A membership change that this member has applied, for a checker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AppliedChange {
    /// Of the log entry.
    pub index: u64,
    pub kind: ChangeKind,
    pub member: MemberId,
    /// The configuration from here on, by ascending id.
    pub voters: Vec<MemberId>,
    pub learners: Vec<MemberId>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeKind {
    AddVoter,
    AddLearner,
    Promote,
    Remove,
    Update,
}

/// What a leader does with a change.
enum Verdict {
    Proposed,
    /// Not now: another change is pending, or leadership has to go first.
    Wait,
    Refused(ApiError),
}

/// What a refusal means to the client.
pub fn change_error(refusal: Refusal) -> ApiError {
    match refusal {
        Refusal::MemberNotFound => ApiError::MemberNotFound,
        Refusal::MemberExists => ApiError::MemberExists,
        Refusal::PeerUrlExists => ApiError::PeerUrlExists,
        Refusal::MemberNotLearner => ApiError::MemberNotLearner,
        Refusal::LearnerNotReady => ApiError::LearnerNotReady,
        Refusal::TooManyLearners => ApiError::TooManyLearners,
        Refusal::NotEnoughStarted => ApiError::NotEnoughStarted,
        Refusal::NotLeader | Refusal::TooManyRequests | Refusal::Dropped => {
            ApiError::ProposalDropped
        }
    }
}

fn refusal(error: &ApiError) -> Refusal {
    match error {
        ApiError::MemberNotFound => Refusal::MemberNotFound,
        ApiError::MemberExists => Refusal::MemberExists,
        ApiError::PeerUrlExists => Refusal::PeerUrlExists,
        ApiError::MemberNotLearner => Refusal::MemberNotLearner,
        ApiError::LearnerNotReady => Refusal::LearnerNotReady,
        ApiError::TooManyLearners => Refusal::TooManyLearners,
        ApiError::NotEnoughStarted => Refusal::NotEnoughStarted,
        _ => Refusal::Dropped,
    }
}

impl Member {
    // -- a client asks

    pub(super) fn handle_change_request(&mut self, client: RequestId, request: Request) {
        let checked = self.read_change(request).and_then(|change| {
            self.guard(&change)?;
            Ok(change)
        });
        if let Err(error) = checked.and_then(|change| self.queue_change(client, &change)) {
            self.reply(client, Err(error));
        }
    }

    fn read_change(&mut self, request: Request) -> Result<Change, ApiError> {
        let urls = |urls: &[String]| parse_urls(urls).ok_or(ApiError::MemberBadUrls);
        Ok(match request {
            Request::MemberAdd(r) => {
                let peer_urls = urls(&r.peer_ur_ls)?;
                let id = new_member_id(&peer_urls, self.rng.next_u64());
                let new = MemberInfo { peer_urls, ..MemberInfo::nameless(id) };
                Change::Add(MemberInfo { is_learner: r.is_learner, ..new })
            }
            Request::MemberRemove(r) => Change::Remove(MemberId(r.id)),
            Request::MemberPromote(r) => Change::Promote(MemberId(r.id)),
            Request::MemberUpdate(r) => {
                let peer_urls = urls(&r.peer_ur_ls)?;
                Change::Update(MemberInfo { peer_urls, ..MemberInfo::nameless(MemberId(r.id)) })
            }
            other => unreachable!("{other:?} is no membership change"),
        })
    }

    /// `--strict-reconfig-check`, as the serving member sees the cluster (surface spec §6). The
    /// leader judges promotions.
    fn guard(&self, change: &Change) -> Result<(), ApiError> {
        let is_judged_here = matches!(change, Change::Add(_) | Change::Remove(_));
        if !self.config.strict_reconfig_check || !is_judged_here {
            return Ok(());
        }
        if !self.cluster.has_started_quorum_after(change) {
            return Err(ApiError::NotEnoughStarted);
        }
        let voters = self.cluster.voters().count();
        let connected = self.connected_voters();
        match change {
            // A quorum of the voters and the new one.
            Change::Add(_) if voters > 1 && connected <= voters.div_ceil(2) => {
                Err(ApiError::Unhealthy)
            }
            Change::Remove(id) if self.cluster.is_voter(*id) => {
                let is_down = *id != self.config.id && !self.peers_up.contains_key(id);
                // `voters` counts the one that goes.
                let enough = connected.saturating_sub(1) > (voters - 1) / 2;
                if is_down || enough { Ok(()) } else { Err(ApiError::Unhealthy) }
            }
            _ => Ok(()),
        }
    }

    /// Voters with which this member has been connected for a while, itself included.
    fn connected_voters(&self) -> usize {
        let voters = self.cluster.voters().filter(|voter| {
            let id = MemberId(voter.id);
            let since = self.peers_up.get(&id);
            id == self.config.id || since.is_some_and(|since| self.now >= *since + HEALTHY_AFTER)
        });
        voters.count()
    }

    fn queue_change(&mut self, client: RequestId, change: &Change) -> Result<(), ApiError> {
        if self.is_overloaded() {
            return Err(ApiError::TooManyRequests);
        }
        let id = self.pending.next_id(&mut self.rng);
        let known = self.cluster.member(change.member());
        let data = Bytes::from(change.to_pb(id, known).encode_to_vec());
        let (client, started, place) = (Some(client), self.now, Place::Queued);
        let proposal = Proposal { client, started, data, place, physical: false, change: true };
        self.pending.insert(id, proposal);
        self.dispatch();
        Ok(())
    }

    // -- on its way to the log

    /// Sends queued changes to whoever can propose them now.
    pub(super) fn dispatch_changes(&mut self, reachable: Option<MemberId>) {
        while let Some((id, proposal)) = self.pending.front_change() {
            let data = proposal.data.clone();
            if self.node.is_leader() {
                match self.try_change(&data) {
                    Verdict::Proposed => self.set_place(id, Place::Proposed),
                    Verdict::Wait => return,
                    Verdict::Refused(error) => self.fail(id, error),
                }
            } else if let Some(leader) = reachable {
                if self.wire_version(leader) < WIRE_CHANGES {
                    // It would refuse for ever: its client has to ask the leader itself.
                    self.fail(id, ApiError::NotLeader);
                    continue;
                }
                self.set_place(id, Place::Forwarded(leader));
                let forward = peer::Forward { request_id: id, request: data, conf_change: true };
                self.frames.push((leader, Frame { body: Some(Body::Forward(forward)) }));
            } else {
                return;
            }
        }
    }

    fn set_place(&mut self, id: u64, place: Place) {
        if let Some((front, proposal)) = self.pending.front_change() {
            assert_eq!(front, id, "the change that was looked at is still the first");
            proposal.place = place;
        }
    }

    /// A follower's client asks through us. `None`: it is in the log.
    pub(super) fn handle_forwarded_change(&mut self, data: Bytes) -> Option<Refusal> {
        if self.config.wire_version < WIRE_CHANGES {
            return Some(Refusal::NotLeader);
        }
        match self.try_change(&data) {
            Verdict::Proposed => None,
            // Surely not proposed: the serving member sends it again in a while.
            Verdict::Wait => Some(Refusal::NotLeader),
            Verdict::Refused(error) => Some(refusal(&error)),
        }
    }

    /// On the leader: proposes the change if it may be made now.
    fn try_change(&mut self, data: &Bytes) -> Verdict {
        let decoded = raftpb::ConfChange::decode(data.clone()).ok();
        let Some(change) = decoded.as_ref().and_then(Change::read) else {
            return Verdict::Refused(ApiError::ProposalDropped);
        };
        let is_settled = self.lead.term_started && self.lead.stopping.is_none();
        if !is_settled || self.node.has_pending_conf() || self.node.is_transferring() {
            return Verdict::Wait;
        }
        let judged = self.cluster.validate(&change).and_then(|()| self.judge(&change));
        if let Err(error) = judged {
            if matches!(change, Change::Promote(_)) {
                let mut failures = self.metrics.learner_promote_failures.lock();
                *failures.entry(error.to_string()).or_default() += 1;
            }
            return Verdict::Refused(error);
        }
        if change == Change::Remove(self.config.id) {
            // raft-rs would go on leading: somebody else has to, and removes us then.
            if let Some(to) = self.node.best_transferee() {
                self.transfer(to, "removal of the leader");
            }
            return Verdict::Wait;
        }
        // Re-encoded: raft-rs' decoder sees bytes that we made (rules 5).
        let data = decoded.expect("read above").encode_to_vec();
        if self.node.propose_change(data.into()) { Verdict::Proposed } else { Verdict::Wait }
    }

    /// What only the leader can know.
    fn judge(&self, change: &Change) -> Result<(), ApiError> {
        match change {
            Change::Add(new)
                if new.is_learner && self.cluster.learners() >= self.config.learners_max =>
            {
                Err(ApiError::TooManyLearners)
            }
            Change::Promote(id) => {
                let (matched, last) = self.node.progress_of(*id).ok_or(ApiError::MemberNotFound)?;
                if matched * 100 < last * READY_PERCENT {
                    return Err(ApiError::LearnerNotReady);
                }
                let strict = self.config.strict_reconfig_check;
                if strict && !self.cluster.has_started_quorum_after(change) {
                    return Err(ApiError::NotEnoughStarted);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    // -- out of the log

    pub(super) fn apply_conf_change(&mut self, entry: &Entry) {
        self.snapshots.last_conf_index = entry.index;
        self.lead.dispatch = true; // the next change may go
        let Ok(pb) = raftpb::ConfChange::decode(entry.data.clone()) else {
            // raft-rs turns a refused change into an empty one.
            return;
        };
        // The same on every member: it depends on the log alone.
        let valid = Change::read(&pb)
            .ok_or(ApiError::ProposalDropped)
            .and_then(|change| self.cluster.validate(&change).map(|()| change));
        let change = match valid {
            Ok(change) => change,
            Err(error) => {
                let fields = vec![("error", error.to_string())];
                self.log(Level::Warn, "rejected a membership change", fields);
                return self.fail(pb.id, error);
            }
        };
        if let Some(v2) = conf_change_v2(&pb) {
            match self.node.apply_conf_change(&v2) {
                Ok(state) => self.store.set_conf_state(conf_state_to_pb(&state)),
                Err(error) => {
                    let why = format!("membership change at {} failed: {error}", entry.index);
                    self.halt = Some(Halt::Backend(why));
                    return;
                }
            }
        }
        if let (Change::Remove(id), Some(gone)) = (&change, self.cluster.member(change.member())) {
            let peer = Peer { id: *id, urls: gone.peer_urls.clone() };
            self.farewells.push((peer, self.now + self.config.heartbeat * FAREWELL_HEARTBEATS));
        }
        self.cluster.apply_change(&mut self.store, &change);
        if matches!(change, Change::Promote(_)) && self.node.is_leader() {
            self.metrics.add(&self.metrics.learner_promote_successes);
        }
        self.peers_changed = true;
        self.lead.introduced = false;
        self.note_change(entry.index, &change);
        self.log_change(&change);
        if let Some(client) = self.pending.remove(pb.id).and_then(|p| p.client) {
            let response = self.change_response(&change);
            self.reply(client, Ok(response));
        }
        if change == Change::Remove(self.config.id) {
            self.begin_leaving(entry.index);
        }
    }

    /// The member list and Raft's configuration are one.
    fn note_change(&mut self, index: u64, change: &Change) {
        let status = self.status();
        let listed: Vec<MemberId> = self.cluster.voters().map(|m| MemberId(m.id)).collect();
        assert_eq!(listed, status.voters, "voters of the list are the voters of Raft");
        assert_eq!(self.cluster.learners(), status.learners.len(), "and learners the learners");
        let kind = match change {
            Change::Add(new) if new.is_learner => ChangeKind::AddLearner,
            Change::Add(_) => ChangeKind::AddVoter,
            Change::Promote(_) => ChangeKind::Promote,
            Change::Remove(_) => ChangeKind::Remove,
            Change::Update(_) => ChangeKind::Update,
        };
        let (member, voters, learners) = (change.member(), status.voters, status.learners);
        if self.changes.len() == CHANGES_KEPT {
            self.changes.pop_front();
        }
        self.changes.push_back(AppliedChange { index, kind, member, voters, learners });
    }

    /// The newest membership changes applied since the last call, at most 64.
    pub fn take_changes(&mut self) -> impl Iterator<Item = AppliedChange> + '_ {
        self.changes.drain(..)
    }

    fn change_response(&self, change: &Change) -> Response {
        let header = Some(pb::ResponseHeader { revision: 0, ..self.header() });
        let members: Vec<pb::Member> = self.cluster.members().map(MemberInfo::to_pb).collect();
        match change {
            Change::Add(new) => {
                let member = Some(new.to_pb());
                Response::MemberAdd(pb::MemberAddResponse { header, member, members })
            }
            Change::Promote(_) => {
                Response::MemberPromote(pb::MemberPromoteResponse { header, members })
            }
            Change::Remove(_) => {
                Response::MemberRemove(pb::MemberRemoveResponse { header, members })
            }
            Change::Update(_) => {
                Response::MemberUpdate(pb::MemberUpdateResponse { header, members })
            }
        }
    }

    fn log_change(&mut self, change: &Change) {
        let urls = |member: &MemberInfo| member.peer_urls.join(",");
        let (msg, mut fields) = match change {
            Change::Add(new) => (
                "added member",
                vec![
                    ("added-peer-peer-urls", urls(new)),
                    ("added-peer-is-learner", new.is_learner.to_string()),
                ],
            ),
            Change::Promote(_) => ("promote member", Vec::new()),
            Change::Remove(_) => ("removed member", Vec::new()),
            Change::Update(new) => {
                ("updated member", vec![("updated-remote-peer-urls", urls(new))])
            }
        };
        fields.insert(0, ("cluster-id", format!("{:x}", self.config.cluster_id)));
        fields.insert(1, ("local-member-id", self.config.id.to_string()));
        fields.insert(2, ("member-id", change.member().to_string()));
        self.log(Level::Info, msg, fields);
    }

    // -- the end

    /// This member has applied its own removal: it serves nobody from here on. A leader stays until
    /// the others know of the commit, else two members that become one would be stuck.
    fn begin_leaving(&mut self, index: u64) {
        self.lead.removed_at = Some(index);
        if self.lead.stopping.is_none() {
            self.lead.stopping = Some(self.now);
        }
        for waiter in self.reads.remove(|_| true) {
            self.fail_read(waiter.what, ApiError::Stopped);
        }
    }

    /// A removed leader hands over as soon as its followers know of the removal. Returns whether
    /// it still has to wait for that.
    pub(super) fn is_seeing_removal_through(&mut self) -> bool {
        let (Some(index), true) = (self.lead.removed_at, self.node.is_leader()) else {
            return false;
        };
        if !self.node.is_transferring()
            && self.node.have_voters_committed(index)
            && let Some(to) = self.node.best_transferee()
        {
            self.transfer(to, "removed from the cluster");
        }
        true
    }

    /// Whom the driver connects to: everybody else, who was removed a moment ago, that the commit of
    /// its removal may reach it, and remotes.
    pub(super) fn peers(&mut self) -> Vec<Peer> {
        // Of these the member list says more by now.
        self.remotes.retain(|remote| self.cluster.is_unheard_of(remote.id));
        let mut peers = self.cluster.peers_of(self.config.id);
        peers.extend(self.remotes.iter().cloned());
        let leaving = self.farewells.iter().map(|(peer, _)| peer);
        peers.extend(leaving.filter(|peer| peer.id != self.config.id).cloned());
        peers
    }

    pub(super) fn end_farewells(&mut self) {
        if self.farewells.is_empty() {
            return;
        }
        let before = self.farewells.len();
        self.farewells.retain(|(_, until)| self.now < *until);
        self.peers_changed |= self.farewells.len() != before;
    }

    /// Somebody of this cluster whom the member list here has never had. It joined after all that this
    /// member has applied; and should it lead by now, it alone can bring this member further, which takes
    /// answers.
    pub(super) fn handle_remote(&mut self, peer: Peer) {
        let is_news = !self.remotes.contains(&peer);
        let is_stranger = peer.id != self.config.id && self.cluster.is_unheard_of(peer.id);
        if !is_news || !is_stranger || peer.urls.is_empty() {
            return;
        }
        sometimes!("membership.remote");
        self.remotes.retain(|remote| remote.id != peer.id);
        if self.remotes.len() == REMOTES_MAX {
            self.remotes.remove(0);
        }
        let fields = vec![
            ("remote-peer-id", peer.id.to_string()),
            ("remote-peer-urls", peer.urls.join(",")),
        ];
        self.log(Level::Info, "added remote peer", fields);
        self.remotes.push(peer);
        self.peers_changed = true;
    }

    /// A peer that is a member says that we were removed: we did not see it ourselves.
    pub(super) fn handle_refused_as_removed(&mut self, peer: MemberId) {
        if self.cluster.member(peer).is_some() {
            self.halt = Some(Halt::Removed);
        }
    }

    /// After open: the directory may be that of a removed member.
    pub(super) fn check_removed(&mut self) {
        if self.cluster.is_removed(self.config.id) {
            self.halt = Some(Halt::Removed);
        }
    }
}
