//! Connections between members: one per direction, dialed by the sender.
//!
//! ```text
//! Idle ─dial─▶ Dialing ─one round trip─▶ Up ─reset, timeout─▶ Idle, and dial again after a pause
//! ```
//! * A killed process: its kernel resets, the other side knows after one latency.
//! * A machine without power says nothing: the connection is half open until a timeout, or until it
//!   is back and answers the next frame with a reset.
//! * A cut link: frames wait for the retransmission; past the timeout the connection is given up and
//!   what waited is lost with it.

use detkv_core::event::Input;
use detkv_core::pb::peer::Frame;
use detkv_core::pb::peer::frame::Body;
use detkv_core::{MemberId, Peer};

use super::sites::{Passed, frame_name};
use super::{Event, FrameLane, Packet, World};
use crate::fault::Passing;
use crate::net::{Endpoint, Stray};
use crate::trace::Kind;
use crate::wire::{self, OVERHEAD_BYTES};

/// Bytes that may wait for one connection, as the server has it; past it a frame is dropped.
const PEER_QUEUE_BYTES: u64 = 32 << 20;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle,
    Dialing,
    /// `to_epoch`: the process that accepted.
    Up {
        to_epoch: u32,
    },
}

/// The connection on which `from` sends to `to`.
#[derive(Debug)]
pub struct PeerConn {
    from: u32,
    to: u32,
    /// Grows with every change: events of an earlier state are dropped.
    epoch: u32,
    state: State,
    /// Since when nothing comes back on it.
    doubted_since: Option<u64>,
    /// `to` has closed it: the next frame is answered with a reset.
    hung_up: bool,
}

impl World {
    /// The set of peers that `node` wants to be connected to.
    pub(super) fn want_peers(&mut self, node: u32, peers: Vec<u32>) {
        let old = std::mem::replace(&mut self.node_mut(node).peers, peers.clone());
        for gone in old.into_iter().filter(|peer| !peers.contains(peer)) {
            let conn = self.peer_conn(node, gone);
            self.close_peer(conn, true);
            self.hang_up(gone, node);
        }
        for peer in peers {
            let conn = self.peer_conn(node, peer);
            if self.peer_conns[conn as usize].state == State::Idle {
                self.dial(conn, 0);
            }
        }
    }

    fn peer_conn(&mut self, from: u32, to: u32) -> u32 {
        let conns = &mut self.peer_conns;
        *self.peer_index.entry((from, to)).or_insert_with(|| {
            let (state, doubted_since) = (State::Idle, None);
            conns.push(PeerConn { from, to, epoch: 0, state, doubted_since, hung_up: false });
            conns.len() as u32 - 1
        })
    }

    fn set_state(&mut self, conn: u32, state: State) -> u32 {
        let c = &mut self.peer_conns[conn as usize];
        c.state = state;
        c.epoch += 1;
        c.doubted_since = None;
        c.hung_up = false;
        c.epoch
    }

    fn dial(&mut self, conn: u32, pause_ns: u64) {
        let epoch = self.set_state(conn, State::Dialing);
        self.schedule(self.now_ns() + pause_ns, Event::Dial { conn, epoch });
    }

    fn redial_ns(&self) -> u64 {
        self.net.model().redial.as_nanos() as u64
    }

    fn ends(&self, conn: u32) -> (u32, u32) {
        let c = &self.peer_conns[conn as usize];
        (c.from, c.to)
    }

    /// Only the dialer's direction decides: a cut towards `to` is a port that drops what comes in.
    pub(super) fn on_dial(&mut self, conn: u32, epoch: u32) {
        if self.peer_conns[conn as usize].epoch != epoch {
            return;
        }
        let (from, to) = self.ends(conn);
        let (a, b) = (Endpoint::Node(from), Endpoint::Node(to));
        if self.net.is_cut(a, b) || self.net.is_hung(a, b) || !self.node(to).powered {
            return self.dial(conn, self.redial_ns());
        }
        let round_trip = self.net.latency(a, b) + self.net.latency(b, a);
        self.schedule(self.now_ns() + round_trip, Event::Dialed { conn, epoch });
    }

