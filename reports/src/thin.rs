//! Thins a run of any size out to what a page can show, without losing what matters.
//!
//! Points are placed on a grid of small cells: two points of one cell look the same, so one mark stands for
//! both and its weight says how many there were. Every cell with a point keeps a mark, so an outlier is never
//! thinned away. Lines come from windows of time.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::run::PutSample;
use crate::scale::round_step;

/// Side of a grid cell in page units: about the size of one mark.
const CELL: f64 = 2.5;

/// Windows a timeline is cut into at most.
const WINDOWS_MAX: f64 = 160.0;

/// Shortest window: below this a window of an ordinary load holds one put.
const WINDOW_MS_MIN: f64 = 10.0;

/// Points of one kind on the page, by grid cell.
#[derive(Debug, Default)]
pub struct Grid {
    cells: BTreeMap<(i32, i32), u32>,
}

impl Grid {
    pub fn add(&mut self, x: f64, y: f64) {
        let cell = ((x / CELL).floor() as i32, (y / CELL).floor() as i32);
        let count = self.cells.entry(cell).or_default();
        *count = count.saturating_add(1);
    }

    /// Centres of the cells that hold a number of points in `counts`.
    pub fn marks(
        &self,
        counts: std::ops::RangeInclusive<u32>,
    ) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.cells
            .iter()
            .filter(move |(_, count)| counts.contains(count))
            .map(|((x, y), _)| ((f64::from(*x) + 0.5) * CELL, (f64::from(*y) + 0.5) * CELL))
    }
}

/// Puts of one window of time.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    pub from_ms: f64,
    /// Successful puts that *returned* in the window.
    pub returned: u64,
    /// Puts that started in the window and failed.
    pub failed: u64,
    /// Of the successful puts that started in the window.
    pub p50_us: Option<u64>,
    pub p99_us: Option<u64>,
}

/// Length of a window for a run of `duration_ms`.
pub fn window_ms(duration_ms: u64) -> f64 {
    round_step(duration_ms.max(1) as f64, WINDOWS_MAX).max(WINDOW_MS_MIN)
}

/// Cuts `[0, duration_ms]` into windows of `window_ms`. Puts outside it are left out.
pub fn windows(puts: &[PutSample], duration_ms: u64, window_ms: f64) -> Vec<Window> {
    let count = ((duration_ms.max(1) as f64 / window_ms).ceil() as usize).max(1);
    let index = |ms: f64| Some((ms / window_ms) as usize).filter(|i| *i < count);
    let mut latencies: Vec<Option<Histogram<u64>>> = (0..count).map(|_| None).collect();
    let mut returned = vec![0; count];
    let mut failed = vec![0; count];
    for put in puts {
        let start = index(put.time_ms as f64);
        if !put.ok {
            start.into_iter().for_each(|i| failed[i] += 1);
            continue;
        }
        if let Some(i) = index(put.time_ms as f64 + put.latency_us as f64 / 1e3) {
            returned[i] += 1;
        }
        if let Some(i) = start {
            latencies[i].get_or_insert_with(latency_histogram).saturating_record(put.latency_us);
        }
    }
    let quantile = |i: usize, q| latencies[i].as_ref().map(|h| h.value_at_quantile(q));
    (0..count)
        .map(|i| Window {
            from_ms: i as f64 * window_ms,
            returned: returned[i],
            failed: failed[i],
            p50_us: quantile(i, 0.50),
            p99_us: quantile(i, 0.99),
        })
        .collect()
}

/// Microseconds from 1 µs to an hour with two significant digits: finer than a page can show.
fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 2).expect("the bounds are valid constants")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(time_ms: u64, latency_us: u64, ok: bool) -> PutSample {
        PutSample { time_ms, latency_us, ok, member: 1 }
    }

    #[test]
    fn a_lone_outlier_among_100_000_points_keeps_its_mark() {
        let mut grid = Grid::default();
        for i in 0..100_000 {
            grid.add(f64::from(i % 1000), 50.0);
        }
        grid.add(500.0, 3.0);
        assert!(grid.marks(1..=u32::MAX).count() <= 401);
        assert_eq!(grid.marks(1..=1).count(), 1, "the outlier is the only lone point");
    }

    #[test]
    fn a_put_counts_as_throughput_where_it_returned_and_as_latency_where_it_started() {
        let puts = [put(100, 1_000, true), put(150, 900_000, true), put(160, 1_000_000, false)];
        let windows = windows(&puts, 2000, 500.0);
        assert_eq!(windows.len(), 4);
        assert_eq!(windows.iter().map(|w| w.returned).collect::<Vec<_>>(), [1, 0, 1, 0]);
        assert_eq!(windows[0].failed, 1);
        assert!(windows[0].p99_us.is_some_and(|us| us >= 890_000));
        assert_eq!(windows[2].p50_us, None, "no put started there");
    }

    #[test]
    fn windows_survive_an_empty_run_and_puts_past_its_end() {
        assert_eq!(windows(&[], 0, 10.0).len(), 1);
        let late = windows(&[put(u64::MAX / 2, u64::MAX / 2, true)], 100, 10.0);
        assert_eq!(late.iter().map(|w| w.returned).sum::<u64>(), 0);
    }

    #[test]
    fn a_run_is_cut_into_at_most_160_windows() {
        for duration in [1, 999, 20_000, 86_400_000] {
            assert!(duration as f64 / window_ms(duration) <= 160.0, "{duration}");
        }
    }
}
