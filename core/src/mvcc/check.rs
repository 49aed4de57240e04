//! Static checks of a request, before it is proposed or read (surface spec §3).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::index::KeyRange;
use crate::api::Request;
use crate::error::ApiError;
use crate::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::pb::etcdserverpb::request_op::Request as Op;
use crate::pb::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

/// Static checks of a request: flags, sizes, duplicate keys, sort options.
///
/// Errors: those of surface spec §3.2 to §3.5 that do not depend on what is stored.
pub fn validate(request: &Request, txn_ops_max: usize) -> Result<(), ApiError> {
    match request {
        Request::Range(req) => check_range(req),
        Request::Put(req) => check_put(req),
        Request::DeleteRange(req) => check_delete(req),
        Request::Txn(req) => {
            check_txn(req, txn_ops_max)?;
            check_duplicates(&req.success)?;
            check_duplicates(&req.failure)?;
            Ok(())
        }
        _ => Ok(()),
    }
}

fn check_key(key: &[u8]) -> Result<(), ApiError> {
    if key.is_empty() { Err(ApiError::EmptyKey) } else { Ok(()) }
}

fn check_range(req: &RangeRequest) -> Result<(), ApiError> {
    check_key(&req.key)?;
    if SortOrder::try_from(req.sort_order).is_err()
        || SortTarget::try_from(req.sort_target).is_err()
    {
        return Err(ApiError::InvalidSortOption);
    }
    Ok(())
}

fn check_put(req: &PutRequest) -> Result<(), ApiError> {
    check_key(&req.key)?;
    if req.ignore_value && !req.value.is_empty() {
        return Err(ApiError::ValueProvided);
    }
    if req.ignore_lease && req.lease != 0 {
        return Err(ApiError::LeaseProvided);
    }
    Ok(())
}

fn check_delete(req: &DeleteRangeRequest) -> Result<(), ApiError> {
    check_key(&req.key)
}

/// Both branches and all nested txns. A nested txn's budget is what its parent's longest list
/// leaves, so the depth is bounded too.
fn check_txn(req: &TxnRequest, ops_max: usize) -> Result<(), ApiError> {
    let ops = req.compare.len().max(req.success.len()).max(req.failure.len());
    if ops > ops_max {
        return Err(ApiError::TooManyOps);
    }
    for compare in &req.compare {
        check_key(&compare.key)?;
    }
    for op in req.success.iter().chain(&req.failure) {
        match &op.request {
            Some(Op::RequestRange(range)) => check_range(range)?,
            Some(Op::RequestPut(put)) => check_put(put)?,
            Some(Op::RequestDeleteRange(delete)) => check_delete(delete)?,
            Some(Op::RequestTxn(nested)) => check_txn(nested, ops_max - ops)?,
            None => return Err(ApiError::KeyNotFound),
        }
    }
    Ok(())
}

/// Keys put and deleted by a list of operations and by the txns nested in it.
#[derive(Default)]
struct Touched<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Intervals<'a>,
}

/// No key is put twice, nor put and deleted, by one list.
///
/// The order of the checks decides what is accepted: deletes of the list itself first, then
/// nested txns one after the other, then puts of the list. So a nested put followed by a sibling
/// nested delete of the same key passes, the reverse does not (surface spec §3.5, asymmetry).
fn check_duplicates(ops: &[RequestOp]) -> Result<Touched<'_>, ApiError> {
    let mut touched = Touched::default();
    for op in ops {
        if let Some(Op::RequestDeleteRange(delete)) = &op.request {
            touched.deletes.insert(KeyRange::new(&delete.key, &delete.range_end));
        }
    }
    for op in ops {
        if let Some(Op::RequestTxn(nested)) = &op.request {
            add_nested(&mut touched, nested)?;
        }
    }
    for op in ops {
        if let Some(Op::RequestPut(put)) = &op.request {
            add_put(&mut touched, &put.key)?;
        }
    }
    Ok(touched)
}

fn add_nested<'a>(touched: &mut Touched<'a>, nested: &'a TxnRequest) -> Result<(), ApiError> {
    let success = check_duplicates(&nested.success)?;
    let failure = check_duplicates(&nested.failure)?;
    for key in &success.puts {
        add_put(touched, key)?;
    }
    // Only one branch of a txn runs, so the two may put the same key.
    for key in failure.puts.difference(&success.puts) {
        add_put(touched, key)?;
    }
    touched.deletes.extend(success.deletes);
    touched.deletes.extend(failure.deletes);
    Ok(())
}

fn add_put<'a>(touched: &mut Touched<'a>, key: &'a [u8]) -> Result<(), ApiError> {
    if touched.deletes.contains(key) || !touched.puts.insert(key) {
        return Err(ApiError::DuplicateKey);
    }
    Ok(())
}

/// A union of key intervals, merged, so that a lookup looks at one of them.
#[derive(Default)]
struct Intervals<'a> {
    points: BTreeSet<&'a [u8]>,
    /// start → end; `None` = no end. Disjoint.
    spans: BTreeMap<&'a [u8], Option<&'a [u8]>>,
}

impl<'a> Intervals<'a> {
    fn insert(&mut self, range: KeyRange<'a>) {
        match range {
            KeyRange::One(key) => {
                self.points.insert(key);
            }
            KeyRange::Span(start, end) if end <= start => {}
            KeyRange::Span(start, end) => self.insert_span(start, Some(end)),
            KeyRange::From(start) => self.insert_span(start, None),
        }
    }

    fn insert_span(&mut self, mut start: &'a [u8], mut end: Option<&'a [u8]>) {
        if let Some((before, before_end)) = self.spans.range(..=start).next_back()
            && before_end.is_none_or(|e| e >= start)
        {
            start = before;
            end = later(end, *before_end);
        }
        let reach = end.map_or(Bound::Unbounded, Bound::Included);
        let covered: Vec<_> = self
            .spans
            .range::<[u8], _>((Bound::Included(start), reach))
            .map(|(start, end)| (*start, *end))
            .collect();
        for (covered_start, covered_end) in covered {
            self.spans.remove(covered_start);
            end = later(end, covered_end);
        }
        self.spans.insert(start, end);
    }

    fn extend(&mut self, other: Intervals<'a>) {
        self.points.extend(other.points);
        for (start, end) in other.spans {
            self.insert_span(start, end);
        }
    }

    fn contains(&self, key: &[u8]) -> bool {
        let up_to = (Bound::Unbounded, Bound::Included(key));
        self.points.contains(key)
            || self
                .spans
                .range::<[u8], _>(up_to)
                .next_back()
                .is_some_and(|(_, end)| end.is_none_or(|end| key < end))
    }
}

/// The later of two interval ends, where `None` is no end.
fn later<'a>(a: Option<&'a [u8]>, b: Option<&'a [u8]>) -> Option<&'a [u8]> {
    Some(a?.max(b?))
}
