//! At most one leader per term (Raft §5.2, Election Safety).

use std::collections::BTreeMap;

use detkv_core::MemberId;
use detkv_core::member::Role;

use super::{Case, Checker, Violation};
use crate::history::Fact;

#[derive(Debug)]
pub struct Election;

impl Checker for Election {
    fn name(&self) -> &'static str {
        "election"
    }

    fn check(&self, case: &Case) -> Result<(), Violation> {
        let mut leaders: BTreeMap<u64, MemberId> = BTreeMap::new();
        for (_, fact) in case.history.facts() {
            let Fact::Role { member, role: Role::Leader, term, .. } = fact else { continue };
            let leader = *leaders.entry(*term).or_insert(*member);
            if leader != *member {
                let message = format!("members {leader} and {member} both led term {term}");
                return Err(Violation::new("one leader per term", message, Vec::new()));
            }
        }
        Ok(())
    }
}
