//! Random use: every watcher sees exactly the events of its filter from its start, in order, once,
//! whole revisions at a time, or ends compacted; whatever the transport does.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use detkv_core::api::{StreamId, WatchMessage};
use detkv_core::limits::WATCH_STREAM_BYTES_MAX;
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::pb::mvccpb::{Event, event::EventType};
use detkv_core::watch::History;
use pb::watch_request::RequestUnion;
use proptest::prelude::*;

use crate::world::{Change, PROGRESS, World, in_span, revision};

#[derive(Clone, Debug)]
enum Op {
    /// A transaction over keys `a`…`f`; the size of a value is up to a third of the credit.
    Apply(Vec<(u8, Option<usize>)>),
    Create {
        stream: u64,
        request: pb::WatchCreateRequest,
        /// Start relative to the current revision; `None` for 0.
        start: Option<i64>,
    },
    Cancel {
        stream: u64,
        id: i64,
    },
    Progress {
        stream: u64,
    },
    /// The transport takes this many messages.
    Drain {
        stream: u64,
        messages: usize,
    },
    /// So many revisions are kept.
    Compact {
        kept: i64,
    },
    /// Revisions that come with a snapshot: nobody applies them.
    Install(Vec<(u8, usize)>),
    Reopen {
        stream: u64,
    },
    Wait {
        ms: u64,
    },
    Poll,
}

const STREAMS: u64 = 3;

fn key() -> impl Strategy<Value = u8> {
    b'a'..=b'f'
}

fn value() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 1..50usize, 1 => 30_000..400_000usize]
}

