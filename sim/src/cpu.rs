//! What work costs on a node's CPU, so that overload and queueing exist.
//!
//! The member is one thread: it is busy for the sum of a burst's costs, and what arrives meanwhile
//! waits in its inbox. Reads and watch framing run on other cores: `readers` of them.
//! The default figures are guesses of the right size; the real bench calibrates them.

use std::ops::RangeInclusive;

use detkv_core::Input;
use detkv_core::event::Outputs;
use detkv_core::pb::peer::frame::Body;
use serde::{Deserialize, Serialize};

use crate::bounds::within;

/// Costs in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CpuModel {
    /// Every burst: waking up, `poll`.
    pub burst_ns: u64,
    /// Taking one frame of a peer.
    pub frame_in_ns: u64,
    /// Each entry in a frame.
    pub entry_ns: u64,
    /// Taking one client request.
    pub request_ns: u64,
    /// Any other input.
    pub input_ns: u64,
    /// Applying one entry.
    pub apply_ns: u64,
    /// Sending one frame.
    pub frame_out_ns: u64,
    /// One disk action or reply.
    pub output_ns: u64,
    /// One message on a watch stream.
    pub watch_ns: u64,
    /// Each event in it.
    pub watch_event_ns: u64,
    /// Serving a read, plus `read_row_ns` per row, on a reader core.
    pub read_ns: u64,
    pub read_row_ns: u64,
    /// Writing one row of a backend job, on the backend's thread.
    pub backend_row_ns: u64,
    /// Cores that serve reads.
    pub readers: u32,
}

impl Default for CpuModel {
    fn default() -> Self {
        Self {
            burst_ns: 2_000,
            frame_in_ns: 1_500,
            entry_ns: 300,
            request_ns: 3_000,
            input_ns: 300,
            apply_ns: 2_000,
            frame_out_ns: 1_500,
            output_ns: 1_000,
            watch_ns: 1_000,
            watch_event_ns: 100,
            read_ns: 3_000,
            read_row_ns: 200,
            backend_row_ns: 2_000,
            readers: 1,
        }
    }
}

/// One piece of work takes a second at most.
const COST_NS_MAX: u64 = 1_000_000_000;
const READERS: RangeInclusive<u32> = 1..=1_024;

impl CpuModel {
    /// Errors: what is wrong, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        let costs = [
            ("burst_ns", self.burst_ns),
            ("frame_in_ns", self.frame_in_ns),
            ("entry_ns", self.entry_ns),
            ("request_ns", self.request_ns),
            ("input_ns", self.input_ns),
            ("apply_ns", self.apply_ns),
            ("frame_out_ns", self.frame_out_ns),
            ("output_ns", self.output_ns),
            ("watch_ns", self.watch_ns),
            ("watch_event_ns", self.watch_event_ns),
            ("read_ns", self.read_ns),
            ("read_row_ns", self.read_row_ns),
            ("backend_row_ns", self.backend_row_ns),
        ];
        costs.iter().try_for_each(|(name, ns)| within(name, *ns, 0..=COST_NS_MAX))?;
        within("readers", self.readers, READERS)
    }

    /// Work is free: only disks and links take time.
    pub fn free() -> Self {
        Self {
            burst_ns: 0,
            frame_in_ns: 0,
            entry_ns: 0,
            request_ns: 0,
            input_ns: 0,
            apply_ns: 0,
            frame_out_ns: 0,
            output_ns: 0,
            watch_ns: 0,
            watch_event_ns: 0,
            read_ns: 0,
            read_row_ns: 0,
            backend_row_ns: 0,
            readers: 1,
        }
    }

    pub fn input(&self, input: &Input) -> u64 {
        match input {
            Input::Peer { frame, .. } => {
                let entries = match &frame.body {
                    Some(Body::Raft(message)) => message.entries.len() as u64,
                    _ => 0,
                };
                self.frame_in_ns + entries * self.entry_ns
            }
            Input::Request { .. } | Input::StreamRequest { .. } => self.request_ns,
            _ => self.input_ns,
        }
    }

    /// Cost of a burst's outputs; `applied` entries were applied in it.
    pub fn outputs(&self, out: &Outputs, applied: u64) -> u64 {
        let frames = out.messages.len() + out.snapshot_frames.len();
        let actions = out.log.len() + out.snapshot.len() + out.replies.len() + out.jobs.len();
        let events: usize = out.watch.iter().map(|(_, m)| m.events.as_slice().len()).sum();
        self.burst_ns
            + applied * self.apply_ns
            + frames as u64 * self.frame_out_ns
            + actions as u64 * self.output_ns
            + out.watch.len() as u64 * self.watch_ns
            + events as u64 * self.watch_event_ns
    }
}

