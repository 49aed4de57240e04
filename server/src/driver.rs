//! The thread that owns the member: feed a burst, poll once, perform every output, wait.
//!
//! Whatever is decided here is not simulated, so as little as possible is.

use std::sync::Arc;
use std::time::Duration;

use detkv_core::api::{RequestId, StreamId, WatchMessage};
use detkv_core::pb::peer::LaneKind;
use detkv_core::{Halt, Input, Lane, Member, MemberId, Metrics, Outputs};
use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::disk::Lanes;
use crate::inbox::{Event, Inbox, Reply};
use crate::logs;
use crate::metrics::WatchEvents;
use crate::peer::{Peers, Sent};
use crate::slow::SlowApplies;

/// The longest sleep without a deadline; a bound on the damage of a lost wake-up, not a schedule.
const SLEEP_MAX: Duration = Duration::from_secs(1);

pub struct Driver {
    pub member: Member,
    pub clock: Clock,
    pub inbox: Arc<Inbox>,
    pub lanes: Lanes,
    pub peers: Peers,
    calls: FxHashMap<RequestId, oneshot::Sender<Reply>>,
    streams: FxHashMap<StreamId, mpsc::UnboundedSender<WatchMessage>>,
    metrics: Arc<Metrics>,
    slow: SlowApplies,
    watch_events: WatchEvents,
    /// Peers whose queue was full; the member is told before its next burst.
    full: Vec<MemberId>,
}

impl Driver {
    pub fn new(
        member: Member,
        clock: Clock,
        inbox: Arc<Inbox>,
        lanes: Lanes,
        peers: Peers,
        slow: SlowApplies,
        watch_events: WatchEvents,
    ) -> Self {
        let (calls, streams) = (FxHashMap::default(), FxHashMap::default());
        let (full, metrics) = (Vec::new(), member.metrics());
        Self {
            member,
            clock,
            inbox,
            lanes,
            peers,
            calls,
            streams,
            metrics,
            slow,
            watch_events,
            full,
        }
    }

    /// Runs until the member is over. Everyone who still waits is told `server stopped`.
    pub fn run(mut self) -> Halt {
        let mut burst = Vec::new();
        let mut out = Outputs::default();
        let halt = loop {
            self.feed(&mut burst);
            self.poll(&mut out);
            if let Some(halt) = self.perform(&mut out) {
                break halt;
            }
            self.inbox.drain(Some(self.wake_at()), &mut burst);
        };
        self.inbox.close();
        halt
    }

    /// Core has no clock while it applies; a burst is what can be timed.
    fn poll(&mut self, out: &mut Outputs) {
        let before = self.metrics.proposals_applied_total.load();
        let started = self.clock.now();
        self.member.poll(started, out);
        if self.metrics.proposals_applied_total.load() > before {
            self.slow.note("", self.clock.now().since(started));
        }
    }

    fn wake_at(&self) -> std::time::Instant {
        let latest = std::time::Instant::now() + SLEEP_MAX;
        if !self.full.is_empty() {
            return std::time::Instant::now();
        }
        let deadline = self.member.next_deadline().and_then(|at| self.clock.to_std(at));
        deadline.map_or(latest, |at| at.min(latest))
    }

    /// Hands the burst to the member; with nothing in it, that time has passed.
    fn feed(&mut self, burst: &mut Vec<Event>) {
        let now = self.clock.now();
        for peer in self.full.drain(..) {
            self.member.handle(now, Input::PeerQueueFull { peer });
        }
        if burst.is_empty() {
            self.member.handle(now, Input::Deadline);
        }
        for event in burst.drain(..) {
            let input = match event {
                Event::Input(input) => {
                    self.note(&input);
                    input
                }
                Event::Peer { from, frame, credit } => {
                    self.member.handle(now, Input::Peer { from, frame });
                    drop(credit);
                    continue;
                }
                Event::Call { id, request, reply } => {
                    self.calls.insert(id, reply);
                    Input::Request { id, request }
                }
                Event::OpenStream { stream, sink } => {
                    self.streams.insert(stream, sink);
                    Input::StreamOpen { stream }
                }
            };
            self.member.handle(now, input);
        }
    }

    /// Forgets who went away.
    fn note(&mut self, input: &Input) {
        match input {
            Input::Cancel { id } => drop(self.calls.remove(id)),
            Input::StreamClosed { stream } => drop(self.streams.remove(stream)),
            _ => {}
        }
    }

    /// Disk first: its work takes longest. Core has held back whatever must wait for it.
    fn perform(&mut self, out: &mut Outputs) -> Option<Halt> {
        self.lanes.perform(Lane::Log, std::mem::take(&mut out.log));
        self.lanes.perform(Lane::Snapshot, std::mem::take(&mut out.snapshot));
        for (ticket, job) in out.jobs.drain(..) {
            self.lanes.run(ticket, job);
        }
        if let Some(peers) = out.peers.take() {
            self.peers.set(&peers, &out.removed);
        }
        for (to, frame) in out.messages.drain(..) {
            if self.peers.send(LaneKind::Messages, to, frame) == Sent::Full {
                self.on_full(to);
            }
        }
        for (to, frame) in out.snapshot_frames.drain(..) {
            if self.peers.send(LaneKind::Snapshot, to, frame) == Sent::Full {
                self.on_full(to);
            }
        }
        for (id, reply) in out.replies.drain(..) {
            // Nobody may be waiting any more: a caller that went away, or a stream that closed.
            if let Some(call) = self.calls.remove(&id) {
                let _ = call.send(reply);
            }
        }
        for (stream, _) in out.refused_streams.drain(..) {
            // The handler has looked before; the member became a learner's equal in between.
            self.streams.remove(&stream);
        }
        for (stream, message) in out.watch.drain(..) {
            if let Some(sink) = self.streams.get(&stream) {
                self.watch_events.on_queued(&message);
                if let Err(refused) = sink.send(message) {
                    self.watch_events.on_dropped(&refused.0);
                }
            }
        }
        out.log_lines.drain(..).for_each(|line| logs::core_line(&line));
        out.halt.take()
    }

    fn on_full(&mut self, peer: MemberId) {
        if !self.full.contains(&peer) {
            let fields = [("remote-peer-id", peer.to_string())];
            let message = "dropped Raft message since sending buffer is full (overloaded network)";
            logs::warn(message, &fields);
            self.full.push(peer);
        }
    }
}
