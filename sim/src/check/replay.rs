//! The writes of a history in the order of their revisions, replayed on the model.
//!
//! Every response carries a revision, so an acknowledged write names its own place. Revisions that no
//! acknowledged write claims are the work of calls with unknown outcome and of expired leases; what was
//! seen of them (rows in reads, events in watches) tells which (`unknown`). Near-linear in the history.

use std::collections::BTreeSet;

use detkv_core::Instant;
use rustc_hash::FxHashMap;

use super::Violation;
use super::model::{Effect, Model, Rank, Slot, View};
use super::unknown::{Evidence, Seen, Unknowns, in_common};
use crate::history::{Answer, Call, History, Op, OpId, Operation, Outcome, TxnAnswer, TxnCall};

/// The first change takes revision 2: a fresh store is at 1.
const FIRST: i64 = 2;

/// What happened, by revision.
#[derive(Debug)]
pub struct Log<'h> {
    pub model: Model<'h>,
    /// In execution order.
    pub changes: Vec<Change>,
    /// `from[r]`: the first of `changes` at revision `r` or later. One more than there are revisions.
    from: Vec<u32>,
    /// By revision. `None`: an expired lease, or nobody knows.
    writers: Vec<Option<OpId>>,
    /// `seen[r]`: when a client was first shown revision `r` or a later one.
    seen: Vec<Instant>,
    /// Revisions whose changes are not known.
    unknown: BTreeSet<i64>,
    /// The newest revision anybody saw.
    pub last: i64,
}

/// One change in execution order.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Change {
    pub revision: i64,
    pub effect: Effect,
}

impl Log<'_> {
    /// The changes of revision `from` and later, up to and with `to`.
    pub fn changes_in(&self, from: i64, to: i64) -> &[Change] {
        let from = from.clamp(0, self.last + 1);
        let to = (to + 1).clamp(from, self.last + 1);
        &self.changes[self.from[from as usize] as usize..self.from[to as usize] as usize]
    }

    pub fn writer(&self, revision: i64) -> Option<OpId> {
        *self.writers.get(usize::try_from(revision).ok()?)?
    }

    /// When a client was first shown `revision` or a later one; `Instant::FAR` if never.
    pub fn first_seen(&self, revision: i64) -> Instant {
        usize::try_from(revision)
            .ok()
            .and_then(|r| self.seen.get(r).copied())
            .unwrap_or(Instant::FAR)
    }

    /// Whether every change is known. If not, what was not seen can be compared with nothing.
    pub fn is_complete(&self) -> bool {
        self.unknown.is_empty()
    }
}

/// Orders and replays the writes of `history`.
///
/// Errors: two writes at one revision, an answer that the model does not give, a revision that nothing explains.
pub fn replay(history: &History) -> Result<Log<'_>, Violation> {
    let last = last_revision(history)?;
    let (writers, revokes) = claims(history, last)?;
    let seen = first_seen(history, last);
    let evidence = Evidence::gather(history, &writers);
    let mut replayer = Replayer {
        log: Log {
            model: Model::new(history),
            changes: Vec::with_capacity(writers.len()),
            from: vec![0; FIRST as usize],
            writers,
            seen,
            unknown: BTreeSet::new(),
            last,
        },
        attached: FxHashMap::default(),
        revokes,
        unknowns: Unknowns::new(history),
    };
    for revision in FIRST..=last {
        replayer.step(revision, &evidence)?;
    }
    replayer.log.from.push(replayer.log.changes.len() as u32);
    replayer.unknowns.assign(&mut replayer.log.writers)?;
    Ok(replayer.log)
}

/// Puts in a txn that name a lease.
fn leased_puts(txn: &TxnCall) -> usize {
    let ops = txn.success.iter().chain(&txn.failure);
    ops.map(|op| match op {
        Op::Put(put) => usize::from(put.lease != 0),
        Op::Txn(txn) => leased_puts(txn),
        Op::Range(_) | Op::Delete(_) => 0,
    })
    .sum()
}

