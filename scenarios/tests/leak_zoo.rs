//! Ten planted leaks: each meets the fate that is stated, and what is reported names the event.

mod common;

use common::detkv_sim;

#[test]
fn every_planted_leak_is_reported_neutralised_or_ends_the_run_as_stated() {
    let ended = detkv_sim(&["leak-zoo"]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
    assert!(ended.out.contains("PASS leak zoo: 10/10 as stated"), "{}", ended.out);
    let reported = ended.out.lines().filter(|line| line.contains(" reported ")).count();
    assert_eq!(ended.out.matches("first event that differs:").count(), reported);
    // Both sides of the first difference: number, time, node, kind and payload of the event.
    let shown: Vec<&str> =
        ended.out.lines().map(str::trim).filter(|line| line.contains(": event ")).collect();
    assert_eq!(shown.len(), 2 * reported);
    for pair in shown.chunks(2) {
        assert!(pair[0].starts_with("plain: event ") && pair[1].starts_with("other: event "));
        assert!(pair.iter().all(|line| line.contains("node 1: Request") && line.contains("leak/")));
        assert_ne!(pair[0], pair[1]);
    }
}
