//! Rows of the `key` bucket: what one change of one key looks like on disk and in a batch.
//!
//! ```text
//! row key    | main: i64 BE | '_' | sub: i64 BE | 't' only for a tombstone |     17 or 18 bytes
//! row value  | encoded mvccpb.KeyValue; a tombstone's has only `key`       |
//! ```
//! Source: surface spec §17.4.

use bytes::Bytes;
use prost::Message;

use crate::pb::mvccpb::KeyValue;

/// `main` numbers the modifying requests from 2 on; `sub` the changes inside one, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(crate) struct Revision {
    pub main: i64,
    pub sub: i64,
}

const REVISION_BYTES: usize = 17;

/// An encoded row key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RowKey {
    bytes: [u8; REVISION_BYTES + 1],
    len: u8,
}

impl RowKey {
    pub fn new(revision: Revision, tombstone: bool) -> Self {
        let mut bytes = [0; REVISION_BYTES + 1];
        bytes[..8].copy_from_slice(&revision.main.to_be_bytes());
        bytes[8] = b'_';
        bytes[9..17].copy_from_slice(&revision.sub.to_be_bytes());
        bytes[17] = b't';
        Self { bytes, len: (REVISION_BYTES + usize::from(tombstone)) as u8 }
    }

    pub fn main(&self) -> i64 {
        i64::from_be_bytes(*self.bytes.first_chunk().expect("a row key begins with it"))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The revision in a row key and whether it marks a tombstone; `None` when it is not a row key.
pub(crate) fn parse_row_key(bytes: &[u8]) -> Option<(Revision, bool)> {
    let tombstone = match bytes.len() {
        REVISION_BYTES => false,
        18 if bytes[17] == b't' => true,
        _ => return None,
    };
    if bytes[8] != b'_' {
        return None;
    }
    let main = i64::from_be_bytes(bytes[..8].try_into().ok()?);
    let sub = i64::from_be_bytes(bytes[9..17].try_into().ok()?);
    (main >= 0 && sub >= 0).then_some((Revision { main, sub }, tombstone))
}

/// Bytes of tree around a row of the file, beside its key and value: measured with 256 B values.
pub(crate) const ROW_OVERHEAD_BYTES: u64 = 16;

/// A change on its way to the file.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub revision: Revision,
    pub tombstone: bool,
    /// Encoded KeyValue, shared with the index.
    pub value: Bytes,
}

impl Row {
    pub fn key(&self) -> RowKey {
        RowKey::new(self.revision, self.tombstone)
    }

    /// Bytes of the file that the row will take.
    pub fn file_bytes(&self) -> u64 {
        u64::from(self.key().len) + self.value.len() as u64 + ROW_OVERHEAD_BYTES
    }
}

/// Finds a row in a slice that ascends by revision.
pub(crate) fn find_row(rows: &[Row], revision: Revision) -> Option<&Row> {
    rows.binary_search_by_key(&revision, |row| row.revision).ok().map(|i| &rows[i])
}

pub(crate) fn encode_kv(kv: &KeyValue) -> Bytes {
    Bytes::from(kv.encode_to_vec())
}

/// Decodes what this store encoded; key and value are slices of `encoded`, not copies.
///
/// Values read from the file are decoded with [`try_decode_kv`] when they enter memory.
pub(crate) fn decode_kv(encoded: &Bytes) -> KeyValue {
    try_decode_kv(encoded).expect("a KeyValue in memory was encoded here or checked on entry")
}

pub(crate) fn try_decode_kv(encoded: &Bytes) -> Result<KeyValue, prost::DecodeError> {
    KeyValue::decode(encoded.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_keys_are_etcds_bytes_and_sort_as_revisions() {
        let put = RowKey::new(Revision { main: 258, sub: 1 }, false);
        assert_eq!(put.as_bytes(), b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x01");
        let tombstone = RowKey::new(Revision { main: 258, sub: 1 }, true);
        assert_eq!(tombstone.as_bytes(), b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x01t");
        assert!(put.as_bytes() < tombstone.as_bytes());
        let next = RowKey::new(Revision { main: 258, sub: 2 }, false);
        assert!(tombstone.as_bytes() < next.as_bytes());
        for (key, expected) in [(put, false), (tombstone, true)] {
            let parsed = parse_row_key(key.as_bytes());
            assert_eq!(parsed, Some((Revision { main: 258, sub: 1 }, expected)));
        }
    }

    #[test]
    fn what_is_not_a_row_key_is_refused() {
        for bytes in [&b""[..], b"short", b"\0\0\0\0\0\0\x01\x02-\0\0\0\0\0\0\0\x01"] {
            assert_eq!(parse_row_key(bytes), None);
        }
        assert_eq!(parse_row_key(&[0xff; 17]), None);
        assert_eq!(parse_row_key(b"\0\0\0\0\0\0\x01\x02_\0\0\0\0\0\0\0\x01x"), None);
    }
}
