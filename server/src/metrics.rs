//! /metrics: what the driver measures itself, and core's counters, under etcd's names (surface spec §14).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use detkv_core::member::Metrics as CoreMetrics;
use prometheus::proto::MetricFamily;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder, core::Collector,
};

/// Bytes of gRPC messages; one for the process, because a codec has no state.
#[derive(Debug)]
pub struct Traffic {
    pub sent_bytes: AtomicU64,
    pub received_bytes: AtomicU64,
}

pub static CLIENT_TRAFFIC: Traffic =
    Traffic { sent_bytes: AtomicU64::new(0), received_bytes: AtomicU64::new(0) };

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
    /// `X.Y` of the version.
    minor: String,
    pub wal_fsync_seconds: Histogram,
    pub snap_fsync_seconds: Histogram,
    pub backend_commit_seconds: Histogram,
    pub maintenance: MaintenanceSeconds,
    pub peer_sent_bytes: IntCounterVec,
    pub peer_received_bytes: IntCounterVec,
    pub peer_sent_failures: IntCounterVec,
    /// 1 while the message connection to the peer is up.
    pub active_peers: IntGaugeVec,
    pub health_success: IntCounter,
    pub health_failures: IntCounter,
    pub grpc_started: IntCounterVec,
    pub grpc_handled: IntCounterVec,
}

