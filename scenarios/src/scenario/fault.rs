//! A `[[fault]]`: what, and when.

use std::ops::RangeInclusive;
use std::time::Duration;

use detkv_sim_world::bounds::within;
use detkv_sim_world::fault::Fault;
use serde::Deserialize;
use toml::Table;

use super::{from_entry, optional_duration};

/// A fault with its times.
#[derive(Clone, PartialEq, Debug)]
pub struct FaultPlan {
    /// After the warm-up.
    pub at: Duration,
    /// Between repetitions.
    pub every: Duration,
    pub times: u32,
    /// Each time is moved by up to this, drawn from the seed.
    pub jitter: Duration,
    /// For a kill or power loss: when the node starts again.
    pub restart_after: Option<Duration>,
    pub fault: Fault,
}

/// The keys of a `[[fault]]` that are not the fault's own.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultTimes {
    #[serde(with = "detkv_sim_world::duration")]
    at: Duration,
    #[serde(default, deserialize_with = "optional_duration")]
    every: Option<Duration>,
    #[serde(default = "once")]
    times: u32,
    #[serde(default, deserialize_with = "optional_duration")]
    jitter: Option<Duration>,
    #[serde(default, deserialize_with = "optional_duration")]
    restart_after: Option<Duration>,
}

pub const FAULT_TIMES: [&str; 5] = ["at", "every", "times", "jitter", "restart_after"];

/// How often one entry of the schedule comes.
const TIMES: RangeInclusive<u32> = 1..=10_000;

fn once() -> u32 {
    1
}

/// Names of a kind's own parameters: one that is called as a key of the schedule is the fault's.
pub fn own_keys(kind: &str) -> Vec<&'static str> {
    let kinds = Fault::KINDS.iter().filter(|info| info.name == kind);
    kinds.flat_map(|info| info.parameters).map(|parameter| parameter.name).collect()
}

impl FaultPlan {
    /// Errors: what is wrong, and what was expected.
    pub(super) fn check(&self) -> Result<(), String> {
        self.fault.check()?;
        within("times", self.times, TIMES)?;
        if self.times > 1 && self.every.is_zero() {
            return Err("`times` needs `every`, the time between repetitions".to_owned());
        }
        if self.restart_after.is_some()
            && !matches!(self.fault, Fault::Kill(_) | Fault::PowerLoss(_))
        {
            return Err("`restart_after` goes with `kill` and `power-loss` only".to_owned());
        }
        Ok(())
    }
}

/// Errors: a key or a value that no fault has.
pub(super) fn fault_plan(mut entry: Table) -> Result<FaultPlan, String> {
    let own = own_keys(entry.get("kind").and_then(toml::Value::as_str).unwrap_or_default());
    let keys = FAULT_TIMES.iter().filter(|key| !own.contains(key));
    let times: Table = keys.filter_map(|key| entry.remove_entry(*key)).collect();
    let times: FaultTimes = from_entry(times)?;
    let fault: Fault = from_entry(entry)?;
    Ok(FaultPlan {
        at: times.at,
        every: times.every.unwrap_or_default(),
        times: times.times,
        jitter: times.jitter.unwrap_or_default(),
        restart_after: times.restart_after,
        fault,
    })
}
