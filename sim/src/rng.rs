//! Random streams with names, and integer-only sampling from them.
//!
//! A stream is a function of (seed, node, purpose): a new draw in the network moves no draw of a disk.
//! Samples use integer arithmetic and tables only: `exp`, `ln` and `pow` differ between C libraries.

use std::ops::RangeInclusive;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::bounds::{inside, time_within};
use crate::duration;
use crate::empirical::Empirical;

/// The stream of `node` (0: none) for `purpose`. Its key is a hash of the triple.
pub fn stream(seed: u64, node: u64, purpose: &str) -> ChaCha8Rng {
    let mut name = Vec::with_capacity(16 + purpose.len());
    name.extend_from_slice(&seed.to_le_bytes());
    name.extend_from_slice(&node.to_le_bytes());
    name.extend_from_slice(purpose.as_bytes());
    let mut key = [0; 32];
    key[..16].copy_from_slice(&xxh3_128_with_seed(&name, 1).to_le_bytes());
    key[16..].copy_from_slice(&xxh3_128_with_seed(&name, 2).to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// A number in `low..=high`. The bias of multiply-shift is below 2⁻³² for spans below 2³².
pub fn uniform(rng: &mut impl Rng, low: u64, high: u64) -> u64 {
    assert!(low <= high, "a range has its low end first");
    let span = u128::from(high - low) + 1;
    low + ((u128::from(rng.next_u64()) * span) >> 64) as u64
}

/// True `ppm` times in a million.
pub fn chance(rng: &mut impl Rng, ppm: u32) -> bool {
    ppm > 0 && uniform(rng, 0, 999_999) < u64::from(ppm)
}

/// A distribution of durations.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Distribution {
    Constant(#[serde(with = "crate::duration")] Duration),
    Uniform {
        #[serde(with = "crate::duration")]
        min: Duration,
        #[serde(with = "crate::duration")]
        max: Duration,
    },
    /// `min` plus an exponential part, so that the mean is `mean`.
    Exponential {
        #[serde(with = "crate::duration")]
        min: Duration,
        #[serde(with = "crate::duration")]
        mean: Duration,
    },
    /// An empirical histogram: buckets by rising upper bound; uniform inside a bucket.
    Histogram(Vec<Bucket>),
    /// As a real machine had them; written as the name of a file (`disk.model`).
    #[serde(skip)]
    Empirical(Empirical),
}

/// `count` observations above the bucket before and at most `upper`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    #[serde(with = "crate::duration")]
    pub upper: Duration,
    pub count: u64,
}

impl Distribution {
    /// Errors: what is wrong, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        let order = |(low_name, low), (high_name, high): (&str, Duration)| {
            if low <= high {
                return Ok(());
            }
            let [low, high] = [low, high].map(duration::format);
            Err(format!("`{low_name}` is {low}, expected at most `{high_name}`, {high}"))
        };
        match self {
            Distribution::Empirical(_) => Ok(()),
            Distribution::Constant(d) => time_within("constant", *d, LATENCIES),
            Distribution::Uniform { min, max } => {
                let longest = time_within("max", *max, LATENCIES);
                inside("uniform", longest.and_then(|()| order(("min", *min), ("max", *max))))
            }
            Distribution::Exponential { min, mean } => {
                let longest = time_within("mean", *mean, LATENCIES);
                inside("exponential", longest.and_then(|()| order(("min", *min), ("mean", *mean))))
            }
            Distribution::Histogram(buckets) => check_buckets(buckets),
        }
    }

    pub fn constant(d: Duration) -> Self {
        Distribution::Constant(d)
    }

    /// One draw, in nanoseconds, that knows of none before it. A constant draws nothing.
    pub fn sample(&self, rng: &mut impl Rng) -> u64 {
        self.sample_in_run(rng, &mut false)
    }

    /// As [`Distribution::sample`]; `in_run` is what a clustered distribution keeps between draws.
    fn sample_in_run(&self, rng: &mut impl Rng, in_run: &mut bool) -> u64 {
        match self {
            Distribution::Empirical(table) => table.sample(rng, in_run),
            Distribution::Constant(d) => ns(*d),
            Distribution::Uniform { min, max } => uniform(rng, ns(*min), ns(*max).max(ns(*min))),
            Distribution::Exponential { min, mean } => {
                let scale = u128::from(ns(*mean).saturating_sub(ns(*min)));
                ns(*min) + ((scale * u128::from(exponential(rng))) >> 16) as u64
            }
            Distribution::Histogram(buckets) => sample_histogram(buckets, rng),
        }
    }
}

