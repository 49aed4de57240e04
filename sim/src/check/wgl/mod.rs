//! The generic linearizability checker: a search for an order, after Wing & Gong and Lowe ("Testing for
//! linearizability", 2017), with memory of the states it has been in.
//!
//! It stands beside the revision-ordered checker, which it must agree with on small histories
//! (`sim/tests/check_agree.rs`), and shares neither its order nor its model. Exponential: not part of `all()`.
//!
//! | Call | What is searched |
//! |---|---|
//! | [`check`] | one order of all calls; every answer is compared, revisions included; watches are evidence |
//! | [`check_by_key`] | an order for each group of keys that no call joins: a necessary condition, for longer histories |
//!
//! Serializable reads have no place in the order. A range that is sorted or filtered is taken as right.

mod model;
mod search;

use std::collections::BTreeMap;

use detkv_core::Instant;

use crate::history::{Call, End, History, KeyId, KeyRange, Kv, Op, Operation, Outcome, TxnCall};
use model::{Answered, Mode};
use search::{Item, Search, What};

/// What the search came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    Linearizable,
    /// No order explains it; the most calls that one did.
    NotLinearizable {
        placed: usize,
        of: usize,
    },
    /// Too many states to look at.
    TooLarge,
}

/// Revisions whose changes are known, in execution order: key, and row if it is no delete.
type Known = BTreeMap<i64, Vec<(KeyId, Option<Kv>)>>;

/// Searches one order of all calls.
pub fn check(history: &History) -> Verdict {
    let mut items: Vec<Item> = Vec::new();
    for op in history.operations() {
        items.extend(item(op));
    }
    let mut known = Known::new();
    for watch in history.watches() {
        if let Some((at, revision)) = watch.created {
            items.push(seen(at, revision));
        }
        items.extend(watch.batches.iter().map(|batch| seen(batch.at, batch.revision)));
        let is_every_key =
            watch.keys.end == End::Open && history.key(watch.keys.key).as_ref() <= b"\0".as_slice();
        if is_every_key && !watch.no_put && !watch.no_delete {
            let shown = watch.batches.iter().filter(|batch| !batch.events.is_empty());
            let mut own = Known::new();
            for batch in shown {
                for event in &watch.events[batch.events.start as usize..batch.events.end as usize] {
                    let kv = *history.kv(event.kv);
                    let row = (!event.is_delete).then_some(kv);
                    own.entry(kv.mod_revision).or_default().push((kv.key, row));
                }
            }
            // What it passed over did not happen.
            let first = watch.start_revision.max(2);
            let last = own.last_key_value().map_or(0, |(revision, _)| *revision);
            for revision in (first..=last).filter(|_| watch.start_revision > 0) {
                own.entry(revision).or_default();
            }
            known.append(&mut own);
        }
    }
    Search::new(history, Mode::Exact, items, known).run()
}

/// Searches an order for each group of keys that no call joins, by what the answers say of their rows.
///
/// Revisions in headers are not compared. Reads of the past and of several keys, compactions and revokes are
/// left out; a lease may end at any time.
pub fn check_by_key(history: &History) -> Verdict {
    let groups = Groups::of(history);
    let mut by_group: BTreeMap<u32, Vec<Item>> = BTreeMap::new();
    for op in history.operations() {
        let keys = keys_of(&op.call);
        if let (false, Some(first)) = (is_left_out(&op.call), keys.first())
            && let Some(item) = item(op)
        {
            by_group.entry(groups.group(first.key)).or_default().push(item);
        }
    }
    for items in by_group.into_values() {
        let verdict = Search::new(history, Mode::ByKey, items, Known::new()).run();
        if verdict != Verdict::Linearizable {
            return verdict;
        }
    }
    Verdict::Linearizable
}

/// Reads of the past, and reads of several keys, which would join all of them.
fn is_left_out(call: &Call) -> bool {
    matches!(call, Call::Range(range) if range.revision > 0 || range.keys.end != End::Single)
}

/// `None` when it has no place in the order.
fn item(op: &Operation) -> Option<Item<'_>> {
    let has_place = match &op.call {
        Call::Range(_) | Call::Txn(_) => !op.call.is_serializable(),
        Call::Put(_) | Call::Delete(_) | Call::Compact { .. } => true,
        Call::LeaseGrant { .. } | Call::LeaseRevoke { .. } => true,
        _ => false,
    };
    let (answered, returned) = match &op.outcome {
        Outcome::Done { revision, answer } => {
            (Some(Answered { revision: *revision, answer }), Some(op.returned))
        }
        // A read without an answer says nothing.
        Outcome::Unknown if op.call.may_write() => (None, None),
        _ => return None,
    };
    let what = What::Call { call: &op.call, answered };
    has_place.then_some(Item { called: op.called, returned, what })
}

/// By `at` the store had reached `revision`.
fn seen(at: Instant, revision: i64) -> Item<'static> {
    Item { called: Instant::ZERO, returned: Some(at), what: What::Seen { revision } }
}

fn keys_of(call: &Call) -> Vec<KeyRange> {
    let mut keys = Vec::new();
    match call {
        Call::Range(range) => keys.push(range.keys),
        Call::Put(put) => keys.push(KeyRange { key: put.key, end: End::Single }),
        Call::Delete(delete) => keys.push(delete.keys),
        Call::Txn(txn) => keys_of_txn(txn, &mut keys),
        _ => {}
    }
    keys
}

fn keys_of_txn(txn: &TxnCall, keys: &mut Vec<KeyRange>) {
    keys.extend(txn.compares.iter().map(|compare| compare.keys));
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            Op::Range(range) => keys.push(range.keys),
            Op::Put(put) => keys.push(KeyRange { key: put.key, end: End::Single }),
            Op::Delete(delete) => keys.push(delete.keys),
            Op::Txn(txn) => keys_of_txn(txn, keys),
        }
    }
}

/// Keys that some call names together are in one group.
struct Groups {
    parent: Vec<u32>,
}

impl Groups {
    fn of(history: &History) -> Self {
        let keys = history.keys().len() as u32;
        let mut this = Self { parent: (0..keys).collect() };
        for op in history.operations().iter().filter(|op| !is_left_out(&op.call)) {
            let ranges = keys_of(&op.call);
            let named = (0..keys).filter(|key| {
                ranges.iter().any(|range| model::is_in(history, *range, KeyId(*key)))
            });
            let named: Vec<u32> = named.collect();
            for pair in named.windows(2) {
                let (a, b) = (this.root(pair[0]), this.root(pair[1]));
                this.parent[a as usize] = b;
            }
        }
        this
    }

    fn root(&self, mut key: u32) -> u32 {
        while self.parent[key as usize] != key {
            key = self.parent[key as usize];
        }
        key
    }

    fn group(&self, key: KeyId) -> u32 {
        self.root(key.0)
    }
}
