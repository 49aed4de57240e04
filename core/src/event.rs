//! What goes into a member and what comes out of it: the whole seam between core and a driver.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::api::{Request, RequestId, Response, StreamId, WatchMessage};
use crate::error::{ApiError, Halt};
use crate::mvcc::{BackendJob, JobDone};
use crate::pb::etcdserverpb::WatchRequest;
use crate::pb::peer::Frame;

/// Raft's member id. Prints as etcd does: lower-case hex without padding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MemberId(pub u64);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Debug for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// One thing that happened to the member.
#[derive(Debug)]
pub enum Input {
    /// A deadline may have passed. A spurious one is a no-op.
    Deadline,
    /// A frame arrived from a peer, on either connection.
    Peer {
        from: MemberId,
        frame: Frame,
    },
    /// What a peer said of itself in its handshake; comes before its `PeerUp`. A peer that was
    /// never told of speaks our version.
    PeerVersion {
        peer: MemberId,
        /// The wire version that both ends know.
        wire: u32,
        /// Its `Config::version`, `X.Y.Z`.
        version: String,
    },
    /// A peer refused the connection because this member was removed from the cluster.
    RefusedAsRemoved {
        peer: MemberId,
    },
    /// Somebody of this cluster whom the member has not named a peer asks for a connection, and says
    /// where it is itself (etcd: a remote).
    Remote {
        peer: Peer,
    },
    /// The message connection to a peer came up.
    PeerUp {
        peer: MemberId,
    },
    /// The message connection to a peer went down: forwards under way on it are lost.
    PeerDown {
        peer: MemberId,
    },
    /// The driver's bounded queue to a peer was full and a frame was dropped.
    PeerQueueFull {
        peer: MemberId,
    },
    /// A client asks. `id` is the driver's choice, unique while the request is open.
    Request {
        id: RequestId,
        request: Request,
    },
    /// The client went away; a late result is dropped.
    Cancel {
        id: RequestId,
    },
    /// A client opened a watch stream.
    StreamOpen {
        stream: StreamId,
    },
    StreamRequest {
        stream: StreamId,
        request: WatchRequest,
    },
    /// The driver handed `bytes` (as given in the `WatchMessage`) of the stream to the transport.
    StreamDrained {
        stream: StreamId,
        bytes: u64,
    },
    StreamClosed {
        stream: StreamId,
    },
    /// Every action of `lane` with a ticket up to and including `up_to` has been performed, its syncs included.
    Synced {
        lane: Lane,
        up_to: Ticket,
    },
    /// A backend job ran; its writes have completed.
    JobDone {
        ticket: Ticket,
        done: JobDone,
    },
    /// An action failed. The member halts.
    DiskFailed {
        lane: Lane,
        error: String,
    },
    /// Planned stop: leadership is handed over, everything is made durable, then `Halt::Stopped`.
    Stop,
}

/// Actions are ordered inside a lane and independent between lanes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Lane {
    /// The WAL.
    Log,
    /// The MVCC file; its work comes as [`BackendJob`]s.
    Backend,
    /// Snap files and received snapshots.
    Snapshot,
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lane::Log => "log",
            Lane::Backend => "backend",
            Lane::Snapshot => "snapshot",
        })
    }
}

/// Number of an action in its lane: 1, 2, 3…
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Ticket(pub u64);

/// One thing to do to a file. Paths are relative to the data directory, with `/`.
#[derive(Clone, Debug)]
pub enum DiskAction {
    /// Creates the directory and its parents; an existing one is fine.
    CreateDir {
        path: String,
    },
    /// Creates or empties a file.
    Create {
        path: String,
    },
    /// Preallocates; the length becomes at least `len`, new bytes read as zero.
    Allocate {
        path: String,
        len: u64,
    },
    WriteAt {
        path: String,
        offset: u64,
        data: Bytes,
    },
    Truncate {
        path: String,
        len: u64,
    },
    /// fdatasync.
    SyncData {
        path: String,
    },
    Rename {
        from: String,
        to: String,
    },
    /// fsync of a directory: makes creates, renames and removes in it durable.
    SyncDir {
        path: String,
    },
    /// Removing what is not there is fine.
    Remove {
        path: String,
    },
}

