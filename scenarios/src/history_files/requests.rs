//! `persisted-requests.json`: the requests that the log committed, as members applied them.

use detkv_core::pb::etcdserverpb as pb;
use detkv_core::pb::etcdserverpb::compare::{CompareResult, TargetUnion};
use detkv_core::pb::etcdserverpb::request_op::Request as Op;
use detkv_sim_world::check::Case;
use prost::Message as _;
use serde_json::{Value, json};

use super::operations::{delete_op, txn_of};
use super::{LeftOut, count, text, value_bytes};

pub fn persisted(case: &Case, left_out: &mut LeftOut) -> Vec<Value> {
    let mut all = Vec::new();
    for id in case.committed() {
        let Some((is_change, data)) = case.history.raft().payload(id) else { continue };
        // A change of members, or the start of a term: no request of a client.
        if *is_change || data.is_empty() {
            continue;
        }
        match pb::InternalRaftRequest::decode(data.clone()).map(|entry| request(&entry)) {
            Ok(Ok(Some(request))) => all.push(request),
            Ok(Ok(None)) => {}
            Ok(Err(why)) => count(&mut left_out.requests, why),
            Err(_) => count(&mut left_out.requests, "an entry that cannot be decoded"),
        }
    }
    all
}

/// `None`: nothing that changes keys or leases.
fn request(entry: &pb::InternalRaftRequest) -> Result<Option<Value>, &'static str> {
    let request = if let Some(put) = &entry.put {
        txn_of(vec![put_op(put)?])
    } else if let Some(delete) = &entry.delete_range {
        txn_of(vec![delete_of(delete)?])
    } else if let Some(txn) = &entry.txn {
        txn_request(txn)?
    } else if let Some(compact) = &entry.compaction {
        json!({ "Type": "compact", "Compact": { "Revision": compact.revision } })
    } else if let Some(grant) = &entry.lease_grant {
        json!({ "Type": "leaseGrant", "LeaseGrant": { "LeaseID": grant.id } })
    } else if let Some(revoke) = &entry.lease_revoke {
        json!({ "Type": "leaseRevoke", "LeaseRevoke": { "LeaseID": revoke.id } })
    } else {
        return Ok(None);
    };
    Ok(Some(request))
}

fn put_op(put: &pb::PutRequest) -> Result<Value, &'static str> {
    if put.ignore_value || put.ignore_lease {
        return Err("a put that keeps value or lease");
    }
    Ok(json!({ "Type": "put-operation", "Put": {
        "Key": text(&put.key), "Value": value_bytes(&put.value), "LeaseID": put.lease,
    }}))
}

fn delete_of(delete: &pb::DeleteRangeRequest) -> Result<Value, &'static str> {
    if !delete.range_end.is_empty() {
        return Err("a delete of several keys");
    }
    Ok(delete_op(text(&delete.key)))
}

fn txn_request(txn: &pb::TxnRequest) -> Result<Value, &'static str> {
    let conditions = txn.compare.iter().map(|compare| {
        let is_plain =
            compare.range_end.is_empty() && compare.result == CompareResult::Equal as i32;
        let (revision, version) = match compare.target_union {
            Some(TargetUnion::ModRevision(revision)) if is_plain => (revision, 0),
            Some(TargetUnion::Version(version)) if is_plain => (0, version),
            _ => return Err("a compare of something else than mod revision or version"),
        };
        Ok(json!({
            "Key": text(&compare.key), "ExpectedRevision": revision, "ExpectedVersion": version,
        }))
    });
    let branch =
        |ops: &[pb::RequestOp]| ops.iter().filter_map(txn_op).collect::<Result<Vec<_>, _>>();
    Ok(json!({ "Type": "txn", "Txn": {
        "Conditions": conditions.collect::<Result<Vec<_>, _>>()?,
        "OperationsOnSuccess": branch(&txn.success)?,
        "OperationsOnFailure": branch(&txn.failure)?,
    }}))
}

fn txn_op(op: &pb::RequestOp) -> Option<Result<Value, &'static str>> {
    Some(match op.request.as_ref()? {
        Op::RequestPut(put) => put_op(put),
        Op::RequestDeleteRange(delete) => delete_of(delete),
        Op::RequestRange(range) => Ok(json!({ "Type": "range-operation", "Range": {
            "Start": text(&range.key), "End": text(&range.range_end), "Limit": range.limit,
        }})),
        Op::RequestTxn(_) => Err("a nested txn"),
    })
}
