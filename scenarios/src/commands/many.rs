//! `sweep` and `swarm`: many seeds, summed up.

use std::path::Path;

use detkv_reports::run::{RunSummary, Verdict};

use super::{End, job, parallel, profiles, this_binary, write_file, write_json};
use crate::child::Job;
use crate::library::Source;
use crate::scenario::Profile;
use crate::{chosen, swarm, sweep};

pub fn sweep(
    source: &Source,
    seeds: &[u64],
    only: Option<Profile>,
    jobs: Option<u32>,
    json: Option<&Path>,
) -> anyhow::Result<End> {
    let profiles = profiles(source, only);
    println!("{}: {}", source.scenario.name, source.scenario.about);
    println!(
        "{} seeds, {} profiles, {} processes at a time",
        seeds.len(),
        profiles.len(),
        parallel(jobs)
    );
    let list: Vec<Job> = seeds
        .iter()
        .flat_map(|seed| profiles.iter().map(|profile| job(source, *seed, *profile)))
        .collect();
    let results = sweep::sweep(&this_binary()?, &list, parallel(jobs));
    let mut failures: Vec<String> = Vec::new();
    for result in &results {
        match result {
            Err(crash) => failures.push(crash.to_string()),
            Ok(run) if run.verdict == Verdict::Fail => {
                failures.push(format!("seed {} {} FAIL", run.seed, run.profile));
                failures
                    .extend(sweep::reasons(run).into_iter().map(|reason| format!("  {reason}")));
                failures.push(format!("  {}", run.reproduce));
            }
            Ok(_) => {}
        }
    }
    let runs: Vec<&RunSummary> = results.iter().flatten().collect();
    for profile in &profiles {
        let name = profile.to_string();
        let own: Vec<&RunSummary> =
            runs.iter().copied().filter(|run| run.profile == name).collect();
        sweep::table(&name, &own).iter().for_each(|line| println!("{line}"));
    }
    if let Some(path) = json {
        write_json(path, &runs)?;
        println!("figures {}", path.display());
    }
    failures.iter().for_each(|line| println!("{line}"));
    let failed = results
        .iter()
        .filter(|result| result.as_ref().map_or(true, |run| run.verdict == Verdict::Fail))
        .count();
    println!(
        "{} {} of {} runs failed",
        if failed == 0 { "PASS" } else { "FAIL" },
        failed,
        results.len()
    );
    let shown = seeds.first().zip(seeds.last()).map(|(first, last)| (first, last + 1));
    if let Some((first, behind)) = shown {
        println!(
            "again: cargo run --release --bin detkv-sim -- sweep {} --seeds {first}..{behind}",
            source.given
        );
    }
    Ok(if failed == 0 { End::Pass } else { End::Fail })
}

pub fn swarm(
    seeds: &[u64],
    jobs: Option<u32>,
    page: &Path,
    json: Option<&Path>,
    require_marks: bool,
) -> anyhow::Result<End> {
    let (first, last) = (seeds[0], seeds[seeds.len() - 1]);
    println!(
        "swarm: {} seeds from {first} to {last}, {} processes at a time; every option is drawn from the seed",
        seeds.len(),
        parallel(jobs)
    );
    let totals = swarm::swarm(&this_binary()?, seeds, parallel(jobs))?;
    totals.lines().iter().for_each(|line| println!("{line}"));
    failed(&totals).iter().for_each(|line| println!("{line}"));
    let again =
        format!("cargo run --release --bin detkv-sim -- swarm --seeds {first}..{}", last + 1);
    let report = totals.report(again.clone());
    write_file(page, detkv_reports::swarm::swarm_page(&report).as_bytes())?;
    println!("page {}", page.display());
    if let Some(path) = json {
        write_json(path, &totals)?;
        println!("figures {}", path.display());
    }
    let unmarked = if require_marks { totals.marks_missing().len() } else { 0 };
    if unmarked > 0 {
        println!("FAIL {unmarked} marks were never passed: nothing tests what they stand for");
    }
    let verdict = if totals.failed == 0 { "PASS" } else { "FAIL" };
    println!("{verdict} {} of {} runs failed", totals.failed, totals.runs);
    println!("again: {again}");
    Ok(if totals.failed == 0 && unmarked == 0 { End::Pass } else { End::Fail })
}

/// Runs whose options are printed; `run swarm --seed` prints those of any.
const FAILED_SHOWN: usize = 20;

/// What each failed run had drawn.
fn failed(totals: &swarm::Totals) -> Vec<String> {
    let failed: Vec<u64> =
        totals.each.iter().filter(|run| run.failed).map(|run| run.seed).collect();
    let shown = failed.iter().take(FAILED_SHOWN).flat_map(|seed| {
        let chosen = chosen::lines(&swarm::draw(*seed).text);
        let chosen = chosen.into_iter().map(|line| format!("    {line}"));
        [format!("  seed {seed} drew")].into_iter().chain(chosen).collect::<Vec<_>>()
    });
    let mut lines: Vec<String> = shown.collect();
    if failed.len() > FAILED_SHOWN {
        lines.push(format!("  and {} more", failed.len() - FAILED_SHOWN));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::{Outcome, Totals};

    #[test]
    fn options_stand_beside_each_failed_run_and_no_other() {
        let mut totals = Totals::default();
        for seed in 0..3 {
            let failures =
                if seed == 1 { vec!["state: hashes differ: here".to_owned()] } else { Vec::new() };
            totals.add(Outcome { seed, failures, ..Outcome::default() });
        }
        let lines = failed(&totals);
        assert_eq!(lines[0], "  seed 1 drew");
        assert!(lines[1].starts_with("    buggify="), "{}", lines[1]);
        assert!(!lines.iter().any(|line| line.contains("seed 0") || line.contains("seed 2")));
    }
}
