//! The registry of watchers and what becomes of an applied revision.
//!
//! ```text
//! create ──► synced ──(no credit, store replaced)──► unsynced ──(caught up)──► synced
//!        └─► unsynced ──(position compacted)──► compacted ──(cancelled by the client)──► gone
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::history::History;
use super::index::Index;
use super::message::{Delivery, HEAD_BYTES, fragment, head};
use super::stream::Stream;
use super::watcher::{Slot, Slots, Span, State, Watcher};
use crate::api::{RevisionEvents, StreamId, WatchEvents, WatchMessage};
use crate::error::ApiError;
use crate::limits::WATCHERS_PER_STREAM_MAX;
use crate::mvcc::Previous;
use crate::pb::etcdserverpb as pb;
use crate::pb::etcdserverpb::watch_request::RequestUnion;
use crate::time::Instant;
use crate::{buggify, sometimes};

/// In answers that belong to no watcher.
pub(super) const NO_WATCH_ID: i64 = -1;

#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// Interval of periodic progress notices; a stream's phase is drawn from the seed, plus 0–10 %.
    pub progress_interval: Duration,
    /// A fragmenting watcher's messages are cut at this many bytes (max request bytes + 512 KiB).
    pub fragment_bytes: usize,
    /// Byte credit of one stream: handed out and not yet drained.
    pub stream_bytes: u64,
    pub seed: u64,
}

/// All watches of a member.
#[derive(Debug)]
pub struct WatchHub {
    pub(super) options: WatchOptions,
    rng: ChaCha8Rng,
    pub(super) streams: BTreeMap<StreamId, Stream>,
    pub(super) watchers: Slots,
    /// Invariant: holds exactly the synced watchers.
    index: Index,
    /// Streams with unsynced watchers and credit.
    pub(super) ready: BTreeSet<StreamId>,
    /// Catch-up goes on behind this stream, not before this time.
    pub(super) turn: StreamId,
    pub(super) next_round: Instant,
    /// Ticks of periodic progress, of streams that have a watcher for them.
    pub(super) progress_due: BTreeSet<(Instant, StreamId)>,
    /// The last applied revision: what synced watchers have had.
    revision: i64,
    unsynced: u64,
    /// Sum of the streams' `in_flight`.
    buffered_bytes: u64,
    pending: Vec<(StreamId, WatchMessage)>,
    /// Kept for its allocation: (watcher, position of an event that reaches it).
    hits: Vec<(Slot, u32)>,
}

/// Gauges.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct WatchCounts {
    pub streams: u64,
    pub watchers: u64,
    /// Not synced.
    pub slow: u64,
    /// Handed out and not yet drained, over all streams.
    pub buffered_bytes: u64,
}

