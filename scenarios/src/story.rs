//! A run in a few readable lines.

use detkv_reports::run::{RunReport, RunSummary, Verdict, is_good};

/// Faults, leaders and troubles in order; then the figures; then what was judged.
pub fn story(report: &RunReport) -> Vec<String> {
    let summary = &report.summary;
    let mut lines = vec![format!("== {} ==", summary.profile)];
    lines.extend(happenings(report));
    lines.extend(figures(summary));
    for (name, verdict) in summary.checkers.iter().filter(|(_, verdict)| *verdict != "ok") {
        lines.push(format!("  checker {name}: {verdict}"));
    }
    let good = summary.checkers.values().filter(|verdict| is_good(verdict)).count();
    lines.push(format!("  checkers: {good} of {} ok", summary.checkers.len()));
    for expectation in &summary.expectations {
        let mark = if expectation.ok { "ok  " } else { "FAIL" };
        lines.push(format!(
            "  {mark} {}: {} (expected {})",
            expectation.name, expectation.actual, expectation.expected
        ));
    }
    lines
}

/// Lines of the story printed; the page has them all.
const LINES_MAX: usize = 40;

fn happenings(report: &RunReport) -> Vec<String> {
    let timeline = &report.timeline;
    let mut lines: Vec<(u64, String)> = Vec::new();
    for fault in &timeline.faults {
        lines.push((fault.from_ms, format!("FAULT {}", fault.name)));
    }
    // The faults are told above.
    let is_fault = |text: &str| timeline.faults.iter().any(|fault| fault.name == text);
    for event in timeline.events.iter().filter(|event| !is_fault(&event.text)) {
        let who = event.member.map_or(String::new(), |member| format!("m{member} "));
        lines.push((event.time_ms, format!("{who}{}", event.text)));
    }
    if let Some(gap) = timeline.put_gaps.iter().max_by_key(|gap| gap.to_ms - gap.from_ms) {
        let length = seconds(gap.to_ms - gap.from_ms);
        lines.push((gap.from_ms, format!("no put succeeds for {length}")));
    }
    lines.sort_by_key(|(at, _)| *at);
    let more = lines.len().saturating_sub(LINES_MAX);
    let mut told: Vec<String> = lines
        .into_iter()
        .take(LINES_MAX)
        .map(|(at, text)| format!("  {:>9}  {text}", seconds(at)))
        .collect();
    if more > 0 {
        told.push(format!("  … and {more} lines more, on the page"));
    }
    told
}

fn figures(s: &RunSummary) -> Vec<String> {
    let us = |value: Option<u64>| value.map_or("none".to_owned(), |us| format!("{us} µs"));
    vec![
        format!(
            "  puts: {} ok, {} failed, p50 {}, p99 {}, longest gap {} ms",
            s.puts_ok,
            s.puts_failed,
            us(s.put_p50_us),
            us(s.put_p99_us),
            s.longest_put_gap_ms
        ),
        format!(
            "  leader changes {}, elections {}, split votes {}, planned transfers {}, highest term {}",
            s.leader_changes, s.elections, s.split_votes, s.planned_transfers, s.terms
        ),
        format!(
            "  virtual {} in {} ms of real time, {} ms of CPU ({} times as fast), event hash {}",
            seconds(s.virtual_ms),
            s.wall_ms,
            s.cpu_ms,
            s.virtual_ms / s.cpu_ms.max(1),
            s.event_hash
        ),
    ]
}

pub fn seconds(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1000, ms % 1000)
}

pub fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "PASS",
        Verdict::Fail => "FAIL",
    }
}
