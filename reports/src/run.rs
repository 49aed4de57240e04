//! The record of one simulated run: what `detkv-sim --json` writes and what the page is drawn from.
//!
//! All times are virtual, in milliseconds since the start of the run, unless a name says otherwise.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Whether a run did what its scenario expects and every checker agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Pass,
    Fail,
}

/// What a checker's verdict begins with where it found something that no store could have kept.
pub const EXCUSED: &str = "excused: ";

/// Nothing in it is the store's fault.
pub fn is_good(checker: &str) -> bool {
    checker == "ok" || checker.starts_with(EXCUSED)
}

/// The numbers of a run: the body of `--json`. Field names are a contract with scripts that read it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Name of the scenario, as in `detkv-sim list`.
    pub scenario: String,
    pub seed: u64,
    /// `coupled` or `decoupled` (the member's `raft_loop`).
    pub profile: String,
    pub verdict: Verdict,
    /// Chained hash over every boundary event, in hex. Equal seeds give equal hashes.
    pub event_hash: String,
    pub virtual_ms: u64,
    /// With `cpu_ms` the only field that differs between two runs of the same seed.
    pub wall_ms: u64,
    /// CPU time of the run's process, the checkers included.
    #[serde(default)]
    pub cpu_ms: u64,
    /// Leaderships that began after the first one; the same member elected again counts.
    pub leader_changes: u64,
    /// Highest term reached.
    pub terms: u64,
    /// Times a member started to campaign (pre-votes not counted).
    pub elections: u64,
    /// Elections whose term ended without a leader.
    pub split_votes: u64,
    /// Leadership handed over on purpose, for example away from a stalled disk.
    pub planned_transfers: u64,
    pub puts_ok: u64,
    /// Puts answered with an error or not at all within the client's timeout.
    pub puts_failed: u64,
    /// Longest time between successive successful put returns over all clients, after warm-up.
    pub longest_put_gap_ms: u64,
    /// Of successful puts, as the client sees them. `None` when no put succeeded.
    pub put_p50_us: Option<u64>,
    pub put_p99_us: Option<u64>,
    /// Every figure of the run by name (`scenarios/README.md` lists them), those above included.
    #[serde(default)]
    pub figures: BTreeMap<String, u64>,
    /// Names of the figures that tell this scenario's story.
    #[serde(default)]
    pub shown: Vec<String>,
    /// Checker name → `ok`, or what it found; see [`is_good`].
    pub checkers: BTreeMap<String, String>,
    pub expectations: Vec<Expectation>,
    /// Options the seed or the command line chose, as printed at the start of the run.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// The one command line that repeats this run.
    pub reproduce: String,
}

/// One line of the scenario's `expect` section beside what the run did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Expectation {
    pub name: String,
    /// For a person, with units: `at most 50 ms`.
    pub expected: String,
    pub actual: String,
    pub ok: bool,
}

/// A run with everything its page shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    pub summary: RunSummary,
    pub timeline: Timeline,
}

/// What happened when. Each list is in order of time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// One swimlane each, in this order.
    pub members: Vec<MemberName>,
    /// Nominal election timeout, drawn as the yardstick beside gaps.
    pub election_timeout_ms: u64,
    /// Gaps and percentiles count from here on; the time before is drawn shaded.
    pub warm_up_ms: u64,
    /// Spans of one member never overlap. Time that no span covers is drawn as unknown.
    pub roles: Vec<RoleSpan>,
    pub faults: Vec<FaultSpan>,
    /// Every put, in order of its start. The page thins them out itself: give all of them.
    pub puts: Vec<PutSample>,
    /// Times without a successful put that are worth marking, the longest among them.
    pub put_gaps: Vec<PutGap>,
    /// Every sync of the `Log` lane, in order of its start. Thinned out by the page.
    pub fsyncs: Vec<FsyncSample>,
    pub events: Vec<LogEvent>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberName {
    pub id: u64,
    pub name: String,
}

/// What a member is during a [`RoleSpan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Leader,
    Follower,
    PreCandidate,
    Candidate,
    Learner,
    /// Reading its files after a start.
    Recovering,
    /// Alive, but given no CPU.
    Paused,
    /// Killed, without power, or halted by itself.
    Down,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleSpan {
    pub member: u64,
    pub from_ms: u64,
    pub to_ms: u64,
    pub role: Role,
    /// Term during the span; 0 where it is not known (down, recovering).
    pub term: u64,
}

/// A fault from its start to its end. A momentary one (kill, power loss) has `from_ms == to_ms`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultSpan {
    /// Kind of fault: `disk stall`.
    pub name: String,
    /// What it hits, for a person: `m1 (leader)`, `m1 → m2`.
    pub target: String,
    /// Set when the fault hits one member: the band is drawn on that member's lane only.
    pub member: Option<u64>,
    pub from_ms: u64,
    pub to_ms: u64,
    /// For a person, may be empty: `WAL sync 4000 ms`.
    pub parameters: String,
}

/// One put as its client saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutSample {
    /// When the client sent it.
    pub time_ms: u64,
    /// Until the answer, or until the client gave up.
    pub latency_us: u64,
    pub ok: bool,
    /// Member that the client was connected to.
    pub member: u64,
}

/// A time without a successful put return.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutGap {
    pub from_ms: u64,
    pub to_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsyncSample {
    pub member: u64,
    /// When the sync was issued.
    pub time_ms: u64,
    pub latency_us: u64,
}

/// A line of the story: an election, a log line of a member, a step of the scenario.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEvent {
    pub time_ms: u64,
    /// `None` for the scenario itself.
    pub member: Option<u64>,
    pub text: String,
}
