//! Membership changes: what one says, whether it may be made, what it makes of the member list.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha1::{Digest as _, Sha1};

use super::{Cluster, MemberInfo};
use crate::error::ApiError;
use crate::event::MemberId;
use crate::mvcc::{Bucket, Store};
use crate::pb::raftpb::{self, ConfChangeType as T};

/// What a change carries beside type and id: etcd's JSON.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChangeContext {
    #[serde(flatten)]
    pub member: MemberInfo,
    #[serde(rename = "isPromote", default)]
    pub is_promote: bool,
}

/// A membership change, read from etcd's ConfChange.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Voter or learner.
    Add(MemberInfo),
    Promote(MemberId),
    Remove(MemberId),
    /// Only the peer URLs.
    Update(MemberInfo),
}

impl Change {
    /// `None` for bytes that are no change that a member proposes.
    pub fn read(change: &raftpb::ConfChange) -> Option<Self> {
        let id = MemberId(change.node_id);
        if id == MemberId(0) {
            return None;
        }
        if change.r#type() == T::ConfChangeRemoveNode {
            return Some(Change::Remove(id));
        }
        let context: ChangeContext = serde_json::from_slice(change.context.as_deref()?).ok()?;
        let member = MemberInfo { id: id.0, ..context.member };
        match change.r#type() {
            T::ConfChangeAddNode if context.is_promote => Some(Change::Promote(id)),
            T::ConfChangeAddNode => Some(Change::Add(MemberInfo { is_learner: false, ..member })),
            T::ConfChangeAddLearnerNode => {
                Some(Change::Add(MemberInfo { is_learner: true, ..member }))
            }
            T::ConfChangeUpdateNode => Some(Change::Update(member)),
            T::ConfChangeRemoveNode => None,
        }
    }

    /// As a log entry's data. `request_id` names who waits for it.
    pub fn to_pb(&self, request_id: u64, known: Option<&MemberInfo>) -> raftpb::ConfChange {
        let (kind, id, context) = match self {
            Change::Add(member) => {
                let learner = T::ConfChangeAddLearnerNode;
                let kind = if member.is_learner { learner } else { T::ConfChangeAddNode };
                (kind, member.id, Some((member.clone(), false)))
            }
            Change::Promote(id) => {
                let member = known.cloned().unwrap_or_else(|| MemberInfo::nameless(*id));
                let member = MemberInfo { is_learner: false, ..member };
                (T::ConfChangeAddNode, id.0, Some((member, true)))
            }
            Change::Remove(id) => (T::ConfChangeRemoveNode, id.0, None),
            Change::Update(member) => {
                (T::ConfChangeUpdateNode, member.id, Some((member.clone(), false)))
            }
        };
        let context = context.map(|(member, is_promote)| {
            let context = ChangeContext { member, is_promote };
            Bytes::from(serde_json::to_vec(&context).expect("strings and numbers always encode"))
        });
        raftpb::ConfChange { id: request_id, r#type: kind.into(), node_id: id, context }
    }

    pub fn member(&self) -> MemberId {
        match self {
            Change::Add(member) | Change::Update(member) => MemberId(member.id),
            Change::Promote(id) | Change::Remove(id) => *id,
        }
    }
}

/// Id of a member that is added: etcd hashes the URLs and the wall clock, of which core has none;
/// `drawn` is in its place.
pub fn new_member_id(peer_urls: &[String], drawn: u64) -> MemberId {
    let mut hash = Sha1::new();
    hash.update(peer_urls.concat().as_bytes());
    hash.update(drawn.to_string().as_bytes());
    let digest = hash.finalize();
    MemberId(u64::from_be_bytes(digest[..8].try_into().expect("a SHA-1 has 20 bytes")))
}

