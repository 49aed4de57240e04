//! The world: nodes, links, connections, clients and faults, driven by the kernel's events.
//!
//! Each node runs the loop of the real driver: a burst of inputs → `handle` each → `poll` once →
//! perform every output. Start at [`World::step`] and `node.rs`.
//!
//! | File | What |
//! |---|---|
//! | `node` | one node: process, inbox, disk, clock, CPU; the burst |
//! | `perform` | what a burst wants done |
//! | `life` | start, recovery, kill, power loss, pause |
//! | `peers` | connections between members |
//! | `read_delays` | answers to ReadIndex that a fault holds up |
//! | `sites` | named points at which a fault ends a process |
//! | `calls` | clients' connections and requests |
//! | `streams` | watch streams |
//! | `explain` | why a cluster does not converge |
//! | `operate` | an operator who adds, promotes, replaces and removes members |
//! | `observe` | facts: roles, state samples |
//! | `raft_facts` | facts: Raft logs, votes, commits |

mod calls;
mod explain;
mod life;
mod node;
mod observe;
mod operate;
mod peers;
mod perform;
mod raft_facts;
mod read_delays;
mod sites;
mod streams;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use detkv_core::api::{ReadReady, StreamId, WatchMessage};
use detkv_core::event::{Lane, Outputs, Ticket};
use detkv_core::mvcc::JobDone;
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::pb::peer::Frame;
use detkv_core::{ApiError, BootMember, Instant, MemberId};
use rustc_hash::FxHashMap;

pub use calls::CallId;
use calls::{Call, ClientConn};
use node::Node;
use operate::Operation;
pub(crate) use operate::{Task, peer_url};
use peers::PeerConn;
use read_delays::ReadDelays;
use sites::Sites;
pub use sites::{ArmedSite, FRAMES};
use streams::Stream;

use crate::config::{Counters, LogRecord, RunOutcome, SimConfig, SyncRecord};
use crate::fault::Active;
use crate::handle::Reply;
use crate::history::{self, History};
use crate::kernel::Kernel;
use crate::net::{LinkId, Net, Next};
use crate::probe::RunProbes;
use crate::trace::{Decision, EventHash, Kind};

/// Which of its peer's connections a frame travels on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameLane {
    Messages = 0,
    Snapshot = 1,
}

/// What links carry.
pub enum Packet {
    /// `conn` and `epoch` name the connection it was sent on.
    Frame {
        conn: u32,
        epoch: u32,
        lane: FrameLane,
        bytes: u32,
        frame: Box<Frame>,
    },
    /// The request waits in the table of calls.
    Request {
        call: CallId,
        conn: u32,
        epoch: u32,
    },
    Cancel {
        call: CallId,
        conn: u32,
        epoch: u32,
    },
    Answer {
        call: CallId,
        answer: Box<Result<Reply, ApiError>>,
    },
    StreamOpen {
        stream: StreamId,
        conn: u32,
        epoch: u32,
    },
    StreamRequest {
        stream: StreamId,
        conn: u32,
        epoch: u32,
        request: Box<pb::WatchRequest>,
    },
    StreamClose {
        stream: StreamId,
        conn: u32,
        epoch: u32,
    },
    StreamMessage {
        stream: StreamId,
        bytes: u64,
        message: Box<WatchMessage>,
    },
    /// The client took so many bytes.
    StreamWindow {
        stream: StreamId,
        bytes: u64,
    },
}

/// What the kernel schedules. `epoch` is the node's process: an event of an ended process is dropped.
pub enum Event {
    Arrive(Packet),
    Serve(LinkId),
    /// The node's CPU has done the burst: its outputs are performed.
    BurstDone {
        node: u32,
        epoch: u32,
    },
    Deadline {
        node: u32,
        epoch: u32,
    },
    LaneDone {
        node: u32,
        epoch: u32,
        lane: Lane,
        up_to: Ticket,
    },
    LaneFailed {
        node: u32,
        epoch: u32,
        lane: Lane,
        error: String,
    },
    JobDone {
        node: u32,
        epoch: u32,
        ticket: Ticket,
        done: Box<JobDone>,
    },
    Recover {
        node: u32,
        epoch: u32,
    },
    Read {
        node: u32,
        epoch: u32,
        call: CallId,
        ready: Box<ReadReady>,
    },
    Dial {
        conn: u32,
        epoch: u32,
    },
    Dialed {
        conn: u32,
        epoch: u32,
    },
    /// The other end said that it does not know the connection.
    PeerReset {
        conn: u32,
        epoch: u32,
    },
    /// Nothing got through for the timeout.
    PeerTimeout {
        conn: u32,
        epoch: u32,
    },
    ClientDial {
        conn: u32,
        epoch: u32,
    },
    ClientDialed {
        conn: u32,
        epoch: u32,
    },
    ClientReset {
        conn: u32,
        epoch: u32,
    },
    ClientTimeout {
        conn: u32,
        epoch: u32,
    },
    /// Calls with this timeout, in nanoseconds, may be due.
    CallTimeouts {
        timeout: u64,
    },
    Wake {
        sleeper: Waker,
    },
    /// A process has come to a point at which a fault ends it.
    SiteReached {
        node: u32,
        epoch: u32,
        power: bool,
        down: Duration,
    },
    /// A supervisor starts a process that ended, unless another has been started since.
    Start {
        node: u32,
        epoch: u32,
    },
    FaultEnd {
        fault: u32,
    },
    /// An operator looks at what became of a request.
    Operate {
        operation: u32,
    },
    /// What comes next in a fault that has steps.
    FaultStep {
        fault: u32,
    },
}

