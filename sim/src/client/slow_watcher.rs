//! Watchers that take their messages slowly and stop reading now and then: their windows fill, and the
//! member has slow watchers that must neither lose events nor cost memory.

use std::time::Duration;

use detkv_core::Instant;
use serde::{Deserialize, Serialize};

use super::watcher::{Slow, Task};
use super::{Clients, WatchProgress, Watcher};
use crate::bounds::{CLIENTS, within};
use crate::history::Event;

/// Slow watchers of every key or a prefix. When the load ends they read at full speed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SlowWatcher {
    pub clients: u32,
    /// Keys with this prefix; every key when empty.
    pub prefix: String,
    pub prev_kv: bool,
    pub fragment: bool,
    /// Between two messages.
    #[serde(with = "crate::duration")]
    pub pause: Duration,
    /// After so many messages it stops reading for `stop`; 0: never.
    pub stop_after: u32,
    #[serde(with = "crate::duration")]
    pub stop: Duration,
}

impl Default for SlowWatcher {
    fn default() -> Self {
        Self {
            clients: 2,
            prefix: String::new(),
            prev_kv: false,
            fragment: false,
            pause: Duration::from_millis(50),
            stop_after: 100,
            stop: Duration::from_secs(3),
        }
    }
}

impl SlowWatcher {
    /// Errors: what is wrong, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        within("clients", self.clients, CLIENTS)
    }

    /// Clients that it makes in a cluster of so many members.
    pub fn clients(&self, _members: u64) -> u32 {
        self.clients
    }

    /// Watches from revision 1 until the run ends, slowly until `end`.
    pub fn start(&self, clients: &Clients, progress: &WatchProgress, end: Instant) {
        let (prefix, prev_kv, fragment) = (self.prefix.clone(), self.prev_kv, self.fragment);
        let watcher = Watcher { prefix, prev_kv, fragment, ..Watcher::default() };
        for n in 0..self.clients as usize {
            let client = clients.roaming(n, Duration::from_secs(1));
            clients.handle().record(Event::ClientIsSlow { client: client.id });
            let slow = Slow {
                pause: self.pause,
                stop_after: self.stop_after,
                stop: self.stop,
                end,
                taken: 0,
            };
            let task = Task {
                number: progress.join(),
                progress: progress.clone(),
                create: watcher.create_request(),
                client,
                slow: Some(slow),
            };
            clients.handle().spawn(task.run());
        }
    }
}
