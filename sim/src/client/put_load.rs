//! Puts in an open loop.

use std::rc::Rc;
use std::time::Duration;

use detkv_core::Instant;
use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb as pb;
use serde::{Deserialize, Serialize};

use super::values::{Values, key};
use super::{Client, Clients, Pace};
use crate::bounds::{
    CLIENTS, KEYS, RATES, TIMEOUTS, VALUE_BYTES, at_least, bytes, tasks, time_within, within,
};

/// Clients that put at a steady rate, come what may.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PutLoad {
    pub clients: u32,
    /// All clients together.
    pub puts_per_sec: u32,
    /// Client `n` talks to member `n mod members` only; else it moves on when that fails.
    pub pinned: bool,
    pub keys: u32,
    pub value_bytes: usize,
    #[serde(with = "crate::duration")]
    pub timeout: Duration,
    /// Open calls per client.
    pub in_flight: u32,
}

impl Default for PutLoad {
    /// The load of rules 23.
    fn default() -> Self {
        Self {
            clients: 6,
            puts_per_sec: 200,
            pinned: true,
            keys: 1000,
            value_bytes: 256,
            timeout: Duration::from_secs(1),
            in_flight: 64,
        }
    }
}

impl PutLoad {
    /// Errors: what is wrong, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        within("clients", self.clients, CLIENTS)?;
        within("puts_per_sec", self.puts_per_sec, RATES)?;
        within("keys", self.keys, KEYS)?;
        within("value_bytes", self.value_bytes, VALUE_BYTES)?;
        time_within("timeout", self.timeout, TIMEOUTS)?;
        at_least("in_flight", self.in_flight, 1)?;
        tasks("in_flight", self.clients, self.in_flight)?;
        let open = u64::from(self.clients) * u64::from(self.in_flight);
        bytes(open.max(self.puts_per_sec.into()), self.value_bytes)
    }

    /// Clients that it makes in a cluster of so many members.
    pub fn clients(&self, _members: u64) -> u32 {
        self.clients
    }

    /// Puts until `end`.
    pub fn start(&self, clients: &Clients, end: Instant) {
        let members = clients.handle().members();
        let interval = Duration::from_secs(1) * self.clients.max(1) / self.puts_per_sec.max(1);
        for n in 0..self.clients {
            let client = if self.pinned {
                clients.pinned(members[n as usize % members.len()], self.timeout)
            } else {
                clients.roaming(n as usize, self.timeout)
            };
            // Spread over the interval, so that the sum is even.
            let start = clients.handle().now() + interval * n / self.clients;
            let pace = Rc::new(Pace::new(start, interval, end));
            let values = Rc::new(Values::new(client.id, self.value_bytes));
            for _ in 0..self.in_flight {
                let worker = worker(client.clone(), pace.clone(), values.clone(), self.keys);
                clients.spawn(worker);
            }
        }
    }
}

async fn worker(client: Client, pace: Rc<Pace>, values: Rc<Values>, keys: u32) {
    while pace.next(&client).await.is_some() {
        let request = pb::PutRequest {
            key: key("put", client.below(u64::from(keys))),
            value: values.next(),
            ..Default::default()
        };
        // A failed put is in the history; an open loop goes on.
        let _ = client.call(Request::Put(request)).await;
    }
}
