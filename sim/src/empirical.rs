//! Durations as a real machine had them: a Prometheus histogram made into a table to draw from.
//!
//! A histogram says how many observations lie between two bounds, not where. Inside a bucket they are laid
//! out log-uniformly, over [`CELLS`] cells of equal ratio, and leaned towards one side by one factor for all
//! buckets, so that the mean of the table meets the histogram's `_sum`. Every bucket keeps its count.
//!
//! A histogram has no time axis either. [`Clustering`] gives it one: slow observations come in runs, by a
//! two-state Markov chain whose stationary share of slow ones is the histogram's, so that the distribution of
//! a single observation stays the same.
//!
//! The table is made with `+ − × ÷ √` only, which every machine rounds alike; drawing is integers only.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rand_core::Rng;
use serde::{Deserialize, Serialize};

use crate::prometheus::Histogram;
use crate::rng::uniform;

/// Cells per bucket: neighbours differ by 2^(1/16) = 4.4 % where bounds double.
const CELLS: usize = 16;
/// Weight of one observation: small enough for 2³⁰ of them, large enough to split one over the cells.
const OBSERVATION: u64 = 1 << 16;
/// Where the first bucket begins, as a part of its upper bound: nothing takes no time at all.
const FIRST_BUCKET: u64 = 8;

/// Slow observations come in runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clustering {
    /// An observation is slow from here on; a bound of the histogram.
    #[serde(with = "crate::duration")]
    pub above: Duration,
    /// Mean length of a run of slow observations; 1 or more.
    pub run: u32,
}

/// Observations between two durations, all equally likely.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cell {
    /// Weight of this cell and all before it.
    end: u64,
    low_ns: u64,
    high_ns: u64,
}

/// The chain of [`Clustering`], its chances in units of 2⁻³².
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Runs {
    /// Weight of what is not slow.
    fast: u64,
    enter: u64,
    leave: u64,
}

/// A table to draw from. Clones share it.
#[derive(Clone, PartialEq, Eq)]
pub struct Empirical {
    cells: Arc<[Cell]>,
    runs: Option<Runs>,
}

impl fmt::Debug for Empirical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mean_us = self.mean_ns() / 1_000;
        let runs = if self.runs.is_some() { ", slow ones in runs" } else { "" };
        write!(f, "Empirical(mean {mean_us} µs, up to {:?}{runs})", self.longest())
    }
}

impl Empirical {
    /// Errors: `_sum` lies outside of what the buckets allow.
    pub fn new(histogram: &Histogram) -> Result<Self, String> {
        let buckets: Vec<(u64, u64, u64)> = spans(histogram);
        let lean = match histogram.sum_ns {
            Some(sum_ns) => find_lean(&buckets, sum_ns as f64 / histogram.count() as f64)?,
            None => 1.0,
        };
        let mut end = 0;
        let cells = buckets.iter().flat_map(|(low, high, count)| {
            let weights = cell_weights(*count, lean);
            bounds(*low, *high).zip(weights).collect::<Vec<_>>()
        });
        let cells: Vec<Cell> = cells
            .map(|((low_ns, high_ns), weight)| {
                end += weight;
                Cell { end, low_ns, high_ns }
            })
            .collect();
        Ok(Self { cells: cells.into(), runs: None })
    }

    /// The same distribution with its slow part in runs.
    ///
    /// Errors: no such bound, or runs that cannot be: nothing or nearly everything is slow.
    pub fn clustered(self, clustering: Clustering) -> Result<Self, String> {
        let above_ns = u64::try_from(clustering.above.as_nanos()).unwrap_or(u64::MAX);
        let total = self.total();
        let first_slow = self.cells.iter().position(|cell| cell.low_ns >= above_ns);
        let fast = match first_slow {
            Some(first @ 1..) if self.cells[first].low_ns == above_ns => self.cells[first - 1].end,
            _ => {
                let above = crate::duration::format(clustering.above);
                return Err(format!("`above` is {above}, expected one of the histogram's bounds"));
            }
        };
        let (run, slow) = (u128::from(clustering.run), u128::from(total - fast));
        // Stationary: fast · enter = slow · leave.
        let unit = 1_u128 << 32;
        let enter = slow * unit / (u128::from(fast) * run.max(1));
        if run == 0 || enter > unit {
            return Err(format!("`run` is {run}, expected at least 1 and a rarer slow part"));
        }
        let leave = (unit / run) as u64;
        Ok(Self { runs: Some(Runs { fast, enter: enter as u64, leave }), ..self })
    }

    fn total(&self) -> u64 {
        self.cells.last().map_or(0, |cell| cell.end)
    }

    /// Mean of all that can be drawn.
    pub fn mean_ns(&self) -> u64 {
        let mut before = 0;
        let weighted = self.cells.iter().map(|cell| {
            let weight = u128::from(cell.end - before);
            before = cell.end;
            weight * u128::from(cell.low_ns + cell.high_ns)
        });
        (weighted.sum::<u128>() / 2 / u128::from(self.total().max(1))) as u64
    }

