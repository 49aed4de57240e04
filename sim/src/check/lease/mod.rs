//! A lease keeps its keys alive for its time, and not for ever (surface spec §5).
//!
//! | Promise | Broken when |
//! |---|---|
//! | granted TTL | a grant, a renewal or a question is answered with another TTL than the one in force |
//! | TTL beyond full | more time is left than full TTL plus the election timeout that a new leader adds |
//! | expired early | it is revoked for its age, or gone, less than its TTL after a renewal was asked for |
//! | expired late | a leader leaves it alone long after its time |
//! | revived | it is renewed, known or usable after it was gone, or renewed while its revoke is in the log |
//! | keys go in one revision | an expiry leaves a key behind, or takes one that is not its own |
//!
//! Time is true time. What a member may err by is allowed for: clocks that were stepped or run fast, and for
//! lateness every moment in which a fault was active. Exact times come from the Raft logs (when a grant
//! or revoke was first seen in one); without them clients' views decide alone.

mod keys;
mod lives;

use std::time::Duration;

use detkv_core::{ApiError, Instant};

use self::lives::{Kept, Life, Seen};
use super::times::Times;
use super::{Case, Checker, Violation};
use crate::history::OpId;

/// What a leader may take besides: rounds of 500 ms, a commit, a queue.
const LATE: Duration = Duration::from_secs(5);
/// Leases that one leader revokes in a second, at least (it spreads 1000 and more to 750).
const REVOKES_PER_SEC: u64 = 500;

#[derive(Debug)]
pub struct Lease;

impl Checker for Lease {
    fn name(&self) -> &'static str {
        "lease"
    }

    fn check(&self, case: &Case) -> Result<(), Violation> {
        let lives = lives::gather(case);
        let times = Times::new(case);
        let judge = Judge { case, times: &times, leases: lives.len() as u64 };
        for (id, life) in &lives {
            judge.life(*id, life)?;
        }
        keys::check(case)
    }
}

struct Judge<'c, 'h> {
    case: &'c Case<'h>,
    times: &'c Times,
    leases: u64,
}

type Verdict = Result<(), Violation>;

impl Judge<'_, '_> {
    fn life(&self, id: i64, life: &Life) -> Verdict {
        self.granted_ttl(id, life)?;
        // An id that is used twice, or a grant whose fate is open: its times cannot be told.
        let Some(grant) = life.only_grant() else { return Ok(()) };
        let ttl = Duration::from_secs(u64::try_from(grant.ttl_secs).unwrap_or(0));
        self.revived(id, life)?;
        self.early(id, life, ttl)?;
        self.late(id, life, ttl)
    }

    fn broken(&self, promise: &'static str, id: i64, what: &str, ops: Vec<OpId>) -> Verdict {
        Err(Violation::new(promise, format!("lease {id:x}: {what}"), ops))
    }

    fn granted_ttl(&self, id: i64, life: &Life) -> Verdict {
        let least = self.case.history.settings().lease_ttl_secs_min;
        for grant in &life.grants {
            if grant.is_done && grant.ttl_secs != grant.asked_ttl_secs.max(least) {
                let what = format!(
                    "{} asked for {} s and got {} s",
                    grant.op, grant.asked_ttl_secs, grant.ttl_secs
                );
                return self.broken("granted TTL", id, &what, vec![grant.op]);
            }
        }
        let Some(grant) = life.only_grant() else { return Ok(()) };
        let full = grant.ttl_secs;
        let election = self.case.history.settings().election;
        let most = full + election.as_nanos().div_ceil(1_000_000_000) as i64;
        for seen in &life.seen {
            let (got, most) = match seen.kept {
                Kept::Renewed { ttl_secs } => (ttl_secs, full),
                Kept::Known { ttl_secs, granted_ttl_secs } => {
                    if granted_ttl_secs != full {
                        let what = format!(
                            "{} says it was granted {granted_ttl_secs} s, it was {full} s",
                            seen.op
                        );
                        return self.broken("granted TTL", id, &what, vec![seen.op]);
                    }
                    (ttl_secs, most)
                }
                Kept::Used | Kept::Gone => continue,
            };
            if got > most {
                let what = format!("{} shows {got} s of {full} s", seen.op);
                return self.broken("TTL beyond full", id, &what, vec![seen.op]);
            }
            if matches!(seen.kept, Kept::Renewed { .. }) && got < full {
                let what = format!("{} renewed it for {got} s of {full} s", seen.op);
                return self.broken("granted TTL", id, &what, vec![seen.op]);
            }
        }
        Ok(())
    }

