//! Watches: how soon events come, and how far watchers fall behind.

use std::collections::BTreeMap;

use detkv_core::Instant;
use detkv_sim_world::history::{Call, History, Outcome, WatchEnd, WatchRecord};

use super::{Acknowledged, Latencies, Set, Window};

/// `is_slow`: whether a client is a watcher that takes its time.
pub(super) fn figures(
    history: &History,
    window: Window,
    is_slow: impl Fn(u32) -> bool,
    set: Set<'_>,
) {
    let called = put_calls(history, window);
    let acknowledged = Acknowledged::of(history);
    let (mut events, mut compacted, mut lag) = (0, 0, 0);
    let mut delivery = Latencies::default();
    for watch in history.watches().iter().filter(|watch| watch.opened < window.end) {
        events += watch.events.len() as u64;
        let end = watch.end.as_ref().map(|(_, end)| end);
        compacted +=
            u64::from(matches!(end, Some(WatchEnd::Canceled { compact_revision: 1.., .. })));
        lag = lag.max(furthest_behind(watch, &acknowledged, window));
        if is_slow(watch.client.0) {
            continue;
        }
        for batch in &watch.batches {
            for event in &watch.events[batch.events.start as usize..batch.events.end as usize] {
                if let Some(called) = called.get(&history.kv(event.kv).mod_revision) {
                    delivery.push(*called, batch.at);
                }
            }
        }
    }
    set("watch_events", Some(events));
    set("watches_compacted", Some(compacted));
    set("watch_lag_revisions", Some(lag));
    let (p50, p99) = delivery.p50_p99();
    set("delivery_p50_us", p50);
    set("delivery_p99_us", p99);
}

/// When the put of each revision was called.
fn put_calls(history: &History, window: Window) -> BTreeMap<i64, Instant> {
    let puts = history.operations().iter().filter(|op| window.has(op.called));
    puts.filter_map(|op| match (&op.call, &op.outcome) {
        (Call::Put(_), Outcome::Done { revision, .. }) => Some((*revision, op.called)),
        _ => None,
    })
    .collect()
}

/// The most acknowledged revisions that a watcher had not been shown, looked at whenever something came.
fn furthest_behind(watch: &WatchRecord, acknowledged: &Acknowledged, window: Window) -> u64 {
    let mut shown = watch.start_revision - 1;
    let mut furthest = 0;
    for batch in watch.batches.iter().filter(|batch| batch.at < window.end) {
        let newest = acknowledged.before(batch.at);
        furthest = furthest.max(newest - shown);
        shown = shown.max(batch.revision);
    }
    furthest.max(0) as u64
}
