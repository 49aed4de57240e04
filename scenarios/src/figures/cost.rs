//! What a call costs: syncs, messages and bytes, of all members together, in whole numbers.

use detkv_sim_world::net::Endpoint;
use detkv_sim_world::{Counters, SyncRecord};

use super::{Set, Window};
use crate::run::Finished;

/// Totals at one time.
#[derive(Clone, Copy, Default)]
struct Totals {
    fsyncs: u64,
    disk_bytes: u64,
    peer_messages: u64,
    peer_bytes: u64,
    client_bytes: u64,
}

impl Totals {
    fn of(counters: &Counters) -> Self {
        let mut totals = Self::default();
        for (_, disk) in &counters.disks {
            totals.fsyncs += disk.syncs;
            totals.disk_bytes += disk.write_bytes;
        }
        for (from, to, link) in &counters.links {
            match (from, to) {
                (Endpoint::Node(_), Endpoint::Node(_)) => {
                    totals.peer_messages += link.messages;
                    totals.peer_bytes += link.bytes;
                }
                _ => totals.client_bytes += link.bytes,
            }
        }
        totals
    }
}

pub(super) fn figures(finished: &Finished, window: Window, set: Set<'_>) {
    let Some((warm, end)) = &finished.counters else { return };
    let operations = finished.outcome.history.operations();
    let calls = operations.iter().filter(|op| window.has(op.called)).count() as u64;
    if calls == 0 {
        return;
    }
    let (warm, end) = (Totals::of(warm), Totals::of(end));
    let wal_syncs = |sync: &&SyncRecord| window.has(sync.at);
    let wal = finished.outcome.syncs.iter().filter(wal_syncs).count() as u64;
    let per_1000 = |count: u64| Some(count * 1000 / calls);
    let per_call = |bytes: u64| Some(bytes / calls);
    set("fsyncs_per_1000_calls", per_1000(end.fsyncs - warm.fsyncs));
    set("wal_fsyncs_per_1000_calls", per_1000(wal).filter(|_| !finished.outcome.syncs.is_empty()));
    set("peer_messages_per_1000_calls", per_1000(end.peer_messages - warm.peer_messages));
    set("peer_bytes_per_call", per_call(end.peer_bytes - warm.peer_bytes));
    set("client_bytes_per_call", per_call(end.client_bytes - warm.client_bytes));
    set("disk_bytes_per_call", per_call(end.disk_bytes - warm.disk_bytes));
}
