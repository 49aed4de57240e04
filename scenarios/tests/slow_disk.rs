//! `slow-disk` and `slow-disk-long` over seeds: the symptom in `coupled`, its absence in `decoupled`.

mod common;

use common::passing_runs;

#[test]
fn slow_disk_coupled_loses_the_leader() {
    for run in passing_runs("slow-disk", "coupled", 0..4) {
        assert!(run.leader_changes >= 1, "seed {}: {run:?}", run.seed);
        // Below 0.8 election timeouts nobody can have noticed; an election is over within 3.
        let most = if run.split_votes > 0 { 5000 } else { 3000 };
        assert!((800..=most).contains(&run.longest_put_gap_ms), "seed {}: {run:?}", run.seed);
    }
}

#[test]
fn slow_disk_decoupled_keeps_the_leader_and_serves_on() {
    for run in passing_runs("slow-disk", "decoupled", 0..4) {
        assert_eq!(run.leader_changes, 0, "seed {}", run.seed);
        assert_eq!(run.planned_transfers, 0, "seed {}", run.seed);
        assert!(run.longest_put_gap_ms <= 50, "seed {}: {run:?}", run.seed);
        assert_eq!(run.puts_failed, 0, "seed {}", run.seed);
        // 200 puts a second for 12 s.
        assert!((2350..=2450).contains(&run.puts_ok), "seed {}: {}", run.seed, run.puts_ok);
    }
}

#[test]
fn slow_disk_long_hands_leadership_over_exactly_once() {
    for run in passing_runs("slow-disk-long", "decoupled", 0..3) {
        assert_eq!(run.planned_transfers, 1, "seed {}", run.seed);
        assert_eq!(run.leader_changes, 1, "seed {}", run.seed);
    }
}
