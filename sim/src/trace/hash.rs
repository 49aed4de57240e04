//! The event hash: every boundary event with its payload, chained.
//!
//! Beside the chain over all events there is one per node, and every so many events a checkpoint,
//! so that two runs that differ can be narrowed to the first event that differs: the last common
//! checkpoint says where to record events in full.

use std::fmt::Write;
use std::ops::Range;

use detkv_core::Instant;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

/// What kind of boundary an event crossed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A frame of a peer reached its member.
    Frame,
    /// A connection came up or went down, or a queue was full.
    Connection,
    /// An action or job was given to a disk; payload: the action and when it completes.
    Disk,
    /// A completion reached the member.
    DiskDone,
    /// A member's deadline fired.
    Timer,
    /// A client's request reached a member.
    Request,
    /// An answer, or its absence, reached the client.
    Return,
    /// A message on a watch stream, in either direction.
    Watch,
    /// Something was recorded in the history.
    Record,
    /// A member's log line.
    Log,
    /// A step of recovery.
    Recovery,
}

/// The hashes after so many events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    pub events: u64,
    pub at: Instant,
    pub chain: u128,
}

/// What two runs are compared by.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TraceSummary {
    pub event_hash: u128,
    pub events: u64,
    /// Chain of each node's events; index 0 is for events of no node.
    pub nodes: Vec<u128>,
    pub checkpoints: Vec<Checkpoint>,
    /// Events recorded in full.
    pub lines: Vec<String>,
}

/// 2¹²⁸ divided by the golden ratio, made odd.
const MULTIPLIER: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

fn chain(state: u128, event: u128) -> u128 {
    (state ^ event).wrapping_mul(MULTIPLIER).rotate_left(61)
}

/// Kind, node and time, before the payload.
const HEAD_BYTES: usize = 17;

/// Folds events as they happen.
#[derive(Debug)]
pub struct EventHash {
    summary: TraceSummary,
    checkpoint_every: u64,
    full: Range<u64>,
    buffer: Vec<u8>,
}

impl EventHash {
    /// `full`: numbers of the events to record in full.
    pub fn new(nodes: u64, checkpoint_every: u64, full: Range<u64>) -> Self {
        let nodes = vec![0; nodes as usize + 1];
        let summary = TraceSummary { nodes, ..TraceSummary::default() };
        Self { summary, checkpoint_every: checkpoint_every.max(1), full, buffer: Vec::new() }
    }

    /// Folds one event of `node` (0: none). `payload` appends bytes that say all about it.
    pub fn fold(&mut self, kind: Kind, node: u64, at: Instant, payload: impl FnOnce(&mut Vec<u8>)) {
        let buffer = &mut self.buffer;
        buffer.clear();
        let mut head = [kind as u8; HEAD_BYTES];
        head[1..9].copy_from_slice(&node.to_le_bytes());
        head[9..].copy_from_slice(&at.ns.to_le_bytes());
        buffer.extend_from_slice(&head);
        payload(buffer);
        let event = xxh3_128(buffer);
        let summary = &mut self.summary;
        summary.event_hash = chain(summary.event_hash, event);
        // A member that was added.
        if summary.nodes.len() <= node as usize {
            summary.nodes.resize(node as usize + 1, 0);
        }
        let sub = &mut summary.nodes[node as usize];
        *sub = chain(*sub, event);
        if self.full.contains(&summary.events) {
            let line = describe(summary.events, kind, node, at, event, &self.buffer);
            summary.lines.push(line);
        }
        summary.events += 1;
        if summary.events.is_multiple_of(self.checkpoint_every) {
            let (events, chain) = (summary.events, summary.event_hash);
            summary.checkpoints.push(Checkpoint { events, at, chain });
        }
    }

    pub fn hash(&self) -> u128 {
        self.summary.event_hash
    }

    pub fn into_summary(self) -> TraceSummary {
        self.summary
    }
}

/// Bytes of the payload kept when an event is recorded in full.
const SHOWN: usize = 1024;

fn describe(event: u64, kind: Kind, node: u64, at: Instant, hash: u128, buffer: &[u8]) -> String {
    let payload = &buffer[HEAD_BYTES..];
    let shown = &payload[..payload.len().min(SHOWN)];
    let mut line = format!(
        "event {event} at {} ns, node {node}: {kind:?}, hash {hash:032x}, {} bytes: ",
        at.ns,
        payload.len()
    );
    for byte in shown {
        if byte.is_ascii_graphic() {
            line.push(char::from(*byte));
        } else {
            write!(line, "\\{byte:02x}").expect("writing to a string succeeds");
        }
    }
    line
}

/// Where two runs part: the events between the last common checkpoint and the first that differs.
///
/// `None` when the runs are equal.
pub fn first_difference(a: &TraceSummary, b: &TraceSummary) -> Option<Range<u64>> {
    if (a.event_hash, a.events) == (b.event_hash, b.events) {
        return None;
    }
    let pairs = a.checkpoints.iter().zip(&b.checkpoints);
    let common = pairs.take_while(|(x, y)| x.chain == y.chain && x.events == y.events).count();
    let from = if common == 0 { 0 } else { a.checkpoints[common - 1].events };
    let end_of = |run: &TraceSummary| run.checkpoints.get(common).map_or(run.events, |c| c.events);
    Some(from..end_of(a).max(end_of(b)).max(from + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(events: &[(u64, &str)]) -> TraceSummary {
        let mut hash = EventHash::new(3, 2, 0..0);
        for (i, (node, payload)) in events.iter().enumerate() {
            let at = Instant { ns: i as u64 };
            hash.fold(Kind::Frame, *node, at, |out| out.extend_from_slice(payload.as_bytes()));
        }
        hash.into_summary()
    }

    #[test]
    fn order_payload_and_node_all_count() {
        let base = run(&[(1, "a"), (2, "b")]);
        assert_eq!(base, run(&[(1, "a"), (2, "b")]));
        for other in [
            run(&[(2, "b"), (1, "a")]),
            run(&[(1, "a"), (2, "c")]),
            run(&[(1, "a"), (3, "b")]),
            run(&[(1, "a")]),
        ] {
            assert_ne!(base.event_hash, other.event_hash);
        }
    }

    #[test]
    fn the_first_difference_lies_after_the_last_common_checkpoint() {
        let a = run(&[(1, "a"), (1, "b"), (1, "c"), (1, "d"), (1, "e")]);
        let b = run(&[(1, "a"), (1, "b"), (1, "c"), (1, "x"), (1, "e")]);
        assert_eq!(first_difference(&a, &b), Some(2..4));
        assert_eq!(first_difference(&a, &a), None);
        let short = run(&[(1, "a"), (1, "b")]);
        assert_eq!(first_difference(&a, &short), Some(2..4));
        assert_eq!((a.nodes[1] == b.nodes[1], a.nodes[2] == b.nodes[2]), (false, true));
    }

    #[test]
    fn events_of_interest_are_recorded_in_full() {
        let mut hash = EventHash::new(1, 100, 1..2);
        for payload in ["first", "second", "third"] {
            hash.fold(Kind::Disk, 1, Instant::ZERO, |out| {
                out.extend_from_slice(payload.as_bytes())
            });
        }
        let lines = hash.into_summary().lines;
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains("Disk") && lines[0].ends_with("second"), "{lines:?}");
    }
}
