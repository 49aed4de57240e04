//! Members at the same applied index hold the same state.
//!
//! | Promise | Broken when |
//! |---|---|
//! | equal index, equal state | hashes of the state differ at one applied index (whenever two members met there) |
//! | equal revision, equal hash | HashKV of one revision under one compact revision differs (asked by anybody, and in the end) |
//! | corrupt without cause | members that compared their hashes raised CORRUPT, and none of the above differs |
//!
//! Undecided when several members applied entries and no two of them were ever seen at the same index.

use std::collections::BTreeMap;
use std::time::Duration;

use detkv_core::pb::etcdserverpb::AlarmType;
use detkv_core::pb::etcdserverpb::alarm_request::AlarmAction;

use detkv_core::{Instant, MemberId};

use super::{Case, Checker, Violation};
use crate::history::{Answer, Call, Fact, HashAnswer, OpId, Outcome, Sample};

#[derive(Debug)]
pub struct State;

impl Checker for State {
    fn name(&self) -> &'static str {
        "state"
    }

    fn check(&self, case: &Case) -> Result<(), Violation> {
        equal_states(case)?;
        equal_hashes(case)?;
        nobody_is_called_corrupt(case)?;
        let states = case.history.states();
        if states.compared() == 0 && states.members() > 1 {
            let message = format!(
                "{} members applied entries, and no two stood at the same index",
                states.members()
            );
            return Err(Violation::new("undecided", message, Vec::new()));
        }
        Ok(())
    }
}

/// Wherever bursts of two members ended at one index, and in the samples of the event hash.
fn equal_states(case: &Case) -> Result<(), Violation> {
    if let Some((at, first, second)) = case.history.states().differing() {
        return Err(differ(at, first, second));
    }
    let mut firsts: BTreeMap<u64, Sample> = BTreeMap::new();
    for (at, fact) in case.history.facts() {
        let Fact::StateHash { member, applied_index, hash } = *fact else { continue };
        let sample = Sample { member, applied_index, hash };
        let first = *firsts.entry(applied_index).or_insert(sample);
        if first.hash != hash {
            return Err(differ(*at, first, sample));
        }
    }
    Ok(())
}

fn differ(at: Instant, first: Sample, second: Sample) -> Violation {
    let message = format!(
        "at applied index {} member {} holds {:016x} and member {} {:016x} (seen at {:?})",
        first.applied_index,
        first.member,
        first.hash,
        second.member,
        second.hash,
        Duration::from_nanos(at.ns)
    );
    Violation::new("equal index, equal state", message, Vec::new())
}

/// Of the script that reads everything back, and of whoever asked during the run.
fn equal_hashes(case: &Case) -> Result<(), Violation> {
    let asked = case.history.operations_with_ids().filter_map(|(id, op)| match &op.outcome {
        Outcome::Done { answer: Answer::Hash(answer), .. } => Some((op.member, **answer, vec![id])),
        _ => None,
    });
    let read_back = case.history.facts().iter().filter_map(|(_, fact)| match *fact {
        Fact::KvHash { member, revision, compact_revision, hash } => {
            let answer = HashAnswer { hash, compact_revision, hash_revision: revision };
            Some((member, answer, Vec::new()))
        }
        _ => None,
    });
    let mut firsts: BTreeMap<(i64, i64), (MemberId, u32, Vec<OpId>)> = BTreeMap::new();
    for (member, answer, mut ops) in asked.chain(read_back) {
        let HashAnswer { hash, compact_revision, hash_revision: revision } = answer;
        let first =
            firsts.entry((revision, compact_revision)).or_insert((member, hash, ops.clone()));
        let (other, expected, of_first) = &*first;
        if *expected != hash {
            let message = format!(
                "at revision {revision} under compact revision {compact_revision} member {other} hashes to {expected} and member {member} to {hash}"
            );
            ops.splice(0..0, of_first.iter().copied());
            return Err(Violation::new("equal revision, equal hash", message, ops));
        }
    }
    Ok(())
}

/// All that was seen is equal: then no member finds another, or itself, to differ.
fn nobody_is_called_corrupt(case: &Case) -> Result<(), Violation> {
    let raises = |action: i32, alarm: i32| {
        action == AlarmAction::Activate as i32 && alarm == AlarmType::Corrupt as i32
    };
    let by_client =
        case.history.operations().iter().any(
            |op| matches!(op.call, Call::Alarm { action, alarm, .. } if raises(action, alarm)),
        );
    let mut alarms = case.history.raft().alarms().iter();
    match alarms.find(|entry| raises(entry.action, entry.alarm)) {
        Some(entry) if !by_client => {
            let message = format!(
                "CORRUPT of member {:x} was raised (seen at {:?}), and all hashes are equal",
                entry.of,
                Duration::from_nanos(entry.at.ns)
            );
            Err(Violation::new("corrupt without cause", message, Vec::new()))
        }
        _ => Ok(()),
    }
}
