//! What came of the runs of a swarm: failures by signature, and what was tried.

use std::collections::BTreeMap;
use std::time::Duration;

use detkv_core::probe;
use detkv_reports::swarm::{OptionValue, Probe, SwarmFailure, SwarmOption, SwarmReport, SwarmRun};
use serde::Serialize;

use crate::report::Probes;

/// One run.
#[derive(Clone, Default, Debug)]
pub struct Outcome {
    pub seed: u64,
    /// As drawn.
    pub options: Vec<(String, String)>,
    /// Empty when every checker agreed.
    pub failures: Vec<String>,
    /// What a disk that forgot explains (`excuse`).
    pub excused: Vec<String>,
    pub probes: Probes,
    pub virtual_time: Duration,
    /// Puts, whatever came of them.
    pub calls: u64,
    pub wall: Duration,
    pub reproduce: String,
}

/// All runs.
#[derive(Clone, Default, Debug, Serialize)]
pub struct Totals {
    pub runs: u64,
    pub failed: u64,
    pub wall_ms: u64,
    pub virtual_ms: u64,
    pub puts: u64,
    /// Of the slowest run, with its seed.
    pub slowest: (u64, u64),
    /// In the order of the seeds.
    pub each: Vec<SwarmRun>,
    /// Option → value → (runs, failed ones).
    pub options: BTreeMap<String, BTreeMap<String, (u64, u64)>>,
    /// Mark → (runs that passed it, times).
    pub marks: BTreeMap<String, (u64, u64)>,
    /// In-code fault → (runs in which it was active, times it fired).
    pub sites: BTreeMap<String, (u64, u64)>,
    /// By signature.
    pub failures: BTreeMap<String, Failure>,
    /// Runs with violations that no store could have prevented: a disk took back what was durable.
    pub excused: Vec<u64>,
}

/// Failures that look alike.
#[derive(Clone, Default, Debug, Serialize)]
pub struct Failure {
    pub seeds: Vec<u64>,
    /// Of the first one.
    pub message: String,
    pub reproduce: String,
}

/// From so many runs on every mark is due, the very rare ones too.
const LONG: u64 = 10_000;
/// Seeds listed of one signature.
const SEEDS_SHOWN: usize = 8;
/// Letters of a signature.
const SIGNATURE_MAX: usize = 100;

/// What failures have in common: checker and promise, without numbers.
fn signature(failure: &str) -> String {
    // `checker: promise: message`; the run's own verdicts have no promise.
    let parts: Vec<&str> = failure.splitn(3, ": ").collect();
    let text = match parts[..] {
        ["crash" | "assertions" | "convergence", ..] | [_] => failure.to_owned(),
        [checker, promise, ..] => format!("{checker}: {promise}"),
        [] => String::new(),
    };
    let mut short = String::new();
    for c in text.chars().take_while(|c| *c != '\n') {
        let c = if c.is_ascii_digit() { '#' } else { c };
        if !(c == '#' && short.ends_with('#')) {
            short.push(c);
        }
    }
    short.chars().take(SIGNATURE_MAX).collect()
}

impl Totals {
    pub fn add(&mut self, run: Outcome) {
        self.runs += 1;
        self.virtual_ms += run.virtual_time.as_millis() as u64;
        self.puts += run.calls;
        self.slowest = self.slowest.max((run.wall.as_millis() as u64, run.seed));
        let has_failed = !run.failures.is_empty();
        for (name, value) in run.options {
            let (runs, failed) = self.options.entry(name).or_default().entry(value).or_default();
            (*runs, *failed) = (*runs + 1, *failed + u64::from(has_failed));
        }
        self.each.push(SwarmRun {
            seed: run.seed,
            wall_ms: run.wall.as_millis() as u64,
            virtual_ms: run.virtual_time.as_millis() as u64,
            puts: run.calls,
            failed: has_failed,
        });
        for (into, counts) in
            [(&mut self.marks, run.probes.marks), (&mut self.sites, run.probes.sites)]
        {
            for (name, times) in counts {
                let (runs, all) = into.entry(name).or_default();
                (*runs, *all) = (*runs + 1, *all + times);
            }
        }
        self.failed += u64::from(has_failed);
        if !run.excused.is_empty() {
            self.excused.push(run.seed);
        }
        for message in run.failures {
            let failure = self.failures.entry(signature(&message)).or_default();
            if failure.seeds.is_empty() {
                failure.message = message;
                failure.reproduce = run.reproduce.clone();
            }
            failure.seeds.push(run.seed);
        }
    }

