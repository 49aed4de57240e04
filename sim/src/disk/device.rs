//! The device under the files: how long a sync takes, and in which order syncs are served.

use serde::{Deserialize, Serialize};

use std::time::Duration;

use super::episodes::{Episodes, Periods};
use crate::empirical::{Clustering, Empirical};
use crate::hdr;
use crate::prometheus::{Histogram, ParseError};
use crate::rng::{Distribution, Draws};

/// How a disk behaves. Writes go to the page cache; a sync goes to the device.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiskModel {
    /// A sync without its bytes.
    pub sync: Distribution,
    /// In place of `sync`: a file with a histogram of syncs, in Prometheus' text format or as an HdrHistogram
    /// interval log, which the scenario's reader resolves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// With `model`: slow syncs come in runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clustering: Option<Clustering>,
    /// Writing dirty bytes back: `None` is unlimited.
    pub bytes_per_sec: Option<u64>,
    /// Syncs served at once; more wait in order.
    pub parallelism: u32,
    /// A write, create, rename, … in the page cache: the system call.
    #[serde(with = "crate::duration")]
    pub call: Duration,
    /// Copying to and from the page cache.
    pub memory_bytes_per_sec: u64,
    /// Reading at recovery, when the page cache is cold.
    pub read_bytes_per_sec: u64,
    pub crash: CrashModel,
    /// Good and bad periods; `None`: always good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub episodes: Option<Episodes>,
}

/// What a power loss does to one un-synced write; the rest of the draws tear it per sector.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CrashModel {
    pub keep_percent: u32,
    pub lose_percent: u32,
    /// A torn write is kept or lost in pieces of so many bytes: 512 or 4096.
    pub tear_bytes: u64,
}

impl Default for CrashModel {
    fn default() -> Self {
        Self { keep_percent: 30, lose_percent: 40, tear_bytes: 512 }
    }
}

impl Default for DiskModel {
    /// A good NVMe or cloud SSD: 0.5–1 ms per sync, 500 MB/s.
    fn default() -> Self {
        Self {
            sync: Distribution::Exponential {
                min: Duration::from_micros(500),
                mean: Duration::from_micros(700),
            },
            model: None,
            clustering: None,
            bytes_per_sec: Some(500_000_000),
            parallelism: 2,
            call: Duration::from_micros(2),
            memory_bytes_per_sec: 4_000_000_000,
            read_bytes_per_sec: 1_000_000_000,
            crash: CrashModel::default(),
            episodes: None,
        }
    }
}

impl DiskModel {
    /// Puts the histogram of the file named by `model` in place of `sync`.
    ///
    /// Errors: a mistake in the text with its line, or in `clustering` (line 0: not the file's).
    pub fn resolve(&mut self, text: &str) -> Result<(), ParseError> {
        let is_hdr = hdr::is_interval_log(text);
        let histogram = if is_hdr { hdr::parse(text) } else { Histogram::parse(text) }?;
        let line = text.lines().position(|line| line.contains("_sum")).map_or(1, |at| at + 1);
        let mut table =
            Empirical::new(&histogram).map_err(|message| ParseError { line, message })?;
        if let Some(clustering) = self.clustering {
            table =
                table.clustered(clustering).map_err(|message| ParseError { line: 0, message })?;
        }
        self.sync = Distribution::Empirical(table);
        Ok(())
    }
}

/// Sync that finds nothing to write: a system call, no device.
const EMPTY_SYNC_NS: u64 = 5_000;

/// Names a stall of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StallId(u64);

/// No sync completes.
#[derive(Clone, Copy, Debug)]
struct Stall {
    id: StallId,
    from: u64,
    until: u64,
}

/// The queue of a device. All times are true time.
#[derive(Debug)]
pub struct Device {
    /// When each of the parallel channels is free.
    free_at: Vec<u64>,
    stalls: Vec<Stall>,
    next_stall: u64,
    periods: Option<Periods>,
}

impl Device {
    pub fn new(seed: u64, node: u64, model: &DiskModel) -> Self {
        let free_at = vec![0; model.parallelism.max(1) as usize];
        let periods = model.episodes.map(|episodes| Periods::new(seed, node, episodes));
        Self { free_at, stalls: Vec::new(), next_stall: 0, periods }
    }

    pub fn stall(&mut self, from: u64, until: u64) -> StallId {
        let id = StallId(self.next_stall);
        self.next_stall += 1;
        self.stalls.push(Stall { id, from, until });
        id
    }

    /// Ends one stall at `now`, if it lasts; others go on. Syncs that were issued keep the time they were given.
    pub fn end_stall(&mut self, id: StallId, now: u64) {
        if let Some(stall) = self.stalls.iter_mut().find(|stall| stall.id == id) {
            stall.until = stall.until.min(now);
        }
    }

    /// From now on the medium is good.
    pub fn calm(&mut self) {
        self.periods = None;
    }

    /// The queue is gone; an episode of the medium goes on.
    pub fn power_loss(&mut self, now: u64) {
        self.free_at.fill(now);
    }

