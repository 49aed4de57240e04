//! Members come and go while others write: with etcdctl where it is installed, and by the API.

use std::time::Duration;

use detkv_core::pb::etcdserverpb as pb;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::ctl;
use crate::load::Load;
use crate::ports::free_ports;
use crate::support::{Cluster, ClusterClient, MaintenanceClient, Member, eventually, get, put};

async fn api(member: &Member) -> ClusterClient<Channel> {
    ClusterClient::new(member.channel().await)
}

async fn list(member: &Member) -> Vec<pb::Member> {
    let request = pb::MemberListRequest { linearizable: false };
    api(member).await.member_list(request).await.expect("a local list").into_inner().members
}

/// Repeats a change while the cluster is not yet healthy enough for it.
async fn add(via: &Member, peer_port: u16, is_learner: bool) -> pb::MemberAddResponse {
    let request = pb::MemberAddRequest {
        peer_ur_ls: vec![format!("http://127.0.0.1:{peer_port}")],
        is_learner,
    };
    let mut added = None;
    eventually("the member is added", async || {
        match api(via).await.member_add(request.clone()).await {
            Ok(done) => added = Some(done.into_inner()),
            Err(status) => assert!(is_transient(&status), "{status:?}"),
        }
        added.is_some()
    })
    .await;
    added.expect("added")
}

async fn remove(via: &Member, id: u64) {
    eventually("the member is removed", async || {
        match api(via).await.member_remove(pb::MemberRemoveRequest { id }).await {
            Ok(_) => true,
            // An earlier try went through although its answer was lost.
            Err(status) if status.code() == Code::NotFound => true,
            Err(status) => {
                assert!(is_transient(&status), "{status:?}");
                false
            }
        }
    })
    .await;
}

fn is_transient(status: &Status) -> bool {
    status.code() == Code::Unavailable
        || matches!(
            status.message(),
            "etcdserver: re-configuration failed due to not enough started members"
        )
}

async fn id_of(member: &Member) -> u64 {
    member.status().await.header.expect("a header").member_id
}

#[tokio::test]
async fn three_become_five_under_load_with_a_kill_in_between() {
    let mut cluster = Cluster::start(3, &[]);
    let load = Load::start(&cluster);
    for (name, is_learner) in [("m3", false), ("m4", true)] {
        let ports = free_ports(2);
        let added = add(&cluster.members[0], ports[1], is_learner).await;
        let id = added.member.expect("who was added").id;
        let joiner = cluster.lay_out_joiner(name, ports[0], ports[1]);
        joiner.start();
        joiner.wait_ready();
        assert_eq!(id_of(joiner).await, id, "the id is the one that MemberAdd gave");
        // kill -9 of the member that has just come, and back.
        joiner.kill();
        joiner.start();
        joiner.wait_ready();
        assert_eq!(id_of(joiner).await, id);
        if is_learner {
            refuses_as_a_learner(joiner).await;
            promote(&cluster.members[1], id).await;
        }
    }
    let leader = cluster.leader().await;
    cluster.members[leader].kill();
    load.goes_on(50).await;
    cluster.members[leader].start();
    cluster.members[leader].wait_ready();
    let members: Vec<&Member> = cluster.members.iter().collect();
    load.check(&members).await;
    for member in &cluster.members {
        eventually("every list has five voters with their names", async || {
            let list = list(member).await;
            list.len() == 5 && list.iter().all(|m| !m.is_learner && !m.name.is_empty())
        })
        .await;
    }
}

async fn refuses_as_a_learner(learner: &Member) {
    let mut kv = learner.kv().await;
    let local = pb::RangeRequest { serializable: true, ..get("w") };
    kv.range(local).await.expect("a serializable read");
    let refused = kv.put(put("k", "v")).await.expect_err("a learner");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(refused.message(), "etcdserver: rpc not supported for learner");
    assert!(learner.status().await.is_learner);
}