    /// Nothing shows it alive after it was gone.
    fn revived(&self, id: i64, life: &Life) -> Verdict {
        let granted = life.grants.iter().map(|grant| grant.returned).max().unwrap_or(Instant::FAR);
        let is_gone = |seen: &&Seen| matches!(seen.kept, Kept::Gone) && seen.called > granted;
        let gone = life.seen.iter().filter(is_gone).map(|seen| (seen.returned, Some(seen.op)));
        let revoked = life.revoked.iter().map(|revoke| (revoke.returned, Some(revoke.op)));
        let first = gone.chain(revoked).filter(|(at, _)| *at < Instant::FAR).min();
        let entry =
            life.revoke_entries.iter().filter(|entry| entry.is_committed).map(|e| e.at).min();
        for seen in &life.seen {
            let is_alive = match seen.kept {
                Kept::Gone => false,
                Kept::Known { granted_ttl_secs, .. } => granted_ttl_secs > 0,
                Kept::Renewed { .. } | Kept::Used => true,
            };
            if let Some((at, by)) = first
                && is_alive
                && seen.called > at
            {
                let by_op = by.map_or(String::new(), |op| format!(" ({op})"));
                let what = format!("{} found it alive after it was gone{by_op}", seen.op);
                let ops = by.into_iter().chain([seen.op]).collect();
                return self.broken("revived", id, &what, ops);
            }
            let is_kept = matches!(seen.kept, Kept::Renewed { .. } | Kept::Used);
            if entry.is_some_and(|at| seen.called > at) && is_kept {
                let what = format!("{} was answered though its revoke was in the log", seen.op);
                return self.broken("revived", id, &what, vec![seen.op]);
            }
        }
        Ok(())
    }

    /// Full TTL after each renewal, counted from when it was asked for.
    fn early(&self, id: i64, life: &Life, ttl: Duration) -> Verdict {
        let revoked = life.revoke_called;
        let exact = life.revoke_entries.iter().filter(|entry| entry.is_committed);
        // (renewals that returned by this count, gone at this)
        let exact = exact.map(|entry| (entry.at, entry.at, None));
        let gone = life.seen.iter().filter(|seen| matches!(seen.kept, Kept::Gone));
        let gone = gone.map(|seen| (seen.called, seen.returned, Some(seen.op)));
        for (asked, at, op) in exact.chain(gone) {
            if revoked <= at {
                continue;
            }
            let renewed = life.renewals.iter().filter(|renewal| renewal.returned < asked);
            let Some(last) = renewed.max_by_key(|renewal| renewal.called) else { continue };
            let allowed = self.times.fast(last.called, at);
            let lived = at.since(last.called) + allowed;
            if lived < ttl {
                let what = format!(
                    "gone {:?} after {} asked to keep it for {ttl:?}",
                    at.since(last.called),
                    last.op
                );
                let ops = [last.op].into_iter().chain(op).collect();
                return self.broken("expired early", id, &what, ops);
            }
        }
        Ok(())
    }

    /// A leader proposes the revoke soon after its time, or had no chance to: it leads no more, and
    /// nobody after it.
    fn late(&self, id: i64, life: &Life, ttl: Duration) -> Verdict {
        if self.case.history.raft().is_empty() || !life.is_grant_committed {
            return Ok(());
        }
        let end = self.times.end;
        let gone = life.revoke_entries.iter().filter(|entry| entry.is_committed);
        let gone = gone.map(|entry| entry.at).min();
        let until = gone.unwrap_or(end);
        let renewed = life.latest_renewal(until);
        let Some((led, led_until)) = self.times.last_leadership(until) else { return Ok(()) };
        let from = renewed.max(led);
        // A revoke that was proposed in time and got lost is tried again: not lateness of this kind.
        let proposed =
            life.revoke_entries.iter().map(|entry| entry.at).filter(|at| *at > from).min();
        let until = proposed.unwrap_or(until).min(until).min(led_until.max(from));
        let spread = Duration::from_millis(1000 * self.leases / REVOKES_PER_SEC);
        let election = self.case.history.settings().election;
        let most = ttl + election + LATE + spread + self.times.troubled(from, until);
        if until.since(from) > most {
            let what = format!(
                "{:?} after its last renewal or the last new leader no revoke was proposed (TTL {ttl:?}, allowed {most:?})",
                until.since(from)
            );
            return self.broken("expired late", id, &what, Vec::new());
        }
        Ok(())
    }
}

/// Whether the error says that there is no such lease.
fn says_gone(error: &ApiError) -> bool {
    *error == ApiError::LeaseNotFound
}
