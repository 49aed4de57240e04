//! One watch stream: its ids, its credit, its progress interval.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::watcher::Slot;
use crate::time::Instant;

#[derive(Debug)]
pub(super) struct Stream {
    /// Registered ids, compacted ones included.
    pub ids: BTreeMap<i64, Slot>,
    /// Where the search for a free id goes on.
    next_id: i64,
    /// Handed out and not yet drained, bytes.
    pub in_flight: u64,
    /// From here on nothing more is handed out.
    credit: u64,
    pub unsynced: BTreeSet<Slot>,
    /// The next catch-up begins behind this slot, so that all get their turn.
    pub turn: Slot,
    /// Ids that are cancelled by compaction and still registered.
    pub compacted: usize,
    /// (start revision, id) of watchers that began in the future. Those reached by now are pruned lazily.
    pub future: BTreeSet<(i64, i64)>,
    /// Watchers that want periodic progress.
    pub notify: BTreeSet<Slot>,
    /// Its entry among the hub's ticks, while someone wants them.
    pub progress_due: Option<Instant>,
    opened: Instant,
    /// Between two periodic progress notices; its multiples after `opened` are the stream's phase.
    interval: Duration,
}

impl Stream {
    pub(super) fn new(opened: Instant, interval: Duration, credit: u64) -> Self {
        Self {
            ids: BTreeMap::new(),
            next_id: 0,
            in_flight: 0,
            credit,
            unsynced: BTreeSet::new(),
            turn: 0,
            compacted: 0,
            future: BTreeSet::new(),
            notify: BTreeSet::new(),
            progress_due: None,
            opened,
            interval: interval.max(Duration::from_nanos(1)),
        }
    }

    /// Another message may be handed out. One may overshoot: else a large one could never go.
    pub(super) fn has_credit(&self) -> bool {
        self.in_flight < self.credit
    }

    /// The id for a new watcher: `asked`, or for 0 the next free one. `None` when it is in use.
    pub(super) fn choose_id(&mut self, asked: i64) -> Option<i64> {
        if asked != 0 {
            return (!self.ids.contains_key(&asked)).then_some(asked);
        }
        while self.ids.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        Some(self.next_id - 1)
    }

    /// The unsynced watcher whose turn it is.
    pub(super) fn next_unsynced(&mut self) -> Option<Slot> {
        let behind = self.unsynced.range(self.turn..).next();
        let slot = *behind.or_else(|| self.unsynced.first())?;
        self.turn = slot.wrapping_add(1);
        Some(slot)
    }

    /// The first tick of periodic progress after `now`.
    pub(super) fn next_progress(&self, now: Instant) -> Instant {
        let interval = u64::try_from(self.interval.as_nanos()).unwrap_or(u64::MAX);
        let passed = now.ns.saturating_sub(self.opened.ns) / interval;
        self.opened + Duration::from_nanos(interval.saturating_mul(passed + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Stream {
        Stream::new(Instant { ns: 5 }, Duration::from_nanos(10), 1)
    }

    #[test]
    fn ids_count_up_from_0_and_skip_those_in_use() {
        let mut stream = stream();
        stream.ids.insert(1, 0);
        let ids: Vec<_> = (0..3).map(|_| stream.choose_id(0).unwrap()).collect();
        assert_eq!(ids, [0, 2, 3]);
        assert_eq!((stream.choose_id(1), stream.choose_id(-7)), (None, Some(-7)));
    }

    #[test]
    fn progress_ticks_are_multiples_after_the_opening() {
        let next = |ns| stream().next_progress(Instant { ns }).ns;
        assert_eq!((next(5), next(14), next(15), next(16)), (15, 15, 25, 25));
    }

    #[test]
    fn every_unsynced_watcher_gets_its_turn() {
        let mut stream = stream();
        stream.unsynced.extend([1, 4, 9]);
        let turns: Vec<_> = (0..4).map(|_| stream.next_unsynced().unwrap()).collect();
        assert_eq!(turns, [1, 4, 9, 1]);
    }
}
