//! The end of a run: waits until the cluster is whole, then reads everything back from every member, and
//! asks each for the hash of its key space.
//!
//! The checkers resolve unknown outcomes from this, and durability is judged by it.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::{ApiError, Instant, MemberId};

use super::{Client, Clients, WatchProgress, Watcher};
use crate::handle::{Handle, NodeStatus, Reply};
use crate::history::{Event, Fact, Failure, Phase};

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// Time for the last events to arrive.
const LAST_EVENTS: Duration = Duration::from_millis(300);
/// Timeout of one call.
const CALL: Duration = Duration::from_secs(2);
/// Rows of one page: with the largest values that workloads put, less than a megabyte.
const PAGE_ROWS: i64 = 100;

/// Reads everything back.
#[derive(Clone, Copy, Debug)]
pub struct Readout {
    /// Virtual time that all of it may take once the faults are over.
    pub limit: Duration,
}

/// What did not come to be within the limit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadoutError {
    NoLeader,
    /// A change of the cluster is still under way.
    Operated,
    NotUp(MemberId),
    /// No linearizable read through this member.
    NoRead(MemberId),
    /// Watchers have been shown everything up to `shown` only.
    WatchersBehind {
        shown: i64,
        revision: i64,
    },
}

impl fmt::Display for ReadoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadoutError::Operated => f.write_str("a change of the cluster did not end"),
            ReadoutError::NoLeader => f.write_str("no leader was elected"),
            ReadoutError::NotUp(member) => write!(f, "member {member} did not come up"),
            ReadoutError::NoRead(member) => {
                write!(f, "no linearizable read through member {member}")
            }
            ReadoutError::WatchersBehind { shown, revision } => write!(
                f,
                "a watcher was shown everything up to revision {shown} only, the store is at {revision}"
            ),
        }
    }
}

impl Readout {
    /// Call it when the faults are over and the workload has ended.
    ///
    /// Errors: the cluster did not converge in time; the checkers then judge what there is.
    pub async fn run(
        &self,
        clients: &Clients,
        progress: &WatchProgress,
    ) -> Result<(), ReadoutError> {
        let handle = clients.handle();
        let deadline = handle.now() + self.limit;
        self.wait_for_members(handle, deadline).await?;
        let mut readers = Vec::new();
        for member in handle.members() {
            if handle.is_learner(member) {
                continue;
            }
            let client = clients.pinned(member, CALL);
            // Nothing is written any more: this read is at the last revision.
            read_all(&client, deadline).await?;
            readers.push(client);
        }
        let revision = read_all(&readers[0], deadline).await?;
        wait_for_watchers(handle, progress, revision, deadline).await?;
        handle.record(Event::Fact(Fact::Phase(Phase::Readout)));
        let past = WatchProgress::default();
        let members = readers.len() as u32;
        // Every change that is left: what is compacted is skipped.
        Watcher { clients: members, ..Watcher::default() }.start(clients, &past);
        for client in &readers {
            read_all(client, deadline).await?;
            record_hash(client, revision).await;
        }
        wait_for_watchers(handle, &past, revision, deadline).await?;
        // A lease that ended meanwhile reaches the watchers too: no revision stays unseen.
        handle.sleep(LAST_EVENTS).await;
        Ok(())
    }

    async fn wait_for_members(
        &self,
        handle: &Handle,
        deadline: Instant,
    ) -> Result<(), ReadoutError> {
        loop {
            let is_up =
                |member: &MemberId| matches!(handle.node_status(*member), NodeStatus::Up(_));
            let down = handle.members().into_iter().find(|member| !is_up(member));
            match (down, handle.leader()) {
                (None, Some(_)) if !handle.is_operated() => return Ok(()),
                (None, Some(_)) if handle.now() >= deadline => {
                    return Err(ReadoutError::Operated);
                }
                (Some(member), _) if handle.now() >= deadline => {
                    return Err(ReadoutError::NotUp(member));
                }
                (None, None) if handle.now() >= deadline => return Err(ReadoutError::NoLeader),
                _ => handle.sleep(LOOK).await,
            }
        }
    }
}

async fn wait_for_watchers(
    handle: &Handle,
    progress: &WatchProgress,
    revision: i64,
    deadline: Instant,
) -> Result<(), ReadoutError> {
    while progress.least() < revision {
        if handle.now() >= deadline {
            let shown = progress.least();
            return Err(ReadoutError::WatchersBehind { shown, revision });
        }
        handle.sleep(LOOK).await;
    }
    Ok(())
}

/// What the member says the key space at `revision` hashes to. An error (compacted meanwhile) says nothing.
async fn record_hash(client: &Client, revision: i64) {
    let request = Request::HashKv(pb::HashKvRequest { revision });
    if let Ok(Reply::HashKv(hashed)) = client.call(request).await {
        client.handle().record(Event::Fact(Fact::KvHash {
            member: client.endpoint(),
            revision: hashed.hash_revision,
            compact_revision: hashed.compact_revision,
            hash: hashed.hash,
        }));
    }
}

/// Every current row, linearizable, page by page at the revision of the first one; that revision.
///
/// A store of some megabytes in one answer is more than a slow link carries in time, and every further
/// try would wait behind the answers to those before.
async fn read_all(client: &Client, deadline: Instant) -> Result<i64, ReadoutError> {
    let every = Bytes::from_static(b"\0");
    let (mut key, mut revision) = (every.clone(), 0);
    loop {
        let page = pb::RangeRequest {
            key: key.clone(),
            range_end: every.clone(),
            limit: PAGE_ROWS,
            revision,
            ..Default::default()
        };
        match client.call(Request::Range(page)).await {
            Ok(Reply::Range(rows)) => {
                if revision == 0 {
                    revision = rows.header.map_or(0, |header| header.revision);
                }
                match rows.kvs.last() {
                    Some(last) if rows.more => key = [&last.key, &every[..]].concat().into(),
                    _ => return Ok(revision),
                }
                continue;
            }
            Err(Failure::Api(ApiError::Compacted)) => (key, revision) = (every.clone(), 0),
            _ => {}
        }
        if client.handle().now() >= deadline {
            return Err(ReadoutError::NoRead(client.endpoint()));
        }
        client.handle().sleep(LOOK).await;
    }
}
