//! What the data of a record holds, to and from raft-rs' types.
//!
//! ```text
//! type 1  walmeta.Metadata   08 <node id>  10 <cluster id>
//! type 2  raftpb.Entry       08 <type>  10 <term>  18 <index>  22 <length> <data>
//! type 3  raftpb.HardState   08 <term>  10 <vote>  18 <commit>
//! type 5  walpb.Snapshot     08 <index>  10 <term>  1a <length> <raftpb.ConfState>
//! ```
//!
//! The type of a record is not under its CRC, and some of these look alike. So reading is strict:
//! a payload that another type could have written is refused. To keep entries apart from hard
//! states, an entry always carries its data field, even when it is empty.

use bytes::Bytes;
use prost::Message;
use raft::eraftpb;

use super::WalMetadata;
use super::frame::{RecordType, VARINT_BYTES_MAX, put_record, put_varint, read_varint};
use crate::pb::{walmeta, walpb};

/// Appends an entry record; returns the new rolling CRC.
pub(super) fn put_entry(buf: &mut Vec<u8>, crc: u32, entry: &eraftpb::Entry) -> u32 {
    assert!(entry.context.is_empty(), "etcd's entry has no context: it would be lost");
    let mut head = [0; 4 * (1 + VARINT_BYTES_MAX)];
    let len = put_fields(
        &mut head,
        [
            (0x08, entry.entry_type as u64),
            (0x10, entry.term),
            (0x18, entry.index),
            (0x22, entry.data.len() as u64),
        ],
    );
    put_record(buf, RecordType::Entry, crc, &head[..len], &entry.data)
}

pub(super) fn put_hard_state(buf: &mut Vec<u8>, crc: u32, state: &eraftpb::HardState) -> u32 {
    let mut data = [0; 3 * (1 + VARINT_BYTES_MAX)];
    let fields = [(0x08, state.term), (0x10, state.vote), (0x18, state.commit)];
    let len = put_fields(&mut data, fields);
    put_record(buf, RecordType::State, crc, &data[..len], &[])
}

/// Returns how many bytes of `data` the fields take.
fn put_fields<const N: usize>(data: &mut [u8], fields: [(u8, u64); N]) -> usize {
    let mut at = 0;
    for (tag, value) in fields {
        data[at] = tag;
        at += 1;
        at += put_varint(&mut data[at..], value);
    }
    at
}

pub(super) fn put_snapshot(buf: &mut Vec<u8>, crc: u32, snapshot: &walpb::Snapshot) -> u32 {
    put_record(buf, RecordType::Snapshot, crc, &snapshot.encode_to_vec(), &[])
}

pub(super) fn put_metadata(buf: &mut Vec<u8>, crc: u32, metadata: WalMetadata) -> u32 {
    let metadata = walmeta::Metadata { node_id: metadata.node_id, cluster_id: metadata.cluster_id };
    put_record(buf, RecordType::Metadata, crc, &metadata.encode_to_vec(), &[])
}

pub(super) fn put_crc(buf: &mut Vec<u8>, crc: u32) -> u32 {
    put_record(buf, RecordType::Crc, crc, &[], &[])
}

/// `None` when the bytes are not an entry.
pub(super) fn read_entry(data: &[u8]) -> Option<eraftpb::Entry> {
    let mut at = data;
    let entry_type = match field(&mut at, 0x08)? {
        0 => eraftpb::EntryType::EntryNormal,
        1 => eraftpb::EntryType::EntryConfChange,
        2 => eraftpb::EntryType::EntryConfChangeV2,
        _ => return None,
    };
    let term = field(&mut at, 0x10)?;
    let index = field(&mut at, 0x18)?;
    // etcd leaves the field out of an empty entry. Of a conf change it never does: that would be a hard state.
    let payload = if at.is_empty() {
        (entry_type == eraftpb::EntryType::EntryNormal).then(Bytes::new)?
    } else {
        let len = field(&mut at, 0x22)?;
        (at.len() as u64 == len).then(|| Bytes::copy_from_slice(at))?
    };
    if term == 0 || index == 0 {
        return None;
    }
    Some(eraftpb::Entry { entry_type, term, index, data: payload, ..Default::default() })
}

