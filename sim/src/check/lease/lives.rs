//! What a history says about each lease.

use std::collections::BTreeMap;
use std::time::Duration;

use detkv_core::Instant;

use super::says_gone;
use crate::check::Case;
use crate::history::{Answer, Call, Fact, History, Op, OpId, Operation, Outcome, RaftStep, Rare};

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

/// When what may have disturbed a leader.
#[derive(Debug)]
pub struct Times {
    pub end: Instant,
    drift_ppm: u64,
    /// (when, forward by this much, ns).
    steps: Vec<(Instant, i64)>,
    leaderships: Vec<Instant>,
    /// Times in which some fault was active; disjoint, ascending.
    faults: Vec<(Instant, Instant)>,
}

impl Times {
    pub fn new(case: &Case) -> Self {
        let history = case.history;
        let facts = history.facts().last().map(|(at, _)| *at);
        let ended = history.operations().iter().map(|op| op.ended).filter(|at| *at < Instant::FAR);
        let end = ended.chain(facts).max().unwrap_or(Instant::ZERO);
        let steps = history.facts().iter().filter_map(|(at, fact)| match fact {
            Fact::ClockStepped { ns, .. } => Some((*at, *ns)),
            _ => None,
        });
        let leaderships = history.raft().steps().filter_map(|step| match step {
            RaftStep::Rare { at, what: Rare::Leads { .. }, .. } => Some(at),
            _ => None,
        });
        Self {
            end,
            drift_ppm: u64::from(history.settings().drift_ppm),
            steps: steps.collect(),
            leaderships: leaderships.collect(),
            faults: fault_times(history, end),
        }
    }

    /// How much more than true time a member's clock may have counted between two times.
    pub fn fast(&self, from: Instant, to: Instant) -> Duration {
        let steps = self.steps.iter().filter(|(at, ns)| *at >= from && *at <= to && *ns > 0);
        let stepped: u64 = steps.map(|(_, ns)| ns.unsigned_abs()).sum();
        Duration::from_nanos(stepped + self.drifted(from, to))
    }

    fn drifted(&self, from: Instant, to: Instant) -> u64 {
        (u128::from(to.since(from).as_nanos() as u64) * u128::from(self.drift_ppm) / 1_000_000)
            as u64
    }

    pub fn last_leadership(&self, until: Instant) -> Option<Instant> {
        self.leaderships.iter().filter(|at| **at <= until).max().copied()
    }

    /// How long a leader may have been kept from its work between two times.
    pub fn troubled(&self, from: Instant, to: Instant) -> Duration {
        let overlap = |(begin, end): &(Instant, Instant)| {
            (*end).min(to).ns.saturating_sub((*begin).max(from).ns)
        };
        let faults: u64 = self.faults.iter().map(overlap).sum();
        let back = self.steps.iter().filter(|(at, ns)| *at >= from && *at <= to && *ns < 0);
        let back: u64 = back.map(|(_, ns)| ns.unsigned_abs()).sum();
        Duration::from_nanos(faults + back + self.drifted(from, to))
    }
}

/// Merged times of all faults; one that never ended lasts to the end. A node that is down is one too.
fn fault_times(history: &History, end: Instant) -> Vec<(Instant, Instant)> {
    let mut open: BTreeMap<u32, Instant> = BTreeMap::new();
    let mut times = Vec::new();
    for (at, fact) in history.facts() {
        match fact {
            Fact::FaultBegan { fault, .. } => {
                open.insert(*fault, *at);
            }
            Fact::FaultEnded { fault } => {
                times.extend(open.remove(fault).map(|began| (began, *at)));
            }
            _ => {}
        }
    }
    times.extend(open.into_values().map(|began| (began, end)));
    times.sort_unstable();
    let mut merged: Vec<(Instant, Instant)> = Vec::new();
    for (begin, end) in times {
        match merged.last_mut() {
            Some((_, last)) if begin <= *last => *last = end.max(*last),
            _ => merged.push((begin, end)),
        }
    }
    merged
}