    pub(super) fn on_dialed(&mut self, conn: u32, epoch: u32) {
        if self.peer_conns[conn as usize].epoch != epoch {
            return;
        }
        let (from, to) = self.ends(conn);
        if !self.node(to).listens() {
            return self.dial(conn, self.redial_ns());
        }
        let peer = self.node(to).id;
        // The handshake: the acceptor knows who is a member and who was removed, and both say their versions.
        if self.node(to).refuses.contains(&self.node(from).id) {
            self.fold_connection(from, peer, 3);
            self.give(from, Input::RefusedAsRemoved { peer }, 0);
            return self.dial(conn, self.redial_ns());
        }
        let dialer = self.node(from).id;
        if !self.node(to).wanted.contains(&dialer) {
            let urls = self.node(from).config.own_peer_urls().to_vec();
            self.fold_connection(to, dialer, 4);
            self.give(to, Input::Remote { peer: Peer { id: dialer, urls } }, 0);
            return self.dial(conn, self.redial_ns());
        }
        let to_epoch = self.node(to).epoch;
        self.set_state(conn, State::Up { to_epoch });
        let theirs = &self.node(to).config;
        let wire = theirs.wire_version.min(self.node(from).config.wire_version);
        let version = theirs.version.clone();
        self.give(from, Input::PeerVersion { peer, wire, version }, 0);
        self.fold_connection(from, peer, 1);
        self.give(from, Input::PeerUp { peer }, 0);
    }

    fn fold_connection(&mut self, node: u32, peer: MemberId, what: u8) {
        let id = self.node(node).id.0;
        self.fold(Kind::Connection, id, |out| {
            out.push(what);
            out.extend_from_slice(&peer.0.to_le_bytes());
        });
    }

    pub(super) fn send_frame(&mut self, node: u32, to: MemberId, lane: FrameLane, frame: Frame) {
        let Some(to) = self.place(to) else { return };
        let conn = self.peer_conn(node, to);
        let c = &self.peer_conns[conn as usize];
        let epoch = c.epoch;
        let State::Up { to_epoch } = c.state else { return };
        let bytes = wire::frame_bytes(&frame) + OVERHEAD_BYTES;
        let link = self.net.link(Endpoint::Node(node), Endpoint::Node(to));
        let frames_max = self.net.model().peer_queue_frames;
        let queue = self.net.get(link);
        let waiting = queue.queued_bytes(lane as usize);
        if queue.queued(lane as usize) >= frames_max || waiting + bytes > PEER_QUEUE_BYTES {
            let peer = self.node(to).id;
            self.fold_connection(node, peer, 2);
            return self.give(node, Input::PeerQueueFull { peer }, 0);
        }
        let unheard = self.net.is_cut(Endpoint::Node(node), Endpoint::Node(to))
            || (!self.node(to).powered && self.node(to).epoch != to_epoch);
        if unheard {
            self.doubt(conn);
        }
        let now = self.now_ns();
        let held_back = self.read_delays.delay(&frame, to);
        let is_raft = matches!(frame.body, Some(Body::Raft(_)));
        let sender = self.net.get(link);
        let stray = if is_raft { sender.stray() } else { Stray::default() };
        let packet = |frame| Packet::Frame {
            conn,
            epoch,
            lane,
            bytes: bytes as u32,
            frame: Box::new(frame),
        };
        let again =
            stray.again.map(|later| (sender.send_stray(now, bytes, later), packet(frame.clone())));
        match held_back.or(stray.overtaken) {
            Some(later) => {
                let at = sender.send_stray(now, bytes, later);
                self.schedule(at, Event::Arrive(packet(frame)));
            }
            None => {
                let next = sender.send(now, lane as usize, bytes, packet(frame));
                self.schedule_next(link, next);
            }
        }
        if let Some((at, packet)) = again {
            self.schedule(at, Event::Arrive(packet));
        }
    }

    /// Nothing comes back on a connection: it is given up if that is still so after the timeout.
    fn doubt(&mut self, conn: u32) {
        let now = self.now_ns();
        let c = &mut self.peer_conns[conn as usize];
        if c.doubted_since.is_none() {
            c.doubted_since = Some(now);
            let epoch = c.epoch;
            let at = now + self.net.model().timeout.as_nanos() as u64;
            self.schedule(at, Event::PeerTimeout { conn, epoch });
        }
    }

    /// The link between these nodes is whole again.
    pub(super) fn trust(&mut self, from: u32, to: u32) {
        let conn = self.peer_conn(from, to);
        self.peer_conns[conn as usize].doubted_since = None;
    }