/// The newest revision that any response showed, refused when no history of this many requests can reach it.
fn last_revision(history: &History) -> Result<i64, Violation> {
    let mut last = (1, None);
    for (id, op) in history.operations_with_ids() {
        if let Outcome::Done { revision, .. } = op.outcome
            && revision > last.0
        {
            last = (revision, Some(id));
        }
    }
    for watch in history.watches() {
        let shown = watch.batches.iter().map(|batch| batch.revision);
        for revision in shown.chain(watch.created.map(|(_, revision)| revision)) {
            last = last.max((revision, None));
        }
    }
    // A lease ends once, and then takes a revision. Whoever granted it need not be in the history.
    let leases = history.operations().iter().map(|op| match &op.call {
        Call::LeaseGrant { .. } => 1,
        Call::Put(put) => usize::from(put.lease != 0),
        Call::Txn(txn) => leased_puts(txn),
        _ => 0,
    });
    let leases: usize = leases.sum();
    let writes = history.operations().iter().filter(|op| op.call.may_write()).count();
    let bound = 1 + (leases + writes) as i64;
    if last.0 > bound {
        let message = format!(
            "a response showed revision {}, but {writes} writes and {leases} leases reach {bound} at most",
            last.0
        );
        return Err(Violation::new("revision", message, last.1.into_iter().collect()));
    }
    Ok(last.0)
}

type Revokes = FxHashMap<i64, Vec<OpId>>;

/// Who claims which revision; acknowledged revokes, which claim one only if their lease had keys, apart.
fn claims(history: &History, last: i64) -> Result<(Vec<Option<OpId>>, Revokes), Violation> {
    let mut writers: Vec<Option<OpId>> = vec![None; last as usize + 1];
    let mut revokes = Revokes::default();
    for (id, op) in history.operations_with_ids() {
        let Outcome::Done { revision, answer } = &op.outcome else { continue };
        if let Call::LeaseRevoke { .. } = op.call {
            revokes.entry(*revision).or_default().push(id);
            continue;
        }
        if !has_changed(&op.call, answer) {
            continue;
        }
        if *revision < FIRST {
            let message = format!("{id} changed something at revision {revision}");
            return Err(Violation::new("revision", message, vec![id]));
        }
        if let Some(other) = writers[*revision as usize].replace(id) {
            let (other_op, this) = (history.show(other), history.show(id));
            let message = format!("{other_op} and {this} were both given revision {revision}");
            return Err(Violation::new("one write per revision", message, vec![other, id]));
        }
    }
    Ok((writers, revokes))
}

/// Whether an acknowledged request made a new revision.
pub fn has_changed(call: &Call, answer: &Answer) -> bool {
    match (call, answer) {
        (Call::Put(_), _) => true,
        (Call::Delete(_), Answer::Deleted(got)) => got.deleted > 0,
        (Call::Txn(txn), Answer::Txn(got)) => txn_has_changed(txn, got),
        _ => false,
    }
}

fn txn_has_changed(txn: &TxnCall, got: &TxnAnswer) -> bool {
    let ops = if got.succeeded { &txn.success } else { &txn.failure };
    ops.iter().zip(&got.answers).any(|(op, answer)| match (op, answer) {
        (Op::Put(_), _) => true,
        (Op::Delete(_), Answer::Deleted(got)) => got.deleted > 0,
        (Op::Txn(txn), Answer::Txn(got)) => txn_has_changed(txn, got),
        _ => false,
    })
}

fn first_seen(history: &History, last: i64) -> Vec<Instant> {
    let mut seen = vec![Instant::FAR; last as usize + 2];
    let mut show = |revision: i64, at: Instant| {
        if revision > 0 {
            let first = &mut seen[revision as usize];
            *first = at.min(*first);
        }
    };
    for op in history.operations() {
        if let Outcome::Done { revision, .. } = op.outcome {
            show(revision, op.returned);
        }
    }
    for watch in history.watches() {
        if let Some((at, revision)) = watch.created {
            show(revision, at);
        }
        for batch in &watch.batches {
            show(batch.revision, batch.at);
        }
    }
    for revision in (0..seen.len() - 1).rev() {
        seen[revision] = seen[revision].min(seen[revision + 1]);
    }
    seen
}

struct Replayer<'h> {
    log: Log<'h>,
    /// Keys of each lease.
    attached: FxHashMap<i64, BTreeSet<Rank>>,
    revokes: Revokes,
    unknowns: Unknowns,
}

impl<'h> Replayer<'h> {
    /// Finds out what happened at `revision` and applies it.
    fn step(&mut self, revision: i64, evidence: &Evidence) -> Result<(), Violation> {
        self.log.from.push(self.log.changes.len() as u32);
        let effects = match self.log.writers[revision as usize] {
            Some(id) => self.acknowledged(revision, id)?,
            None => match self.revoked(revision, evidence.at(revision)) {
                Some(effects) => effects,
                None => self.unclaimed(revision, evidence)?,
            },
        };
        for effect in effects {
            self.apply(revision, effect);
        }
        self.check_revokes(revision)
    }

