//! Alarms stop what takes space, and nothing else (surface spec §7.1, §16.6, §16.7).
//!
//! | Promise | Broken when |
//! |---|---|
//! | write under an alarm | while NOSPACE is raised a put, a txn with a put or a grant succeeds; while CORRUPT is, any write |
//! | refused what frees space | a delete, compaction, revoke, defragment or read is refused for want of space |
//! | refused what writes nothing | a read, a renewal, a defragment or an operator's request is refused as corrupt |
//! | refused without cause | space is said to be wanting, and no NOSPACE is or becomes raised; or corruption, without CORRUPT |
//! | accepted past the quota | a member acknowledges what takes space though it must hold more than its quota (`held`) |
//! | alarms are one list | a list of alarms is not what the log makes of it at that point |
//!
//! The log orders alarms and requests alike: a request that was called after an alarm's entry had been seen in a
//! log stands behind it. So this checker judges runs whose Raft logs were watched.

mod held;

use std::collections::BTreeSet;
use std::time::Duration;

use detkv_core::pb::etcdserverpb::AlarmType;
use detkv_core::pb::etcdserverpb::alarm_request::AlarmAction;
use detkv_core::{ApiError, Instant};

use super::times::Times;
use super::{Case, Checker, Violation};
use crate::history::{Answer, Call, Op, OpId, Operation, Outcome, TxnCall};

/// A member that refuses proposes the alarm first: it is in the log by then, if nothing is in the way.
const RAISED_WITHIN: Duration = Duration::from_secs(7);

#[derive(Debug)]
pub struct Quota;

impl Checker for Quota {
    fn name(&self) -> &'static str {
        "quota"
    }

    fn check(&self, case: &Case) -> Result<(), Violation> {
        let alarms = Alarms::of(case);
        let mut times = None;
        for (id, op) in case.history.operations_with_ids() {
            match case.history.error(id) {
                Some(ApiError::NoSpace) => {
                    if !takes_space(&op.call) {
                        let message =
                            format!("{} was refused for want of space", case.history.show(id));
                        return Err(Violation::new("refused what frees space", message, vec![id]));
                    }
                    let times = times.get_or_insert_with(|| Times::new(case));
                    alarms.want_space(case, times, id, op)?;
                }
                Some(ApiError::Corrupt) => {
                    if !writes(&op.call) {
                        let message = format!("{} was refused as corrupt", case.history.show(id));
                        return Err(Violation::new(
                            "refused what writes nothing",
                            message,
                            vec![id],
                        ));
                    }
                    alarms.are_corrupt(case, id, op)?;
                }
                _ => {}
            }
            if let Outcome::Done { answer, .. } = &op.outcome {
                alarms.allow(case, id, op)?;
                alarms.list(case, id, op, answer)?;
            }
        }
        held::check(case)
    }
}

/// Requests that NOSPACE stops.
fn takes_space(call: &Call) -> bool {
    match call {
        Call::Put(_) | Call::LeaseGrant { .. } => true,
        Call::Txn(txn) => has_put(txn),
        _ => false,
    }
}

/// In either branch, at any depth.
fn has_put(txn: &TxnCall) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        Op::Put(_) => true,
        Op::Txn(txn) => has_put(txn),
        Op::Range(_) | Op::Delete(_) => false,
    })
}

/// Requests that CORRUPT stops.
fn writes(call: &Call) -> bool {
    match call {
        Call::Put(_) | Call::Delete(_) | Call::Compact { .. } => true,
        Call::LeaseGrant { .. } | Call::LeaseRevoke { .. } => true,
        Call::Txn(txn) => txn.may_write(),
        _ => false,
    }
}

type Verdict = Result<(), Violation>;

/// (member, wire number of the type).
type Raised = BTreeSet<(u64, i32)>;

/// The alarms after each committed change, in the order of the log.
struct Alarms {
    is_known: bool,
    /// First: none, from the beginning.
    states: Vec<(Instant, Raised)>,
    /// When activations of NOSPACE were seen, committed or not.
    activations: Vec<Instant>,
}

