//! What faults do to one direction of a link while they last.
//!
//! Everything here is drawn from a stream of its own: a fault moves no latency that would have been drawn without it.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;

use crate::rng::{Distribution, chance, stream, uniform};

/// A packet that was lost so often in a row gets through.
pub(super) const LOSSES_MAX: u32 = 8;

/// One fault's part.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Disturbance {
    /// Added to every latency.
    pub slower: Option<Distribution>,
    /// Packets lost, in a million: each costs a retransmission timeout, and what follows waits behind it.
    pub loss_ppm: u32,
    /// Raft messages that arrive twice, in a million.
    pub duplicate_ppm: u32,
    /// Raft messages that what follows may overtake, in a million.
    pub reorder_ppm: u32,
    /// A duplicate or overtaken message comes later by up to this.
    pub later: Duration,
    /// The slowest of those in force counts.
    pub bytes_per_sec: Option<u64>,
}

/// Name of a disturbance, to end it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DisturbanceId(pub(super) u64);

/// Everything in force on one direction of a link.
#[derive(Debug)]
pub(super) struct Disturbances {
    in_force: Vec<(DisturbanceId, Disturbance)>,
    rng: ChaCha8Rng,
}

/// What becomes of a message that need not stay in order.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Stray {
    /// It leaves the order and arrives so much later, in nanoseconds.
    pub overtaken: Option<u64>,
    /// It arrives a second time, so much later.
    pub again: Option<u64>,
}

impl Disturbances {
    pub fn new(seed: u64, node: u64, purpose: &str) -> Self {
        Self { in_force: Vec::new(), rng: stream(seed, node, &format!("{purpose} disturbed")) }
    }

    pub fn add(&mut self, id: DisturbanceId, disturbance: Disturbance) {
        self.in_force.push((id, disturbance));
    }

    pub fn remove(&mut self, id: DisturbanceId) {
        self.in_force.retain(|(other, _)| *other != id);
    }

    pub fn bytes_per_sec(&self) -> Option<u64> {
        self.in_force.iter().filter_map(|(_, d)| d.bytes_per_sec).min()
    }

    /// Added to one latency; `timeout` is the first retransmission timeout, which doubles.
    pub fn delay(&mut self, mut timeout: u64) -> u64 {
        let mut delay = 0;
        let mut losses = 0;
        for (_, disturbance) in &self.in_force {
            if let Some(slower) = &disturbance.slower {
                delay += slower.sample(&mut self.rng);
            }
            while losses < LOSSES_MAX && chance(&mut self.rng, disturbance.loss_ppm) {
                delay += timeout;
                timeout *= 2;
                losses += 1;
            }
        }
        delay
    }

    pub fn stray(&mut self) -> Stray {
        let mut stray = Stray::default();
        for (_, disturbance) in &self.in_force {
            let later = disturbance.later.as_nanos() as u64;
            if chance(&mut self.rng, disturbance.reorder_ppm) {
                stray.overtaken = Some(uniform(&mut self.rng, 0, later));
            }
            if chance(&mut self.rng, disturbance.duplicate_ppm) {
                stray.again = Some(uniform(&mut self.rng, 0, later));
            }
        }
        stray
    }
}