impl DriverMetrics {
    /// `local` labels what is about this member, in hex.
    pub fn new(local: &str, version: &str, quota_bytes: u64) -> Self {
        let registry = Registry::new();
        let r = &registry;
        let metrics = Self {
            wal_fsync_seconds: disk_histogram(
                r,
                "etcd_disk_wal_fsync_duration_seconds",
                "The latency distributions of fsync called by WAL.",
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
            health_success: counter(r, "etcd_server_health_success"),
            health_failures: counter(r, "etcd_server_health_failures"),
            grpc_started: counters(
                r,
                "grpc_server_started_total",
                &["grpc_method", "grpc_service", "grpc_type"],
            ),
            grpc_handled: counters(
                r,
                "grpc_server_handled_total",
                &["grpc_code", "grpc_method", "grpc_service", "grpc_type"],
            ),
            registry,
            minor: version.rsplit_once('.').map_or(version, |(minor, _)| minor).to_owned(),
        };
        let r = &metrics.registry;
        gauges(r, "etcd_server_id", &["server_id"]).with_label_values(&[local]).set(1);
        gauges(r, "etcd_server_version", &["server_version"]).with_label_values(&[version]).set(1);
        let quota = gauge("etcd_server_quota_backend_bytes", quota_bytes);
        register(r, quota);
        metrics
    }

    /// The whole page, in Prometheus' text format.
    pub fn render(&self, core: &CoreMetrics) -> Vec<u8> {
        let mut families = self.registry.gather();
        families.extend(core_families(core));
        families.extend(alarm_family(core));
        families.extend(self.cluster_version(core));
        families.extend(crate::process::families());
        let mut page = Vec::new();
        TextEncoder::new()
            .encode(&families, &mut page)
            .expect("every family has samples of its own type");
        page
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

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    registry.register(Box::new(collector.clone())).expect("every name is registered once");
    collector
}

/// A histogram with etcd's buckets for disk latencies: 1 ms, 2 ms … 8.192 s.
fn disk_histogram(registry: &Registry, name: &str, help: &str) -> Histogram {
    histogram(registry, name, help, (0.001, 14))
}

/// `buckets`: the first bound in seconds, each the double of the one before, and how many.
fn histogram(registry: &Registry, name: &str, help: &str, buckets: (f64, usize)) -> Histogram {
    let buckets = prometheus::exponential_buckets(buckets.0, 2.0, buckets.1);
    let opts = HistogramOpts::new(name, help).buckets(buckets.expect("growing buckets"));
    register(registry, Histogram::with_opts(opts).expect("a valid histogram name"))
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

fn counter(registry: &Registry, name: &str) -> IntCounter {
    register(registry, IntCounter::new(name, help(name)).expect("a valid counter name"))
}

fn counters(registry: &Registry, name: &str, labels: &[&str]) -> IntCounterVec {
    let vec = IntCounterVec::new(Opts::new(name, help(name)), labels);
    register(registry, vec.expect("a valid counter name"))
}

fn gauges(registry: &Registry, name: &str, labels: &[&str]) -> IntGaugeVec {
    let vec = IntGaugeVec::new(Opts::new(name, help(name)), labels);
    register(registry, vec.expect("a valid gauge name"))
}

pub(crate) fn gauge(name: &str, value: u64) -> IntGauge {
    let gauge = IntGauge::new(name, help(name)).expect("a valid gauge name");
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    gauge
}

/// A metric's name, read as words.
pub(crate) fn help(name: &str) -> String {
    name.replace('_', " ")
}

/// A name on the page and its value.
type Row = (&'static str, u64);

/// 1 for each active alarm, by the member it was raised for.
fn alarm_family(m: &CoreMetrics) -> Vec<MetricFamily> {
    let name = "etcd_debugging_server_alarms";
    let alarms = IntGaugeVec::new(Opts::new(name, help(name)), &["server_id", "alarm_type"]);
    let alarms = alarms.expect("a valid gauge name");
    for alarm in m.alarms.lock().iter() {
        let id = format!("{:x}", alarm.member_id);
        alarms.with_label_values(&[&id, alarm.alarm().as_str_name()]).set(1);
    }
    // A family without a sample cannot be written.
    let mut families = alarms.collect();
    families.retain(|family| !family.get_metric().is_empty());
    families
}

fn core_families(m: &CoreMetrics) -> Vec<MetricFamily> {
    let gauges: [Row; 18] = [
        ("etcd_disk_defrag_inflight", m.defrag_inflight.load()),
        ("etcd_server_has_leader", m.has_leader.load()),
        ("etcd_server_is_leader", m.is_leader.load()),
        ("etcd_server_is_learner", m.is_learner.load()),
        // Gauges in spite of their names: they are Raft indexes.
        ("etcd_server_proposals_committed_total", m.proposals_committed_total.load()),
        ("etcd_server_proposals_applied_total", m.proposals_applied_total.load()),
        ("etcd_server_proposals_pending", m.proposals_pending.load()),
        ("etcd_disk_wal_write_bytes_total", m.wal_write_bytes_total.load()),
        ("etcd_mvcc_db_total_size_in_bytes", m.db_total_size_in_bytes.load()),
        ("etcd_mvcc_db_total_size_in_use_in_bytes", m.db_total_size_in_use_in_bytes.load()),
        ("etcd_debugging_mvcc_current_revision", m.current_revision.load()),
        ("etcd_debugging_mvcc_compact_revision", m.compact_revision.load()),
        ("etcd_debugging_mvcc_keys_total", m.keys_total.load()),
        ("etcd_debugging_mvcc_watcher_total", m.watcher_total.load()),
        ("etcd_debugging_mvcc_watch_stream_total", m.watch_stream_total.load()),
        ("etcd_debugging_mvcc_slow_watcher_total", m.slow_watcher_total.load()),
        ("detkv_server_slow_disk_alarm", m.slow_disk_alarm.load()),
        ("detkv_server_planned_transfers", m.planned_transfers_total.load()),
    ];
    let traffic = &CLIENT_TRAFFIC;
    let counters: [Row; 14] = [
        ("etcd_debugging_mvcc_db_compaction_keys_total", m.compaction_rows_total.load()),
        ("detkv_disk_backend_defrags_total", m.defrags_total.load()),
        ("etcd_network_client_grpc_sent_bytes_total", traffic.sent_bytes.load(Relaxed)),
        ("etcd_network_client_grpc_received_bytes_total", traffic.received_bytes.load(Relaxed)),
        ("etcd_server_leader_changes_seen_total", m.leader_changes_seen_total.load()),
        ("etcd_server_proposals_failed_total", m.proposals_failed_total.load()),
        ("etcd_mvcc_put_total", m.mvcc_put_total.load()),
        ("etcd_mvcc_delete_total", m.mvcc_delete_total.load()),
        ("etcd_mvcc_txn_total", m.mvcc_txn_total.load()),
        ("etcd_debugging_lease_granted_total", m.lease_granted_total.load()),
        ("etcd_debugging_lease_revoked_total", m.lease_revoked_total.load()),
        ("etcd_debugging_server_lease_expired_total", m.lease_expired_total.load()),
        ("detkv_network_snapshots_sent_total", m.snapshots_sent_total.load()),
        ("detkv_network_snapshots_installed_total", m.snapshots_installed_total.load()),
    ];
    let mut families = Vec::new();
    for (name, value) in gauges {
        families.extend(gauge(name, value).collect());
    }
    for (name, value) in counters {
        let counter = IntCounter::new(name, help(name)).expect("a valid counter name");
        counter.inc_by(value);
        families.extend(counter.collect());
    }
    families
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact() {
        let metrics = DriverMetrics::new("8e9e05c52164694d", "3.6.0", 2 << 30);
        let core = CoreMetrics::default();
        metrics.wal_fsync_seconds.observe(0.0015);
        let page = String::from_utf8(metrics.render(&core)).expect("text");
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
            "# TYPE process_start_time_seconds gauge",
            "# TYPE os_fd_limit gauge",
        ] {
            assert!(page.lines().any(|l| l == line), "no line {line} in\n{page}");
        }
        assert!(!page.contains("_total_total"));
        assert!(!page.contains("etcd_cluster_version"), "nobody leads");
    }
}
