//! Requests as clients write them, without the wire's ceremony.

use bytes::Bytes;
use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use detkv_core::pb::etcdserverpb::request_op;

use crate::handle::Reply;

pub fn op(request: request_op::Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

pub fn put_op(put: pb::PutRequest) -> pb::RequestOp {
    op(request_op::Request::RequestPut(put))
}

pub fn get_op(key: Bytes) -> pb::RequestOp {
    op(request_op::Request::RequestRange(get(key)))
}

pub fn delete_op(key: Bytes) -> pb::RequestOp {
    let delete = pb::DeleteRangeRequest { key, ..Default::default() };
    op(request_op::Request::RequestDeleteRange(delete))
}

pub fn get(key: Bytes) -> pb::RangeRequest {
    pb::RangeRequest { key, ..Default::default() }
}

/// Holds when the key was last changed at `revision`; 0: it is not there.
pub fn mod_revision_is(key: Bytes, revision: i64) -> pb::Compare {
    pb::Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Mod as i32,
        key,
        target_union: Some(TargetUnion::ModRevision(revision)),
        ..Default::default()
    }
}

/// As Kubernetes writes: `write` if the key is as last seen, else read it.
pub fn guarded(key: Bytes, seen: i64, write: pb::RequestOp) -> Request {
    Request::Txn(pb::TxnRequest {
        compare: vec![mod_revision_is(key.clone(), seen)],
        success: vec![write],
        failure: vec![get_op(key)],
    })
}

/// Mod revision of the key after a guarded write; 0 when it is not there.
pub fn revision_after(got: &pb::TxnResponse) -> i64 {
    match got.responses.first().and_then(|op| op.response.as_ref()) {
        Some(pb::response_op::Response::ResponseRange(rows)) => {
            rows.kvs.first().map_or(0, |kv| kv.mod_revision)
        }
        Some(pb::response_op::Response::ResponsePut(_)) => {
            got.header.as_ref().map_or(0, |header| header.revision)
        }
        _ => 0,
    }
}

/// The revision in a reply's header; 0 where it has none.
pub fn header_revision(reply: &Reply) -> i64 {
    let header = match reply {
        Reply::Range(r) => &r.header,
        Reply::Put(r) => &r.header,
        Reply::DeleteRange(r) => &r.header,
        Reply::Txn(r) => &r.header,
        Reply::Compact(r) => &r.header,
        Reply::LeaseGrant(r) => &r.header,
        Reply::LeaseRevoke(r) => &r.header,
        _ => return 0,
    };
    header.as_ref().map_or(0, |header| header.revision)
}
