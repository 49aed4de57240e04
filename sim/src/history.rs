//! What one run recorded: everything the checkers and the reports look at.

use detkv_core::member::Role;
use detkv_core::{Instant, MemberId};

/// A client of a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientId(pub u32);

/// One thing to record; its time is given beside it.
#[derive(Clone, Debug)]
pub enum Event {
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

/// Everything that was recorded, in the order of time.
#[derive(Default, Debug)]
pub struct History {
    facts: Vec<(Instant, Fact)>,
}

impl History {
    /// Invariant: `at` never decreases from call to call.
    pub fn record(&mut self, at: Instant, event: Event) {
        match event {
            Event::Fact(fact) => self.facts.push((at, fact)),
        }
    }

    pub fn facts(&self) -> &[(Instant, Fact)] {
        &self.facts
    }
}
