//! A client's request: checked, then proposed, forwarded to the leader, or read.

use bytes::Bytes;
use prost::Message as _;
use raft::eraftpb::EntryType;

use super::Member;
use super::leases::LeaseAsk;
use super::membership::change_error;
use super::pending::{Place, Proposal};
use crate::api::{ReadReady, Request, RequestId, Response};
use crate::entry;
use crate::error::ApiError;
use crate::event::MemberId;
use crate::limits;
use crate::mvcc;
use crate::pb::etcdserverpb as pb;
use crate::pb::peer::{self, Frame, forward_refused::Refusal, frame::Body};
use crate::time::Instant;
use crate::{buggify, sometimes};

/// Somebody who waits for a ReadIndex round.
#[derive(Debug)]
pub struct ReadWaiter {
    pub started: Instant,
    pub what: ReadWhat,
}

#[derive(Debug)]
pub enum ReadWhat {
    Read {
        client: RequestId,
        request: Request,
    },
    MemberList {
        client: RequestId,
    },
    /// The corruption check, which must know that this member still led after all peers had answered.
    CorruptionCheck,
    /// A question about a lease that only a leader of the current term may answer.
    Lease(LeaseAsk),
}

/// Whether an operation of the txn is a txn.
fn nests(txn: &pb::TxnRequest) -> bool {
    use pb::request_op::Request as Op;
    let mut ops = txn.success.iter().chain(&txn.failure);
    ops.any(|op| matches!(op.request, Some(Op::RequestTxn(_))))
}

impl Member {
    pub(super) fn handle_request(&mut self, id: RequestId, request: Request) {
        if let Err(error) = self.may_ask(&request) {
            return self.reply(id, Err(error));
        }
        if self.refuse_over_quota(id, &request) {
            return;
        }
        if let Err(error) = self.admit(&request) {
            return self.reply(id, Err(error));
        }
        match request {
            Request::Range(ref r) if r.serializable => self.read_now(id, request),
            Request::Range(_) => self.read_later(ReadWhat::Read { client: id, request }),
            Request::Txn(ref t) => match mvcc::txn_is_read_only(t) {
                Some(read) if read.serializable => self.read_now(id, request),
                Some(_) => self.read_later(ReadWhat::Read { client: id, request }),
                None => self.propose_request(id, request),
            },
            Request::Put(_)
            | Request::DeleteRange(_)
            | Request::Compact(_)
            | Request::LeaseGrant(_)
            | Request::LeaseRevoke(_)
            | Request::Alarm(_) => self.propose_request(id, request),
            Request::LeaseKeepAlive(r) => self.ask_lease(LeaseAsk::client(id, r.id, true, false)),
            Request::LeaseTimeToLive(r) => {
                self.ask_lease(LeaseAsk::client(id, r.id, false, r.keys));
            }
            Request::LeaseLeases(_) => {
                let leases = self.lessor.list().into_iter().map(|id| pb::LeaseStatus { id });
                let leases = leases.collect();
                let response = pb::LeaseLeasesResponse { header: Some(self.header()), leases };
                self.reply(id, Ok(Response::LeaseLeases(response)));
            }
            Request::Status(_) => {
                let response = self.status_response();
                self.reply(id, Ok(Response::Status(response)));
            }
            Request::MemberList(r) if r.linearizable => {
                self.read_later(ReadWhat::MemberList { client: id });
            }
            Request::MemberList(_) => self.reply_member_list(id),
            Request::MemberAdd(_)
            | Request::MemberRemove(_)
            | Request::MemberUpdate(_)
            | Request::MemberPromote(_) => self.handle_change_request(id, request),
            Request::Defragment(_) => self.handle_defragment(id),
            Request::Hash(_) => self.hash_file(id),
            Request::HashKv(_) => self.read_now(id, request),
            Request::MoveLeader(r) => self.handle_move_leader(id, MemberId(r.target_id)),
        }
    }

    /// Who may not be asked at all, or not this.
    fn may_ask(&self, request: &Request) -> Result<(), ApiError> {
        if self.lead.stopping.is_some() {
            return Err(ApiError::Stopped);
        }
        let serializable = matches!(request, Request::Range(r) if r.serializable);
        if self.is_learner() && !serializable && !matches!(request, Request::Status(_)) {
            return Err(ApiError::NotSupportedForLearner);
        }
        Ok(())
    }

