//! The simulated disk behaves as `disk/mod.rs` promises: what survives what.

use std::collections::BTreeSet;

use bytes::Bytes;
use detkv_core::DiskAction;
use detkv_sim::disk::{CrashModel, DiskModel, DiskOp, SECTOR, Scope, SimDisk, Trouble};
use detkv_sim::rng::{stream, uniform};

const FILE: &str = "d/f";

fn disk(seed: u64) -> SimDisk {
    SimDisk::new(seed, 1, DiskModel::default(), false)
}

fn path() -> String {
    FILE.to_owned()
}

fn write(offset: u64, data: &[u8]) -> DiskAction {
    DiskAction::WriteAt { path: path(), offset, data: Bytes::copy_from_slice(data) }
}

fn sync() -> DiskAction {
    DiskAction::SyncData { path: path() }
}

fn sync_dir(dir: &str) -> DiskAction {
    DiskAction::SyncDir { path: dir.to_owned() }
}

/// Performs actions one after the other; returns when the last one is done.
fn perform(disk: &SimDisk, at: u64, actions: &[DiskAction]) -> u64 {
    actions.iter().fold(at, |at, action| disk.perform(at, at, action).expect("the action succeeds"))
}

/// An empty file whose name is durable.
fn with_file(disk: &SimDisk) -> u64 {
    let create = DiskAction::Create { path: path() };
    let dir = DiskAction::CreateDir { path: "d".to_owned() };
    perform(disk, 0, &[dir, sync_dir(""), create, sync_dir("d")])
}

fn content(disk: &SimDisk) -> Option<Vec<u8>> {
    let files = disk.files();
    let len = files.len(FILE).expect("the process runs")?;
    Some(files.read(FILE, 0, len as usize).expect("the file is there").to_vec())
}

#[test]
fn a_kill_keeps_what_was_written_and_a_power_loss_may_not() {
    let mut survived = BTreeSet::new();
    for seed in 0..200 {
        let disk = disk(seed);
        let at = with_file(&disk);
        let at = perform(&disk, at, &[write(0, &[1; 4096]), sync(), write(0, &[2; 4096])]);
        disk.kill(at);
        assert_eq!(content(&disk).expect("synced name"), [2; 4096]);
        disk.power_loss(at + 1);
        let after = content(&disk).expect("synced name");
        assert_eq!(after.len(), 4096, "the length was synced");
        for sector in after.chunks(SECTOR) {
            assert!(sector == [1; SECTOR] || sector == [2; SECTOR], "a sector is never mixed");
        }
        let new = after.chunks(SECTOR).filter(|sector| sector[0] == 2).count();
        survived.insert(match new {
            0 => "lost",
            8 => "kept",
            _ => "torn",
        });
    }
    assert_eq!(survived, BTreeSet::from(["kept", "lost", "torn"]));
}

#[test]
fn a_write_happens_at_its_stamp_and_a_sync_counts_when_it_has_finished() {
    let model = DiskModel {
        crash: CrashModel { keep_percent: 0, lose_percent: 100, ..CrashModel::default() },
        ..DiskModel::default()
    };
    let lossy = |seed| SimDisk::new(seed, 1, model.clone(), false);
    for seed in 0..20 {
        let disk = lossy(seed);
        let at = with_file(&disk);
        let written = perform(&disk, at, &[write(0, b"abc")]);
        disk.kill(written - 1);
        assert_eq!(content(&disk).expect("synced name"), b"", "killed just before");

        let disk = lossy(seed);
        let at = with_file(&disk);
        let synced = perform(&disk, at, &[write(0, b"abc"), sync()]);
        disk.power_loss(synced - 1);
        assert_ne!(content(&disk).expect("synced name"), b"abc", "not durable before it returns");

        let disk = lossy(seed);
        let at = with_file(&disk);
        let synced = perform(&disk, at, &[write(0, b"abc"), sync()]);
        disk.power_loss(synced);
        assert_eq!(content(&disk).expect("synced name"), b"abc");
    }
}

#[test]
fn names_are_durable_only_after_their_directory_is_synced() {
    let mut lost = 0;
    for seed in 0..50 {
        let disk = disk(seed);
        let at = perform(&disk, 0, &[DiskAction::CreateDir { path: "d".to_owned() }, sync_dir("")]);
        let at = perform(&disk, at, &[DiskAction::Create { path: path() }, write(0, b"x"), sync()]);
        disk.power_loss(at);
        lost += u32::from(content(&disk).is_none());
    }
    assert!((10..40).contains(&lost), "sometimes lost, sometimes not: {lost} of 50");
}