    pub(super) fn on_peer_timeout(&mut self, conn: u32, epoch: u32) {
        let c = &self.peer_conns[conn as usize];
        let (true, Some(since)) = (c.epoch == epoch, c.doubted_since) else { return };
        let at = since + self.net.model().timeout.as_nanos() as u64;
        if at > self.now_ns() {
            // An earlier doubt's timeout: this one began later.
            return self.schedule(at, Event::PeerTimeout { conn, epoch });
        }
        self.close_peer(conn, false);
    }

    pub(super) fn on_frame(
        &mut self,
        conn: u32,
        epoch: u32,
        lane: FrameLane,
        bytes: u32,
        frame: Frame,
    ) {
        let c = &self.peer_conns[conn as usize];
        let (from, to) = (c.from, c.to);
        let known = matches!(c.state, State::Up { to_epoch } if to_epoch == self.node(to).epoch)
            && !c.hung_up;
        if c.epoch != epoch {
            return;
        }
        if !known {
            if self.node(to).powered {
                self.reset_peer(conn);
            }
            return;
        }
        let from = self.node(from).id;
        let id = self.node(to).id.0;
        self.fold(Kind::Frame, id, |out| {
            out.push(lane as u8);
            out.extend_from_slice(&from.0.to_le_bytes());
            wire::fold_frame(&frame, out);
        });
        let passed = self.pass_at_once(to, Passing::Frame(frame_name(&frame)));
        if passed == Passed::Ended {
            return;
        }
        self.give(to, Input::Peer { from, frame }, bytes);
        self.end_after(to, passed);
    }

    /// `to` wants `from` no longer: it closes what `from` has dialed too. When that dials again, the handshake tells
    /// it why; without, a member that missed its own removal would send into a connection that is up for ever.
    fn hang_up(&mut self, from: u32, to: u32) {
        let conn = self.peer_conn(from, to);
        if let State::Up { .. } = self.peer_conns[conn as usize].state {
            self.peer_conns[conn as usize].hung_up = true;
            self.reset_peer(conn);
        }
    }

    /// `to` answers with a reset: `from` knows after one latency.
    fn reset_peer(&mut self, conn: u32) {
        let (from, to) = self.ends(conn);
        let (a, b) = (Endpoint::Node(from), Endpoint::Node(to));
        if self.net.is_cut(b, a) {
            return self.doubt(conn);
        }
        let at = self.now_ns() + self.net.latency(b, a);
        let epoch = self.peer_conns[conn as usize].epoch;
        self.schedule(at, Event::PeerReset { conn, epoch });
    }

    pub(super) fn on_peer_lost(&mut self, conn: u32, epoch: u32) {
        if self.peer_conns[conn as usize].epoch == epoch {
            self.close_peer(conn, false);
        }
    }

    /// Ends a connection at its sender, which dials again unless it wants it `gone`.
    fn close_peer(&mut self, conn: u32, gone: bool) {
        let (from, to) = self.ends(conn);
        let was_up = matches!(self.peer_conns[conn as usize].state, State::Up { .. });
        self.set_state(conn, State::Idle);
        if was_up {
            self.drop_queued(from, to);
            let peer = self.node(to).id;
            self.fold_connection(from, peer, 0);
            self.give(from, Input::PeerDown { peer }, 0);
        }
        if !gone && self.node(from).peers.contains(&to) {
            self.dial(conn, self.redial_ns());
        }
    }

    /// Nobody is left to send what waits on a closed connection: it would only keep the next one's frames waiting.
    fn drop_queued(&mut self, from: u32, to: u32) {
        let link = self.net.link(Endpoint::Node(from), Endpoint::Node(to));
        self.net.get(link).drop_queued();
    }

    /// The process of `node` has ended: its own connections are gone, its kernel resets the others'.
    pub(super) fn drop_peer_conns(&mut self, node: u32) {
        for conn in 0..self.peer_conns.len() as u32 {
            let (from, to) = self.ends(conn);
            if from == node {
                if matches!(self.peer_conns[conn as usize].state, State::Up { .. }) {
                    self.drop_queued(from, to);
                }
                self.set_state(conn, State::Idle);
            } else if to == node
                && matches!(self.peer_conns[conn as usize].state, State::Up { .. })
                && self.node(node).powered
            {
                self.reset_peer(conn);
            }
        }
    }
}
