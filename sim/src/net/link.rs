//! One direction of a link: a sender that serves its flows in turn, then a latency.
//!
//! ```text
//! flow 0 ▶ ▢▢      ┐ QUANTUM bytes each   ┌ latency, in order ▶ arrival of flow 0
//! flow 1 ▶ ▢▢▢▢▢▢  ┘ in turn, bandwidth   └ per flow          ▶ arrival of flow 1
//! ```
//! A bulk transfer on one flow thus slows the other down, but never blocks it.

use std::collections::VecDeque;

use super::disturb::{Disturbance, DisturbanceId, Disturbances, LOSSES_MAX, Stray};
use super::{LinkCounters, LinkModel};
use crate::disk::transfer_ns;
use crate::rng::{Draw, Draws};

/// Flows of a link. Between members: messages and snapshot. Between client and member: one.
pub const FLOWS: usize = 2;
/// Bytes that a flow may send before it is the other's turn.
const QUANTUM: u64 = 4096;
/// First retransmission timeout; doubles from there on.
const RETRANSMIT_NS: u64 = 200_000_000;

/// What the world has to schedule.
#[derive(Debug)]
pub enum Next<P> {
    /// `what` arrives at `at`.
    Arrive { at: u64, what: P },
    /// Call `serve` at `at`.
    Serve { at: u64 },
    /// It waits behind something that is scheduled already.
    Nothing,
}

struct Waiting<P> {
    left_bytes: u64,
    what: P,
}

/// One direction of one link.
pub struct Link<P> {
    model: LinkModel,
    draws: Draws,
    disturbances: Option<Box<Disturbances>>,
    queues: [VecDeque<Waiting<P>>; FLOWS],
    queued_bytes: [u64; FLOWS],
    turn: usize,
    /// A `serve` is scheduled.
    serving: bool,
    busy_until: u64,
    last_arrival: [u64; FLOWS],
    /// Cuts in force.
    pub(super) cuts: u32,
    cut_since: u64,
    pub counters: LinkCounters,
}

impl<P> Link<P> {
    pub fn new(
        seed: u64,
        node: u64,
        purpose: &'static str,
        model: LinkModel,
        keep_draws: bool,
    ) -> Self {
        Self {
            model,
            draws: Draws::new(seed, node, purpose, keep_draws),
            disturbances: None,
            queues: Default::default(),
            queued_bytes: [0; FLOWS],
            turn: 0,
            serving: false,
            busy_until: 0,
            last_arrival: [0; FLOWS],
            cuts: 0,
            cut_since: 0,
            counters: LinkCounters::default(),
        }
    }

    /// Sends `bytes` at `at` on a flow.
    pub fn send(&mut self, at: u64, flow: usize, bytes: u64, what: P) -> Next<P> {
        self.counters.messages += 1;
        self.counters.bytes += bytes;
        if flow > 0 {
            self.counters.snapshot_bytes += bytes;
        }
        let waits = self.cuts > 0 || self.serving || self.ready_at() > at;
        let rate = self.bytes_per_sec();
        if !waits && (rate.is_none() || bytes <= QUANTUM) {
            let departs = self.take_turn(at, bytes);
            return Next::Arrive { at: self.arrival(departs, flow), what };
        }
        self.queued_bytes[flow] += bytes;
        self.queues[flow].push_back(Waiting { left_bytes: bytes, what });
        if self.cuts > 0 || self.serving {
            return Next::Nothing;
        }
        self.serving = true;
        Next::Serve { at: self.ready_at().max(at) }
    }

    /// Sends the next piece. Returns what arrives, if a message is complete, and when to serve again.
    pub fn serve(&mut self, now: u64) -> (Option<(u64, P)>, Option<u64>) {
        assert!(self.serving, "a link is served when it asked for it");
        if self.cuts > 0 || self.ready_at() > now {
            // Cut meanwhile, or mended meanwhile and waiting for a retransmission.
            self.serving = self.cuts == 0;
            return (None, self.serving.then(|| self.ready_at()));
        }
        let Some(flow) =
            (0..FLOWS).map(|i| (self.turn + i) % FLOWS).find(|f| !self.queues[*f].is_empty())
        else {
            self.serving = false;
            return (None, None);
        };
        self.turn = (flow + 1) % FLOWS;
        let limited = self.bytes_per_sec().is_some();
        let front = self.queues[flow].front_mut().expect("the flow with something to send");
        let bytes = if limited { front.left_bytes.min(QUANTUM) } else { front.left_bytes };
        front.left_bytes -= bytes;
        self.queued_bytes[flow] -= bytes;
        let is_complete = front.left_bytes == 0;
        let departs = self.take_turn(now, bytes);
        let mut arrives = None;
        if is_complete {
            let Waiting { what, .. } = self.queues[flow].pop_front().expect("it is the front");
            arrives = Some((self.arrival(departs, flow), what));
        }
        self.serving = self.queues.iter().any(|queue| !queue.is_empty());
        let again = self.ready_at().max(now);
        (arrives, self.serving.then_some(again))
    }

