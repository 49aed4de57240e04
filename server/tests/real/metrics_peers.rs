//! /metrics of real members: what passes between them.

use detkv_core::pb::{etcdserverpb as pb, peer};
use prost::Message as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::metrics::{assert_metrics, metric};
use crate::ports::free_ports;
use crate::support::{Cluster, ClusterClient, eventually, put};

#[tokio::test]
async fn round_trips_to_every_peer_are_measured() {
    let cluster = Cluster::start(3, &[]);
    let mut ids = Vec::new();
    for member in &cluster.members {
        ids.push(member.status().await.header.expect("header").member_id);
    }
    for (member, own) in cluster.members.iter().zip(&ids) {
        for peer in ids.iter().filter(|id| *id != own) {
            let labels = format!("{{To=\"{peer:x}\"}}");
            let count = format!("etcd_network_peer_round_trip_time_seconds_count{labels}");
            let sum = format!("etcd_network_peer_round_trip_time_seconds_sum{labels}");
            eventually("a ping is answered", async || metric(member, &count).await > Some(0.0))
                .await;
            assert!(metric(member, &sum).await > Some(0.0), "it took some time");
        }
    }
}

#[tokio::test]
async fn peers_that_go_and_frames_that_make_no_sense_are_counted() {
    let mut cluster = Cluster::start(3, &[]);
    let mut ids = Vec::new();
    for member in &cluster.members {
        ids.push(member.status().await.header.expect("header"));
    }
    let place = |member_id| ids.iter().position(|h| h.member_id == member_id).expect("one of them");
    // Of two the one with the smaller id dials.
    let (least, greatest) =
        (ids.iter().map(|h| h.member_id).min(), ids.iter().map(|h| h.member_id).max());
    let (from, to) = (least.expect("three"), greatest.expect("three"));
    let target = &cluster.members[place(to)];
    let known = format!("etcd_network_known_peers{{Local=\"{to:x}\",Remote=\"{from:x}\"}}");
    assert_metrics(target, &[(&known, 1.0)]).await;

    let hello =
        peer::Hello { version: 2, cluster_id: ids[0].cluster_id, from, to, ..Default::default() };
    let hello = hello.encode_to_vec();
    let failures = format!("etcd_network_peer_received_failures_total{{From=\"{from:x}\"}}");
    // The peer itself dials again at once: ours may be replaced before anything of it is read.
    eventually("a frame without sense is noticed", async || {
        let address = ("127.0.0.1", target.peer_port);
        let mut stream = TcpStream::connect(address).await.expect("a running member");
        let _ = stream.write_all(&(hello.len() as u32).to_le_bytes()).await;
        let _ = stream.write_all(&hello).await;
        // A length beyond all bounds.
        let _ = stream.write_all(&[0xff; 4]).await;
        metric(target, &failures).await > Some(0.0)
    })
    .await;

    let lost =
        format!("etcd_network_disconnected_peers_total{{Local=\"{to:x}\",Remote=\"{from:x}\"}}");
    eventually("the peer is back", async || {
        let active = format!("etcd_network_active_peers{{Local=\"{to:x}\",Remote=\"{from:x}\"}}");
        metric(&cluster.members[place(to)], &active).await == Some(1.0)
    })
    .await;
    let before = metric(target, &lost).await.expect("it was replaced and then ended");
    cluster.members[place(from)].kill();
    let target = &cluster.members[place(to)];
    eventually("it is gone", async || metric(target, &lost).await > Some(before)).await;
}

#[tokio::test]
async fn the_snapshot_of_one_that_joins_is_counted_at_both_ends() {
    let mut cluster = Cluster::start(1, &[]);
    cluster.members[0].kv().await.put(put("k", "v")).await.expect("put");
    let mut api = ClusterClient::new(cluster.members[0].channel().await);
    let [client_port, peer_port] = free_ports(2)[..] else { panic!("two ports") };
    let url = format!("http://127.0.0.1:{peer_port}");
    let add = pb::MemberAddRequest { peer_ur_ls: vec![url], is_learner: true };
    let added = api.member_add(add).await.expect("added").into_inner().member.expect("it");
    cluster.lay_out_joiner("new", client_port, peer_port).start();
    let from = cluster.members[0].status().await.header.expect("header").member_id;
    let of = |way: &str, what: &str, label: &str, peer: u64| {
        format!("etcd_network_snapshot_{way}_{what}{{{label}=\"{peer:x}\"}}")
    };
    // Its port opens before it has anything.
    let _ = cluster.members[1].channel().await;
    let received = of("receive", "success", "From", from);
    eventually("it has received it", async || {
        metric(&cluster.members[1], &received).await == Some(1.0)
    })
    .await;
    let sent = of("send", "success", "To", added.id);
    eventually("it is sent", async || metric(&cluster.members[0], &sent).await == Some(1.0)).await;
    let expected = [
        (of("send", "failures", "To", added.id), 0.0),
        (of("send", "inflights_total", "To", added.id), 0.0),
        (of("send", "total_duration_seconds_count", "To", added.id), 1.0),
        ("etcd_disk_backend_snapshot_duration_seconds_count".to_owned(), 1.0),
    ];
    for (name, value) in &expected {
        assert_metrics(&cluster.members[0], &[(name, *value)]).await;
    }
    assert_metrics(&cluster.members[1], &[("etcd_snap_db_fsync_duration_seconds_count", 1.0)])
        .await;
}
