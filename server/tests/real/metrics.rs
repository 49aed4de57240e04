//! /metrics of real members: what clients do is counted, under etcd's names. See `metrics_peers` too.

use std::time::{SystemTime, UNIX_EPOCH};

use detkv_core::pb::etcdserverpb as pb;
use pb::request_op::Request as Op;

use crate::http;
use crate::streams::{WatchStream, watch_prefix};
use crate::support::{Cluster, LeaseClient, Member, eventually, get, put};

/// The value on the page of a metric, with its labels as they are written there.
pub async fn metric(member: &Member, name: &str) -> Option<f64> {
    let page = http::get(member, "/metrics").await.1;
    let mut lines = page.lines().filter(|line| !line.starts_with('#'));
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

pub async fn assert_metrics(member: &Member, expected: &[(&str, f64)]) {
    for (name, value) in expected {
        assert_eq!(metric(member, name).await, Some(*value), "{name}");
    }
}

fn unix_secs() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as f64
}

#[tokio::test]
async fn what_clients_do_is_counted() {
    let cluster = Cluster::start(1, &[]);
    let member = &cluster.members[0];
    let mut kv = member.kv().await;
    let label = |kind: &str| {
        format!("etcd_server_client_requests_total{{client_api_version=\"3.5\",type=\"{kind}\"}}")
    };
    let started = unix_secs();
    // A member that starts reads once itself, to know that it serves.
    let own_reads = metric(member, "etcd_mvcc_range_total").await.expect("a counter");
    for n in 0..4 {
        let mut request = tonic::Request::new(put(format!("k{n}"), "value"));
        request.metadata_mut().insert("client-api-version", "3.5".parse().expect("a value"));
        kv.put(request).await.expect("put");
    }
    kv.range(get("k0")).await.expect("range");
    kv.range(pb::RangeRequest { revision: 2, ..get("k0") }).await.expect("range");
    let future = pb::RangeRequest { revision: 99, ..get("k0") };
    kv.range(future).await.expect_err("there is no such revision");
    let ops = [Op::RequestPut(put("k0", "new")), Op::RequestRange(get("k1"))];
    let success = ops.map(|op| pb::RequestOp { request: Some(op) }).into();
    kv.txn(pb::TxnRequest { success, ..Default::default() }).await.expect("txn");
    kv.delete_range(pb::DeleteRangeRequest { key: "k3".into(), ..Default::default() })
        .await
        .expect("deleted");
    LeaseClient::new(member.channel().await)
        .lease_grant(pb::LeaseGrantRequest { id: 7, ttl: 100 })
        .await
        .expect("granted");
    assert_metrics(
        member,
        &[
            ("etcd_mvcc_put_total", 5.0),
            ("etcd_mvcc_range_total", own_reads + 3.0),
            ("etcd_mvcc_txn_total", 1.0),
            ("etcd_mvcc_delete_total", 1.0),
            ("etcd_debugging_mvcc_total_put_size_in_bytes", 4.0 * 7.0 + 5.0),
            ("etcd_debugging_lease_ttl_total_sum", 100.0),
            (&label("unary"), 4.0),
            (&label("stream"), 0.0),
            (
                r#"grpc_server_msg_received_total{grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"}"#,
                3.0,
            ),
            (
                r#"grpc_server_msg_sent_total{grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"}"#,
                2.0,
            ),
            (r#"etcd_server_range_duration_seconds_count{success="false"}"#, 1.0),
            (r#"etcd_server_feature_enabled{name="CompactHashCheck",stage="ALPHA"}"#, 0.0),
            ("etcd_mvcc_db_open_read_transactions", 0.0),
            ("etcd_debugging_mvcc_db_compaction_last", 0.0),
        ],
    )
    .await;

    let written = metric(member, "etcd_disk_wal_write_duration_seconds_count").await;
    assert!(written >= Some(7.0), "each lone put, txn, delete or grant is a write of its own");

    let compact = pb::CompactionRequest { revision: 6, physical: true };
    kv.compact(compact).await.expect("compacted");
    let at = metric(member, "etcd_debugging_mvcc_db_compaction_last").await.expect("a time");
    // The page's second may be cut off on the other side of the full one.
    assert!((started - 1.0..=unix_secs()).contains(&at), "{started} {at}");
    assert_metrics(
        member,
        &[
            ("etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds_count", 1.0),
            ("etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count", 1.0),
        ],
    )
    .await;
}

#[tokio::test]
async fn events_are_pending_until_their_client_takes_them() {
    const PENDING: &str = "etcd_debugging_mvcc_pending_events_total";
    const SENT: &str = "etcd_debugging_mvcc_events_total";
    const MESSAGES: &str =
        r#"{grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"}"#;
    let received = format!("grpc_server_msg_received_total{MESSAGES}");
    let sent = format!("grpc_server_msg_sent_total{MESSAGES}");
    let cluster = Cluster::start(1, &[]);
    let member = &cluster.members[0];
    let mut kv = member.kv().await;
    let mut stream = WatchStream::open(member).await;
    stream.create(watch_prefix("w/")).await;
    assert!(stream.next().await.created);
    for key in ["w/a", "w/b", "elsewhere"] {
        kv.put(put(key, "1")).await.expect("put");
    }
    let mut events = 0;
    while events < 2 {
        events += stream.next().await.events.len();
    }
    assert_metrics(member, &[(PENDING, 0.0), (SENT, 2.0), (&received, 1.0)]).await;
    assert!(metric(member, &sent).await >= Some(2.0), "one for the creation, one or two more");
    // Nobody reads: what HTTP/2's window does not hold waits.
    for _ in 0..20 {
        kv.put(put("w/big", "x".repeat(128 << 10))).await.expect("put");
    }
    eventually("events wait", async || metric(member, PENDING).await > Some(0.0)).await;
    drop(stream);
    eventually("nobody waits any more", async || metric(member, PENDING).await == Some(0.0)).await;
    let sent = metric(member, SENT).await.expect("a counter");
    assert!((2.0..22.0).contains(&sent), "{sent}: those that were dropped were not sent");
}

#[tokio::test]
async fn what_takes_longer_than_the_limit_is_counted_and_logged() {
    const SLOW: &str = "etcd_server_slow_apply_total";
    let cluster = Cluster::start(1, &["--warning-apply-duration", "1ns"]);
    let member = &cluster.members[0];
    let mut kv = member.kv().await;
    let before = metric(member, SLOW).await.expect("a counter");
    assert!(before > 0.0, "its own name was applied");
    for _ in 0..5 {
        kv.put(put("k", "v")).await.expect("put");
        kv.range(get("k")).await.expect("range");
    }
    assert!(metric(member, SLOW).await >= Some(before + 10.0));
    let log = member.log();
    let lines: Vec<_> =
        log.lines().filter(|line| line.contains("apply request took too long")).collect();
    let reads = lines.iter().filter(|line| line.contains("read-only range ")).count();
    assert!(reads >= 5 && lines.len() >= reads + 5, "{log}");
}

#[tokio::test]
async fn looks_at_the_health_of_a_member_are_counted() {
    let cluster = Cluster::start(1, &["--feature-gates", "CompactHashCheck=true"]);
    let member = &cluster.members[0];
    for path in ["/readyz", "/readyz/data_corruption", "/livez"] {
        assert_eq!(http::get(member, path).await.0, 200);
    }
    let all =
        r#"etcd_server_healthchecks_total{name="data_corruption",status="success",type="readyz"}"#;
    let last = r#"etcd_server_healthcheck{name="serializable_read",type="livez"}"#;
    let feature = r#"etcd_server_feature_enabled{name="CompactHashCheck",stage="ALPHA"}"#;
    assert_metrics(member, &[(all, 2.0), (last, 1.0), (feature, 1.0)]).await;
}

#[tokio::test]
async fn a_stream_fails_by_what_its_client_sends_and_not_by_its_going_away() {
    const FAILURES: &str =
        r#"etcd_network_server_stream_failures_total{API="watch",Type="receive"}"#;
    let cluster = Cluster::start(1, &[]);
    let member = &cluster.members[0];
    let mut gone = WatchStream::open(member).await;
    gone.create(watch_prefix("a")).await;
    assert!(gone.next().await.created);
    drop(gone);
    let streams = "etcd_debugging_mvcc_watch_stream_total";
    eventually("it is gone", async || metric(member, streams).await == Some(0.0)).await;
    assert_metrics(member, &[(FAILURES, 0.0)]).await;
    let stream = WatchStream::open(member).await;
    stream.create(watch_prefix(&"x".repeat(3 << 20))).await;
    eventually("it is refused", async || metric(member, FAILURES).await == Some(1.0)).await;
}
