//! The scenarios that come with the binary, and those in files.

use std::path::Path;

use anyhow::{Context as _, anyhow};

use crate::child::scenario_name;
use crate::scenario::Scenario;
use crate::swarm;
use crate::variant;

/// Name and text of every committed scenario, in the order of `list`.
const COMMITTED: [(&str, &str); 16] = [
    ("slow-disk", include_str!("../slow-disk.toml")),
    ("slow-disk-long", include_str!("../slow-disk-long.toml")),
    ("minority-leader", include_str!("../minority-leader.toml")),
    ("leader-storm", include_str!("../leader-storm.toml")),
    ("watch-starvation", include_str!("../watch-starvation.toml")),
    ("snapshot-transfer", include_str!("../snapshot-transfer.toml")),
    ("quota", include_str!("../quota.toml")),
    ("disk-full", include_str!("../disk-full.toml")),
    ("smoke", include_str!("../smoke.toml")),
    ("crash-storm", include_str!("../crash-storm.toml")),
    ("every-fault", include_str!("../every-fault.toml")),
    ("throughput", include_str!("../throughput.toml")),
    ("put-latency", include_str!("../put-latency.toml")),
    ("get-latency", include_str!("../get-latency.toml")),
    ("watch-latency", include_str!("../watch-latency.toml")),
    ("membership", include_str!("../membership.toml")),
];

/// What the swarm found, as small as it gets: see `tests/repro.rs` for the seeds.
const REPROS: [(&str, &str); 16] = [
    ("repro/forgotten-vote", include_str!("../repro/forgotten-vote.toml")),
    ("repro/full-log-disk", include_str!("../repro/full-log-disk.toml")),
    ("repro/lead-to-a-laggard", include_str!("../repro/lead-to-a-laggard.toml")),
    ("repro/left-the-lease", include_str!("../repro/left-the-lease.toml")),
    ("repro/let-go", include_str!("../repro/let-go.toml")),
    ("repro/long-append", include_str!("../repro/long-append.toml")),
    ("repro/missed-join", include_str!("../repro/missed-join.toml")),
    ("repro/read-storm", include_str!("../repro/read-storm.toml")),
    ("repro/removed-leader", include_str!("../repro/removed-leader.toml")),
    ("repro/second-snapshot", include_str!("../repro/second-snapshot.toml")),
    ("repro/second-voter", include_str!("../repro/second-voter.toml")),
    ("repro/slow-readout", include_str!("../repro/slow-readout.toml")),
    ("repro/stale-frames", include_str!("../repro/stale-frames.toml")),
    ("repro/tiny-appends", include_str!("../repro/tiny-appends.toml")),
    ("repro/torn-by-a-full-disk", include_str!("../repro/torn-by-a-full-disk.toml")),
    ("repro/whose-delete", include_str!("../repro/whose-delete.toml")),
];

/// Histograms of real disks that come with the binary, as scenarios name them.
const INCIDENTS: [(&str, &str); 5] = [
    ("incidents/etcd-7312.prom", include_str!("../incidents/etcd-7312.prom")),
    ("incidents/etcd-9407.prom", include_str!("../incidents/etcd-9407.prom")),
    ("incidents/etcd-9544.prom", include_str!("../incidents/etcd-9544.prom")),
    ("incidents/etcd-10273-hdd.prom", include_str!("../incidents/etcd-10273-hdd.prom")),
    (
        "incidents/etcd-12405-slow-member.prom",
        include_str!("../incidents/etcd-12405-slow-member.prom"),
    ),
];

/// A scenario with where it came from.
#[derive(Clone, Debug)]
pub struct Source {
    /// As the user named it, `--set`s included: what follows `run` to repeat it.
    pub given: String,
    pub path: String,
    /// With variant and `--set`s merged in.
    pub text: String,
    pub scenario: Scenario,
}

/// Finds a scenario by name, or reads the file when the name ends in `.toml`; `FILE.toml:VARIANT` is a variant of it.
/// Then applies `sets` (see [`variant::set`]) in order.
///
/// Errors: no such scenario or file, or a mistake in it with its place. All are the user's (exit code 2).
pub fn find(given: &str, sets: &[String]) -> anyhow::Result<Source> {
    let Found { name, path, text, variant } = locate(given)?;
    let read = |file: &str| read_file(&path, file);
    let mut scenario = Scenario::parse(&name, &path, &text, &read)?;
    // Each of them is read too: a mistake in a variant shows when the file is first used.
    for other in variant::names(&text) {
        let own = format!("{name}-{other}");
        let parsed = Scenario::parse(&own, &path, &variant::of(&text, &other), &read)
            .map_err(|error| variant::error_in(&path, &text, &other, error))?;
        if Some(&other) == variant.as_ref() {
            scenario = parsed;
        }
    }
    let mut text = variant.map_or(text.clone(), |variant| variant::of(&text, &variant));
    let mut given = given.to_owned();
    for assignment in sets {
        text = variant::set(&text, assignment).map_err(|why| anyhow!("--set {why}"))?;
        scenario = Scenario::parse(&scenario.name, &path, &text, &read).map_err(|error| {
            let is_elsewhere = error.path != path;
            let what = if is_elsewhere { error.to_string() } else { error.message };
            anyhow!("--set {assignment}: {what}")
        })?;
        given += &format!(" --set '{assignment}'");
    }
    Ok(Source { given, path, text, scenario })
}

