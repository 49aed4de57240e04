//! The log's bytes against the format description, and a log that etcd itself wrote.

mod wal_disk;

use std::sync::Arc;

use bytes::Bytes;
use detkv_core::pb::{raftpb, walpb};
use detkv_core::wal::{Recovered, WAL_DIR, Wal, WalMetadata, WalRecovery, WalStep, encode_snap};
use detkv_core::{DiskAction, LaneQueue, OpenError};
use raft::eraftpb::{Entry, HardState};
use wal_disk::SimDisk;

const SEGMENT_BYTES: u64 = 4096;
const FIRST: &str = "member/wal/0000000000000000-0000000000000000.wal";

fn perform(disk: &SimDisk, out: &mut LaneQueue) {
    for op in out.ops.drain(..) {
        disk.perform(&op.action);
    }
}

fn recover(disk: &Arc<SimDisk>, out: &mut LaneQueue) -> Result<Option<Box<Recovered>>, OpenError> {
    let Some(mut recovery) = WalRecovery::new(disk.clone(), SEGMENT_BYTES)? else {
        return Ok(None);
    };
    loop {
        match recovery.step(out)? {
            WalStep::Read(_) => {}
            WalStep::Perform(ops) => ops.iter().for_each(|op| disk.perform(&op.action)),
            WalStep::Done(recovered) => return Ok(Some(recovered)),
        }
    }
}

fn must_recover(disk: &Arc<SimDisk>, out: &mut LaneQueue) -> Box<Recovered> {
    recover(disk, out).expect("the log is whole").expect("there is a log")
}

fn entry(term: u64, index: u64, data: &'static [u8]) -> Entry {
    Entry { term, index, data: Bytes::from_static(data), ..Default::default() }
}

fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState { term, vote, commit, ..Default::default() }
}

const METADATA: WalMetadata = WalMetadata { node_id: 1, cluster_id: 2 };

/// A fresh log with two entries and a hard state, synced.
fn small_log() -> (Arc<SimDisk>, Wal, LaneQueue) {
    let (disk, mut out) = (Arc::new(SimDisk::default()), LaneQueue::new());
    let mut wal = Wal::create(METADATA, SEGMENT_BYTES, &mut out);
    wal.append(&[entry(1, 1, b""), entry(1, 2, b"hi")], Some(&hard_state(1, 1, 1)), &mut out);
    wal.sync(&mut out);
    perform(&disk, &mut out);
    (disk, wal, out)
}

