//! Raft's promises (Raft §5, Figure 3), judged by what the world saw in the members' logs.
//!
//! | Promise | Broken when |
//! |---|---|
//! | one leader per term | two members lead a term (Election Safety) |
//! | one vote per term | a member tells two candidates of one term that they have its vote |
//! | a vote was forgotten | after a restart a member stands in an older term, or has another vote |
//! | leader append-only | a leader replaces entries of its own log |
//! | log matching | two entries of one index and term differ, or what stands before them does |
//! | committed never changes | two members commit different entries at an index, or cut a committed one |
//! | leader completeness | a leader lacks an entry that was committed in an earlier term |
//! | committed by counting | a leader's own commit ends in an entry of an earlier term (Raft §5.4.2) |

mod replay;

use std::collections::BTreeMap;

use detkv_core::MemberId;
use detkv_core::member::Role;

use super::{Case, Checker, Violation};
use crate::history::Fact;

pub(super) use replay::{RaftReplay, replay};

#[derive(Debug)]
pub struct Raft;

impl Checker for Raft {
    fn name(&self) -> &'static str {
        "raft"
    }

    fn check(&self, case: &Case) -> Result<(), Violation> {
        one_leader_per_term(case)?;
        case.raft().broken.clone().map_or(Ok(()), Err)
    }
}

/// By the members' own view, which is there even when the logs were not watched.
fn one_leader_per_term(case: &Case) -> Result<(), Violation> {
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
