//! One test per rule of surface spec §3 that a client can see and might not expect.

mod mvcc_disk;

use bytes::Bytes;
use detkv_core::api::{RangeRows, ReadReady, Request, Response};
use detkv_core::error::ApiError;
use detkv_core::mvcc::{Applied, ReadOnlyTxn, ReadResult, Store, txn_is_read_only};
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::pb::etcdserverpb::compare::{CompareResult as Is, CompareTarget, TargetUnion};
use detkv_core::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use detkv_core::pb::etcdserverpb::request_op::Request as Op;
use detkv_core::pb::etcdserverpb::response_op::Response as OpResponse;
use detkv_core::pb::mvccpb::KeyValue;
use mvcc_disk::{MemFiles, open};
use prost::Message;

fn b(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn lease_exists(id: i64) -> bool {
    id == 7
}

struct World {
    store: Store,
    index: u64,
}

impl World {
    /// Puts the pairs, from revision 2 on.
    fn with(pairs: &[(&str, &str)]) -> Self {
        let mut world = World { store: open(&MemFiles::new()), index: 0 };
        for (key, value) in pairs {
            world.put(put(key, value)).expect("a plain put is applied");
        }
        world
    }

    fn next(&mut self) {
        self.index += 1;
        self.store.set_applied(self.index, 1);
    }

    fn put(&mut self, req: pb::PutRequest) -> Result<(pb::PutResponse, Applied), ApiError> {
        let result = self.store.put(&req, &lease_exists);
        self.next();
        result.map(|applied| match &applied.response {
            Response::Put(response) => (response.clone(), applied),
            other => panic!("{other:?}"),
        })
    }

    fn delete(&mut self, key: &str, end: &str) -> (pb::DeleteRangeResponse, Applied) {
        let req = pb::DeleteRangeRequest { key: b(key), range_end: b(end), prev_kv: true };
        let applied = self.store.delete_range(&req).expect("a delete is applied");
        self.next();
        match &applied.response {
            Response::DeleteRange(response) => (response.clone(), applied),
            other => panic!("{other:?}"),
        }
    }

    fn txn(&mut self, req: pb::TxnRequest) -> Result<pb::TxnResponse, ApiError> {
        let result = self.store.txn(&req, &lease_exists);
        self.next();
        result.map(|applied| match applied.response {
            Response::Txn(response) => response,
            other => panic!("{other:?}"),
        })
    }

    fn ops(&mut self, success: Vec<pb::RequestOp>) -> Result<Vec<OpResponse>, ApiError> {
        let response = self.txn(pb::TxnRequest { success, ..Default::default() })?;
        Ok(response.responses.into_iter().map(|r| r.response.expect("set")).collect())
    }

    fn compact(&mut self, revision: i64) {
        self.store.compact(revision).expect("a past revision");
        self.next();
    }

    fn range(&self, req: pb::RangeRequest) -> Result<RangeRows, ApiError> {
        let header = pb::ResponseHeader { cluster_id: 9, ..Default::default() };
        let ready = ReadReady { request: Request::Range(req), header };
        match self.store.reader().read(&ready)? {
            ReadResult::Range(rows) => Ok(rows),
            other => panic!("{other:?}"),
        }
    }

    fn holds(&mut self, compare: pb::Compare) -> bool {
        let txn = pb::TxnRequest { compare: vec![compare], ..Default::default() };
        let succeeded = self.txn(txn.clone()).expect("a txn of compares").succeeded;
        let ready = ReadReady { request: Request::Txn(txn), header: Default::default() };
        match self.store.reader().read(&ready).expect("a read-only txn") {
            ReadResult::Txn(response) => assert_eq!(response.succeeded, succeeded, "both ways"),
            other => panic!("{other:?}"),
        }
        succeeded
    }
}

fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: b(key), value: b(value), ..Default::default() }
}

fn all() -> pb::RangeRequest {
    pb::RangeRequest { key: b("\0"), range_end: b("\0"), ..Default::default() }
}

fn op(request: Op) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn get(key: &str, revision: i64) -> pb::RequestOp {
    op(Op::RequestRange(pb::RangeRequest { key: b(key), revision, ..Default::default() }))
}

