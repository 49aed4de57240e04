//! The WAL syncs of whoever led: a leader whose loop waits for one that outlasts an election timeout is lost.

use std::time::Duration;

use super::{Leaders, Set, Window};
use crate::run::Finished;

/// No follower waits less (with etcd's election timeout of 1 s), each waits less than twice that.
const LONG: [(&str, Duration); 2] = [
    ("leader_syncs_over_1s", Duration::from_secs(1)),
    ("leader_syncs_over_2s", Duration::from_secs(2)),
];

pub(super) fn figures(finished: &Finished, leaders: &Leaders, window: Window, set: Set<'_>) {
    // Recorded only where a figure of them is shown.
    if finished.outcome.syncs.is_empty() {
        return;
    }
    let led: Vec<Duration> = finished
        .outcome
        .syncs
        .iter()
        .filter(|sync| window.has(sync.at) && leaders.at(sync.at) == Some(sync.member))
        .map(|sync| sync.done.since(sync.at))
        .collect();
    set("leader_syncs", Some(led.len() as u64));
    for (name, long) in LONG {
        set(name, Some(led.iter().filter(|took| **took >= long).count() as u64));
    }
}