#[test]
fn a_lost_directory_takes_everything_in_it_along() {
    let mut lost = 0;
    for seed in 0..50 {
        let disk = disk(seed);
        let at = perform(&disk, 0, &[DiskAction::CreateDir { path: "d".to_owned() }]);
        let at = perform(
            &disk,
            at,
            &[DiskAction::Create { path: path() }, write(0, b"x"), sync(), sync_dir("d")],
        );
        disk.power_loss(at);
        lost += u32::from(content(&disk).is_none());
    }
    assert!((10..40).contains(&lost), "{lost} of 50");
}

#[test]
fn a_rename_is_atomic() {
    let mut renamed = BTreeSet::new();
    for seed in 0..50 {
        let disk = disk(seed);
        let at = with_file(&disk);
        let temporary = "d/tmp".to_owned();
        let actions = [
            write(0, b"old"),
            sync(),
            DiskAction::Create { path: temporary.clone() },
            DiskAction::WriteAt { path: temporary.clone(), offset: 0, data: "new".into() },
            DiskAction::SyncData { path: temporary.clone() },
            sync_dir("d"),
            DiskAction::Rename { from: temporary.clone(), to: path() },
        ];
        let at = perform(&disk, at, &actions);
        disk.power_loss(at);
        let names = disk.files().list("d").expect("the process runs");
        let after = content(&disk).expect("one of both");
        assert!(
            (after == b"old" && names == ["f", "tmp"]) || (after == b"new" && names == ["f"]),
            "{names:?}"
        );
        renamed.insert(after);
    }
    assert_eq!(renamed.len(), 2);
}

#[test]
fn a_removed_file_may_come_back_until_its_directory_is_synced() {
    let mut back = 0;
    for seed in 0..50 {
        let disk = disk(seed);
        let at = with_file(&disk);
        let at = perform(&disk, at, &[write(0, b"x"), sync(), DiskAction::Remove { path: path() }]);
        assert_eq!(content(&disk), None);
        disk.power_loss(at);
        back += u32::from(content(&disk).is_some_and(|bytes| bytes == b"x"));
    }
    assert!((10..40).contains(&back), "{back} of 50");
}

#[test]
fn an_ended_process_can_no_longer_write() {
    let disk = disk(1);
    let at = with_file(&disk);
    disk.begin(at, at);
    let backend = disk.files().backend(FILE).expect("it opens");
    backend.set_len(10).expect("the process runs");
    disk.kill(disk.end());
    assert!(backend.write(0, b"ghost").is_err());
    assert!(backend.sync_data().is_err());
    assert!(backend.len().is_err());
    assert_eq!(content(&disk).expect("synced name"), [0; 10]);
}

#[test]
fn a_preallocated_segment_takes_no_memory() {
    let disk = disk(1);
    let at = with_file(&disk);
    let len = 64_000_000;
    perform(
        &disk,
        at,
        &[DiskAction::Allocate { path: path(), len }, sync(), write(0, b"x"), sync()],
    );
    assert!(disk.allocated() < 100_000);
    assert_eq!(disk.files().len(FILE).expect("the process runs"), Some(len));
}

/// What a file may hold after a power loss, built the slow way: for each sector every version that
/// the page cache ever had since the last finished sync, and for the length likewise.
struct Allowed {
    versions: Vec<Vec<u8>>,
}

impl Allowed {
    fn check(&self, after: &[u8]) {
        let lengths: BTreeSet<usize> = self.versions.iter().map(Vec::len).collect();
        assert!(lengths.contains(&after.len()), "{} is none of {lengths:?}", after.len());
        for (i, sector) in after.chunks(SECTOR).enumerate() {
            let from = i * SECTOR;
            let of = |version: &Vec<u8>| {
                let mut bytes = version.get(from..).unwrap_or(&[]).to_vec();
                bytes.resize(SECTOR.max(bytes.len()), 0);
                bytes[..sector.len()].to_vec()
            };
            // Metadata that cuts a file zeroes what lay past the cut, on its own.
            let zeroed = |version: &Vec<u8>| {
                self.versions.iter().any(|cut| {
                    let keep = cut.len().saturating_sub(from).min(sector.len());
                    let mut bytes = of(version);
                    bytes[keep..].fill(0);
                    bytes == sector
                })
            };
            assert!(
                self.versions.iter().any(|version| of(version) == sector || zeroed(version)),
                "sector {i} is as after no change"
            );
        }
    }
}

