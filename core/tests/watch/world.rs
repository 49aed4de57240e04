//! A hub, a store that is a plain list, and clients that look at what comes out.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use detkv_core::api::{RevisionEvents, StreamId, WatchMessage};
use detkv_core::mvcc::Previous;
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::pb::mvccpb::{Event, KeyValue, event::EventType};
use detkv_core::watch::{History, WatchHub, WatchOptions};
use detkv_core::{ApiError, Instant};
use pb::watch_request::RequestUnion;
use prost::Message as _;

/// Fragment limit of the tests: small, so that ordinary events reach it.
pub const FRAGMENT_BYTES: usize = 100_000;
pub const PROGRESS: Duration = Duration::from_secs(10);

/// One change of a transaction: a value or a deletion.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// Every revision ever: `revisions[i]` is revision `i + 2`, as the first write makes revision 2.
#[derive(Debug, Default)]
pub struct Log {
    pub revisions: Vec<Arc<RevisionEvents>>,
    pub compacted: i64,
}

impl Log {
    pub fn at(&self, revision: i64) -> &Arc<RevisionEvents> {
        &self.revisions[usize::try_from(revision - 2).expect("revisions begin at 2")]
    }

    /// The key as of `revision`, compacted or not.
    pub fn lookup(&self, key: &[u8], revision: i64) -> Option<KeyValue> {
        let older = self.revisions.iter().filter(|r| r.revision <= revision).rev();
        let mut changes = older.flat_map(|r| r.events.iter().rev());
        let last = changes.find(|e| e.kv.as_ref().is_some_and(|kv| kv.key == key))?;
        if last.r#type() == EventType::Put { last.kv.clone() } else { None }
    }

    pub fn apply(&mut self, changes: &[Change]) -> Arc<RevisionEvents> {
        let revision = self.revision() + 1;
        let mut events: Vec<Event> = Vec::new();
        for (key, value) in changes {
            let key = Bytes::copy_from_slice(key);
            let kv = match value {
                Some(value) => {
                    let before = self.lookup(&key, revision);
                    let (created, version) =
                        before.map_or((revision, 0), |kv| (kv.create_revision, kv.version));
                    KeyValue {
                        key,
                        value: Bytes::copy_from_slice(value),
                        create_revision: created,
                        mod_revision: revision,
                        version: version + 1,
                        lease: 0,
                    }
                }
                None => KeyValue { key, mod_revision: revision, ..Default::default() },
            };
            let kind = if value.is_some() { EventType::Put } else { EventType::Delete };
            events.push(Event { r#type: kind.into(), kv: Some(kv), prev_kv: None });
        }
        self.revisions.push(Arc::new(RevisionEvents::new(revision, events)));
        self.revisions[self.revisions.len() - 1].clone()
    }
}

pub fn in_span(key: &[u8], start: &[u8], range_end: &[u8]) -> bool {
    match range_end {
        b"" => key == start,
        b"\0" => key >= start,
        _ => key >= start && key < range_end,
    }
}

impl History for Log {
    fn revision(&self) -> i64 {
        1 + self.revisions.len() as i64
    }

    fn compact_revision(&self) -> i64 {
        self.compacted
    }

    fn changes(
        &self,
        from: i64,
        to: i64,
        key: &[u8],
        range_end: &[u8],
        max_revisions: usize,
    ) -> Result<(Vec<RevisionEvents>, i64), ApiError> {
        if from < self.compacted {
            return Err(ApiError::Compacted);
        }
        let mut found = Vec::new();
        for revision in from.max(2)..=to {
            let mut events = self.at(revision).events.clone();
            events.retain(|e| e.kv.as_ref().is_some_and(|kv| in_span(&kv.key, key, range_end)));
            if !events.is_empty() {
                if found.len() == max_revisions {
                    return Ok((found, revision));
                }
                found.push(RevisionEvents::new(revision, events));
            }
        }
        Ok((found, to + 1))
    }

    fn key_at(&self, key: &[u8], revision: i64) -> Result<Option<KeyValue>, ApiError> {
        assert!((1..=self.revision()).contains(&revision), "asked for revision {revision}");
        if revision < self.compacted {
            return Err(ApiError::Compacted);
        }
        Ok(self.lookup(key, revision))
    }
}

pub struct World {
    pub hub: WatchHub,
    pub log: Log,
    pub now: Instant,
}

pub const S: StreamId = StreamId(1);

impl World {
    /// With stream `S` open.
    pub fn new() -> Self {
        let options = WatchOptions {
            progress_interval: PROGRESS,
            fragment_bytes: FRAGMENT_BYTES,
            stream_bytes: 1 << 20,
            seed: 7,
        };
        let mut hub = WatchHub::new(options);
        hub.open_stream(Instant::ZERO, S);
        Self { hub, log: Log::default(), now: Instant::ZERO }
    }

    pub fn apply(&mut self, changes: &[Change]) {
        let before = self.log.revision();
        let events = self.log.apply(changes);
        // As the store does: at hand, or to be read.
        let previous = |event: &Event| match event.kv.as_ref() {
            Some(kv) if before % 2 == 0 => match self.log.lookup(&kv.key, before) {
                Some(previous) => Previous::Here(previous.encode_to_vec().into()),
                None => Previous::Absent,
            },
            _ => Previous::Unread,
        };
        let previous: Vec<Previous> = events.events.iter().map(previous).collect();
        self.hub.on_applied(&events, &previous, &self.log);
    }

    pub fn put(&mut self, key: &str, value: &str) {
        self.apply(&[(key.into(), Some(value.into()))]);
    }

    pub fn delete(&mut self, key: &str) {
        self.apply(&[(key.into(), None)]);
    }

    pub fn request(&mut self, stream: StreamId, union: RequestUnion) {
        let request = pb::WatchRequest { request_union: Some(union) };
        self.hub.handle(self.now, stream, request, &self.log);
    }

    pub fn create(&mut self, request: pb::WatchCreateRequest) {
        self.request(S, RequestUnion::CreateRequest(request));
    }

    pub fn cancel(&mut self, watch_id: i64) {
        self.request(S, RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id }));
    }

