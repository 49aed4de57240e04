//! The scenarios that come with the binary, and those in files.

use anyhow::{Context as _, anyhow};

use crate::child::scenario_name;
use crate::scenario::Scenario;
use crate::swarm;

/// Name and text of every committed scenario, in the order of `list`.
const COMMITTED: [(&str, &str); 4] = [
    ("slow-disk", include_str!("../slow-disk.toml")),
    ("slow-disk-long", include_str!("../slow-disk-long.toml")),
    ("smoke", include_str!("../smoke.toml")),
    ("crash-storm", include_str!("../crash-storm.toml")),
];

/// A scenario with where it came from.
#[derive(Clone, Debug)]
pub struct Source {
    /// As the user named it.
    pub given: String,
    pub path: String,
    pub text: String,
    pub scenario: Scenario,
}

/// Finds a scenario by name, or reads the file when the name ends in `.toml`.
///
/// Errors: no such scenario or file, or a mistake in it with its place. All are the user's (exit code 2).
pub fn find(given: &str) -> anyhow::Result<Source> {
    let committed = COMMITTED.iter().find(|(name, _)| *name == given);
    let (path, text) = match committed {
        Some((name, text)) => (format!("scenarios/{name}.toml"), (*text).to_owned()),
        None if given.ends_with(".toml") => {
            let text = std::fs::read_to_string(given);
            (given.to_owned(), text.with_context(|| format!("cannot read {given}"))?)
        }
        None => {
            let names: Vec<&str> = COMMITTED.iter().map(|(name, _)| *name).collect();
            return Err(anyhow!(
                "no scenario {given:?}: expected one of {}, or a file ending in .toml",
                names.join(", ")
            ));
        }
    };
    let scenario = Scenario::parse(&scenario_name(given), &path, &text)?;
    Ok(Source { given: given.to_owned(), path, text, scenario })
}

/// As [`find`]; `swarm` is what is drawn from `seed`.
pub fn for_seed(given: &str, seed: u64) -> anyhow::Result<Source> {
    if given == swarm::NAME { swarm::source(seed) } else { find(given) }
}

/// All committed scenarios.
pub fn all() -> anyhow::Result<Vec<Source>> {
    COMMITTED.iter().map(|(name, _)| find(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_committed_scenario_is_right() {
        assert_eq!(all().expect("they parse").len(), COMMITTED.len());
    }

    #[test]
    fn the_vocabulary_in_the_readme_is_a_right_scenario() {
        let readme = include_str!("../README.md");
        let (_, block) = readme.split_once("```toml\n").expect("the README shows the vocabulary");
        let (block, _) = block.split_once("```").expect("the block ends");
        let scenario = Scenario::parse("readme", "README.md", block).expect("it parses");
        assert_eq!((scenario.workloads.len(), scenario.faults.len()), (4, 1));
    }

    #[test]
    fn every_file_in_the_folder_is_committed_and_listed() {
        let mut files: Vec<String> = std::fs::read_dir(env!("CARGO_MANIFEST_DIR"))
            .expect("our own folder")
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.ends_with(".toml") && name != "Cargo.toml")
            .collect();
        files.sort();
        let mut listed: Vec<String> =
            COMMITTED.iter().map(|(name, _)| format!("{name}.toml")).collect();
        listed.sort();
        assert_eq!(files, listed);
    }
}
