//! One record in a segment: length field, `walpb.Record`, padding.
//!
//! ```text
//! frame, at a multiple of 8:
//!   +0   u64 LE   bits 0..56 = record bytes; top byte = 0x80 | pad if padded, else 0
//!   +8   record   walpb.Record:
//!                   08 <type varint>
//!                   10 <crc varint>
//!                   1a <length varint> <data>      absent in a type-4 record
//!   ...  pad      0-7 zero bytes, so that a length field never straddles two sectors
//! length field 0: end of the log in this segment (preallocated space)
//! ```
//!
//! `crc` is the CRC-32C of the data bytes of all records of the log so far, this one included.

/// Bytes of the length field.
pub(super) const LENGTH_BYTES: usize = 8;
/// Of a varint of 64 bits.
pub(super) const VARINT_BYTES_MAX: usize = 10;
const PAD_BYTES_MAX: usize = 7;
/// The unit that a disk writes whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;

const TAG_TYPE: u8 = 0x08;
const TAG_CRC: u8 = 0x10;
const TAG_DATA: u8 = 0x1a;

/// Type of a record: etcd's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RecordType {
    Metadata = 1,
    Entry = 2,
    State = 3,
    Crc = 4,
    Snapshot = 5,
}

impl RecordType {
    fn from_number(n: u64) -> Option<Self> {
        Some(match n {
            1 => Self::Metadata,
            2 => Self::Entry,
            3 => Self::State,
            4 => Self::Crc,
            5 => Self::Snapshot,
            _ => return None,
        })
    }
}

/// Appends a frame whose data is `head` followed by `body`; returns the new rolling CRC.
///
/// Two parts, so that the payload of an entry is copied once, into `buf`.
pub(super) fn put_record(
    buf: &mut Vec<u8>,
    record_type: RecordType,
    crc: u32,
    head: &[u8],
    body: &[u8],
) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, head), body);
    let data_len = head.len() + body.len();
    let has_data = record_type != RecordType::Crc;
    // Length field, three tags, type, two varints; gathered here and appended at once.
    let mut front = [0; LENGTH_BYTES + 3 + 1 + 2 * VARINT_BYTES_MAX];
    let mut at = LENGTH_BYTES;
    for (tag, value) in
        [(TAG_TYPE, record_type as u64), (TAG_CRC, u64::from(crc)), (TAG_DATA, data_len as u64)]
    {
        if tag != TAG_DATA || has_data {
            front[at] = tag;
            at += 1;
            at += put_varint(&mut front[at..], value);
        }
    }
    let record_len = at - LENGTH_BYTES + if has_data { data_len } else { 0 };
    front[..LENGTH_BYTES].copy_from_slice(&length_field(record_len).to_le_bytes());
    buf.reserve(LENGTH_BYTES + record_len + PAD_BYTES_MAX);
    buf.extend_from_slice(&front[..at]);
    if has_data {
        buf.extend_from_slice(head);
        buf.extend_from_slice(body);
    }
    buf.extend_from_slice(&[0; PAD_BYTES_MAX][..pad_of(record_len)]);
    crc
}

/// A record found in a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RecordRef<'a> {
    pub record_type: RecordType,
    pub crc: u32,
    pub data: &'a [u8],
}

impl RecordRef<'_> {
    /// The CRC the record should carry after a log whose CRC was `crc`. A type-4 record has no
    /// data, so it repeats the CRC of the segment before.
    pub(super) fn expected_crc(&self, crc: u32) -> u32 {
        crc32c::crc32c_append(crc, self.data)
    }
}

/// Reads a record that begins at the start of `bytes`; its length comes from its own fields, so
/// it does not depend on the length field. `None` when the bytes are not a record.
pub(super) fn read_record(bytes: &[u8]) -> Option<(RecordRef<'_>, usize)> {
    let mut at = bytes;
    expect_tag(&mut at, TAG_TYPE)?;
    let record_type = RecordType::from_number(read_varint(&mut at)?)?;
    expect_tag(&mut at, TAG_CRC)?;
    let crc = u32::try_from(read_varint(&mut at)?).ok()?;
    let mut data: &[u8] = &[];
    if record_type != RecordType::Crc {
        expect_tag(&mut at, TAG_DATA)?;
        let len = usize::try_from(read_varint(&mut at)?).ok()?;
        (data, at) = at.split_at_checked(len)?;
    }
    Some((RecordRef { record_type, crc, data }, bytes.len() - at.len()))
}

