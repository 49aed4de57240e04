//! The tables of a run page: comparison, expectations, checkers, options, story.

use std::fmt::Write as _;

use crate::html::{duration_ms, duration_us, escape, grouped, three_digits};
use crate::run::{LogEvent, RunReport, RunSummary, Timeline, Verdict, is_good};

/// Lines of the story shown from its beginning and from its end.
const STORY_LINES: usize = 500;

/// Longest text of a cell; the JSON beside the page has the rest.
const CELL_CHARS: usize = 600;

/// Everything that went wrong in any run, before anything else.
pub(super) fn problems(runs: &[RunReport]) -> String {
    let mut items = String::new();
    for run in runs {
        let summary = &run.summary;
        let mut problem = |what: &str, text: &str| {
            write!(
                items,
                "<li><b>{}</b> · {}: {}</li>",
                escape(&summary.profile),
                escape(what),
                escape(&clipped(text))
            )
            .expect("writing to a String cannot fail");
        };
        for (name, result) in &summary.checkers {
            if !is_good(result) {
                problem(name, result);
            }
        }
        for wrong in summary.expectations.iter().filter(|expectation| !expectation.ok) {
            problem(&wrong.name, &format!("expected {}, was {}", wrong.expected, wrong.actual));
        }
    }
    if items.is_empty() {
        return String::new();
    }
    format!("<ul class=\"problems\">{items}</ul>")
}

