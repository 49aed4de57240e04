//! Watches that outlive their connections: after a loss they resume behind the last revision they were shown.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::pb::etcdserverpb::watch_request::RequestUnion;
use serde::{Deserialize, Serialize};

use super::timeout::within;
use super::{BACK_OFF_MIN, Client, Clients};
use crate::handle::WatchConn;
use crate::history::Event;

/// Silence after which a watcher asks for a progress notice.
const IDLE: Duration = Duration::from_millis(500);

/// Watchers of one kind.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Watcher {
    pub clients: u32,
    /// Keys with this prefix; every key when empty.
    pub prefix: String,
    pub prev_kv: bool,
    pub progress_notify: bool,
    pub fragment: bool,
    /// Client `n` talks to member `n mod members` only; else it moves on when that fails.
    pub pinned: bool,
}

impl Default for Watcher {
    fn default() -> Self {
        Self {
            clients: 3,
            prefix: String::new(),
            prev_kv: true,
            progress_notify: false,
            fragment: false,
            pinned: true,
        }
    }
}

/// How far the watchers of a run have been shown everything.
#[derive(Clone, Default)]
pub struct WatchProgress {
    /// By watcher: everything up to this revision came.
    shown: Rc<RefCell<Vec<i64>>>,
}

impl WatchProgress {
    /// The least that any watcher was shown; `i64::MAX` without watchers.
    pub fn least(&self) -> i64 {
        self.shown.borrow().iter().copied().min().unwrap_or(i64::MAX)
    }

    fn join(&self) -> usize {
        let mut shown = self.shown.borrow_mut();
        shown.push(0);
        shown.len() - 1
    }

    fn advance(&self, watcher: usize, revision: i64) {
        let mut shown = self.shown.borrow_mut();
        shown[watcher] = shown[watcher].max(revision);
    }
}

impl Watcher {
    /// Watches from revision 1 until the run ends.
    pub fn start(&self, clients: &Clients, progress: &WatchProgress) {
        let members = clients.handle().members();
        for n in 0..self.clients as usize {
            let timeout = Duration::from_secs(1);
            let client = if self.pinned {
                clients.pinned(members[n % members.len()], timeout)
            } else {
                clients.roaming(n, timeout)
            };
            let task = Task {
                number: progress.join(),
                progress: progress.clone(),
                create: self.create_request(),
                client,
            };
            clients.handle().spawn(task.run());
        }
    }

    fn create_request(&self) -> pb::WatchCreateRequest {
        let (key, range_end) = if self.prefix.is_empty() {
            (Bytes::from_static(b"\0"), Bytes::from_static(b"\0"))
        } else {
            prefix_range(&self.prefix)
        };
        pb::WatchCreateRequest {
            key,
            range_end,
            start_revision: 1,
            progress_notify: self.progress_notify,
            prev_kv: self.prev_kv,
            fragment: self.fragment,
            ..Default::default()
        }
    }
}

/// The range of all keys that start with `prefix` (surface spec §3.1).
pub(super) fn prefix_range(prefix: &str) -> (Bytes, Bytes) {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return (Bytes::copy_from_slice(prefix.as_bytes()), Bytes::from(end));
        }
    }
    (Bytes::copy_from_slice(prefix.as_bytes()), Bytes::from_static(b"\0"))
}

struct Task {
    number: usize,
    progress: WatchProgress,
    /// `start_revision`: what is to be shown next.
    create: pb::WatchCreateRequest,
    client: Client,
}

impl Task {
    async fn run(mut self) {
        let mut back_off = BACK_OFF_MIN;
        loop {
            let connected = self.client.handle().watch(self.client.id, self.client.endpoint());
            if let Ok(mut connection) = connected.await
                && self.watch(&mut connection).await
            {
                back_off = BACK_OFF_MIN;
            } else {
                self.client.rotate();
            }
            self.client.pause(&mut back_off).await;
        }
    }

    /// Watches on one connection until it ends; true when something came.
    async fn watch(&mut self, connection: &mut WatchConn) -> bool {
        let (handle, watch) = (self.client.handle().clone(), self.client.next_watch());
        handle.record(Event::WatchOpened {
            client: self.client.id,
            watch,
            member: self.client.endpoint(),
            request: self.create.clone(),
        });
        send(connection, RequestUnion::CreateRequest(self.create.clone()));
        let mut has_come = false;
        loop {
            match within(&handle, IDLE, connection.recv()).await {
                Some(Some(response)) => {
                    has_come = true;
                    handle.record(Event::WatchResponse { watch, response: response.clone() });
                    if !self.take(&response) {
                        return true;
                    }
                }
                Some(None) => {
                    handle.record(Event::WatchLost { watch });
                    return has_come;
                }
                None => {
                    let ask = pb::WatchProgressRequest {};
                    send(connection, RequestUnion::ProgressRequest(ask));
                }
            }
        }
    }

    /// Moves the start of the next watch behind what was shown; false when the watch was cancelled.
    fn take(&mut self, response: &pb::WatchResponse) -> bool {
        if response.canceled {
            // What was compacted is gone: go on with what is left.
            let start = self.create.start_revision.max(response.compact_revision);
            self.create.start_revision = start;
            return false;
        }
        let last = response.events.last().and_then(|event| event.kv.as_ref());
        let shown = match last {
            // The rest of this revision is still to come.
            Some(kv) if response.fragment => kv.mod_revision - 1,
            Some(kv) => kv.mod_revision,
            None if response.created => return true,
            None => response.header.as_ref().map_or(0, |header| header.revision),
        };
        self.create.start_revision = self.create.start_revision.max(shown + 1);
        self.progress.advance(self.number, shown);
        true
    }
}

fn send(connection: &WatchConn, request: RequestUnion) {
    connection.send(pb::WatchRequest { request_union: Some(request) });
}
