//! What a history says about each lease.

use std::collections::BTreeMap;
use std::time::Duration;

use detkv_core::Instant;

use super::says_gone;
use crate::check::Case;
use crate::history::{Answer, Call, History, Op, OpId, Operation, Outcome};

/// A server gives up on a renewal after its request timeout at the latest (5 s + 2 elections, etcd's).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything seen of one lease.
#[derive(Default, Debug)]
pub struct Life {
    pub grants: Vec<Grant>,
    /// Grants and successful renewals: each keeps it for its TTL from some time between call and return.
    pub renewals: Vec<Renewal>,
    /// Renewals without an answer: (called, may take effect until).
    maybe_renewed: Vec<(Instant, Instant)>,
    /// In the order of calls.
    pub seen: Vec<Seen>,
    /// Revokes that succeeded.
    pub revoked: Vec<Renewal>,
    /// The earliest call of a revoke that may have had an effect; `FAR` if there is none.
    pub revoke_called: Instant,
    pub revoke_entries: Vec<RevokeEntry>,
    pub is_grant_committed: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Grant {
    pub op: OpId,
    pub returned: Instant,
    pub asked_ttl_secs: i64,
    pub ttl_secs: i64,
    pub is_done: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Renewal {
    pub op: OpId,
    pub called: Instant,
    pub returned: Instant,
}

/// What a call showed of the lease.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub op: OpId,
    pub called: Instant,
    pub returned: Instant,
    pub kept: Kept,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept {
    Renewed {
        ttl_secs: i64,
    },
    Known {
        ttl_secs: i64,
        granted_ttl_secs: i64,
    },
    /// A key was put with it.
    Used,
    Gone,
}

#[derive(Clone, Copy, Debug)]
pub struct RevokeEntry {
    pub at: Instant,
    pub is_committed: bool,
}

impl Life {
    /// The grant, when there is exactly one and it was answered.
    pub fn only_grant(&self) -> Option<&Grant> {
        match self.grants.as_slice() {
            [grant] if grant.is_done => Some(grant),
            _ => None,
        }
    }

    /// The latest time up to `until` at which a renewal may have taken effect.
    pub fn latest_renewal(&self, until: Instant) -> Instant {
        let sure = self.renewals.iter().filter(|r| r.called <= until).map(|r| r.returned);
        let maybe = self.maybe_renewed.iter().filter(|(called, _)| *called <= until);
        sure.chain(maybe.map(|(_, last)| *last)).max().unwrap_or(Instant::ZERO).min(until)
    }
}

/// By lease id.
pub fn gather(case: &Case) -> BTreeMap<i64, Life> {
    let mut lives = Lives(BTreeMap::new());
    for (id, op) in case.history.operations_with_ids() {
        lives.operation(case.history, id, op);
    }
    let raft = case.history.raft();
    for logged in raft.leases() {
        let is_committed = case.raft().is_committed(raft, logged.entry);
        let life = lives.of(logged.lease);
        match logged.granted_ttl_secs {
            Some(_) => life.is_grant_committed |= is_committed,
            None => life.revoke_entries.push(RevokeEntry { at: logged.at, is_committed }),
        }
    }
    lives.0
}

struct Lives(BTreeMap<i64, Life>);

impl Lives {
    fn of(&mut self, lease: i64) -> &mut Life {
        let new = || Life { revoke_called: Instant::FAR, ..Life::default() };
        self.0.entry(lease).or_insert_with(new)
    }

    fn operation(&mut self, history: &History, op: OpId, operation: &Operation) {
        let Operation { called, returned, ended, call, outcome, .. } = operation;
        let is_refused = matches!(outcome, Outcome::Failed(_) | Outcome::NotSent);
        let seen = |kept| Seen { op, called: *called, returned: *ended, kept };
        let timed = Renewal { op, called: *called, returned: *returned };
        match (call, outcome) {
            (Call::LeaseGrant { ttl_secs, .. }, Outcome::Done { answer, .. }) => {
                // An id of 0 is the server's choice: the answer names it.
                let Answer::Lease { id, ttl_secs: got } = answer else { return };
                let life = self.of(*id);
                let (asked_ttl_secs, ttl_secs) = (*ttl_secs, *got);
                let is_done = true;
                life.grants.push(Grant {
                    op,
                    returned: *returned,
                    asked_ttl_secs,
                    ttl_secs,
                    is_done,
                });
                life.renewals.push(timed);
            }
            (Call::LeaseGrant { id, ttl_secs }, _) if !is_refused => {
                let (asked_ttl_secs, ttl_secs) = (*ttl_secs, *ttl_secs);
                let (returned, is_done) = (Instant::FAR, false);
                self.of(*id).grants.push(Grant { op, returned, asked_ttl_secs, ttl_secs, is_done });
            }
            (Call::LeaseKeepAlive { id }, Outcome::Done { answer, .. }) => {
                let Answer::Lease { ttl_secs, .. } = answer else { return };
                let life = self.of(*id);
                if *ttl_secs > 0 {
                    life.renewals.push(timed);
                    life.seen.push(seen(Kept::Renewed { ttl_secs: *ttl_secs }));
                } else {
                    life.seen.push(seen(Kept::Gone));
                }
            }
            (Call::LeaseKeepAlive { id }, Outcome::Failed(_) | Outcome::Unknown) => {
                let election = history.settings().election;
                let last = (*ended).min(*called + REQUEST_TIMEOUT) + REQUEST_TIMEOUT + 2 * election;
                self.of(*id).maybe_renewed.push((*called, last));
            }
            (Call::LeaseTimeToLive { id }, Outcome::Done { answer, .. }) => {
                let Answer::TimeToLive { ttl_secs, granted_ttl_secs } = *answer else { return };
                let is_gone = granted_ttl_secs == 0;
                let known = Kept::Known { ttl_secs, granted_ttl_secs };
                self.of(*id).seen.push(seen(if is_gone { Kept::Gone } else { known }));
            }
            (Call::LeaseRevoke { id }, _) if *outcome != Outcome::NotSent => {
                let is_done = matches!(outcome, Outcome::Done { .. });
                let error = history.error(op);
                let life = self.of(*id);
                if is_done {
                    life.revoked.push(timed);
                }
                if error.is_some_and(says_gone) {
                    life.seen.push(seen(Kept::Gone));
                }
                if !is_refused {
                    life.revoke_called = life.revoke_called.min(*called);
                }
            }
            (Call::Put(put), outcome) if put.lease != 0 => {
                if matches!(outcome, Outcome::Done { .. }) {
                    self.of(put.lease).seen.push(seen(Kept::Used));
                } else if history.error(op).is_some_and(says_gone) {
                    self.of(put.lease).seen.push(seen(Kept::Gone));
                }
            }
            (Call::Txn(txn), Outcome::Done { answer: Answer::Txn(got), .. }) => {
                let branch = if got.succeeded { &txn.success } else { &txn.failure };
                for op in branch {
                    if let Op::Put(put) = op
                        && put.lease != 0
                    {
                        self.of(put.lease).seen.push(seen(Kept::Used));
                    }
                }
            }
            _ => {}
        }
    }
}