impl WatchHub {
    pub fn new(options: WatchOptions) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(options.seed),
            options,
            streams: BTreeMap::new(),
            watchers: Slots::default(),
            index: Index::default(),
            ready: BTreeSet::new(),
            turn: StreamId(0),
            next_round: Instant::ZERO,
            progress_due: BTreeSet::new(),
            revision: 0,
            unsynced: 0,
            buffered_bytes: 0,
            pending: Vec::new(),
            hits: Vec::new(),
        }
    }

    pub fn open_stream(&mut self, now: Instant, stream: StreamId) {
        let interval = self.options.progress_interval;
        let jitter = (interval / 10).as_nanos() as u64;
        let interval = interval + Duration::from_nanos(self.rng.next_u64() % jitter.max(1));
        let before =
            self.streams.insert(stream, Stream::new(now, interval, self.options.stream_bytes));
        assert!(before.is_none(), "the driver names each open stream differently");
    }

    pub fn close_stream(&mut self, stream: StreamId) {
        let Some(closed) = self.streams.get(&stream) else { return };
        let slots: Vec<Slot> = closed.ids.values().copied().collect();
        for slot in slots {
            self.remove_watcher(slot);
        }
        if let Some(closed) = self.streams.remove(&stream) {
            self.buffered_bytes -= closed.in_flight;
        }
    }

    /// A request on a stream; one without content, or on a closed stream, is ignored.
    pub fn handle(
        &mut self,
        now: Instant,
        stream: StreamId,
        request: pb::WatchRequest,
        store: &dyn History,
    ) {
        if !self.streams.contains_key(&stream) {
            return;
        }
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => {
                if let Err(reason) = self.create(now, stream, &create, store) {
                    let mut refused = head(NO_WATCH_ID, store.revision());
                    (refused.created, refused.canceled) = (true, true);
                    refused.cancel_reason = reason;
                    self.send(stream, refused, WatchEvents::None, 0);
                }
            }
            Some(RequestUnion::CancelRequest(cancel)) => {
                self.cancel(stream, cancel.watch_id, store)
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                self.request_progress(stream, store.revision())
            }
            None => {}
        }
    }

    /// `Err` is the reason for which the watch is refused.
    fn create(
        &mut self,
        now: Instant,
        stream_id: StreamId,
        request: &pb::WatchCreateRequest,
        store: &dyn History,
    ) -> Result<(), String> {
        if request.start_revision < 0 {
            return Err(ApiError::Compacted.to_string());
        }
        let span = Span::new(&request.key, &request.range_end)
            .ok_or_else(|| "mvcc: watcher range is empty".to_owned())?;
        let stream = self.streams.get_mut(&stream_id).expect("checked by the caller");
        if stream.ids.len() >= WATCHERS_PER_STREAM_MAX {
            return Err(ApiError::TooManyRequests.to_string());
        }
        let id = stream
            .choose_id(request.watch_id)
            .ok_or_else(|| "mvcc: duplicate watch ID provided on the WatchStream".to_owned())?;
        let revision = store.revision();
        let slot = self.watchers.insert(Watcher::new(stream_id, id, span, request));
        stream.ids.insert(id, slot);
        if request.start_revision > revision {
            stream.future.insert((request.start_revision, id));
        }
        if request.progress_notify {
            stream.notify.insert(slot);
            if stream.progress_due.is_none() {
                let due = stream.next_progress(now);
                stream.progress_due = Some(due);
                self.progress_due.insert((due, stream_id));
            }
        }
        if request.start_revision == 0 || request.start_revision > revision {
            let watcher = self.watchers.get_mut(slot);
            watcher.next = watcher.next.max(revision + 1);
            watcher.state = State::Synced;
            self.index.insert(&watcher.span, slot);
        } else {
            stream.unsynced.insert(slot);
            self.unsynced += 1;
            self.update_ready(stream_id);
        }
        let mut created = head(id, revision);
        created.created = true;
        self.send(stream_id, created, WatchEvents::None, 0);
        Ok(())
    }

    /// An unknown id has no answer (surface spec §4.2).
    fn cancel(&mut self, stream: StreamId, id: i64, store: &dyn History) {
        let Some(slot) = self.streams[&stream].ids.get(&id) else { return };
        self.remove_watcher(*slot);
        let mut canceled = head(id, store.revision());
        canceled.canceled = true;
        self.send(stream, canceled, WatchEvents::None, 0);
    }

    fn remove_watcher(&mut self, slot: Slot) {
        let watcher = self.watchers.remove(slot);
        let stream = self.streams.get_mut(&watcher.stream).expect("a watcher's stream is open");
        stream.ids.remove(&watcher.id);
        stream.future.remove(&(watcher.start_revision, watcher.id));
        match watcher.state {
            State::Synced => self.index.remove(&watcher.span, slot),
            State::Unsynced => {
                stream.unsynced.remove(&slot);
                self.unsynced -= 1;
            }
            State::Compacted => stream.compacted -= 1,
        }
        if stream.notify.remove(&slot) && stream.notify.is_empty() {
            let due = stream.progress_due.take().expect("it had a watcher for it");
            self.progress_due.remove(&(due, watcher.stream));
        }
        self.update_ready(watcher.stream);
    }

    /// The transport took `bytes` of the stream.
    pub fn on_drained(&mut self, now: Instant, stream: StreamId, bytes: u64) {
        let Some(drained) = self.streams.get_mut(&stream) else { return };
        let had_credit = drained.has_credit();
        let bytes = bytes.min(drained.in_flight);
        drained.in_flight -= bytes;
        self.buffered_bytes -= bytes;
        if !had_credit && drained.has_credit() && !drained.unsynced.is_empty() {
            self.next_round = self.next_round.min(now);
        }
        self.update_ready(stream);
    }

    /// A revision was applied; `previous` is what its events' keys were before. Called in order of revisions.
    pub fn on_applied(
        &mut self,
        events: &Arc<RevisionEvents>,
        previous: &[Previous],
        store: &dyn History,
    ) {
        self.revision = events.revision;
        let mut hits = std::mem::take(&mut self.hits);
        for (i, event) in (0..).zip(&events.events) {
            if let Some(kv) = &event.kv {
                self.index.for_each(&kv.key, |slot| hits.push((slot, i)));
            }
        }
        if hits.is_empty() {
            self.hits = hits;
            return;
        }
        if events.events.len() > 1 {
            hits.sort_unstable();
        }
        let mut delivery = Delivery::new(events, previous, store);
        let mut chosen = Vec::new();
        for reached in hits.chunk_by(|a, b| a.0 == b.0) {
            chosen.clear();
            chosen.extend(reached.iter().map(|(_, i)| *i));
            self.deliver(reached[0].0, &mut chosen, &mut delivery);
        }
        hits.clear();
        self.hits = hits;
    }

    /// Sends the chosen events of a revision to a synced watcher; without credit it becomes unsynced there.
    fn deliver(&mut self, slot: Slot, chosen: &mut Vec<u32>, delivery: &mut Delivery<'_>) {
        let watcher = self.watchers.get(slot);
        let revision = delivery.events.revision;
        if revision < watcher.next {
            return;
        }
        chosen.retain(|i| watcher.accepts(&delivery.events.events[*i as usize]));
        if chosen.is_empty() {
            return;
        }
        if !self.streams[&watcher.stream].has_credit() || buggify!("watch.fall-behind") {
            sometimes!("watch.fell-behind");
            return self.become_unsynced(slot, revision);
        }
        let (events, bytes) = delivery.select(chosen, watcher.prev_kv);
        self.send_events(slot, revision, events, bytes);
    }

    /// `next`: the first revision it has not had.
    fn become_unsynced(&mut self, slot: Slot, next: i64) {
        let watcher = self.watchers.get_mut(slot);
        assert_eq!(watcher.state, State::Synced, "only a synced watcher falls behind");
        (watcher.state, watcher.next) = (State::Unsynced, watcher.next.max(next));
        self.index.remove(&watcher.span, slot);
        let stream_id = watcher.stream;
        let stream = self.streams.get_mut(&stream_id).expect("a watcher's stream is open");
        stream.unsynced.insert(slot);
        self.unsynced += 1;
        self.update_ready(stream_id);
    }

    /// Has had everything below `next`, which is not yet applied.
    pub(super) fn become_synced(&mut self, slot: Slot, next: i64) {
        let watcher = self.watchers.get_mut(slot);
        (watcher.state, watcher.next) = (State::Synced, watcher.next.max(next));
        self.index.insert(&watcher.span, slot);
        self.leave_unsynced(slot);
    }

    pub(super) fn become_compacted(&mut self, slot: Slot) {
        let watcher = self.watchers.get_mut(slot);
        watcher.state = State::Compacted;
        let stream = self.streams.get_mut(&watcher.stream).expect("a watcher's stream is open");
        stream.compacted += 1;
        self.leave_unsynced(slot);
    }

    fn leave_unsynced(&mut self, slot: Slot) {
        let stream_id = self.watchers.get(slot).stream;
        let stream = self.streams.get_mut(&stream_id).expect("a watcher's stream is open");
        let was_there = stream.unsynced.remove(&slot);
        assert!(was_there, "only an unsynced watcher catches up");
        self.unsynced -= 1;
        self.update_ready(stream_id);
    }

    /// The store was replaced by a snapshot: everyone catches up from their own position.
    pub fn on_store_replaced(&mut self) {
        let synced = self.watchers.iter_mut().filter(|(_, w)| w.state == State::Synced);
        let slots: Vec<Slot> = synced.map(|(slot, _)| slot).collect();
        for slot in slots {
            self.become_unsynced(slot, self.revision + 1);
        }
        self.next_round = Instant::ZERO;
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        let progress = self.progress_due.first().map(|(due, _)| *due);
        if self.ready.is_empty() {
            return progress;
        }
        Some(progress.map_or(self.next_round, |due| due.min(self.next_round)))
    }

    /// Whether `poll` would do anything.
    pub fn has_work(&self, now: Instant) -> bool {
        !self.pending.is_empty() || self.next_deadline().is_some_and(|at| at <= now)
    }

    /// Catch-up rounds, retries, periodic progress; then everything ready to go out.
    /// `header` has cluster_id, member_id, raft_term of this member; the hub sets the revision.
    pub fn poll(
        &mut self,
        now: Instant,
        store: &dyn History,
        header: &pb::ResponseHeader,
        out: &mut Vec<(StreamId, WatchMessage)>,
    ) {
        self.notify_progress(now, store.revision());
        self.maybe_catch_up(now, store);
        let open = &self.streams;
        let pending = self.pending.drain(..).filter(|(stream, _)| open.contains_key(stream));
        out.extend(pending.map(|(stream, mut message)| {
            let revision = message.head.header.as_ref().map_or(0, |h| h.revision);
            message.head.header = Some(pb::ResponseHeader { revision, ..*header });
            (stream, message)
        }));
    }

    pub fn counts(&self) -> WatchCounts {
        WatchCounts {
            streams: self.streams.len() as u64,
            watchers: self.watchers.len() as u64,
            slow: self.unsynced,
            buffered_bytes: self.buffered_bytes,
        }
    }

    pub(super) fn send_events(
        &mut self,
        slot: Slot,
        revision: i64,
        events: WatchEvents,
        events_bytes: u64,
    ) {
        let watcher = self.watchers.get_mut(slot);
        watcher.active = true;
        let (stream, cut) = (watcher.stream, watcher.fragment);
        let head = head(watcher.id, revision);
        if !cut {
            return self.send(stream, head, events, events_bytes);
        }
        let at_once = buggify!("watch.fragment-now");
        let limit = if at_once { 1 } else { self.options.fragment_bytes };
        fragment(&head.clone(), events, events_bytes, limit, |events, more, bytes| {
            sometimes!(more, "watch.fragmented");
            let part = pb::WatchResponse { fragment: more, ..head.clone() };
            self.send(stream, part, events, bytes);
        });
    }

    /// Everything on a stream goes through here, in order: nothing overtakes.
    pub(super) fn send(
        &mut self,
        stream_id: StreamId,
        head: pb::WatchResponse,
        events: WatchEvents,
        events_bytes: u64,
    ) {
        let bytes = HEAD_BYTES + head.cancel_reason.len() as u64 + events_bytes;
        let stream = self.streams.get_mut(&stream_id).expect("sends go to open streams");
        stream.in_flight += bytes;
        self.buffered_bytes += bytes;
        if !stream.has_credit() {
            self.ready.remove(&stream_id);
        }
        self.pending.push((stream_id, WatchMessage { head, events, bytes }));
    }

    /// Keeps `ready` true to its word.
    fn update_ready(&mut self, stream_id: StreamId) {
        let stream = &self.streams[&stream_id];
        if stream.has_credit() && !stream.unsynced.is_empty() {
            self.ready.insert(stream_id);
        } else {
            self.ready.remove(&stream_id);
        }
    }
}
