//! Runs of the swarm that once did not converge after their faults.

mod common;

use common::passing_runs;

fn replays(file: &str, profile: &str, seed: u64) {
    let path = format!("{}/repro/{file}.toml", env!("CARGO_MANIFEST_DIR"));
    passing_runs(&path, profile, seed..seed + 1);
}

/// Frames of connections that were long closed kept the link of a restarted member busy for more than a minute.
#[test]
fn frames_of_a_closed_connection_hold_nobody_up() {
    replays("stale-frames", "decoupled", 1262);
}

/// Its operator waited for the member list, which a cluster of two cannot give before the second one runs.
#[test]
fn a_second_voter_is_started() {
    replays("second-voter", "decoupled", 1585);
}

/// A write that met the end of the space ended inside of a sector, as none does on a real disk: the WAL counted as
/// damaged.
#[test]
fn a_full_disk_leaves_a_log_that_opens() {
    replays("torn-by-a-full-disk", "coupled", 8043);
}

/// An in-code fault that a member chose for life outlived all others: who lagged behind a slow disk or link was sent a
/// few entries at a time, and was never level.
#[test]
fn appends_are_no_longer_tiny_when_the_faults_are_over() {
    replays("tiny-appends", "coupled", 3853);
    replays("lead-to-a-laggard", "coupled", 4634);
}

/// The whole store was asked for in one call, and each further try waited behind the answers to those before.
#[test]
fn a_store_is_read_back_through_a_slow_link() {
    replays("slow-readout", "coupled", 7535);
}

/// All that a member lacked came in one message, behind which no heartbeat passed for seconds: without pre-vote it
/// deposed leader after leader, and each sent all of it again.
#[test]
fn heartbeats_pass_between_the_appends_to_a_member_far_behind() {
    for (profile, seed) in [("coupled", 1), ("decoupled", 1)] {
        replays("long-append", profile, seed);
    }
}
