//! Clients' connections and the requests on them.
//!
//! A client has one connection per member, dialed on first use; requests wait for it. It ends by a
//! reset (the process died, or answered a connection it does not know) or by silence past the timeout.

use std::task::Waker;
use std::time::Duration;

use detkv_core::api::{ReadReady, Request, RequestId, Response, StreamId};
use detkv_core::event::Input;
use detkv_core::{ApiError, buggify};

use super::{Event, Packet, World};
use crate::handle::{CallError, Reply};
use crate::history::ClientId;
use crate::net::Endpoint;
use crate::trace::{Decision, Kind};
use crate::wire;

/// One request of a client. Also its `RequestId` on the member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallId(pub u64);

/// What a call comes to.
pub type CallResult = Result<Result<Reply, ApiError>, CallError>;

#[derive(Debug)]
pub struct Call {
    conn: u32,
    /// Until it reaches the member.
    request: Option<Request>,
    /// It may have reached the member.
    sent: bool,
    result: Option<CallResult>,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle,
    Dialing,
    Up { node_epoch: u32 },
}

/// A client's connection to a member, both directions.
#[derive(Debug)]
pub struct ClientConn {
    client: ClientId,
    pub(super) node: u32,
    epoch: u32,
    state: State,
    /// Calls without an answer, in order.
    calls: Vec<CallId>,
    pub(super) streams: Vec<StreamId>,
    doubted_since: Option<u64>,
}

impl World {
    pub fn start_call(
        &mut self,
        client: ClientId,
        node: u32,
        request: Request,
        timeout: Duration,
    ) -> CallId {
        let at_ns = self.now_ns();
        let to = self.node(node).id.0;
        self.decide(|| Decision::Operation {
            at_ns,
            client: client.0,
            to,
            rpc: wire::request_name(&request).to_owned(),
            request: wire::request_hex(&request),
        });
        let conn = self.client_conn(client, node);
        let call = CallId(self.next_call);
        self.next_call += 1;
        let state = Call { conn, request: Some(request), sent: false, result: None, waker: None };
        self.calls.insert(call, state);
        self.client_conns[conn as usize].calls.push(call);
        self.arm_timeout(call, timeout);
        self.use_conn(conn);
        if matches!(self.client_conns[conn as usize].state, State::Up { .. }) {
            self.send_call(call);
        }
        call
    }

    pub(super) fn client_conn(&mut self, client: ClientId, node: u32) -> u32 {
        let conns = &mut self.client_conns;
        *self.client_index.entry((client.0, node)).or_insert_with(|| {
            conns.push(ClientConn {
                client,
                node,
                epoch: 0,
                state: State::Idle,
                calls: Vec::new(),
                streams: Vec::new(),
                doubted_since: None,
            });
            conns.len() as u32 - 1
        })
    }

    fn conn_ends(&self, conn: u32) -> (Endpoint, Endpoint, u32) {
        let c = &self.client_conns[conn as usize];
        (Endpoint::Client(c.client.0), Endpoint::Node(c.node), c.node)
    }

    pub(super) fn conn_client(&self, conn: u32) -> ClientId {
        self.client_conns[conn as usize].client
    }

    fn set_client_state(&mut self, conn: u32, state: State) -> u32 {
        let c = &mut self.client_conns[conn as usize];
        c.state = state;
        c.epoch += 1;
        c.doubted_since = None;
        c.epoch
    }

    /// Dials if nobody did yet.
    pub(super) fn use_conn(&mut self, conn: u32) {
        if self.client_conns[conn as usize].state == State::Idle {
            let epoch = self.set_client_state(conn, State::Dialing);
            self.on_client_dial(conn, epoch);
        }
    }

    /// Epoch of a connection that is up.
    pub(super) fn conn_up(&self, conn: u32) -> Option<u32> {
        let c = &self.client_conns[conn as usize];
        matches!(c.state, State::Up { .. }).then_some(c.epoch)
    }

