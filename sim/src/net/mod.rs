//! The network: one link per direction of each pair of endpoints.
//!
//! A link has a latency distribution, a bandwidth shared by its flows, and may be cut. What it carries
//! stays in order per flow, as TCP keeps it: a lost packet is late, not gone, and so is everything
//! behind it. Connections (who is connected to whom, resets, half-open ones) are the world's: they
//! live in `world/peers.rs` and `world/clients.rs`.

mod disturb;
mod link;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use disturb::Disturbances;
pub use disturb::{Disturbance, DisturbanceId, Stray};
pub use link::{Link, Next};

use crate::bounds::{INTERVALS, inside, time_within, within};
use crate::rng::{Distribution, Draw};

/// One direction of one link.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinkModel {
    pub latency: Distribution,
    /// `None` is unlimited.
    pub bytes_per_sec: Option<u64>,
    /// What may leave at once after silence: the depth of the token bucket. 0: nothing beyond the rate.
    pub burst_bytes: u64,
    /// Packets lost, in a million: each costs a retransmission timeout.
    pub loss_ppm: u32,
}

impl Default for LinkModel {
    /// One availability zone: 100–150 µs one way.
    fn default() -> Self {
        Self {
            latency: Distribution::Uniform {
                min: Duration::from_micros(100),
                max: Duration::from_micros(150),
            },
            bytes_per_sec: Some(1_250_000_000),
            burst_bytes: 0,
            loss_ppm: 0,
        }
    }
}

/// The whole network.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetModel {
    /// Links between members.
    pub peer: LinkModel,
    /// Links between clients and members.
    pub client: LinkModel,
    /// Members' links that differ: (from, to, model).
    pub links: Vec<(u64, u64, LinkModel)>,
    /// Pause before dialing again.
    #[serde(with = "crate::duration")]
    pub redial: Duration,
    /// A connection on which nothing gets through for so long is given up.
    #[serde(with = "crate::duration")]
    pub timeout: Duration,
    /// Frames waiting for one peer; more are dropped and reported as a full queue.
    pub peer_queue_frames: usize,
    /// Bytes of a watch stream that a client has not taken yet; more wait on the member.
    pub stream_window_bytes: u64,
}

impl Default for NetModel {
    fn default() -> Self {
        Self {
            peer: LinkModel::default(),
            client: LinkModel::default(),
            links: Vec::new(),
            redial: Duration::from_millis(100),
            timeout: Duration::from_secs(5),
            peer_queue_frames: 4096,
            stream_window_bytes: 1 << 20,
        }
    }
}

/// Bytes a second; a link has no upper end that anything depends on.
const RATES: RangeInclusive<u64> = 1..=1_000_000_000_000;
/// Bytes that may leave at once after silence.
const BURSTS: RangeInclusive<u64> = 0..=1_000_000_000;
/// Half of all packets: where more are lost, next to nothing but waiting is left.
const LOSS_PPM_MAX: u32 = 500_000;
const QUEUES: RangeInclusive<usize> = 1..=1 << 20;
/// A window takes something, and no more than memory has.
const WINDOWS: RangeInclusive<u64> = 1..=1 << 40;

impl LinkModel {
    /// Errors: what is wrong, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        inside("latency", self.latency.check())?;
        if let Some(rate) = self.bytes_per_sec {
            within("bytes_per_sec", rate, RATES)?;
        }
        within("burst_bytes", self.burst_bytes, BURSTS)?;
        within("loss_ppm", self.loss_ppm, 0..=LOSS_PPM_MAX)
    }
}

impl NetModel {
    /// Errors: what is wrong, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        inside("peer", self.peer.check())?;
        inside("client", self.client.check())?;
        for (place, (_, _, link)) in self.links.iter().enumerate() {
            inside(&format!("links[{place}]"), link.check())?;
        }
        time_within("redial", self.redial, INTERVALS)?;
        time_within("timeout", self.timeout, INTERVALS)?;
        within("peer_queue_frames", self.peer_queue_frames, QUEUES)?;
        within("stream_window_bytes", self.stream_window_bytes, WINDOWS)
    }
}

/// An end of a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Endpoint {
    /// Place of the node in the world.
    Node(u32),
    Client(u32),
}

/// Name of a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(u32);

/// What a link did since the run began.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct LinkCounters {
    pub messages: u64,
    pub bytes: u64,
    /// Of these, on the flow of snapshots.
    pub snapshot_bytes: u64,
}

/// All links. `P` is what they carry.
pub struct Net<P> {
    seed: u64,
    model: NetModel,
    keep_draws: bool,
    links: Vec<Link<P>>,
    ends: Vec<(Endpoint, Endpoint)>,
    // Only looked up, never walked.
    index: FxHashMap<(Endpoint, Endpoint), LinkId>,
    /// Cuts in force: (from, to) → how many.
    cuts: BTreeMap<(Endpoint, Endpoint), u32>,
    /// Where no new connection comes up: (from, to) → how many faults say so.
    hung: BTreeMap<(Endpoint, Endpoint), u32>,
    disturbances: u64,
}

impl<P> Net<P> {
    pub fn new(seed: u64, model: NetModel, keep_draws: bool) -> Self {
        let (links, ends) = (Vec::new(), Vec::new());
        let (index, cuts, hung) = (FxHashMap::default(), BTreeMap::new(), BTreeMap::new());
        Self { seed, model, keep_draws, links, ends, index, cuts, hung, disturbances: 0 }
    }

