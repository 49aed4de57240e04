//! An open loop: calls start at their times whether or not earlier ones have returned.

use std::cell::Cell;
use std::time::Duration;

use detkv_core::Instant;

use super::Client;

/// The times at which one client starts its calls, shared by its workers.
///
/// Slot `k` lies at a random place in `start + k × interval ..+ interval`. As many calls can be open
/// as the client has workers; a slot that passes while all of them wait for answers is left out.
#[derive(Debug)]
pub struct Pace {
    start: Instant,
    interval: Duration,
    end: Instant,
    next: Cell<u64>,
}

impl Pace {
    pub fn new(start: Instant, interval: Duration, end: Instant) -> Self {
        assert!(!interval.is_zero(), "a pace has an interval");
        Self { start, interval, end, next: Cell::new(0) }
    }

    /// Waits for the next slot. `None` once the end is reached.
    pub async fn next(&self, client: &Client) -> Option<u64> {
        let interval = self.interval.as_nanos() as u64;
        let passed = client.handle().now().since(self.start).as_nanos() as u64;
        // The slot under way now is late; the one before it is left out.
        let slot = self.next.get().max((passed / interval).saturating_sub(1));
        self.next.set(slot + 1);
        let at = self.start + Duration::from_nanos(slot * interval + client.below(interval));
        if at >= self.end {
            return None;
        }
        client.handle().sleep_until(at).await;
        Some(slot)
    }
}
