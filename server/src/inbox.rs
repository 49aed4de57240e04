//! The one way into the member's thread.
//!
//! Many producers, one consumer that takes a whole burst under one lock. Client requests take a slot
//! each and are refused when none is left; disk completions, peers and control always get in, because
//! what they can have under way is bounded elsewhere (by core, and by the credit of a peer connection).

use std::collections::VecDeque;

use detkv_core::api::{Request, RequestId, Response, StreamId, WatchMessage};
use detkv_core::limits::{BURST_BYTES_MAX, BURST_INPUTS_MAX};
use detkv_core::pb::peer::Frame;
use detkv_core::{ApiError, Input, MemberId};
use parking_lot::{Condvar, Mutex};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// Client requests that may wait here; past it a client is told `too many requests`.
pub const CLIENT_SLOTS: usize = 8192;

pub type Reply = Result<Response, ApiError>;

/// What the driver is told.
#[derive(Debug)]
pub enum Event {
    Input(Input),
    /// A frame and the share of its connection's credit that it holds until it was handled.
    Peer {
        from: MemberId,
        frame: Frame,
        credit: OwnedSemaphorePermit,
    },
    /// Holds a client slot.
    Call {
        id: RequestId,
        request: Request,
        reply: oneshot::Sender<Reply>,
    },
    /// Messages of the stream go to `sink`; core's credit per stream bounds it.
    OpenStream {
        stream: StreamId,
        sink: mpsc::UnboundedSender<WatchMessage>,
    },
}

impl Event {
    fn holds_client_slot(&self) -> bool {
        matches!(self, Event::Call { .. } | Event::Input(Input::StreamRequest { .. }))
    }

    fn bytes(&self) -> usize {
        match self {
            Event::Peer { credit, .. } => credit.num_permits(),
            Event::Call { request: Request::Put(put), .. } => put.key.len() + put.value.len(),
            Event::Call { request: Request::Txn(txn), .. } => txn.encoded_len(),
            _ => 0,
        }
    }
}

/// The member is over: nothing gets in any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Closed;

#[derive(Debug)]
struct State {
    queue: VecDeque<Event>,
    /// The consumer sleeps: wake it.
    waiting: bool,
    closed: bool,
}

#[derive(Debug)]
pub struct Inbox {
    state: Mutex<State>,
    wake: Condvar,
    client_slots: Semaphore,
}

impl Inbox {
    pub fn new() -> Self {
        Self {
            state: Mutex::new(State { queue: VecDeque::new(), waiting: false, closed: false }),
            wake: Condvar::new(),
            client_slots: Semaphore::new(CLIENT_SLOTS),
        }
    }

    /// Never blocks, never refuses while the member runs. Not for what needs a client slot.
    pub fn push(&self, event: Event) -> Result<(), Closed> {
        debug_assert!(!event.holds_client_slot(), "client requests go through their slots");
        self.enqueue(event)
    }

    /// As `push`, but lets the member sleep: for what may wait for its next burst (a tick away at most).
    pub fn push_quietly(&self, event: Event) -> Result<(), Closed> {
        debug_assert!(!event.holds_client_slot(), "client requests go through their slots");
        let mut state = self.state.lock();
        if state.closed {
            return Err(Closed);
        }
        state.queue.push_back(event);
        Ok(())
    }

    /// A unary request: refused at once when all slots are taken.
    pub fn push_call(
        &self,
        id: RequestId,
        request: Request,
        reply: oneshot::Sender<Reply>,
    ) -> Result<(), ApiError> {
        match self.client_slots.try_acquire() {
            // Given back by the burst that takes the event out.
            Ok(slot) => slot.forget(),
            Err(tokio::sync::TryAcquireError::NoPermits) => return Err(ApiError::TooManyRequests),
            Err(tokio::sync::TryAcquireError::Closed) => return Err(ApiError::Stopped),
        }
        self.enqueue(Event::Call { id, request, reply }).map_err(|Closed| ApiError::Stopped)
    }

    /// A request on a watch stream: waits for a slot, and so holds the stream back.
    pub async fn push_stream_request(&self, input: Input) -> Result<(), Closed> {
        debug_assert!(matches!(input, Input::StreamRequest { .. }), "only for watch streams");
        self.client_slots.acquire().await.map_err(|_| Closed)?.forget();
        self.enqueue(Event::Input(input))
    }

