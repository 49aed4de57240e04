//! A committed entry becomes state, reply and events. No time and no randomness decides anything
//! here: entry + state → response, the same on every member.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use raft::eraftpb::EntryType;

use super::{Member, space};
use crate::api::Response;
use crate::entry;
use crate::error::ApiError;
use crate::mvcc::{Applied, Bucket};
use crate::pb::{etcdserverpb as pb, leasepb};
use crate::sometimes;

impl Member {
    /// Applies what may be applied. Returns whether anything was but keys and values, which nothing
    /// that comes before it in a turn looks at.
    pub(super) fn apply_committed(&mut self) -> bool {
        let limit = self.node.apply_limit();
        let mut others = false;
        while self.applied < limit && self.halt.is_none() {
            let index = self.applied + 1;
            let entry = self.node.entry(index).expect("committed entries are in the log");
            let (term, is_change) = (entry.term, entry.get_entry_type() != EntryType::EntryNormal);
            // A configuration takes effect only where it is durable (rules 6).
            if is_change && index > self.node.persisted_index() {
                break;
            }
            if is_change {
                let entry = entry.clone();
                self.apply_conf_change(&entry);
                others = true;
            } else {
                let data = entry.data.clone();
                others |= !self.apply(index, term, &data);
            }
            self.applied = index;
            self.store.set_applied(index, term);
        }
        self.node.on_applied(self.applied);
        others
    }

    /// Returns whether the entry changed keys and values and did nothing else.
    fn apply(&mut self, index: u64, term: u64, data: &Bytes) -> bool {
        if data.is_empty() {
            self.on_empty_entry(term);
            return false;
        }
        // Whoever proposed it decoded it: a member that cannot has other bytes or code.
        match entry::decode(data) {
            Ok(request) => {
                self.apply_request(&request);
                let is_plain = request.put.is_some()
                    || request.txn.is_some()
                    || request.delete_range.is_some();
                // One that went past the quota has proposed the alarm: Raft has something to do.
                is_plain && !self.is_raising_no_space()
            }
            Err(e) => {
                let why = format!("log entry {index} cannot be decoded: {e}");
                self.halt = Some(crate::Halt::Backend(why));
                false
            }
        }
    }

    fn apply_request(&mut self, request: &pb::InternalRaftRequest) {
        let id = request.header.as_ref().map_or(request.id, |h| h.id);
        let has_room = self.has_room(space::entry_cost_bytes(request));
        let result = self.check_alarms(request).and_then(|()| self.perform(request));
        let proposal = self.pending.remove(id);
        let client = proposal.as_ref().and_then(|p| p.client);
        if result.is_ok() && !has_room {
            sometimes!("space.applied-over-quota");
            // Applied, as everywhere: the size of one member's file decides nothing but this.
            self.raise_no_space();
            client.into_iter().for_each(|client| self.answer_no_space(client));
            return;
        }
        let (Some(proposal), Some(client)) = (proposal, client) else { return };
        match result {
            Ok(response) => {
                if proposal.physical {
                    self.physical.push((self.store.compact_revision(), client));
                } else {
                    let response = self.with_header(response);
                    self.reply(client, Ok(response));
                }
            }
            Err(error) => self.reply(client, Err(error)),
        }
    }

    fn perform(&mut self, request: &pb::InternalRaftRequest) -> Result<Response, ApiError> {
        if let Some(r) = &request.put {
            let lessor = &self.lessor;
            let applied = self.store.put(r, &|id| lessor.exists(id))?;
            Ok(self.publish(applied))
        } else if let Some(r) = &request.txn {
            let lessor = &self.lessor;
            let applied = self.store.txn(r, &|id| lessor.exists(id))?;
            Ok(self.publish(applied))
        } else if let Some(r) = &request.delete_range {
            let applied = self.store.delete_range(r)?;
            Ok(self.publish(applied))
        } else if let Some(r) = &request.compaction {
            self.store.compact(r.revision)?;
            Ok(Response::Compact(pb::CompactionResponse::default()))
        } else if let Some(r) = &request.lease_grant {
            self.apply_grant(r)
        } else if let Some(r) = &request.lease_revoke {
            self.apply_revoke(r.id)
        } else if let Some(r) = &request.alarm {
            Ok(self.apply_alarm(r))
        } else if let Some(r) = &request.cluster_member_attr_set {
            self.cluster.set_attributes(&mut self.store, r.clone());
            Ok(Response::Compact(pb::CompactionResponse::default()))
        } else if let Some(r) = &request.cluster_version_set {
            self.cluster.set_version(&mut self.store, r.ver.clone());
            Ok(Response::Compact(pb::CompactionResponse::default()))
        } else {
            Err(ApiError::Unimplemented("this log entry"))
        }
    }

