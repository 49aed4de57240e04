//! Members at the same applied index hold the same state.
//!
//! | Promise | Broken when |
//! |---|---|
//! | equal index, equal state | hashes of the state differ at one applied index (sampled all along) |
//! | equal revision, equal hash | HashKV of one revision under one compact revision differs (asked in the end) |
//! | corrupt without cause | members that compared their hashes raised CORRUPT, and none of the above differs |

use std::collections::BTreeMap;

use detkv_core::MemberId;
use detkv_core::pb::etcdserverpb::AlarmType;
use detkv_core::pb::etcdserverpb::alarm_request::AlarmAction;

use super::{Case, Checker, Violation};
use crate::history::{Call, Fact};

#[derive(Debug)]
pub struct State;

impl Checker for State {
    fn name(&self) -> &'static str {
        "state"
    }

    fn check(&self, case: &Case) -> Result<(), Violation> {
        let mut first: BTreeMap<u64, (MemberId, u64)> = BTreeMap::new();
        let mut hashes: BTreeMap<(i64, i64), (MemberId, u32)> = BTreeMap::new();
        for (at, fact) in case.history.facts() {
            if let Fact::KvHash { member, revision, compact_revision, hash } = fact {
                let at = (*revision, *compact_revision);
                let (other, expected) = *hashes.entry(at).or_insert((*member, *hash));
                if expected != *hash {
                    let message = format!(
                        "at revision {revision} under compact revision {compact_revision} member {other} hashes to {expected} and member {member} to {hash}"
                    );
                    return Err(Violation::new("equal revision, equal hash", message, Vec::new()));
                }
            }
            let Fact::StateHash { member, applied_index, hash } = fact else { continue };
            let (other, expected) = *first.entry(*applied_index).or_insert((*member, *hash));
            if expected != *hash {
                let message = format!(
                    "at applied index {applied_index} member {other} holds {expected:016x} and member {member} {hash:016x} (seen at {:?})",
                    std::time::Duration::from_nanos(at.ns)
                );
                return Err(Violation::new("equal index, equal state", message, Vec::new()));
            }
        }
        nobody_is_called_corrupt(case)
    }
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
                std::time::Duration::from_nanos(entry.at.ns)
            );
            Err(Violation::new("corrupt without cause", message, Vec::new()))
        }
        _ => Ok(()),
    }
}
