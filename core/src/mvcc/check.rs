//! Static checks of a request, before it is proposed or read (surface spec §3).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::index::KeyRange;
use crate::api::Request;
use crate::error::ApiError;
use crate::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::pb::etcdserverpb::request_op::Request as Op;
use crate::pb::etcdserverpb::{
    DeleteRangeRequest, InternalRaftRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

/// Static checks of a request: flags, sizes, duplicate keys, sort options.
///
/// Errors: those of surface spec §3.2 to §3.5 that do not depend on what is stored.
pub fn validate(request: &Request, txn_ops_max: usize) -> Result<(), ApiError> {
    match request {
        Request::Range(req) => check_range(req),
        Request::Put(req) => check_put(req),
        Request::DeleteRange(req) => check_delete(req),
        Request::Txn(req) => check_whole_txn(req, txn_ops_max),
        _ => Ok(()),
    }
}

/// The same of what somebody else wants in the log.
pub fn validate_entry(entry: &InternalRaftRequest, txn_ops_max: usize) -> Result<(), ApiError> {
    entry.put.as_ref().map_or(Ok(()), check_put)?;
    entry.delete_range.as_ref().map_or(Ok(()), check_delete)?;
    entry.txn.as_ref().map_or(Ok(()), |req| check_whole_txn(req, txn_ops_max))
}

fn check_whole_txn(req: &TxnRequest, ops_max: usize) -> Result<(), ApiError> {
    check_txn(req, ops_max)?;
    check_duplicates(&req.success)?;
    check_duplicates(&req.failure)?;
    Ok(())
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::pb::etcdserverpb::Compare;

    fn b(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn op(request: Op) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    fn put(key: &str) -> RequestOp {
        op(Op::RequestPut(PutRequest { key: b(key), ..Default::default() }))
    }

    fn delete(key: &str, range_end: &str) -> RequestOp {
        let (key, range_end) = (b(key), b(range_end));
        op(Op::RequestDeleteRange(DeleteRangeRequest { key, range_end, prev_kv: false }))
    }

    fn get(key: &str) -> RequestOp {
        op(Op::RequestRange(RangeRequest { key: b(key), ..Default::default() }))
    }

    fn either(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        op(Op::RequestTxn(TxnRequest { success, failure, ..Default::default() }))
    }

    fn nested(success: Vec<RequestOp>) -> RequestOp {
        either(success, Vec::new())
    }

    fn check(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> Result<(), ApiError> {
        validate(&Request::Txn(TxnRequest { success, failure, ..Default::default() }), 128)
    }

    fn check_list(ops: Vec<RequestOp>) -> Result<(), ApiError> {
        check(ops, Vec::new())
    }

    const DUPLICATE: Result<(), ApiError> = Err(ApiError::DuplicateKey);

    #[test]
    fn a_key_is_put_once_per_list_and_not_deleted_in_it() {
        assert_eq!(check_list(vec![put("a"), put("a")]), DUPLICATE);
        assert_eq!(check_list(vec![put("b"), delete("a", "c")]), DUPLICATE);
        assert_eq!(check_list(vec![delete("a", "c"), put("b")]), DUPLICATE);
        assert_eq!(check_list(vec![put("c"), delete("a", "c")]), Ok(()));
        assert_eq!(check_list(vec![put("z"), delete("a", "\0")]), DUPLICATE);
        assert_eq!(check_list(vec![delete("a", "m"), delete("b", "z"), delete("b", "")]), Ok(()));
        assert_eq!(check_list(vec![get("a"), put("a"), get("a")]), Ok(()));
        assert_eq!(check(vec![put("a")], vec![put("a"), delete("b", "")]), Ok(()));
    }

    #[test]
    fn nested_txns_count_with_both_branches() {
        assert_eq!(check_list(vec![put("a"), nested(vec![put("a")])]), DUPLICATE);
        assert_eq!(check_list(vec![put("a"), either(vec![], vec![put("a")])]), DUPLICATE);
        assert_eq!(check_list(vec![either(vec![put("a")], vec![put("a")])]), Ok(()));
        assert_eq!(check_list(vec![nested(vec![put("a")]), nested(vec![put("a")])]), DUPLICATE);
        assert_eq!(check_list(vec![put("a"), nested(vec![delete("a", "")])]), DUPLICATE);
        assert_eq!(check_list(vec![delete("a", ""), nested(vec![put("a")])]), DUPLICATE);
        let inner = nested(vec![put("a"), put("a")]);
        assert_eq!(check_list(vec![inner]), DUPLICATE);
    }

    #[test]
    fn a_nested_put_may_precede_but_not_follow_a_sibling_nested_delete() {
        assert_eq!(check_list(vec![nested(vec![put("a")]), nested(vec![delete("a", "")])]), Ok(()));
        assert_eq!(
            check_list(vec![nested(vec![delete("a", "")]), nested(vec![put("a")])]),
            DUPLICATE
        );
    }

    #[test]
    fn a_nested_txn_has_the_budget_its_parent_leaves() {
        let gets = |n: usize| vec![get("a"); n];
        assert_eq!(check_list(gets(128)), Ok(()));
        assert_eq!(check_list(gets(129)), Err(ApiError::TooManyOps));
        let with_nested = |n| {
            let mut ops = gets(99);
            ops.push(nested(gets(n)));
            ops
        };
        assert_eq!(check_list(with_nested(28)), Ok(()));
        assert_eq!(check_list(with_nested(29)), Err(ApiError::TooManyOps));
        let compare = vec![Compare { key: b("a"), ..Default::default() }; 129];
        let txn = TxnRequest { compare, ..Default::default() };
        assert_eq!(validate(&Request::Txn(txn), 128), Err(ApiError::TooManyOps));
    }

    #[test]
    fn nesting_deeper_than_the_budget_is_refused() {
        let mut txn = get("a");
        for _ in 0..128 {
            txn = nested(vec![txn]);
        }
        assert_eq!(check_list(vec![txn]), Err(ApiError::TooManyOps));
    }

    #[test]
    fn keys_flags_and_sort_options_are_checked_everywhere() {
        let wrap: [fn(RequestOp) -> Vec<RequestOp>; 2] =
            [|op| vec![op], |op| vec![nested(vec![op])]];
        for wrap in wrap {
            for branch in [false, true] {
                let check_op = |request: Option<Op>| {
                    let ops = wrap(RequestOp { request });
                    if branch { check(vec![], ops) } else { check(ops, vec![]) }
                };
                assert_eq!(check_op(None), Err(ApiError::KeyNotFound));
                for request in [put("").request, delete("", "a").request, get("").request] {
                    assert_eq!(check_op(request), Err(ApiError::EmptyKey));
                }
                let bad = PutRequest {
                    key: b("a"),
                    value: b("v"),
                    ignore_value: true,
                    ..Default::default()
                };
                assert_eq!(check_op(Some(Op::RequestPut(bad))), Err(ApiError::ValueProvided));
                let bad =
                    PutRequest { key: b("a"), lease: 1, ignore_lease: true, ..Default::default() };
                assert_eq!(check_op(Some(Op::RequestPut(bad))), Err(ApiError::LeaseProvided));
                for (sort_order, sort_target) in [(3, 0), (-1, 0), (0, 5), (0, -1)] {
                    let bad =
                        RangeRequest { key: b("a"), sort_order, sort_target, ..Default::default() };
                    let result = check_op(Some(Op::RequestRange(bad)));
                    assert_eq!(result, Err(ApiError::InvalidSortOption));
                }
            }
        }
        let compare = vec![Compare::default()];
        let txn = TxnRequest { compare, ..Default::default() };
        assert_eq!(validate(&Request::Txn(txn), 128), Err(ApiError::EmptyKey));
    }

    #[test]
    fn intervals_merge_into_their_union() {
        let mut intervals = Intervals::default();
        let spans: [(&[u8], &[u8]); 5] =
            [(b"c", b"e"), (b"g", b"i"), (b"d", b"h"), (b"m", b"m"), (b"x", b"\0")];
        for (key, end) in spans {
            intervals.insert(KeyRange::new(key, end));
        }
        assert_eq!(intervals.spans.len(), 2);
        for key in b'a'..=b'z' {
            let expected = (b'c'..b'i').contains(&key) || key >= b'x';
            assert_eq!(intervals.contains(&[key]), expected, "{}", key as char);
        }
    }
}
