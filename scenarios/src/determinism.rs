//! Proof of determinism: the same run in two processes that share nothing but the seed.
//!
//! Process A is plain; process B has other addresses, environment, heap and working directory (rules 25);
//! a third is built otherwise (release beside debug) when there is such a binary.

use std::path::{Path, PathBuf};
use std::process::Command;

use detkv_sim_world::trace::first_difference;

use crate::child::{Job, Surroundings, spawn};

/// Two processes gave different runs.
#[derive(Debug)]
pub struct Difference {
    pub seed: u64,
    pub lines: Vec<String>,
}

/// Runs `job` in every way and compares the event hashes.
///
/// Errors: a process crashed.
pub fn check(binary: &Path, other: Option<&Path>, job: &Job) -> anyhow::Result<Option<Difference>> {
    let plain = Job { surroundings: Surroundings::Plain, ..job.clone() };
    let shaken = Job { surroundings: Surroundings::Shaken, ..job.clone() };
    let a = spawn(binary, &plain)?;
    let mut others = vec![("shaken process", binary, &shaken)];
    if let Some(other) = other {
        others.push(("other build", other, &plain));
    }
    for (name, other, other_job) in others {
        let b = spawn(other, other_job)?;
        let Some(range) = first_difference(&a.trace.summary(), &b.trace.summary()) else {
            continue;
        };
        // Once more, with the events around the difference in full.
        let a = spawn(binary, &Job { full: range.clone(), ..plain.clone() })?;
        let b = spawn(other, &Job { full: range.clone(), ..other_job.clone() })?;
        let differ = first_that_differs(&a.trace.lines, &b.trace.lines);
        let mut lines = vec![format!(
            "{} seed {} {}: plain process {}, {name} {}",
            job.scenario, job.seed, job.profile, a.trace.event_hash, b.trace.event_hash
        )];
        match differ {
            Some((a, b)) => {
                lines.push("first event that differs:".to_owned());
                let from = common_letters(a, b);
                lines.push(format!("  plain: {}", excerpt(a, from)));
                lines.push(format!("  other: {}", excerpt(b, from)));
            }
            None => lines.push(format!(
                "they differ between events {} and {}, and not in the same way twice",
                range.start, range.end
            )),
        }
        return Ok(Some(Difference { seed: job.seed, lines }));
    }
    Ok(None)
}

/// The first pair that is not equal; where one run has ended, what it says is that.
fn first_that_differs<'l>(a: &'l [String], b: &'l [String]) -> Option<(&'l str, &'l str)> {
    const OVER: &str = "no event: the run is over";
    let line = |lines: &'l [String], at: usize| lines.get(at).map_or(OVER, String::as_str);
    let all = (0..a.len().max(b.len())).map(|at| (line(a, at), line(b, at)));
    all.into_iter().find(|(a, b)| a != b)
}

fn common_letters(a: &str, b: &str) -> usize {
    // Hashes differ wherever payloads do: what is looked for lies behind them.
    let payload = |line: &str| line.find(" bytes: ").map_or(0, |at| at + 8);
    let (from_a, from_b) = (payload(a), payload(b));
    let same = a[from_a..].chars().zip(b[from_b..].chars()).take_while(|(a, b)| a == b);
    same.map(|(a, _)| a.len_utf8()).sum()
}

/// Letters of the payload shown before and behind the first difference.
const SHOWN: (usize, usize) = (60, 140);

/// An event's line with the part of its payload around the difference.
fn excerpt(line: &str, differs_at: usize) -> String {
    let Some(at) = line.find(" bytes: ") else { return line.to_owned() };
    let (head, payload) = line.split_at(at + 8);
    let from = payload.floor_char_boundary(differs_at.saturating_sub(SHOWN.0));
    let to = payload.floor_char_boundary(differs_at.saturating_add(SHOWN.1).min(payload.len()));
    let (before, behind) =
        (if from > 0 { "…" } else { "" }, if to < payload.len() { "…" } else { "" });
    format!("{head}{before}{}{behind}", &payload[from..to])
}

/// Fingerprint of the sources this binary was built from (see `build.rs`).
pub const SOURCES: &str = env!("DETKV_SOURCES");

/// Whether `binary` was built from the same sources as this one: only then its runs can be compared.
pub fn has_same_sources(binary: &Path) -> bool {
    let said = Command::new(binary).arg("sources").output();
    said.is_ok_and(|said| said.stdout.trim_ascii() == SOURCES.as_bytes())
}

/// The binary built with the other profile: `target/debug` beside `target/release`.
pub fn sibling(binary: &Path) -> Option<PathBuf> {
    let (name, dir) = (binary.file_name()?, binary.parent()?);
    let other = match dir.file_name()?.to_str()? {
        "release" => "debug",
        "debug" => "release",
        _ => return None,
    };
    Some(dir.parent()?.join(other).join(name)).filter(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_payload_is_shown_around_its_first_difference() {
        let line = |end: &str| {
            format!("event 7 at 9 ns, node 1: Frame, hash 00, 500 bytes: {}{end}", "x".repeat(300))
        };
        let (a, b) = (line("first"), line("second"));
        let from = common_letters(&a, &b);
        let shown = excerpt(&a, from);
        assert!(shown.starts_with("event 7 at 9 ns, node 1: Frame") && shown.ends_with("xfirst"));
        assert!(shown.len() < 140, "{shown}");
    }

    #[test]
    fn a_run_that_ends_early_differs_where_it_ends() {
        let lines = |n: usize| (0..n).map(|n| n.to_string()).collect::<Vec<String>>();
        let (long, short) = (lines(3), lines(2));
        assert_eq!(first_that_differs(&long, &short), Some(("2", "no event: the run is over")));
        assert_eq!(first_that_differs(&long, &long), None);
    }
}
