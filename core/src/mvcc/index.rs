//! What is known in memory of one key: its changes by revision, and its current value.

use std::ops::Bound;

use bytes::Bytes;

use super::rows::Revision;

/// One change of a key, in 16 bytes: an index of millions of changes stays small.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Change {
    main: i64,
    /// `sub << 1 | tombstone`
    packed: u64,
}

impl Change {
    pub fn new(revision: Revision, tombstone: bool) -> Self {
        Self { main: revision.main, packed: (revision.sub as u64) << 1 | u64::from(tombstone) }
    }

    pub fn main(self) -> i64 {
        self.main
    }

    pub fn revision(self) -> Revision {
        Revision { main: self.main, sub: (self.packed >> 1) as i64 }
    }

    pub fn is_tombstone(self) -> bool {
        self.packed & 1 == 1
    }
}

/// The value a key has now.
#[derive(Clone, Debug)]
pub(crate) struct Current {
    /// Encoded KeyValue; `None` when it was evicted and has to be read from the file.
    pub kv: Option<Bytes>,
    pub create_revision: i64,
    pub version: i64,
    pub lease: i64,
    /// Of the encoded KeyValue; a term of the state hash.
    pub hash: u64,
}

impl Current {
    pub fn resident_bytes(&self) -> u64 {
        self.kv.as_ref().map_or(0, |kv| kv.len() as u64)
    }
}

/// All changes of a key that compaction has left, oldest first. A tombstone ends a generation.
///
/// Invariant: never empty; `current` is present exactly when the last change is no tombstone.
#[derive(Clone, Debug)]
pub(crate) struct KeyIndex {
    changes: Vec<Change>,
    pub current: Option<Current>,
}

impl KeyIndex {
    pub fn new(change: Change, current: Option<Current>) -> Self {
        Self { changes: vec![change], current }
    }

    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    pub fn last(&self) -> Change {
        *self.changes.last().expect("a key index is never empty")
    }

    pub fn push(&mut self, change: Change, current: Option<Current>) {
        assert!(
            self.last().revision() < change.revision(),
            "changes of a key come in ascending order of revision"
        );
        self.changes.push(change);
        self.current = current;
    }

    /// The newest change at or before main revision `revision`, tombstone or not.
    pub fn newest_at(&self, revision: i64) -> Option<Change> {
        let last = self.last();
        if last.main <= revision {
            return Some(last);
        }
        let end = self.changes.partition_point(|c| c.main <= revision);
        end.checked_sub(1).map(|i| self.changes[i])
    }

    /// The put that is visible at `revision`, if the key exists there.
    pub fn visible_at(&self, revision: i64) -> Option<Change> {
        self.newest_at(revision).filter(|c| !c.is_tombstone())
    }

    /// Drops what a compaction at `revision` does not keep and appends it to `dropped`.
    ///
    /// Kept: everything newer, and the newest change at or before `revision`, unless that is a
    /// tombstone from before `revision` (one exactly at it stays until the next compaction, so
    /// that a watch started there still sees the delete; surface spec §17.5).
    /// Returns true when nothing is left: the caller removes the key.
    pub fn compact(&mut self, revision: i64, dropped: &mut Vec<Change>) -> bool {
        let end = self.changes.partition_point(|c| c.main <= revision);
        let Some(newest) = end.checked_sub(1).map(|i| self.changes[i]) else { return false };
        let keep_newest = !newest.is_tombstone() || newest.main == revision;
        let drop = if keep_newest { end - 1 } else { end };
        dropped.extend(self.changes.drain(..drop));
        self.changes.is_empty()
    }
}

