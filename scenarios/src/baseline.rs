//! Exact figures of the latency scenarios, kept in files that CI compares.
//!
//! A run is a function of its seed, so a figure that moved was moved by a change of the code: the difference
//! is printed, and `--update` makes it the new baseline. One file per scenario; its variants are inside.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use detkv_reports::run::RunSummary;

use crate::child::Job;
use crate::library::{self, Source};
use crate::scenario::Profile;
use crate::sweep::sweep;

/// The scenarios with a baseline.
const SCENARIOS: [&str; 3] = ["put-latency", "get-latency", "watch-latency"];
/// The seed of all baselines. Latencies are constant there; it only decides who leads.
const SEED: u64 = 1;

/// Scenario or variant → profile → figure.
type Baseline = BTreeMap<String, BTreeMap<String, BTreeMap<String, u64>>>;

/// What became of one baseline file.
pub struct Compared {
    pub scenario: &'static str,
    /// Figures that differ, old → new, one line each.
    pub differences: Vec<String>,
    pub figures: usize,
}

/// Runs every baseline scenario and compares with the files in `folder`; rewrites those that differ if `update`.
///
/// Errors: a run crashed, a file is not readable or not writable.
pub fn run(
    binary: &Path,
    folder: &Path,
    update: bool,
    parallel: usize,
    job: impl Fn(&Source, u64, Profile) -> Job,
) -> anyhow::Result<Vec<Compared>> {
    let mut compared = Vec::new();
    for scenario in SCENARIOS {
        let now = measure(binary, scenario, parallel, &job)?;
        let path = folder.join(format!("{scenario}.json"));
        let old = read(&path)?;
        let differences = differences(&old, &now);
        if update && !differences.is_empty() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
            let text = serde_json::to_string_pretty(&now)? + "\n";
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let figures = now.values().flat_map(BTreeMap::values).map(BTreeMap::len).sum();
        compared.push(Compared { scenario, differences, figures });
    }
    Ok(compared)
}

fn measure(
    binary: &Path,
    scenario: &str,
    parallel: usize,
    job: impl Fn(&Source, u64, Profile) -> Job,
) -> anyhow::Result<Baseline> {
    let mut jobs = Vec::new();
    let is_own = |name: &String| {
        name.strip_prefix(scenario).is_some_and(|v| v.is_empty() || v.starts_with('-'))
    };
    for name in library::names().into_iter().filter(is_own) {
        let source = library::find(&name, &[])?;
        jobs.extend(source.scenario.profiles.iter().map(|profile| job(&source, SEED, *profile)));
    }
    let mut baseline = Baseline::new();
    for (result, job) in sweep(binary, &jobs, parallel).into_iter().zip(&jobs) {
        let run = result?;
        let of_scenario = baseline.entry(job.scenario.clone()).or_default();
        of_scenario.insert(run.profile.clone(), shown(&run));
    }
    Ok(baseline)
}

fn shown(run: &RunSummary) -> BTreeMap<String, u64> {
    let figure = |name: &String| Some((name.clone(), *run.figures.get(name)?));
    run.shown.iter().filter_map(figure).collect()
}

/// The baseline in a file; an empty one where there is none.
fn read(path: &Path) -> anyhow::Result<Baseline> {
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).with_context(|| {
            format!("{}: expected scenario → profile → figure → number", path.display())
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Baseline::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Figures flat, by what they are called in the output.
fn flat(baseline: &Baseline) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for (scenario, profiles) in baseline {
        for (profile, figures) in profiles {
            let name = |figure: &String| format!("{scenario} {profile} {figure}");
            all.extend(figures.iter().map(|(figure, value)| (name(figure), *value)));
        }
    }
    all
}

fn differences(old: &Baseline, new: &Baseline) -> Vec<String> {
    let (old, new) = (flat(old), flat(new));
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) if old == new => None,
            (Some(old), Some(new)) => {
                let percent = (*new as f64 / (*old).max(1) as f64 - 1.0) * 100.0;
                Some(format!("{name:<70} {old:>8} → {new:>8}  {percent:+.1} %"))
            }
            (None, Some(new)) => Some(format!("{name:<70}        – → {new:>8}")),
            (Some(old), None) => Some(format!("{name:<70} {old:>8} →        –")),
            (None, None) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(value: u64) -> Baseline {
        let figures = BTreeMap::from([("put_p50_us".to_owned(), value), ("same".to_owned(), 1)]);
        let profiles = BTreeMap::from([("coupled".to_owned(), figures)]);
        BTreeMap::from([("put-latency".to_owned(), profiles)])
    }

    #[test]
    fn what_moved_is_told_with_old_new_and_percent() {
        assert!(differences(&one(100), &one(100)).is_empty());
        let moved = differences(&one(100), &one(90));
        assert_eq!(moved.len(), 1);
        for part in ["put-latency coupled put_p50_us", "100 →", "90", "-10.0 %"] {
            assert!(moved[0].contains(part), "{moved:?}");
        }
        assert_eq!(differences(&Baseline::new(), &one(1)).len(), 2, "a new figure differs");
    }
}