    /// What is refused before anything is done about it.
    fn admit(&self, request: &Request) -> Result<(), ApiError> {
        mvcc::validate(request, self.config.txn_ops_max)?;
        match request {
            Request::LeaseGrant(r) if r.ttl > limits::LEASE_TTL_SECS_MAX => {
                Err(ApiError::LeaseTtlTooLarge)
            }
            Request::Alarm(r) if pb::alarm_request::AlarmAction::try_from(r.action).is_err() => {
                Err(ApiError::InvalidArgument(format!("alarm action {} is unknown", r.action)))
            }
            Request::Alarm(r) if pb::AlarmType::try_from(r.alarm).is_err() => {
                Err(ApiError::InvalidArgument(format!("alarm type {} is unknown", r.alarm)))
            }
            _ => Ok(()),
        }
    }

    // -- writes

    fn propose_request(&mut self, client: RequestId, request: Request) {
        // By far the most are puts.
        if let Request::Put(put) = &request {
            let proposed = self.proposal_id(Some(client)).and_then(|id| {
                let data = entry::encode_put(id, put);
                self.queue(Some(client), id, data, false)
            });
            if let Err(error) = proposed {
                self.reply(client, Err(error));
            }
            return;
        }
        let mut raft = pb::InternalRaftRequest::default();
        let mut physical = false;
        match request {
            Request::DeleteRange(r) => raft.delete_range = Some(r),
            Request::Txn(r) => raft.txn = Some(r),
            Request::Compact(r) => {
                physical = r.physical;
                raft.compaction = Some(r);
            }
            Request::LeaseGrant(r) => raft.lease_grant = Some(self.complete_grant(r)),
            Request::LeaseRevoke(r) => raft.lease_revoke = Some(r),
            Request::Alarm(r) => raft.alarm = Some(r),
            other => unreachable!("{other:?} is not a write"),
        }
        if let Err(error) = self.propose(Some(client), raft, physical) {
            self.reply(client, Err(error));
        }
    }

    /// Gives the request an id and sends it on its way. Every choice is made before this (rules 8).
    pub(super) fn propose(
        &mut self,
        client: Option<RequestId>,
        mut request: pb::InternalRaftRequest,
        physical: bool,
    ) -> Result<u64, ApiError> {
        let id = self.proposal_id(client)?;
        request.header = Some(pb::RequestHeader { id, ..Default::default() });
        let data = Bytes::from(request.encode_to_vec());
        // In the log it lies one level deeper than it came, and the decoder's depth is bounded:
        // an entry that cannot be decoded would halt every member, for good.
        if request.txn.as_ref().is_some_and(nests)
            && data.len() <= self.config.request_bytes_max
            && pb::InternalRaftRequest::decode(data.clone()).is_err()
        {
            return Err(ApiError::InvalidArgument("txn is nested too deep".to_owned()));
        }
        self.queue(client, id, data, physical)
    }

    /// An id for a proposal, unless there are too many.
    fn proposal_id(&mut self, client: Option<RequestId>) -> Result<u64, ApiError> {
        let id = self.pending.next_id(&mut self.rng);
        let is_refused = client.is_some() && buggify!("requests.too-many");
        if is_refused || self.is_overloaded() {
            return Err(ApiError::TooManyRequests);
        }
        Ok(id)
    }

    /// `data`: the encoded request, with its id.
    fn queue(
        &mut self,
        client: Option<RequestId>,
        id: u64,
        data: Bytes,
        physical: bool,
    ) -> Result<u64, ApiError> {
        if data.len() > self.config.request_bytes_max {
            return Err(ApiError::RequestTooLarge);
        }
        let (started, place) = (self.now, Place::Queued);
        let proposal = Proposal { client, started, data, place, physical, change: false };
        self.pending.insert(id, proposal);
        self.dispatch();
        Ok(id)
    }

