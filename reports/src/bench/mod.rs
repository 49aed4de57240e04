//! The record of a bench of real processes on a real disk, and its page.
//!
//! `bench-real` fills a [`BenchReport`]; `--json` writes it, [`bench_page`] draws it. Simulated numbers never
//! appear here: a column is one kind of measurement.

mod page;

use serde::{Deserialize, Serialize};

pub use page::{BUSY_PER_CORE, bench_page};

/// Everything a run of `detkv-bench` measured, every repeat included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BenchReport {
    /// Day of the measurement in UTC, `2026-11-22`.
    pub date: String,
    /// The command line that was run.
    pub command: String,
    pub machine: Machine,
    pub fsync_probe: FsyncProbe,
    /// What was measured, in the order of `BenchRow::results`. The first is ours.
    pub stores: Vec<Store>,
    /// Visits to each store; they take turns (A B A B), each visit with fresh processes and data dirs.
    pub repeats: u64,
    /// Measured time per row and visit.
    pub seconds: f64,
    /// Load before measuring starts, per row and visit.
    pub warm_up_seconds: f64,
    /// Threads of the load generator.
    pub client_threads: u64,
    pub rows: Vec<BenchRow>,
}

/// Where the numbers are from: without it they mean nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: u64,
    pub memory_bytes: u64,
    pub kernel: String,
    /// File system of the data dirs, `ext4`.
    pub filesystem: String,
    /// Device of the data dirs with what the kernel says of it.
    pub disk: String,
    /// Load average over one minute when the bench began: on a quiet machine below 0.3.
    pub load_average: f64,
}

/// What one small durable write costs on this disk: write 4 KiB, `fdatasync`, one at a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FsyncProbe {
    pub writes: u64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Store {
    /// `detkv`, `etcd 3.4.23`.
    pub label: String,
    /// As the program calls itself.
    pub version: String,
    pub path: String,
}

/// One load, on every store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BenchRow {
    /// `put/members=3 clients=64 value_bytes=256`.
    pub name: String,
    /// For a person: `put 256 B, 64 clients`.
    pub title: String,
    pub clients: u64,
    pub connections: u64,
    /// Key and value bytes that one operation stores; 0 for reads.
    pub payload_bytes: u64,
    /// One per store.
    pub results: Vec<StoreResult>,
    /// The first store against each other one.
    pub ratios: Vec<Ratios>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreResult {
    pub repeats: Vec<Repeat>,
    pub ops_per_sec: Stat,
    pub p50_us: Stat,
    pub p99_us: Stat,
    /// CPU seconds of the three server processes per 1000 operations.
    pub server_cpu_secs_per_1000: Stat,
    /// CPU seconds of the load generator per 1000 operations.
    pub client_cpu_secs_per_1000: Stat,
    /// Bytes that the three processes sent to the disk per byte of payload; `None` for reads.
    /// Three copies make 3 the floor.
    pub write_amplification: Option<Stat>,
    /// Failed operations over all repeats. They are not in any other number.
    pub errors: u64,
    /// One of the failures in its own words.
    pub error_example: Option<String>,
}

/// One visit to one store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Repeat {
    pub ops: u64,
    pub errors: u64,
    pub seconds: f64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
    pub server_cpu_secs: f64,
    pub client_cpu_secs: f64,
    /// `write_bytes` of the three processes; `None` where `/proc/<pid>/io` may not be read.
    pub written_bytes: Option<u64>,
}

/// One number over the repeats.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Stat {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    /// Sample standard deviation; `None` with one repeat.
    pub sd: Option<f64>,
}

/// The first store divided by another one, number by number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ratios {
    /// Label of the other store.
    pub against: String,
    /// Above 1 is better.
    pub ops_per_sec: Ratio,
    /// Below 1 is better, here and below.
    pub p50_us: Ratio,
    pub p99_us: Ratio,
    pub server_cpu: Ratio,
    pub write_amplification: Option<Ratio>,
}

/// Median of the ratios of the pairs of visits, with their standard deviation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    pub value: f64,
    pub spread: Option<f64>,
}