    pub fn model(&self) -> &NetModel {
        &self.model
    }

    /// The link from one end to the other; made on first use.
    pub fn link(&mut self, from: Endpoint, to: Endpoint) -> LinkId {
        if let Some(id) = self.index.get(&(from, to)) {
            return *id;
        }
        let id = LinkId(self.links.len() as u32);
        let (model, node, purpose) = self.describe(from, to);
        let mut link = Link::new(self.seed, node, purpose, model, self.keep_draws);
        link.cuts = self.cuts.get(&(from, to)).copied().unwrap_or(0);
        self.links.push(link);
        self.ends.push((from, to));
        self.index.insert((from, to), id);
        id
    }

    /// Model, number and purpose of a link's random stream.
    fn describe(&self, from: Endpoint, to: Endpoint) -> (LinkModel, u64, &'static str) {
        let pair = |a: u32, b: u32| (u64::from(a) << 32) | u64::from(b);
        match (from, to) {
            (Endpoint::Node(a), Endpoint::Node(b)) => {
                let (from, to) = (u64::from(a) + 1, u64::from(b) + 1);
                let special = self.model.links.iter().find(|(f, t, _)| (*f, *t) == (from, to));
                let model = special.map_or(&self.model.peer, |(_, _, model)| model);
                (model.clone(), pair(a, b), "link")
            }
            (Endpoint::Client(c), Endpoint::Node(n)) => {
                (self.model.client.clone(), pair(c, n), "link from client")
            }
            (Endpoint::Node(n), Endpoint::Client(c)) => {
                (self.model.client.clone(), pair(n, c), "link to client")
            }
            (Endpoint::Client(_), Endpoint::Client(_)) => panic!("clients do not talk to clients"),
        }
    }

    pub fn get(&mut self, id: LinkId) -> &mut Link<P> {
        &mut self.links[id.0 as usize]
    }

    pub fn is_cut(&self, from: Endpoint, to: Endpoint) -> bool {
        self.cuts.contains_key(&(from, to))
    }

    /// Nothing gets through from `from` to `to` until as many `mend`s.
    pub fn cut(&mut self, now: u64, from: Endpoint, to: Endpoint) {
        *self.cuts.entry((from, to)).or_insert(0) += 1;
        let id = self.link(from, to);
        let cuts = self.cuts[&(from, to)];
        self.get(id).set_cuts(now, cuts);
    }

    /// Ends one cut. Returns the link and when it serves again what was held up.
    pub fn mend(&mut self, now: u64, from: Endpoint, to: Endpoint) -> Option<(LinkId, u64)> {
        let cuts = self.cuts.get_mut(&(from, to)).expect("only what was cut is mended");
        *cuts -= 1;
        let left = *cuts;
        if left == 0 {
            self.cuts.remove(&(from, to));
        }
        let id = self.link(from, to);
        self.get(id).set_cuts(now, left).map(|at| (id, at))
    }

    /// Disturbs one direction of a link until it is calmed.
    pub fn disturb(
        &mut self,
        from: Endpoint,
        to: Endpoint,
        disturbance: Disturbance,
    ) -> DisturbanceId {
        let id = DisturbanceId(self.disturbances);
        self.disturbances += 1;
        let link = self.link(from, to);
        let (seed, (_, node, purpose)) = (self.seed, self.describe(from, to));
        self.get(link).disturb(id, disturbance, || Disturbances::new(seed, node, purpose));
        id
    }

    pub fn calm(&mut self, from: Endpoint, to: Endpoint, id: DisturbanceId) {
        let link = self.link(from, to);
        self.get(link).calm(id);
    }

    /// No new connection from `from` to `to` comes up until as many `unhang`s.
    pub fn hang(&mut self, from: Endpoint, to: Endpoint) {
        *self.hung.entry((from, to)).or_insert(0) += 1;
    }

    pub fn unhang(&mut self, from: Endpoint, to: Endpoint) {
        let left = self.hung.get_mut(&(from, to)).expect("only what hangs goes on");
        *left -= 1;
        if *left == 0 {
            self.hung.remove(&(from, to));
        }
    }

    pub fn is_hung(&self, from: Endpoint, to: Endpoint) -> bool {
        self.hung.contains_key(&(from, to))
    }

    /// One draw of the latency from one end to the other, for what no message stands for.
    pub fn latency(&mut self, from: Endpoint, to: Endpoint) -> u64 {
        let id = self.link(from, to);
        self.get(id).latency()
    }

    /// What each used link carried.
    pub fn counters(&self) -> impl Iterator<Item = (Endpoint, Endpoint, LinkCounters)> {
        self.ends.iter().zip(&self.links).map(|((from, to), link)| (*from, *to, link.counters))
    }

    /// Bytes that wait on each used link.
    pub fn queues(&self) -> impl Iterator<Item = (Endpoint, Endpoint, u64)> {
        let bytes = |link: &Link<P>| (0..link::FLOWS).map(|flow| link.queued_bytes(flow)).sum();
        self.ends.iter().zip(&self.links).map(move |((from, to), link)| (*from, *to, bytes(link)))
    }

    /// The drawn latencies since the last call, if they are kept.
    pub fn take_draws(&mut self) -> Vec<Draw> {
        self.links.iter_mut().flat_map(Link::take_draws).collect()
    }
}