fn create() -> impl Strategy<Value = Op> {
    let range_end = prop_oneof![
        3 => Just(Bytes::new()),
        1 => Just(Bytes::from_static(b"\0")),
        2 => key().prop_map(|k| Bytes::from(vec![k])),
    ];
    let start = prop_oneof![2 => Just(None), 3 => (-30..8i64).prop_map(Some)];
    let id = prop_oneof![3 => Just(0i64), 1 => -2..6i64];
    let flags = any::<(bool, bool, bool)>();
    let filters = prop::collection::vec(0..3i32, 0..2);
    (0..STREAMS, key(), range_end, start, id, flags, filters).prop_map(
        |(
            stream,
            key,
            range_end,
            start,
            watch_id,
            (prev_kv, progress_notify, fragment),
            filters,
        )| {
            let key = Bytes::from(vec![key]);
            let request = pb::WatchCreateRequest {
                key,
                range_end,
                start_revision: 0,
                progress_notify,
                filters,
                prev_kv,
                watch_id,
                fragment,
            };
            Op::Create { stream, request, start }
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let apply = prop::collection::vec((key(), prop::option::weighted(0.7, value())), 1..4);
    let install = prop::collection::vec((key(), 1..50usize), 1..20);
    prop_oneof![
        30 => apply.prop_map(Op::Apply),
        12 => create(),
        4 => (0..STREAMS, -2..6i64).prop_map(|(stream, id)| Op::Cancel { stream, id }),
        6 => (0..STREAMS).prop_map(|stream| Op::Progress { stream }),
        12 => (0..STREAMS, 1..6usize).prop_map(|(stream, messages)| Op::Drain { stream, messages }),
        2 => (0..15i64).prop_map(|kept| Op::Compact { kept }),
        1 => install.prop_map(Op::Install),
        1 => (0..STREAMS).prop_map(|stream| Op::Reopen { stream }),
        4 => (1..8_000u64).prop_map(|ms| Op::Wait { ms }),
        20 => Just(Op::Poll),
    ]
}

/// What the client of a watch knows.
#[derive(Debug)]
struct Client {
    request: pb::WatchCreateRequest,
    /// Nothing below it may come.
    start: i64,
    created: bool,
    compacted: bool,
    /// Events so far; the last of them may belong to a response whose fragments go on.
    seen: Vec<Event>,
    fragments_open: bool,
}

impl Client {
    fn wants(&self, event: &Event) -> bool {
        let kv = event.kv.as_ref().expect("an event has a kv");
        let filter = if event.r#type() == EventType::Put { 0 } else { 1 };
        in_span(&kv.key, &self.request.key, &self.request.range_end)
            && !self.request.filters.contains(&filter)
    }

    /// Everything it should have after the revision `to`.
    fn wanted(&self, world: &World, to: i64) -> Vec<Event> {
        let revisions = world.log.revisions.iter();
        let revisions = revisions.filter(|r| (self.start..=to).contains(&r.revision));
        let events = revisions.flat_map(|r| &r.events);
        events.filter(|e| self.wants(e)).cloned().collect()
    }

    fn last_seen(&self) -> i64 {
        let last = self.seen.last().and_then(|e| e.kv.as_ref());
        last.map_or(self.start - 1, |kv| kv.mod_revision)
    }
}

struct Run {
    world: World,
    clients: BTreeMap<(u64, i64), Client>,
    /// Not yet drained, per stream, in order.
    transport: BTreeMap<u64, Vec<WatchMessage>>,
    /// Requests whose answer has not come yet.
    awaited: BTreeMap<u64, Vec<Awaited>>,
}

#[derive(Debug)]
enum Awaited {
    Created(pb::WatchCreateRequest, i64),
    Canceled(i64),
}

impl Run {
    fn new() -> Self {
        let mut world = World::new();
        world.hub.close_stream(crate::world::S);
        for stream in 0..STREAMS {
            world.hub.open_stream(world.now, StreamId(stream));
        }
        let streams = || (0..STREAMS).map(|s| (s, Vec::new()));
        let transport = streams().collect();
        let awaited = (0..STREAMS).map(|s| (s, Vec::new())).collect();
        Self { world, clients: BTreeMap::new(), transport, awaited }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Apply(changes) => {
                let change = |(key, value): (u8, Option<usize>)| -> Change {
                    (vec![key], value.map(|len| vec![key; len]))
                };
                let mut changes: Vec<Change> = changes.into_iter().map(change).collect();
                let keys: std::collections::BTreeSet<_> =
                    changes.iter().map(|(key, value)| (key.clone(), value.is_some())).collect();
                // A key is put at most once in a revision.
                changes.retain({
                    let mut left = keys;
                    move |(key, value)| left.remove(&(key.clone(), value.is_some()))
                });
                self.world.apply(&changes);
            }
            Op::Create { stream, mut request, start } => {
                let current = self.world.log.revision();
                request.start_revision = start.map_or(0, |s| (current + s).max(1));
                let first =
                    if request.start_revision == 0 { current + 1 } else { request.start_revision };
                self.world.request(StreamId(stream), RequestUnion::CreateRequest(request.clone()));
                self.awaited.get_mut(&stream).unwrap().push(Awaited::Created(request, first));
            }
            Op::Cancel { stream, id } => {
                let cancel = pb::WatchCancelRequest { watch_id: id };
                self.world.request(StreamId(stream), RequestUnion::CancelRequest(cancel));
                self.awaited.get_mut(&stream).unwrap().push(Awaited::Canceled(id));
            }
            Op::Progress { stream } => {
                let union = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
                self.world.request(StreamId(stream), union);
            }
            Op::Drain { stream, messages } => self.drain(stream, messages),
            Op::Compact { kept } => {
                let compacted = self.world.log.revision() - kept;
                self.world.log.compacted = self.world.log.compacted.max(compacted);
            }
            Op::Install(puts) => {
                for (key, len) in puts {
                    self.world.log.apply(&[(vec![key], Some(vec![key; len]))]);
                }
                self.world.hub.on_store_replaced();
            }
            Op::Reopen { stream } => {
                self.world.hub.close_stream(StreamId(stream));
                self.poll();
                self.world.hub.open_stream(self.world.now, StreamId(stream));
                self.clients.retain(|(s, _), _| *s != stream);
                self.transport.get_mut(&stream).unwrap().clear();
                self.awaited.get_mut(&stream).unwrap().clear();
            }
            Op::Wait { ms } => self.world.now = self.world.now + Duration::from_millis(ms),
            Op::Poll => self.poll(),
        }
    }

    fn drain(&mut self, stream: u64, messages: usize) {
        let queue = self.transport.get_mut(&stream).unwrap();
        for message in queue.drain(..messages.min(queue.len())) {
            self.world.hub.on_drained(self.world.now, StreamId(stream), message.bytes);
        }
    }

    fn poll(&mut self) {
        for (stream, message) in self.world.messages() {
            let in_flight: u64 = self.transport[&stream.0].iter().map(|m| m.bytes).sum();
            let response = message.to_response();
            let goes_on = self.clients.get(&(stream.0, response.watch_id));
            let goes_on = goes_on.is_some_and(|client| client.fragments_open);
            let control = response.created || response.canceled;
            assert!(
                in_flight < WATCH_STREAM_BYTES_MAX || control || goes_on,
                "sent without credit: {in_flight} bytes are in flight"
            );
            self.transport.get_mut(&stream.0).unwrap().push(message);
            self.receive(stream.0, &response);
        }
    }

    fn receive(&mut self, stream: u64, response: &pb::WatchResponse) {
        let id = response.watch_id;
        if response.created {
            return self.receive_created(stream, response);
        }
        if response.canceled && response.compact_revision == 0 {
            let client = self.clients.remove(&(stream, id)).expect("only known ids are cancelled");
            assert!(client.created && !client.fragments_open);
            let awaited = self.awaited.get_mut(&stream).unwrap();
            let asked = awaited.iter().position(|a| matches!(a, Awaited::Canceled(i) if *i == id));
            awaited.remove(asked.expect("a cancel is an answer"));
            return;
        }
        if response.canceled {
            let client = self.clients.get_mut(&(stream, id)).expect("a known watch");
            assert_eq!(revision(response), 0);
            assert_eq!(response.compact_revision, self.world.log.compacted);
            // What it has not had may all be other keys; the watch cannot know any more.
            assert!(!client.compacted && client.last_seen() + 1 < response.compact_revision);
            client.compacted = true;
            return;
        }
        if response.events.is_empty() {
            return self.receive_progress(stream, response);
        }
        let client = self.clients.get_mut(&(stream, id)).expect("events of a known watch");
        assert!(client.created && !client.compacted);
        assert!(client.request.fragment || !response.fragment);
        client.seen.extend(response.events.iter().cloned());
        client.fragments_open = response.fragment;
        let client = &self.clients[&(stream, id)];
        assert!(revision(response) >= client.last_seen());
        let prefix = client.wanted(&self.world, client.last_seen());
        if client.fragments_open {
            assert!(prefix.len() >= client.seen.len());
        } else {
            assert_eq!(prefix.len(), client.seen.len(), "whole revisions, no gap, no repeat");
        }
        for (wanted, seen) in prefix.iter().zip(&client.seen) {
            assert_eq!((&wanted.kv, wanted.r#type), (&seen.kv, seen.r#type));
            self.check_prev_kv(client, seen);
        }
    }

    fn check_prev_kv(&self, client: &Client, event: &Event) {
        let kv = event.kv.as_ref().expect("an event has a kv");
        let before = self.world.log.lookup(&kv.key, kv.mod_revision - 1);
        if !client.request.prev_kv {
            assert_eq!(event.prev_kv, None);
        } else if event.prev_kv.is_some() || kv.mod_revision > self.world.log.compacted {
            assert_eq!(event.prev_kv, before, "the key before the whole revision");
        }
    }

    fn receive_created(&mut self, stream: u64, response: &pb::WatchResponse) {
        let awaited = self.awaited.get_mut(&stream).unwrap();
        let asked = awaited.iter().position(|a| matches!(a, Awaited::Created(..)));
        let Awaited::Created(request, start) = awaited.remove(asked.expect("it was asked for"))
        else {
            unreachable!("the position is that of a create")
        };
        if response.canceled {
            assert_eq!(response.watch_id, -1);
            let duplicate = self.clients.contains_key(&(stream, request.watch_id));
            let empty = request.range_end.len() == 1
                && request.range_end != b"\0"[..]
                && request.range_end <= request.key;
            assert!(duplicate || empty, "refused: {}", response.cancel_reason);
            return;
        }
        let client = Client {
            request,
            start,
            created: true,
            compacted: false,
            seen: Vec::new(),
            fragments_open: false,
        };
        let before = self.clients.insert((stream, response.watch_id), client);
        assert!(before.is_none(), "id {} was in use", response.watch_id);
    }

    /// Every event up to the revision has been delivered, to one watch or to all of the stream.
    fn receive_progress(&self, stream: u64, response: &pb::WatchResponse) {
        let (id, revision) = (response.watch_id, revision(response));
        let one = self.clients.get(&(stream, id)).filter(|c| c.request.progress_notify);
        let all = || {
            assert_eq!(id, -1, "progress nobody asked for");
            self.clients.iter().filter(|((s, _), _)| *s == stream).map(|(_, c)| c).collect()
        };
        let covered: Vec<&Client> = one.map_or_else(all, |client| vec![client]);
        assert!(!covered.is_empty());
        for client in covered {
            assert!(!client.compacted);
            assert!(client.start <= revision || client.request.start_revision == 0);
            let wanted = client.wanted(&self.world, revision).len();
            assert_eq!(client.seen.len(), wanted, "progress overtook events");
        }
    }

    /// The transport takes everything: in the end all is delivered.
    fn finish(&mut self) {
        loop {
            self.poll();
            let left: usize = self.transport.values().map(Vec::len).sum();
            (0..STREAMS).for_each(|stream| self.drain(stream, usize::MAX));
            let due = self.world.hub.next_deadline();
            if left == 0 && due.is_none_or(|due| due > self.world.now) {
                break;
            }
        }
        assert_eq!(self.world.hub.counts().slow, 0);
        assert_eq!(self.world.hub.counts().watchers, self.clients.len() as u64);
        let current = self.world.log.revision();
        for client in self.clients.values() {
            let wanted = client.wanted(&self.world, current);
            if !client.compacted {
                assert_eq!(client.seen.len(), wanted.len(), "not all delivered: {client:?}");
            }
        }
        for awaited in self.awaited.values().flatten() {
            assert!(matches!(awaited, Awaited::Canceled(_)), "unanswered: {awaited:?}");
        }
        assert!(self.world.hub.next_deadline().is_none_or(|d| d <= self.world.now + PROGRESS * 2));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_watch_sees_its_events_in_order_once_and_whole(
        ops in prop::collection::vec(op(), 1..150)
    ) {
        let mut run = Run::new();
        ops.into_iter().for_each(|op| run.step(op));
        run.finish();
    }
}
