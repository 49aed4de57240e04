//! What was refused for want of space, what went on, and which members gave up.

use std::collections::BTreeSet;

use detkv_core::ApiError;
use detkv_sim_world::history::{Call, DownHow, Fact, History, Outcome};

use super::{Set, Window};

pub(super) fn figures(history: &History, window: Window, set: Set<'_>) {
    let in_window =
        || history.operations_with_ids().filter(|(_, operation)| window.has(operation.called));
    // The error itself: a refusal at apply counts as an open outcome for the checkers.
    let refused = |wanted: &dyn Fn(&Call) -> bool| {
        let refused = in_window().filter(|(id, operation)| {
            wanted(&operation.call) && history.error(*id) == Some(&ApiError::NoSpace)
        });
        Some(refused.count() as u64)
    };
    let done = |wanted: &dyn Fn(&Call) -> bool| {
        let done = in_window().filter(|(_, operation)| {
            wanted(&operation.call) && matches!(operation.outcome, Outcome::Done { .. })
        });
        Some(done.count() as u64)
    };
    let refusing: BTreeSet<_> = in_window()
        .filter(|(id, _)| history.error(*id) == Some(&ApiError::NoSpace))
        .map(|(_, operation)| operation.member)
        .collect();
    set("members_no_space", Some(refusing.len() as u64));
    set("puts_no_space", refused(&|call| matches!(call, Call::Put(_))));
    set("txns_no_space", refused(&|call| matches!(call, Call::Txn(_))));
    set("grants_no_space", refused(&|call| matches!(call, Call::LeaseGrant { .. })));
    set("deletes_ok", done(&|call| matches!(call, Call::Delete(_))));
    set("compactions_ok", done(&|call| matches!(call, Call::Compact { .. })));
    let halted = history
        .facts()
        .iter()
        .filter(|(_, fact)| matches!(fact, Fact::Down { how: DownHow::Halted(_), .. }));
    set("halts", Some(halted.count() as u64));
}
