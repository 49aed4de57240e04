//! The three kinds of error: the caller's mistake (`ApiError`), the world's failure (`Halt`,
//! `OpenError`); our own mistakes are assertions.

/// The answer to a request that did not succeed.
///
/// One variant per row of surface spec §10.1. `Display` is etcd's exact text; the gRPC code is
/// the server's to add (`server/src/grpc/status.rs`).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ApiError {
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    #[error("etcdserver: key not found")]
    KeyNotFound,
    #[error("etcdserver: value is provided")]
    ValueProvided,
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    #[error("etcdserver: invalid sort option")]
    InvalidSortOption,
    #[error("etcdserver: request is too large")]
    RequestTooLarge,
    #[error("etcdserver: given member URLs are invalid")]
    MemberBadUrls,
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    /// Code Unknown on the wire (surface spec §10.2).
    #[error("etcdserver: too many requests")]
    TooManyRequests,
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    #[error("etcdserver: member not found")]
    MemberNotFound,
    #[error("etcdserver: member ID already exist")]
    MemberExists,
    #[error("etcdserver: Peer URLs already exists")]
    PeerUrlExists,
    /// Code Unknown on the wire (surface spec §10.2).
    #[error("etcdserver: re-configuration failed due to not enough started members")]
    NotEnoughStarted,
    #[error("etcdserver: can only promote a learner member")]
    MemberNotLearner,
    #[error("etcdserver: can only promote a learner member which is in sync with leader")]
    LearnerNotReady,
    #[error("etcdserver: too many learner members in cluster")]
    TooManyLearners,
    #[error("etcdserver: not leader")]
    NotLeader,
    #[error("etcdserver: rpc not supported for learner")]
    NotSupportedForLearner,
    #[error("etcdserver: bad leader transferee")]
    BadLeaderTransferee,
    #[error("etcdserver: no leader")]
    NoLeader,
    #[error("etcdserver: leader changed")]
    LeaderChanged,
    #[error("etcdserver: server stopped")]
    Stopped,
    #[error("etcdserver: request timed out")]
    Timeout,
    #[error("etcdserver: request timed out, possibly due to previous leader failure")]
    TimeoutLeaderFailure,
    #[error("etcdserver: request timed out, possibly due to connection lost")]
    TimeoutConnectionLost,
    #[error("etcdserver: request timed out, waiting for the applied index took too long")]
    TimeoutApplied,
    #[error("etcdserver: unhealthy cluster")]
    Unhealthy,
    #[error("etcdserver: corrupt cluster")]
    Corrupt,
    /// A proposal that found no leader to go to before its deadline (etcd 3.6's answer).
    #[error("context deadline exceeded")]
    DeadlineExceeded,
    /// The copy could not be written, above all for want of space; the store is as it was.
    #[error("etcdserver: defragmentation failed: {0}")]
    Defragment(String),
    #[error("raft proposal dropped")]
    ProposalDropped,
    #[error("etcdserver: request timed out, leader transfer took too long")]
    TimeoutLeaderTransfer,
    /// A number outside an enum that etcd would crash on, or an input it cannot mean.
    #[error("etcdserver: invalid argument: {0}")]
    InvalidArgument(String),
    /// A service of etcd's that this version does not have yet (rules 28).
    #[error("detkv: {0} is not yet supported")]
    Unimplemented(&'static str),
}

/// Why a member stopped for good. Never retried: after a failed fsync nobody knows what the disk holds.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Halt {
    #[error("disk lane {lane} failed: {error}")]
    DiskFailed { lane: crate::Lane, error: String },
    #[error("backend failed: {0}")]
    Backend(String),
    #[error("the member has been permanently removed from the cluster")]
    Removed,
    /// The check before the first client found other data than the peers have.
    #[error("found data inconsistency with peers: {0}")]
    Corrupt(String),
    /// A planned stop came to its end; everything is on disk.
    #[error("stopped")]
    Stopped,
}

/// Why a data directory could not be opened. The text is the one line an operator sees.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path}: {what} at byte {offset}: the WAL is damaged and was not changed")]
    WalDamaged { path: String, offset: u64, what: String },
    #[error("{path}: {what}: the file is damaged and was not changed")]
    FileDamaged { path: String, what: String },
    #[error(
        "data directory belongs to cluster {found:x} member {found_member:x}, but the flags say cluster {expected:x} member {expected_member:x}"
    )]
    OtherCluster { found: u64, found_member: u64, expected: u64, expected_member: u64 },
    #[error(
        "backend is ahead of the WAL: consistent index {consistent_index}, last WAL index {last_index}"
    )]
    BackendAhead { consistent_index: u64, last_index: u64 },
    #[error("{path}: {error}")]
    Io { path: String, error: String },
    #[error("{0}")]
    Config(String),
}
