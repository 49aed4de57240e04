//! A segment's bytes, without the preallocated space behind them.

use bytes::Bytes;

use crate::error::OpenError;
use crate::event::Files;

/// Read at a time. Most of the last segment is zeros: they are looked at and not kept.
const BLOCK_BYTES: u64 = 1 << 20;

/// Zeros kept behind the last byte that is none: the end of the last record mostly, and its padding.
const SLACK_BYTES: usize = 64;

/// A segment as it was read: `bytes`, and zeros from there to `len`.
#[derive(Debug)]
pub(super) struct Segment {
    bytes: Vec<u8>,
    /// Up to the last byte that is not zero.
    written: usize,
    /// Of the file.
    len: usize,
}

impl Segment {
    /// Errors: `Io` when the file cannot be read to its end.
    pub fn read(files: &dyn Files, path: &str) -> Result<Self, OpenError> {
        let io = |error: String| OpenError::Io { path: path.to_owned(), error };
        let len = files.len(path).map_err(|e| io(e.to_string()))?;
        let len = len.ok_or_else(|| io("no such file".to_owned()))?;
        let file_len = usize::try_from(len).map_err(|_| io("file too large".to_owned()))?;
        let mut segment = Self::empty(file_len);
        let mut at = 0;
        while at < len {
            let want = BLOCK_BYTES.min(len - at) as usize;
            let block = files.read(path, at, want).map_err(|e| io(e.to_string()))?;
            if block.len() != want {
                let read = at + block.len() as u64;
                return Err(io(format!("read {read} of {len} bytes")));
            }
            segment.keep(at as usize, &block);
            at += want as u64;
        }
        segment.keep_slack();
        Ok(segment)
    }

    fn empty(len: usize) -> Self {
        Self { bytes: Vec::new(), written: 0, len }
    }

    #[cfg(test)]
    pub fn of(bytes: &[u8]) -> Self {
        let mut segment = Self::empty(bytes.len());
        segment.keep(0, bytes);
        segment.keep_slack();
        segment
    }

    fn keep(&mut self, offset: usize, block: &[u8]) {
        let written = written_len(block);
        if written > 0 {
            if self.bytes.capacity() == 0 {
                // Grown by doubling it would be copied again and again. What stays empty is never touched.
                let _ = self.bytes.try_reserve_exact(self.len);
            }
            self.bytes.resize(offset, 0);
            self.bytes.extend_from_slice(&block[..written]);
            self.written = self.bytes.len();
        }
    }

    fn keep_slack(&mut self) {
        self.bytes.resize((self.written + SLACK_BYTES).min(self.len), 0);
    }

    /// Of the file, bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Up to the last byte that is not zero.
    pub fn written(&self) -> usize {
        self.written
    }

    /// What was written and a few zeros behind; the whole file after `restore_zeros`.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Makes `bytes` the whole file, for what has to look at the space behind. False when it was.
    pub fn restore_zeros(&mut self) -> bool {
        let is_more = self.bytes.len() < self.len;
        self.bytes.resize(self.len, 0);
        is_more
    }

    /// A copy of the first bytes.
    pub fn head(&self, len: usize) -> Bytes {
        Bytes::copy_from_slice(&self.bytes[..len])
    }
}

/// Bytes up to the last one that is not zero. Zeros are passed in blocks, compared as the C library does.
fn written_len(bytes: &[u8]) -> usize {
    static ZEROS: [u8; 4096] = [0; 4096];
    let is_zero = |block: &&[u8]| *block == &ZEROS[..block.len()];
    let zeros: usize = bytes.rchunks(ZEROS.len()).take_while(is_zero).map(<[u8]>::len).sum();
    let rest = &bytes[..bytes.len() - zeros];
    rest.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_written_byte_is_found_wherever_it_lies() {
        for len in [0, 1, 4095, 4096, 4097, 12_288, 12_289] {
            let mut bytes = vec![0; len];
            assert_eq!(written_len(&bytes), 0);
            for last in [0, 1, 4095, 4096, 8191, 8192, 8193, len.wrapping_sub(1)] {
                if last < len {
                    bytes[last] = 1;
                    assert_eq!(written_len(&bytes), last + 1, "{last} of {len}");
                    bytes[last] = 0;
                }
            }
        }
    }

    #[test]
    fn zeros_between_blocks_are_kept_and_those_at_the_end_come_back() {
        let mut segment = Segment::empty(100);
        segment.keep(0, b"abc\0\0");
        segment.keep(5, &[0; 10]);
        segment.keep(15, b"\0d\0\0\0");
        segment.keep(20, &[0; 80]);
        segment.keep_slack();
        assert_eq!(&segment.bytes()[..17], b"abc\0\0\0\0\0\0\0\0\0\0\0\0\0d");
        assert_eq!((segment.written(), segment.bytes().len()), (17, 17 + SLACK_BYTES));
        assert!(segment.restore_zeros());
        assert_eq!(segment.bytes().len(), 100);
        assert!(!segment.restore_zeros());
    }
}