    pub(super) fn on_client_dial(&mut self, conn: u32, epoch: u32) {
        if self.client_conns[conn as usize].epoch != epoch {
            return;
        }
        let (client, member, node) = self.conn_ends(conn);
        if self.node(node).retired {
            // There is no such machine any more; the network says so.
            let at = self.now_ns() + self.net.latency(client, member);
            return self.schedule(at, Event::ClientReset { conn, epoch });
        }
        let cut = self.net.is_cut(client, member)
            || self.net.is_cut(member, client)
            || self.net.is_hung(client, member);
        if cut || !self.node(node).powered {
            // Nobody answers: the handshake is tried again; callers wait or time out.
            let at = self.now_ns() + self.net.model().redial.as_nanos() as u64;
            return self.schedule(at, Event::ClientDial { conn, epoch });
        }
        let round_trip = self.net.latency(client, member) + self.net.latency(member, client);
        self.schedule(self.now_ns() + round_trip, Event::ClientDialed { conn, epoch });
    }

    pub(super) fn on_client_dialed(&mut self, conn: u32, epoch: u32) {
        if self.client_conns[conn as usize].epoch != epoch {
            return;
        }
        let node = self.client_conns[conn as usize].node;
        if !self.node(node).listens() {
            return self.close_client(conn);
        }
        let node_epoch = self.node(node).epoch;
        self.set_client_state(conn, State::Up { node_epoch });
        for call in self.client_conns[conn as usize].calls.clone() {
            self.send_call(call);
        }
        for stream in self.client_conns[conn as usize].streams.clone() {
            self.send_stream_open(stream);
        }
    }

    fn send_call(&mut self, call: CallId) {
        let Some(state) = self.calls.get_mut(&call) else { return };
        let Some(request) = &state.request else { return };
        state.sent = true;
        let (conn, bytes) = (state.conn, wire::request_bytes(request));
        let epoch = self.client_conns[conn as usize].epoch;
        self.send_to_member(conn, bytes, Packet::Request { call, conn, epoch });
    }

    pub(super) fn send_to_member(&mut self, conn: u32, bytes: u64, packet: Packet) {
        let (client, member, node) = self.conn_ends(conn);
        let unheard = self.net.is_cut(client, member) || !self.node(node).powered;
        if unheard {
            self.doubt_client(conn);
        }
        let link = self.net.link(client, member);
        let now = self.now_ns();
        let next = self.net.get(link).send(now, 0, bytes, packet);
        self.schedule_next(link, next);
    }

    /// Sends at `at`, now or later.
    pub(super) fn send_to_client(&mut self, conn: u32, at: u64, bytes: u64, packet: Packet) {
        let (client, member, _) = self.conn_ends(conn);
        if self.net.is_cut(member, client) {
            self.doubt_client(conn);
        }
        let link = self.net.link(member, client);
        let next = self.net.get(link).send(at, 0, bytes, packet);
        self.schedule_next(link, next);
    }

    fn doubt_client(&mut self, conn: u32) {
        let now = self.now_ns();
        let c = &mut self.client_conns[conn as usize];
        if c.doubted_since.is_none() {
            c.doubted_since = Some(now);
            let epoch = c.epoch;
            let at = now + self.net.model().timeout.as_nanos() as u64;
            self.schedule(at, Event::ClientTimeout { conn, epoch });
        }
    }

    pub(super) fn trust_client(&mut self, client: ClientId, node: u32) {
        if let Some(conn) = self.client_index.get(&(client.0, node)) {
            self.client_conns[*conn as usize].doubted_since = None;
        }
    }

    pub(super) fn on_client_timeout(&mut self, conn: u32, epoch: u32) {
        let c = &self.client_conns[conn as usize];
        let (true, Some(since)) = (c.epoch == epoch, c.doubted_since) else { return };
        let at = since + self.net.model().timeout.as_nanos() as u64;
        if at > self.now_ns() {
            return self.schedule(at, Event::ClientTimeout { conn, epoch });
        }
        self.close_client(conn);
    }

    /// Whether the node still is the process that accepted the connection.
    ///
    /// If not, its kernel resets it; a machine without power says nothing.
    pub(super) fn accepts(&mut self, conn: u32, epoch: u32) -> Option<u32> {
        let c = &self.client_conns[conn as usize];
        let (node, state) = (c.node, c.state);
        if c.epoch != epoch {
            return None;
        }
        if matches!(state, State::Up { node_epoch } if node_epoch == self.node(node).epoch) {
            return Some(node);
        }
        if self.node(node).powered {
            self.reset_client(conn);
        }
        None
    }

