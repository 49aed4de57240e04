//! The same actions on a simulated disk and in a temporary directory.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bytes::Bytes;
use detkv_core::DiskAction;
use detkv_sim::disk::{DiskModel, SimDisk};
use detkv_sim::rng::{stream, uniform};
use rand_core::Rng;

use super::CHILD;

const DIRS: [&str; 4] = ["", "d", "d/e", "x"];
const FILES: [&str; 6] = ["f", "d/a", "d/b", "d/e/c", "x/y", "d/e"];

/// A script that is a function of its seed: mostly sense, some of it mistakes.
fn script(seed: u64, len: usize, bytes_max: u64) -> Vec<DiskAction> {
    let mut rng = stream(seed, 0, "real disk");
    (0..len).map(|n| action(&mut rng, n as u8, bytes_max)).collect()
}

fn pick(rng: &mut impl Rng, from: &[&str]) -> String {
    from[uniform(rng, 0, from.len() as u64 - 1) as usize].to_owned()
}

fn action(rng: &mut impl Rng, n: u8, bytes_max: u64) -> DiskAction {
    let path = pick(rng, &FILES);
    match uniform(rng, 0, 19) {
        0..=2 => DiskAction::CreateDir { path: pick(rng, &DIRS) },
        3..=5 => DiskAction::Create { path },
        6..=11 => {
            let data = vec![n | 1; uniform(rng, 1, bytes_max) as usize];
            DiskAction::WriteAt { path, offset: uniform(rng, 0, 9_000), data: Bytes::from(data) }
        }
        12 => DiskAction::Allocate { path, len: uniform(rng, 1, 20_000) },
        13 => DiskAction::Truncate { path, len: uniform(rng, 0, 9_000) },
        14 => DiskAction::SyncData { path },
        15..=16 => DiskAction::Rename { from: path, to: pick(rng, &FILES) },
        17 => DiskAction::SyncDir { path: pick(rng, &DIRS) },
        _ => DiskAction::Remove { path },
    }
}

/// As the real driver does it (`server/src/disk.rs`).
fn perform(root: &Path, action: &DiskAction) -> io::Result<()> {
    let at = |path: &str| root.join(path);
    let open = |path: &str| OpenOptions::new().read(true).write(true).open(at(path));
    match action {
        DiskAction::CreateDir { path } => std::fs::create_dir_all(at(path)),
        DiskAction::Create { path } => {
            OpenOptions::new().write(true).create(true).truncate(true).open(at(path)).map(|_| ())
        }
        DiskAction::Allocate { path, len } => allocate(&open(path)?, *len),
        DiskAction::WriteAt { path, offset, data } => open(path)?.write_all_at(data, *offset),
        DiskAction::Truncate { path, len } => open(path)?.set_len(*len),
        DiskAction::SyncData { path } => open(path)?.sync_data(),
        DiskAction::Rename { from, to } => std::fs::rename(at(from), at(to)),
        DiskAction::SyncDir { path } => File::open(at(path))?.sync_all(),
        DiskAction::Remove { path } => match std::fs::remove_file(at(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
    }
}

fn allocate(file: &File, len: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, len) {
        Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(file.metadata()?.len().max(len)),
        other => Ok(other?),
    }
}

/// Every file with its bytes, and what each directory lists.
type Content = Vec<(String, Option<Vec<u8>>, Vec<String>)>;

fn paths() -> Vec<&'static str> {
    DIRS.into_iter().chain(FILES).collect()
}

fn real_content(root: &Path) -> Content {
    let list = |path: &str| -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(root.join(path)) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("a readable directory"))
            .filter(|entry| entry.file_type().expect("it has a type").is_file())
            .map(|entry| entry.file_name().into_string().expect("our own name"))
            .collect();
        names.sort();
        names
    };
    let read = |path: &str| std::fs::read(root.join(path)).ok();
    paths().into_iter().map(|path| (path.to_owned(), read(path), list(path))).collect()
}

fn model_content(disk: &SimDisk) -> Content {
    let files = disk.files();
    let read = |path: &str| {
        let len = files.len(path).expect("the process runs")?;
        Some(files.read(path, 0, len as usize).expect("the file is there").to_vec())
    };
    let list = |path: &str| files.list(path).expect("the process runs");
    paths().into_iter().map(|path| (path.to_owned(), read(path), list(path))).collect()
}

#[test]
fn every_action_does_the_same_on_a_file_system_and_on_the_model() {
    let (mut done, mut refused) = (0, 0);
    for seed in 0..100 {
        let root = tempfile::tempdir().expect("a temporary directory");
        let disk = SimDisk::new(seed, 1, DiskModel::default(), false);
        let mut at = 0;
        for (n, action) in script(seed, 60, 5_000).iter().enumerate() {
            let real = perform(root.path(), action);
            let model = disk.perform(at, at, action);
            at = model.as_ref().map_or(at, |done| *done);
            let what = format!("seed {seed}, action {n} {action:?}: {real:?} but {model:?}");
            assert_eq!(real.is_ok(), model.is_ok(), "{what}");
            (done, refused) = (done + u32::from(real.is_ok()), refused + u32::from(real.is_err()));
            assert!(real_content(root.path()) == model_content(&disk), "{what}");
        }
    }
    assert!(done > 2_500 && refused > 700, "{done} done, {refused} refused");
}