fn compare(key: &str, result: Is, union: TargetUnion) -> pb::Compare {
    let target = match union {
        TargetUnion::Version(_) => CompareTarget::Version,
        TargetUnion::CreateRevision(_) => CompareTarget::Create,
        TargetUnion::ModRevision(_) => CompareTarget::Mod,
        TargetUnion::Value(_) => CompareTarget::Value,
        TargetUnion::Lease(_) => CompareTarget::Lease,
    };
    pb::Compare {
        key: b(key),
        result: result.into(),
        target: target.into(),
        target_union: Some(union),
        range_end: Bytes::new(),
    }
}

fn keys(rows: &RangeRows) -> Vec<String> {
    let key = |kv: &Bytes| KeyValue::decode(kv.clone()).expect("a KeyValue").key.to_vec();
    rows.kvs.iter().map(|kv| String::from_utf8(key(kv)).expect("text")).collect()
}

#[test]
fn versions_start_again_after_a_delete() {
    let mut world = World::with(&[("k", "1"), ("k", "2")]);
    let kv = |world: &World, revision| {
        let kv = world.store.reader().key_at(b"k", revision).expect("readable").expect("there");
        (kv.create_revision, kv.mod_revision, kv.version)
    };
    assert_eq!(kv(&world, 0), (2, 3, 2));
    world.delete("k", "");
    world.put(put("k", "3")).expect("a plain put");
    assert_eq!(kv(&world, 0), (5, 5, 1));
    assert_eq!(kv(&world, 2), (2, 2, 1));
}

#[test]
fn what_changes_nothing_does_not_move_the_revision() {
    let mut world = World::with(&[("k", "1")]);
    let (response, applied) = world.delete("none", "");
    assert_eq!((response.deleted, response.header.expect("set").revision), (0, 2));
    assert!(applied.events.is_none());
    world.ops(vec![get("k", 0)]).expect("a txn of a range");
    assert!(world.store.delete_keys(&[b("none")]).events.is_none());
    world.next();
    world.compact(2);
    assert_eq!(world.store.revision(), 2);
}

#[test]
fn an_inverted_range_is_empty_and_no_error() {
    let mut world = World::with(&[("a", ""), ("b", "")]);
    let req = pb::RangeRequest { key: b("b"), range_end: b("a"), ..Default::default() };
    assert_eq!(world.range(req).expect("no error").count, 0);
    assert_eq!(world.delete("b", "a").0.deleted, 0);
    let mut inverted = compare("b", Is::Equal, TargetUnion::Version(0));
    inverted.range_end = b("a");
    assert!(world.holds(inverted), "compared once with a zero KeyValue");
}

#[test]
fn reads_report_the_current_revision_even_of_an_old_one() {
    let world = World::with(&[("k", "1"), ("k", "2")]);
    let rows = world.range(pb::RangeRequest { revision: 2, ..all() }).expect("readable");
    assert_eq!((rows.header.revision, rows.header.cluster_id), (3, 9));
    let negative = world.range(pb::RangeRequest { revision: -5, ..all() }).expect("current");
    assert_eq!(negative.kvs, world.range(all()).expect("current").kvs);
    let future = world.range(pb::RangeRequest { revision: 4, ..all() });
    assert_eq!(future, Err(ApiError::FutureRevision));
}

#[test]
fn the_count_ignores_limit_and_filters() {
    let world = World::with(&[("a", ""), ("b", ""), ("c", "")]);
    let rows = world.range(pb::RangeRequest { limit: 1, ..all() }).expect("readable");
    assert_eq!((keys(&rows), rows.more, rows.count), (vec!["a".into()], true, 3));
    let rows = world.range(pb::RangeRequest { min_mod_revision: 4, ..all() }).expect("readable");
    assert_eq!((keys(&rows), rows.more, rows.count), (vec!["c".into()], false, 3));
    let counted = pb::RangeRequest { count_only: true, limit: 1, min_mod_revision: 9, ..all() };
    let rows = world.range(counted).expect("readable");
    assert_eq!((rows.kvs.len(), rows.more, rows.count), (0, false, 3));
    let rows = world.range(pb::RangeRequest { limit: -1, ..all() }).expect("readable");
    assert_eq!((rows.kvs.len(), rows.more), (3, false));
}