async fn promote(via: &Member, id: u64) {
    eventually("the learner has caught up and is promoted", async || {
        match api(via).await.member_promote(pb::MemberPromoteRequest { id }).await {
            Ok(_) => true,
            Err(status) => {
                let lags =
                    "etcdserver: can only promote a learner member which is in sync with leader";
                assert!(is_transient(&status) || status.message() == lags, "{status:?}");
                false
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_removed_leader_hands_over_stops_and_stays_out() {
    let mut cluster = Cluster::start(3, &[]);
    let load = Load::start(&cluster);
    let leader = cluster.leader().await;
    let id = id_of(&cluster.members[leader]).await;
    let mut asked = api(&cluster.members[leader]).await;
    let asked = asked.member_remove(pb::MemberRemoveRequest { id }).await;
    if let Err(status) = asked {
        // It may end before it has the answer; then somebody else knows.
        assert!(is_transient(&status), "{status:?}");
        remove(&cluster.members[(leader + 1) % 3], id).await;
    }
    assert!(cluster.members[leader].wait_end().success(), "it ends with exit code 0");
    // Peers that refuse it use the same words, in other lines.
    let said = r#""msg":"the member has been permanently removed from the cluster"#;
    assert!(cluster.members[leader].log().contains(said));
    let rest: Vec<&Member> =
        cluster.members.iter().enumerate().filter(|(n, _)| *n != leader).map(|(_, m)| m).collect();
    load.check(&rest).await;
    assert_eq!(list(rest[0]).await.len(), 2);
    // Its directory knows it.
    let gone = &mut cluster.members[leader];
    gone.start();
    assert!(gone.wait_end().success());
    assert_eq!(gone.log().matches(said).count(), 2);
}

#[tokio::test]
async fn a_member_that_was_away_learns_from_its_peers_that_it_was_removed() {
    let mut cluster = Cluster::start(5, &[]);
    // Of two members the one with the smaller id dials: the other has to ask.
    for smallest in [true, false] {
        let leader = cluster.leader().await;
        let mut followers = Vec::new();
        for n in (0..cluster.members.len()).filter(|n| *n != leader) {
            followers.push((id_of(&cluster.members[n]).await, n));
        }
        followers.sort_unstable();
        let pick = if smallest { followers.first() } else { followers.last() };
        let (id, away) = *pick.expect("a follower");
        cluster.members[away].kill();
        remove(&cluster.members[leader], id).await;
        let mut gone = cluster.members.remove(away);
        // The connection to a removed member is kept for a second: after that it has to ask. (It
        // learns of it either way.)
        tokio::time::sleep(Duration::from_secs(2)).await;
        gone.start();
        assert!(gone.wait_end().success());
        let said = "the member has been permanently removed from the cluster";
        assert!(gone.log().contains(said));
    }
}

#[tokio::test]
async fn a_member_with_a_lost_disk_is_replaced_at_the_same_address() {
    let flags = ["--snapshot-count", "50", "--snapshot-catchup-entries", "5"];
    let mut cluster = Cluster::start(3, &flags);
    let leader = cluster.leader().await;
    let load = Load::start(&cluster);
    let lost = (leader + 1) % 3;
    let old = id_of(&cluster.members[lost]).await;
    cluster.members[lost].kill();
    let member = cluster.members.remove(lost);
    std::fs::remove_dir_all(&member.data_dir).expect("the disk is gone");

    // What an operator must not do: start it as if it were new.
    let mut again = member;
    again.start();
    assert!(!again.wait_end().success());
    let said = format!("member {old:x} has already been bootstrapped");
    assert!(again.log().contains(&said), "{}", again.log());
    let (client_port, peer_port) = (again.client_port, again.peer_port);
    drop(again);

    let helper = cluster.leader().await;
    remove(&cluster.members[helper], old).await;
    let added = add(&cluster.members[helper], peer_port, false).await;
    let new = added.member.expect("who was added").id;
    assert_ne!(new, old);
    let joiner = cluster.lay_out_joiner("again", client_port, peer_port);
    joiner.start();
    joiner.wait_ready();
    assert_eq!(id_of(joiner).await, new);
    let members: Vec<&Member> = cluster.members.iter().collect();
    load.check(&members).await;
}

/// Started again, it is behind the log of the leader, of whom its own member list knows nothing.
#[tokio::test]
async fn one_that_was_down_while_a_member_joined_is_caught_up_by_the_new_member() {
    let flags = ["--strict-reconfig-check=false", "--snapshot-count", "50"];
    let mut cluster = Cluster::start(3, &flags);
    let leader = cluster.leader().await;
    let (down, other) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.members[down].kill();
    let ports = free_ports(2);
    let added = add(&cluster.members[leader], ports[1], true).await;
    let target_id = added.member.expect("who was added").id;
    let joiner = cluster.lay_out_joiner("m3", ports[0], ports[1]);
    let args = [joiner.args(), flags.map(str::to_owned).to_vec()].concat();
    joiner.set_args(args);
    joiner.start();
    joiner.wait_ready();
    promote(&cluster.members[leader], target_id).await;

    let mut kv = cluster.members[leader].kv().await;
    for n in 0..200 {
        kv.put(put("k", n.to_string())).await.expect("three of four are up");
    }
    let old = id_of(&cluster.members[leader]).await;
    let mut maintenance = MaintenanceClient::new(cluster.members[leader].channel().await);
    let moves = pb::MoveLeaderRequest { target_id };
    maintenance.move_leader(moves).await.expect("the new member leads");
    remove(&cluster.members[other], old).await;

    cluster.members[down].start();
    cluster.members[down].wait_ready();
    eventually("it has the newest value and the new list", async || {
        let member = &cluster.members[down];
        let Ok(read) = member.kv().await.range(get("k")).await else { return false };
        let kvs = read.into_inner().kvs;
        let is_newest = kvs.first().is_some_and(|kv| kv.value == b"199"[..]);
        is_newest && list(member).await.iter().any(|m| m.id == target_id)
    })
    .await;
}

#[tokio::test]
async fn flags_that_do_not_match_the_cluster_are_refused() {
    let mut cluster = Cluster::start(1, &[]);
    let ports = free_ports(2);
    // Nobody added it.
    let joiner = cluster.lay_out_joiner("m1", ports[0], ports[1]);
    joiner.start();
    assert!(!joiner.wait_end().success());
    let log = joiner.log();
    assert!(log.contains("error validating peerURLs"), "{log}");
    assert!(log.contains("member count is unequal"), "{log}");
    let elsewhere = free_ports(1)[0];
    add(&cluster.members[0], elsewhere, false).await;
    let joiner = cluster.members.last_mut().expect("laid out");
    joiner.start();
    assert!(!joiner.wait_end().success());
    assert!(joiner.log().contains("unmatched member while checking PeerURLs"));
}

#[tokio::test]
async fn etcdctl_changes_members_and_moves_the_leader() {
    if !ctl::is_installed() {
        return;
    }
    let mut cluster = Cluster::start(3, &[]);
    let endpoints = cluster.endpoints();
    let run = |args: &[&str]| ctl::run(&endpoints, args);
    let ports = free_ports(2);
    let url = format!("--peer-urls=http://127.0.0.1:{}", ports[1]);
    let added = run_once_healthy(&endpoints, &["member", "add", "m3", &url, "--learner"]).await;
    assert!(added.contains("added to cluster"), "{added}");
    assert!(added.contains("ETCD_INITIAL_CLUSTER_STATE=\"existing\""), "{added}");
    let id = added.split_whitespace().nth(1).expect("Member <id> added").to_owned();
    let joiner = cluster.lay_out_joiner("m3", ports[0], ports[1]);
    joiner.start();
    joiner.wait_ready();
    assert!(run(&["member", "list"]).lines().any(|l| l.starts_with(&id) && l.ends_with("true")));
    let promoted = run_once_healthy(&endpoints, &["member", "promote", &id]).await;
    assert!(promoted.contains("promoted in cluster"), "{promoted}");
    assert_eq!(run(&["member", "list"]).lines().count(), 4);
    let updated = run(&["member", "update", &id, &url]);
    assert!(updated.contains("updated in cluster"), "{updated}");

    let leader = cluster.leader().await;
    let target = (leader + 1) % 3;
    let target_id = format!("{:x}", id_of(&cluster.members[target]).await);
    eventually("the leader has moved and is there still", async || {
        // On a loaded machine it may lose an election before it is asked.
        let moved = run_once_healthy(&endpoints, &["move-leader", &target_id]).await;
        assert!(moved.contains("Leadership transferred"), "{moved}");
        cluster.leader().await == target
    })
    .await;
    let status = run(&["endpoint", "status", "-w", "json"]);
    let rows: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(rows.as_array().expect("a list").len(), 3);
    let removed = run_once_healthy(&endpoints, &["member", "remove", &id]).await;
    assert!(removed.contains("removed from cluster"), "{removed}");
    let gone = cluster.members.last_mut().expect("joined");
    assert!(gone.wait_end().success());
    let mut api = MaintenanceClient::new(cluster.members[target].channel().await);
    let refused = api.move_leader(pb::MoveLeaderRequest { target_id: 99 }).await;
    assert_eq!(refused.expect_err("unknown").message(), "etcdserver: bad leader transferee");
}

/// Repeats a command while the cluster is not ready for it; what it printed.
async fn run_once_healthy(endpoints: &str, args: &[&str]) -> String {
    let mut printed = None;
    eventually("etcdctl is not told to wait", async || {
        match ctl::try_run(endpoints, args) {
            Ok(text) => printed = Some(text),
            Err(error) => {
                let not_yet = [
                    "unhealthy cluster",
                    "not enough started members",
                    "in sync with leader",
                    "no leader",
                    "leader changed",
                    "not leader",
                    "request timed out",
                ];
                assert!(not_yet.iter().any(|text| error.contains(text)), "{args:?}: {error}");
            }
        }
        printed.is_some()
    })
    .await;
    printed.expect("it is there")
}
