//! `detkv-sim swarm`: many seeds, each a run of its own making.
//!
//! ```text
//! seed ─draw─▶ scenario text ─child process─▶ report ─┬─▶ failures by signature, each with its line
//!                                                    └─▶ options, marks, in-code faults: what was tried
//! ```
//! Each run has two phases: faults everywhere, then none, and the cluster must be whole again in bounded
//! virtual time (`run`).

mod draw;
mod loads;
mod models;
mod outcome;
mod situations;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use detkv_reports::run::{EXCUSED, RunSummary, Verdict};

pub use draw::{Drawn, draw};
pub use outcome::{Outcome, Totals};

use crate::child::{Job, Surroundings, spawn};
use crate::library::{Source, read_incident};
use crate::scenario::Scenario;
use crate::sweep::{in_parallel, reasons};

/// What `run` and `check-determinism` call a drawn scenario.
pub const NAME: &str = "swarm";

/// A run that takes longer than this on the wall hangs.
const WALL_SECS_MAX: u32 = 120;

/// The scenario of run `seed`.
///
/// Errors: the draw made a file that is no scenario: a mistake of ours.
pub fn source(seed: u64) -> anyhow::Result<Source> {
    source_of(seed, draw(seed))
}

fn source_of(seed: u64, drawn: Drawn) -> anyhow::Result<Source> {
    let path = format!("{NAME} run {seed}");
    let scenario = Scenario::parse(NAME, &path, &drawn.text, &read_incident)
        .with_context(|| format!("drawn from seed {seed}:\n{}", drawn.text))?;
    Ok(Source { given: NAME.to_owned(), path, text: drawn.text, scenario })
}

/// Runs every seed in a process of its own.
pub fn swarm(binary: &Path, seeds: &[u64], parallel: usize) -> anyhow::Result<Totals> {
    let started = Instant::now();
    let outcomes = in_parallel(seeds, parallel, |seed| one(binary, *seed));
    let mut totals = Totals::default();
    for outcome in outcomes {
        totals.add(outcome?);
    }
    totals.wall_ms = started.elapsed().as_millis() as u64;
    Ok(totals)
}

fn one(binary: &Path, seed: u64) -> anyhow::Result<Outcome> {
    let drawn = draw(seed);
    let options = drawn.options.clone();
    let source = source_of(seed, drawn)?;
    let profile = source.scenario.profiles[0];
    let job = Job {
        name: source.scenario.name,
        files: source.scenario.files,
        scenario: source.given,
        path: source.path,
        text: source.text,
        seed,
        profile,
        with_timeline: false,
        trace_file: None,
        history_dir: None,
        full: 0..0,
        surroundings: Surroundings::Plain,
        wall_secs_max: WALL_SECS_MAX,
        leak: None,
    };
    let excused = |run: &RunSummary| {
        let all = run.checkers.values();
        all.filter(|verdict| verdict.starts_with(EXCUSED)).cloned().collect()
    };
    let started = Instant::now();
    let ended = spawn(binary, &job);
    let wall = started.elapsed();
    Ok(match ended {
        Ok(child) => {
            let run = &child.report.summary;
            let failures = if run.verdict == Verdict::Fail { reasons(run) } else { Vec::new() };
            Outcome {
                seed,
                options,
                failures,
                excused: excused(run),
                probes: child.probes,
                virtual_time: Duration::from_millis(run.virtual_ms),
                calls: run.puts_ok + run.puts_failed,
                wall,
                reproduce: job.reproduce(),
            }
        }
        Err(crash) => Outcome {
            seed,
            options,
            failures: vec![format!("crash: {crash}")],
            wall,
            reproduce: job.reproduce(),
            ..Outcome::default()
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use detkv_sim_world::Fault;

    use super::*;

    #[test]
    fn every_draw_is_a_right_scenario_and_equal_seeds_draw_equally() {
        for seed in 0..300 {
            source(seed).expect("drawn scenarios parse");
            assert_eq!(draw(seed), draw(seed));
        }
    }

    #[test]
    fn every_fault_and_every_workload_is_drawn() {
        let (mut kinds, mut texts) = (BTreeSet::new(), String::new());
        for seed in 0..600 {
            let drawn = draw(seed);
            let faults = drawn
                .options
                .into_iter()
                .filter(|(name, _)| name == "fault" || name == "lying disk");
            kinds.extend(faults.map(|(_, kind)| kind));
            texts.push_str(&drawn.text);
        }
        for kind in Fault::KINDS {
            assert!(kinds.contains(kind.name), "{} is never drawn", kind.name);
        }
        assert!(kinds.contains("none"));
        // The error of a wrong name lists all right ones.
        let wrong = "about = \"\"\nprofiles = [\"coupled\"]\nduration = \"1s\"\n";
        for (section, key) in [("[[workload]]\nkind = \"no\"", "kind = \"")] {
            for name in names_in_error(&format!("{wrong}{section}\n")) {
                let is_drawn = texts.contains(&format!("{key}{name}\""));
                assert!(is_drawn || LEFT_OUT.contains(&name.as_str()), "{name} is never drawn");
            }
        }
        for section in
            ["no = 1", "[member]\nno = 1", "[disk]\nno = 1", "[net]\nno = 1", "[cpu]\nno = 1"]
        {
            for name in names_in_error(&format!("{wrong}{section}\n")) {
                let is_drawn = texts.contains(&format!("{name} = "))
                    || ["[[", "[", "."].iter().any(|before| {
                        ["]", "."]
                            .iter()
                            .any(|after| texts.contains(&format!("{before}{name}{after}")))
                    });
                assert!(is_drawn || LEFT_OUT.contains(&name.as_str()), "{name} is never drawn");
            }
        }
    }

    /// Options that the swarm leaves as they are, with the reason.
    const LEFT_OUT: [&str; 4] = [
        // Steps that somebody thought of.
        "script", // What somebody expects of it, shows of it, makes of it.
        "expect", "show", "variant",
    ];

    /// What `expected one of` lists.
    fn names_in_error(text: &str) -> Vec<String> {
        let error = Scenario::parse("t", "t.toml", text, &read_incident)
            .expect_err("the name is wrong")
            .message;
        let (_, expected) = error.split_once("expected").expect("the error says what was expected");
        let names: Vec<String> =
            expected.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        assert!(names.len() > 2, "{error}");
        names
    }

    #[test]
    fn only_a_minority_is_expendable() {
        // Faults that take durable bytes name their member: the same minority in the whole run.
        for seed in 0..200 {
            let drawn = source(seed).expect("drawn scenarios parse");
            assert!(drawn.scenario.faults.len() <= 26);
        }
    }
}
