//! The compactor of an API server. All servers share one key with a revision in it; who manages to raise the
//! key's version has the turn, and compacts what the key named before.

use bytes::Bytes;
use detkv_core::Instant;
use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};

use super::Kubernetes;
use crate::client::requests::{get_op, put_op};
use crate::client::{Client, Clients};
use crate::handle::Reply;

const KEY: &[u8] = b"compact_rev_key";

pub(super) fn start(options: &Kubernetes, clients: &Clients, n: usize, end: Instant) {
    let client = clients.roaming(n, options.timeout);
    clients.spawn(run(client, options.compact_every, end));
}

async fn run(client: Client, every: std::time::Duration, end: Instant) {
    // Version of the key and revision of the store at the last look.
    let (mut version, mut revision) = (0, 0);
    loop {
        let next = client.handle().now() + every;
        if next >= end {
            return;
        }
        client.handle().sleep_until(next).await;
        let turn = take_turn(version, revision);
        let Ok(Reply::Txn(got)) = client.call(turn).await else { continue };
        let now = got.header.as_ref().map_or(0, |header| header.revision);
        if got.succeeded {
            version += 1;
            if revision > 1 {
                let compact = pb::CompactionRequest { revision, physical: false };
                // Somebody else may have been faster.
                let _ = client.call(Request::Compact(compact)).await;
            }
        } else {
            version = version_of(&got);
        }
        revision = now;
    }
}

/// Raises the version of the key, if it is still `version`.
fn take_turn(version: i64, revision: i64) -> Request {
    let key = Bytes::from_static(KEY);
    let compare = pb::Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Version as i32,
        key: key.clone(),
        target_union: Some(TargetUnion::Version(version)),
        ..Default::default()
    };
    let value = Bytes::from(revision.to_string());
    let put = pb::PutRequest { key: key.clone(), value, ..Default::default() };
    Request::Txn(pb::TxnRequest {
        compare: vec![compare],
        success: vec![put_op(put)],
        failure: vec![get_op(key)],
    })
}

fn version_of(got: &pb::TxnResponse) -> i64 {
    let row = got.responses.first().and_then(|op| match op.response.as_ref()? {
        pb::response_op::Response::ResponseRange(rows) => rows.kvs.first(),
        _ => None,
    });
    row.map_or(0, |kv| kv.version)
}
