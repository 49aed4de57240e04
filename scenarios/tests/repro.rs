//! What the swarm found, as small as it gets: each failed once, with the seed that it is run with.

mod common;

use common::{detkv_sim, passing_runs};

fn repro(name: &str) -> String {
    format!("{}/repro/{name}.toml", env!("CARGO_MANIFEST_DIR"))
}

/// An in-code fault repeated every ReadIndex round at every burst. In a cluster of seven each attempt made more
/// than one burst that did so again: the run never ended.
#[test]
fn repeated_reads_make_no_storm() {
    passing_runs(&repro("read-storm"), "decoupled", 4862..4863);
}

/// A write that met the end of the space ended in the middle of a sector, which no file system does: the log was
/// damaged for ever.
#[test]
fn a_log_that_met_the_end_of_the_space_opens_again() {
    passing_runs(&repro("full-log-disk"), "coupled", 7..8);
    passing_runs(&repro("full-log-disk"), "coupled", 12..13);
}

/// A follower without power and network missed that a member joined and came to lead. It answered nobody whom its own
/// member list did not name, so the snapshot that would have told it was never sent.
#[test]
fn a_follower_that_missed_a_join_is_caught_up_by_the_new_leader() {
    passing_runs(&repro("missed-join"), "decoupled", 10389..10390);
}

/// False alarms of the linearizability checker, about keys of which it knew nothing: the end of a lease was taken to
/// delete one that had left it, and a lost txn was taken for the only thing that could have deleted another.
#[test]
fn what_is_not_known_of_a_key_is_not_made_up() {
    passing_runs(&repro("left-the-lease"), "coupled", 5762..5763);
    passing_runs(&repro("whose-delete"), "decoupled", 2976..2977);
}

/// The log was cut off right behind a snapshot that had just arrived: the follower needed the next one at once.
#[test]
fn a_follower_that_was_sent_a_snapshot_catches_up_from_the_log() {
    passing_runs(&repro("second-snapshot"), "coupled", 0..2);
    passing_runs(&repro("second-snapshot"), "decoupled", 0..2);
}

/// A member's disk lies, and the Raft checker shows what came of it: one vote per term is broken. It is told, and not
/// held against the store.
#[test]
fn what_a_lying_disk_explains_is_excused() {
    let ended = detkv_sim(&["run", &repro("forgotten-vote"), "--seed", "1101"]);
    assert_eq!(ended.code, Some(0), "{}", ended.out);
    let told =
        "checker raft: excused: the disk of m3 took back what was durable: one vote per term";
    assert!(ended.out.contains(told), "{}", ended.out);
}

/// A member finds that its disk lost what it had acknowledged. It stops and says so, nobody starts it again, and the
/// others are whole without it; an operator who waits for it to lead gives up.
#[test]
fn a_member_that_reports_its_damaged_disk_is_let_go() {
    let ended = detkv_sim(&["run", &repro("let-go"), "--seed", "205"]);
    assert_eq!(ended.code, Some(0), "{}", ended.out);
    assert!(ended.out.contains("has a disk that took back what was durable"), "{}", ended.out);
    assert!(ended.out.contains("checkers: 11 of 11 ok"), "{}", ended.out);
}