    /// Events to the watchers, lease moves to the lessor; the response on.
    fn publish(&mut self, applied: Applied) -> Response {
        self.lessor.on_moves(&applied.lease_moves);
        self.notify(&applied);
        applied.response
    }

    fn notify(&mut self, applied: &Applied) {
        if let Some(events) = &applied.events {
            self.watches.on_applied(events, &applied.previous, &self.reader);
        }
    }

    fn apply_grant(&mut self, r: &pb::LeaseGrantRequest) -> Result<Response, ApiError> {
        if !self.lessor.grant(r.id, r.ttl) {
            return Err(ApiError::LeaseExists);
        }
        let row = leasepb::Lease { id: r.id, ttl: r.ttl, remaining_ttl: 0 };
        let key = r.id.to_be_bytes().to_vec();
        self.store.put_row(Bucket::Lease, key.into(), row.encode_to_vec().into());
        // An effect outside the replicated state: only the leader's lessor looks at time.
        self.lessor.stamp(self.now, r.id);
        self.metrics.add(&self.metrics.lease_granted_total);
        let ttl_secs = u64::try_from(r.ttl).unwrap_or(0);
        self.metrics.lease_ttl.observe(Duration::from_secs(ttl_secs));
        let response = pb::LeaseGrantResponse { id: r.id, ttl: r.ttl, ..Default::default() };
        Ok(Response::LeaseGrant(response))
    }

    fn apply_revoke(&mut self, id: i64) -> Result<Response, ApiError> {
        let keys = self.lessor.revoke(id).ok_or(ApiError::LeaseNotFound)?;
        self.store.delete_row(Bucket::Lease, &id.to_be_bytes());
        let applied = self.store.delete_keys(&keys);
        self.notify(&applied);
        self.metrics.add(&self.metrics.lease_revoked_total);
        self.on_lease_gone(id);
        Ok(Response::LeaseRevoke(pb::LeaseRevokeResponse::default()))
    }

    fn apply_alarm(&mut self, r: &pb::AlarmRequest) -> Response {
        use pb::alarm_request::AlarmAction as A;
        let member = pb::AlarmMember { member_id: r.member_id, alarm: r.alarm };
        let all = pb::AlarmType::None as i32;
        let alarms = match r.action() {
            A::Get => {
                let rows = self.cluster.alarms();
                rows.filter(|a| r.alarm == all || a.alarm == r.alarm).collect()
            }
            A::Activate if r.alarm == all => Vec::new(),
            A::Activate => {
                self.cluster.raise(&mut self.store, member);
                self.show_alarms();
                vec![member]
            }
            A::Deactivate => {
                let had = self.cluster.disarm(&mut self.store, member);
                self.show_alarms();
                if had { vec![member] } else { Vec::new() }
            }
        };
        Response::Alarm(pb::AlarmResponse { header: None, alarms })
    }

    /// The first entry of a leader's term: from here on it may serve reads and expire leases.
    fn on_empty_entry(&mut self, term: u64) {
        let first = !self.lead.term_started;
        if first && self.node.is_leader() && term == self.node.term() {
            self.lessor.promote(self.now);
            self.lead.retry_reads = true;
            self.lead.term_started = true;
        }
    }

    /// Completes the header that the store left at the revision.
    fn with_header(&self, mut response: Response) -> Response {
        let ours = self.header();
        let fill = |header: &mut Option<pb::ResponseHeader>| {
            let revision = header.as_ref().map_or(ours.revision, |h| h.revision);
            *header = Some(pb::ResponseHeader { revision, ..ours });
        };
        match &mut response {
            Response::Put(r) => fill(&mut r.header),
            Response::DeleteRange(r) => fill(&mut r.header),
            Response::Txn(r) => fill(&mut r.header),
            Response::Compact(r) => fill(&mut r.header),
            Response::LeaseGrant(r) => fill(&mut r.header),
            Response::LeaseRevoke(r) => fill(&mut r.header),
            Response::Alarm(r) => fill(&mut r.header),
            _ => {}
        }
        response
    }
}
