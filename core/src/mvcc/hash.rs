//! HashKV: one number for the key space at a revision; Hash: one for the whole file (surface spec §17.6).

use std::collections::VecDeque;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::Bucket;
use super::backend::{FileError, FileView};
use super::index::KeyRange;
use super::meta::{CONSISTENT_INDEX, TERM};
use super::range::resolve_revision;
use super::reader::{Hashed, StoreReader};
use super::rows::{Revision, Row, RowKey, parse_row_key};
use super::state::{Shared, State, Walk};
use crate::error::ApiError;
use crate::limits::{COMPACTION_HASHES_MAX, READ_CHUNK_KEYS};
use crate::pb::etcdserverpb::{HashKvResponse, HashResponse, ResponseHeader};

/// How often a walk starts again when a compaction changes what is to be hashed.
pub(crate) const RESTARTS_MAX: usize = 8;

/// The hash of the key space at a revision, as it is under a compact revision.
///
/// Members that agree in both revisions must agree in the hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KvHash {
    pub hash: u32,
    /// −1 when never compacted.
    pub compact_revision: i64,
    pub revision: i64,
}

/// Hashes taken at compactions, oldest first, of which members can speak long after.
#[derive(Clone, Default, Debug)]
pub(crate) struct StoredHashes(VecDeque<KvHash>);

impl StoredHashes {
    pub fn push(&mut self, hash: KvHash) {
        if self.0.len() == COMPACTION_HASHES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(hash);
    }

    pub fn find(&self, revision: i64) -> Option<KvHash> {
        // 0 asks for the current one.
        self.0.iter().find(|hash| revision > 0 && hash.revision == revision).copied()
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &KvHash> {
        self.0.iter()
    }
}

impl StoreReader {
    /// CRC-32C over the rows up to `revision` (0 and below: the current one), in revision order:
    /// all above the compact revision, and of the others those still visible at `revision`. The
    /// same on every member with the same compact revision, however much of it is removed yet.
    /// For the revision of one of the last compactions: the hash taken then.
    ///
    /// Errors: `Compacted`, `FutureRevision`; `TooManyRequests` when compactions keep overtaking
    /// the walk; `Stopped` when the file cannot be read.
    pub fn hash_kv(&self, revision: i64) -> Result<HashKvResponse, ApiError> {
        self.hash_kv_for(revision, ResponseHeader::default()).map(|hashed| hashed.response)
    }

    /// Hashes taken at the last compactions since open, oldest first.
    pub fn compaction_hashes(&self) -> Vec<KvHash> {
        self.shared.state.read().hashes.iter().copied().collect()
    }

    /// CRC-32C over the names of all buckets, their keys and values, in order of the names, without
    /// what differs between members by nature. Of the file as it is: without what is not in it yet.
    ///
    /// Errors: `Stopped` when the file cannot be read.
    pub(super) fn hash(&self, header: ResponseHeader) -> Result<Hashed<HashResponse>, ApiError> {
        let (current, view) = {
            let state = self.shared.state.read();
            (state.revision, state.backend.view())
        };
        let hashed = view.and_then(|view| hash_buckets(&view));
        let (hash, rows) = hashed.map_err(|error| self.shared.stopped(error))?;
        let header = Some(ResponseHeader { revision: current, ..header });
        Ok(Hashed { response: HashResponse { header, hash }, rows })
    }