/// What anything takes: much longer, and a queue of it would outlast any clock.
const LATENCIES: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3_600);
/// Observations that all buckets may have together.
const OBSERVATIONS: RangeInclusive<u64> = 1..=1 << 30;

fn check_buckets(buckets: &[Bucket]) -> Result<(), String> {
    for (place, pair) in (1..).zip(buckets.windows(2)) {
        let [before, upper] = [pair[0].upper, pair[1].upper];
        if before >= upper {
            let [before, upper] = [before, upper].map(duration::format);
            return Err(format!(
                "`histogram[{place}]`: `upper` is {upper}, expected more than the one before, {before}"
            ));
        }
    }
    for (place, bucket) in buckets.iter().enumerate() {
        inside(&format!("histogram[{place}]"), time_within("upper", bucket.upper, LATENCIES))?;
    }
    let all = buckets.iter().fold(0_u64, |all, bucket| all.saturating_add(bucket.count));
    if !OBSERVATIONS.contains(&all) {
        let (low, high) = (OBSERVATIONS.start(), OBSERVATIONS.end());
        return Err(format!("`histogram`: `count` adds up to {all}, expected {low} to {high}"));
    }
    Ok(())
}

fn ns(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

fn sample_histogram(buckets: &[Bucket], rng: &mut impl Rng) -> u64 {
    let total: u64 = buckets.iter().map(|b| b.count).sum();
    assert!(total > 0, "a histogram has at least one observation");
    let mut rank = uniform(rng, 0, total - 1);
    let mut lower = 0;
    for bucket in buckets {
        if rank < bucket.count {
            return uniform(rng, lower, ns(bucket.upper).max(lower));
        }
        rank -= bucket.count;
        lower = ns(bucket.upper);
    }
    unreachable!("the rank lies below the sum of all counts")
}

/// ln(256) in units of 2⁻¹⁶: where the last table step begins.
const LN_256: u64 = 363409;

/// An exponential number of mean 1, in units of 2⁻¹⁶.
fn exponential(rng: &mut impl Rng) -> u64 {
    let mut base = 0;
    loop {
        let draw = rng.next_u64();
        let (step, fraction) = ((draw >> 56) as usize, (draw >> 40) & 0xffff);
        if step < 255 {
            let (low, high) = (EXPONENTIAL[step], EXPONENTIAL[step + 1]);
            return base + low + (((high - low) * fraction) >> 16);
        }
        // Memoryless: past the last step another exponential number begins.
        base += LN_256;
    }
}

/// Quantile i/256 of the exponential distribution of mean 1: round(−ln(1 − i/256) · 2¹⁶).
#[rustfmt::skip]
const EXPONENTIAL: [u64; 256] = [
    0, 257, 514, 773, 1032, 1293, 1554, 1817, 2081, 2345,
    2611, 2878, 3146, 3415, 3686, 3957, 4230, 4503, 4778, 5054,
    5331, 5609, 5889, 6169, 6451, 6734, 7019, 7304, 7591, 7879,
    8169, 8459, 8751, 9044, 9339, 9635, 9932, 10_231, 10_530, 10_832,
    11_135, 11_439, 11_744, 12_051, 12_360, 12_669, 12_981, 13_294, 13_608, 13_924,
    14_241, 14_560, 14_880, 15_202, 15_526, 15_851, 16_178, 16_507, 16_837, 17_169,
    17_502, 17_837, 18_174, 18_513, 18_854, 19_196, 19_540, 19_886, 20_233, 20_583,
    20_934, 21_288, 21_643, 22_000, 22_359, 22_720, 23_083, 23_448, 23_815, 24_185,
    24_556, 24_929, 25_305, 25_683, 26_063, 26_445, 26_829, 27_216, 27_605, 27_996,
    28_390, 28_786, 29_184, 29_585, 29_988, 30_394, 30_802, 31_213, 31_627, 32_043,
    32_461, 32_883, 33_307, 33_734, 34_164, 34_596, 35_032, 35_470, 35_911, 36_356,
    36_803, 37_254, 37_707, 38_164, 38_624, 39_087, 39_553, 40_023, 40_496, 40_973,
    41_453, 41_937, 42_424, 42_915, 43_409, 43_908, 44_410, 44_916, 45_426, 45_940,
    46_458, 46_980, 47_507, 48_037, 48_572, 49_112, 49_656, 50_204, 50_757, 51_315,
    51_877, 52_445, 53_017, 53_595, 54_177, 54_765, 55_358, 55_957, 56_561, 57_170,
    57_786, 58_407, 59_034, 59_667, 60_307, 60_952, 61_604, 62_263, 62_928, 63_600,
    64_280, 64_966, 65_659, 66_360, 67_069, 67_785, 68_509, 69_241, 69_982, 70_731,
    71_489, 72_255, 73_031, 73_816, 74_610, 75_414, 76_228, 77_053, 77_887, 78_733,
    79_590, 80_458, 81_338, 82_229, 83_133, 84_050, 84_979, 85_922, 86_879, 87_850,
    88_836, 89_836, 90_852, 91_884, 92_933, 93_999, 95_082, 96_183, 97_304, 98_443,
    99_603, 100_784, 101_987, 103_212, 104_460, 105_733, 107_030, 108_354, 109_706, 111_085,
    112_495, 113_935, 115_408, 116_915, 118_457, 120_036, 121_654, 123_314, 125_016, 126_764,
    128_559, 130_405, 132_305, 134_262, 136_278, 138_359, 140_508, 142_730, 145_029, 147_413,
    149_886, 152_457, 155_132, 157_921, 160_834, 163_883, 167_080, 170_442, 173_985, 177_731,
    181_704, 185_934, 190_455, 195_312, 200_558, 206_260, 212_507, 219_411, 227_130, 235_882,
    245_984, 257_933, 272_557, 291_410, 317_983, 363_409,
];

/// A named stream of latencies that counts its draws, so that a trace can name each of them.
#[derive(Debug)]
pub struct Draws {
    rng: ChaCha8Rng,
    node: u64,
    purpose: &'static str,
    ordinal: u64,
    /// Of a clustered distribution: whether the last draw was slow.
    in_run: bool,
    log: Option<Vec<Draw>>,
}

/// One drawn latency.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Draw {
    pub stream: String,
    pub node: u64,
    pub ordinal: u64,
    pub ns: u64,
}

