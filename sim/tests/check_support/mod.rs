//! A small reference store that makes histories: good ones by running requests, bad ones by changing an answer.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod random;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::pb::mvccpb::{Event as KvEvent, KeyValue, event::EventType};
use detkv_core::{Instant, MemberId};
use detkv_sim::Reply;
use detkv_sim::check::{Case, Checker, Violation};
use detkv_sim::history::{ClientId, Event, Fact, Failure, History, OpId, Phase, WatchId};

pub const MEMBER: MemberId = MemberId(1);

pub fn put(key: &str, value: &str) -> Request {
    Request::Put(put_request(key, value))
}

pub fn put_request(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: bytes(key), value: bytes(value), ..Default::default() }
}

pub fn get(key: &str) -> Request {
    Request::Range(pb::RangeRequest { key: bytes(key), ..Default::default() })
}

pub fn get_serializable(key: &str) -> Request {
    Request::Range(pb::RangeRequest { key: bytes(key), serializable: true, ..Default::default() })
}

pub fn delete(key: &str) -> Request {
    Request::DeleteRange(pb::DeleteRangeRequest { key: bytes(key), ..Default::default() })
}

/// Every key.
pub fn get_all() -> Request {
    Request::Range(pb::RangeRequest {
        key: bytes("\0"),
        range_end: bytes("\0"),
        ..Default::default()
    })
}

/// Every key from `key` on at `revision` (0: now), so many rows at most.
pub fn get_page(key: &str, revision: i64, limit: i64) -> Request {
    Request::Range(pb::RangeRequest {
        key: bytes(key),
        range_end: bytes("\0"),
        revision,
        limit,
        ..Default::default()
    })
}

/// Puts `value` when the key's mod revision is `mod_revision`, else reads it.
pub fn guarded_put(key: &str, mod_revision: i64, value: &str) -> Request {
    use pb::{compare, request_op};
    Request::Txn(pb::TxnRequest {
        compare: vec![pb::Compare {
            result: compare::CompareResult::Equal as i32,
            target: compare::CompareTarget::Mod as i32,
            key: bytes(key),
            target_union: Some(compare::TargetUnion::ModRevision(mod_revision)),
            ..Default::default()
        }],
        success: vec![pb::RequestOp {
            request: Some(request_op::Request::RequestPut(put_request(key, value))),
        }],
        failure: vec![pb::RequestOp {
            request: Some(request_op::Request::RequestRange(pb::RangeRequest {
                key: bytes(key),
                ..Default::default()
            })),
        }],
    })
}

pub fn watch_from(key: &str, start_revision: i64) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: bytes(key), start_revision, ..Default::default() }
}

pub fn watch_all(start_revision: i64) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: bytes("\0"),
        range_end: bytes("\0"),
        start_revision,
        prev_kv: true,
        ..Default::default()
    }
}

pub fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// The reference store: rows, and the events of every revision.
#[derive(Clone, Default)]
pub struct Store {
    pub rows: BTreeMap<Bytes, KeyValue>,
    /// `revisions[i]`: the events of revision `i + 2`, with `prev_kv`.
    pub revisions: Vec<Vec<KvEvent>>,
    /// Of every key: revision and row, `None` where it was deleted.
    versions: BTreeMap<Bytes, Vec<(i64, Option<KeyValue>)>>,
}

impl Store {
    pub fn revision(&self) -> i64 {
        1 + self.revisions.len() as i64
    }

    pub fn header(&self) -> pb::ResponseHeader {
        pb::ResponseHeader { revision: self.revision(), ..Default::default() }
    }

