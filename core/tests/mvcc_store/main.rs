//! The store and its file: batches, durability, reopening, compaction, snapshots, damage.

mod compaction;
mod file;
mod history;
#[path = "../mvcc_disk/mod.rs"]
mod mvcc_disk;

use bytes::Bytes;
use detkv_core::api::{ReadReady, Request};
use detkv_core::error::ApiError;
use detkv_core::mvcc::{ReadResult, Store, StoreReader};
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::pb::mvccpb::KeyValue;
use prost::Message;

pub fn put(store: &mut Store, index: u64, key: &str, value: &str) -> i64 {
    let req = pb::PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        ..Default::default()
    };
    let applied = store.put(&req, &|_| true).expect("a plain put is applied");
    store.set_applied(index, 1);
    applied.events.expect("a put makes an event").revision
}

pub fn delete(store: &mut Store, index: u64, key: &str) {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let req = pb::DeleteRangeRequest { key, ..Default::default() };
    store.delete_range(&req).expect("a delete is applied");
    store.set_applied(index, 1);
}

pub fn value_at(
    reader: &StoreReader,
    key: &str,
    revision: i64,
) -> Result<Option<String>, ApiError> {
    let kv = reader.key_at(key.as_bytes(), revision)?;
    Ok(kv.map(|kv| String::from_utf8(kv.value.to_vec()).expect("text")))
}

pub fn range_all(reader: &StoreReader, revision: i64) -> Vec<KeyValue> {
    let all = Bytes::from_static(b"\0");
    let req = pb::RangeRequest { key: all.clone(), range_end: all, revision, ..Default::default() };
    let ready = ReadReady { request: Request::Range(req), header: Default::default() };
    match reader.read(&ready).expect("a readable revision") {
        ReadResult::Range(rows) => {
            rows.kvs.iter().map(|kv| KeyValue::decode(kv.clone()).expect("a KeyValue")).collect()
        }
        _ => unreachable!("a range answers a range"),
    }
}

pub fn compacted(store: &mut Store, index: u64, revision: i64) -> Result<(), ApiError> {
    let result = store.compact(revision);
    store.set_applied(index, 1);
    result
}
