//! What the store counts: its operations, by whoever asks, and its compactions.

use std::time::Duration;

use crate::metrics::{Histogram, Value};
use crate::time::Instant;

/// Shared by the store and its readers.
#[derive(Debug)]
pub struct StoreMetrics {
    /// Ranges that clients asked for, alone or in a txn.
    pub ranges_total: Value,
    /// Puts, alone or in a txn.
    pub puts_total: Value,
    /// Ranges deleted, alone or in a txn, and keys of revoked leases.
    pub deletes_total: Value,
    /// Txns and lease revocations of more than one operation (etcd's rule).
    pub txns_total: Value,
    /// Of keys and values that were put.
    pub put_bytes_total: Value,
    /// How long a slice of a compaction kept the backend's lane from other work.
    pub compaction_pause: Histogram,
    /// From a compaction's first slice to its last, pauses included.
    pub compaction_total: Histogram,
    /// When the last compaction was over, in nanoseconds of the member's clock; 0: none since open.
    pub compacted_at_ns: Value,
}

impl Default for StoreMetrics {
    fn default() -> Self {
        Self {
            ranges_total: Value::default(),
            puts_total: Value::default(),
            deletes_total: Value::default(),
            txns_total: Value::default(),
            put_bytes_total: Value::default(),
            compaction_pause: Histogram::new(Duration::from_millis(1), 13),
            compaction_total: Histogram::new(Duration::from_millis(100), 14),
            compacted_at_ns: Value::default(),
        }
    }
}

/// Operations of one write or read.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Operations {
    pub ranges: u64,
    pub puts: u64,
    pub deletes: u64,
    pub put_bytes: u64,
}

impl StoreMetrics {
    /// A write's; called by the member alone. Reads go on beside it and count what they share with it.
    pub(crate) fn on_written(&self, done: Operations) {
        self.puts_total.add(done.puts);
        self.put_bytes_total.add(done.put_bytes);
        self.deletes_total.add(done.deletes);
        if done.ranges > 0 {
            self.ranges_total.add_shared(done.ranges);
        }
        if done.ranges + done.puts + done.deletes > 1 {
            self.txns_total.add_shared(1);
        }
    }

    /// A read's, on any thread.
    pub(crate) fn on_read(&self, ranges: u64) {
        self.ranges_total.add_shared(ranges);
        if ranges > 1 {
            self.txns_total.add_shared(1);
        }
    }

    /// A slice that began at `since` is in the file.
    pub(crate) fn on_compaction_slice(&self, now: Instant, since: Instant) {
        self.compaction_pause.observe(now.since(since));
    }

    /// The last slice of a compaction that began at `since` is in the file.
    pub(crate) fn on_compacted(&self, now: Instant, since: Instant) {
        self.compaction_total.observe(now.since(since));
        self.compacted_at_ns.set(now.ns.max(1));
    }
}
