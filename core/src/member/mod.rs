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
//! | `mod` | the loop |
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
mod lead;
mod leases;
mod membership;
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
use crate::event::{
    Input, Lane, LaneQueue, Level, LogLine, MemberId, Outputs, Peer, SharedFiles, Ticket,
};
use crate::lease::Lessor;
use crate::mvcc::{BackendJob, Store, StoreEvent, StoreReader};
use crate::pb::etcdserverpb as pb;
use crate::pb::peer::{Frame, frame::Body};
use crate::raft::{RaftNode, RaftOutput, ReadRounds, message_from_pb};
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

/// Appends `from` to `to`. Mostly there is nothing to move, or only the vector itself.
fn hand_over<T>(from: &mut Vec<T>, to: &mut Vec<T>) {
    if from.is_empty() {
        return;
    }
    if to.is_empty() {
        std::mem::swap(from, to);
    } else {
        to.append(from);
    }
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

    pub(crate) fn take(&mut self, input: Input) {
        match input {
            Input::Deadline => {}
            Input::Peer { from, frame } => self.handle_frame(from, frame),
            Input::PeerVersion { peer, wire, version } => {
                self.peer_versions.insert(peer, (wire, version));
                self.lead.introduced = false;
            }
            Input::Remote { peer } => self.handle_remote(peer),
            Input::RefusedAsRemoved { peer } => self.handle_refused_as_removed(peer),
            Input::PeerUp { peer } => {
                self.peers_up.entry(peer).or_insert(self.now);
                self.lead.introduced = false;
                self.node.on_peer_up();
                self.lead.dispatch = true;
                self.ask_hash(peer);
            }
            Input::PeerDown { peer } => {
                self.peers_up.remove(&peer);
                self.node.report_unreachable(peer);
                self.leases.on_peer_down(peer);
                self.on_receiver_gone(peer);
            }
            Input::PeerQueueFull { peer } => self.node.report_unreachable(peer),
            Input::Request { id, request } => self.handle_request(id, request),
            // The result is dropped by the driver, which has forgotten the id.
            Input::Cancel { .. } => {}
            Input::StreamOpen { stream } if self.is_learner() => {
                let refused = (stream, ApiError::NotSupportedForLearner);
                self.refused_streams.push(refused);
            }
            Input::StreamOpen { stream } => self.watches.open_stream(self.now, stream),
            Input::StreamRequest { stream, request } => {
                self.watches.handle(self.now, stream, request, &self.reader);
            }
            Input::StreamDrained { stream, bytes } => {
                self.watches.on_drained(self.now, stream, bytes);
            }
            Input::StreamClosed { stream } => self.watches.close_stream(stream),
            Input::Synced { lane: Lane::Log, up_to } => {
                self.node.on_synced(up_to);
                self.on_log_synced(up_to);
            }
            Input::Synced { lane: Lane::Snapshot, up_to } => self.on_snapshot_lane_synced(up_to),
            Input::Synced { lane: Lane::Backend, .. } => {}
            Input::JobDone { done, .. } => self.handle_job_done(done),
            Input::DiskFailed { lane, error } => {
                self.halt = Some(Halt::DiskFailed { lane, error });
            }
            Input::Stop => self.handle_stop(),
        }
    }

    fn handle_frame(&mut self, from: MemberId, frame: Frame) {
        match frame.body {
            Some(Body::Raft(m)) => {
                if m.from != from.0 || m.to != self.config.id.0 {
                    return self
                        .warn("dropped a Raft message with a wrong sender or receiver", from);
                }
                match message_from_pb(m) {
                    // raft-rs would panic: a leader names no commit that it has not seen us acknowledge.
                    Some(m) if self.node.is_past_our_log(&m) => {
                        let why = "a leader knows log entries that this member has lost";
                        self.halt = Some(Halt::Backend(why.to_owned()));
                    }
                    Some(m) => self.node.step(m),
                    None => self.warn("dropped a malformed Raft message", from),
                }
            }
            Some(Body::Forward(f)) => self.handle_forward(from, f),
            Some(Body::ForwardRefused(f)) => self.handle_forward_refused(from, f),
            Some(Body::LeaseForward(f)) => self.handle_lease_forward(from, f),
            Some(Body::LeaseReply(r)) => self.handle_lease_reply(from, r),
            Some(Body::SnapshotHeader(h)) => self.handle_snapshot_header(from, h),
            Some(Body::SnapshotChunk(c)) => self.handle_snapshot_chunk(from, c),
            Some(Body::SnapshotEnd(e)) => self.handle_snapshot_end(from, e),
            Some(Body::SnapshotAck(a)) => self.handle_snapshot_ack(from, a),
            Some(Body::HashAsk(ask)) => self.handle_hash_ask(from, ask),
            Some(Body::HashReply(reply)) => self.handle_hash_reply(from, reply),
            // The drivers' business.
            Some(Body::Ping(_) | Body::Pong(_)) => {}
            None => self.warn("dropped an empty frame", from),
        }
    }

    fn warn(&mut self, msg: &str, peer: MemberId) {
        self.log(Level::Warn, msg, vec![("remote-peer-id", peer.to_string())]);
    }

    pub(crate) fn log(&mut self, level: Level, msg: &str, fields: Vec<(&'static str, String)>) {
        self.log_lines.push(LogLine { level, msg: msg.to_owned(), fields });
    }

    fn handle_job_done(&mut self, done: crate::mvcc::JobDone) {
        self.jobs_under_way = self.jobs_under_way.saturating_sub(1);
        match self.store.handle_done(self.now, done) {
            Ok(events) => events.into_iter().for_each(|e| self.on_store_event(e)),
            Err(halt) => self.halt = Some(halt),
        }
        self.answer_hashing();
    }

    /// Clients of compactions whose rows are gone.
    pub(crate) fn answer_physical(&mut self) {
        let (header, finished) = (self.header(), self.store.finished_compaction());
        for (_, client) in self.physical.extract_if(.., |(r, _)| *r <= finished) {
            let response = pb::CompactionResponse { header: Some(header) };
            self.replies.push((client, Ok(Response::Compact(response))));
        }
    }

    fn on_store_event(&mut self, event: StoreEvent) {
        match event {
            StoreEvent::Durable { index } => self.maybe_save_snapshot(index),
            StoreEvent::CompactionFinished { revision } => {
                self.answer_physical();
                let fields = vec![("compact-revision", revision.to_string())];
                self.log(Level::Info, "finished scheduled compaction", fields);
            }
            StoreEvent::ReceivedChunk { path } => self.on_received_chunk(&path),
            StoreEvent::ReceivedAll { path, holds } => self.on_received_all(&path, &holds),
            StoreEvent::Loaded => self.finish_install(),
            StoreEvent::Copied { path } => self.on_copied(path),
            StoreEvent::CopyFailed { path, error } => self.on_copy_failed(path, &error),
            StoreEvent::Hashed { id, result } => self.on_hashed(id, &result),
            StoreEvent::HashStored(hash) => {
                let fields = vec![
                    ("hash", hash.hash.to_string()),
                    ("revision", hash.revision.to_string()),
                    ("compact-revision", hash.compact_revision.to_string()),
                ];
                self.log(Level::Info, "storing new hash", fields);
            }
        }
    }

    /// Everything that is due and everything that came of the burst.
    pub fn poll(&mut self, now: Instant, out: &mut Outputs) {
        if self.halted {
            return;
        }
        self.now = self.now.max(now);
        if self.halt.is_none() {
            self.on_time();
            // Applying may let reads start, reads may bring messages: until nothing moves.
            while self.turn() && self.halt.is_none() {}
            self.settle_space();
        }
        if self.halt.is_none() {
            self.drive_install();
            self.send_snapshots(&mut out.snapshot_frames);
            self.maybe_finish_stop();
            self.remove_abandoned();
            self.poll_jobs();
            if self.watches.has_work(self.now) {
                let header = self.header();
                self.watches.poll(self.now, &self.reader, &header, &mut out.watch);
            }
        }
        self.hand_out(out);
    }

    /// Takes ticks, gives up on what waited too long.
    fn on_time(&mut self) {
        self.node.maybe_tick(self.now);
        self.expire_proposals();
        self.expire_leases();
        self.maybe_look_after();
        self.check_stall();
        self.auto_compact();
        self.expire_snapshots();
        self.end_farewells();
    }

    /// Reads, Raft, apply, once. Returns whether there may be more to do.
    fn turn(&mut self) -> bool {
        self.check_corruption();
        let retry = std::mem::take(&mut self.lead.retry_reads);
        if let Some(context) = self.reads.maybe_send(self.now, retry) {
            self.node.read_index(context);
        }
        let mut raft = RaftOutput::default();
        std::mem::swap(&mut raft.frames, &mut self.raft_frames);
        self.node.pump(self.now, &mut raft);
        std::mem::swap(&mut raft.frames, &mut self.raft_frames);
        let moved = !raft.read_states.is_empty();
        if moved {
            for state in raft.read_states {
                if !self.reads.on_read_state(&state.request_ctx, state.index) {
                    self.metrics.add(&self.metrics.slow_read_indexes_total);
                }
            }
        }
        if !raft.snapshots.is_empty() {
            raft.snapshots.into_iter().for_each(|message| self.start_snapshot(message));
        }
        if let Some(snapshot) = raft.install {
            self.begin_install(snapshot);
        }
        let led = self.on_leadership();
        let others = self.apply_committed();
        self.serve_reads();
        moved || led || others || self.corruption.is_due(self.now)
    }

    fn poll_jobs(&mut self) {
        // While a received snapshot takes the store's place its own batches stop (rules 12).
        if self.node.is_installing() || self.halt.is_some() {
            return;
        }
        if let Some(job) = self.store.poll(self.now, self.node.persisted_index()) {
            self.push_job(job);
        }
    }

    pub(crate) fn push_job(&mut self, job: BackendJob) {
        self.last_job.0 += 1;
        self.jobs_under_way += 1;
        self.jobs.push((self.last_job, job));
    }

    fn hand_out(&mut self, out: &mut Outputs) {
        self.node.take_log_lines(&mut self.log_lines);
        self.update_metrics();
        hand_over(&mut self.node.lane.ops, &mut out.log);
        hand_over(&mut self.snapshot_lane.ops, &mut out.snapshot);
        hand_over(&mut self.jobs, &mut out.jobs);
        hand_over(&mut self.replies, &mut out.replies);
        hand_over(&mut self.refused_streams, &mut out.refused_streams);
        hand_over(&mut self.log_lines, &mut out.log_lines);
        hand_over(&mut self.raft_frames, &mut out.messages);
        if !self.node.is_loop_blocked() {
            hand_over(&mut self.frames, &mut out.messages);
        }
        if std::mem::take(&mut self.peers_changed) {
            out.peers = Some(self.peers());
            out.removed = self.cluster.removed().collect();
        }
        if let Some(halt) = self.halt.take() {
            self.halted = true;
            out.halt = Some(halt);
        }
    }

    /// When `handle(Input::Deadline)` must be called at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.halted {
            return None;
        }
        // Asked after every burst, and mostly there is none.
        let mut earliest = self.node.next_deadline().unwrap_or(Instant::FAR);
        let mut due = |at: Option<Instant>| earliest = earliest.min(at.unwrap_or(Instant::FAR));
        if !self.node.is_installing() {
            due(self.store.next_deadline());
        }
        if !self.node.is_transferring() {
            due(self.lessor.next_deadline());
        }
        due(self.watches.next_deadline());
        due(self.pending.next_deadline());
        due(self.reads.next_deadline());
        due(self.look_after);
        due(self.stall_deadline());
        due(self.snapshots.next_deadline());
        due(self.auto_compactor.as_ref().map(AutoCompactor::next_deadline));
        due(self.corruption.next_deadline());
        (earliest != Instant::FAR).then_some(earliest)
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
