//! The hub over the real store: what a watch is sent is what was applied, wherever the rows lie.

mod mvcc_disk;

use bytes::Bytes;
use detkv_core::api::{RevisionEvents, StreamId};
use detkv_core::mvcc::Store;
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::watch::{WatchHub, WatchOptions};
use detkv_core::{Instant, StoreReader};
use mvcc_disk::{MemFiles, flush, open};
use pb::watch_request::RequestUnion;
use std::sync::Arc;
use std::time::Duration;

const S: StreamId = StreamId(1);

fn put(store: &mut Store, key: &str) -> Arc<RevisionEvents> {
    let request = pb::PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: "v".into(),
        ..Default::default()
    };
    let applied = store.put(&request, &|_| false).expect("a plain put");
    applied.events.expect("a put changes something")
}

/// The revisions that a new watch of `[a, b)` from `start` is sent, with what is to be had now.
fn watched(reader: &StoreReader, start: i64) -> Vec<i64> {
    let mut hub = WatchHub::new(WatchOptions {
        progress_interval: Duration::from_secs(600),
        fragment_bytes: 2 << 20,
        stream_bytes: 1 << 20,
        seed: 1,
    });
    hub.open_stream(Instant::ZERO, S);
    let create = pb::WatchCreateRequest {
        key: "a".into(),
        range_end: "b".into(),
        start_revision: start,
        prev_kv: true,
        ..Default::default()
    };
    let request_union = Some(RequestUnion::CreateRequest(create));
    hub.handle(Instant::ZERO, S, pb::WatchRequest { request_union }, reader);
    let (mut seen, mut out) = (Vec::new(), Vec::new());
    while hub.next_deadline().is_some_and(|due| due <= Instant::ZERO) {
        hub.poll(Instant::ZERO, reader, &pb::ResponseHeader::default(), &mut out);
        for (stream, message) in out.drain(..) {
            hub.on_drained(Instant::ZERO, stream, message.bytes);
            let events = message.events.as_slice().iter();
            seen.extend(events.map(|e| e.kv.as_ref().expect("an event has a kv").mod_revision));
        }
    }
    assert_eq!(hub.counts().slow, 0);
    seen
}

#[test]
fn a_watch_finds_its_event_behind_thousands_of_others() {
    let files = MemFiles::new();
    let mut store = open(&files);
    let reader = store.reader();
    let mut now = Instant::ZERO;
    // More keys than are looked up one by one.
    for i in 0..100 {
        put(&mut store, &format!("a{i}"));
    }
    let start = store.revision() + 1;
    for i in 0..9_000 {
        put(&mut store, &format!("z{i}"));
    }
    let wanted = put(&mut store, "a5").revision;
    assert_eq!(watched(&reader, start), [wanted], "all in memory");
    store.set_applied(1, 1);
    flush(&mut store, &mut now);
    assert_eq!(watched(&reader, start), [wanted], "all in the file");
    for i in 0..9_000 {
        put(&mut store, &format!("z{i}"));
    }
    let last = put(&mut store, "a6").revision;
    assert_eq!(watched(&reader, start), [wanted, last], "in both");
}