impl Draws {
    pub fn new(seed: u64, node: u64, purpose: &'static str, keep_log: bool) -> Self {
        let rng = stream(seed, node, purpose);
        Self { rng, node, purpose, ordinal: 0, in_run: false, log: keep_log.then(Vec::new) }
    }

    /// One draw, in nanoseconds.
    pub fn latency(&mut self, distribution: &Distribution) -> u64 {
        let ns = distribution.sample_in_run(&mut self.rng, &mut self.in_run);
        self.ordinal += 1;
        if let Some(log) = &mut self.log {
            let (stream, ordinal) = (self.purpose.to_owned(), self.ordinal);
            log.push(Draw { stream, node: self.node, ordinal, ns });
        }
        ns
    }

    pub fn chance(&mut self, ppm: u32) -> bool {
        chance(&mut self.rng, ppm)
    }

    /// What was drawn since the last call, if a log is kept.
    pub fn take_log(&mut self) -> Vec<Draw> {
        self.log.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_seed_node_and_purpose_and_repeat() {
        let first = |seed, node, purpose| stream(seed, node, purpose).next_u64();
        let base = first(1, 2, "disk");
        assert_eq!(base, first(1, 2, "disk"));
        for other in [first(2, 2, "disk"), first(1, 3, "disk"), first(1, 2, "net")] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn the_exponential_has_its_mean_and_a_tail() {
        let mut rng = stream(7, 0, "test");
        let d = Distribution::Exponential {
            min: Duration::from_micros(100),
            mean: Duration::from_micros(300),
        };
        let samples: Vec<u64> = (0..100_000).map(|_| d.sample(&mut rng)).collect();
        let mean = samples.iter().sum::<u64>() / 100_000;
        assert!((298_000..302_000).contains(&mean), "{mean}");
        assert!(*samples.iter().min().unwrap() >= 100_000);
        assert!(*samples.iter().max().unwrap() > 1_500_000);
    }

    #[test]
    fn a_histogram_returns_its_buckets_in_proportion() {
        let ms = Duration::from_millis;
        let d = Distribution::Histogram(vec![
            Bucket { upper: ms(1), count: 3 },
            Bucket { upper: ms(2), count: 0 },
            Bucket { upper: ms(4), count: 1 },
        ]);
        let mut rng = stream(1, 0, "test");
        let samples: Vec<u64> = (0..40_000).map(|_| d.sample(&mut rng)).collect();
        let low = samples.iter().filter(|ns| **ns <= 1_000_000).count();
        assert!((29_500..30_500).contains(&low), "{low}");
        assert!(samples.iter().all(|ns| *ns <= 1_000_000 || *ns >= 2_000_000));
    }

    #[test]
    fn uniform_reaches_both_ends() {
        let mut rng = stream(1, 0, "test");
        let mut seen = [0; 3];
        for _ in 0..100 {
            seen[uniform(&mut rng, 5, 7) as usize - 5] += 1;
        }
        assert!(seen.iter().all(|n| *n > 10), "{seen:?}");
    }
}
