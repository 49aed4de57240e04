//! What a scenario expects of its figures, per profile.

use std::fmt;

use detkv_reports::run::{Expectation, RunSummary};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use crate::figures;
use crate::scenario::Profile;

/// The `expect` section.
#[derive(Clone, Default, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    both: Bounds,
    coupled: Bounds,
    decoupled: Bounds,
}

/// Bounds on the figures of a run; what is not named is not judged.
#[derive(Clone, Default, Debug)]
struct Bounds(Vec<(&'static str, Expected)>);

/// What one line expects.
#[derive(Clone, Copy, Debug)]
enum Expected {
    Count(Bound),
    Elections(GapBound),
    Flag(bool),
}

/// The name of a figure, as a key.
struct Name(&'static str);

/// What a figure in election timeouts is called after.
const ELECTIONS: &str = "_elections";

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let name = String::deserialize(d)?;
        figures::find(&name).map(Name).map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Bounds {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct BoundsVisitor;
        impl<'de> Visitor<'de> for BoundsVisitor {
            type Value = Bounds;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of figures")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Bounds, A::Error> {
                let mut bounds = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    let expected = if name.ends_with(ELECTIONS) {
                        Expected::Elections(map.next_value()?)
                    } else if figures::is_flag(name) {
                        Expected::Flag(map.next_value()?)
                    } else {
                        Expected::Count(map.next_value()?)
                    };
                    bounds.push((name, expected));
                }
                Ok(Bounds(bounds))
            }
        }
        d.deserialize_map(BoundsVisitor)
    }
}

/// `5`, or `{ min = 1, max = 5 }` with either left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Bound {
    min: u64,
    max: u64,
}

impl Bound {
    fn holds(self, value: u64) -> bool {
        (self.min..=self.max).contains(&value)
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min, self.max) {
            (min, max) if min == max => write!(f, "exactly {min}"),
            (0, max) => write!(f, "at most {max}"),
            (min, u64::MAX) => write!(f, "at least {min}"),
            (min, max) => write!(f, "{min} to {max}"),
        }
    }
}

impl<'de> Deserialize<'de> for Bound {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct BoundVisitor;
        impl<'de> Visitor<'de> for BoundVisitor {
            type Value = Bound;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or { min = .., max = .. }")
            }

            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Bound, E> {
                let n = u64::try_from(n)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(n), &self))?;
                Ok(Bound { min: n, max: n })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Bound, A::Error> {
                let mut bound = Bound { min: 0, max: u64::MAX };
                let mut is_empty = true;
                while let Some(key) = map.next_key::<String>()? {
                    is_empty = false;
                    match key.as_str() {
                        "min" => bound.min = map.next_value()?,
                        "max" => bound.max = map.next_value()?,
                        _ => return Err(de::Error::unknown_field(&key, &["min", "max"])),
                    }
                }
                if is_empty || bound.min > bound.max {
                    return Err(de::Error::custom("expected min ≤ max"));
                }
                Ok(bound)
            }
        }
        d.deserialize_any(BoundVisitor)
    }
}

/// Bounds in election timeouts; a split vote, which costs another one, is allowed more.
#[derive(Clone, Copy, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GapBound {
    #[serde(default)]
    min: f64,
    max: f64,
    max_split_vote: Option<f64>,
}

impl Expect {
    /// Every expectation for `profile` with its outcome.
    pub fn judge(
        &self,
        profile: Profile,
        summary: &RunSummary,
        election_timeout_ms: u64,
    ) -> Vec<Expectation> {
        let bounds = self.both.0.iter().chain(&self.own(profile).0);
        bounds.map(|(name, expected)| expected.judge(name, summary, election_timeout_ms)).collect()
    }

    fn own(&self, profile: Profile) -> &Bounds {
        match profile {
            Profile::Coupled => &self.coupled,
            Profile::Decoupled => &self.decoupled,
        }
    }

    /// The figures it names, each once; those in election timeouts are told in milliseconds too.
    pub fn named(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for (name, _) in [&self.both, &self.coupled, &self.decoupled].iter().flat_map(|b| &b.0) {
            if !names.contains(name) && !name.ends_with(ELECTIONS) {
                names.push(*name);
            }
        }
        names
    }
}

impl Expected {
    fn judge(self, name: &str, summary: &RunSummary, election_timeout_ms: u64) -> Expectation {
        let figure = |name: &str| summary.figures.get(name).copied();
        match self {
            Expected::Count(bound) => bound.judge(name, figure(name)),
            Expected::Flag(expected) => {
                let word = |flag: bool| if flag { "yes" } else { "no" }.to_owned();
                let actual = figure(name).is_some_and(|value| value > 0);
                let (expected, ok) = (word(expected), expected == actual);
                Expectation { name: name.to_owned(), expected, actual: word(actual), ok }
            }
            Expected::Elections(bound) => {
                let ms = figure(&name.replace(ELECTIONS, "_ms"));
                bound.judge(name, ms, summary.split_votes > 0, election_timeout_ms)
            }
        }
    }
}

impl Bound {
    fn judge(self, name: &str, actual: Option<u64>) -> Expectation {
        let unit = figures::unit(name);
        Expectation {
            name: name.to_owned(),
            expected: format!("{self}{unit}"),
            actual: actual.map_or("none".to_owned(), |actual| format!("{actual}{unit}")),
            ok: actual.is_some_and(|actual| self.holds(actual)),
        }
    }
}

impl GapBound {
    fn judge(
        self,
        name: &str,
        actual_ms: Option<u64>,
        was_split: bool,
        election_timeout_ms: u64,
    ) -> Expectation {
        let max = match self.max_split_vote {
            Some(max) if was_split => max,
            _ => self.max,
        };
        let elections = actual_ms.map(|ms| ms as f64 / election_timeout_ms as f64);
        let split = if was_split { ", after a split vote" } else { "" };
        Expectation {
            name: name.to_owned(),
            expected: format!("{} to {max} election timeouts{split}", self.min),
            actual: elections.map_or("none".to_owned(), |e| format!("{e:.2} election timeouts")),
            ok: elections.is_some_and(|elections| (self.min..=max).contains(&elections)),
        }
    }
}
