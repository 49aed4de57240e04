//! What a watch shows is exactly what happened to its keys (surface spec §4.3).
//!
//! | Promise | Broken when |
//! |---|---|
//! | filter | an event is of another key or of a filtered type |
//! | ordered | an event is older than one before it |
//! | unique | an event comes twice |
//! | atomic | the events of one revision come in two responses (unless fragmented) |
//! | reliable | an event is missing between two that came, or never comes |
//! | resumable | events below the start revision come |
//! | bookmarkable | a progress notice overtakes an event |
//! | prev_kv | the row before is not the one the store held |
//! | event | the row is not the one the store held (is-create: version and create_revision) |
//! | compacted | it is cancelled for a compaction that does not concern it |
//! | delivered in time | nothing comes for long although its member has shown the next revision (`delay`) |
//! | bounded memory | a member holds more for a stream than its credit (`delay`) |

mod delay;

use super::model::{Rank, Slot};
use super::replay::{Change, Log};
use super::{Case, Checker, Violation};
use crate::history::{Batch, Call, History, Kv, Outcome, Phase, WatchEnd, WatchEvent, WatchRecord};

#[derive(Debug)]
pub struct Watch;

impl Checker for Watch {
    fn name(&self) -> &'static str {
        "watch"
    }

    fn check(&self, case: &Case) -> Result<(), Violation> {
        let log = case.log_or_undecided()?;
        // What everybody knew before the readout must reach every watch in the end.
        let settled = case.history.phase(Phase::Readout).map(|readout| {
            let before = case.history.operations().iter().filter(|op| op.returned <= readout);
            before.filter_map(|op| done_revision(&op.outcome)).max().unwrap_or(0)
        });
        for (number, watch) in case.history.watches().iter().enumerate() {
            let walk = Walk::new(case.history, log, watch);
            walk.check(settled).map_err(|(promise, message)| {
                let message = format!(
                    "watch {number} of client {} on member {}: {message}",
                    watch.client.0, watch.member
                );
                Violation::new(promise, message, Vec::new())
            })?;
        }
        delay::check(case)
    }
}

pub use delay::UNDRAINED;

fn done_revision(outcome: &Outcome) -> Option<i64> {
    match outcome {
        Outcome::Done { revision, .. } => Some(*revision),
        _ => None,
    }
}

type Broken = (&'static str, String);

/// One watch, walked beside the log.
struct Walk<'a> {
    history: &'a History,
    log: &'a Log<'a>,
    watch: &'a WatchRecord,
    ranks: std::ops::Range<Rank>,
    start: i64,
    /// What is still to come: changes from `start` on, of any key.
    rest: &'a [Change],
    /// Revision of the last event that came.
    last: i64,
    /// The last event was in a response that said that more of its revision follows.
    in_fragment: bool,
}

impl<'a> Walk<'a> {
    fn new(history: &'a History, log: &'a Log<'a>, watch: &'a WatchRecord) -> Self {
        let created = watch.created.map_or(i64::MAX - 1, |(_, revision)| revision);
        let start = if watch.start_revision > 0 { watch.start_revision } else { created + 1 };
        Self {
            history,
            log,
            watch,
            ranks: log.model.ranks(watch.keys),
            start,
            rest: log.changes_in(start, log.last),
            last: 0,
            in_fragment: false,
        }
    }

    fn check(mut self, settled: Option<i64>) -> Result<(), Broken> {
        for batch in &self.watch.batches {
            if batch.events.is_empty() {
                self.progress(batch)?;
            } else {
                self.events(batch)?;
            }
        }
        if let Some((_, WatchEnd::Canceled { compact_revision, .. })) = &self.watch.end
            && *compact_revision > 0
        {
            return self.compacted(*compact_revision);
        }
        match settled {
            Some(settled) if self.watch.end.is_none() && self.watch.created.is_some() => {
                self.nothing_is_left(settled, "reliable", "was never delivered")
            }
            _ => Ok(()),
        }
    }

    fn wants(&self, change: &Change) -> bool {
        let is_delete = change.effect.slot == Slot::Absent;
        let is_filtered = if is_delete { self.watch.no_delete } else { self.watch.no_put };
        self.ranks.contains(&change.effect.rank) && !is_filtered
    }

