//! What goes on while the cluster is out of space: deletes, compactions, reads, watches.

use std::collections::BTreeSet;

use detkv_core::Instant;
use detkv_core::pb::etcdserverpb::AlarmType;
use detkv_core::pb::etcdserverpb::alarm_request::AlarmAction;
use detkv_sim_world::history::{Call, History, Outcome};

use super::Set;

pub(super) fn figures(history: &History, set: Set<'_>) {
    let times = Alarmed::of(history);
    let done = |wanted: &dyn Fn(&Call) -> bool| {
        let done = history.operations().iter().filter(|op| {
            wanted(&op.call)
                && matches!(op.outcome, Outcome::Done { .. })
                && times.hold(op.called)
                && times.hold(op.returned)
        });
        Some(done.count() as u64)
    };
    let linearizable = |call: &Call| matches!(call, Call::Range(range) if !range.serializable);
    set("members_alarmed", Some(times.members));
    set("gets_under_alarm", done(&linearizable));
    set("deletes_under_alarm", done(&|call| matches!(call, Call::Delete(_))));
    set("compactions_under_alarm", done(&|call| matches!(call, Call::Compact { .. })));
    let batches = history.watches().iter().flat_map(|watch| &watch.batches);
    let shown = batches.filter(|batch| times.hold(batch.at)).map(|batch| batch.events.len() as u64);
    set("watch_events_under_alarm", Some(shown.sum()));
}

/// When the log held a NOSPACE alarm.
struct Alarmed {
    /// (from, until), in order.
    times: Vec<(Instant, Instant)>,
    /// Members that raised one.
    members: u64,
}

impl Alarmed {
    fn of(history: &History) -> Self {
        let of_space = |alarm: i32| alarm == AlarmType::Nospace as i32;
        let mut changes: Vec<_> =
            history.raft().alarms().iter().filter(|change| of_space(change.alarm)).collect();
        changes.sort_by_key(|change| change.at);
        let (mut raised, mut members) = (BTreeSet::new(), BTreeSet::new());
        let mut times: Vec<(Instant, Instant)> = Vec::new();
        for change in changes {
            let was_raised = !raised.is_empty();
            if change.action == AlarmAction::Activate as i32 {
                raised.insert(change.of);
                members.insert(change.of);
            } else {
                raised.remove(&change.of);
            }
            match (was_raised, raised.is_empty()) {
                (false, false) => times.push((change.at, Instant::FAR)),
                (true, true) => {
                    let last = times.last_mut().expect("what ends has begun");
                    last.1 = change.at;
                }
                _ => {}
            }
        }
        Self { times, members: members.len() as u64 }
    }

    fn hold(&self, at: Instant) -> bool {
        self.times.iter().any(|(from, until)| *from <= at && at < *until)
    }
}