    /// Takes the bucket's tokens for so many bytes; returns when the last byte leaves.
    fn take_turn(&mut self, at: u64, bytes: u64) -> u64 {
        let Some(rate) = self.bytes_per_sec() else { return at };
        self.busy_until = self.busy_until.max(at) + transfer_ns(bytes, rate);
        self.ready_at().max(at)
    }

    /// When something may leave: the bucket holds `burst_bytes` of tokens once it was idle for long enough.
    fn ready_at(&self) -> u64 {
        self.busy_until.saturating_sub(self.burst_ns())
    }

    fn burst_ns(&self) -> u64 {
        self.bytes_per_sec().map_or(0, |rate| transfer_ns(self.model.burst_bytes, rate))
    }

    fn arrival(&mut self, departs: u64, flow: usize) -> u64 {
        let at = (departs + self.latency()).max(self.last_arrival[flow]);
        self.last_arrival[flow] = at;
        at
    }

    /// One draw, retransmissions of lost packets included.
    pub fn latency(&mut self) -> u64 {
        let mut latency = self.draws.latency(&self.model.latency);
        let mut timeout = RETRANSMIT_NS;
        let mut losses = 0;
        while losses < LOSSES_MAX && self.draws.chance(self.model.loss_ppm) {
            latency += timeout;
            timeout *= 2;
            losses += 1;
        }
        latency + self.disturbances.as_mut().map_or(0, |d| d.delay(RETRANSMIT_NS))
    }