#[derive(Clone, Debug)]
pub struct DiskOp {
    pub ticket: Ticket,
    pub action: DiskAction,
}

/// The actions of one lane, in order, with their tickets.
#[derive(Debug)]
pub struct LaneQueue {
    last: Ticket,
    pub ops: Vec<DiskOp>,
}

impl LaneQueue {
    /// Invariant: tickets go up by one per action, from 1.
    pub fn new() -> Self {
        Self { last: Ticket(0), ops: Vec::new() }
    }

    pub fn push(&mut self, action: DiskAction) -> Ticket {
        self.last.0 += 1;
        self.ops.push(DiskOp { ticket: self.last, action });
        self.last
    }

    /// The newest ticket given out.
    pub fn last(&self) -> Ticket {
        self.last
    }
}

impl Default for LaneQueue {
    fn default() -> Self {
        Self::new()
    }
}

/// Everything a member wants done after a burst. Reuse one value: `poll` appends.
#[derive(Default, Debug)]
pub struct Outputs {
    /// WAL actions, in order.
    pub log: Vec<DiskOp>,
    /// Snap-file actions, in order.
    pub snapshot: Vec<DiskOp>,
    /// Backend jobs, in order.
    pub jobs: Vec<(Ticket, BackendJob)>,
    /// Frames to peers on the message connection, in order per peer.
    pub messages: Vec<(MemberId, Frame)>,
    /// Frames to peers on the snapshot connection, in order per peer.
    pub snapshot_frames: Vec<(MemberId, Frame)>,
    pub replies: Vec<(RequestId, Result<Response, ApiError>)>,
    pub watch: Vec<(StreamId, WatchMessage)>,
    /// The peer set changed: dial and drop connections accordingly.
    pub peers: Option<Vec<Peer>>,
    /// With `peers`: ids that were removed for good. A dialer with such an id is told so and refused.
    pub removed: Vec<MemberId>,
    /// Watch streams that the member refuses: the driver ends them with the error.
    pub refused_streams: Vec<(StreamId, ApiError)>,
    pub log_lines: Vec<LogLine>,
    /// The member is over; nothing after this is performed.
    pub halt: Option<Halt>,
}

impl Outputs {
    pub fn is_empty(&self) -> bool {
        self.log.is_empty()
            && self.snapshot.is_empty()
            && self.jobs.is_empty()
            && self.messages.is_empty()
            && self.snapshot_frames.is_empty()
            && self.replies.is_empty()
            && self.watch.is_empty()
            && self.peers.is_none()
            && self.refused_streams.is_empty()
            && self.log_lines.is_empty()
            && self.halt.is_none()
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    pub id: MemberId,
    pub urls: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// One log line; names and fields as in surface spec §15.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogLine {
    pub level: Level,
    pub msg: String,
    pub fields: Vec<(&'static str, String)>,
}

/// What the driver lends to core for reading: the one exception to "core does no I/O" (rules 13).
///
/// Recovery lists and reads through it; redb reads and writes its file through the backends it
/// makes (writes only inside a [`BackendJob`]).
pub trait Files: Send + Sync + fmt::Debug {
    /// File names in a directory, sorted; a missing directory is empty.
    fn list(&self, dir: &str) -> std::io::Result<Vec<String>>;
    /// Length in bytes, or `None` when there is no such file.
    fn len(&self, path: &str) -> std::io::Result<Option<u64>>;
    /// Up to `len` bytes from `offset`; fewer only at the end of the file.
    fn read(&self, path: &str, offset: u64, len: usize) -> std::io::Result<Bytes>;
    /// Opens (or creates) the file as redb's storage.
    fn backend(&self, path: &str) -> std::io::Result<Box<dyn redb::StorageBackend>>;
}

/// Shared handle to the driver's files.
pub type SharedFiles = Arc<dyn Files>;
