//! A bit of everything: puts, gets, stale gets, ranges, reads of the past, deletes, guarded txns, leases.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use detkv_core::Instant;
use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::pb::etcdserverpb::request_op;
use serde::{Deserialize, Serialize};

use super::requests::{self, op};
use super::values::{Values, key};
use super::watcher::prefix_range;
use super::{Client, Clients, Pace};
use crate::bounds::{
    CLIENTS, KEYS, RATES, TIMEOUTS, VALUE_BYTES, at_least, bytes, tasks, time_within, weights,
    within,
};
use crate::handle::Reply;

/// Tries of a read before the client gives up.
const READ_TRIES: u32 = 4;
const PREFIX: &str = "mix";

/// Clients that draw each call by weight.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mixed {
    pub clients: u32,
    /// All clients together.
    pub calls_per_sec: u32,
    pub keys: u32,
    pub value_bytes: usize,
    #[serde(with = "crate::duration")]
    pub timeout: Duration,
    /// Open calls per client.
    pub in_flight: u32,
    pub weights: Weights,
}

/// How often each call is drawn, relative to the sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Weights {
    pub put: u32,
    pub get: u32,
    pub stale_get: u32,
    pub range: u32,
    pub past: u32,
    pub delete: u32,
    /// Create, update or delete a key if it is still as it was last seen.
    pub guarded: u32,
    /// Several operations at once.
    pub multi: u32,
    /// Grant, put with it, keep alive, revoke.
    pub lease: u32,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            put: 30,
            get: 20,
            stale_get: 8,
            range: 5,
            past: 5,
            delete: 8,
            guarded: 12,
            multi: 6,
            lease: 6,
        }
    }
}

impl Default for Mixed {
    fn default() -> Self {
        Self {
            clients: 6,
            calls_per_sec: 120,
            keys: 20,
            value_bytes: 32,
            timeout: Duration::from_secs(1),
            in_flight: 8,
            weights: Weights::default(),
        }
    }
}

impl Mixed {
    /// Errors: what is wrong, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        within("clients", self.clients, CLIENTS)?;
        within("calls_per_sec", self.calls_per_sec, RATES)?;
        within("keys", self.keys, KEYS)?;
        within("value_bytes", self.value_bytes, VALUE_BYTES)?;
        time_within("timeout", self.timeout, TIMEOUTS)?;
        at_least("in_flight", self.in_flight, 1)?;
        tasks("in_flight", self.clients, self.in_flight)?;
        let open = u64::from(self.clients) * u64::from(self.in_flight);
        bytes(open.max(self.calls_per_sec.into()), self.value_bytes)?;
        let w = self.weights;
        weights(&[
            ("put", w.put),
            ("get", w.get),
            ("stale_get", w.stale_get),
            ("range", w.range),
            ("past", w.past),
            ("delete", w.delete),
            ("guarded", w.guarded),
            ("multi", w.multi),
            ("lease", w.lease),
        ])
    }

    /// Clients that it makes in a cluster of so many members.
    pub fn clients(&self, _members: u64) -> u32 {
        self.clients
    }

    /// Calls until `end`.
    pub fn start(&self, clients: &Clients, end: Instant) {
        let interval = Duration::from_secs(1) * self.clients.max(1) / self.calls_per_sec.max(1);
        for n in 0..self.clients {
            let client = clients.roaming(n as usize, self.timeout);
            let start = clients.handle().now() + interval * n / self.clients;
            let pace = Rc::new(Pace::new(start, interval, end));
            let worker = Rc::new(Worker {
                values: Values::new(client.id, self.value_bytes),
                client,
                options: self.clone(),
                seen: RefCell::default(),
                revision: Cell::new(1),
                leases: RefCell::default(),
                next_lease: Cell::new(1),
            });
            for _ in 0..self.in_flight {
                clients.spawn(run(worker.clone(), pace.clone()));
            }
        }
    }
}

async fn run(worker: Rc<Worker>, pace: Rc<Pace>) {
    while pace.next(&worker.client).await.is_some() {
        worker.one_call().await;
    }
}

/// What one client knows; its open calls share it.
struct Worker {
    client: Client,
    options: Mixed,
    values: Values,
    /// Mod revision of each key when it was last seen; 0: it was not there.
    seen: RefCell<BTreeMap<Bytes, i64>>,
    /// The newest revision it was shown.
    revision: Cell<i64>,
    leases: RefCell<Vec<i64>>,
    next_lease: Cell<i64>,
}

impl Worker {
    async fn one_call(&self) {
        let w = self.options.weights;
        let choices =
            [w.put, w.get, w.stale_get, w.range, w.past, w.delete, w.guarded, w.multi, w.lease];
        let total: u32 = choices.iter().sum();
        let mut drawn = self.client.below(u64::from(total)) as u32;
        let choice = choices.iter().position(|weight| {
            let is_it = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            is_it
        });
        let key = key(PREFIX, self.client.below(u64::from(self.options.keys)));
        match choice {
            Some(0) => self.write(Request::Put(self.put(key))).await,
            Some(1) => self.get(key, false).await,
            Some(2) => self.get(key, true).await,
            Some(3) => self.range().await,
            Some(4) => self.past().await,
            Some(5) => self.delete(key).await,
            Some(6) => self.guarded(key).await,
            Some(7) => self.multi(key).await,
            _ => self.lease(key).await,
        }
    }

