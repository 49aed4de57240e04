//! The way from a gRPC or HTTP handler to the member and back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use detkv_core::api::{ReadReady, Request, RequestId, Response, StreamId, WatchMessage};
use detkv_core::member::Metrics;
use detkv_core::mvcc::ReadResult;
use detkv_core::pb::etcdserverpb::WatchRequest;
use detkv_core::{ApiError, Input, StoreReader};
use tokio::sync::{mpsc, oneshot, watch};

use crate::inbox::{Closed, Event, Inbox};
use crate::slow::{self, SlowApplies};

/// A range of at most this many keys is read on the caller's own thread; others may take long and go
/// to a thread for blocking work.
const INLINE_READ_KEYS: i64 = 1024;

/// Shared by all handlers.
#[derive(Debug)]
pub struct Client {
    inbox: Arc<Inbox>,
    reader: StoreReader,
    metrics: Arc<Metrics>,
    next_id: AtomicU64,
    /// True once no leader has been known for three election timeouts.
    leader_lost: watch::Receiver<bool>,
    slow: SlowApplies,
}

impl Client {
    pub fn new(
        inbox: Arc<Inbox>,
        reader: StoreReader,
        metrics: Arc<Metrics>,
        leader_lost: watch::Receiver<bool>,
        slow: SlowApplies,
    ) -> Self {
        Self { inbox, reader, metrics, next_id: AtomicU64::new(1), leader_lost, slow }
    }

    /// Asks the member. When the caller drops the future the member is told that nobody waits.
    ///
    /// Errors: the member's answer; `TooManyRequests` when its inbox is full; `Stopped` when it is over.
    pub async fn call(&self, request: Request) -> Result<Response, ApiError> {
        let id = RequestId(self.next_id.fetch_add(1, Relaxed));
        let (reply, answer) = oneshot::channel();
        self.inbox.push_call(id, request, reply)?;
        let cancel = CancelOnDrop { inbox: &self.inbox, id };
        let answer = answer.await;
        std::mem::forget(cancel);
        answer.unwrap_or(Err(ApiError::Stopped))
    }

    /// Asks, and when the member says that a read may be served now, serves it here.
    pub async fn call_and_read(&self, request: Request) -> Result<Answer, ApiError> {
        let inline = match &request {
            Request::Range(range) => {
                range.range_end.is_empty() || (1..=INLINE_READ_KEYS).contains(&range.limit)
            }
            _ => false,
        };
        let ready = match self.call(request).await? {
            Response::ReadReady(ready) => ready,
            other => return Ok(Answer::Member(other)),
        };
        if inline {
            return read(&self.reader, &ready, &self.slow).map(Answer::Read);
        }
        let (reader, slow) = (self.reader.clone(), self.slow.clone());
        match tokio::task::spawn_blocking(move || read(&reader, &ready, &slow)).await {
            Ok(result) => result.map(Answer::Read),
            // The pool is shutting down; a panic in a read has been reported by its own thread.
            Err(_) => Err(ApiError::Stopped),
        }
    }

    /// Opens a watch stream. The stream is closed when the returned value is dropped.
    pub fn open_stream(
        self: &Arc<Self>,
    ) -> Result<(WatchHandle, mpsc::UnboundedReceiver<WatchMessage>), ApiError> {
        let stream = StreamId(self.next_id.fetch_add(1, Relaxed));
        let (sink, messages) = mpsc::unbounded_channel();
        self.inbox.push(Event::OpenStream { stream, sink }).map_err(|Closed| ApiError::Stopped)?;
        Ok((WatchHandle { client: self.clone(), stream }, messages))
    }

    /// Hands a client's message on a watch stream to the member; waits while its inbox is full.
    pub async fn stream_request(
        &self,
        stream: StreamId,
        request: WatchRequest,
    ) -> Result<(), ApiError> {
        let input = Input::StreamRequest { stream, request };
        self.inbox.push_stream_request(input).await.map_err(|Closed| ApiError::Stopped)
    }

    pub fn has_leader(&self) -> bool {
        self.metrics.has_leader.load() != 0
    }

    pub fn is_learner(&self) -> bool {
        self.metrics.is_learner.load() != 0
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Views of the backend's file that are open now.
    pub fn open_views(&self) -> u64 {
        self.reader.open_views()
    }

    /// Becomes true when no leader has been known for three election timeouts.
    pub fn leader_lost(&self) -> watch::Receiver<bool> {
        self.leader_lost.clone()
    }
}

fn read(
    reader: &StoreReader,
    ready: &ReadReady,
    noted: &SlowApplies,
) -> Result<ReadResult, ApiError> {
    let prefix = match &ready.request {
        Request::Range(_) => slow::RANGE,
        Request::Txn(_) => slow::TXN,
        // Hashes take as long as they take, and have a histogram.
        _ => return reader.read(ready),
    };
    let started = Instant::now();
    let result = reader.read(ready);
    noted.note_read(prefix, started.elapsed(), result.is_ok());
    result
}

/// Who gave the answer.
#[derive(Debug)]
pub enum Answer {
    Member(Response),
    Read(ReadResult),
}

struct CancelOnDrop<'a> {
    inbox: &'a Inbox,
    id: RequestId,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        // A closed inbox has dropped the request already.
        let _ = self.inbox.push_quietly(Event::Input(Input::Cancel { id: self.id }));
    }
}

/// An open watch stream.
#[derive(Debug)]
pub struct WatchHandle {
    client: Arc<Client>,
    stream: StreamId,
}

impl WatchHandle {
    pub fn id(&self) -> StreamId {
        self.stream
    }

    /// Gives credit back to core. An `urgent` report wakes the member.
    pub fn drained(&self, bytes: u64, urgent: bool) {
        let event = Event::Input(Input::StreamDrained { stream: self.stream, bytes });
        let inbox = &self.client.inbox;
        // A closed inbox ends the stream by itself.
        let _ = if urgent { inbox.push(event) } else { inbox.push_quietly(event) };
    }
}

impl Drop for WatchHandle {
    fn drop(&mut self) {
        let closed = Input::StreamClosed { stream: self.stream };
        let _ = self.client.inbox.push_quietly(Event::Input(closed));
    }
}

/// Sets `lost` when no leader has been known for three election timeouts, clears it when one is.
pub async fn monitor_leader(metrics: Arc<Metrics>, election: Duration, lost: watch::Sender<bool>) {
    const CHECKS: u32 = 10;
    let patience = election * 3;
    let mut checks_without = 0;
    loop {
        tokio::time::sleep(patience / CHECKS).await;
        let has_leader = metrics.has_leader.load() != 0;
        checks_without = if has_leader { 0 } else { checks_without + 1 };
        let is_lost = checks_without >= CHECKS;
        lost.send_if_modified(|lost| std::mem::replace(lost, is_lost) != is_lost);
    }
}