    fn reset_client(&mut self, conn: u32) {
        let (client, member, _) = self.conn_ends(conn);
        if self.net.is_cut(member, client) {
            return self.doubt_client(conn);
        }
        let at = self.now_ns() + self.net.latency(member, client);
        let epoch = self.client_conns[conn as usize].epoch;
        self.schedule(at, Event::ClientReset { conn, epoch });
    }

    pub(super) fn on_client_lost(&mut self, conn: u32, epoch: u32) {
        if self.client_conns[conn as usize].epoch == epoch {
            self.close_client(conn);
        }
    }

    /// Ends a connection: its calls and streams fail.
    fn close_client(&mut self, conn: u32) {
        self.set_client_state(conn, State::Idle);
        let c = &mut self.client_conns[conn as usize];
        let (calls, streams) = (std::mem::take(&mut c.calls), std::mem::take(&mut c.streams));
        for call in calls {
            let sent = self.calls.get(&call).is_some_and(|state| state.sent);
            let error = if sent { CallError::ConnectionLost } else { CallError::Unavailable };
            self.finish_call(call, Err(error));
        }
        for stream in streams {
            self.lose_stream(stream);
        }
    }

    /// The process of `node` has ended: its kernel resets every connection.
    pub(super) fn drop_client_conns(&mut self, node: u32) {
        for conn in 0..self.client_conns.len() as u32 {
            let c = &self.client_conns[conn as usize];
            if c.node == node && matches!(c.state, State::Up { .. }) {
                if self.node(node).powered {
                    self.reset_client(conn);
                } else {
                    self.doubt_client(conn);
                }
            }
        }
    }

    // -- the request's way

    pub(super) fn on_request(&mut self, call: CallId, conn: u32, epoch: u32) {
        let Some(node) = self.accepts(conn, epoch) else { return };
        let client = self.conn_client(conn);
        let Some(request) = self.calls.get_mut(&call).and_then(|state| state.request.take()) else {
            return;
        };
        let bytes = wire::request_bytes(&request) as u32;
        let id = self.node(node).id.0;
        self.fold(Kind::Request, id, |out| {
            out.extend_from_slice(&client.0.to_le_bytes());
            out.extend_from_slice(&call.0.to_le_bytes());
            wire::encode_request(&request, out);
        });
        self.give(node, Input::Request { id: RequestId(call.0), request }, bytes);
    }

    pub(super) fn on_cancel(&mut self, call: CallId, conn: u32, epoch: u32) {
        if let Some(node) = self.accepts(conn, epoch) {
            self.give(node, Input::Cancel { id: RequestId(call.0) }, 0);
        }
    }

    /// The member answers. A read is served first, on a reader's core.
    pub(super) fn on_reply(
        &mut self,
        node: u32,
        id: RequestId,
        result: Result<Response, ApiError>,
    ) {
        let call = CallId(id.0);
        let now = self.now_ns();
        match result {
            Ok(Response::ReadReady(ready)) => {
                let n = self.node_mut(node);
                let read_ns = n.cpu.read_ns * n.slowdowns.factor();
                let (at, epoch) = (n.readers.run(now, read_ns), n.epoch);
                let ready = Box::new(ready);
                self.schedule(at, Event::Read { node, epoch, call, ready });
            }
            Ok(response) => self.send_answer(call, now, Ok(wire::reply(response))),
            Err(error) => self.send_answer(call, now, Err(error)),
        }
    }

    pub(super) fn on_read(&mut self, node: u32, epoch: u32, call: CallId, ready: &ReadReady) {
        let now = self.now_ns();
        let n = self.node_mut(node);
        let row_ns = n.cpu.read_row_ns * n.slowdowns.factor();
        if n.epoch != epoch {
            return;
        }
        let Some(member) = n.member() else { return };
        n.disk.begin(now, now);
        let result = member.reader().read(ready);
        let rows = result.as_ref().map_or(0, wire::rows_read);
        let answer = result.map(wire::read_reply);
        let cost_ns = rows * row_ns + (n.disk.end() - now);
        let at = n.readers.run(now, cost_ns);
        self.send_answer(call, at, answer);
    }

