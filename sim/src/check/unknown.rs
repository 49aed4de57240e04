//! Which write without an answer made which revision.
//!
//! The state before each revision is known, so whether a given write explains what was seen does not
//! depend on the other choices: the pairs form a bipartite graph, and a matching that leaves no seen
//! revision alone is an explanation. Almost always each revision has one candidate.
//!
//! What a key held may itself be unknown. Then a row that was seen of it tells: a put raises the version by one.

use std::collections::{BTreeMap, BTreeSet};

use detkv_core::Instant;
use rustc_hash::FxHashMap;

use super::Violation;
use super::model::{Effect, Model, Rank, Slot, View};
use super::replay::effects_of;
use crate::history::{
    Call, End, History, KeyId, KeyRange, Kv, Op, OpId, Operation, Outcome, TxnCall, WatchRecord,
};

/// What was seen of revisions that no acknowledged write claims.
#[derive(Debug, Default)]
pub struct Evidence {
    by_revision: BTreeMap<i64, Seen>,
}

/// What was seen of one revision.
#[derive(Debug, Default)]
pub struct Seen {
    puts: Vec<Kv>,
    deletes: BTreeSet<KeyId>,
    /// All of it, in execution order: a watch of every key without filters showed it.
    whole: Option<Vec<(KeyId, Option<Kv>)>>,
}

impl Evidence {
    /// `writers[r]`: the acknowledged write of revision `r`.
    pub fn gather(history: &History, writers: &[Option<OpId>]) -> Self {
        let mut evidence = Self::default();
        let is_open = |revision: i64| {
            let revision = usize::try_from(revision).unwrap_or(0);
            revision >= 2 && writers.get(revision).is_some_and(Option::is_none)
        };
        for kv in history.kvs() {
            // A tombstone's row has version 0 and comes with the watch events below.
            if kv.version > 0 && is_open(kv.mod_revision) {
                evidence.by_revision.entry(kv.mod_revision).or_default().puts.push(*kv);
            }
        }
        // A read of keys only shows a row without its value: nothing beside one that has it.
        if let Some(empty) = history.empty_value() {
            for seen in evidence.by_revision.values_mut() {
                let with_value: BTreeSet<KeyId> =
                    seen.puts.iter().filter(|kv| kv.value != empty).map(|kv| kv.key).collect();
                seen.puts.retain(|kv| kv.value != empty || !with_value.contains(&kv.key));
            }
        }
        for watch in history.watches() {
            evidence.add_watch(history, watch, &is_open);
        }
        evidence
    }

    fn add_watch(
        &mut self,
        history: &History,
        watch: &WatchRecord,
        is_open: &impl Fn(i64) -> bool,
    ) {
        let is_whole = watch.keys.end == End::Open
            && history.key(watch.keys.key).as_ref() <= b"\0".as_slice()
            && !watch.no_put
            && !watch.no_delete;
        let rows = watch.events.iter().map(|event| (event.is_delete, history.kv(event.kv)));
        let mut whole: Vec<(KeyId, Option<Kv>)> = Vec::new();
        let mut whole_revision = 0;
        for (is_delete, kv) in rows {
            if !is_open(kv.mod_revision) {
                continue;
            }
            let seen = self.by_revision.entry(kv.mod_revision).or_default();
            if is_delete {
                seen.deletes.insert(kv.key);
            }
            if is_whole {
                if whole_revision != kv.mod_revision {
                    self.add_whole(whole_revision, std::mem::take(&mut whole));
                    whole_revision = kv.mod_revision;
                }
                whole.push((kv.key, (!is_delete).then_some(*kv)));
            }
        }
        // A watch that was lost between two fragments has not shown the rest of its last revision.
        let mut batches = watch.batches.iter().rev();
        let last = batches.find(|batch| !batch.events.is_empty());
        if !last.is_some_and(|batch| batch.fragment) {
            self.add_whole(whole_revision, whole);
        }
    }

    fn add_whole(&mut self, revision: i64, changes: Vec<(KeyId, Option<Kv>)>) {
        if let Some(seen) = self.by_revision.get_mut(&revision) {
            seen.whole.get_or_insert(changes);
        }
    }

    pub fn at(&self, revision: i64) -> Option<&Seen> {
        self.by_revision.get(&revision)
    }
}

