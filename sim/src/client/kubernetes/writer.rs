//! A controller: decides by what its reader has shown, and writes only if that is still so.

use std::cell::Cell;

use bytes::Bytes;
use detkv_core::Instant;
use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb as pb;

use super::{Cache, EVENTS, Kubernetes, OBJECTS};
use crate::client::requests::{delete_op, get, guarded, put_op, revision_after};
use crate::client::values::{Values, key};
use crate::client::{Client, Clients, Pace};
use crate::handle::Reply;

const READ_TRIES: u32 = 4;
/// Events that share a lease.
const EVENTS_PER_LEASE: u32 = 20;

pub(super) fn start(
    options: &Kubernetes,
    clients: &Clients,
    n: u32,
    cache: Cache,
    interval: std::time::Duration,
    end: Instant,
) {
    let client = clients.roaming(n as usize, options.timeout);
    let start = clients.handle().now() + interval * n / options.writers.max(1);
    let writer = Writer {
        values: Values::new(client.id, options.value_bytes),
        pace: Pace::new(start, interval.max(std::time::Duration::from_nanos(1)), end),
        client,
        cache,
        objects: options.objects,
        event_ttl_secs: i64::from(options.event_ttl_secs),
        lease: Cell::new(None),
        next: Cell::new(0),
    };
    clients.spawn(writer.run());
}

struct Writer {
    client: Client,
    values: Values,
    pace: Pace,
    cache: Cache,
    objects: u32,
    event_ttl_secs: i64,
    /// The lease of its events, and how many more it may have.
    lease: Cell<Option<(i64, u32)>>,
    /// Names of its objects, events and leases.
    next: Cell<u64>,
}

impl Writer {
    async fn run(self) {
        while self.pace.next(&self.client).await.is_some() {
            self.one().await;
        }
    }

    async fn one(&self) {
        let choice = self.client.below(100);
        let known = self.cache.nth(self.client.below(1 << 32));
        let Some((key, seen)) = known.filter(|_| self.cache.len() >= self.objects as usize / 2)
        else {
            return self.create().await;
        };
        let is_full = self.cache.len() >= self.objects as usize;
        match choice {
            0..45 => {
                let put = self.put_of(key.clone());
                self.write(key, seen, put_op(put)).await;
            }
            45..55 => {
                let range = Request::Range(get(key));
                // A failure is in the history.
                let _ = self.client.read(range, READ_TRIES).await;
            }
            55..70 => self.event().await,
            70..85 if !is_full => self.create().await,
            _ => self.write(key.clone(), seen, delete_op(key)).await,
        }
    }

    fn number(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }

    fn put_of(&self, key: Bytes) -> pb::PutRequest {
        pb::PutRequest { key, value: self.values.next(), ..Default::default() }
    }

    /// Few names: other writers create the same ones.
    async fn create(&self) {
        let key = key(OBJECTS, self.client.below(u64::from(self.objects) * 2));
        let put = self.put_of(key.clone());
        self.write(key, 0, put_op(put)).await;
    }

    /// If the object is as it was seen; a conflict shows how it is, and the write is tried once more.
    async fn write(&self, key: Bytes, seen: i64, write: pb::RequestOp) {
        let request = guarded(key.clone(), seen, write.clone());
        let Ok(Reply::Txn(got)) = self.client.call(request).await else { return };
        let now = revision_after(&got);
        if !got.succeeded && now > 0 && seen > 0 {
            let _ = self.client.call(guarded(key, now, write)).await;
        }
    }

    /// An event is put once, with a lease that it shares with others, and ends with it.
    async fn event(&self) {
        let (lease, left) = match self.lease.get() {
            Some(lease) => lease,
            None => {
                let id = (i64::from(self.client.id.0) + 1) << 32 | (self.number() as i64 + 1);
                let grant = pb::LeaseGrantRequest { id, ttl: self.event_ttl_secs };
                if self.client.call(Request::LeaseGrant(grant)).await.is_err() {
                    return;
                }
                (id, EVENTS_PER_LEASE)
            }
        };
        self.lease.set((left > 1).then_some((lease, left - 1)));
        let name = u64::from(self.client.id.0) * 10_000 + self.number();
        let key = key(EVENTS, name);
        let put = pb::PutRequest { lease, ..self.put_of(key.clone()) };
        if self.client.call(guarded(key, 0, put_op(put))).await.is_err() {
            // The lease may have ended: the next event gets a new one.
            self.lease.set(None);
        }
    }
}
