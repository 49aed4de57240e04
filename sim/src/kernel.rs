//! The event kernel: a heap of (time, sequence, event) and virtual time in nanoseconds.
//!
//! Events of equal time come out in the order in which they were scheduled. The kernel knows nothing
//! of what an event means.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use detkv_core::Instant;

/// Events in time order. Invariant: `now` never goes back.
#[derive(Debug)]
pub struct Kernel<E> {
    now: Instant,
    sequence: u64,
    /// (time, sequence, place in `slots`): the heap moves small keys, not events.
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    slots: Vec<Option<E>>,
    free: Vec<u32>,
    popped: u64,
}

impl<E> Default for Kernel<E> {
    fn default() -> Self {
        Self {
            now: Instant::ZERO,
            sequence: 0,
            heap: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            popped: 0,
        }
    }
}

impl<E> Kernel<E> {
    pub fn now(&self) -> Instant {
        self.now
    }

    /// An event of the past would be one that nobody could have seen coming.
    pub fn schedule(&mut self, at: Instant, event: E) {
        assert!(at >= self.now, "events are scheduled for now or later");
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 events wait at once")
        });
        self.slots[slot as usize] = Some(event);
        self.heap.push(Reverse((at.ns, self.sequence, slot)));
        self.sequence += 1;
    }

    pub fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((ns, _, _))| Instant { ns: *ns })
    }

    /// Takes the next event and moves time to it.
    pub fn pop(&mut self) -> Option<E> {
        let Reverse((ns, _, slot)) = self.heap.pop()?;
        self.now = Instant { ns };
        self.popped += 1;
        self.free.push(slot);
        Some(self.slots[slot as usize].take().expect("a heap key names a waiting event"))
    }

    /// Events waiting.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Events taken so far.
    pub fn popped(&self) -> u64 {
        self.popped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ns: u64) -> Instant {
        Instant { ns }
    }

    #[test]
    fn events_come_by_time_then_by_order_of_scheduling() {
        let mut kernel = Kernel::default();
        for (ns, name) in [(30, "d"), (10, "a"), (20, "b"), (20, "c"), (30, "e")] {
            kernel.schedule(at(ns), name);
        }
        let mut seen = Vec::new();
        while let Some(name) = kernel.pop() {
            seen.push((kernel.now().ns, name));
        }
        assert_eq!(seen, [(10, "a"), (20, "b"), (20, "c"), (30, "d"), (30, "e")]);
    }

    #[test]
    fn an_event_may_schedule_for_the_same_instant() {
        let mut kernel = Kernel::default();
        kernel.schedule(at(5), 1);
        kernel.schedule(at(5), 2);
        assert_eq!(kernel.pop(), Some(1));
        kernel.schedule(at(5), 3);
        assert_eq!((kernel.pop(), kernel.pop(), kernel.pop()), (Some(2), Some(3), None));
    }

    #[test]
    #[should_panic(expected = "now or later")]
    fn the_past_is_closed() {
        let mut kernel = Kernel::default();
        kernel.schedule(at(5), ());
        kernel.pop();
        kernel.schedule(at(4), ());
    }

    #[test]
    fn slots_are_used_again() {
        let mut kernel = Kernel::default();
        for n in 0..10_000_u64 {
            kernel.schedule(at(n), n);
            assert_eq!(kernel.pop(), Some(n));
        }
        assert_eq!(kernel.slots.len(), 1);
    }
}
