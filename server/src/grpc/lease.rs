//! Grant, revoke, keep-alive, time-to-live, list.

use detkv_core::ApiError;
use detkv_core::pb::etcdserverpb as pb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::service::etcd::lease_server::Lease;
use super::status::{status, translate_too_large};
use super::watch::{count_failure, leader_lost};
use super::{Api, wants_leader};

/// Keep-alive answers that may wait for a slow client before its requests are no longer read.
const ANSWERS_WAITING_MAX: usize = 16;

type KeepAliveResult = Result<pb::LeaseKeepAliveResponse, Status>;

#[tonic::async_trait]
impl Lease for Api {
    type LeaseKeepAliveStream = ReceiverStream<KeepAliveResult>;

    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        self.unary(request).await
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        self.unary(request).await
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let wants_leader = wants_leader(&request);
        let inbound = self.admit(request)?;
        if self.client.is_learner() {
            return Err(status(&ApiError::NotSupportedForLearner));
        }
        let (answers, stream) = mpsc::channel(ANSWERS_WAITING_MAX);
        let api = self.clone();
        tokio::spawn(async move {
            let error = tokio::select! {
                result = api.keep_alive(inbound, &answers) => result.err(),
                error = leader_lost(api.client.leader_lost()), if wants_leader => Some(error),
                () = answers.closed() => None,
            };
            if let Some(error) = error {
                let _ = answers.send(Err(error)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        self.unary(request).await
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        self.unary(request).await
    }
}

impl Api {
    /// One answer per request, in order, until the client's half ends (fine) or something fails.
    async fn keep_alive(
        &self,
        mut inbound: Streaming<pb::LeaseKeepAliveRequest>,
        answers: &mpsc::Sender<KeepAliveResult>,
    ) -> Result<(), Status> {
        let failed = |error: Status| {
            let error = translate_too_large(error);
            count_failure(&self.stream_failures.keep_alive, &error);
            error
        };
        while let Some(request) = inbound.message().await.map_err(failed)? {
            if answers.send(Ok(self.ask(request).await?)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}
