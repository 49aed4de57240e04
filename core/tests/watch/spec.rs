//! Sentences of surface spec §4.

use std::sync::Arc;
use std::time::Duration;

use detkv_core::Instant;
use detkv_core::api::{StreamId, WatchEvents};
use detkv_core::limits::WATCH_STREAM_BYTES_MAX;
use detkv_core::pb::etcdserverpb as pb;

use crate::world::{FRAGMENT_BYTES, PROGRESS, S, World, events, revision, watch, watch_range};

const MB: usize = WATCH_STREAM_BYTES_MAX as usize;

/// The one answer there is.
fn one(world: &mut World) -> pb::WatchResponse {
    let mut all = world.poll();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn none(world: &mut World) {
    let all = world.poll();
    assert!(all.is_empty(), "{all:?}");
}

/// A world with puts of `a` at revisions 2 to `last`.
fn history(last: i64) -> World {
    let mut world = World::new();
    (2..=last).for_each(|_| world.put("a", "v"));
    world
}

fn from(start_revision: i64) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { start_revision, ..watch("a") }
}

#[test]
fn created_comes_before_any_event_with_the_current_revision() {
    let mut world = history(3);
    world.create(from(2));
    world.put("a", "new");
    let all = world.settle();
    assert!(all[0].created && revision(&all[0]) == 3 && all[0].events.is_empty());
    assert_eq!(events(&all[1]).iter().map(|e| e.1).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!(all.len(), 2);
}

#[test]
fn an_empty_key_is_the_zero_byte_and_a_zero_range_end_is_open() {
    let mut world = World::new();
    world.create(watch_range("", "\0"));
    world.create(watch(""));
    world.poll();
    world.put("\0", "x");
    assert_eq!(world.poll().len(), 2);
    world.put("\u{7f}", "x");
    assert_eq!(one(&mut world).watch_id, 0);
}

#[test]
fn a_refused_watch_is_created_and_canceled_in_one_message() {
    let mut world = World::new();
    let explicit = pb::WatchCreateRequest { watch_id: -9, ..watch("a") };
    world.create(explicit.clone());
    assert_eq!(one(&mut world).watch_id, -9);
    for (request, reason) in [
        (watch_range("b", "b"), "mvcc: watcher range is empty"),
        (explicit, "mvcc: duplicate watch ID provided on the WatchStream"),
        (from(-1), "etcdserver: mvcc: required revision has been compacted"),
    ] {
        world.create(request);
        let refused = one(&mut world);
        assert!(refused.created && refused.canceled);
        assert_eq!((refused.watch_id, refused.compact_revision), (-1, 0));
        assert_eq!(refused.cancel_reason, reason);
    }
    assert_eq!(world.hub.counts().watchers, 1);
}

#[test]
fn a_compacted_start_is_created_and_later_canceled_and_its_id_stays_until_cancelled() {
    let mut world = history(10);
    world.log.compacted = 6;
    world.create(from(5));
    world.create(from(6));
    let all = world.settle();
    assert!(all[0].created && !all[0].canceled && all[1].created);
    let gone = all.iter().find(|r| r.canceled).expect("compacted");
    assert_eq!((gone.watch_id, gone.compact_revision, revision(gone)), (0, 6, 0));
    assert!(!gone.created && gone.cancel_reason.is_empty());
    let served: Vec<_> = all.iter().filter(|r| !r.events.is_empty()).collect();
    assert_eq!(
        (served.len(), served[0].watch_id),
        (1, 1),
        "the compact revision itself is allowed"
    );
    assert_eq!(events(served[0])[0].1, 6);

    world.progress();
    none(&mut world);
    world.create(pb::WatchCreateRequest { watch_id: 0, ..watch("b") });
    assert_eq!(one(&mut world).watch_id, 2, "id 0 is still in use");
    world.cancel(0);
    let canceled = one(&mut world);
    assert!(canceled.canceled && canceled.compact_revision == 0 && revision(&canceled) == 10);
    world.progress();
    assert_eq!(one(&mut world).watch_id, -1);
}

#[test]
fn cancel_of_an_unknown_id_has_no_answer_and_after_cancel_no_event_comes() {
    let mut world = World::new();
    world.cancel(0);
    none(&mut world);
    world.create(watch("a"));
    world.put("a", "1");
    world.cancel(0);
    world.put("a", "2");
    let all = world.poll();
    assert_eq!(all.len(), 3);
    assert_eq!(events(&all[1]), [("a".to_owned(), 2, true)]);
    assert!(all[2].canceled && all[2].cancel_reason.is_empty() && revision(&all[2]) == 2);
    world.create(pb::WatchCreateRequest { watch_id: 7, ..watch("a") });
    world.cancel(7);
    world.create(pb::WatchCreateRequest { watch_id: 7, ..watch("a") });
    assert!(world.poll().iter().all(|r| r.watch_id == 7), "ids can be reused");
}

#[test]
fn a_synced_watcher_gets_each_revision_as_one_response_shared_by_all() {
    let mut world = World::new();
    world.create(watch_range("a", "c"));
    world.create(watch_range("a", "\0"));
    world.create(watch("b"));
    world.poll();
    let change = |key: &str| (key.as_bytes().to_vec(), Some(b"v".to_vec()));
    world.apply(&[change("b"), change("a"), (b"b".to_vec(), None)]);
    let all = world.messages();
    let shared: Vec<_> = all
        .iter()
        .filter_map(|(_, m)| match &m.events {
            WatchEvents::Shared(events) => Some(events),
            _ => None,
        })
        .collect();
    assert_eq!(shared.len(), 2, "the third wants only some of the events");
    assert!(shared.iter().all(|events| Arc::ptr_eq(events, world.log.at(2))));
    let third = all[2].1.to_response();
    assert_eq!(events(&third), [("b".to_owned(), 2, true), ("b".to_owned(), 2, false)]);
    assert!(all.iter().all(|(_, m)| m.head.header.unwrap().revision == 2));
}

#[test]
fn filters_drop_events_and_an_empty_rest_is_not_sent() {
    let mut world = World::new();
    let filtered =
        |filters: &[i32]| pb::WatchCreateRequest { filters: filters.into(), ..watch("a") };
    world.create(filtered(&[0]));
    world.create(filtered(&[1]));
    world.create(filtered(&[0, 1, 9]));
    world.poll();
    world.put("a", "1");
    assert_eq!(one(&mut world).watch_id, 1);
    world.delete("a");
    let deleted = one(&mut world);
    assert_eq!(deleted.watch_id, 0);
    let kv = deleted.events[0].kv.as_ref().unwrap();
    assert_eq!(
        (&kv.key[..], kv.mod_revision, kv.create_revision, kv.version),
        (&b"a"[..], 3, 0, 0)
    );
}

#[test]
fn prev_kv_is_the_key_before_the_whole_revision() {
    let mut world = World::new();
    world.create(pb::WatchCreateRequest { prev_kv: true, ..watch("a") });
    world.create(pb::WatchCreateRequest { prev_kv: true, ..watch("a") });
    world.poll();
    world.put("a", "1");
    assert_eq!(world.poll()[0].events[0].prev_kv, None, "the key did not exist");
    world.apply(&[(b"a".to_vec(), Some(b"2".to_vec())), (b"a".to_vec(), None)]);
    for response in world.poll() {
        let prev: Vec<_> =
            response.events.iter().map(|e| e.prev_kv.as_ref().unwrap().value.clone()).collect();
        assert_eq!(prev, ["1", "1"]);
    }
    world.put("a", "3");
    world.put("a", "4");
    world.poll();
    world.log.compacted = 5;
    world.create(pb::WatchCreateRequest { prev_kv: true, ..from(5) });
    let caught_up = world.settle().pop().unwrap();
    assert_eq!(caught_up.events[0].prev_kv, None, "revision 4 is compacted");
}

#[test]
fn catching_up_takes_at_most_1000_revisions_per_response() {
    let mut world = history(2501);
    world.create(from(1));
    world.create(pb::WatchCreateRequest { key: "b".into(), ..from(1) });
    let all = world.settle();
    let sizes: Vec<_> = all.iter().filter(|r| !r.created).map(|r| r.events.len()).collect();
    assert_eq!(sizes, [1000, 1000, 500]);
    assert!(all.iter().all(|r| revision(r) == 2501), "the store's revision at send time");
    assert_eq!(world.hub.counts().slow, 0);
}

#[test]
fn catching_up_never_splits_a_revision_and_stops_at_the_byte_bound() {
    let mut world = World::new();
    let big = |key: &str| (key.as_bytes().to_vec(), Some(vec![b'x'; MB / 3]));
    for _ in 0..6 {
        world.apply(&[big("a"), big("b")]);
    }
    world.create(pb::WatchCreateRequest { start_revision: 1, ..watch_range("a", "c") });
    let sizes: Vec<_> = world.settle().iter().map(|r| r.events.len()).collect();
    assert_eq!(sizes, [0, 4, 4, 4]);
}

#[test]
fn a_future_watch_is_created_at_once_and_gets_nothing_below_its_start() {
    let mut world = history(2);
    world.create(from(5));
    assert!(one(&mut world).created);
    (3..=4).for_each(|_| world.put("a", "v"));
    none(&mut world);
    world.put("a", "v");
    assert_eq!(events(&one(&mut world))[0].1, 5);
}

#[test]
fn without_credit_a_watcher_is_slow_and_loses_nothing() {
    let mut world = World::new();
    world.create(watch("a"));
    world.create(watch("b"));
    world.poll();
    let big = "x".repeat(MB);
    world.put("a", &big);
    let held = world.messages();
    world.put("a", "2");
    world.put("a", "3");
    assert!(world.messages().is_empty());
    assert_eq!(world.hub.counts().slow, 1);
    assert_eq!(world.hub.next_deadline(), None, "nothing to do until the transport took some");
    world.cancel(1);
    world.create(watch("c"));
    let control = world.poll();
    assert!(control[0].canceled && control[1].created, "control messages always go");
    world.hub.on_drained(world.now, S, held[0].1.bytes);
    let rest = one(&mut world);
    assert_eq!(events(&rest).iter().map(|e| e.1).collect::<Vec<_>>(), [3, 4]);
    assert_eq!((revision(&rest), world.hub.counts().slow), (4, 0));
}

#[test]
fn a_fragmenting_watch_gets_parts_and_all_but_the_last_say_so() {
    let mut world = World::new();
    world.create(pb::WatchCreateRequest { fragment: true, ..watch_range("a", "z") });
    world.create(watch_range("a", "z"));
    world.poll();
    let big = |key: &str| (key.as_bytes().to_vec(), Some(vec![b'x'; FRAGMENT_BYTES / 2]));
    world.apply(&[big("a"), big("b"), big("c")]);
    let all = world.poll();
    let parts: Vec<_> = all.iter().map(|r| (r.watch_id, r.events.len(), r.fragment)).collect();
    assert_eq!(parts, [(0, 1, true), (0, 1, true), (0, 1, false), (1, 3, false)]);
}

#[test]
fn a_progress_request_is_answered_only_when_all_watchers_are_synced_and_begun() {
    let mut world = history(5);
    world.progress();
    none(&mut world);
    world.create(from(0));
    world.progress();
    let all = world.poll();
    assert_eq!((all[1].watch_id, revision(&all[1]), all[1].events.len()), (-1, 5, 0));
    world.create(from(2));
    world.progress();
    let all = world.settle();
    assert!(all.iter().all(|r| r.watch_id == 1), "one watcher was behind: {all:?}");
    world.create(from(7));
    world.progress();
    assert!(one(&mut world).created, "one watcher has not begun");
    world.put("b", "v");
    world.progress();
    none(&mut world);
    world.put("b", "v");
    world.put("a", "v");
    world.progress();
    let all = world.poll();
    assert_eq!((all.len(), all[3].watch_id, revision(&all[3])), (4, -1, 8), "behind the events");
}

fn notified(world: &mut World, seconds: u64) -> Vec<(Instant, Vec<i64>)> {
    let end = world.now + Duration::from_secs(seconds);
    let mut ticks = Vec::new();
    while let Some(due) = world.hub.next_deadline().filter(|due| *due <= end) {
        world.now = due;
        ticks.push((due, world.poll().iter().map(|r| r.watch_id).collect()));
    }
    world.now = end;
    ticks
}

#[test]
fn periodic_progress_goes_to_idle_synced_watchers_at_the_streams_own_interval() {
    let mut world = history(5);
    let notify = |request| pb::WatchCreateRequest { progress_notify: true, ..request };
    assert_eq!(world.hub.next_deadline(), None);
    world.create(notify(from(0)));
    world.create(notify(pb::WatchCreateRequest { key: "b".into(), ..from(0) }));
    world.create(notify(from(9)));
    world.create(from(0));
    world.poll();
    let ticks = notified(&mut world, 25);
    assert_eq!(ticks.iter().map(|t| t.1.clone()).collect::<Vec<_>>(), [[0, 1], [0, 1]]);
    let interval = ticks[1].0.since(ticks[0].0);
    assert_eq!(ticks[0].0.since(Instant::ZERO), interval);
    assert!(interval >= PROGRESS && interval < PROGRESS * 11 / 10, "{interval:?}");
    world.put("a", "v");
    world.poll();
    assert_eq!(notified(&mut world, 10)[0].1, [1], "watcher 0 had an event");
    assert_eq!(notified(&mut world, 10)[0].1, [0, 1]);
    // Full: dropped, not queued.
    world.put("a", &"x".repeat(MB));
    let held = world.messages();
    assert!(notified(&mut world, 10)[0].1.is_empty());
    world.hub.on_drained(world.now, S, held.iter().map(|(_, m)| m.bytes).sum());
    world.poll();
    world.cancel(0);
    world.cancel(1);
    world.cancel(2);
    world.poll();
    assert_eq!(world.hub.next_deadline(), None);
}

#[test]
fn each_stream_has_its_own_interval() {
    let mut world = World::new();
    let mut seen = std::collections::BTreeSet::new();
    for id in 2..10 {
        let stream = StreamId(id);
        world.hub.open_stream(world.now, stream);
        let request = pb::WatchCreateRequest { progress_notify: true, ..watch("a") };
        let union = pb::watch_request::RequestUnion::CreateRequest(request);
        world.request(stream, union);
        seen.insert(world.hub.next_deadline());
        world.hub.close_stream(stream);
    }
    assert!(seen.len() > 4, "{seen:?}");
    assert_eq!(world.hub.next_deadline(), None);
}

#[test]
fn after_a_snapshot_was_installed_everyone_catches_up_from_their_own_position() {
    let mut world = history(3);
    world.create(watch("a"));
    world.create(from(8));
    world.create(watch("b"));
    world.poll();
    // Revisions 4 to 9 come with the snapshot.
    (4..=9).for_each(|_| drop(world.log.apply(&[(b"a".to_vec(), Some(b"v".to_vec()))])));
    world.hub.on_store_replaced();
    assert_eq!(world.hub.counts().slow, 3);
    let all = world.settle();
    let got: Vec<_> = all.iter().map(|r| (r.watch_id, events(r)[0].1, r.events.len())).collect();
    assert_eq!(got, [(0, 4, 6), (1, 8, 2)]);
    (10..=11).for_each(|_| drop(world.log.apply(&[(b"a".to_vec(), Some(b"v".to_vec()))])));
    world.log.compacted = 11;
    world.hub.on_store_replaced();
    let all = world.settle();
    assert_eq!(all.iter().filter(|r| r.canceled && r.compact_revision == 11).count(), 3);
}

#[test]
fn a_round_takes_512_watchers_and_the_next_follows_at_once() {
    let mut world = history(3);
    for _ in 0..1200 {
        world.create(from(2));
    }
    let rounds: Vec<_> =
        (0..4).map(|_| world.poll().iter().filter(|r| !r.created).count()).collect();
    assert_eq!(rounds, [512, 512, 176, 0]);
    assert_eq!(world.hub.next_deadline(), None);
}

#[test]
fn a_closed_stream_gets_nothing_and_leaves_nothing() {
    let mut world = history(3);
    for request in [from(2), watch("a"), watch_range("a", "b"), from(9)] {
        world.create(pb::WatchCreateRequest { progress_notify: true, ..request });
    }
    world.put("a", "v");
    world.hub.close_stream(S);
    world.hub.close_stream(S);
    assert!(world.messages().is_empty());
    world.create(watch("a"));
    world.put("a", "v");
    assert!(world.messages().is_empty());
    let counts = world.hub.counts();
    assert_eq!((counts.streams, counts.watchers, counts.slow), (0, 0, 0));
    assert_eq!(world.hub.next_deadline(), None);
}

#[test]
fn a_request_without_content_is_ignored() {
    let mut world = World::new();
    world.hub.handle(world.now, S, pb::WatchRequest::default(), &world.log);
    none(&mut world);
}