impl Cluster {
    /// Whether the change may be applied to the present member list: the same on every member.
    ///
    /// Errors: etcd's, surface spec §6. The last voter cannot go: nobody would be left to commit it.
    pub fn validate(&self, change: &Change) -> Result<(), ApiError> {
        if self.is_removed(change.member()) {
            return Err(ApiError::MemberNotFound);
        }
        let known = self.members.get(&change.member());
        match change {
            Change::Add(_) if known.is_some() => Err(ApiError::MemberExists),
            Change::Add(new) if self.is_url_taken(new) => Err(ApiError::PeerUrlExists),
            Change::Add(_) => Ok(()),
            Change::Promote(_) => match known {
                None => Err(ApiError::MemberNotFound),
                Some(member) if !member.is_learner => Err(ApiError::MemberNotLearner),
                Some(_) => Ok(()),
            },
            Change::Remove(id) => {
                let others = self.voters().filter(|member| member.id != id.0).count();
                match known {
                    None => Err(ApiError::MemberNotFound),
                    Some(_) if others == 0 => Err(ApiError::NotEnoughStarted),
                    Some(_) => Ok(()),
                }
            }
            Change::Update(_) if known.is_none() => Err(ApiError::MemberNotFound),
            Change::Update(new) if self.is_url_taken(new) => Err(ApiError::PeerUrlExists),
            Change::Update(_) => Ok(()),
        }
    }

    /// By another member.
    fn is_url_taken(&self, new: &MemberInfo) -> bool {
        let others = self.members.values().filter(|member| member.id != new.id);
        others.flat_map(|member| &member.peer_urls).any(|url| new.peer_urls.contains(url))
    }

    pub fn voters(&self) -> impl Iterator<Item = &MemberInfo> {
        self.members.values().filter(|member| !member.is_learner)
    }

    pub fn learners(&self) -> usize {
        self.members.values().filter(|member| member.is_learner).count()
    }

    /// `--strict-reconfig-check`: enough members have started (have a name) to form the quorum that
    /// the change leads to.
    pub fn has_started_quorum_after(&self, change: &Change) -> bool {
        let voters = self.voters().count();
        let started = self.voters().filter(|member| member.is_started()).count();
        match change {
            // A one-member cluster may grow.
            Change::Add(new) if !new.is_learner => {
                let (voters, started) = (voters + 1, started);
                (started == 1 && voters == 2) || started > voters / 2
            }
            Change::Promote(_) => {
                let (voters, started) = (voters + 1, started + 1);
                started > voters / 2
            }
            Change::Remove(id) if self.is_voter(*id) => {
                let gone = self.members.get(id).is_some_and(MemberInfo::is_started);
                let (voters, started) = (voters - 1, started - usize::from(gone));
                started > voters / 2
            }
            _ => true,
        }
    }

    pub fn is_voter(&self, id: MemberId) -> bool {
        self.members.get(&id).is_some_and(|member| !member.is_learner)
    }

    /// Makes the change, which `validate` let pass.
    pub fn apply_change(&mut self, store: &mut Store, change: &Change) {
        let id = change.member();
        match change {
            Change::Add(new) => {
                self.put_member(store, new.clone());
            }
            Change::Promote(_) => {
                let known = self.members.get(&id).cloned().expect("validated");
                self.put_member(store, MemberInfo { is_learner: false, ..known });
            }
            Change::Remove(_) => {
                let info = self.members.remove(&id).expect("validated");
                store.delete_row(Bucket::Members, &info.row_key());
                let removed = Bytes::from_static(b"removed");
                store.put_row(Bucket::MembersRemoved, info.row_key(), removed);
                self.removed.insert(id);
            }
            Change::Update(new) => {
                let known = self.members.get(&id).cloned().expect("validated");
                self.put_member(store, MemberInfo { peer_urls: new.peer_urls.clone(), ..known });
            }
        }
    }

    fn put_member(&mut self, store: &mut Store, info: MemberInfo) {
        store.put_row(Bucket::Members, info.row_key(), info.row_value());
        self.members.insert(MemberId(info.id), info);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, is_learner: bool, name: &str) -> MemberInfo {
        let peer_urls = vec![format!("http://10.0.0.{id}:2380")];
        let name = name.to_owned();
        MemberInfo { id, peer_urls, is_learner, name, client_urls: Vec::new() }
    }

    fn cluster(members: &[MemberInfo]) -> Cluster {
        let members = members.iter().map(|m| (MemberId(m.id), m.clone())).collect();
        Cluster { members, ..Cluster::default() }
    }

