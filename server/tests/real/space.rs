//! Quota, alarms, defragmentation and hashes on three real members, by API and by etcdctl.

use std::time::Duration;

use detkv_core::pb::etcdserverpb::{self as pb, AlarmType, alarm_request::AlarmAction};
use tonic::Code;

use crate::support::{Cluster, MaintenanceClient, Member, eventually, get, put};
use crate::{ctl, http};

const VALUE_BYTES: usize = 128 << 10;

/// A command against all members; what it printed. `None` without an etcdctl.
fn etcdctl(cluster: &Cluster, args: &[&str]) -> Option<String> {
    ctl::is_installed().then(|| ctl::run(&cluster.endpoints(), args))
}

async fn alarms(member: &Member) -> Vec<pb::AlarmMember> {
    let mut api = MaintenanceClient::new(member.channel().await);
    let get = pb::AlarmRequest { action: AlarmAction::Get.into(), ..Default::default() };
    api.alarm(get).await.expect("alarms").into_inner().alarms
}

#[tokio::test]
async fn a_full_cluster_recovers_by_compaction_defragmentation_and_disarming() {
    let cluster = Cluster::start(3, &["--quota-backend-bytes", "8388608"]);
    let leader = cluster.leader().await;
    let mut kv = cluster.members[leader].kv().await;
    let mut taken = 0;
    let refused = loop {
        match kv.put(put("big", "x".repeat(VALUE_BYTES))).await {
            Ok(_) => taken += 1,
            Err(status) => break status,
        }
        assert!(taken < 1_000, "the quota is not enforced");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(refused.message(), "etcdserver: mvcc: database space exceeded");
    assert!((20..64).contains(&taken), "{taken} puts of 128 KiB in 8 MiB");

    for member in &cluster.members {
        let error = member.kv().await.put(put("small", "1")).await.expect_err("everywhere");
        assert_eq!(error.code(), Code::ResourceExhausted, "{}", member.name);
        assert!(alarms(member).await.iter().all(|a| a.alarm() == AlarmType::Nospace));
        let (status, body) = http::get(member, "/health").await;
        assert_eq!(
            (status, body.as_str()),
            (503, r#"{"health":"false","reason":"ALARM NOSPACE"}"#)
        );
        let (status, _) = http::get(member, "/health?exclude=NOSPACE").await;
        assert_eq!(status, 200);
        assert_eq!(http::get(member, "/readyz").await.0, 200, "no reason to take it out");
        let metrics = http::get(member, "/metrics").await.1;
        let line = |l: &str| l.starts_with("etcd_debugging_server_alarms{alarm_type=\"NOSPACE\"");
        assert!(metrics.lines().any(line), "{}", member.name);
        let status = member.status().await;
        assert!(status.errors.iter().any(|e| e.ends_with("alarm:NOSPACE ")), "{status:?}");
        assert_eq!(status.db_size_quota, 8 << 20);
    }
    if let Some(listed) = etcdctl(&cluster, &["alarm", "list"]) {
        assert!(listed.contains("alarm:NOSPACE"), "{listed}");
    }
    recover(&cluster, leader).await;
    kv.put(put("small", "2")).await.expect("there is room again");
    let answer = cluster.members[(leader + 1) % 3].kv().await.range(get("small")).await;
    assert_eq!(answer.expect("a linearizable read").into_inner().count, 1);
    assert_eq!(http::get(&cluster.members[leader], "/health").await.0, 200);
}

async fn recover(cluster: &Cluster, leader: usize) {
    let revision = cluster.members[leader].status().await.header.expect("header").revision;
    let mut kv = cluster.members[leader].kv().await;
    kv.compact(pb::CompactionRequest { revision, physical: true }).await.expect("compacted");
    eventually("the others have compacted too", async || {
        let mut sizes = Vec::new();
        for member in &cluster.members {
            sizes.push(member.status().await.db_size_in_use);
        }
        sizes.iter().all(|size| *size < 4 << 20)
    })
    .await;
    if etcdctl(cluster, &["defrag"]).is_none() {
        for member in &cluster.members {
            let mut api = MaintenanceClient::new(member.channel().await);
            let done = api.defragment(pb::DefragmentRequest {}).await.expect("defragmented");
            assert_eq!(done.into_inner().header, None);
        }
    }
    for member in &cluster.members {
        let status = member.status().await;
        assert!(status.db_size < 2 << 20, "{status:?}");
        let metrics = http::get(member, "/metrics").await.1;
        let count = "etcd_disk_backend_defrag_duration_seconds_count 1";
        assert!(metrics.lines().any(|l| l == count), "{}", member.name);
        assert!(metrics.lines().any(|l| l == "etcd_disk_defrag_inflight 0"));
    }
    if etcdctl(cluster, &["alarm", "disarm"]).is_none() {
        let mut api = MaintenanceClient::new(cluster.members[leader].channel().await);
        for raised in alarms(&cluster.members[leader]).await {
            let disarm = pb::AlarmRequest {
                action: AlarmAction::Deactivate.into(),
                member_id: raised.member_id,
                alarm: raised.alarm,
            };
            api.alarm(disarm).await.expect("disarmed");
        }
    }
    assert_eq!(alarms(&cluster.members[leader]).await, []);
}

#[tokio::test]
async fn defragmentation_goes_on_beside_reads_and_writes_and_survives_kill_dash_nine() {
    let mut cluster = Cluster::start(1, &[]);
    let mut kv = cluster.members[0].kv().await;
    for n in 0..400 {
        kv.put(put(format!("k{}", n % 40), "x".repeat(64 << 10))).await.expect("put");
    }
    let channel = cluster.members[0].channel().await;
    let mut during = 0;
    // How many writes fit into one copy depends on the machine: several copies if need be.
    while during <= 5 {
        let mut api = MaintenanceClient::new(channel.clone());
        let mut defrag =
            tokio::spawn(async move { api.defragment(pb::DefragmentRequest {}).await });
        let done = loop {
            if let Ok(done) = tokio::time::timeout(Duration::ZERO, &mut defrag).await {
                break done;
            }
            kv.put(put("during", during.to_string())).await.expect("writes go on");
            kv.range(get("during")).await.expect("reads go on");
            during += 1;
        };
        done.expect("no panic").expect("defragmented");
        let status = cluster.members[0].status().await;
        assert!(status.db_size_in_use > 20 << 20, "all rows are in the file: {status:?}");
    }
    cluster.members[0].kill();
    cluster.members[0].start();
    cluster.members[0].wait_ready();
    let mut kv = cluster.members[0].kv().await;
    let found = kv.range(get("during")).await.expect("get").into_inner().kvs;
    assert_eq!(found[0].value, (during - 1).to_string().as_bytes());
    let left: Vec<_> = std::fs::read_dir(cluster.members[0].data_dir.join("member/snap"))
        .expect("a directory")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("text"))
        .filter(|name| name.contains("tmp"))
        .collect();
    assert_eq!(left, [""; 0], "nothing is left of the copy");
}

#[tokio::test]
async fn members_agree_in_their_hashes_and_the_checks_find_nothing() {
    let flags = [
        "--feature-gates=InitialCorruptCheck=true,CompactHashCheck=true",
        "--corrupt-check-time=300ms",
        "--compact-hash-check-time=300ms",
    ];
    let cluster = Cluster::start(3, &flags);
    let leader = cluster.leader().await;
    let mut kv = cluster.members[leader].kv().await;
    for n in 0..200 {
        kv.put(put(format!("k{}", n % 10), "v")).await.expect("put");
    }
    let compact = pb::CompactionRequest { revision: 150, physical: true };
    kv.compact(compact).await.expect("compacted");
    // By whoever leads: that may have changed.
    eventually("both checks have run", async || {
        let logs: Vec<String> = cluster.members.iter().map(Member::log).collect();
        ["finished peer corruption check", "finished compaction hash check"]
            .iter()
            .all(|said| logs.iter().any(|log| log.contains(said)))
    })
    .await;
    for revision in [150, 170, 0] {
        let mut hashes = Vec::new();
        for member in &cluster.members {
            eventually("a member has what is asked for", async || {
                let status = member.status().await;
                let is_there = status.header.expect("header").revision == 201;
                is_there && member.log().contains("storing new hash")
            })
            .await;
            let mut api = MaintenanceClient::new(member.channel().await);
            let hash = api.hash_kv(pb::HashKvRequest { revision }).await.expect("hash");
            let hash = hash.into_inner();
            assert_eq!(hash.header.expect("header").revision, 201);
            hashes.push((hash.hash, hash.compact_revision, hash.hash_revision));
        }
        assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{revision}: {hashes:?}");
        let expected = if revision == 150 { (-1, 150) } else { (150, revision.max(1)) };
        if revision != 0 {
            assert_eq!((hashes[0].1, hashes[0].2), expected);
        }
    }
    let mut api = MaintenanceClient::new(cluster.members[leader].channel().await);
    let whole = api.hash(pb::HashRequest {}).await.expect("hash").into_inner();
    assert_ne!(whole.hash, 0);
    if let Some(text) = etcdctl(&cluster, &["endpoint", "hashkv"]) {
        let hashes: Vec<&str> = text.lines().filter_map(|l| l.rsplit(", ").next()).collect();
        assert_eq!(hashes.len(), 3, "{text}");
        assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
    }
    assert_eq!(alarms(&cluster.members[leader]).await, []);
}

#[tokio::test]
async fn etcdctl_is_told_what_etcd_tells_it() {
    if !ctl::is_installed() {
        return;
    }
    let cluster = Cluster::start(3, &[]);
    let endpoints = cluster.endpoints();
    let leader = cluster.leader().await;
    let mut kv = cluster.members[leader].kv().await;
    for n in 0..20 {
        kv.put(put(format!("k{}", n % 5), n.to_string())).await.expect("put");
    }
    let run = |args: &[&str]| ctl::run(&endpoints, args);
    assert_eq!(run(&["compaction", "10"]), "compacted revision 10\n");
    assert_eq!(run(&["compaction", "15", "--physical"]), "compacted revision 15\n");
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    let future = "etcdserver: mvcc: required revision is a future revision";
    let not_found = "etcdserver: member not found";
    let id = format!("{:x}", cluster.members[leader].status().await.leader);
    // The same words as etcd 3.4.23's, to the same commands.
    for (args, said) in [
        (&["compaction", "10"][..], compacted),
        (&["compaction", "99999"], future),
        (&["get", "k1", "--rev", "5"], compacted),
        (&["get", "k1", "--rev", "99999"], future),
        (&["endpoint", "hashkv", "--rev", "5"], compacted),
        (&["endpoint", "hashkv", "--rev", "99999"], future),
        (&["member", "remove", "1234"], not_found),
        (&["member", "promote", "1234"], not_found),
        (&["member", "update", "1234", "--peer-urls=http://127.0.0.1:1"], not_found),
        (&["member", "promote", &id], "etcdserver: can only promote a learner member"),
        (&["move-leader", "1234"], "etcdserver: bad leader transferee"),
        (&["lease", "revoke", "1234"], "etcdserver: requested lease not found"),
        (&["put", "k", "v", "--lease=1234"], "etcdserver: requested lease not found"),
        (&["lease", "grant", "99999999999"], "etcdserver: too large lease TTL"),
    ] {
        let error = ctl::try_run(&endpoints, args).expect_err("refused");
        let last = error.lines().last().unwrap_or_default();
        assert!(last.starts_with("Error: ") && last.contains(said), "{args:?}: {error}");
    }
    let defragmented = run(&["defrag"]);
    for url in cluster.members.iter().map(Member::url) {
        let line = format!("Finished defragmenting etcd member[{url}]");
        assert!(defragmented.lines().any(|l| l == line), "{defragmented}");
    }
    assert_eq!(run(&["alarm", "list"]), "");
    assert_eq!(run(&["alarm", "disarm"]), "");
    let table = run(&["endpoint", "status", "-w", "table"]);
    assert_eq!(table.matches("|   3.6.0 |").count(), 3, "{table}");
    assert_eq!(table.matches("|      true |").count(), 1, "one leads: {table}");
}
