//! The command line: what it prints, what it writes, how it ends.

mod common;

use std::fs;
use std::io::Read as _;
use std::process::{Command, Stdio};

use common::{detkv_sim, detkv_sim_in};
use detkv_reports::run::RunSummary;

/// A run of two seconds.
const QUICK: &str = r#"
about = "a quick run"
profiles = ["decoupled"]
warm_up = "200ms"
duration = "1s"

[[workload]]
kind = "put-load"
"#;

/// A folder with `quick.toml`: [`QUICK`] and `rest`.
fn folder(rest: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("quick.toml"), format!("{QUICK}{rest}")).expect("it is writable");
    folder
}

#[test]
fn usage_errors_exit_2_and_name_the_thing() {
    for (args, named) in [
        (vec!["run", "slow-dsk", "--seed", "1"], "slow-dsk"),
        (vec!["run", "slow-disk"], "--seed"),
        (vec!["run", "slow-disk", "--seed", "x"], "--seed"),
        (vec!["run", "slow-disk", "--seed", "1", "--profile", "fast"], "coupled"),
        (vec!["run", "nowhere.toml", "--seed", "1"], "nowhere.toml"),
        (vec!["sweep", "smoke", "--seeds", "5"], "0..50"),
        (vec!["sweep", "smoke", "--seeds", "0..2", "--shard", "3/2"], "1/4"),
        (vec!["sweep", "smoke", "--seeds", "0..2", "--jobs", "0"], "--jobs"),
        (vec!["check-determinism", "smoke", "--seeds", "0..1", "--other-binary", "/no"], "/no"),
        (vec!["dance"], "dance"),
        (vec![], "Usage"),
    ] {
        let ended = detkv_sim(&args);
        assert_eq!(ended.code, Some(2), "{args:?}: {}{}", ended.out, ended.err);
        assert!(ended.err.contains(named), "{args:?}: {}", ended.err);
    }
}

#[test]
fn a_mistake_in_a_file_is_named_with_its_place() {
    let folder = folder(
        "\n[[fault]]\nat = \"1s\"\nkind = \"disk-stall\"\nnode = \"leadr\"\nduration = \"1s\"\n",
    );
    let ended = detkv_sim_in(folder.path(), &["run", "quick.toml", "--seed", "1"]);
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    assert!(ended.err.contains("quick.toml:13:"), "{}", ended.err);
    assert!(ended.err.contains("leadr") && ended.err.contains("expected"), "{}", ended.err);
}

#[test]
fn a_mistake_in_a_histogram_is_named_with_its_place_in_that_file() {
    let folder = folder("\n[disk]\nmodel = \"mine.prom\"\n");
    let text = "a_seconds_bucket{le=\"1\"} 5\na_seconds_bucket{le=\"+Inf\"} 4\n";
    fs::write(folder.path().join("mine.prom"), text).expect("it is writable");
    let ended = detkv_sim_in(folder.path(), &["run", "quick.toml", "--seed", "1"]);
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    assert!(ended.err.contains("mine.prom:2:1: the count is 4, expected"), "{}", ended.err);
}

#[test]
fn a_mistake_in_a_variants_histogram_is_named_in_that_file_too() {
    let folder = folder("\n[variant.slow]\ndisk.model = \"mine.prom\"\n");
    let text = "a_seconds_bucket{le=\"1\"} 5\na_seconds_bucket{le=\"+Inf\"} 4\n";
    fs::write(folder.path().join("mine.prom"), text).expect("it is writable");
    let ended = detkv_sim_in(folder.path(), &["run", "quick.toml:slow", "--seed", "1"]);
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    assert!(ended.err.contains("mine.prom:2:1: the count is 4, expected"), "{}", ended.err);
}

