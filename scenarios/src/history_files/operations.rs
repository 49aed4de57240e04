//! `operations.json`: calls with their answers, in streams of one call at a time.

use std::collections::BTreeMap;

use detkv_core::Instant;
use detkv_sim_world::history::{
    Answer, Call, End, History, KvId, Op, OpId, Operation, Outcome, PutCall, RangeCall, Rows,
    Target, TxnAnswer, TxnCall,
};
use serde_json::{Value, json};

use super::{LeftOut, count, key, range_end, value};

/// By client, its operations in the order of their calls.
pub fn of(history: &History, left_out: &mut LeftOut) -> BTreeMap<u32, Vec<Value>> {
    let mut streams = Streams::new(history);
    let mut all: BTreeMap<u32, Vec<Value>> = BTreeMap::new();
    for (id, op) in history.operations_with_ids() {
        let Some(line) = operation(history, id, op, &mut streams, left_out) else { continue };
        all.entry(op.client.0).or_default().push(line);
    }
    all
}

/// A validator takes a stream for a client that calls one thing after the other. A client with several open calls
/// is several streams, and after an error its next call is in a new one.
struct Streams {
    next: u32,
    /// After everything: where a call without an answer ends.
    end_ns: u64,
    /// Of each client: streams that may go on, and when their last call returned.
    free: BTreeMap<u32, Vec<(u32, Instant)>>,
}

impl Streams {
    fn new(history: &History) -> Self {
        let clients = history.operations().iter().map(|op| op.client.0 + 1).max().unwrap_or(0);
        let is_over = |at: &Instant| *at < Instant::FAR;
        let ended = history.operations().iter().map(|op| op.ended).filter(is_over);
        let last = history.facts().last().map(|(at, _)| *at);
        let end = ended.chain(last).max().unwrap_or(Instant::ZERO);
        // A client's first stream has its own number.
        let free = (0..clients).map(|client| (client, vec![(client, Instant::ZERO)])).collect();
        Self { next: clients, end_ns: end.ns + 1_000_000_000, free }
    }

    /// A stream for a call that returns at `returned`; `None`: it never does.
    fn take(&mut self, client: u32, called: Instant, returned: Option<Instant>) -> u32 {
        let free = self.free.entry(client).or_default();
        let place = free.iter().position(|(_, last)| *last < called);
        let stream = match place {
            Some(place) => free.swap_remove(place).0,
            None => {
                self.next += 1;
                self.next - 1
            }
        };
        free.extend(returned.map(|at| (stream, at)));
        stream
    }
}

fn operation(
    history: &History,
    id: OpId,
    op: &Operation,
    streams: &mut Streams,
    left_out: &mut LeftOut,
) -> Option<Value> {
    let input = match input(history, &op.call) {
        Ok(input) => input,
        Err(why) => {
            let is_write = op.call.may_write() && !matches!(op.outcome, Outcome::NotSent);
            count(if is_write { &mut left_out.writes } else { &mut left_out.reads }, why);
            return None;
        }
    };
    let (returned, output) = match &op.outcome {
        Outcome::Done { revision, answer } => {
            (Some(op.returned), output(history, &op.call, *revision, answer))
        }
        // It has no effect.
        Outcome::NotSent => return None,
        Outcome::Failed(_) | Outcome::Unknown => {
            let may_change = op.call.may_write() || matches!(op.call, Call::LeaseGrant { .. });
            if !may_change {
                return None;
            }
            let error = history.error(id).map_or("no answer".to_owned(), ToString::to_string);
            (None, json!({ "Error": error }))
        }
    };
    let client = streams.take(op.client.0, op.called, returned);
    Some(json!({
        "ClientID": client,
        "Call": op.called.ns,
        "Return": returned.map_or(streams.end_ns, |at| at.ns),
        "Input": input,
        "Output": output,
    }))
}

type Said = Result<Value, &'static str>;

fn input(history: &History, call: &Call) -> Said {
    match call {
        Call::Range(range) => {
            let mut range_json = range_options(history, range)?;
            range_json["Revision"] = json!(range.revision.max(0));
            Ok(json!({ "Type": "range", "Range": range_json }))
        }
        Call::Put(put) => Ok(txn_of(vec![put_op(history, put)?])),
        Call::Delete(delete) if delete.keys.end == End::Single => {
            Ok(txn_of(vec![delete_op(key(history, delete.keys.key))]))
        }
        Call::Delete(_) => Err("a delete of several keys"),
        Call::Txn(txn) => txn_input(history, txn),
        Call::Compact { revision } => {
            Ok(json!({ "Type": "compact", "Compact": { "Revision": revision } }))
        }
        Call::LeaseGrant { id, .. } => {
            Ok(json!({ "Type": "leaseGrant", "LeaseGrant": { "LeaseID": id } }))
        }
        Call::LeaseRevoke { id } => {
            Ok(json!({ "Type": "leaseRevoke", "LeaseRevoke": { "LeaseID": id } }))
        }
        Call::Defragment => Ok(json!({ "Type": "defragment", "Defragment": {} })),
        Call::LeaseKeepAlive { .. } | Call::LeaseTimeToLive { .. } => Err("lease times"),
        Call::Alarm { .. } | Call::HashKv { .. } | Call::Other(_) => {
            Err("maintenance and membership")
        }
    }
}