    /// When a sync issued at `at` with so many dirty bytes finishes. `None`: nothing is dirty.
    pub fn sync(
        &mut self,
        at: u64,
        dirty: Option<u64>,
        model: &DiskModel,
        draws: &mut Draws,
    ) -> u64 {
        let Some(bytes) = dirty else {
            return at + EMPTY_SYNC_NS;
        };
        let channel = self.free_at.iter_mut().min().expect("a device has at least one channel");
        let mut start = at.max(*channel);
        // One stall may end inside the next.
        while let Some(until) = stalled_until(&self.stalls, self.periods.as_mut(), start) {
            start = until;
        }
        let transfer = model.bytes_per_sec.map_or(0, |rate| transfer_ns(bytes, rate));
        let slower = self.periods.as_mut().map_or(1, |periods| {
            periods.bad_at(start).map_or(1, |_| u64::from(periods.model().slower.max(1)))
        });
        *channel = start + (draws.latency(&model.sync) + transfer) * slower;
        *channel
    }
}

/// When a stall that lasts at `start` is over.
fn stalled_until(stalls: &[Stall], periods: Option<&mut Periods>, start: u64) -> Option<u64> {
    let stall = stalls.iter().find(|stall| stall.from <= start && start < stall.until);
    let episode = || periods.filter(|p| p.model().stall).and_then(|p| p.bad_at(start));
    stall.map(|stall| stall.until).or_else(|| episode().map(|(_, until)| until))
}

/// Time to move so many bytes, rounded up.
pub fn transfer_ns(bytes: u64, bytes_per_sec: u64) -> u64 {
    let ns = (u128::from(bytes) * 1_000_000_000).div_ceil(u128::from(bytes_per_sec.max(1)));
    u64::try_from(ns).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(parallelism: u32) -> (Device, DiskModel, Draws) {
        let model = DiskModel {
            sync: Distribution::Constant(Duration::from_nanos(100)),
            bytes_per_sec: Some(1_000_000_000),
            parallelism,
            ..DiskModel::default()
        };
        (Device::new(1, 1, &model), model, Draws::new(1, 1, "disk", false))
    }

    #[test]
    fn syncs_queue_for_the_device() {
        let (mut device, model, mut draws) = fixed(1);
        let mut sync = |at, bytes| device.sync(at, Some(bytes), &model, &mut draws);
        assert_eq!(sync(1_000, 50), 1_150);
        assert_eq!(sync(1_010, 0), 1_250, "waits for the one before");
        assert_eq!(sync(5_000, 0), 5_100);
    }

    #[test]
    fn a_device_with_two_channels_serves_two_at_once() {
        let (mut device, model, mut draws) = fixed(2);
        let mut sync = |at| device.sync(at, Some(0), &model, &mut draws);
        assert_eq!((sync(1_000), sync(1_000), sync(1_000)), (1_100, 1_100, 1_200));
    }

    #[test]
    fn a_sync_issued_in_a_stall_completes_after_it() {
        let (mut device, model, mut draws) = fixed(1);
        device.stall(2_000, 9_000);
        let mut sync = |at| device.sync(at, Some(0), &model, &mut draws);
        assert_eq!(sync(1_950), 2_050, "already under way when the stall begins");
        assert_eq!(sync(2_500), 9_100);
    }

    #[test]
    fn a_stall_ends_alone() {
        let (mut device, model, mut draws) = fixed(1);
        let short = device.stall(1_000, 3_000);
        let long = device.stall(1_500, 9_000);
        device.end_stall(short, 3_000);
        assert_eq!(device.sync(4_000, Some(0), &model, &mut draws), 9_100, "the long one lasts");
        let (mut device, model, mut draws) = fixed(1);
        device.stall(1_000, 3_000);
        let early = device.stall(1_500, 9_000);
        device.end_stall(early, 2_000);
        assert_eq!(device.sync(2_500, Some(0), &model, &mut draws), 3_100, "the short one lasts");
        assert_ne!(short, long);
    }

    #[test]
    fn a_calm_device_has_no_bad_periods() {
        let (good, bad) = (Duration::from_millis(1), Duration::from_secs(3600));
        let episodes = Some(Episodes { good, bad, stall: false, slower: 7 });
        let (_, plain, mut draws) = fixed(1);
        let model = DiskModel { episodes, ..plain };
        let mut device = Device::new(7, 1, &model);
        let mut sync = |device: &mut Device, at| device.sync(at, Some(0), &model, &mut draws);
        assert_eq!(sync(&mut device, 1_000_000_000), 1_000_000_700);
        device.calm();
        assert_eq!(sync(&mut device, 2_000_000_000), 2_000_000_100);
    }

    #[test]
    fn syncs_of_a_bad_period_stall_or_take_longer_and_no_other_draw_moves() {
        let (good, bad) = (Duration::from_millis(100), Duration::from_millis(100));
        let times = |episodes: Option<Episodes>| -> Vec<u64> {
            let model = DiskModel { episodes, parallelism: 1, ..DiskModel::default() };
            let mut device = Device::new(7, 1, &model);
            let mut draws = Draws::new(7, 1, "disk", false);
            let at = |n: u64| n * 20_000_000;
            (0..200).map(|n| device.sync(at(n), Some(0), &model, &mut draws) - at(n)).collect()
        };
        let plain = times(None);
        let slower = times(Some(Episodes { good, bad, stall: false, slower: 7 }));
        let pairs = || plain.iter().zip(&slower);
        assert!(pairs().all(|(a, b)| b == a || *b == a * 7), "the same draws");
        assert!((50..150).contains(&pairs().filter(|(a, b)| a == b).count()));
        let stalled = times(Some(Episodes { good, bad, stall: true, slower: 1 }));
        let late = stalled.iter().filter(|ns| **ns > 10_000_000).count();
        assert!((40..160).contains(&late), "{late}");
    }
}
