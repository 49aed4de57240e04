//! What a disk's model may say.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{CrashModel, DiskModel, Episodes};
use crate::bounds::{INTERVALS, inside, time_within, within};

/// Syncs served at once.
const PARALLELISM: RangeInclusive<u32> = 1..=1_024;
/// Slower, and what is to be written would take longer than any clock counts.
const RATES: RangeInclusive<u64> = 1_000..=1_000_000_000_000;
/// A bad period makes a sync so many times as long.
const SLOWER: RangeInclusive<u32> = 1..=1_000;
/// A system call.
const CALLS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(1);
/// Sizes of what a disk writes whole: its sectors.
const TEARS: [u64; 2] = [512, 4096];

impl DiskModel {
    /// Errors: what is wrong, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        inside("sync", self.sync.check())?;
        if let Some(rate) = self.bytes_per_sec {
            within("bytes_per_sec", rate, RATES)?;
        }
        within("parallelism", self.parallelism, PARALLELISM)?;
        time_within("call", self.call, CALLS)?;
        within("memory_bytes_per_sec", self.memory_bytes_per_sec, RATES)?;
        within("read_bytes_per_sec", self.read_bytes_per_sec, RATES)?;
        inside("crash", self.crash.check())?;
        self.episodes.map_or(Ok(()), |episodes| inside("episodes", episodes.check()))
    }
}

impl CrashModel {
    /// Errors: what is wrong, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        within("keep_percent", self.keep_percent, 0..=100)?;
        within("lose_percent", self.lose_percent, 0..=100)?;
        let sum = self.keep_percent + self.lose_percent;
        if sum > 100 {
            return Err(format!(
                "`keep_percent` and `lose_percent` add up to {sum}, expected at most 100"
            ));
        }
        if !TEARS.contains(&self.tear_bytes) {
            return Err(format!("`tear_bytes` is {}, expected 512 or 4096", self.tear_bytes));
        }
        Ok(())
    }
}

impl Episodes {
    /// Errors: what is wrong, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        time_within("good", self.good, INTERVALS)?;
        time_within("bad", self.bad, INTERVALS)?;
        within("slower", self.slower, SLOWER)
    }
}
