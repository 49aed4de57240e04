//! Faults: one file per kind. A kind is a struct with its parameters and an implementation of
//! [`FaultKind`]; `faults!` below is the registry.
//!
//! In a scenario file or trace a fault is a table: `{ kind = "disk-stall", node = "leader", duration = "4s" }`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

mod target;

pub use target::Target;

/// The disk of a node completes no sync for a while: syncs issued meanwhile complete after it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskStall {
    pub node: Target,
    #[serde(with = "crate::duration")]
    pub duration: Duration,
}

/// The process ends between two events; what it wrote stays in the page cache.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kill {
    pub node: Target,
}

/// The machine loses power: un-synced writes are kept, lost or torn.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PowerLoss {
    pub node: Target,
}

/// Starts a node that is down; a node that is up is killed first.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    pub node: Target,
}

/// The process is stopped for a while, as by SIGSTOP.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    pub node: Target,
    #[serde(with = "crate::duration")]
    pub duration: Duration,
}

/// Cuts the links between `nodes` and all other members, for a while.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    pub nodes: Vec<Target>,
    #[serde(default)]
    pub direction: Direction,
    #[serde(with = "crate::duration")]
    pub duration: Duration,
    /// Clients that are cut off together with `nodes`: they reach only these.
    #[serde(default)]
    pub clients: Vec<u32>,
}

/// Which way a partition cuts.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    #[default]
    Both,
    /// What the nodes send is lost.
    Outgoing,
    /// What is sent to the nodes is lost.
    Incoming,
}

/// One fault with its parameters.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Fault {
    DiskStall(DiskStall),
    Kill(Kill),
    PowerLoss(PowerLoss),
    Restart(Restart),
    Pause(Pause),
    Partition(Partition),
}