    /// `hash_kv` under the header of an answer.
    pub(super) fn hash_kv_for(
        &self,
        revision: i64,
        header: ResponseHeader,
    ) -> Result<Hashed<HashKvResponse>, ApiError> {
        for _ in 0..RESTARTS_MAX {
            let (current, stored) = {
                let state = self.shared.state.read();
                (state.revision, state.hashes.find(revision))
            };
            let header = Some(ResponseHeader { revision: current, ..header });
            if let Some(stored) = stored {
                return Ok(Hashed { response: stored.response(header), rows: 0 });
            }
            let mut walk = HashWalk::asked(&self.shared, revision)?;
            walk.advance(usize::MAX).map_err(|error| self.shared.stopped(error))?;
            if let Some(hash) = walk.result() {
                return Ok(Hashed { response: hash.response(header), rows: walk.rows });
            }
        }
        Err(ApiError::TooManyRequests)
    }
}

impl KvHash {
    fn response(self, header: Option<ResponseHeader>) -> HashKvResponse {
        let KvHash { hash, compact_revision, revision } = self;
        HashKvResponse { header, hash, compact_revision, hash_revision: revision }
    }
}

/// The hash over all buckets, and the rows in it.
fn hash_buckets(view: &FileView) -> Result<(u32, u64), FileError> {
    let mut buckets = Bucket::ALL;
    buckets.sort_unstable_by_key(|bucket| bucket.name());
    let (mut crc, mut rows) = (0, 0);
    for bucket in buckets {
        crc = crc32c::crc32c_append(crc, bucket.name().as_bytes());
        view.for_each(bucket, Bound::Unbounded, |key, value| {
            if bucket != Bucket::Meta || !VOLATILE.contains(&key) {
                crc = crc32c::crc32c_append(crc, key);
                crc = crc32c::crc32c_append(crc, value);
                rows += 1;
            }
            Ok(true)
        })?;
    }
    Ok((crc, rows))
}

/// Keys of `meta` that are left out: how far this member has come, not what it holds.
const VOLATILE: [&[u8]; 3] = [CONSISTENT_INDEX, TERM, b"storageVersion"];

/// A walk over the key space at one revision, in pieces, beside the member.
pub(crate) struct HashWalk {
    shared: Arc<Shared>,
    view: FileView,
    /// Rows that the file did not have when the walk began.
    in_flight: Arc<Vec<Row>>,
    pending: Vec<Row>,
    epoch: u64,
    /// The compact revision of the store that makes the walk void when it changes; `None`: none does.
    guard: Option<i64>,
    compact_revision: i64,
    revision: i64,
    stage: Stage,
    crc: u32,
    rows: u64,
    is_overtaken: bool,
}

#[derive(Debug)]
enum Stage {
    /// Looking for a key that is visible at the revision: if there is none, what is visible at the
    /// compact revision counts (as in etcd, whose empty set of rows to keep keeps everything).
    Visible(Walk),
    /// Rows of the file after this one; those at or below the compact revision count if they are
    /// what is visible at `at`.
    File {
        at: i64,
        after: Option<Bytes>,
    },
    Done,
}

impl fmt::Debug for HashWalk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashWalk")
            .field("revision", &self.revision)
            .field("compact_revision", &self.compact_revision)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

impl HashWalk {
    /// At `revision`, 0 and below for the current one, under the present compact revision.
    ///
    /// Errors: `Compacted`, `FutureRevision`; `Stopped` when the file cannot be read.
    pub fn asked(shared: &Arc<Shared>, revision: i64) -> Result<Self, ApiError> {
        let state = shared.state.read();
        let compact_revision = state.compact_revision;
        let revision = resolve_revision(revision, state.revision, compact_revision)?;
        let walk = Self::new(shared, &state, revision, compact_revision, Some(compact_revision));
        walk.map_err(|error| shared.stopped(error))
    }

    /// What a compaction to `revision` finds, before any of its rows are gone.
    pub fn of_compaction(
        shared: &Arc<Shared>,
        revision: i64,
        compact_revision: i64,
    ) -> Result<Self, FileError> {
        Self::new(shared, &shared.state.read(), revision, compact_revision, None)
    }

    fn new(
        shared: &Arc<Shared>,
        state: &State,
        revision: i64,
        compact_revision: i64,
        guard: Option<i64>,
    ) -> Result<Self, FileError> {
        // Rows at or below the compact revision are looked up in the index, if there are any.
        let stage = match compact_revision {
            ..=0 => Stage::File { at: revision, after: None },
            _ => Stage::Visible(Walk::new(0)),
        };
        Ok(Self {
            shared: shared.clone(),
            view: state.backend.view()?,
            in_flight: state.in_flight.clone(),
            pending: state.pending.clone(),
            epoch: state.epoch,
            guard,
            compact_revision,
            revision,
            stage,
            crc: crc32c::crc32c(Bucket::Key.name().as_bytes()),
            rows: 0,
            is_overtaken: false,
        })
    }

    /// Rows that the file had when the walk began and that it has not seen, about.
    pub fn rows_left(&self) -> u64 {
        let state = self.shared.state.read();
        let (total, _) = state.backend.usage.lock().row_totals();
        total.saturating_sub(self.rows)
    }

    /// `None` when a compaction or a new store overtook the walk: it has to start again.
    pub fn result(&self) -> Option<KvHash> {
        assert!(matches!(self.stage, Stage::Done), "a walk has a result at its end");
        let hash = KvHash {
            hash: self.crc,
            compact_revision: self.compact_revision,
            revision: self.revision,
        };
        (!self.is_overtaken).then_some(hash)
    }

