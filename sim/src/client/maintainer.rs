//! The operator: defragments one member after another, asks for hashes, clears alarms.

use std::time::Duration;

use detkv_core::Instant;
use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb::{self as pb, AlarmType, alarm_request::AlarmAction};
use serde::{Deserialize, Serialize};

use super::{Client, Clients};
use crate::bounds::{INTERVALS, TIMEOUTS, time_within};
use crate::handle::Reply;

/// One round every `every`: all members are defragmented in turn. If there is a NOSPACE alarm, the whole past
/// is compacted and, when `prefix` says so, keys are deleted before, and the alarms are disarmed after.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Maintainer {
    #[serde(with = "crate::duration")]
    pub every: Duration,
    /// Keys with this prefix go when there is no space; empty: none do.
    pub prefix: String,
    #[serde(with = "crate::duration")]
    pub timeout: Duration,
}

impl Default for Maintainer {
    fn default() -> Self {
        let every = Duration::from_secs(5);
        Self { every, prefix: String::new(), timeout: Duration::from_secs(10) }
    }
}

impl Maintainer {
    /// Errors: what is wrong, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        time_within("every", self.every, INTERVALS)?;
        time_within("timeout", self.timeout, TIMEOUTS)
    }

    /// Clients that it makes in a cluster of so many members.
    pub fn clients(&self, members: u64) -> u32 {
        members as u32
    }

    pub fn start(&self, clients: &Clients, end: Instant) {
        let operators = clients.handle().members().into_iter();
        let operators = operators.map(|member| clients.pinned(member, self.timeout)).collect();
        clients.spawn(maintain(operators, self.clone(), end));
    }
}

async fn maintain(operators: Vec<Client>, options: Maintainer, end: Instant) {
    let Some(first) = operators.first() else { return };
    loop {
        let next = first.handle().now() + options.every;
        if next >= end {
            return;
        }
        first.handle().sleep_until(next).await;
        // When the load ends one call is open, not a round of them that may all time out.
        let is_over = || first.handle().now() >= end;
        let raised = alarms(&operators, is_over).await;
        if raised.iter().any(|alarm| alarm.alarm() == AlarmType::Nospace) {
            make_room(first, &options, is_over).await;
        }
        for operator in operators.iter().take_while(|_| !is_over()) {
            // A failure is in the history; the next round comes by again.
            let _ = operator.call(Request::Defragment(pb::DefragmentRequest {})).await;
            if !is_over() {
                let _ = operator.call(Request::HashKv(pb::HashKvRequest::default())).await;
            }
        }
        for alarm in raised.iter().take_while(|_| !is_over()) {
            let disarm = pb::AlarmRequest {
                action: AlarmAction::Deactivate.into(),
                member_id: alarm.member_id,
                alarm: alarm.alarm,
            };
            let _ = first.call(Request::Alarm(disarm)).await;
        }
    }
}

/// The active alarms, from the first operator whose member answers.
async fn alarms(operators: &[Client], is_over: impl Fn() -> bool) -> Vec<pb::AlarmMember> {
    let get = pb::AlarmRequest { action: AlarmAction::Get.into(), ..Default::default() };
    for operator in operators.iter().take_while(|_| !is_over()) {
        if let Ok(Reply::Alarm(response)) = operator.call(Request::Alarm(get)).await {
            return response.alarms;
        }
    }
    Vec::new()
}

async fn make_room(client: &Client, options: &Maintainer, is_over: impl Fn() -> bool) {
    if is_over() {
        return;
    }
    if !options.prefix.is_empty() {
        let mut end = options.prefix.clone().into_bytes();
        if let Some(last) = end.last_mut() {
            *last = last.saturating_add(1);
        }
        let delete = pb::DeleteRangeRequest {
            key: options.prefix.clone().into(),
            range_end: end.into(),
            ..Default::default()
        };
        let _ = client.call(Request::DeleteRange(delete)).await;
    }
    if is_over() {
        return;
    }
    let range = pb::RangeRequest { key: "maintainer".into(), ..Default::default() };
    if let Ok(Reply::Range(rows)) = client.call(Request::Range(range)).await
        && !is_over()
    {
        let revision = rows.header.map_or(0, |header| header.revision);
        let compact = pb::CompactionRequest { revision, physical: true };
        let _ = client.call(Request::Compact(compact)).await;
    }
}
