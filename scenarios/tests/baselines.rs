//! The latency scenarios have exactly the figures that are committed.

mod common;

use std::path::Path;

use common::detkv_sim;

#[test]
fn latencies_and_costs_are_exactly_those_of_the_baselines() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../reports/baselines");
    let ended = detkv_sim(&["baseline", "--dir", folder.to_str().expect("a UTF-8 path")]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
}

#[test]
fn an_update_writes_what_a_comparison_then_agrees_with() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().to_str().expect("a UTF-8 path");
    let missing = detkv_sim(&["baseline", "--dir", dir]);
    assert_eq!(missing.code, Some(1), "{}", missing.out);
    assert!(missing.out.contains("baseline --update"), "{}", missing.out);
    let updated = detkv_sim(&["baseline", "--update", "--dir", dir]);
    assert_eq!(updated.code, Some(0), "{}{}", updated.out, updated.err);
    let compared = detkv_sim(&["baseline", "--dir", dir]);
    assert_eq!(compared.code, Some(0), "{}{}", compared.out, compared.err);
}
