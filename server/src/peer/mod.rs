//! Connections to the other members: one for messages and one for snapshots per peer, both bidirectional.
//!
//! Of two members the one with the smaller id dials; the other accepts. Start at [`Peers`] (the driver's
//! end) and `link.rs` (one connection's life); `wire.rs` is the bytes, `accept.rs` the listening side,
//! `members.rs` what the port answers to HTTP, `ping.rs` how long a round trip takes.
//! A queue lives as long as its connection: nothing that was meant for a lost one is sent on the next.

mod accept;
mod link;
mod members;
mod ping;
mod wire;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use detkv_core::pb::peer::{Frame, Hello, LaneKind};
use detkv_core::{Config, MemberId, Peer};
use parking_lot::Mutex;
use prost::Message;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

pub use accept::accept_peers;
pub use members::{Told, fetch};

use crate::inbox::Inbox;
use crate::metrics::DriverMetrics;

/// Frames and bytes that may wait for one connection; past either a frame is dropped.
const QUEUE_FRAMES: usize = 4096;
const QUEUE_BYTES: usize = 32 << 20;

/// Who we are, in every `Hello`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    pub cluster_id: u64,
    pub member: MemberId,
}

/// What a frame met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sent {
    Queued,
    /// Dropped: no connection. The member has been told by `PeerDown`.
    Down,
    /// Dropped: the queue is full. The member is to be told.
    Full,
}

/// A connection after its handshake.
#[derive(Debug)]
struct Greeted {
    stream: TcpStream,
    /// The wire version that both ends know.
    wire: u32,
    /// The version that the peer shows.
    version: String,
    answers_pings: bool,
}

/// Shared by the links of a process.
#[derive(Debug)]
pub struct Shared {
    pub identity: Identity,
    pub inbox: Arc<Inbox>,
    pub metrics: DriverMetrics,
    /// The highest peer wire version we speak, and the version we show.
    pub wire_version: u32,
    pub server_version: String,
    /// Where peers reach us.
    peer_urls: Vec<String>,
    /// Ids that were removed from the cluster: told so, and refused.
    removed: Mutex<BTreeSet<MemberId>>,
    /// True once the driver has said who the peers are: until then nobody can be told from a stranger.
    known: watch::Sender<bool>,
    /// Accepted connections go to the link they belong to.
    accepting: Mutex<HashMap<(MemberId, LaneKind), mpsc::Sender<Greeted>>>,
}

impl Shared {
    pub fn new(config: &Config, inbox: Arc<Inbox>, metrics: DriverMetrics) -> Arc<Self> {
        Arc::new(Self {
            identity: Identity { cluster_id: config.cluster_id, member: config.id },
            inbox,
            metrics,
            wire_version: config.wire_version,
            server_version: config.version.clone(),
            peer_urls: config.own_peer_urls().to_vec(),
            removed: Mutex::default(),
            known: watch::Sender::new(false),
            accepting: Mutex::default(),
        })
    }

    fn set_known(&self, peer: MemberId, is_known: bool) {
        let (local, remote) = (self.identity.member.to_string(), peer.to_string());
        let known = self.metrics.known_peers.with_label_values(&[&local, &remote]);
        known.set(i64::from(is_known));
    }

    /// Our half of the handshake, to `to` on `lane`.
    fn hello(&self, to: u64, lane: i32) -> Hello {
        Hello {
            version: self.wire_version,
            cluster_id: self.identity.cluster_id,
            from: self.identity.member.0,
            to,
            lane,
            server_version: self.server_version.clone(),
            peer_urls: self.peer_urls.clone(),
            answers_pings: true,
            ..Hello::default()
        }
    }
}

/// The queue of the connection that is up, if one is.
#[derive(Default, Debug)]
struct Outgoing {
    connection: Mutex<Option<Queue>>,
}

#[derive(Clone, Debug)]
struct Queue {
    frames: mpsc::Sender<Frame>,
    /// Bytes of the frames in the queue.
    bytes: Arc<AtomicUsize>,
}

