//! The search: calls are placed one after the other, each next one being among those that no return forbids.

use detkv_core::Instant;
use rustc_hash::FxHashSet;

use super::model::{After, Answered, Mode, State, Step, shows};
use super::{Known, Verdict};
use crate::history::{Call, History};

/// States looked at before the search gives up.
const STATES_MAX: usize = 20_000;

/// Something that has a place in the order, between `called` and `returned`.
#[derive(Clone, Copy, Debug)]
pub struct Item<'h> {
    pub called: Instant,
    /// `None`: no answer came; it may also have no place at all.
    pub returned: Option<Instant>,
    pub what: What<'h>,
}

#[derive(Clone, Copy, Debug)]
pub enum What<'h> {
    Call {
        call: &'h Call,
        answered: Option<Answered<'h>>,
    },
    /// Somebody was shown this revision or a later one.
    Seen {
        revision: i64,
    },
}

pub struct Search<'h> {
    history: &'h History,
    mode: Mode,
    /// By call.
    items: Vec<Item<'h>>,
    known: Known,
    placed: Vec<bool>,
    /// Calls with an answer that have no place yet.
    open: usize,
    /// Placed calls and state of every place the search has been to.
    been: FxHashSet<(u128, u128, i64)>,
    most: usize,
}

impl<'h> Search<'h> {
    pub fn new(history: &'h History, mode: Mode, mut items: Vec<Item<'h>>, known: Known) -> Self {
        items.sort_by_key(|item| item.called);
        let open = items.iter().filter(|item| item.returned.is_some()).count();
        let placed = vec![false; items.len()];
        Self { history, mode, items, known, placed, open, been: FxHashSet::default(), most: 0 }
    }

    pub fn run(mut self) -> Verdict {
        let of = self.open;
        match self.step(&State::new(), of) {
            Some(true) => Verdict::Linearizable,
            Some(false) => Verdict::NotLinearizable { placed: self.most, of },
            None => Verdict::TooLarge,
        }
    }

    /// Whether the rest can be placed behind `state`; `None`: given up.
    fn step(&mut self, state: &State, open: usize) -> Option<bool> {
        if open == 0 {
            return Some(true);
        }
        self.most = self.most.max(self.open - open);
        let (rows, compacted) = state.key();
        if !self.been.insert((self.bits(), rows, compacted)) {
            return Some(false);
        }
        if self.been.len() > STATES_MAX {
            return None;
        }
        let rest = || self.items.iter().zip(&self.placed).filter(|(_, placed)| !**placed);
        let first_return = rest().filter_map(|(item, _)| item.returned).min();
        let last = first_return.expect("something with an answer is open");
        for i in 0..self.items.len() {
            let item = self.items[i];
            if item.called > last {
                break;
            }
            if self.placed[i] {
                continue;
            }
            let Some(next) = self.after(state, &item) else { continue };
            // A write without an answer that changes nothing need not be placed.
            if item.returned.is_none() && next.key() == state.key() {
                continue;
            }
            self.placed[i] = true;
            let found = self.step(&next, open - usize::from(item.returned.is_some()));
            self.placed[i] = false;
            if found != Some(false) {
                return found;
            }
        }
        for lease in state.leases() {
            let after = Step::new(self.history, self.mode, state).expire(lease);
            if !self.was_seen_so(&after) {
                continue;
            }
            let found = self.step(&after.state, open);
            if found != Some(false) {
                return found;
            }
        }
        Some(false)
    }

    fn bits(&self) -> u128 {
        let bytes: Vec<u8> = self.placed.iter().map(|placed| u8::from(*placed)).collect();
        xxhash_rust::xxh3::xxh3_128(&bytes)
    }

    /// The state behind `item`, if it can stand here.
    fn after(&self, state: &State, item: &Item) -> Option<State> {
        match item.what {
            What::Seen { revision } => (state.revision >= revision).then(|| state.clone()),
            What::Call { call, answered, .. } => {
                let step = Step::new(self.history, self.mode, state);
                let after = step.call(call, answered).ok()?;
                (after.changes.is_empty() || self.was_seen_so(&after)).then_some(after.state)
            }
        }
    }

    /// What was seen of the revision that was made, if anything was, is what was done.
    fn was_seen_so(&self, after: &After) -> bool {
        let Some(seen) = self.known.get(&after.state.revision) else { return true };
        after.changes.len() == seen.len()
            && after
                .changes
                .iter()
                .zip(seen)
                .all(|(change, (key, kv))| shows(change, *key, kv.as_ref()))
    }
}
