//! The driver's monotonic clock, as core's `Instant`.

use std::time::{Instant as StdInstant, SystemTime};

use detkv_core::Instant;

/// Nanoseconds since the process made this clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: StdInstant,
}

impl Clock {
    pub fn start() -> Self {
        Self { origin: StdInstant::now() }
    }

    pub fn now(&self) -> Instant {
        let ns = self.origin.elapsed().as_nanos();
        Instant { ns: u64::try_from(ns).expect("a process does not run for 584 years") }
    }

    /// The same moment by the calendar, in seconds since 1970.
    pub fn unix_secs(&self, instant: Instant) -> u64 {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let ago = self.now().since(instant);
        since_1970.unwrap_or_default().saturating_sub(ago).as_secs()
    }

    /// The point on the operating system's clock; `None` beyond what it can hold.
    pub fn to_std(self, instant: Instant) -> Option<StdInstant> {
        self.origin.checked_add(std::time::Duration::from_nanos(instant.ns))
    }
}
