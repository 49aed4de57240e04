//! The disk of one node: a page cache over a device, with everything a crash may take.
//!
//! Start at [`SimDisk`]. Operations take effect in memory at once and carry a *stamp*, the true time at
//! which they happen; a crash at t takes back what is stamped later (rules 14).
//!
//! | File | What |
//! |---|---|
//! | `sparse` | bytes with holes |
//! | `file` | un-synced writes of one file: undo, power loss per sector |
//! | `write_back` | what of it a power loss keeps, loses or tears |
//! | `dir` | un-synced names of one directory |
//! | `device` | the model: latency of syncs, queue, stalls |
//! | `episodes` | good and bad periods of the device |
//! | `limits` | what a model may say |
//! | `rules` | what is to fail |
//! | `backend` | a file as redb's storage |
//!
//! What survives what:
//!
//! | | kill | power loss |
//! |---|---|---|
//! | write, length, covered by a finished sync of the file | yes | yes |
//! | write, not covered | yes | per sector (512 bytes, or 4096 as the model says): not, or as after one of the writes to it |
//! | write, covered by a sync that failed | no: the length yes, the bytes as before | the same |
//! | length, not covered | yes | as after some prefix of the changes |
//! | name, covered by a finished sync of its directory | yes | yes |
//! | names, not covered | yes | a prefix of the changes of each directory |
//! | write under way at that moment | its first pages | as one that is not covered |
//!
//! `tests/real/` holds this against the real world: the same scripts on a file system, with `kill -9` in the middle,
//! and for the power loss a written list of the states that each of fourteen situations may leave.

mod backend;
mod device;
mod dir;
mod episodes;
mod file;
mod limits;
mod rules;
mod sparse;
mod state;
mod write_back;

use std::sync::Arc;

use bytes::Bytes;
use detkv_core::{DiskAction, Files};
use parking_lot::Mutex;
use rand_core::Rng;
use serde::{Deserialize, Serialize};

pub use device::{CrashModel, DiskModel, StallId, transfer_ns};
pub use episodes::Episodes;
pub use rules::{DiskLane, DiskOp, RuleId, Scope, Trouble, path_matches};
pub use state::DiskImage;
use state::State;

use crate::rng::Draw;

/// Unit in which a power loss tears writes.
pub const SECTOR: usize = 512;

/// What a power loss did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct CrashReport {
    /// Un-synced writes that survived whole.
    pub kept: u64,
    pub lost: u64,
    pub torn: u64,
    /// Changes of directories that were lost.
    pub names_lost: u64,
    /// Writes that the disk had said were durable, and were not, not whole or not there.
    pub lied: u64,
}

impl CrashReport {
    /// One un-synced write of which so many sectors were kept and lost.
    fn count(&mut self, (kept, lost): (u64, u64)) {
        match (kept, lost) {
            (_, 0) => self.kept += 1,
            (0, _) => self.lost += 1,
            _ => self.torn += 1,
        }
    }
}

/// What a disk did since the run began.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct DiskCounters {
    pub writes: u64,
    pub write_bytes: u64,
    pub syncs: u64,
    /// Sum over all syncs of the time from issue to completion.
    pub sync_ns: u64,
    pub reads: u64,
    pub read_bytes: u64,
}

/// Why an operation failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{path}: {what}")]
pub struct DiskError {
    pub path: String,
    pub what: &'static str,
}

