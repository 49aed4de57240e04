//! Snap files: the mark that a snapshot of some index exists. The data itself is in the backend.
//!
//! ```text
//! snappb.snapshot   08 <crc>  12 <length> <raftpb.Snapshot without data>
//! crc = CRC-32C of the inner bytes
//! ```

use bytes::Bytes;
use prost::Message;

use super::SNAP_DIR;
use super::names::{parse_snap_name, snap_name};
use crate::error::OpenError;
use crate::event::Files;
use crate::pb::{raftpb, snappb};

/// Largest snap file that is read: a configuration of a few thousand members. Etcd's own snap
/// files carry its v2 store, which is small since v3.
const SNAP_BYTES_MAX: u64 = 16 << 20;

/// File name `<term %016x>-<index %016x>.snap` and bytes of a snap file (without data: the data is in the backend).
pub fn encode_snap(metadata: &raftpb::SnapshotMetadata) -> (String, Bytes) {
    let inner = raftpb::Snapshot { data: None, metadata: metadata.clone() }.encode_to_vec();
    let outer = snappb::Snapshot { crc: crc32c::crc32c(&inner), data: Some(inner.into()) };
    (snap_name(metadata.term, metadata.index), outer.encode_to_vec().into())
}

/// The snap files of the data directory.
#[derive(Debug, Default)]
pub(super) struct SnapFiles {
    pub valid: Vec<raftpb::SnapshotMetadata>,
    /// Paths of damaged ones, with what is wrong.
    pub damaged: Vec<(String, String)>,
    pub bytes_read: u64,
}

impl SnapFiles {
    pub(super) fn read(files: &dyn Files) -> Result<Self, OpenError> {
        let mut found = Self::default();
        for name in list(files, SNAP_DIR)? {
            let Some((term, index)) = parse_snap_name(&name) else { continue };
            let path = format!("{SNAP_DIR}/{name}");
            let bytes = read_small(files, &path)?;
            found.bytes_read += bytes.len() as u64;
            match decode_snap(&bytes, term, index) {
                Ok(metadata) => found.valid.push(metadata),
                Err(what) => found.damaged.push((path, what)),
            }
        }
        Ok(found)
    }

    pub(super) fn find(&self, term: u64, index: u64) -> Option<&raftpb::SnapshotMetadata> {
        self.valid.iter().find(|m| m.term == term && m.index == index)
    }
}

fn decode_snap(bytes: &[u8], term: u64, index: u64) -> Result<raftpb::SnapshotMetadata, String> {
    let outer = snappb::Snapshot::decode(bytes).map_err(|_| "not a snap file".to_owned())?;
    // Bits that the decoder ignores would be damage nobody sees.
    if outer.encode_to_vec() != bytes {
        return Err("not a snap file".to_owned());
    }
    let inner = outer.data.unwrap_or_default();
    if inner.is_empty() {
        return Err("empty snap file".to_owned());
    }
    if crc32c::crc32c(&inner) != outer.crc {
        return Err("CRC mismatch".to_owned());
    }
    let snapshot = raftpb::Snapshot::decode(inner).map_err(|_| "not a snapshot".to_owned())?;
    if (snapshot.metadata.term, snapshot.metadata.index) != (term, index) {
        return Err("term or index differs from the file's name".to_owned());
    }
    Ok(snapshot.metadata)
}

pub(super) fn list(files: &dyn Files, dir: &str) -> Result<Vec<String>, OpenError> {
    files.list(dir).map_err(|e| OpenError::Io { path: dir.to_owned(), error: e.to_string() })
}

fn read_small(files: &dyn Files, path: &str) -> Result<Bytes, OpenError> {
    let io = |e: std::io::Error| OpenError::Io { path: path.to_owned(), error: e.to_string() };
    let len = files.len(path).map_err(io)?.unwrap_or(0).min(SNAP_BYTES_MAX);
    files.read(path, 0, len as usize).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> raftpb::SnapshotMetadata {
        let conf_state = raftpb::ConfState { voters: vec![1, 2, 3], ..Default::default() };
        raftpb::SnapshotMetadata { conf_state, index: 0x1f, term: 2 }
    }

    #[test]
    fn a_snap_file_reads_back() {
        let (name, bytes) = encode_snap(&metadata());
        assert_eq!(name, "0000000000000002-000000000000001f.snap");
        assert_eq!(decode_snap(&bytes, 2, 0x1f), Ok(metadata()));
        assert!(decode_snap(&bytes, 2, 0x20).is_err(), "the name must say the same");
    }

    #[test]
    fn no_flipped_bit_passes() {
        let (_, bytes) = encode_snap(&metadata());
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            if let Ok(read) = decode_snap(&bad, 2, 0x1f) {
                panic!("bit {bit} flipped, still read as {read:?}");
            }
        }
        for len in 0..bytes.len() {
            assert!(decode_snap(&bytes[..len], 2, 0x1f).is_err(), "cut to {len} bytes");
        }
    }
}
