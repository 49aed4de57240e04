//! Building responses: sizes, fragments, previous values.

use std::sync::Arc;

use prost::Message;

use super::history::History;
use crate::api::{RevisionEvents, WatchEvents};
use crate::mvcc::{Previous, decode_kv};
use crate::pb::etcdserverpb as pb;
use crate::pb::mvccpb;

/// Counted for the header and the small fields of a response.
pub(super) const HEAD_BYTES: u64 = 64;

/// Encoded size of an event as field 11 of a response.
pub(super) fn event_bytes(event: &mvccpb::Event) -> u64 {
    prost::encoding::message::encoded_len(11, event) as u64
}

pub(super) fn events_bytes(events: &[mvccpb::Event]) -> u64 {
    events.iter().map(event_bytes).sum()
}

/// A response without events. The hub's `poll` fills in the rest of the header.
pub(super) fn head(watch_id: i64, revision: i64) -> pb::WatchResponse {
    let header = pb::ResponseHeader { revision, ..Default::default() };
    pb::WatchResponse { header: Some(header), watch_id, ..Default::default() }
}

/// The key before the whole revision of the event; `None` when it did not exist or is compacted.
fn prev_kv(event: &mvccpb::Event, store: &dyn History) -> Option<mvccpb::KeyValue> {
    let kv = event.kv.as_ref()?;
    let before = kv.mod_revision - 1;
    // Revision 0 would mean "now" to the store.
    if before < 1 {
        return None;
    }
    store.key_at(&kv.key, before).ok().flatten()
}

/// The same where the store has said what was there before.
fn with_previous(event: &mvccpb::Event, before: &Previous, store: &dyn History) -> mvccpb::Event {
    let prev_kv = match before {
        Previous::Absent => None,
        Previous::Here(encoded) => Some(decode_kv(encoded)),
        Previous::Unread => return with_prev_kv(event, store),
    };
    mvccpb::Event { prev_kv, ..event.clone() }
}

pub(super) fn with_prev_kv(event: &mvccpb::Event, store: &dyn History) -> mvccpb::Event {
    mvccpb::Event { prev_kv: prev_kv(event, store), ..event.clone() }
}

/// One applied revision, in the forms that watchers want it.
pub(super) struct Delivery<'a> {
    pub events: &'a Arc<RevisionEvents>,
    previous: &'a [Previous],
    pub store: &'a dyn History,
    bytes: u64,
    /// With previous values: made when first wanted, shared like the plain one.
    with_prev: Option<(Arc<RevisionEvents>, u64)>,
}

impl<'a> Delivery<'a> {
    pub(super) fn new(
        events: &'a Arc<RevisionEvents>,
        previous: &'a [Previous],
        store: &'a dyn History,
    ) -> Self {
        assert_eq!(events.events.len(), previous.len(), "each event has what was before it");
        let bytes = events_bytes(&events.events);
        Self { events, previous, store, bytes, with_prev: None }
    }

    /// The chosen events (ascending positions in the revision) and their bytes.
    pub(super) fn select(&mut self, chosen: &[u32], prev_kv: bool) -> (WatchEvents, u64) {
        let (all, bytes) = if prev_kv { self.with_prev() } else { (self.events, self.bytes) };
        if chosen.len() == all.events.len() {
            return (WatchEvents::Shared(all.clone()), bytes);
        }
        let own: Vec<_> = chosen.iter().map(|i| all.events[*i as usize].clone()).collect();
        let bytes = events_bytes(&own);
        (WatchEvents::Own(own), bytes)
    }

    fn with_prev(&mut self) -> (&Arc<RevisionEvents>, u64) {
        let (events, store) = (self.events, self.store);
        let pairs = events.events.iter().zip(self.previous);
        let (shared, bytes) = self.with_prev.get_or_insert_with(|| {
            let with_prev: Vec<_> =
                pairs.map(|(e, before)| with_previous(e, before, store)).collect();
            let bytes = events_bytes(&with_prev);
            (Arc::new(RevisionEvents::new(events.revision, with_prev)), bytes)
        });
        (shared, *bytes)
    }
}

/// Cuts a response at `fragment_bytes` by whole events; every part has at least one (surface spec §4.4).
///
/// Calls `emit` with each part, whether another one follows, and its bytes.
pub(super) fn fragment(
    head: &pb::WatchResponse,
    events: WatchEvents,
    events_bytes: u64,
    fragment_bytes: usize,
    mut emit: impl FnMut(WatchEvents, bool, u64),
) {
    let head_bytes = head.encoded_len() as u64 + HEAD_BYTES;
    let limit = fragment_bytes as u64;
    let all = events.as_slice();
    if head_bytes + events_bytes < limit || all.len() < 2 {
        return emit(events, false, events_bytes);
    }
    let mut part: Vec<mvccpb::Event> = Vec::new();
    let mut bytes = 0;
    for event in all {
        let more = event_bytes(event);
        if !part.is_empty() && head_bytes + bytes + more >= limit {
            emit(WatchEvents::Own(std::mem::take(&mut part)), true, bytes);
            bytes = 0;
        }
        part.push(event.clone());
        bytes += more;
    }
    emit(WatchEvents::Own(part), false, bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(value_bytes: usize) -> mvccpb::Event {
        let value = bytes::Bytes::from(vec![b'v'; value_bytes]);
        let kv = mvccpb::KeyValue { value, ..Default::default() };
        mvccpb::Event { kv: Some(kv), ..Default::default() }
    }

    fn parts(sizes: &[usize], limit: usize) -> Vec<(usize, bool)> {
        let events: Vec<_> = sizes.iter().map(|s| event(*s)).collect();
        let bytes = events_bytes(&events);
        let mut parts = Vec::new();
        fragment(&head(1, 1), WatchEvents::Own(events), bytes, limit, |events, more, bytes| {
            assert_eq!(bytes, events_bytes(events.as_slice()));
            parts.push((events.as_slice().len(), more));
        });
        parts
    }

    #[test]
    fn a_response_is_cut_by_whole_events_and_all_but_the_last_part_say_so() {
        assert_eq!(parts(&[300, 300, 300], 2000), [(3, false)], "small enough");
        assert_eq!(parts(&[3000], 2000), [(1, false)], "one event is never cut");
        assert_eq!(parts(&[800, 800, 800], 2000), [(2, true), (1, false)]);
        assert_eq!(parts(&[3000, 10, 3000], 2000), [(1, true), (1, true), (1, false)]);
    }

    #[test]
    fn the_size_of_an_event_is_its_encoded_size() {
        let response = pb::WatchResponse { events: vec![event(1000)], ..Default::default() };
        assert_eq!(events_bytes(&response.events), response.encoded_len() as u64);
    }
}
