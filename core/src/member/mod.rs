//! The member: one burst in, one set of outputs out.
//!
//! ```text
//! loop { handle(now, input)*  →  poll(now, &mut out)  →  the driver performs out }
//! ```
//!
//! * open: [`Recovery`](crate::Recovery) reads the data directory in steps and ends in a `Member`.
//! * `handle_*`: one thing happened. Never fails, never blocks. Spurious deadlines are no-ops.
//! * `poll`: after a burst: one WAL write, message batch, replies, events, jobs.
//! * `next_deadline`: when to call `handle(Input::Deadline)` at the latest.
//!
//! | File | What |
//! |---|---|
//! | `mod` | the state, opening, `handle` |
//! | `input` | what came in, told apart |
//! | `output` | the turn after a burst, and what it hands out |
//! | `requests` | a client's request: checked, then proposed, forwarded or read |
//! | `pending` | proposals whose result is awaited |
//! | `apply` | a committed entry becomes state, reply and events |
//! | `leases` | keep-alives, time-to-live, expiry |
//! | `membership` | changes of the member list; the end of a removed member |
//! | `lead` | what changes with the leader: promotion, hand-over, planned stop |
//! | `versions` | peer wire versions, cluster version |
//! | `space`, `corruption` | quota, comparison with the peers; the alarms |
//! | `auto_compact` | compaction without anybody asking |
//! | `defrag` | the store's file is replaced by a copy without holes |
//! | `status` | what may be looked at from outside |

mod apply;
mod auto_compact;
mod corruption;
mod defrag;
mod input;
mod lead;
mod leases;
mod membership;
mod output;
mod pending;
mod requests;
mod space;
mod status;
mod versions;

use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use rand_core::Rng;

use crate::api::{RequestId, Response};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::error::{ApiError, Halt};
use crate::event::{Input, LaneQueue, Level, LogLine, MemberId, Peer, SharedFiles, Ticket};
use crate::lease::Lessor;
use crate::mvcc::{BackendJob, Store, StoreReader};
use crate::pb::etcdserverpb as pb;
use crate::pb::peer::Frame;
use crate::raft::{RaftNode, ReadRounds};
use crate::snapshot::Snapshots;
use crate::time::Instant;
use crate::watch::WatchHub;

pub use crate::metrics::Metrics;
use auto_compact::AutoCompactor;
use corruption::Corruption;
pub(crate) use defrag::COPY_PREFIX;
use defrag::DefragDesk;
use lead::Lead;
use leases::LeaseDesk;
pub use membership::{AppliedChange, ChangeKind};
use pending::Pending;
use requests::ReadWaiter;
use space::SpaceDesk;
pub use status::{LogEntry, MemberStatus, RaftFacts, Role};

pub struct Member {
    pub(crate) config: Config,
    pub(crate) files: SharedFiles,
    pub(crate) now: Instant,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) node: RaftNode,
    pub(crate) store: Store,
    pub(crate) reader: StoreReader,
    pub(crate) watches: WatchHub,
    pub(crate) lessor: Lessor,
    pub(crate) cluster: Cluster,
    /// Index of the last applied entry. Invariant: `applied <= node.commit_index()`.
    pub(crate) applied: u64,
    pub(crate) pending: Pending,
    pub(crate) reads: ReadRounds<ReadWaiter>,
    pub(crate) leases: LeaseDesk,
    pub(crate) lead: Lead,
    pub(crate) space: SpaceDesk,
    pub(crate) defrag: DefragDesk,
    pub(crate) auto_compactor: Option<AutoCompactor>,
    pub(crate) corruption: Corruption,
    pub(crate) snapshots: Snapshots,
    /// Clients of Hash, which wait for the file to hold what was applied when they asked.
    pub(crate) hashing: Vec<(RequestId, u64)>,
    /// Compactions whose rows are awaited (`physical`): revision, client.
    pub(crate) physical: Vec<(i64, RequestId)>,
    /// When requests that wait for somebody are looked at next; `None` when none does.
    pub(crate) look_after: Option<Instant>,
    /// Peers whose message connection is up, since when.
    pub(crate) peers_up: std::collections::BTreeMap<MemberId, Instant>,
    /// Applied membership changes that nobody has looked at.
    pub(crate) changes: std::collections::VecDeque<AppliedChange>,
    /// Removed members that still have to hear of it, until when.
    pub(crate) farewells: Vec<(Peer, Instant)>,
    /// Who talks to this member and joined after all that it has applied; oldest first.
    pub(crate) remotes: Vec<Peer>,
    /// What peers said of themselves: wire version to use with them, etcd's version.
    pub(crate) peer_versions: std::collections::BTreeMap<MemberId, (u32, String)>,

    // what the next poll hands out
    pub(crate) raft_frames: Vec<(MemberId, Frame)>,
    /// Forwards and lease messages; a coupled loop keeps them back during a sync (rules 1).
    pub(crate) frames: Vec<(MemberId, Frame)>,
    pub(crate) replies: Vec<(RequestId, Result<Response, ApiError>)>,
    pub(crate) refused_streams: Vec<(crate::api::StreamId, ApiError)>,
    pub(crate) log_lines: Vec<LogLine>,
    pub(crate) jobs: Vec<(Ticket, BackendJob)>,
    pub(crate) last_job: Ticket,
    pub(crate) jobs_under_way: usize,
    pub(crate) snapshot_lane: LaneQueue,
    pub(crate) peers_changed: bool,
    pub(crate) halt: Option<Halt>,
    pub(crate) halted: bool,

    pub(crate) metrics: Arc<Metrics>,
    /// Applied index, jobs begun and under way when the store's metrics were taken.
    pub(crate) measured_at: Option<(u64, Ticket, usize)>,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").field("status", &self.status()).finish()
    }
}

