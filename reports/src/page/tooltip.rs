//! What the hover tooltip needs, as JSON: the windows and spans of each run, not its single puts.

use serde_json::{Value, json};

use crate::timeline::{Prepared, Scales};

/// Spans and faults that the tooltip knows per run at most; the picture itself has more.
const SPANS_MAX: usize = 4000;

pub(super) fn data(prepared: &[Prepared<'_>], scales: &Scales) -> Value {
    json!({
        "to_ms": scales.time.to_ms,
        "left": scales.time.left,
        "width": scales.time.width,
        "window_ms": scales.window_ms,
        "runs": prepared.iter().map(run).collect::<Vec<_>>(),
    })
}

/// Arrays in place of objects: the names would be most of the bytes.
fn run(prepared: &Prepared<'_>) -> Value {
    let timeline = &prepared.run.timeline;
    let index = |id: u64| timeline.members.iter().position(|member| member.id == id);
    let roles: Vec<Value> = timeline
        .roles
        .iter()
        .take(SPANS_MAX)
        .filter_map(|span| {
            let member = index(span.member)?;
            Some(json!([member, span.from_ms, span.to_ms, span.role.words(), span.term]))
        })
        .collect();
    let faults: Vec<Value> = timeline
        .faults
        .iter()
        .take(SPANS_MAX)
        .map(|f| json!([f.from_ms, f.to_ms, f.name, f.target, f.parameters]))
        .collect();
    let windows: Vec<Value> = prepared
        .windows
        .iter()
        .map(|w| json!([w.returned, w.failed, w.p50_us, w.p99_us]))
        .collect();
    let names: Vec<&str> = timeline.members.iter().map(|member| member.name.as_str()).collect();
    json!({"members": names, "roles": roles, "faults": faults, "windows": windows})
}
