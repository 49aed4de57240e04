//! The store as a checker sees it: every version of every key, and what a request does to them.
//!
//! Written from the surface spec §3 alone, and simple on purpose: it must not share a mistake with core.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Range;

use crate::history::{
    Answer, CompareCall, DeleteCall, Deleted, End, History, KeyId, KeyRange, Kv, KvId, Op, PutCall,
    RangeCall, Target, TxnAnswer, TxnCall,
};

/// Place of a key in the bytewise order of all keys of the history.
pub type Rank = u32;

/// What is known of a key at a revision.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Slot {
    Absent,
    Known(Kv),
    /// A write whose outcome cannot be told may have changed it.
    Unknown,
}

#[derive(Clone, Copy, Debug)]
struct Version {
    revision: i64,
    slot: Slot,
}

/// All versions of all keys up to the newest revision applied.
#[derive(Debug)]
pub struct Model<'h> {
    pub history: &'h History,
    /// Keys in bytewise order.
    order: Vec<KeyId>,
    /// By key id.
    ranks: Vec<Rank>,
    /// By rank; revisions never decrease.
    versions: Vec<Vec<Version>>,
}

/// A change of one key.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Effect {
    pub rank: Rank,
    /// `Absent` for a delete.
    pub slot: Slot,
}

/// Why an answer is not the one the model gives, in words.
pub type Mismatch = String;

impl<'h> Model<'h> {
    pub fn new(history: &'h History) -> Self {
        let mut order: Vec<KeyId> = (0..history.keys().len() as u32).map(KeyId).collect();
        order.sort_by_key(|key| history.key(*key));
        let mut ranks = vec![0; order.len()];
        for (rank, key) in order.iter().enumerate() {
            ranks[key.0 as usize] = rank as Rank;
        }
        let versions = vec![Vec::new(); order.len()];
        Self { history, order, ranks, versions }
    }

    pub fn rank(&self, key: KeyId) -> Rank {
        self.ranks[key.0 as usize]
    }

    pub fn key(&self, rank: Rank) -> KeyId {
        self.order[rank as usize]
    }

    /// The keys of the history that lie in `keys`.
    pub fn ranks(&self, keys: KeyRange) -> Range<Rank> {
        let from = self.rank(keys.key);
        match keys.end {
            End::Single => from..from + 1,
            End::Open => from..self.order.len() as Rank,
            End::Before(end) => from..self.rank(end).max(from),
        }
    }

    /// The key as of `revision`.
    pub fn at(&self, rank: Rank, revision: i64) -> Slot {
        let versions = &self.versions[rank as usize];
        match versions.last() {
            None => Slot::Absent,
            Some(last) if last.revision <= revision => last.slot,
            Some(_) => match versions.partition_point(|v| v.revision <= revision) {
                0 => Slot::Absent,
                n => versions[n - 1].slot,
            },
        }
    }

    /// Invariant: `revision` never decreases.
    pub fn apply(&mut self, revision: i64, effect: Effect) {
        self.versions[effect.rank as usize].push(Version { revision, slot: effect.slot });
    }

    /// A row in words: `"k"="v" (mod 7, create 5, version 2)`.
    pub fn show(&self, kv: &Kv) -> String {
        let key = self.history.key(kv.key);
        let value = self.history.value(kv.value);
        let (mod_revision, create, version) = (kv.mod_revision, kv.create_revision, kv.version);
        let lease = if kv.lease == 0 { String::new() } else { format!(", lease {:x}", kv.lease) };
        format!("{key:?}={value:?} (mod {mod_revision}, create {create}, version {version}{lease})")
    }

    pub fn show_slot(&self, slot: &Slot) -> String {
        match slot {
            Slot::Absent => "nothing".to_owned(),
            Slot::Known(kv) => self.show(kv),
            Slot::Unknown => "something unknown".to_owned(),
        }
    }
}

/// The store at one revision, and the changes that one request makes on top of it.
///
/// Each `*_op` computes what the request does and, when `answer` is given, compares it.
#[derive(Debug)]
pub struct View<'m, 'h> {
    model: &'m Model<'h>,
    revision: i64,
    overlay: BTreeMap<Rank, Slot>,
    pub effects: Vec<Effect>,
}

impl<'m, 'h> View<'m, 'h> {
    pub fn new(model: &'m Model<'h>, revision: i64) -> Self {
        Self { model, revision, overlay: BTreeMap::new(), effects: Vec::new() }
    }

