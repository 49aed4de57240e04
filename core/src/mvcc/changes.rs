//! What happened between two revisions: the history that a catching-up watcher reads.

use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::Bytes;
use prost::encoding::decode_varint;

use super::Bucket;
use super::backend::FileError;
use super::index::{Change, KeyRange};
use super::reader::StoreReader;
use super::rows::{Revision, Row, RowKey, encode_kv, parse_row_key, try_decode_kv};
use super::state::{Found, State, into_values, load};
use crate::api::RevisionEvents;
use crate::error::ApiError;
use crate::pb::mvccpb::event::EventType;
use crate::pb::mvccpb::{Event, KeyValue};

/// An interval with at most this many keys is read through the index: its own changes only.
const NARROW_KEYS_MAX: usize = 64;
/// Otherwise all rows are read in order; one call looks at about this many.
const SCAN_ROWS_MAX: usize = 4096;

impl StoreReader {
    /// Changes with `from <= main <= to` that touch a key in the interval, at most `max_revisions`
    /// distinct revisions, never splitting one. Second value: the next revision to ask for
    /// (`to + 1` at the end); it may come early, even with no changes, when much had to be skipped.
    ///
    /// `to` beyond the current revision counts as the current one.
    /// Errors: `Compacted` when `from` lies below the compact revision; `Stopped` when the file
    /// cannot be read.
    pub fn changes(
        &self,
        from: i64,
        to: i64,
        key: &[u8],
        range_end: &[u8],
        max_revisions: usize,
    ) -> Result<(Vec<RevisionEvents>, i64), ApiError> {
        let range = KeyRange::new(key, range_end);
        let state = self.shared.state.read();
        if from < state.compact_revision {
            return Err(ApiError::Compacted);
        }
        let to = to.min(state.revision);
        if from > to || max_revisions == 0 {
            return Ok((Vec::new(), from));
        }
        let mut collector = Collector::new(range, to, max_revisions, state.compact_revision);
        let result = match narrow(&state, &range, from, to, max_revisions) {
            Some(changes) => {
                let view = state.view_for(changes.iter().map(|c| &c.found));
                drop(state);
                view.and_then(|view| read_narrow(changes, view.as_ref(), &mut collector))
            }
            None => {
                let sources = Sources::new(&state, from, to);
                drop(state);
                sources.and_then(|sources| sources.read(from, &mut collector))
            }
        };
        result.map_err(|error| {
            self.shared.fail(error);
            ApiError::Stopped
        })?;
        Ok(collector.finish())
    }
}

/// A change found through the index.
struct NarrowChange {
    revision: Revision,
    tombstone: bool,
    found: Found,
}

/// The changes of a few keys, in order; `None` when the interval holds too many.
fn narrow(
    state: &State,
    range: &KeyRange<'_>,
    from: i64,
    to: i64,
    max_revisions: usize,
) -> Option<Vec<NarrowChange>> {
    let mut changes = Vec::new();
    let entries = range.bounds(None).map(|bounds| state.index.range::<[u8], _>(bounds));
    for (visited, (key, entry)) in entries.into_iter().flatten().enumerate() {
        if visited == NARROW_KEYS_MAX {
            return None;
        }
        let all = entry.changes();
        let start = all.partition_point(|c| c.main() < from);
        let in_time = all[start..].iter().take_while(|c| c.main() <= to);
        // One revision more than wanted: the caller sees where the next one starts.
        let mut revisions = 0;
        let mut last = None;
        changes.extend(
            in_time
                .take_while(|c| {
                    revisions += usize::from(last.replace(c.main()) != Some(c.main()));
                    revisions <= max_revisions.saturating_add(1)
                })
                .map(|c| narrow_change(state, key, *c, entry)),
        );
    }
    changes.sort_unstable_by_key(|c| c.revision);
    Some(changes)
}

fn narrow_change(
    state: &State,
    key: &Bytes,
    change: Change,
    entry: &super::index::KeyIndex,
) -> NarrowChange {
    let found = if change.is_tombstone() {
        Found::Here(encode_kv(&KeyValue { key: key.clone(), ..KeyValue::default() }))
    } else {
        state.locate(entry, change.revision())
    };
    NarrowChange { revision: change.revision(), tombstone: change.is_tombstone(), found }
}

fn read_narrow(
    changes: Vec<NarrowChange>,
    view: Option<&super::backend::FileView>,
    collector: &mut Collector<'_>,
) -> Result<(), FileError> {
    for change in changes {
        let mut found = [change.found];
        load(&mut found, view)?;
        let [value] = <[Bytes; 1]>::try_from(into_values(found.into()))
            .expect("one found value is one value");
        if !collector.add(change.revision, change.tombstone, &value, || value.clone())? {
            break;
        }
    }
    Ok(())
}

/// Where rows from some revision on are: the file, then the job under way, then the batch.
struct Sources {
    view: Option<super::backend::FileView>,
    in_flight: std::sync::Arc<Vec<Row>>,
    pending: Vec<Row>,
    /// First revision of the batch that was left out of `pending`: it was longer than one look.
    left_out: Option<i64>,
}

