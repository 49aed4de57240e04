//! Watches: registry, synced and unsynced watchers, catch-up, fragments, progress, cancel (surface spec §4).
//!
//! Start at [`WatchHub`]. Decides everything; the driver only frames. Bounded: a watcher that cannot be
//! sent to keeps its position and at most one batch.

use std::sync::Arc;
use std::time::Duration;

use crate::api::{RevisionEvents, StreamId, WatchMessage};
use crate::mvcc::StoreReader;
use crate::pb::etcdserverpb as pb;
use crate::time::Instant;

#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// Interval of periodic progress notices; a stream's phase is drawn from the seed, plus 0–10 %.
    pub progress_interval: Duration,
    /// A fragmenting watcher's messages are cut at this many bytes (max request bytes + 512 KiB).
    pub fragment_bytes: usize,
    pub seed: u64,
}

#[derive(Debug)]
pub struct WatchHub {}

/// Gauges.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct WatchCounts {
    pub streams: u64,
    pub watchers: u64,
    /// Not synced.
    pub slow: u64,
}

impl WatchHub {
    pub fn new(_options: WatchOptions) -> Self {
        Self {}
    }

    pub fn open_stream(&mut self, _now: Instant, _stream: StreamId) {}

    pub fn close_stream(&mut self, _stream: StreamId) {}

    pub fn handle(
        &mut self,
        _now: Instant,
        _stream: StreamId,
        _request: pb::WatchRequest,
        _store: &StoreReader,
    ) {
    }

    /// The transport took `bytes` of the stream.
    pub fn on_drained(&mut self, _now: Instant, _stream: StreamId, _bytes: u64) {}

    /// A revision was applied. Called in order of revisions.
    pub fn on_applied(&mut self, _events: &Arc<RevisionEvents>, _store: &StoreReader) {}

    /// The store was replaced by a snapshot: everyone catches up from their own position.
    pub fn on_store_replaced(&mut self) {}

    pub fn next_deadline(&self) -> Option<Instant> {
        None
    }

    /// Catch-up rounds, retries, periodic progress; then everything ready to go out.
    /// `header` has cluster_id, member_id, raft_term of this member; the hub sets the revision.
    pub fn poll(
        &mut self,
        _now: Instant,
        _store: &StoreReader,
        _header: &pb::ResponseHeader,
        _out: &mut Vec<(StreamId, WatchMessage)>,
    ) {
    }

    pub fn counts(&self) -> WatchCounts {
        WatchCounts::default()
    }
}
