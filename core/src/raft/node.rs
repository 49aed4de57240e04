//! One Raft participant: raft-rs' `RawNode` with its WAL behind it.
//!
//! ```text
//! tick / step / propose / read_index
//!        │
//!      pump: Ready ──► messages a leader may send now ──────────────► RaftOutput
//!        │    └──────► messages that wait for this Ready's sync ──► held
//!        ▼
//!   batch (entries, hard state) ──► one WAL write + sync in flight ──► on_synced ──► held leaves
//! ```
//!
//! Group commit: at most one sync in flight; the next batch gathers meanwhile (rules 15).

mod alone;
mod change;
mod facts;
mod pieces;
mod probe;
mod pump;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Message, MessageType, Snapshot};
use raft::{RawNode, ReadState, SnapshotStatus};

use super::logger::RaftLog;
use super::storage::LogStorage;
use crate::config::{Config, Profile};
use crate::event::{LaneQueue, MemberId, Ticket};
use crate::limits;
use crate::pb::peer::Frame;
use crate::time::Instant;
use crate::wal::Wal;
use crate::{buggify, sometimes};

/// What recovery found.
#[derive(Debug)]
pub struct Restart {
    /// Index and term before the first entry.
    pub offset: (u64, u64),
    pub entries: Vec<Entry>,
    pub hard_state: HardState,
    pub conf_state: ConfState,
    /// Applied to the backend. Invariant: `offset.0 <= applied <= hard_state.commit`.
    pub applied: u64,
}

/// What one `pump` brought out.
#[derive(Default, Debug)]
pub struct RaftOutput {
    /// Messages to peers.
    pub frames: Vec<(MemberId, Frame)>,
    /// `MsgSnapshot`s: withheld, to be streamed on the snapshot lane.
    pub snapshots: Vec<Message>,
    pub read_states: Vec<ReadState>,
    /// A received snapshot that Raft accepted: install it, then call `on_installed`.
    pub install: Option<Snapshot>,
}

/// Not yet written to the WAL.
#[derive(Default, Debug)]
struct Batch {
    entries: Vec<Entry>,
    hard_state: Option<HardState>,
    /// Entries, or a term or vote change. A commit-only hard state rides along with the next batch.
    must_sync: bool,
    bytes: usize,
}

/// Written, its sync not yet reported.
#[derive(Debug)]
struct InFlight {
    /// The newest `Ready` it covers.
    ready: u64,
    ticket: Ticket,
    since: Instant,
    bytes: usize,
}

pub struct RaftNode {
    id: u64,
    seed: u64,
    profile: Profile,
    heartbeat: Duration,
    raw: RawNode<LogStorage>,
    lines: RaftLog,
    wal: Wal,
    /// The log lane.
    pub lane: LaneQueue,
    batch: Batch,
    in_flight: Option<InFlight>,
    /// Messages that wait until this `Ready` and all earlier ones are durable.
    held: VecDeque<(u64, Vec<Message>)>,
    last_ready: u64,
    durable_ready: u64,
    /// The newest `Ready` with a term or vote change.
    vote_ready: u64,
    /// Term and vote as of the newest `Ready`.
    vote: (u64, u64),
    /// Coupled: how far the `Ready`s taken so far allow applying.
    ready_committed: u64,
    /// A `Ready` with a snapshot, being installed: nothing else is taken meanwhile.
    installing: Option<u64>,
    next_tick: Instant,
    /// It led at the last tick.
    led_at_tick: bool,
    late_heartbeats: u64,
    /// The newest append that was answered to the leader: term and index.
    acknowledged: (u64, u64),
    /// The election timeout of a term, in ticks.
    timeout: Option<(u64, usize)>,
    /// The in-code fault that was chosen at open.
    has_tiny_appends: bool,
}

impl std::fmt::Debug for RaftNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftNode").field("id", &self.id).field("term", &self.term()).finish()
    }
}

