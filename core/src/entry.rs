//! The request in a log entry, to and from bytes.
//!
//! A put, as core encodes it:
//!
//! ```text
//! 22 <len>      put      0a <len> <key>  12 <len> <value>  18 <lease>  20 01  28 01  30 01
//! a2 06 <len>   header   08 <id>
//! ```

use std::ops::Range;

use bytes::Bytes;
use prost::encoding::{encode_varint, encoded_len_varint};
use prost::{DecodeError, Message};

use crate::pb::etcdserverpb::{InternalRaftRequest, PutRequest, RequestHeader};

/// Decodes the data of a normal entry that is not empty.
///
/// Every member decodes every entry, and nearly all are puts: those are read by hand, at a part of
/// what prost takes. Keys and values are slices of `data`.
pub fn decode(data: &Bytes) -> Result<InternalRaftRequest, DecodeError> {
    match decode_put(data) {
        Some(request) => Ok(request),
        None => InternalRaftRequest::decode(data.clone()),
    }
}

/// The data of an entry: the same bytes as prost's.
pub fn encode_put(id: u64, put: &PutRequest) -> Bytes {
    let header_bytes = if id == 0 { 0 } else { 1 + encoded_len_varint(id) };
    let put_bytes = put.encoded_len();
    let front_bytes = 1 + encoded_len_varint(put_bytes as u64);
    let mut buf = Vec::with_capacity(front_bytes + put_bytes + 3 + header_bytes);
    buf.push(0x22);
    encode_varint(put_bytes as u64, &mut buf);
    put.encode_raw(&mut buf);
    buf.extend_from_slice(&[0xa2, 0x06, header_bytes as u8]);
    if id != 0 {
        buf.push(0x08);
        encode_varint(id, &mut buf);
    }
    Bytes::from(buf)
}

/// `None` when the bytes are anything but the put above.
fn decode_put(data: &Bytes) -> Option<InternalRaftRequest> {
    let mut at = Reader { bytes: data, at: 0 };
    at.has_tag(0x22).then_some(())?;
    let put_end = at.run()?.end;
    let key = at.bytes_field(0x0a)?;
    let value = at.bytes_field(0x12)?;
    let lease = if at.has_tag(0x18) { at.varint()? as i64 } else { 0 };
    let flags = [0x20, 0x28, 0x30].map(|tag| at.flag(tag));
    let [Some(prev_kv), Some(ignore_value), Some(ignore_lease)] = flags else { return None };
    if at.at != put_end || !at.has_tag(0xa2) || !at.has_tag(0x06) {
        return None;
    }
    let header_end = at.run()?.end;
    let id = if at.has_tag(0x08) { at.varint()? } else { 0 };
    if at.at != header_end || header_end != data.len() {
        return None;
    }
    let (key, value) = (data.slice(key), data.slice(value));
    let put = PutRequest { key, value, lease, prev_kv, ignore_value, ignore_lease };
    let header = RequestHeader { id, ..Default::default() };
    Some(InternalRaftRequest { put: Some(put), header: Some(header), ..Default::default() })
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    /// Steps over the tag if it comes next.
    fn has_tag(&mut self, tag: u8) -> bool {
        let has = self.bytes.get(self.at) == Some(&tag);
        self.at += usize::from(has);
        has
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                // The tenth byte has one bit left to give.
                return (shift < 63 || byte < 2).then_some(value);
            }
        }
        None
    }

    /// A length and where what it measures lies; stays at its start.
    fn run(&mut self) -> Option<Range<usize>> {
        let len = usize::try_from(self.varint()?).ok()?;
        let end = self.at.checked_add(len)?;
        (end <= self.bytes.len()).then_some(self.at..end)
    }

    /// Where its bytes lie; nowhere when the field is left out.
    fn bytes_field(&mut self, tag: u8) -> Option<Range<usize>> {
        if !self.has_tag(tag) {
            return Some(0..0);
        }
        let run = self.run()?;
        self.at = run.end;
        Some(run)
    }

    fn flag(&mut self, tag: u8) -> Option<bool> {
        if !self.has_tag(tag) {
            return Some(false);
        }
        self.has_tag(1).then_some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::etcdserverpb::DeleteRangeRequest;

    fn put(key: &[u8], value: &[u8], lease: i64, flags: u8) -> InternalRaftRequest {
        let put = PutRequest {
            key: Bytes::copy_from_slice(key),
            value: Bytes::copy_from_slice(value),
            lease,
            prev_kv: flags & 1 != 0,
            ignore_value: flags & 2 != 0,
            ignore_lease: flags & 4 != 0,
        };
        let header = RequestHeader { id: 0xfedc_ba98_7654_3210, ..Default::default() };
        InternalRaftRequest { put: Some(put), header: Some(header), ..Default::default() }
    }

    fn encode(request: &InternalRaftRequest) -> Bytes {
        request.encode_to_vec().into()
    }

    #[test]
    fn a_put_is_written_and_read_by_hand_as_prost_does() {
        for value in [&b""[..], b"v", &[7; 300]] {
            for (lease, flags) in [(0, 0), (1, 1), (i64::MAX, 2), (7, 4), (0, 7)] {
                let request = put(b"key", value, lease, flags);
                let id = request.header.as_ref().unwrap().id;
                let by_hand = encode_put(id, request.put.as_ref().unwrap());
                assert_eq!(by_hand, encode(&request));
                assert_eq!(decode_put(&encode(&request)), Some(request));
            }
        }
    }

    #[test]
    fn whatever_the_bytes_are_the_result_is_prosts() {
        let delete = DeleteRangeRequest { key: Bytes::from_static(b"k"), ..Default::default() };
        let delete = InternalRaftRequest { delete_range: Some(delete), ..Default::default() };
        let mut named = put(b"key", b"value", 5, 7);
        named.header.as_mut().unwrap().username = "root".to_owned();
        let both = InternalRaftRequest { id: 3, ..put(b"k", b"v", -1, 0) };
        for request in [put(b"key", b"value", 5, 7), delete, named, both] {
            let whole = encode(&request);
            assert_eq!(decode(&whole).as_ref(), Ok(&request));
            for len in 0..whole.len() {
                let cut = whole.slice(..len);
                assert_eq!(decode(&cut), InternalRaftRequest::decode(cut.clone()));
            }
            for at in 0..whole.len() {
                for bit in 0..8 {
                    let mut bytes = whole.to_vec();
                    bytes[at] ^= 1 << bit;
                    let bytes = Bytes::from(bytes);
                    assert_eq!(decode(&bytes), InternalRaftRequest::decode(bytes.clone()));
                }
            }
        }
    }
}
