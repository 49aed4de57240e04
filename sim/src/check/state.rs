//! Members at the same applied index hold the same state.

use std::collections::BTreeMap;

use detkv_core::MemberId;

use super::{Case, Checker, Violation};
use crate::history::Fact;

#[derive(Debug)]
pub struct State;

impl Checker for State {
    fn name(&self) -> &'static str {
        "state"
    }

    fn check(&self, case: &Case) -> Result<(), Violation> {
        let mut first: BTreeMap<u64, (MemberId, u64)> = BTreeMap::new();
        for (at, fact) in case.history.facts() {
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
        Ok(())
    }
}
