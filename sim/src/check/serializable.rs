//! Serializable reads may be stale. They equal some past state, never the future, and a member that
//! stays up never goes back.
//!
//! | Promise | Broken when |
//! |---|---|
//! | no past state | the answer is that of no revision that the member may have been at |
//! | a read of the future | it shows a write that was called after its return |
//! | a member went back | a later read on a member that did not restart shows an older revision |

use std::collections::BTreeMap;

use detkv_core::{Instant, MemberId};

use super::linearizability::check_answer;
use super::{Case, Checker, Violation};
use crate::history::{Fact, OpId, Outcome};

#[derive(Debug)]
pub struct Serializable;

impl Checker for Serializable {
    fn name(&self) -> &'static str {
        "serializable"
    }

    fn check(&self, case: &Case) -> Result<(), Violation> {
        let log = case.log_or_undecided()?;
        for (id, op) in case.history.operations_with_ids() {
            let Outcome::Done { revision, answer } = &op.outcome else { continue };
            if !op.call.is_serializable() {
                continue;
            }
            if let Some(writer) = log.writer(*revision)
                && case.history.operation(writer).called > op.returned
            {
                let message = format!("{id} shows revision {revision}, which {writer} made later");
                return Err(Violation::new("a read of the future", message, vec![id, writer]));
            }
            check_answer(&log.model, op, *revision, answer).map_err(|mismatch| {
                let message =
                    format!("{} at revision {revision}: {mismatch}", case.history.show(id));
                Violation::new("no past state", message, vec![id])
            })?;
        }
        never_goes_back(case)
    }
}

/// What one member showed, in the order of time.
#[derive(Default)]
struct Shown {
    /// (call, return, revision, op) of every answer.
    answers: Vec<(Instant, Instant, i64, OpId)>,
    /// When it went down: it may come back with less applied.
    downs: Vec<Instant>,
}

fn never_goes_back(case: &Case) -> Result<(), Violation> {
    let mut members: BTreeMap<MemberId, Shown> = BTreeMap::new();
    for (id, op) in case.history.operations_with_ids() {
        if let Outcome::Done { revision, .. } = op.outcome
            && revision > 0
        {
            let shown = members.entry(op.member).or_default();
            shown.answers.push((op.called, op.returned, revision, id));
        }
    }
    for (at, fact) in case.history.facts() {
        if let Fact::Down { member, .. } = fact {
            members.entry(*member).or_default().downs.push(*at);
        }
    }
    members.iter().try_for_each(|(member, shown)| shown.check(case, *member))
}

impl Shown {
    fn check(&self, case: &Case, member: MemberId) -> Result<(), Violation> {
        // An answer that was under way when the member went down may be of the life before.
        let lives: Vec<usize> =
            self.answers.iter().map(|(called, ..)| self.uptime(*called)).collect();
        let is_sure = |i: usize| lives[i] == self.uptime(self.answers[i].1);
        let mut by_return: Vec<usize> = (0..self.answers.len()).filter(|i| is_sure(*i)).collect();
        by_return.sort_by_key(|i| self.answers[*i].1);
        let mut returned = by_return.into_iter().peekable();
        // Of the life it is in.
        let mut highest: Option<(usize, i64, OpId)> = None;
        // Operations are numbered in the order of their calls.
        for (i, (called, _, revision, id)) in self.answers.iter().enumerate() {
            while let Some(before) = returned.next_if(|before| self.answers[*before].1 < *called) {
                let (_, _, revision, id) = self.answers[before];
                let life = lives[before];
                if highest.is_none_or(|highest| (life, revision) > (highest.0, highest.1)) {
                    highest = Some((life, revision, id));
                }
            }
            if let Some((life, highest, before)) = highest
                && highest > *revision
                && life == lives[i]
                && is_sure(i)
            {
                let (first, then) = (case.history.show(before), case.history.show(*id));
                let message = format!(
                    "member {member} answered {first} at revision {highest}, then {then} at {revision}"
                );
                return Err(Violation::new("a member went back", message, vec![before, *id]));
            }
        }
        Ok(())
    }

    /// Number of the uptime that holds this time.
    fn uptime(&self, at: Instant) -> usize {
        self.downs.partition_point(|down| *down <= at)
    }
}
