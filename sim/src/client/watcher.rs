//! Watches that outlive their connections: after a loss they resume behind the last revision they were shown.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use detkv_core::Instant;
use detkv_core::pb::etcdserverpb as pb;
use serde::{Deserialize, Serialize};

use super::stream::{Next, OpenWatch};
use super::{BACK_OFF_MIN, Client, Clients};
use crate::bounds::{CLIENTS, within};

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

    pub(super) fn join(&self) -> usize {
        let mut shown = self.shown.borrow_mut();
        shown.push(0);
        shown.len() - 1
    }

    pub(super) fn advance(&self, watcher: usize, revision: i64) {
        let mut shown = self.shown.borrow_mut();
        shown[watcher] = shown[watcher].max(revision);
    }
}

impl Watcher {
    /// Errors: what is wrong, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        within("clients", self.clients, CLIENTS)
    }

    /// Clients that it makes in a cluster of so many members.
    pub fn clients(&self, _members: u64) -> u32 {
        self.clients
    }

    /// Watches from revision 1 until the run ends.
    pub fn start(&self, clients: &Clients, progress: &WatchProgress) {
        let handle = clients.handle();
        let mut members = handle.members();
        members.retain(|member| !handle.is_learner(*member));
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
                slow: None,
            };
            clients.handle().spawn(task.run());
        }
    }

    pub(super) fn create_request(&self) -> pb::WatchCreateRequest {
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

pub(super) struct Task {
    pub number: usize,
    pub progress: WatchProgress,
    /// `start_revision`: what is to be shown next.
    pub create: pb::WatchCreateRequest,
    pub client: Client,
    /// Takes its messages slowly.
    pub slow: Option<Slow>,
}

/// How a slow watcher takes its messages, until `end`.
#[derive(Clone, Debug)]
pub(super) struct Slow {
    /// Between two messages.
    pub pause: Duration,
    /// After so many messages it stops for a while.
    pub stop_after: u32,
    pub stop: Duration,
    pub end: Instant,
    pub taken: u32,
}

impl Slow {
    async fn wait(&mut self, client: &Client) {
        let handle = client.handle();
        if handle.now() >= self.end {
            return;
        }
        self.taken += 1;
        let stops = self.stop_after > 0 && self.taken.is_multiple_of(self.stop_after);
        let pause = if stops { self.stop } else { self.pause };
        handle.sleep_until((handle.now() + pause).min(self.end)).await;
    }
}

impl Task {
    pub async fn run(mut self) {
        let mut back_off = BACK_OFF_MIN;
        loop {
            let opened = OpenWatch::open(&self.client, &self.create).await;
            if let Some(watch) = opened
                && self.watch(watch).await
            {
                back_off = BACK_OFF_MIN;
            } else {
                self.client.rotate();
            }
            self.client.pause(&mut back_off).await;
        }
    }

    /// Watches on one connection until it ends; true when something came.
    async fn watch(&mut self, mut watch: OpenWatch) -> bool {
        let mut has_come = false;
        loop {
            if let Some(slow) = &mut self.slow {
                slow.wait(&self.client).await;
            }
            match watch.next(IDLE).await {
                Next::Response(response) => {
                    has_come = true;
                    if !self.take(&response) {
                        return true;
                    }
                }
                Next::Lost => return has_come,
                Next::Idle => watch.ask_progress(),
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
        if let Some(shown) = shown_up_to(response) {
            self.create.start_revision = self.create.start_revision.max(shown + 1);
            self.progress.advance(self.number, shown);
        }
        true
    }
}

/// After this response everything up to this revision was shown; `None`: it says nothing about that.
pub(super) fn shown_up_to(response: &pb::WatchResponse) -> Option<i64> {
    let last = response.events.last().and_then(|event| event.kv.as_ref());
    match last {
        // The rest of this revision is still to come.
        Some(kv) if response.fragment => Some(kv.mod_revision - 1),
        Some(kv) => Some(kv.mod_revision),
        None if response.created => None,
        None => response.header.as_ref().map(|header| header.revision),
    }
}
