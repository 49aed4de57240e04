//! etcd's gRPC services over the member.
//!
//! [`Api`] implements all of them; [`Router`] finds the one a request is for. `codec` writes answers to
//! the wire, `status` holds the codes, `methods` the table of methods with their counters, `count` what passes; `kv`, `watch`,
//! `lease`, `cluster`, `maintenance`, `health` are what their names say.

mod cluster;
pub mod codec;
mod count;
mod health;
mod kv;
mod lease;
mod maintenance;
mod methods;
mod router;
pub mod status;
mod watch;

use std::sync::Arc;

use detkv_core::ApiError;
use detkv_core::api::{Request as Ask, Response as Answered};
use detkv_core::pb::etcdserverpb as pb;
use prometheus::IntCounter;
use tonic::{Request, Response, Status};

pub use router::Router;

use crate::client::{Answer, Client};
use crate::metrics::{DriverMetrics, MaintenanceSeconds, WatchEvents};
use status::status;

/// Generated service traits.
#[allow(clippy::all, missing_docs, reason = "generated code")]
mod service {
    pub mod etcd {
        include!(concat!(env!("OUT_DIR"), "/service/etcdserverpb.rs"));
    }
    pub mod health {
        include!(concat!(env!("OUT_DIR"), "/service/grpc.health.v1.rs"));
    }
}

/// All services.
#[derive(Clone, Debug)]
struct Api {
    client: Arc<Client>,
    seconds: MaintenanceSeconds,
    watch_events: WatchEvents,
    stream_failures: StreamFailures,
}

/// Streams whose client's half ended with an error.
#[derive(Clone, Debug)]
struct StreamFailures {
    watch: IntCounter,
    keep_alive: IntCounter,
}

impl StreamFailures {
    fn new(metrics: &DriverMetrics) -> Self {
        let of = |api| metrics.stream_failures.with_label_values(&["receive", api]);
        Self { watch: of("watch"), keep_alive: of("lease-keepalive") }
    }
}

/// A request that core answers with one response of a type of its own.
trait Unary {
    type Answer;
    fn ask(self) -> Ask;
    fn answer(response: Answered) -> Option<Self::Answer>;
}

macro_rules! unary {
    ($($variant:ident: $request:ident => $response:ident;)*) => {
        $(impl Unary for pb::$request {
            type Answer = pb::$response;
            fn ask(self) -> Ask {
                Ask::$variant(self)
            }
            fn answer(response: Answered) -> Option<Self::Answer> {
                match response {
                    Answered::$variant(answer) => Some(answer),
                    _ => None,
                }
            }
        })*
    };
}

unary! {
    Put: PutRequest => PutResponse;
    DeleteRange: DeleteRangeRequest => DeleteRangeResponse;
    Compact: CompactionRequest => CompactionResponse;
    LeaseGrant: LeaseGrantRequest => LeaseGrantResponse;
    LeaseRevoke: LeaseRevokeRequest => LeaseRevokeResponse;
    LeaseKeepAlive: LeaseKeepAliveRequest => LeaseKeepAliveResponse;
    LeaseTimeToLive: LeaseTimeToLiveRequest => LeaseTimeToLiveResponse;
    LeaseLeases: LeaseLeasesRequest => LeaseLeasesResponse;
    Status: StatusRequest => StatusResponse;
    MemberList: MemberListRequest => MemberListResponse;
    MemberAdd: MemberAddRequest => MemberAddResponse;
    MemberRemove: MemberRemoveRequest => MemberRemoveResponse;
    MemberUpdate: MemberUpdateRequest => MemberUpdateResponse;
    MemberPromote: MemberPromoteRequest => MemberPromoteResponse;
    Alarm: AlarmRequest => AlarmResponse;
    Defragment: DefragmentRequest => DefragmentResponse;
    MoveLeader: MoveLeaderRequest => MoveLeaderResponse;
}

impl Api {
    /// Checks the metadata that etcd reserves (surface spec §1) and takes the message out.
    fn admit<T>(&self, request: Request<T>) -> Result<T, Status> {
        if wants_leader(&request) && !self.client.has_leader() {
            return Err(status(&ApiError::NoLeader));
        }
        let version = request.metadata().get("client-api-version");
        if version.is_some_and(|v| std::str::from_utf8(v.as_bytes()).is_err()) {
            return Err(Status::invalid_argument("etcdserver: invalid client api version"));
        }
        Ok(request.into_inner())
    }

    /// Asks for something that core answers itself.
    async fn ask<R: Unary>(&self, request: R) -> Result<R::Answer, Status> {
        let answer = self.client.call(request.ask()).await.map_err(|e| status(&e))?;
        Ok(R::answer(answer).expect("core answers a request with its own response"))
    }

    async fn unary<R: Unary>(&self, request: Request<R>) -> Result<Response<R::Answer>, Status> {
        self.ask(self.admit(request)?).await.map(Response::new)
    }

    /// For Range and Txn: core may say that the read is to be served here.
    async fn read_or_member(&self, ask: Ask) -> Result<Answer, Status> {
        self.client.call_and_read(ask).await.map_err(|e| status(&e))
    }
}

/// `hasleader: true`: the client wants an error rather than a member without a leader.
fn wants_leader<T>(request: &Request<T>) -> bool {
    request.metadata().get("hasleader").is_some_and(|value| value.as_bytes() == b"true")
}

fn not_yet<T>(method: &'static str) -> Result<Response<T>, Status> {
    Err(status(&ApiError::Unimplemented(method)))
}
