//! The request mix of etcd's robustness tests: sequential clients on few keys, every kind of request.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use detkv_core::Instant;
use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb as pb;
use serde::{Deserialize, Serialize};

use super::requests::{delete_op, get, guarded, header_revision, put_op, revision_after};
use super::values::{Values, key};
use super::watcher::prefix_range;
use super::{Client, Clients, Pace};
use crate::bounds::{KEYS, TIMEOUTS, VALUE_BYTES, time_within, weights, within};
use crate::handle::Reply;

const PREFIX: &str = "rob";
const READ_TRIES: u32 = 4;

/// Requests a second, all clients together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Traffic {
    /// 8 clients, 150 requests a second.
    Low,
    /// 12 clients, 800 requests a second.
    High,
}

/// Clients that draw each request by weight; each waits for its answer before the next.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Robustness {
    pub traffic: Traffic,
    pub keys: u32,
    /// Of a large put; others are as short as they can be unique.
    pub large_put_bytes: usize,
    #[serde(with = "crate::duration")]
    pub timeout: Duration,
    pub weights: RobustnessWeights,
}

/// How often each request is drawn, relative to the sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RobustnessWeights {
    pub get: u32,
    pub list: u32,
    /// At an older revision.
    pub stale_get: u32,
    pub stale_list: u32,
    pub put: u32,
    pub large_put: u32,
    pub delete: u32,
    pub multi_op_txn: u32,
    pub compare_and_set: u32,
    /// Put with the client's lease, granted when there is none.
    pub put_with_lease: u32,
    pub lease_revoke: u32,
    pub compact: u32,
    pub defragment: u32,
}

impl Default for RobustnessWeights {
    fn default() -> Self {
        Self {
            get: 15,
            list: 15,
            stale_get: 10,
            stale_list: 10,
            put: 20,
            large_put: 3,
            delete: 5,
            multi_op_txn: 5,
            compare_and_set: 5,
            put_with_lease: 5,
            lease_revoke: 5,
            compact: 1,
            defragment: 1,
        }
    }
}

impl RobustnessWeights {
    fn all(self) -> [(Kind, u32); 13] {
        [
            (Kind::Get, self.get),
            (Kind::List, self.list),
            (Kind::StaleGet, self.stale_get),
            (Kind::StaleList, self.stale_list),
            (Kind::Put, self.put),
            (Kind::LargePut, self.large_put),
            (Kind::Delete, self.delete),
            (Kind::MultiOpTxn, self.multi_op_txn),
            (Kind::CompareAndSet, self.compare_and_set),
            (Kind::PutWithLease, self.put_with_lease),
            (Kind::LeaseRevoke, self.lease_revoke),
            (Kind::Compact, self.compact),
            (Kind::Defragment, self.defragment),
        ]
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Get,
    List,
    StaleGet,
    StaleList,
    Put,
    LargePut,
    Delete,
    MultiOpTxn,
    CompareAndSet,
    PutWithLease,
    LeaseRevoke,
    Compact,
    Defragment,
}

impl Default for Robustness {
    fn default() -> Self {
        Self {
            traffic: Traffic::Low,
            keys: 10,
            large_put_bytes: 32_769,
            timeout: Duration::from_millis(500),
            weights: RobustnessWeights::default(),
        }
    }
}

impl Robustness {
    /// Errors: what is wrong, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        within("keys", self.keys, KEYS)?;
        within("large_put_bytes", self.large_put_bytes, VALUE_BYTES)?;
        time_within("timeout", self.timeout, TIMEOUTS)?;
        let w = self.weights;
        weights(&[
            ("get", w.get),
            ("list", w.list),
            ("stale_get", w.stale_get),
            ("stale_list", w.stale_list),
            ("put", w.put),
            ("large_put", w.large_put),
            ("delete", w.delete),
            ("multi_op_txn", w.multi_op_txn),
            ("compare_and_set", w.compare_and_set),
            ("put_with_lease", w.put_with_lease),
            ("lease_revoke", w.lease_revoke),
            ("compact", w.compact),
            ("defragment", w.defragment),
        ])
    }

    /// Clients that it makes in a cluster of so many members.
    pub fn clients(&self, _members: u64) -> u32 {
        self.shape().0
    }

    fn shape(&self) -> (u32, u32) {
        match self.traffic {
            Traffic::Low => (8, 150),
            Traffic::High => (12, 800),
        }
    }

    /// Requests until `end`.
    pub fn start(&self, clients: &Clients, end: Instant) {
        let (count, rate) = self.shape();
        let interval = Duration::from_secs(1) * count / rate;
        for n in 0..count {
            let client = clients.roaming(n as usize, self.timeout);
            let start = clients.handle().now() + interval * n / count;
            let pace = Pace::new(start, interval, end);
            let worker = Worker {
                values: Values::new(client.id, 0),
                large: Values::large(client.id, self.large_put_bytes),
                client,
                options: Rc::new(self.clone()),
                revision: Cell::new(1),
                lease: Cell::new(None),
                next_lease: Cell::new(1),
            };
            clients.spawn(worker.run(pace));
        }
    }
}

