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
//! An entry that a fault has given a [`Fate`] stays in the journal, durable or not, and so does what follows it:
//! what the disk really holds shows when the machine loses power.

use std::collections::VecDeque;

use bytes::Bytes;
use rand_core::Rng;

use super::sparse::Sparse;
use super::write_back::{How, Redo, write_back};
use super::{CrashModel, CrashReport};

/// Unit in which the system copies a write into the page cache: it looks for a kill after each.
const PAGE: u64 = 4096;

/// A change that no finished sync covers yet, with what undoes it.
#[derive(Clone, Debug)]
enum Change {
    /// `old`: the bytes replaced; `None` means zeros.
    Write { offset: u64, len: usize, old: Option<Box<[u8]>> },
    /// `cut`: the pieces that lay past the new end and were not holes.
    SetLen { cut: Vec<(u64, Box<[u8]>)> },
}

#[derive(Clone, Debug)]
struct Entry {
    /// When it begins and when it has happened, in true time.
    begun: u64,
    stamp: u64,
    old_len: u64,
    change: Change,
    fate: Option<Fate>,
}

/// What the disk really makes of a change, whatever it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Its sync failed and left the pages clean: nobody will write them. They go with the page cache, at the end of
    /// the process.
    Dropped,
    /// Its sync said that it was done, and it was not.
    Lost,
    /// Of each write some sectors only.
    Torn,
    /// It went to another place of the file.
    At(u64),
}

/// A flipped bit. A process that runs reads its page cache: it shows once the process has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Rot {
    fault: u64,
    offset: u64,
    bit: u8,
    shows: bool,
}

#[derive(Clone, Default, Debug)]
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
    /// Entries that finished syncs cover, counted from the file's first. More than `dropped` only behind a fate.
    durable: u64,
    /// Entries with a fate in the journal.
    fated: usize,
    rot: Vec<Rot>,
}

impl File {
    pub fn len(&self) -> u64 {
        self.live.len()
    }

    pub fn read(&self, offset: u64, out: &mut [u8]) {
        self.live.read(offset, out);
    }

    /// A copy of a range. Preallocated space, which is mostly what is read, costs nothing.
    pub fn to_bytes(&self, offset: u64, len: usize) -> Bytes {
        static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
        match ZEROS.get(..len).filter(|_| self.live.is_hole(offset, len)) {
            Some(zeros) => Bytes::from_static(zeros),
            None => self.live.to_vec(offset, len).into(),
        }
    }

    pub fn allocated(&self) -> u64 {
        self.live.allocated()
    }