#[test]
fn a_limit_cuts_before_an_implied_sort_and_after_an_explicit_one() {
    let world = World::with(&[("a", "3"), ("b", "2"), ("c", "1")]);
    let by_value = |order: SortOrder| pb::RangeRequest {
        sort_order: order.into(),
        sort_target: SortTarget::Value.into(),
        limit: 1,
        ..all()
    };
    let rows = world.range(by_value(SortOrder::None)).expect("readable");
    assert_eq!((keys(&rows), rows.more), (vec!["b".into()], true), "of a and b alone");
    let rows = world.range(by_value(SortOrder::Ascend)).expect("readable");
    assert_eq!(keys(&rows), ["c"]);
    let rows = world.range(by_value(SortOrder::Descend)).expect("readable");
    assert_eq!(keys(&rows), ["a"]);
}

#[test]
fn keys_only_sorts_by_the_value_it_leaves_out() {
    let world = World::with(&[("a", "2"), ("b", "1")]);
    let req = pb::RangeRequest {
        keys_only: true,
        sort_order: SortOrder::Ascend.into(),
        sort_target: SortTarget::Value.into(),
        ..all()
    };
    let rows = world.range(req).expect("readable");
    assert_eq!(keys(&rows), ["b", "a"]);
    let kv = KeyValue::decode(rows.kvs[0].clone()).expect("a KeyValue");
    assert_eq!((kv.value.len(), kv.mod_revision, kv.version), (0, 3, 1));
}

#[test]
fn put_flags_keep_value_or_lease() {
    let mut world = World::with(&[("k", "1")]);
    let leased = pb::PutRequest { lease: 7, ..put("k", "2") };
    let (_, applied) = world.put(leased).expect("lease 7 exists");
    let moves: Vec<_> = applied.lease_moves.iter().map(|m| (m.from, m.to)).collect();
    assert_eq!(moves, [(0, 7)]);
    let keep_value = pb::PutRequest { ignore_value: true, prev_kv: true, ..put("k", "") };
    let (response, applied) = world.put(keep_value).expect("the key exists");
    assert_eq!(response.prev_kv.expect("asked for").value, "2");
    assert_eq!((applied.lease_moves[0].from, applied.lease_moves[0].to), (7, 0));
    let keep_lease = pb::PutRequest { ignore_lease: true, ..put("k", "3") };
    assert!(world.put(keep_lease).expect("the key exists").1.lease_moves.is_empty());
    let kv = world.store.reader().key_at(b"k", 0).expect("readable").expect("there");
    assert_eq!((&kv.value[..], kv.lease, kv.version), (&b"3"[..], 0, 4));

    let missing = pb::PutRequest { ignore_value: true, ..put("none", "") };
    assert_eq!(world.put(missing).map(|_| ()), Err(ApiError::KeyNotFound));
    let no_lease = pb::PutRequest { lease: 8, ignore_value: true, ..put("none", "") };
    assert_eq!(world.put(no_lease.clone()).map(|_| ()), Err(ApiError::LeaseNotFound));
    let in_txn = world.ops(vec![op(Op::RequestPut(no_lease))]);
    assert_eq!(in_txn, Err(ApiError::KeyNotFound), "a txn looks for the key first");
}

#[test]
fn a_delete_detaches_and_shows_only_key_and_mod_revision() {
    let mut world = World::with(&[("a", "1"), ("b", "2")]);
    world.put(pb::PutRequest { lease: 7, ..put("b", "3") }).expect("lease 7 exists");
    assert_eq!(world.store.leased_keys(), [(b("b"), 7)]);
    let (response, applied) = world.delete("a", "c");
    let prev: Vec<_> = response.prev_kvs.iter().map(|kv| kv.value.clone()).collect();
    assert_eq!((response.deleted, prev), (2, vec![b("1"), b("3")]));
    assert_eq!(applied.lease_moves.len(), 1);
    let events = applied.events.expect("two keys went");
    assert_eq!(events.revision, 5);
    let expected = KeyValue { key: b("a"), mod_revision: 5, ..Default::default() };
    assert_eq!(events.events[0].kv, Some(expected));
    assert_eq!(world.store.leased_keys(), []);
}

