//! Applying a write: puts, deletes and the operations of a txn, all in one main revision.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLockWriteGuard;

use super::counters::Operations;
use super::index::{Change, Current, KeyIndex, KeyRange};
use super::range::{self, KeySpace, Selection, resolve_revision};
use super::rows::{Put, Revision, Row, decode_kv, encode_kv};
use super::state::{Found, Shared, State, Walk, into_values, load};
use super::txn::Path;
use super::{Applied, LeaseMove, Previous};
use crate::api::{Response, RevisionEvents};
use crate::error::ApiError;
use crate::pb::etcdserverpb as pb;
use crate::pb::etcdserverpb::request_op::Request as Op;
use crate::pb::etcdserverpb::response_op::Response as OpResponse;
use crate::pb::mvccpb::event::EventType;
use crate::pb::mvccpb::{Event, KeyValue};

/// Hash of one encoded KeyValue; the state hash sums them, so the order does not matter.
pub(crate) fn hash_kv_row(encoded: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(encoded)
}

/// One write under way. Readers wait: they see all of its changes or none.
pub(crate) struct Writer<'a> {
    shared: &'a Shared,
    state: RwLockWriteGuard<'a, State>,
    /// Newest revision before the write.
    begin: i64,
    events: Vec<Event>,
    previous: Vec<Previous>,
    lease_moves: Vec<LeaseMove>,
    done: Operations,
}

impl<'a> Writer<'a> {
    pub fn new(shared: &'a Shared) -> Self {
        let state = shared.state.write();
        let begin = state.revision;
        let (events, previous, lease_moves, done) = Default::default();
        Self { shared, state, begin, events, previous, lease_moves, done }
    }

    /// The revision that a read inside this write belongs to.
    fn visible_revision(&self) -> i64 {
        if self.events.is_empty() { self.begin } else { self.begin + 1 }
    }

    /// Makes the changes visible.
    pub fn finish(mut self, response: impl FnOnce(pb::ResponseHeader) -> Response) -> Applied {
        let revision = self.visible_revision();
        self.state.revision = revision;
        self.shared.metrics.on_written(self.done);
        let events = (!self.events.is_empty())
            .then(|| Arc::new(RevisionEvents::new(revision, std::mem::take(&mut self.events))));
        Applied {
            response: response(revision_header(revision)),
            events,
            previous: self.previous,
            lease_moves: self.lease_moves,
        }
    }

    /// Puts, with everything that could refuse it checked before.
    pub fn put(&mut self, req: &pb::PutRequest) -> Result<pb::PutResponse, ApiError> {
        let needs_previous = req.prev_kv || req.ignore_value;
        let previous =
            if needs_previous { self.lookup(&req.key, self.visible_revision())? } else { None };
        let kept_value = previous.as_ref().filter(|_| req.ignore_value).map(|kv| &kv.value);
        self.write_put(req, kept_value.unwrap_or(&req.value).clone());
        Ok(pb::PutResponse {
            header: Some(revision_header(self.begin + 1)),
            prev_kv: previous.filter(|_| req.prev_kv),
        })
    }

    fn write_put(&mut self, req: &pb::PutRequest, value: Bytes) {
        self.done.puts += 1;
        self.done.put_bytes += (req.key.len() + value.len()) as u64;
        let revision = self.next_revision();
        let state = &mut *self.state;
        let entry = state.index.get_mut(&req.key);
        let before = entry.as_ref().map_or(Previous::Absent, |entry| previous(entry, revision));
        let previous = entry.as_ref().and_then(|entry| entry.current.as_ref());
        let (create_revision, version, old_lease, old_hash) = previous
            .map_or((revision.main, 0, 0, 0), |current| {
                (current.create_revision, current.version, current.lease, current.hash)
            });
        state.resident_bytes -= previous.map_or(0, Current::resident_bytes);
        state.live_keys += u64::from(previous.is_none());
        let lease = if req.ignore_lease { old_lease } else { req.lease };
        let put = Put {
            key: &req.key,
            create_revision,
            mod_revision: revision.main,
            version: version + 1,
            value: &value,
            lease,
        };
        // The event's key and value are slices of the row, not of the request's buffer.
        let (encoded, kv) = put.encode();
        let hash = hash_kv_row(&encoded);
        state.live_hash = state.live_hash.wrapping_sub(old_hash).wrapping_add(hash);
        state.resident_bytes += encoded.len() as u64;
        let row = Some(encoded.clone());
        let current = Some(Current { kv: row, create_revision, version: version + 1, lease, hash });
        let change = Change::new(revision, false);
        match entry {
            Some(entry) => entry.push(change, current),
            None => {
                // A copy: the request's bytes are a slice of a much larger buffer.
                let key = Bytes::copy_from_slice(&req.key);
                state.index.insert(key, KeyIndex::new(change, current));
            }
        }
        if lease != old_lease {
            self.lease_moves.push(LeaseMove { key: kv.key.clone(), from: old_lease, to: lease });
        }
        state.push_row(Row { revision, tombstone: false, value: encoded });
        self.push_event(EventType::Put, kv, before);
    }

