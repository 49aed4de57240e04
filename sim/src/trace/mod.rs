//! What a run leaves for comparing and for replaying it.
//!
//! * [`EventHash`]: one number over everything that crossed a boundary; equal runs have equal hashes.
//! * [`Decision`]: the choices that were made (faults, operations, drawn latencies), as JSON lines.

mod decision;
mod hash;

pub use decision::{Decision, write_json_lines};
pub use hash::{Checkpoint, EventHash, Kind, TraceSummary, first_difference};