#[test]
fn a_missing_key_compares_as_zero_and_its_value_with_nothing() {
    let mut world = World::with(&[("k", "")]);
    for union in [
        TargetUnion::Version(0),
        TargetUnion::CreateRevision(0),
        TargetUnion::ModRevision(0),
        TargetUnion::Lease(0),
    ] {
        assert!(world.holds(compare("none", Is::Equal, union)));
    }
    for result in [Is::Equal, Is::NotEqual, Is::Greater, Is::Less] {
        assert!(!world.holds(compare("none", result, TargetUnion::Value(Bytes::new()))));
    }
    assert!(world.holds(compare("k", Is::Equal, TargetUnion::Value(Bytes::new()))));
}

#[test]
fn operands_that_do_not_fit_count_as_zero_and_unknown_numbers_pass() {
    let mut world = World::with(&[("k", "v")]);
    let version_of_value = pb::Compare {
        target: CompareTarget::Version.into(),
        ..compare("k", Is::Greater, TargetUnion::Value(b("zzz")))
    };
    assert!(world.holds(version_of_value));
    let nothing =
        pb::Compare { target_union: None, ..compare("k", Is::Greater, TargetUnion::Value(b(""))) };
    assert!(world.holds(nothing), "compared with the empty value");
    let unknown_result =
        pb::Compare { result: 9, ..compare("k", Is::Equal, TargetUnion::Version(5)) };
    assert!(world.holds(unknown_result));
    let unknown_target =
        pb::Compare { target: 9, ..compare("k", Is::Equal, TargetUnion::Version(5)) };
    assert!(world.holds(unknown_target.clone()));
    let unequal = pb::Compare { result: Is::NotEqual.into(), ..unknown_target };
    assert!(!world.holds(unequal), "an unknown target counts as equal");
}

#[test]
fn a_range_compare_must_hold_for_every_key() {
    let mut world = World::with(&[("a", "1"), ("b", "1"), ("c", "2")]);
    let mut ranged = compare("a", Is::Equal, TargetUnion::Value(b("1")));
    ranged.range_end = b("c");
    assert!(world.holds(ranged.clone()));
    ranged.range_end = b("\0");
    assert!(!world.holds(ranged));
}

#[test]
fn nested_compares_see_the_state_before_the_txn() {
    let mut world = World::with(&[]);
    let absent = compare("k", Is::Equal, TargetUnion::CreateRevision(0));
    let nested =
        pb::TxnRequest { compare: vec![absent], success: vec![get("k", 0)], failure: vec![] };
    let ops = vec![op(Op::RequestPut(put("k", "1"))), op(Op::RequestTxn(nested))];
    let responses = world.ops(ops).expect("applied");
    let OpResponse::ResponseTxn(nested) = &responses[1] else { panic!("{responses:?}") };
    assert!(nested.succeeded, "k was absent before the txn");
    assert_eq!(nested.header, Some(pb::ResponseHeader::default()), "a nested header is empty");
    let Some(OpResponse::ResponseRange(range)) = &nested.responses[0].response else {
        panic!("{nested:?}")
    };
    assert_eq!(range.kvs[0].mod_revision, 2, "ranges do see the puts before them");
    let only_revision = pb::ResponseHeader { revision: 2, ..Default::default() };
    assert_eq!(range.header, Some(only_revision));
}

/// As etcd 3.4.23 answers, op by op.
#[test]
fn nested_headers_carry_the_revision_as_it_is_at_that_op() {
    let mut world = World::with(&[("k", "1")]);
    let delete_none = || {
        op(Op::RequestDeleteRange(pb::DeleteRangeRequest { key: b("no"), ..Default::default() }))
    };
    let ops = vec![
        get("k", 0),
        delete_none(),
        op(Op::RequestPut(put("k", "2"))),
        get("k", 0),
        delete_none(),
    ];
    let responses = world.ops(ops).expect("applied");
    let revisions: Vec<i64> = responses
        .iter()
        .map(|response| match response {
            OpResponse::ResponseRange(r) => r.header.expect("set").revision,
            OpResponse::ResponsePut(r) => r.header.expect("set").revision,
            OpResponse::ResponseDeleteRange(r) => r.header.expect("set").revision,
            OpResponse::ResponseTxn(_) => unreachable!("none was asked for"),
        })
        .collect();
    assert_eq!(revisions, [2, 2, 3, 3, 3]);
}