/// Record bytes and pad bytes that a length field announces; `None` if no writer makes such a field.
pub(super) fn read_length_field(field: u64) -> Option<(usize, usize)> {
    let record_len = usize::try_from(field & ((1 << 56) - 1)).ok()?;
    (length_field(record_len) == field).then(|| (record_len, pad_of(record_len)))
}

fn length_field(record_len: usize) -> u64 {
    let pad = pad_of(record_len) as u64;
    let flag = if pad == 0 { 0 } else { 0x80 | pad };
    record_len as u64 | flag << 56
}

fn pad_of(record_len: usize) -> usize {
    record_len.wrapping_neg() % 8
}

fn expect_tag(at: &mut &[u8], tag: u8) -> Option<()> {
    let (first, rest) = at.split_first()?;
    *at = rest;
    (*first == tag).then_some(())
}

/// A base-128 varint of at most 64 bits.
pub(super) fn read_varint(at: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = at.split_first()?;
        *at = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Returns its length, at most [`VARINT_BYTES_MAX`].
pub(super) fn put_varint(buf: &mut [u8], mut value: u64) -> usize {
    let mut at = 0;
    while value >= 0x80 {
        buf[at] = value as u8 | 0x80;
        at += 1;
        value >>= 7;
    }
    buf[at] = value as u8;
    at + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_the_bytes_of_the_description() {
        let mut buf = Vec::new();
        let crc = put_record(&mut buf, RecordType::Metadata, 0, &[0x08, 0x01], &[0x10, 0x02]);
        let want_crc = crc32c::crc32c(&[0x08, 0x01, 0x10, 0x02]);
        assert_eq!(crc, want_crc);
        // 2 (type) + 1 + 5 (crc) + 2 + 4 (data) = 14 bytes, padded by 2.
        let mut want = vec![14, 0, 0, 0, 0, 0, 0, 0x82, 0x08, 0x01, 0x10];
        let mut varint = [0; VARINT_BYTES_MAX];
        let len = put_varint(&mut varint, u64::from(want_crc));
        want.extend_from_slice(&varint[..len]);
        want.extend_from_slice(&[0x1a, 4, 0x08, 0x01, 0x10, 0x02, 0, 0]);
        assert_eq!(want.len(), 24, "this CRC has a five-byte varint");
        assert_eq!(&buf[..], &want[..]);
    }

    #[test]
    fn records_and_length_fields_read_back_for_every_padding() {
        let body = [7u8; 300];
        for len in 0..300 {
            let mut buf = Vec::new();
            let crc =
                put_record(&mut buf, RecordType::Entry, 9, &body[..len / 3], &body[len / 3..len]);
            assert_eq!(buf.len() % 8, 0);
            let field = u64::from_le_bytes(buf[..8].try_into().unwrap());
            let (record_len, pad) = read_length_field(field).unwrap();
            let (record, read) = read_record(&buf[8..]).unwrap();
            assert_eq!((record.data, record.crc, read), (&body[..len], crc, record_len));
            assert_eq!(record.expected_crc(9), crc);
            assert_eq!(8 + record_len + pad, buf.len());
        }
    }

    #[test]
    fn a_length_field_with_wrong_padding_is_refused() {
        assert_eq!(read_length_field(14 | 0x82 << 56), Some((14, 2)));
        for field in [14, 14 | 0x02 << 56, 14 | 0x83 << 56, 16 | 0x80 << 56, 1 << 60] {
            assert_eq!(read_length_field(field), None, "{field:x}");
        }
    }

    #[test]
    fn varints_of_more_than_64_bits_are_refused() {
        assert_eq!(read_varint(&mut &[0xff; 11][..]), None);
        for (value, len) in [(0, 1), (127, 1), (128, 2), (u64::MAX, VARINT_BYTES_MAX)] {
            let mut buf = [0; VARINT_BYTES_MAX];
            assert_eq!(put_varint(&mut buf, value), len);
            assert_eq!(read_varint(&mut &buf[..]), Some(value));
        }
    }
}