    /// Runs one request to its reply.
    pub fn run(&mut self, request: &Request) -> Reply {
        let mut events = Vec::new();
        let revision = self.revision() + 1;
        match request {
            Request::Range(range) => {
                let header = Some(self.header());
                Reply::Range(pb::RangeResponse { header, ..self.range(range) })
            }
            Request::Put(put) => {
                let mut response = self.put(put, revision, &mut events);
                self.commit(events);
                response.header = Some(self.header());
                Reply::Put(response)
            }
            Request::DeleteRange(delete) => {
                let mut response = self.delete(delete, revision, &mut events);
                self.commit(events);
                response.header = Some(self.header());
                Reply::DeleteRange(response)
            }
            Request::Txn(txn) => {
                let mut response = self.txn(txn, revision, &mut events);
                self.commit(events);
                response.header = Some(self.header());
                Reply::Txn(response)
            }
            Request::LeaseGrant(grant) => Reply::LeaseGrant(pb::LeaseGrantResponse {
                header: Some(self.header()),
                id: grant.id,
                ttl: grant.ttl,
                ..Default::default()
            }),
            Request::LeaseRevoke(revoke) => {
                self.expire(revoke.id);
                Reply::LeaseRevoke(pb::LeaseRevokeResponse { header: Some(self.header()) })
            }
            Request::Compact(_) => {
                Reply::Compact(pb::CompactionResponse { header: Some(self.header()) })
            }
            other => panic!("the reference store does not know {other:?}"),
        }
    }

    /// Deletes the keys of a lease in one revision.
    pub fn expire(&mut self, lease: i64) {
        let revision = self.revision() + 1;
        let keys: Vec<Bytes> =
            self.rows.values().filter(|kv| kv.lease == lease).map(|kv| kv.key.clone()).collect();
        let mut events = Vec::new();
        for key in keys {
            self.remove(&key, revision, &mut events);
        }
        self.commit(events);
    }

    fn commit(&mut self, events: Vec<KvEvent>) {
        if events.is_empty() {
            return;
        }
        for event in &events {
            let kv = event.kv.clone().expect("our events have rows");
            let versions = self.versions.entry(kv.key.clone()).or_default();
            let is_put = event.r#type == EventType::Put as i32;
            versions.push((kv.mod_revision, is_put.then_some(kv)));
        }
        self.revisions.push(events);
    }

    fn range(&self, range: &pb::RangeRequest) -> pb::RangeResponse {
        let is_wanted = |key: &&Bytes| contains(&range.key, &range.range_end, key);
        let mut kvs: Vec<KeyValue> = if range.revision > 0 {
            let keys = self.versions.keys().filter(is_wanted);
            keys.filter_map(|key| self.row_at(key, range.revision)).collect()
        } else if range.range_end.is_empty() {
            self.rows.get(&range.key).cloned().into_iter().collect()
        } else {
            self.rows.values().filter(|kv| is_wanted(&&kv.key)).cloned().collect()
        };
        let count = kvs.len() as i64;
        let more = range.limit > 0 && count > range.limit;
        if more {
            kvs.truncate(range.limit as usize);
        }
        pb::RangeResponse { count, kvs, more, ..Default::default() }
    }

    fn row_at(&self, key: &Bytes, revision: i64) -> Option<KeyValue> {
        let versions = &self.versions[key];
        let newer = versions.partition_point(|(mod_revision, _)| *mod_revision <= revision);
        versions[..newer].last()?.1.clone()
    }

