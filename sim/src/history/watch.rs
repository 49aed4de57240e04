//! Watches: what was asked for, and everything that came.

use std::ops::Range;

use bytes::Bytes;
use detkv_core::pb::{etcdserverpb as pb, mvccpb};
use detkv_core::{Instant, MemberId};

use super::{ClientId, History, KeyRange, KvId, WatchId};

/// One watch on one connection.
#[derive(Clone, Debug)]
pub struct WatchRecord {
    pub client: ClientId,
    pub member: MemberId,
    pub opened: Instant,
    pub keys: KeyRange,
    pub start_revision: i64,
    pub prev_kv: bool,
    pub progress_notify: bool,
    pub fragment: bool,
    pub no_put: bool,
    pub no_delete: bool,
    /// When the `created` answer came, and its header's revision.
    pub created: Option<(Instant, i64)>,
    pub batches: Vec<Batch>,
    pub events: Vec<WatchEvent>,
    pub end: Option<(Instant, WatchEnd)>,
}

/// One response with events, or a progress notice (no events).
#[derive(Clone, Debug)]
pub struct Batch {
    pub at: Instant,
    /// Of the response's header.
    pub revision: i64,
    /// More of the same revision follows.
    pub fragment: bool,
    /// In [`WatchRecord::events`].
    pub events: Range<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatchEvent {
    pub is_delete: bool,
    pub kv: KvId,
    pub prev: Option<KvId>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WatchEnd {
    /// The connection broke.
    Lost,
    /// The client closed it.
    Closed,
    Canceled {
        compact_revision: i64,
        reason: String,
    },
}

impl History {
    pub(super) fn on_watch_opened(
        &mut self,
        at: Instant,
        client: ClientId,
        member: MemberId,
        request: &pb::WatchCreateRequest,
    ) {
        use pb::watch_create_request::FilterType;
        // Surface spec §4.1: an empty key watches from the lowest one.
        let lowest = Bytes::from_static(b"\0");
        let key = if request.key.is_empty() { &lowest } else { &request.key };
        let keys = self.key_range(key, &request.range_end);
        let has = |filter: FilterType| request.filters.contains(&(filter as i32));
        self.watches.push(WatchRecord {
            client,
            member,
            opened: at,
            keys,
            start_revision: request.start_revision,
            prev_kv: request.prev_kv,
            progress_notify: request.progress_notify,
            fragment: request.fragment,
            no_put: has(FilterType::Noput),
            no_delete: has(FilterType::Nodelete),
            created: None,
            batches: Vec::new(),
            events: Vec::new(),
            end: None,
        });
    }

    pub(super) fn on_watch_response(
        &mut self,
        at: Instant,
        watch: WatchId,
        response: pb::WatchResponse,
    ) {
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        // An event without a row is recorded as one about the empty key, which no filter allows.
        let none = mvccpb::KeyValue::default();
        let mut events = Vec::with_capacity(response.events.len());
        for event in &response.events {
            events.push(WatchEvent {
                is_delete: event.r#type == mvccpb::event::EventType::Delete as i32,
                kv: self.intern_kv(event.kv.as_ref().unwrap_or(&none)),
                prev: event.prev_kv.as_ref().map(|prev| self.intern_kv(prev)),
            });
        }
        let record = &mut self.watches[watch.0 as usize];
        if response.created {
            record.created = Some((at, revision));
        }
        if !events.is_empty() || !(response.created || response.canceled) {
            let from = record.events.len() as u32;
            record.events.append(&mut events);
            let events = from..record.events.len() as u32;
            record.batches.push(Batch { at, revision, fragment: response.fragment, events });
        }
        if response.canceled {
            let end = WatchEnd::Canceled {
                compact_revision: response.compact_revision,
                reason: response.cancel_reason,
            };
            self.on_watch_end(at, watch, end);
        }
    }

    pub(super) fn on_watch_end(&mut self, at: Instant, watch: WatchId, end: WatchEnd) {
        let record = &mut self.watches[watch.0 as usize];
        record.end.get_or_insert((at, end));
    }
}
