//! Counters, gauges and histograms that a driver may read from another thread, and may not change.
//!
//! Counted where the thing happens; a driver adds names and units. Times are by the member's own clock,
//! so they are as exact in the simulator as anything else there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use crate::event::MemberId;
use crate::mvcc::StoreMetrics;
use crate::pb::etcdserverpb as pb;

/// A counter or gauge.
#[derive(Default, Debug)]
pub struct Value(AtomicU64);

impl Value {
    pub fn load(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// `n` more. By the member alone, so no read-modify-write is lost.
    pub(crate) fn add(&self, n: u64) {
        self.set(self.load() + n);
    }

    /// `n` more, by any thread.
    pub(crate) fn add_shared(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// One less, by any thread.
    pub(crate) fn sub_one_shared(&self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// How long things took. Observed by the member alone.
#[derive(Debug)]
pub struct Histogram {
    /// Upper bound of the first bucket; each further one's is the double.
    first: Duration,
    /// Invariant: the last one counts what is beyond all bounds.
    counts: Box<[Value]>,
    sum_us: Value,
}

impl Histogram {
    /// With `bounds` bounds from `first` on, and one bucket beyond them.
    pub fn new(first: Duration, bounds: usize) -> Self {
        let counts = (0..=bounds).map(|_| Value::default()).collect();
        Self { first, counts, sum_us: Value::default() }
    }

    pub(crate) fn observe(&self, took: Duration) {
        let beyond = self.counts.len() - 1;
        let bucket = (0..beyond).find(|n| took <= self.bound(*n)).unwrap_or(beyond);
        self.counts[bucket].add(1);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.sum_us.set(self.sum_us.load().saturating_add(us));
    }

    fn bound(&self, n: usize) -> Duration {
        self.first * (1 << n)
    }

    /// Each bound, and how many observations were at most that.
    pub fn cumulative(&self) -> impl Iterator<Item = (Duration, u64)> {
        let bounded = &self.counts[..self.counts.len() - 1];
        bounded.iter().enumerate().scan(0, |sum, (n, count)| {
            *sum += count.load();
            Some((self.bound(n), *sum))
        })
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().map(Value::load).sum()
    }

    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us.load())
    }
}

/// Snapshots to one peer, or from it.
#[derive(Debug)]
pub struct Transfers {
    pub under_way: u64,
    pub succeeded: u64,
    pub failed: u64,
    /// Of those that succeeded.
    pub duration: Histogram,
}

/// By the peer at the other end.
#[derive(Default, Debug)]
pub struct TransfersByPeer(Mutex<BTreeMap<MemberId, Transfers>>);

impl TransfersByPeer {
    pub(crate) fn on_begin(&self, peer: MemberId) {
        self.with(peer, |transfers| transfers.under_way += 1);
    }

    /// `took` if it succeeded.
    pub(crate) fn on_end(&self, peer: MemberId, took: Option<Duration>) {
        self.with(peer, |transfers| {
            transfers.under_way -= 1;
            match took {
                Some(took) => {
                    transfers.succeeded += 1;
                    transfers.duration.observe(took);
                }
                None => transfers.failed += 1,
            }
        });
    }

    fn with(&self, peer: MemberId, f: impl FnOnce(&mut Transfers)) {
        let mut peers = self.0.lock();
        f(peers.entry(peer).or_insert_with(|| Transfers {
            under_way: 0,
            succeeded: 0,
            failed: 0,
            duration: Histogram::new(Duration::from_millis(100), 10),
        }));
    }

    pub fn for_each(&self, mut f: impl FnMut(MemberId, &Transfers)) {
        self.0.lock().iter().for_each(|(peer, transfers)| f(*peer, transfers));
    }
}

macro_rules! metrics {
    ($($name:ident),* $(,)?; $($histogram:ident: $first_ms:literal ms * $bounds:literal),* $(,)?) => {
        /// Counters, gauges and histograms; names as in surface spec §14 without the prefix.
        #[derive(Debug)]
        pub struct Metrics {
            $(pub $name: Value,)*
            $(pub $histogram: Histogram,)*
            /// What the store counts.
            pub store: Arc<StoreMetrics>,
            pub snapshot_sends: TransfersByPeer,
            pub snapshot_receives: TransfersByPeer,
            /// The active alarms of all members.
            pub alarms: Mutex<Vec<pb::AlarmMember>>,
            /// Promotions that this member refused as leader, by what it said.
            pub learner_promote_failures: Mutex<BTreeMap<String, u64>>,
        }

        impl Metrics {
            pub(crate) fn new(store: Arc<StoreMetrics>) -> Self {
                Self {
                    $($name: Value::default(),)*
                    $($histogram: Histogram::new(Duration::from_millis($first_ms), $bounds),)*
                    store,
                    snapshot_sends: TransfersByPeer::default(),
                    snapshot_receives: TransfersByPeer::default(),
                    alarms: Mutex::default(),
                    learner_promote_failures: Mutex::default(),
                }
            }
        }
    };
}

metrics!(
    has_leader,
    is_leader,
    is_learner,
    leader_changes_seen_total,
    heartbeat_send_failures_total,
    proposals_committed_total,
    proposals_applied_total,
    proposals_pending,
    proposals_failed_total,
    // Answers that came too late to be of use, and rounds that timed out.
    slow_read_indexes_total,
    // Rounds that a change of leader ended.
    read_indexes_failed_total,
    learner_promote_successes,
    slow_disk_alarm,
    wal_write_bytes_total,
    db_total_size_in_bytes,
    db_total_size_in_use_in_bytes,
    current_revision,
    compact_revision,
    keys_total,
    watcher_total,
    watch_stream_total,
    slow_watcher_total,
    watch_buffered_bytes,
    lease_granted_total,
    lease_renewed_total,
    lease_revoked_total,
    lease_expired_total,
    snapshots_started_total,
    snapshots_sent_total,
    snapshots_installed_total,
    snapshot_apply_in_progress,
    planned_transfers_total,
    defrags_total,
    compaction_rows_total,
    defrag_inflight;
    // From the first second of a lease on.
    lease_ttl: 1000 ms * 24,
    // From the pin of what is sent to the end of the transfer, whatever that was.
    backend_snapshot_duration: 10 ms * 17,
    // From a received snapshot's header to its rows, durable in a file.
    snap_db_save_total_duration: 100 ms * 10,
    // A snap file, from its first write to its directory's sync.
    snap_save_total_duration: 1 ms * 14,
    // Of a received snapshot, from the last row on.
    snap_db_fsync_duration: 1 ms * 14,
);

impl Default for Metrics {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl Metrics {
    /// One more.
    pub(crate) fn add(&self, counter: &Value) {
        counter.add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_is_in_the_first_bucket_that_holds_it() {
        let ms = Duration::from_millis;
        let histogram = Histogram::new(ms(1), 3);
        for took in [Duration::ZERO, ms(1), Duration::from_micros(1_001), ms(4), ms(5)] {
            histogram.observe(took);
        }
        let cumulative: Vec<_> = histogram.cumulative().collect();
        assert_eq!(cumulative, [(ms(1), 2), (ms(2), 3), (ms(4), 4)]);
        assert_eq!((histogram.count(), histogram.sum()), (5, Duration::from_micros(11_001)));
    }
}
