//! What is on the disk after a power loss: the durable bytes, and what the page cache happened to have flushed.

use std::collections::BTreeMap;

use rand_core::Rng;

use super::file::Fate;
use super::sparse::Sparse;
use super::{CrashModel, CrashReport, SECTOR};
use crate::rng::{chance, uniform};

/// A change taken out of the journal together with the bytes it wrote.
pub enum Redo {
    Write { offset: u64, data: Vec<u8> },
    SetLen { len: u64 },
}

/// What a power loss makes of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// A finished sync covers it.
    Durable,
    /// No finished sync covers it: it is kept, lost or torn, as drawn.
    Dirty,
    Fated {
        fate: Fate,
        durable: bool,
    },
}

impl How {
    pub fn new(fate: Option<Fate>, durable: bool) -> Self {
        match fate {
            Some(fate) => How::Fated { fate, durable },
            None if durable => How::Durable,
            None => How::Dirty,
        }
    }

    fn is_durable(self) -> bool {
        matches!(self, How::Durable | How::Fated { durable: true, .. })
    }
}

/// `disk` holds the durable bytes. Applies to it what the page cache had flushed of `changes`.
///
/// Returns the end of what was written.
pub fn write_back(
    disk: &mut Sparse,
    changes: &[(Redo, How)],
    model: &CrashModel,
    rng: &mut impl Rng,
    report: &mut CrashReport,
) -> u64 {
    if changes.is_empty() {
        return 0;
    }
    // The length is metadata: after the crash it is what it was after some prefix of the changes.
    let certain = changes.iter().take_while(|(_, how)| how.is_durable()).count();
    let lengths_kept = uniform(rng, certain as u64, changes.len() as u64) as usize;
    let mut len_after = disk.len();
    let mut len_final = len_after;
    let mut cache = PageCache { sectors: BTreeMap::new(), zero_from: u64::MAX, written: 0 };
    for (i, (change, how)) in changes.iter().enumerate() {
        match change {
            Redo::Write { offset, data } => {
                let share = Share::draw(*how, model, rng);
                let sectors = cache.write(*offset, data, &share, disk, rng);
                match how {
                    How::Dirty => report.count(sectors),
                    How::Fated { durable: true, .. } => report.lied += 1,
                    How::Fated { .. } | How::Durable => {}
                }
                len_after = len_after.max(offset + data.len() as u64);
            }
            Redo::SetLen { len } => {
                if *len < len_after {
                    cache.cut(*len);
                    if i < lengths_kept {
                        disk.zero(*len, (disk.len().saturating_sub(*len)) as usize);
                    }
                }
                len_after = *len;
            }
        }
        if i < lengths_kept {
            len_final = len_after;
        }
    }
    disk.set_len(len_final);
    cache.written
}

/// How much of a write is on the disk.
enum Share {
    All,
    Nothing,
    /// Pieces of so many bytes, each as likely as not.
    Pieces(u64),
    /// All of it, elsewhere.
    At(u64),
}

impl Share {
    fn draw(how: How, model: &CrashModel, rng: &mut impl Rng) -> Self {
        let pieces = Share::Pieces(model.tear_bytes.max(SECTOR as u64));
        match how {
            How::Durable => Share::All,
            How::Fated { fate: Fate::Dropped | Fate::Lost, .. } => Share::Nothing,
            How::Fated { fate: Fate::Torn, .. } => pieces,
            How::Fated { fate: Fate::At(to), .. } => Share::At(to),
            How::Dirty => {
                let draw = uniform(rng, 0, 99) as u32;
                if draw < model.keep_percent {
                    Share::All
                } else if draw < model.keep_percent + model.lose_percent {
                    Share::Nothing
                } else {
                    pieces
                }
            }
        }
    }
}

/// What the page cache held, change by change, while the disk was left behind.
struct PageCache {
    sectors: BTreeMap<u64, [u8; SECTOR]>,
    /// Everything from here on was cut off at some point: a sector seen first later reads as zeros there.
    zero_from: u64,
    /// End of what went to the disk.
    written: u64,
}

impl PageCache {
    /// Returns how many sectors were kept and lost.
    fn write(
        &mut self,
        offset: u64,
        data: &[u8],
        share: &Share,
        disk: &mut Sparse,
        rng: &mut impl Rng,
    ) -> (u64, u64) {
        let (mut kept, mut lost) = (0, 0);
        let sector_bytes = SECTOR as u64;
        let (mut at, mut rest) = (offset, data);
        let mut piece = None;
        while !rest.is_empty() {
            let (sector, from) = (at / sector_bytes, (at % sector_bytes) as usize);
            let n = (SECTOR - from).min(rest.len());
            let content = self.sector(sector, disk);
            content[from..from + n].copy_from_slice(&rest[..n]);
            let keep = match share {
                Share::All => true,
                Share::Nothing | Share::At(_) => false,
                Share::Pieces(bytes) => match piece {
                    Some((number, keep)) if number == at / bytes => keep,
                    _ => {
                        let keep = chance(rng, 500_000);
                        piece = Some((at / bytes, keep));
                        keep
                    }
                },
            };
            if keep {
                disk.write(sector * sector_bytes, content);
                self.written = self.written.max((sector + 1) * sector_bytes);
                kept += 1;
            } else {
                lost += 1;
            }
            at += n as u64;
            rest = &rest[n..];
        }
        if let Share::At(to) = share {
            disk.write(*to, data);
            self.written = self.written.max(to + data.len() as u64);
        }
        (kept, lost)
    }

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
