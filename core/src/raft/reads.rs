//! One ReadIndex round for all waiting reads of a member (surface spec §16.3, rules 9).
//!
//! ```text
//! push ─► waiting ─start─► round in flight (contexts) ─on_read_state─► ready at index ─► take_ready
//! ```
//! A read that arrives after a round was sent waits for the next one: that round's index could be
//! older than a write the reader already saw acknowledged.

use std::collections::VecDeque;
use std::time::Duration;

use crate::event::MemberId;
use crate::time::Instant;
use crate::{buggify, sometimes};

/// Sent again after this long, under a new context of the same round (etcd's value).
pub const RETRY: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub struct ReadRounds<W> {
    member: MemberId,
    /// Drawn at open: an answer to an earlier life of this member matches nothing.
    nonce: u64,
    round: u64,
    attempt: u64,
    waiting: Vec<W>,
    flight: Option<(Instant, Vec<W>)>,
    /// (index to be applied, who waits for it); indexes never go down.
    ready: VecDeque<(u64, Vec<W>)>,
}

impl<W> ReadRounds<W> {
    pub fn new(member: MemberId, nonce: u64) -> Self {
        Self {
            member,
            nonce,
            round: 0,
            attempt: 0,
            waiting: Vec::new(),
            flight: None,
            ready: VecDeque::new(),
        }
    }

    pub fn push(&mut self, waiter: W) {
        self.waiting.push(waiter);
    }

    pub fn len(&self) -> usize {
        let ready: usize = self.ready.iter().map(|(_, w)| w.len()).sum();
        self.waiting.len() + self.flight.as_ref().map_or(0, |(_, w)| w.len()) + ready
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.flight.is_none() && self.ready.is_empty()
    }

    /// Starts a round, or repeats the one in flight when it is `RETRY` old (or `at_once`).
    /// Returns the context to give to raft-rs.
    pub fn maybe_send(&mut self, now: Instant, at_once: bool) -> Option<Vec<u8>> {
        // Every burst comes here, and in a large cluster an attempt makes more than one of them: once a round.
        let again = self.attempt == 0 && self.flight.is_some() && buggify!("reads.retry-now");
        match &mut self.flight {
            Some((sent, _)) if at_once || again || now >= *sent + RETRY => {
                sometimes!(now >= *sent + RETRY, "reads.retried");
                *sent = now;
                self.attempt += 1;
            }
            None if !self.waiting.is_empty() => {
                self.flight = Some((now, std::mem::take(&mut self.waiting)));
                self.round += 1;
                self.attempt = 0;
            }
            _ => return None,
        }
        Some(self.context())
    }

    fn context(&self) -> Vec<u8> {
        [self.member.0, self.nonce, self.round, self.attempt]
            .iter()
            .flat_map(|n| n.to_be_bytes())
            .collect()
    }

    /// An answer: taken only if it is to the round in flight, whichever attempt. Returns whether it was.
    pub fn on_read_state(&mut self, context: &[u8], index: u64) -> bool {
        let current = self.context();
        if self.flight.is_none() || context.len() != current.len() || context[..24] != current[..24]
        {
            return false;
        }
        let (_, waiters) = self.flight.take().expect("checked above");
        self.ready.push_back((index, waiters));
        true
    }

    /// Waiters whose index has been applied.
    pub fn take_ready(&mut self, applied: u64) -> Vec<W> {
        let mut out = Vec::new();
        while self.ready.front().is_some_and(|(index, _)| *index <= applied) {
            out.extend(self.ready.pop_front().expect("looked at above").1);
        }
        out
    }

    /// The leader changed: the round in flight will have no answer.
    pub fn fail_flight(&mut self) -> Vec<W> {
        self.flight.take().map(|(_, waiters)| waiters).unwrap_or_default()
    }

    /// Removes waiters that `gone` says are over, wherever they are.
    pub fn remove(&mut self, mut gone: impl FnMut(&W) -> bool) -> Vec<W> {
        let mut out: Vec<W> = self.waiting.extract_if(.., |w| gone(w)).collect();
        if let Some((_, waiters)) = &mut self.flight {
            out.extend(waiters.extract_if(.., |w| gone(w)));
        }
        if self.flight.as_ref().is_some_and(|(_, w)| w.is_empty()) {
            self.flight = None;
        }
        for (_, waiters) in &mut self.ready {
            out.extend(waiters.extract_if(.., |w| gone(w)));
        }
        self.ready.retain(|(_, waiters)| !waiters.is_empty());
        out
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.flight.as_ref().map(|(sent, _)| *sent + RETRY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Instant = Instant::ZERO;

    fn rounds() -> ReadRounds<u32> {
        ReadRounds::new(MemberId(1), 7)
    }

    #[test]
    fn a_read_that_arrives_during_a_round_waits_for_the_next() {
        let mut r = rounds();
        r.push(1);
        let first = r.maybe_send(T0, false).unwrap();
        r.push(2);
        r.on_read_state(&first, 10);
        assert_eq!(r.take_ready(9), [0; 0]);
        assert_eq!(r.take_ready(10), [1]);
        let second = r.maybe_send(T0, false).unwrap();
        assert_ne!(first, second);
        r.on_read_state(&second, 12);
        assert_eq!(r.take_ready(12), [2]);
    }

    #[test]
    fn an_answer_to_an_earlier_round_is_ignored() {
        let mut r = rounds();
        r.push(1);
        let first = r.maybe_send(T0, false).unwrap();
        assert_eq!(r.fail_flight(), [1]);
        r.push(2);
        r.maybe_send(T0, false).unwrap();
        r.on_read_state(&first, 10);
        assert_eq!(r.take_ready(100), [0; 0]);
    }

    #[test]
    fn any_attempt_of_the_round_may_answer() {
        let mut r = rounds();
        r.push(1);
        let first = r.maybe_send(T0, false).unwrap();
        assert_eq!(r.maybe_send(T0 + Duration::from_millis(499), false), None);
        let again = r.maybe_send(T0 + RETRY, false).unwrap();
        assert_ne!(first, again);
        r.on_read_state(&first, 3);
        assert_eq!(r.take_ready(3), [1]);
    }
}
