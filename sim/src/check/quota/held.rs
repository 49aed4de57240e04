//! Nobody acknowledges what takes space while it must hold more than its quota.
//!
//! A member's file is never smaller than the keys and values in it, and these it must hold: all that was
//! written since the newest compaction that anybody asked for, and what was alive then. What a file takes besides
//! (pages, overhead of rows, what was compacted and not yet freed) is not known here and counts for nothing: that is
//! the slack. Whoever applies a put looks at its file first (surface spec §16.6, check 2), so no time is allowed for.

use std::collections::{BTreeMap, VecDeque};

use detkv_core::Instant;

use crate::check::model::{Rank, Slot};
use crate::check::replay::Change;
use crate::check::{Case, Violation};
use crate::history::{Call, History, Op, OpId, Operation, Outcome, PutCall, TxnCall};

use super::takes_space;

pub fn check(case: &Case) -> Result<(), Violation> {
    let history = case.history;
    let Some(quota) = history.settings().quota_bytes else { return Ok(()) };
    // As a rule all that anybody asked for is far below it.
    let asked: u64 = history.operations().iter().map(|op| put_bytes(history, &op.call)).sum();
    let Ok(log) = case.log() else { return Ok(()) };
    if asked < quota || !log.is_complete() {
        return Ok(());
    }
    let compactions = Compactions::of(history);
    let mut changes = log.changes.iter().peekable();
    let mut held = Held::default();
    for (id, revision, op) in acknowledged(history) {
        held.compact(compactions.until(op.returned));
        while let Some(change) = changes.next_if(|change| change.revision < revision) {
            held.add(history, change);
        }
        if held.bytes >= quota {
            let message = format!(
                "{} was acknowledged at revision {revision} by member {}, which holds {} bytes of keys and values at least; its quota is {quota}",
                history.show(id),
                op.member,
                held.bytes
            );
            return Err(Violation::new("accepted past the quota", message, vec![id]));
        }
    }
    Ok(())
}

/// What took space and was acknowledged, in the order of revisions.
fn acknowledged(history: &History) -> Vec<(OpId, i64, &Operation)> {
    let ops = history.operations_with_ids().filter(|(_, op)| takes_space(&op.call));
    let mut done: Vec<_> = ops
        .filter_map(|(id, op)| match op.outcome {
            Outcome::Done { revision, .. } => Some((id, revision, op)),
            _ => None,
        })
        .collect();
    done.sort_by_key(|(id, revision, _)| (*revision, *id));
    done
}

fn put_bytes(history: &History, call: &Call) -> u64 {
    let bytes =
        |put: &PutCall| (history.key(put.key).len() + history.value(put.value).len()) as u64;
    fn in_txn(txn: &TxnCall, bytes: &impl Fn(&PutCall) -> u64) -> u64 {
        let ops = txn.success.iter().chain(&txn.failure);
        ops.map(|op| match op {
            Op::Put(put) => bytes(put),
            Op::Txn(txn) => in_txn(txn, bytes),
            Op::Range(_) | Op::Delete(_) => 0,
        })
        .sum()
    }
    match call {
        Call::Put(put) => bytes(put),
        Call::Txn(txn) => in_txn(txn, &bytes),
        _ => 0,
    }
}

/// Compactions that may have taken place: when they were asked for, and the highest revision until then.
struct Compactions {
    highest: Vec<(Instant, i64)>,
}

impl Compactions {
    fn of(history: &History) -> Self {
        let mut highest = Vec::new();
        // A member that compacts by itself may do so at any time.
        let mut newest = if history.settings().auto_compacts { i64::MAX } else { 0 };
        highest.push((Instant::ZERO, newest));
        // Operations stand in the order of their calls.
        for op in history.operations() {
            if let Call::Compact { revision } = op.call
                && !matches!(op.outcome, Outcome::Failed(_) | Outcome::NotSent)
            {
                newest = revision.max(newest);
                highest.push((op.called, newest));
            }
        }
        Self { highest }
    }

    fn until(&self, at: Instant) -> i64 {
        let place = self.highest.partition_point(|(called, _)| *called <= at);
        self.highest[place.saturating_sub(1)].1
    }
}

/// What every member must hold that has applied so much.
#[derive(Default)]
struct Held {
    /// Revision and bytes of each version, oldest first; a delete has none.
    versions: BTreeMap<Rank, VecDeque<(i64, Option<u64>)>>,
    bytes: u64,
    compacted: i64,
}

impl Held {
    fn add(&mut self, history: &History, change: &Change) {
        let rank = change.effect.rank;
        let bytes = match change.effect.slot {
            Slot::Known(kv) => {
                Some((history.key(kv.key).len() + history.value(kv.value).len()) as u64)
            }
            Slot::Unknown => Some(0),
            Slot::Absent => None,
        };
        self.bytes += bytes.unwrap_or(0);
        let versions = self.versions.entry(rank).or_default();
        versions.push_back((change.revision, bytes));
        self.bytes -= release(versions, self.compacted);
    }

    fn compact(&mut self, revision: i64) {
        if revision <= self.compacted {
            return;
        }
        self.compacted = revision;
        for versions in self.versions.values_mut() {
            self.bytes -= release(versions, revision);
        }
        self.versions.retain(|_, versions| !versions.is_empty());
    }
}

/// Drops what a compaction at `compacted` need not keep; returns its bytes.
fn release(versions: &mut VecDeque<(i64, Option<u64>)>, compacted: i64) -> u64 {
    let mut released = 0;
    while versions.get(1).is_some_and(|(revision, _)| *revision <= compacted) {
        released += versions.pop_front().and_then(|(_, bytes)| bytes).unwrap_or(0);
    }
    // A delete is no version that anybody can read.
    versions.pop_front_if(|(revision, bytes)| *revision <= compacted && bytes.is_none());
    released
}
