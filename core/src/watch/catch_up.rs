//! Unsynced watchers read history in rounds, each watcher a batch at a time (surface spec §4.3).

use std::time::Duration;

use super::history::History;
use super::hub::WatchHub;
use super::message::{event_bytes, head, with_prev_kv};
use super::watcher::{Slot, Watcher};
use crate::api::{RevisionEvents, StreamId, WatchEvents};
use crate::error::ApiError;
use crate::limits::{WATCH_BATCH_REVISIONS, WATCH_CATCH_UP_WATCHERS, WATCH_STREAM_BYTES_MAX};
use crate::pb::mvccpb;
use crate::time::Instant;
use crate::{buggify, sometimes};

/// After a round without progress (etcd's value).
const ROUND_INTERVAL: Duration = Duration::from_millis(100);
/// A round ends after so many bytes: the member has other things to do too.
const ROUND_BYTES_MAX: u64 = 8 << 20;
/// … or after it went over so many revisions, wanted or not: some of them are read row by row.
const ROUND_REVISIONS_MAX: u64 = 1 << 18;
/// A batch of a watcher takes at most so many reads.
const BATCH_READS_MAX: usize = 16;
/// Revisions asked of the store at first; doubled until a batch is full, so that large values
/// are not read far beyond what may be sent.
const FIRST_READ_REVISIONS: usize = 16;

/// What one watcher gets in one response.
struct Batch {
    events: Vec<mvccpb::Event>,
    bytes: u64,
    /// Where it goes on.
    next: i64,
}

impl WatchHub {
    /// One round, if there is one to do and it is time.
    pub(super) fn maybe_catch_up(&mut self, now: Instant, store: &dyn History) {
        if self.ready.is_empty() || now < self.next_round {
            return;
        }
        let behind = self.ready.range(self.turn..);
        let streams: Vec<StreamId> = behind
            .chain(self.ready.range(..self.turn))
            .take(WATCH_CATCH_UP_WATCHERS)
            .copied()
            .collect();
        let watchers = if buggify!("watch.one-watcher") { 1 } else { WATCH_CATCH_UP_WATCHERS };
        let mut budget =
            Budget { watchers, bytes: ROUND_BYTES_MAX, revisions: ROUND_REVISIONS_MAX };
        let mut progress = false;
        for stream in streams {
            if budget.is_spent() {
                break;
            }
            progress |= self.catch_up_stream(stream, store, &mut budget);
            self.turn = StreamId(stream.0.wrapping_add(1));
        }
        self.next_round = if progress { now } else { now + ROUND_INTERVAL };
    }

    /// Each unsynced watcher of the stream at most once. True when one came further.
    fn catch_up_stream(
        &mut self,
        stream_id: StreamId,
        store: &dyn History,
        budget: &mut Budget,
    ) -> bool {
        let mut progress = false;
        let count = self.streams[&stream_id].unsynced.len();
        for _ in 0..count {
            let stream = self.streams.get_mut(&stream_id).expect("ready streams are open");
            if budget.is_spent() || !stream.has_credit() {
                break;
            }
            let Some(slot) = stream.next_unsynced() else { break };
            progress |= self.catch_up_watcher(slot, store, budget);
        }
        progress
    }

    /// Sends the watcher its next batch. True when it came further.
    fn catch_up_watcher(&mut self, slot: Slot, store: &dyn History, budget: &mut Budget) -> bool {
        budget.watchers = budget.watchers.saturating_sub(1);
        let current = store.revision();
        let watcher = self.watchers.get(slot);
        let (stream, id, from) = (watcher.stream, watcher.id, watcher.next);
        match next_batch(watcher, current, store) {
            Ok(batch) => {
                budget.revisions = budget.revisions.saturating_sub(batch.next.abs_diff(from));
                if !batch.events.is_empty() {
                    budget.bytes = budget.bytes.saturating_sub(batch.bytes);
                    self.send_events(slot, current, WatchEvents::Own(batch.events), batch.bytes);
                }
                if batch.next > current {
                    sometimes!("watch.caught-up");
                    self.become_synced(slot, batch.next);
                } else {
                    self.watchers.get_mut(slot).next = batch.next;
                }
                batch.next > current || batch.next > from
            }
            Err(ApiError::Compacted) => {
                let mut canceled = head(id, 0);
                canceled.canceled = true;
                canceled.compact_revision = store.compact_revision();
                sometimes!("watch.compacted");
                self.become_compacted(slot);
                self.send(stream, canceled, WatchEvents::None, 0);
                true
            }
            // The store cannot be read: the member is about to halt. Nothing is lost meanwhile.
            Err(_) => false,
        }
    }
}

struct Budget {
    watchers: usize,
    bytes: u64,
    revisions: u64,
}

impl Budget {
    fn is_spent(&self) -> bool {
        self.watchers == 0 || self.bytes == 0 || self.revisions == 0
    }
}

/// The next events of a watcher: whole revisions, at most `WATCH_BATCH_REVISIONS` of them, and no
/// more once `WATCH_STREAM_BYTES_MAX` is reached.
fn next_batch(watcher: &Watcher, current: i64, store: &dyn History) -> Result<Batch, ApiError> {
    let (key, range_end) = (&watcher.span.start, watcher.span.range_end());
    let mut batch = Batch { events: Vec::new(), bytes: 0, next: watcher.next };
    let (mut revisions, mut ask) = (0, FIRST_READ_REVISIONS);
    let revisions_max = if buggify!("watch.small-batch") { 1 } else { WATCH_BATCH_REVISIONS };
    for _ in 0..BATCH_READS_MAX {
        if batch.next > current || revisions >= revisions_max {
            break;
        }
        let ask_now = ask.min(revisions_max - revisions);
        let (changes, next) = store.changes(batch.next, current, key, range_end, ask_now)?;
        assert!(next > batch.next, "reading history comes further");
        batch.next = next;
        revisions += changes.len();
        for change in changes {
            if batch.bytes >= WATCH_STREAM_BYTES_MAX {
                batch.next = change.revision;
                return Ok(batch);
            }
            add(&mut batch, watcher, &change, store);
        }
        if batch.bytes >= WATCH_STREAM_BYTES_MAX {
            break;
        }
        ask *= 2;
    }
    Ok(batch)
}

fn add(batch: &mut Batch, watcher: &Watcher, change: &RevisionEvents, store: &dyn History) {
    for event in &change.events {
        let wanted = event.kv.as_ref().is_some_and(|kv| watcher.span.contains(&kv.key));
        if !wanted || !watcher.accepts(event) {
            continue;
        }
        let event = if watcher.prev_kv { with_prev_kv(event, store) } else { event.clone() };
        batch.bytes += event_bytes(&event);
        batch.events.push(event);
    }
}
