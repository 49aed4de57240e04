//! Leases: which exist, what is attached to them, and (on the leader only) when they fall due (surface spec §5).
//!
//! Start at [`Lessor`]. Apply changes the set; time enters only outside apply, on the leader (rules 18).
//! `expiry` has the leader's half: who falls due when, in rounds of 500 ms.

mod expiry;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use crate::mvcc::LeaseMove;
use crate::pb::leasepb;
use crate::time::Instant;
use expiry::Schedule;

/// All leases of the store; the same on every member but for the times.
///
/// Invariant: a key is attached to at most one lease.
#[derive(Debug)]
pub struct Lessor {
    leases: BTreeMap<i64, Lease>,
    /// Extra life given at a leader change.
    election: Duration,
    /// `Some` on the leader.
    schedule: Option<Schedule>,
}

#[derive(Debug)]
struct Lease {
    ttl_secs: i64,
    /// When its time is over. `FAR` where leases do not expire: on followers.
    expiry: Instant,
    /// When to look at it: `expiry`, or later when its revoke is under way.
    due: Instant,
    keys: BTreeSet<Bytes>,
}

impl Lease {
    fn new(ttl_secs: i64) -> Self {
        Self { ttl_secs, expiry: Instant::FAR, due: Instant::FAR, keys: BTreeSet::new() }
    }

    fn ttl(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.ttl_secs).unwrap_or(0))
    }
}

/// Answer to a time-to-live question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimeToLive {
    /// Whole seconds left, truncated; negative when the revoke is late.
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
    pub fn new(election: Duration) -> Self {
        Self { leases: BTreeMap::new(), election, schedule: None }
    }

    /// Rebuilds from the `lease` bucket and the leased keys after open or install.
    ///
    /// The member leads nothing at that moment: `promote` starts the clocks.
    pub fn restore(&mut self, leases: Vec<leasepb::Lease>, keys: Vec<(Bytes, i64)>) {
        self.schedule = None;
        self.leases = leases.into_iter().map(|l| (l.id, Lease::new(l.ttl))).collect();
        for (key, id) in keys {
            self.attach(id, key);
        }
    }

    /// False when the id is in use.
    pub fn grant(&mut self, id: i64, ttl_secs: i64) -> bool {
        assert!(id != 0, "lease id 0 means no lease: an id is chosen before the proposal");
        if self.leases.contains_key(&id) {
            return false;
        }
        self.leases.insert(id, Lease::new(ttl_secs));
        true
    }

    /// Removes the lease; its keys in ascending order, or `None` when there is no such lease.
    pub fn revoke(&mut self, id: i64) -> Option<Vec<Bytes>> {
        let lease = self.leases.remove(&id)?;
        if let Some(schedule) = &mut self.schedule {
            schedule.remove(lease.due, id);
        }
        Some(lease.keys.into_iter().collect())
    }

    pub fn exists(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    /// Keys changed their leases, in order. A move from a lease that is gone (its revoke deleted
    /// the keys) has nothing to detach.
    pub fn on_moves(&mut self, moves: &[LeaseMove]) {
        for LeaseMove { key, from, to } in moves {
            if let Some(lease) = self.leases.get_mut(from) {
                lease.keys.remove(key);
            }
            self.attach(*to, key.clone());
        }
    }

    fn attach(&mut self, id: i64, key: Bytes) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.insert(key);
        }
    }

    pub fn count(&self) -> usize {
        self.leases.len()
    }
}