struct Found {
    name: String,
    path: String,
    text: String,
    variant: Option<String>,
}

fn locate(given: &str) -> anyhow::Result<Found> {
    let committed = COMMITTED.iter().chain(&REPROS).find_map(|(name, text)| {
        let rest = given.strip_prefix(name)?;
        let variant = match rest.strip_prefix('-') {
            None if rest.is_empty() => None,
            Some(variant) if variant::names(text).iter().any(|name| name == variant) => {
                Some(variant.to_owned())
            }
            _ => return None,
        };
        let (path, text) = (format!("scenarios/{name}.toml"), (*text).to_owned());
        Some(Found { name: (*name).to_owned(), path, text, variant })
    });
    if let Some(found) = committed {
        return Ok(found);
    }
    let (path, variant) = match given.split_once(".toml:") {
        Some((stem, variant)) => (format!("{stem}.toml"), Some(variant.to_owned())),
        None => (given.to_owned(), None),
    };
    if !path.ends_with(".toml") {
        return Err(anyhow!(
            "no scenario {given:?}: expected one of {}, or a file ending in .toml",
            names().join(", ")
        ));
    }
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    if let Some(variant) = &variant
        && !variant::names(&text).contains(variant)
    {
        let names = variant::names(&text);
        return Err(anyhow!("{path} has no variant {variant:?}: expected one of {names:?}"));
    }
    Ok(Found { name: scenario_name(&path), path, text, variant })
}

/// The text of a histogram that comes with the binary.
pub fn read_incident(file: &str) -> Result<String, String> {
    read_file("", file)
}

/// The text of a file that the scenario at `path` names: beside it, or one that comes with the binary.
fn read_file(path: &str, file: &str) -> Result<String, String> {
    let beside = Path::new(path).parent().unwrap_or(Path::new("")).join(file);
    let committed = INCIDENTS.iter().find(|(name, _)| *name == file);
    match (std::fs::read_to_string(beside), committed) {
        (Ok(text), None) => Ok(text),
        (_, Some((_, text))) => Ok((*text).to_owned()),
        (Err(error), None) => Err(error.to_string()),
    }
}

/// Every committed scenario's name, each followed by its variants.
pub fn names() -> Vec<String> {
    let own = |(name, text): &(&str, &str)| {
        let variants = variant::names(text).into_iter().map(|variant| format!("{name}-{variant}"));
        [(*name).to_owned()].into_iter().chain(variants.collect::<Vec<_>>())
    };
    COMMITTED.iter().flat_map(own).collect()
}

/// As [`find`]; `swarm` is what is drawn from `seed`.
pub fn for_seed(given: &str, sets: &[String], seed: u64) -> anyhow::Result<Source> {
    if given == swarm::NAME { swarm::source(seed) } else { find(given, sets) }
}

/// Whether a committed name is that of a variant.
pub fn is_variant(name: &str) -> bool {
    COMMITTED.iter().all(|(committed, _)| *committed != name)
}

/// Names of what the swarm found.
pub fn repros() -> impl Iterator<Item = &'static str> {
    REPROS.iter().map(|(name, _)| *name)
}

/// The committed scenarios, without their variants and what the swarm found.
pub fn own() -> anyhow::Result<Vec<Source>> {
    COMMITTED.iter().map(|(name, _)| find(name, &[])).collect()
}

/// Everything that is committed: scenarios, their variants, what the swarm found.
pub fn all() -> anyhow::Result<Vec<Source>> {
    let names = names().into_iter().chain(repros().map(str::to_owned));
    names.map(|name| find(&name, &[])).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_committed_scenario_is_right() {
        assert_eq!(own().expect("they parse").len(), COMMITTED.len());
        let all = all().expect("they parse");
        assert_eq!(all.len(), names().len() + REPROS.len());
        let variants = names().iter().filter(|name| is_variant(name)).count();
        assert!(variants > 0 && names().len() == COMMITTED.len() + variants);
        // The name of a scenario leads to it.
        let given: Vec<&str> = all.iter().map(|source| source.given.as_str()).collect();
        assert!(given.contains(&"slow-disk-etcd-7312") && given.contains(&"repro/missed-join"));
    }

    #[test]
    fn the_vocabulary_in_the_readme_is_a_right_scenario() {
        let block = crate::readme::vocabulary();
        let parse = |text: &str| Scenario::parse("readme", "README.md", text, &read_incident);
        let scenario = parse(block).expect("it parses");
        assert_eq!((scenario.workloads.len(), scenario.faults.len()), (13, 1));
        parse(&variant::of(block, "hdd")).expect("its variant parses");
    }

    #[test]
    fn every_file_in_the_folder_is_committed_and_listed() {
        let files = |folder: &str| -> BTreeSet<String> {
            std::fs::read_dir(format!("{}/{folder}", env!("CARGO_MANIFEST_DIR")))
                .expect("our own folder")
                .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                .filter(|name| name.ends_with(".toml") && name != "Cargo.toml")
                .map(|name| format!("{folder}{name}"))
                .collect()
        };
        let listed = |list: &[(&str, &str)]| -> BTreeSet<String> {
            list.iter().map(|(name, _)| format!("{name}.toml")).collect()
        };
        assert_eq!(files(""), listed(&COMMITTED));
        assert_eq!(files("repro/"), listed(&REPROS));
    }
}
