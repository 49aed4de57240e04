//! Leader changes per hour on disks of real clusters: the record, and its page.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::html::{duration_ms, escape, grouped, px, three_digits};
use crate::page::document;
use crate::scale::round_step;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IncidentsReport {
    /// Virtual hours of each row.
    pub hours: u64,
    pub rows: Vec<IncidentRow>,
    pub wall_ms: u64,
    /// The one command line that repeats it.
    pub reproduce: String,
}

/// What came of one disk in one profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IncidentRow {
    pub incident: String,
    /// Its slow syncs came in runs.
    pub clustered: bool,
    pub profile: String,
    pub leader_changes: u64,
    pub least_of_an_hour: u64,
    pub most_of_an_hour: u64,
    /// Terms for which somebody campaigned, after the first.
    pub elections: u64,
    /// WAL syncs of whoever led.
    pub leader_syncs: u64,
    pub leader_syncs_over_1s: u64,
    /// By the histogram alone: at least, at most.
    pub expected_per_hour: (f64, f64),
    pub longest_put_gap_ms: u64,
    pub puts_ok: u64,
    pub puts_failed: u64,
    pub cpu_ms: u64,
    /// Runs that failed a checker, with why.
    pub failures: Vec<String>,
}

const WIDTH: f64 = 1240.0;
const LEFT: f64 = 330.0;
const RIGHT: f64 = 90.0;
const ROW: f64 = 22.0;
const TOP: f64 = 30.0;

/// One self-contained page; accepts any report, an empty one too.
pub fn incidents_page(report: &IncidentsReport) -> String {
    let mut body = format!(
        "<header><p class=\"brand\">detkv · simulated disks of real clusters</p><h1>Leader changes per hour</h1>\
         <p class=\"sub\">{} virtual hours of each row; every member has the disk of the incident</p></header>\
         <div class=\"reproduce\"><code>{}</code></div>{}",
        report.hours,
        escape(&report.reproduce),
        picture(report)
    );
    body.push_str(&table(report));
    for failure in report.rows.iter().flat_map(|row| &row.failures) {
        write!(body, "<pre>{}</pre>", escape(failure)).expect("writing to a String cannot fail");
    }
    document("leader changes per hour", &body, "")
}

fn order(row: &IncidentRow) -> &'static str {
    if row.clustered { "in runs" } else { "at random" }
}

/// A dot at the mean, a whisker from the least to the most of an hour, a band where the histogram puts it.
fn picture(report: &IncidentsReport) -> String {
    let most =
        report.rows.iter().map(|row| (row.most_of_an_hour as f64).max(row.expected_per_hour.1));
    let most = most.fold(1.0, f64::max);
    let x = |per_hour: f64| LEFT + per_hour / most * (WIDTH - LEFT - RIGHT);
    let height = TOP + report.rows.len() as f64 * ROW + 24.0;
    let mut svg = format!(
        "<section class=\"card\"><svg class=\"bars\" viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"leader changes per hour\">\
         <text class=\"soft\" x=\"0\" y=\"13\">leader changes per hour → dot: mean; whisker: least to most of an hour; band: what the histogram alone makes one expect</text>",
        px(height)
    );
    let step = round_step(most, 10.0).max(1.0);
    let mut tick = 0.0;
    while tick <= most {
        let at = px(x(tick));
        write!(
            svg,
            "<path class=\"grid\" d=\"M{at} {TOP}V{}\"/><text class=\"soft\" x=\"{at}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            px(height - 22.0),
            px(height - 6.0),
            three_digits(tick)
        )
        .expect("writing to a String cannot fail");
        tick += step;
    }
    for (place, row) in report.rows.iter().enumerate() {
        let y = TOP + (place as f64 + 0.5) * ROW;
        let mean = row.leader_changes as f64 / report.hours.max(1) as f64;
        let label = format!("{} · {} · {}", row.incident, order(row), row.profile);
        let (least, most) = row.expected_per_hour;
        write!(
            svg,
            "<g><title>{label}: {mean:.2} per hour, {} to {} in one</title><text x=\"0\" y=\"{text}\">{label}</text>\
             <rect class=\"expected\" x=\"{band}\" y=\"{up}\" width=\"{wide}\" height=\"14\"/>\
             <path class=\"whisker\" d=\"M{x0} {y}H{x1}\"/><circle class=\"run-mean {class}\" cx=\"{cx}\" cy=\"{y}\" r=\"4.5\"/>\
             <text class=\"strong\" x=\"{note}\" y=\"{text}\">{}</text></g>",
            row.least_of_an_hour,
            row.most_of_an_hour,
            three_digits(mean),
            label = escape(&label),
            text = px(y + 4.0),
            band = px(x(least)),
            up = px(y - 7.0),
            wide = px((x(most) - x(least)).max(1.0)),
            x0 = px(x(row.least_of_an_hour as f64)),
            x1 = px(x(row.most_of_an_hour as f64)),
            y = px(y),
            cx = px(x(mean)),
            class = if row.clustered { "runs" } else { "random" },
            note = px(WIDTH - RIGHT + 12.0),
        )
        .expect("writing to a String cannot fail");
    }
    svg + "</svg></section>"
}

