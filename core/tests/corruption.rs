//! Members compare what they hold (surface spec §16.7), and compact by themselves (§16.9).

mod support;

use std::time::Duration;

use detkv_core::api::{ReadReady, Request, Response};
use detkv_core::mvcc::{DB_PATH, ReadResult};
use detkv_core::pb::etcdserverpb::{self as pb, AlarmType, alarm_request::AlarmAction};
use detkv_core::pb::mvccpb::KeyValue;
use detkv_core::{ApiError, AutoCompaction, Files, Halt, MemberId};
use prost::Message;
use redb::ReadableTable;
use support::{Cluster, put};

const KEY_TABLE: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("key");

/// Changes the value of `key` in the file of a member that is down: as no disk error could.
fn corrupt(c: &Cluster, id: MemberId, key: &str) {
    let backend = c.nodes[&id].disk.backend(DB_PATH).expect("a file");
    let db = redb::Database::builder().create_with_backend(Storage(backend)).expect("it opens");
    let txn = db.begin_write().expect("a transaction");
    {
        let mut table = txn.open_table(KEY_TABLE).expect("the key bucket");
        let rows: Vec<(Vec<u8>, Vec<u8>)> = table
            .iter()
            .expect("rows")
            .map(|row| row.map(|(k, v)| (k.value().to_vec(), v.value().to_vec())).expect("a row"))
            .collect();
        let (row_key, value) = rows
            .into_iter()
            .find(|(_, v)| KeyValue::decode(&v[..]).is_ok_and(|kv| kv.key == key.as_bytes()))
            .expect("the key is in the file");
        let mut kv = KeyValue::decode(&value[..]).expect("a KeyValue");
        kv.value = "another".into();
        table.insert(&row_key[..], &kv.encode_to_vec()[..]).expect("written");
    }
    txn.commit().expect("committed");
}

/// A box of a storage is no storage.
#[derive(Debug)]
struct Storage(Box<dyn redb::StorageBackend>);

impl redb::StorageBackend for Storage {
    fn len(&self) -> std::io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.0.write(offset, data)
    }
}

fn alarms(c: &mut Cluster, at: MemberId) -> Vec<(u64, AlarmType)> {
    let get = pb::AlarmRequest { action: AlarmAction::Get.into(), ..Default::default() };
    match c.call(at, Request::Alarm(get)) {
        Ok(Response::Alarm(r)) => r.alarms.iter().map(|a| (a.member_id, a.alarm())).collect(),
        other => panic!("{other:?}"),
    }
}

/// Some keys, all of them in every file; then `of` restarts with one of them changed.
fn cluster_with_a_corrupt(c: &mut Cluster, of: impl Fn(&mut Cluster) -> MemberId) -> MemberId {
    let leader = c.elect();
    for n in 0..50 {
        c.put(leader, &format!("k{}", n % 20), &format!("v{n}"));
    }
    c.ms(6_000);
    let id = of(c);
    c.kill(id);
    corrupt(c, id, "k7");
    c.start(id);
    id
}

#[test]
fn the_periodic_check_names_the_member_that_differs_from_the_majority() {
    let mut c =
        Cluster::with(3, 3, |config| config.corrupt_check_interval = Some(Duration::from_secs(5)));
    let follower = cluster_with_a_corrupt(&mut c, |c| c.followers()[0]);
    let leader = c.elect();
    c.ms(12_000);
    assert_eq!(alarms(&mut c, leader), [(follower.0, AlarmType::Corrupt)]);
    assert_eq!(c.call(leader, put("k", "v")), Err(ApiError::Corrupt));
}

#[test]
fn a_corrupt_leader_is_named_too() {
    let mut c =
        Cluster::with(3, 4, |config| config.corrupt_check_interval = Some(Duration::from_secs(5)));
    let corrupt = cluster_with_a_corrupt(&mut c, |c| c.leader().expect("a leader"));
    let leader = c.elect();
    if leader != corrupt {
        let moved = pb::MoveLeaderRequest { target_id: corrupt.0 };
        c.call(leader, Request::MoveLeader(moved)).expect("moved");
    }
    c.ms(12_000);
    assert_eq!(alarms(&mut c, corrupt), [(corrupt.0, AlarmType::Corrupt)]);
}

