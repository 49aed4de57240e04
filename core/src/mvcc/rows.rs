//! Rows of the `key` bucket: what one change of one key looks like on disk and in a batch.
//!
//! ```text
//! row key    | main: i64 BE | '_' | sub: i64 BE | 't' only for a tombstone |     17 or 18 bytes
//! row value  | encoded mvccpb.KeyValue; a tombstone's has only `key`       |
//! ```
//! Source: surface spec §17.4.

use std::ops::Range;

use bytes::Bytes;
use prost::Message;
use prost::encoding::encoded_len_varint;

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

/// What a put makes of a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Put<'a> {
    pub key: &'a [u8],
    pub create_revision: i64,
    pub mod_revision: i64,
    pub version: i64,
    pub value: &'a [u8],
    pub lease: i64,
}

impl Put<'_> {
    /// The encoded KeyValue, and the same decoded: its key and value are slices of the first.
    ///
    /// By hand, in one pass: prost measures, writes and reads it again, half of what a put costs.
    pub fn encode(&self) -> (Bytes, KeyValue) {
        let ints = [self.create_revision, self.mod_revision, self.version, self.lease];
        let bytes: usize = ints.iter().map(|value| int_len(*value)).sum();
        let bytes = bytes + bytes_len(self.key) + bytes_len(self.value);
        let mut buf = Vec::with_capacity(bytes);
        let key = put_bytes(&mut buf, 0x0a, self.key);
        put_int(&mut buf, 0x10, self.create_revision);
        put_int(&mut buf, 0x18, self.mod_revision);
        put_int(&mut buf, 0x20, self.version);
        let value = put_bytes(&mut buf, 0x2a, self.value);
        put_int(&mut buf, 0x30, self.lease);
        debug_assert_eq!(buf.len(), bytes, "a row is as long as it was measured");
        let encoded = Bytes::from(buf);
        let kv = KeyValue {
            key: encoded.slice(key),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            value: encoded.slice(value),
            lease: self.lease,
        };
        (encoded, kv)
    }
}

/// As proto3 has it: no field for an empty value. Returns where the bytes lie.
fn put_bytes(buf: &mut Vec<u8>, tag: u8, bytes: &[u8]) -> Range<usize> {
    if bytes.is_empty() {
        return 0..0;
    }
    buf.push(tag);
    put_varint(buf, bytes.len() as u64);
    buf.extend_from_slice(bytes);
    buf.len() - bytes.len()..buf.len()
}

fn put_int(buf: &mut Vec<u8>, tag: u8, value: i64) {
    if value != 0 {
        buf.push(tag);
        put_varint(buf, value as u64);
    }
}

fn put_varint(buf: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        buf.push(value as u8 | 0x80);
        value >>= 7;
    }
    buf.push(value as u8);
}

/// Bytes of a field with its tag; none when it is empty.
fn bytes_len(bytes: &[u8]) -> usize {
    let len = bytes.len();
    if len == 0 { 0 } else { 1 + encoded_len_varint(len as u64) + len }
}

fn int_len(value: i64) -> usize {
    if value == 0 { 0 } else { 1 + encoded_len_varint(value as u64) }
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
    fn a_put_has_prosts_bytes_and_decodes_to_what_it_says() {
        let long = vec![7; 300];
        for (key, value) in [(&b"k"[..], &b""[..]), (b"key", b"value"), (&long, &long)] {
            for lease in [0, 1, -1, i64::MAX] {
                let put = Put {
                    key,
                    create_revision: 300,
                    mod_revision: i64::MAX,
                    version: 1,
                    value,
                    lease,
                };
                let (encoded, kv) = put.encode();
                assert_eq!(encoded, encode_kv(&kv));
                assert_eq!(kv, decode_kv(&encoded));
                assert_eq!((&kv.key[..], &kv.value[..], kv.lease), (key, value, lease));
            }
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
