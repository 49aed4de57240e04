//! The documented failure modes over a few seeds: the symptom where nothing protects from it, its absence where
//! something does. The bounds themselves are in each file; here are those that compare the two profiles.

mod common;

use common::{detkv_sim_in, passing_runs};
use detkv_reports::run::RunSummary;

#[track_caller]
fn figure(run: &RunSummary, name: &str) -> u64 {
    *run.figures.get(name).unwrap_or_else(|| panic!("seed {} has {name}", run.seed))
}

/// The median over the runs.
fn median(runs: &[RunSummary], name: &str) -> u64 {
    let mut values: Vec<u64> = runs.iter().map(|run| figure(run, name)).collect();
    values.sort_unstable();
    values[(values.len() - 1) / 2]
}

#[test]
fn a_leader_in_the_minority_shows_the_past_to_those_who_ask_for_it_only() {
    for profile in ["coupled", "decoupled"] {
        for run in passing_runs("minority-leader", profile, 0..1) {
            assert!(figure(&run, "stale_serializable") > 0);
            assert_eq!(figure(&run, "stale_gets"), 0);
        }
    }
}

#[test]
fn terms_climb_in_a_leader_storm_without_pre_vote_only() {
    let unprotected = passing_runs("leader-storm", "coupled", 0..2);
    let hardened = passing_runs("leader-storm", "decoupled", 0..2);
    let (climb, growth) = (median(&unprotected, "term_growth"), median(&hardened, "term_growth"));
    assert!(climb >= 2 * growth, "{climb} terms without pre-vote, {growth} with it");
}

#[test]
fn starved_watchers_cost_memory_without_a_credit_only() {
    let unprotected = passing_runs("watch-starvation", "coupled", 0..1);
    let hardened = passing_runs("watch-starvation", "decoupled", 0..1);
    let name = "watch_buffered_bytes";
    let (piled, bounded) = (median(&unprotected, name), median(&hardened, name));
    assert!(piled >= 4 * bounded, "{piled} bytes without a credit, {bounded} with it");
    assert!(hardened.iter().all(|run| figure(run, "watches_compacted") > 0));
}

#[test]
fn a_snapshot_takes_as_long_as_its_bytes_take_on_the_link() {
    for profile in ["coupled", "decoupled"] {
        for run in passing_runs("snapshot-transfer", profile, 0..1) {
            let floor_ms = figure(&run, "snapshot_bytes") * 1000 / 1_250_000;
            let took_ms = figure(&run, "snapshot_transfer_ms");
            assert!(took_ms >= floor_ms, "{took_ms} ms for what takes {floor_ms} ms at least");
            assert!(
                took_ms <= floor_ms * 3 / 2 + 200,
                "{took_ms} ms, the link needs {floor_ms} ms"
            );
        }
    }
}

#[test]
fn the_quota_holds_through_a_leader_s_death_and_the_way_back_leads_out() {
    for profile in ["coupled", "decoupled"] {
        passing_runs("quota", profile, 0..1);
    }
}

#[test]
fn a_member_without_room_stops_and_comes_back() {
    for profile in ["coupled", "decoupled"] {
        passing_runs("disk-full", profile, 0..2);
    }
}

#[test]
fn the_table_has_every_failure_mode_and_says_how_to_repeat_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ended = detkv_sim_in(folder.path(), &["table", "slow-disk", "--seeds", "0..1"]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
    assert!(ended.out.contains("longest_put_gap_ms"), "{}", ended.out);
    assert!(
        ended
            .out
            .contains("again: cargo run --release --bin detkv-sim -- table slow-disk --seeds 0..1")
    );
    assert!(folder.path().join("out/table.html").is_file());
}

#[test]
fn disks_of_real_clusters_run_with_every_checker() {
    for scenario in ["slow-disk-etcd-7312", "slow-disk-etcd-9407-clustered"] {
        passing_runs(scenario, "decoupled", 0..1);
    }
}
