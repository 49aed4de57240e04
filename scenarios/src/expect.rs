//! What a scenario expects of its figures, per profile.

use std::fmt;

use detkv_reports::run::{Expectation, RunSummary};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

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
#[derive(Clone, Default, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Bounds {
    leader_changes: Option<Bound>,
    elections: Option<Bound>,
    split_votes: Option<Bound>,
    terms: Option<Bound>,
    planned_transfers: Option<Bound>,
    puts_ok: Option<Bound>,
    puts_failed: Option<Bound>,
    longest_put_gap_ms: Option<Bound>,
    /// In election timeouts.
    longest_put_gap_elections: Option<GapBound>,
    put_p50_us: Option<Bound>,
    put_p99_us: Option<Bound>,
    /// Whether any member raised its slow-disk alarm.
    slow_disk_alarm: Option<bool>,
}

/// `5`, or `{ min = 1, max = 5 }` with either left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bound {
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

/// What is judged beside the summary's own figures.
#[derive(Clone, Copy, Debug)]
pub struct Observed {
    pub election_timeout_ms: u64,
    pub slow_disk_alarm: bool,
}

impl Expect {
    /// Every expectation for `profile` with its outcome.
    pub fn judge(
        &self,
        profile: Profile,
        summary: &RunSummary,
        observed: Observed,
    ) -> Vec<Expectation> {
        let own = match profile {
            Profile::Coupled => &self.coupled,
            Profile::Decoupled => &self.decoupled,
        };
        let mut judged = self.both.judge(summary, observed);
        judged.extend(own.judge(summary, observed));
        judged
    }
}

impl Bounds {
    fn judge(&self, s: &RunSummary, observed: Observed) -> Vec<Expectation> {
        let figures = [
            ("leader_changes", self.leader_changes, Some(s.leader_changes)),
            ("elections", self.elections, Some(s.elections)),
            ("split_votes", self.split_votes, Some(s.split_votes)),
            ("terms", self.terms, Some(s.terms)),
            ("planned_transfers", self.planned_transfers, Some(s.planned_transfers)),
            ("puts_ok", self.puts_ok, Some(s.puts_ok)),
            ("puts_failed", self.puts_failed, Some(s.puts_failed)),
            ("longest_put_gap_ms", self.longest_put_gap_ms, Some(s.longest_put_gap_ms)),
            ("put_p50_us", self.put_p50_us, s.put_p50_us),
            ("put_p99_us", self.put_p99_us, s.put_p99_us),
        ];
        let mut judged: Vec<Expectation> = figures
            .into_iter()
            .filter_map(|(name, bound, actual)| Some(judge_bound(name, bound?, actual)))
            .collect();
        judged.extend(self.longest_put_gap_elections.map(|bound| bound.judge(s, observed)));
        judged.extend(self.slow_disk_alarm.map(|expected| {
            let word = |raised: bool| if raised { "raised" } else { "not raised" }.to_owned();
            Expectation {
                name: "slow_disk_alarm".to_owned(),
                expected: word(expected),
                actual: word(observed.slow_disk_alarm),
                ok: expected == observed.slow_disk_alarm,
            }
        }));
        judged
    }
}

fn judge_bound(name: &str, bound: Bound, actual: Option<u64>) -> Expectation {
    let unit = ["ms", "us"].iter().find(|unit| name.ends_with(&format!("_{unit}")));
    let unit = unit.map_or(String::new(), |unit| format!(" {unit}"));
    Expectation {
        name: name.to_owned(),
        expected: format!("{bound}{unit}"),
        actual: actual.map_or("none".to_owned(), |actual| format!("{actual}{unit}")),
        ok: actual.is_some_and(|actual| bound.holds(actual)),
    }
}

impl GapBound {
    fn judge(self, summary: &RunSummary, observed: Observed) -> Expectation {
        let was_split = summary.split_votes > 0;
        let max = match self.max_split_vote {
            Some(max) if was_split => max,
            _ => self.max,
        };
        let elections = summary.longest_put_gap_ms as f64 / observed.election_timeout_ms as f64;
        let split = if was_split { ", after a split vote" } else { "" };
        Expectation {
            name: "longest_put_gap_elections".to_owned(),
            expected: format!("{} to {max} election timeouts{split}", self.min),
            actual: format!("{elections:.2} election timeouts"),
            ok: (self.min..=max).contains(&elections),
        }
    }
}
