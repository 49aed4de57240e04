//! Durations in scenario files and traces: `"4s"`, `"250ms"`, `"80us"`, `"15ns"`, `"2m"`.
//!
//! For `#[serde(with = "crate::duration")]`. Whole numbers only: no float decides anything.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

const UNITS: [(&str, u64); 5] =
    [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000)];

/// The longest that can be written, a week: sums and multiples of what is written fit into a clock of nanoseconds.
pub const LONGEST: Duration = Duration::from_secs(10_000 * 60);

/// Errors: says what was expected.
pub fn parse(text: &str) -> Result<Duration, String> {
    let expected = || format!("{text:?} is not a duration: expected such as \"4s\" or \"250ms\"");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(expected)?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| expected())?;
    let (_, ns) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(expected)?;
    let duration = number.checked_mul(*ns).map(Duration::from_nanos);
    let too_long = || format!("{text:?} is too long: expected at most \"{}\"", format(LONGEST));
    duration.filter(|duration| *duration <= LONGEST).ok_or_else(too_long)
}

/// The shortest exact form.
pub fn format(d: Duration) -> String {
    let ns = u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
    let (unit, size) = *UNITS
        .iter()
        .rev()
        .find(|(_, size)| ns != 0 && ns.is_multiple_of(*size))
        .unwrap_or(&("ns", 1));
    format!("{}{unit}", ns / size)
}

pub fn serialize<S: Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&format(*d))
}

pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(d)?;
    parse(&text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_back_as_written() {
        for ns in [0, 1, 999, 1_000, 1_500_000, 4_000_000_000, 120_000_000_000] {
            let d = Duration::from_nanos(ns);
            assert_eq!(parse(&format(d)), Ok(d));
        }
        assert_eq!(format(Duration::from_secs(4)), "4s");
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        for text in
            ["", "4", "s", "4.5s", "-1s", "4 s", "99999999999999999999s", "18446744073709551615s"]
        {
            assert!(parse(text).expect_err("not a duration").contains("expected"), "{text}");
        }
    }

    #[test]
    fn nothing_lasts_longer_than_a_week() {
        assert_eq!(parse("10000m"), Ok(LONGEST));
        assert_eq!(
            parse("10001m"),
            Err("\"10001m\" is too long: expected at most \"10000m\"".to_owned())
        );
    }
}