/// A page of metrics of a real server is longer than an argument of a process may be.
#[test]
fn a_histogram_in_a_long_page_of_metrics_runs() {
    let folder = folder("\n[disk]\nmodel = \"page.prom\"\n");
    let name = "etcd_disk_wal_fsync_duration_seconds";
    let others: String = (0..5_000).map(|n| format!("another_metric_{n}_total {n}\n")).collect();
    let text = format!(
        "{others}{name}_bucket{{le=\"0.001\"}} 5\n{name}_bucket{{le=\"+Inf\"}} 5\n{name}_sum 0.003\n{name}_count 5\n"
    );
    assert!(text.len() > 128 << 10);
    fs::write(folder.path().join("page.prom"), text).expect("it is writable");
    let ended = detkv_sim_in(folder.path(), &["run", "quick.toml", "--seed", "1"]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
}

#[test]
fn a_mistake_in_a_variant_or_on_the_command_line_is_named() {
    let folder = folder("\n[variant.slow]\nduratoin = \"1s\"\n");
    let ended = detkv_sim_in(folder.path(), &["run", "quick.toml:slow", "--seed", "1"]);
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    assert!(ended.err.contains("quick.toml:11:1: unknown field `duratoin`"), "{}", ended.err);
    assert!(ended.err.contains("(variant slow)"), "{}", ended.err);
    for (set, named) in [
        ("disk.parallel=1", "unknown field `parallel`"),
        ("disk", "expected KEY=VALUE"),
        ("disk.model=none.prom", "expected a Prometheus text file"),
    ] {
        let ended = detkv_sim(&["run", "slow-disk", "--seed", "1", "--set", set]);
        assert_eq!(ended.code, Some(2), "{}", ended.err);
        assert!(ended.err.contains(named) && ended.err.contains("--set"), "{}", ended.err);
    }
}

#[test]
fn list_names_every_scenario() {
    let ended = detkv_sim(&["list"]);
    assert_eq!(ended.code, Some(0));
    for name in ["slow-disk ", "slow-disk-long ", "smoke ", "crash-storm "] {
        assert!(ended.out.contains(name), "{}", ended.out);
    }
}

#[test]
fn a_run_prints_the_seed_first_and_how_to_repeat_it_last() {
    let folder = folder("");
    let args = [
        "run",
        "quick.toml",
        "--seed",
        "5",
        "--json",
        "r.json",
        "--trace",
        "t.jsonl",
        "--report",
        "p.html",
    ];
    let ended = detkv_sim_in(folder.path(), &args);
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
    assert_eq!(ended.out.lines().nth(1), Some("seed 5"));
    let last: Vec<&str> = ended.out.lines().rev().take(2).collect();
    assert_eq!(last[1], "PASS decoupled");
    assert!(last[0].ends_with("run quick.toml --seed 5"), "{}", last[0]);

    let text = |name: &str| fs::read_to_string(folder.path().join(name)).expect("it was written");
    let summary: RunSummary = serde_json::from_str(&text("r.json")).expect("one run, one object");
    assert_eq!((summary.seed, summary.profile.as_str()), (5, "decoupled"));
    assert!(text("p.html").contains("<!doctype html") || text("p.html").contains("<!DOCTYPE html"));
    for line in text("t.jsonl").lines() {
        serde_json::from_str::<serde_json::Value>(line).expect("one JSON value per line");
    }
}

#[test]
fn the_page_goes_to_out_by_default() {
    let folder = folder("");
    let ended = detkv_sim_in(folder.path(), &["run", "quick.toml", "--seed", "5"]);
    assert!(ended.out.contains("page out/quick-5.html"), "{}", ended.out);
    assert!(folder.path().join("out/quick-5.html").is_file());
}

#[test]
fn a_failed_expectation_exits_1_and_says_what_was_expected() {
    let folder = folder("\n[expect.both]\nputs_ok = { min = 1000000 }\n");
    let ended = detkv_sim_in(folder.path(), &["run", "quick.toml", "--seed", "5"]);
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    assert!(ended.out.contains("expected at least 1000000"), "{}", ended.out);
    assert!(ended.out.contains("FAIL decoupled"), "{}", ended.out);
    let ended = detkv_sim_in(folder.path(), &["sweep", "quick.toml", "--seeds", "5..7"]);
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    assert!(ended.out.contains("2 of 2 runs failed"), "{}", ended.out);
}

#[test]
fn shards_of_a_sweep_run_each_seed_once() {
    let folder = folder("");
    let mut seeds = Vec::new();
    for shard in ["1/2", "2/2"] {
        let args = [
            "sweep",
            "quick.toml",
            "--seeds",
            "0..5",
            "--shard",
            shard,
            "--json",
            "s.json",
            "--jobs",
            "2",
        ];
        let ended = detkv_sim_in(folder.path(), &args);
        assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
        let text = fs::read_to_string(folder.path().join("s.json")).expect("it was written");
        let runs: Vec<RunSummary> = serde_json::from_str(&text).expect("an array");
        seeds.extend(runs.iter().map(|run| run.seed));
    }
    seeds.sort_unstable();
    assert_eq!(seeds, [0, 1, 2, 3, 4]);
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_detkv-sim"))
        .arg("list")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary is built");
    drop(child.stdout.take());
    child.wait().expect("it ends");
    let mut said = String::new();
    let mut stderr = child.stderr.take().expect("it is piped");
    stderr.read_to_string(&mut said).expect("it is text");
    assert_eq!(said, "");
}
