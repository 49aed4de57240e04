//! The clock of one node: what it reads is true time, shifted and drifting.
//!
//! Members live on their own clock; the kernel lives on true time. Integers only.

use std::time::Duration;

use detkv_core::Instant;
use serde::{Deserialize, Serialize};

use crate::bounds::within;

/// How a node's clock differs from true time.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClockModel {
    /// What the clock reads at true time zero.
    #[serde(with = "crate::duration")]
    pub offset: Duration,
    /// Parts per million that it runs fast (or slow, if negative).
    pub drift_ppm: i32,
}

/// A tenth faster or slower: far beyond any crystal, and within what core is made for.
pub const DRIFT_PPM_MAX: i32 = 100_000;

impl ClockModel {
    /// Errors: what is wrong, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        within("drift_ppm", self.drift_ppm, -DRIFT_PPM_MAX..=DRIFT_PPM_MAX)
    }
}

const MILLION: i128 = 1_000_000;

/// A running clock. Invariant: it never goes back, except by [`NodeClock::step`].
#[derive(Clone, Copy, Debug)]
pub struct NodeClock {
    /// At true time `base_true` the clock read `base_local`.
    base_true: i128,
    base_local: i128,
    drift_ppm: i128,
}

impl NodeClock {
    pub fn new(model: ClockModel) -> Self {
        assert!(model.drift_ppm > -1_000_000, "a clock runs forward");
        Self {
            base_true: 0,
            base_local: model.offset.as_nanos() as i128,
            drift_ppm: i128::from(model.drift_ppm),
        }
    }

    /// What the clock reads at a true time.
    pub fn local(&self, at: Instant) -> Instant {
        let elapsed = i128::from(at.ns) - self.base_true;
        // Most clocks do not drift, and this is asked several times per event.
        let elapsed = match self.drift_ppm {
            0 => elapsed,
            drift_ppm => elapsed * (MILLION + drift_ppm) / MILLION,
        };
        let local = self.base_local + elapsed;
        Instant { ns: u64::try_from(local.max(0)).unwrap_or(u64::MAX) }
    }

    /// The first true time at which the clock reads `local` or later.
    pub fn true_time(&self, local: Instant) -> Instant {
        let elapsed = i128::from(local.ns) - self.base_local;
        let elapsed = match self.drift_ppm {
            0 => elapsed,
            drift_ppm => {
                let (elapsed, rate) = (elapsed * MILLION, MILLION + drift_ppm);
                elapsed.div_euclid(rate) + i128::from(elapsed.rem_euclid(rate) > 0)
            }
        };
        let at = self.base_true + elapsed;
        Instant { ns: u64::try_from(at.max(0)).unwrap_or(u64::MAX) }
    }

    /// Moves the clock at true time `at` by `delta_ns`; the drift goes on.
    pub fn step(&mut self, at: Instant, delta_ns: i64) {
        let local = i128::from(self.local(at).ns) + i128::from(delta_ns);
        (self.base_true, self.base_local) = (i128::from(at.ns), local.max(0));
    }

    /// From true time `at` on the clock runs by so much faster than before; it does not jump.
    pub fn drift(&mut self, at: Instant, ppm: i32) {
        self.step(at, 0);
        let drift_ppm = self.drift_ppm + i128::from(ppm);
        assert!(drift_ppm > -MILLION, "a clock runs forward");
        self.drift_ppm = drift_ppm;
    }

    /// How far its rate is from that of true time.
    pub fn drift_ppm(&self) -> u32 {
        u32::try_from(self.drift_ppm.unsigned_abs()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ns: u64) -> Instant {
        Instant { ns }
    }

    #[test]
    fn a_deadline_is_reached_exactly_when_the_clock_reads_it() {
        for drift_ppm in [-500, -1, 0, 1, 333, 100_000] {
            let clock = NodeClock::new(ClockModel { offset: Duration::from_secs(5), drift_ppm });
            for local in [5_000_000_000, 5_000_000_001, 9_123_456_789, 86_400_000_000_000] {
                let due = clock.true_time(at(local));
                assert!(clock.local(due) >= at(local));
                assert!(due.ns == 0 || clock.local(at(due.ns - 1)) < at(local));
            }
        }
    }

    #[test]
    fn a_change_of_the_drift_moves_no_reading_of_before() {
        let mut clock = NodeClock::new(ClockModel { offset: Duration::ZERO, drift_ppm: 100 });
        let before = clock.local(at(1_000_000_000));
        clock.drift(at(1_000_000_000), 400);
        assert_eq!(clock.local(at(1_000_000_000)), before);
        assert_eq!(clock.local(at(2_000_000_000)).ns, before.ns + 1_000_500_000);
        clock.drift(at(2_000_000_000), -400);
        assert_eq!(clock.local(at(3_000_000_000)).ns, before.ns + 1_000_500_000 + 1_000_100_000);
    }

    #[test]
    fn a_step_moves_the_reading_and_nothing_else() {
        let mut clock = NodeClock::new(ClockModel { offset: Duration::ZERO, drift_ppm: 100 });
        let before = clock.local(at(1_000_000_000));
        clock.step(at(1_000_000_000), -200_000_000);
        assert_eq!(clock.local(at(1_000_000_000)).ns, before.ns - 200_000_000);
        assert_eq!(clock.local(at(2_000_000_000)).ns, before.ns - 200_000_000 + 1_000_100_000);
    }
}
