//! Leases: which exist, what is attached to them, and (on the leader only) when they fall due (surface spec §5).
//!
//! Start at [`Lessor`]. Apply changes the set; time enters only outside apply, on the leader (rules 18).

use std::time::Duration;

use bytes::Bytes;

use crate::mvcc::LeaseMove;
use crate::pb::leasepb;
use crate::time::Instant;

#[derive(Debug)]
pub struct Lessor {}

/// Answer to a time-to-live question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimeToLive {
    /// Whole seconds left, truncated.
    pub ttl_secs: i64,
    pub granted_ttl_secs: i64,
    pub keys: Vec<Bytes>,
}

/// Answer to a keep-alive on the leader.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Renewal {
    Renewed {
        ttl_secs: i64,
    },
    /// No such lease: TTL 0.
    Unknown,
    /// Past its expiry, its revoke under way: answer when the revoke is applied (never revived).
    Expiring,
}

impl Lessor {
    /// `election`: extra life given at a leader change.
    pub fn new(_election: Duration) -> Self {
        unimplemented!()
    }

    /// Rebuilds from the `lease` bucket and the leased keys after open or install.
    pub fn restore(&mut self, _leases: Vec<leasepb::Lease>, _keys: Vec<(Bytes, i64)>) {
        unimplemented!()
    }

    // -- apply

    /// False when the id is in use.
    pub fn grant(&mut self, _id: i64, _ttl_secs: i64) -> bool {
        unimplemented!()
    }

    /// Removes the lease; its keys in ascending order, or `None` when there is no such lease.
    pub fn revoke(&mut self, _id: i64) -> Option<Vec<Bytes>> {
        unimplemented!()
    }

    pub fn exists(&self, _id: i64) -> bool {
        unimplemented!()
    }

    pub fn on_moves(&mut self, _moves: &[LeaseMove]) {
        unimplemented!()
    }

    // -- leader only

    /// Became leader and applied the first entry of the term: every lease gets full TTL plus one election timeout;
    /// with ≥ 1000 leases at most 750 a second fall due.
    pub fn promote(&mut self, _now: Instant) {
        unimplemented!()
    }

    /// No longer leader: nothing expires here.
    pub fn demote(&mut self) {
        unimplemented!()
    }

    pub fn is_primary(&self) -> bool {
        unimplemented!()
    }

    /// Stamps the expiry of a lease granted while leader. No-op otherwise.
    pub fn stamp(&mut self, _now: Instant, _id: i64) {
        unimplemented!()
    }

    pub fn renew(&mut self, _now: Instant, _id: i64) -> Renewal {
        unimplemented!()
    }

    pub fn time_to_live(&self, _now: Instant, _id: i64) -> Option<TimeToLive> {
        unimplemented!()
    }

    /// Ids due now whose revoke is not under way, at most `max`; marks them as under way until
    /// revoked or `retry_after` passed.
    pub fn take_expired(&mut self, _now: Instant, _max: usize, _retry_after: Duration) -> Vec<i64> {
        unimplemented!()
    }

    /// When the next lease falls due (rounded up to the 500 ms rounds of etcd).
    pub fn next_deadline(&self) -> Option<Instant> {
        unimplemented!()
    }

    /// All ids; by expiry on the leader, by id elsewhere.
    pub fn list(&self) -> Vec<i64> {
        unimplemented!()
    }

    pub fn count(&self) -> usize {
        unimplemented!()
    }
}