/// What recovery hands over.
pub(crate) struct Parts {
    pub config: Config,
    pub files: SharedFiles,
    pub rng: ChaCha8Rng,
    pub node: RaftNode,
    pub store: Store,
    /// Metadata of the newest snap file, and the names of all of them.
    pub snapshot_index: u64,
    pub snap_files: Vec<String>,
}

impl Member {
    pub(crate) fn new(parts: Parts, now: Instant) -> Self {
        let Parts { config, files, mut rng, node, store, snapshot_index, snap_files } = parts;
        let reader = store.reader();
        let metrics = Arc::new(Metrics::new(store.metrics()));
        let watches = WatchHub::new(crate::watch::WatchOptions {
            progress_interval: config.watch_progress_interval,
            fragment_bytes: config.request_bytes_max + (512 << 10),
            stream_bytes: config.watch_stream_bytes,
            seed: rng.next_u64(),
        });
        let mut member = Self {
            now,
            lessor: Lessor::new(config.election),
            cluster: Cluster::default(),
            applied: store.consistent().index,
            pending: Pending::new(&mut rng, config.request_timeout()),
            reads: ReadRounds::new(config.id, rng.next_u64()),
            leases: LeaseDesk::default(),
            lead: Lead::new(now),
            space: SpaceDesk::default(),
            defrag: DefragDesk::default(),
            auto_compactor: config
                .auto_compaction
                .map(|mode| AutoCompactor::new(mode, now, store.revision())),
            corruption: Corruption::new(&config, now),
            snapshots: Snapshots::new(snapshot_index, snap_files),
            hashing: Vec::new(),
            physical: Vec::new(),
            look_after: None,
            peers_up: Default::default(),
            changes: Default::default(),
            farewells: Vec::new(),
            remotes: Vec::new(),
            peer_versions: Default::default(),
            raft_frames: Vec::new(),
            frames: Vec::new(),
            replies: Vec::new(),
            refused_streams: Vec::new(),
            log_lines: Vec::new(),
            jobs: Vec::new(),
            last_job: Ticket(0),
            jobs_under_way: 0,
            snapshot_lane: LaneQueue::new(),
            peers_changed: true,
            halt: None,
            halted: false,
            metrics,
            measured_at: None,
            config,
            files,
            rng,
            node,
            store,
            reader,
            watches,
        };
        member.reload();
        member.check_removed();
        member
    }

    /// Recovery went on from an older snap file than this one, and gave it another name.
    pub(crate) fn report_damage(&mut self, path: &str, what: &str) {
        let fields = vec![("path", path.to_owned()), ("error", what.to_owned())];
        self.log(Level::Warn, "renamed a damaged snap file to .broken", fields);
    }

    /// Recovery cut a write that a crash had torn; nobody had been told of it.
    pub(crate) fn report_torn_tail(&mut self, bytes: u64) {
        let fields = vec![("bytes", bytes.to_string())];
        self.log(
            Level::Warn,
            "repaired the torn tail of the WAL; a copy is kept as .broken",
            fields,
        );
    }

    /// Rebuilds what lives beside the store from its rows: after open and after an install.
    pub(crate) fn reload(&mut self) {
        use crate::mvcc::Bucket;
        let is_new =
            self.store.consistent().index == 0 && self.store.rows(Bucket::Members).is_empty();
        if is_new && !self.config.join {
            for boot in &self.config.initial_cluster {
                let info = crate::cluster::MemberInfo::boot(boot);
                self.store.put_row(Bucket::Members, info.row_key(), info.row_value());
            }
        }
        self.cluster = if is_new && self.config.join {
            Cluster::told(&self.config.initial_cluster)
        } else {
            Cluster::load(&self.store)
        };
        self.show_alarms();
        self.lead.introduced = false;
        self.lessor = Lessor::new(self.config.election);
        let leases = self.store.rows(Bucket::Lease);
        let leases = leases.iter().filter_map(|(_, v)| prost::Message::decode(v.clone()).ok());
        self.lessor.restore(leases.collect(), self.store.leased_keys());
        self.peers_changed = true;
    }

    /// One thing happened.
    pub fn handle(&mut self, now: Instant, input: Input) {
        if self.halted || self.halt.is_some() {
            return;
        }
        self.now = self.now.max(now);
        if !self.is_holding_back() {
            self.take(input);
        } else if let Some(input) = self.hold_back(input) {
            self.take(input);
        }
    }

    fn warn(&mut self, msg: &str, peer: MemberId) {
        self.log(Level::Warn, msg, vec![("remote-peer-id", peer.to_string())]);
    }

    pub(crate) fn log(&mut self, level: Level, msg: &str, fields: Vec<(&'static str, String)>) {
        self.log_lines.push(LogLine { level, msg: msg.to_owned(), fields });
    }

    /// A thread-safe handle for reads.
    pub fn reader(&self) -> StoreReader {
        self.reader.clone()
    }

    pub(crate) fn header(&self) -> pb::ResponseHeader {
        pb::ResponseHeader {
            cluster_id: self.config.cluster_id,
            member_id: self.config.id.0,
            revision: self.store.revision(),
            raft_term: self.node.term(),
        }
    }

    fn reply(&mut self, id: RequestId, result: Result<Response, ApiError>) {
        self.replies.push((id, result));
    }
}
