//! An operator who changes the cluster all the time: adds learners, promotes them, removes members, moves the leader.
//!
//! Unlike the `add-member` … faults it is a client: every call is in the history, one change after the other.

use std::ops::RangeInclusive;
use std::time::Duration;

use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::{Instant, MemberId};
use serde::{Deserialize, Serialize};

use super::{BACK_OFF_MIN, Client, Clients};
use crate::bounds::{INTERVALS, TIMEOUTS, time_within, weights, within};
use crate::handle::Reply;
use crate::history::Failure;
use crate::world::peer_url;

/// A change that was queued somewhere is dropped by then: a member's own limit, 5 s and two election timeouts.
const SETTLED: Duration = Duration::from_secs(15);

/// Members of a cluster that is changed; etcd's own have seven at most.
const MEMBERS_MAX: RangeInclusive<u32> = 1..=50;

/// One client that makes a change every `every`, ± 50 %. It removes voters only while there are more than the cluster
/// began with, so that the majority that faults leave alone stays one.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemberChanges {
    #[serde(with = "crate::duration")]
    pub every: Duration,
    /// It adds none to so many, learners included.
    pub members_max: u32,
    #[serde(with = "crate::duration")]
    pub timeout: Duration,
    pub weights: ChangeWeights,
}

/// How often each change is tried, in proportion.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChangeWeights {
    /// A learner, on a new machine, with an empty disk.
    pub add: u32,
    pub promote: u32,
    /// A learner or a voter.
    pub remove: u32,
    pub move_leader: u32,
}

impl Default for ChangeWeights {
    fn default() -> Self {
        Self { add: 3, promote: 4, remove: 2, move_leader: 2 }
    }
}

impl Default for MemberChanges {
    fn default() -> Self {
        let (every, timeout) = (Duration::from_secs(1), Duration::from_secs(5));
        Self { every, members_max: 7, timeout, weights: ChangeWeights::default() }
    }
}

impl MemberChanges {
    /// Errors: what is wrong, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        time_within("every", self.every, INTERVALS)?;
        within("members_max", self.members_max, MEMBERS_MAX)?;
        time_within("timeout", self.timeout, TIMEOUTS)?;
        let ChangeWeights { add, promote, remove, move_leader } = self.weights;
        weights(&[
            ("add", add),
            ("promote", promote),
            ("remove", remove),
            ("move_leader", move_leader),
        ])
    }

    /// Clients that it makes in a cluster of so many members.
    pub fn clients(&self, _members: u64) -> u32 {
        1
    }

    /// Until `end`; a member that may have been added then is started still.
    pub fn start(&self, clients: &Clients, end: Instant) {
        let voters_min = clients.handle().members().len();
        let client = clients.roaming(0, self.timeout);
        let operator = Operator { client, options: self.clone(), voters_min };
        clients.spawn(operator.work(end));
    }
}

struct Operator {
    client: Client,
    options: MemberChanges,
    voters_min: usize,
}

impl Operator {
    async fn work(self, end: Instant) {
        let handle = self.client.handle().clone();
        loop {
            let every = self.options.every.as_nanos() as u64;
            let pause = Duration::from_nanos(every / 2 + self.client.below(every));
            if handle.now() + pause >= end {
                return;
            }
            handle.sleep(pause).await;
            // A failure is in the history; the next round comes by again.
            let Some(list) = self.list(true).await else { continue };
            let weights = self.options.weights;
            let all = [weights.add, weights.promote, weights.remove, weights.move_leader];
            let mut drawn = self.client.below(all.iter().map(|weight| u64::from(*weight)).sum());
            let choice = all.iter().position(|weight| {
                let is_it = drawn < u64::from(*weight);
                drawn = drawn.saturating_sub(u64::from(*weight));
                is_it
            });
            match choice {
                Some(0) => self.add(&list).await,
                Some(1) => self.promote(&list).await,
                Some(2) => self.remove(&list).await,
                _ => self.move_leader(&list).await,
            }
        }
    }

    /// The member list; one that is not linearizable is what a single member has applied.
    async fn list(&self, linearizable: bool) -> Option<Vec<pb::Member>> {
        let request = Request::MemberList(pb::MemberListRequest { linearizable });
        match self.client.call(request).await {
            Ok(Reply::MemberList(list)) => Some(list.members),
            _ => None,
        }
    }

    /// Adds a learner and starts it. Where no answer came it asks again and looks at the list until it knows.
    async fn add(&self, list: &[pb::Member]) {
        let has_learner = list.iter().any(|member| member.is_learner);
        if has_learner || list.len() >= self.options.members_max as usize {
            return;
        }
        let handle = self.client.handle();
        let machine = handle.next_machine();
        let peer_ur_ls = vec![peer_url(machine)];
        let request = pb::MemberAddRequest { peer_ur_ls, is_learner: true };
        let mut uncertain_since = None;
        let mut back_off = BACK_OFF_MIN;
        loop {
            let result = self.client.call(Request::MemberAdd(request.clone())).await;
            if let Ok(Reply::MemberAdd(added)) = &result
                && handle.start_member(machine, &added.members)
            {
                return;
            }
            if result.as_ref().err().is_some_and(may_have_been_made) {
                uncertain_since = Some(handle.now());
            }
            let Some(since) = uncertain_since else { return };
            for linearizable in [true, false] {
                let Some(list) = self.list(linearizable).await else { continue };
                if handle.start_member(machine, &list) {
                    return;
                }
                if linearizable && handle.now() >= since + SETTLED {
                    return;
                }
            }
            self.client.pause(&mut back_off).await;
        }
    }

    async fn promote(&self, list: &[pb::Member]) {
        let Some(id) = list.iter().find(|member| member.is_learner).map(|m| m.id) else { return };
        let request = pb::MemberPromoteRequest { id };
        let _ = self.client.call(Request::MemberPromote(request)).await;
    }

    async fn remove(&self, list: &[pb::Member]) {
        let voters = list.iter().filter(|member| !member.is_learner).count();
        let may_go = |member: &&pb::Member| member.is_learner || voters > self.voters_min;
        let choices: Vec<u64> = list.iter().filter(may_go).map(|member| member.id).collect();
        if choices.is_empty() {
            return;
        }
        let id = choices[self.client.below(choices.len() as u64) as usize];
        let request = pb::MemberRemoveRequest { id };
        let _ = self.client.call(Request::MemberRemove(request)).await;
    }

    /// The leader alone can be asked.
    async fn move_leader(&self, list: &[pb::Member]) {
        let voters = list.iter().filter(|member| !member.is_learner);
        let voters: Vec<u64> = voters.map(|member| member.id).collect();
        let status = self.client.call(Request::Status(pb::StatusRequest::default())).await;
        let Ok(Reply::Status(status)) = status else { return };
        for _ in list {
            if self.client.endpoint() == MemberId(status.leader) {
                break;
            }
            self.client.rotate();
        }
        let target_id = voters[self.client.below(voters.len() as u64) as usize];
        let request = pb::MoveLeaderRequest { target_id };
        let _ = self.client.call(Request::MoveLeader(request)).await;
    }
}

/// The change may have been made, or may yet be. A refusal to make one that was made already shows in the list too.
fn may_have_been_made(failure: &Failure) -> bool {
    match failure {
        Failure::Unknown => true,
        Failure::NotSent => false,
        Failure::Api(error) => crate::history::may_take_effect_later(error),
    }
}