    /// Goes on over at most `rows_max` rows (or index entries). Returns whether it came to its end.
    pub fn advance(&mut self, rows_max: usize) -> Result<bool, FileError> {
        if matches!(self.stage, Stage::Visible(_)) && !self.look_for_visible(rows_max) {
            return Ok(self.is_overtaken);
        }
        if matches!(self.stage, Stage::File { .. }) {
            self.walk_file(rows_max)?;
        }
        Ok(matches!(self.stage, Stage::Done))
    }

    /// Returns whether it is known which rows count.
    fn look_for_visible(&mut self, keys_max: usize) -> bool {
        let Stage::Visible(walk) = &mut self.stage else { return true };
        let mut seen = 0;
        while !walk.is_finished && walk.count == 0 {
            if seen >= keys_max {
                return false;
            }
            let state = self.shared.state.read();
            if !is_current(&state, self.epoch, self.guard) {
                self.is_overtaken = true;
                self.stage = Stage::Done;
                return true;
            }
            state.advance(&KeyRange::From(b""), self.revision, walk, READ_CHUNK_KEYS);
            seen += READ_CHUNK_KEYS;
        }
        let at = if walk.count > 0 { self.revision } else { self.compact_revision };
        self.stage = Stage::File { at, after: None };
        true
    }

    fn walk_file(&mut self, rows_max: usize) -> Result<(), FileError> {
        let Stage::File { at, after } = std::mem::replace(&mut self.stage, Stage::Done) else {
            return Ok(());
        };
        let mut last = None;
        let mut seen = 0;
        // The view stays where it is; the rest of `self` changes while it is read.
        let mut sum = Sum {
            shared: &self.shared,
            epoch: self.epoch,
            guard: self.guard,
            compact_revision: self.compact_revision,
            revision: self.revision,
            at,
            crc: self.crc,
            rows: self.rows,
            is_over: false,
            is_overtaken: self.is_overtaken,
        };
        let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let is_finished = self.view.for_each(Bucket::Key, from, |row_key, value| {
            let (revision, tombstone) = parse_row_key(row_key)
                .ok_or_else(|| FileError(format!("{row_key:02x?} is not a row key")))?;
            last = Some(Bytes::copy_from_slice(row_key));
            seen += 1;
            sum.add(revision, tombstone, value);
            Ok(!sum.is_over && seen < rows_max)
        })?;
        let last = last.or(after);
        if is_finished && !sum.is_over {
            let last = last.as_deref().and_then(parse_row_key).map(|(revision, _)| revision);
            // Rows of a job that is done but not yet handed back are in both places.
            let rest = self.in_flight.iter().chain(&self.pending);
            for row in rest.filter(|row| Some(row.revision) > last) {
                sum.add(row.revision, row.tombstone, &row.value);
            }
        } else if !sum.is_over {
            self.stage = Stage::File { at, after: last };
        }
        (self.crc, self.rows, self.is_overtaken) = (sum.crc, sum.rows, sum.is_overtaken);
        Ok(())
    }
}

/// Whether a walk that began under these still means what it meant.
fn is_current(state: &State, epoch: u64, guard: Option<i64>) -> bool {
    state.epoch == epoch && guard.is_none_or(|guard| guard == state.compact_revision)
}

/// The running hash.
struct Sum<'a> {
    shared: &'a Shared,
    epoch: u64,
    guard: Option<i64>,
    compact_revision: i64,
    revision: i64,
    at: i64,
    crc: u32,
    rows: u64,
    /// Past the revision, or overtaken: nothing more counts.
    is_over: bool,
    is_overtaken: bool,
}

impl Sum<'_> {
    fn add(&mut self, revision: Revision, tombstone: bool, value: &[u8]) {
        self.is_over |= revision.main > self.revision;
        if self.is_over
            || (revision.main <= self.compact_revision && !self.is_kept(revision, value))
        {
            return;
        }
        let row_key = RowKey::new(revision, tombstone);
        self.rows += 1;
        self.crc = crc32c::crc32c_append(self.crc, row_key.as_bytes());
        self.crc = crc32c::crc32c_append(self.crc, value);
    }

    /// Whether a row at or below the compact revision is the visible one of its key.
    fn is_kept(&mut self, revision: Revision, value: &[u8]) -> bool {
        let state = self.shared.state.read();
        self.is_overtaken |= !is_current(&state, self.epoch, self.guard);
        self.is_over |= self.is_overtaken;
        !self.is_overtaken
            && super::changes::key_of(value)
                .and_then(|key| state.index.get(key))
                .and_then(|entry| entry.visible_at(self.at))
                .is_some_and(|visible| visible.revision() == revision)
    }
}
