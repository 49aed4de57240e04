//! Reads: how many, how fast, and how old what they showed.
//!
//! A serializable read may be stale, that is its contract; a linearizable one never.

use std::time::Duration;

use detkv_sim_world::history::{Call, History, Outcome};

use super::{Acknowledged, Latencies, Set, Window};

#[derive(Default)]
struct Reads {
    ok: u64,
    failed: u64,
    stale: u64,
    stalest: Duration,
    latencies: Latencies,
}

pub(super) fn figures(history: &History, window: Window, set: Set<'_>) {
    let acknowledged = Acknowledged::of(history);
    let (mut linearizable, mut serializable) = (Reads::default(), Reads::default());
    for op in history.operations().iter().filter(|op| window.has(op.called)) {
        // The present only: a read of the past is old on purpose.
        let Call::Range(range) = &op.call else { continue };
        if range.revision > 0 {
            continue;
        }
        let reads = if range.serializable { &mut serializable } else { &mut linearizable };
        let Outcome::Done { revision, .. } = op.outcome else {
            reads.failed += 1;
            continue;
        };
        reads.ok += 1;
        reads.latencies.push(op.called, op.ended);
        if revision < acknowledged.before(op.called) {
            reads.stale += 1;
            let missed = acknowledged.first_above(revision).unwrap_or(op.called);
            reads.stalest = reads.stalest.max(op.called.since(missed));
        }
    }
    set("gets_ok", Some(linearizable.ok));
    set("gets_failed", Some(linearizable.failed));
    set("stale_gets", Some(linearizable.stale));
    let (p50, p99) = linearizable.latencies.p50_p99();
    set("get_p50_us", p50);
    set("get_p99_us", p99);
    set("serializable_ok", Some(serializable.ok));
    set("stale_serializable", Some(serializable.stale));
    set("stalest_serializable_ms", Some(serializable.stalest.as_millis() as u64));
    let (p50, p99) = serializable.latencies.p50_p99();
    set("serializable_p50_us", p50);
    set("serializable_p99_us", p99);
}
