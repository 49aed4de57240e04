//! A store for the search: plain rows in a map, copied on write. Slow, short, and unlike the model of the
//! revision-ordered checker.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::history::{
    Answer, Call, CompareCall, DeleteCall, Deleted, End, History, KeyId, KeyRange, Kv, KvId, Op,
    PutCall, RangeCall, Rows, Target, TxnAnswer, TxnCall, ValueId,
};

/// What is known of revisions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// All of them, from 1 on.
    Exact,
    /// Only those that answers name.
    ByKey,
}

/// A row; revisions are `None` where a write without an answer made it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Row {
    value: ValueId,
    create_revision: Option<i64>,
    mod_revision: Option<i64>,
    version: i64,
    lease: i64,
}

type Table = BTreeMap<KeyId, Row>;

#[derive(Clone, Debug)]
pub struct State {
    pub revision: i64,
    compacted: i64,
    rows: Rc<Table>,
    /// `past[r - 1]`: the rows at revision `r`; in exact mode.
    past: Vec<Rc<Table>>,
    /// Of everything above but `compacted`.
    hash: u128,
}

/// An answer with the revision of its header.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'h> {
    pub revision: i64,
    pub answer: &'h Answer,
}

/// What a call leaves behind.
#[derive(Debug)]
pub struct After {
    pub state: State,
    /// In execution order; `None` is a delete.
    pub changes: Vec<(KeyId, Option<Row>)>,
}

/// The answer is not the one this state gives.
pub struct Mismatch;

type Fits = Result<(), Mismatch>;

fn fits(holds: bool) -> Fits {
    if holds { Ok(()) } else { Err(Mismatch) }
}

impl State {
    pub fn new() -> Self {
        let rows = Rc::<Table>::default();
        Self { revision: 1, compacted: 0, past: vec![rows.clone()], rows, hash: 0 }
    }

    pub fn key(&self) -> (u128, i64) {
        (self.hash, self.compacted)
    }

    /// Leases that have keys.
    pub fn leases(&self) -> Vec<i64> {
        let mut leases: Vec<i64> =
            self.rows.values().map(|row| row.lease).filter(|lease| *lease != 0).collect();
        leases.sort_unstable();
        leases.dedup();
        leases
    }
}

/// One call on one state.
pub struct Step<'s, 'h> {
    history: &'h History,
    mode: Mode,
    before: &'s State,
    rows: Table,
    /// Of the write, if it becomes one.
    revision: Option<i64>,
    /// In execution order.
    changes: Vec<(KeyId, Option<Row>)>,
}

impl<'s, 'h> Step<'s, 'h> {
    pub fn new(history: &'h History, mode: Mode, before: &'s State) -> Self {
        let rows = before.rows.as_ref().clone();
        Self { history, mode, before, rows, revision: None, changes: Vec::new() }
    }

    /// The state after `call`; its answer, if any, must be the one that this state gives.
    pub fn call(mut self, call: &Call, answered: Option<Answered>) -> Result<After, Mismatch> {
        self.revision = match self.mode {
            Mode::Exact => Some(self.before.revision + 1),
            Mode::ByKey => answered.map(|answered| answered.revision),
        };
        let answer = answered.map(|answered| answered.answer);
        match call {
            Call::Range(range) => self.range(range, answer)?,
            Call::Put(put) => self.put(put, answer)?,
            Call::Delete(delete) => self.delete(delete, answer)?,
            Call::Txn(txn) => self.txn(txn, answer)?,
            Call::LeaseRevoke { id } => self.end_lease(*id),
            _ => {}
        }
        let compacted = match call {
            Call::Compact { revision } => {
                fits(*revision <= self.before.revision && *revision > self.before.compacted)?;
                *revision
            }
            _ => self.before.compacted,
        };
        let mode = self.mode;
        let mut after = self.finish();
        after.state.compacted = compacted;
        if let (Mode::Exact, Some(answered)) = (mode, answered) {
            fits(answered.revision == after.state.revision)?;
        }
        Ok(after)
    }

    /// The lease's time is over.
    pub fn expire(mut self, lease: i64) -> After {
        self.revision = (self.mode == Mode::Exact).then_some(self.before.revision + 1);
        self.end_lease(lease);
        self.finish()
    }

