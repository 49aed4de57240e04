//! What each command does, and says.
//!
//! `one` is `run`, `many` the commands over seeds, `pages` those that compare and write a page,
//! `determinism` what checks that equal seeds give equal runs.

mod determinism;
mod many;
mod one;
mod pages;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use crate::child::{Job, Surroundings};
use crate::cli::Command;
use crate::library::{self, Source};
use crate::scenario::Profile;
use crate::{faults, figures, swarm, sweep};

/// How the program ends, when it ends well enough to say so.
pub enum End {
    Pass,
    Fail,
    Nondeterminism,
}

pub enum Failure {
    /// The user's mistake.
    Usage(anyhow::Error),
    /// A run crashed, or a result could not be written.
    Run(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure::Run(error)
    }
}

pub fn dispatch(command: Command) -> Result<End, Failure> {
    match command {
        Command::Run { scenario, set, seed, profile, json, trace, history, report } => {
            let source = library::for_seed(&scenario, &set, seed).map_err(Failure::Usage)?;
            Ok(one::run(&source, seed, profile, &one::Outputs { json, trace, history, report })?)
        }
        Command::List => Ok(list()?),
        Command::Faults { json } => {
            if json {
                println!("{}", faults::json().context("cannot write the list")?);
            } else {
                print!("{}", faults::table());
            }
            Ok(End::Pass)
        }
        Command::Table { scenarios, seeds, jobs, report, json } => {
            pages::table(&scenarios, seeds, parallel(jobs), &report, json.as_deref())
        }
        Command::Baseline { update, dir, jobs } => {
            Ok(pages::baseline(&dir, update, parallel(jobs))?)
        }
        Command::Incidents { hours, jobs, report, json } => {
            Ok(pages::incidents(hours, parallel(jobs), &report, json.as_deref())?)
        }
        Command::Figures => {
            let figures = figures::FIGURES.iter();
            figures.for_each(|figure| println!("{:<30}{}", figure.name, figure.what));
            Ok(End::Pass)
        }
        Command::Sweep { scenario, set, seeds, profile, jobs, shard, json } => {
            let source = library::find(&scenario, &set).map_err(Failure::Usage)?;
            let seeds = match shard {
                Some((part, of)) => sweep::shard(seeds, part, of),
                None => seeds.collect(),
            };
            Ok(many::sweep(&source, &seeds, profile, jobs, json.as_deref())?)
        }
        Command::Swarm { seeds, jobs, shard, report, json, require_marks } => {
            let seeds = match shard {
                Some((part, of)) => sweep::shard(seeds, part, of),
                None => seeds.collect(),
            };
            Ok(many::swarm(&seeds, jobs, &report, json.as_deref(), require_marks)?)
        }
        Command::CheckDeterminism { scenario, set, seeds, profile, jobs, other_binary } => {
            let other = determinism::other_build(other_binary).map_err(Failure::Usage)?;
            let list =
                determinism::jobs(&scenario, &set, &seeds, profile).map_err(Failure::Usage)?;
            Ok(determinism::check(&scenario, seeds, &list, jobs, other)?)
        }
        Command::Draw { seed } => {
            print!("{}", swarm::draw(seed).text);
            Ok(End::Pass)
        }
        Command::LeakZoo => Ok(determinism::leak_zoo()?),
        Command::Child => {
            crate::child::child_main()?;
            Ok(End::Pass)
        }
        Command::Sources => {
            println!("{}", crate::determinism::SOURCES);
            Ok(End::Pass)
        }
    }
}

fn list() -> anyhow::Result<End> {
    for Source { scenario, .. } in library::own()? {
        let profiles: Vec<String> = scenario.profiles.iter().map(ToString::to_string).collect();
        println!("{:<18}{} ({})", scenario.name, scenario.about, profiles.join(", "));
    }
    let names = library::names();
    let variants: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| library::is_variant(name)).collect();
    println!("variants: {}", variants.join(", "));
    println!("found by the swarm: {}", library::repros().collect::<Vec<_>>().join(", "));
    Ok(End::Pass)
}

fn profiles(source: &Source, only: Option<Profile>) -> Vec<Profile> {
    only.map_or_else(|| source.scenario.profiles.clone(), |profile| vec![profile])
}

fn job(source: &Source, seed: u64, profile: Profile) -> Job {
    Job {
        scenario: source.given.clone(),
        path: source.path.clone(),
        text: source.text.clone(),
        name: source.scenario.name.clone(),
        files: source.scenario.files.clone(),
        seed,
        profile,
        with_timeline: false,
        trace_file: None,
        history_dir: None,
        full: 0..0,
        surroundings: Surroundings::Plain,
        wall_secs_max: 0,
        leak: None,
    }
}

fn this_binary() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find this program's own file")
}

/// Processes at a time.
fn parallel(jobs: Option<u32>) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    jobs.map_or_else(cores, |jobs| jobs as usize)
}

fn write_json(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    write_file(path, text.as_bytes())
}

fn write_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
