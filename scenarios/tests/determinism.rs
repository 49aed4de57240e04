//! Equal seeds give equal runs, whatever surrounds the process.

mod common;

use common::{detkv_sim, passing_runs};

#[test]
fn two_unlike_processes_have_equal_hashes() {
    for (scenario, profile) in [("slow-disk", "coupled"), ("smoke", "decoupled")] {
        let ended =
            detkv_sim(&["check-determinism", scenario, "--seeds", "0..2", "--profile", profile]);
        assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
        assert!(ended.out.contains("equal event hashes"), "{}", ended.out);
    }
}

#[test]
fn another_seed_is_another_run() {
    let runs = passing_runs("slow-disk", "decoupled", 0..2);
    assert_ne!(runs[0].event_hash, runs[1].event_hash);
}
