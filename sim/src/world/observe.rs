//! What the world sees of its members and no client can: roles, terms, state hashes.

use detkv_core::{MemberId, MemberStatus, Role};

use super::World;
use super::node::{Process, View, role_fact};
use crate::history::{Event, Fact};

/// Metrics of which every change is recorded. They begin at 0 with each process.
pub(super) const WATCHED: [&str; 4] = [
    "planned_transfers_total",
    "slow_disk_alarm",
    "snapshots_started_total",
    "snapshots_installed_total",
];

impl World {
    /// After a burst: records what changed.
    pub(super) fn observe(&mut self, node: u32) {
        self.observe_raft(node);
        let n = self.node(node);
        let Process::Up(member) = &n.process else { return };
        let (role, term, leader) = member.raft_view();
        let view = View { role, term, leader };
        if view != n.view {
            let fact = role_fact(n.id, &view);
            self.node_mut(node).view = view;
            self.record(Event::Fact(fact));
        }
        self.record_metrics(node);
        self.record_changes(node);
        self.maybe_sample(node);
    }

    fn record_metrics(&mut self, node: u32) {
        let n = self.node(node);
        let metrics = &n.gauges;
        let now = [
            metrics.planned_transfers_total.load(),
            metrics.slow_disk_alarm.load(),
            metrics.snapshots_started_total.load(),
            metrics.snapshots_installed_total.load(),
        ];
        let (id, before) = (n.id, n.metrics);
        self.node_mut(node).metrics = now;
        for ((name, before), value) in WATCHED.into_iter().zip(before).zip(now) {
            if before != value {
                self.record(Event::Fact(Fact::Metric { member: id, name, value }));
            }
        }
    }

    fn record_changes(&mut self, node: u32) {
        let n = self.node_mut(node);
        let member = n.id;
        let Process::Up(process) = &mut n.process else { return };
        let mut changes = process.take_changes().peekable();
        if changes.peek().is_none() {
            return;
        }
        let changes: Vec<_> = changes.collect();
        for change in changes {
            self.record(Event::Fact(Fact::Membership { member, change }));
        }
    }

    /// A sample when the applied index passes a multiple of `sample_every`, and whenever it meets the
    /// index of another member's last sample: members apply in batches that end at different indexes,
    /// and only samples at the same index can be compared.
    fn maybe_sample(&mut self, node: u32) {
        let every = self.config.sample_every.max(1);
        let n = self.node(node);
        if n.applied == n.sampled {
            return;
        }
        let passed = n.applied / every > n.sampled / every;
        let meets = self.nodes.iter().any(|other| other.id != n.id && other.sampled == n.applied);
        if passed || meets {
            self.sample(node);
        }
    }

    fn sample(&mut self, node: u32) {
        let n = self.node_mut(node);
        let Process::Up(member) = &n.process else { return };
        let (applied_index, hash) = member.state_hash();
        n.sampled = applied_index;
        // A member that joins has nothing yet, the first ones have their list.
        if applied_index == 0 {
            return;
        }
        let fact = Fact::StateHash { member: n.id, applied_index, hash };
        self.record(Event::Fact(fact));
    }

    pub(super) fn sample_all(&mut self) {
        for node in 0..self.nodes.len() as u32 {
            self.sample(node);
        }
    }

    /// The node that is up, not paused and leads with the highest term.
    pub fn leader(&self) -> Option<MemberId> {
        let leaders = self.nodes.iter().filter(|n| !n.is_paused()).filter_map(|n| {
            let (role, term, _) = n.member()?.raft_view();
            (role == Role::Leader).then_some((term, n.id))
        });
        leaders.max().map(|(_, id)| id)
    }

    pub fn member_status(&self, member: MemberId) -> Option<MemberStatus> {
        let node = self.place(member)?;
        self.node(node).member().map(|member| member.status())
    }
}
