//! What is handed in: calls and returns, watch messages, facts about the world.

use detkv_core::api::Request;
use detkv_core::member::{AppliedChange, Role};
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::{ApiError, MemberId};

use super::{ClientId, OpId, WatchId};
use crate::handle::Reply;

/// One thing to record; its time is given beside it.
#[derive(Clone, Debug)]
pub enum Event {
    /// `op` is the next free number: operations are numbered in the order of their calls.
    Call {
        client: ClientId,
        op: OpId,
        member: MemberId,
        request: Request,
    },
    Return {
        op: OpId,
        result: Result<Reply, Failure>,
    },
    /// `watch` is the next free number.
    WatchOpened {
        client: ClientId,
        watch: WatchId,
        member: MemberId,
        request: pb::WatchCreateRequest,
    },
    /// Every message on the stream of `watch` after the request was sent.
    WatchResponse {
        watch: WatchId,
        response: pb::WatchResponse,
    },
    /// The connection went away.
    WatchLost {
        watch: WatchId,
    },
    /// The client closed it.
    WatchClosed {
        watch: WatchId,
    },
    /// From now on the client drains its watches slowly, on purpose.
    ClientIsSlow {
        client: ClientId,
    },
    Fact(Fact),
}

/// Something about the world that no client sees.
#[derive(Clone, PartialEq, Debug)]
pub enum Fact {
    /// The process started and reads its data directory.
    Recovering {
        member: MemberId,
    },
    /// Open: it takes part.
    Up {
        member: MemberId,
    },
    Down {
        member: MemberId,
        how: DownHow,
    },
    Paused {
        member: MemberId,
    },
    Resumed {
        member: MemberId,
    },
    /// The member's view changed.
    Role {
        member: MemberId,
        role: Role,
        term: u64,
        leader: Option<MemberId>,
    },
    /// `fault` numbers the faults of a run; `what` reads as a line of the story.
    FaultBegan {
        fault: u32,
        what: String,
        member: Option<MemberId>,
    },
    FaultEnded {
        fault: u32,
    },
    /// `Member::state_hash` at `applied_index`.
    StateHash {
        member: MemberId,
        applied_index: u64,
        hash: u64,
    },
    /// HashKV of the member, asked when everything was over.
    KvHash {
        member: MemberId,
        revision: i64,
        compact_revision: i64,
        hash: u32,
    },
    /// A counter or gauge of the member, read at this time.
    Metric {
        member: MemberId,
        name: &'static str,
        value: u64,
    },
    /// The member's disk took back what had been durable: it was emptied, swapped, or a sync had lied.
    DiskDamaged {
        member: MemberId,
    },
    /// The member's clock jumped forward (or back, if negative).
    ClockStepped {
        member: MemberId,
        ns: i64,
    },
    /// The member applied a change of the configuration.
    Membership {
        member: MemberId,
        change: AppliedChange,
    },
    /// The script reached a phase of the run.
    Phase(Phase),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DownHow {
    Killed,
    PowerLoss,
    /// A planned stop.
    Stopped,
    /// The member gave up: a failed disk, removal.
    Halted(String),
    /// The data directory could not be opened.
    OpenFailed(String),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// A leader is elected and the workload runs: figures count from here.
    WarmedUp,
    /// No fault from here on: the cluster must converge.
    FaultsOver,
    /// The workload is over; what follows reads everything back.
    Readout,
}

/// How a call ended without an answer.
#[derive(Clone, PartialEq, Debug)]
pub enum Failure {
    Api(ApiError),
    /// The request never left the client: it has no effect.
    NotSent,
    /// Timeout or lost connection: the request may take effect at any later time.
    Unknown,
}

/// Whether a request that got this error may take effect, or may have.
///
/// Besides what may come later: a write that meets the quota on its way through apply takes effect
/// although its caller is refused (surface spec §16.6, check 2).
pub(super) fn may_have_effect(error: &ApiError) -> bool {
    may_take_effect_later(error) || *error == ApiError::NoSpace
}

/// Whether a request that got this error may still take effect later (surface spec §10.3).
///
/// All others are answers to a request that was looked at and refused.
pub fn may_take_effect_later(error: &ApiError) -> bool {
    matches!(
        error,
        ApiError::Timeout
            | ApiError::TimeoutLeaderFailure
            | ApiError::TimeoutConnectionLost
            | ApiError::TimeoutApplied
            | ApiError::DeadlineExceeded
            | ApiError::ProposalDropped
            | ApiError::LeaderChanged
            | ApiError::NoLeader
            | ApiError::NotLeader
            | ApiError::Stopped
            | ApiError::TimeoutLeaderTransfer
    )
}
