//! Members of different versions: which peer wire to speak with whom, and the cluster version.

use super::Member;
use crate::cluster::cluster_version;
use crate::event::{Level, MemberId};
use crate::pb::{etcdserverpb as pb, membershippb};

/// `X.Y.Z` as numbers that compare as versions do.
fn parsed(version: &str) -> (u64, u64) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

impl Member {
    /// The wire version to use with a peer: the lower of the two. One that said nothing has ours.
    pub(super) fn wire_version(&self, peer: MemberId) -> u32 {
        let theirs = self.peer_versions.get(&peer).map_or(u32::MAX, |(wire, _)| *wire);
        theirs.min(self.config.wire_version)
    }

    /// The lowest of all members' versions (surface spec §18). `None` while one of them is not
    /// known, unless the leader has waited for it long enough.
    fn lowest_version(&self) -> Option<&str> {
        let has_waited = self.now >= self.lead.elected_at + self.config.election;
        let mut lowest = self.config.version.as_str();
        for member in self.cluster.members() {
            let id = MemberId(member.id);
            if id == self.config.id {
                continue;
            }
            match self.peer_versions.get(&id) {
                Some((_, version)) if parsed(version) < parsed(lowest) => lowest = version,
                Some(_) => {}
                None if self.peers_up.contains_key(&id) => {}
                None if has_waited && self.cluster.version().is_none() => {}
                None => return None,
            }
        }
        Some(lowest)
    }

    /// On the leader: the cluster version to propose, if it is not the present one. It never falls.
    pub(super) fn cluster_version_due(&self) -> Option<String> {
        let lowest = cluster_version(self.lowest_version()?);
        let present = self.cluster.version().map(parsed);
        present.is_none_or(|present| present < parsed(&lowest)).then_some(lowest)
    }

    /// Proposes it, unless such a proposal is under way. Returns whether something was sent.
    pub(super) fn maybe_set_version(&mut self) -> bool {
        let is_over = self.lead.versioning.is_none_or(|id| self.pending.get(id).is_none());
        if !is_over || !self.lead.term_started || !self.node.is_leader() {
            return false;
        }
        let Some(ver) = self.cluster_version_due() else { return false };
        let fields = vec![("cluster-version", ver.clone())];
        self.log(Level::Info, "setting up the cluster version", fields);
        let set = membershippb::ClusterVersionSetRequest { ver };
        let request =
            pb::InternalRaftRequest { cluster_version_set: Some(set), ..Default::default() };
        self.lead.versioning = self.propose_own(request);
        self.lead.versioning.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(parsed("3.10.0") > parsed("3.9.9"));
        assert!(parsed("4.0.0") > parsed("3.99.0"));
        assert_eq!(parsed("3.6.4"), parsed("3.6.0"));
        assert_eq!(parsed("x"), (0, 0));
    }
}