    fn three() -> Cluster {
        cluster(&[1, 2, 3].map(|id| member(id, false, "m")))
    }

    #[test]
    fn a_change_survives_the_log_in_etcds_json() {
        let learner = member(7, true, "");
        let known = member(7, true, "m7");
        for change in [
            Change::Add(learner),
            Change::Add(member(8, false, "")),
            Change::Promote(MemberId(7)),
            Change::Remove(MemberId(7)),
            Change::Update(member(7, false, "m7")),
        ] {
            let pb = change.to_pb(9, Some(&known));
            assert_eq!((pb.id, Change::read(&pb)), (9, Some(change)));
        }
        let pb = Change::Promote(MemberId(7)).to_pb(9, Some(&known));
        let json = br#"{"id":7,"peerURLs":["http://10.0.0.7:2380"],"name":"m7","isPromote":true}"#;
        assert_eq!(pb.context.as_deref(), Some(&json[..]));
    }

    #[test]
    fn bytes_that_are_no_change_are_not_read() {
        let pb = Change::Remove(MemberId(7)).to_pb(9, None);
        assert_eq!(Change::read(&raftpb::ConfChange { node_id: 0, ..pb.clone() }), None);
        let add = T::ConfChangeAddNode.into();
        assert_eq!(Change::read(&raftpb::ConfChange { r#type: add, ..pb }), None);
    }

    #[test]
    fn a_change_that_does_not_fit_the_members_has_etcds_error() {
        let mut c = three();
        c.removed.insert(MemberId(9));
        let taken = MemberInfo { id: 4, ..member(1, false, "") };
        for (change, error) in [
            (Change::Add(member(1, false, "")), ApiError::MemberExists),
            (Change::Add(member(9, false, "")), ApiError::MemberNotFound),
            (Change::Add(taken.clone()), ApiError::PeerUrlExists),
            (Change::Promote(MemberId(4)), ApiError::MemberNotFound),
            (Change::Promote(MemberId(1)), ApiError::MemberNotLearner),
            (Change::Remove(MemberId(9)), ApiError::MemberNotFound),
            (Change::Update(member(5, false, "")), ApiError::MemberNotFound),
            (Change::Update(MemberInfo { id: 2, ..taken }), ApiError::PeerUrlExists),
        ] {
            assert_eq!(c.validate(&change), Err(error), "{change:?}");
        }
        assert_eq!(c.validate(&Change::Update(member(1, false, ""))), Ok(()));
        let last = cluster(&[member(1, false, "m"), member(2, true, "m")]);
        assert_eq!(
            last.validate(&Change::Remove(MemberId(1))),
            Err(ApiError::NotEnoughStarted),
            "a learner does not take over"
        );
    }

    /// Surface spec §6, "Guards".
    #[test]
    fn the_quorum_after_a_change_must_have_started() {
        let add = Change::Add(member(9, false, ""));
        assert!(cluster(&[member(1, false, "m")]).has_started_quorum_after(&add), "1 → 2");
        let two = cluster(&[member(1, false, "m"), member(2, false, "")]);
        assert!(!two.has_started_quorum_after(&add), "one of three has started");
        assert!(three().has_started_quorum_after(&add));
        let half = [member(1, false, "m"), member(2, false, "m"), member(3, false, "")];
        let c = cluster(&half);
        assert!(!c.has_started_quorum_after(&add), "2 of 4 is no quorum");
        assert!(c.has_started_quorum_after(&Change::Remove(MemberId(3))));
        assert!(!c.has_started_quorum_after(&Change::Remove(MemberId(1))), "1 of 2 is none");
        assert!(c.has_started_quorum_after(&Change::Promote(MemberId(8))));
        assert!(c.has_started_quorum_after(&Change::Add(member(9, true, ""))), "a learner may");
    }

    #[test]
    fn the_same_urls_get_another_id_each_time() {
        let urls = ["http://a:1".to_owned()];
        assert_ne!(new_member_id(&urls, 1), new_member_id(&urls, 2));
        assert_eq!(new_member_id(&urls, 1), new_member_id(&urls, 1));
    }
}