impl Sources {
    fn new(state: &State, from: i64, to: i64) -> Result<Self, FileError> {
        let start = state.pending.partition_point(|row| row.revision.main < from);
        let end = state.pending.partition_point(|row| row.revision.main <= to);
        let end = end.min(start.saturating_add(SCAN_ROWS_MAX));
        // A revision is not split: the rest of the last one comes along.
        let last = end.checked_sub(1).map(|i| state.pending[i].revision.main);
        let rest = state.pending[end..].iter().take_while(|r| Some(r.revision.main) == last);
        let end = if start < end { end + rest.count() } else { start };
        let left_out = state.pending.get(end).map(|row| row.revision.main).filter(|m| *m <= to);
        // The batch starts at a revision's first row, so nothing from it on is anywhere else.
        let all_pending = state.pending.first().is_some_and(|row| row.revision.main <= from);
        Ok(Self {
            view: (!all_pending).then(|| state.backend.view()).transpose()?,
            in_flight: state.in_flight.clone(),
            pending: state.pending[start..end].to_vec(),
            left_out,
        })
    }

    fn read(&self, from: i64, collector: &mut Collector<'_>) -> Result<(), FileError> {
        // Rows of a job that is done but not yet handed back are in the file and in `in_flight`.
        let mut next = Revision { main: from, sub: 0 };
        if let Some(view) = &self.view {
            let first = RowKey::new(next, false);
            let is_finished =
                view.for_each(Bucket::Key, Bound::Included(first.as_bytes()), |key, value| {
                    let (revision, tombstone) = parse_row_key(key)
                        .ok_or_else(|| FileError(format!("{key:02x?} is not a row key")))?;
                    next = Revision { sub: revision.sub + 1, ..revision };
                    collector.add(revision, tombstone, value, || Bytes::copy_from_slice(value))
                })?;
            if !is_finished {
                return Ok(());
            }
        }
        for row in self.in_flight.iter().chain(&self.pending) {
            if row.revision >= next
                && !collector.add(row.revision, row.tombstone, &row.value, || row.value.clone())?
            {
                return Ok(());
            }
        }
        collector.next = self.left_out;
        Ok(())
    }
}

/// Gathers rows, which come in order of revision, into whole revisions.
struct Collector<'a> {
    range: KeyRange<'a>,
    to: i64,
    max_revisions: usize,
    compact_revision: i64,
    revisions: Vec<RevisionEvents>,
    main: i64,
    events: Vec<Event>,
    rows_seen: usize,
    /// Set when the collector has had enough before `to`.
    next: Option<i64>,
}

impl<'a> Collector<'a> {
    fn new(range: KeyRange<'a>, to: i64, max_revisions: usize, compact_revision: i64) -> Self {
        Self {
            range,
            to,
            max_revisions,
            compact_revision,
            revisions: Vec::new(),
            main: 0,
            events: Vec::new(),
            rows_seen: 0,
            next: None,
        }
    }

    /// Takes a row, whose value is copied only when it is wanted; false when no more are needed.
    fn add(
        &mut self,
        revision: Revision,
        tombstone: bool,
        value: &[u8],
        to_bytes: impl FnOnce() -> Bytes,
    ) -> Result<bool, FileError> {
        if revision.main > self.to {
            return Ok(false);
        }
        if revision.main != self.main {
            self.flush();
            if self.revisions.len() >= self.max_revisions || self.rows_seen >= SCAN_ROWS_MAX {
                self.next = Some(revision.main);
                return Ok(false);
            }
            self.main = revision.main;
        }
        self.rows_seen += 1;
        let damaged = || FileError(format!("the row of revision {revision:?} is damaged"));
        if self.range.contains(key_of(value).ok_or_else(damaged)?) {
            let kv = try_decode_kv(&to_bytes()).map_err(|_| damaged())?;
            self.events.push(event(revision, tombstone, kv));
        }
        Ok(true)
    }

    fn flush(&mut self) {
        if !self.events.is_empty() {
            let mut events = std::mem::take(&mut self.events);
            if self.main == self.compact_revision {
                keep_last_of_each_key(&mut events);
            }
            self.revisions.push(RevisionEvents::new(self.main, events));
        }
    }

    fn finish(mut self) -> (Vec<RevisionEvents>, i64) {
        self.flush();
        let next = self.next.unwrap_or(self.to + 1);
        (self.revisions, next)
    }
}

/// At the compact revision only the last change of a key is kept, and the others may or may not be
/// removed yet: nobody sees them.
fn keep_last_of_each_key(events: &mut Vec<Event>) {
    let key = |event: &Event| event.kv.as_ref().map(|kv| kv.key.clone());
    let mut seen = BTreeSet::new();
    events.reverse();
    events.retain(|event| seen.insert(key(event)));
    events.reverse();
}

fn event(revision: Revision, tombstone: bool, kv: KeyValue) -> Event {
    if tombstone {
        let kv = KeyValue { key: kv.key, mod_revision: revision.main, ..KeyValue::default() };
        Event { r#type: EventType::Delete.into(), kv: Some(kv), prev_kv: None }
    } else {
        Event { r#type: EventType::Put.into(), kv: Some(kv), prev_kv: None }
    }
}

/// The key in an encoded KeyValue: field 1 comes first in what this store encodes.
pub(super) fn key_of(mut value: &[u8]) -> Option<&[u8]> {
    const KEY_TAG: u64 = 1 << 3 | 2;
    if decode_varint(&mut value).ok()? != KEY_TAG {
        return None;
    }
    let len = usize::try_from(decode_varint(&mut value).ok()?).ok()?;
    value.get(..len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_found_without_decoding_the_row() {
        let kv = KeyValue { key: Bytes::from(vec![7; 300]), version: 1, ..KeyValue::default() };
        assert_eq!(key_of(&encode_kv(&kv)), Some(&[7; 300][..]));
        assert_eq!(key_of(b""), None);
        assert_eq!(key_of(b"\x0a\x05ab"), None);
        assert_eq!(key_of(&encode_kv(&KeyValue { version: 1, ..KeyValue::default() })), None);
    }
}
