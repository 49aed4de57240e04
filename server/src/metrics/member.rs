//! What core counts, under etcd's names.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use detkv_core::member::Metrics as CoreMetrics;
use detkv_core::metrics::{Histogram, TransfersByPeer};
use prometheus::core::Collector as _;
use prometheus::proto::{Bucket, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts};

use super::CLIENT_TRAFFIC;
use super::make::{gauge, help};

/// All of it. `compacted_at_secs`: when the last compaction was over, since 1970.
pub fn families(m: &CoreMetrics, compacted_at_secs: u64) -> Vec<MetricFamily> {
    let mut families = values(m);
    families.extend(gauge("etcd_debugging_mvcc_db_compaction_last", compacted_at_secs).collect());
    families.extend(alarms(m));
    families.extend(promote_failures(m));
    families.extend(transfers("send", "To", &m.snapshot_sends));
    families.extend(transfers("receive", "From", &m.snapshot_receives));
    let (store, seconds, milliseconds) = (&m.store, 1.0, 1e3);
    families.extend([
        histogram("etcd_debugging_lease_ttl_total", seconds, &m.lease_ttl),
        histogram(
            "etcd_disk_backend_snapshot_duration_seconds",
            seconds,
            &m.backend_snapshot_duration,
        ),
        histogram(
            "etcd_snap_db_save_total_duration_seconds",
            seconds,
            &m.snap_db_save_total_duration,
        ),
        histogram("etcd_snap_db_fsync_duration_seconds", seconds, &m.snap_db_fsync_duration),
        histogram(
            "etcd_debugging_snap_save_total_duration_seconds",
            seconds,
            &m.snap_save_total_duration,
        ),
        histogram(
            "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
            milliseconds,
            &store.compaction_pause,
        ),
        histogram(
            "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
            milliseconds,
            &store.compaction_total,
        ),
    ]);
    families
}

/// Snapshots to peers, or from them; nothing while there was none.
fn transfers(way: &str, label: &str, of: &TransfersByPeer) -> Vec<MetricFamily> {
    let name = |what: &str| format!("etcd_network_snapshot_{way}_{what}");
    let counters = |name: String| IntCounterVec::new(Opts::new(&name, help(&name)), &[label]);
    let valid = "a valid counter name";
    let successes = counters(name("success")).expect(valid);
    let failures = counters(name("failures")).expect(valid);
    let under_way = name("inflights_total");
    let under_way = IntGaugeVec::new(Opts::new(&under_way, help(&under_way)), &[label]);
    let under_way = under_way.expect("a valid gauge name");
    let mut durations = Vec::new();
    of.for_each(|peer, transfers| {
        let peer = peer.to_string();
        successes.with_label_values(&[&peer]).inc_by(transfers.succeeded);
        failures.with_label_values(&[&peer]).inc_by(transfers.failed);
        under_way.with_label_values(&[&peer]).set(transfers.under_way as i64);
        let mut metric = histogram_metric(1.0, &transfers.duration);
        let mut pair = LabelPair::default();
        pair.set_name(label.to_owned());
        pair.set_value(peer);
        metric.set_label(vec![pair]);
        durations.push(metric);
    });
    let mut families = [successes.collect(), failures.collect(), under_way.collect()].concat();
    families.push(histogram_family(&name("total_duration_seconds"), durations));
    with_samples(families)
}

/// `units`: of the name, in a second.
fn histogram(name: &str, units: f64, observed: &Histogram) -> MetricFamily {
    histogram_family(name, vec![histogram_metric(units, observed)])
}

fn histogram_family(name: &str, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help(name));
    family.set_field_type(MetricType::HISTOGRAM);
    family.set_metric(metrics);
    family
}

fn histogram_metric(units: f64, observed: &Histogram) -> Metric {
    let value = |time: Duration| time.as_secs_f64() * units;
    let bucket = |(bound, count)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(value(bound));
        bucket.set_cumulative_count(count);
        bucket
    };
    let mut shown = prometheus::proto::Histogram::default();
    shown.set_bucket(observed.cumulative().map(bucket).collect());
    shown.set_sample_count(observed.count());
    shown.set_sample_sum(value(observed.sum()));
    let mut metric = Metric::default();
    metric.set_histogram(shown);
    metric
}

/// Promotions that this member refused as leader, by etcd's words.
fn promote_failures(m: &CoreMetrics) -> Vec<MetricFamily> {
    let name = "etcd_server_learner_promote_failures";
    let failures = IntCounterVec::new(Opts::new(name, help(name)), &["Reason"]);
    let failures = failures.expect("a valid counter name");
    for (reason, count) in m.learner_promote_failures.lock().iter() {
        failures.with_label_values(&[reason]).inc_by(*count);
    }
    with_samples(failures.collect())
}

/// A family without a sample cannot be written.
fn with_samples(mut families: Vec<MetricFamily>) -> Vec<MetricFamily> {
    families.retain(|family| !family.get_metric().is_empty());
    families
}

/// A name on the page and its value.
type Row = (&'static str, u64);

/// 1 for each active alarm, by the member it was raised for.
fn alarms(m: &CoreMetrics) -> Vec<MetricFamily> {
    let name = "etcd_debugging_server_alarms";
    let alarms = IntGaugeVec::new(Opts::new(name, help(name)), &["server_id", "alarm_type"]);
    let alarms = alarms.expect("a valid gauge name");
    for alarm in m.alarms.lock().iter() {
        let id = format!("{:x}", alarm.member_id);
        alarms.with_label_values(&[&id, alarm.alarm().as_str_name()]).set(1);
    }
    with_samples(alarms.collect())
}

fn values(m: &CoreMetrics) -> Vec<MetricFamily> {
    let s = &m.store;
    let gauges: [Row; 20] = [
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
        ("etcd_debugging_mvcc_total_put_size_in_bytes", s.put_bytes_total.load()),
        ("etcd_server_snapshot_apply_in_progress_total", m.snapshot_apply_in_progress.load()),
        ("detkv_server_slow_disk_alarm", m.slow_disk_alarm.load()),
        ("detkv_server_planned_transfers", m.planned_transfers_total.load()),
    ];
    let traffic = &CLIENT_TRAFFIC;
    let counters: [Row; 20] = [
        ("etcd_debugging_mvcc_db_compaction_keys_total", m.compaction_rows_total.load()),
        ("detkv_disk_backend_defrags_total", m.defrags_total.load()),
        ("etcd_network_client_grpc_sent_bytes_total", traffic.sent_bytes.load(Relaxed)),
        ("etcd_network_client_grpc_received_bytes_total", traffic.received_bytes.load(Relaxed)),
        ("etcd_server_leader_changes_seen_total", m.leader_changes_seen_total.load()),
        ("etcd_server_proposals_failed_total", m.proposals_failed_total.load()),
        ("etcd_mvcc_put_total", s.puts_total.load()),
        ("etcd_mvcc_delete_total", s.deletes_total.load()),
        ("etcd_mvcc_txn_total", s.txns_total.load()),
        ("etcd_mvcc_range_total", s.ranges_total.load()),
        ("etcd_server_slow_read_indexes_total", m.slow_read_indexes_total.load()),
        ("etcd_server_read_indexes_failed_total", m.read_indexes_failed_total.load()),
        ("etcd_server_heartbeat_send_failures_total", m.heartbeat_send_failures_total.load()),
        ("etcd_server_learner_promote_successes", m.learner_promote_successes.load()),
        ("etcd_debugging_lease_renewed_total", m.lease_renewed_total.load()),
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
