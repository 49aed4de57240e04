//! Status, Alarm, HashKV, MoveLeader. The rest is not there yet (rules 28).

use detkv_core::pb::etcdserverpb as pb;
use tokio_stream::Empty;
use tonic::{Request, Response, Status};

use super::service::etcd::maintenance_server::Maintenance;
use super::{Api, not_yet};

#[tonic::async_trait]
impl Maintenance for Api {
    type SnapshotStream = Empty<Result<pb::SnapshotResponse, Status>>;

    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        self.unary(request).await
    }

    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        self.unary(request).await
    }

    async fn defragment(
        &self,
        _request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        not_yet("Maintenance.Defragment")
    }

    async fn hash(
        &self,
        _request: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        not_yet("Maintenance.Hash")
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        self.unary(request).await
    }

    async fn snapshot(
        &self,
        _request: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        not_yet("Maintenance.Snapshot")
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        self.unary(request).await
    }

    async fn downgrade(
        &self,
        _request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        not_yet("Maintenance.Downgrade")
    }
}
