//! One self-contained HTML page of one or several runs: verdict, comparison, timeline, tables, story.
//!
//! No script, font or picture comes from elsewhere, so the file works offline and can be mailed. Without
//! scripts it is complete but for the hover tooltip.

mod tables;
mod tooltip;

use std::fmt::Write as _;

use crate::html::{duration_ms, escape, grouped, three_digits};
use crate::run::{Role, RunReport, RunSummary, Verdict};
use crate::timeline::{self, MEMBER_COLOURS};

pub(crate) const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("page.js");

/// The page of `runs`, which share one axis of time; typically the profiles of one scenario and seed.
///
/// Accepts anything: times in disorder, empty lists, hostile text. An empty slice gives a page that says so.
pub fn run_page(runs: &[RunReport]) -> String {
    let (prepared, scales) = timeline::prepare(runs);
    let mut body = header(runs);
    let several = runs.len() > 1;
    if several {
        body.push_str(&tables::comparison(runs));
    }
    for (index, prepared) in prepared.iter().enumerate() {
        let run = prepared.run;
        let summary = &run.summary;
        let title = run_title(summary, runs);
        let picture = timeline::draw(prepared, &scales, index, &describe(summary));
        write!(
            body,
            "<section class=\"run\"><div class=\"run-head\"><h2>{} {}</h2>{}</div>{}\
             <div class=\"card picture\">{picture}{}</div>{}</section>",
            badge(summary.verdict),
            escape(&title),
            reproduce(&summary.reproduce),
            if several { String::new() } else { figures(summary) },
            legend(run),
            tables::details(run, several),
        )
        .expect("writing to a String cannot fail");
    }
    let title = match runs.first() {
        Some(run) => format!(
            "{} seed {} · {}",
            run.summary.scenario,
            run.summary.seed,
            verdict_word(overall(runs))
        ),
        None => "no run".to_owned(),
    };
    let data = crate::html::script_json(&tooltip::data(&prepared, &scales));
    let script = format!(
        "<div id=\"tooltip\" role=\"status\" hidden></div>\
         <script type=\"application/json\" id=\"runs\">{data}</script><script>{SCRIPT}</script>"
    );
    document(&title, &body, &script)
}

/// Wraps a body into a document of ours.
pub(crate) fn document(title: &str, body: &str, scripts: &str) -> String {
    // The policy makes it certain: whatever a log line smuggled in, nothing is loaded from elsewhere.
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         script-src 'unsafe-inline'; img-src data:\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <title>{}</title><style>{STYLE}</style></head><body><main>{body}</main>{scripts}</body></html>\n",
        escape(title)
    )
}

fn header(runs: &[RunReport]) -> String {
    let Some(first) = runs.first().map(|run| &run.summary) else {
        return "<header><h1>No run</h1><p>This page was made from an empty list.</p></header>"
            .into();
    };
    let profiles: Vec<&str> = runs.iter().map(|run| run.summary.profile.as_str()).collect();
    let verdict = overall(runs);
    let mut out = format!(
        "<header><p class=\"brand\">detkv · simulated run</p><h1>{} {} <span class=\"seed\">seed {}</span></h1>\
         <p class=\"sub\">{} · {} of virtual time</p>",
        badge(verdict),
        escape(&first.scenario),
        first.seed,
        escape(&profiles.join(" and ")),
        duration_ms(runs.iter().map(|run| run.summary.virtual_ms).max().unwrap_or(0)),
    );
    out.push_str(&tables::problems(runs));
    out.push_str("</header>");
    out
}

fn overall(runs: &[RunReport]) -> Verdict {
    let pass = runs.iter().all(|run| run.summary.verdict == Verdict::Pass);
    if pass && !runs.is_empty() { Verdict::Pass } else { Verdict::Fail }
}

fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Fail => "fail",
    }
}

/// The verdict as sign and word, so that colour is not needed.
fn badge(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "<span class=\"badge pass\">✓ pass</span>",
        Verdict::Fail => "<span class=\"badge fail\">✗ fail</span>",
    }
}

/// What tells a run of the page from the others.
fn run_title(summary: &RunSummary, runs: &[RunReport]) -> String {
    let mut title = summary.profile.clone();
    let differs = |of: fn(&RunSummary) -> String| {
        runs.iter().any(|other| of(&other.summary) != of(summary)).then(|| of(summary))
    };
    let parts = [differs(|s| s.scenario.clone()), differs(|s| format!("seed {}", s.seed))];
    for part in parts.into_iter().flatten() {
        title.push_str(" · ");
        title.push_str(&part);
    }
    title
}

