//! `run`: one seed, told as a story.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use detkv_reports::run::{RunReport, RunSummary, Verdict};

use super::{End, job, profiles, this_binary, write_file, write_json};
use crate::child::{self, Job};
use crate::library::Source;
use crate::scenario::Profile;
use crate::{chosen, story};

/// Where `run` writes.
pub struct Outputs {
    pub json: Option<PathBuf>,
    pub trace: Option<PathBuf>,
    pub history: Option<PathBuf>,
    pub report: Option<PathBuf>,
}

pub fn run(
    source: &Source,
    seed: u64,
    only: Option<Profile>,
    outputs: &Outputs,
) -> anyhow::Result<End> {
    let binary = this_binary()?;
    let profiles = profiles(source, only);
    println!("{}: {}", source.scenario.name, source.scenario.about);
    println!("seed {seed}");
    chosen::lines(&source.text).iter().for_each(|line| println!("  {line}"));
    let mut reports: Vec<RunReport> = Vec::new();
    for profile in &profiles {
        let trace_file = outputs.trace.as_deref().map(|path| {
            if profiles.len() == 1 { Ok(absolute(path)?) } else { with_profile(path, *profile) }
        });
        let trace_file = trace_file.transpose()?;
        let history_dir = outputs.history.as_deref().map(|path| {
            let folder =
                if profiles.len() == 1 { path.to_owned() } else { path.join(profile.to_string()) };
            absolute(&folder)
        });
        let history_dir = history_dir.transpose()?;
        let job =
            Job { with_timeline: true, trace_file, history_dir, ..job(source, seed, *profile) };
        let child = child::spawn(&binary, &job)?;
        if child.is_randomised {
            eprintln!("warning: addresses are still randomised: this machine refuses to fix them");
        }
        for line in story::story(&child.report) {
            println!("{line}");
        }
        if let Some(path) = job.trace_file {
            println!("  trace {}", path.display());
        }
        if let Some(path) = job.history_dir {
            println!("  history {}", path.display());
        }
        reports.push(child.report);
    }
    write_outputs(source, seed, outputs, &reports)?;
    let mut end = End::Pass;
    for report in &reports {
        let summary = &report.summary;
        println!("{} {}", story::word(summary.verdict), summary.profile);
        if summary.verdict == Verdict::Fail {
            end = End::Fail;
        }
    }
    let only = only.map_or(String::new(), |profile| format!(" --profile {profile}"));
    println!(
        "again: cargo run --release --bin detkv-sim -- run {} --seed {seed}{only}",
        source.given
    );
    Ok(end)
}

fn write_outputs(
    source: &Source,
    seed: u64,
    outputs: &Outputs,
    reports: &[RunReport],
) -> anyhow::Result<()> {
    if let Some(path) = &outputs.json {
        match reports {
            [one] => write_json(path, &one.summary)?,
            several => {
                let all: Vec<&RunSummary> = several.iter().map(|report| &report.summary).collect();
                write_json(path, &all)?;
            }
        }
        println!("figures {}", path.display());
    }
    let default = || PathBuf::from(format!("out/{}-{seed}.html", source.scenario.name));
    let page = outputs.report.clone().unwrap_or_else(default);
    write_file(&page, detkv_reports::page::run_page(reports).as_bytes())?;
    println!("page {}", page.display());
    Ok(())
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{}: no such path", path.display()))
}

/// `t.coupled.json` of `t.json`.
fn with_profile(path: &Path, profile: Profile) -> anyhow::Result<PathBuf> {
    let path = absolute(path)?;
    let extension = path.extension().and_then(|extension| extension.to_str());
    let extension = extension.map_or(profile.to_string(), |old| format!("{profile}.{old}"));
    Ok(path.with_extension(extension))
}