    fn finish(self) -> After {
        let mut state = self.before.clone();
        if !self.changes.is_empty() {
            state.rows = Rc::new(self.rows);
            state.revision += 1;
            if self.mode == Mode::Exact {
                state.past.push(state.rows.clone());
            }
            state.hash = hash(if self.mode == Mode::Exact { state.hash } else { 0 }, &state.rows);
        }
        After { state, changes: self.changes }
    }

    fn keys(&self, range: KeyRange) -> Vec<KeyId> {
        in_order(self.history, &self.rows, range)
    }

    fn range(&self, range: &RangeCall, answer: Option<&Answer>) -> Fits {
        let Some(answer) = answer else { return Ok(()) };
        let Answer::Rows(got) = answer else { return Err(Mismatch) };
        let is_plain = range.sort_order == 0
            && range.min_mod_revision == 0
            && range.max_mod_revision == 0
            && range.min_create_revision == 0
            && range.max_create_revision == 0;
        let table = if range.revision > 0 {
            if self.mode == Mode::ByKey {
                return Ok(());
            }
            fits(range.revision >= self.before.compacted)?;
            let place = (range.revision - 1) as usize;
            self.before.past.get(place).ok_or(Mismatch)?.as_ref()
        } else {
            &self.rows
        };
        if is_plain { self.rows_fit(table, range, got) } else { Ok(()) }
    }

    fn rows_fit(&self, table: &Table, range: &RangeCall, got: &Rows) -> Fits {
        let found = in_order(self.history, table, range.keys);
        fits(got.count == found.len() as i64)?;
        let shown = if range.count_only { 0 } else { found.len() };
        let limit = usize::try_from(range.limit).ok().filter(|limit| *limit > 0);
        let cut = shown.min(limit.unwrap_or(usize::MAX));
        fits(got.more == (cut < shown) && got.kvs.len() == cut)?;
        for (key, kv) in found.iter().zip(&got.kvs) {
            self.row_fits(*key, &table[key], *kv, range.keys_only)?;
        }
        Ok(())
    }

    fn row_fits(&self, key: KeyId, row: &Row, kv: KvId, keys_only: bool) -> Fits {
        let shown = self.history.kv(kv);
        let fits_revision = |known: Option<i64>, shown| known.is_none_or(|known| known == shown);
        fits(
            shown.key == key
                && (keys_only || shown.value == row.value)
                && fits_revision(row.create_revision, shown.create_revision)
                && fits_revision(row.mod_revision, shown.mod_revision)
                && shown.version == row.version
                && shown.lease == row.lease,
        )
    }

    fn put(&mut self, put: &PutCall, answer: Option<&Answer>) -> Fits {
        let before = self.rows.get(&put.key).copied();
        if let Some(answer) = answer {
            let Answer::Put { prev } = answer else { return Err(Mismatch) };
            match (prev, before.filter(|_| put.prev_kv)) {
                (Some(prev), Some(before)) => self.row_fits(put.key, &before, *prev, false)?,
                (None, None) => {}
                _ => return Err(Mismatch),
            }
        }
        fits(before.is_some() || !(put.ignore_value || put.ignore_lease))?;
        let kept = |row: Option<Row>| row.expect("checked just above");
        let row = Row {
            value: if put.ignore_value { kept(before).value } else { put.value },
            lease: if put.ignore_lease { kept(before).lease } else { put.lease },
            create_revision: before.map_or(self.revision, |row| row.create_revision),
            mod_revision: self.revision,
            version: before.map_or(1, |row| row.version + 1),
        };
        self.rows.insert(put.key, row);
        self.changes.push((put.key, Some(row)));
        Ok(())
    }

    fn delete(&mut self, delete: &DeleteCall, answer: Option<&Answer>) -> Fits {
        let keys = self.keys(delete.keys);
        if let Some(answer) = answer {
            let Answer::Deleted(got) = answer else { return Err(Mismatch) };
            let Deleted { deleted, prev } = got.as_ref();
            fits(*deleted == keys.len() as i64)?;
            fits(prev.len() == if delete.prev_kv { keys.len() } else { 0 })?;
            for (key, kv) in keys.iter().zip(prev) {
                self.row_fits(*key, &self.rows[key], *kv, false)?;
            }
        }
        for key in keys {
            self.remove(key);
        }
        Ok(())
    }

    fn remove(&mut self, key: KeyId) {
        self.rows.remove(&key);
        self.changes.push((key, None));
    }

