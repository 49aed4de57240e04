//! The latency scenarios have exactly the figures that are committed.

mod common;

use std::fs;
use std::path::Path;

use common::detkv_sim;

/// Starts from the committed files but one, so that two runs show four things: equal figures pass, a
/// missing file does not, an update writes it, and what it writes is exactly what is committed.
#[test]
fn latencies_and_costs_are_exactly_those_of_the_baselines() {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../reports/baselines");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let names = ["put-latency.json", "get-latency.json", "watch-latency.json"];
    for name in &names[1..] {
        fs::copy(committed.join(name), folder.path().join(name)).expect("it is committed");
    }
    let dir = folder.path().to_str().expect("a UTF-8 path");
    let missing = detkv_sim(&["baseline", "--dir", dir]);
    assert_eq!(missing.code, Some(1), "{}{}", missing.out, missing.err);
    assert!(missing.out.contains("baseline --update"), "{}", missing.out);

    let updated = detkv_sim(&["baseline", "--update", "--dir", dir]);
    assert_eq!(updated.code, Some(0), "{}{}", updated.out, updated.err);
    for name in names {
        let text = |folder: &Path| fs::read_to_string(folder.join(name)).expect("it is there");
        let (expected, found) = (text(&committed), text(folder.path()));
        assert_eq!(expected, found, "{name}: {}", missing.out);
    }
}
