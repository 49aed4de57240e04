//! `check-determinism` and `leak-zoo`.

use std::ops::Range;
use std::path::PathBuf;

use anyhow::bail;

use super::{End, job, parallel, profiles, this_binary};
use crate::child::Job;
use crate::scenario::Profile;
use crate::{determinism, library, sweep, zoo};

/// The program built otherwise: as given, or the one that lies beside.
///
/// Errors: the given one is not there, or is of other sources. One that lies beside is then left out.
pub fn other_build(given: Option<PathBuf>) -> anyhow::Result<Option<PathBuf>> {
    match given {
        Some(path) if !path.is_file() => {
            bail!("--other-binary {}: no such file", path.display())
        }
        Some(path) if !determinism::has_same_sources(&path) => {
            bail!("--other-binary {}: it is built from other sources", path.display())
        }
        Some(path) => Ok(Some(path)),
        None => {
            let beside = determinism::sibling(&this_binary()?);
            if let Some(path) = beside.as_ref().filter(|path| !determinism::has_same_sources(path))
            {
                let path = path.display();
                eprintln!("warning: {path} is built from other sources and is left out");
                return Ok(None);
            }
            Ok(beside)
        }
    }
}

/// Every run to be checked: of one scenario, of `all` that are committed, variants and what the swarm found included, or
/// of the swarm. None is shortened.
pub fn jobs(
    scenario: &str,
    sets: &[String],
    seeds: &Range<u64>,
    only: Option<Profile>,
) -> anyhow::Result<Vec<Job>> {
    let mut list = Vec::new();
    for seed in seeds.clone() {
        let sources = match scenario {
            "all" => library::all()?,
            one => vec![library::for_seed(one, sets, seed)?],
        };
        for source in &sources {
            let own = profiles(source, only);
            list.extend(own.into_iter().map(|profile| job(source, seed, profile)));
        }
    }
    Ok(list)
}

pub fn check(
    scenario: &str,
    seeds: Range<u64>,
    list: &[Job],
    jobs: Option<u32>,
    other: Option<PathBuf>,
) -> anyhow::Result<End> {
    let binary = this_binary()?;
    let builds = match &other {
        Some(path) => format!("this build and {}", path.display()),
        None => "this build only: no other is there".to_owned(),
    };
    println!("{scenario}: seeds {}..{}, {builds}", seeds.start, seeds.end);
    let results = sweep::in_parallel(list, parallel(jobs), |job| {
        determinism::check(&binary, other.as_deref(), job)
    });
    let mut differences = Vec::new();
    for result in results {
        differences.extend(result?);
    }
    for difference in &differences {
        difference.lines.iter().for_each(|line| println!("{line}"));
    }
    let processes = if other.is_some() { 3 } else { 2 };
    if differences.is_empty() {
        println!("PASS {} runs, equal event hashes in {processes} processes each", list.len());
    } else {
        let seeds: Vec<String> = differences.iter().map(|d| d.seed.to_string()).collect();
        println!("FAIL {} of {} runs differ: seeds {}", seeds.len(), list.len(), seeds.join(", "));
    }
    println!(
        "again: cargo run --release --bin detkv-sim -- check-determinism {scenario} --seeds {}..{}",
        seeds.start, seeds.end
    );
    Ok(if differences.is_empty() { End::Pass } else { End::Nondeterminism })
}

pub fn leak_zoo() -> anyhow::Result<End> {
    let (lines, right) = zoo::show(&this_binary()?)?;
    lines.iter().for_each(|line| println!("{line}"));
    let all = zoo::LEAKS.len();
    println!("{} leak zoo: {right}/{all} as stated", if right == all { "PASS" } else { "FAIL" });
    Ok(if right == all { End::Pass } else { End::Fail })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn all_are_the_scenarios_their_variants_and_what_the_swarm_found() {
        let list = jobs("all", &[], &(0..1), None).expect("they are right");
        let checked: BTreeSet<String> = list.iter().map(|job| job.scenario.clone()).collect();
        let names = library::names().into_iter();
        assert_eq!(checked, names.chain(library::repros().map(str::to_owned)).collect());
        let runs = list.iter().filter(|job| job.scenario == "slow-disk-etcd-7312").count();
        assert_eq!(runs, 2, "in both profiles");
    }
}