/// The runs of the page side by side.
pub(super) fn comparison(runs: &[RunReport]) -> String {
    type Row = (&'static str, fn(&RunSummary) -> String);
    const ROWS: [Row; 11] = [
        ("verdict", |s| if s.verdict == Verdict::Pass { "✓ pass".into() } else { "✗ fail".into() }),
        ("highest term", |s| grouped(s.terms)),
        ("leader changes", |s| grouped(s.leader_changes)),
        ("elections", |s| grouped(s.elections)),
        ("split votes", |s| grouped(s.split_votes)),
        ("planned transfers", |s| grouped(s.planned_transfers)),
        ("longest put gap", |s| duration_ms(s.longest_put_gap_ms)),
        ("put p50", |s| latency(s.put_p50_us)),
        ("put p99", |s| latency(s.put_p99_us)),
        ("puts ok", |s| grouped(s.puts_ok)),
        ("puts failed", |s| grouped(s.puts_failed)),
    ];
    let columns: String =
        ROWS.iter().map(|(name, _)| format!("<th scope=\"col\">{name}</th>")).collect();
    let rows: String = runs
        .iter()
        .map(|run| {
            let cells: String = ROWS
                .iter()
                .map(|(_, value)| format!("<td>{}</td>", escape(&value(&run.summary))))
                .collect();
            let title = escape(&super::run_title(&run.summary, runs));
            format!("<tr><th scope=\"row\">{title}</th>{cells}</tr>")
        })
        .collect();
    format!(
        "<section class=\"card\"><h2>Side by side</h2><div class=\"scroll\"><table class=\"numbers\">\
         <thead><tr><th></th>{columns}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )
}

fn latency(us: Option<u64>) -> String {
    us.map_or("none".to_owned(), |us| duration_us(us as f64))
}

/// What stands below a run's picture. Folded away on a page of several runs, so that the pictures come one
/// below the other, unless something in it is wrong.
pub(super) fn details(run: &RunReport, folded: bool) -> String {
    let summary = &run.summary;
    let tables = format!(
        "<div class=\"columns\">{}{}</div>{}{}",
        expectations(summary),
        checkers(summary),
        story(&run.timeline),
        options(summary)
    );
    if !folded {
        return tables;
    }
    let met = summary.expectations.iter().filter(|line| line.ok).count();
    let ok = summary.checkers.values().filter(|result| is_good(result)).count();
    let (expected, checked) = (summary.expectations.len(), summary.checkers.len());
    let open = if met < expected || ok < checked { " open" } else { "" };
    format!(
        "<details class=\"more\"{open}><summary>{met} of {expected} expectations met, {ok} of {checked} checkers ok, \
         {} lines of story</summary>{tables}</details>",
        grouped(run.timeline.events.len() as u64)
    )
}

fn sign(ok: bool) -> &'static str {
    if ok {
        "<span class=\"ok\" aria-label=\"ok\">✓</span>"
    } else {
        "<span class=\"wrong\" aria-label=\"wrong\">✗</span>"
    }
}

fn expectations(summary: &RunSummary) -> String {
    let mut rows = String::new();
    for line in &summary.expectations {
        write!(
            rows,
            "<tr><td>{}</td><th scope=\"row\">{}</th><td>{}</td><td>{}</td></tr>",
            sign(line.ok),
            escape(&clipped(&line.name)),
            escape(&clipped(&line.expected)),
            escape(&clipped(&line.actual))
        )
        .expect("writing to a String cannot fail");
    }
    if rows.is_empty() {
        rows.push_str("<tr><td colspan=\"4\">The scenario states none.</td></tr>");
    }
    format!(
        "<div class=\"card\"><h3>Expectations</h3><div class=\"scroll\"><table><thead><tr><th></th><th scope=\"col\">what</th>\
         <th scope=\"col\">expected</th><th scope=\"col\">this run</th></tr></thead><tbody>{rows}</tbody></table></div></div>"
    )
}

fn checkers(summary: &RunSummary) -> String {
    let mut rows = String::new();
    for (name, result) in &summary.checkers {
        write!(
            rows,
            "<tr><td>{}</td><th scope=\"row\">{}</th><td>{}</td></tr>",
            sign(is_good(result)),
            escape(name),
            escape(&clipped(result))
        )
        .expect("writing to a String cannot fail");
    }
    if rows.is_empty() {
        rows.push_str("<tr><td colspan=\"3\">No checker ran.</td></tr>");
    }
    format!(
        "<div class=\"card\"><h3>Checkers</h3><div class=\"scroll\"><table><thead><tr><th></th><th scope=\"col\">checker</th>\
         <th scope=\"col\">result</th></tr></thead><tbody>{rows}</tbody></table></div></div>"
    )
}

/// What happened in words, newest last; a long one shows its beginning and its end.
fn story(timeline: &Timeline) -> String {
    let events = &timeline.events;
    if events.is_empty() {
        return String::new();
    }
    let mut rows = String::new();
    let line = |rows: &mut String, event: &LogEvent| {
        let member = event.member.map_or(String::new(), |id| member_name(timeline, id));
        write!(
            rows,
            "<tr><td class=\"time\">{}</td><td>{}</td><td>{}</td></tr>",
            format_args!("{:.3}", event.time_ms as f64 / 1e3),
            escape(&member),
            escape(&clipped(&event.text))
        )
        .expect("writing to a String cannot fail");
    };
    if events.len() <= 2 * STORY_LINES {
        events.iter().for_each(|event| line(&mut rows, event));
    } else {
        events[..STORY_LINES].iter().for_each(|event| line(&mut rows, event));
        let hidden = grouped((events.len() - 2 * STORY_LINES) as u64);
        write!(rows, "<tr><td></td><td></td><td><i>{hidden} lines left out</i></td></tr>")
            .expect("writing to a String cannot fail");
        events[events.len() - STORY_LINES..].iter().for_each(|event| line(&mut rows, event));
    }
    let open = if events.len() <= 40 { " open" } else { "" };
    format!(
        "<details class=\"card story\"{open}><summary>Story <span class=\"small\">{} lines</span></summary>\
         <input type=\"search\" class=\"filter\" placeholder=\"filter\" aria-label=\"filter the story\">\
         <div class=\"scroll tall\"><table><thead><tr><th scope=\"col\">second</th><th scope=\"col\">member</th>\
         <th scope=\"col\">what</th></tr></thead><tbody>{rows}</tbody></table></div></details>",
        grouped(events.len() as u64)
    )
}

pub(super) fn member_name(timeline: &Timeline, id: u64) -> String {
    let known = timeline.members.iter().find(|member| member.id == id);
    known.map_or_else(|| format!("{id:x}"), |member| member.name.clone())
}

/// Options, seed and hash: what makes this run this run.
fn options(summary: &RunSummary) -> String {
    let mut rows = String::new();
    let mut row = |name: &str, value: &str| {
        write!(
            rows,
            "<tr><th scope=\"row\">{}</th><td><code>{}</code></td></tr>",
            escape(name),
            escape(&clipped(value))
        )
        .expect("writing to a String cannot fail");
    };
    row("seed", &summary.seed.to_string());
    row("profile", &summary.profile);
    row("event hash", &summary.event_hash);
    let wall = format!(
        "{} in {} of wall time",
        duration_ms(summary.virtual_ms),
        if summary.wall_ms == 0 { "under 1 ms".to_owned() } else { duration_ms(summary.wall_ms) }
    );
    row("virtual time", &wall);
    if summary.wall_ms > 0 {
        let speed = three_digits(summary.virtual_ms as f64 / summary.wall_ms as f64);
        row("simulated seconds per second", &speed);
    }
    for (name, value) in &summary.options {
        row(name, value);
    }
    format!(
        "<details class=\"card\"><summary>Options and hash</summary><div class=\"scroll\"><table><tbody>{rows}</tbody></table></div></details>"
    )
}

/// Text of bounded length.
fn clipped(text: &str) -> String {
    if text.chars().count() <= CELL_CHARS {
        return text.to_owned();
    }
    text.chars().take(CELL_CHARS - 1).chain(['…']).collect()
}