/// Everything simulated.
pub struct World {
    pub kernel: Kernel<Event>,
    pub config: Rc<SimConfig>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) net: Net<Packet>,
    peer_conns: Vec<PeerConn>,
    // Maps that are only looked up, never walked.
    peer_index: FxHashMap<(u32, u32), u32>,
    client_conns: Vec<ClientConn>,
    client_index: FxHashMap<(u32, u32), u32>,
    calls: FxHashMap<CallId, Call>,
    next_call: u64,
    /// By timeout: calls in the order of their deadlines, most of them answered already.
    deadlines: BTreeMap<u64, VecDeque<(u64, CallId)>>,
    streams: FxHashMap<StreamId, Stream>,
    next_stream: u64,
    pub(crate) read_delays: ReadDelays,
    sites: Sites,
    pub(crate) active_faults: Vec<Active>,
    /// By the number of their fault.
    operations: BTreeMap<u32, Operation>,
    /// Committed when the last operation ended.
    settled_index: u64,
    /// The newest machine that was given out.
    last_machine: u64,
    /// A disk was taken and never replaced.
    disk_was_lost: bool,
    pub(crate) next_fault: u32,
    hash: EventHash,
    history: History,
    decisions: Option<Vec<Decision>>,
    log: Vec<LogRecord>,
    syncs: Vec<SyncRecord>,
    panics: Vec<String>,
    /// The faults are over: what stops for a reason of before is started again.
    pub(crate) is_healed: bool,
    probes: RunProbes,
    /// Reused for what is folded by its `Debug` text.
    text: String,
    /// Stands in for a node's outputs while they are performed.
    spare_outputs: Option<Box<Outputs>>,
    /// Reused for the entries that a burst appended.
    entry_ids: Vec<history::EntryId>,
}

impl World {
    pub fn new(config: SimConfig) -> Self {
        let config = Rc::new(config);
        let boot: Vec<BootMember> = (1..=config.members).map(boot_member).collect();
        let ids: Vec<MemberId> = boot.iter().map(|member| member.id).collect();
        let cluster = detkv_core::config::cluster_id(&ids);
        let keep_draws = config.trace.draws;
        let nodes = ids.iter().map(|id| Node::new(&config, id.0, *id, cluster, &boot)).collect();
        let decisions = config
            .trace
            .decisions
            .then(|| vec![Decision::Seed { seed: config.seed, members: config.members }]);
        let mut world = Self {
            kernel: Kernel::default(),
            nodes,
            net: Net::new(config.seed, config.net.clone(), keep_draws),
            peer_conns: Vec::new(),
            peer_index: FxHashMap::default(),
            client_conns: Vec::new(),
            client_index: FxHashMap::default(),
            calls: FxHashMap::default(),
            next_call: 1,
            deadlines: BTreeMap::new(),
            streams: FxHashMap::default(),
            next_stream: 1,
            read_delays: ReadDelays::default(),
            sites: Sites::default(),
            active_faults: Vec::new(),
            operations: BTreeMap::new(),
            settled_index: 0,
            last_machine: config.members,
            disk_was_lost: false,
            next_fault: 0,
            hash: EventHash::new(
                config.members,
                config.trace.checkpoint_every,
                config.trace.full.clone(),
            ),
            history: History::default(),
            decisions,
            log: Vec::new(),
            syncs: Vec::new(),
            panics: Vec::new(),
            is_healed: false,
            probes: RunProbes::install(config.seed, config.buggify),
            text: String::new(),
            spare_outputs: None,
            entry_ids: Vec::new(),
            config,
        };
        world.history.set_settings(settings(&world.config, &world.nodes));
        world.history.set_first_voters(ids);
        if world.config.trace.requests {
            world.history.raft_mut().keep_payloads();
            world.history.keep_value_hashes();
        }
        for node in 0..world.nodes.len() as u32 {
            world.start(node);
        }
        world
    }