/// splitmix64's finisher: spreads a number over 64 bits.
pub(crate) fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl RaftNode {
    pub fn new(
        config: &Config,
        seed: u64,
        restart: Restart,
        wal: Wal,
        lane: LaneQueue,
        now: Instant,
    ) -> Self {
        let commit = restart.hard_state.commit;
        let vote = (restart.hard_state.term, restart.hard_state.vote);
        let storage = LogStorage::new(
            restart.offset,
            restart.entries,
            restart.hard_state,
            restart.conf_state,
        );
        let tiny = buggify!("raft.tiny-appends");
        let raft_config = raft::Config {
            id: config.id.0,
            election_tick: config.election_ticks(),
            heartbeat_tick: 1,
            applied: restart.applied,
            max_size_per_msg: if tiny { 256 } else { limits::APPEND_BYTES_MAX },
            max_inflight_msgs: if tiny { 2 } else { limits::APPENDS_IN_FLIGHT_MAX },
            check_quorum: true,
            pre_vote: config.pre_vote,
            batch_append: true,
            // A leader whose disk stalls would drop proposals; bounded by `unsynced_bytes` instead.
            max_uncommitted_size: raft::NO_LIMIT,
            ..raft::Config::default()
        };
        let lines = RaftLog::default();
        let raw = RawNode::new(&raft_config, storage, &lines.logger(config.id.0))
            .expect("recovery checked what raft-rs requires: applied <= min(commit, last index)");
        // Each member ticks at a phase of its own; in step they would split votes.
        let phase = mix(seed ^ config.id.0) % config.heartbeat.as_nanos() as u64;
        let mut node = Self {
            id: config.id.0,
            seed,
            profile: config.profile,
            heartbeat: config.heartbeat,
            raw,
            lines,
            wal,
            lane,
            batch: Batch::default(),
            in_flight: None,
            held: VecDeque::new(),
            last_ready: 0,
            durable_ready: 0,
            vote_ready: 0,
            vote,
            ready_committed: commit.min(restart.applied),
            installing: None,
            next_tick: now + Duration::from_nanos(phase),
            led_at_tick: false,
            late_heartbeats: 0,
            acknowledged: (0, 0),
            timeout: None,
            has_tiny_appends: tiny,
        };
        node.draw_timeout();
        node
    }

    // -- what happens to it

    /// Takes at most one tick; missed ones are dropped (rules 11).
    pub fn maybe_tick(&mut self, now: Instant) {
        if now < self.next_tick || self.is_loop_blocked() {
            return;
        }
        let missed = now.since(self.next_tick).as_nanos() / self.heartbeat.as_nanos();
        self.next_tick = self.next_tick + self.heartbeat * (missed as u32 + 1);
        let leads = self.is_leader();
        let led = std::mem::replace(&mut self.led_at_tick, leads);
        if missed > 0 && led && leads {
            let members = self.raw.raft.prs().iter().count() as u64;
            self.late_heartbeats += members.saturating_sub(1);
        }
        let raft = &self.raw.raft;
        let campaigns =
            raft.election_elapsed + 1 >= raft.randomized_election_timeout() && !self.is_leader();
        // A candidate that wins at once (the last voter) must have all its log durable (rules 7).
        if campaigns && raft.raft_log.persisted < raft.raft_log.last_index() {
            sometimes!("raft.campaign-put-off");
            return;
        }
        self.end_tiny_appends();
        if buggify!("raft.tick-missed") {
            return;
        }
        if campaigns && self.is_only_voter() {
            self.campaign_alone();
        } else {
            self.raw.tick();
        }
        self.draw_timeout();
    }

    /// An in-code fault for life would outlive all others: behind a slow link or disk it is a few entries
    /// a second, and who lags never catches up.
    fn end_tiny_appends(&mut self) {
        if self.has_tiny_appends && !crate::probe::has_faults() {
            self.has_tiny_appends = false;
            self.raw.raft.max_msg_size = limits::APPEND_BYTES_MAX;
        }
    }

    /// Heartbeats that a leader sent two intervals or more after the ones before (etcd's limit).
    pub fn late_heartbeats(&self) -> u64 {
        self.late_heartbeats
    }

    /// `None` while a coupled loop waits for its disk: no tick is taken then.
    pub fn next_deadline(&self) -> Option<Instant> {
        (!self.is_loop_blocked()).then_some(self.next_tick)
    }

    pub fn step(&mut self, m: Message) {
        if !self.is_welcome(&m) {
            return;
        }
        let unsynced = self.raw.raft.raft_log.persisted < self.raw.raft.raft_log.last_index();
        if m.get_msg_type() == MessageType::MsgTimeoutNow && unsynced {
            sometimes!("raft.transfer-refused-unsynced");
            return; // as in maybe_tick; the transfer times out on the other side
        }
        if m.get_msg_type() == MessageType::MsgReadIndex && !self.is_leader() {
            return; // raft-rs would pass it on in its sender's name; the sender asks again
        }
        if m.get_msg_type() == MessageType::MsgAppend
            && self.unsynced_bytes() > limits::UNSYNCED_BYTES_MAX
        {
            return; // the leader sends it again
        }
        let is_empty_append = m.get_msg_type() == MessageType::MsgAppend && m.entries.is_empty();
        let commit = self.commit_index();
        // Errors say that the message was of no use: a peer not in the configuration, no leader.
        let _ = self.raw.step(m);
        self.drop_empty_answer(is_empty_append && self.commit_index() > commit);
        self.draw_timeout();
    }

    /// An append without entries that moves the commit index is a notice: answering it again with
    /// what was acknowledged before tells the leader nothing, and it is two of ten messages of a put.
    ///
    /// An acknowledgement that was lost comes again: the leader asks with an append that moves
    /// nothing after the next heartbeat, and a new connection starts anew.
    fn drop_empty_answer(&mut self, is_notice: bool) {
        let raft = &mut self.raw.raft;
        let Some(answer) = raft.msgs.last() else { return };
        if answer.get_msg_type() != MessageType::MsgAppendResponse || answer.reject {
            return;
        }
        let acknowledged = (raft.term, answer.index);
        if is_notice && acknowledged == self.acknowledged {
            raft.msgs.pop();
        }
        self.acknowledged = acknowledged;
    }

    /// What was sent before may be lost: the next append is answered, whatever it says.
    pub fn on_peer_up(&mut self) {
        self.acknowledged = (0, 0);
    }

    /// Appends to the log of a leader. False when it was not taken: a transfer is under way.
    pub fn propose(&mut self, entry_type: EntryType, data: Bytes) -> bool {
        assert!(self.is_leader(), "a non-leader forwards requests itself, raft-rs never does");
        let mut entry = Entry::default();
        entry.set_entry_type(entry_type);
        entry.data = data;
        let mut m = Message::default();
        m.set_msg_type(MessageType::MsgPropose);
        m.from = self.id;
        m.set_entries(vec![entry].into());
        self.raw.step(m).is_ok()
    }

    pub fn read_index(&mut self, context: Vec<u8>) {
        self.raw.read_index(context);
    }

    pub fn transfer_leader(&mut self, to: MemberId) {
        self.raw.transfer_leader(to.0);
    }

    pub fn report_unreachable(&mut self, peer: MemberId) {
        self.raw.report_unreachable(peer.0);
    }

    pub fn report_snapshot(&mut self, peer: MemberId, ok: bool) {
        self.store().withdraw_snapshot(peer.0);
        let status = if ok { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.raw.report_snapshot(peer.0, status);
    }

    /// Everything up to `ticket` on the log lane is durable.
    pub fn on_synced(&mut self, ticket: Ticket) {
        if let Some(done) = self.in_flight.take_if(|f| f.ticket <= ticket) {
            self.persisted(done.ready);
        }
    }

    /// The received snapshot is the store now, its WAL record durable.
    pub fn on_installed(&mut self) {
        let ready = self.installing.take().expect("a snapshot was being installed");
        self.persisted(ready);
    }

    /// Entries up to `index` are applied; raft-rs hears of those that are locally durable.
    pub fn on_applied(&mut self, index: u64) {
        let log = &self.raw.raft.raft_log;
        let to = index.min(log.persisted).min(log.committed);
        sometimes!(index > log.persisted, "raft.apply-before-own-sync");
        if to > log.applied {
            self.raw.advance_apply_to(to);
        }
    }

    /// Overrides raft-rs' draw from the operating system's randomness: a function of seed, member
    /// and term alone, set again after every call that may have drawn (design §4).
    ///
    /// Chosen once per term: whether raft-rs drew again cannot be told (it may draw what was set),
    /// so nothing may be drawn from our streams for it.
    fn draw_timeout(&mut self) {
        let raft = &mut self.raw.raft;
        if self.timeout.is_none_or(|(term, _)| term != raft.term) {
            let lo = raft.election_timeout() as u64;
            let draw = mix(self.seed ^ mix(self.id ^ mix(raft.term)));
            let more = if buggify!("raft.shortest-timeout") { 0 } else { draw % lo };
            self.timeout = Some((raft.term, (lo + more) as usize));
        }
        let (_, ticks) = self.timeout.expect("chosen above");
        if raft.randomized_election_timeout() != ticks {
            raft.set_randomized_election_timeout(ticks);
        }
    }
}