    fn put(
        &mut self,
        put: &pb::PutRequest,
        revision: i64,
        events: &mut Vec<KvEvent>,
    ) -> pb::PutResponse {
        let prev = self.rows.get(&put.key).cloned();
        let kv = KeyValue {
            key: put.key.clone(),
            value: put.value.clone(),
            create_revision: prev.as_ref().map_or(revision, |prev| prev.create_revision),
            mod_revision: revision,
            version: prev.as_ref().map_or(1, |prev| prev.version + 1),
            lease: put.lease,
        };
        self.rows.insert(put.key.clone(), kv.clone());
        events.push(KvEvent { r#type: EventType::Put as i32, kv: Some(kv), prev_kv: prev.clone() });
        pb::PutResponse { prev_kv: prev.filter(|_| put.prev_kv), ..Default::default() }
    }

    fn delete(
        &mut self,
        delete: &pb::DeleteRangeRequest,
        revision: i64,
        events: &mut Vec<KvEvent>,
    ) -> pb::DeleteRangeResponse {
        let keys: Vec<Bytes> = self
            .rows
            .keys()
            .filter(|key| contains(&delete.key, &delete.range_end, key))
            .cloned()
            .collect();
        let gone: Vec<KeyValue> =
            keys.iter().map(|key| self.remove(key, revision, events)).collect();
        pb::DeleteRangeResponse {
            deleted: gone.len() as i64,
            prev_kvs: if delete.prev_kv { gone } else { Vec::new() },
            ..Default::default()
        }
    }

    fn remove(&mut self, key: &Bytes, revision: i64, events: &mut Vec<KvEvent>) -> KeyValue {
        let prev = self.rows.remove(key).expect("only what is there is removed");
        events.push(KvEvent {
            r#type: EventType::Delete as i32,
            kv: Some(KeyValue { key: key.clone(), mod_revision: revision, ..Default::default() }),
            prev_kv: Some(prev.clone()),
        });
        prev
    }

    /// Compares on the mod revision only, which is what these tests send.
    fn txn(
        &mut self,
        txn: &pb::TxnRequest,
        revision: i64,
        events: &mut Vec<KvEvent>,
    ) -> pb::TxnResponse {
        use pb::{request_op::Request as Op, response_op::Response as Answer};
        let succeeded = txn.compare.iter().all(|compare| {
            let Some(pb::compare::TargetUnion::ModRevision(expected)) = compare.target_union else {
                panic!("the reference store compares mod revisions only")
            };
            self.rows.get(&compare.key).map_or(0, |kv| kv.mod_revision) == expected
        });
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let responses = ops.iter().map(|op| {
            let answer = match op.request.as_ref().expect("our txns have no empty ops") {
                Op::RequestRange(range) => Answer::ResponseRange(self.range(range)),
                Op::RequestPut(put) => Answer::ResponsePut(self.put(put, revision, events)),
                Op::RequestDeleteRange(delete) => {
                    Answer::ResponseDeleteRange(self.delete(delete, revision, events))
                }
                Op::RequestTxn(txn) => Answer::ResponseTxn(self.txn(txn, revision, events)),
            };
            pb::ResponseOp { response: Some(answer) }
        });
        let responses = responses.collect();
        pb::TxnResponse { header: None, succeeded, responses }
    }
}

pub fn contains(key: &Bytes, range_end: &Bytes, candidate: &Bytes) -> bool {
    match range_end.as_ref() {
        [] => candidate == key,
        [0] => candidate >= key,
        _ => candidate >= key && candidate < range_end,
    }
}

/// Writes a history step by step. Every step takes a millisecond.
pub struct Script {
    pub store: Store,
    pub history: History,
    pub now: Instant,
    /// Everything recorded, where a test wants to change it afterwards.
    pub events: Option<Vec<(Instant, Event)>>,
    pub requests: Vec<Request>,
    watches: u32,
}

impl Default for Script {
    fn default() -> Self {
        Self::new()
    }
}

impl Script {
    pub fn new() -> Self {
        Self {
            store: Store::default(),
            history: History::new(),
            now: Instant::ZERO,
            events: None,
            requests: Vec::new(),
            watches: 0,
        }
    }

    pub fn record(&mut self, event: Event) {
        self.now = self.now + Duration::from_millis(1);
        if let Some(events) = &mut self.events {
            events.push((self.now, event.clone()));
        }
        self.history.record(self.now, event);
    }

    pub fn call(&mut self, client: u32, request: Request) -> OpId {
        self.call_at(client, MEMBER, request)
    }

    pub fn call_at(&mut self, client: u32, member: MemberId, request: Request) -> OpId {
        let op = OpId(self.requests.len() as u32);
        self.requests.push(request.clone());
        self.record(Event::Call { client: ClientId(client), op, member, request });
        op
    }

    /// The request of `op` takes effect; its reply is not delivered yet.
    pub fn take_effect(&mut self, op: OpId) -> Reply {
        let request = self.requests[op.0 as usize].clone();
        self.store.run(&request)
    }

    pub fn answer(&mut self, op: OpId, reply: Reply) {
        self.record(Event::Return { op, result: Ok(reply) });
    }

    pub fn fail(&mut self, op: OpId, failure: Failure) {
        self.record(Event::Return { op, result: Err(failure) });
    }

    /// Call, effect and return in a row.
    pub fn run(&mut self, client: u32, request: Request) -> OpId {
        let op = self.call(client, request);
        let reply = self.take_effect(op);
        self.answer(op, reply);
        op
    }

    /// Calls, and answers with what `change` makes of the right reply.
    pub fn run_wrong(&mut self, request: Request, change: impl FnOnce(Reply) -> Reply) -> OpId {
        let op = self.call(9, request);
        let reply = self.take_effect(op);
        self.answer(op, change(reply));
        op
    }

    pub fn watch(&mut self, request: pb::WatchCreateRequest) -> WatchId {
        let watch = WatchId(self.watches);
        self.watches += 1;
        self.record(Event::WatchOpened { client: ClientId(7), watch, member: MEMBER, request });
        let header = Some(self.store.header());
        let created = pb::WatchResponse { header, created: true, ..Default::default() };
        self.record(Event::WatchResponse { watch, response: created });
        watch
    }

    /// The right events of one revision for a watch.
    pub fn events_of(&self, request: &pb::WatchCreateRequest, revision: i64) -> Vec<KvEvent> {
        let events = &self.store.revisions[revision as usize - 2];
        let wanted = events.iter().filter(|event| {
            let kv = event.kv.as_ref().expect("our events have rows");
            contains(&request.key, &request.range_end, &kv.key)
                && !request.filters.contains(&event.r#type)
        });
        wanted
            .map(|event| KvEvent {
                prev_kv: event.prev_kv.clone().filter(|_| request.prev_kv),
                ..event.clone()
            })
            .collect()
    }

    pub fn deliver(&mut self, watch: WatchId, events: Vec<KvEvent>) {
        let header = Some(self.store.header());
        let response = pb::WatchResponse { header, events, ..Default::default() };
        self.record(Event::WatchResponse { watch, response });
    }

    /// A watch of `request`, every revision so far delivered in a response of its own.
    pub fn watched(&mut self, request: pb::WatchCreateRequest) -> WatchId {
        let watch = self.watch(request.clone());
        for revision in request.start_revision.max(2)..=self.store.revision() {
            let events = self.events_of(&request, revision);
            if !events.is_empty() {
                self.deliver(watch, events);
            }
        }
        watch
    }

    pub fn fact(&mut self, fact: Fact) {
        self.record(Event::Fact(fact));
    }

    /// Reads everything back, as the script of a run does at its end.
    pub fn read_back(&mut self) {
        self.fact(Fact::Phase(Phase::Readout));
        self.run(8, get_all());
        self.watched(watch_all(1));
    }

    pub fn verdict(&self, checker: &dyn Checker) -> Result<(), Violation> {
        checker.check(&Case::new(&self.history))
    }
}

/// Asserts that `checker` accepts.
#[track_caller]
pub fn accepts(script: &Script, checker: &dyn Checker) {
    if let Err(violation) = script.verdict(checker) {
        panic!("{} refuses a good history: {violation}", checker.name());
    }
}

/// Asserts that `checker` refuses, naming `promise`.
#[track_caller]
pub fn rejects(script: &Script, checker: &dyn Checker, promise: &str) {
    match script.verdict(checker) {
        Ok(()) => panic!("{} accepts a history that breaks: {promise}", checker.name()),
        Err(violation) => assert_eq!(violation.promise, promise, "{violation}"),
    }
}