    /// The part of all draws that take `at_least` or longer.
    pub fn share_from(&self, at_least: Duration) -> f64 {
        let from_ns = at_least.as_nanos() as f64;
        let mut before = 0;
        let weighted = self.cells.iter().map(|cell| {
            let weight = (cell.end - before) as f64;
            before = cell.end;
            let (low, high) = (cell.low_ns as f64, cell.high_ns as f64);
            weight * ((high - from_ns) / (high - low).max(1.0)).clamp(0.0, 1.0)
        });
        weighted.sum::<f64>() / self.total().max(1) as f64
    }

    fn longest(&self) -> Duration {
        Duration::from_nanos(self.cells.last().map_or(0, |cell| cell.high_ns))
    }

    /// One draw, in nanoseconds. `in_run` is the chain's state: whether the draw before was slow.
    pub fn sample(&self, rng: &mut impl Rng, in_run: &mut bool) -> u64 {
        let total = self.total();
        let ranks = match self.runs {
            None => 0..total,
            Some(runs) => {
                let chance = if *in_run { runs.leave } else { runs.enter };
                *in_run ^= (rng.next_u64() >> 32) < chance;
                if *in_run { runs.fast..total } else { 0..runs.fast }
            }
        };
        let rank = uniform(rng, ranks.start, ranks.end - 1);
        let cell = self.cells[self.cells.partition_point(|cell| cell.end <= rank)];
        uniform(rng, cell.low_ns, cell.high_ns)
    }
}

/// (low, high, count) of every bucket that has observations.
fn spans(histogram: &Histogram) -> Vec<(u64, u64, u64)> {
    let mut low = 0;
    let mut spans = Vec::new();
    for bucket in &histogram.buckets {
        // The last one is open: its observations lie in one more doubling.
        let high = bucket.upper_ns.unwrap_or(low * 2);
        if bucket.count > 0 {
            let low = if low == 0 { high / FIRST_BUCKET } else { low };
            spans.push((low, high, bucket.count));
        }
        low = high;
    }
    spans
}

/// The cells of a bucket, each as much wider than the one before.
fn bounds(low: u64, high: u64) -> impl Iterator<Item = (u64, u64)> {
    // CELLS = 2⁴: the ratio is four square roots away.
    let ratio = (high as f64 / low as f64).sqrt().sqrt().sqrt().sqrt();
    let mut at = low as f64;
    let mut edges = vec![low];
    for _ in 1..CELLS {
        at *= ratio;
        edges.push(at as u64);
    }
    edges.push(high);
    (0..CELLS).map(move |n| (edges[n], edges[n + 1]))
}

/// Weights of a bucket's cells: each `lean` times the one before; their sum is exactly the bucket's.
fn cell_weights(count: u64, lean: f64) -> Vec<u64> {
    let whole = count * OBSERVATION;
    let shares: Vec<f64> = powers(lean).collect();
    let sum: f64 = shares.iter().sum();
    let mut left = whole;
    let mut weights: Vec<u64> = Vec::with_capacity(CELLS);
    for share in &shares[..CELLS - 1] {
        let weight = ((whole as f64 * (share / sum)) as u64).min(left);
        weights.push(weight);
        left -= weight;
    }
    weights.push(left);
    weights
}

fn powers(lean: f64) -> impl Iterator<Item = f64> {
    (0..CELLS).scan(1.0, move |power, _| {
        let this = *power;
        *power *= lean;
        Some(this)
    })
}

