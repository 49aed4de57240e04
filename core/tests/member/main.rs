//! The member's loop, three members at a time, in virtual time.

mod disks;
mod life;
mod raft;
mod requests;
mod snapshots;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use detkv_core::{MemberId, Profile};
use support::Cluster;

/// A cluster whose log is soon too short for whoever was away.
pub fn short_log(profile: Profile) -> Cluster {
    Cluster::with(3, 5, |config| {
        config.profile = profile;
        config.snapshot_count = 20;
        config.snapshot_catchup_entries = 5;
    })
}

/// Kills a follower, writes past the end of the log, and starts it again. Returns leader, follower.
pub fn fall_behind(c: &mut Cluster) -> (MemberId, MemberId) {
    let leader = c.elect();
    let behind = c.followers()[0];
    c.kill(behind);
    for i in 0..4 {
        for k in 0..30 {
            c.put(leader, &format!("k{k}"), &i.to_string());
        }
        c.run(Duration::from_millis(1_200));
    }
    c.start(behind);
    (leader, behind)
}

pub fn three() -> Cluster {
    Cluster::new(3, Profile::Decoupled, 7)
}
