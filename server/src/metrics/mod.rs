//! /metrics: what the driver measures itself, and core's counters, under etcd's names (surface spec §14).

mod make;
mod member;

use std::sync::atomic::AtomicU64;

use detkv_core::Instant;
use detkv_core::api::WatchMessage;
use detkv_core::member::Metrics as CoreMetrics;
use prometheus::core::Collector as _;
use prometheus::proto::MetricFamily;
use prometheus::{
    Encoder, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use make::{counter, counters, disk_histogram, gauges, histogram, histograms, register};
pub use make::{gauge, help};

use crate::clock::Clock;

/// Bytes of gRPC messages; one for the process, because a codec has no state.
#[derive(Debug)]
pub struct Traffic {
    pub sent_bytes: AtomicU64,
    pub received_bytes: AtomicU64,
}

pub static CLIENT_TRAFFIC: Traffic =
    Traffic { sent_bytes: AtomicU64::new(0), received_bytes: AtomicU64::new(0) };

const METHOD_LABELS: [&str; 3] = ["grpc_method", "grpc_service", "grpc_type"];

/// How long requests of the Maintenance service took.
#[derive(Clone, Debug)]
pub struct MaintenanceSeconds {
    pub defrag: Histogram,
    pub hash: Histogram,
    pub hash_kv: Histogram,
}

/// Histograms and counters that the driver itself observes. Cloning shares them.
#[derive(Clone, Debug)]
pub struct DriverMetrics {
    registry: Registry,
    clock: Clock,
    /// `X.Y` of the version.
    minor: String,
    pub wal_fsync_seconds: Histogram,
    pub wal_write_seconds: Histogram,
    pub snap_fsync_seconds: Histogram,
    pub backend_commit_seconds: Histogram,
    pub maintenance: MaintenanceSeconds,
    pub peer_sent_bytes: IntCounterVec,
    pub peer_received_bytes: IntCounterVec,
    pub peer_sent_failures: IntCounterVec,
    /// 1 while the message connection to the peer is up.
    pub active_peers: IntGaugeVec,
    pub peer_round_trip_seconds: HistogramVec,
    pub peer_received_failures: IntCounterVec,
    /// 1 for each peer that the member wants to talk to.
    pub known_peers: IntGaugeVec,
    pub disconnected_peers: IntCounterVec,
    pub stream_failures: IntCounterVec,
    /// Of ranges, whether alone or not, by success.
    pub range_seconds: HistogramVec,
    /// What the last look said, and what all of them said.
    pub health_check: IntGaugeVec,
    pub health_checks: IntCounterVec,
    features: IntGaugeVec,
    pub health_success: IntCounter,
    pub health_failures: IntCounter,
    pub grpc_started: IntCounterVec,
    pub grpc_handled: IntCounterVec,
    pub grpc_received: IntCounterVec,
    pub grpc_sent: IntCounterVec,
    pub client_requests: IntCounterVec,
    pub slow_applies: IntCounter,
    pub watch_events: WatchEvents,
}

/// Events between core, which handed them out, and the transport.
#[derive(Clone, Debug)]
pub struct WatchEvents {
    /// Not yet taken by the transport.
    pub pending: IntGauge,
    /// Taken by it.
    pub sent: IntCounter,
}

impl WatchEvents {
    fn count(message: &WatchMessage) -> i64 {
        message.events.as_slice().len() as i64
    }

    pub fn on_queued(&self, message: &WatchMessage) {
        self.pending.add(Self::count(message));
    }

    pub fn on_sent(&self, message: &WatchMessage) {
        self.pending.sub(Self::count(message));
        self.sent.inc_by(Self::count(message) as u64);
    }

    /// Its client is gone.
    pub fn on_dropped(&self, message: &WatchMessage) {
        self.pending.sub(Self::count(message));
    }
}

impl DriverMetrics {
    /// `local` labels what is about this member, in hex.
    pub fn new(local: &str, version: &str, quota_bytes: u64, clock: Clock) -> Self {
        let registry = Registry::new();
        let r = &registry;
        let metrics = Self {
            wal_fsync_seconds: disk_histogram(
                r,
                "etcd_disk_wal_fsync_duration_seconds",
                "The latency distributions of fsync called by WAL.",
            ),
            wal_write_seconds: disk_histogram(
                r,
                "etcd_disk_wal_write_duration_seconds",
                "The latency distributions of write called by WAL.",
            ),
            snap_fsync_seconds: disk_histogram(
                r,
                "etcd_snap_fsync_duration_seconds",
                "The latency distributions of fsync called by snap.",
            ),
            backend_commit_seconds: disk_histogram(
                r,
                "etcd_disk_backend_commit_duration_seconds",
                "The latency distributions of commit called by backend.",
            ),
            maintenance: MaintenanceSeconds::new(r),
            peer_sent_bytes: counters(r, "etcd_network_peer_sent_bytes_total", &["To"]),
            peer_received_bytes: counters(r, "etcd_network_peer_received_bytes_total", &["From"]),
            peer_sent_failures: counters(r, "etcd_network_peer_sent_failures_total", &["To"]),
            active_peers: gauges(r, "etcd_network_active_peers", &["Local", "Remote"]),
            peer_round_trip_seconds: histograms(
                r,
                "etcd_network_peer_round_trip_time_seconds",
                "To",
                (0.0001, 16),
            ),
            peer_received_failures: counters(
                r,
                "etcd_network_peer_received_failures_total",
                &["From"],
            ),
            known_peers: gauges(r, "etcd_network_known_peers", &["Local", "Remote"]),
            disconnected_peers: counters(
                r,
                "etcd_network_disconnected_peers_total",
                &["Local", "Remote"],
            ),
            stream_failures: counters(
                r,
                "etcd_network_server_stream_failures_total",
                &["Type", "API"],
            ),
            range_seconds: histograms(
                r,
                "etcd_server_range_duration_seconds",
                "success",
                (0.0001, 20),
            ),
            health_check: gauges(r, "etcd_server_healthcheck", &["type", "name"]),
            health_checks: counters(
                r,
                "etcd_server_healthchecks_total",
                &["type", "name", "status"],
            ),
            features: gauges(r, "etcd_server_feature_enabled", &["name", "stage"]),
            health_success: counter(r, "etcd_server_health_success"),
            health_failures: counter(r, "etcd_server_health_failures"),
            grpc_started: counters(r, "grpc_server_started_total", &METHOD_LABELS),
            grpc_handled: counters(
                r,
                "grpc_server_handled_total",
                &["grpc_code", "grpc_method", "grpc_service", "grpc_type"],
            ),
            grpc_received: counters(r, "grpc_server_msg_received_total", &METHOD_LABELS),
            grpc_sent: counters(r, "grpc_server_msg_sent_total", &METHOD_LABELS),
            client_requests: counters(
                r,
                "etcd_server_client_requests_total",
                &["type", "client_api_version"],
            ),
            slow_applies: counter(r, "etcd_server_slow_apply_total"),
            watch_events: WatchEvents {
                pending: register(r, gauge("etcd_debugging_mvcc_pending_events_total", 0)),
                sent: counter(r, "etcd_debugging_mvcc_events_total"),
            },
            registry,
            clock,
            minor: version.rsplit_once('.').map_or(version, |(minor, _)| minor).to_owned(),
        };
        let r = &metrics.registry;
        gauges(r, "etcd_server_id", &["server_id"]).with_label_values(&[local]).set(1);
        gauges(r, "etcd_server_version", &["server_version"]).with_label_values(&[version]).set(1);
        let quota = gauge("etcd_server_quota_backend_bytes", quota_bytes);
        register(r, quota);
        metrics
    }

    /// The whole page, in Prometheus' text format. `open_views`: of the backend's file.
    pub fn render(&self, core: &CoreMetrics, open_views: u64) -> Vec<u8> {
        let mut families = self.registry.gather();
        families.extend(member::families(core, self.compacted_at_secs(core)));
        families.extend(gauge("etcd_mvcc_db_open_read_transactions", open_views).collect());
        families.extend(self.cluster_version(core));
        families.extend(crate::process::families());
        let mut page = Vec::new();
        TextEncoder::new()
            .encode(&families, &mut page)
            .expect("every family has samples of its own type");
        page
    }

    /// The features there are; all of them are at etcd's stage ALPHA.
    pub fn show_features(&self, features: &[(&str, bool)]) {
        for (name, is_on) in features {
            self.features.with_label_values(&[name, "ALPHA"]).set(i64::from(*is_on));
        }
    }

    /// Since 1970; 0 when this process has seen no compaction end. Core knows no calendar.
    fn compacted_at_secs(&self, core: &CoreMetrics) -> u64 {
        match core.store.compacted_at_ns.load() {
            0 => 0,
            ns => self.clock.unix_secs(Instant { ns }),
        }
    }

    /// The lowest minor of all members, which is this one's, once there is a leader to say so.
    fn cluster_version(&self, core: &CoreMetrics) -> Vec<MetricFamily> {
        let name = "etcd_cluster_version";
        let gauges = IntGaugeVec::new(Opts::new(name, help(name)), &["cluster_version"]);
        let gauges = gauges.expect("a valid gauge name");
        if core.has_leader.load() == 0 {
            return Vec::new();
        }
        gauges.with_label_values(&[&self.minor]).set(1);
        gauges.collect()
    }
}

impl MaintenanceSeconds {
    fn new(registry: &Registry) -> Self {
        let named = |name: &str, buckets| histogram(registry, name, &help(name), buckets);
        Self {
            defrag: named("etcd_disk_backend_defrag_duration_seconds", (0.1, 13)),
            hash: named("etcd_mvcc_hash_duration_seconds", (0.01, 15)),
            hash_kv: named("etcd_mvcc_hash_rev_duration_seconds", (0.01, 15)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact() {
        let metrics = DriverMetrics::new("8e9e05c52164694d", "3.6.0", 2 << 30, Clock::start());
        let core = CoreMetrics::default();
        metrics.wal_fsync_seconds.observe(0.0015);
        let page = String::from_utf8(metrics.render(&core, 3)).expect("text");
        for line in [
            "# TYPE etcd_server_leader_changes_seen_total counter",
            "etcd_server_leader_changes_seen_total 0",
            "# TYPE etcd_server_proposals_applied_total gauge",
            "etcd_server_proposals_applied_total 0",
            r#"etcd_disk_wal_fsync_duration_seconds_bucket{le="0.001"} 0"#,
            r#"etcd_disk_wal_fsync_duration_seconds_bucket{le="0.002"} 1"#,
            r#"etcd_server_id{server_id="8e9e05c52164694d"} 1"#,
            "etcd_server_quota_backend_bytes 2147483648",
            "# TYPE process_cpu_seconds_total counter",
            "etcd_mvcc_db_open_read_transactions 3",
            "etcd_debugging_mvcc_db_compaction_last 0",
            "# TYPE etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds histogram",
            r#"etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds_bucket{le="4096"} 0"#,
            r#"etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_bucket{le="100"} 0"#,
            r#"etcd_debugging_lease_ttl_total_bucket{le="8388608"} 0"#,
            r#"etcd_snap_db_fsync_duration_seconds_bucket{le="0.001"} 0"#,
            r#"etcd_snap_db_fsync_duration_seconds_bucket{le="8.192"} 0"#,
            "etcd_snap_db_save_total_duration_seconds_count 0",
            "# TYPE process_start_time_seconds gauge",
            "# TYPE os_fd_limit gauge",
        ] {
            assert!(page.lines().any(|l| l == line), "no line {line} in\n{page}");
        }
        assert!(!page.contains("_total_total"));
        assert!(!page.contains("etcd_cluster_version"), "nobody leads");
    }
}
