//! A scenario file: what it may say, and reading it with errors that point at the place.
//!
//! `scenarios/README.md` is the vocabulary for people; this is the same for the compiler. `parse` reads a file,
//! `workload` and `fault` its two kinds of entries, `names` looks whom they name. What a value may be, each model checks.

#[cfg(test)]
mod bad_values;
mod fault;
mod names;
mod parse;
#[cfg(test)]
mod tests;
mod workload;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use detkv_sim_world::MemberVersion;
use detkv_sim_world::clock::ClockModel;
use detkv_sim_world::cpu::CpuModel;
use detkv_sim_world::disk::DiskModel;
use detkv_sim_world::net::NetModel;
use serde::{Deserialize, Serialize};
use toml::Table;

#[cfg(test)]
pub use fault::FAULT_TIMES;
pub use fault::{FaultPlan, own_keys};
pub use workload::Workload;

use crate::expect::Expect;
use crate::options::MembersOptions;

/// How the Raft loop waits for the disk (`raft_loop`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    Coupled,
    Decoupled,
}

impl Profile {
    pub fn core(self) -> detkv_core::Profile {
        match self {
            Profile::Coupled => detkv_core::Profile::Coupled,
            Profile::Decoupled => detkv_core::Profile::Decoupled,
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Profile::Coupled => "coupled",
            Profile::Decoupled => "decoupled",
        })
    }
}

/// A scenario, read and checked.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The file's name without `.toml`.
    pub name: String,
    pub about: String,
    pub members: u64,
    pub profiles: Vec<Profile>,
    /// Load before anything is measured or broken.
    pub warm_up: Duration,
    /// Load after the warm-up.
    pub duration: Duration,
    /// Virtual time in which the cluster must be whole again after the last fault.
    pub converge: Duration,
    pub member: MembersOptions,
    pub disk: DiskModel,
    pub disks: BTreeMap<u64, DiskModel>,
    pub net: NetModel,
    pub cpu: CpuModel,
    pub cpus: BTreeMap<u64, CpuModel>,
    pub clocks: BTreeMap<u64, ClockModel>,
    pub versions: BTreeMap<u64, MemberVersion>,
    /// In-code faults happen.
    pub buggify: bool,
    pub workloads: Vec<Workload>,
    pub faults: Vec<FaultPlan>,
    pub expect: Expect,
    /// The figures that tell the story, for tables.
    pub show: Vec<&'static str>,
    /// The files it names, with their text: a child process opens none.
    pub files: BTreeMap<String, String>,
}

/// Gives the text of a file that a scenario names.
pub type ReadFile<'r> = &'r dyn Fn(&str) -> Result<String, String>;

pub fn optional_duration<'de, D: serde::Deserializer<'de>>(
    d: D,
) -> Result<Option<Duration>, D::Error> {
    detkv_sim_world::duration::deserialize(d).map(Some)
}

pub fn from_entry<'de, T: Deserialize<'de>>(entry: Table) -> Result<T, String> {
    T::deserialize(toml::Value::Table(entry)).map_err(|error| error.message().trim_end().to_owned())
}
