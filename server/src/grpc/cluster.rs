//! MemberList. Membership changes are not there yet (rules 28).

use detkv_core::pb::etcdserverpb as pb;
use tonic::{Request, Response, Status};

use super::service::etcd::cluster_server::Cluster;
use super::{Api, not_yet};

#[tonic::async_trait]
impl Cluster for Api {
    async fn member_add(
        &self,
        _request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        not_yet("Cluster.MemberAdd")
    }

    async fn member_remove(
        &self,
        _request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        not_yet("Cluster.MemberRemove")
    }

    async fn member_update(
        &self,
        _request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        not_yet("Cluster.MemberUpdate")
    }

    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        self.unary(request).await
    }

    async fn member_promote(
        &self,
        _request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        not_yet("Cluster.MemberPromote")
    }
}