struct Worker {
    client: Client,
    options: Rc<Robustness>,
    values: Values,
    large: Values,
    /// The newest one it was shown.
    revision: Cell<i64>,
    lease: Cell<Option<i64>>,
    next_lease: Cell<i64>,
}

impl Worker {
    async fn run(self, pace: Pace) {
        while pace.next(&self.client).await.is_some() {
            self.one().await;
        }
    }

    fn draw(&self) -> Kind {
        let all = self.options.weights.all();
        let total: u32 = all.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.client.below(u64::from(total)) as u32;
        for (kind, weight) in all {
            if drawn < weight {
                return kind;
            }
            drawn -= weight;
        }
        Kind::Get
    }

    fn key(&self) -> Bytes {
        key(PREFIX, self.client.below(u64::from(self.options.keys)))
    }

    fn put(&self, values: &Values) -> pb::PutRequest {
        pb::PutRequest { key: self.key(), value: values.next(), ..Default::default() }
    }

    async fn one(&self) {
        match self.draw() {
            Kind::Get => self.read(get(self.key())).await,
            Kind::List => self.read(self.list()).await,
            Kind::StaleGet => self.read(self.at_old_revision(get(self.key()))).await,
            Kind::StaleList => self.read(self.at_old_revision(self.list())).await,
            Kind::Put => self.call(Request::Put(self.put(&self.values))).await,
            Kind::LargePut => self.call(Request::Put(self.put(&self.large))).await,
            Kind::Delete => {
                let delete = pb::DeleteRangeRequest { key: self.key(), ..Default::default() };
                self.call(Request::DeleteRange(delete)).await;
            }
            Kind::MultiOpTxn => self.multi_op_txn().await,
            Kind::CompareAndSet => self.compare_and_set().await,
            Kind::PutWithLease => self.put_with_lease().await,
            Kind::LeaseRevoke => {
                if let Some(id) = self.lease.take() {
                    self.call(Request::LeaseRevoke(pb::LeaseRevokeRequest { id })).await;
                }
            }
            Kind::Compact => {
                let revision = self.revision.get() - 20;
                if revision > 1 {
                    let compact = pb::CompactionRequest { revision, physical: false };
                    self.call(Request::Compact(compact)).await;
                }
            }
            Kind::Defragment => self.call(Request::Defragment(pb::DefragmentRequest {})).await,
        }
    }

    fn list(&self) -> pb::RangeRequest {
        let (key, range_end) = prefix_range(PREFIX);
        pb::RangeRequest { key, range_end, ..Default::default() }
    }

    /// Some revisions before the newest it knows of.
    fn at_old_revision(&self, range: pb::RangeRequest) -> pb::RangeRequest {
        let revision = (self.revision.get() - self.client.below(20) as i64).max(1);
        pb::RangeRequest { revision, ..range }
    }

    async fn read(&self, range: pb::RangeRequest) {
        if let Ok(reply) = self.client.read(Request::Range(range), READ_TRIES).await {
            self.learn(&reply);
        }
    }

    async fn call(&self, request: Request) {
        if let Ok(reply) = self.client.call(request).await {
            self.learn(&reply);
        }
    }

    /// Up to four different keys: put, deleted or read.
    async fn multi_op_txn(&self) {
        let keys = u64::from(self.options.keys);
        let first = self.client.below(keys);
        let count = keys.min(4);
        let success = (0..count).map(|n| {
            let key = key(PREFIX, (first + n) % keys);
            match self.client.below(3) {
                0 => delete_op(key),
                1 => super::requests::get_op(key),
                _ => {
                    put_op(pb::PutRequest { key, value: self.values.next(), ..Default::default() })
                }
            }
        });
        let success = success.collect();
        self.call(Request::Txn(pb::TxnRequest { success, ..Default::default() })).await;
    }

    /// Reads a key, then writes it if it is still as read.
    async fn compare_and_set(&self) {
        let key = self.key();
        let read = self.client.read(Request::Range(get(key.clone())), READ_TRIES).await;
        let Ok(Reply::Range(rows)) = read else { return };
        let seen = rows.kvs.first().map_or(0, |kv| kv.mod_revision);
        let put =
            pb::PutRequest { key: key.clone(), value: self.values.next(), ..Default::default() };
        let request = guarded(key, seen, put_op(put));
        if let Ok(Reply::Txn(got)) = self.client.call(request).await {
            self.revision.set(self.revision.get().max(revision_after(&got)));
        }
    }

    async fn put_with_lease(&self) {
        let Some(lease) = self.lease.get() else {
            let number = self.next_lease.replace(self.next_lease.get() + 1);
            let id = (i64::from(self.client.id.0) + 1) << 32 | number;
            let grant = pb::LeaseGrantRequest { id, ttl: 7200 };
            if self.client.call(Request::LeaseGrant(grant)).await.is_ok() {
                self.lease.set(Some(id));
            }
            return;
        };
        let put = pb::PutRequest { lease, ..self.put(&self.values) };
        self.call(Request::Put(put)).await;
    }

    fn learn(&self, reply: &Reply) {
        self.revision.set(self.revision.get().max(header_revision(reply)));
    }
}
