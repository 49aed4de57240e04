//! Scenarios beside their profiles over many seeds: the record, and its page.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::html::{escape, grouped};
use crate::page::document;

/// Several scenarios over the same seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableReport {
    pub seeds: u64,
    pub scenarios: Vec<ScenarioTable>,
    /// Wall time of all runs together.
    pub wall_ms: u64,
    /// The one command line that repeats it.
    pub reproduce: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScenarioTable {
    pub name: String,
    pub about: String,
    pub profiles: Vec<ProfileColumn>,
    pub figures: Vec<FigureRow>,
}

/// The runs of one profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProfileColumn {
    pub name: String,
    pub runs: u64,
    /// Runs that failed, each with why and how to repeat it.
    pub failures: Vec<String>,
}

/// One figure in every profile, in the order of the columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FigureRow {
    pub name: String,
    pub what: String,
    /// With a blank before it; may be empty.
    pub unit: String,
    /// `None`: no run had it.
    pub spreads: Vec<Option<Spread>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    pub min: u64,
    pub median: u64,
    pub max: u64,
}

impl Spread {
    /// Of nothing there is none.
    pub fn of(mut values: Vec<u64>) -> Option<Self> {
        values.sort_unstable();
        let (min, max) = (*values.first()?, *values.last()?);
        Some(Self { min, median: values[(values.len() - 1) / 2], max })
    }
}

impl TableReport {
    pub fn failed(&self) -> usize {
        let profiles = self.scenarios.iter().flat_map(|scenario| &scenario.profiles);
        profiles.map(|profile| profile.failures.len()).sum()
    }
}

/// The table as one self-contained page.
pub fn table_page(report: &TableReport) -> String {
    let mut body = format!(
        "<header><p class=\"brand\">detkv · simulated runs</p><h1>{} scenarios, {} seeds each</h1>\
         <p class=\"sub\">median (least .. most) of each figure; {} failed</p></header>\
         <div class=\"reproduce\"><code>{}</code></div>",
        report.scenarios.len(),
        report.seeds,
        report.failed(),
        escape(&report.reproduce)
    );
    for scenario in &report.scenarios {
        body.push_str(&section(scenario));
    }
    document("scenarios over seeds", &body, "")
}

fn section(scenario: &ScenarioTable) -> String {
    let mut out = format!(
        "<section class=\"run\"><h2>{}</h2><p class=\"sub\">{}</p><div class=\"card\"><table class=\"numbers\"><thead><tr><th></th>",
        escape(&scenario.name),
        escape(&scenario.about)
    );
    for profile in &scenario.profiles {
        let failed = match profile.failures.len() {
            0 => "✓ all pass".to_owned(),
            n => format!("✗ {n} failed"),
        };
        let (name, runs) = (escape(&profile.name), profile.runs);
        write!(out, "<th>{name}<br><small>{runs} runs, {failed}</small></th>").expect("a String");
    }
    out.push_str("</tr></thead><tbody>");
    for row in &scenario.figures {
        let (name, what) = (escape(&row.name), escape(&row.what));
        write!(out, "<tr><th scope=\"row\" title=\"{what}\">{name}</th>").expect("a String");
        for spread in &row.spreads {
            let cell = spread.map_or("–".to_owned(), |spread| words(spread, &row.unit));
            write!(out, "<td>{}</td>", escape(&cell)).expect("a String");
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
    let failures: Vec<&String> = scenario.profiles.iter().flat_map(|p| &p.failures).collect();
    for failure in failures {
        write!(out, "<pre>{}</pre>", escape(failure)).expect("a String");
    }
    out.push_str("</section>");
    out
}

/// `1,712 (1,204..2,950) ms`; one number where all are equal.
pub fn words(spread: Spread, unit: &str) -> String {
    let Spread { min, median, max } = spread;
    if min == max {
        return format!("{}{unit}", grouped(median));
    }
    format!("{} ({}..{}){unit}", grouped(median), grouped(min), grouped(max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_every_figure_and_failure_and_escapes_them() {
        let spread = Spread::of(vec![5, 1, 3000]);
        let figures = vec![FigureRow {
            name: "longest_put_gap_ms".into(),
            what: "a <gap>".into(),
            unit: " ms".into(),
            spreads: vec![spread, None],
        }];
        let profile = |name: &str, failures| ProfileColumn { name: name.into(), runs: 3, failures };
        let report = TableReport {
            seeds: 3,
            scenarios: vec![ScenarioTable {
                name: "slow-disk".into(),
                about: "a & b".into(),
                profiles: vec![
                    profile("coupled", vec!["seed 7: <script>".into()]),
                    profile("decoupled", vec![]),
                ],
                figures,
            }],
            wall_ms: 5,
            reproduce: "detkv-sim table --seeds 0..3".into(),
        };
        let page = table_page(&report);
        for part in ["5 (1..3,000) ms", "a &lt;gap&gt;", "a &amp; b", "✗ 1 failed", "–", "0..3"]
        {
            assert!(page.contains(part), "{part}");
        }
        assert!(!page.contains("<script>") && report.failed() == 1);
    }

    #[test]
    fn the_median_of_an_even_number_is_a_value_that_occurred() {
        let spread = Spread::of(vec![4, 1, 9, 7]).expect("four values");
        assert_eq!((spread.min, spread.median, spread.max), (1, 4, 9));
        assert_eq!(Spread::of(vec![]), None);
    }
}
