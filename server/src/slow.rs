//! What took longer than `--warning-apply-duration`: a line in the log and a count, as in etcd.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounter};

use crate::logs;

/// Prefixes of etcd's.
pub const RANGE: &str = "read-only range ";
pub const TXN: &str = "read-only txn ";

/// Bursts in which the member applied entries, and ranges and txns that were read beside it.
#[derive(Clone, Debug)]
pub struct SlowApplies {
    pub limit: Duration,
    pub count: IntCounter,
    pub range_seconds: HistogramVec,
}

impl SlowApplies {
    /// Notes a read; a range goes into the histogram too.
    pub fn note_read(&self, prefix: &str, took: Duration, is_success: bool) {
        if prefix == RANGE {
            let success = if is_success { "true" } else { "false" };
            self.range_seconds.with_label_values(&[success]).observe(took.as_secs_f64());
        }
        self.note(prefix, took);
    }

    /// `prefix`: what it was, with a blank behind it, as etcd's log has it.
    pub fn note(&self, prefix: &str, took: Duration) {
        if took <= self.limit {
            return;
        }
        self.count.inc();
        let fields = [
            ("took", format!("{took:?}")),
            ("expected-duration", format!("{:?}", self.limit)),
            ("prefix", prefix.to_owned()),
        ];
        logs::warn("apply request took too long", &fields);
    }
}
