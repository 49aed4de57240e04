//! Runs the `detkv-sim` binary: every run of a scenario is a process of its own.
#![allow(dead_code, reason = "each test file uses its part")]

use std::ops::Range;
use std::process::{Command, Output};

use detkv_reports::run::{RunSummary, Verdict};

/// The outcome of one command, text and exit code.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

pub fn detkv_sim(args: &[&str]) -> Ended {
    let folder = tempfile::tempdir().expect("a temporary folder");
    detkv_sim_in(folder.path(), args)
}

/// Runs in `folder`, where the default page goes.
pub fn detkv_sim_in(folder: &std::path::Path, args: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_detkv-sim"));
    let output: Output =
        command.args(args).current_dir(folder).output().expect("the binary is built");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// The figures of every run of a scenario over `seeds`, all of which must pass.
#[track_caller]
pub fn passing_runs(scenario: &str, profile: &str, seeds: Range<u64>) -> Vec<RunSummary> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let json = folder.path().join("runs.json");
    let json = json.to_str().expect("a UTF-8 path");
    let (count, seeds) = (seeds.end - seeds.start, format!("{}..{}", seeds.start, seeds.end));
    let ended =
        detkv_sim(&["sweep", scenario, "--seeds", &seeds, "--profile", profile, "--json", json]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
    let text = std::fs::read_to_string(json).expect("the figures were written");
    let runs: Vec<RunSummary> = serde_json::from_str(&text).expect("the figures are an array");
    assert_eq!(runs.len() as u64, count);
    assert!(runs.iter().all(|run| run.verdict == Verdict::Pass));
    runs
}
