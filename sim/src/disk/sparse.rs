//! Bytes of a file, with holes: what was never written takes no memory and reads as zero.

/// Bytes per chunk: a page of redb's, which is written and replaced whole.
const CHUNK: usize = 4 << 10;

type Chunk = Box<[u8; CHUNK]>;

/// Invariant: bytes at or past `len` inside the chunks are zero.
#[derive(Clone, Default, Debug)]
pub struct Sparse {
    len: u64,
    /// Shorter than the file when it ends with holes.
    chunks: Vec<Option<Chunk>>,
}

impl Sparse {
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Bytes of memory in use.
    pub fn allocated(&self) -> u64 {
        self.chunks.iter().flatten().count() as u64 * CHUNK as u64
    }

    /// Grows with zeros or cuts.
    pub fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.zero(len, (self.len - len) as usize);
            self.chunks.truncate(len.div_ceil(CHUNK as u64) as usize);
        }
        self.len = len;
    }

    /// Writes, growing as needed.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.grow_to(offset + data.len() as u64);
        let mut rest = data;
        for (chunk, from, n) in spans(offset, data.len()) {
            let (now, later) = rest.split_at(n);
            match &mut self.chunks[chunk] {
                Some(bytes) => bytes[from..from + n].copy_from_slice(now),
                slot if n == CHUNK => *slot = Some(whole(now)),
                slot => slot.insert(zeros())[from..from + n].copy_from_slice(now),
            }
            rest = later;
        }
    }

    /// Writes `data` and returns what it replaces, or `None` for zeros.
    ///
    /// A chunk that is written whole is exchanged: a page costs one copy, not two.
    pub fn replace(&mut self, offset: u64, data: &[u8]) -> Option<Box<[u8]>> {
        if data.len() == CHUNK && offset.is_multiple_of(CHUNK as u64) {
            self.grow_to(offset + CHUNK as u64);
            let slot = &mut self.chunks[(offset / CHUNK as u64) as usize];
            return slot.replace(whole(data)).map(|old| old as Box<[u8]>);
        }
        let old = (!self.is_hole(offset, data.len()))
            .then(|| self.to_vec(offset, data.len()).into_boxed_slice());
        self.write(offset, data);
        old
    }

    fn grow_to(&mut self, end: u64) {
        self.len = self.len.max(end);
        let chunks = end.div_ceil(CHUNK as u64) as usize;
        if self.chunks.len() < chunks {
            self.chunks.resize_with(chunks, || None);
        }
    }

    /// Fills `out` from `offset`; zeros in holes and past the end.
    pub fn read(&self, offset: u64, out: &mut [u8]) {
        let mut rest = out;
        for (chunk, from, n) in spans(offset, rest.len()) {
            let (now, later) = rest.split_at_mut(n);
            match self.chunks.get(chunk) {
                Some(Some(bytes)) => now.copy_from_slice(&bytes[from..from + n]),
                _ => now.fill(0),
            }
            rest = later;
        }
    }

    /// A copy of a range.
    pub fn to_vec(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        let mut rest = &mut out[..];
        for (chunk, from, n) in spans(offset, len) {
            let (now, later) = rest.split_at_mut(n);
            if let Some(Some(bytes)) = self.chunks.get(chunk) {
                now.copy_from_slice(&bytes[from..from + n]);
            }
            rest = later;
        }
        out
    }

    /// True when nothing but holes lies in the range: it reads as zeros.
    pub fn is_hole(&self, offset: u64, len: usize) -> bool {
        spans(offset, len).all(|(chunk, _, _)| !matches!(self.chunks.get(chunk), Some(Some(_))))
    }

    /// Zeros a range without growing; a chunk that is wholly inside becomes a hole.
    pub fn zero(&mut self, offset: u64, len: usize) {
        for (chunk, from, n) in spans(offset, len) {
            match self.chunks.get_mut(chunk) {
                Some(slot) if n == CHUNK => *slot = None,
                Some(Some(bytes)) => bytes[from..from + n].fill(0),
                _ => {}
            }
        }
    }
}

fn whole(data: &[u8]) -> Chunk {
    Box::<[u8]>::from(data).try_into().expect("data of a chunk's size")
}

fn zeros() -> Chunk {
    vec![0; CHUNK].try_into().expect("a chunk's size")
}

/// (chunk, first byte in it, bytes) of each chunk that a range touches.
fn spans(offset: u64, len: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let mut at = offset;
    let end = offset + len as u64;
    std::iter::from_fn(move || {
        if at == end {
            return None;
        }
        let (chunk, from) = ((at / CHUNK as u64) as usize, (at % CHUNK as u64) as usize);
        let n = (CHUNK - from).min((end - at) as usize);
        at += n as u64;
        Some((chunk, from, n))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_preallocated_file_takes_no_memory() {
        let mut file = Sparse::default();
        file.set_len(64_000_000);
        file.write(5, b"abc");
        assert_eq!((file.len(), file.allocated()), (64_000_000, CHUNK as u64));
        let mut out = [9; 5];
        file.read(4, &mut out);
        assert_eq!(&out, b"\0abc\0");
    }

    #[derive(Clone, Debug)]
    enum Op {
        Write(u64, Vec<u8>),
        /// Of a whole chunk.
        Page(u64, u8),
        SetLen(u64),
        Zero(u64, usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        let at = 0..(3 * CHUNK as u64);
        prop_oneof![
            (at.clone(), prop::collection::vec(1..=255_u8, 0..300))
                .prop_map(|(o, d)| Op::Write(o, d)),
            (0..3_u64, 1..=255_u8).prop_map(|(page, b)| Op::Page(page * CHUNK as u64, b)),
            at.clone().prop_map(Op::SetLen),
            (at, 0..(2 * CHUNK)).prop_map(|(o, n)| Op::Zero(o, n)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_sparse_file_reads_as_a_plain_one(ops in prop::collection::vec(op(), 1..20)) {
            let (mut sparse, mut plain) = (Sparse::default(), Vec::new());
            for op in ops {
                let op = match op {
                    Op::Page(offset, byte) => Op::Write(offset, vec![byte; CHUNK]),
                    op => op,
                };
                match op {
                    Op::Page(..) => unreachable!("made a write above"),
                    Op::Write(offset, data) => {
                        let mut old = plain.get(offset as usize..).unwrap_or(&[]).to_vec();
                        old.resize(data.len(), 0);
                        let end = offset as usize + data.len();
                        if !data.is_empty() && plain.len() < end {
                            plain.resize(end, 0);
                        }
                        if !data.is_empty() {
                            plain[offset as usize..end].copy_from_slice(&data);
                        }
                        match sparse.replace(offset, &data) {
                            Some(replaced) => prop_assert!(*replaced == old),
                            None => prop_assert!(old.iter().all(|b| *b == 0)),
                        }
                    }
                    Op::SetLen(len) => {
                        plain.resize(len as usize, 0);
                        sparse.set_len(len);
                    }
                    Op::Zero(offset, len) => {
                        let from = plain.len().min(offset as usize);
                        let to = plain.len().min(offset as usize + len);
                        plain[from..to].fill(0);
                        sparse.zero(offset, len);
                    }
                }
                let mut out = vec![7; plain.len()];
                sparse.read(0, &mut out);
                prop_assert!(sparse.to_vec(0, plain.len()) == plain);
                prop_assert_eq!(sparse.len() as usize, plain.len());
                prop_assert!(out == plain);
            }
        }
    }
}