    /// An acknowledged revoke shows the state right behind it: its lease has no key left there.
    fn check_revokes(&self, revision: i64) -> Result<(), Violation> {
        for id in self.revokes.get(&revision).into_iter().flatten() {
            let Call::LeaseRevoke { id: lease } = self.log.model.history.operation(*id).call else {
                unreachable!("only revokes are kept here")
            };
            let is_leased = |rank: &Rank| {
                let slot = self.log.model.at(*rank, revision);
                matches!(slot, Slot::Known(kv) if kv.lease == lease)
            };
            if self.attached.get(&lease).is_some_and(|keys| keys.iter().any(is_leased)) {
                let show = self.log.model.history.show(*id);
                let message = format!("{show} at revision {revision}: the lease still has a key");
                return Err(Violation::new("write result", message, vec![*id]));
            }
        }
        Ok(())
    }

    fn acknowledged(&self, revision: i64, id: OpId) -> Result<Vec<Effect>, Violation> {
        let op = self.log.model.history.operation(id);
        let Outcome::Done { answer, .. } = &op.outcome else {
            unreachable!("only acknowledged writes claim a revision")
        };
        effects_of(&self.log.model, op, revision, Some(answer)).map_err(|mismatch| {
            let show = self.log.model.history.show(id);
            let message = format!("{show} at revision {revision}: {mismatch}");
            Violation::new("write result", message, vec![id])
        })
    }

    /// An acknowledged revoke with this revision whose lease had keys.
    ///
    /// What was seen must agree: a revoke of an emptied lease carries the revision that emptied it.
    fn revoked(&mut self, revision: i64, seen: Option<&Seen>) -> Option<Vec<Effect>> {
        for id in self.revokes.get(&revision)? {
            let operation = self.log.model.history.operation(*id);
            let Call::LeaseRevoke { id: lease } = operation.call else {
                unreachable!("only revokes are kept here")
            };
            // Of a lease that another revoke, which got no answer, had ended before.
            if operation.called > self.log.first_seen(revision) {
                continue;
            }
            // Shown to somebody before the revoke was called: something else emptied the lease.
            let called = self.log.model.history.operation(*id).called;
            if self.log.first_seen(revision) < called {
                continue;
            }
            let mut attached = self.attached.get(&lease).into_iter().flatten();
            let is_unsure = |rank: &Rank| self.log.model.at(*rank, revision - 1) == Slot::Unknown;
            // Nobody saw what changed, and the keys may have gone or left the lease before.
            if seen.is_none() && attached.any(is_unsure) {
                continue;
            }
            let effects = self.deletes_of_lease(lease, revision, seen);
            let agrees = seen.is_none_or(|seen| seen.agrees_with(&self.log.model, &effects));
            if !effects.is_empty() && agrees {
                self.log.writers[revision as usize] = Some(*id);
                return Some(effects);
            }
        }
        None
    }

    /// What the end of a lease at `revision` does. A key of which nothing is known may have left the lease before: it
    /// goes only if it was seen to go.
    fn deletes_of_lease(&self, lease: i64, revision: i64, seen: Option<&Seen>) -> Vec<Effect> {
        let model = &self.log.model;
        let goes = |rank: &&Rank| {
            model.at(**rank, revision - 1) != Slot::Unknown
                || seen.is_some_and(|seen| seen.shows_delete_of(model.key(**rank)))
        };
        let keys = self.attached.get(&lease).into_iter().flatten().filter(goes);
        keys.map(|rank| Effect { rank: *rank, slot: Slot::Absent }).collect()
    }

    /// The work of a request without an answer, or of an expired lease.
    fn unclaimed(&mut self, revision: i64, evidence: &Evidence) -> Result<Vec<Effect>, Violation> {
        let deadline = self.log.first_seen(revision);
        let Some(seen) = evidence.at(revision) else { return self.unseen(revision, deadline) };
        let model = &self.log.model;
        let expiry = seen
            .deleted_lease(model, revision)
            .map(|lease| self.deletes_of_lease(lease, revision, Some(seen)))
            .filter(|effects| seen.agrees_with(model, effects));
        if let Some(effects) = expiry {
            // An expiry needs no request: a lost one that would do as well must not be used up.
            let mut explanations = vec![effects];
            explanations.extend(self.unknowns.could_be(model, revision, seen, deadline));
            return Ok(self.common(revision, explanations));
        }
        // Whose lease the key had is not known: that may have ended, whatever open write would do as well.
        if seen.may_be_expiry(model, revision) {
            return Ok(self.partly_seen(revision, seen, deadline));
        }
        let explanations = self.unknowns.explain(model, revision, seen, deadline);
        if !explanations.is_empty() {
            return Ok(self.common(revision, explanations));
        }
        if !self.log.unknown.is_empty() {
            return Ok(self.partly_seen(revision, seen, deadline));
        }
        let (message, ops) = seen.unexplained(model, revision);
        Err(Violation::new("nothing explains a change", message, ops))
    }

