//! Reads beside the member: a pinned revision, the lock taken in short turns.

use std::sync::Arc;

use bytes::Bytes;

use super::apply::range_response;
use super::index::KeyRange;
use super::range::{self, KeySpace, resolve_revision};
use super::state::{Shared, Walk, into_values, load};
use super::txn::{check_path, choose_path};
use crate::api::{RangeRows, ReadReady, Request};
use crate::error::ApiError;
use crate::limits::READ_CHUNK_KEYS;
use crate::pb::etcdserverpb as pb;
use crate::pb::etcdserverpb::request_op::Request as Op;
use crate::pb::etcdserverpb::response_op::Response as OpResponse;
use crate::pb::mvccpb::KeyValue;

/// How often a read of the current revision starts again when a compaction overtakes it.
const RESTARTS_MAX: usize = 3;

/// Thread-safe, cloneable; runs reads while the member goes on.
#[derive(Clone, Debug)]
pub struct StoreReader {
    pub(super) shared: Arc<Shared>,
}

/// The answer to a `ReadReady`.
#[derive(Clone, PartialEq, Debug)]
pub enum ReadResult {
    Range(RangeRows),
    Txn(pb::TxnResponse),
    Hash(Hashed<pb::HashResponse>),
    HashKv(Hashed<pb::HashKvResponse>),
}

/// A hash and what it cost.
#[derive(Clone, PartialEq, Debug)]
pub struct Hashed<R> {
    pub response: R,
    /// Rows that went into it.
    pub rows: u64,
}

impl StoreReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Main revision of the last change.
    pub fn revision(&self) -> i64 {
        self.shared.state.read().revision
    }

    /// −1 when never compacted.
    pub fn compact_revision(&self) -> i64 {
        self.shared.state.read().compact_revision
    }

    /// Range or read-only Txn, taking the lock in chunks of `READ_CHUNK_KEYS`; Hash and HashKV.
    ///
    /// A read of the current revision pins the newest one at its first chunk, which is the
    /// header's or a later one; the answer's header carries it.
    /// Errors: `Compacted` and `FutureRevision` for a revision that was asked for; `Compacted`
    /// also when compactions keep overtaking a long read; `Stopped` when the file cannot be read.
    pub fn read(&self, ready: &ReadReady) -> Result<ReadResult, ApiError> {
        match &ready.request {
            Request::Hash(_) => return self.hash(ready.header).map(ReadResult::Hash),
            Request::HashKv(req) => {
                return self.hash_kv_for(req.revision, ready.header).map(ReadResult::HashKv);
            }
            _ => {}
        }
        let mut restarts = 0;
        let result = loop {
            let pin = self.pin();
            match self.read_at(&pin, ready) {
                // Only a read of a revision that was still current can be outrun.
                Err(ApiError::Compacted)
                    if restarts < RESTARTS_MAX && self.compact_revision() > pin.revision =>
                {
                    restarts += 1;
                }
                result => break result,
            }
        };
        match &result {
            Ok(ReadResult::Range(_)) => self.shared.metrics.on_read(1),
            Ok(ReadResult::Txn(txn)) => self.shared.metrics.on_read(txn.responses.len() as u64),
            _ => {}
        }
        result
    }

    /// Views of the file that are open now: of readers of history, snapshots, hashes, copies.
    pub fn open_views(&self) -> u64 {
        self.shared.state.read().backend.open_views.load()
    }

    fn read_at(&self, pin: &Pinned<'_>, ready: &ReadReady) -> Result<ReadResult, ApiError> {
        let header = pb::ResponseHeader { revision: pin.revision, ..ready.header };
        match &ready.request {
            Request::Range(req) => {
                let revision = resolve_revision(req.revision, pin.revision, pin.compact_revision)?;
                let selection = range::evaluate(pin, req, revision)?;
                Ok(ReadResult::Range(RangeRows {
                    header,
                    kvs: selection.kvs,
                    more: selection.more,
                    count: selection.count,
                }))
            }
            Request::Txn(req) => Ok(ReadResult::Txn(read_txn(pin, req, header)?)),
            _ => Err(ApiError::InvalidArgument("not a read".to_owned())),
        }
    }

    /// The key as of `revision`; 0 and below is the current one.
    ///
    /// Errors: `Compacted`, `FutureRevision`; `Stopped` when the file cannot be read.
    pub fn key_at(&self, key: &[u8], revision: i64) -> Result<Option<KeyValue>, ApiError> {
        let pin = self.pin();
        let revision = resolve_revision(revision, pin.revision, pin.compact_revision)?;
        pin.lookup(key, revision)
    }

    pub(super) fn pin(&self) -> Pinned<'_> {
        let state = self.shared.state.read();
        let (revision, compact_revision) = (state.revision, state.compact_revision);
        Pinned { shared: &self.shared, revision, compact_revision }
    }
}

/// A txn of ranges only, all at the pinned revision.
fn read_txn(
    pin: &Pinned<'_>,
    req: &pb::TxnRequest,
    header: pb::ResponseHeader,
) -> Result<pb::TxnResponse, ApiError> {
    let path = choose_path(pin, req)?;
    check_path(pin, req, &path, &|_| false)?;
    let mut responses = Vec::new();
    for op in path.branch(req) {
        let Some(Op::RequestRange(range)) = &op.request else {
            return Err(ApiError::InvalidArgument("not a read-only txn".to_owned()));
        };
        let revision = resolve_revision(range.revision, pin.revision, pin.compact_revision)?;
        let selection = range::evaluate(pin, range, revision)?;
        let header = super::apply::revision_header(pin.revision);
        let response = OpResponse::ResponseRange(range_response(header, &selection));
        responses.push(pb::ResponseOp { response: Some(response) });
    }
    Ok(pb::TxnResponse { header: Some(header), succeeded: path.succeeded, responses })
}

/// The key space as of a moment, read while it changes.
pub(super) struct Pinned<'a> {
    shared: &'a Shared,
    pub revision: i64,
    pub compact_revision: i64,
}

impl KeySpace for Pinned<'_> {
    fn collect(
        &self,
        range: &KeyRange<'_>,
        revision: i64,
        want: usize,
    ) -> Result<(i64, Vec<Bytes>), ApiError> {
        let mut walk = Walk::new(want);
        while !walk.is_finished {
            let fresh = walk.found.len();
            let state = self.shared.state.read();
            // History below the compact revision may be half gone.
            if revision < state.compact_revision {
                return Err(ApiError::Compacted);
            }
            state.advance(range, revision, &mut walk, READ_CHUNK_KEYS);
            let view = state.view_for(&walk.found[fresh..]);
            drop(state);
            let loaded = view.and_then(|view| load(&mut walk.found[fresh..], view.as_ref()));
            loaded.map_err(|error| {
                self.shared.fail(error);
                ApiError::Stopped
            })?;
        }
        Ok((walk.count, into_values(walk.found)))
    }

    fn revision(&self) -> i64 {
        self.revision
    }

    fn compact_revision(&self) -> i64 {
        self.compact_revision
    }
}
