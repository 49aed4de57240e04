//! Keep-alives and time-to-live: answered by a leader that has just proved that it leads; others
//! ask it. Expiry: proposed by the leader (surface spec §5, rules 18).

use std::collections::BTreeMap;

use rand_core::Rng;

use super::Member;
use super::requests::{ReadWaiter, ReadWhat};
use crate::api::{RequestId, Response};
use crate::error::ApiError;
use crate::event::MemberId;
use crate::lease::Renewal;
use crate::limits;
use crate::pb::etcdserverpb as pb;
use crate::pb::peer::{self, Frame, frame::Body};
use crate::time::Instant;
use crate::{buggify, sometimes};

/// A question about a lease.
#[derive(Clone, Copy, Debug)]
pub struct LeaseAsk {
    from: Asker,
    lease_id: i64,
    /// Keep-alive; otherwise time-to-live.
    renew: bool,
    keys: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asker {
    Client(RequestId),
    /// A peer, under its own request id.
    Peer(MemberId, u64),
}

impl LeaseAsk {
    pub fn client(id: RequestId, lease_id: i64, renew: bool, keys: bool) -> Self {
        Self { from: Asker::Client(id), lease_id, renew, keys }
    }
}

/// A client's question that is, or waits to be, with the leader.
#[derive(Debug)]
struct Asked {
    client: RequestId,
    ask: LeaseAsk,
    /// Sampled before the renewal, so never newer than it.
    header: pb::ResponseHeader,
    started: Instant,
    sent_to: Option<MemberId>,
}

#[derive(Default, Debug)]
pub struct LeaseDesk {
    /// By an id that no other life of this member used: an answer to an earlier life is for nobody.
    asked: BTreeMap<u64, Asked>,
    /// Renewals of leases whose revoke is under way: answered when it is applied.
    expiring: BTreeMap<i64, Vec<LeaseAsk>>,
    /// Invariant: their number, at most `PENDING_REQUESTS_MAX`.
    expiring_count: usize,
}

impl LeaseDesk {
    pub fn is_asking(&self) -> bool {
        !self.asked.is_empty()
    }

    pub fn on_peer_down(&mut self, peer: MemberId) {
        // A renewal may be asked twice: it only sets a deadline.
        for asked in self.asked.values_mut().filter(|a| a.sent_to == Some(peer)) {
            asked.sent_to = None;
        }
    }
}

impl Member {
    /// Id 0 becomes a free positive one; the time to live is raised to the minimum.
    pub(super) fn complete_grant(&mut self, mut r: pb::LeaseGrantRequest) -> pb::LeaseGrantRequest {
        while r.id == 0 {
            let id = (self.rng.next_u64() >> 1) as i64;
            if !self.lessor.exists(id) {
                r.id = id;
            }
        }
        r.ttl = r.ttl.max(self.config.lease_ttl_secs_min());
        r
    }

    pub(super) fn ask_lease(&mut self, ask: LeaseAsk) {
        if self.node.is_leader() {
            return self.read_later(ReadWhat::Lease(ask));
        }
        let Asker::Client(client) = ask.from else {
            return self.refuse_lease(ask);
        };
        if self.leases.asked.len() >= limits::PENDING_REQUESTS_MAX {
            return self.reply(client, Err(ApiError::TooManyRequests));
        }
        let id = self.pending.next_id(&mut self.rng);
        let header = self.header();
        let asked = Asked { client, ask, header, started: self.now, sent_to: None };
        self.leases.asked.insert(id, asked);
        self.send_lease_asks();
    }

    /// Sends what is not with a leader yet.
    pub(super) fn send_lease_asks(&mut self) {
        let Some(leader) = self.node.leader() else { return };
        if leader == self.config.id {
            let asks = std::mem::take(&mut self.leases.asked);
            for asked in asks.into_values() {
                self.read_later(ReadWhat::Lease(asked.ask));
            }
            return;
        }
        if !self.peers_up.contains_key(&leader) {
            return;
        }
        for (id, asked) in self.leases.asked.iter_mut().filter(|(_, a)| a.sent_to.is_none()) {
            asked.sent_to = Some(leader);
            sometimes!("lease.asked-leader");
            let LeaseAsk { lease_id, renew, keys, .. } = asked.ask;
            let forward = peer::LeaseForward { request_id: *id, lease_id, renew, keys };
            self.frames.push((leader, Frame { body: Some(Body::LeaseForward(forward)) }));
        }
    }

    pub(super) fn handle_lease_forward(&mut self, from: MemberId, f: peer::LeaseForward) {
        let ask = LeaseAsk {
            from: Asker::Peer(from, f.request_id),
            lease_id: f.lease_id,
            renew: f.renew,
            keys: f.keys,
        };
        self.ask_lease(ask);
    }

    pub(super) fn handle_lease_reply(&mut self, from: MemberId, r: peer::LeaseReply) {
        let Some(asked) = self.leases.asked.get_mut(&r.request_id) else { return };
        if asked.sent_to != Some(from) {
            return;
        }
        if r.not_leader {
            sometimes!("lease.asked-non-leader");
            asked.sent_to = None; // asked again at the next tick
            return;
        }
        let asked = self.leases.asked.remove(&r.request_id).expect("looked at above");
        let response = lease_response(asked.header, asked.ask.renew, r);
        self.reply(asked.client, Ok(response));
    }