/// `None` when the bytes are not a hard state.
pub(super) fn read_hard_state(data: &[u8]) -> Option<eraftpb::HardState> {
    let mut at = data;
    let term = field(&mut at, 0x08)?;
    let vote = field(&mut at, 0x10)?;
    let commit = field(&mut at, 0x18)?;
    let state = eraftpb::HardState { term, vote, commit, ..Default::default() };
    // Nobody votes or commits in term 0: such bytes were an entry without data.
    let impossible = state.term == 0 && (state.vote != 0 || state.commit != 0);
    (at.is_empty() && !impossible).then_some(state)
}

pub(super) fn read_metadata(data: &[u8]) -> Option<WalMetadata> {
    let mut at = data;
    let node_id = field(&mut at, 0x08)?;
    let cluster_id = field(&mut at, 0x10)?;
    at.is_empty().then_some(WalMetadata { node_id, cluster_id })
}

pub(super) fn read_snapshot(data: &[u8]) -> Option<walpb::Snapshot> {
    let snapshot = walpb::Snapshot::decode(data).ok()?;
    // etcd's encoder writes what ours writes; anything else is another type's payload.
    (snapshot.encode_to_vec() == data).then_some(snapshot)
}

/// One varint field with the given one-byte tag.
fn field(at: &mut &[u8], tag: u8) -> Option<u64> {
    let (first, rest) = at.split_first()?;
    *at = rest;
    if *first == tag { read_varint(at) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::raftpb;
    use crate::wal::frame::read_record;

    fn entry(index: u64, data: &'static [u8]) -> eraftpb::Entry {
        eraftpb::Entry { term: 3, index, data: Bytes::from_static(data), ..Default::default() }
    }

    fn data_of(buf: &[u8]) -> Vec<u8> {
        read_record(&buf[8..]).expect("a record was written").0.data.to_vec()
    }

    #[test]
    fn an_entry_has_the_bytes_of_raftpb() {
        let mut buf = Vec::new();
        put_entry(&mut buf, 0, &entry(300, b"hi"));
        assert_eq!(data_of(&buf), [0x08, 0, 0x10, 3, 0x18, 0xac, 0x02, 0x22, 2, b'h', b'i']);
        let pb = raftpb::Entry::decode(&data_of(&buf)[..]).unwrap();
        assert_eq!((pb.term, pb.index, pb.data.as_deref()), (3, 300, Some(&b"hi"[..])));
        assert_eq!(read_entry(&data_of(&buf)), Some(entry(300, b"hi")));
    }

    #[test]
    fn an_empty_entry_is_read_with_and_without_its_data_field() {
        let mut buf = Vec::new();
        put_entry(&mut buf, 0, &entry(1, b""));
        assert_eq!(read_entry(&data_of(&buf)), Some(entry(1, b"")));
        assert_eq!(read_entry(&[0x08, 0, 0x10, 3, 0x18, 1]), Some(entry(1, b"")));
    }

    #[test]
    fn no_payload_is_accepted_as_another_type() {
        let state = eraftpb::HardState { term: 1, vote: 5, commit: 9, ..Default::default() };
        let mut buf = Vec::new();
        put_hard_state(&mut buf, 0, &state);
        let state_bytes = data_of(&buf);
        let pb = raftpb::HardState::decode(&state_bytes[..]).unwrap();
        assert_eq!((pb.term, pb.vote, pb.commit), (1, 5, 9));
        assert_eq!(pb.encode_to_vec(), state_bytes);
        assert_eq!(read_hard_state(&state_bytes), Some(state));
        assert_eq!(read_entry(&state_bytes), None);
        assert_eq!(read_metadata(&state_bytes), None);
        assert_eq!(read_snapshot(&state_bytes), None);

        buf.clear();
        put_entry(&mut buf, 0, &entry(7, b"x"));
        assert_eq!(read_hard_state(&data_of(&buf)), None);
        assert_eq!(read_snapshot(&data_of(&buf)), None);
        assert_eq!(read_hard_state(&[0x08, 0, 0x10, 3, 0x18, 1]), None, "etcd's empty entry");
    }
}
