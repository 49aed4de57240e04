//! Who the members are: names, URLs, learners; cluster version; alarms. All of it replicated, kept
//! in etcd's buckets as etcd keeps it (surface spec §17.4).

mod change;
mod urls;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message as _;
use serde::{Deserialize, Serialize};

pub use change::{Change, new_member_id};
pub use urls::parse as parse_urls;

use crate::config::{BootMember, Config};
use crate::event::{MemberId, Peer};
use crate::mvcc::{Bucket, Store};
use crate::pb::etcdserverpb as pb;
use crate::pb::membershippb;

/// One row of the `members` bucket: JSON under the hex id.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberInfo {
    pub id: u64,
    #[serde(rename = "peerURLs", default)]
    pub peer_urls: Vec<String>,
    #[serde(rename = "isLearner", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_learner: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(rename = "clientURLs", default, skip_serializing_if = "Vec::is_empty")]
    pub client_urls: Vec<String>,
}

impl MemberInfo {
    /// A member of the initial cluster before it has published itself: etcd knows its name.
    pub fn boot(boot: &BootMember) -> Self {
        Self {
            id: boot.id.0,
            peer_urls: boot.peer_urls.clone(),
            is_learner: false,
            name: boot.name.clone(),
            client_urls: Vec::new(),
        }
    }

    /// A member of which only the id is known.
    pub fn nameless(id: MemberId) -> Self {
        Self {
            id: id.0,
            peer_urls: Vec::new(),
            is_learner: false,
            name: String::new(),
            client_urls: Vec::new(),
        }
    }

    /// It has published itself.
    pub fn is_started(&self) -> bool {
        !self.name.is_empty()
    }

    pub fn row_key(&self) -> Bytes {
        format!("{:x}", self.id).into()
    }

    pub fn row_value(&self) -> Bytes {
        serde_json::to_vec(self).expect("strings and numbers always encode").into()
    }

    pub fn to_pb(&self) -> pb::Member {
        pb::Member {
            id: self.id,
            name: self.name.clone(),
            peer_ur_ls: self.peer_urls.clone(),
            client_ur_ls: self.client_urls.clone(),
            is_learner: self.is_learner,
        }
    }
}

#[derive(Default, Debug)]
pub struct Cluster {
    members: BTreeMap<MemberId, MemberInfo>,
    /// Ids that never come back.
    removed: BTreeSet<MemberId>,
    version: Option<String>,
    /// (member, alarm type).
    alarms: BTreeSet<(u64, i32)>,
}

const VERSION_KEY: &[u8] = b"clusterVersion";

impl Cluster {
    pub fn load(store: &Store) -> Self {
        let members = store.rows(Bucket::Members).into_iter().filter_map(|(_, value)| {
            let info: MemberInfo = serde_json::from_slice(&value).ok()?;
            Some((MemberId(info.id), info))
        });
        let alarms = store.rows(Bucket::Alarm).into_iter().filter_map(|(key, _)| {
            let alarm = pb::AlarmMember::decode(key).ok()?;
            Some((alarm.member_id, alarm.alarm))
        });
        let version = store.rows(Bucket::Cluster).into_iter().find(|(key, _)| key == VERSION_KEY);
        let version = version.map(|(_, value)| String::from_utf8_lossy(&value).into_owned());
        let removed = store.rows(Bucket::MembersRemoved).into_iter().filter_map(|(key, _)| {
            let hex = std::str::from_utf8(&key).ok()?;
            u64::from_str_radix(hex, 16).ok().map(MemberId)
        });
        Self {
            members: members.collect(),
            removed: removed.collect(),
            version,
            alarms: alarms.collect(),
        }
    }

    /// What a joining member was told: it holds until its first snapshot. Nothing of it is stored.
    pub fn told(members: &[BootMember]) -> Self {
        let members = members.iter().map(|boot| (boot.id, MemberInfo::boot(boot))).collect();
        Self { members, ..Self::default() }
    }

    pub fn member(&self, id: MemberId) -> Option<&MemberInfo> {
        self.members.get(&id)
    }

    /// Removed for good.
    pub fn is_removed(&self, id: MemberId) -> bool {
        self.removed.contains(&id)
    }

    pub fn removed(&self) -> impl Iterator<Item = MemberId> + '_ {
        self.removed.iter().copied()
    }

    /// Neither a member nor removed.
    pub fn is_unheard_of(&self, id: MemberId) -> bool {
        self.member(id).is_none() && !self.is_removed(id)
    }

    /// By ascending id.
    pub fn members(&self) -> impl Iterator<Item = &MemberInfo> {
        self.members.values()
    }

    /// Everybody but `this`, for the driver to connect to.
    pub fn peers_of(&self, this: MemberId) -> Vec<Peer> {
        let others = self.members.values().filter(|m| m.id != this.0);
        others.map(|m| Peer { id: MemberId(m.id), urls: m.peer_urls.clone() }).collect()
    }

    pub fn is_published(&self, config: &Config) -> bool {
        self.members
            .get(&config.id)
            .is_some_and(|m| m.name == config.name && m.client_urls == config.client_urls)
    }

    pub fn set_attributes(
        &mut self,
        store: &mut Store,
        set: membershippb::ClusterMemberAttrSetRequest,
    ) {
        // A member removed meanwhile stays removed.
        let Some(info) = self.members.get_mut(&MemberId(set.member_id)) else { return };
        let attributes = set.member_attributes.unwrap_or_default();
        info.name = attributes.name;
        info.client_urls = attributes.client_urls;
        store.put_row(Bucket::Members, info.row_key(), info.row_value());
    }

    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    pub fn set_version(&mut self, store: &mut Store, version: String) {
        let key = Bytes::from_static(VERSION_KEY);
        store.put_row(Bucket::Cluster, key, version.clone().into());
        self.version = Some(version);
    }

    pub fn alarms(&self) -> impl Iterator<Item = pb::AlarmMember> + '_ {
        self.alarms
            .iter()
            .map(|(member_id, alarm)| pb::AlarmMember { member_id: *member_id, alarm: *alarm })
    }

    /// Whether any member has an alarm of this type.
    pub fn has_alarm(&self, alarm: pb::AlarmType) -> bool {
        self.alarms.iter().any(|(_, of)| *of == alarm as i32)
    }

    pub fn raise(&mut self, store: &mut Store, alarm: pb::AlarmMember) {
        if self.alarms.insert((alarm.member_id, alarm.alarm)) {
            store.put_row(Bucket::Alarm, alarm.encode_to_vec().into(), Bytes::new());
        }
    }

    /// False when there was no such alarm.
    pub fn disarm(&mut self, store: &mut Store, alarm: pb::AlarmMember) -> bool {
        let had = self.alarms.remove(&(alarm.member_id, alarm.alarm));
        if had {
            store.delete_row(Bucket::Alarm, &alarm.encode_to_vec());
        }
        had
    }
}

/// `X.Y.Z` → `X.Y.0`.
pub fn cluster_version(version: &str) -> String {
    let mut parts = version.split('.');
    let (major, minor) = (parts.next().unwrap_or("3"), parts.next().unwrap_or("0"));
    format!("{major}.{minor}.0")
}
