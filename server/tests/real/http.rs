//! The HTTP endpoints on the client port.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Cluster, Member, put};

/// GET over HTTP/1.1. Status code and body.
pub async fn get(member: &Member, path: &str) -> (u16, String) {
    request(member, "GET", path).await
}

async fn request(member: &Member, method: &str, path: &str) -> (u16, String) {
    let mut stream =
        TcpStream::connect(("127.0.0.1", member.client_port)).await.expect("a running member");
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a whole answer");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
    (code, body.to_owned())
}

#[tokio::test]
async fn health_version_and_metrics_are_etcds() {
    let cluster = Cluster::start(1, &[]);
    let member = &cluster.members[0];
    let mut kv = member.kv().await;
    for n in 0..5 {
        kv.put(put(format!("k{n}"), "v")).await.expect("put");
    }
    assert_eq!(get(member, "/health").await, (200, r#"{"health":"true","reason":""}"#.to_owned()));
    assert_eq!(get(member, "/health?serializable=true").await.0, 200);
    assert_eq!(request(member, "POST", "/health").await.0, 405);
    assert_eq!(get(member, "/livez").await, (200, "ok\n".to_owned()));
    let (code, checks) = get(member, "/readyz?verbose").await;
    assert_eq!(code, 200);
    assert!(checks.contains("[+]linearizable_read ok\n") && checks.ends_with("\nok\n"), "{checks}");
    let (_, version) = get(member, "/version").await;
    let expected = r#"{"etcdcluster":"3.6.0","etcdserver":"3.6.0","storage":"3.6.0"}"#;
    assert_eq!(version, expected);
    assert_eq!(get(member, "/nothing").await.0, 404);

    let (code, page) = get(member, "/metrics").await;
    assert_eq!(code, 200);
    for line in [
        "etcd_server_has_leader 1",
        r#"etcd_cluster_version{cluster_version="3.6"} 1"#,
        "etcd_server_is_leader 1",
        "etcd_mvcc_put_total 5",
        "etcd_debugging_mvcc_current_revision 6",
        "# TYPE etcd_server_leader_changes_seen_total counter",
        r#"grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 5"#,
    ] {
        assert!(page.lines().any(|l| l == line), "no line {line} in\n{page}");
    }
    let synced = page.lines().find_map(|l| {
        l.strip_prefix("etcd_disk_wal_fsync_duration_seconds_count ")?.parse::<u64>().ok()
    });
    assert!(synced.expect("a histogram") >= 5, "every lone put waits for its own fsync");
}

#[tokio::test]
async fn a_member_without_a_leader_is_not_healthy() {
    let mut cluster = Cluster::new(3, &[]);
    cluster.members[0].start();
    // Its port opens before it has a leader, so that it can say so.
    let _ = cluster.members[0].channel().await;
    let (code, body) = get(&cluster.members[0], "/health").await;
    assert_eq!((code, body.as_str()), (503, r#"{"health":"false","reason":"RAFT NO LEADER"}"#));
    assert_eq!(get(&cluster.members[0], "/livez").await.0, 200);
}