    fn bytes_per_sec(&self) -> Option<u64> {
        let disturbed = self.disturbances.as_ref().and_then(|d| d.bytes_per_sec());
        match (self.model.bytes_per_sec, disturbed) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    pub(super) fn disturb(
        &mut self,
        id: DisturbanceId,
        disturbance: Disturbance,
        fresh: impl FnOnce() -> Disturbances,
    ) {
        self.disturbances.get_or_insert_with(|| Box::new(fresh())).add(id, disturbance);
    }

    pub(super) fn calm(&mut self, id: DisturbanceId) {
        if let Some(disturbances) = &mut self.disturbances {
            disturbances.remove(id);
        }
    }

    /// What becomes of a message that need not stay in order. One that waits in a queue stays in order.
    pub fn stray(&mut self) -> Stray {
        match &mut self.disturbances {
            Some(disturbances) if self.cuts == 0 => disturbances.stray(),
            _ => Stray::default(),
        }
    }

    /// Sends outside of the order of its flow; returns when it arrives.
    pub fn send_stray(&mut self, at: u64, bytes: u64, later: u64) -> u64 {
        self.counters.messages += 1;
        self.counters.bytes += bytes;
        at + self.latency() + later
    }

    /// Messages that wait to be sent on a flow.
    pub fn queued(&self, flow: usize) -> usize {
        self.queues[flow].len()
    }

    /// Bytes of them.
    pub fn queued_bytes(&self, flow: usize) -> u64 {
        self.queued_bytes[flow]
    }

    /// The connection is closed: what waited to be sent is gone with it.
    pub fn drop_queued(&mut self) {
        self.queues.iter_mut().for_each(VecDeque::clear);
        self.queued_bytes = [0; FLOWS];
    }

    /// Sets the number of cuts; when the last one ends, returns when to serve.
    pub(super) fn set_cuts(&mut self, now: u64, cuts: u32) -> Option<u64> {
        if self.cuts == 0 && cuts > 0 {
            self.cut_since = now;
        }
        let mended = self.cuts > 0 && cuts == 0;
        self.cuts = cuts;
        if !mended || self.queues.iter().all(VecDeque::is_empty) {
            return None;
        }
        self.busy_until = self.busy_until.max(self.next_retransmission(now) + self.burst_ns());
        if self.serving {
            return None;
        }
        self.serving = true;
        Some(self.ready_at())
    }

    /// A sender without acknowledgements tries again after 200, 600, 1400… ms.
    fn next_retransmission(&self, now: u64) -> u64 {
        let (mut at, mut timeout) = (self.cut_since + RETRANSMIT_NS, RETRANSMIT_NS);
        while at < now {
            timeout *= 2;
            at += timeout;
        }
        at
    }

    pub(super) fn take_draws(&mut self) -> Vec<Draw> {
        self.draws.take_log()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::rng::Distribution;

    fn link(latency: Distribution, bytes_per_sec: Option<u64>) -> Link<u32> {
        Link::new(1, 1, "test", LinkModel { latency, bytes_per_sec, ..LinkModel::default() }, false)
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Sends everything at its time and serves the link; returns (arrival, what) in order of time.
    fn run(link: &mut Link<u32>, sends: &[(u64, usize, u64, u32)]) -> Vec<(u64, u32)> {
        let mut arrived = Vec::new();
        let mut serves = BTreeSet::new();
        let mut sends = sends.iter().peekable();
        loop {
            let next_send = sends.peek().map_or(u64::MAX, |s| s.0);
            let next_serve = serves.first().copied().unwrap_or(u64::MAX);
            if next_send == u64::MAX && next_serve == u64::MAX {
                break;
            }
            if next_send <= next_serve {
                let (at, flow, bytes, what) = *sends.next().expect("peeked");
                match link.send(at, flow, bytes, what) {
                    Next::Arrive { at, what } => arrived.push((at, what)),
                    Next::Serve { at } => assert!(serves.insert(at)),
                    Next::Nothing => {}
                }
            } else {
                serves.pop_first();
                let (arrives, next) = link.serve(next_serve);
                arrived.extend(arrives);
                serves.extend(next);
            }
        }
        arrived.sort_unstable();
        arrived
    }

    #[test]
    fn a_flow_stays_in_order_whatever_the_latency() {
        let jitter = Distribution::Uniform { min: ms(0), max: ms(10) };
        for rate in [None, Some(1_000_000)] {
            let mut link = link(jitter.clone(), rate);
            let sends: Vec<_> = (0..200).map(|i| (u64::from(i) * 100_000, 0, 100, i)).collect();
            let order: Vec<u32> =
                run(&mut link, &sends).into_iter().map(|(_, what)| what).collect();
            assert!(order.is_sorted() && order.len() == 200);
        }
    }

    #[test]
    fn a_packet_that_is_always_lost_gets_through_in_the_end() {
        let mut link = link(Distribution::Constant(ms(1)), None);
        link.model.loss_ppm = 1_000_000;
        // 200 ms, 400 ms, … eight times.
        assert_eq!(link.latency(), 1_000_000 + 255 * RETRANSMIT_NS);
    }

    #[test]
    fn bandwidth_is_never_exceeded_and_used_fully() {
        let mut link = link(Distribution::Constant(ms(1)), Some(1_000_000));
        let sends: Vec<_> = (0..10).map(|i| (0, 0, 10_000, i)).collect();
        let arrived = run(&mut link, &sends);
        let last = arrived.last().expect("ten messages").0;
        // 100 kB at 1 MB/s and 1 ms; each piece is rounded up to a nanosecond.
        assert!((101_000_000..101_000_100).contains(&last), "{last}");
    }

    #[test]
    fn what_waits_on_a_closed_connection_holds_nothing_up() {
        let mut link = link(Distribution::Constant(ms(1)), Some(1_000_000));
        for what in 0..100 {
            link.send(0, 0, 10_000, what);
        }
        assert_eq!((link.queued(0), link.queued_bytes(0)), (100, 1_000_000));
        link.drop_queued();
        assert_eq!((link.queued(0), link.queued_bytes(0)), (0, 0));
        assert_eq!(link.serve(0), (None, None), "nothing is left");
        let arrived = run(&mut link, &[(1_000_000, 0, 10_000, 7)]);
        assert_eq!(arrived, [(12_000_000, 7)], "10 kB at 1 MB/s and 1 ms");
    }

    #[test]
    fn a_burst_leaves_at_once_and_is_paid_for_afterwards() {
        let mut link = link(Distribution::Constant(ms(1)), Some(1_000_000));
        link.model.burst_bytes = 50_000;
        let sends: Vec<_> = (0..10).map(|i| (1_000_000_000, 0, 10_000, i)).collect();
        let arrived = run(&mut link, &sends);
        let (fifth, last) = (arrived[4].0 - 1_000_000_000, arrived[9].0 - 1_000_000_000);
        assert!((1_000_000..1_000_100).contains(&fifth), "50 kB at once: {fifth}");
        assert!((51_000_000..51_000_100).contains(&last), "the rest at 1 MB/s: {last}");
    }

    #[test]
    fn a_bulk_flow_does_not_hold_up_the_other() {
        let mut link = link(Distribution::Constant(ms(1)), Some(1_000_000));
        let arrived = run(&mut link, &[(0, 1, 1_000_000, 1), (1_000_000, 0, 100, 2)]);
        let small = arrived.iter().find(|(_, what)| *what == 2).expect("it arrives").0;
        let bulk = arrived.iter().find(|(_, what)| *what == 1).expect("it arrives").0;
        assert!(small < 7_000_000, "waits for one piece of the other at most: {small}");
        assert!(bulk > 1_000_000_000);
    }

    #[test]
    fn what_is_sent_into_a_cut_arrives_after_it_in_order() {
        for rate in [None, Some(1_000_000)] {
            let mut link = link(Distribution::Constant(ms(1)), rate);
            link.set_cuts(0, 1);
            assert!(matches!(link.send(5, 0, 100, 1), Next::Nothing));
            assert!(matches!(link.send(6, 0, 100, 2), Next::Nothing));
            let serve = link.set_cuts(300_000_000, 0).expect("something waits");
            assert_eq!(serve, 600_000_000, "the second retransmission");
            assert!(matches!(link.send(300_000_001, 0, 100, 3), Next::Nothing));
            let mut arrived = Vec::new();
            let mut next = Some(serve);
            while let Some(at) = next {
                let (arrives, again) = link.serve(at);
                arrived.extend(arrives);
                next = again;
            }
            let order: Vec<u32> = arrived.iter().map(|(_, what)| *what).collect();
            assert_eq!(order, [1, 2, 3]);
            assert!(arrived[0].0 > 600_000_000);
        }
    }
}
