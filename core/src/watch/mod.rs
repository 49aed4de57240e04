//! Watches: registry, synced and unsynced watchers, catch-up, fragments, progress, cancel (surface spec §4).
//!
//! Start at [`WatchHub`]. Decides everything; the driver only frames. Bounded: a watcher that cannot be
//! sent to keeps its position, nothing else.
//!
//! | File | What |
//! |---|---|
//! | `hub` | streams, create, cancel, an applied revision, `poll` |
//! | `catch_up` | rounds over unsynced watchers |
//! | `progress` | on request and periodic |
//! | `index`, `intervals` | which synced watchers a key reaches |
//! | `message` | selecting events, previous values, fragments |
//! | `stream`, `watcher` | their state |
//! | `history` | what is read from the store |

mod catch_up;
mod history;
mod hub;
mod index;
mod intervals;
mod message;
mod progress;
mod stream;
mod watcher;

pub use history::History;
pub use hub::{WatchCounts, WatchHub, WatchOptions};