pub(crate) type KeyBounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The interval of keys that `key` and `range_end` mean (surface spec §3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum KeyRange<'a> {
    One(&'a [u8]),
    /// `start <= key < end`; empty when `end <= start`.
    Span(&'a [u8], &'a [u8]),
    /// `key >= start`
    From(&'a [u8]),
}

impl<'a> KeyRange<'a> {
    pub fn new(key: &'a [u8], range_end: &'a [u8]) -> Self {
        match range_end {
            [] => KeyRange::One(key),
            [0] => KeyRange::From(key),
            end => KeyRange::Span(key, end),
        }
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        match *self {
            KeyRange::One(k) => key == k,
            KeyRange::Span(start, end) => start <= key && key < end,
            KeyRange::From(start) => start <= key,
        }
    }

    /// Bounds for a map, after `after` when a walk goes on; `None` when nothing can be in them.
    pub fn bounds<'b>(&self, after: Option<&'b [u8]>) -> Option<KeyBounds<'b>>
    where
        'a: 'b,
    {
        let lower = |start: &'b [u8]| after.map_or(Bound::Included(start), Bound::Excluded);
        match *self {
            KeyRange::One(_) if after.is_some() => None,
            KeyRange::One(k) => Some((Bound::Included(k), Bound::Included(k))),
            KeyRange::Span(start, end) if after.unwrap_or(start) < end => {
                Some((lower(start), Bound::Excluded(end)))
            }
            KeyRange::Span(..) => None,
            KeyRange::From(start) => Some((lower(start), Bound::Unbounded)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(main: i64) -> Change {
        Change::new(Revision { main, sub: 0 }, false)
    }

    fn tombstone(main: i64, sub: i64) -> Change {
        Change::new(Revision { main, sub }, true)
    }

    fn key_index(changes: &[Change]) -> KeyIndex {
        let mut index = KeyIndex::new(changes[0], None);
        for change in &changes[1..] {
            index.push(*change, None);
        }
        index
    }

    #[test]
    fn a_key_is_visible_from_its_put_to_its_tombstone() {
        let index = key_index(&[put(3), put(5), tombstone(7, 0), put(9)]);
        let seen = |revision| index.visible_at(revision).map(Change::main);
        let expected = [None, Some(3), Some(3), Some(5), Some(5), None, None, Some(9), Some(9)];
        for (revision, expected) in (2..).zip(expected) {
            assert_eq!(seen(revision), expected, "at revision {revision}");
        }
    }

    #[test]
    fn compaction_keeps_the_newest_put_and_everything_after() {
        let mut index = key_index(&[put(3), put(5), tombstone(7, 0), put(9)]);
        let mut dropped = Vec::new();
        assert!(!index.compact(6, &mut dropped));
        assert_eq!(dropped, [put(3)]);
        assert_eq!(index.changes(), [put(5), tombstone(7, 0), put(9)]);
    }

    #[test]
    fn a_tombstone_exactly_at_the_compact_revision_stays_until_the_next_compaction() {
        let mut index = key_index(&[put(3), tombstone(7, 0)]);
        let mut dropped = Vec::new();
        assert!(!index.compact(7, &mut dropped));
        assert_eq!(index.changes(), [tombstone(7, 0)]);
        assert!(index.compact(8, &mut dropped), "nothing is left");
        assert_eq!(dropped, [put(3), tombstone(7, 0)]);
    }

    #[test]
    fn a_put_and_a_delete_in_one_revision_compact_to_the_tombstone() {
        let mut index = key_index(&[put(7), tombstone(7, 1)]);
        assert_eq!(index.visible_at(7), None);
        let mut dropped = Vec::new();
        assert!(!index.compact(7, &mut dropped));
        assert_eq!(index.changes(), [tombstone(7, 1)]);
    }

    #[test]
    fn key_ranges_mean_what_etcd_means() {
        assert!(KeyRange::new(b"a", b"").contains(b"a"));
        assert!(!KeyRange::new(b"a", b"").contains(b"aa"));
        assert!(KeyRange::new(b"a", b"c").contains(b"b"));
        assert!(!KeyRange::new(b"a", b"c").contains(b"c"));
        assert!(KeyRange::new(b"b", b"\0").contains(b"zz"));
        assert!(!KeyRange::new(b"b", b"\0").contains(b"a"));
        assert!(KeyRange::new(b"\0", b"\0").contains(b"\0"));
        assert_eq!(KeyRange::new(b"c", b"a").bounds(None), None);
        assert_eq!(KeyRange::new(b"a", b"a").bounds(None), None);
        assert_eq!(KeyRange::new(b"a", b"").bounds(Some(b"a")), None);
    }
}
