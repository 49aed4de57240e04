//! Processes that end at a named point, as faults have asked for.

use std::time::Duration;

use detkv_core::event::DiskAction;
use detkv_core::pb::peer::Frame;
use detkv_core::pb::peer::frame::Body;

use super::{Event, World};
use crate::disk::DiskOp;
use crate::fault::{Passing, Site, When};

/// A site at which a process will end.
#[derive(Clone, Debug)]
pub struct ArmedSite {
    pub node: u32,
    pub site: Site,
    /// The so-manieth time that it comes there.
    pub nth: u32,
    /// And so many times in all.
    pub times: u32,
    /// A power loss instead of a kill.
    pub power: bool,
    /// How long it is down.
    pub down: Duration,
    /// Passes still to come before the next end.
    pub left: u32,
    /// Where between begin and end, for "during".
    pub point_ppm: u64,
}

/// What is armed.
#[derive(Default)]
pub struct Sites {
    next: u64,
    armed: Vec<(u64, ArmedSite)>,
}

impl World {
    /// Arms a site until the result is given to [`World::disarm`].
    pub fn arm(&mut self, site: ArmedSite) -> u64 {
        let name = self.sites.next;
        self.sites.next += 1;
        self.sites.armed.push((name, site));
        name
    }

    pub fn disarm(&mut self, name: u64) {
        self.sites.armed.retain(|(other, _)| *other != name);
    }

    /// A node does something from `from` to `to`, known in advance.
    pub(super) fn pass(&mut self, node: u32, passing: Passing<'_>, from: u64, to: u64) {
        let Some(((when, point_ppm), power, down)) = self.sites.count(node, passing) else {
            return;
        };
        let at = match when {
            When::Before => from,
            When::During => {
                from + (u128::from(to - from) * u128::from(point_ppm) / 1_000_000) as u64
            }
            When::After => to,
        };
        let epoch = self.node(node).epoch;
        self.schedule(at, Event::SiteReached { node, epoch, power, down });
    }

    pub(super) fn pass_action(&mut self, node: u32, action: &DiskAction, from: u64, to: u64) {
        if !self.sites.armed.is_empty() {
            let (op, path) = DiskOp::of(action);
            self.pass(node, Passing::Disk(op, path), from, to);
        }
    }

    /// A node is about to do something that takes no time. What is to happen after it is the caller's to do, by
    /// [`World::end_after`].
    pub(super) fn pass_at_once(&mut self, node: u32, passing: Passing<'_>) -> Passed {
        if self.sites.armed.is_empty() {
            return Passed::On;
        }
        match self.sites.count(node, passing) {
            None => Passed::On,
            Some(((When::After, _), power, down)) => Passed::EndsAfter { power, down },
            Some((_, power, down)) => {
                self.end_at_site(node, power, down);
                Passed::Ended
            }
        }
    }

    pub(super) fn end_after(&mut self, node: u32, passed: Passed) {
        if let Passed::EndsAfter { power, down } = passed {
            self.end_at_site(node, power, down);
        }
    }

    pub(super) fn on_site_reached(&mut self, node: u32, epoch: u32, power: bool, down: Duration) {
        if self.node(node).epoch == epoch {
            self.end_at_site(node, power, down);
        }
    }

    fn end_at_site(&mut self, node: u32, power: bool, down: Duration) {
        if power {
            self.power_loss(node);
        } else {
            self.kill(node);
        }
        let (at, epoch) = ((self.now() + down).ns, self.node(node).epoch);
        self.schedule(at, Event::Start { node, epoch });
    }
}

/// What came of passing a point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Passed {
    On,
    Ended,
    EndsAfter { power: bool, down: Duration },
}

impl Sites {
    /// Counts a pass at every site that it is one of; the first that is due ends the process.
    fn count(&mut self, node: u32, passing: Passing<'_>) -> Option<((When, u64), bool, Duration)> {
        let mut due = None;
        for (_, armed) in &mut self.armed {
            if armed.node != node || armed.times == 0 || !armed.site.what.is(passing) {
                continue;
            }
            armed.left -= 1;
            if armed.left == 0 {
                armed.times -= 1;
                armed.left = armed.nth;
                due = due.or(Some(((armed.site.when, armed.point_ppm), armed.power, armed.down)));
            }
        }
        due
    }
}

/// Raft's messages that have a name in sites, by raft-rs' numbers.
const RAFT_FRAMES: [(u32, &str); 11] = [
    (3, "append"),
    (4, "append-response"),
    (5, "vote"),
    (6, "vote-response"),
    (8, "heartbeat"),
    (9, "heartbeat-response"),
    (14, "timeout-now"),
    (15, "read-index"),
    (16, "read-index-response"),
    (17, "pre-vote"),
    (18, "pre-vote-response"),
];

/// Everything that [`frame_name`] says. "raft": a message of Raft's that has no name of its own.
pub const FRAMES: [&str; 21] = [
    "append",
    "append-response",
    "vote",
    "vote-response",
    "heartbeat",
    "heartbeat-response",
    "timeout-now",
    "read-index",
    "read-index-response",
    "pre-vote",
    "pre-vote-response",
    "raft",
    "forward",
    "forward-refused",
    "lease-forward",
    "lease-reply",
    "snapshot-header",
    "snapshot-chunk",
    "snapshot-end",
    "snapshot-ack",
    "other",
];

/// What a frame is called in sites.
pub fn frame_name(frame: &Frame) -> &'static str {
    match &frame.body {
        Some(Body::Raft(message)) => {
            let named = RAFT_FRAMES.iter().find(|(number, _)| *number == message.msg_type);
            named.map_or("raft", |(_, name)| name)
        }
        Some(Body::Forward(_)) => "forward",
        Some(Body::ForwardRefused(_)) => "forward-refused",
        Some(Body::LeaseForward(_)) => "lease-forward",
        Some(Body::LeaseReply(_)) => "lease-reply",
        Some(Body::SnapshotHeader(_)) => "snapshot-header",
        Some(Body::SnapshotChunk(_)) => "snapshot-chunk",
        Some(Body::SnapshotEnd(_)) => "snapshot-end",
        Some(Body::SnapshotAck(_)) => "snapshot-ack",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use detkv_core::pb::peer;

    use super::*;

    #[test]
    fn the_list_has_every_name_of_a_frame_and_no_other() {
        let raft = (0..=20)
            .map(|msg_type| Body::Raft(peer::RaftMessage { msg_type, ..Default::default() }));
        let others = [
            Body::Forward(peer::Forward::default()),
            Body::ForwardRefused(peer::ForwardRefused::default()),
            Body::LeaseForward(peer::LeaseForward::default()),
            Body::LeaseReply(peer::LeaseReply::default()),
            Body::SnapshotHeader(peer::SnapshotHeader::default()),
            Body::SnapshotChunk(peer::SnapshotChunk::default()),
            Body::SnapshotEnd(peer::SnapshotEnd::default()),
            Body::SnapshotAck(peer::SnapshotAck::default()),
        ];
        let bodies = raft.chain(others).map(Some).chain([None]);
        let names: BTreeSet<&str> = bodies.map(|body| frame_name(&Frame { body })).collect();
        assert_eq!(names, BTreeSet::from(FRAMES));
    }
}
