//! Watch streams between clients and members, with a window of bytes.
//!
//! ```text
//! member ─WatchMessage─▶ queue ─(window has room)─▶ link ─▶ client's inbox ─recv─▶ script
//!           ◀─StreamDrained─┘                          ◀──── window update ────┘
//! ```
//! A client that does not take its messages fills the window; then the queue stands, the member's
//! credit runs out, and it has a slow watcher.

use std::collections::VecDeque;
use std::task::Waker;

use detkv_core::api::{StreamId, WatchMessage};
use detkv_core::event::Input;
use detkv_core::pb::etcdserverpb as pb;
use prost::Message;

use super::{Packet, World};
use crate::check::UNDRAINED;
use crate::handle::CallError;
use crate::history::{ClientId, Event, Fact};
use crate::trace::Kind;
use crate::wire::{OVERHEAD_BYTES, fold_watch, watch_bytes};

pub struct Stream {
    conn: u32,
    /// Requests made before the connection was up.
    waiting: Vec<pb::WatchRequest>,
    opened: bool,
    lost: bool,
    /// On the member: bytes on the wire, credit to give back, message.
    queue: VecDeque<(u64, u64, WatchMessage)>,
    /// Credit of what is in `queue`.
    undrained_bytes: u64,
    /// Sent, and the client's taking of it not yet known to the member.
    unread_bytes: u64,
    /// At the client.
    inbox: VecDeque<(u64, WatchMessage)>,
    /// Taken since the last window update.
    taken_bytes: u64,
    waker: Option<Waker>,
}

impl World {
    pub fn open_stream(&mut self, client: ClientId, node: u32) -> StreamId {
        let conn = self.client_conn(client, node);
        let stream = StreamId(self.next_stream);
        self.next_stream += 1;
        let state = Stream {
            conn,
            waiting: Vec::new(),
            opened: false,
            lost: false,
            queue: VecDeque::new(),
            undrained_bytes: 0,
            unread_bytes: 0,
            inbox: VecDeque::new(),
            taken_bytes: 0,
            waker: None,
        };
        self.streams.insert(stream, state);
        self.client_conns[conn as usize].streams.push(stream);
        self.use_conn(conn);
        if self.conn_up(conn).is_some() {
            self.send_stream_open(stream);
        }
        stream
    }

