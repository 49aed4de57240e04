//! Building the memory image of a store from its file.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::Bucket;
use super::apply::hash_kv_row;
use super::backend::{Backend, FileError};
use super::index::{Change, Current, KeyIndex};
use super::job::Outcome;
use super::meta::Meta;
use super::rows::{Revision, parse_row_key, try_decode_kv};
use super::small::SmallBuckets;
use super::state::State;
use crate::error::OpenError;
use crate::event::SharedFiles;

/// A job: builds the memory image of the file at `path`.
pub(crate) struct Load {
    pub files: SharedFiles,
    pub path: String,
    pub resident_bytes_max: Option<u64>,
}

impl Load {
    pub fn run(self) -> Result<Outcome, String> {
        let loaded = Loaded::open(&self.files, &self.path, self.resident_bytes_max);
        loaded.map(|loaded| Outcome::Loaded(Box::new(loaded))).map_err(|error| error.to_string())
    }
}

/// How far the file at `path` has come, without the rest of it.
pub(crate) fn consistent_index(files: &SharedFiles, path: &str) -> Result<u64, OpenError> {
    let damaged = |error: FileError| OpenError::FileDamaged { path: path.into(), what: error.0 };
    let backend = Arc::new(Backend::open(files, path).map_err(damaged)?);
    let meta = backend.view().and_then(|view| Meta::read(&view)).map_err(damaged)?;
    Ok(meta.consistent.index)
}

/// A store as its file has it.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub state: State,
    pub small: SmallBuckets,
    pub meta: Meta,
}

impl Loaded {
    pub fn open(
        files: &SharedFiles,
        path: &str,
        resident_bytes_max: Option<u64>,
    ) -> Result<Self, OpenError> {
        let damaged =
            |error: FileError| OpenError::FileDamaged { path: path.into(), what: error.0 };
        let backend = Backend::open(files, path).map_err(damaged)?;
        Self::read(Arc::new(backend), resident_bytes_max).map_err(damaged)
    }

    fn read(backend: Arc<Backend>, resident_bytes_max: Option<u64>) -> Result<Self, FileError> {
        let view = backend.view()?;
        let meta = Meta::read(&view)?;
        let mut small = SmallBuckets::default();
        for bucket in Bucket::ALL {
            if !bucket.is_small() {
                continue;
            }
            view.for_each(bucket, Bound::Unbounded, |key, value| {
                let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
                small.put(bucket, key, value);
                Ok(true)
            })?;
        }
        let mut keys = Keys::new(resident_bytes_max);
        view.for_each(Bucket::Key, Bound::Unbounded, |key, value| {
            keys.add(key, value)?;
            Ok(true)
        })?;
        drop(view);
        let compact_revision = meta.scheduled_compaction.max(meta.finished_compaction);
        let (live_keys, live_hash) = keys.live();
        let state = State {
            index: keys.index,
            // Compaction may have taken the newest rows, so they alone do not tell how far the
            // revision had come.
            revision: keys.last.main.max(compact_revision).max(1),
            compact_revision,
            pending: Vec::new(),
            in_flight: Arc::new(Vec::new()),
            unwritten_bytes: 0,
            backend,
            live_keys,
            live_hash,
            resident_bytes: keys.resident_bytes,
            hashes: Default::default(),
            epoch: 0,
        };
        Ok(Self { state, small, meta })
    }
}

/// The key index as it grows while rows are read in order.
struct Keys {
    index: BTreeMap<Bytes, KeyIndex>,
    last: Revision,
    resident_bytes: u64,
    resident_bytes_max: u64,
}

impl Keys {
    fn new(resident_bytes_max: Option<u64>) -> Self {
        Self {
            index: BTreeMap::new(),
            last: Revision::default(),
            resident_bytes: 0,
            resident_bytes_max: resident_bytes_max.unwrap_or(u64::MAX),
        }
    }

    fn add(&mut self, row_key: &[u8], value: &[u8]) -> Result<(), FileError> {
        let (revision, tombstone) = parse_row_key(row_key)
            .ok_or_else(|| FileError(format!("{row_key:02x?} is not a row key")))?;
        let damaged = || FileError(format!("the row of revision {revision:?} is damaged"));
        let encoded = Bytes::copy_from_slice(value);
        let kv = try_decode_kv(&encoded).map_err(|_| damaged())?;
        let is_sound = !kv.key.is_empty() && (tombstone || kv.mod_revision == revision.main);
        if !is_sound || revision <= self.last {
            return Err(damaged());
        }
        self.last = revision;
        let change = Change::new(revision, tombstone);
        let hash = if tombstone { 0 } else { hash_kv_row(&encoded) };
        let entry = self.index.get_mut(&kv.key);
        let previous = entry.as_ref().and_then(|entry| entry.current.as_ref());
        self.resident_bytes -= previous.map_or(0, Current::resident_bytes);
        let fits = self.resident_bytes + encoded.len() as u64 <= self.resident_bytes_max;
        let current = (!tombstone).then(|| Current {
            kv: fits.then_some(encoded),
            create_revision: kv.create_revision,
            version: kv.version,
            lease: kv.lease,
            hash,
        });
        self.resident_bytes += current.as_ref().map_or(0, Current::resident_bytes);
        match entry {
            Some(entry) => entry.push(change, current),
            None => {
                let key = Bytes::copy_from_slice(&kv.key);
                self.index.insert(key, KeyIndex::new(change, current));
            }
        }
        Ok(())
    }

    /// Number of keys that exist, and the sum of their hashes.
    fn live(&self) -> (u64, u64) {
        let live = self.index.values().filter_map(|entry| entry.current.as_ref());
        live.fold((0, 0u64), |(keys, hash), current| (keys + 1, hash.wrapping_add(current.hash)))
    }
}