fn range_options(history: &History, range: &RangeCall) -> Said {
    if range.serializable {
        return Err("a serializable read");
    }
    let is_plain = range.sort_order == 0
        && range.min_mod_revision == 0
        && range.max_mod_revision == 0
        && range.min_create_revision == 0
        && range.max_create_revision == 0
        && !range.count_only;
    if !is_plain {
        return Err("a sorted, filtered or counting range");
    }
    Ok(json!({
        "Start": key(history, range.keys.key),
        "End": range_end(history, range.keys),
        "Limit": range.limit.max(0),
        "KeysOnly": range.keys_only,
    }))
}

/// Plain puts and deletes are recorded so.
pub(super) fn txn_of(ops: Vec<Value>) -> Value {
    json!({ "Type": "txn", "Txn": {
        "Conditions": [], "OperationsOnSuccess": ops, "OperationsOnFailure": [],
    }})
}

fn put_op(history: &History, put: &PutCall) -> Said {
    if put.ignore_value || put.ignore_lease {
        return Err("a put that keeps value or lease");
    }
    Ok(json!({ "Type": "put-operation", "Put": {
        "Key": key(history, put.key), "Value": value(history, put.value), "LeaseID": put.lease,
    }}))
}

pub(super) fn delete_op(key: String) -> Value {
    json!({ "Type": "delete-operation", "Delete": { "Key": key } })
}

fn txn_input(history: &History, txn: &TxnCall) -> Said {
    let conditions = txn.compares.iter().map(|compare| {
        let is_plain = compare.keys.end == End::Single && compare.result == 0;
        let (revision, version) = match compare.target {
            Target::Mod(revision) if is_plain => (revision, 0),
            Target::Version(version) if is_plain => (0, version),
            _ => return Err("a compare of something else than mod revision or version"),
        };
        Ok(json!({
            "Key": key(history, compare.keys.key),
            "ExpectedRevision": revision,
            "ExpectedVersion": version,
        }))
    });
    let branch =
        |ops: &[Op]| ops.iter().map(|op| txn_op(history, op)).collect::<Result<Vec<_>, _>>();
    Ok(json!({ "Type": "txn", "Txn": {
        "Conditions": conditions.collect::<Result<Vec<_>, _>>()?,
        "OperationsOnSuccess": branch(&txn.success)?,
        "OperationsOnFailure": branch(&txn.failure)?,
    }}))
}

fn txn_op(history: &History, op: &Op) -> Said {
    match op {
        Op::Range(range) if range.revision <= 0 => {
            Ok(json!({ "Type": "range-operation", "Range": range_options(history, range)? }))
        }
        Op::Range(_) => Err("a txn that reads the past"),
        Op::Put(put) => put_op(history, put),
        Op::Delete(delete) if delete.keys.end == End::Single => {
            Ok(delete_op(key(history, delete.keys.key)))
        }
        Op::Delete(_) => Err("a delete of several keys"),
        Op::Txn(_) => Err("a nested txn"),
    }
}

fn output(history: &History, call: &Call, revision: i64, answer: &Answer) -> Value {
    let (name, body, revision) = match (call, answer) {
        (Call::Txn(_), Answer::Txn(got)) => ("Txn", txn_output(history, got), revision),
        (Call::Put(_) | Call::Delete(_), _) => {
            ("Txn", json!({ "Failure": false, "Results": [result(history, answer)] }), revision)
        }
        (Call::Range(_), Answer::Rows(rows)) => ("Range", range_output(history, rows), revision),
        (Call::LeaseGrant { .. }, Answer::Lease { id, .. }) => {
            ("LeaseGrant", json!({ "LeaseID": id }), revision)
        }
        (Call::LeaseRevoke { .. }, _) => ("LeaseRevoke", json!({}), revision),
        (Call::Compact { .. }, _) => ("Compact", json!({}), -1),
        _ => ("Defragment", json!({}), revision),
    };
    json!({ "Revision": revision, name: body })
}

fn txn_output(history: &History, got: &TxnAnswer) -> Value {
    let results: Vec<Value> = got.answers.iter().map(|answer| result(history, answer)).collect();
    json!({ "Failure": !got.succeeded, "Results": results })
}

/// Of one operation of a txn.
fn result(history: &History, answer: &Answer) -> Value {
    let (rows, count, deleted) = match answer {
        Answer::Rows(rows) => (key_values(history, &rows.kvs), rows.count, 0),
        Answer::Deleted(got) => (Vec::new(), 0, got.deleted),
        _ => (Vec::new(), 0, 0),
    };
    json!({ "KVs": rows, "Count": count, "Deleted": deleted })
}

fn range_output(history: &History, rows: &Rows) -> Value {
    json!({ "KVs": key_values(history, &rows.kvs), "Count": rows.count })
}

fn key_values(history: &History, kvs: &[KvId]) -> Vec<Value> {
    let row = |id: &KvId| {
        let kv = history.kv(*id);
        json!({
            "Key": key(history, kv.key),
            "Value": value(history, kv.value),
            "ModRevision": kv.mod_revision,
            "Version": kv.version,
        })
    };
    kvs.iter().map(row).collect()
}
