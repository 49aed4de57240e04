//! Watches are served in time and cost bounded memory.
//!
//! What a member has shown to anybody it must show to its watchers soon. Not judged: clients that are slow on
//! purpose. Allowed besides: the times in which a fault was active, and what clocks err by.

use std::collections::BTreeMap;
use std::time::Duration;

use detkv_core::{Instant, MemberId};

use crate::check::times::Times;
use crate::check::{Case, Violation};
use crate::history::{Fact, Outcome, WatchRecord};

/// Far above what a healthy member takes, far below what starvation looks like.
const DELAY_MAX: Duration = Duration::from_secs(10);
/// The world's name for bytes of a stream that a member has handed out and that have not left it, when it
/// hands out more.
pub const UNDRAINED: &str = "watch_undrained_bytes";

pub fn check(case: &Case) -> Result<(), Violation> {
    bounded_memory(case)?;
    let members = Members::of(case);
    let times = Times::new(case);
    case.history.watches().iter().enumerate().try_for_each(|(number, watch)| {
        members.in_time(case, &times, watch).map_err(|message| {
            let message = format!(
                "watch {number} of client {} on member {}: {message}",
                watch.client.0, watch.member
            );
            Violation::new("delivered in time", message, Vec::new())
        })
    })
}

fn bounded_memory(case: &Case) -> Result<(), Violation> {
    for (at, fact) in case.history.facts() {
        if let Fact::Metric { member, name, value } = fact
            && *name == UNDRAINED
            && *value > case.history.settings().watch_held_bytes_max()
        {
            let at = Duration::from_nanos(at.ns);
            let message = format!("member {member} held {value} bytes for one stream at {at:?}");
            return Err(Violation::new("bounded memory", message, Vec::new()));
        }
    }
    Ok(())
}

/// By member: when it had first shown how much, in the order of time; revisions go up.
struct Members {
    shown: BTreeMap<MemberId, Vec<(Instant, i64)>>,
}

impl Members {
    fn of(case: &Case) -> Self {
        let mut shown: BTreeMap<MemberId, Vec<(Instant, i64)>> = BTreeMap::new();
        for op in case.history.operations() {
            if let Outcome::Done { revision, .. } = op.outcome {
                shown.entry(op.member).or_default().push((op.returned, revision));
            }
        }
        for all in shown.values_mut() {
            all.sort_unstable();
            let mut highest = 0;
            all.retain(|(_, revision)| {
                let is_new = *revision > highest;
                highest = highest.max(*revision);
                is_new
            });
        }
        Self { shown }
    }

    fn in_time(&self, case: &Case, times: &Times, watch: &WatchRecord) -> Result<(), String> {
        let (Some((created, _)), Some(shown)) = (watch.created, self.shown.get(&watch.member))
        else {
            return Ok(());
        };
        if case.history.is_slow(watch.client) {
            return Ok(());
        }
        // A watch that catches up takes its time, but is never silent for long.
        let mut heard = created;
        for batch in watch.batches.iter().filter(|batch| !batch.events.is_empty()) {
            let since = std::mem::replace(&mut heard, batch.at);
            let event = watch.events[batch.events.start as usize];
            let revision = case.history.kv(event.kv).mod_revision;
            let place = shown.partition_point(|(_, shown)| *shown < revision);
            let Some((at, _)) = shown.get(place) else { continue };
            let from = since.max(*at);
            // What waited for a cut link may wait as long again: retransmission timeouts double.
            let most = DELAY_MAX + 2 * times.troubled(from, batch.at);
            let late = batch.at.since(from);
            if late > most {
                return Err(format!(
                    "revision {revision} came {late:?} after the member had shown it, and nothing meanwhile (allowed {most:?})"
                ));
            }
        }
        Ok(())
    }
}
