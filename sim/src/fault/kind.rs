//! What a kind of fault is: its name, its parameters, and what it does.

use std::fmt;
use std::time::Duration;

use detkv_core::MemberId;
use serde::Serialize;

use super::Draw;
use crate::bounds::{INTERVALS, time_within};
use crate::duration;
use crate::world::World;

/// What a fault strikes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    Disk,
    Network,
    Process,
    Cpu,
    Clock,
    Cluster,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Disk => "disk",
            Family::Network => "network",
            Family::Process => "process",
            Family::Cpu => "CPU",
            Family::Clock => "clock",
            Family::Cluster => "cluster",
        })
    }
}

/// One parameter of a kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Parameter {
    pub name: &'static str,
    /// What is written, with its unit: "node", "duration", "number, ppm".
    pub form: &'static str,
    /// As it is written in a file; `None`: it has to be given.
    pub default: Option<&'static str>,
    pub what: &'static str,
}

impl Parameter {
    pub const fn required(name: &'static str, form: &'static str, what: &'static str) -> Self {
        Self { name, form, default: None, what }
    }

    pub const fn optional(
        name: &'static str,
        form: &'static str,
        default: &'static str,
        what: &'static str,
    ) -> Self {
        Self { name, form, default: Some(default), what }
    }
}

/// Which node; nearly every kind has it.
pub const NODE: Parameter = Parameter::required(
    "node",
    "node",
    "\"leader\", \"follower\", \"follower2\" (by id, at that moment) or \"m3\"",
);

/// How long a fault lasts.
pub const DURATION: Parameter =
    Parameter::required("duration", "duration", "how long, such as \"4s\"");

/// One kind of fault.
pub trait FaultKind {
    const NAME: &'static str;
    const FAMILY: Family;
    /// One line: what happens.
    const WHAT: &'static str;
    const PARAMETERS: &'static [Parameter];
    /// The parameters of one such fault, as they are written in a file.
    const EXAMPLE: &'static str;
    /// False where the disk lies about what is durable: no store can promise to keep what it acknowledged then.
    const IS_SURVIVABLE: bool = true;

    /// Whether the parameters make sense together.
    ///
    /// Errors: which one does not, in backquotes, and what was expected.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Takes effect. Errors: why it cannot (no such node, no leader): the fault is then skipped.
    fn begin(&self, world: &mut World) -> Result<Effect, String>;

    /// Parameters for a swarm run; `None` where it makes no sense, as a partition of one member.
    ///
    /// One that takes bytes that were durable goes to [`Draw::expendable`] only: a run that lost the
    /// copies of a quorum could claim nothing any more.
    fn draw(draw: &mut Draw) -> Option<Self>
    where
        Self: Sized;
}

/// Takes a fault back.
pub(super) type Undo = Box<dyn FnOnce(&mut World)>;
/// Does what comes next in a fault, and says after how long to come again.
pub(super) type Step = Box<dyn FnMut(&mut World) -> Option<Duration>>;

/// What a fault did.
#[derive(Default)]
pub struct Effect {
    /// The member that it is about, if it is one.
    pub member: Option<MemberId>,
    /// Reads as a line of the story.
    pub what: String,
    /// How long it lasts; nothing for what happens at once.
    pub lasts: Option<Duration>,
    /// Takes it back.
    pub undo: Option<Undo>,
    /// When the first step is due, and the steps. They end with the fault.
    pub steps: Option<(Duration, Step)>,
}

impl Effect {
    /// Something that happened at once to a member.
    pub(super) fn at_once(member: MemberId, what: impl Into<String>) -> Self {
        Self { member: Some(member), what: what.into(), ..Self::default() }
    }

    /// Something that lasts until `undo`. `what` gets the time added.
    pub(super) fn lasting(
        member: Option<MemberId>,
        what: impl fmt::Display,
        lasts: Duration,
        undo: impl FnOnce(&mut World) + 'static,
    ) -> Self {
        let what = format!("{what} for {}", duration::format(lasts));
        Self { member, what, lasts: Some(lasts), undo: Some(Box::new(undo)), steps: None }
    }
}

/// A line of the registry.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct KindInfo {
    pub name: &'static str,
    pub family: Family,
    pub what: &'static str,
    pub parameters: &'static [Parameter],
    pub example: &'static str,
    pub survivable: bool,
}

/// Errors when `value` is zero.
pub(super) fn at_least_one(name: &str, value: u64) -> Result<(), String> {
    if value == 0 { Err(format!("`{name}` is 0, expected at least 1")) } else { Ok(()) }
}

/// Errors when something would come again without time passing.
pub(super) fn an_interval(name: &str, value: Duration) -> Result<(), String> {
    time_within(name, value, INTERVALS)
}

/// Errors when a share is more than all.
pub(super) fn at_most_a_million(name: &str, ppm: u32) -> Result<(), String> {
    if ppm > 1_000_000 {
        return Err(format!("`{name}` is {ppm}, expected at most 1000000: parts in a million"));
    }
    Ok(())
}
