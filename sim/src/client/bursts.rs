//! Bursts of puts: nothing for a while, then many at once.

use std::rc::Rc;
use std::time::Duration;

use detkv_core::Instant;
use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb as pb;
use serde::{Deserialize, Serialize};

use super::values::{Values, key};
use super::{Client, Clients};
use crate::bounds::{
    INTERVALS, KEYS, TIMEOUTS, VALUE_BYTES, at_least, bytes, tasks, time_within, within,
};

/// One client that sends `puts` puts at once, again and again.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bursts {
    #[serde(with = "crate::duration")]
    pub every: Duration,
    pub puts: u32,
    pub keys: u32,
    pub value_bytes: usize,
    #[serde(with = "crate::duration")]
    pub timeout: Duration,
}

impl Default for Bursts {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(2),
            puts: 200,
            keys: 50,
            value_bytes: 256,
            timeout: Duration::from_secs(2),
        }
    }
}

impl Bursts {
    /// Errors: what is wrong, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        time_within("every", self.every, INTERVALS)?;
        at_least("puts", self.puts, 1)?;
        tasks("puts", 1, self.puts)?;
        within("keys", self.keys, KEYS)?;
        within("value_bytes", self.value_bytes, VALUE_BYTES)?;
        bytes(self.puts.into(), self.value_bytes)?;
        time_within("timeout", self.timeout, TIMEOUTS)
    }

    /// Clients that it makes in a cluster of so many members.
    pub fn clients(&self, _members: u64) -> u32 {
        1
    }

    /// Bursts until `end`.
    pub fn start(&self, clients: &Clients, end: Instant) {
        let client = clients.roaming(0, self.timeout);
        let values = Rc::new(Values::new(client.id, self.value_bytes));
        // Long-lived tasks: what the executor keeps of a task stays until the run ends.
        for _ in 0..self.puts {
            clients.spawn(burst(client.clone(), values.clone(), self.clone(), end));
        }
    }
}

/// One put of every burst.
async fn burst(client: Client, values: Rc<Values>, options: Bursts, end: Instant) {
    let every = options.every.as_nanos() as u64;
    loop {
        let now = client.handle().now();
        // At the multiples of `every`: all tasks together.
        let next = Instant { ns: (now.ns / every + 1) * every };
        if next >= end {
            return;
        }
        client.handle().sleep_until(next).await;
        let put = pb::PutRequest {
            key: key("burst", client.below(u64::from(options.keys))),
            value: values.next(),
            ..Default::default()
        };
        // A failure is in the history.
        let _ = client.call(Request::Put(put)).await;
    }
}
