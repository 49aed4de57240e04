//! The member's only notion of time: nanoseconds since an origin that the driver chose.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on the driver's monotonic clock.
///
/// Units: nanoseconds since the driver's own origin. Never wall-clock time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Instant {
    pub ns: u64,
}

impl Instant {
    pub const ZERO: Instant = Instant { ns: 0 };
    /// Later than every real instant.
    pub const FAR: Instant = Instant { ns: u64::MAX };

    /// Time since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.ns.saturating_sub(earlier.ns))
    }
}

/// Asked for in every burst, and a `Duration`'s own nanoseconds are 128 bits wide.
fn saturating_ns(d: Duration) -> u64 {
    d.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(d.subsec_nanos()))
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, d: Duration) -> Instant {
        Instant { ns: self.ns.saturating_add(saturating_ns(d)) }
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;
    fn sub(self, d: Duration) -> Instant {
        Instant { ns: self.ns.saturating_sub(saturating_ns(d)) }
    }
}
