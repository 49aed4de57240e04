//! Range, Put, DeleteRange, Txn, Compact.

use detkv_core::api::{Request as Ask, Response as Answered};
use detkv_core::mvcc::ReadResult;
use detkv_core::pb::etcdserverpb as pb;
use tonic::{Request, Response, Status};

use super::Api;
use super::codec::RangeReply;
use super::service::etcd::kv_server::Kv;
use crate::client::Answer;

#[tonic::async_trait]
impl Kv for Api {
    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<RangeReply>, Status> {
        match self.read_or_member(Ask::Range(self.admit(request)?)).await? {
            Answer::Read(ReadResult::Range(rows)) => Ok(Response::new(RangeReply(rows))),
            other => unreachable!("a Range is answered by a reader with rows, not {other:?}"),
        }
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        self.unary(request).await
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        self.unary(request).await
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        match self.read_or_member(Ask::Txn(self.admit(request)?)).await? {
            Answer::Member(Answered::Txn(response)) | Answer::Read(ReadResult::Txn(response)) => {
                Ok(Response::new(response))
            }
            other => unreachable!("a Txn is answered by a TxnResponse, not {other:?}"),
        }
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        self.unary(request).await
    }
}