/// The cores that serve reads: each read takes the first one that is free.
#[derive(Debug)]
pub struct Readers {
    /// True time at which each core is free.
    free_at: Vec<u64>,
}

impl Readers {
    pub fn new(cores: u32) -> Self {
        Self { free_at: vec![0; cores.max(1) as usize] }
    }

    /// Occupies a core for `cost_ns`, from `now_ns` or when one is free; returns when it is done.
    pub fn run(&mut self, now_ns: u64, cost_ns: u64) -> u64 {
        let core = self.free_at.iter_mut().min().expect("there is at least one core");
        *core = (*core).max(now_ns) + cost_ns;
        *core
    }
}

/// How many times as slow a CPU is, and until when: each a fault's.
#[derive(Clone, Default, Debug)]
pub struct Slowdowns(Vec<(u64, u64)>);

impl Slowdowns {
    pub fn push(&mut self, factor: u64, until: u64) {
        self.0.push((factor, until));
    }

    /// One of these is over, before its time as a rule.
    pub fn remove(&mut self, factor: u64, until: u64) {
        if let Some(place) = self.0.iter().position(|slow| *slow == (factor, until)) {
            self.0.remove(place);
        }
    }

    /// Several at once multiply.
    pub fn factor(&self) -> u64 {
        self.0.iter().map(|(factor, _)| factor).product()
    }

    /// When work is done that begins at `from` and takes `work_ns` of a CPU as it usually is. They end when they said.
    pub fn done_at(&self, from: u64, mut work_ns: u64) -> u64 {
        let mut at = from;
        loop {
            let lasting = || self.0.iter().filter(|(_, until)| *until > at);
            let factor: u64 = lasting().map(|(factor, _)| factor).product();
            let Some(until) = lasting().map(|(_, until)| *until).min() else { return at + work_ns };
            let meanwhile_ns = (until - at) / factor;
            if work_ns <= meanwhile_ns {
                return at + work_ns * factor;
            }
            work_ns -= meanwhile_ns;
            at = until;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_queue_for_cores() {
        let mut readers = Readers::new(2);
        assert_eq!(readers.run(100, 10), 110);
        assert_eq!(readers.run(100, 30), 130);
        assert_eq!(readers.run(100, 10), 120);
        assert_eq!(readers.run(200, 10), 210);
    }

    #[test]
    fn work_goes_on_at_the_usual_speed_when_a_slowdown_is_over() {
        let mut slow = Slowdowns::default();
        assert_eq!((slow.factor(), slow.done_at(1_000, 50)), (1, 1_050));
        slow.push(10, 2_000);
        slow.push(5, 1_500);
        assert_eq!(slow.factor(), 50);
        assert_eq!(slow.done_at(1_000, 10), 1_500, "all of it fifty times as slow");
        assert_eq!(slow.done_at(1_000, 20), 1_600, "half of it ten times as slow");
        assert_eq!(slow.done_at(1_000, 70), 2_010);
        slow.remove(5, 1_500);
        assert_eq!(slow.done_at(1_000, 110), 2_010);
    }
}
