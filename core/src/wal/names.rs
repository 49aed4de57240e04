//! File names of segments and snap files.
//!
//! ```text
//! 0000000000000003-00000000000012ab.wal     sequence number, index of the first entry to come
//! 0000000000000002-00000000000012aa.snap    term and index of the snapshot
//! ```

/// A segment, as its name says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct SegmentName {
    /// Counts segments from 0, without gaps.
    pub seq: u64,
    /// Index after the last entry before this segment. Invariant: every entry that counts and lies
    /// in an earlier segment is below it. It may go back when a suffix of the log was replaced.
    pub first_index: u64,
}

impl SegmentName {
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (seq, first_index) = parse_pair(name.strip_suffix(".wal")?)?;
        Some(Self { seq, first_index })
    }

    pub(super) fn file_name(self) -> String {
        format!("{:016x}-{:016x}.wal", self.seq, self.first_index)
    }

    /// Path relative to the data directory.
    pub(super) fn path(self) -> String {
        format!("{}/{}", super::WAL_DIR, self.file_name())
    }

    /// Path under which a segment is made before it is renamed into place.
    pub(super) fn temporary_path(self) -> String {
        self.path() + TEMPORARY_SUFFIX
    }
}

/// What a crash during create or cut may leave behind.
pub(super) const TEMPORARY_SUFFIX: &str = ".tmp";

/// (term, index) of a snap file; `None` for every other name (`db`, received snapshots, temporary ones).
pub(super) fn parse_snap_name(name: &str) -> Option<(u64, u64)> {
    parse_pair(name.strip_suffix(".snap")?)
}

pub(super) fn snap_name(term: u64, index: u64) -> String {
    format!("{term:016x}-{index:016x}.snap")
}

fn parse_pair(stem: &str) -> Option<(u64, u64)> {
    let (a, b) = stem.split_once('-')?;
    Some((parse_hex16(a)?, parse_hex16(b)?))
}

/// Exactly 16 lower-case hex digits: another spelling of the same number would be a second file.
fn parse_hex16(s: &str) -> Option<u64> {
    let plain = s.len() == 16 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if plain { u64::from_str_radix(s, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_names_are_etcds() {
        let name = SegmentName { seq: 3, first_index: 0x12ab };
        assert_eq!(name.file_name(), "0000000000000003-00000000000012ab.wal");
        assert_eq!(SegmentName::parse(&name.file_name()), Some(name));
    }

    #[test]
    fn other_names_are_not_segments() {
        for name in ["0.tmp", "3-12ab.wal", "0000000000000003-00000000000012AB.wal", "x.wal", "é"]
        {
            assert_eq!(SegmentName::parse(name), None, "{name}");
        }
        assert_eq!(parse_snap_name("00000000000000ff.snap.db"), None);
        assert_eq!(parse_snap_name(&snap_name(2, 255)), Some((2, 255)));
    }
}
