//! One client that does what it is told, step by step: what an operator does, and what provokes him.

use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::pb::etcdserverpb::request_op;
use detkv_core::{ApiError, Instant, MemberId};
use serde::{Deserialize, Serialize};

use super::values::{Values, key};
use super::watcher::prefix_range;
use super::{BACK_OFF_MIN, Client, Clients};
use crate::bounds::{TIMEOUTS, VALUE_BYTES, inside, time_within, within};
use crate::handle::Reply;
use crate::history::Failure;

/// Where the script's own rows are.
const PREFIX: &str = "fill";
/// Tries of a step that may be done twice: a delete, a compaction, a disarm.
const TRIES: u32 = 8;

/// Steps, one after the other.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Script {
    pub steps: Vec<Step>,
    #[serde(with = "crate::duration")]
    pub timeout: Duration,
}

impl Default for Script {
    fn default() -> Self {
        Self { steps: Vec::new(), timeout: Duration::from_secs(5) }
    }
}

/// One step, not before its time after the start of the load.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    #[serde(with = "crate::duration", default)]
    pub at: Duration,
    #[serde(rename = "do")]
    pub action: Action,
    /// `fill`, `put`, `txn`: of each row's value.
    #[serde(default = "one_kib")]
    pub value_bytes: usize,
    /// How often.
    #[serde(default = "once")]
    pub times: u32,
    /// `put`, `txn`, `grant`, `get`: of each member in turn, each time.
    #[serde(default)]
    pub everywhere: bool,
}

fn one_kib() -> usize {
    1024
}

fn once() -> u32 {
    1
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Puts of new keys until one is refused for want of space.
    Fill,
    /// A put of a new key.
    Put,
    /// A txn that puts a new key.
    Txn,
    /// A lease grant.
    Grant,
    /// A linearizable get.
    Get,
    /// Deletes everything that the script has put.
    Delete,
    /// Compacts everything older than now.
    Compact,
    /// Defragments every member, one after the other.
    Defragment,
    /// Takes every alarm back.
    Disarm,
}

/// How often a step is taken.
const TIMES: RangeInclusive<u32> = 1..=100_000;

impl Step {
    fn check(&self) -> Result<(), String> {
        within("value_bytes", self.value_bytes, VALUE_BYTES)?;
        within("times", self.times, TIMES)
    }
}

impl Script {
    /// Errors: what is wrong, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        if self.steps.is_empty() {
            return Err("`steps` is empty, expected at least 1".to_owned());
        }
        for (place, step) in self.steps.iter().enumerate() {
            inside(&format!("steps[{place}]"), step.check())?;
        }
        time_within("timeout", self.timeout, TIMEOUTS)
    }

    /// Clients that it makes in a cluster of so many members.
    pub fn clients(&self, members: u64) -> u32 {
        1 + members as u32
    }

    /// Does its steps; stops early at `end`.
    pub fn start(&self, clients: &Clients, end: Instant) {
        let roaming = clients.roaming(0, self.timeout);
        let members = clients.handle().members();
        let pinned = members.into_iter().map(|m| (m, clients.pinned(m, self.timeout))).collect();
        let values = Values::new(roaming.id, 0);
        let runner = Runner { client: roaming, pinned, values, next_key: 0, end };
        clients.spawn(runner.run(self.steps.clone()));
    }
}

struct Runner {
    client: Client,
    /// One per member, for what concerns one member only.
    pinned: Vec<(MemberId, Client)>,
    values: Values,
    next_key: u64,
    end: Instant,
}

impl Runner {
    async fn run(mut self, steps: Vec<Step>) {
        let start = self.client.handle().now();
        for step in steps {
            self.client.handle().sleep_until((start + step.at).min(self.end)).await;
            for _ in 0..step.times {
                if self.client.handle().now() >= self.end {
                    return;
                }
                self.step(&step).await;
            }
        }
    }

