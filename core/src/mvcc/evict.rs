//! Keeping the current values in memory under a byte budget.
//!
//! A hand goes round the index. What it passes while there is too much is taken out of memory,
//! unless the file does not have it yet; from then on it is read from the file, and comes back
//! with its next put.

use std::ops::Bound;

use bytes::Bytes;
use parking_lot::RwLock;

use super::state::State;
use crate::buggify;

/// Index entries visited per turn under the lock.
const TURN_KEYS: usize = 1_000;
/// Turns per job: twice as many entries as a batch has operations.
const TURNS_MAX: usize = 20;

#[derive(Debug)]
pub(crate) struct Evictor {
    bytes_max: Option<u64>,
    /// The last key visited; `None` to start from the first one.
    hand: Option<Bytes>,
}

impl Evictor {
    pub fn new(bytes_max: Option<u64>) -> Self {
        Self { bytes_max, hand: None }
    }

    /// Call after a job: what it wrote may go.
    pub fn run(&mut self, state: &RwLock<State>) {
        let all = buggify!("mvcc.evict-all").then_some(0);
        let Some(bytes_max) = all.or(self.bytes_max) else { return };
        for _ in 0..TURNS_MAX {
            if state.read().resident_bytes <= bytes_max {
                return;
            }
            let evicted = self.turn(&mut state.write(), bytes_max);
            // Freed without the lock.
            drop(evicted);
        }
    }

    fn turn(&mut self, state: &mut State, bytes_max: u64) -> Vec<Bytes> {
        let mut evicted = Vec::new();
        let unwritten = state.in_flight.first().or(state.pending.first()).map(|row| row.revision);
        let after = self.hand.take().map_or(Bound::Unbounded, Bound::Excluded);
        let entries = state.index.range_mut((after, Bound::Unbounded));
        for (visited, (key, entry)) in entries.enumerate() {
            if visited == TURN_KEYS || state.resident_bytes <= bytes_max {
                break;
            }
            self.hand = Some(key.clone());
            let in_file = unwritten.is_none_or(|first| entry.last().revision() < first);
            if let Some(current) = entry.current.as_mut().filter(|_| in_file) {
                state.resident_bytes -= current.resident_bytes();
                evicted.extend(current.kv.take());
            }
        }
        evicted
    }
}
