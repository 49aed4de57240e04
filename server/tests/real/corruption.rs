//! A member whose file holds something else: it is found, the cluster refuses writes, and an operator
//! replaces it (surface spec §16.7). On real files, by API, HTTP and etcdctl.

use detkv_core::mvcc::DB_PATH;
use detkv_core::pb::etcdserverpb::{self as pb, AlarmType, alarm_request::AlarmAction};
use detkv_core::pb::mvccpb::KeyValue;
use prost::Message as _;
use redb::ReadableTable as _;
use tonic::{Code, Status};

use crate::ports::free_ports;
use crate::streams::{WatchStream, watch_prefix};
use crate::support::{
    Cluster, ClusterClient, LeaseClient, MaintenanceClient, Member, eventually, get, put,
};
use crate::{ctl, http};

/// A lease that is there before the alarm.
const LEASE: i64 = 77;
const REFUSED: &str = "etcdserver: corrupt cluster";

async fn id_of(member: &Member) -> u64 {
    member.status().await.header.expect("header").member_id
}

/// The CORRUPT alarms that a member knows of, by the member they name.
async fn corrupt(member: &Member) -> Vec<u64> {
    let mut api = MaintenanceClient::new(member.channel().await);
    let get = pb::AlarmRequest { action: AlarmAction::Get.into(), ..Default::default() };
    let alarms = api.alarm(get).await.expect("alarms").into_inner().alarms;
    alarms.iter().filter(|a| a.alarm() == AlarmType::Corrupt).map(|a| a.member_id).collect()
}

/// Three members with some history; then a follower is stopped and the value of `w/7` changed in its
/// file, as no disk error could: every page and row is well formed. Not started again.
async fn cluster_with_a_changed_file(flags: &[&str]) -> (Cluster, usize) {
    let mut cluster = Cluster::start(3, flags);
    let leader = cluster.leader().await;
    let mut kv = cluster.members[leader].kv().await;
    for n in 0..40 {
        kv.put(put(format!("w/{}", n % 20), format!("v{n}"))).await.expect("put");
    }
    let grant = pb::LeaseGrantRequest { id: LEASE, ttl: 3600 };
    let mut leases = LeaseClient::new(cluster.members[leader].channel().await);
    leases.lease_grant(grant).await.expect("granted");
    let victim = (leader + 1) % 3;
    eventually("the follower has it all", async || {
        cluster.members[victim].status().await.header.expect("header").revision == 41
    })
    .await;
    assert!(cluster.members[victim].terminate().success());
    change_value(&cluster.members[victim], "w/7");
    (cluster, victim)
}

fn change_value(member: &Member, key: &str) {
    const KEYS: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("key");
    let db = redb::Database::open(member.data_dir.join(DB_PATH)).expect("the file of a member");
    let txn = db.begin_write().expect("a transaction");
    {
        let mut table = txn.open_table(KEYS).expect("the bucket of keys");
        let (row, mut kv) = table
            .iter()
            .expect("rows")
            .map(|row| row.map(|(k, v)| (k.value().to_vec(), v.value().to_vec())).expect("a row"))
            .map(|(row, value)| (row, KeyValue::decode(&value[..]).expect("a KeyValue")))
            .filter(|(_, kv)| kv.key == key.as_bytes())
            .last()
            .expect("the key is in the file");
        kv.value = "another".into();
        table.insert(&row[..], &kv.encode_to_vec()[..]).expect("written");
    }
    txn.commit().expect("committed");
}

fn assert_refused<T>(what: &str, answer: Result<T, Status>) {
    let Err(status) = answer else { panic!("{what} was taken") };
    assert_eq!((status.code(), status.message()), (Code::DataLoss, REFUSED), "{what}");
}

