//! What a request may cost of the quota, before it is known (surface spec §16.6).

use crate::pb::etcdserverpb as pb;
use crate::pb::etcdserverpb::request_op::Request as Op;

/// Beside key and value of a put (etcd's value).
const PUT_OVERHEAD_BYTES: u64 = 256;
/// A lease (etcd's value).
const GRANT_BYTES: u64 = 64;

/// Bytes that a request may add to the backend, as etcd estimates them. 0 always has room: what
/// only reads, deletes or frees goes on when the quota is used up.
pub trait Cost {
    fn cost_bytes(&self) -> u64;
}

impl Cost for pb::PutRequest {
    fn cost_bytes(&self) -> u64 {
        PUT_OVERHEAD_BYTES + (self.key.len() + self.value.len()) as u64
    }
}

impl Cost for pb::LeaseGrantRequest {
    fn cost_bytes(&self) -> u64 {
        GRANT_BYTES
    }
}

impl Cost for pb::TxnRequest {
    /// The dearer branch: which one will be taken is not known yet.
    fn cost_bytes(&self) -> u64 {
        let sum = |ops: &[pb::RequestOp]| ops.iter().map(op_cost).sum();
        u64::max(sum(&self.success), sum(&self.failure))
    }
}

fn op_cost(op: &pb::RequestOp) -> u64 {
    match &op.request {
        Some(Op::RequestPut(put)) => put.cost_bytes(),
        Some(Op::RequestTxn(txn)) => txn.cost_bytes(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(request: Op) -> pb::RequestOp {
        pb::RequestOp { request: Some(request) }
    }

    #[test]
    fn costs_are_etcds_estimates() {
        let put = pb::PutRequest { key: "ab".into(), value: "xyz".into(), ..Default::default() };
        assert_eq!(put.cost_bytes(), 261);
        assert_eq!(pb::LeaseGrantRequest::default().cost_bytes(), 64);
        let delete = op(Op::RequestDeleteRange(pb::DeleteRangeRequest::default()));
        let txn = pb::TxnRequest {
            success: vec![op(Op::RequestPut(put.clone())), delete.clone()],
            failure: vec![op(Op::RequestPut(put.clone())), op(Op::RequestPut(put))],
            ..Default::default()
        };
        assert_eq!(txn.cost_bytes(), 522, "the dearer branch");
        let outer = pb::TxnRequest { success: vec![op(Op::RequestTxn(txn))], ..Default::default() };
        assert_eq!(outer.cost_bytes(), 522, "nested txns count");
        let free = pb::TxnRequest { success: vec![delete], ..Default::default() };
        assert_eq!(free.cost_bytes(), 0);
    }
}