    fn enqueue(&self, event: Event) -> Result<(), Closed> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Closed);
        }
        state.queue.push_back(event);
        if state.waiting {
            state.waiting = false;
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Waits until something is there or `deadline` has passed, then moves one burst into `burst`.
    ///
    /// A burst has at most `BURST_INPUTS_MAX` events, and no further event once it holds
    /// `BURST_BYTES_MAX` bytes.
    pub fn drain(&self, deadline: Option<std::time::Instant>, burst: &mut Vec<Event>) {
        let mut state = self.state.lock();
        while state.queue.is_empty() {
            state.waiting = true;
            match deadline {
                None => self.wake.wait(&mut state),
                Some(at) => {
                    if self.wake.wait_until(&mut state, at).timed_out() {
                        break;
                    }
                }
            }
        }
        state.waiting = false;
        let (mut bytes, mut slots) = (0, 0);
        while burst.len() < BURST_INPUTS_MAX && bytes < BURST_BYTES_MAX {
            let Some(event) = state.queue.pop_front() else { break };
            bytes += event.bytes();
            slots += usize::from(event.holds_client_slot());
            burst.push(event);
        }
        drop(state);
        if slots > 0 {
            self.client_slots.add_permits(slots);
        }
    }

    /// Refuses everything from now on and drops what waits: its callers see `server stopped`.
    pub fn close(&self) {
        self.client_slots.close();
        let mut state = self.state.lock();
        state.closed = true;
        let dropped = std::mem::take(&mut state.queue);
        drop(state);
        drop(dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use detkv_core::pb::etcdserverpb as pb;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    fn call(inbox: &Inbox, value_bytes: usize) -> Result<oneshot::Receiver<Reply>, ApiError> {
        let (reply, receiver) = oneshot::channel();
        let value = vec![0; value_bytes].into();
        let put = pb::PutRequest { value, ..Default::default() };
        inbox.push_call(RequestId(1), Request::Put(put), reply).map(|()| receiver)
    }

    #[test]
    fn a_burst_is_capped_by_events_and_by_bytes() {
        let inbox = Inbox::new();
        let calls: Vec<_> = (0..300).map(|_| call(&inbox, 1).expect("free slot")).collect();
        let mut burst = Vec::new();
        inbox.drain(None, &mut burst);
        assert_eq!(burst.len(), BURST_INPUTS_MAX);
        burst.clear();
        inbox.drain(None, &mut burst);
        assert_eq!(burst.len(), 300 - BURST_INPUTS_MAX);
        drop(calls);

        let calls: Vec<_> = (0..4).map(|_| call(&inbox, 600_000).expect("free slot")).collect();
        burst.clear();
        inbox.drain(None, &mut burst);
        assert_eq!(burst.len(), 2, "the second event passes the byte cap");
        drop(calls);
    }

    #[test]
    fn a_full_inbox_refuses_clients_but_not_the_disk() {
        let inbox = Inbox::new();
        let calls: Vec<_> =
            (0..CLIENT_SLOTS).map(|_| call(&inbox, 1).expect("free slot")).collect();
        assert_eq!(call(&inbox, 1).expect_err("no slot"), ApiError::TooManyRequests);
        inbox.push(Event::Input(Input::Deadline)).expect("control always gets in");
        inbox.drain(None, &mut Vec::new());
        drop(call(&inbox, 1).expect("the burst gave its slots back"));
        drop(calls);
    }

    #[test]
    fn a_deadline_ends_the_wait_and_a_push_ends_it_sooner() {
        let inbox = Arc::new(Inbox::new());
        let mut burst = Vec::new();
        inbox.drain(Some(Instant::now() + Duration::from_millis(5)), &mut burst);
        assert!(burst.is_empty());
        let producer = inbox.clone();
        let thread = std::thread::spawn(move || producer.push(Event::Input(Input::Deadline)));
        inbox.drain(Some(Instant::now() + Duration::from_secs(60)), &mut burst);
        assert_eq!(burst.len(), 1);
        thread.join().expect("no panic").expect("open inbox");
    }

    #[test]
    fn closing_answers_everyone_who_waits() {
        let inbox = Inbox::new();
        let mut waiting = call(&inbox, 1).expect("free slot");
        inbox.close();
        assert!(waiting.try_recv().is_err(), "the reply channel is dropped");
        assert_eq!(call(&inbox, 1).expect_err("closed"), ApiError::Stopped);
        assert_eq!(inbox.push(Event::Input(Input::Deadline)), Err(Closed));
    }
}
