//! The binary as a person meets it: clear errors, nothing left behind.

use std::path::Path;
use std::process::{Command, Output};

fn bench(data_root: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_detkv-bench"))
        .args(args)
        .arg("--data-root")
        .arg(data_root)
        .output()
        .expect("detkv-bench starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A directory on the disk that holds `target`, not in a `/tmp` that may be in memory.
fn disk_dir() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target/tmp is writable")
}

#[test]
fn a_missing_binary_is_one_clear_line() {
    let dir = disk_dir();
    let output = bench(dir.path(), &["--detkv", "/no/such/detkv"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("/no/such/detkv does not exist"), "{text}");
    assert!(text.contains("cargo build --release --bin detkv"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn a_member_that_ends_at_once_is_reported_with_its_log_and_leaves_no_files() {
    let dir = disk_dir();
    // `sleep` knows --version and refuses etcd's flags.
    let output = bench(dir.path(), &["--quick", "--allow-tmpfs", "--detkv", "/bin/sleep"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    // Whichever of the three was seen to have ended first.
    let named = (0..3).any(|n| text.contains(&format!("does not start: member m{n} ended with")));
    assert!(named, "{text}");
    assert!(text.contains("--name"), "the member's own words are shown: {text}");
    let left: Vec<_> = std::fs::read_dir(dir.path()).expect("readable").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_data_root_in_memory_is_refused() {
    if !Path::new("/dev/shm").is_dir() {
        println!("no /dev/shm here: nothing to refuse");
        return;
    }
    let dir = tempfile::tempdir_in("/dev/shm").expect("/dev/shm is writable");
    let output = bench(dir.path(), &["--quick", "--detkv", "/bin/sleep"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--allow-tmpfs"), "{}", stderr(&output));
}

#[test]
fn the_rows_of_the_issue_are_listed() {
    let dir = disk_dir();
    let output = bench(dir.path(), &["--list"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for title in [
        "sequential 256 B put",
        "single-key get linearizable",
        "single-key get serializable",
        "range get 1000 keys",
        "watch creation",
    ] {
        assert!(text.contains(title), "{title} is missing from:\n{text}");
    }
    assert!(text.contains("put/members=3 clients=64 value_bytes=256"));
}

#[test]
fn an_unknown_row_or_a_bad_number_is_refused() {
    let dir = disk_dir();
    let output = bench(dir.path(), &["--detkv", "/bin/sleep", "--rows", "nonsense"]);
    assert!(stderr(&output).contains("no row matches"), "{}", stderr(&output));
    let output = bench(dir.path(), &["--repeats", "0"]);
    assert_eq!(output.status.code(), Some(2), "usage errors are 2");
}
