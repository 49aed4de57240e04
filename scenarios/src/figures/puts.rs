//! Puts: how many, how fast, and how long none succeeded.

use detkv_core::Instant;
use detkv_reports::run::{PutGap, PutSample};
use detkv_sim_world::history::{Call, History, Outcome};

use super::{Latencies, Set, Window, ms};

/// Gaps of at least this are marked on the page.
const GAP_MARKED_MS: u64 = 50;

/// The puts of the measured part: called after the warm-up and before the faults were over.
#[derive(Debug, Default)]
pub struct Puts {
    pub ok: u64,
    pub failed: u64,
    pub longest_gap_ms: u64,
    pub p50_us: Option<u64>,
    pub p99_us: Option<u64>,
    /// All puts of the run, also those of the warm-up.
    pub samples: Vec<PutSample>,
    pub gaps: Vec<PutGap>,
}

impl Puts {
    pub fn of(history: &History, window: Window) -> Self {
        let mut puts = Self::default();
        let mut latencies = Latencies::default();
        let mut returns = Vec::new();
        for op in history.operations() {
            if !matches!(op.call, Call::Put(_)) {
                continue;
            }
            let ok = matches!(op.outcome, Outcome::Done { .. });
            let ended = op.ended.min(window.last);
            puts.samples.push(PutSample {
                time_ms: ms(op.called),
                latency_us: ended.since(op.called).as_micros() as u64,
                ok,
                member: op.member.0,
            });
            if ok && op.returned >= window.warm {
                returns.push(op.returned);
            }
            match (window.has(op.called), ok) {
                (false, _) => {}
                (true, true) => {
                    puts.ok += 1;
                    latencies.push(op.called, ended);
                }
                (true, false) => puts.failed += 1,
            }
        }
        (puts.p50_us, puts.p99_us) = latencies.p50_p99();
        puts.measure_gaps(window.warm, window.end, returns);
        puts
    }

    pub(super) fn figures(&self, set: Set<'_>) {
        set("puts_ok", Some(self.ok));
        set("puts_failed", Some(self.failed));
        set("put_p50_us", self.p50_us);
        set("put_p99_us", self.p99_us);
        // Without a put there is no gap between puts.
        set("longest_put_gap_ms", (self.ok + self.failed > 0).then_some(self.longest_gap_ms));
    }

    /// Gaps between successive returns; the ends of the measured part count as returns, so that an outage that
    /// lasts to the end is not left out.
    fn measure_gaps(&mut self, warm: Instant, end: Instant, mut returns: Vec<Instant>) {
        if self.ok + self.failed == 0 {
            return;
        }
        returns.push(warm);
        returns.push(end);
        returns.sort_unstable();
        for pair in returns.windows(2).filter(|pair| pair[1] <= end) {
            let gap_ms = pair[1].since(pair[0]).as_millis() as u64;
            self.longest_gap_ms = self.longest_gap_ms.max(gap_ms);
            if gap_ms >= GAP_MARKED_MS {
                self.gaps.push(PutGap { from_ms: ms(pair[0]), to_ms: ms(pair[1]) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_to_the_end_is_a_gap() {
        let at = |ms: u64| Instant { ns: ms * 1_000_000 };
        let mut puts = Puts { ok: 3, ..Puts::default() };
        puts.measure_gaps(at(1000), at(5000), vec![at(1010), at(1030), at(1100)]);
        assert_eq!(puts.longest_gap_ms, 3900);
        assert_eq!(puts.gaps.len(), 2, "70 ms and 3900 ms");
    }
}
