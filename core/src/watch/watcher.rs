//! One watcher, and the slots they live in.

use std::sync::Arc;

use crate::api::StreamId;
use crate::pb::etcdserverpb as pb;
use crate::pb::mvccpb;

/// Where a watcher lives; reused after it is gone.
pub(super) type Slot = u32;

/// The keys a watcher wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Span {
    pub start: Arc<[u8]>,
    pub end: End,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// Only the key `start`.
    Single,
    /// Every key from `start` on.
    Open,
    /// Keys below this one.
    Before(Arc<[u8]>),
}

impl Span {
    /// The table of surface spec §3.1, for watches. `None` when the interval is empty.
    pub(super) fn new(key: &[u8], range_end: &[u8]) -> Option<Self> {
        // Copies: a slice of the request would keep the whole received buffer.
        let key = if key.is_empty() { &b"\0"[..] } else { key };
        let end = match range_end {
            b"" => End::Single,
            b"\0" => End::Open,
            _ if range_end <= key => return None,
            _ => End::Before(range_end.into()),
        };
        Some(Self { start: key.into(), end })
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            End::Single => key == &*self.start,
            End::Open => key >= &*self.start,
            End::Before(end) => key >= &*self.start && key < &**end,
        }
    }

    /// As `range_end` of a request.
    pub(super) fn range_end(&self) -> &[u8] {
        match &self.end {
            End::Single => b"",
            End::Open => b"\0",
            End::Before(end) => end,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// In the index: has had everything below the next revision.
    Synced,
    /// Reads history from its position.
    Unsynced,
    /// Cancelled by compaction; its id stays until the client cancels it.
    Compacted,
}

/// A watcher that cannot be sent to keeps nothing but `next`.
#[derive(Debug)]
pub(super) struct Watcher {
    pub stream: StreamId,
    pub id: i64,
    pub span: Span,
    /// As asked for; 0 is none.
    pub start_revision: i64,
    /// Unsynced: the next revision to look at. Synced: nothing below it is delivered.
    pub next: i64,
    pub state: State,
    pub no_put: bool,
    pub no_delete: bool,
    pub prev_kv: bool,
    pub fragment: bool,
    /// Had an event since the last periodic progress.
    pub active: bool,
}

impl Watcher {
    pub(super) fn new(
        stream: StreamId,
        id: i64,
        span: Span,
        request: &pb::WatchCreateRequest,
    ) -> Self {
        let has = |filter| request.filters.contains(&i32::from(filter));
        Self {
            stream,
            id,
            span,
            start_revision: request.start_revision,
            next: request.start_revision,
            state: State::Unsynced,
            no_put: has(pb::watch_create_request::FilterType::Noput),
            no_delete: has(pb::watch_create_request::FilterType::Nodelete),
            prev_kv: request.prev_kv,
            fragment: request.fragment,
            active: false,
        }
    }

    /// By its filters alone.
    pub(super) fn accepts(&self, event: &mvccpb::Event) -> bool {
        let is_delete = event.r#type() == mvccpb::event::EventType::Delete;
        if is_delete { !self.no_delete } else { !self.no_put }
    }
}

/// Watchers by slot.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Option<Watcher>>,
    free: Vec<Slot>,
}

impl Slots {
    pub(super) fn insert(&mut self, watcher: Watcher) -> Slot {
        if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = Some(watcher);
            return slot;
        }
        let slot = Slot::try_from(self.slots.len()).expect("fewer than 2^32 watchers");
        self.slots.push(Some(watcher));
        slot
    }

    pub(super) fn remove(&mut self, slot: Slot) -> Watcher {
        self.free.push(slot);
        self.slots[slot as usize].take().expect("the slot is in use")
    }

    pub(super) fn get(&self, slot: Slot) -> &Watcher {
        self.slots[slot as usize].as_ref().expect("the slot is in use")
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> &mut Watcher {
        self.slots[slot as usize].as_mut().expect("the slot is in use")
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Slot, &mut Watcher)> {
        (0..).zip(&mut self.slots).filter_map(|(slot, w)| w.as_mut().map(|w| (slot, w)))
    }
}

/// The watchers of one key or interval; nearly always one, so that one needs no allocation.
#[derive(Debug)]
pub(super) enum SlotSet {
    One(Slot),
    #[expect(clippy::box_collection, reason = "keeps the set of one at 16 bytes")]
    Many(Box<std::collections::BTreeSet<Slot>>),
}

impl SlotSet {
    pub(super) fn insert(&mut self, slot: Slot) {
        match self {
            SlotSet::One(one) => *self = SlotSet::Many(Box::new([*one, slot].into())),
            SlotSet::Many(many) => {
                many.insert(slot);
            }
        }
    }

    /// True when none is left.
    pub(super) fn remove(&mut self, slot: Slot) -> bool {
        match self {
            SlotSet::One(one) => {
                assert_eq!(*one, slot, "only a member of the set is removed");
                true
            }
            SlotSet::Many(many) => {
                many.remove(&slot);
                many.is_empty()
            }
        }
    }

    pub(super) fn for_each(&self, mut f: impl FnMut(Slot)) {
        match self {
            SlotSet::One(one) => f(*one),
            SlotSet::Many(many) => many.iter().copied().for_each(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_follow_the_table() {
        assert_eq!(Span::new(b"b", b"b"), None);
        assert_eq!(Span::new(b"b", b"a"), None);
        assert_eq!(Span::new(b"", b"").unwrap().start[..], b"\0"[..]);
        let all = Span::new(b"\0", b"\0").unwrap();
        assert!(all.contains(b"\0") && all.contains(b"\xff"));
        let some = Span::new(b"b", b"d").unwrap();
        assert!(some.contains(b"b") && some.contains(b"cz"));
        assert!(!some.contains(b"d") && !some.contains(b"a"));
        let one = Span::new(b"b", b"").unwrap();
        assert!(one.contains(b"b") && !one.contains(b"b\0"));
    }

    /// Goal: an idle watcher takes less than 512 bytes, its key, index entry and id included.
    #[test]
    fn a_watcher_is_small() {
        assert!(size_of::<Option<Watcher>>() <= 88, "{}", size_of::<Option<Watcher>>());
        assert!(size_of::<SlotSet>() <= 16, "{}", size_of::<SlotSet>());
    }
}