    fn push_event(&mut self, event_type: EventType, kv: KeyValue, before: Previous) {
        // Mostly the only one of its revision.
        if self.events.capacity() == 0 {
            self.events.reserve_exact(1);
            self.previous.reserve_exact(1);
        }
        self.events.push(Event { r#type: event_type.into(), kv: Some(kv), prev_kv: None });
        self.previous.push(before);
    }

    pub fn delete_range(
        &mut self,
        req: &pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, ApiError> {
        let range = KeyRange::new(&req.key, &req.range_end);
        let prev_kvs = if req.prev_kv {
            let (_, kvs) = self.collect(&range, self.visible_revision(), usize::MAX)?;
            kvs.iter().map(decode_kv).collect()
        } else {
            Vec::new()
        };
        let keys: Vec<Bytes> = match range.bounds(None) {
            Some(bounds) => {
                let entries = self.state.index.range::<[u8], _>(bounds);
                entries.filter(|(_, e)| e.current.is_some()).map(|(key, _)| key.clone()).collect()
            }
            None => Vec::new(),
        };
        self.done.deletes += 1;
        for key in &keys {
            self.remove(key);
        }
        Ok(pb::DeleteRangeResponse {
            header: Some(revision_header(self.visible_revision())),
            deleted: keys.len() as i64,
            prev_kvs,
        })
    }

    /// Deletes a key; one that does not exist is left alone.
    pub fn delete(&mut self, key: &Bytes) {
        self.done.deletes += 1;
        self.remove(key);
    }

    fn remove(&mut self, key: &Bytes) {
        let revision = self.next_revision();
        let state = &mut *self.state;
        let Some(entry) = state.index.get_mut(key) else { return };
        let before = previous(entry, revision);
        let Some(current) = entry.current.as_ref() else { return };
        let (lease, hash) = (current.lease, current.hash);
        state.resident_bytes -= current.resident_bytes();
        entry.push(Change::new(revision, true), None);
        state.live_keys -= 1;
        state.live_hash = state.live_hash.wrapping_sub(hash);
        if lease != 0 {
            self.lease_moves.push(LeaseMove { key: key.clone(), from: lease, to: 0 });
        }
        let stored = KeyValue { key: key.clone(), ..KeyValue::default() };
        state.push_row(Row { revision, tombstone: true, value: encode_kv(&stored) });
        let kv = KeyValue { mod_revision: revision.main, ..stored };
        self.push_event(EventType::Delete, kv, before);
    }

    /// Runs the operations of the taken path in order; each sees the changes before it.
    pub fn txn(&mut self, req: &pb::TxnRequest, path: &Path) -> Result<pb::TxnResponse, ApiError> {
        let mut nested_paths = path.nested.iter();
        let mut responses = Vec::with_capacity(path.branch(req).len());
        for op in path.branch(req) {
            let response = match &op.request {
                Some(Op::RequestRange(range)) => OpResponse::ResponseRange(self.range(range)?),
                Some(Op::RequestPut(put)) => OpResponse::ResponsePut(self.put(put)?),
                Some(Op::RequestDeleteRange(delete)) => {
                    OpResponse::ResponseDeleteRange(self.delete_range(delete)?)
                }
                Some(Op::RequestTxn(nested)) => {
                    let path = nested_paths.next().expect("a path has an item per nested txn");
                    OpResponse::ResponseTxn(self.txn(nested, path)?)
                }
                None => return Err(ApiError::KeyNotFound),
            };
            responses.push(pb::ResponseOp { response: Some(response) });
        }
        // A nested response keeps this empty header (surface spec §3.5).
        let header = Some(pb::ResponseHeader::default());
        Ok(pb::TxnResponse { header, succeeded: path.succeeded, responses })
    }

    fn range(&mut self, req: &pb::RangeRequest) -> Result<pb::RangeResponse, ApiError> {
        self.done.ranges += 1;
        let current = self.visible_revision();
        // Checked against the state before the txn: what was compacted then is an error already.
        let revision = resolve_revision(req.revision, current, self.state.compact_revision)?;
        let selection = range::evaluate(self, req, revision)?;
        Ok(range_response(revision_header(current), &selection))
    }

    fn next_revision(&self) -> Revision {
        Revision { main: self.begin + 1, sub: self.events.len() as i64 }
    }
}

impl KeySpace for Writer<'_> {
    fn collect(
        &self,
        range: &KeyRange<'_>,
        revision: i64,
        want: usize,
    ) -> Result<(i64, Vec<Bytes>), ApiError> {
        let mut walk = Walk::new(want);
        self.state.advance(range, revision, &mut walk, usize::MAX);
        let loaded = load_all(&self.state, &mut walk.found);
        loaded.map_err(|error| {
            self.shared.fail(error);
            ApiError::Stopped
        })?;
        Ok((walk.count, into_values(walk.found)))
    }

    fn revision(&self) -> i64 {
        self.begin
    }

    fn compact_revision(&self) -> i64 {
        self.state.compact_revision
    }
}

/// What the key was before `revision`, which is about to change it.
fn previous(entry: &KeyIndex, revision: Revision) -> Previous {
    match &entry.current {
        _ if entry.last().main() == revision.main => Previous::Unread,
        Some(current) => current.kv.clone().map_or(Previous::Unread, Previous::Here),
        None => Previous::Absent,
    }
}

fn load_all(state: &State, found: &mut [Found]) -> Result<(), super::backend::FileError> {
    load(found, state.view_for(&*found)?.as_ref())
}

pub(crate) fn revision_header(revision: i64) -> pb::ResponseHeader {
    pb::ResponseHeader { revision, ..Default::default() }
}

pub(crate) fn range_response(
    header: pb::ResponseHeader,
    selection: &Selection,
) -> pb::RangeResponse {
    pb::RangeResponse {
        header: Some(header),
        kvs: selection.kvs.iter().map(decode_kv).collect(),
        more: selection.more,
        count: selection.count,
    }
}
