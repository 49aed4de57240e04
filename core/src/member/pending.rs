//! Proposals of this member's clients whose result is awaited.
//!
//! The serving member keeps id → waiter and answers after its own apply, or at its own deadline; a
//! late result is dropped (rules 8).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_core::Rng;

use crate::api::RequestId;
use crate::event::MemberId;
use crate::time::Instant;

/// Where a proposal is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Nobody to propose it: no leader known, or no connection to it.
    Queued,
    /// In this leader's log.
    Proposed,
    /// On its way to the leader, once.
    Forwarded(MemberId),
}

#[derive(Debug)]
pub struct Proposal {
    /// `None`: the member's own.
    pub client: Option<RequestId>,
    pub started: Instant,
    /// Encoded `InternalRaftRequest`.
    pub data: Bytes,
    pub place: Place,
    /// A compaction whose answer waits until the rows are gone.
    pub physical: bool,
    /// A membership change: `data` is a raftpb.ConfChange.
    pub change: bool,
}

#[derive(Debug)]
pub struct Pending {
    timeout: Duration,
    /// 40 bits drawn, then a 24-bit counter: ids of different lives of a member do not meet.
    next_id: u64,
    proposals: BTreeMap<u64, Proposal>,
    queued: VecDeque<u64>,
    /// Membership changes wait for each other, and nobody else waits for them.
    queued_changes: VecDeque<u64>,
    /// In order of deadlines, because all have the same timeout.
    by_start: VecDeque<(Instant, u64)>,
}

impl Pending {
    pub fn new(rng: &mut ChaCha8Rng, timeout: Duration) -> Self {
        Self {
            timeout,
            next_id: Self::draw(rng),
            proposals: BTreeMap::new(),
            queued: VecDeque::new(),
            queued_changes: VecDeque::new(),
            by_start: VecDeque::new(),
        }
    }

    fn draw(rng: &mut ChaCha8Rng) -> u64 {
        rng.next_u64() << 24
    }

    /// An id for the next proposal, never 0.
    pub fn next_id(&mut self, rng: &mut ChaCha8Rng) -> u64 {
        self.next_id += 1;
        if self.next_id & 0xff_ffff == 0 {
            self.next_id = Self::draw(rng) + 1;
        }
        self.next_id
    }

    pub fn insert(&mut self, id: u64, proposal: Proposal) {
        self.by_start.push_back((proposal.started, id));
        let queue = if proposal.change { &mut self.queued_changes } else { &mut self.queued };
        queue.push_back(id);
        self.proposals.insert(id, proposal);
    }

    pub fn len(&self) -> usize {
        self.proposals.len()
    }

    pub fn get(&self, id: u64) -> Option<&Proposal> {
        self.proposals.get(&id)
    }

    pub fn remove(&mut self, id: u64) -> Option<Proposal> {
        let removed = self.proposals.remove(&id);
        if removed.is_some() {
            self.tidy();
        }
        removed
    }

    pub fn has_queued(&mut self) -> bool {
        self.front_queued().is_some() || self.front_change().is_some()
    }

    /// The next queued proposal, without taking it.
    pub fn front_queued(&mut self) -> Option<(u64, &mut Proposal)> {
        while let Some(&id) = self.queued.front() {
            if self.proposals.get(&id).is_some_and(|p| p.place == Place::Queued) {
                return self.proposals.get_mut(&id).map(|p| (id, p));
            }
            self.queued.pop_front();
        }
        None
    }

    /// The next queued membership change, without taking it.
    pub fn front_change(&mut self) -> Option<(u64, &mut Proposal)> {
        while let Some(&id) = self.queued_changes.front() {
            if self.proposals.get(&id).is_some_and(|p| p.place == Place::Queued) {
                return self.proposals.get_mut(&id).map(|p| (id, p));
            }
            self.queued_changes.pop_front();
        }
        None
    }

    /// Puts a refused proposal back: it surely was not proposed.
    pub fn requeue(&mut self, id: u64, refused_by: MemberId) {
        if let Some(p) = self.proposals.get_mut(&id)
            && p.place == Place::Forwarded(refused_by)
        {
            p.place = Place::Queued;
            let queue = if p.change { &mut self.queued_changes } else { &mut self.queued };
            queue.push_back(id);
        }
    }

    /// Removes what is over its time.
    pub fn take_expired(&mut self, now: Instant) -> Vec<Proposal> {
        let mut out = Vec::new();
        while let Some(&(started, id)) = self.by_start.front() {
            if now < started + self.timeout {
                break;
            }
            self.by_start.pop_front();
            out.extend(self.proposals.remove(&id));
        }
        if !out.is_empty() {
            self.tidy();
        }
        out
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.by_start.front().map(|(started, _)| *started + self.timeout)
    }

    /// Drops leading entries that were answered. Invariant: the first one is not.
    fn tidy(&mut self) {
        while self.by_start.front().is_some_and(|(_, id)| !self.proposals.contains_key(id)) {
            self.by_start.pop_front();
        }
    }
}
