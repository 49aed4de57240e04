//! What the member and its readers share, and the walk over keys that both use.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::backend::{Backend, FileError, FileView};
use super::counters::StoreMetrics;
use super::hash::StoredHashes;
use super::index::{KeyIndex, KeyRange};
use super::rows::{Revision, Row, find_row};
use crate::error::ApiError;

/// The key space in memory, and the file behind it.
#[derive(Debug)]
pub(crate) struct State {
    pub index: BTreeMap<Bytes, KeyIndex>,
    /// Main revision of the last change; 1 in a fresh store.
    pub revision: i64,
    /// −1 when never compacted. Reads below it fail.
    pub compact_revision: i64,
    /// Applied and in no job yet, ascending by revision.
    pub pending: Vec<Row>,
    /// Rows of the job under way. Invariant: newer than the file's, older than `pending`.
    pub in_flight: Arc<Vec<Row>>,
    /// What the rows of `pending` and `in_flight` will take of the file.
    pub unwritten_bytes: u64,
    pub backend: Arc<Backend>,
    /// Keys that exist now.
    pub live_keys: u64,
    /// Sum of the hashes of all current values.
    pub live_hash: u64,
    /// Sum of the lengths of the current values that are in memory.
    pub resident_bytes: u64,
    /// Taken at the last compactions.
    pub hashes: StoredHashes,
    /// Number of `install`s: a walk under way notices that the content was replaced.
    pub epoch: u64,
}

/// Shared by [`super::Store`] and every [`super::StoreReader`].
#[derive(Debug)]
pub(crate) struct Shared {
    pub state: RwLock<State>,
    /// The first failed read of the file: the member halts on it at its next poll.
    pub failure: Mutex<Option<FileError>>,
    pub metrics: Arc<StoreMetrics>,
}

impl Shared {
    pub fn new(state: State) -> Self {
        let (failure, metrics) = (Mutex::default(), Arc::default());
        Self { state: RwLock::new(state), failure, metrics }
    }

    pub fn fail(&self, error: FileError) {
        self.failure.lock().get_or_insert(error);
    }

    /// `fail`, and what a reader is told.
    pub fn stopped(&self, error: FileError) -> ApiError {
        self.fail(error);
        ApiError::Stopped
    }
}

/// An encoded KeyValue, or where it is.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    Here(Bytes),
    InFile(Revision),
}

/// A walk over the keys of an interval at one revision, in pieces.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Keys that exist, seen so far.
    pub count: i64,
    /// The first `want` of them.
    pub found: Vec<Found>,
    pub is_finished: bool,
    want: usize,
    after: Option<Bytes>,
}

impl Walk {
    /// `want`: values to collect; the count goes on beyond.
    pub fn new(want: usize) -> Self {
        Self { want, ..Self::default() }
    }
}

impl State {
    pub fn push_row(&mut self, row: Row) {
        self.unwritten_bytes += row.file_bytes();
        self.pending.push(row);
    }

    /// The job under way is done: its rows are in the file.
    pub fn take_written(&mut self) -> Arc<Vec<Row>> {
        let written = std::mem::take(&mut self.in_flight);
        self.unwritten_bytes -= written.iter().map(Row::file_bytes).sum::<u64>();
        written
    }

    /// Goes on with `walk` over at most `keys_max` index entries.
    pub fn advance(&self, range: &KeyRange<'_>, revision: i64, walk: &mut Walk, keys_max: usize) {
        if let KeyRange::One(key) = range {
            walk.is_finished = true;
            if let Some(entry) = self.index.get(*key) {
                self.visit(entry, revision, walk);
            }
            return;
        }
        let Some(bounds) = range.bounds(walk.after.as_deref()) else {
            walk.is_finished = true;
            return;
        };
        let mut last = None;
        let mut entries = self.index.range::<[u8], _>(bounds);
        for (key, entry) in entries.by_ref().take(keys_max) {
            last = Some(key);
            self.visit(entry, revision, walk);
        }
        walk.is_finished = entries.next().is_none();
        if !walk.is_finished {
            walk.after = last.cloned();
        }
    }

    fn visit(&self, entry: &KeyIndex, revision: i64, walk: &mut Walk) {
        let Some(change) = entry.visible_at(revision) else { return };
        walk.count += 1;
        if walk.found.len() < walk.want {
            walk.found.push(self.locate(entry, change.revision()));
        }
    }

    /// Where the value of a key at one of its puts is.
    pub fn locate(&self, entry: &KeyIndex, revision: Revision) -> Found {
        if entry.last().revision() == revision
            && let Some(kv) = entry.current.as_ref().and_then(|current| current.kv.as_ref())
        {
            return Found::Here(kv.clone());
        }
        let row = find_row(&self.pending, revision).or_else(|| find_row(&self.in_flight, revision));
        row.map_or(Found::InFile(revision), |row| Found::Here(row.value.clone()))
    }

    /// A view of the file, if one of `found` is there. Must be taken under the same lock as the
    /// walk: a compaction slice deletes only rows that it has taken out of the index before.
    pub fn view_for<'f>(
        &self,
        found: impl IntoIterator<Item = &'f Found>,
    ) -> Result<Option<FileView>, FileError> {
        let needed = found.into_iter().any(|f| matches!(f, Found::InFile(_)));
        needed.then(|| self.backend.view()).transpose()
    }
}

/// Reads from the file what is not in memory.
pub(crate) fn load(found: &mut [Found], view: Option<&FileView>) -> Result<(), FileError> {
    let Some(view) = view else { return Ok(()) };
    for slot in found {
        if let Found::InFile(revision) = *slot {
            let missing = || FileError(format!("the row of revision {revision:?} is missing"));
            *slot = Found::Here(checked(view.row(revision)?.ok_or_else(missing)?, revision)?);
        }
    }
    Ok(())
}

/// A value from the file enters memory only when it is the KeyValue of its revision.
fn checked(encoded: Bytes, revision: Revision) -> Result<Bytes, FileError> {
    match super::rows::try_decode_kv(&encoded) {
        Ok(kv) if kv.mod_revision == revision.main => Ok(encoded),
        _ => Err(FileError(format!("the row of revision {revision:?} is damaged"))),
    }
}

/// The values of `found`, all of them loaded.
pub(crate) fn into_values(found: Vec<Found>) -> Vec<Bytes> {
    found
        .into_iter()
        .map(|f| match f {
            Found::Here(bytes) => bytes,
            Found::InFile(revision) => unreachable!("revision {revision:?} was not loaded"),
        })
        .collect()
}
