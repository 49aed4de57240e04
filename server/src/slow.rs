//! What took longer than `--warning-apply-duration`: a line in the log and a count, as in etcd.

use std::time::Duration;

use prometheus::IntCounter;

use crate::logs;

/// Bursts in which the member applied entries, and ranges and txns that were read beside it.
#[derive(Clone, Debug)]
pub struct SlowApplies {
    pub limit: Duration,
    pub count: IntCounter,
}

impl SlowApplies {
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
