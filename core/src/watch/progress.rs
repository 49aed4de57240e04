//! Progress notices: "every event up to this revision has been sent" (surface spec §4.5).
//!
//! They go the way of events, so they overtake none. Without credit they are dropped.

use super::hub::{NO_WATCH_ID, WatchHub};
use super::message::head;
use super::watcher::State;
use crate::api::{StreamId, WatchEvents};
use crate::time::Instant;

impl WatchHub {
    /// Answered only if all watchers of the stream, one at least, are synced and have begun.
    pub(super) fn request_progress(&mut self, stream_id: StreamId, revision: i64) {
        let stream = self.streams.get_mut(&stream_id).expect("checked by the caller");
        while stream.future.first().is_some_and(|(start, _)| *start <= revision) {
            stream.future.pop_first();
        }
        let all_synced = stream.unsynced.is_empty()
            && stream.compacted == 0
            && stream.future.is_empty()
            && !stream.ids.is_empty();
        if all_synced && stream.has_credit() {
            self.send(stream_id, head(NO_WATCH_ID, revision), WatchEvents::None, 0);
        }
    }

    /// Periodic progress of the streams whose tick has come.
    pub(super) fn notify_progress(&mut self, now: Instant, revision: i64) {
        while let Some((due, stream_id)) = self.progress_due.first().copied() {
            if due > now {
                return;
            }
            self.progress_due.pop_first();
            let stream = self.streams.get_mut(&stream_id).expect("closing takes its ticks away");
            let next = stream.next_progress(now);
            stream.progress_due = Some(next);
            self.progress_due.insert((next, stream_id));
            for slot in stream.notify.clone() {
                let watcher = self.watchers.get_mut(slot);
                let active = std::mem::take(&mut watcher.active);
                let has_begun = watcher.start_revision <= revision;
                let id = watcher.id;
                let idle = !active && watcher.state == State::Synced && has_begun;
                if idle && self.streams[&stream_id].has_credit() {
                    self.send(stream_id, head(id, revision), WatchEvents::None, 0);
                }
            }
        }
    }
}