/// A node's disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    // A lock only because redb and `Files` ask for `Send + Sync`; there is one thread.
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// An empty disk. `keep_draws`: log every drawn latency.
    pub fn new(seed: u64, node: u64, model: DiskModel, keep_draws: bool) -> Self {
        Self { state: Arc::new(Mutex::new(State::new(seed, node, model, keep_draws))) }
    }

    /// Performs an action that is issued at `at` (not before `now`, the kernel's time).
    ///
    /// Returns when it completes.
    pub fn perform(&self, now: u64, at: u64, action: &DiskAction) -> Result<u64, DiskError> {
        assert!(at >= now, "an action is issued now or later");
        self.state.lock().perform(now, at, action)
    }

    /// Work that goes through [`Files`] begins at `at`: each of its operations takes its time after the one before.
    pub fn begin(&self, now: u64, at: u64) {
        self.state.lock().begin(now, at);
    }

    /// When the work begun last is done.
    pub fn end(&self) -> u64 {
        self.state.lock().cursor()
    }

    /// A new process starts: only what it opens from here on works. The page cache is as it was.
    pub fn files(&self) -> Arc<dyn Files> {
        let generation = self.state.lock().generation();
        Arc::new(ProcessFiles { disk: self.clone(), generation })
    }

    /// The process ends at `now`.
    pub fn kill(&self, now: u64) {
        self.state.lock().kill(now);
    }

    /// Power is lost at `now`.
    pub fn power_loss(&self, now: u64) -> CrashReport {
        self.state.lock().power_loss(now)
    }

    /// What would be on the disk if power were lost at `now`; `rng` draws what of the un-synced.
    pub fn image(&self, now: u64, rng: &mut impl Rng) -> DiskImage {
        self.state.lock().image(now, rng)
    }

    /// Puts an image in the place of everything. No process may run.
    pub fn restore(&self, image: DiskImage) {
        self.state.lock().restore(image);
    }

    /// No sync completes between `from` and `until`.
    pub fn stall(&self, from: u64, until: u64) -> StallId {
        self.state.lock().device.stall(from, until)
    }

    /// Ends one stall, if it lasts.
    pub fn end_stall(&self, id: StallId, now: u64) {
        self.state.lock().device.end_stall(id, now);
    }

    /// No bad period comes any more, and the one that lasts is over. Syncs that were issued keep their time.
    pub fn calm(&self) {
        self.state.lock().device.calm();
    }

    /// From now on operations in `scope` meet `trouble`.
    pub fn add_rule(&self, scope: Scope, trouble: Trouble) -> RuleId {
        self.state.lock().rules.add(scope, trouble)
    }

    pub fn remove_rule(&self, rule: RuleId) {
        self.state.lock().rules.remove(rule);
    }

    /// Flips drawn bits of what the files that fit `path` hold: `at_once`, or when the process that runs has ended,
    /// since it reads its page cache. Returns where, or nothing when no such file holds anything.
    pub fn rot(&self, fault: u64, path: &str, bits: u32, at_once: bool) -> Vec<(String, u64)> {
        self.state.lock().rot(fault, path, bits, at_once)
    }

    /// Flips back what of it was not overwritten since.
    pub fn unrot(&self, fault: u64) {
        self.state.lock().unrot(fault);
    }

    pub fn counters(&self) -> DiskCounters {
        self.state.lock().counters
    }

    /// Bytes of memory that the files take.
    pub fn allocated(&self) -> u64 {
        self.state.lock().allocated()
    }

    /// The drawn latencies since the last call, if they are kept.
    pub fn take_draws(&self) -> Vec<Draw> {
        self.state.lock().draws.take_log()
    }
}

/// The files as one process sees them; after its end every call fails.
#[derive(Debug)]
struct ProcessFiles {
    disk: SimDisk,
    generation: u64,
}

impl ProcessFiles {
    fn state(&self) -> std::io::Result<parking_lot::MutexGuard<'_, State>> {
        let state = self.disk.state.lock();
        state.check(self.generation)?;
        Ok(state)
    }
}

impl Files for ProcessFiles {
    fn list(&self, dir: &str) -> std::io::Result<Vec<String>> {
        Ok(self.state()?.list(dir))
    }

    fn len(&self, path: &str) -> std::io::Result<Option<u64>> {
        Ok(self.state()?.len(path))
    }

    fn read(&self, path: &str, offset: u64, len: usize) -> std::io::Result<Bytes> {
        self.state()?.read(path, offset, len)
    }

    fn backend(&self, path: &str) -> std::io::Result<Box<dyn redb::StorageBackend>> {
        let inode = self.state()?.open(path)?;
        Ok(Box::new(backend::Backend::new(self.disk.clone(), self.generation, inode)))
    }
}
