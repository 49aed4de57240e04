//! The async face of the world: what clients and scenario scripts hold.
//!
//! Everything here runs on the run's one thread, in virtual time.

use std::future::Future;
use std::time::Duration;

use detkv_core::api::Request;
use detkv_core::member::MemberStatus;
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::{ApiError, Instant, MemberId};
use rand_chacha::ChaCha8Rng;

use crate::fault::Fault;
use crate::history::{self, ClientId};

/// What a node is doing.
#[derive(Clone, PartialEq, Debug)]
pub enum NodeStatus {
    Up(MemberStatus),
    Paused(MemberStatus),
    Recovering,
    Down,
}

/// Why a call has no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallError {
    /// The client's own timeout passed: the outcome of a write is unknown.
    Timeout,
    /// Nothing listened: the request was not delivered.
    Unavailable,
    /// The connection broke while the request was under way: the outcome of a write is unknown.
    ConnectionLost,
}

/// The answer to a request, reads already served by the member's reader.
#[derive(Clone, PartialEq, Debug)]
pub enum Reply {
    Range(pb::RangeResponse),
    Put(pb::PutResponse),
    DeleteRange(pb::DeleteRangeResponse),
    Txn(pb::TxnResponse),
    Compact(pb::CompactionResponse),
    LeaseGrant(pb::LeaseGrantResponse),
    LeaseRevoke(pb::LeaseRevokeResponse),
    LeaseKeepAlive(pb::LeaseKeepAliveResponse),
    LeaseTimeToLive(pb::LeaseTimeToLiveResponse),
    LeaseLeases(pb::LeaseLeasesResponse),
    Status(pb::StatusResponse),
    MemberList(pb::MemberListResponse),
    Alarm(pb::AlarmResponse),
    HashKv(pb::HashKvResponse),
    MoveLeader(pb::MoveLeaderResponse),
}

/// A handle to the running world. Cheap to clone; single-threaded.
#[derive(Clone)]
pub struct Handle {}

impl Handle {
    /// True time of the world; members' own clocks may differ.
    pub fn now(&self) -> Instant {
        unimplemented!()
    }

    pub async fn sleep_until(&self, _at: Instant) {
        unimplemented!()
    }

    pub async fn sleep(&self, d: Duration) {
        self.sleep_until(self.now() + d).await;
    }

    /// Starts a task that lives as long as it likes, at most as long as the run.
    pub fn spawn(&self, _task: impl Future<Output = ()> + 'static) {
        unimplemented!()
    }

    /// A random stream of its own: draws from it move no other stream.
    pub fn rng(&self, _node: u64, _purpose: &str) -> ChaCha8Rng {
        unimplemented!()
    }

    pub fn members(&self) -> Vec<MemberId> {
        unimplemented!()
    }

    pub fn node_status(&self, _node: MemberId) -> NodeStatus {
        unimplemented!()
    }

    /// The node that is up and leads with the highest term.
    pub fn leader(&self) -> Option<MemberId> {
        unimplemented!()
    }

    /// Sends one request over the client's connection to `to` and waits for the answer.
    pub async fn call(
        &self,
        _client: ClientId,
        _to: MemberId,
        _request: Request,
        _timeout: Duration,
    ) -> Result<Result<Reply, ApiError>, CallError> {
        unimplemented!()
    }

    /// Opens a watch stream.
    pub async fn watch(&self, _client: ClientId, _to: MemberId) -> Result<WatchConn, CallError> {
        unimplemented!()
    }

    /// Performs a fault now.
    pub fn inject(&self, _fault: Fault) {
        unimplemented!()
    }

    /// Adds to the run's history, and so to the event hash.
    pub fn record(&self, _event: history::Event) {
        unimplemented!()
    }

    /// Ends every fault: links heal, disks run, paused nodes resume, dead nodes start.
    pub fn heal_all(&self) {
        unimplemented!()
    }
}

/// An open watch stream; dropping it closes it.
pub struct WatchConn {}

impl WatchConn {
    pub fn send(&self, _request: pb::WatchRequest) {
        unimplemented!()
    }

    /// The next response in order; `None` once the connection is lost.
    ///
    /// What is not taken fills the stream's window: the member then sees a slow watcher.
    pub async fn recv(&mut self) -> Option<pb::WatchResponse> {
        unimplemented!()
    }
}