impl Seen {
    /// Whether `effects` show all that was seen, and nothing more where everything was seen.
    pub fn agrees_with(&self, model: &Model, effects: &[Effect]) -> bool {
        if let Some(whole) = &self.whole {
            let mut shown = whole.iter().map(|(key, kv)| as_effect(model, *key, *kv)).peekable();
            // A delete of what may not have been there need not show.
            let may_be_nothing = |effect: &Effect| {
                effect.slot == Slot::Absent && model.at(effect.rank, i64::MAX) == Slot::Unknown
            };
            let is_shown =
                |effect: &Effect| shown.next_if_eq(effect).is_some() || may_be_nothing(effect);
            return effects.iter().all(is_shown) && shown.next().is_none();
        }
        let empty = model.history.empty_value();
        let is_put = |kv: &Kv| {
            effects.iter().any(|effect| match effect.slot {
                // Only reads of keys showed it: any value agrees.
                Slot::Known(put) if Some(kv.value) == empty => Kv { value: kv.value, ..put } == *kv,
                slot => slot == Slot::Known(*kv),
            })
        };
        let is_deleted = |key: &KeyId| {
            effects.iter().any(|e| e.rank == model.rank(*key) && e.slot == Slot::Absent)
        };
        self.puts.iter().all(is_put) && self.deletes.iter().all(is_deleted)
    }

    /// The lease of a deleted key, before it was deleted.
    pub fn deleted_lease(&self, model: &Model, revision: i64) -> Option<i64> {
        match model.at(model.rank(*self.deletes.first()?), revision - 1) {
            Slot::Known(kv) if kv.lease != 0 => Some(kv.lease),
            _ => None,
        }
    }

    /// What was seen, taken as all that happened.
    pub fn as_effects(&self, model: &Model) -> Vec<Effect> {
        if let Some(whole) = &self.whole {
            return whole.iter().map(|(key, kv)| as_effect(model, *key, *kv)).collect();
        }
        let puts = self.puts.iter().map(|kv| as_effect(model, kv.key, Some(*kv)));
        puts.chain(self.deletes.iter().map(|key| as_effect(model, *key, None))).collect()
    }

    /// Whether all that changed was seen.
    pub fn is_whole(&self) -> bool {
        self.whole.is_some()
    }

    pub fn has_puts(&self) -> bool {
        !self.puts.is_empty()
    }

    /// What each open write may have done at `revision`: a txn whose compares cannot be decided, either branch.
    fn possible_effects(&self, model: &Model, op: &Operation, revision: i64) -> Vec<Vec<Effect>> {
        let Call::Txn(txn) = &op.call else {
            let mut view = self.view(model, revision);
            let done = match &op.call {
                Call::Put(put) => view.put_op(put, None),
                Call::Delete(delete) => view.delete_op(delete, None),
                _ => Ok(()),
            };
            return done.map(|()| view.effects).into_iter().collect();
        };
        let outcomes = self.view(model, revision).outcomes(txn).iter();
        let effects = outcomes.filter_map(|succeeded| {
            let mut view = self.view(model, revision);
            view.outcome_op(txn, *succeeded).ok().map(|()| view.effects)
        });
        effects.collect()
    }

    /// The state before `revision`; of a key that is unknown there, what must have been for the row that was seen.
    fn view<'m, 'h>(&self, model: &'m Model<'h>, revision: i64) -> View<'m, 'h> {
        let mut view = View::new(model, revision - 1);
        for kv in &self.puts {
            let rank = model.rank(kv.key);
            if model.at(rank, revision - 1) == Slot::Unknown {
                let is_first = kv.version == 1;
                let before = Kv { version: kv.version - 1, ..*kv };
                view.suppose(rank, if is_first { Slot::Absent } else { Slot::Known(before) });
            }
        }
        view
    }

    fn keys(&self) -> impl Iterator<Item = KeyId> {
        self.puts.iter().map(|kv| kv.key).chain(self.deletes.iter().copied())
    }

    /// Nothing but deletes were seen, and of some what was there before is not known.
    pub fn may_be_expiry(&self, model: &Model, revision: i64) -> bool {
        let is_unknown = |key: &KeyId| model.at(model.rank(*key), revision - 1) == Slot::Unknown;
        self.puts.is_empty() && self.deletes.iter().any(is_unknown)
    }

    pub fn shows_delete_of(&self, key: KeyId) -> bool {
        self.deletes.contains(&key)
    }

