//! Good and bad periods of a device: a two-state Markov process in continuous time.
//!
//! A histogram of sync latencies has no time axis. Real disks are slow in runs: a cloud volume out of credits, a
//! neighbour's backup, a controller that collects garbage. The same share of slow syncs does far more harm so.
//!
//! ```text
//! good ──(exponential, mean `good`)──▶ bad ──(exponential, mean `bad`)──▶ good …
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::rng::{Distribution, stream};

/// In files: `episodes = { good = "60s", bad = "2s", stall = true }` or `{ good = "60s", bad = "2s", slower = 20 }`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Episodes {
    /// Mean length of a good period; the first one begins with the run.
    #[serde(with = "crate::duration")]
    pub good: Duration,
    /// Mean length of a bad one.
    #[serde(with = "crate::duration")]
    pub bad: Duration,
    /// In a bad period no sync begins.
    #[serde(default)]
    pub stall: bool,
    /// In a bad period a sync takes so many times as long, bytes included.
    #[serde(default = "as_long")]
    pub slower: u32,
}

fn as_long() -> u32 {
    1
}

/// The periods of one device, made as they are asked for.
#[derive(Debug)]
pub struct Periods {
    model: Episodes,
    rng: ChaCha8Rng,
    /// Bad periods not long past: (from, until), in order.
    bad: VecDeque<(u64, u64)>,
    /// Known up to here.
    until: u64,
}

/// Syncs are asked about in nearly the order of time: a lane may be ahead of another by less than this.
const KEPT: usize = 64;

impl Periods {
    pub fn new(seed: u64, node: u64, model: Episodes) -> Self {
        let rng = stream(seed, node, "disk episodes");
        Self { model, rng, bad: VecDeque::new(), until: 0 }
    }

    /// The bad period that holds `at`, if one does.
    pub fn bad_at(&mut self, at: u64) -> Option<(u64, u64)> {
        while self.until <= at {
            let from = self.until + self.draw(self.model.good);
            let until = from + self.draw(self.model.bad);
            self.bad.push_back((from, until));
            if self.bad.len() > KEPT {
                self.bad.pop_front();
            }
            self.until = until;
        }
        self.bad.iter().copied().find(|(from, until)| *from <= at && at < *until)
    }

    pub fn model(&self) -> Episodes {
        self.model
    }

    fn draw(&mut self, mean: Duration) -> u64 {
        // Periods of no length would never come to an end.
        let mean = mean.max(Duration::from_millis(1));
        Distribution::Exponential { min: Duration::ZERO, mean }.sample(&mut self.rng).max(1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_bad_time_is_as_the_means_say_and_comes_in_runs() {
        let (good, bad) = (Duration::from_secs(9), Duration::from_secs(1));
        let mut periods = Periods::new(1, 1, Episodes { good, bad, stall: true, slower: 1 });
        let is_bad: Vec<bool> =
            (0..200_000).map(|tenth| periods.bad_at(tenth * 100_000_000).is_some()).collect();
        let count = is_bad.iter().filter(|bad| **bad).count();
        assert!((17_000..23_000).contains(&count), "a tenth of the time: {count}");
        let runs = is_bad.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        let mean = count / runs;
        assert!((8..13).contains(&mean), "a second each: {mean} tenths");
    }

    #[test]
    fn looking_twice_or_back_changes_nothing() {
        let (good, bad) = (Duration::from_secs(1), Duration::from_secs(1));
        let model = Episodes { good, bad, stall: true, slower: 1 };
        let (mut a, mut b) = (Periods::new(1, 1, model), Periods::new(1, 1, model));
        for at in (0..20_000_000_000).step_by(100_000_000) {
            let once = a.bad_at(at);
            b.bad_at(at + 50_000_000);
            assert_eq!(once, b.bad_at(at));
        }
    }
}
