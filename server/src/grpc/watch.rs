//! The Watch stream. Core decides everything; this end frames and gives credit back.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use detkv_core::ApiError;
use detkv_core::api::{StreamId, WatchMessage};
use detkv_core::pb::etcdserverpb as pb;
use prometheus::IntCounter;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::codec::WatchReply;
use super::service::etcd::watch_server::Watch;
use super::status::{status, translate_too_large};
use super::{Api, wants_leader};
use crate::client::{Client, WatchHandle};
use crate::metrics::WatchEvents;

/// Credit that is given back at once, waking the member; less waits for its next burst.
const URGENT_BYTES: u64 = 128 << 10;

#[tonic::async_trait]
impl Watch for Api {
    type WatchStream = WatchReplies;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<WatchReplies>, Status> {
        let wants_leader = wants_leader(&request);
        let inbound = self.admit(request)?;
        if self.client.is_learner() {
            return Err(status(&ApiError::NotSupportedForLearner));
        }
        let (handle, messages) = self.client.open_stream().map_err(|e| status(&e))?;
        let (ended, end) = oneshot::channel();
        let failures = self.stream_failures.watch.clone();
        let task = run(self.client.clone(), handle.id(), inbound, wants_leader, ended, failures);
        let inbound = AbortOnDrop(tokio::spawn(task).abort_handle());
        let end = Some(end);
        let events = self.watch_events.clone();
        let drained = 0;
        Ok(Response::new(WatchReplies {
            handle,
            messages,
            end,
            drained,
            events,
            _inbound: inbound,
        }))
    }
}

/// Hands the client's requests on, and ends the stream when it must end with an error.
async fn run(
    client: Arc<Client>,
    stream: StreamId,
    inbound: Streaming<pb::WatchRequest>,
    wants_leader: bool,
    ended: oneshot::Sender<Status>,
    failures: IntCounter,
) {
    let leader = client.leader_lost();
    let error = tokio::select! {
        Err(error) = take_requests(&client, stream, inbound) => {
            count_failure(&failures, &error);
            error
        }
        error = leader_lost(leader), if wants_leader => error,
        // A half-close does not end a watch stream, and nobody asked for a leader.
        else => return,
    };
    let _ = ended.send(error);
}

/// A client that goes away has not failed.
pub(super) fn count_failure(failures: &IntCounter, error: &Status) {
    if error.code() != Code::Cancelled {
        failures.inc();
    }
}

/// Until the client's half of the stream ends (fine) or fails.
async fn take_requests(
    client: &Client,
    stream: StreamId,
    mut inbound: Streaming<pb::WatchRequest>,
) -> Result<(), Status> {
    while let Some(request) = inbound.message().await.map_err(translate_too_large)? {
        client.stream_request(stream, request).await.map_err(|e| status(&e))?;
    }
    Ok(())
}

/// Comes back when no leader has been known for three election timeouts.
pub(super) async fn leader_lost(mut lost: tokio::sync::watch::Receiver<bool>) -> Status {
    match lost.wait_for(|lost| *lost).await {
        Ok(_) => status(&ApiError::NoLeader),
        Err(_) => status(&ApiError::Stopped),
    }
}

#[derive(Debug)]
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What goes to the client. Dropped with the connection, which closes the stream in core.
#[derive(Debug)]
pub struct WatchReplies {
    handle: WatchHandle,
    messages: mpsc::UnboundedReceiver<WatchMessage>,
    /// Brings the error that ends the stream; `None` once it cannot come any more.
    end: Option<oneshot::Receiver<Status>>,
    /// Bytes the transport has taken that core has not been told of.
    drained: u64,
    events: WatchEvents,
    _inbound: AbortOnDrop,
}

impl WatchReplies {
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        let Some(end) = &mut self.end else { return Poll::Pending };
        match Pin::new(end).poll(cx) {
            Poll::Ready(Ok(error)) => Poll::Ready(error),
            Poll::Ready(Err(_)) => {
                self.end = None;
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn report_drained(&mut self, urgent: bool) {
        self.handle.drained(std::mem::take(&mut self.drained), urgent);
    }
}

impl Stream for WatchReplies {
    type Item = Result<WatchReply, Status>;

    /// The transport asks when it has room, so a message that leaves here is taken.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.messages.poll_recv(cx) {
            Poll::Ready(Some(message)) => {
                self.drained += message.bytes;
                self.events.on_sent(&message);
                if self.drained >= URGENT_BYTES {
                    self.report_drained(true);
                }
                Poll::Ready(Some(Ok(WatchReply(message))))
            }
            Poll::Ready(None) => Poll::Ready(Some(Err(status(&ApiError::Stopped)))),
            Poll::Pending => {
                if self.drained > 0 {
                    self.report_drained(false);
                }
                self.poll_end(cx).map(|error| Some(Err(error)))
            }
        }
    }
}

impl Drop for WatchReplies {
    fn drop(&mut self) {
        self.messages.close();
        while let Ok(message) = self.messages.try_recv() {
            self.events.on_dropped(&message);
        }
    }
}
