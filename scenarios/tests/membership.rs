//! The cluster grows, shrinks and is repaired under load and kills: every checker agrees.

mod common;

use common::passing_runs;

#[test]
fn membership_passes_in_both_profiles() {
    for profile in ["coupled", "decoupled"] {
        for run in passing_runs("membership", profile, 0..1) {
            assert_eq!(run.checkers.get("membership").map(String::as_str), Some("ok"), "{run:?}");
        }
    }
}

/// A leader that had applied its own removal and then heard that later entries had reached a quorum panicked.
#[test]
fn a_removed_leader_sees_its_removal_through() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/repro/removed-leader.toml");
    passing_runs(path, "decoupled", 950..951);
}
