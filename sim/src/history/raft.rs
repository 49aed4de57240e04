//! What the members' Raft logs held, as the world saw it: complete, and small.
//!
//! An entry is told apart by index, term, the term before it and a hash of its bytes; it is stored
//! once and named by a number. What happened to the logs is a list of 8-byte steps; what is rare
//! (leaderships, votes, starts, ends) stands beside it with its time. About 100 bytes per entry
//! for three members. Writing: [`RaftTrace::appended`] and its neighbours; reading: [`RaftTrace::steps`].

use bytes::Bytes;
use detkv_core::{Instant, MemberId};
use rustc_hash::FxHashMap;

/// An entry: its place in [`RaftTrace::entries`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EntryId(pub u32);

/// A log entry as a member held it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    pub index: u64,
    pub term: u64,
    /// Of the entry before it in the same log.
    pub prev_term: u64,
    /// Of its bytes and type.
    pub hash: u64,
}

/// One thing that happened to a member's Raft state.
#[derive(Clone, PartialEq, Debug)]
pub enum RaftStep<'t> {
    /// From `from` on the log is now this; what was there before is gone.
    Appended {
        member: MemberId,
        from: u64,
        entries: &'t [EntryId],
    },
    /// Everything up to `index` is known to be committed.
    Committed {
        member: MemberId,
        index: u64,
    },
    Rare {
        at: Instant,
        member: MemberId,
        what: &'t Rare,
    },
}

/// Seldom enough to carry its time.
#[derive(Clone, PartialEq, Debug)]
pub enum Rare {
    /// Its term went up (or the process has just started).
    Term { term: u64 },
    /// It leads its term from here on.
    Leads { term: u64 },
    /// It leads no more, but lives.
    Follows { term: u64 },
    /// It told somebody of its vote, its own candidacy included.
    Voted { term: u64, candidate: MemberId },
    /// A snapshot took the log's place.
    Installed { index: u64, term: u64 },
    /// The process opened its data directory; its log follows. `vote` is that of `term`.
    Opened { term: u64, vote: Option<MemberId>, offset: u64, offset_term: u64 },
    /// The process ended. `acknowledged`: the last index that it had told a leader to be durable
    /// here, in the log it had then.
    Ended { acknowledged: u64 },
    /// A fault took bytes that were durable on its disk: what it told of before binds it no more.
    DiskDamaged,
}

/// A lease's entry in a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseEntry {
    pub entry: EntryId,
    /// When it was first seen in a log, and in whose: its proposer's.
    pub at: Instant,
    pub member: MemberId,
    pub lease: i64,
    /// Of a grant; `None` for a revoke.
    pub granted_ttl_secs: Option<i64>,
}

/// An alarm's entry in a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AlarmEntry {
    pub entry: EntryId,
    pub at: Instant,
    /// Wire numbers of etcd's `AlarmAction` and `AlarmType`.
    pub action: i32,
    pub alarm: i32,
    pub of: u64,
}

#[derive(Clone, Copy, Debug)]
struct Packed {
    kind: Kind,
    /// Place in `members`.
    member: u8,
    /// Of `Appended`: entries.
    count: u16,
    /// First index, committed index, place in `rare`.
    value: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Appended,
    Committed,
    Rare,
}

/// Everything seen of the Raft logs, in the order of time.
#[derive(Clone, Default, Debug)]
pub struct RaftTrace {
    entries: Vec<Entry>,
    /// `newest[index]`: the entry at that index seen last, as id + 1; others are in `others`.
    newest: Vec<u32>,
    others: FxHashMap<u64, Vec<EntryId>>,
    members: Vec<MemberId>,
    steps: Vec<Packed>,
    /// Of the `Appended` steps, in order.
    appended: Vec<EntryId>,
    rare: Vec<(Instant, Rare)>,
    leases: Vec<LeaseEntry>,
    alarms: Vec<AlarmEntry>,
    compactions: Vec<i64>,
    /// By entry, when they are kept: whether it is a configuration change, and its bytes.
    payloads: Option<Vec<(bool, Bytes)>>,
}

impl RaftTrace {
    /// Keeps the bytes of entries from here on: what the requests were can be told afterwards.
    pub fn keep_payloads(&mut self) {
        self.payloads = Some(Vec::new());
    }

    pub fn keep_payload(&mut self, id: EntryId, is_change: bool, data: &Bytes) {
        if let Some(payloads) = &mut self.payloads {
            assert_eq!(payloads.len(), id.0 as usize, "every new entry is kept, in order");
            payloads.push((is_change, data.clone()));
        }
    }

    /// Bytes of an entry and whether it is a configuration change; `None` when they were not kept.
    pub fn payload(&self, id: EntryId) -> Option<&(bool, Bytes)> {
        self.payloads.as_ref()?.get(id.0 as usize)
    }