#[test]
fn after_any_crash_a_file_is_in_an_allowed_state() {
    for seed in 0..300 {
        let mut rng = stream(seed, 0, "disk test");
        let disk = disk(seed);
        let mut at = with_file(&disk);
        let mut now: Vec<u8> = Vec::new();
        let mut versions = vec![now.clone()];
        let mut kill_state = now.clone();
        let crash_after = uniform(&mut rng, 1, 20);
        for step in 0..crash_after {
            let offset = uniform(&mut rng, 0, 3000) as usize;
            let action = match uniform(&mut rng, 0, 9) {
                0..=5 => {
                    let len = uniform(&mut rng, 1, 1500) as usize;
                    let data = vec![step as u8 + 1; len];
                    now.resize(now.len().max(offset + len), 0);
                    now[offset..offset + len].copy_from_slice(&data);
                    write(offset as u64, &data)
                }
                6..=7 => {
                    now.resize(offset, 0);
                    DiskAction::Truncate { path: path(), len: offset as u64 }
                }
                _ => sync(),
            };
            let is_sync = matches!(action, DiskAction::SyncData { .. });
            at = perform(&disk, at, &[action]);
            if is_sync {
                versions.clear();
            }
            versions.push(now.clone());
            kill_state.clone_from(&now);
        }
        disk.kill(at);
        assert_eq!(content(&disk).expect("synced name"), kill_state, "seed {seed}");
        disk.power_loss(at);
        Allowed { versions }.check(&content(&disk).expect("synced name"));
        // And what is there after a crash is durable.
        let once = content(&disk);
        disk.power_loss(at + 1);
        assert_eq!(content(&disk), once, "seed {seed}: a second power loss finds nothing to take");
    }
}

#[test]
fn drawn_latencies_are_the_same_whatever_other_disks_do() {
    let alone = disk(1);
    let a = perform(&alone, 0, &[DiskAction::CreateDir { path: "d".to_owned() }, sync_dir("d")]);
    let other = SimDisk::new(1, 2, DiskModel::default(), false);
    with_file(&other);
    let again = disk(1);
    let b = perform(&again, 0, &[DiskAction::CreateDir { path: "d".to_owned() }, sync_dir("d")]);
    assert_eq!(a, b);
}

/// 4096 bytes of 1, synced; then 4096 bytes of 2 and a sync that meets `trouble`.
fn troubled(seed: u64, trouble: Trouble) -> (SimDisk, u64, bool) {
    let disk = disk(seed);
    let at = with_file(&disk);
    let at = perform(&disk, at, &[write(0, &[1; 4096]), sync()]);
    let rule = disk.add_rule(Scope { ops: vec![DiskOp::Sync], ..Scope::default() }, trouble);
    let at = perform(&disk, at, &[write(0, &[2; 4096])]);
    let synced = disk.perform(at, at, &sync());
    disk.remove_rule(rule);
    (disk, synced.clone().unwrap_or(at) + 1, synced.is_ok())
}

#[test]
fn a_sync_that_fails_clean_loses_its_writes_with_the_process_and_no_later_sync_says_so() {
    let (disk, at, ok) = troubled(1, Trouble::SyncFailsClean);
    assert!(!ok);
    assert_eq!(content(&disk).expect("synced name"), [2; 4096], "the page cache has it");
    let at = perform(&disk, at, &[sync(), write(4096, &[3; 512]), sync(), write(5000, b"x")]);
    disk.kill(at);
    let after = content(&disk).expect("synced name");
    assert_eq!((&after[..4096], &after[4096..4608]), (&[1; 4096][..], &[3; 512][..]));
    assert_eq!(after[5000], b'x', "what is dirty stays in the page cache");
    disk.power_loss(at + 1);
    let after = content(&disk).expect("synced name");
    assert_eq!((&after[..4096], &after[4096..4608]), (&[1; 4096][..], &[3; 512][..]));
}

/// Blocks are what a file system gives out: a record that begins in the middle of one must not end so.
#[test]
fn a_write_that_meets_the_end_of_the_space_ends_at_a_sector_of_the_file() {
    let mut ends = BTreeSet::new();
    for seed in 0..100 {
        let disk = disk(seed);
        let at = with_file(&disk);
        let scope = Scope { ops: vec![DiskOp::Write], ..Scope::default() };
        disk.add_rule(scope, Trouble::NoSpace);
        assert!(disk.perform(at, at, &write(100, &[1; 3 * SECTOR])).is_err());
        let len = content(&disk).expect("synced name").len();
        assert!(len % SECTOR == 0 && len <= 3 * SECTOR, "{len}");
        ends.insert(len / SECTOR);
    }
    assert_eq!(ends, BTreeSet::from([0, 1, 2, 3]));
}