    /// Marks that no run passed.
    pub fn marks_never(&self) -> Vec<&'static str> {
        let all = probe::MARKS.iter().map(|(name, _)| *name);
        all.filter(|name| !self.marks.contains_key(*name)).collect()
    }

    /// Marks that so many runs should have passed and did not.
    pub fn marks_missing(&self) -> Vec<&'static str> {
        let is_long = self.runs >= LONG;
        let is_due = |name: &&str| is_long || !probe::VERY_RARE.contains(name);
        self.marks_never().into_iter().filter(is_due).collect()
    }

    /// In-code faults that never fired.
    pub fn sites_never(&self) -> Vec<&'static str> {
        let fired = |name: &str| self.sites.get(name).is_some_and(|(_, times)| *times > 0);
        probe::SITES.iter().map(|(name, _)| *name).filter(|name| !fired(name)).collect()
    }

    /// What the page shows. `reproduce` is the command that repeats all of it.
    pub fn report(&self, reproduce: String) -> SwarmReport {
        let probes = |list: &[probe::Named], counts: &BTreeMap<String, (u64, u64)>| {
            let probe = |(name, what): &probe::Named| {
                let (runs, times) = counts.get(*name).copied().unwrap_or_default();
                // A site that never fired is active in runs all the same.
                let runs = if times == 0 { 0 } else { runs };
                Probe { name: (*name).to_owned(), what: (*what).to_owned(), runs, times }
            };
            list.iter().map(probe).collect()
        };
        let options = self.options.iter().map(|(name, values)| {
            let value = |(value, (runs, failed)): (&String, &(u64, u64))| OptionValue {
                value: value.clone(),
                runs: *runs,
                failed: *failed,
            };
            SwarmOption { name: name.clone(), values: values.iter().map(value).collect() }
        });
        let failures = self.failures.iter().map(|(signature, failure)| SwarmFailure {
            signature: signature.clone(),
            seeds: failure.seeds.clone(),
            message: failure.message.clone(),
            reproduce: failure.reproduce.clone(),
        });
        SwarmReport {
            wall_ms: self.wall_ms,
            runs: self.each.clone(),
            options: options.collect(),
            marks: probes(probe::MARKS, &self.marks),
            sites: probes(probe::SITES, &self.sites),
            failures: failures.collect(),
            reproduce,
        }
    }

    /// The summary for people.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec!["options, in runs:".to_owned()];
        for (name, values) in &self.options {
            let values: Vec<String> =
                values.iter().map(|(value, (runs, _))| format!("{value} {runs}")).collect();
            lines.push(format!("  {name:<16} {}", values.join(", ")));
        }
        lines.push("marks: runs, times".to_owned());
        for (name, (runs, times)) in &self.marks {
            lines.push(format!("  {name:<40}{runs:>8}{times:>12}"));
        }
        lines.push("in-code faults: runs in which it was active, times".to_owned());
        for (name, (runs, times)) in &self.sites {
            lines.push(format!("  {name:<40}{runs:>8}{times:>12}"));
        }
        let never = |names: Vec<&str>| {
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        };
        lines.push(format!("marks never passed: {}", never(self.marks_never())));
        lines.push(format!("in-code faults that never fired: {}", never(self.sites_never())));
        let seeds: Vec<String> = self.excused.iter().map(u64::to_string).collect();
        let (runs, list) =
            (seeds.len(), if seeds.is_empty() { "none".to_owned() } else { seeds.join(", ") });
        lines
            .push(format!("excused, a disk took back what was durable: {runs} runs, seeds {list}"));
        for (signature, failure) in &self.failures {
            let shown: Vec<String> =
                failure.seeds.iter().take(SEEDS_SHOWN).map(u64::to_string).collect();
            let more = if failure.seeds.len() > SEEDS_SHOWN { ", …" } else { "" };
            let count = failure.seeds.len();
            lines.push(format!("FAILURE {signature}"));
            lines.push(format!("  {count} runs: seeds {}{more}", shown.join(", ")));
            lines.push(format!("  {}", failure.message));
            lines.push(format!("  {}", failure.reproduce));
        }
        let (wall, seconds) = (self.wall_ms.max(1), self.virtual_ms / 1_000);
        lines.push(format!(
            "{} runs in {}.{} s: {} ms each; {seconds} virtual seconds, {} puts; slowest {} ms (seed {})",
            self.runs,
            self.wall_ms / 1_000,
            self.wall_ms / 100 % 10,
            wall / self.runs.max(1),
            self.puts,
            self.slowest.0,
            self.slowest.1
        ));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_one_promise_have_one_signature() {
        let a = "durability: an acknowledged write is lost: op 7 took revision 19: not there";
        let b = "durability: an acknowledged write is lost: op 1123 took revision 4: gone";
        assert_eq!(signature(a), "durability: an acknowledged write is lost");
        assert_eq!(signature(a), signature(b));
        let stuck = "convergence: member 2 did not come up within 60s after the last fault";
        assert_eq!(
            signature(stuck),
            "convergence: member # did not come up within #s after the last fault"
        );
    }

    #[test]
    fn a_run_is_counted_once_and_its_failures_by_signature() {
        let mut totals = Totals::default();
        for seed in 0..3 {
            totals.add(Outcome {
                seed,
                options: vec![("members".into(), "3".into())],
                failures: vec![format!("state: hashes differ: at index {seed}")],
                ..Outcome::default()
            });
        }
        assert_eq!((totals.runs, totals.failed), (3, 3));
        assert_eq!(totals.options["members"]["3"], (3, 3));
        assert_eq!(totals.failures["state: hashes differ"].seeds, [0, 1, 2]);
        assert_eq!(totals.marks_never().len(), probe::MARKS.len());
    }
}
