//! Calls take effect one by one, each at a point between its call and its return.
//!
//! The order is given: writes by revision, and what made no revision just after the write of the
//! revision it shows. So two things are left to check of each call. Its answer is the one the model gives at
//! that place. And real time agrees with the order: when somebody had already been shown a later place
//! before it was called, it came too late (for a read: it is stale).
//!
//! | Promise | Broken when |
//! |---|---|
//! | stale read | it shows a state older than one that somebody had been shown before its call |
//! | read result | a read's answer is not the one of the revision it shows |
//! | write result | a write's answer is not the one of the revision it made |
//! | one write per revision | two writes say that they made one revision |
//! | a write was seen before its call | its revision, or a later one, was shown before it was called |
//! | revision | an answer shows a revision that no write can have made |
//! | nothing explains a change | what was seen at a revision is the work of no request |
//! | a write took effect twice | a request without an answer explains two revisions |
//! | compacted revision was read | a read below an acknowledged compaction is answered |

use super::model::{Model, View};
use super::{Case, Checker, Violation};
use crate::history::{Answer, Call, OpId, Operation, Outcome};

#[derive(Debug)]
pub struct Linearizability;

impl Checker for Linearizability {
    fn name(&self) -> &'static str {
        "linearizability"
    }

    fn check(&self, case: &Case) -> Result<(), Violation> {
        let log = case.log().map_err(Clone::clone)?;
        let compactions = Compactions::of(case);
        for (id, op) in case.history.operations_with_ids() {
            let Outcome::Done { revision, answer } = &op.outcome else { continue };
            if !has_place(&op.call) {
                continue;
            }
            if *revision < 1 {
                let message = format!("{id} was answered at revision {revision}");
                return Err(Violation::new("revision", message, vec![id]));
            }
            if log.writer(*revision) == Some(id) {
                let first_seen = log.first_seen(*revision);
                if op.called > first_seen {
                    return Err(too_late(case, id, *revision, "a write was seen before its call"));
                }
                continue;
            }
            if op.called > log.first_seen(revision + 1) {
                return Err(too_late(case, id, *revision, "stale read"));
            }
            compactions.check(id, op)?;
            check_answer(&log.model, op, *revision, answer).map_err(|mismatch| {
                let message =
                    format!("{} at revision {revision}: {mismatch}", case.history.show(id));
                Violation::new("read result", message, vec![id])
            })?;
        }
        Ok(())
    }
}

/// Whether the call has a place in the one order: not what a member answers from its own state.
fn has_place(call: &Call) -> bool {
    match call {
        Call::Range(_) | Call::Txn(_) => !call.is_serializable(),
        Call::Put(_) | Call::Delete(_) | Call::Compact { .. } => true,
        Call::LeaseGrant { .. } | Call::LeaseRevoke { .. } => true,
        Call::LeaseKeepAlive { .. } | Call::LeaseTimeToLive { .. } => false,
        Call::Alarm { .. } | Call::HashKv { .. } | Call::Defragment | Call::Other(_) => false,
    }
}

fn too_late(case: &Case, id: OpId, revision: i64, promise: &'static str) -> Violation {
    let message = format!(
        "{} was answered at revision {revision}, but before its call at {:?} somebody had been shown {}",
        case.history.show(id),
        std::time::Duration::from_nanos(case.history.operation(id).called.ns),
        if promise == "stale read" { "a later one" } else { "that revision" },
    );
    Violation::new(promise, message, vec![id])
}

/// Compares the answer of a call that changed nothing with the store at `revision`.
pub(super) fn check_answer(
    model: &Model,
    op: &Operation,
    revision: i64,
    answer: &Answer,
) -> Result<(), String> {
    let mut view = View::new(model, revision);
    match &op.call {
        Call::Range(range) => view.range_op(range, Some(answer)),
        Call::Delete(delete) => view.delete_op(delete, Some(answer)),
        Call::Txn(txn) => view.txn_op(txn, Some(answer)),
        _ => Ok(()),
    }
}

/// Acknowledged compactions: what they cut off cannot be read any more.
struct Compactions {
    /// Return and revision; both go up.
    done: Vec<(detkv_core::Instant, i64)>,
    /// Revision of the store when it was compacted, and what was cut off; both go up.
    by_place: Vec<(i64, i64)>,
}

impl Compactions {
    fn of(case: &Case) -> Self {
        let compactions = case.history.operations().iter().filter_map(|op| {
            let (Call::Compact { revision }, Outcome::Done { revision: place, .. }) =
                (&op.call, &op.outcome)
            else {
                return None;
            };
            Some((op.returned, *place, *revision))
        });
        let (mut done, mut by_place): (Vec<_>, Vec<_>) = compactions
            .map(|(returned, place, revision)| ((returned, revision), (place, revision)))
            .unzip();
        done.sort_unstable();
        by_place.sort_unstable();
        highest_so_far(done.iter_mut().map(|(_, revision)| revision));
        highest_so_far(by_place.iter_mut().map(|(_, revision)| revision));
        Self { done, by_place }
    }

    fn check(&self, id: OpId, op: &Operation) -> Result<(), Violation> {
        let Call::Range(range) = &op.call else { return Ok(()) };
        if range.revision <= 0 || self.done.is_empty() {
            return Ok(());
        }
        let before = self.done.partition_point(|(returned, _)| *returned < op.called);
        let in_time = self.done[..before].last().map(|(_, revision)| *revision);
        // At an earlier revision of the store is before, whatever the clock says.
        let behind = match op.outcome {
            Outcome::Done { revision, .. } => {
                self.by_place.partition_point(|(place, _)| *place < revision)
            }
            _ => 0,
        };
        let in_place = self.by_place[..behind].last().map(|(_, revision)| *revision);
        match in_time.max(in_place) {
            Some(compacted) if range.revision < compacted => {
                let message = format!(
                    "{id} read revision {}, which was compacted at {compacted} before",
                    range.revision
                );
                Err(Violation::new("compacted revision was read", message, vec![id]))
            }
            _ => Ok(()),
        }
    }
}

fn highest_so_far<'a>(revisions: impl Iterator<Item = &'a mut i64>) {
    let mut highest = i64::MIN;
    for revision in revisions {
        highest = highest.max(*revision);
        *revision = highest;
    }
}
