//! The watch checker rejects a planted history for each promise of surface spec §4.3.

mod check_support;

use std::time::Duration;

use check_support::*;
use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::pb::mvccpb::Event as KvEvent;
use detkv_sim::check::Watch;
use detkv_sim::history::{ClientId, Event, Fact, Phase};

/// Revisions 2 to 5: a=1, b=1, a=2, a and b deleted.
fn five() -> Script {
    let mut script = Script::new();
    script.run(1, put("a", "1"));
    script.run(1, put("b", "1"));
    script.run(1, put("a", "2"));
    let all = pb::DeleteRangeRequest { key: bytes("a"), range_end: bytes("z"), prev_kv: false };
    script.run(1, Request::DeleteRange(all));
    script
}

/// A watch of every key that shows what `change` makes of the right responses.
fn watched(change: impl FnOnce(&mut Vec<Vec<KvEvent>>)) -> Script {
    let mut script = five();
    let request = watch_all(1);
    let mut responses = (2..=5).map(|revision| script.events_of(&request, revision)).collect();
    change(&mut responses);
    let watch = script.watch(request);
    for events in responses {
        script.deliver(watch, events);
    }
    script.fact(Fact::Phase(Phase::Readout));
    script
}

#[test]
fn checker_accepts_right_watches() {
    accepts(&watched(|_| {}), &Watch);
    let mut script = five();
    script.watched(watch_from("a", 3));
    script.watched(pb::WatchCreateRequest { filters: vec![0], ..watch_all(1) });
    script.watched(pb::WatchCreateRequest { filters: vec![1], ..watch_all(1) });
    accepts(&script, &Watch);
    // Several revisions in one response.
    accepts(&watched(|responses| *responses = vec![responses.concat()]), &Watch);
}

#[test]
fn checker_rejects_an_event_of_another_key() {
    let mut script = five();
    let watch = script.watch(watch_from("a", 3));
    let foreign = script.events_of(&watch_all(1), 3);
    script.deliver(watch, foreign);
    rejects(&script, &Watch, "filter");
}

#[test]
fn checker_rejects_an_event_of_a_filtered_type() {
    let mut script = five();
    let watch = script.watch(pb::WatchCreateRequest { filters: vec![0], ..watch_all(1) });
    let put = script.events_of(&watch_all(1), 2);
    script.deliver(watch, put);
    rejects(&script, &Watch, "filter");
}

#[test]
fn checker_rejects_events_out_of_order() {
    // What is out of place is seen as a gap first.
    rejects(&watched(|responses| responses.swap(0, 1)), &Watch, "reliable");
    let mut script = five();
    let request = watch_from("b", 1);
    let watch = script.watch(request.clone());
    let (put, delete) = (script.events_of(&request, 3), script.events_of(&request, 5));
    script.deliver(watch, put);
    script.deliver(watch, delete);
    let mut old = script.events_of(&watch_from("a", 1), 4);
    old[0].kv.as_mut().expect("our events have rows").key = bytes("b");
    script.deliver(watch, old);
    rejects(&script, &Watch, "ordered");
}

#[test]
fn checker_rejects_an_event_that_comes_twice() {
    rejects(&watched(|responses| responses.push(responses[3].clone())), &Watch, "unique");
    rejects(&watched(|responses| responses.push(responses[0].clone())), &Watch, "unique");
    let script = watched(|responses| {
        let first = responses[0][0].clone();
        responses[0].push(first);
    });
    rejects(&script, &Watch, "unique");
}

#[test]
fn checker_rejects_one_revision_in_two_responses() {
    let script = watched(|responses| {
        let second = responses[3].pop().expect("two keys were deleted");
        responses.push(vec![second]);
    });
    rejects(&script, &Watch, "atomic");
    // Half of it, and nothing after.
    rejects(&watched(|responses| drop(responses[3].pop())), &Watch, "atomic");
}

#[test]
fn checker_accepts_one_revision_in_fragments() {
    let mut script = five();
    let request = pb::WatchCreateRequest { fragment: true, ..watch_all(5) };
    let watch = script.watch(request.clone());
    for (i, event) in script.events_of(&request, 5).into_iter().enumerate() {
        let response = pb::WatchResponse {
            header: Some(script.store.header()),
            events: vec![event],
            fragment: i == 0,
            ..Default::default()
        };
        script.record(Event::WatchResponse { watch, response });
    }
    accepts(&script, &Watch);
}

#[test]
fn checker_rejects_a_gap() {
    rejects(&watched(|responses| drop(responses.remove(1))), &Watch, "reliable");
}

#[test]
fn checker_rejects_an_event_that_never_comes() {
    rejects(&watched(|responses| drop(responses.pop())), &Watch, "reliable");
}

#[test]
fn checker_rejects_events_below_the_start_revision() {
    let mut script = five();
    let watch = script.watch(watch_all(4));
    let old = script.events_of(&watch_all(1), 3);
    script.deliver(watch, old);
    rejects(&script, &Watch, "resumable");
}