    fn put(&self, key: Bytes) -> pb::PutRequest {
        let prev_kv = self.client.below(2) == 0;
        pb::PutRequest { key, value: self.values.next(), prev_kv, ..Default::default() }
    }

    /// One try: the outcome of a write that gets no answer is unknown.
    async fn write(&self, request: Request) {
        if let Ok(reply) = self.client.call(request).await {
            self.learn(&reply);
        }
    }

    async fn get(&self, key: Bytes, serializable: bool) {
        let range = pb::RangeRequest { key: key.clone(), serializable, ..Default::default() };
        if let Ok(Reply::Range(rows)) = self.client.read(Request::Range(range), READ_TRIES).await {
            let seen = rows.kvs.first().map_or(0, |kv| kv.mod_revision);
            self.seen.borrow_mut().insert(key, seen);
            self.learn(&Reply::Range(rows));
        }
    }

    async fn range(&self) {
        let (key, range_end) = prefix_range(PREFIX);
        let draw = |n| self.client.below(n) as i32;
        let mut range = pb::RangeRequest { key, range_end, ..Default::default() };
        match draw(6) {
            0 => range.count_only = true,
            1 => range.keys_only = true,
            2 => range.limit = 1 + i64::from(draw(10)),
            3 => (range.sort_order, range.sort_target) = (1 + draw(2), draw(5)),
            4 => range.min_mod_revision = self.revision.get() - 20,
            _ => {}
        }
        range.serializable = draw(4) == 0;
        self.read(Request::Range(range)).await;
    }

    /// Everything, or one key, as it was some revisions ago.
    async fn past(&self) {
        let (key, range_end) = prefix_range(PREFIX);
        let revision = self.revision.get() - self.client.below(50) as i64;
        let range =
            pb::RangeRequest { key, range_end, revision: revision.max(1), ..Default::default() };
        self.read(Request::Range(range)).await;
    }

    async fn read(&self, request: Request) {
        if let Ok(reply) = self.client.read(request, READ_TRIES).await {
            self.learn(&reply);
        }
    }

    async fn delete(&self, first: Bytes) {
        // Now and then a few neighbours at once.
        let range_end = match self.client.below(4) {
            0 => {
                let number = self.client.below(u64::from(self.options.keys));
                key(PREFIX, number)
            }
            _ => Bytes::new(),
        };
        let prev_kv = self.client.below(2) == 0;
        self.write(Request::DeleteRange(pb::DeleteRangeRequest { key: first, range_end, prev_kv }))
            .await;
    }

    /// As Kubernetes writes: if the key is as last seen, put or delete it, else read it.
    async fn guarded(&self, key: Bytes) {
        let seen = self.seen.borrow().get(&key).copied().unwrap_or(0);
        let write = if seen > 0 && self.client.below(4) == 0 {
            requests::delete_op(key.clone())
        } else {
            requests::put_op(self.put(key.clone()))
        };
        let request = requests::guarded(key.clone(), seen, write);
        let Ok(Reply::Txn(got)) = self.client.call(request).await else { return };
        self.seen.borrow_mut().insert(key, requests::revision_after(&got));
        self.learn(&Reply::Txn(got));
    }

    /// Two puts, a delete and a range that must see them, in one revision.
    async fn multi(&self, first: Bytes) {
        let keys = u64::from(self.options.keys);
        let second = key(PREFIX, self.client.below(keys));
        let third = key(PREFIX, self.client.below(keys));
        let (start, range_end) = prefix_range(PREFIX);
        let mut success = vec![op(request_op::Request::RequestPut(self.put(first.clone())))];
        if second != first {
            success.push(op(request_op::Request::RequestPut(self.put(second.clone()))));
        }
        if third != first && third != second {
            let delete = pb::DeleteRangeRequest { key: third, prev_kv: true, ..Default::default() };
            success.push(op(request_op::Request::RequestDeleteRange(delete)));
        }
        let range = pb::RangeRequest { key: start, range_end, ..Default::default() };
        success.push(op(request_op::Request::RequestRange(range)));
        self.write(Request::Txn(pb::TxnRequest { success, ..Default::default() })).await;
    }

    async fn lease(&self, key: Bytes) {
        let held = {
            let leases = self.leases.borrow();
            let place = self.client.below(leases.len() as u64) as usize;
            leases.get(place).copied()
        };
        match (held, self.client.below(4)) {
            (None, _) | (Some(_), 0) => self.grant().await,
            (Some(id), 1) => {
                self.leases.borrow_mut().retain(|held| *held != id);
                self.write(Request::LeaseRevoke(pb::LeaseRevokeRequest { id })).await;
            }
            (Some(id), 2) => {
                self.write(Request::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id })).await;
            }
            (Some(lease), _) => {
                let put = pb::PutRequest { lease, ..self.put(key) };
                self.write(Request::Put(put)).await;
            }
        }
    }

    /// Ids are never used twice in a run: an ended lease stays ended.
    async fn grant(&self) {
        let number = self.next_lease.replace(self.next_lease.get() + 1);
        let id = (i64::from(self.client.id.0) + 1) << 32 | number;
        let ttl = 2 + self.client.below(6) as i64;
        let request = Request::LeaseGrant(pb::LeaseGrantRequest { id, ttl });
        if self.client.call(request).await.is_ok() {
            self.leases.borrow_mut().push(id);
        }
    }

    fn learn(&self, reply: &Reply) {
        self.revision.set(self.revision.get().max(requests::header_revision(reply)));
    }
}
