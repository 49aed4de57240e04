//! What Kubernetes does to its store: readers that list and then watch, controllers that write what they saw
//! if it is still so, events that end with a lease, an API server that compacts.
//!
//! | File | Who |
//! |---|---|
//! | `reader` | lists in pages of one revision, watches on from it, lists again when that is compacted |
//! | `writer` | creates, updates and deletes guarded by mod revision; events with a lease |
//! | `compact` | every API server's compactor: one of them wins the turn |

mod compact;
mod reader;
mod writer;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use detkv_core::Instant;
use serde::{Deserialize, Serialize};

use super::{Clients, WatchProgress};
use crate::bounds::{
    CLIENTS, INTERVALS, KEYS, RATES, TIMEOUTS, TTL_SECS, VALUE_BYTES, at_least, bytes, time_within,
    within,
};

const OBJECTS: &str = "registry/pods/default";
const EVENTS: &str = "registry/events/default";

/// API servers and controllers on one kind of object.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kubernetes {
    /// List and watch, and keep the cache that writers decide by.
    pub readers: u32,
    pub writers: u32,
    /// All writers together.
    pub writes_per_sec: u32,
    /// So many objects are kept in being, about.
    pub objects: u32,
    pub value_bytes: usize,
    /// Rows of one page of a list.
    pub page: u32,
    /// Of an event's lease.
    pub event_ttl_secs: u32,
    /// Each reader's API server compacts so often; 0: never. What is older than this is gone.
    #[serde(with = "crate::duration")]
    pub compact_every: Duration,
    #[serde(with = "crate::duration")]
    pub timeout: Duration,
}

impl Default for Kubernetes {
    fn default() -> Self {
        Self {
            readers: 3,
            writers: 4,
            writes_per_sec: 60,
            objects: 20,
            value_bytes: 64,
            page: 5,
            event_ttl_secs: 10,
            compact_every: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
        }
    }
}

impl Kubernetes {
    /// Errors: what is wrong, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        within("readers", self.readers, CLIENTS)?;
        within("writers", self.writers, CLIENTS)?;
        within("writes_per_sec", self.writes_per_sec, RATES)?;
        within("objects", self.objects, KEYS)?;
        within("value_bytes", self.value_bytes, VALUE_BYTES)?;
        bytes(u64::from(self.objects.max(self.writes_per_sec)), self.value_bytes)?;
        at_least("page", self.page, 1)?;
        within("event_ttl_secs", self.event_ttl_secs, TTL_SECS)?;
        if !self.compact_every.is_zero() {
            time_within("compact_every", self.compact_every, INTERVALS)?;
        }
        time_within("timeout", self.timeout, TIMEOUTS)
    }

    /// Clients that it makes in a cluster of so many members.
    pub fn clients(&self, _members: u64) -> u32 {
        let compactors = if self.compact_every.is_zero() { 0 } else { self.readers };
        self.readers + compactors + self.writers
    }

    /// Writes until `end`; readers watch until the run ends.
    pub fn start(&self, clients: &Clients, progress: &WatchProgress, end: Instant) {
        let caches: Vec<Cache> = (0..self.readers).map(|_| Cache::default()).collect();
        for (n, cache) in caches.iter().enumerate() {
            reader::start(self, clients, progress, n, cache.clone());
            if !self.compact_every.is_zero() {
                compact::start(self, clients, n, end);
            }
        }
        let interval = Duration::from_secs(1) * self.writers / self.writes_per_sec.max(1);
        for n in 0..self.writers {
            let cache = match caches.len() {
                0 => Cache::default(),
                readers => caches[n as usize % readers].clone(),
            };
            writer::start(self, clients, n, cache, interval, end);
        }
    }
}

/// What a reader has seen of the objects: mod revision by key. Writers decide by it, stale as it may be.
#[derive(Clone, Default, Debug)]
struct Cache {
    rows: Rc<RefCell<BTreeMap<Bytes, i64>>>,
}

impl Cache {
    /// A list at one revision.
    fn replace(&self, rows: BTreeMap<Bytes, i64>) {
        *self.rows.borrow_mut() = rows;
    }

    fn put(&self, key: Bytes, mod_revision: i64) {
        self.rows.borrow_mut().insert(key, mod_revision);
    }

    fn remove(&self, key: &Bytes) {
        self.rows.borrow_mut().remove(key);
    }

    fn len(&self) -> usize {
        self.rows.borrow().len()
    }

    /// The `n`-th object, counted round.
    fn nth(&self, n: u64) -> Option<(Bytes, i64)> {
        let rows = self.rows.borrow();
        let place = (n % (rows.len() as u64).max(1)) as usize;
        rows.iter().nth(place).map(|(key, revision)| (key.clone(), *revision))
    }
}
