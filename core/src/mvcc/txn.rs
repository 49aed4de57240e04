//! Evaluation of a Txn before anything is changed: compares, the branches taken, and the checks
//! that can still refuse it (surface spec §3.5). `apply.rs` and `reader.rs` run the operations.

use std::cmp::Ordering;

use super::ReadOnlyTxn;
use super::index::KeyRange;
use super::range::KeySpace;
use super::rows::decode_kv;
use crate::error::ApiError;
use crate::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::pb::etcdserverpb::request_op::Request as Op;
use crate::pb::etcdserverpb::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest};
use crate::pb::mvccpb::KeyValue;

/// Which branch a txn takes, and the same for the nested txns of that branch, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Path {
    pub succeeded: bool,
    pub nested: Vec<Path>,
}

impl Path {
    pub fn branch<'a>(&self, req: &'a TxnRequest) -> &'a [RequestOp] {
        if self.succeeded { &req.success } else { &req.failure }
    }
}

/// Evaluates all compares, those of nested txns too, against the state before the txn.
pub(crate) fn choose_path(space: &impl KeySpace, req: &TxnRequest) -> Result<Path, ApiError> {
    let mut succeeded = true;
    for compare in &req.compare {
        if !holds(space, compare)? {
            succeeded = false;
            break;
        }
    }
    let mut path = Path { succeeded, nested: Vec::new() };
    for op in path.branch(req) {
        if let Some(Op::RequestTxn(nested)) = &op.request {
            let nested = choose_path(space, nested)?;
            path.nested.push(nested);
        }
    }
    Ok(path)
}

fn holds(space: &impl KeySpace, compare: &Compare) -> Result<bool, ApiError> {
    let range = KeyRange::new(&compare.key, &compare.range_end);
    let (_, kvs) = space.collect(&range, space.revision(), usize::MAX)?;
    if kvs.is_empty() {
        // A missing key has no value to compare with, not even for NOT_EQUAL; the numbers are 0.
        let is_value = compare.target == CompareTarget::Value as i32;
        return Ok(!is_value && compare_one(compare, &KeyValue::default()));
    }
    Ok(kvs.iter().all(|kv| compare_one(compare, &decode_kv(kv))))
}

fn compare_one(compare: &Compare, kv: &KeyValue) -> bool {
    use TargetUnion as U;
    let given = compare.target_union.as_ref();
    // An operand that does not fit the target counts as zero or empty; an unknown target as equal.
    let ordering = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Version) => {
            kv.version.cmp(&given.map_or(0, |u| if let U::Version(v) = u { *v } else { 0 }))
        }
        Ok(CompareTarget::Create) => kv
            .create_revision
            .cmp(&given.map_or(0, |u| if let U::CreateRevision(v) = u { *v } else { 0 })),
        Ok(CompareTarget::Mod) => kv
            .mod_revision
            .cmp(&given.map_or(0, |u| if let U::ModRevision(v) = u { *v } else { 0 })),
        Ok(CompareTarget::Lease) => {
            kv.lease.cmp(&given.map_or(0, |u| if let U::Lease(v) = u { *v } else { 0 }))
        }
        Ok(CompareTarget::Value) => {
            let given: &[u8] = given.map_or(&[], |u| if let U::Value(v) = u { v } else { &[] });
            kv.value[..].cmp(given)
        }
        Err(_) => Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        Err(_) => true,
    }
}

/// The checks of the taken path, all puts before all ranges, against the state before the txn.
///
/// Errors: `LeaseNotFound`, `KeyNotFound`, `FutureRevision`, `Compacted`.
pub(crate) fn check_path(
    space: &impl KeySpace,
    req: &TxnRequest,
    path: &Path,
    lease_exists: &dyn Fn(i64) -> bool,
) -> Result<(), ApiError> {
    visit(req, path, &mut |op| match op {
        // Seen in etcd 3.4: a put inside a txn looks for its key before its lease.
        Op::RequestPut(put) => {
            check_put_key(space, put)?;
            check_put_lease(put, lease_exists)
        }
        _ => Ok(()),
    })?;
    visit(req, path, &mut |op| match op {
        Op::RequestRange(range) => check_range(space, range),
        _ => Ok(()),
    })
}

/// Calls `f` with every operation of the taken path, nested ones in their place.
fn visit(
    req: &TxnRequest,
    path: &Path,
    f: &mut dyn FnMut(&Op) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let mut nested_paths = path.nested.iter();
    for op in path.branch(req) {
        match &op.request {
            Some(Op::RequestTxn(nested)) => {
                let nested_path = nested_paths.next().expect("a path has an item per nested txn");
                visit(nested, nested_path, f)?;
            }
            Some(op) => f(op)?,
            None => return Err(ApiError::KeyNotFound),
        }
    }
    Ok(())
}

/// A put's lease must exist.
pub(crate) fn check_put_lease(
    put: &PutRequest,
    lease_exists: &dyn Fn(i64) -> bool,
) -> Result<(), ApiError> {
    if put.lease != 0 && !lease_exists(put.lease) {
        return Err(ApiError::LeaseNotFound);
    }
    Ok(())
}

/// A put's key must exist when its value or lease is to be kept.
pub(crate) fn check_put_key(space: &impl KeySpace, put: &PutRequest) -> Result<(), ApiError> {
    if put.ignore_value || put.ignore_lease {
        let (count, _) = space.collect(&KeyRange::One(&put.key), space.revision(), 0)?;
        if count == 0 {
            return Err(ApiError::KeyNotFound);
        }
    }
    Ok(())
}

/// Unlike in a plain Range, a negative revision lies below the compact revision.
fn check_range(space: &impl KeySpace, range: &RangeRequest) -> Result<(), ApiError> {
    match range.revision {
        0 => Ok(()),
        revision if revision > space.revision() => Err(ApiError::FutureRevision),
        revision if revision < space.compact_revision() => Err(ApiError::Compacted),
        _ => Ok(()),
    }
}

/// A txn that has only top-level ranges; `serializable` when none of them is linearizable.
pub fn txn_is_read_only(req: &TxnRequest) -> Option<ReadOnlyTxn> {
    let mut serializable = true;
    for op in req.success.iter().chain(&req.failure) {
        match &op.request {
            Some(Op::RequestRange(range)) => serializable &= range.serializable,
            _ => return None,
        }
    }
    Some(ReadOnlyTxn { serializable })
}