#[test]
fn a_disk_that_lies_shows_it_at_a_power_loss_and_not_before() {
    for seed in 0..20 {
        let (disk, at, ok) = troubled(seed, Trouble::SyncLies);
        assert!(ok);
        disk.kill(at);
        assert_eq!(content(&disk).expect("synced name"), [2; 4096]);
        disk.power_loss(at + 1);
        assert_eq!(content(&disk).expect("synced name"), [1; 4096]);
    }
}

#[test]
fn a_disk_that_tears_what_it_acknowledged_keeps_some_sectors() {
    let mut kept = BTreeSet::new();
    for seed in 0..50 {
        let (disk, at, ok) = troubled(seed, Trouble::SyncTears);
        assert!(ok);
        disk.power_loss(at);
        let after = content(&disk).expect("synced name");
        assert!(after.chunks(SECTOR).all(|s| s == [1; SECTOR] || s == [2; SECTOR]));
        kept.insert(after.chunks(SECTOR).filter(|sector| sector[0] == 2).count());
    }
    assert!(kept.len() > 4, "{kept:?}");
}

#[test]
fn a_misdirected_write_is_missing_in_one_place_and_in_the_way_in_another() {
    for seed in 0..20 {
        let disk = disk(seed);
        let at = with_file(&disk);
        let at = perform(&disk, at, &[write(0, &[1; 4096]), sync()]);
        let ops = vec![DiskOp::Write];
        disk.add_rule(Scope { ops, times: Some(1), ..Scope::default() }, Trouble::Misdirected);
        let at = perform(&disk, at, &[write(512, &[2; 512]), sync(), write(0, &[3; 512]), sync()]);
        assert_eq!(content(&disk).expect("synced name")[512..1024], [2; 512]);
        disk.power_loss(at);
        let after = content(&disk).expect("synced name");
        let has = |n: u8| after.chunks(SECTOR).filter(|s| *s == [n; SECTOR]).count();
        assert_eq!(after[512..1024], [1; 512], "seed {seed}");
        assert!(has(2) == 1 || (has(2) == 0 && after[..512] == [3; 512]), "seed {seed}");
    }
}

#[test]
fn a_write_may_be_torn_in_pieces_of_four_kilobytes() {
    let crash = CrashModel { keep_percent: 0, lose_percent: 0, tear_bytes: 4096 };
    let model = DiskModel { crash, ..DiskModel::default() };
    let mut kinds = BTreeSet::new();
    for seed in 0..30 {
        let disk = SimDisk::new(seed, 1, model.clone(), false);
        let at = with_file(&disk);
        let at = perform(&disk, at, &[write(0, &[1; 16384]), sync(), write(0, &[2; 16384])]);
        disk.power_loss(at);
        let after = content(&disk).expect("synced name");
        for page in after.chunks(4096) {
            assert!(page == [1; 4096] || page == [2; 4096], "a page is whole");
        }
        kinds.insert(after.chunks(4096).filter(|page| page[0] == 2).count());
    }
    assert!(kinds.len() > 2, "{kinds:?}");
}

#[test]
fn rot_shows_once_the_process_has_ended_and_goes_where_it_is_overwritten() {
    let differs = |disk: &SimDisk, than: &[u8]| {
        let now = content(disk).expect("synced name");
        now.iter().zip(than).filter(|(a, b)| a != b).count()
    };
    let disk = disk(1);
    let at = with_file(&disk);
    let at = perform(&disk, at, &[write(0, &[1; 4096]), sync()]);
    assert_eq!(disk.rot(7, "f", 3, false).len(), 3);
    assert_eq!(differs(&disk, &[1; 4096]), 0, "the page cache is whole");
    disk.kill(at);
    assert!((1..=3).contains(&differs(&disk, &[1; 4096])));
    disk.unrot(7);
    assert_eq!(differs(&disk, &[1; 4096]), 0, "restored");
    disk.rot(8, "", 3, true);
    assert!(differs(&disk, &[1; 4096]) > 0);
    perform(&disk, at, &[write(0, &[2; 4096])]);
    disk.unrot(8);
    assert_eq!(differs(&disk, &[2; 4096]), 0, "nothing to restore");
    assert!(disk.rot(9, "no such file", 1, true).is_empty());
}