/// One frame by hand: the record's type and data, and the CRC it must carry.
fn frame(record_type: u8, crc: u32, data: Option<&[u8]>) -> Vec<u8> {
    let mut record = vec![0x08, record_type, 0x10];
    let mut rest = crc;
    while rest >= 0x80 {
        record.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    record.push(rest as u8);
    if let Some(data) = data {
        record.extend_from_slice(&[0x1a, data.len() as u8]);
        record.extend_from_slice(data);
    }
    let mut bytes = (record.len() as u64).to_le_bytes().to_vec();
    let pad = (8 - record.len() % 8) % 8;
    if pad > 0 {
        bytes[7] = 0x80 | pad as u8;
    }
    bytes.extend_from_slice(&record);
    bytes.resize(bytes.len() + pad, 0);
    bytes
}

#[test]
fn a_segment_has_the_bytes_of_the_description() {
    let (disk, ..) = small_log();
    let datas: [(u8, &[u8]); 5] = [
        (1, &[0x08, 1, 0x10, 2]),
        (5, &[0x08, 0, 0x10, 0]),
        (2, &[0x08, 0, 0x10, 1, 0x18, 1, 0x22, 0]),
        (2, &[0x08, 0, 0x10, 1, 0x18, 2, 0x22, 2, b'h', b'i']),
        (3, &[0x08, 1, 0x10, 1, 0x18, 1]),
    ];
    let mut want = frame(4, 0, None);
    assert_eq!(want, [4, 0, 0, 0, 0, 0, 0, 0x84, 0x08, 4, 0x10, 0, 0, 0, 0, 0]);
    let mut all = Vec::new();
    for (record_type, data) in datas {
        all.extend_from_slice(data);
        want.extend(frame(record_type, crc32c::crc32c(&all), Some(data)));
    }
    want.resize(SEGMENT_BYTES as usize, 0);
    assert_eq!(disk.content(FIRST), want);
}

#[test]
fn a_batch_is_one_write() {
    let (disk, mut wal, mut out) = small_log();
    wal.append(&[entry(1, 3, b"a"), entry(1, 4, b"b")], Some(&hard_state(1, 1, 3)), &mut out);
    wal.sync(&mut out);
    let kinds: Vec<_> = out.ops.iter().map(|op| &op.action).collect();
    assert!(matches!(kinds[..], [DiskAction::WriteAt { .. }, DiskAction::SyncData { .. }]));
    perform(&disk, &mut out);
    wal.sync(&mut out);
    assert!(out.ops.is_empty(), "nothing is left to sync");
}

#[test]
fn a_cut_segment_continues_the_chain_and_repeats_the_hard_state() {
    let (disk, mut wal, mut out) = small_log();
    let value: &'static [u8] = &[0x5a; 2000];
    wal.append(&[entry(1, 3, value)], None, &mut out);
    wal.append(&[entry(1, 4, value)], Some(&hard_state(2, 3, 4)), &mut out);
    let old = out
        .ops
        .iter()
        .position(|op| matches!(&op.action, DiskAction::SyncData { path } if path == FIRST));
    let new = out.ops.iter().position(|op| matches!(&op.action, DiskAction::Create { .. }));
    assert!(old.unwrap() < new.unwrap(), "the old segment is synced before the new one exists");
    perform(&disk, &mut out);
    let second = format!("{WAL_DIR}/0000000000000001-0000000000000005.wal");
    assert_eq!(disk.paths(), [FIRST.to_owned(), second.clone()]);
    let data: &[u8] = &[0x08, 2, 0x10, 3, 0x18, 4];
    let bytes = disk.content(&second);
    assert_eq!(bytes[8..11], [0x08, 4, 0x10], "a type-4 record comes first");
    assert!(bytes.windows(data.len()).any(|w| w == data), "the hard state is repeated");
    wal.append(&[entry(2, 5, b"z")], None, &mut out);
    wal.release_to(4, &mut out);
    perform(&disk, &mut out);
    assert_eq!(must_recover(&disk, &mut out).entries.len(), 5, "index 4 is in the first segment");
    // Without a snapshot the first entries are needed.
    wal.release_to(5, &mut out);
    perform(&disk, &mut out);
    let error = recover(&disk, &mut out).unwrap_err().to_string();
    assert!(error.contains("entries 1 to 4 are missing"), "{error}");
}

#[test]
fn each_damage_of_the_directory_has_its_own_clear_error() {
    let (disk, mut wal, mut out) = small_log();
    for index in 3..9 {
        wal.append(&[entry(1, index, &[0x5a; 3000])], None, &mut out);
    }
    perform(&disk, &mut out);
    let segments = disk.paths();
    assert_eq!(segments.len(), 4);
    let without = |skip: usize| {
        let copy = Arc::new(SimDisk::default());
        for (_, path) in segments.iter().enumerate().filter(|(i, _)| *i != skip) {
            copy.put(path, disk.content(path));
        }
        copy
    };
    let error = |disk: &Arc<SimDisk>| {
        recover(disk, &mut LaneQueue::new()).expect_err("this is damage").to_string()
    };
    assert!(error(&without(1)).contains("not contiguous"));
    assert!(error(&without(0)).contains("are missing"));

    // A segment of another log.
    let (other, mut out) = (Arc::new(SimDisk::default()), LaneQueue::new());
    Wal::create(WalMetadata { node_id: 9, cluster_id: 2 }, SEGMENT_BYTES, &mut out);
    perform(&other, &mut out);
    let foreign = without(3);
    foreign.put(&segments[3], other.content(FIRST));
    let text = error(&foreign);
    assert!(text.contains("does not continue"), "{text}");
    assert!(text.contains(&segments[3]) && text.contains("at byte 0"), "{text}");

    let headless = without(3);
    headless.put(&segments[3], vec![0; SEGMENT_BYTES as usize]);
    assert!(error(&headless).contains("no metadata"));

    let empty = Arc::new(SimDisk::default());
    empty.put(&format!("{FIRST}.broken"), vec![1]);
    assert!(error(&empty).contains("no segment of the log is left"));
    let started = Arc::new(SimDisk::default());
    started.put(&format!("{FIRST}.tmp"), vec![1]);
    assert!(recover(&started, &mut LaneQueue::new()).unwrap().is_none(), "a crash in create");
}

#[test]
fn a_damaged_snap_file_is_passed_over_while_the_log_reaches_back() {
    let (disk, mut wal, mut out) = small_log();
    let snap = |index| raftpb::SnapshotMetadata { index, term: 1, ..Default::default() };
    for index in [1, 2] {
        let (name, bytes) = encode_snap(&snap(index));
        let mut bytes = bytes.to_vec();
        bytes[3] ^= if index == 2 { 1 } else { 0 };
        disk.put(&format!("member/snap/{name}"), bytes);
        let record = walpb::Snapshot { index, term: 1, conf_state: None };
        wal.append_snapshot(&record, &mut out);
    }
    perform(&disk, &mut out);
    let recovered = must_recover(&disk, &mut out);
    assert_eq!(recovered.snapshot, Some(snap(1)));
    assert_eq!(recovered.entries, [entry(1, 2, b"hi")]);
    assert_eq!(recovered.damaged_snaps.len(), 1);

    // An installed snapshot beyond the log: without its snap file there is nothing to go on from.
    let record = walpb::Snapshot { index: 50, term: 1, conf_state: None };
    wal.append_snapshot(&record, &mut out);
    wal.append(&[entry(1, 51, b"x")], None, &mut out);
    perform(&disk, &mut out);
    let error = recover(&disk, &mut out).unwrap_err().to_string();
    assert!(error.contains("0000000000000032.snap: snap file is missing"), "{error}");
    let (name, bytes) = encode_snap(&snap(50));
    disk.put(&format!("member/snap/{name}"), bytes.to_vec());
    let recovered = must_recover(&disk, &mut out);
    assert_eq!(recovered.snapshot, Some(snap(50)));
    assert_eq!(recovered.entries, [entry(1, 51, b"x")]);
}

#[test]
fn a_torn_tail_is_kept_as_broken_and_zeroed_to_the_end() {
    let (disk, mut wal, mut out) = small_log();
    wal.append(&[entry(1, 3, &[0x5a; 1500]), entry(1, 4, b"after")], None, &mut out);
    perform(&disk, &mut out);
    let mut bytes = disk.content(FIRST);
    bytes[1024..1536].fill(0);
    disk.put(FIRST, bytes.clone());
    let recovered = must_recover(&disk, &mut out);
    assert_eq!(recovered.entries.len(), 2);
    assert!(recovered.torn_bytes > 1500);
    let broken = disk.content(&format!("{FIRST}.broken"));
    assert_eq!(broken[..], bytes[..broken.len()]);
    assert!(bytes[broken.len()..].iter().all(|b| *b == 0));
    let repaired = disk.content(FIRST);
    assert_eq!(repaired.len(), SEGMENT_BYTES as usize);
    let end = repaired.iter().rposition(|b| *b != 0).unwrap() + 1;
    assert_eq!(repaired[..end], bytes[..end]);
    assert_eq!(must_recover(&disk, &mut out).torn_bytes, 0);
}

#[test]
fn a_crash_in_create_leaves_nothing_or_a_whole_log() {
    let mut out = LaneQueue::new();
    Wal::create(METADATA, SEGMENT_BYTES, &mut out);
    let mut found = 0;
    for done in 0..=out.ops.len() {
        for kept in [false, true] {
            let disk = Arc::new(SimDisk::default());
            out.ops[..done].iter().for_each(|op| disk.perform(&op.action));
            disk.crash(|| kept);
            let recovered = recover(&disk, &mut LaneQueue::new()).expect("never damage");
            found += u32::from(recovered.is_some_and(|r| r.metadata == METADATA));
        }
    }
    assert!(found > 0, "the finished log is there");
}

/// 70 puts to etcd 3.4.23 with `--snapshot-count 40`; the zero tail of the segment is cut off.
#[test]
fn a_log_written_by_etcd_is_read() {
    let disk = Arc::new(SimDisk::default());
    let snap = "member/snap/0000000000000002-0000000000000029.snap";
    disk.put(
        FIRST,
        include_bytes!("data/etcd-3.4.23/member/wal/0000000000000000-0000000000000000.wal")
            .to_vec(),
    );
    disk.put(
        snap,
        include_bytes!("data/etcd-3.4.23/member/snap/0000000000000002-0000000000000029.snap")
            .to_vec(),
    );
    let mut out = LaneQueue::new();
    let recovered = must_recover(&disk, &mut out);
    assert_eq!(recovered.torn_bytes, 0);
    assert!(recovered.damaged_snaps.is_empty());
    let snapshot = recovered.snapshot.expect("etcd made one");
    assert_eq!((snapshot.term, snapshot.index), (2, 41));
    assert_eq!(snapshot.conf_state.voters, [recovered.metadata.node_id]);
    let indexes: Vec<u64> = recovered.entries.iter().map(|e| e.index).collect();
    assert_eq!(indexes, (42..=74).collect::<Vec<_>>());
    let puts = recovered.entries.iter().filter(|e| e.data.windows(3).any(|w| w == b"key"));
    assert_eq!(puts.count(), 33);
    assert_eq!((recovered.hard_state.term, recovered.hard_state.commit), (2, 74));
    // And it can be continued.
    let mut wal = recovered.wal;
    wal.append(&[entry(3, 75, b"ours")], Some(&hard_state(3, 1, 75)), &mut out);
    wal.sync(&mut out);
    perform(&disk, &mut out);
    assert_eq!(must_recover(&disk, &mut out).entries.len(), 34);
}
