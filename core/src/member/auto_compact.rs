//! Auto-compaction (surface spec §16.9): every member samples, who leads proposes.
//!
//! ```text
//! periodic   a sample of the revision every retention/10 (of an hour at most); what was current one
//!            retention ago is compacted to, first after one retention, then every hour at most
//! revision   every five minutes to the current revision less the retention
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use super::Member;
use crate::config::AutoCompaction;
use crate::event::Level;
use crate::pb::etcdserverpb as pb;
use crate::time::Instant;

/// Longest time between two compactions of the periodic mode (etcd's value).
const INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// Shortest time between two ticks, whatever retention is asked for.
const TICK_MIN: Duration = Duration::from_millis(1);
/// Samples per interval (etcd's value).
const SAMPLES: u32 = 10;
/// Time between two compactions of the revision mode (etcd's value).
const REVISION_INTERVAL: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub struct AutoCompactor {
    mode: AutoCompaction,
    next_at: Instant,
    /// Periodic: the revision at each of the last ticks, oldest first. At a tick the first is a
    /// retention and an interval old, as in etcd.
    samples: VecDeque<i64>,
    /// Of the last compaction that succeeded; the start before the first.
    succeeded_at: Instant,
    last_revision: i64,
    /// Periodic: nothing is compacted before one whole retention has passed.
    has_begun: bool,
    under_way: Option<UnderWay>,
}

#[derive(Clone, Copy, Debug)]
struct UnderWay {
    id: u64,
    revision: i64,
    since: Instant,
}

impl AutoCompactor {
    pub fn new(mode: AutoCompaction, now: Instant, revision: i64) -> Self {
        Self {
            mode,
            next_at: now + interval(mode),
            samples: VecDeque::from([revision]),
            succeeded_at: now,
            last_revision: 0,
            has_begun: false,
            under_way: None,
        }
    }

    pub fn next_deadline(&self) -> Instant {
        self.next_at
    }

    /// What to compact to at this tick, if it is time.
    fn due(&self, now: Instant, current: i64) -> Option<i64> {
        let revision = match self.mode {
            AutoCompaction::Periodic(retention) => {
                let wait = if self.has_begun { retention.min(INTERVAL_MAX) } else { retention };
                let is_time = now.since(self.succeeded_at) >= wait;
                is_time.then(|| self.samples.front().copied()).flatten()?
            }
            AutoCompaction::Revision(retention) => current - retention,
        };
        (revision > 0 && revision != self.last_revision).then_some(revision)
    }

    fn sample(&mut self, revision: i64) {
        if let AutoCompaction::Periodic(retention) = self.mode {
            let kept = retention.as_nanos() / interval(self.mode).as_nanos().max(1) + 1;
            self.samples.push_back(revision);
            if self.samples.len() as u128 > kept {
                self.samples.pop_front();
            }
        }
    }

    fn name(&self) -> &'static str {
        match self.mode {
            AutoCompaction::Periodic(_) => "periodic",
            AutoCompaction::Revision(_) => "revision",
        }
    }
}

/// Time between two ticks.
fn interval(mode: AutoCompaction) -> Duration {
    match mode {
        AutoCompaction::Periodic(retention) => {
            (retention.min(INTERVAL_MAX) / SAMPLES).max(TICK_MIN)
        }
        AutoCompaction::Revision(_) => REVISION_INTERVAL,
    }
}

impl Member {
    /// Takes the ticks that are due, and notes what became of a compaction. One that failed is tried
    /// again at the next tick.
    pub(super) fn auto_compact(&mut self) {
        let is_idle =
            |auto: &mut AutoCompactor| auto.under_way.is_none() && self.now < auto.next_at;
        let Some(mut auto) = self.auto_compactor.take_if(|auto| !is_idle(auto)) else { return };
        self.settle_auto_compaction(&mut auto);
        while auto.next_at <= self.now {
            let may_propose =
                self.node.is_leader() && self.lead.term_started && self.lead.stopping.is_none();
            let current = self.store.revision();
            let due = auto.due(self.now, current);
            if let Some(revision) = due.filter(|_| may_propose && auto.under_way.is_none()) {
                self.propose_auto_compaction(&mut auto, revision);
            }
            auto.sample(current);
            auto.next_at = auto.next_at + interval(auto.mode);
        }
        self.auto_compactor = Some(auto);
    }

    fn propose_auto_compaction(&mut self, auto: &mut AutoCompactor, revision: i64) {
        let fields = vec![("revision", revision.to_string())];
        self.log(Level::Info, &format!("starting auto {} compaction", auto.name()), fields);
        let compaction = pb::CompactionRequest { revision, physical: false };
        let request =
            pb::InternalRaftRequest { compaction: Some(compaction), ..Default::default() };
        let id = self.propose_own(request);
        auto.under_way = id.map(|id| UnderWay { id, revision, since: self.now });
    }

    fn settle_auto_compaction(&mut self, auto: &mut AutoCompactor) {
        let over = auto.under_way.take_if(|u| self.pending.get(u.id).is_none());
        let Some(UnderWay { revision, since, .. }) = over else { return };
        let took = format!("{:?}", self.now.since(since));
        let fields = vec![("revision", revision.to_string()), ("took", took)];
        // Somebody else's compaction will do as well.
        if self.store.compact_revision() >= revision {
            auto.succeeded_at = self.now;
            auto.last_revision = revision;
            auto.has_begun = true;
            self.log(Level::Info, &format!("completed auto {} compaction", auto.name()), fields);
        } else {
            self.log(Level::Warn, &format!("failed auto {} compaction", auto.name()), fields);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(minutes: u32) -> Instant {
        Instant::ZERO + MINUTE * minutes
    }

    /// Runs ticks; the revision is the minute, 0 of which cannot be compacted to. Every compaction
    /// succeeds at once.
    fn compactions(mode: AutoCompaction, minutes: u32) -> Vec<(u32, i64)> {
        let mut auto = AutoCompactor::new(mode, Instant::ZERO, 0);
        let mut done = Vec::new();
        for minute in 1..=minutes {
            while auto.next_at <= at(minute) {
                let now = auto.next_at;
                if let Some(revision) = auto.due(now, i64::from(minute)) {
                    auto.succeeded_at = now;
                    auto.last_revision = revision;
                    auto.has_begun = true;
                    done.push((minute, revision));
                }
                auto.sample(i64::from(minute));
                auto.next_at = now + interval(mode);
            }
        }
        done
    }

    #[test]
    fn periodic_keeps_one_retention_and_goes_on_every_hour() {
        let hours = |n| AutoCompaction::Periodic(60 * MINUTE * n);
        assert_eq!(compactions(hours(1), 190), [(72, 6), (132, 66)]);
        let five = compactions(hours(5), 430);
        assert_eq!(five[..2], [(312, 6), (372, 66)], "after five hours, then hourly");
        let ten = compactions(AutoCompaction::Periodic(10 * MINUTE), 32);
        assert_eq!(ten, [(12, 1), (22, 11), (32, 21)]);
    }

    #[test]
    fn revision_mode_leaves_the_last_revisions_every_five_minutes() {
        let done = compactions(AutoCompaction::Revision(7), 20);
        assert_eq!(done, [(10, 3), (15, 8), (20, 13)]);
    }
}