#[test]
fn checker_rejects_a_progress_notice_that_overtakes_an_event() {
    let mut script = five();
    let request = watch_all(1);
    let watch = script.watch(request.clone());
    let first = script.events_of(&request, 2);
    script.deliver(watch, first);
    let header = Some(script.store.header());
    let notice = pb::WatchResponse { header, ..Default::default() };
    script.record(Event::WatchResponse { watch, response: notice });
    rejects(&script, &Watch, "bookmarkable");
}

#[test]
fn checker_rejects_a_wrong_prev_kv() {
    // Missing, and of a revision too early.
    rejects(&watched(|responses| responses[2][0].prev_kv = None), &Watch, "prev_kv");
    rejects(
        &watched(|responses| responses[3][0].prev_kv = responses[2][0].prev_kv.clone()),
        &Watch,
        "prev_kv",
    );
    // Nobody asked for it.
    let mut script = five();
    let watch = script.watch(watch_from("a", 4));
    let with_prev =
        script.events_of(&pb::WatchCreateRequest { prev_kv: true, ..watch_from("a", 4) }, 4);
    script.deliver(watch, with_prev);
    rejects(&script, &Watch, "prev_kv");
}

#[test]
fn checker_rejects_a_wrong_is_create() {
    let script = watched(|responses| {
        let kv = responses[2][0].kv.as_mut().expect("our events have rows");
        (kv.version, kv.create_revision) = (1, 4);
    });
    rejects(&script, &Watch, "event");
}

#[test]
fn checker_rejects_an_event_newer_than_its_response() {
    let mut script = five();
    let request = watch_all(1);
    let watch = script.watch(request.clone());
    let response = pb::WatchResponse {
        header: Some(pb::ResponseHeader { revision: 1, ..Default::default() }),
        events: script.events_of(&request, 2),
        ..Default::default()
    };
    script.record(Event::WatchResponse { watch, response });
    rejects(&script, &Watch, "event");
}

#[test]
fn checker_rejects_a_made_up_event() {
    let script = watched(|responses| {
        let mut extra = responses[0][0].clone();
        extra.kv.as_mut().expect("our events have rows").value = bytes("never put");
        extra.prev_kv = None;
        responses[0] = vec![extra];
    });
    rejects(&script, &Watch, "event");
}

#[test]
fn checker_judges_a_cancel_for_compaction() {
    for (start, is_right) in [(2, true), (4, false)] {
        let mut script = five();
        script.run(1, Request::Compact(pb::CompactionRequest { revision: 4, physical: false }));
        let watch = script.watch(watch_all(start));
        let response =
            pb::WatchResponse { canceled: true, compact_revision: 4, ..Default::default() };
        script.record(Event::WatchResponse { watch, response });
        if is_right {
            accepts(&script, &Watch);
        } else {
            rejects(&script, &Watch, "compacted");
        }
    }
}

/// With auto-compaction it is a member that asks.
#[test]
fn a_cancel_for_compaction_is_right_where_a_member_proposed_it_and_nowhere_else() {
    for (proposed, is_right) in [(4, true), (3, false)] {
        let mut script = five();
        script.history.raft_mut().compaction(proposed);
        let watch = script.watch(watch_all(2));
        let response =
            pb::WatchResponse { canceled: true, compact_revision: 4, ..Default::default() };
        script.record(Event::WatchResponse { watch, response });
        if is_right {
            accepts(&script, &Watch);
        } else {
            rejects(&script, &Watch, "compacted");
        }
    }
}

#[test]
fn checker_rejects_an_event_that_comes_long_after_its_member_had_shown_it() {
    for (seconds, is_slow, has_fault, is_right) in [
        (9, false, false, true),
        (11, false, false, false),
        (11, true, false, true),
        (11, false, true, true),
    ] {
        let mut script = five();
        let request = watch_all(1);
        let watch = script.watch(request.clone());
        if is_slow {
            script.record(Event::ClientIsSlow { client: ClientId(7) });
        }
        if has_fault {
            let what = "pause".to_owned();
            script.fact(Fact::FaultBegan { fault: 0, what, member: None });
        }
        script.now = script.now + Duration::from_secs(seconds);
        if has_fault {
            script.fact(Fact::FaultEnded { fault: 0 });
        }
        for revision in 2..=5 {
            let events = script.events_of(&request, revision);
            script.deliver(watch, events);
        }
        if is_right {
            accepts(&script, &Watch);
        } else {
            rejects(&script, &Watch, "delivered in time");
        }
    }
}

#[test]
fn checker_rejects_a_member_that_holds_too_much_for_a_stream() {
    for (value, is_right) in [(1 << 20, true), (16 << 20, false)] {
        let mut script = five();
        let name = "watch_undrained_bytes";
        script.fact(Fact::Metric { member: MEMBER, name, value });
        if is_right {
            accepts(&script, &Watch);
        } else {
            rejects(&script, &Watch, "bounded memory");
        }
    }
}
