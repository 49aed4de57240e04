//! A closed loop: each client makes its next call when it has the answer to the last one.

use std::time::Duration;

use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::{Instant, MemberId};
use serde::{Deserialize, Serialize};

use super::values::{Values, key};
use super::{Client, Clients};
use crate::bounds::{CLIENTS, KEYS, TIMEOUTS, VALUE_BYTES, time_within, within};
use crate::fault::Target;
use crate::handle::Handle;

/// Clients that call one by one, always the same call.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OneByOne {
    pub clients: u32,
    pub call: Call,
    /// The member it talks to, as it is when the load begins; else all of them in turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Target>,
    pub keys: u32,
    pub value_bytes: usize,
    #[serde(with = "crate::duration")]
    pub timeout: Duration,
    /// Pause between an answer and the next call.
    #[serde(with = "crate::duration")]
    pub pause: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    #[default]
    Put,
    /// Linearizable.
    Get,
    StaleGet,
}

impl Default for OneByOne {
    fn default() -> Self {
        Self {
            clients: 1,
            call: Call::default(),
            node: None,
            keys: 100,
            value_bytes: 256,
            timeout: Duration::from_secs(1),
            pause: Duration::ZERO,
        }
    }
}

impl OneByOne {
    /// Errors: what is wrong, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        within("clients", self.clients, CLIENTS)?;
        within("keys", self.keys, KEYS)?;
        within("value_bytes", self.value_bytes, VALUE_BYTES)?;
        time_within("timeout", self.timeout, TIMEOUTS)
    }

    /// Clients that it makes in a cluster of so many members.
    pub fn clients(&self, _members: u64) -> u32 {
        self.clients
    }

    /// Calls until `end`.
    pub fn start(&self, clients: &Clients, end: Instant) {
        let member = self.node.and_then(|node| resolve(clients.handle(), node));
        for n in 0..self.clients {
            let client = match member {
                Some(member) => clients.pinned(member, self.timeout),
                None => clients.roaming(n as usize, self.timeout),
            };
            clients.spawn(calls(client, self.clone(), end));
        }
    }
}

/// The member that `target` means now; `None` without a leader.
pub fn resolve(handle: &Handle, target: Target) -> Option<MemberId> {
    let leader = handle.leader();
    match target {
        Target::Member(member) => Some(member),
        Target::Leader => leader,
        Target::Follower(n) => {
            let others = handle.members().into_iter().filter(|member| Some(*member) != leader);
            others.into_iter().nth(usize::try_from(n).ok()?.checked_sub(1)?)
        }
    }
}

async fn calls(client: Client, options: OneByOne, end: Instant) {
    let values = Values::new(client.id, options.value_bytes);
    while client.handle().now() < end {
        let key = key("one", client.below(u64::from(options.keys)));
        let request = match options.call {
            Call::Put => {
                Request::Put(pb::PutRequest { key, value: values.next(), ..Default::default() })
            }
            Call::Get => Request::Range(pb::RangeRequest { key, ..Default::default() }),
            Call::StaleGet => {
                Request::Range(pb::RangeRequest { key, serializable: true, ..Default::default() })
            }
        };
        let before = client.handle().now();
        // A failure is in the history.
        let _ = client.call(request).await;
        // A call that is refused at once takes no time: the loop would never end.
        let pause = if client.handle().now() == before {
            Duration::from_millis(1).max(options.pause)
        } else {
            options.pause
        };
        client.handle().sleep(pause).await;
    }
}
