//! One file: its bytes as a process sees them, and how to take un-synced changes back.
//!
//! Only the live bytes are kept; each change that no finished sync covers has an entry in the journal
//! with what it replaced. A crash undoes what had not happened yet; a power loss undoes everything
//! un-synced and writes back, sector by sector, what the page cache happened to have flushed:
//!
//! ```text
//! live     = durable + journal[0] + journal[1] + …
//! kill     : entries stamped after the crash never happened
//! power    : per sector, the durable bytes or its content after one of the entries
//!            (a later write kept implies the earlier ones in the same sector)
//! ```

use std::collections::{BTreeMap, VecDeque};

use rand_core::Rng;

use super::sparse::Sparse;
use super::{CrashModel, CrashReport, SECTOR};
use crate::rng::{chance, uniform};

/// A change that no finished sync covers yet, with what undoes it.
#[derive(Debug)]
enum Change {
    /// `old`: the bytes replaced; `None` means zeros.
    Write { offset: u64, len: usize, old: Option<Box<[u8]>> },
    /// `cut`: the pieces that lay past the new end and were not holes.
    SetLen { cut: Vec<(u64, Box<[u8]>)> },
}

#[derive(Debug)]
struct Entry {
    /// When it happens, in true time.
    stamp: u64,
    old_len: u64,
    change: Change,
}

/// A change taken out of the journal together with the bytes it wrote.
enum Redo {
    Write { offset: u64, data: Vec<u8> },
    SetLen { len: u64 },
}

#[derive(Default, Debug)]
pub struct File {
    live: Sparse,
    /// Everything from here on is zero: what is appended replaces nothing that need be kept.
    zero_from: u64,
    /// Invariant: stamps never decrease.
    journal: VecDeque<Entry>,
    /// Entries ever dropped from the journal's front.
    dropped: u64,
    /// Syncs under way: (entries they cover, counted from the file's first; when they finish).
    syncs: VecDeque<(u64, u64)>,
    /// Bytes written since the last sync was issued.
    dirty_bytes: u64,
    /// The length changed since the last sync was issued.
    dirty_len: bool,
}

impl File {
    pub fn len(&self) -> u64 {
        self.live.len()
    }

    pub fn read(&self, offset: u64, out: &mut [u8]) {
        self.live.read(offset, out);
    }

    pub fn allocated(&self) -> u64 {
        self.live.allocated()
    }

    pub fn write(&mut self, stamp: u64, offset: u64, data: &[u8]) {
        let zeros = offset >= self.zero_from || self.live.is_hole(offset, data.len());
        let old = (!zeros).then(|| {
            let mut old = vec![0; data.len()].into_boxed_slice();
            self.live.read(offset, &mut old);
            old
        });
        self.push(stamp, Change::Write { offset, len: data.len(), old });
        self.dirty_bytes += data.len() as u64;
        self.dirty_len |= offset + data.len() as u64 > self.live.len();
        self.put(offset, data);
    }

    fn put(&mut self, offset: u64, data: &[u8]) {
        self.live.write(offset, data);
        self.zero_from = self.zero_from.max(offset + data.len() as u64);
    }

    pub fn set_len(&mut self, stamp: u64, len: u64) {
        if len == self.live.len() {
            return;
        }
        let cut = self.pieces(len);
        self.push(stamp, Change::SetLen { cut });
        self.dirty_len = true;
        self.live.set_len(len);
        self.zero_from = self.zero_from.min(len);
    }

    /// What is not a hole from `from` on.
    fn pieces(&self, from: u64) -> Vec<(u64, Box<[u8]>)> {
        const PIECE: u64 = 16 << 10;
        let mut pieces = Vec::new();
        let mut at = from;
        while at < self.live.len() {
            let end = ((at / PIECE + 1) * PIECE).min(self.live.len());
            let n = (end - at) as usize;
            if !self.live.is_hole(at, n) {
                let mut piece = vec![0; n].into_boxed_slice();
                self.live.read(at, &mut piece);
                pieces.push((at, piece));
            }
            at = end;
        }
        pieces
    }

    fn push(&mut self, stamp: u64, change: Change) {
        let last = self.journal.back().map_or(0, |entry| entry.stamp);
        assert!(stamp >= last, "changes of one file happen in the order in which they are made");
        self.journal.push_back(Entry { stamp, old_len: self.live.len(), change });
    }

    /// Bytes a sync issued now has to write, or `None` when there is nothing to make durable.
    pub fn dirty(&self) -> Option<u64> {
        (self.dirty_len || self.dirty_bytes > 0).then_some(self.dirty_bytes)
    }

    /// A sync of everything so far was issued and will finish at `end`.
    pub fn sync(&mut self, end: u64) {
        let last = self.syncs.back().map_or(0, |(_, end)| *end);
        self.syncs.push_back((self.dropped + self.journal.len() as u64, end.max(last)));
        (self.dirty_bytes, self.dirty_len) = (0, false);
    }

    /// Forgets how to undo what finished syncs cover. `now` is the kernel's time: nothing before it can crash any more.
    pub fn settle(&mut self, now: u64) {
        while let Some((covered, end)) = self.syncs.front().copied()
            && end <= now
        {
            self.journal.drain(..(covered - self.dropped) as usize);
            self.dropped = covered;
            self.syncs.pop_front();
        }
    }

