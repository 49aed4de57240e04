//! What a run is made of, and what it leaves behind.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::rc::Rc;

use serde::Deserialize;

use detkv_core::config::{WIRE_VERSION, WIRE_VERSION_MIN};
use detkv_core::{Instant, Level, LogLine, MemberId, Profile};

use crate::bounds::within;
use crate::clock::ClockModel;
use crate::cpu::CpuModel;
use crate::disk::{DiskCounters, DiskModel};
use crate::history::History;
use crate::net::{Endpoint, LinkCounters, NetModel};
use crate::probe::ProbeCounts;
use crate::trace::{Decision, TraceSummary};

/// Changes a member's configuration before it is opened.
pub type Tune = Rc<dyn Fn(MemberId, &mut detkv_core::Config)>;

/// Everything a run depends on. Equal configurations and scripts give equal runs.
#[derive(Clone)]
pub struct SimConfig {
    /// Root of every random stream.
    pub seed: u64,
    /// Members of the initial cluster; their ids are 1, 2, 3…
    pub members: u64,
    pub profile: Profile,
    /// Overrides of core's configuration, per member.
    pub tune: Option<Tune>,
    pub disk: DiskModel,
    /// Disks that differ, by member id.
    pub disks: BTreeMap<u64, DiskModel>,
    pub net: NetModel,
    pub cpu: CpuModel,
    /// CPUs that differ, by member id.
    pub cpus: BTreeMap<u64, CpuModel>,
    /// Members of another version, by number.
    pub versions: BTreeMap<u64, MemberVersion>,
    /// Clocks that differ from true time, by member id.
    pub clocks: BTreeMap<u64, ClockModel>,
    /// In-code faults happen (`detkv_core::buggify!`).
    pub buggify: bool,
    /// A state sample goes into the event hash when a member's applied index passes a multiple of this.
    pub sample_every: u64,
    /// Log lines of members from this level on are kept.
    pub log_level: Option<Level>,
    pub trace: TraceOptions,
}

/// What a member of another version says of itself, and speaks.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberVersion {
    /// etcd's version that it shows, `X.Y.Z`.
    pub version: String,
    /// The highest version of the peer wire that it speaks.
    pub wire: u32,
}

impl MemberVersion {
    /// Errors: what is wrong, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        let parts: Vec<&str> = self.version.split('.').collect();
        let is_number = |part: &&str| part.parse::<u16>().is_ok();
        if parts.len() != 3 || !parts.iter().all(is_number) {
            return Err(format!(
                "`version` is {:?}, expected three numbers such as \"3.5.0\"",
                self.version
            ));
        }
        within("wire", self.wire, WIRE_VERSION_MIN..=WIRE_VERSION)
    }

    pub fn apply(&self, config: &mut detkv_core::Config) {
        config.version = self.version.clone();
        config.wire_version = self.wire;
    }
}

/// What to record besides the history. Nothing here changes the run.
#[derive(Clone, Debug)]
pub struct TraceOptions {
    /// Events between checkpoints of the event hash.
    pub checkpoint_every: u64,
    /// Numbers of the events to record in full.
    pub full: Range<u64>,
    /// Keep the decision trace.
    pub decisions: bool,
    /// Keep every drawn latency too.
    pub draws: bool,
    /// Keep every sync of the WAL.
    pub syncs: bool,
    /// Watch the members' Raft logs: the raft checker judges nothing without.
    pub raft: bool,
    /// Keep the bytes of log entries too, for `history export`.
    pub requests: bool,
}

impl Default for TraceOptions {
    fn default() -> Self {
        Self {
            checkpoint_every: 10_000,
            full: 0..0,
            decisions: false,
            draws: false,
            syncs: false,
            raft: true,
            requests: false,
        }
    }
}

impl SimConfig {
    /// Three members on fast disks and a fast network.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            members: 3,
            profile: Profile::default(),
            tune: None,
            disk: DiskModel::default(),
            disks: BTreeMap::new(),
            net: NetModel::default(),
            cpu: CpuModel::default(),
            cpus: BTreeMap::new(),
            versions: BTreeMap::new(),
            clocks: BTreeMap::new(),
            buggify: false,
            sample_every: 1_000,
            log_level: None,
            trace: TraceOptions::default(),
        }
    }
}

impl fmt::Debug for SimConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimConfig")
            .field("seed", &self.seed)
            .field("members", &self.members)
            .field("profile", &self.profile)
            .field("disk", &self.disk)
            .field("disks", &self.disks)
            .field("net", &self.net)
            .field("cpu", &self.cpu)
            .field("cpus", &self.cpus)
            .field("clocks", &self.clocks)
            .finish_non_exhaustive()
    }
}

/// A log line of a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogRecord {
    pub at: Instant,
    pub member: MemberId,
    pub line: LogLine,
}

impl fmt::Display for LogRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.at.ns / 1_000_000_000, self.at.ns / 1_000 % 1_000_000);
        write!(
            f,
            "{seconds:5}.{micros:06} m{} {:?} {}",
            self.member.0, self.line.level, self.line.msg
        )?;
        self.line.fields.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}

/// A sync of a member's WAL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SyncRecord {
    pub member: MemberId,
    pub at: Instant,
    /// When the disk says it is done.
    pub done: Instant,
}

/// What disks and links did since the run began.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    pub disks: Vec<(MemberId, DiskCounters)>,
    pub links: Vec<(Endpoint, Endpoint, LinkCounters)>,
}

/// What a run leaves behind.
#[derive(Debug)]
pub struct RunOutcome {
    pub event_hash: u128,
    /// Sub-hashes per node and checkpoints, to compare two runs.
    pub trace: TraceSummary,
    pub virtual_ns: u64,
    /// Events the kernel performed.
    pub kernel_events: u64,
    pub history: History,
    /// Empty unless asked for.
    pub decisions: Vec<Decision>,
    /// Empty unless asked for.
    pub log: Vec<LogRecord>,
    /// Empty unless asked for.
    pub syncs: Vec<SyncRecord>,
    /// Assertions of members that failed: each is a bug, whatever the checkers say.
    pub panics: Vec<String>,
    /// In-code faults and marks.
    pub probes: ProbeCounts,
    pub counters: Counters,
}
