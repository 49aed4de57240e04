//! The keys of a lease that ends go in one revision, all of them and no others.
//!
//! Judged from watches of every key: a revision of deletes that no client's request made is an expiry
//! or a revoke.

use std::collections::{BTreeMap, BTreeSet};

use crate::check::{Case, Violation};
use crate::history::{
    Answer, Call, End, History, KeyId, KeyRange, Op, Outcome, TxnCall, WatchRecord,
};

const PROMISE: &str = "keys go in one revision";

pub fn check(case: &Case) -> Result<(), Violation> {
    let history = case.history;
    if !history.operations().iter().any(|op| matches!(op.call, Call::LeaseGrant { .. })) {
        return Ok(());
    }
    let made = MadeByClients::of(history);
    for watch in history.watches().iter().filter(|watch| shows_all(history, watch)) {
        Walk::new(history, &made).check(watch)?;
    }
    Ok(())
}

/// From the first revision on, every key, every kind of event.
fn shows_all(history: &History, watch: &WatchRecord) -> bool {
    let is_every_key =
        watch.keys.end == End::Open && history.key(watch.keys.key).as_ref() <= b"\0".as_slice();
    is_every_key && !watch.no_put && !watch.no_delete && matches!(watch.start_revision, 1 | 2)
}

/// Revisions of acknowledged requests, and what requests without an answer may have deleted.
struct MadeByClients {
    revisions: BTreeSet<i64>,
    open: Vec<KeyRange>,
}

impl MadeByClients {
    fn of(history: &History) -> Self {
        let (mut revisions, mut open) = (BTreeSet::new(), Vec::new());
        for op in history.operations() {
            match (&op.call, &op.outcome) {
                (Call::Delete(delete), Outcome::Unknown) => open.push(delete.keys),
                (Call::Txn(txn), Outcome::Unknown) => deletes_of(txn, &mut open),
                (Call::Delete(_), Outcome::Done { revision, answer: Answer::Deleted(got) })
                    if got.deleted > 0 =>
                {
                    revisions.insert(*revision);
                }
                (Call::Txn(txn), Outcome::Done { revision, .. }) if txn.may_write() => {
                    revisions.insert(*revision);
                }
                _ => {}
            }
        }
        Self { revisions, open }
    }

    fn may_have_deleted(&self, history: &History, key: KeyId) -> bool {
        let key = history.key(key);
        self.open.iter().any(|range| match range.end {
            End::Single => history.key(range.key) == key,
            End::Open => history.key(range.key) <= key,
            End::Before(end) => history.key(range.key) <= key && key < history.key(end),
        })
    }
}

fn deletes_of(txn: &TxnCall, into: &mut Vec<KeyRange>) {
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            Op::Delete(delete) => into.push(delete.keys),
            Op::Txn(txn) => deletes_of(txn, into),
            Op::Range(_) | Op::Put(_) => {}
        }
    }
}

/// The keys of each lease as one watch showed them.
struct Walk<'h> {
    history: &'h History,
    made: &'h MadeByClients,
    lease_of: BTreeMap<KeyId, i64>,
    keys_of: BTreeMap<i64, BTreeSet<KeyId>>,
}

impl<'h> Walk<'h> {
    fn new(history: &'h History, made: &'h MadeByClients) -> Self {
        Self { history, made, lease_of: BTreeMap::new(), keys_of: BTreeMap::new() }
    }

    fn check(&mut self, watch: &WatchRecord) -> Result<(), Violation> {
        let revision = |event: &crate::history::WatchEvent| self.history.kv(event.kv).mod_revision;
        let mut rest = watch.events.as_slice();
        let mut last = 1;
        while let Some(first) = rest.first() {
            let at = revision(first);
            if at < last {
                return Ok(()); // out of order: the watch checker's
            }
            last = at;
            let end = rest.iter().position(|event| revision(event) != at).unwrap_or(rest.len());
            let (these, others) = rest.split_at(end);
            rest = others;
            let deleted: Vec<KeyId> = these
                .iter()
                .filter(|event| event.is_delete)
                .map(|event| self.history.kv(event.kv).key)
                .collect();
            if deleted.len() == these.len() {
                self.expiry(at, &deleted)?;
            }
            for event in these {
                let kv = *self.history.kv(event.kv);
                self.attach(kv.key, if event.is_delete { 0 } else { kv.lease });
            }
        }
        Ok(())
    }

    fn attach(&mut self, key: KeyId, lease: i64) {
        if let Some(old) = self.lease_of.remove(&key)
            && let Some(keys) = self.keys_of.get_mut(&old)
        {
            keys.remove(&key);
        }
        if lease != 0 {
            self.lease_of.insert(key, lease);
            self.keys_of.entry(lease).or_default().insert(key);
        }
    }

    /// Nothing but deletes: the end of a lease, unless a client's request did it.
    fn expiry(&self, revision: i64, deleted: &[KeyId]) -> Result<(), Violation> {
        let is_client = self.made.revisions.contains(&revision)
            || deleted.iter().any(|key| self.made.may_have_deleted(self.history, *key));
        let Some(first) = deleted.first() else { return Ok(()) };
        if is_client {
            return Ok(());
        }
        let Some(lease) = self.lease_of.get(first) else {
            // A key without a lease that nobody deleted: linearizability tells.
            return Ok(());
        };
        let own = &self.keys_of[lease];
        let gone: BTreeSet<KeyId> = deleted.iter().copied().collect();
        let name = |key: &KeyId| format!("{:?}", self.history.key(*key));
        let what = if let Some(left) = own.difference(&gone).next() {
            format!("key {} was left behind", name(left))
        } else if let Some(other) = gone.difference(own).next() {
            format!("key {} went with it and is not its own", name(other))
        } else {
            return Ok(());
        };
        let message = format!("lease {lease:x} ended at revision {revision}: {what}");
        Err(Violation::new(PROMISE, message, Vec::new()))
    }
}
