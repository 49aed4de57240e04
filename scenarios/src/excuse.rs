//! What no store can promise: a member that runs on a disk that took back what it had called durable.
//!
//! Raft is built on memory: a member that forgot its vote or an entry may help to elect somebody who lacks what was
//! committed, and then every promise is gone. So where the Raft checker shows that this is what happened, the run's
//! other violations are told and not held against the store. A violation without that is a violation.

use std::collections::{BTreeMap, BTreeSet};

use detkv_core::MemberId;
use detkv_reports::run::{EXCUSED, is_good};
use detkv_sim_world::history::{Fact, History};

/// What the Raft checker may find where a member forgot a vote or an entry. What it remembers of a member's own
/// doing (`leader append-only`, `committed by counting`, …) has no such cause.
const CAUSED_BY_FORGETTING: [&str; 5] = [
    "one vote per term",
    "one leader per term",
    "leader completeness",
    "log matching",
    "committed never changes",
];

/// Members that ran after their disk had lost what was durable.
pub fn forgetful(history: &History) -> BTreeSet<MemberId> {
    let (mut damaged, mut ran) = (BTreeSet::new(), BTreeSet::new());
    for (_, fact) in history.facts() {
        match fact {
            Fact::DiskDamaged { member } => _ = damaged.insert(*member),
            Fact::Up { member } if damaged.contains(member) => _ = ran.insert(*member),
            _ => {}
        }
    }
    ran
}

/// A failed assertion is never excused: no disk may make a member panic.
pub fn excuse(verdicts: &mut BTreeMap<String, String>, forgetful: &BTreeSet<MemberId>) {
    let Some(member) = forgetful.first() else { return };
    let explains =
        |verdict: &String| CAUSED_BY_FORGETTING.iter().any(|promise| verdict.starts_with(promise));
    if !verdicts.get("raft").is_some_and(explains) {
        return;
    }
    let broken =
        verdicts.iter_mut().filter(|(name, verdict)| *name != "assertions" && !is_good(verdict));
    for (_, verdict) in broken {
        *verdict =
            format!("{EXCUSED}the disk of m{} took back what was durable: {verdict}", member.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(raft: &str, forgetful: &[u64]) -> BTreeMap<String, String> {
        let named =
            [("raft", raft), ("durability", "lost"), ("assertions", "a panic"), ("watch", "ok")];
        let mut verdicts =
            named.map(|(name, verdict)| (name.to_owned(), verdict.to_owned())).into();
        excuse(&mut verdicts, &forgetful.iter().map(|id| MemberId(*id)).collect());
        verdicts
    }

    #[test]
    fn what_follows_from_lost_memory_is_told_and_excused() {
        let verdicts = judged("one vote per term", &[2]);
        let expected = "excused: the disk of m2 took back what was durable: lost";
        assert_eq!(verdicts["durability"], expected);
        assert!(is_good(&verdicts["raft"]) && verdicts["watch"] == "ok");
        assert_eq!(verdicts["assertions"], "a panic");
    }

    #[test]
    fn a_violation_that_raft_does_not_explain_is_one() {
        for raft in ["ok", "leader append-only: …", "a vote was forgotten: …"] {
            let verdicts = judged(raft, &[2]);
            assert_eq!((&verdicts["raft"][..], &verdicts["durability"][..]), (raft, "lost"));
        }
    }

    #[test]
    fn without_a_member_that_forgot_nothing_is_excused() {
        let verdicts = judged("one vote per term", &[]);
        assert_eq!(
            (&verdicts["raft"][..], &verdicts["durability"][..]),
            ("one vote per term", "lost")
        );
    }
}