    fn slot(&self, rank: Rank) -> Slot {
        match self.overlay.get(&rank) {
            Some(slot) => *slot,
            None => self.model.at(rank, self.revision),
        }
    }

    /// Takes `slot` for what the key held, where that is not known. The compares of a txn do not see it.
    pub fn suppose(&mut self, rank: Rank, slot: Slot) {
        self.overlay.insert(rank, slot);
    }

    fn change(&mut self, rank: Rank, slot: Slot) {
        self.overlay.insert(rank, slot);
        self.effects.push(Effect { rank, slot });
    }

    pub fn put_op(&mut self, put: &PutCall, answer: Option<&Answer>) -> Result<(), Mismatch> {
        let rank = self.model.rank(put.key);
        let before = self.slot(rank);
        match answer {
            Some(Answer::Put { prev }) => self.compare_prev(put.prev_kv, &before, *prev)?,
            Some(other) => return Err(format!("a put was answered with {other:?}")),
            None => {}
        }
        let revision = self.revision + 1;
        let after = match before {
            Slot::Unknown => Slot::Unknown,
            Slot::Absent if put.ignore_value || put.ignore_lease => {
                return Err("it keeps the value or lease of a key that is not there".to_owned());
            }
            Slot::Absent => Slot::Known(Kv {
                key: put.key,
                value: put.value,
                create_revision: revision,
                mod_revision: revision,
                version: 1,
                lease: put.lease,
            }),
            Slot::Known(kv) => Slot::Known(Kv {
                value: if put.ignore_value { kv.value } else { put.value },
                lease: if put.ignore_lease { kv.lease } else { put.lease },
                mod_revision: revision,
                version: kv.version + 1,
                ..kv
            }),
        };
        self.change(rank, after);
        Ok(())
    }

    fn compare_prev(&self, asked: bool, before: &Slot, got: Option<KvId>) -> Result<(), Mismatch> {
        let got = got.map(|kv| *self.model.history.kv(kv));
        let right = match before {
            Slot::Unknown => true,
            Slot::Known(kv) if asked => got == Some(*kv),
            _ => got.is_none(),
        };
        if right {
            return Ok(());
        }
        let got = got.map_or("no prev_kv".to_owned(), |kv| self.model.show(&kv));
        Err(format!("prev_kv: the store held {}, got {got}", self.model.show_slot(before)))
    }

    pub fn delete_op(
        &mut self,
        delete: &DeleteCall,
        answer: Option<&Answer>,
    ) -> Result<(), Mismatch> {
        let mut gone = Vec::new();
        let mut is_sure = true;
        for rank in self.model.ranks(delete.keys) {
            match self.slot(rank) {
                Slot::Absent => continue,
                Slot::Known(kv) => gone.push(kv),
                Slot::Unknown => is_sure = false,
            }
            self.change(rank, Slot::Absent);
        }
        match answer {
            Some(Answer::Deleted(got)) if is_sure => {
                self.compare_deleted(delete.prev_kv, &gone, got)
            }
            Some(Answer::Deleted(_)) | None => Ok(()),
            Some(other) => Err(format!("a delete was answered with {other:?}")),
        }
    }

    fn compare_deleted(&self, asked: bool, gone: &[Kv], got: &Deleted) -> Result<(), Mismatch> {
        if got.deleted != gone.len() as i64 {
            return Err(format!("deleted {} keys, the store held {}", got.deleted, gone.len()));
        }
        let expected = if asked { gone } else { &[] };
        let prev = got.prev.iter().map(|kv| self.model.history.kv(*kv));
        if !prev.eq(expected) {
            return Err("prev_kvs are not the rows that were deleted".to_owned());
        }
        Ok(())
    }

    pub fn txn_op(&mut self, txn: &TxnCall, answer: Option<&Answer>) -> Result<(), Mismatch> {
        let got = match answer {
            Some(Answer::Txn(got)) => Some(got),
            Some(other) => return Err(format!("a txn was answered with {other:?}")),
            None => None,
        };
        let decided = self.compares_hold(&txn.compares);
        let succeeded = match (decided, got) {
            (Some(holds), Some(got)) if holds != got.succeeded => {
                return Err(format!("succeeded={}, but the compares say {holds}", got.succeeded));
            }
            (Some(holds), _) => holds,
            (None, Some(got)) => got.succeeded,
            (None, None) => return Err("its compares cannot be decided".to_owned()),
        };
        let ops = if succeeded { &txn.success } else { &txn.failure };
        if let Some(got) = got
            && got.answers.len() != ops.len()
        {
            return Err(format!("{} answers for {} operations", got.answers.len(), ops.len()));
        }
        self.branch(ops, got.map(|got| &**got))
    }

