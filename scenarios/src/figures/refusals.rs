//! What was refused for want of space, what went on, and which members gave up.

use detkv_core::ApiError;
use detkv_sim_world::history::{Call, DownHow, Fact, History, Outcome};

use super::{Set, Window};

pub(super) fn figures(history: &History, window: Window, set: Set<'_>) {
    let count = |wanted: &dyn Fn(&Call, &Outcome) -> bool| {
        let operations = history.operations().iter().filter(|op| window.has(op.called));
        Some(operations.filter(|op| wanted(&op.call, &op.outcome)).count() as u64)
    };
    let no_space = |outcome: &Outcome| matches!(outcome, Outcome::Failed(error) if matches!(**error, ApiError::NoSpace));
    let is_done = |outcome: &Outcome| matches!(outcome, Outcome::Done { .. });
    set("puts_no_space", count(&|call, end| matches!(call, Call::Put(_)) && no_space(end)));
    set("txns_no_space", count(&|call, end| matches!(call, Call::Txn(_)) && no_space(end)));
    set(
        "grants_no_space",
        count(&|call, end| matches!(call, Call::LeaseGrant { .. }) && no_space(end)),
    );
    set("deletes_ok", count(&|call, end| matches!(call, Call::Delete(_)) && is_done(end)));
    set("compactions_ok", count(&|call, end| matches!(call, Call::Compact { .. }) && is_done(end)));
    let halted = history
        .facts()
        .iter()
        .filter(|(_, fact)| matches!(fact, Fact::Down { how: DownHow::Halted(_), .. }));
    set("halts", Some(halted.count() as u64));
}
