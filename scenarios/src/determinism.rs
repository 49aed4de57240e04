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
        let differ = a.trace.lines.iter().zip(&b.trace.lines).find(|(a, b)| a != b);
        let mut lines = vec![format!(
            "{} seed {} {}: plain process {}, {name} {}",
            job.scenario, job.seed, job.profile, a.trace.event_hash, b.trace.event_hash
        )];
        match differ {
            Some((a, b)) => {
                lines.push("first event that differs:".to_owned());
                lines.push(format!("  plain: {a}"));
                lines.push(format!("  other: {b}"));
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