    /// In words, with the refused operations that would have done it.
    pub fn unexplained(&self, model: &Model, revision: i64) -> (String, Vec<OpId>) {
        let mut parts: Vec<String> = self.puts.iter().map(|kv| model.show(kv)).collect();
        let history = model.history;
        parts.extend(self.deletes.iter().map(|key| format!("delete {:?}", history.key(*key))));
        let seen = parts.join(", ");
        let refused: Vec<OpId> = history
            .operations_with_ids()
            .filter(|(_, op)| matches!(op.outcome, Outcome::Failed(_) | Outcome::NotSent))
            .filter(|(_, op)| {
                effects_of(model, op, revision, None)
                    .is_ok_and(|effects| !effects.is_empty() && self.agrees_with(model, &effects))
            })
            .map(|(id, _)| id)
            .collect();
        let message = if let Some(id) = refused.first() {
            format!("revision {revision} shows {seen}: the work of {id}, which was refused")
        } else {
            format!("revision {revision} shows {seen}, but no write or lease explains it")
        };
        (message, refused)
    }
}

/// What all explanations of a revision have in common; keys on which they differ become unknown. The second is
/// whether there are such keys.
pub fn in_common(explanations: Vec<Vec<Effect>>) -> (Vec<Effect>, bool) {
    let mut rest = explanations.into_iter();
    let mut common = rest.next().unwrap_or_default();
    let mut differ: BTreeSet<Rank> = BTreeSet::new();
    for other in rest {
        differ.extend(common.iter().filter(|e| !other.contains(e)).map(|e| e.rank));
        differ.extend(other.iter().filter(|e| !common.contains(e)).map(|e| e.rank));
    }
    common.retain(|effect| !differ.contains(&effect.rank));
    let is_unsure = !differ.is_empty();
    common.extend(differ.into_iter().map(|rank| Effect { rank, slot: Slot::Unknown }));
    (common, is_unsure)
}

fn as_effect(model: &Model, key: KeyId, kv: Option<Kv>) -> Effect {
    Effect { rank: model.rank(key), slot: kv.map_or(Slot::Absent, Slot::Known) }
}

/// Writes without an answer, and what each revision could be.
#[derive(Debug)]
pub struct Unknowns {
    open: Vec<Open>,
    /// Of single keys that an open write names.
    by_key: FxHashMap<KeyId, Vec<u32>>,
    /// Of writes with ranges, and revokes.
    wide: Vec<u32>,
    /// Revisions to explain with their candidates, earliest call first.
    holes: Vec<Hole>,
}

#[derive(Debug)]
struct Open {
    id: OpId,
    called: Instant,
    writes: Vec<KeyRange>,
}

#[derive(Debug)]
struct Hole {
    revision: i64,
    candidates: Vec<u32>,
}

impl Unknowns {
    pub fn new(history: &History) -> Self {
        let mut this = Self {
            open: Vec::new(),
            by_key: FxHashMap::default(),
            wide: Vec::new(),
            holes: Vec::new(),
        };
        for (id, op) in history.operations_with_ids() {
            if op.outcome != Outcome::Unknown || !op.call.may_write() {
                continue;
            }
            let mut writes = Vec::new();
            match &op.call {
                Call::Put(put) => writes.push(KeyRange { key: put.key, end: End::Single }),
                Call::Delete(delete) => writes.push(delete.keys),
                Call::Txn(txn) => txn_writes(txn, &mut writes),
                _ => {}
            }
            let place = this.open.len() as u32;
            if writes.iter().all(|keys| keys.end == End::Single) {
                for keys in &writes {
                    this.by_key.entry(keys.key).or_default().push(place);
                }
            } else {
                this.wide.push(place);
            }
            this.open.push(Open { id, called: op.called, writes });
        }
        this
    }

    /// The effects of each write that agrees with what was seen and was called by `deadline`.
    ///
    /// Where only a part was seen they may differ.
    pub fn could_be(
        &self,
        model: &Model,
        revision: i64,
        seen: &Seen,
        deadline: Instant,
    ) -> Vec<Vec<Effect>> {
        let found = self.candidates(model, revision, seen, deadline);
        let mut explanations: Vec<Vec<Effect>> = Vec::new();
        for (_, effects) in found {
            if !explanations.contains(&effects) {
                explanations.push(effects);
            }
        }
        explanations
    }

    /// As [`Unknowns::could_be`], and one of these writes it was: each is at one revision at most.
    pub fn explain(
        &mut self,
        model: &Model,
        revision: i64,
        seen: &Seen,
        deadline: Instant,
    ) -> Vec<Vec<Effect>> {
        let found = self.candidates(model, revision, seen, deadline);
        // Places are in the order of the calls.
        let mut candidates: Vec<u32> = found.iter().map(|(place, _)| *place).collect();
        candidates.dedup();
        if !candidates.is_empty() {
            self.holes.push(Hole { revision, candidates });
        }
        self.could_be(model, revision, seen, deadline)
    }

