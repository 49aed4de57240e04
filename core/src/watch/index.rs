//! Which synced watchers an event reaches.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::intervals::Intervals;
use super::watcher::{End, Slot, SlotSet, Span};

/// Synced watchers: those of one key by hash, those of an interval by tree.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Only looked up, never iterated: its order means nothing.
    keys: FxHashMap<Arc<[u8]>, SlotSet>,
    intervals: Intervals,
}

impl Index {
    pub(super) fn insert(&mut self, span: &Span, slot: Slot) {
        match &span.end {
            End::Single => match self.keys.get_mut(&*span.start) {
                Some(slots) => slots.insert(slot),
                None => {
                    self.keys.insert(span.start.clone(), SlotSet::One(slot));
                }
            },
            End::Open => self.intervals.insert(&span.start, None, slot),
            End::Before(end) => self.intervals.insert(&span.start, Some(end), slot),
        }
    }

    pub(super) fn remove(&mut self, span: &Span, slot: Slot) {
        match &span.end {
            End::Single => {
                let slots = self.keys.get_mut(&*span.start).expect("a synced watcher is in here");
                if slots.remove(slot) {
                    self.keys.remove(&*span.start);
                }
            }
            End::Open => self.intervals.remove(&span.start, None, slot),
            End::Before(end) => self.intervals.remove(&span.start, Some(end), slot),
        }
    }

    pub(super) fn for_each(&self, key: &[u8], mut f: impl FnMut(Slot)) {
        if let Some(slots) = self.keys.get(key) {
            slots.for_each(&mut f);
        }
        self.intervals.for_each_containing(key, f);
    }
}