impl Alarms {
    fn of(case: &Case) -> Self {
        let raft = case.history.raft();
        let mut changes: Vec<_> = raft.alarms().iter().collect();
        changes.sort_by_key(|change| raft.entry(change.entry).index);
        let mut raised = Raised::new();
        let mut states = vec![(Instant::ZERO, raised.clone())];
        let mut activations = Vec::new();
        for change in changes {
            let alarm = (change.of, change.alarm);
            let is_activation = change.action == AlarmAction::Activate as i32;
            if is_activation && change.alarm == AlarmType::Nospace as i32 {
                activations.push(change.at);
            }
            if !case.raft().is_committed(raft, change.entry) {
                continue;
            }
            let has_changed = if is_activation {
                change.alarm != AlarmType::None as i32 && raised.insert(alarm)
            } else {
                change.action == AlarmAction::Deactivate as i32 && raised.remove(&alarm)
            };
            if has_changed {
                states.push((change.at, raised.clone()));
            }
        }
        Self { is_known: !raft.is_empty(), states, activations }
    }

    /// The states that a request between these times may have met.
    fn met(&self, called: Instant, returned: Instant) -> &[(Instant, Raised)] {
        let first = self.states.partition_point(|(at, _)| *at < called).saturating_sub(1);
        let end = self.states.partition_point(|(at, _)| *at <= returned).max(first + 1);
        &self.states[first..end]
    }

    fn allow(&self, case: &Case, id: OpId, op: &Operation) -> Result<(), Violation> {
        for alarm in [AlarmType::Nospace, AlarmType::Corrupt] {
            let is_stopped = match alarm {
                AlarmType::Nospace => takes_space(&op.call),
                _ => writes(&op.call),
            };
            let is_raised = |(_, raised): &(Instant, Raised)| {
                raised.iter().any(|(_, other)| *other == alarm as i32)
            };
            if is_stopped && self.met(op.called, op.returned).iter().all(is_raised) {
                let message =
                    format!("{} succeeded under {}", case.history.show(id), alarm.as_str_name());
                return Err(Violation::new("write under an alarm", message, vec![id]));
            }
        }
        Ok(())
    }

    /// Whether such an alarm was raised, of any member, at some time between these.
    fn was_raised(&self, alarm: AlarmType, from: Instant, to: Instant) -> bool {
        let is_of_type = |(_, other): &(u64, i32)| *other == alarm as i32;
        self.met(from, to).iter().any(|(_, raised)| raised.iter().any(is_of_type))
    }

    /// NOSPACE was there, or came soon. What kept a leader from its work meanwhile is allowed for.
    fn want_space(&self, case: &Case, times: &Times, id: OpId, op: &Operation) -> Verdict {
        let next = self.activations.iter().filter(|at| **at >= op.called).min();
        let until = next.copied().unwrap_or(times.end);
        let most = RAISED_WITHIN + times.troubled(op.called, until);
        if !self.is_known
            || self.was_raised(AlarmType::Nospace, op.called, op.ended)
            || until.since(op.ended) <= most
        {
            return Ok(());
        }
        let message = format!("{} met no NOSPACE and raised none", case.history.show(id));
        Err(Violation::new("refused without cause", message, vec![id]))
    }

    /// CORRUPT was there: a refusal comes behind the alarm's entry in the log.
    fn are_corrupt(&self, case: &Case, id: OpId, op: &Operation) -> Verdict {
        if !self.is_known || self.was_raised(AlarmType::Corrupt, op.called, op.ended) {
            return Ok(());
        }
        let message = format!("{} met no CORRUPT", case.history.show(id));
        Err(Violation::new("refused without cause", message, vec![id]))
    }

    fn list(
        &self,
        case: &Case,
        id: OpId,
        op: &Operation,
        answer: &Answer,
    ) -> Result<(), Violation> {
        let (Call::Alarm { action, alarm, .. }, Answer::Alarms(got)) = (&op.call, answer) else {
            return Ok(());
        };
        if *action != AlarmAction::Get as i32 || !self.is_known {
            return Ok(());
        }
        let all = AlarmType::None as i32;
        let is_shown = |other: &&(u64, i32)| *alarm == all || other.1 == *alarm;
        let got: Raised = got.iter().copied().collect();
        let fits = |(_, raised): &(Instant, Raised)| raised.iter().filter(is_shown).eq(&got);
        if self.met(op.called, op.returned).iter().any(fits) {
            return Ok(());
        }
        let message = format!(
            "{} lists {got:?}; by the log it was {:?}",
            case.history.show(id),
            self.met(op.called, op.returned).iter().map(|(_, raised)| raised).collect::<Vec<_>>()
        );
        Err(Violation::new("alarms are one list", message, vec![id]))
    }
}