/// What changes anything is refused by `member`; reads and watches go on.
async fn assert_reads_only(member: &Member) {
    let (mut kv, mut leases) = (member.kv().await, LeaseClient::new(member.channel().await));
    assert_refused("put", kv.put(put("w/1", "new")).await);
    let delete = pb::DeleteRangeRequest { key: "w/1".into(), ..Default::default() };
    assert_refused("delete", kv.delete_range(delete).await);
    let op = pb::request_op::Request::RequestPut(put("w/1", "new"));
    let success = vec![pb::RequestOp { request: Some(op) }];
    assert_refused("txn", kv.txn(pb::TxnRequest { success, ..Default::default() }).await);
    let compact = pb::CompactionRequest { revision: 5, physical: false };
    assert_refused("compaction", kv.compact(compact).await);
    assert_refused("grant", leases.lease_grant(pb::LeaseGrantRequest { id: 78, ttl: 60 }).await);
    assert_refused("revoke", leases.lease_revoke(pb::LeaseRevokeRequest { id: LEASE }).await);

    let found = kv.range(get("w/1")).await.expect("a linearizable read").into_inner();
    assert_eq!(found.kvs[0].value, "v21");
    let op = pb::request_op::Request::RequestRange(get("w/1"));
    let success = vec![pb::RequestOp { request: Some(op) }];
    kv.txn(pb::TxnRequest { success, ..Default::default() }).await.expect("it only reads");
    let mut watch = WatchStream::open(member).await;
    watch.create(pb::WatchCreateRequest { start_revision: 40, ..watch_prefix("w/") }).await;
    assert!(watch.next().await.created);
    assert_eq!(watch.next().await.events[0].kv.as_ref().expect("a row").mod_revision, 40);
}

