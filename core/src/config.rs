//! What a member is told at open: identity, timeouts, limits. All of it comes from etcd's flags.

use std::time::Duration;

use sha1::{Digest, Sha1};

use crate::event::MemberId;

/// The version of etcd whose surface a member has, as reported to clients.
pub const VERSION: &str = "3.6.0";

/// Versions of the peer wire. 2: a follower forwards membership changes, and a refusal says why.
/// Two members speak the lower of their versions.
pub const WIRE_VERSION: u32 = 2;
/// The oldest version of the peer wire that is still spoken.
pub const WIRE_VERSION_MIN: u32 = 1;

/// How the Raft loop waits for the disk (rules 1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Profile {
    /// As etcd's one loop: while a WAL sync is in flight no tick, no `Ready`, nothing leaves.
    Coupled,
    /// Ticks, heartbeats and commits go on during a sync.
    #[default]
    Decoupled,
}

/// A member of the initial cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootMember {
    pub id: MemberId,
    pub name: String,
    pub peer_urls: Vec<String>,
}

/// What `--auto-compaction-mode` and `--auto-compaction-retention` ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AutoCompaction {
    /// Keep the history of this long.
    Periodic(Duration),
    /// Keep this many revisions.
    Revision(i64),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    pub id: MemberId,
    pub cluster_id: u64,
    pub name: String,
    pub client_urls: Vec<String>,
    /// The initial cluster, this member included. Used only with an empty data directory.
    pub initial_cluster: Vec<BootMember>,
    /// `--initial-cluster-state=existing`: join, do not bootstrap. With an empty data directory
    /// `initial_cluster` is then the present members, as a peer told them.
    pub join: bool,
    /// `--strict-reconfig-check`: refuse membership changes that endanger the quorum.
    pub strict_reconfig_check: bool,
    /// `--max-learners`.
    pub learners_max: usize,
    /// The highest version of the peer wire that this member speaks.
    pub wire_version: u32,
    pub profile: Profile,
    /// One Raft tick.
    pub heartbeat: Duration,
    /// Invariant: a multiple of `heartbeat`, at least 5×.
    pub election: Duration,
    pub pre_vote: bool,
    /// Entries between Raft snapshots.
    pub snapshot_count: u64,
    /// Entries kept behind a snapshot for slow followers.
    pub snapshot_catchup_entries: u64,
    /// Backend quota in bytes; `None` = no quota.
    pub quota_bytes: Option<u64>,
    /// Largest marshalled Raft request, bytes.
    pub request_bytes_max: usize,
    pub txn_ops_max: usize,
    /// Longest time that a change waits for the backend's file. Reads see the batch too, and only
    /// `Immediate` commits let the log go: shorter than `backend_sync_interval` only costs commits.
    pub backend_batch_interval: Duration,
    pub backend_batch_ops: usize,
    /// The same while few changes wait (`limits::BACKEND_QUIET_OPS`): a commit costs as much for ten as for
    /// hundreds of them.
    pub backend_quiet_interval: Duration,
    /// Time between `Immediate` commits of the backend while it is busy.
    pub backend_sync_interval: Duration,
    pub watch_progress_interval: Duration,
    pub auto_compaction: Option<AutoCompaction>,
    /// Compare with the peers before the first client is served; halt when different.
    pub initial_corrupt_check: bool,
    /// Time between two comparisons of the whole key space with the peers.
    pub corrupt_check_interval: Option<Duration>,
    /// Time between two comparisons of the hashes taken at compactions.
    pub compact_hash_check_interval: Option<Duration>,
    /// Byte credit of one watch stream: more than this waits in the store, not in memory.
    pub watch_stream_bytes: u64,
    /// WAL segment size; tests make it small.
    pub wal_segment_bytes: u64,
    /// Version reported to clients, `X.Y.Z`.
    pub version: String,
}

impl Config {
    /// etcd's defaults for a member of `initial_cluster`.
    pub fn new(id: MemberId, cluster_id: u64, initial_cluster: Vec<BootMember>) -> Self {
        let name =
            initial_cluster.iter().find(|m| m.id == id).map_or("default", |m| &m.name).to_owned();
        Self {
            id,
            cluster_id,
            name,
            client_urls: Vec::new(),
            initial_cluster,
            join: false,
            strict_reconfig_check: true,
            learners_max: 1,
            wire_version: WIRE_VERSION,
            profile: Profile::default(),
            heartbeat: Duration::from_millis(100),
            election: Duration::from_millis(1000),
            pre_vote: true,
            snapshot_count: 10_000,
            snapshot_catchup_entries: 5_000,
            quota_bytes: Some(2 << 30),
            request_bytes_max: 1_572_864,
            txn_ops_max: 128,
            backend_batch_interval: Duration::from_secs(1),
            backend_batch_ops: crate::limits::BACKEND_BATCH_OPS,
            backend_quiet_interval: Duration::from_secs(5),
            backend_sync_interval: Duration::from_secs(1),
            watch_progress_interval: Duration::from_secs(600),
            auto_compaction: None,
            initial_corrupt_check: false,
            corrupt_check_interval: None,
            compact_hash_check_interval: None,
            watch_stream_bytes: crate::limits::WATCH_STREAM_BYTES_MAX,
            wal_segment_bytes: crate::limits::WAL_SEGMENT_BYTES,
            version: VERSION.to_owned(),
        }
    }

    /// Where peers reach this member, as its own flags have it. After a restart the ids in
    /// `initial_cluster` may be older than its own, which is on its disk.
    pub fn own_peer_urls(&self) -> &[String] {
        let own = self.initial_cluster.iter().find(|m| m.id == self.id);
        let own = own.or_else(|| self.initial_cluster.iter().find(|m| m.name == self.name));
        own.map_or(&[], |m| &m.peer_urls)
    }

    /// Server request timeout: 5 s + 2 × election (surface spec §10.3).
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election
    }

    /// Smallest lease TTL: ceil(1.5 × election) whole seconds.
    pub fn lease_ttl_secs_min(&self) -> i64 {
        (self.election.as_millis() as i64 * 3 + 1999) / 2000
    }

    pub fn election_ticks(&self) -> usize {
        (self.election.as_nanos() / self.heartbeat.as_nanos()) as usize
    }
}

/// First 8 bytes, big endian, of a SHA-1.
fn sha1_u64(parts: &[&[u8]]) -> u64 {
    let mut hash = Sha1::new();
    for part in parts {
        hash.update(part);
    }
    let digest = hash.finalize();
    u64::from_be_bytes(digest[..8].try_into().expect("a SHA-1 has 20 bytes"))
}

/// The id of a bootstrap member: SHA-1 of its sorted peer URLs and the cluster token (spec §6).
pub fn member_id(peer_urls: &[String], token: &str) -> MemberId {
    let mut urls = peer_urls.to_vec();
    urls.sort();
    MemberId(sha1_u64(&[urls.concat().as_bytes(), token.as_bytes()]))
}

/// The cluster id: SHA-1 of all bootstrap member ids, sorted, big endian (spec §6).
pub fn cluster_id(members: &[MemberId]) -> u64 {
    let mut ids: Vec<u64> = members.iter().map(|m| m.0).collect();
    ids.sort_unstable();
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_be_bytes()).collect();
    sha1_u64(&[&bytes])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ids that etcd prints for its well-known single default member.
    #[test]
    fn ids_are_etcds() {
        let id = member_id(&["http://localhost:2380".into()], "etcd-cluster");
        assert_eq!(id.to_string(), "8e9e05c52164694d");
        assert_eq!(format!("{:x}", cluster_id(&[id])), "cdf818194e3a8c32");
    }
}
