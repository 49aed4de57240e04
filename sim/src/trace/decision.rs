//! The decision trace: what was chosen in a run, one JSON object per line.
//!
//! A seed names a run of one version of the code; a trace survives changes, because a replay can take
//! each decision from it and fall back to the random stream behind it.

use std::io::Write;

use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::rng::Draw;

/// One choice.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "kebab-case")]
pub enum Decision {
    /// The first line: where the streams start.
    Seed { seed: u64, members: u64 },
    /// A fault was injected; `target` is what its anchor meant at that moment.
    Fault { at_ns: u64, fault: Fault, target: Option<u64> },
    /// All faults were ended.
    HealAll { at_ns: u64 },
    /// A client sent a request: the rpc's name and its protobuf in hex.
    Operation { at_ns: u64, client: u32, to: u64, rpc: String, request: String },
    /// A latency was drawn.
    Draw(Draw),
}

/// Writes one decision per line.
pub fn write_json_lines(decisions: &[Decision], out: &mut impl Write) -> std::io::Result<()> {
    for decision in decisions {
        serde_json::to_writer(&mut *out, decision)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fault::{DiskStall, Target};

    #[test]
    fn a_decision_reads_back_from_its_line() {
        let stall = DiskStall { node: Target::Leader, duration: Duration::from_secs(4) };
        let decisions = vec![
            Decision::Seed { seed: 7, members: 3 },
            Decision::Fault { at_ns: 5, fault: Fault::DiskStall(stall), target: Some(2) },
            Decision::Draw(Draw { stream: "disk".into(), node: 1, ordinal: 9, ns: 500 }),
        ];
        let mut out = Vec::new();
        write_json_lines(&decisions, &mut out).expect("writing to memory succeeds");
        let text = String::from_utf8(out).expect("JSON is UTF-8");
        let back: Vec<Decision> =
            text.lines().map(|line| serde_json::from_str(line).expect("a decision")).collect();
        assert_eq!(back, decisions);
        assert!(text.contains(r#""kind":"disk-stall","node":"leader","duration":"4s""#), "{text}");
    }
}