    /// The next change that this watch must show.
    fn next(&mut self) -> Option<&'a Change> {
        let skip = self.rest.iter().position(|change| self.wants(change));
        self.rest = &self.rest[skip.unwrap_or(self.rest.len())..];
        self.rest.first()
    }

    fn nothing_is_left(
        &mut self,
        up_to: i64,
        promise: &'static str,
        how: &str,
    ) -> Result<(), Broken> {
        if !self.log.is_complete() {
            return Ok(());
        }
        match self.next() {
            Some(change) if change.revision <= up_to => {
                let key = self.history.key(self.log.model.key(change.effect.rank));
                Err((
                    promise,
                    format!("the change of {key:?} at revision {} {how}", change.revision),
                ))
            }
            _ => Ok(()),
        }
    }

    fn progress(&mut self, batch: &Batch) -> Result<(), Broken> {
        let how = format!("was overtaken by a progress notice of revision {}", batch.revision);
        self.nothing_is_left(batch.revision, "bookmarkable", &how)
    }

    fn events(&mut self, batch: &Batch) -> Result<(), Broken> {
        let events = &self.watch.events[batch.events.start as usize..batch.events.end as usize];
        let first = self.history.kv(events[0].kv).mod_revision;
        if first == self.last && !self.in_fragment {
            return self.again(&events[0], first);
        }
        for event in events {
            let kv = *self.history.kv(event.kv);
            if kv.mod_revision > batch.revision {
                let (of, at) = (kv.mod_revision, batch.revision);
                return Err(("event", format!("an event of revision {of} came at revision {at}")));
            }
            self.filter(event, &kv)?;
            self.order(event, &kv)?;
            if self.log.is_complete() {
                self.content(event, &kv)?;
            }
            self.last = kv.mod_revision;
        }
        self.in_fragment = batch.fragment;
        if batch.fragment {
            return Ok(());
        }
        self.nothing_is_left(self.last, "atomic", "was not in one response with its revision")
    }

    /// A second response of one revision: the same event again, or the rest of it.
    fn again(&self, event: &WatchEvent, revision: i64) -> Result<(), Broken> {
        let came = self.watch.events.iter().filter(|other| other.kv == event.kv).count();
        let promise = if came > 1 { "unique" } else { "atomic" };
        Err((promise, format!("revision {revision} came in two responses")))
    }

    fn filter(&self, event: &WatchEvent, kv: &Kv) -> Result<(), Broken> {
        let is_wanted_type =
            if event.is_delete { !self.watch.no_delete } else { !self.watch.no_put };
        if self.ranks.contains(&self.log.model.rank(kv.key)) && is_wanted_type {
            return Ok(());
        }
        let kind = if event.is_delete { "delete" } else { "put" };
        Err(("filter", format!("a {kind} of {:?} is none of its events", self.history.key(kv.key))))
    }

    fn order(&self, event: &WatchEvent, kv: &Kv) -> Result<(), Broken> {
        let revision = kv.mod_revision;
        if revision < self.start {
            let start = self.start;
            return Err((
                "resumable",
                format!("it starts at {start}, an event of {revision} came"),
            ));
        }
        if revision < self.last {
            let came = self.watch.events.iter().filter(|other| *other == event).count();
            let promise = if came > 1 { "unique" } else { "ordered" };
            return Err((promise, format!("revision {revision} came after {}", self.last)));
        }
        Ok(())
    }

    /// Compares with the next change that must come.
    fn content(&mut self, event: &WatchEvent, kv: &Kv) -> Result<(), Broken> {
        let revision = kv.mod_revision;
        let key = self.history.key(kv.key);
        let Some(change) = self.next().copied() else {
            return Err(self.unexpected(event, kv));
        };
        let rank = self.log.model.rank(kv.key);
        if change.revision < revision {
            let missing = self.history.key(self.log.model.key(change.effect.rank));
            let message = format!(
                "the change of {missing:?} at revision {} is missing before revision {revision}",
                change.revision
            );
            return Err(("reliable", message));
        }
        if change.revision > revision || change.effect.rank != rank {
            return Err(self.unexpected(event, kv));
        }
        let is_right = match change.effect.slot {
            Slot::Known(expected) => !event.is_delete && expected == *kv,
            _ => event.is_delete && is_tombstone(self.history, kv),
        };
        if !is_right {
            let held = self.log.model.show_slot(&change.effect.slot);
            let shown = self.log.model.show(kv);
            return Err(("event", format!("{key:?} became {held}, the event shows {shown}")));
        }
        self.rest = &self.rest[1..];
        self.prev_kv(event, rank, revision)
    }

    fn unexpected(&self, event: &WatchEvent, kv: &Kv) -> Broken {
        let came = self.watch.events.iter().filter(|other| *other == event).count();
        let promise = if came > 1 { "unique" } else { "event" };
        (promise, format!("nothing happened that {} shows", self.log.model.show(kv)))
    }

    /// The row before the whole revision.
    fn prev_kv(&self, event: &WatchEvent, rank: Rank, revision: i64) -> Result<(), Broken> {
        let before = self.log.model.at(rank, revision - 1);
        let shown = event.prev.map(|prev| *self.history.kv(prev));
        let is_right = match (before, shown) {
            (Slot::Known(before), Some(shown)) => self.watch.prev_kv && before == shown,
            (Slot::Known(_), None) => !self.watch.prev_kv || self.may_be_compacted(revision - 1),
            (_, shown) => shown.is_none(),
        };
        if is_right {
            return Ok(());
        }
        let held = self.log.model.show_slot(&before);
        let shown = shown.map_or("nothing".to_owned(), |kv| self.log.model.show(&kv));
        Err(("prev_kv", format!("before revision {revision} the store held {held}, got {shown}")))
    }

    /// Revisions that somebody asked to compact to: a client, or a member by itself.
    fn asked_compactions(&self) -> impl Iterator<Item = i64> {
        let by_clients = self.history.operations().iter().filter_map(|op| match op.call {
            Call::Compact { revision } => Some(revision),
            _ => None,
        });
        by_clients.chain(self.history.raft().compactions().iter().copied())
    }

    fn may_be_compacted(&self, revision: i64) -> bool {
        self.asked_compactions().any(|compacted| compacted > revision)
    }

    fn compacted(&self, compact_revision: i64) -> Result<(), Broken> {
        let position = self.start.max(self.last + 1);
        let was_asked = self.asked_compactions().any(|revision| revision == compact_revision);
        if position >= compact_revision || !was_asked {
            let message = format!(
                "cancelled as compacted at {compact_revision}, but it was at {position} (compaction asked for: {was_asked})"
            );
            return Err(("compacted", message));
        }
        Ok(())
    }
}

/// A delete shows the key and the revision, nothing else.
fn is_tombstone(history: &History, kv: &Kv) -> bool {
    kv.create_revision == 0
        && kv.version == 0
        && kv.lease == 0
        && Some(kv.value) == history.empty_value()
}