async fn assert_shown(member: &Member, culprit: u64) {
    let (status, body) = http::get(member, "/health").await;
    assert_eq!((status, body.as_str()), (503, r#"{"health":"false","reason":"ALARM CORRUPT"}"#));
    assert_eq!(http::get(member, "/health?exclude=CORRUPT").await.0, 200);
    assert_eq!(http::get(member, "/livez").await.0, 200);
    let (status, checks) = http::get(member, "/readyz").await;
    assert_eq!(status, 503);
    assert!(checks.contains("[-]data_corruption failed"), "{checks}");
    let metrics = http::get(member, "/metrics").await.1;
    let name = "etcd_debugging_server_alarms";
    let line = format!("{name}{{alarm_type=\"CORRUPT\",server_id=\"{culprit:x}\"}} 1");
    assert!(metrics.lines().any(|l| l == line), "{}", member.name);
    let errors = member.status().await.errors;
    assert!(errors.iter().any(|e| e.ends_with("alarm:CORRUPT ")), "{errors:?}");
}

/// By etcdctl if there is one.
async fn disarm(cluster: &Cluster, at: usize, culprit: u64) {
    if ctl::is_installed() {
        let said = ctl::run(&cluster.members[at].url(), &["alarm", "disarm"]);
        assert_eq!(said, format!("memberID:{culprit} alarm:CORRUPT \n"));
        return;
    }
    let mut api = MaintenanceClient::new(cluster.members[at].channel().await);
    let disarm = pb::AlarmRequest {
        action: AlarmAction::Deactivate.into(),
        member_id: culprit,
        alarm: AlarmType::Corrupt.into(),
    };
    api.alarm(disarm).await.expect("disarmed");
}

#[tokio::test]
async fn a_member_with_another_value_is_found_and_the_cluster_reads_only_until_it_is_replaced() {
    let flags = ["--corrupt-check-time", "300ms"];
    let (mut cluster, victim) = cluster_with_a_changed_file(&flags).await;
    cluster.members[victim].start();
    cluster.members[victim].wait_ready();
    let culprit = id_of(&cluster.members[victim]).await;
    for member in &cluster.members {
        eventually("the alarm", async || corrupt(member).await == [culprit]).await;
        assert_reads_only(member).await;
        assert_shown(member, culprit).await;
    }
    let leader = cluster.leader().await;
    if ctl::is_installed() {
        let listed = ctl::run(&cluster.members[leader].url(), &["alarm", "list"]);
        assert_eq!(listed, format!("memberID:{culprit} alarm:CORRUPT \n"));
        let error =
            ctl::try_run(&cluster.endpoints(), &["put", "w/1", "new"]).expect_err("refused");
        assert!(error.contains(REFUSED), "{error}");
    }

    // While it is there, the next check raises the alarm again.
    disarm(&cluster, leader, culprit).await;
    eventually("again", async || corrupt(&cluster.members[leader]).await == [culprit]).await;

    // Without it the cluster writes again, and a new member takes its place.
    cluster.members[victim].kill();
    let rest = (0..3).find(|n| *n != victim).expect("two are left");
    disarm(&cluster, rest, culprit).await;
    let mut kv = cluster.members[rest].kv().await;
    kv.put(put("w/1", "new")).await.expect("no alarm, no refusal");
    assert_eq!(corrupt(&cluster.members[rest]).await, [0; 0]);
    replace(&mut cluster, victim, culprit).await;
    let said = || cluster.members.iter().map(|m| m.log().matches(COMPARED_WITH_ALL).count()).sum();
    let before: usize = said();
    eventually("all three were compared", async || said() > before).await;
    assert_eq!(corrupt(&cluster.members[0]).await, [0; 0]);
    let found = cluster.members[2].kv().await.range(get("w/7")).await.expect("readable");
    assert_eq!(found.into_inner().kvs[0].value, "v27");
}

const COMPARED_WITH_ALL: &str =
    r#""msg":"finished peer corruption check","number-of-peers-checked":"2""#;

/// Removes the member that is down, and starts a new one with an empty disk.
async fn replace(cluster: &mut Cluster, victim: usize, id: u64) {
    let gone = cluster.members.remove(victim);
    let mut api = ClusterClient::new(cluster.members[0].channel().await);
    api.member_remove(pb::MemberRemoveRequest { id }).await.expect("removed");
    let [client_port, peer_port] = free_ports(2)[..] else { panic!("two ports") };
    // Strict: not before the two have been connected for a while.
    let url = format!("http://127.0.0.1:{peer_port}");
    eventually("a new member may come", async || {
        let add = pb::MemberAddRequest { peer_ur_ls: vec![url.clone()], is_learner: false };
        api.member_add(add).await.is_ok()
    })
    .await;
    let joiner = cluster.lay_out_joiner(&format!("{}-new", gone.name), client_port, peer_port);
    joiner.start();
    joiner.wait_ready();
}

#[tokio::test]
async fn a_member_that_starts_with_another_value_refuses_to_serve() {
    let flags = ["--feature-gates", "InitialCorruptCheck=true"];
    let (mut cluster, victim) = cluster_with_a_changed_file(&flags).await;
    cluster.members[victim].start();
    let status = cluster.members[victim].wait_end();
    let log = cluster.members[victim].log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert_eq!(log.matches("\"ready to serve client requests\"").count(), 1, "the first life's");
    let why = "found data inconsistency with peers: at revision 41";
    assert!(log.lines().last().expect("a line").contains(why), "{log}");
    // The others lose nothing by it, and nobody raised an alarm.
    let rest = &cluster.members[(victim + 1) % 3];
    rest.kv().await.put(put("w/1", "new")).await.expect("put");
    assert_eq!(corrupt(rest).await, [0; 0]);
}

#[tokio::test]
async fn another_value_is_found_by_the_hashes_taken_at_a_compaction() {
    let flags = ["--feature-gates", "CompactHashCheck=true", "--compact-hash-check-time", "300ms"];
    let (mut cluster, victim) = cluster_with_a_changed_file(&flags).await;
    cluster.members[victim].start();
    cluster.members[victim].wait_ready();
    let culprit = id_of(&cluster.members[victim]).await;
    let leader = cluster.leader().await;
    assert_eq!(corrupt(&cluster.members[leader]).await, [0; 0], "nothing to compare so far");
    let mut kv = cluster.members[leader].kv().await;
    let compact = pb::CompactionRequest { revision: 41, physical: true };
    kv.compact(compact).await.expect("compacted");
    for member in &cluster.members {
        eventually("the alarm", async || corrupt(member).await == [culprit]).await;
        assert_refused("put", member.kv().await.put(put("w/1", "new")).await);
    }
}
