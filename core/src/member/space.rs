//! The quota of the backend and the alarms (surface spec §7.1, §16.6, §16.7).
//!
//! Whoever is over its quota says so by an alarm that goes through the log, so that all members refuse
//! the same entries: whether a write is *applied* never depends on the size of one member's file.
//! Looked at twice: before a write is proposed, and when it is applied (what was proposed or queued
//! before the limit was reached is in the log and is applied; its client is told all the same).

use super::Member;
use crate::api::{Request, RequestId};
use crate::error::ApiError;
use crate::event::Level;
use crate::limits;
use crate::mvcc::Cost;
use crate::pb::etcdserverpb::{self as pb, AlarmType, alarm_request::AlarmAction};
use crate::sometimes;

/// The NOSPACE alarm that this member is about to raise for itself.
#[derive(Default, Debug)]
pub struct SpaceDesk {
    /// Id of its proposal.
    raising: Option<u64>,
    /// Told "no space" once the alarm is there, or is not going to be: a client that looks for the
    /// reason then finds it.
    waiting: Vec<RequestId>,
}

fn cost_bytes(request: &Request) -> u64 {
    match request {
        Request::Put(r) => r.cost_bytes(),
        Request::Txn(r) => r.cost_bytes(),
        Request::LeaseGrant(r) => r.cost_bytes(),
        _ => 0,
    }
}

/// The cost of an entry, as [`cost_bytes`].
pub fn entry_cost_bytes(request: &pb::InternalRaftRequest) -> u64 {
    let put = request.put.as_ref().map_or(0, Cost::cost_bytes);
    let txn = request.txn.as_ref().map_or(0, Cost::cost_bytes);
    put + txn + request.lease_grant.as_ref().map_or(0, Cost::cost_bytes)
}

/// Whether a corrupt cluster refuses the entry: everything that changes keys, leases or history.
fn is_refused_when_corrupt(request: &pb::InternalRaftRequest) -> bool {
    request.put.is_some()
        || request.delete_range.is_some()
        // One that only reads is in no log.
        || request.txn.is_some()
        || request.compaction.is_some()
        || request.lease_grant.is_some()
        || request.lease_revoke.is_some()
}

impl Member {
    /// What the alarms that are applied say to an entry: the same on every member.
    pub(super) fn check_alarms(&self, request: &pb::InternalRaftRequest) -> Result<(), ApiError> {
        if self.cluster.has_alarm(AlarmType::Corrupt) && is_refused_when_corrupt(request) {
            return Err(ApiError::Corrupt);
        }
        if self.cluster.has_alarm(AlarmType::Nospace) && entry_cost_bytes(request) > 0 {
            sometimes!("space.refused");
            return Err(ApiError::NoSpace);
        }
        Ok(())
    }

    /// Whether this member's backend has room for `cost` more bytes.
    pub(super) fn has_room(&self, cost: u64) -> bool {
        let Some(quota) = self.config.quota_bytes.filter(|_| cost > 0) else { return true };
        let sizes = self.store.sizes();
        sizes.total_bytes + sizes.unwritten_bytes + cost < quota
    }

    /// Before anything else is looked at: a request that may not fit is not proposed, and the alarm is
    /// raised. Returns whether it was refused.
    pub(super) fn refuse_over_quota(&mut self, client: RequestId, request: &Request) -> bool {
        let cost = cost_bytes(request);
        let refused = !self.has_room(cost);
        if refused {
            self.answer_no_space(client);
        }
        refused
    }

    /// Raises this member's alarm if need be and answers the client once that is settled.
    pub(super) fn answer_no_space(&mut self, client: RequestId) {
        self.raise_no_space();
        let waits = self.space.raising.is_some();
        if waits && self.space.waiting.len() < limits::PENDING_REQUESTS_MAX {
            self.space.waiting.push(client);
        } else {
            self.reply(client, Err(ApiError::NoSpace));
        }
    }

    /// Proposes this member's NOSPACE alarm, unless it is there or on its way.
    pub(super) fn raise_no_space(&mut self) {
        let ours =
            pb::AlarmMember { member_id: self.config.id.0, alarm: AlarmType::Nospace.into() };
        if self.space.raising.is_some() || self.cluster.alarms().any(|alarm| alarm == ours) {
            return;
        }
        let sizes = self.store.sizes();
        let fields = vec![
            ("quota-size-bytes", self.config.quota_bytes.unwrap_or(0).to_string()),
            ("quota-size", sizes.total_bytes.to_string()),
        ];
        self.log(Level::Warn, "message exceeded backend quota; raising alarm", fields);
        sometimes!("space.alarm-raised");
        self.space.raising = self.propose_alarm(ours);
    }

    /// Its proposal is on its way.
    pub(super) fn is_raising_no_space(&self) -> bool {
        self.space.raising.is_some()
    }

    /// `None` when it was refused (the member is overloaded).
    pub(super) fn propose_alarm(&mut self, alarm: pb::AlarmMember) -> Option<u64> {
        let activate = pb::AlarmRequest {
            action: AlarmAction::Activate.into(),
            member_id: alarm.member_id,
            alarm: alarm.alarm,
        };
        let request = pb::InternalRaftRequest { alarm: Some(activate), ..Default::default() };
        self.propose_own(request)
    }

    /// For who looks from outside, on any thread.
    pub(super) fn show_alarms(&self) {
        *self.metrics.alarms.lock() = self.cluster.alarms().collect();
    }

    /// The alarm was applied, or given up: whoever waited for it is answered.
    pub(super) fn settle_space(&mut self) {
        if self.space.raising.is_some_and(|id| self.pending.get(id).is_none()) {
            self.space.raising = None;
            for client in std::mem::take(&mut self.space.waiting) {
                self.reply(client, Err(ApiError::NoSpace));
            }
        }
    }
}
