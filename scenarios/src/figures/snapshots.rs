//! Snapshots: how many bytes a follower that is far behind was sent, and how long that took.

use std::time::Duration;

use detkv_core::Instant;
use detkv_sim_world::Counters;
use detkv_sim_world::history::Fact;

use super::Set;
use crate::run::Finished;

pub(super) fn figures(finished: &Finished, set: Set<'_>) {
    let (mut started, mut installed): (Option<Instant>, u64) = (None, 0);
    let (mut longest, mut total) = (Duration::ZERO, Duration::ZERO);
    for (at, fact) in finished.outcome.history.facts() {
        match fact {
            // A transfer that failed is begun again: the time counts from the first try.
            Fact::Metric { name: "snapshots_started_total", value: 1.., .. } => {
                started.get_or_insert(*at);
            }
            Fact::Metric { name: "snapshots_installed_total", value: 1.., .. } => {
                installed += 1;
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
    let sent = bytes(&finished.outcome.counters);
    set("snapshots_installed", Some(installed));
    set("snapshot_bytes", Some(sent));
    set("snapshot_transfer_ms", (installed > 0).then_some(longest.as_millis() as u64));
    let per_sec = u128::from(sent) * 1_000_000_000 / total.as_nanos().max(1);
    set("snapshot_bytes_per_sec", (!total.is_zero()).then_some(per_sec as u64));
}
