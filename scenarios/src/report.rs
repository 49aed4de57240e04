//! What a run comes to: verdict, figures, story. This is what a child process hands to its parent.

use std::collections::BTreeMap;
use std::time::Duration;

use detkv_core::Instant;
use detkv_reports::run::{RunReport, RunSummary, Timeline, Verdict, is_good};
use detkv_sim_world::check::{Case, all};
use detkv_sim_world::probe::ProbeCounts;
use detkv_sim_world::trace::{Checkpoint, TraceSummary};
use serde::{Deserialize, Serialize};

use crate::child::Job;
use crate::excuse::{excuse, forgetful};
use crate::figures::Figures;
use crate::run::Finished;
use crate::scenario::{Profile, Scenario};
use crate::timeline::timeline;

/// The end of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChildReport {
    pub report: RunReport,
    pub trace: Trace,
    pub probes: Probes,
    /// Address randomisation was on although the parent asked for none.
    pub is_randomised: bool,
}

/// In-code faults and marks of the run: how often.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Probes {
    pub sites: BTreeMap<String, u64>,
    pub marks: BTreeMap<String, u64>,
}

impl Probes {
    fn new(counts: &ProbeCounts) -> Self {
        let named = |counts: &BTreeMap<&'static str, u64>| {
            counts.iter().map(|(name, times)| ((*name).to_owned(), *times)).collect()
        };
        Self { sites: named(&counts.sites), marks: named(&counts.marks) }
    }
}

/// [`TraceSummary`] with its hashes in hex.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trace {
    pub event_hash: String,
    events: u64,
    nodes: Vec<String>,
    checkpoints: Vec<(u64, u64, String)>,
    /// Events recorded in full, when asked for.
    pub lines: Vec<String>,
}

fn hex(hash: u128) -> String {
    format!("{hash:032x}")
}

/// 0 for what is no hash: it then equals no other.
fn unhex(text: &str) -> u128 {
    u128::from_str_radix(text, 16).unwrap_or(0)
}

impl Trace {
    fn new(summary: &TraceSummary) -> Self {
        let checkpoints = summary.checkpoints.iter();
        Self {
            event_hash: hex(summary.event_hash),
            events: summary.events,
            nodes: summary.nodes.iter().map(|node| hex(*node)).collect(),
            checkpoints: checkpoints.map(|c| (c.events, c.at.ns, hex(c.chain))).collect(),
            lines: summary.lines.clone(),
        }
    }

    pub fn summary(&self) -> TraceSummary {
        let checkpoints = self.checkpoints.iter().map(|(events, ns, chain)| Checkpoint {
            events: *events,
            at: Instant { ns: *ns },
            chain: unhex(chain),
        });
        TraceSummary {
            event_hash: unhex(&self.event_hash),
            events: self.events,
            nodes: self.nodes.iter().map(|node| unhex(node)).collect(),
            checkpoints: checkpoints.collect(),
            lines: self.lines.clone(),
        }
    }
}

/// Judges a finished run.
pub fn report(scenario: &Scenario, job: &Job, finished: &Finished, wall: Duration) -> ChildReport {
    let outcome = &finished.outcome;
    let Figures { mut puts, leaders, values } = Figures::of(scenario, finished);
    let election_timeout_ms = election_timeout_ms(scenario, job.profile);
    let mut summary = RunSummary {
        scenario: scenario.name.clone(),
        seed: job.seed,
        profile: job.profile.to_string(),
        verdict: Verdict::Pass,
        event_hash: hex(outcome.event_hash),
        virtual_ms: outcome.virtual_ns / 1_000_000,
        wall_ms: wall.as_millis() as u64,
        cpu_ms: 0,
        leader_changes: leaders.changes,
        terms: leaders.highest_term,
        elections: leaders.elections,
        split_votes: leaders.split_votes,
        planned_transfers: leaders.planned_transfers,
        puts_ok: puts.ok,
        puts_failed: puts.failed,
        longest_put_gap_ms: puts.longest_gap_ms,
        put_p50_us: puts.p50_us,
        put_p99_us: puts.p99_us,
        figures: values,
        shown: scenario.show.iter().map(|name| (*name).to_owned()).collect(),
        checkers: checkers(finished),
        expectations: Vec::new(),
        options: options(scenario),
        reproduce: job.reproduce(),
    };
    summary.expectations = scenario.expect.judge(job.profile, &summary, election_timeout_ms);
    let is_good = summary.checkers.values().all(|verdict| is_good(verdict))
        && summary.expectations.iter().all(|expectation| expectation.ok);
    if !is_good {
        summary.verdict = Verdict::Fail;
    }
    summary.cpu_ms = cpu_ms();
    let timeline = if job.with_timeline {
        timeline(scenario, outcome, std::mem::take(&mut puts), &leaders, election_timeout_ms)
    } else {
        Timeline::default()
    };
    ChildReport {
        report: RunReport { summary, timeline },
        trace: Trace::new(&outcome.trace),
        probes: Probes::new(&outcome.probes),
        is_randomised: job.is_randomised(),
    }
}

/// Every checker's verdict, with two that the run itself gives.
fn checkers(finished: &Finished) -> BTreeMap<String, String> {
    let case = Case::new(&finished.outcome.history);
    let ok = || "ok".to_owned();
    let mut verdicts: BTreeMap<String, String> = all()
        .iter()
        .map(|checker| {
            let verdict =
                checker.check(&case).map_or_else(|violation| violation.to_string(), |()| ok());
            (checker.name().to_owned(), verdict)
        })
        .collect();
    let stuck = finished.stuck.clone();
    verdicts.insert("convergence".to_owned(), stuck.unwrap_or_else(ok));
    let panics = &finished.outcome.panics;
    let failed = if panics.is_empty() { ok() } else { panics.join("; ") };
    verdicts.insert("assertions".to_owned(), failed);
    excuse(&mut verdicts, &forgetful(&finished.outcome.history));
    verdicts
}

/// CPU time of this process so far: what else the machine does hardly shows in it.
fn cpu_ms() -> u64 {
    // SAFETY: `usage` is a valid place for the result, and zeros are a valid value of it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        let failed = libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        assert_eq!(failed, 0, "getrusage knows this process");
        usage
    };
    let ms = |t: libc::timeval| t.tv_sec as u64 * 1_000 + t.tv_usec as u64 / 1_000;
    ms(usage.ru_utime) + ms(usage.ru_stime)
}

fn election_timeout_ms(scenario: &Scenario, profile: Profile) -> u64 {
    let election = scenario.member.of(profile).election.unwrap_or(Duration::from_secs(1));
    election.as_millis() as u64
}

/// What the scenario chose, for its page.
fn options(scenario: &Scenario) -> BTreeMap<String, String> {
    let seconds = |d: Duration| format!("{:?}", d);
    BTreeMap::from([
        ("members".to_owned(), scenario.members.to_string()),
        ("warm_up".to_owned(), seconds(scenario.warm_up)),
        ("duration".to_owned(), seconds(scenario.duration)),
        ("workloads".to_owned(), scenario.workloads.len().to_string()),
        ("faults".to_owned(), scenario.faults.iter().map(|f| f.times).sum::<u32>().to_string()),
        ("sync".to_owned(), format!("{:?}", scenario.disk.sync)),
        ("latency".to_owned(), format!("{:?}", scenario.net.peer.latency)),
    ])
}