    pub(super) fn is_overloaded(&self) -> bool {
        self.node.commit_index() - self.applied > limits::APPLY_GAP_MAX
            || self.pending.len() >= limits::PENDING_REQUESTS_MAX
            || self.node.unsynced_bytes() > limits::UNSYNCED_BYTES_MAX
    }

    /// Sends queued proposals to whoever can propose them now.
    pub(super) fn dispatch(&mut self) {
        let leader = self.node.leader();
        let is_leader = self.node.is_leader();
        if is_leader && self.node.is_transferring() {
            return; // they go to the new leader
        }
        let reachable = leader.filter(|l| self.peers_up.contains_key(l));
        while let Some((id, proposal)) = self.pending.front_queued() {
            if is_leader {
                let data = proposal.data.clone();
                proposal.place = Place::Proposed;
                if !self.node.propose(EntryType::EntryNormal, data) {
                    self.fail(id, ApiError::ProposalDropped);
                }
            } else if let Some(leader) = reachable {
                proposal.place = Place::Forwarded(leader);
                let request = proposal.data.clone();
                let forward = peer::Forward { request_id: id, request, conf_change: false };
                self.frames.push((leader, Frame { body: Some(Body::Forward(forward)) }));
            } else {
                break;
            }
        }
        self.dispatch_changes(reachable);
    }

    pub(super) fn fail(&mut self, id: u64, error: ApiError) {
        if let Some(client) = self.pending.remove(id).and_then(|p| p.client) {
            self.reply(client, Err(error));
        }
    }

    /// A follower's client asks through us. At most once: never forwarded again (rules 8).
    pub(super) fn handle_forward(&mut self, from: MemberId, forward: peer::Forward) {
        let leads = self.node.is_leader() && self.lead.stopping.is_none();
        let refusal = if !leads || buggify!("requests.refuse-forward") {
            Some(Refusal::NotLeader)
        } else if forward.conf_change {
            self.handle_forwarded_change(forward.request)
        } else if self.is_overloaded() {
            Some(Refusal::TooManyRequests)
        } else if forward.request.len() > self.config.request_bytes_max
            || !self.may_enter_log(&forward.request)
        {
            // Never into the log: every member would stumble over it.
            Some(Refusal::Dropped)
        } else if !self.node.propose(EntryType::EntryNormal, forward.request) {
            sometimes!("requests.refused-by-transfer");
            Some(Refusal::NotLeader)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            let refused =
                peer::ForwardRefused { request_id: forward.request_id, refusal: refusal.into() };
            self.frames.push((from, Frame { body: Some(Body::ForwardRefused(refused)) }));
        }
    }

    /// What the serving member should have checked (`admit`, `complete_grant`), checked again.
    fn may_enter_log(&self, request: &bytes::Bytes) -> bool {
        let Ok(request) = entry::decode(request) else { return false };
        if request.lease_grant.as_ref().is_some_and(|grant| grant.id == 0) {
            return false;
        }
        mvcc::validate_entry(&request, self.config.txn_ops_max).is_ok()
    }

    pub(super) fn handle_forward_refused(&mut self, from: MemberId, refused: peer::ForwardRefused) {
        match refused.refusal() {
            // Not proposed, so it may be sent again: at the next tick, or to the next leader.
            Refusal::NotLeader => {
                sometimes!("requests.requeued");
                self.pending.requeue(refused.request_id, from);
            }
            Refusal::TooManyRequests => self.fail(refused.request_id, ApiError::TooManyRequests),
            Refusal::Dropped => self.fail(refused.request_id, ApiError::ProposalDropped),
            refusal => self.fail(refused.request_id, change_error(refusal)),
        }
    }

    // -- reads

    fn read_now(&mut self, id: RequestId, request: Request) {
        let ready = ReadReady { request, header: self.header() };
        self.reply(id, Ok(Response::ReadReady(ready)));
    }

    /// The hash of the file, once it holds what is applied now.
    fn hash_file(&mut self, id: RequestId) {
        if self.hashing.len() >= limits::PENDING_REQUESTS_MAX {
            return self.reply(id, Err(ApiError::TooManyRequests));
        }
        let index = self.store.request_commit();
        self.hashing.push((id, index));
        self.answer_hashing();
    }