    pub(super) fn send_stream_open(&mut self, stream: StreamId) {
        let Some(state) = self.streams.get_mut(&stream) else { return };
        state.opened = true;
        let (conn, waiting) = (state.conn, std::mem::take(&mut state.waiting));
        let waker = state.waker.take();
        let Some(epoch) = self.conn_up(conn) else { return };
        self.send_to_member(conn, OVERHEAD_BYTES, Packet::StreamOpen { stream, conn, epoch });
        for request in waiting {
            self.send_stream(stream, request);
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether the stream is open: `None` while the connection is being made.
    pub fn poll_open(&mut self, stream: StreamId, waker: &Waker) -> Option<Result<(), CallError>> {
        let state = self.streams.get_mut(&stream)?;
        if state.lost {
            return Some(Err(CallError::Unavailable));
        }
        if state.opened {
            return Some(Ok(()));
        }
        state.waker = Some(waker.clone());
        None
    }

    pub fn send_stream(&mut self, stream: StreamId, request: pb::WatchRequest) {
        let Some(state) = self.streams.get_mut(&stream) else { return };
        if state.lost {
            return;
        }
        let conn = state.conn;
        if !state.opened {
            return state.waiting.push(request);
        }
        let bytes = request.encoded_len() as u64 + OVERHEAD_BYTES;
        let Some(epoch) = self.conn_up(conn) else { return };
        let request = Box::new(request);
        self.send_to_member(conn, bytes, Packet::StreamRequest { stream, conn, epoch, request });
    }

    pub(super) fn on_stream_open(&mut self, stream: StreamId, conn: u32, epoch: u32) {
        let Some(node) = self.accepts(conn, epoch) else { return };
        let id = self.node(node).id.0;
        self.fold(Kind::Watch, id, |out| out.extend_from_slice(&stream.0.to_le_bytes()));
        self.give(node, Input::StreamOpen { stream }, 0);
    }

    pub(super) fn on_stream_request(
        &mut self,
        stream: StreamId,
        conn: u32,
        epoch: u32,
        request: pb::WatchRequest,
    ) {
        let Some(node) = self.accepts(conn, epoch) else { return };
        let id = self.node(node).id.0;
        self.fold(Kind::Watch, id, |out| {
            out.extend_from_slice(&stream.0.to_le_bytes());
            request.encode(out).expect("a Vec grows");
        });
        let bytes = request.encoded_len() as u32;
        self.give(node, Input::StreamRequest { stream, request }, bytes);
    }

    /// The member has something for a stream.
    pub(super) fn on_watch_output(&mut self, node: u32, stream: StreamId, message: WatchMessage) {
        let (bytes, credit) = (watch_bytes(&message), message.bytes);
        match self.streams.get_mut(&stream) {
            Some(state) if !state.lost => {
                // Without the message itself, or the fragments of it: one may overshoot.
                let held = state.undrained_bytes;
                let is_rest = state.queue.back().is_some_and(|(_, _, last)| last.head.fragment);
                state.undrained_bytes += credit;
                state.queue.push_back((bytes, credit, message));
                if held > self.history.settings().watch_held_bytes_max() && !is_rest {
                    let member = self.node(node).id;
                    let fact = Fact::Metric { member, name: UNDRAINED, value: held };
                    self.record(Event::Fact(fact));
                }
            }
            // The client is gone and the member does not know yet.
            _ => return self.give(node, Input::StreamDrained { stream, bytes: credit }, 0),
        }
        self.pump_stream(stream);
    }

    /// Sends while the window has room. The last message may go beyond it: a transport sends the part that fits, and
    /// a client that waits for the rest of a message updates no window otherwise.
    fn pump_stream(&mut self, stream: StreamId) {
        let window = self.net.model().stream_window_bytes;
        loop {
            let Some(state) = self.streams.get_mut(&stream) else { return };
            if state.unread_bytes >= window {
                return;
            }
            let Some((bytes, credit, message)) = state.queue.pop_front() else { return };
            state.unread_bytes += bytes;
            state.undrained_bytes = state.undrained_bytes.saturating_sub(credit);
            let conn = state.conn;
            let node = self.client_conns[conn as usize].node;
            let now = self.now_ns();
            let message = Box::new(message);
            let packet = Packet::StreamMessage { stream, bytes, message };
            self.send_to_client(conn, now, bytes, packet);
            self.give(node, Input::StreamDrained { stream, bytes: credit }, 0);
        }
    }

    pub(super) fn on_stream_message(
        &mut self,
        stream: StreamId,
        bytes: u64,
        message: WatchMessage,
    ) {
        let Some(state) = self.streams.get(&stream) else { return };
        if state.lost {
            return;
        }
        let client = self.conn_client(state.conn);
        self.fold(Kind::Watch, 0, |out| {
            out.extend_from_slice(&client.0.to_le_bytes());
            out.extend_from_slice(&stream.0.to_le_bytes());
            fold_watch(&message, out);
        });
        let state = self.streams.get_mut(&stream).expect("looked up above");
        state.inbox.push_back((bytes, message));
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// The next response; `Some(None)` once the connection is lost and everything was taken.
    pub fn poll_stream(
        &mut self,
        stream: StreamId,
        waker: &Waker,
    ) -> Option<Option<pb::WatchResponse>> {
        let window = self.net.model().stream_window_bytes;
        let state = self.streams.get_mut(&stream)?;
        let Some((bytes, message)) = state.inbox.pop_front() else {
            if state.lost {
                return Some(None);
            }
            state.waker = Some(waker.clone());
            return None;
        };
        state.taken_bytes += bytes;
        // As HTTP/2 does: not one update per message.
        if state.taken_bytes >= window / 4 && !state.lost {
            let (conn, bytes) = (state.conn, std::mem::take(&mut state.taken_bytes));
            self.send_to_member(conn, OVERHEAD_BYTES, Packet::StreamWindow { stream, bytes });
        }
        Some(Some(message.to_response()))
    }

    pub(super) fn on_stream_window(&mut self, stream: StreamId, bytes: u64) {
        if let Some(state) = self.streams.get_mut(&stream) {
            state.unread_bytes = state.unread_bytes.saturating_sub(bytes);
            self.pump_stream(stream);
        }
    }

    /// The connection broke. The member notices too: its keepalive fails.
    pub(super) fn lose_stream(&mut self, stream: StreamId) {
        let Some(state) = self.streams.get_mut(&stream) else { return };
        state.lost = true;
        state.queue.clear();
        let waker = state.waker.take();
        let conn = state.conn;
        let node = self.client_conns[conn as usize].node;
        self.give(node, Input::StreamClosed { stream }, 0);
        let client = self.conn_client(conn);
        self.fold(Kind::Watch, 0, |out| {
            out.extend_from_slice(&client.0.to_le_bytes());
            out.extend_from_slice(&stream.0.to_le_bytes());
            out.push(0);
        });
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The client closes it.
    pub fn drop_stream(&mut self, stream: StreamId) {
        let Some(state) = self.streams.remove(&stream) else { return };
        self.client_conns[state.conn as usize].streams.retain(|open| *open != stream);
        let conn = state.conn;
        if state.opened
            && !state.lost
            && let Some(epoch) = self.conn_up(conn)
        {
            let packet = Packet::StreamClose { stream, conn, epoch };
            self.send_to_member(conn, OVERHEAD_BYTES, packet);
        }
    }

    pub(super) fn on_stream_close(&mut self, stream: StreamId, conn: u32, epoch: u32) {
        if let Some(node) = self.accepts(conn, epoch) {
            self.give(node, Input::StreamClosed { stream }, 0);
        }
    }
}
