//! Nothing acknowledged is missing.
//!
//! | Promise | Broken when |
//! |---|---|
//! | an acknowledged entry is lost | a member told a leader that a log entry is durable, and has not got it after a restart |
//! | an acknowledged write is lost | a client was told of a write that cannot be read back in the end |
//!
//! After the faults the script reads everything back: a watch of every key from the oldest revision that is
//! left, and every current row, from each member. Both are compared with the log of acknowledged writes.

use std::collections::BTreeMap;

use detkv_core::Instant;

use super::model::Slot;
use super::replay::{Change, Log};
use super::{Case, Checker, Violation};
use crate::history::{Call, End, History, KeyRange, OpId, Outcome, Phase, WatchRecord};

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

/// Full reads of the current state; returns how many there were.
fn check_rows(
    history: &History,
    log: &Log,
    readout: Instant,
    newest: Option<(i64, OpId)>,
) -> Result<usize, Violation> {
    let mut count = 0;
    for op in history.operations().iter().filter(|op| op.called >= readout) {
        let (Call::Range(range), Outcome::Done { revision, answer }) = (&op.call, &op.outcome)
        else {
            continue;
        };
        let is_full = is_every_key(history, range.keys) && range.limit == 0 && range.revision == 0;
        if !is_full || range.serializable || range.count_only {
            continue;
        }
        count += 1;
        if let Some((newest, id)) = newest
            && newest > *revision
        {
            let what = format!("in the end member {} is at revision {revision}", op.member);
            return Err(lost(newest, Some(id), &what));
        }
        let crate::history::Answer::Rows(rows) = answer else { continue };
        let held: BTreeMap<_, _> =
            rows.kvs.iter().map(|kv| (history.kv(*kv).key, *history.kv(*kv))).collect();
        for key in (0..history.keys().len() as u32).map(crate::history::KeyId) {
            let Slot::Known(kv) = log.model.at(log.model.rank(key), *revision) else { continue };
            if held.get(&key) != Some(&kv) {
                let what = format!("its row is not there on member {} in the end", op.member);
                return Err(lost(kv.mod_revision, log.writer(kv.mod_revision), &what));
            }
        }
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
