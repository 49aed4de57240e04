//! Leases with keys that are kept alive, let go or revoked.

use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use detkv_core::Instant;
use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb as pb;
use serde::{Deserialize, Serialize};

use super::values::{Values, key};
use super::{Client, Clients};
use crate::bounds::{CLIENTS, TIMEOUTS, TTL_SECS, at_least, tasks, time_within, within};
use crate::handle::Reply;

/// Of each client: a lease's id has twelve bits for them.
const LEASES: RangeInclusive<u32> = 1..=4_000;
/// Keys of one lease.
const KEYS_MAX: u32 = 10_000;
const PREFIX: &str = "leased";

/// Clients that hold `leases` leases each, one task per lease.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeepAlive {
    pub clients: u32,
    /// Of each client.
    pub leases: u32,
    /// Each lease's TTL is drawn from here up to twice this, whole seconds.
    pub ttl_secs: u32,
    /// Put with each lease.
    pub keys: u32,
    /// Renewals of a lease before it is let go or revoked.
    pub renewals: u32,
    #[serde(with = "crate::duration")]
    pub timeout: Duration,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self {
            clients: 3,
            leases: 2,
            ttl_secs: 3,
            keys: 3,
            renewals: 6,
            timeout: Duration::from_secs(1),
        }
    }
}

impl KeepAlive {
    /// Errors: what is wrong, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        within("clients", self.clients, CLIENTS)?;
        within("leases", self.leases, LEASES)?;
        tasks("leases", self.clients, self.leases)?;
        within("ttl_secs", self.ttl_secs, TTL_SECS)?;
        within("keys", self.keys, 0..=KEYS_MAX)?;
        at_least("renewals", self.renewals, 1)?;
        time_within("timeout", self.timeout, TIMEOUTS)
    }

    /// Clients that it makes in a cluster of so many members.
    pub fn clients(&self, _members: u64) -> u32 {
        self.clients
    }

    /// Until `end`; leases that live then are let go.
    pub fn start(&self, clients: &Clients, end: Instant) {
        for n in 0..self.clients {
            let client = clients.roaming(n as usize, self.timeout);
            for slot in 0..self.leases {
                let holder = Holder {
                    values: Values::in_slot(client.id, slot),
                    client: client.clone(),
                    options: self.clone(),
                    slot,
                    end,
                    lives: 0,
                };
                clients.spawn(holder.run());
            }
        }
    }
}

/// Holds one lease after the other.
struct Holder {
    client: Client,
    options: KeepAlive,
    values: Values,
    slot: u32,
    end: Instant,
    lives: i64,
}

/// What became of a lease that was kept alive.
enum Kept {
    /// Long enough.
    Enough,
    /// The server says that it is gone.
    Gone,
    /// The run is over.
    Over,
}

impl Holder {
    async fn run(mut self) {
        let mut back_off = super::BACK_OFF_MIN;
        while self.client.handle().now() < self.end {
            let Some((id, ttl)) = self.grant().await else {
                self.client.pause(&mut back_off).await;
                continue;
            };
            back_off = super::BACK_OFF_MIN;
            self.put_keys(id).await;
            match self.keep(id, ttl).await {
                Kept::Over => return,
                Kept::Gone => {}
                Kept::Enough => self.part(id, ttl).await,
            }
        }
    }

    /// Ids are never used twice in a run: an ended lease stays ended.
    async fn grant(&mut self) -> Option<(i64, Duration)> {
        self.lives += 1;
        let client = i64::from(self.client.id.0) + 1;
        let id = client << 32 | i64::from(self.slot + 1) << 20 | self.lives;
        let ttl = i64::from(self.options.ttl_secs)
            + self.client.below(u64::from(self.options.ttl_secs) + 1) as i64;
        let grant = Request::LeaseGrant(pb::LeaseGrantRequest { id, ttl });
        match self.client.call(grant).await {
            Ok(Reply::LeaseGrant(got)) => {
                Some((got.id, Duration::from_secs(u64::try_from(got.ttl).ok()?)))
            }
            _ => None,
        }
    }

    fn key(&self, n: u32) -> Bytes {
        let client = u64::from(self.client.id.0);
        key(PREFIX, client * 100 + u64::from(self.slot * self.options.keys + n))
    }

    async fn put_keys(&self, lease: i64) {
        for n in 0..self.options.keys {
            let put = pb::PutRequest {
                key: self.key(n),
                value: self.values.next(),
                lease,
                ..Default::default()
            };
            // A failure is in the history.
            let _ = self.client.call(Request::Put(put)).await;
        }
    }

    /// A renewal every third of the TTL, as clients do; now and then a look at what is left.
    async fn keep(&self, id: i64, ttl: Duration) -> Kept {
        for _ in 0..self.options.renewals {
            self.client.handle().sleep(ttl / 3).await;
            if self.client.handle().now() >= self.end {
                return Kept::Over;
            }
            if self.client.below(4) == 0 {
                self.ask(id).await;
            }
            let keep = Request::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id });
            if let Ok(Reply::LeaseKeepAlive(answer)) = self.client.call(keep).await
                && answer.ttl <= 0
            {
                return Kept::Gone;
            }
        }
        Kept::Enough
    }

    async fn ask(&self, id: i64) {
        let ask = pb::LeaseTimeToLiveRequest { id, keys: true };
        let _ = self.client.call(Request::LeaseTimeToLive(ask)).await;
    }

    /// Revokes it, or lets it run out and looks.
    async fn part(&self, id: i64, ttl: Duration) {
        if self.client.below(3) == 0 {
            let _ = self.client.call(Request::LeaseRevoke(pb::LeaseRevokeRequest { id })).await;
            self.ask(id).await;
            return;
        }
        let wait = ttl * 3 / 2;
        let looks = 3;
        for _ in 0..looks {
            let next = self.client.handle().now() + wait / looks;
            if next >= self.end {
                return;
            }
            self.client.handle().sleep_until(next).await;
            self.ask(id).await;
        }
    }
}