impl Outgoing {
    fn send(&self, frame: Frame) -> Sent {
        let connection = self.connection.lock();
        let Some(queue) = connection.as_ref() else { return Sent::Down };
        let len = frame.encoded_len();
        if queue.bytes.load(Relaxed) + len > QUEUE_BYTES {
            return Sent::Full;
        }
        queue.bytes.fetch_add(len, Relaxed);
        match queue.frames.try_send(frame) {
            Ok(()) => Sent::Queued,
            Err(refused) => {
                queue.bytes.fetch_sub(len, Relaxed);
                match refused {
                    mpsc::error::TrySendError::Full(_) => Sent::Full,
                    mpsc::error::TrySendError::Closed(_) => Sent::Down,
                }
            }
        }
    }
}

/// One peer's two links. Their tasks end when this is dropped.
#[derive(Debug)]
struct PeerLinks {
    urls: Vec<String>,
    messages: Arc<Outgoing>,
    snapshots: Arc<Outgoing>,
    tasks: [tokio::task::AbortHandle; 2],
}

impl Drop for PeerLinks {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::AbortHandle::abort);
    }
}

/// The driver's end: who the peers are, and sending to them.
#[derive(Debug)]
pub struct Peers {
    shared: Arc<Shared>,
    runtime: tokio::runtime::Handle,
    links: HashMap<MemberId, PeerLinks>,
}

impl Peers {
    /// Links run on `runtime`.
    pub fn new(shared: Arc<Shared>, runtime: tokio::runtime::Handle) -> Self {
        Self { shared, runtime, links: HashMap::new() }
    }

    /// Starts links to new peers, drops those to peers that are gone, and restarts those whose URLs changed.
    pub fn set(&mut self, peers: &[Peer], removed: &[MemberId]) {
        *self.shared.removed.lock() = removed.iter().copied().collect();
        let wanted: HashMap<MemberId, &Peer> = peers
            .iter()
            .filter(|peer| peer.id != self.shared.identity.member)
            .map(|peer| (peer.id, peer))
            .collect();
        let shared = &self.shared;
        self.links.retain(|id, links| {
            let keep = wanted.get(id).is_some_and(|peer| peer.urls == links.urls);
            if !keep {
                shared.set_known(*id, false);
                let mut accepting = shared.accepting.lock();
                accepting.remove(&(*id, LaneKind::Messages));
                accepting.remove(&(*id, LaneKind::Snapshot));
            }
            keep
        });
        for (id, peer) in wanted {
            if !self.links.contains_key(&id) {
                let links = self.start(peer);
                self.shared.set_known(id, true);
                self.links.insert(id, links);
            }
        }
        self.shared.known.send_replace(true);
    }

    fn start(&self, peer: &Peer) -> PeerLinks {
        let (messages, message_task) = self.start_link(peer, LaneKind::Messages);
        let (snapshots, snapshot_task) = self.start_link(peer, LaneKind::Snapshot);
        let tasks = [message_task, snapshot_task];
        PeerLinks { urls: peer.urls.clone(), messages, snapshots, tasks }
    }

    fn start_link(&self, peer: &Peer, lane: LaneKind) -> (Arc<Outgoing>, tokio::task::AbortHandle) {
        let outgoing = Arc::new(Outgoing::default());
        let (sender, accepted) = mpsc::channel(1);
        self.shared.accepting.lock().insert((peer.id, lane), sender);
        let link = link::Link::new(self.shared.clone(), peer.clone(), lane, outgoing.clone());
        let task = self.runtime.spawn(link.run(accepted)).abort_handle();
        (outgoing, task)
    }

    pub fn send(&self, lane: LaneKind, to: MemberId, frame: Frame) -> Sent {
        let Some(links) = self.links.get(&to) else { return Sent::Down };
        match lane {
            LaneKind::Messages => links.messages.send(frame),
            LaneKind::Snapshot => links.snapshots.send(frame),
        }
    }
}