    /// This member leads and has applied everything committed when the question came.
    pub(super) fn answer_lease(&mut self, ask: LeaseAsk) {
        if !self.lessor.is_primary() {
            return self.refuse_lease(ask);
        }
        let mut answer = peer::LeaseReply { lease_id: ask.lease_id, ..Default::default() };
        if ask.renew {
            match self.lessor.renew(self.now, ask.lease_id) {
                Renewal::Renewed { ttl_secs } => {
                    self.metrics.add(&self.metrics.lease_renewed_total);
                    answer.found = true;
                    answer.ttl = ttl_secs;
                }
                Renewal::Unknown => {}
                Renewal::Expiring => {
                    sometimes!("lease.renewed-too-late");
                    return self.wait_for_revoke(ask);
                }
            }
        } else if let Some(ttl) = self.lessor.time_to_live(self.now, ask.lease_id) {
            answer.found = true;
            answer.ttl = ttl.ttl_secs;
            answer.granted_ttl = ttl.granted_ttl_secs;
            answer.keys = if ask.keys { ttl.keys } else { Vec::new() };
        }
        self.send_lease_answer(ask, answer);
    }

    fn wait_for_revoke(&mut self, ask: LeaseAsk) {
        if self.leases.expiring_count < limits::PENDING_REQUESTS_MAX {
            self.leases.expiring_count += 1;
            return self.leases.expiring.entry(ask.lease_id).or_default().push(ask);
        }
        match ask.from {
            Asker::Client(client) => self.reply(client, Err(ApiError::TooManyRequests)),
            // Asked again at its next tick.
            Asker::Peer(..) => self.refuse_lease(ask),
        }
    }

    fn send_lease_answer(&mut self, ask: LeaseAsk, mut answer: peer::LeaseReply) {
        match ask.from {
            Asker::Client(client) => {
                let response = lease_response(self.header(), ask.renew, answer);
                self.reply(client, Ok(response));
            }
            Asker::Peer(peer, request_id) => {
                answer.request_id = request_id;
                self.frames.push((peer, Frame { body: Some(Body::LeaseReply(answer)) }));
            }
        }
    }

    /// Not the leader, or no longer.
    pub(super) fn refuse_lease(&mut self, ask: LeaseAsk) {
        match ask.from {
            Asker::Client(client) => self.reply(client, Err(ApiError::LeaderChanged)),
            Asker::Peer(..) => {
                let answer = peer::LeaseReply { not_leader: true, ..Default::default() };
                self.send_lease_answer(ask, answer);
            }
        }
    }

    /// The lease is gone: whoever tried to renew it meanwhile learns so (never revived).
    pub(super) fn on_lease_gone(&mut self, lease_id: i64) {
        let asks = self.leases.expiring.remove(&lease_id).unwrap_or_default();
        self.leases.expiring_count -= asks.len();
        for ask in asks {
            let answer = peer::LeaseReply { lease_id, ..Default::default() };
            self.send_lease_answer(ask, answer);
        }
    }

    pub(super) fn on_lessor_demoted(&mut self) {
        self.lessor.demote();
        self.leases.expiring_count = 0;
        for ask in std::mem::take(&mut self.leases.expiring).into_values().flatten() {
            self.refuse_lease(ask);
        }
    }

    /// Proposes the revoke of what fell due.
    ///
    /// A member that has just learned that it leads no more still has its deadlines, and a proposal would be
    /// sent on to the new leader, who may have renewed the lease: only who leads may propose it.
    pub(super) fn expire_leases(&mut self) {
        if !self.node.is_leader() || self.node.is_transferring() {
            return;
        }
        if !self.lessor.is_due(self.now) {
            return;
        }
        let timeout = self.config.request_timeout();
        let one = buggify!("lease.one-revoke");
        let most = if one { 1 } else { limits::LEASE_REVOKES_PER_ROUND };
        let due = self.lessor.take_expired(self.now, most, timeout);
        for id in due {
            sometimes!("lease.expired");
            self.metrics.add(&self.metrics.lease_expired_total);
            let revoke = pb::LeaseRevokeRequest { id };
            let request =
                pb::InternalRaftRequest { lease_revoke: Some(revoke), ..Default::default() };
            // Refused under load: it falls due again.
            let _ = self.propose(None, request, false);
        }
    }

    /// Asks again what no leader has answered, gives up on what waited too long.
    pub(super) fn look_after_leases(&mut self) {
        self.send_lease_asks();
        let (now, timeout) = (self.now, self.config.request_timeout());
        let over = self.leases.asked.extract_if(.., |_, a| now >= a.started + timeout);
        let clients: Vec<RequestId> = over.map(|(_, a)| a.client).collect();
        for client in clients {
            self.reply(client, Err(ApiError::NoLeader));
        }
    }

    /// A ReadIndex round failed: lease questions go to the next leader, reads hear of it.
    pub(super) fn fail_reads(&mut self, waiters: Vec<ReadWaiter>) {
        for waiter in waiters {
            self.fail_read(waiter.what, ApiError::LeaderChanged);
        }
    }
}

fn lease_response(header: pb::ResponseHeader, renew: bool, r: peer::LeaseReply) -> Response {
    let header = Some(header);
    if renew {
        let ttl = if r.found { r.ttl } else { 0 };
        return Response::LeaseKeepAlive(pb::LeaseKeepAliveResponse {
            header,
            id: r.lease_id,
            ttl,
        });
    }
    let ttl = if r.found { r.ttl } else { -1 };
    Response::LeaseTimeToLive(pb::LeaseTimeToLiveResponse {
        header,
        id: r.lease_id,
        ttl,
        granted_ttl: r.granted_ttl,
        keys: r.keys,
    })
}