#[test]
fn only_the_taken_branch_is_checked_and_a_refused_txn_changes_nothing() {
    let mut world = World::with(&[("k", "1")]);
    let bad = || op(Op::RequestPut(pb::PutRequest { lease: 8, ..put("l", "") }));
    let exists = compare("k", Is::Greater, TargetUnion::Version(0));
    let txn = pb::TxnRequest {
        compare: vec![exists.clone()],
        success: vec![op(Op::RequestPut(put("k", "2")))],
        failure: vec![bad()],
    };
    assert!(world.txn(txn).expect("the failure branch is not taken").succeeded);
    let hash = world.store.state_hash();
    let refused = world.ops(vec![op(Op::RequestPut(put("k", "3"))), bad()]);
    assert_eq!(refused, Err(ApiError::LeaseNotFound));
    let refused = world.ops(vec![op(Op::RequestPut(put("k", "3"))), get("k", 4)]);
    assert_eq!(refused, Err(ApiError::FutureRevision), "the txn's own revision is not there yet");
    assert_eq!((world.store.revision(), world.store.state_hash()), (3, hash));
}

#[test]
fn a_negative_revision_inside_a_txn_counts_as_compacted() {
    let mut world = World::with(&[("k", "1")]);
    assert_eq!(world.ops(vec![get("k", -2)]), Err(ApiError::Compacted));
    // The compact revision of a store that never was compacted is −1, so this one is not below it.
    assert!(world.ops(vec![get("k", -1)]).is_ok());
    world.compact(0);
    assert_eq!(world.ops(vec![get("k", -1)]), Err(ApiError::Compacted));
}

#[test]
fn a_range_inside_a_txn_reads_an_old_revision() {
    let mut world = World::with(&[("k", "1"), ("k", "2"), ("k", "3")]);
    let responses =
        world.ops(vec![op(Op::RequestPut(put("k", "4"))), get("k", 3)]).expect("applied");
    let OpResponse::ResponseRange(range) = &responses[1] else { panic!("{responses:?}") };
    assert_eq!(range.kvs[0].value, "2");
    world.compact(4);
    assert_eq!(world.ops(vec![get("k", 3)]), Err(ApiError::Compacted));
    assert!(world.ops(vec![get("k", 4)]).is_ok(), "the compact revision is readable");
}

#[test]
fn sub_revisions_follow_the_order_of_execution() {
    let mut world = World::with(&[("b", ""), ("a", "")]);
    let delete = pb::DeleteRangeRequest { key: b("a"), range_end: b("c"), ..Default::default() };
    let ops = vec![
        op(Op::RequestPut(put("z", ""))),
        op(Op::RequestDeleteRange(delete)),
        op(Op::RequestPut(put("y", ""))),
    ];
    world.ops(ops).expect("applied");
    let (changes, _) = world.store.reader().changes(4, 4, b"a", b"\0", 9).expect("history");
    let keys: Vec<_> =
        changes[0].events.iter().map(|e| e.kv.as_ref().expect("set").key.clone()).collect();
    assert_eq!(keys, ["z", "a", "b", "y"]);
}

#[test]
fn a_txn_without_a_linearizable_range_counts_as_serializable() {
    let read_only = |success, failure| {
        txn_is_read_only(&pb::TxnRequest { success, failure, ..Default::default() })
    };
    let serializable = || op(Op::RequestRange(pb::RangeRequest { serializable: true, ..all() }));
    let yes = Some(ReadOnlyTxn { serializable: true });
    assert_eq!(read_only(vec![], vec![]), yes);
    assert_eq!(read_only(vec![serializable()], vec![serializable()]), yes);
    let linearizable = Some(ReadOnlyTxn { serializable: false });
    assert_eq!(read_only(vec![serializable()], vec![get("k", 0)]), linearizable);
    assert_eq!(read_only(vec![], vec![op(Op::RequestPut(put("k", "")))]), None);
    assert_eq!(read_only(vec![op(Op::RequestTxn(Default::default()))], vec![]), None);
}
