//! What a power loss may leave, as a written list: for each row every state that the model reaches is in the list,
//! and every state of the list is reached. The rows are what POSIX and Linux file systems promise, and no more.

use std::collections::BTreeSet;

use bytes::Bytes;
use detkv_core::DiskAction;
use detkv_sim::disk::{DiskModel, SimDisk};

fn create(path: &str) -> DiskAction {
    DiskAction::Create { path: path.to_owned() }
}

fn write(path: &str, data: &'static [u8]) -> DiskAction {
    DiskAction::WriteAt { path: path.to_owned(), offset: 0, data: Bytes::from_static(data) }
}

fn sync(path: &str) -> DiskAction {
    DiskAction::SyncData { path: path.to_owned() }
}

fn sync_dir(path: &str) -> DiskAction {
    DiskAction::SyncDir { path: path.to_owned() }
}

fn rename(from: &str, to: &str) -> DiskAction {
    DiskAction::Rename { from: from.to_owned(), to: to.to_owned() }
}

fn remove(path: &str) -> DiskAction {
    DiskAction::Remove { path: path.to_owned() }
}

/// `f=abc g=0..` : names with what they hold; zeros as dots.
fn state(disk: &SimDisk) -> String {
    let files = disk.files();
    let mut words = Vec::new();
    for dir in ["", "d/"] {
        for name in files.list(dir).expect("the process runs") {
            let path = format!("{dir}{name}");
            let len = files.len(&path).expect("the process runs").expect("it is listed");
            let bytes = files.read(&path, 0, len as usize).expect("it is listed");
            let text = String::from_utf8_lossy(&bytes).replace('\0', ".");
            words.push(format!("{path}={text}"));
        }
    }
    words.join(" ")
}

/// (what was done, with everything before the bar durable; the states that a power loss may leave)
type Row = (&'static str, Vec<DiskAction>, &'static [&'static str]);

fn rows() -> Vec<Row> {
    let durable = |path: &'static str, data: &'static [u8]| {
        vec![create(path), write(path, data), sync(path), sync_dir("")]
    };
    let then = |mut before: Vec<DiskAction>, after: Vec<DiskAction>| {
        before.extend(after);
        before
    };
    vec![
        ("everything synced, file and directory", durable("f", b"abc"), &["f=abc"]),
        (
            "create, write; nothing synced: the name, the length and the bytes each on their own",
            vec![create("f"), write("f", b"abc")],
            &["", "f=", "f=...", "f=abc"],
        ),
        (
            "create, write, sync the file: the name may be missing",
            vec![create("f"), write("f", b"abc"), sync("f")],
            &["", "f=abc"],
        ),
        (
            "create, sync the directory, write: the length and the bytes each on their own",
            vec![create("f"), sync_dir(""), write("f", b"abc")],
            &["f=", "f=...", "f=abc"],
        ),
        (
            "durable | overwrite within a sector: old or new, never a mixture",
            then(durable("f", b"abc"), vec![write("f", b"xyz")]),
            &["f=abc", "f=xyz"],
        ),
        (
            "durable | two overwrites: as after none, the first or both",
            then(durable("f", b"abc"), vec![write("f", b"xyz"), write("f", b"x2")]),
            &["f=abc", "f=xyz", "f=x2z"],
        ),
        (
            "durable | cut: old or new length",
            then(durable("f", b"abc"), vec![DiskAction::Truncate { path: "f".into(), len: 1 }]),
            &["f=abc", "f=a"],
        ),
        (
            "durable | write new, sync it, sync the directory, rename over: one of both, whole",
            then(
                durable("f", b"abc"),
                vec![create("g"), write("g", b"new"), sync("g"), sync_dir(""), rename("g", "f")],
            ),
            &["f=abc g=new", "f=new"],
        ),
        (
            "durable | the same, and the directory synced after it",
            then(
                durable("f", b"abc"),
                vec![create("g"), write("g", b"new"), sync("g"), rename("g", "f"), sync_dir("")],
            ),
            &["f=new"],
        ),
        (
            "durable | rename over without a sync of the new file: its bytes may be missing under the old name",
            then(
                durable("f", b"abc"),
                vec![create("g"), sync_dir(""), write("g", b"new"), rename("g", "f")],
            ),
            &["f=abc g=", "f=abc g=...", "f=abc g=new", "f=", "f=...", "f=new"],
        ),
        (
            "durable | remove: there or not",
            then(durable("f", b"abc"), vec![remove("f")]),
            &["", "f=abc"],
        ),
        (
            "durable | remove, sync the directory",
            then(durable("f", b"abc"), vec![remove("f"), sync_dir("")]),
            &[""],
        ),
        (
            "two names in one directory: the second never without the first",
            vec![create("f"), sync("f"), create("g"), sync("g")],
            &["", "f=", "f= g="],
        ),
        (
            "a directory that is not synced into its parent takes everything along",
            vec![
                DiskAction::CreateDir { path: "d".into() },
                create("d/f"),
                write("d/f", b"abc"),
                sync("d/f"),
                sync_dir("d"),
            ],
            &["", "d/f=abc"],
        ),
    ]
}

#[test]
fn a_power_loss_leaves_what_the_list_allows_and_all_of_it() {
    for (what, actions, allowed) in rows() {
        let mut reached = BTreeSet::new();
        for seed in 0..400 {
            let disk = SimDisk::new(seed, 1, DiskModel::default(), false);
            let at = actions
                .iter()
                .fold(0, |at, action| disk.perform(at, at, action).expect("the action succeeds"));
            disk.power_loss(at);
            reached.insert(state(&disk));
        }
        let allowed: BTreeSet<String> = allowed.iter().map(|state| (*state).to_owned()).collect();
        assert_eq!(reached, allowed, "{what}");
    }
}