#[test]
fn without_a_majority_the_alarm_names_member_0() {
    let mut c =
        Cluster::with(2, 5, |config| config.corrupt_check_interval = Some(Duration::from_secs(5)));
    cluster_with_a_corrupt(&mut c, |c| c.followers()[0]);
    let leader = c.elect();
    c.ms(12_000);
    assert_eq!(alarms(&mut c, leader), [(0, AlarmType::Corrupt)]);
}

#[test]
fn equal_members_raise_no_alarm_under_load_compactions_and_restarts() {
    let mut c = Cluster::with(3, 6, |config| {
        config.corrupt_check_interval = Some(Duration::from_millis(300));
        config.compact_hash_check_interval = Some(Duration::from_millis(300));
    });
    let mut leader = c.elect();
    for n in 0..300 {
        let revision = c.put(leader, &format!("k{}", n % 9), "v");
        if n % 20 == 10 {
            let compact = pb::CompactionRequest { revision: revision - 3, physical: false };
            c.call(leader, Request::Compact(compact)).expect("compacted");
        }
        if n % 100 == 50 {
            let id = c.followers()[0];
            c.kill(id);
            c.ms(700);
            c.start(id);
            leader = c.elect();
        }
        c.ms(30);
    }
    assert_eq!(alarms(&mut c, leader), []);
    c.assert_converged();
}

#[test]
fn the_check_of_compaction_hashes_finds_what_the_compaction_found() {
    let mut c = Cluster::with(3, 8, |config| {
        config.compact_hash_check_interval = Some(Duration::from_secs(5));
    });
    let follower = cluster_with_a_corrupt(&mut c, |c| c.followers()[1]);
    let leader = c.elect();
    c.ms(6_000);
    assert_eq!(alarms(&mut c, leader), [], "nothing was compacted");
    let revision = c.member(leader).status().revision;
    let compact = pb::CompactionRequest { revision, physical: true };
    c.call(leader, Request::Compact(compact)).expect("compacted");
    c.ms(6_000);
    assert_eq!(alarms(&mut c, leader), [(follower.0, AlarmType::Corrupt)]);
}

#[test]
fn checks_that_come_due_together_all_run() {
    for (periodic_ms, compactions_ms) in [(300, 300), (200, 700), (700, 200)] {
        let mut c = Cluster::with(3, 11, |config| {
            config.corrupt_check_interval = Some(Duration::from_millis(periodic_ms));
            config.compact_hash_check_interval = Some(Duration::from_millis(compactions_ms));
        });
        let leader = c.elect();
        let revision = c.put(leader, "k", "v");
        let compact = pb::CompactionRequest { revision, physical: true };
        c.call(leader, Request::Compact(compact)).expect("compacted");
        let before = c.nodes[&leader].log_lines.len();
        c.ms(5_000);
        let lines = &c.nodes[&leader].log_lines[before..];
        let count = |what: &str| lines.iter().filter(|line| line.msg == what).count() as u64;
        let periodic = count("finished peer corruption check");
        assert!((5_000 / periodic_ms - 1..=5_000 / periodic_ms + 1).contains(&periodic));
        // Once the members are known to agree there is nothing more to compare.
        assert_eq!(count("finished compaction hash check"), 1);
    }
}

#[test]
fn a_member_with_other_data_than_its_peers_halts_before_the_first_client() {
    let mut c = Cluster::with(3, 9, |config| config.initial_corrupt_check = true);
    let leader = c.elect();
    assert!(c.put(leader, "k", "v") > 1, "equal members serve");
    let id = cluster_with_a_corrupt(&mut c, |c| c.followers()[0]);
    let early = c.send(id, put("early", "v"));
    c.ms(1_000);
    let halt = c.nodes[&id].halt.clone();
    assert!(matches!(&halt, Some(Halt::Corrupt(what)) if what.contains("revision")), "{halt:?}");
    assert_eq!(c.reply(id, early), None);
    let leader = c.elect();
    c.put(leader, "k", "w");
}

#[test]
fn peers_that_do_not_answer_delay_the_first_client_and_nothing_else() {
    let mut c = Cluster::with(3, 10, |config| config.initial_corrupt_check = true);
    c.elect();
    let (down, id) = (c.followers()[0], c.followers()[1]);
    c.kill(down);
    c.kill(id);
    c.start(id);
    let early = c.send(id, put("early", "v"));
    c.ms(5_000);
    assert_eq!(c.reply(id, early), None, "one peer may still say something");
    c.ms(4_000);
    assert!(matches!(c.reply(id, early), Some(Ok(Response::Put(_)))));
}