    /// The entry's number, and whether it is new.
    pub fn entry_id(&mut self, entry: Entry) -> (EntryId, bool) {
        let place = usize::try_from(entry.index).expect("a log index fits in memory");
        if place >= self.newest.len() {
            self.newest.resize(place + 1, 0);
        }
        if let Some(newest) = self.newest[place].checked_sub(1) {
            if self.entries[newest as usize] == entry {
                return (EntryId(newest), false);
            }
            let others = self.others.entry(entry.index).or_default();
            if let Some(id) = others.iter().find(|id| self.entries[id.0 as usize] == entry) {
                return (*id, false);
            }
            others.push(EntryId(newest));
        }
        let id = EntryId(u32::try_from(self.entries.len()).expect("fewer than 2^32 entries"));
        self.entries.push(entry);
        self.newest[place] = id.0 + 1;
        (id, true)
    }

    pub fn appended(&mut self, member: MemberId, from: u64, entries: &[EntryId]) {
        // An empty one is a log that was cut.
        if entries.is_empty() {
            return self.step(Kind::Appended, member, 0, from);
        }
        let mut from = from;
        for part in entries.chunks(usize::from(u16::MAX)) {
            self.step(Kind::Appended, member, part.len() as u16, from);
            self.appended.extend_from_slice(part);
            from += part.len() as u64;
        }
    }

    pub fn committed(&mut self, member: MemberId, index: u64) {
        self.step(Kind::Committed, member, 0, index);
    }

    pub fn rare(&mut self, at: Instant, member: MemberId, what: Rare) {
        let place = self.rare.len() as u64;
        self.rare.push((at, what));
        self.step(Kind::Rare, member, 0, place);
    }

    pub fn lease(&mut self, entry: LeaseEntry) {
        self.leases.push(entry);
    }

    pub fn alarm(&mut self, entry: AlarmEntry) {
        self.alarms.push(entry);
    }

    pub fn compaction(&mut self, revision: i64) {
        self.compactions.push(revision);
    }

    fn step(&mut self, kind: Kind, member: MemberId, count: u16, value: u64) {
        let known = self.members.iter().position(|other| *other == member);
        let member = known.unwrap_or_else(|| {
            self.members.push(member);
            self.members.len() - 1
        });
        let member = u8::try_from(member).expect("a run has fewer than 256 members");
        let value = u32::try_from(value).expect("a run has fewer than 2^32 entries");
        self.steps.push(Packed { kind, member, count, value });
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn entry(&self, id: EntryId) -> &Entry {
        &self.entries[id.0 as usize]
    }

    /// Grants and revokes in the order in which they were first seen in a log.
    pub fn leases(&self) -> &[LeaseEntry] {
        &self.leases
    }

    pub fn alarms(&self) -> &[AlarmEntry] {
        &self.alarms
    }

    /// Revisions that somebody proposed to compact to, a client or a member, in the order in which they were first
    /// seen in a log.
    pub fn compactions(&self) -> &[i64] {
        &self.compactions
    }

    /// Nothing was watched.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub fn steps(&self) -> impl Iterator<Item = RaftStep<'_>> {
        let mut taken = 0;
        self.steps.iter().map(move |step| {
            let member = self.members[usize::from(step.member)];
            let value = u64::from(step.value);
            match step.kind {
                Kind::Appended => {
                    let from = taken;
                    taken += usize::from(step.count);
                    RaftStep::Appended { member, from: value, entries: &self.appended[from..taken] }
                }
                Kind::Committed => RaftStep::Committed { member, index: value },
                Kind::Rare => {
                    let (at, what) = &self.rare[step.value as usize];
                    RaftStep::Rare { at: *at, member, what }
                }
            }
        })
    }

    /// Bytes held, about.
    pub fn bytes(&self) -> usize {
        self.entries.len() * size_of::<Entry>()
            + self.newest.len() * 4
            + self.steps.len() * size_of::<Packed>()
            + self.appended.len() * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64, hash: u64) -> Entry {
        Entry { index, term, prev_term: 1, hash }
    }

    #[test]
    fn an_entry_is_stored_once_even_when_another_stood_in_its_place() {
        let mut trace = RaftTrace::default();
        let (a, is_new) = trace.entry_id(entry(3, 1, 7));
        assert!(is_new);
        let (b, is_new) = trace.entry_id(entry(3, 2, 8));
        assert!(is_new && a != b);
        assert_eq!(trace.entry_id(entry(3, 1, 7)), (a, false));
        assert_eq!(trace.entry_id(entry(3, 2, 8)), (b, false));
        assert_eq!(trace.entries().len(), 2);
    }

    #[test]
    fn steps_come_back_as_they_were_recorded() {
        let mut trace = RaftTrace::default();
        let (m, n, at) = (MemberId(9), MemberId(1 << 60), Instant { ns: 5 });
        let ids: Vec<EntryId> = (1..=3).map(|i| trace.entry_id(entry(i, 1, i)).0).collect();
        trace.appended(m, 1, &ids[..2]);
        trace.rare(at, n, Rare::Leads { term: 2 });
        trace.appended(n, 1, &ids);
        trace.committed(m, 2);
        let steps: Vec<RaftStep> = trace.steps().collect();
        assert_eq!(
            steps,
            [
                RaftStep::Appended { member: m, from: 1, entries: &ids[..2] },
                RaftStep::Rare { at, member: n, what: &Rare::Leads { term: 2 } },
                RaftStep::Appended { member: n, from: 1, entries: &ids },
                RaftStep::Committed { member: m, index: 2 },
            ]
        );
        assert_eq!(size_of::<Packed>(), 8);
    }
}