    pub fn now(&self) -> Instant {
        self.kernel.now()
    }

    fn now_ns(&self) -> u64 {
        self.kernel.now().ns
    }

    pub(crate) fn node(&self, node: u32) -> &Node {
        &self.nodes[node as usize]
    }

    pub(crate) fn node_mut(&mut self, node: u32) -> &mut Node {
        &mut self.nodes[node as usize]
    }

    /// Place of a member in the world: by its id, or by its number, which is another one for
    /// members that were added.
    pub(crate) fn place(&self, member: MemberId) -> Option<u32> {
        let by_id = self.nodes.iter().position(|node| node.id == member);
        let number = usize::try_from(member.0).ok().and_then(|number| number.checked_sub(1));
        let by_number = || number.filter(|place| *place < self.nodes.len());
        by_id.or_else(by_number).map(|place| place as u32)
    }

    pub(crate) fn schedule(&mut self, at_ns: u64, event: Event) {
        self.kernel.schedule(Instant { ns: at_ns }, event);
    }

    fn schedule_next(&mut self, link: LinkId, next: Next<Packet>) {
        match next {
            Next::Arrive { at, what } => self.schedule(at, Event::Arrive(what)),
            Next::Serve { at } => self.schedule(at, Event::Serve(link)),
            Next::Nothing => {}
        }
    }

    /// Performs the next event.
    pub fn step(&mut self) {
        let Some(event) = self.kernel.pop() else { return };
        match event {
            Event::Arrive(packet) => self.on_arrive(packet),
            Event::Serve(link) => self.on_serve(link),
            Event::BurstDone { node, epoch } => self.on_burst_done(node, epoch),
            Event::Deadline { node, epoch } => self.on_deadline(node, epoch),
            Event::LaneDone { node, epoch, lane, up_to } => {
                self.on_lane_done(node, epoch, lane, up_to);
            }
            Event::LaneFailed { node, epoch, lane, error } => {
                self.on_lane_failed(node, epoch, lane, error);
            }
            Event::JobDone { node, epoch, ticket, done } => {
                self.on_job_done(node, epoch, ticket, *done);
            }
            Event::Recover { node, epoch } => self.on_recover(node, epoch),
            Event::Read { node, epoch, call, ready } => self.on_read(node, epoch, call, &ready),
            Event::Dial { conn, epoch } => self.on_dial(conn, epoch),
            Event::Dialed { conn, epoch } => self.on_dialed(conn, epoch),
            Event::PeerReset { conn, epoch } => self.on_peer_lost(conn, epoch),
            Event::PeerTimeout { conn, epoch } => self.on_peer_timeout(conn, epoch),
            Event::ClientDial { conn, epoch } => self.on_client_dial(conn, epoch),
            Event::ClientDialed { conn, epoch } => self.on_client_dialed(conn, epoch),
            Event::ClientReset { conn, epoch } => self.on_client_lost(conn, epoch),
            Event::ClientTimeout { conn, epoch } => self.on_client_timeout(conn, epoch),
            Event::CallTimeouts { timeout } => self.on_call_timeouts(timeout),
            Event::Wake { sleeper } => sleeper.wake(),
            Event::Start { node, epoch } => {
                if self.node(node).epoch == epoch {
                    self.start(node);
                }
            }
            Event::SiteReached { node, epoch, power, down } => {
                self.on_site_reached(node, epoch, power, down);
            }
            Event::FaultEnd { fault } => self.on_fault_end(fault),
            Event::Operate { operation } => self.on_operate(operation),
            Event::FaultStep { fault } => self.on_fault_step(fault),
        }
    }

    fn on_serve(&mut self, link: LinkId) {
        let now = self.now_ns();
        let (arrives, next) = self.net.get(link).serve(now);
        if let Some((at, packet)) = arrives {
            self.schedule(at, Event::Arrive(packet));
        }
        if let Some(at) = next {
            self.schedule(at, Event::Serve(link));
        }
    }