/// The picture in one sentence, for a reader who cannot see it.
fn describe(summary: &RunSummary) -> String {
    format!(
        "Timeline of {} in profile {}, seed {}: {} leader changes, longest time without a successful put {}, \
         {} puts succeeded and {} failed.",
        summary.scenario,
        summary.profile,
        summary.seed,
        summary.leader_changes,
        duration_ms(summary.longest_put_gap_ms),
        grouped(summary.puts_ok),
        grouped(summary.puts_failed)
    )
}

fn reproduce(command: &str) -> String {
    if command.is_empty() {
        return String::new();
    }
    format!(
        "<div class=\"reproduce\"><code>{}</code><button type=\"button\" class=\"copy\">copy</button></div>",
        escape(command)
    )
}

/// The numbers of a run as tiles.
fn figures(summary: &RunSummary) -> String {
    let latency =
        |us: Option<u64>| us.map_or("none".to_owned(), |us| crate::html::duration_us(us as f64));
    let speed = match summary.wall_ms {
        0 => "–".to_owned(),
        wall => format!("{} ×", three_digits(summary.virtual_ms as f64 / wall as f64)),
    };
    let tiles = [
        ("leader changes", grouped(summary.leader_changes), leader_note(summary)),
        ("longest put gap", duration_ms(summary.longest_put_gap_ms), String::new()),
        ("put p50", latency(summary.put_p50_us), String::new()),
        ("put p99", latency(summary.put_p99_us), String::new()),
        ("puts", grouped(summary.puts_ok), format!("{} failed", grouped(summary.puts_failed))),
        ("highest term", grouped(summary.terms), format!("{} split votes", summary.split_votes)),
        ("speed", speed, "of real time".to_owned()),
    ];
    let mut out = String::from("<dl class=\"figures\">");
    for (name, value, note) in tiles {
        write!(
            out,
            "<div><dt>{name}</dt><dd>{}</dd><dd class=\"small\">{}</dd></div>",
            escape(&value),
            escape(&note)
        )
        .expect("writing to a String cannot fail");
    }
    out.push_str("</dl>");
    out
}

fn leader_note(summary: &RunSummary) -> String {
    let planned = match summary.planned_transfers {
        0 => "none planned".to_owned(),
        n => format!("{n} planned"),
    };
    format!("{} elections, {planned}", summary.elections)
}

/// Only what the picture shows.
fn legend(run: &RunReport) -> String {
    let timeline = &run.timeline;
    let mut items = String::new();
    let mut item = |key: &str, text: &str| {
        items.push_str(&format!("<li>{key} {}</li>", escape(text)));
    };
    for role in Role::ALL {
        if timeline.roles.iter().any(|span| span.role == role) {
            let key = format!(
                "<svg class=\"key role {}\" viewBox=\"0 0 18 12\"><rect width=\"18\" height=\"12\"/></svg>",
                role.words()
            );
            item(&key, role.words());
        }
    }
    let mark = |class: &str, path: &str| {
        format!(
            "<svg class=\"key\" viewBox=\"0 0 18 12\"><path class=\"{class}\" d=\"{path}\"/></svg>"
        )
    };
    if !timeline.faults.is_empty() {
        item(
            "<svg class=\"key\" viewBox=\"0 0 18 12\"><rect class=\"fault\" width=\"18\" height=\"12\"/></svg>",
            "fault",
        );
    }
    item(&mark("put some", "M9 6h0"), "put (darker: more at one spot)");
    if timeline.puts.iter().any(|put| !put.ok) {
        item(&mark("put-failed", "M6 3l6 6m-6 0l6-6"), "failed put");
    }
    item(&mark("quantile p50", "M0 6H18"), "p50");
    item(&mark("quantile p99", "M0 6H18"), "p99");
    if !timeline.put_gaps.is_empty() {
        item(
            "<svg class=\"key\" viewBox=\"0 0 18 12\"><rect class=\"gap\" width=\"18\" height=\"12\"/></svg>",
            "no successful put",
        );
    }
    item(&mark("leader-mark", "M9 0V12"), "a leadership begins");
    if !timeline.fsyncs.is_empty() {
        for (i, member) in timeline.members.iter().enumerate() {
            let class = format!("sync m{}", i % MEMBER_COLOURS);
            item(&mark(&class, "M9 6h0"), &format!("sync of {}", member.name));
        }
    }
    format!("<ul class=\"legend\">{items}</ul>")
}