    /// The process ends at `at`: what it had not done yet is taken back, the page cache stays.
    pub fn kill(&mut self, at: u64) {
        self.settle(at);
        self.syncs.clear();
        while self.journal.back().is_some_and(|entry| entry.stamp > at) {
            self.undo_last();
        }
        self.dirty_len = !self.journal.is_empty();
        self.dirty_bytes = self.journal.iter().map(Entry::bytes).sum();
    }

    /// The machine loses power at `at`.
    pub fn power_loss(
        &mut self,
        at: u64,
        model: &CrashModel,
        rng: &mut impl Rng,
        report: &mut CrashReport,
    ) {
        self.kill(at);
        let mut redo = Vec::with_capacity(self.journal.len());
        while let Some(change) = self.undo_last() {
            redo.push(change);
        }
        redo.reverse();
        self.write_back(&redo, model, rng, report);
        (self.dirty_bytes, self.dirty_len) = (0, false);
    }

    fn undo_last(&mut self) -> Option<Redo> {
        let Entry { old_len, change, .. } = self.journal.pop_back()?;
        let redo = match change {
            Change::Write { offset, len, old } => {
                let mut data = vec![0; len];
                self.live.read(offset, &mut data);
                match old {
                    Some(old) => self.put(offset, &old),
                    None => self.live.zero(offset, len),
                }
                self.live.set_len(old_len);
                Redo::Write { offset, data }
            }
            Change::SetLen { cut } => {
                let len = self.live.len();
                self.live.set_len(old_len);
                for (offset, piece) in cut {
                    self.put(offset, &piece);
                }
                Redo::SetLen { len }
            }
        };
        Some(redo)
    }

    /// `live` holds the durable bytes. Applies to it what the page cache had flushed of `changes`.
    fn write_back(
        &mut self,
        changes: &[Redo],
        model: &CrashModel,
        rng: &mut impl Rng,
        report: &mut CrashReport,
    ) {
        if changes.is_empty() {
            return;
        }
        // The length is metadata: after the crash it is what it was after some prefix of the changes.
        let lengths_kept = uniform(rng, 0, changes.len() as u64) as usize;
        let mut len_after = self.live.len();
        let mut len_final = len_after;
        let mut cache = PageCache { sectors: BTreeMap::new(), zero_from: u64::MAX };
        for (i, change) in changes.iter().enumerate() {
            match change {
                Redo::Write { offset, data } => {
                    self.flush_write(*offset, data, &mut cache, model, rng, report);
                    len_after = len_after.max(offset + data.len() as u64);
                }
                Redo::SetLen { len } => {
                    if *len < len_after {
                        cache.cut(*len);
                        if i < lengths_kept {
                            self.live.zero(*len, (self.live.len().saturating_sub(*len)) as usize);
                        }
                    }
                    len_after = *len;
                }
            }
            if i < lengths_kept {
                len_final = len_after;
            }
        }
        self.live.set_len(len_final);
    }

    fn flush_write(
        &mut self,
        offset: u64,
        data: &[u8],
        cache: &mut PageCache,
        model: &CrashModel,
        rng: &mut impl Rng,
        report: &mut CrashReport,
    ) {
        let draw = uniform(rng, 0, 99) as u32;
        let torn = draw >= model.keep_percent + model.lose_percent;
        let keep_all = draw < model.keep_percent;
        let (mut kept, mut lost) = (0, 0);
        let sector_bytes = SECTOR as u64;
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let (sector, from) = (at / sector_bytes, (at % sector_bytes) as usize);
            let n = (SECTOR - from).min(rest.len());
            let content = cache.sector(sector, &self.live);
            content[from..from + n].copy_from_slice(&rest[..n]);
            if keep_all || (torn && chance(rng, 500_000)) {
                self.live.write(sector * sector_bytes, content);
                self.zero_from = self.zero_from.max((sector + 1) * sector_bytes);
                kept += 1;
            } else {
                lost += 1;
            }
            at += n as u64;
            rest = &rest[n..];
        }
        match (kept, lost) {
            (_, 0) => report.kept += 1,
            (0, _) => report.lost += 1,
            _ => report.torn += 1,
        }
    }
}

/// What the page cache held, change by change, while the disk was left behind.
struct PageCache {
    sectors: BTreeMap<u64, [u8; SECTOR]>,
    /// Everything from here on was cut off at some point: a sector seen first later reads as zeros there.
    zero_from: u64,
}

impl PageCache {
    fn sector(&mut self, sector: u64, disk: &Sparse) -> &mut [u8; SECTOR] {
        let zero_from = self.zero_from;
        self.sectors.entry(sector).or_insert_with(|| {
            let mut content = [0; SECTOR];
            disk.read(sector * SECTOR as u64, &mut content);
            zero_past(&mut content, sector, zero_from);
            content
        })
    }

    fn cut(&mut self, len: u64) {
        self.zero_from = self.zero_from.min(len);
        for (sector, content) in self.sectors.range_mut(len / SECTOR as u64..) {
            zero_past(content, *sector, len);
        }
    }
}

/// Zeros the part of a sector that lies at `from` (a place in the file) or later.
fn zero_past(content: &mut [u8; SECTOR], sector: u64, from: u64) {
    let start = from.saturating_sub(sector * SECTOR as u64).min(SECTOR as u64);
    content[start as usize..].fill(0);
}

impl Entry {
    fn bytes(&self) -> u64 {
        match &self.change {
            Change::Write { len, .. } => *len as u64,
            Change::SetLen { .. } => 0,
        }
    }
}
