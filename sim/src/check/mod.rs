//! Checkers: each judges one promise of the store from the recorded history, in one file.
//!
//! `README.md` beside this file lists every promise with the test that plants its breach.
//!
//! A run builds one [`Case`] and hands it to every [`Checker`] of [`all`]. What several of them need,
//! the writes in the order of their revisions, is worked out once ([`replay`]).
//!
//! | File | Promise |
//! |---|---|
//! | `linearizability` | calls take effect one by one, at a point between call and return |
//! | `serializable` | local reads show some past state, never the future, never going back on a member |
//! | `watch` | filter, ordered, unique, atomic, reliable, resumable, bookmarkable, prev_kv, is-create, in time |
//! | `durability` | what was acknowledged is there at the end |
//! | `lease` | a lease lives for its time, ends once, takes its keys in one revision |
//! | `membership` | lists agree, one change at a time, removed for good, learners have no vote |
//! | `quota` | alarms stop what takes space, and nothing else |
//! | `state` | members at the same applied index hold the same state |
//! | `raft` | leaders, votes, logs and commits obey Raft |

mod durability;
mod lease;
mod linearizability;
mod membership;
mod model;
mod quota;
mod raft;
mod range;
mod replay;
mod serializable;
mod state;
mod times;
mod unknown;
mod watch;
pub mod wgl;

use std::cell::OnceCell;
use std::fmt;

pub use durability::Durability;
pub use lease::Lease;
pub use linearizability::Linearizability;
pub use membership::Membership;
pub use quota::Quota;
pub use raft::Raft;
pub use serializable::Serializable;
pub use state::State;
pub(crate) use watch::UNDRAINED;
pub use watch::Watch;

use crate::history::{EntryId, History, OpId};
use raft::RaftReplay;
use replay::Log;

/// Judges one promise.
pub trait Checker {
    /// One word, as in reports.
    fn name(&self) -> &'static str;
    fn check(&self, case: &Case) -> Result<(), Violation>;
}

/// Every checker, in the order in which a report lists them.
pub fn all() -> Vec<Box<dyn Checker>> {
    vec![
        Box::new(Linearizability),
        Box::new(Serializable),
        Box::new(Watch),
        Box::new(Lease),
        Box::new(Durability),
        Box::new(State),
        Box::new(Quota),
        Box::new(Membership),
        Box::new(Raft),
    ]
}

/// A broken promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// A few fixed words: with the checker's name, what two failures have in common.
    pub promise: &'static str,
    pub message: String,
    /// The operations that show it.
    pub ops: Vec<OpId>,
}

impl Violation {
    pub fn new(promise: &'static str, message: String, ops: Vec<OpId>) -> Self {
        Self { promise, message, ops }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.message)
    }
}

/// A history under judgement, with what several checkers need of it.
///
/// Invariant: the history begins with an empty store at revision 1.
#[derive(Debug)]
pub struct Case<'h> {
    pub history: &'h History,
    log: OnceCell<Result<Log<'h>, Violation>>,
    raft: OnceCell<RaftReplay>,
}

impl<'h> Case<'h> {
    pub fn new(history: &'h History) -> Self {
        Self { history, log: OnceCell::new(), raft: OnceCell::new() }
    }

    /// The writes in the order of their revisions, or why there is no such order.
    fn log(&self) -> Result<&Log<'h>, &Violation> {
        self.log.get_or_init(|| replay::replay(self.history)).as_ref()
    }

    /// Whether every change is known. If not, reads of what may have changed unseen are taken as right.
    pub fn is_complete(&self) -> bool {
        self.log().is_ok_and(Log::is_complete)
    }

    /// The members' Raft logs, replayed.
    fn raft(&self) -> &RaftReplay {
        self.raft.get_or_init(|| raft::replay(self.history))
    }

    /// What the log committed, in its order; entries that lay in snapshots only are left out.
    pub fn committed(&self) -> impl Iterator<Item = EntryId> {
        self.raft().committed()
    }

    /// For checkers that compare with the log: without one they cannot judge.
    fn log_or_undecided(&self) -> Result<&Log<'h>, Violation> {
        self.log().map_err(|_| {
            Violation::new(
                "undecided",
                "the writes have no order to compare with: see linearizability".to_owned(),
                Vec::new(),
            )
        })
    }
}
