//! Reads the records of one segment and says how it ends.
//!
//! A segment ends where its length field is 0 or its bytes are over. Everything that is not a record of the
//! CRC chain is damage, except in the last segment what an interrupted write can leave: a *torn* tail.
//!
//! | At offset `at` | is |
//! |---|---|
//! | a record that fits the chain, but not its length field | damage of the length field |
//! | a frame that reaches past the end of the file | torn |
//! | a frame, one of whose 512-byte sectors is all zero | torn: that sector was never written |
//! | length 0, other bytes after it (last segment) | torn: the first sector was never written |
//! | anything else | damage |
//!
//! What the format cannot tell from a torn write, as in etcd: damage in a record of the last segment
//! whose own data has an all-zero sector, and a length field zeroed in the last word of a sector.

use super::frame::{LENGTH_BYTES, RecordRef, SECTOR_BYTES, read_length_field, read_record};
use super::segment::Segment;

/// How a segment ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct End {
    /// First byte after the last record.
    pub offset: usize,
    /// Bytes from `offset` to the last byte that is not zero: an interrupted write, to be cut off.
    pub torn_bytes: usize,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Damage {
    pub offset: usize,
    pub what: String,
}

/// Hands every record of `segment` to `on_record` in order and follows `crc`.
///
/// `on_record` gets the CRC before the record and returns the CRC after it, or what is wrong.
pub(super) fn scan(
    segment: &mut Segment,
    is_last: bool,
    crc: &mut u32,
    mut on_record: impl FnMut(RecordRef<'_>, u32) -> Result<u32, String>,
) -> Result<End, Damage> {
    let written = segment.written();
    let mut at = 0;
    while at < written {
        let stop = match next_frame(segment.bytes(), at, *crc, is_last) {
            Ok((record, frame_len)) => {
                *crc = on_record(record, *crc).map_err(|what| Damage { offset: at, what })?;
                at += frame_len;
                continue;
            }
            Err(stop) => stop,
        };
        // The zeros behind may be the record's, and tell whether the file ends before it does.
        if segment.restore_zeros() {
            continue;
        }
        return match stop {
            Stop::Torn => Ok(End { offset: at, torn_bytes: written - at }),
            Stop::Damaged(what) => Err(Damage { offset: at, what }),
        };
    }
    Ok(End { offset: at, torn_bytes: 0 })
}

enum Stop {
    Torn,
    Damaged(String),
}

/// The record at `at`, fitting the chain, with the length of its frame.
///
/// Precondition: some byte at or after `at` is not zero.
fn next_frame(
    bytes: &[u8],
    at: usize,
    crc: u32,
    is_last: bool,
) -> Result<(RecordRef<'_>, usize), Stop> {
    let damaged = |what: &str| Stop::Damaged(what.to_owned());
    let Some((field, body)) = bytes[at..].split_first_chunk::<LENGTH_BYTES>() else {
        return Err(if is_last { Stop::Torn } else { damaged("segment ends inside a record") });
    };
    let field = u64::from_le_bytes(*field);
    let by_content = read_record(body).filter(|(record, _)| fits(record, crc));
    if field == 0 {
        // Where the length is a sector's last word, a lost sector looks the same as a zeroed length.
        let own_sector = at % SECTOR_BYTES == SECTOR_BYTES - LENGTH_BYTES;
        let lost = is_last && (by_content.is_none() || own_sector);
        return Err(if lost {
            Stop::Torn
        } else {
            damaged("length field is zero before more data")
        });
    }
    let Some((record_len, pad)) = read_length_field(field) else {
        return Err(damaged("impossible length field"));
    };
    if let Some((record, len)) = by_content {
        let padding = body.get(len..len.saturating_add(pad));
        if len != record_len {
            return Err(damaged("length field does not match its record"));
        }
        return match padding {
            Some(padding) if padding.iter().all(|b| *b == 0) => {
                Ok((record, LENGTH_BYTES + len + pad))
            }
            Some(_) => Err(damaged("padding is not zero")),
            None if is_last => Err(Stop::Torn),
            None => Err(damaged("segment ends inside a record")),
        };
    }
    let frame_end = at.saturating_add(LENGTH_BYTES).saturating_add(record_len).saturating_add(pad);
    if frame_end > bytes.len() {
        return Err(if is_last { Stop::Torn } else { damaged("record reaches past the segment") });
    }
    let frame = &bytes[at + LENGTH_BYTES..frame_end];
    if is_last && has_zero_sector(frame, at + LENGTH_BYTES) {
        return Err(Stop::Torn);
    }
    Err(damaged(if read_record(body).is_some() { "CRC mismatch" } else { "not a WAL record" }))
}

/// A type-4 record is compared by its reader: at the head of the oldest segment there is nothing to compare with.
fn fits(record: &RecordRef<'_>, crc: u32) -> bool {
    record.record_type == super::frame::RecordType::Crc || record.crc == record.expected_crc(crc)
}

/// Whether a sector's part of `frame`, which begins at `offset` in the file, is all zero.
fn has_zero_sector(frame: &[u8], offset: usize) -> bool {
    let first = (SECTOR_BYTES - offset % SECTOR_BYTES).min(frame.len());
    let (head, rest) = frame.split_at(first);
    let is_zero = |part: &[u8]| part.iter().all(|b| *b == 0);
    (!head.is_empty() && is_zero(head)) || rest.chunks(SECTOR_BYTES).any(is_zero)
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::wal::frame::{RecordType, put_record};

    const SEGMENT: usize = 8192;

    /// Records of the given data lengths (bytes 0xaa) in a preallocated segment; with the offset of each.
    fn segment(lens: &[usize]) -> (Vec<u8>, Vec<usize>) {
        let (mut buf, mut crc, mut offsets) = (Vec::new(), 0, Vec::new());
        for len in lens {
            offsets.push(buf.len());
            crc = put_record(&mut buf, RecordType::Entry, crc, &vec![0xaa; *len], &[]);
        }
        offsets.push(buf.len());
        let mut bytes = buf.to_vec();
        bytes.resize(SEGMENT, 0);
        (bytes, offsets)
    }

    fn scan_all(bytes: &[u8], is_last: bool) -> (usize, Result<End, Damage>) {
        let (mut records, mut crc) = (0, 0);
        let end = scan(&mut Segment::of(bytes), is_last, &mut crc, |record, _| {
            records += 1;
            // The type is not under the CRC: telling types apart is up to the payloads.
            if record.record_type == RecordType::Entry {
                Ok(record.crc)
            } else {
                Err("type".into())
            }
        });
        (records, end)
    }

    #[test]
    fn a_clean_segment_ends_at_its_preallocated_space() {
        let (bytes, offsets) = segment(&[10, 2000, 30]);
        let end = End { offset: offsets[3], torn_bytes: 0 };
        assert_eq!(scan_all(&bytes, true), (3, Ok(end)));
        assert_eq!(
            scan_all(&bytes[..offsets[3]], false),
            (3, Ok(end)),
            "cut segments have no space"
        );
    }

    #[test]
    fn preallocated_space_is_not_looked_at() {
        let (bytes, offsets) = segment(&[10, 2000, 30]);
        let mut read = Segment::of(&bytes);
        let mut crc = 0;
        let end = scan(&mut read, true, &mut crc, |record, _| Ok(record.crc)).unwrap();
        assert_eq!(end, End { offset: offsets[3], torn_bytes: 0 });
        assert!(read.bytes().len() < SEGMENT / 2, "{}", read.bytes().len());
    }

    #[test]
    fn a_lost_sector_is_torn_in_the_last_segment_and_damage_elsewhere() {
        let (mut bytes, offsets) = segment(&[10, 2000, 30]);
        bytes[1024..1536].fill(0);
        let torn = End { offset: offsets[1], torn_bytes: offsets[3] - offsets[1] };
        let (records, end) = scan_all(&bytes, true);
        assert_eq!(records, 1);
        // The last record may end in zero padding, which does not count as written.
        let end = end.unwrap();
        assert_eq!(end.offset, torn.offset);
        assert!(torn.torn_bytes - end.torn_bytes < 8);
        assert_eq!(scan_all(&bytes, false).1.unwrap_err().offset, offsets[1]);
    }

    #[test]
    fn a_record_that_ends_with_zeros_is_read_whole() {
        let (mut buf, mut crc) = (Vec::new(), 0);
        let data = [&b"x"[..], &[0; 3000]].concat();
        crc = put_record(&mut buf, RecordType::Entry, crc, b"first", &[]);
        put_record(&mut buf, RecordType::Entry, crc, &data, &[]);
        let end = End { offset: buf.len(), torn_bytes: 0 };
        assert_eq!(scan_all(&buf, true), (2, Ok(end)), "at the end of the file");
        assert!(scan_all(&buf[..buf.len() - 8], true).1.unwrap().torn_bytes > 0, "cut off");
        buf.resize(SEGMENT, 0);
        assert_eq!(scan_all(&buf, true), (2, Ok(end)), "before preallocated space");
    }

    #[test]
    fn a_lost_first_sector_is_torn() {
        let (mut bytes, offsets) = segment(&[10, 2000]);
        bytes[offsets[1]..512].fill(0);
        assert_eq!(scan_all(&bytes, true).1.unwrap().offset, offsets[1]);
        assert!(scan_all(&bytes, false).1.is_err());
    }

    #[test]
    fn a_file_that_ends_inside_a_frame_is_torn_in_the_last_segment() {
        let (bytes, offsets) = segment(&[10, 2000]);
        for cut in [offsets[1] + 3, offsets[1] + 8, offsets[1] + 600, offsets[2] - 8] {
            assert_eq!(scan_all(&bytes[..cut], true).1.unwrap().offset, offsets[1], "cut at {cut}");
            assert!(scan_all(&bytes[..cut], false).1.is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn every_flipped_bit_is_damage() {
        let (bytes, offsets) = segment(&[100, 9, 1200, 40]);
        for bit in 0..offsets[4] * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            for is_last in [true, false] {
                let (_, end) = scan_all(&bad, is_last);
                assert!(end.is_err(), "bit {bit}, last {is_last}: {end:?}");
            }
        }
    }

    #[test]
    fn a_zeroed_length_field_before_a_record_is_damage() {
        // Data of 118 bytes: record of 128, whose length field has a single bit.
        let (mut bytes, offsets) = segment(&[118, 30]);
        assert_eq!(bytes[..8], [128, 0, 0, 0, 0, 0, 0, 0], "a record of 128 bytes has no padding");
        bytes[0] = 0;
        assert_eq!(scan_all(&bytes, true).1.unwrap_err().offset, offsets[0]);
    }
}