    fn send_answer(&mut self, call: CallId, at: u64, answer: Result<Reply, ApiError>) {
        // A client that gave up is not answered.
        let Some(conn) = self.calls.get(&call).map(|state| state.conn) else { return };
        self.probes.enter(self.node(self.client_conns[conn as usize].node).id.0);
        if buggify!("driver.reply-lost") {
            return self.reset_client(conn);
        }
        let bytes = wire::answer_bytes(&answer);
        let answer = Box::new(answer);
        self.send_to_client(conn, at, bytes, Packet::Answer { call, answer });
    }

    pub(super) fn on_answer(&mut self, call: CallId, answer: Result<Reply, ApiError>) {
        self.finish_call(call, Ok(answer));
    }

    // -- the client's end

    fn finish_call(&mut self, call: CallId, result: CallResult) {
        let Some(state) = self.calls.get_mut(&call) else { return };
        if state.result.is_some() {
            return;
        }
        let conn = state.conn;
        let waker = state.waker.take();
        let client = self.conn_client(conn);
        self.fold(Kind::Return, 0, |out| {
            out.extend_from_slice(&client.0.to_le_bytes());
            out.extend_from_slice(&call.0.to_le_bytes());
            match &result {
                Ok(answer) => wire::encode_answer(answer, out),
                Err(error) => out.push(u8::MAX - *error as u8),
            }
        });
        self.calls.get_mut(&call).expect("looked up above").result = Some(result);
        self.forget_open_call(conn, call);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn forget_open_call(&mut self, conn: u32, call: CallId) {
        let calls = &mut self.client_conns[conn as usize].calls;
        if let Some(place) = calls.iter().position(|open| *open == call) {
            calls.remove(place);
        }
    }

    /// Calls of one timeout fall due in the order in which they were made: one event for all of them.
    fn arm_timeout(&mut self, call: CallId, timeout: Duration) {
        let deadline = (self.now() + timeout).ns;
        let timeout = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        let queue = self.deadlines.entry(timeout).or_default();
        let first = queue.is_empty();
        queue.push_back((deadline, call));
        if first {
            self.schedule(deadline, Event::CallTimeouts { timeout });
        }
    }

    pub(super) fn on_call_timeouts(&mut self, timeout: u64) {
        let now = self.now_ns();
        let mut queue = self.deadlines.remove(&timeout).expect("its event is scheduled with it");
        while let Some((deadline, call)) = queue.front().copied() {
            let open = self.calls.get(&call).is_some_and(|state| state.result.is_none());
            if open && deadline > now {
                self.schedule(deadline, Event::CallTimeouts { timeout });
                self.deadlines.insert(timeout, queue);
                return;
            }
            queue.pop_front();
            if open {
                self.cancel_on_member(call);
                self.finish_call(call, Err(CallError::Timeout));
            }
        }
    }

    fn cancel_on_member(&mut self, call: CallId) {
        let Some(state) = self.calls.get(&call) else { return };
        let (conn, sent) = (state.conn, state.sent);
        if sent && let Some(epoch) = self.conn_up(conn) {
            self.send_to_member(conn, wire::OVERHEAD_BYTES, Packet::Cancel { call, conn, epoch });
        }
    }

    /// Takes the result, or leaves a waker for it.
    pub fn poll_call(&mut self, call: CallId, waker: &Waker) -> Option<CallResult> {
        let state = self.calls.get_mut(&call).expect("a call is polled until it has its result");
        if let Some(result) = state.result.take() {
            self.calls.remove(&call);
            return Some(result);
        }
        state.waker = Some(waker.clone());
        None
    }

    /// The caller went away.
    pub fn drop_call(&mut self, call: CallId) {
        if self.calls.contains_key(&call) {
            self.cancel_on_member(call);
            if let Some(state) = self.calls.remove(&call) {
                self.forget_open_call(state.conn, call);
            }
        }
    }
}