    /// After each job: whose file is far enough.
    pub(super) fn answer_hashing(&mut self) {
        let committed = self.store.committed_index();
        let ready: Vec<_> = self.hashing.extract_if(.., |(_, at)| *at <= committed).collect();
        for (id, _) in ready {
            self.read_now(id, Request::Hash(pb::HashRequest {}));
        }
    }

    pub(super) fn read_later(&mut self, what: ReadWhat) {
        if self.reads.len() >= limits::PENDING_REQUESTS_MAX {
            return self.fail_read(what, ApiError::TooManyRequests);
        }
        self.reads.push(ReadWaiter { started: self.now, what });
    }

    /// Answers the reads whose index has been applied.
    pub(super) fn serve_reads(&mut self) {
        for waiter in self.reads.take_ready(self.applied) {
            match waiter.what {
                ReadWhat::Read { client, request } => self.read_now(client, request),
                ReadWhat::MemberList { client } => self.reply_member_list(client),
                ReadWhat::Lease(ask) => self.answer_lease(ask),
                ReadWhat::CorruptionCheck => self.on_check_confirmed(),
            }
        }
    }

    pub(super) fn fail_read(&mut self, what: ReadWhat, error: ApiError) {
        match what {
            ReadWhat::Read { client, .. } | ReadWhat::MemberList { client } => {
                self.reply(client, Err(error));
            }
            ReadWhat::Lease(ask) => self.refuse_lease(ask),
            ReadWhat::CorruptionCheck => self.abandon_check("no longer the leader"),
        }
    }

    fn reply_member_list(&mut self, id: RequestId) {
        let header = pb::ResponseHeader { revision: 0, ..self.header() };
        let members = self.cluster.members().map(|m| m.to_pb()).collect();
        let response = pb::MemberListResponse { header: Some(header), members };
        self.reply(id, Ok(Response::MemberList(response)));
    }

    // -- deadlines

    pub(super) fn expire_proposals(&mut self) {
        for proposal in self.pending.take_expired(self.now) {
            sometimes!("requests.timed-out");
            self.metrics.add(&self.metrics.proposals_failed_total);
            let error = match proposal.place {
                Place::Queued => ApiError::DeadlineExceeded,
                _ => self.timeout_error(proposal.started),
            };
            if let Some(client) = proposal.client {
                self.reply(client, Err(error));
            }
        }
    }

    /// Every heartbeat interval, while anybody waits for somebody else: sends again what was
    /// refused or found no leader, gives up on what waited too long. No timer per request.
    pub(super) fn maybe_look_after(&mut self) {
        let busy = !self.reads.is_empty() || self.pending.has_queued() || self.leases.is_asking();
        let due = self.look_after.is_some_and(|at| at <= self.now);
        if due || self.look_after.is_none() || !busy {
            self.look_after = busy.then_some(self.now + self.config.heartbeat);
        }
        if !due {
            return;
        }
        self.dispatch();
        let (now, timeout) = (self.now, self.config.request_timeout());
        let late = self.reads.remove(|w| now >= w.started + timeout);
        self.metrics.slow_read_indexes_total.add((!late.is_empty()).into());
        for waiter in late {
            self.fail_read(waiter.what, ApiError::Timeout);
        }
        self.look_after_leases();
    }

    /// Which of etcd's three timeouts it was (surface spec §10.3).
    fn timeout_error(&self, started: Instant) -> ApiError {
        let window = 2 * self.config.election;
        let elected = self.lead.elected_at;
        if started < elected && elected < started + window {
            return ApiError::TimeoutLeaderFailure;
        }
        let connected = match self.node.leader() {
            Some(l) if l == self.config.id => {
                let voters = self.node.conf_state().voters;
                let up = voters.iter().filter(|v| {
                    **v == self.config.id.0
                        || self.peers_up.get(&MemberId(**v)).is_some_and(|s| *s <= started)
                });
                up.count() > voters.len() / 2
            }
            Some(l) => self.peers_up.get(&l).is_some_and(|since| *since <= started),
            None => true,
        };
        if connected { ApiError::Timeout } else { ApiError::TimeoutConnectionLost }
    }
}
