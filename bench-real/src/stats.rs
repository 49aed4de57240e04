//! From repeats to one number with its spread, and from two stores to a ratio with its error.

use detkv_reports::bench::{Ratio, Ratios, Repeat, Stat, StoreResult};
use hdrhistogram::Histogram;

/// Latencies from 1 µs to 10 minutes with three digits; longer ones count as 10 minutes.
///
/// The bounds must be given: a histogram without them starts with 2 as its largest value, and
/// `saturating_record` never widens it.
pub fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds are valid constants")
}

/// Median, extent and sample standard deviation. All zero for an empty slice.
pub fn stat(values: &[f64]) -> Stat {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (Some(min), Some(max)) = (sorted.first(), sorted.last()) else {
        return Stat { median: 0.0, min: 0.0, max: 0.0, sd: None };
    };
    Stat { median: median(&sorted), min: *min, max: *max, sd: deviation(values) }
}

/// Middle of a sorted slice, the mean of the two middle values if there are two.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// Sample standard deviation (n − 1); `None` for fewer than two values.
fn deviation(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// `ours / theirs` visit by visit: the visits take turns, so a drift of the machine hits both of a pair.
///
/// Returns `None` when no pair has a denominator.
pub fn paired_ratio(ours: &[f64], theirs: &[f64]) -> Option<Ratio> {
    let ratios: Vec<f64> =
        ours.iter().zip(theirs).filter(|(_, b)| **b > 0.0).map(|(a, b)| a / b).collect();
    let stat = stat(&ratios);
    (!ratios.is_empty()).then_some(Ratio { value: stat.median, spread: stat.sd })
}

fn ops_per_sec(repeat: &Repeat) -> f64 {
    repeat.ops as f64 / repeat.seconds
}

fn server_cpu(repeat: &Repeat) -> f64 {
    per_1000(repeat.server_cpu_secs, repeat.ops)
}

fn per_1000(secs: f64, ops: u64) -> f64 {
    if ops == 0 { 0.0 } else { secs * 1000.0 / ops as f64 }
}

/// Bytes to disk per byte of payload, for repeats that know both.
fn amplification(repeat: &Repeat, payload_bytes: u64) -> Option<f64> {
    let payload = repeat.ops as f64 * payload_bytes as f64;
    Some(repeat.written_bytes? as f64 / payload).filter(|_| payload > 0.0)
}

fn each(repeats: &[Repeat], of: impl Fn(&Repeat) -> f64) -> Vec<f64> {
    repeats.iter().map(of).collect()
}

/// Summarises the visits to one store.
pub fn store_result(
    repeats: Vec<Repeat>,
    payload_bytes: u64,
    error_example: Option<String>,
) -> StoreResult {
    let over = |of: fn(&Repeat) -> f64| stat(&each(&repeats, of));
    let written: Vec<f64> =
        repeats.iter().filter_map(|repeat| amplification(repeat, payload_bytes)).collect();
    StoreResult {
        ops_per_sec: over(ops_per_sec),
        p50_us: over(|repeat| repeat.p50_us as f64),
        p99_us: over(|repeat| repeat.p99_us as f64),
        server_cpu_secs_per_1000: over(server_cpu),
        client_cpu_secs_per_1000: over(|repeat| per_1000(repeat.client_cpu_secs, repeat.ops)),
        write_amplification: (!written.is_empty()).then(|| stat(&written)),
        errors: repeats.iter().map(|repeat| repeat.errors).sum(),
        error_example,
        repeats,
    }
}

/// Our visits against those of the store `against`.
///
/// Returns `None` when either measured nothing.
pub fn ratios(
    ours: &[Repeat],
    theirs: &[Repeat],
    against: &str,
    payload_bytes: u64,
) -> Option<Ratios> {
    let ratio = |of: fn(&Repeat) -> f64| paired_ratio(&each(ours, of), &each(theirs, of));
    let written =
        |repeats: &[Repeat]| each(repeats, |r| amplification(r, payload_bytes).unwrap_or(0.0));
    Some(Ratios {
        against: against.to_owned(),
        ops_per_sec: ratio(ops_per_sec)?,
        p50_us: ratio(|repeat| repeat.p50_us as f64)?,
        p99_us: ratio(|repeat| repeat.p99_us as f64)?,
        server_cpu: ratio(server_cpu)?,
        write_amplification: paired_ratio(&written(ours), &written(theirs)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repeat(ops: u64, p50_us: u64, written_bytes: Option<u64>) -> Repeat {
        Repeat {
            ops,
            errors: 1,
            seconds: 2.0,
            p50_us,
            p99_us: 10 * p50_us,
            p999_us: 20 * p50_us,
            max_us: 30 * p50_us,
            server_cpu_secs: 1.0,
            client_cpu_secs: 0.5,
            written_bytes,
        }
    }

    #[test]
    fn latencies_of_seconds_are_recorded_as_such() {
        let mut latency = latency_histogram();
        for us in [0, 90, 4_000, 5_000_000] {
            latency.saturating_record(us);
        }
        assert!(latency.value_at_quantile(0.75) >= 4_000, "not clamped to a small maximum");
        assert!(latency.max() >= 5_000_000);
    }

    #[test]
    fn median_is_the_middle_or_the_mean_of_the_middle_two() {
        assert_eq!(stat(&[3.0, 1.0, 2.0]).median, 2.0);
        assert_eq!(stat(&[4.0, 1.0, 3.0, 2.0]).median, 2.5);
        let empty = stat(&[]);
        assert_eq!((empty.median, empty.sd), (0.0, None));
    }

    #[test]
    fn spread_is_the_sample_deviation_and_one_repeat_has_none() {
        let sd = stat(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).sd.expect("eight values");
        assert!((sd - 2.138).abs() < 0.001, "{sd}");
        assert_eq!(stat(&[5.0]), Stat { median: 5.0, min: 5.0, max: 5.0, sd: None });
    }

    #[test]
    fn a_drift_that_hits_both_stores_leaves_no_spread_in_the_ratio() {
        let ratio =
            paired_ratio(&[300.0, 200.0, 100.0], &[150.0, 100.0, 50.0]).expect("three pairs");
        assert_eq!(ratio.value, 2.0);
        assert_eq!(ratio.spread, Some(0.0));
    }

    #[test]
    fn a_ratio_over_nothing_is_none() {
        assert_eq!(paired_ratio(&[1.0], &[0.0]), None);
        assert_eq!(paired_ratio(&[], &[]), None);
    }

    #[test]
    fn results_are_per_operation_and_reads_have_no_write_amplification() {
        let puts = store_result(vec![repeat(1000, 50, Some(1_280_000))], 256, None);
        assert_eq!(puts.ops_per_sec.median, 500.0);
        assert_eq!(puts.server_cpu_secs_per_1000.median, 1.0);
        assert_eq!(puts.write_amplification.expect("puts write").median, 5.0);
        let gets =
            store_result(vec![repeat(1000, 50, Some(4096)), repeat(1000, 50, None)], 0, None);
        assert_eq!(gets.write_amplification, None);
        assert_eq!(gets.errors, 2);
    }

    #[test]
    fn ratios_compare_what_both_measured() {
        let ours = [repeat(2000, 50, Some(1000)), repeat(2200, 50, Some(1000))];
        let theirs = [repeat(1000, 100, None), repeat(1000, 100, None)];
        let ratios = ratios(&ours, &theirs, "etcd", 256).expect("both measured");
        assert!((ratios.ops_per_sec.value - 2.1).abs() < 1e-9);
        assert_eq!(ratios.p50_us.value, 0.5);
        assert_eq!(ratios.write_amplification, None, "one side could not read /proc/<pid>/io");
    }
}
