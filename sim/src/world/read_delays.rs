//! Answers to ReadIndex rounds that are held up on their way, as a fault asks for.

use std::time::Duration;

use detkv_core::pb::peer::Frame;
use detkv_core::pb::peer::frame::Body;

/// raft-rs' number of a heartbeat's answer: with a context it confirms a ReadIndex round to the leader.
const HEARTBEAT_RESPONSE: u32 = 9;
/// raft-rs' number of the leader's answer to a follower's ReadIndex.
const READ_INDEX_RESPONSE: u32 = 16;

/// What is in force.
#[derive(Default)]
pub struct ReadDelays {
    next: u64,
    /// (name, place of the node that waits for the answers, how late they come).
    in_force: Vec<(u64, u32, Duration)>,
}

impl ReadDelays {
    /// Answers to `node` come later by `delay` until the result is given to [`ReadDelays::remove`].
    pub fn add(&mut self, node: u32, delay: Duration) -> u64 {
        let name = self.next;
        self.next += 1;
        self.in_force.push((name, node, delay));
        name
    }

    pub fn remove(&mut self, name: u64) {
        self.in_force.retain(|(other, ..)| *other != name);
    }

    /// How much later a frame to `node` arrives, in nanoseconds, if it is such an answer.
    pub fn delay(&self, frame: &Frame, node: u32) -> Option<u64> {
        if self.in_force.is_empty() || !is_read_answer(frame) {
            return None;
        }
        let delays = self.in_force.iter().filter(|(_, waits, _)| *waits == node);
        delays.map(|(.., delay)| delay.as_nanos() as u64).max()
    }
}

fn is_read_answer(frame: &Frame) -> bool {
    match &frame.body {
        Some(Body::Raft(message)) => match message.msg_type {
            READ_INDEX_RESPONSE => true,
            HEARTBEAT_RESPONSE => !message.context.is_empty(),
            _ => false,
        },
        _ => false,
    }
}
