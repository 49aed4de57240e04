//! Compacts the store's past now and then.

use std::time::Duration;

use detkv_core::Instant;
use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb as pb;
use serde::{Deserialize, Serialize};

use super::{Client, Clients};
use crate::bounds::{INTERVALS, TIMEOUTS, time_within};
use crate::handle::Reply;

/// One client that compacts everything older than `keep` revisions.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Compactor {
    #[serde(with = "crate::duration")]
    pub every: Duration,
    /// Revisions left readable.
    pub keep: u32,
    #[serde(with = "crate::duration")]
    pub timeout: Duration,
}

impl Default for Compactor {
    fn default() -> Self {
        Self { every: Duration::from_secs(5), keep: 1000, timeout: Duration::from_secs(1) }
    }
}

impl Compactor {
    /// Errors: what is wrong, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        time_within("every", self.every, INTERVALS)?;
        time_within("timeout", self.timeout, TIMEOUTS)
    }

    /// Clients that it makes in a cluster of so many members.
    pub fn clients(&self, _members: u64) -> u32 {
        1
    }

    pub fn start(&self, clients: &Clients, end: Instant) {
        let client = clients.roaming(0, self.timeout);
        clients.spawn(compact(client, self.clone(), end));
    }
}

async fn compact(client: Client, options: Compactor, end: Instant) {
    loop {
        let next = client.handle().now() + options.every;
        if next >= end {
            return;
        }
        client.handle().sleep_until(next).await;
        let range = pb::RangeRequest { key: "compactor".into(), ..Default::default() };
        let Ok(Reply::Range(rows)) = client.read(Request::Range(range), 3).await else { continue };
        let revision = rows.header.map_or(0, |header| header.revision) - i64::from(options.keep);
        if revision > 1 {
            let request = pb::CompactionRequest { revision, physical: false };
            // A failure is in the history; the next round compacts more.
            let _ = client.call(Request::Compact(request)).await;
        }
    }
}