/// The lean at which the buckets have this mean.
///
/// Errors: no lean gives it.
fn find_lean(buckets: &[(u64, u64, u64)], mean_ns: f64) -> Result<f64, String> {
    let count: f64 = buckets.iter().map(|(_, _, count)| *count as f64).sum();
    let mean_at = |lean: f64| {
        let total: f64 = powers(lean).sum();
        let sum: f64 = buckets
            .iter()
            .map(|(low, high, count)| {
                let cells = bounds(*low, *high).zip(powers(lean));
                let middle: f64 =
                    cells.map(|((low, high), power)| (low + high) as f64 / 2.0 * power).sum();
                middle / total * *count as f64
            })
            .sum();
        sum / count
    };
    // A factor of 16 per cell puts a bucket into its last cell.
    let (mut low, mut high) = (1.0 / 16.0, 16.0);
    let (least, most) = (mean_at(low), mean_at(high));
    if !(least..=most).contains(&mean_ns) {
        let ms = |ns: f64| format!("{:.3} ms", ns / 1e6);
        return Err(format!(
            "the mean, `_sum` / `_count`, is {}, and the buckets allow {} to {}: are the units seconds?",
            ms(mean_ns),
            ms(least),
            ms(most)
        ));
    }
    for _ in 0..60 {
        let middle = (low * high).sqrt();
        if mean_at(middle) < mean_ns { low = middle } else { high = middle }
    }
    Ok(high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::stream;

    const INCIDENTS: [(&str, &str); 5] = [
        ("etcd-7312", include_str!("../../scenarios/incidents/etcd-7312.prom")),
        ("etcd-9407", include_str!("../../scenarios/incidents/etcd-9407.prom")),
        ("etcd-9544", include_str!("../../scenarios/incidents/etcd-9544.prom")),
        ("etcd-10273-hdd", include_str!("../../scenarios/incidents/etcd-10273-hdd.prom")),
        (
            "etcd-12405-slow-member",
            include_str!("../../scenarios/incidents/etcd-12405-slow-member.prom"),
        ),
    ];
    const DRAWS: u64 = 1_000_000;

    fn incidents() -> impl Iterator<Item = (&'static str, Histogram, Empirical)> {
        INCIDENTS.into_iter().map(|(name, text)| {
            let histogram = Histogram::parse(text).expect(name);
            let table = Empirical::new(&histogram).expect(name);
            (name, histogram, table)
        })
    }

    fn draw(table: &Empirical, draws: u64) -> Vec<u64> {
        let (mut rng, mut in_run) = (stream(1, 0, "test"), false);
        (0..draws).map(|_| table.sample(&mut rng, &mut in_run)).collect()
    }

    #[test]
    fn the_share_of_long_draws_is_what_is_drawn() {
        for (name, _, table) in incidents() {
            assert_eq!(
                (table.share_from(Duration::ZERO), table.share_from(Duration::from_hours(1))),
                (1.0, 0.0)
            );
            let drawn = draw(&table, DRAWS);
            for at_least in [2, 5, 10, 100].map(Duration::from_millis) {
                let long =
                    drawn.iter().filter(|ns| u128::from(**ns) >= at_least.as_nanos()).count();
                let (share, expected) = (long as f64 / DRAWS as f64, table.share_from(at_least));
                assert!(
                    (share - expected).abs() < 0.002,
                    "{name}, {at_least:?}: {share} {expected}"
                );
            }
        }
    }

    #[test]
    fn every_bucket_is_drawn_as_often_as_it_was_observed() {
        for (name, histogram, table) in incidents() {
            let drawn = draw(&table, DRAWS / 5);
            let mut low = 0;
            for bucket in &histogram.buckets {
                let high = bucket.upper_ns.unwrap_or(u64::MAX);
                let got = drawn.iter().filter(|ns| (low..high).contains(*ns)).count() as f64;
                let share = bucket.count as f64 / histogram.count() as f64;
                let expected = share * drawn.len() as f64;
                // Five standard deviations of the binomial, and what lies on a bound.
                let off = 5.0 * (expected * (1.0 - share)).sqrt() + 3.0;
                assert!((got - expected).abs() <= off, "{name} <{high}: {got} of {expected}");
                low = high;
            }
        }
    }

    #[test]
    fn the_mean_is_the_observed_one() {
        for (name, histogram, table) in incidents() {
            let Some(sum_ns) = histogram.sum_ns else { continue };
            let observed = (sum_ns / u128::from(histogram.count())) as f64;
            let table_off = (table.mean_ns() as f64 / observed - 1.0).abs();
            assert!(table_off < 0.000_1, "{name}: {table_off}");
            let drawn = draw(&table, DRAWS).iter().sum::<u64>() as f64 / DRAWS as f64;
            assert!((drawn / observed - 1.0).abs() < 0.01, "{name}: {drawn} for {observed}");
        }
    }

    #[test]
    fn runs_are_as_long_as_asked_and_change_no_single_draw() {
        let above = Duration::from_millis(8);
        for (name, histogram, table) in incidents() {
            let clustered = table.clone().clustered(Clustering { above, run: 10 });
            let Ok(clustered) = clustered else {
                assert_eq!(name, "etcd-10273-hdd", "there all are slower");
                continue;
            };
            let is_slow = |ns: &u64| *ns >= 8_000_000;
            let drawn: Vec<bool> = draw(&clustered, DRAWS).iter().map(is_slow).collect();
            let slow = drawn.iter().filter(|slow| **slow).count() as f64;
            let runs = drawn.windows(2).filter(|pair| !pair[0] && pair[1]).count() as f64;
            let slow_count: u64 = histogram
                .buckets
                .iter()
                .filter(|bucket| bucket.upper_ns.is_none_or(|upper| upper > 8_000_000))
                .map(|bucket| bucket.count)
                .sum();
            let expected = slow_count as f64 / histogram.count() as f64 * drawn.len() as f64;
            assert!((slow / expected - 1.0).abs() < 0.2, "{name}: {slow} slow of {expected}");
            assert!((slow / runs - 10.0).abs() < 2.0, "{name}: runs of {}", slow / runs);
        }
    }

    #[test]
    fn a_bound_that_is_none_and_runs_that_cannot_be_are_refused() {
        let (_, _, table) = incidents().next().expect("the first one");
        let clustered = |above_ms, run| {
            let above = Duration::from_millis(above_ms);
            table.clone().clustered(Clustering { above, run })
        };
        assert!(clustered(64, 8).is_ok());
        assert!(clustered(65, 8).expect_err("no bound").contains("expected one of"));
        assert!(clustered(64, 0).is_err());
        assert!(clustered(2, 1).is_err(), "nearly all are slower");
    }
}
