//! The event kernel: events in the order of their times, and virtual time in nanoseconds.
//!
//! Events of equal time come out in the order in which they were scheduled. The kernel knows nothing
//! of what an event means.
//!
//! Because time never goes back, a radix heap serves: an event lies in the bucket of the highest bit in which its
//! time differs from that of the last one taken (`base`), and moves to lower buckets as time comes near.
//!
//! ```text
//! bucket 0 │ 1 │ 2 │ 3 │ …      highest differing bit of (time, base)
//!     base+1  +2   +4   +8      what lies further right comes later
//! ```

use std::collections::VecDeque;

use detkv_core::Instant;

const BUCKETS: usize = 64;

#[derive(Debug)]
struct Bucket<E> {
    /// In the order of scheduling.
    events: Vec<(u64, E)>,
    /// The least time in it.
    least: u64,
}

/// Events in time order. Invariant: `now` never goes back.
#[derive(Debug)]
pub struct Kernel<E> {
    /// Also what buckets are counted from: it is the time of the last event taken.
    now: Instant,
    /// Events of this very time.
    due: VecDeque<E>,
    /// Invariant: events of one time lie in one place, in the order in which they were scheduled.
    buckets: [Bucket<E>; BUCKETS],
    /// Bit `b`: bucket `b` is not empty.
    occupied: u64,
    waiting: usize,
    popped: u64,
}

impl<E> Default for Kernel<E> {
    fn default() -> Self {
        Self {
            now: Instant::ZERO,
            due: VecDeque::new(),
            buckets: std::array::from_fn(|_| Bucket { events: Vec::new(), least: u64::MAX }),
            occupied: 0,
            waiting: 0,
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
        self.waiting += 1;
        self.put(at.ns, event);
    }

    fn put(&mut self, ns: u64, event: E) {
        let differs = ns ^ self.now.ns;
        if differs == 0 {
            return self.due.push_back(event);
        }
        let place = 63 - differs.leading_zeros() as usize;
        let bucket = &mut self.buckets[place];
        bucket.least = bucket.least.min(ns);
        bucket.events.push((ns, event));
        self.occupied |= 1 << place;
    }

    pub fn next_at(&self) -> Option<Instant> {
        if !self.due.is_empty() {
            return Some(self.now);
        }
        (self.occupied != 0).then(|| {
            let first = self.occupied.trailing_zeros() as usize;
            Instant { ns: self.buckets[first].least }
        })
    }

    /// Takes the next event and moves time to it.
    pub fn pop(&mut self) -> Option<E> {
        if self.due.is_empty() {
            self.advance();
        }
        let event = self.due.pop_front()?;
        self.waiting -= 1;
        self.popped += 1;
        Some(event)
    }

    /// Moves time to the next event, and the events of its bucket to lower ones, which are all empty.
    fn advance(&mut self) {
        if self.occupied == 0 {
            return;
        }
        let first = self.occupied.trailing_zeros() as usize;
        self.occupied &= self.occupied - 1;
        let bucket = &mut self.buckets[first];
        self.now = Instant { ns: std::mem::replace(&mut bucket.least, u64::MAX) };
        let mut events = std::mem::take(&mut bucket.events);
        for (ns, event) in events.drain(..) {
            self.put(ns, event);
        }
        // Its memory is used again.
        self.buckets[first].events = events;
    }

    /// Events waiting.
    pub fn len(&self) -> usize {
        self.waiting
    }

    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Events taken so far.
    pub fn popped(&self) -> u64 {
        self.popped
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

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
    fn the_far_end_of_time_is_a_time() {
        let mut kernel = Kernel::default();
        kernel.schedule(at(u64::MAX), "never");
        kernel.schedule(at(1), "soon");
        assert_eq!((kernel.next_at(), kernel.len()), (Some(at(1)), 2));
        assert_eq!((kernel.pop(), kernel.next_at()), (Some("soon"), Some(at(u64::MAX))));
        assert_eq!((kernel.pop(), kernel.pop(), kernel.next_at()), (Some("never"), None, None));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Steps: an event so much later, or (0 of 4 times) the next one is taken.
        #[test]
        fn it_is_a_stable_priority_queue(steps in prop::collection::vec((0..4_u8, 0..40_u32), 1..300)) {
            let (mut kernel, mut model) = (Kernel::default(), BTreeMap::new());
            for (number, (kind, bits)) in steps.into_iter().enumerate() {
                if kind == 0 {
                    let expected = model.pop_first();
                    let next = kernel.next_at().map(|at| at.ns);
                    prop_assert_eq!(next, expected.map(|((ns, _), ())| ns));
                    prop_assert_eq!(kernel.pop(), expected.map(|((_, number), ())| number));
                } else {
                    // Near and far, with ties.
                    let ns = kernel.now().ns + (1_u64 << bits) / 3;
                    kernel.schedule(at(ns), number);
                    model.insert((ns, number), ());
                }
                prop_assert_eq!((kernel.len(), kernel.is_empty()), (model.len(), model.is_empty()));
            }
        }
    }
}
