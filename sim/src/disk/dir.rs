//! One directory: its entries as a process sees them, as they are durable, and what lies between.

use std::collections::{BTreeMap, VecDeque};

use rand_core::Rng;

use super::CrashReport;
use crate::rng::uniform;

/// Number of a file or directory; names point to it.
pub type Inode = u64;

#[derive(Clone, Debug)]
enum Change {
    Set {
        name: String,
        inode: Inode,
    },
    Remove {
        name: String,
    },
    /// Atomic: after a crash either both names are as before or both as after.
    Rename {
        from: String,
        to: String,
    },
}

/// Entries become durable in order, and only when the directory is synced.
#[derive(Clone, Default, Debug)]
pub struct Dir {
    live: BTreeMap<String, Inode>,
    durable: BTreeMap<String, Inode>,
    /// (when it happens, what): not covered by a finished sync.
    pending: VecDeque<(u64, Change)>,
    dropped: u64,
    /// (changes covered, counted from the directory's first; when the sync finishes).
    syncs: VecDeque<(u64, u64)>,
}

fn apply(entries: &mut BTreeMap<String, Inode>, change: &Change) {
    match change {
        Change::Set { name, inode } => {
            entries.insert(name.clone(), *inode);
        }
        Change::Remove { name } => {
            entries.remove(name);
        }
        Change::Rename { from, to } => {
            if let Some(inode) = entries.remove(from) {
                entries.insert(to.clone(), inode);
            }
        }
    }
}

impl Dir {
    pub fn lookup(&self, name: &str) -> Option<Inode> {
        self.live.get(name).copied()
    }

    /// Sorted by name.
    pub fn entries(&self) -> impl Iterator<Item = (&str, Inode)> {
        self.live.iter().map(|(name, inode)| (name.as_str(), *inode))
    }

    /// Everything that a name points to now, or may point to after a crash.
    pub fn reachable(&self) -> impl Iterator<Item = Inode> {
        let pending = self.pending.iter().filter_map(|(_, change)| match change {
            Change::Set { inode, .. } => Some(*inode),
            _ => None,
        });
        self.live.values().chain(self.durable.values()).copied().chain(pending)
    }

    pub fn set(&mut self, stamp: u64, name: &str, inode: Inode) {
        self.change(stamp, Change::Set { name: name.to_owned(), inode });
    }

    pub fn remove(&mut self, stamp: u64, name: &str) {
        self.change(stamp, Change::Remove { name: name.to_owned() });
    }

    pub fn rename(&mut self, stamp: u64, from: &str, to: &str) {
        self.change(stamp, Change::Rename { from: from.to_owned(), to: to.to_owned() });
    }

    fn change(&mut self, stamp: u64, change: Change) {
        apply(&mut self.live, &change);
        // Two lanes may write into one directory: keep the order of happening for the crash.
        let place = self.pending.partition_point(|(other, _)| *other <= stamp);
        for (covered, _) in &mut self.syncs {
            *covered += u64::from(self.dropped + (place as u64) < *covered);
        }
        self.pending.insert(place, (stamp, change));
    }

    /// A sync issued at `start` will finish at `end`.
    pub fn sync(&mut self, start: u64, end: u64) {
        let covered = self.pending.partition_point(|(stamp, _)| *stamp <= start) as u64;
        let (last_covered, last_end) = self.syncs.back().copied().unwrap_or((0, 0));
        self.syncs.push_back((last_covered.max(self.dropped + covered), end.max(last_end)));
    }

    pub fn settle(&mut self, now: u64) {
        while let Some((covered, end)) = self.syncs.front().copied()
            && end <= now
        {
            for (_, change) in self.pending.drain(..(covered - self.dropped) as usize) {
                apply(&mut self.durable, &change);
            }
            self.dropped = covered;
            self.syncs.pop_front();
        }
    }

    pub fn kill(&mut self, at: u64) {
        self.settle(at);
        self.syncs.clear();
        self.pending.retain(|(stamp, _)| *stamp <= at);
        self.rebuild();
    }

    /// Keeps a drawn prefix of what was not synced.
    pub fn power_loss(&mut self, at: u64, rng: &mut impl Rng, report: &mut CrashReport) {
        self.kill(at);
        let kept = uniform(rng, 0, self.pending.len() as u64) as usize;
        report.names_lost += (self.pending.len() - kept) as u64;
        for (_, change) in self.pending.drain(..).take(kept) {
            apply(&mut self.durable, &change);
        }
        self.rebuild();
    }

    fn rebuild(&mut self) {
        self.live = self.durable.clone();
        for (_, change) in &self.pending {
            apply(&mut self.live, change);
        }
    }
}
