//! A few runs of the swarm as part of `cargo test`; CI runs more of them, with `--require-marks`.

mod common;

use common::detkv_sim;

#[test]
fn a_few_drawn_runs_pass_and_the_summary_says_what_was_tried() {
    let ended = detkv_sim(&["swarm", "--seeds", "0..6"]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
    for said in ["members ", "fault ", "marks never passed:", "PASS 0 of 6 runs failed"] {
        assert!(ended.out.contains(said), "no {said:?} in {}", ended.out);
    }
    assert!(ended.out.trim_end().ends_with("swarm --seeds 0..6"), "{}", ended.out);
}

#[test]
fn a_mark_that_no_run_passes_fails_where_marks_are_required() {
    let ended = detkv_sim(&["swarm", "--seeds", "0..1", "--require-marks"]);
    assert_eq!(ended.code, Some(1), "{}", ended.out);
    assert!(ended.out.contains("marks were never passed"), "{}", ended.out);
}

#[test]
fn a_drawn_run_is_kept_as_a_file_and_runs_from_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let drawn = detkv_sim(&["draw", "--seed", "3"]);
    let path = folder.path().join("kept.toml");
    std::fs::write(&path, &drawn.out).expect("it is writable");
    let hash = |out: &str| {
        let (_, rest) = out.split_once("event hash ").expect("a run prints its hash");
        rest.split_whitespace().next().expect("a hash").to_owned()
    };
    let path = path.to_str().expect("a UTF-8 path");
    let (drawn, kept) =
        (detkv_sim(&["run", "swarm", "--seed", "3"]), detkv_sim(&["run", path, "--seed", "3"]));
    assert_eq!(hash(&drawn.out), hash(&kept.out));
}

#[test]
fn drawn_runs_are_deterministic() {
    let ended = detkv_sim(&["check-determinism", "swarm", "--seeds", "0..3"]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
}
