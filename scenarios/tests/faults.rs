//! The scenarios in which members crash: whatever happens, every checker agrees in the end.

mod common;

use common::passing_runs;

#[test]
fn smoke_passes_in_both_profiles() {
    for profile in ["coupled", "decoupled"] {
        for run in passing_runs("smoke", profile, 0..4) {
            assert!(run.checkers.values().all(|verdict| verdict == "ok"), "{run:?}");
            assert!(run.checkers.len() >= 8, "{run:?}");
        }
    }
}

#[test]
fn crash_storm_passes_in_both_profiles() {
    for profile in ["coupled", "decoupled"] {
        passing_runs("crash-storm", profile, 0..2);
    }
}

#[test]
fn every_fault_passes_in_both_profiles() {
    for profile in ["coupled", "decoupled"] {
        passing_runs("every-fault", profile, 0..1);
    }
}