#[test]
fn reads_past_the_end_are_short_and_of_nothing_an_error() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let disk = SimDisk::new(1, 1, DiskModel::default(), false);
    let create = DiskAction::Create { path: "f".to_owned() };
    let (path, data) = ("f".to_owned(), Bytes::from_static(b"0123456789"));
    let write = DiskAction::WriteAt { path, offset: 0, data };
    for action in [create, write] {
        perform(root.path(), &action).expect("it succeeds");
        disk.perform(0, 0, &action).expect("it succeeds");
    }
    let files = disk.files();
    for (offset, len) in [(0, 10), (0, 4), (4, 100), (10, 1), (50, 5)] {
        let file = File::open(root.path().join("f")).expect("it is there");
        let mut out = vec![0; len];
        let read = file.read_at(&mut out, offset).expect("it can be read");
        assert_eq!(files.read("f", offset, len).expect("it is there"), out[..read]);
    }
    let real = std::fs::read(root.path().join("g")).expect_err("there is no such file");
    let model = files.read("g", 0, 1).expect_err("there is no such file");
    assert_eq!(real.kind(), model.kind());
}

/// What the model allows after a kill that came when `acked` actions were known to be done: the state after any later
/// action, with the one under way not begun or, of a write, some pages done.
fn is_allowed_after_kill(seed: u64, script: &[DiskAction], acked: usize, real: &Content) -> bool {
    for done in acked..=script.len() {
        let disk = SimDisk::new(seed, 1, DiskModel::default(), false);
        let mut at = 0;
        for action in &script[..done] {
            at = disk.perform(at, at, action).unwrap_or(at);
        }
        if model_content(&disk) == *real {
            return true;
        }
        let Some(next) = script.get(done) else { continue };
        let Ok(end) = disk.perform(at, at, next) else { continue };
        if moments_within(next, at, end).any(|moment| {
            let disk = SimDisk::new(seed, 1, DiskModel::default(), false);
            let mut from = 0;
            for action in &script[..=done] {
                from = disk.perform(from, from, action).unwrap_or(from);
            }
            disk.kill(moment);
            model_content(&disk) == *real
        }) {
            return true;
        }
    }
    false
}

/// The times at which an action from `from` to `to` has come one visible step further.
fn moments_within(action: &DiskAction, from: u64, to: u64) -> impl Iterator<Item = u64> {
    let steps: Vec<u64> = match action {
        // So many bytes up to the end of each page.
        DiskAction::WriteAt { offset, data, .. } => {
            let len = data.len() as u64;
            let ends = (offset / 4096 + 1..).map(|page| page * 4096 - offset);
            let ends = ends.take_while(move |bytes| *bytes < len);
            ends.map(|bytes| ((to - from) * bytes).div_ceil(len)).collect()
        }
        DiskAction::CreateDir { .. } => (0..to - from).step_by(500).collect(),
        _ => Vec::new(),
    };
    steps.into_iter().map(move |step| from + step)
}

const KILL_SCRIPT: usize = 120;

#[test]
fn what_is_left_after_kill_dash_nine_is_what_the_model_allows() {
    if let Ok(job) = std::env::var(CHILD) {
        return be_killed(&job);
    }
    let mut cut_short = 0;
    for seed in 0..8 {
        let root = tempfile::tempdir().expect("a temporary directory");
        let job = format!("{seed} {}", root.path().display());
        let program = std::env::current_exe().expect("this test");
        let mut child = Command::new(program)
            .args(["--exact", "disk::what_is_left_after_kill_dash_nine_is_what_the_model_allows"])
            .arg("--nocapture")
            .env(CHILD, job)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("this test runs once more");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let stop_at = uniform(&mut stream(seed, 1, "kill"), 1, KILL_SCRIPT as u64 - 1);
        let mut acked = 0;
        for line in lines.map_while(Result::ok) {
            // The test harness has written its own words into the first line.
            if let Some((_, number)) = line.rsplit_once("done ") {
                acked = number.parse().expect("a number");
            }
            if acked as u64 >= stop_at {
                break;
            }
        }
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
        let script = script(seed, KILL_SCRIPT, 200_000);
        let real = real_content(root.path());
        assert!(
            is_allowed_after_kill(seed, &script, acked, &real),
            "seed {seed}, killed after {acked} or more, such as {:?}",
            &script[acked..(acked + 3).min(script.len())]
        );
        cut_short += u32::from(acked < KILL_SCRIPT);
    }
    assert!(cut_short > 4, "{cut_short} of 8 were killed in the middle");
}

/// The child: performs the script and says how far it is.
fn be_killed(job: &str) {
    let (seed, root) = job.split_once(' ').expect("a seed and a directory");
    let root = PathBuf::from(root);
    let seed = seed.parse().expect("a number");
    for (n, action) in script(seed, KILL_SCRIPT, 200_000).iter().enumerate() {
        let _ = perform(&root, action);
        println!("done {}", n + 1);
    }
}