    fn on_arrive(&mut self, packet: Packet) {
        match packet {
            Packet::Frame { conn, epoch, lane, bytes, frame } => {
                self.on_frame(conn, epoch, lane, bytes, *frame);
            }
            Packet::Request { call, conn, epoch } => self.on_request(call, conn, epoch),
            Packet::Cancel { call, conn, epoch } => self.on_cancel(call, conn, epoch),
            Packet::Answer { call, answer } => self.on_answer(call, *answer),
            Packet::StreamOpen { stream, conn, epoch } => {
                self.on_stream_open(stream, conn, epoch);
            }
            Packet::StreamRequest { stream, conn, epoch, request } => {
                self.on_stream_request(stream, conn, epoch, *request);
            }
            Packet::StreamClose { stream, conn, epoch } => {
                self.on_stream_close(stream, conn, epoch);
            }
            Packet::StreamMessage { stream, bytes, message } => {
                self.on_stream_message(stream, bytes, *message);
            }
            Packet::StreamWindow { stream, bytes } => self.on_stream_window(stream, bytes),
        }
    }

    // -- what a run leaves

    /// Folds one event of a node (0: none) into the event hash.
    fn fold(&mut self, kind: Kind, node: u64, payload: impl FnOnce(&mut Vec<u8>)) {
        let at = self.kernel.now();
        let is_initial = node <= self.config.members;
        let node = if is_initial { node } else { self.number(MemberId(node)) };
        self.hash.fold(kind, node, at, payload);
    }

    /// Adds to the history, and so to the event hash.
    pub fn record(&mut self, event: history::Event) {
        use std::fmt::Write;
        // Calls and returns were folded at the boundary they crossed.
        if let history::Event::Fact(fact) = &event {
            let mut text = std::mem::take(&mut self.text);
            text.clear();
            write!(text, "{fact:?}").expect("writing to a string succeeds");
            self.fold(Kind::Record, 0, |out| out.extend_from_slice(text.as_bytes()));
            self.text = text;
        }
        let at = self.now();
        self.history.record(at, event);
    }

    pub(crate) fn decide(&mut self, decision: impl FnOnce() -> Decision) {
        if let Some(decisions) = &mut self.decisions {
            decisions.push(decision());
        }
    }

    /// Takes the last samples and ends the run.
    pub fn finish(&mut self) -> RunOutcome {
        self.sample_all();
        let counters = self.counters();
        let mut draws = self.net.take_draws();
        draws.extend(self.nodes.iter().flat_map(|node| node.disk.take_draws()));
        let mut decisions = self.decisions.take().unwrap_or_default();
        decisions.extend(draws.into_iter().map(Decision::Draw));
        let now = self.now_ns();
        // Members are dropped with the world: nothing that a drop writes is part of the run.
        self.nodes.iter().for_each(|node| node.disk.kill(now));
        let hash = EventHash::new(0, 1, 0..0);
        let summary = std::mem::replace(&mut self.hash, hash).into_summary();
        RunOutcome {
            event_hash: summary.event_hash,
            trace: summary,
            virtual_ns: self.now_ns(),
            kernel_events: self.kernel.popped(),
            history: std::mem::take(&mut self.history),
            decisions,
            log: std::mem::take(&mut self.log),
            syncs: std::mem::take(&mut self.syncs),
            panics: std::mem::take(&mut self.panics),
            probes: self.probes.finish(),
            counters,
        }
    }

    /// What disks and links did until now.
    pub fn counters(&self) -> Counters {
        let disks = self.nodes.iter().map(|node| (node.id, node.disk.counters())).collect();
        Counters { disks, links: self.net.counters().collect() }
    }
}

/// What the checkers must know of the members' configuration.
fn settings(config: &SimConfig, nodes: &[Node]) -> history::Settings {
    let drift = config.clocks.values().map(|clock| clock.drift_ppm.unsigned_abs());
    let first = nodes.first().map(|node| &node.config);
    let default = history::Settings::default();
    let quotas: Option<Vec<u64>> = nodes.iter().map(|node| node.config.quota_bytes).collect();
    history::Settings {
        election: first.map_or(default.election, |core| core.election),
        lease_ttl_secs_min: first
            .map_or(default.lease_ttl_secs_min, detkv_core::Config::lease_ttl_secs_min),
        drift_ppm: drift.max().unwrap_or(0),
        watch_stream_bytes: first
            .map_or(default.watch_stream_bytes, |core| core.watch_stream_bytes),
        quota_bytes: quotas.and_then(|quotas| quotas.into_iter().max()),
        auto_compacts: nodes.iter().any(|node| node.config.auto_compaction.is_some()),
    }
}

/// Member `n` of the initial cluster.
fn boot_member(n: u64) -> BootMember {
    BootMember { id: MemberId(n), name: format!("m{n}"), peer_urls: vec![operate::peer_url(n)] }
}
