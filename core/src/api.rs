//! Typed requests and answers of a member: what a gRPC handler and a simulated client both speak.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::pb::etcdserverpb as pb;
use crate::pb::mvccpb;

/// The driver's name for an open request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// The driver's name for an open watch stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId(pub u64);

#[derive(Clone, PartialEq, Debug)]
pub enum Request {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    DeleteRange(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(pb::CompactionRequest),
    LeaseGrant(pb::LeaseGrantRequest),
    LeaseRevoke(pb::LeaseRevokeRequest),
    LeaseKeepAlive(pb::LeaseKeepAliveRequest),
    LeaseTimeToLive(pb::LeaseTimeToLiveRequest),
    LeaseLeases(pb::LeaseLeasesRequest),
    Status(pb::StatusRequest),
    MemberList(pb::MemberListRequest),
    MemberAdd(pb::MemberAddRequest),
    MemberRemove(pb::MemberRemoveRequest),
    MemberUpdate(pb::MemberUpdateRequest),
    MemberPromote(pb::MemberPromoteRequest),
    Alarm(pb::AlarmRequest),
    /// Acts on this member alone.
    Defragment(pb::DefragmentRequest),
    Hash(pb::HashRequest),
    HashKv(pb::HashKvRequest),
    MoveLeader(pb::MoveLeaderRequest),
}

#[derive(Clone, PartialEq, Debug)]
pub enum Response {
    /// The read may be served now: the driver runs `StoreReader::read(&ready)` where and when it likes.
    ReadReady(ReadReady),
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
    MemberAdd(pb::MemberAddResponse),
    MemberRemove(pb::MemberRemoveResponse),
    MemberUpdate(pb::MemberUpdateResponse),
    MemberPromote(pb::MemberPromoteResponse),
    Alarm(pb::AlarmResponse),
    Defragment(pb::DefragmentResponse),
    MoveLeader(pb::MoveLeaderResponse),
}

/// A Range or a read-only Txn whose barrier has been passed, or a Hash or HashKV, which has none.
#[derive(Clone, PartialEq, Debug)]
pub struct ReadReady {
    /// `Request::Range`, `Txn`, `Hash` or `HashKv`, validated.
    pub request: Request,
    /// Header of the answer; its revision is the newest one that was applied when the barrier was passed.
    pub header: pb::ResponseHeader,
}

/// The answer of a reader.
///
/// Rows stay encoded: `kvs[i]` is an encoded `mvccpb.KeyValue`, shared with the store, not copied.
#[derive(Clone, PartialEq, Debug)]
pub struct RangeRows {
    pub header: pb::ResponseHeader,
    pub kvs: Vec<Bytes>,
    pub more: bool,
    pub count: i64,
}

/// All changes of one main revision, in execution order; shared by every watcher it reaches.
#[derive(Debug)]
pub struct RevisionEvents {
    pub revision: i64,
    /// Without `prev_kv`; a DELETE's kv has `key` and `mod_revision` only.
    pub events: Vec<mvccpb::Event>,
    encoded: OnceLock<Bytes>,
}

impl RevisionEvents {
    pub fn new(revision: i64, events: Vec<mvccpb::Event>) -> Self {
        Self { revision, events, encoded: OnceLock::new() }
    }

    /// The events as fields 11 of a `WatchResponse`, encoded once.
    pub fn encoded(&self) -> &Bytes {
        self.encoded.get_or_init(|| encode_events(&self.events))
    }
}

fn encode_events(events: &[mvccpb::Event]) -> Bytes {
    let mut buf = bytes::BytesMut::new();
    for event in events {
        prost::encoding::message::encode(11, event, &mut buf);
    }
    buf.freeze()
}

/// The events of a watch response.
#[derive(Clone, Debug)]
pub enum WatchEvents {
    None,
    /// A whole revision as it is: the usual case, shared.
    Shared(Arc<RevisionEvents>),
    /// Filtered, with `prev_kv`, several revisions, or a fragment: this watcher's own.
    Own(Vec<mvccpb::Event>),
}

impl WatchEvents {
    pub fn as_slice(&self) -> &[mvccpb::Event] {
        match self {
            WatchEvents::None => &[],
            WatchEvents::Shared(events) => &events.events,
            WatchEvents::Own(events) => events,
        }
    }

    /// As fields 11 of a `WatchResponse`.
    pub fn encoded(&self) -> Bytes {
        match self {
            WatchEvents::None => Bytes::new(),
            WatchEvents::Shared(events) => events.encoded().clone(),
            WatchEvents::Own(events) => encode_events(events),
        }
    }
}

/// One response on a watch stream.
#[derive(Clone, Debug)]
pub struct WatchMessage {
    /// Everything but the events (`events` is empty here).
    pub head: pb::WatchResponse,
    pub events: WatchEvents,
    /// What the driver reports back in `StreamDrained` once the message left it.
    pub bytes: u64,
}

impl WatchMessage {
    /// The response as one message, events copied in.
    pub fn to_response(&self) -> pb::WatchResponse {
        pb::WatchResponse { events: self.events.as_slice().to_vec(), ..self.head.clone() }
    }
}
