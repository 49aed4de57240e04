//! What an idle watch costs: goal < 512 bytes (design §9), counted at the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use detkv_core::api::{RevisionEvents, StreamId};
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::pb::mvccpb::KeyValue;
use detkv_core::watch::{History, WatchHub, WatchOptions};
use detkv_core::{ApiError, Instant};
use pb::watch_request::RequestUnion;

/// Counts the bytes that are allocated now.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Empty;

impl History for Empty {
    fn revision(&self) -> i64 {
        1
    }

    fn compact_revision(&self) -> i64 {
        -1
    }

    fn changes(
        &self,
        from: i64,
        _: i64,
        _: &[u8],
        _: &[u8],
        _: usize,
    ) -> Result<(Vec<RevisionEvents>, i64), ApiError> {
        Ok((Vec::new(), from))
    }

    fn key_at(&self, _: &[u8], _: i64) -> Result<Option<KeyValue>, ApiError> {
        Ok(None)
    }
}

const WATCHES: u64 = 100_000;

/// Bytes per watch, its share of the stream included.
fn bytes_per_watch(per_stream: u64, range_end: impl Fn(&str) -> String) -> usize {
    let options = WatchOptions {
        progress_interval: Duration::from_secs(600),
        fragment_bytes: 1,
        stream_bytes: 1 << 20,
        seed: 1,
    };
    let before = LIVE.load(Relaxed);
    let mut hub = WatchHub::new(options);
    for i in 0..WATCHES {
        let stream = StreamId(i / per_stream);
        if i % per_stream == 0 {
            hub.open_stream(Instant::ZERO, stream);
        }
        let key = format!("/registry/pods/default/pod-{i:08}");
        let request = pb::WatchCreateRequest {
            range_end: Bytes::from(range_end(&key)),
            key: Bytes::from(key),
            prev_kv: true,
            ..Default::default()
        };
        let union = Some(RequestUnion::CreateRequest(request));
        hub.handle(Instant::ZERO, stream, pb::WatchRequest { request_union: union }, &Empty);
        if i % 100 == 99 {
            let mut out = Vec::new();
            hub.poll(Instant::ZERO, &Empty, &pb::ResponseHeader::default(), &mut out);
            out.iter().for_each(|(s, m)| hub.on_drained(Instant::ZERO, *s, m.bytes));
        }
    }
    assert_eq!((hub.counts().watchers, hub.counts().slow), (WATCHES, 0));
    (LIVE.load(Relaxed) - before) / WATCHES as usize
}

/// One test only: another one's allocations would be counted too.
#[test]
fn an_idle_watch_takes_less_than_512_bytes() {
    let single = bytes_per_watch(1000, |_| String::new());
    let range = bytes_per_watch(1000, |key| format!("{key}0"));
    let alone = bytes_per_watch(1, |_| String::new());
    println!("bytes per idle watch: key {single}, range {range}, alone on its stream {alone}");
    assert!(single < 512 && range < 512, "key {single}, range {range}");
    assert!(alone < 1024, "a stream of its own included: {alone}");
}