    /// A write from `begun` to `stamp`: a process that ends in between has written the first pages of it.
    pub fn write(&mut self, begun: u64, stamp: u64, offset: u64, data: &[u8]) {
        let (old_len, end) = (self.live.len(), offset + data.len() as u64);
        let old = if offset >= self.zero_from {
            self.live.write(offset, data);
            None
        } else {
            self.live.replace(offset, data)
        };
        self.zero_from = self.zero_from.max(end);
        self.push(begun, stamp, old_len, Change::Write { offset, len: data.len(), old });
        self.dirty_bytes += data.len() as u64;
        self.dirty_len |= end > old_len;
        // What is written anew is no longer rotten.
        self.rot.retain(|rot| rot.offset < offset || rot.offset >= offset + data.len() as u64);
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
        self.push(stamp, stamp, self.live.len(), Change::SetLen { cut });
        self.dirty_len = true;
        self.live.set_len(len);
        self.zero_from = self.zero_from.min(len);
        self.rot.retain(|rot| rot.offset < len);
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

    fn push(&mut self, begun: u64, stamp: u64, old_len: u64, change: Change) {
        let last = self.journal.back().map_or(0, |entry| entry.stamp);
        assert!(stamp >= last, "changes of one file happen in the order in which they are made");
        self.journal.push_back(Entry { begun, stamp, old_len, change, fate: None });
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

    /// A sync fails now and leaves the pages clean: what it was to write is lost, and later syncs say nothing of it.
    pub fn fail_sync_clean(&mut self) {
        self.give_fate_to_unsynced(Fate::Dropped);
        (self.dirty_bytes, self.dirty_len) = (0, false);
    }

    /// What the sync that is issued now covers meets this fate.
    pub fn give_fate_to_unsynced(&mut self, fate: Fate) {
        let covered = self.syncs.back().map_or(self.durable, |(covered, _)| *covered);
        let from = covered.saturating_sub(self.dropped) as usize;
        for entry in self.journal.iter_mut().skip(from) {
            if entry.fate.is_none() && matches!(entry.change, Change::Write { .. }) {
                entry.fate = Some(fate);
                self.fated += 1;
            }
        }
    }

    /// The write that was made last goes to another place.
    pub fn misdirect_last(&mut self, to: u64) {
        if let Some(entry) = self.journal.back_mut()
            && entry.fate.is_none()
        {
            entry.fate = Some(Fate::At(to));
            self.fated += 1;
        }
    }

    /// Forgets how to undo what finished syncs cover. `now` is the kernel's time: nothing before it can crash any more.
    pub fn settle(&mut self, now: u64) {
        while let Some((covered, end)) = self.syncs.front().copied()
            && end <= now
        {
            self.durable = covered;
            let forget = if self.fated == 0 {
                (covered - self.dropped) as usize
            } else {
                let has_fate = |entry: &Entry| entry.fate.is_some();
                let first = self.journal.iter().position(has_fate).unwrap_or(self.journal.len());
                first.min(covered.saturating_sub(self.dropped) as usize)
            };
            self.journal.drain(..forget);
            self.dropped += forget as u64;
            self.syncs.pop_front();
        }
    }

    /// The process ends at `at`: what it had not done yet is taken back, the page cache stays.
    pub fn kill(&mut self, at: u64) {
        self.end_process(at);
        self.show_rot();
    }

    fn end_process(&mut self, at: u64) {
        self.settle(at);
        self.syncs.clear();
        self.undo_after(at);
        if self.journal.iter().any(|entry| entry.fate == Some(Fate::Dropped)) {
            self.drop_clean_pages();
        }
        self.dirty_len = !self.journal.is_empty();
        self.dirty_bytes = self.journal.iter().map(Entry::bytes).sum();
    }

    /// Takes back what had not happened at `at`, but for the first pages of a write under way.
    fn undo_after(&mut self, at: u64) {
        let mut under_way = None;
        while let Some(entry) = self.journal.back().filter(|entry| entry.stamp > at) {
            let (begun, stamp) = (entry.begun, entry.stamp);
            let redo = self.undo_last();
            if let Some(Redo::Write { offset, data }) = redo
                && begun <= at
            {
                let share = u128::from(at - begun) * data.len() as u128 / u128::from(stamp - begun);
                // It is copied page by page of the file, wherever in one it begins.
                let pages = (offset + share as u64) / PAGE * PAGE;
                under_way = Some((begun, offset, data, pages.saturating_sub(offset) as usize));
            }
        }
        if let Some((begun, offset, data, written)) = under_way.filter(|(.., n)| *n > 0) {
            self.write(begun, at, offset, &data[..written]);
        }
    }

    /// Takes back the writes that nobody will make durable; everything else stays.
    ///
    /// The length is metadata, which another sync has made durable: where a write is lost there are the bytes of
    /// before, or zeros.
    fn drop_clean_pages(&mut self) {
        let durable = self.durable;
        for (redo, entry_fate, stamp, number) in self.take_journal() {
            let is_durable = number < durable;
            match redo {
                Redo::Write { offset, data } if entry_fate == Some(Fate::Dropped) => {
                    self.live.set_len(self.live.len().max(offset + data.len() as u64));
                }
                Redo::Write { offset, data } if is_durable && entry_fate.is_none() => {
                    self.put(offset, &data);
                }
                Redo::Write { offset, data } => {
                    self.write(stamp, stamp, offset, &data);
                    self.journal.back_mut().expect("written just now").fate = entry_fate;
                    self.fated += usize::from(entry_fate.is_some());
                }
                Redo::SetLen { len } if is_durable => {
                    self.live.set_len(len);
                    self.zero_from = self.zero_from.min(len);
                }
                Redo::SetLen { len } => self.set_len(stamp, len),
            }
        }
        self.durable = self.dropped;
    }

    /// Undoes the whole journal; returns what it did, in order, with fate, stamp and number.
    fn take_journal(&mut self) -> Vec<(Redo, Option<Fate>, u64, u64)> {
        let mut taken = Vec::with_capacity(self.journal.len());
        while let Some(last) = self.journal.back() {
            let number = self.dropped + self.journal.len() as u64 - 1;
            let (fate, stamp) = (last.fate, last.stamp);
            let redo = self.undo_last().expect("the journal has a last entry");
            taken.push((redo, fate, stamp, number));
        }
        taken.reverse();
        taken
    }

    /// The machine loses power at `at`.
    pub fn power_loss(
        &mut self,
        at: u64,
        model: &CrashModel,
        rng: &mut impl Rng,
        report: &mut CrashReport,
    ) {
        self.end_process(at);
        let durable = self.durable;
        let changes: Vec<(Redo, How)> = self
            .take_journal()
            .into_iter()
            .map(|(redo, fate, _, number)| (redo, How::new(fate, number < durable)))
            .collect();
        let written = write_back(&mut self.live, &changes, model, rng, report);
        self.zero_from = self.zero_from.max(written);
        (self.dirty_bytes, self.dirty_len) = (0, false);
        self.durable = self.dropped;
        self.show_rot();
    }

    /// Flips a bit of what was written. The write before must not be under way.
    pub fn flip(&mut self, fault: u64, offset: u64, bit: u8) {
        self.rot.push(Rot { fault, offset, bit, shows: false });
    }

    /// Bytes that were ever written: after them there are zeros only.
    pub fn written(&self) -> u64 {
        self.zero_from.min(self.live.len())
    }

    /// Flips back the bits of a fault that were not overwritten since.
    pub fn flip_back(&mut self, fault: u64) {
        let (gone, left) = self.rot.drain(..).partition::<Vec<_>, _>(|rot| rot.fault == fault);
        self.rot = left;
        gone.into_iter().filter(|rot| rot.shows).for_each(|rot| self.turn(rot));
    }

    /// No process has the file in its page cache any more.
    pub fn show_rot(&mut self) {
        for i in 0..self.rot.len() {
            if !self.rot[i].shows {
                self.rot[i].shows = true;
                self.turn(self.rot[i]);
            }
        }
    }

    fn turn(&mut self, rot: Rot) {
        if rot.offset >= self.live.len() {
            return;
        }
        let mut byte = [0];
        self.live.read(rot.offset, &mut byte);
        self.live.write(rot.offset, &[byte[0] ^ (1 << rot.bit)]);
    }

    fn undo_last(&mut self) -> Option<Redo> {
        let Entry { old_len, change, fate, .. } = self.journal.pop_back()?;
        self.fated -= usize::from(fate.is_some());
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
}

impl Entry {
    fn bytes(&self) -> u64 {
        match &self.change {
            Change::Write { len, .. } => *len as u64,
            Change::SetLen { .. } => 0,
        }
    }
}
