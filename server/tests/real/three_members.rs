//! Three members: they elect, replicate, survive kill -9, and catch up by snapshot.

use detkv_core::pb::etcdserverpb as pb;

use crate::load::Load;
use crate::support::{
    Cluster, ClusterClient, MaintenanceClient, Member, eventually, get, get_prefix, put,
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
    let load = Load::start(&cluster);
    for _ in 0..2 {
        load.goes_on(50).await;
        let leader = cluster.leader().await;
        cluster.members[leader].kill();
        // The others elect and take writes.
        load.goes_on(50).await;
        cluster.members[leader].start();
        cluster.members[leader].wait_ready();
    }
    let members: Vec<&Member> = cluster.members.iter().collect();
    load.check(&members).await;
}

/// Index of the newest snap file.
fn snapshot_index(member: &Member) -> u64 {
    let names = std::fs::read_dir(member.data_dir.join("member/snap")).expect("a directory");
    let names =
        names.map(|entry| entry.expect("readable").file_name().into_string().expect("text"));
    let index = |name: String| {
        let (_, index) = name.strip_suffix(".snap")?.split_once('-')?;
        u64::from_str_radix(index, 16).ok()
    };
    names.filter_map(index).max().unwrap_or(0)
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
    let needed = cluster.members[leader].status().await.raft_index;
    let mut n = 0;
    eventually("whoever may lead has let go of the log so far", async || {
        kv.put(put(format!("l{n:03}"), "v")).await.expect("put");
        n += 1;
        let others = cluster.members.iter().enumerate().filter(|(n, _)| *n != behind);
        others.map(|(_, member)| snapshot_index(member)).min() > Some(needed)
    })
    .await;
    cluster.members[behind].start();
    cluster.members[behind].wait_ready();
    let mut kv = cluster.members[behind].kv().await;
    let answer = kv.range(get_prefix("k")).await.expect("get").into_inner();
    assert_eq!(answer.count, 400);
    let metrics = crate::http::get(&cluster.members[behind], "/metrics").await.1;
    let installed = metrics.lines().find_map(|line| {
        line.strip_prefix("detkv_network_snapshots_installed_total ")?.parse::<u64>().ok()
    });
    assert!(installed.expect("a counter") >= 1, "it caught up by a snapshot, not by the log");

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
