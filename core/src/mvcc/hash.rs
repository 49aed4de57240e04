//! HashKV: one number for the key space at a revision; Hash: one for the whole file (surface spec §17.6).

use std::ops::Bound;

use super::Bucket;
use super::backend::{FileError, FileView};
use super::meta::{CONSISTENT_INDEX, TERM};
use super::range::resolve_revision;
use super::reader::{Hashed, StoreReader};
use super::rows::{Revision, Row, RowKey, parse_row_key};
use super::state::Shared;
use crate::error::ApiError;
use crate::pb::etcdserverpb::{HashKvResponse, HashResponse, ResponseHeader};

/// How often the walk starts again when a compaction changes what is to be hashed.
const RESTARTS_MAX: usize = 8;

impl StoreReader {
    /// CRC-32C over the rows up to `revision` (0 and below: the current one), in revision order:
    /// all above the compact revision, and of the others those still visible at `revision`. The
    /// same on every member with the same compact revision, however much of it is removed yet.
    ///
    /// Errors: `Compacted`, `FutureRevision`; `TooManyRequests` when compactions keep overtaking
    /// the walk; `Stopped` when the file cannot be read.
    pub fn hash_kv(&self, revision: i64) -> Result<HashKvResponse, ApiError> {
        self.hash_kv_for(revision, ResponseHeader::default()).map(|hashed| hashed.response)
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
        let (hash, rows) = hashed.map_err(|error| {
            self.shared.fail(error);
            ApiError::Stopped
        })?;
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
            let state = self.shared.state.read();
            let (current, compact_revision) = (state.revision, state.compact_revision);
            let hash_revision = resolve_revision(revision, current, compact_revision)?;
            let mut hasher = Hasher {
                shared: &self.shared,
                epoch: state.epoch,
                compact_revision,
                revision: hash_revision,
                crc: crc32c::crc32c(Bucket::Key.name().as_bytes()),
                rows: 0,
                is_overtaken: false,
            };
            let in_flight = state.in_flight.clone();
            let pending = state.pending.clone();
            let view = state.backend.view();
            drop(state);
            let walked = view.and_then(|view| hasher.walk(&view, &in_flight, &pending));
            walked.map_err(|error| {
                self.shared.fail(error);
                ApiError::Stopped
            })?;
            if !hasher.is_overtaken {
                let response = HashKvResponse {
                    header: Some(ResponseHeader { revision: current, ..header }),
                    hash: hasher.crc,
                    compact_revision,
                    hash_revision,
                };
                return Ok(Hashed { response, rows: hasher.rows });
            }
        }
        Err(ApiError::TooManyRequests)
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

struct Hasher<'a> {
    shared: &'a Shared,
    epoch: u64,
    compact_revision: i64,
    revision: i64,
    crc: u32,
    rows: u64,
    /// The compact revision moved: the index no longer tells what to hash.
    is_overtaken: bool,
}

impl Hasher<'_> {
    fn walk(
        &mut self,
        view: &FileView,
        in_flight: &[Row],
        pending: &[Row],
    ) -> Result<(), FileError> {
        let mut last = None;
        let is_finished = view.for_each(Bucket::Key, Bound::Unbounded, |row_key, value| {
            let (revision, tombstone) = parse_row_key(row_key)
                .ok_or_else(|| FileError(format!("{row_key:02x?} is not a row key")))?;
            last = Some(revision);
            Ok(self.add(revision, tombstone, value))
        })?;
        if is_finished {
            // Rows of a job that is done but not yet handed back are in both places.
            for row in in_flight.iter().chain(pending).filter(|row| Some(row.revision) > last) {
                if !self.add(row.revision, row.tombstone, &row.value) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// False at the end.
    fn add(&mut self, revision: Revision, tombstone: bool, value: &[u8]) -> bool {
        if revision.main > self.revision {
            return false;
        }
        if revision.main <= self.compact_revision && !self.is_kept(revision, value) {
            return !self.is_overtaken;
        }
        let row_key = RowKey::new(revision, tombstone);
        self.rows += 1;
        self.crc = crc32c::crc32c_append(self.crc, row_key.as_bytes());
        self.crc = crc32c::crc32c_append(self.crc, value);
        true
    }

    /// Whether a row at or below the compact revision is the visible one of its key.
    fn is_kept(&mut self, revision: Revision, value: &[u8]) -> bool {
        let state = self.shared.state.read();
        self.is_overtaken =
            state.compact_revision != self.compact_revision || state.epoch != self.epoch;
        !self.is_overtaken
            && super::changes::key_of(value)
                .and_then(|key| state.index.get(key))
                .and_then(|entry| entry.visible_at(self.revision))
                .is_some_and(|visible| visible.revision() == revision)
    }
}
