//! The leader's half: when leases fall due. Nothing here is in the log; a new leader starts anew.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Lease, Lessor, Renewal, TimeToLive};
use crate::time::Instant;

/// Time between two looks at what is due (etcd's value). With at most 500 revokes a round: 1000 a second.
const ROUND: Duration = Duration::from_millis(500);
/// With so many leases a new leader spreads their expiries (etcd's value).
const SPREAD_FROM: usize = 1000;
/// At most so many then fall due within a second: three quarters of what can be revoked (etcd's value).
const SPREAD_PER_SEC: usize = 750;

#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// (due, lease id). Invariant: has each lease whose `due` is not `FAR`, with that `due`.
    queue: BTreeSet<(Instant, i64)>,
    /// Not before this is anything taken: a round is over.
    next_round: Instant,
}

impl Schedule {
    pub(super) fn remove(&mut self, due: Instant, id: i64) {
        self.queue.remove(&(due, id));
    }

    fn set(&mut self, id: i64, lease: &mut Lease, due: Instant) {
        self.queue.remove(&(lease.due, id));
        lease.due = due;
        self.queue.insert((due, id));
    }
}

impl Lessor {
    /// Became leader and applied the first entry of the term: every lease gets full TTL plus one election timeout;
    /// with ≥ 1000 leases at most 750 a second fall due.
    pub fn promote(&mut self, now: Instant) {
        let start = now + self.election;
        let mut order: Vec<(Instant, i64)> =
            self.leases.iter().map(|(id, lease)| (start + lease.ttl(), *id)).collect();
        order.sort_unstable();
        if order.len() >= SPREAD_FROM {
            for i in SPREAD_PER_SEC..order.len() {
                let earliest = order[i - SPREAD_PER_SEC].0 + Duration::from_secs(1);
                order[i].0 = order[i].0.max(earliest);
            }
        }
        for (expiry, id) in &order {
            let lease = self.leases.get_mut(id).expect("the ids are the map's own");
            (lease.expiry, lease.due) = (*expiry, *expiry);
        }
        let queue = order.into_iter().collect();
        self.schedule = Some(Schedule { queue, next_round: Instant::ZERO });
    }

    /// No longer leader: nothing expires here.
    pub fn demote(&mut self) {
        self.schedule = None;
        for lease in self.leases.values_mut() {
            (lease.expiry, lease.due) = (Instant::FAR, Instant::FAR);
        }
    }

    pub fn is_primary(&self) -> bool {
        self.schedule.is_some()
    }

    /// Stamps the expiry of a lease granted while leader. No-op otherwise.
    pub fn stamp(&mut self, now: Instant, id: i64) {
        if let (Some(schedule), Some(lease)) = (&mut self.schedule, self.leases.get_mut(&id)) {
            lease.expiry = now + lease.ttl();
            schedule.set(id, lease, lease.expiry);
        }
    }

    /// Renews for the full TTL.
    pub fn renew(&mut self, now: Instant, id: i64) -> Renewal {
        let Some(schedule) = &mut self.schedule else { return Renewal::Unknown };
        let Some(lease) = self.leases.get_mut(&id) else { return Renewal::Unknown };
        if lease.expiry <= now {
            return Renewal::Expiring;
        }
        lease.expiry = now + lease.ttl();
        schedule.set(id, lease, lease.expiry);
        Renewal::Renewed { ttl_secs: lease.ttl_secs }
    }

    /// `None` when there is no such lease. Meaningful on the leader.
    pub fn time_to_live(&self, now: Instant, id: i64) -> Option<TimeToLive> {
        let lease = self.leases.get(&id)?;
        let left_ns = i128::from(lease.expiry.ns) - i128::from(now.ns);
        Some(TimeToLive {
            ttl_secs: (left_ns / 1_000_000_000) as i64,
            granted_ttl_secs: lease.ttl_secs,
            keys: lease.keys.iter().cloned().collect(),
        })
    }

    /// Whether `take_expired` has anything to take.
    pub fn is_due(&self, now: Instant) -> bool {
        self.schedule.as_ref().is_some_and(|schedule| {
            schedule.queue.first().is_some_and(|(due, _)| *due <= now) && now >= schedule.next_round
        })
    }

    /// Ids due now whose revoke is not under way, at most `max`; marks them as under way until
    /// revoked or `retry_after` passed. Empty until the round that follows the last one that was not.
    pub fn take_expired(&mut self, now: Instant, max: usize, retry_after: Duration) -> Vec<i64> {
        let Some(schedule) = &mut self.schedule else { return Vec::new() };
        if now < schedule.next_round {
            return Vec::new();
        }
        let due = schedule.queue.range(..=(now, i64::MAX)).take(max);
        let ids: Vec<i64> = due.map(|(_, id)| *id).collect();
        for id in &ids {
            let lease = self.leases.get_mut(id).expect("the queue has existing leases only");
            schedule.set(*id, lease, now + retry_after);
        }
        if !ids.is_empty() {
            schedule.next_round = round_after(now);
        }
        ids
    }

    /// When the next lease falls due (rounded up to the 500 ms rounds of etcd).
    pub fn next_deadline(&self) -> Option<Instant> {
        let schedule = self.schedule.as_ref()?;
        let (due, _) = schedule.queue.first()?;
        Some(round_at(*due).max(schedule.next_round))
    }

    /// All ids; by expiry on the leader, by id elsewhere.
    pub fn list(&self) -> Vec<i64> {
        let mut order: Vec<(Instant, i64)> =
            self.leases.iter().map(|(id, lease)| (lease.expiry, *id)).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, id)| id).collect()
    }
}

/// The first round at or after `t`.
fn round_at(t: Instant) -> Instant {
    let round = ROUND.as_nanos() as u64;
    Instant { ns: t.ns.div_ceil(round).saturating_mul(round) }
}

/// The first round after `t`.
fn round_after(t: Instant) -> Instant {
    round_at(t + Duration::from_nanos(1))
}
