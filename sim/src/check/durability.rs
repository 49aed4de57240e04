//! Nothing acknowledged is missing.
//!
//! | Promise | Broken when |
//! |---|---|
//! | an acknowledged entry is lost | a member told a leader that a log entry is durable, or counted it as the leader, and has not got it after a restart |
//! | an acknowledged write is lost | a client was told of a write that cannot be read back in the end |
//!
//! After the faults the script reads everything back: a watch of every key from the oldest revision that is
//! left, and every current row, page by page, from each member. Both are compared with the log of acknowledged writes.

use std::collections::BTreeMap;

use detkv_core::Instant;

use super::model::Slot;
use super::replay::{Change, Log};
use super::{Case, Checker, Violation};
use crate::history::{
    Answer, Call, ClientId, End, History, KeyId, KeyRange, Kv, OpId, Outcome, Phase, RangeCall,
    Rows, WatchRecord,
};

#[derive(Debug)]
pub struct Durability;

const LOST: &str = "an acknowledged write is lost";

impl Checker for Durability {
    fn name(&self) -> &'static str {
        "durability"
    }

    fn check(&self, case: &Case) -> Result<(), Violation> {
        if let Some(lost) = &case.raft().lost {
            return Err(lost.clone());
        }
        let log = case.log_or_undecided()?;
        let newest = newest_acknowledged(log);
        let undecided = |what: &str| Violation::new("undecided", what.to_owned(), Vec::new());
        let Some(readout) = case.history.phase(Phase::Readout) else {
            return Err(undecided("the run ended before everything was read back"));
        };
        let rows = check_rows(case.history, log, readout, newest)?;
        let watches = check_watches(case.history, log, readout, newest)?;
        if rows == 0 || watches == 0 {
            return Err(undecided("nothing was read back"));
        }
        Ok(())
    }
}

/// The newest revision with an acknowledged writer.
fn newest_acknowledged(log: &Log) -> Option<(i64, OpId)> {
    (1..=log.last).rev().find_map(|revision| {
        let id = log.writer(revision)?;
        let is_acknowledged =
            matches!(log.model.history.operation(id).outcome, Outcome::Done { .. });
        is_acknowledged.then_some((revision, id))
    })
}

fn is_every_key(history: &History, keys: KeyRange) -> bool {
    keys.end == End::Open && history.key(keys.key).as_ref() == b"\0".as_slice()
}

fn lost(revision: i64, id: Option<OpId>, what: &str) -> Violation {
    let writer = id.map_or("a write".to_owned(), |id| id.to_string());
    let message = format!("{writer} took revision {revision}: {what}");
    Violation::new(LOST, message, id.into_iter().collect())
}

/// A read of every key, page by page, as far as it has come.
struct Reading {
    /// Of the first page: all others are of this revision too.
    revision: i64,
    rows: BTreeMap<KeyId, Kv>,
    /// Where the next page begins.
    next: Vec<u8>,
}

impl Reading {
    fn begin(revision: i64) -> Self {
        Self { revision, rows: BTreeMap::new(), next: b"\0".to_vec() }
    }

    /// Whether `range` is its next page.
    fn goes_on_with(&self, history: &History, range: &RangeCall) -> bool {
        let is_first = self.rows.is_empty() && range.revision == 0;
        let is_at = is_first || range.revision == self.revision;
        is_at && history.key(range.keys.key).as_ref() == self.next.as_slice()
    }

    fn take(&mut self, history: &History, page: &Rows) {
        self.rows.extend(page.kvs.iter().map(|kv| (history.kv(*kv).key, *history.kv(*kv))));
        if let Some(last) = page.kvs.last() {
            self.next = [history.key(history.kv(*last).key).as_ref(), b"\0"].concat();
        }
    }
}

/// Full reads of the current state; returns how many came to their end.
fn check_rows(
    history: &History,
    log: &Log,
    readout: Instant,
    newest: Option<(i64, OpId)>,
) -> Result<usize, Violation> {
    let mut count = 0;
    let mut readings: BTreeMap<ClientId, Reading> = BTreeMap::new();
    for op in history.operations().iter().filter(|op| op.called >= readout) {
        let (Call::Range(range), Outcome::Done { revision, answer: Answer::Rows(page) }) =
            (&op.call, &op.outcome)
        else {
            continue;
        };
        if range.serializable || range.count_only || range.keys.end != End::Open {
            continue;
        }
        if is_every_key(history, range.keys) && range.revision == 0 {
            if let Some((newest, id)) = newest
                && newest > *revision
            {
                let what = format!("in the end member {} is at revision {revision}", op.member);
                return Err(lost(newest, Some(id), &what));
            }
            readings.insert(op.client, Reading::begin(*revision));
        }
        let Some(reading) = readings.get_mut(&op.client) else { continue };
        if !reading.goes_on_with(history, range) {
            continue;
        }
        reading.take(history, page);
        if page.more {
            continue;
        }
        count += 1;
        for key in (0..history.keys().len() as u32).map(KeyId) {
            let at = log.model.at(log.model.rank(key), reading.revision);
            let Slot::Known(kv) = at else { continue };
            if reading.rows.get(&key) != Some(&kv) {
                let what = format!("its row is not there on member {} in the end", op.member);
                return Err(lost(kv.mod_revision, log.writer(kv.mod_revision), &what));
            }
        }
        readings.remove(&op.client);
    }
    Ok(count)
}

/// Full watches of the past; returns how many there were.
fn check_watches(
    history: &History,
    log: &Log,
    readout: Instant,
    newest: Option<(i64, OpId)>,
) -> Result<usize, Violation> {
    let mut count = 0;
    for watch in history.watches().iter().filter(|watch| watch.opened >= readout) {
        let is_full = is_every_key(history, watch.keys) && watch.start_revision > 0;
        if !is_full || watch.no_put || watch.no_delete || was_cut_short(watch) {
            continue;
        }
        count += 1;
        let newest = newest.map_or(0, |(revision, _)| revision);
        let mut got = watch.events.iter().map(|event| {
            let kv = history.kv(event.kv);
            (kv.mod_revision, log.model.rank(kv.key), event.is_delete)
        });
        for Change { revision, effect } in log.changes_in(watch.start_revision, newest) {
            let expected = (*revision, effect.rank, effect.slot == Slot::Absent);
            if !got.any(|event| event == expected) {
                let what = format!("the events read back from member {} lack it", watch.member);
                return Err(lost(*revision, log.writer(*revision), &what));
            }
        }
    }
    Ok(count)
}

/// Lost or cancelled before it could show everything.
fn was_cut_short(watch: &WatchRecord) -> bool {
    use crate::history::WatchEnd;
    watch.created.is_none() || watch.end.as_ref().is_some_and(|(_, end)| *end != WatchEnd::Closed)
}