// -- HashKV

fn hash_kv(c: &Cluster, id: MemberId, revision: i64) -> (u32, i64, i64) {
    let request = Request::HashKv(pb::HashKvRequest { revision });
    let ready = ReadReady { request, header: Default::default() };
    match c.member(id).reader().read(&ready) {
        Ok(ReadResult::HashKv(hashed)) => {
            let r = hashed.response;
            (r.hash, r.compact_revision, r.hash_revision)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn hash_kv_agrees_at_every_revision_and_at_the_last_compactions() {
    let mut c = Cluster::with(3, 11, |_| {});
    let leader = c.elect();
    let mut compacted = Vec::new();
    for n in 0..120 {
        let revision = c.put(leader, &format!("k{}", n % 7), "v");
        if n % 10 == 9 {
            let compact = pb::CompactionRequest { revision: revision - 4, physical: true };
            c.call(leader, Request::Compact(compact)).expect("compacted");
            compacted.push(revision - 4);
        }
    }
    c.ms(3_000);
    let ids = [MemberId(1), MemberId(2), MemberId(3)];
    let newest = c.member(leader).status().revision;
    let last = *compacted.last().expect("compactions");
    let kept: Vec<i64> = compacted.iter().rev().take(10).copied().collect();
    for revision in (last..=newest).chain(kept.iter().copied()) {
        let hashes = ids.map(|id| hash_kv(&c, id, revision));
        assert!(hashes.iter().all(|hash| *hash == hashes[0]), "at {revision}: {hashes:?}");
        let (_, compact_revision, hash_revision) = hashes[0];
        assert_eq!(hash_revision, revision);
        match compacted.iter().position(|at| *at == revision) {
            Some(n) => assert_eq!(compact_revision, compacted[n - 1], "as the compaction found it"),
            None => assert_eq!(compact_revision, last),
        }
    }
    let forgotten = Request::HashKv(pb::HashKvRequest { revision: compacted[0] });
    let ready = ReadReady { request: forgotten, header: Default::default() };
    assert_eq!(c.member(leader).reader().read(&ready), Err(ApiError::Compacted));
}

#[test]
fn hash_covers_what_was_applied_before_it_was_asked_for_and_agrees_between_equal_members() {
    let mut c = Cluster::with(3, 14, |_| {});
    let leader = c.elect();
    c.ms(2_000);
    let mut hashes = Vec::new();
    for n in 0..3 {
        c.put(leader, "k", &n.to_string());
        c.ms(200);
        let of_all = [MemberId(1), MemberId(2), MemberId(3)].map(|id| {
            let ready = match c.call(id, Request::Hash(pb::HashRequest {})) {
                Ok(Response::ReadReady(ready)) => ready,
                other => panic!("{other:?}"),
            };
            match c.member(id).reader().read(&ready) {
                Ok(ReadResult::Hash(hashed)) => hashed.response.hash,
                other => panic!("{other:?}"),
            }
        });
        assert!(of_all.iter().all(|hash| *hash == of_all[0]), "{of_all:?}");
        hashes.push(of_all[0]);
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 3, "each put shows in it at once");
}

// -- auto-compaction

#[test]
fn periodic_auto_compaction_is_proposed_by_whoever_leads() {
    let retention = Duration::from_secs(600);
    let mut c = Cluster::with(3, 12, |config| {
        config.auto_compaction = Some(AutoCompaction::Periodic(retention));
    });
    let mut leader = c.elect();
    for minute in 0..30 {
        c.put(leader, "k", &minute.to_string());
        c.ms(60_000);
        if minute == 15 {
            c.kill(leader);
            leader = c.elect();
        }
    }
    let status = c.member(leader).status();
    let kept = status.revision - status.compact_revision;
    assert!((10..=22).contains(&kept), "{kept} revisions are left of {}", status.revision);
}

#[test]
fn revision_auto_compaction_keeps_as_many_revisions_as_asked() {
    let mut c = Cluster::with(1, 13, |config| {
        config.auto_compaction = Some(AutoCompaction::Revision(100));
    });
    let id = c.elect();
    for n in 0..250 {
        c.put(id, "k", &n.to_string());
    }
    assert_eq!(c.member(id).status().compact_revision, -1);
    c.ms(301_000);
    let status = c.member(id).status();
    assert_eq!(status.compact_revision, status.revision - 100);
}