fn table(report: &IncidentsReport) -> String {
    let heads = [
        "slow syncs",
        "profile",
        "changes / h",
        "least..most",
        "by the histogram / h",
        "elections / h",
        "leader's syncs / s",
        "over 1 s / h",
        "longest put gap",
        "puts failed",
        "of puts",
    ];
    let heads: String = heads.iter().map(|head| format!("<th scope=\"col\">{head}</th>")).collect();
    let mut rows = String::new();
    for row in &report.rows {
        let per_hour = |n: u64| n as f64 / report.hours.max(1) as f64;
        let (least, most) = row.expected_per_hour;
        let cells = [
            order(row).to_owned(),
            row.profile.clone(),
            format!("{:.2}", per_hour(row.leader_changes)),
            format!("{}..{}", row.least_of_an_hour, row.most_of_an_hour),
            format!("{least:.2}..{most:.2}"),
            format!("{:.2}", per_hour(row.elections)),
            format!("{:.1}", per_hour(row.leader_syncs) / 3600.0),
            format!("{:.2}", per_hour(row.leader_syncs_over_1s)),
            duration_ms(row.longest_put_gap_ms),
            grouped(row.puts_failed),
            grouped(row.puts_ok + row.puts_failed),
        ];
        let cells: String = cells.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect();
        write!(rows, "<tr><th scope=\"row\">{}</th>{cells}</tr>", escape(&row.incident))
            .expect("writing to a String cannot fail");
    }
    format!(
        "<section class=\"card\"><div class=\"scroll\"><table class=\"numbers\"><thead><tr><th>disk of every member</th>{heads}</tr></thead>\
         <tbody>{rows}</tbody></table></div></section>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_what_was_counted_beside_what_was_to_be_expected() {
        let row = |clustered, profile: &str, changes| IncidentRow {
            incident: "etcd-<1>".into(),
            clustered,
            profile: profile.into(),
            leader_changes: changes,
            least_of_an_hour: 0,
            most_of_an_hour: 7,
            elections: changes + 1,
            leader_syncs: 1_500_000,
            leader_syncs_over_1s: 60,
            expected_per_hour: (0.8, 4.04),
            longest_put_gap_ms: 1_712,
            puts_ok: 2_000_000,
            puts_failed: 512,
            cpu_ms: 9_000,
            failures: vec!["seed 3: <script>".into()],
        };
        let rows = vec![row(false, "coupled", 50), row(true, "decoupled", 0)];
        let report = IncidentsReport {
            hours: 20,
            rows,
            wall_ms: 1,
            reproduce: "incidents --hours 20".into(),
        };
        let page = incidents_page(&report);
        for part in ["2.50", "0..7", "0.80..4.04", "20.8", "in runs", "at random", "etcd-&lt;1&gt;"]
        {
            assert!(page.contains(part), "{part}");
        }
        assert!(!page.contains("<script>"));
        let empty =
            IncidentsReport { hours: 0, rows: vec![], wall_ms: 0, reproduce: String::new() };
        assert!(!incidents_page(&empty).contains("NaN"));
    }
}
