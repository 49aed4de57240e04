//! Status, Alarm, Defragment, Hash, HashKV, MoveLeader. The rest is not there yet (rules 28).

use detkv_core::api::Request as Ask;
use detkv_core::mvcc::ReadResult;
use detkv_core::pb::etcdserverpb as pb;
use tokio_stream::Empty;
use tonic::{Request, Response, Status};

use super::service::etcd::maintenance_server::Maintenance;
use super::{Api, not_yet};
use crate::client::Answer;

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
        request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        let _timer = self.seconds.defrag.start_timer();
        self.unary(request).await
    }

    async fn hash(
        &self,
        request: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        let _timer = self.seconds.hash.start_timer();
        match self.read_or_member(Ask::Hash(self.admit(request)?)).await? {
            Answer::Read(ReadResult::Hash(hashed)) => Ok(Response::new(hashed.response)),
            other => unreachable!("a Hash is answered by a reader with a hash, not {other:?}"),
        }
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        let _timer = self.seconds.hash_kv.start_timer();
        match self.read_or_member(Ask::HashKv(self.admit(request)?)).await? {
            Answer::Read(ReadResult::HashKv(hashed)) => Ok(Response::new(hashed.response)),
            other => unreachable!("a HashKV is answered by a reader with a hash, not {other:?}"),
        }
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
