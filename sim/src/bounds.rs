//! What a value of a model may be, and the words for one that is none: its name in backquotes, what it is, what was
//! expected. A file's reader finds the place by the names, from the outside in.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::duration::{self, LONGEST};

/// The shortest time that anything may be repeated after: less would keep the kernel busy without time passing.
pub const SHORTEST: Duration = Duration::from_millis(1);
/// A call is over by then. The end of a run waits no longer for those that are open.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(10);
/// A call needs some time.
pub const TIMEOUTS: RangeInclusive<Duration> = SHORTEST..=TIMEOUT_MAX;
/// Times after which something comes again.
pub const INTERVALS: RangeInclusive<Duration> = SHORTEST..=LONGEST;

/// Clients of one workload; of writers and readers, each.
pub const CLIENTS: RangeInclusive<u32> = 1..=1_000;
/// Tasks of one workload: what a client's open calls, leases or a burst's puts are in memory.
pub const TASKS_MAX: u64 = 100_000;
/// Values of one workload's calls, of those that may be open at once or that begin in a second.
pub const BYTES_MAX: u64 = 1 << 30;
/// Calls a second of one workload.
pub const RATES: RangeInclusive<u32> = 1..=100_000;
pub const KEYS: RangeInclusive<u32> = 1..=1_000_000;
/// Somewhat more than the largest request, 1.5 MiB, so that one can be too large.
pub const VALUE_BYTES: RangeInclusive<usize> = 0..=2 << 20;
/// Times to live of a lease; twice as much is drawn.
pub const TTL_SECS: RangeInclusive<u32> = 1..=1_000_000;
/// How often something is drawn, in proportion.
pub const WEIGHT_MAX: u32 = 1_000_000;

/// Errors: `value` lies outside.
pub fn within<T: PartialOrd + Display>(
    name: &str,
    value: T,
    bounds: RangeInclusive<T>,
) -> Result<(), String> {
    if bounds.contains(&value) {
        return Ok(());
    }
    Err(format!("`{name}` is {value}, expected {} to {}", bounds.start(), bounds.end()))
}

/// As [`within`], of a duration.
pub fn time_within(
    name: &str,
    value: Duration,
    bounds: RangeInclusive<Duration>,
) -> Result<(), String> {
    if bounds.contains(&value) {
        return Ok(());
    }
    let [value, low, high] = [value, *bounds.start(), *bounds.end()].map(duration::format);
    Err(format!("`{name}` is {value}, expected {low} to {high}"))
}

/// Errors: `value` is less.
pub fn at_least<T: PartialOrd + Display>(name: &str, value: T, low: T) -> Result<(), String> {
    if value >= low {
        return Ok(());
    }
    Err(format!("`{name}` is {value}, expected at least {low}"))
}

/// Errors: so many of each of so many are more tasks than fit.
pub fn tasks(name: &str, clients: u32, each: u32) -> Result<(), String> {
    let tasks = u64::from(clients) * u64::from(each);
    if tasks <= TASKS_MAX {
        return Ok(());
    }
    Err(format!("`{name}` makes {tasks} tasks of all clients, expected at most {TASKS_MAX}"))
}

/// Errors: values of this size for so many calls, open at once or made in a second, are more than memory should hold.
pub fn bytes(calls: u64, value_bytes: usize) -> Result<(), String> {
    let sum = calls.saturating_mul(value_bytes as u64);
    if sum <= BYTES_MAX {
        return Ok(());
    }
    Err(format!(
        "`value_bytes` makes {sum} bytes of {calls} calls at once or in a second, expected at most {BYTES_MAX}"
    ))
}

/// Errors: one is out of bounds, or all are 0.
pub fn weights(all: &[(&str, u32)]) -> Result<(), String> {
    let each = || all.iter().try_for_each(|(name, weight)| within(name, *weight, 0..=WEIGHT_MAX));
    inside("weights", each())?;
    if all.iter().all(|(_, weight)| *weight == 0) {
        return Err("`weights` are all 0, expected at least one call".to_owned());
    }
    Ok(())
}

/// What is wrong lies inside of `name`.
pub fn inside(name: &str, checked: Result<(), String>) -> Result<(), String> {
    checked.map_err(|what| format!("`{name}`: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_inside_and_errors_say_what_was_expected() {
        assert_eq!(within("n", 1, 1..=3), Ok(()));
        assert_eq!(within("n", 3, 1..=3), Ok(()));
        assert_eq!(within("n", 4, 1..=3), Err("`n` is 4, expected 1 to 3".to_owned()));
        let error = time_within("redial", Duration::ZERO, INTERVALS);
        assert_eq!(error, Err("`redial` is 0ns, expected 1ms to 10000m".to_owned()));
        assert!(tasks("in_flight", 1_000, 101).is_err() && tasks("in_flight", 1_000, 100).is_ok());
        assert!(weights(&[("put", 0), ("get", 1)]).is_ok() && weights(&[("put", 0)]).is_err());
    }
}