    pub fn progress(&mut self) {
        self.request(S, RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
    }

    /// One poll; nothing is drained.
    pub fn messages(&mut self) -> Vec<(StreamId, WatchMessage)> {
        let header = pb::ResponseHeader { cluster_id: 5, member_id: 6, revision: 0, raft_term: 7 };
        let mut out = Vec::new();
        self.hub.poll(self.now, &self.log, &header, &mut out);
        for (_, message) in &out {
            let header = message.head.header.expect("every answer has a header");
            assert_eq!((header.cluster_id, header.member_id, header.raft_term), (5, 6, 7));
        }
        out
    }

    /// What one poll gives, drained at once.
    pub fn poll(&mut self) -> Vec<pb::WatchResponse> {
        let messages = self.messages();
        for (stream, message) in &messages {
            self.hub.on_drained(self.now, *stream, message.bytes);
        }
        messages.iter().map(|(_, message)| message.to_response()).collect()
    }

    /// Polls, with the deadlines that are due now, until nothing comes any more.
    pub fn settle(&mut self) -> Vec<pb::WatchResponse> {
        let mut all = self.poll();
        while self.hub.next_deadline().is_some_and(|due| due <= self.now) {
            all.extend(self.poll());
        }
        all
    }
}

pub fn watch(key: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..Default::default() }
}

pub fn watch_range(key: &str, range_end: &str) -> pb::WatchCreateRequest {
    let range_end = Bytes::copy_from_slice(range_end.as_bytes());
    pb::WatchCreateRequest { range_end, ..watch(key) }
}

pub fn revision(response: &pb::WatchResponse) -> i64 {
    response.header.expect("every answer has a header").revision
}

/// (key, mod revision, is a put) of each event.
pub fn events(response: &pb::WatchResponse) -> Vec<(String, i64, bool)> {
    let event = |e: &Event| {
        let kv = e.kv.as_ref().expect("an event has a kv");
        let key = String::from_utf8_lossy(&kv.key).into_owned();
        (key, kv.mod_revision, e.r#type() == EventType::Put)
    };
    response.events.iter().map(event).collect()
}