    fn end_lease(&mut self, lease: i64) {
        let all = self.before.rows.iter();
        let own = all.filter(|(_, row)| row.lease == lease).map(|(key, _)| *key);
        let mut own: Vec<KeyId> = own.collect();
        own.sort_by_key(|key| self.history.key(*key));
        own.into_iter().for_each(|key| self.remove(key));
    }

    fn txn(&mut self, txn: &TxnCall, answer: Option<&Answer>) -> Fits {
        let got = match answer {
            Some(Answer::Txn(got)) => Some(got.as_ref()),
            Some(_) => return Err(Mismatch),
            None => None,
        };
        let holds = self.compares(&txn.compares);
        let succeeded = match (holds, got) {
            (Some(holds), Some(got)) => {
                fits(holds == got.succeeded)?;
                holds
            }
            (Some(holds), None) => holds,
            (None, Some(got)) => got.succeeded,
            // By key only: either; it is enough to try the one that writes.
            (None, None) => true,
        };
        let ops = if succeeded { &txn.success } else { &txn.failure };
        fits(got.is_none_or(|got| got.answers.len() == ops.len()))?;
        self.branch(ops, got)
    }

    fn branch(&mut self, ops: &[Op], got: Option<&TxnAnswer>) -> Fits {
        for (i, op) in ops.iter().enumerate() {
            let answer = got.map(|got| &got.answers[i]);
            match op {
                Op::Range(range) => self.range(range, answer)?,
                Op::Put(put) => self.put(put, answer)?,
                Op::Delete(delete) => self.delete(delete, answer)?,
                Op::Txn(txn) => self.txn(txn, answer)?,
            }
        }
        Ok(())
    }

    /// On the state before the whole txn; `None` when a revision that nobody named decides.
    fn compares(&self, compares: &[CompareCall]) -> Option<bool> {
        let mut all = Some(true);
        for compare in compares {
            let keys = in_order(self.history, &self.before.rows, compare.keys);
            let holds = if keys.is_empty() {
                self.compare(compare, None)
            } else {
                keys.iter().try_fold(true, |all, key| {
                    Some(all && self.compare(compare, self.before.rows.get(key))?)
                })
            };
            match holds {
                Some(true) => {}
                Some(false) => return Some(false),
                None => all = None,
            }
        }
        all
    }

    fn compare(&self, compare: &CompareCall, row: Option<&Row>) -> Option<bool> {
        let order = match compare.target {
            Target::Version(n) => row.map_or(0, |row| row.version).cmp(&n),
            Target::Lease(n) => row.map_or(0, |row| row.lease).cmp(&n),
            Target::Create(n) => row.map_or(Some(0), |row| row.create_revision)?.cmp(&n),
            Target::Mod(n) => row.map_or(Some(0), |row| row.mod_revision)?.cmp(&n),
            Target::Unknown => std::cmp::Ordering::Equal,
            Target::Value(value) => {
                let Some(row) = row else { return Some(false) };
                self.history.value(row.value).order(self.history.value(value))?
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
}

/// Whether a change shows as `row` (a delete as nothing).
pub fn shows(change: &(KeyId, Option<Row>), key: KeyId, row: Option<&Kv>) -> bool {
    change.0 == key
        && match (&change.1, row) {
            (None, None) => true,
            (Some(own), Some(kv)) => {
                own.value == kv.value
                    && own.create_revision == Some(kv.create_revision)
                    && own.mod_revision == Some(kv.mod_revision)
                    && (own.version, own.lease) == (kv.version, kv.lease)
            }
            _ => false,
        }
}

pub fn is_in(history: &History, range: KeyRange, key: KeyId) -> bool {
    let (from, key) = (history.key(range.key), history.key(key));
    match range.end {
        End::Single => key == from,
        End::Open => key >= from,
        End::Before(end) => key >= from && key < history.key(end),
    }
}

fn in_order(history: &History, table: &Table, range: KeyRange) -> Vec<KeyId> {
    let mut keys: Vec<KeyId> =
        table.keys().copied().filter(|key| is_in(history, range, *key)).collect();
    keys.sort_by_key(|key| history.key(*key));
    keys
}

fn hash(before: u128, rows: &Table) -> u128 {
    use std::fmt::Write as _;
    let mut text = String::new();
    write!(text, "{before:x} {rows:?}").expect("writing to a string succeeds");
    xxhash_rust::xxh3::xxh3_128(text.as_bytes())
}
