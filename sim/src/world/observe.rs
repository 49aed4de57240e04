//! What the world sees of its members and no client can: roles, terms, state hashes.

use detkv_core::{MemberId, MemberStatus, Role};

use super::World;
use super::node::{Process, View, role_fact};
use crate::history::{Event, Fact};

impl World {
    /// After a burst: records what changed.
    pub(super) fn observe(&mut self, node: u32) {
        let n = self.node(node);
        let Process::Up(member) = &n.process else { return };
        let (role, term, leader) = member.raft_view();
        let view = View { role, term, leader };
        if view != n.view {
            let fact = role_fact(n.id, &view);
            self.node_mut(node).view = view;
            self.record(Event::Fact(fact));
        }
        self.maybe_sample(node);
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
        let leaders = self.nodes.iter().filter(|n| !n.paused).filter_map(|n| {
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
