//! Three members: they elect, replicate, survive kill -9, and catch up by snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use detkv_core::pb::etcdserverpb as pb;
use tonic::transport::{Channel, Endpoint};

use crate::support::{
    Cluster, ClusterClient, KvClient, MaintenanceClient, Member, eventually, get, get_prefix, put,
};

#[tokio::test]
async fn three_members_elect_and_replicate() {
    let cluster = Cluster::start(3, &[]);
    let leader = cluster.leader().await;
    // Through every member, the two that forward included.
    for (n, member) in cluster.members.iter().enumerate() {
        member.kv().await.put(put(format!("k{n}"), "v")).await.expect("put");
    }
    for member in &cluster.members {
        let answer = member.kv().await.range(get_prefix("k")).await.expect("get").into_inner();
        assert_eq!(answer.count, 3, "a linearizable read on {}", member.name);
    }
    let mut api = ClusterClient::new(cluster.members[leader].channel().await);
    let list = api.member_list(pb::MemberListRequest { linearizable: true }).await;
    let list = list.expect("member list").into_inner();
    let header = list.header.expect("header");
    assert_eq!((list.members.len(), header.revision), (3, 0));
    eventually("every member has published its name and client URLs", async || {
        let list = api.member_list(pb::MemberListRequest { linearizable: true }).await;
        let members = list.expect("member list").into_inner().members;
        members.iter().all(|m| !m.name.is_empty() && m.client_ur_ls.len() == 1)
    })
    .await;
}

#[tokio::test]
async fn coupled_members_elect_and_replicate_too() {
    let cluster = Cluster::start(3, &["--raft-loop", "coupled"]);
    for (n, member) in cluster.members.iter().enumerate() {
        member.kv().await.put(put(format!("k{n}"), "v")).await.expect("put");
        let answer = member.kv().await.range(get_prefix("k")).await.expect("get").into_inner();
        assert_eq!(answer.count, n as i64 + 1);
    }
}

#[tokio::test]
async fn a_stopped_leader_hands_over_and_the_rest_goes_on() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.leader().await;
    assert!(cluster.members[leader].terminate().success());
    let next = cluster.leader().await;
    assert_ne!(next, leader);
    cluster.members[next].kv().await.put(put("a", "1")).await.expect("two of three are enough");
    cluster.members[leader].start();
    cluster.members[leader].wait_ready();
    let mut kv = cluster.members[leader].kv().await;
    let answer = kv.range(get("a")).await.expect("get").into_inner();
    assert_eq!(answer.count, 1);
}

#[tokio::test]
async fn acknowledged_puts_survive_kill_dash_nine() {
    let mut cluster = Cluster::start(3, &[]);
    let urls: Vec<String> = cluster.members.iter().map(Member::url).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> =
        (0..6).map(|writer| tokio::spawn(write(writer, urls.clone(), stop.clone()))).collect();

    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let leader = cluster.leader().await;
        cluster.members[leader].kill();
        // Long enough for the others to elect and take writes.
        tokio::time::sleep(Duration::from_secs(3)).await;
        cluster.members[leader].start();
        cluster.members[leader].wait_ready();
    }
    stop.store(true, Relaxed);
    let mut acknowledged = BTreeMap::new();
    for writer in writers {
        acknowledged.extend(writer.await.expect("no panic"));
    }
    assert!(acknowledged.len() > 100, "{} puts were acknowledged", acknowledged.len());
    for member in &cluster.members {
        let answer = member.kv().await.range(get_prefix("w")).await.expect("get").into_inner();
        let found: BTreeMap<Vec<u8>, Vec<u8>> =
            answer.kvs.into_iter().map(|kv| (kv.key.to_vec(), kv.value.to_vec())).collect();
        for (key, value) in &acknowledged {
            assert_eq!(
                found.get(key.as_bytes()).map(Vec::as_slice),
                Some(value.as_bytes()),
                "{key} was acknowledged and is not on {}",
                member.name
            );
        }
    }
}

/// Puts one new key after another until told to stop; the keys that were acknowledged.
async fn write(writer: usize, urls: Vec<String>, stop: Arc<AtomicBool>) -> Vec<(String, String)> {
    let connect = |url: &String| {
        let endpoint = Endpoint::from_shared(url.clone()).expect("a valid URL");
        KvClient::new(endpoint.timeout(Duration::from_secs(2)).connect_lazy())
    };
    let mut clients: Vec<KvClient<Channel>> = urls.iter().map(connect).collect();
    let mut acknowledged = Vec::new();
    for n in 0.. {
        if stop.load(Relaxed) {
            break;
        }
        let (key, value) = (format!("w{writer}/{n:06}"), format!("value {n} of {writer}"));
        let turn = (writer + n) % clients.len();
        match clients[turn].put(put(key.clone(), value.clone())).await {
            Ok(_) => acknowledged.push((key, value)),
            // Unknown whether it took effect: never asserted on.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    acknowledged
}

#[tokio::test]
async fn a_follower_far_behind_catches_up_by_snapshot() {
    let flags = ["--snapshot-count", "50", "--snapshot-catchup-entries", "5"];
    let mut cluster = Cluster::start(3, &flags);
    let leader = cluster.leader().await;
    let behind = (leader + 1) % 3;
    cluster.members[behind].kill();
    let mut kv = cluster.members[leader].kv().await;
    for n in 0..400 {
        kv.put(put(format!("k{n:03}"), "v".repeat(500))).await.expect("put");
    }
    // The backend's durable commits (one a second) are what lets the log be compacted.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    for n in 0..100 {
        kv.put(put(format!("l{n:03}"), "v")).await.expect("put");
    }
    cluster.members[behind].start();
    cluster.members[behind].wait_ready();
    let mut kv = cluster.members[behind].kv().await;
    let answer = kv.range(get_prefix("k")).await.expect("get").into_inner();
    assert_eq!(answer.count, 400);
    let metrics = crate::http::get(&cluster.members[behind], "/metrics").await.1;
    let installed = metrics.lines().any(|l| l == "detkv_network_snapshots_installed_total 1");
    assert!(installed, "it caught up by a snapshot, not by the log");

    let mut hashes = Vec::new();
    for member in &cluster.members {
        let mut api = MaintenanceClient::new(member.channel().await);
        let hash =
            api.hash_kv(pb::HashKvRequest { revision: answer.header.expect("header").revision });
        let hash = hash.await.expect("hash").into_inner();
        hashes.push((hash.hash, hash.compact_revision));
    }
    assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?}");
    // It goes on as an ordinary follower.
    kv.put(put("z", "1")).await.expect("put through the member that caught up");
    let answer = cluster.members[leader].kv().await.range(get("z")).await.expect("get");
    assert_eq!(answer.into_inner().count, 1);
}