    /// What the compares of a txn without an answer may have come to.
    pub fn outcomes(&self, txn: &TxnCall) -> &'static [bool] {
        match self.compares_hold(&txn.compares) {
            Some(true) => &[true],
            Some(false) => &[false],
            None => &[true, false],
        }
    }

    /// The branch of a txn without an answer that one of its `outcomes` takes.
    pub fn outcome_op(&mut self, txn: &TxnCall, succeeded: bool) -> Result<(), Mismatch> {
        self.branch(if succeeded { &txn.success } else { &txn.failure }, None)
    }

    fn branch(&mut self, ops: &[Op], got: Option<&TxnAnswer>) -> Result<(), Mismatch> {
        for (i, op) in ops.iter().enumerate() {
            let answer = got.map(|got| &got.answers[i]);
            match op {
                Op::Range(range) => self.range_op(range, answer),
                Op::Put(put) => self.put_op(put, answer),
                Op::Delete(delete) => self.delete_op(delete, answer),
                Op::Txn(txn) => self.txn_op(txn, answer),
            }
            .map_err(|mismatch| format!("operation {i}: {mismatch}"))?;
        }
        Ok(())
    }

    /// `None` when it depends on something unknown. Sees the state before the whole txn (surface spec §3.5).
    fn compares_hold(&self, compares: &[CompareCall]) -> Option<bool> {
        let mut all = Some(true);
        for compare in compares {
            match self.compare_holds(compare) {
                Some(true) => {}
                Some(false) => return Some(false),
                None => all = None,
            }
        }
        all
    }

    fn compare_holds(&self, compare: &CompareCall) -> Option<bool> {
        let mut is_empty = true;
        for rank in self.model.ranks(compare.keys) {
            match self.model.at(rank, self.revision) {
                Slot::Absent => {}
                Slot::Unknown => return None,
                Slot::Known(kv) => {
                    is_empty = false;
                    if !self.row_holds(compare, Some(&kv))? {
                        return Some(false);
                    }
                }
            }
        }
        if is_empty { self.row_holds(compare, None) } else { Some(true) }
    }

    fn row_holds(&self, compare: &CompareCall, kv: Option<&Kv>) -> Option<bool> {
        let stored = |field: fn(&Kv) -> i64| kv.map_or(0, field);
        let order = match compare.target {
            Target::Version(n) => stored(|kv| kv.version).cmp(&n),
            Target::Create(n) => stored(|kv| kv.create_revision).cmp(&n),
            Target::Mod(n) => stored(|kv| kv.mod_revision).cmp(&n),
            Target::Lease(n) => stored(|kv| kv.lease).cmp(&n),
            Target::Unknown => Ordering::Equal,
            Target::Value(value) => {
                // A value compare on a missing key is false, even NOT_EQUAL.
                let Some(kv) = kv else { return Some(false) };
                let stored = self.model.history.value(kv.value);
                match stored.order(self.model.history.value(value)) {
                    Some(order) => order,
                    // Two long values: unequal, which is bigger is not known.
                    None if compare.result == 0 => return Some(false),
                    None if compare.result == 3 => return Some(true),
                    None => return None,
                }
            }
        };
        Some(match compare.result {
            0 => order.is_eq(),
            1 => order.is_gt(),
            2 => order.is_lt(),
            3 => order.is_ne(),
            _ => true,
        })
    }

    pub fn range_op(&self, range: &RangeCall, answer: Option<&Answer>) -> Result<(), Mismatch> {
        let got = match answer {
            Some(Answer::Rows(got)) => got,
            Some(other) => return Err(format!("a range was answered with {other:?}")),
            None => return Ok(()),
        };
        if range.revision > self.revision {
            let (asked, now) = (range.revision, self.revision);
            return Err(format!("revision {asked} was read from a store at revision {now}"));
        }
        let mut rows = Vec::with_capacity(got.kvs.len());
        for rank in self.model.ranks(range.keys) {
            let slot = if range.revision > 0 {
                self.model.at(rank, range.revision)
            } else {
                self.slot(rank)
            };
            match slot {
                Slot::Absent => {}
                Slot::Known(kv) => rows.push(kv),
                Slot::Unknown => return Ok(()),
            }
        }
        super::range::compare(self.model, range, rows, got)
    }
}
