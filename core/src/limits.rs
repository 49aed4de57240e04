//! Every bound of a member, in one place.
//!
//! What etcd lets an operator change is in [`crate::Config`]; these are fixed.

/// Most inputs one burst (`handle`… then `poll`) may hold, in both drivers.
pub const BURST_INPUTS_MAX: usize = 256;
/// Most payload bytes one burst may hold, in both drivers.
pub const BURST_BYTES_MAX: usize = 1 << 20;

/// Raft append message, bytes of entries (etcd's value).
pub const APPEND_BYTES_MAX: u64 = 1 << 20;
/// Append message to a peer whose log's end is not known yet, bytes of entries: half a heartbeat on a link of
/// 10 Mbit/s.
pub const PROBE_BYTES_MAX: u64 = 64 << 10;
/// Append messages in flight to one peer before it is probed again.
pub const APPENDS_IN_FLIGHT_MAX: usize = 256;
/// Bytes handed to the WAL and not yet synced; past it proposals are refused.
pub const UNSYNCED_BYTES_MAX: usize = 64 << 20;
/// A leader whose WAL sync takes this many election timeouts hands leadership over.
pub const STALL_ELECTION_TIMEOUTS: u32 = 10;
/// Entries kept in memory for peers, in bytes; the WAL keeps more.
pub const LOG_BYTES_MAX: usize = 256 << 20;
/// Commit-to-apply gap past which proposals are refused: `too many requests`.
pub const APPLY_GAP_MAX: u64 = 5_000;
/// Requests waiting for their result on one member.
pub const PENDING_REQUESTS_MAX: usize = 65_536;
/// WAL segment size at which it is cut (etcd's value).
pub const WAL_SEGMENT_BYTES: u64 = 64_000_000;

/// Keys a reader takes per lock.
pub const READ_CHUNK_KEYS: usize = 256;
/// Distinct revisions per response of a catching-up watcher (etcd's value).
pub const WATCH_BATCH_REVISIONS: usize = 1_000;
/// Watchers handled per catch-up round (etcd's value).
pub const WATCH_CATCH_UP_WATCHERS: usize = 512;
/// Byte credit of one watch stream: sent and not yet drained by the driver.
pub const WATCH_STREAM_BYTES_MAX: u64 = 1 << 20;
/// Watchers on one stream.
pub const WATCHERS_PER_STREAM_MAX: usize = 1 << 20;

/// Longest time to live of a lease, in seconds (etcd's value).
pub const LEASE_TTL_SECS_MAX: i64 = 9_000_000_000;
/// Leases revoked per expiry round, and rounds per second (etcd's values).
pub const LEASE_REVOKES_PER_ROUND: usize = 500;

/// Backend batch: operations (etcd's value); the time bound is in the config.
pub const BACKEND_BATCH_OPS: usize = 10_000;
/// … or so many bytes of the file, whatever their number.
pub const BACKEND_BATCH_BYTES: u64 = 16 << 20;
/// With fewer operations than this waiting the store counts as quiet.
pub const BACKEND_QUIET_OPS: usize = 500;
/// Rows deleted by one compaction slice.
pub const COMPACTION_SLICE_ROWS: usize = 1_000;
/// Bytes of rows in one snapshot chunk.
pub const SNAPSHOT_CHUNK_BYTES: usize = 256 << 10;
/// Chunks that may be on their way to a peer.
pub const SNAPSHOT_WINDOW_CHUNKS: u64 = 16;
/// Rows, and bytes of them, that one slice of a defragmentation copies (rows: etcd's transactions).
pub const DEFRAG_SLICE_ROWS: usize = 10_000;
pub const DEFRAG_SLICE_BYTES: usize = 1 << 20;
/// Bytes copied between two syncs of the new file: the last sync must not find gigabytes.
pub const DEFRAG_SYNC_BYTES: usize = 32 << 20;
/// Rows that one slice of a hash walks over.
pub const HASH_SLICE_ROWS: usize = 10_000;
/// Hashes of compactions kept for comparison with peers (etcd's value).
pub const COMPACTION_HASHES_MAX: usize = 10;