    fn candidates(
        &self,
        model: &Model,
        revision: i64,
        seen: &Seen,
        deadline: Instant,
    ) -> Vec<(u32, Vec<Effect>)> {
        let Some(key) = seen.keys().next() else { return Vec::new() };
        let named = self.by_key.get(&key).into_iter().flatten();
        let places: BTreeSet<u32> = named.chain(&self.wide).copied().collect();
        let mut found = Vec::new();
        for place in places {
            let open = &self.open[place as usize];
            if open.called > deadline {
                continue;
            }
            let operation = model.history.operation(open.id);
            for effects in seen.possible_effects(model, operation, revision) {
                if !effects.is_empty() && seen.agrees_with(model, &effects) {
                    found.push((place, effects));
                }
            }
        }
        found
    }

    /// The effects of the one open write that could have made `revision`, of which nothing was seen.
    /// `None`: there are none, several, or one of which that cannot be told.
    pub fn only_one(
        &mut self,
        model: &Model,
        revision: i64,
        deadline: Instant,
    ) -> Option<Vec<Effect>> {
        let mut found = None;
        for (place, open) in self.open.iter().enumerate() {
            if open.called > deadline {
                continue;
            }
            let operation = model.history.operation(open.id);
            let effects = effects_of(model, operation, revision, None).ok()?;
            let is_sure = effects.iter().all(|effect| effect.slot != Slot::Unknown);
            if effects.is_empty() {
                continue;
            }
            if found.is_some() || !is_sure {
                return None;
            }
            found = Some((place as u32, effects));
        }
        let (place, effects) = found?;
        self.holes.push(Hole { revision, candidates: vec![place] });
        Some(effects)
    }

    /// Keys that an open write called by `deadline` could change.
    pub fn touchable(&self, model: &Model, deadline: Instant) -> BTreeSet<Rank> {
        let open = self.open.iter().filter(|open| open.called <= deadline);
        open.flat_map(|open| &open.writes).flat_map(|keys| model.ranks(*keys)).collect()
    }

    /// Keys that an open write called by `deadline` could change together with all that was seen.
    pub fn touchable_with(&self, model: &Model, seen: &Seen, deadline: Instant) -> BTreeSet<Rank> {
        let ranks = |open: &Open| -> BTreeSet<Rank> {
            open.writes.iter().flat_map(|keys| model.ranks(*keys)).collect()
        };
        let open = self.open.iter().filter(|open| open.called <= deadline).map(ranks);
        let covers = |ranks: &BTreeSet<Rank>| seen.keys().all(|k| ranks.contains(&model.rank(k)));
        open.filter(covers).flatten().collect()
    }

    /// Gives every explained revision a writer of its own.
    ///
    /// Errors: two revisions that only one write can explain.
    pub fn assign(&self, writers: &mut [Option<OpId>]) -> Result<(), Violation> {
        let mut hole_of: Vec<Option<u32>> = vec![None; self.open.len()];
        for hole in 0..self.holes.len() as u32 {
            let mut visited = BTreeSet::new();
            if !self.augment(hole, &mut hole_of, &mut visited) {
                let Hole { revision, candidates } = &self.holes[hole as usize];
                let id = self.open[candidates[0] as usize].id;
                let message = format!(
                    "revision {revision} repeats {id}, which already took effect at another revision"
                );
                return Err(Violation::new("a write took effect twice", message, vec![id]));
            }
        }
        for (place, hole) in hole_of.iter().enumerate() {
            if let Some(hole) = hole {
                let revision = self.holes[*hole as usize].revision;
                writers[revision as usize] = Some(self.open[place].id);
            }
        }
        Ok(())
    }

    /// Finds `hole` a candidate, moving others to theirs where needed (an augmenting path).
    fn augment(&self, hole: u32, hole_of: &mut [Option<u32>], visited: &mut BTreeSet<u32>) -> bool {
        let candidates = &self.holes[hole as usize].candidates;
        let free = candidates.iter().find(|place| hole_of[**place as usize].is_none());
        if let Some(place) = free {
            hole_of[*place as usize] = Some(hole);
            return true;
        }
        for place in candidates {
            if !visited.insert(*place) {
                continue;
            }
            let taken_by = hole_of[*place as usize].expect("no candidate is free");
            if self.augment(taken_by, hole_of, visited) {
                hole_of[*place as usize] = Some(hole);
                return true;
            }
        }
        false
    }
}

fn txn_writes(txn: &TxnCall, writes: &mut Vec<KeyRange>) {
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            Op::Range(_) => {}
            Op::Put(put) => writes.push(KeyRange { key: put.key, end: End::Single }),
            Op::Delete(delete) => writes.push(delete.keys),
            Op::Txn(txn) => txn_writes(txn, writes),
        }
    }
}
