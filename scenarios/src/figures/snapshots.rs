//! Snapshots: how many bytes a follower that is far behind was sent, and how long that took.

use std::time::Duration;

use detkv_core::{Instant, MemberId};
use detkv_sim_world::Counters;
use detkv_sim_world::history::{Call, Fact, History, Outcome};

use super::Set;
use crate::run::Finished;

pub(super) fn figures(finished: &Finished, set: Set<'_>) {
    let (mut started, mut sent, mut installed): (Option<Instant>, u64, u64) = (None, 0, 0);
    let mut served = 0;
    let history = &finished.outcome.history;
    let (mut longest, mut total) = (Duration::ZERO, Duration::ZERO);
    for (at, fact) in history.facts() {
        match fact {
            // A transfer that failed is begun again: the time counts from the first try.
            Fact::Metric { name: "snapshots_started_total", value: 1.., .. } => {
                started.get_or_insert(*at);
                sent += 1;
            }
            Fact::Metric { name: "snapshots_installed_total", value: 1.., member } => {
                installed += 1;
                served += started.map_or(0, |from| serializable(history, *member, from, *at));
                let took = started.take().map_or(Duration::ZERO, |from| at.since(from));
                longest = longest.max(took);
                total += took;
            }
            _ => {}
        }
    }
    let bytes = |counters: &Counters| -> u64 {
        counters.links.iter().map(|(_, _, link)| link.snapshot_bytes).sum()
    };
    let all_bytes = bytes(&finished.outcome.counters);
    set("snapshots_installed", Some(installed));
    set("snapshot_bytes", Some(all_bytes));
    set("snapshots_sent", Some(sent));
    set("serializable_in_transfer", Some(served));
    set("snapshot_transfer_ms", (installed > 0).then_some(longest.as_millis() as u64));
    let per_sec = u128::from(all_bytes) * 1_000_000_000 / total.as_nanos().max(1);
    set("snapshot_bytes_per_sec", (!total.is_zero()).then_some(per_sec as u64));
}

/// Serializable reads that `member` was asked and answered between these times.
fn serializable(history: &History, member: MemberId, from: Instant, until: Instant) -> u64 {
    let served = history.operations().iter().filter(|op| {
        op.member == member
            && matches!(&op.call, Call::Range(range) if range.serializable)
            && matches!(op.outcome, Outcome::Done { .. })
            && from <= op.called
            && op.returned <= until
    });
    served.count() as u64
}
