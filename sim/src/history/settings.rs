//! What the members were told, where a promise depends on it.

use std::time::Duration;

/// What the members were told at open, where a promise depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    pub election: Duration,
    /// Least TTL of a lease, whole seconds.
    pub lease_ttl_secs_min: i64,
    /// How far any member's clock runs fast or slow, parts per million.
    pub drift_ppm: u32,
    /// Byte credit of a watch stream.
    pub watch_stream_bytes: u64,
    /// Of the backend: the largest of any member; `None` where one has none, or nobody said.
    pub quota_bytes: Option<u64>,
    /// Some member compacts the past without being asked.
    pub auto_compacts: bool,
}

impl Settings {
    /// What a member may hold for a stream when it adds another message: its credit, and twice that because
    /// answers to requests need none.
    pub fn watch_held_bytes_max(&self) -> u64 {
        self.watch_stream_bytes.saturating_mul(2)
    }
}

impl Default for Settings {
    /// etcd's defaults, on true clocks, and no quota.
    fn default() -> Self {
        Self {
            election: Duration::from_secs(1),
            lease_ttl_secs_min: 2,
            drift_ppm: 0,
            watch_stream_bytes: detkv_core::limits::WATCH_STREAM_BYTES_MAX,
            quota_bytes: None,
            auto_compacts: false,
        }
    }
}