    async fn step(&mut self, step: &Step) {
        match step.action {
            Action::Fill => self.fill(step.value_bytes).await,
            Action::Put => {
                // A refusal is what the history is to show.
                for client in self.asked(step) {
                    let put = Request::Put(self.put(step.value_bytes));
                    let _ = client.call(put).await;
                }
            }
            Action::Txn => {
                for client in self.asked(step) {
                    let put = request_op::Request::RequestPut(self.put(step.value_bytes));
                    let success = vec![pb::RequestOp { request: Some(put) }];
                    let txn = pb::TxnRequest { success, ..Default::default() };
                    let _ = client.call(Request::Txn(txn)).await;
                }
            }
            Action::Grant => {
                for client in self.asked(step) {
                    let grant = pb::LeaseGrantRequest { id: 0, ttl: 60 };
                    let _ = client.call(Request::LeaseGrant(grant)).await;
                }
            }
            Action::Get => {
                for client in self.asked(step) {
                    let get = pb::RangeRequest { key: key(PREFIX, 0), ..Default::default() };
                    let _ = client.call(Request::Range(get)).await;
                }
            }
            Action::Delete => {
                let (key, range_end) = prefix_range(PREFIX);
                let delete = pb::DeleteRangeRequest { key, range_end, prev_kv: false };
                self.insist(Request::DeleteRange(delete)).await;
            }
            Action::Compact => self.compact().await,
            Action::Defragment => {
                for (_, client) in &self.pinned {
                    let _ = client.call(Request::Defragment(pb::DefragmentRequest {})).await;
                }
            }
            Action::Disarm => self.disarm().await,
        }
    }

    /// Whom a step is for.
    fn asked(&self, step: &Step) -> Vec<Client> {
        if step.everywhere {
            return self.pinned.iter().map(|(_, client)| client.clone()).collect();
        }
        vec![self.client.clone()]
    }

    fn put(&mut self, value_bytes: usize) -> pb::PutRequest {
        self.next_key += 1;
        let mut value = self.values.next().to_vec();
        value.resize(value.len().max(value_bytes), b'x');
        let key = key(PREFIX, self.next_key);
        pb::PutRequest { key, value: Bytes::from(value), ..Default::default() }
    }

    async fn fill(&mut self, value_bytes: usize) {
        while self.client.handle().now() < self.end {
            let put = Request::Put(self.put(value_bytes));
            match self.client.call(put).await {
                Err(Failure::Api(ApiError::NoSpace)) => return,
                Err(_) => self.client.pause(&mut BACK_OFF_MIN.clone()).await,
                Ok(_) => {}
            }
        }
    }

    /// Calls until it is answered: for what does no harm twice.
    async fn insist(&self, request: Request) -> Option<Reply> {
        let mut back_off = BACK_OFF_MIN;
        for _ in 0..TRIES {
            match self.client.call(request.clone()).await {
                Ok(reply) => return Some(reply),
                Err(_) => self.client.pause(&mut back_off).await,
            }
        }
        None
    }

    async fn compact(&self) {
        let get = pb::RangeRequest { key: key(PREFIX, 0), ..Default::default() };
        let Some(Reply::Range(rows)) = self.insist(Request::Range(get)).await else { return };
        let revision = rows.header.map_or(0, |header| header.revision);
        let request = pb::CompactionRequest { revision, physical: true };
        // Done twice, the second is refused: that is fine too.
        let _ = self.client.call(Request::Compact(request)).await;
    }

    async fn disarm(&self) {
        let list = pb::AlarmRequest {
            action: pb::alarm_request::AlarmAction::Get as i32,
            ..Default::default()
        };
        let Some(Reply::Alarm(raised)) = self.insist(Request::Alarm(list)).await else { return };
        for alarm in raised.alarms {
            let request = pb::AlarmRequest {
                action: pb::alarm_request::AlarmAction::Deactivate as i32,
                member_id: alarm.member_id,
                alarm: alarm.alarm,
            };
            self.insist(Request::Alarm(request)).await;
        }
    }
}
