//! `watch.json`: each watch with what it was shown.

use std::collections::BTreeMap;

use bytes::Bytes;
use detkv_sim_world::history::{End, History, WatchEnd, WatchEvent, WatchRecord};
use serde_json::{Value, json};

use super::{LeftOut, count, key, value};

/// By client, its watches in the order of their opening.
pub fn of(history: &History, left_out: &mut LeftOut) -> BTreeMap<u32, Vec<Value>> {
    let mut all: BTreeMap<u32, Vec<Value>> = BTreeMap::new();
    for watch in history.watches() {
        match request(history, watch) {
            Ok(request) => {
                let line = json!({ "Request": request, "Responses": responses(history, watch) });
                all.entry(watch.client.0).or_default().push(line);
            }
            Err(why) => count(&mut left_out.watches, why),
        }
    }
    all
}

fn request(history: &History, watch: &WatchRecord) -> Result<Value, &'static str> {
    if watch.no_put || watch.no_delete {
        return Err("a watch with a filter");
    }
    let start = history.key(watch.keys.key);
    let (key, with_prefix) = match watch.keys.end {
        End::Single => (start.clone(), false),
        End::Open if start.as_ref() <= b"\0".as_slice() => (Bytes::new(), true),
        End::Before(end) if prefix_end(start).as_deref() == Some(history.key(end)) => {
            (start.clone(), true)
        }
        _ => return Err("a watch of a range that is no prefix"),
    };
    Ok(json!({
        "Key": super::text(&key),
        "Revision": watch.start_revision,
        "WithPrefix": with_prefix,
        "WithProgressNotify": watch.progress_notify,
        "WithPrevKV": watch.prev_kv,
    }))
}

/// The first key behind all that begin with `prefix`.
fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

/// Fragments of one revision are put together, as etcd's client does.
fn responses(history: &History, watch: &WatchRecord) -> Vec<Value> {
    let mut all = Vec::new();
    let mut events: Vec<Value> = Vec::new();
    for batch in &watch.batches {
        let own = &watch.events[batch.events.start as usize..batch.events.end as usize];
        events.extend(own.iter().map(|shown| event(history, watch, shown)));
        if batch.fragment {
            continue;
        }
        all.push(json!({
            "Revision": batch.revision,
            "Time": batch.at.ns,
            "IsProgressNotify": events.is_empty(),
            "Error": "",
            "Events": std::mem::take(&mut events),
        }));
    }
    if let Some((at, WatchEnd::Canceled { compact_revision, reason })) = &watch.end {
        let compacted = "etcdserver: mvcc: required revision has been compacted";
        let error = if *compact_revision > 0 { compacted } else { reason.as_str() };
        all.push(json!({
            "Revision": 0,
            "Time": at.ns,
            "IsProgressNotify": false,
            "Error": error,
            "Events": [],
        }));
    }
    all
}

fn event(history: &History, watch: &WatchRecord, shown: &WatchEvent) -> Value {
    let kv = history.kv(shown.kv);
    let kind = if shown.is_delete { "delete-operation" } else { "put-operation" };
    let mut event = json!({
        "Type": kind,
        "Key": key(history, kv.key),
        "Value": if shown.is_delete { json!({}) } else { value(history, kv.value) },
        "Revision": kv.mod_revision,
        "IsCreate": !shown.is_delete && kv.create_revision == kv.mod_revision,
    });
    if let Some(prev) = shown.prev.filter(|_| watch.prev_kv) {
        let prev = history.kv(prev);
        event["PrevValue"] = json!({
            "Value": value(history, prev.value),
            "ModRevision": prev.mod_revision,
            "Version": prev.version,
        });
    }
    event
}