    /// What was seen of a change that depends on something unknown; the rest of it may have touched more.
    fn partly_seen(&mut self, revision: i64, seen: &Seen, deadline: Instant) -> Vec<Effect> {
        let mut effects = seen.as_effects(&self.log.model);
        if seen.is_whole() {
            return effects;
        }
        let mut touched = self.unknowns.touchable_with(&self.log.model, seen, deadline);
        if !seen.has_puts() {
            // A lease that ended, nobody knows which.
            touched.extend(self.attached.values().flatten());
        }
        effects.iter().for_each(|effect| _ = touched.remove(&effect.rank));
        if !touched.is_empty() {
            self.log.unknown.insert(revision);
        }
        effects.extend(touched.into_iter().map(|rank| Effect { rank, slot: Slot::Unknown }));
        effects
    }

    fn common(&mut self, revision: i64, explanations: Vec<Vec<Effect>>) -> Vec<Effect> {
        let (effects, is_unsure) = in_common(explanations);
        if is_unsure {
            self.log.unknown.insert(revision);
        }
        effects
    }

    /// Nobody saw what changed: everything that an open write or a lease could touch becomes unknown.
    fn unseen(&mut self, revision: i64, deadline: Instant) -> Result<Vec<Effect>, Violation> {
        let may_expire = self.attached.values().any(|keys| !keys.is_empty());
        if self.log.unknown.is_empty()
            && !may_expire
            && let Some(effects) = self.unknowns.only_one(&self.log.model, revision, deadline)
        {
            return Ok(effects);
        }
        let mut touched = self.unknowns.touchable(&self.log.model, deadline);
        touched.extend(self.attached.values().flatten());
        if touched.is_empty() {
            let message = format!(
                "revision {revision} was passed, but no acknowledged write, open write or lease made it"
            );
            return Err(Violation::new("nothing explains a change", message, Vec::new()));
        }
        self.log.unknown.insert(revision);
        Ok(touched.into_iter().map(|rank| Effect { rank, slot: Slot::Unknown }).collect())
    }

    fn apply(&mut self, revision: i64, effect: Effect) {
        let lease_of = |slot: Slot| match slot {
            Slot::Known(kv) => kv.lease,
            Slot::Absent | Slot::Unknown => 0,
        };
        let before = self.log.model.at(effect.rank, revision);
        let (old, new) = (lease_of(before), lease_of(effect.slot));
        if before == Slot::Unknown && effect.slot != Slot::Unknown {
            self.attached.values_mut().for_each(|keys| _ = keys.remove(&effect.rank));
        }
        // A key of which nothing is known may still be a lease's: one that ends later may delete it.
        if old != new && effect.slot != Slot::Unknown {
            if let Some(keys) = self.attached.get_mut(&old) {
                keys.remove(&effect.rank);
            }
            if new != 0 {
                self.attached.entry(new).or_default().insert(effect.rank);
            }
        }
        self.log.model.apply(revision, effect);
        // A delete of what may not have been there leaves nothing there, but nobody need have seen it.
        let is_sure = before != Slot::Unknown || effect.slot != Slot::Absent;
        if effect.slot != Slot::Unknown && is_sure {
            self.log.changes.push(Change { revision, effect });
        }
    }
}

/// What `op` does as the write of `revision`, its answer compared when there is one.
pub fn effects_of(
    model: &Model,
    op: &Operation,
    revision: i64,
    answer: Option<&Answer>,
) -> Result<Vec<Effect>, String> {
    let mut view = View::new(model, revision - 1);
    match &op.call {
        Call::Put(put) => view.put_op(put, answer)?,
        Call::Delete(delete) => view.delete_op(delete, answer)?,
        Call::Txn(txn) => view.txn_op(txn, answer)?,
        _ => {}
    }
    Ok(view.effects)
}
