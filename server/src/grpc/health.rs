//! grpc.health.v1: the whole server ("") is serving; there are no others.

use std::pin::Pin;

use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use super::Api;
use super::service::health::health_check_response::ServingStatus;
use super::service::health::health_server::Health;
use super::service::health::{HealthCheckRequest, HealthCheckResponse};

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for Api {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !request.get_ref().service.is_empty() {
            return Err(Status::not_found("unknown service"));
        }
        Ok(Response::new(answer(ServingStatus::Serving)))
    }

    /// The present status; it never changes while the process runs, so the stream then stays silent.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = request.get_ref().service.is_empty();
        let status = if known { ServingStatus::Serving } else { ServingStatus::ServiceUnknown };
        let now = tokio_stream::once(Ok(answer(status)));
        Ok(Response::new(Box::pin(now.chain(tokio_stream::pending()))))
    }
}
