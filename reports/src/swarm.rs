//! A swarm, many runs each with options of its own: the record, and its page.

mod charts;

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::html::{duration_ms, escape, grouped, three_digits};
use crate::page::document;
use charts::{Bar, NARROW, WIDE, Widths, bars, histogram, times};

/// All runs of a swarm.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SwarmReport {
    /// Wall time of all runs together.
    pub wall_ms: u64,
    pub runs: Vec<SwarmRun>,
    /// What was drawn, by option.
    pub options: Vec<SwarmOption>,
    /// Rare paths of the code, those that no run took among them.
    pub marks: Vec<Probe>,
    /// In-code faults, likewise.
    pub sites: Vec<Probe>,
    pub failures: Vec<SwarmFailure>,
    /// The one command line that repeats it.
    pub reproduce: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SwarmRun {
    pub seed: u64,
    pub wall_ms: u64,
    pub virtual_ms: u64,
    pub puts: u64,
    pub failed: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SwarmOption {
    pub name: String,
    pub values: Vec<OptionValue>,
}

/// Runs with one value of an option.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OptionValue {
    pub value: String,
    pub runs: u64,
    pub failed: u64,
}

/// A mark or an in-code fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    pub name: String,
    pub what: String,
    /// In which it was passed, or fired.
    pub runs: u64,
    pub times: u64,
}

/// Failures that look alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SwarmFailure {
    pub signature: String,
    pub seeds: Vec<u64>,
    /// Of the first one.
    pub message: String,
    pub reproduce: String,
}

/// Seeds listed of one failure.
const SEEDS_SHOWN: usize = 20;

impl SwarmReport {
    pub fn failed(&self) -> u64 {
        self.runs.iter().filter(|run| run.failed).count() as u64
    }
}

/// The swarm as one self-contained page; accepts any report, an empty one too.
pub fn swarm_page(report: &SwarmReport) -> String {
    let mut body = header(report);
    body.push_str(&failures(report));
    body.push_str(&time(report));
    let (faults, options): (Vec<_>, Vec<_>) =
        report.options.iter().partition(|option| option.name == "fault");
    body.push_str("<section class=\"card\"><h2>Options drawn</h2><p class=\"small\">runs with each value; the red part failed</p><div class=\"charts\">");
    options.iter().for_each(|option| body.push_str(&values(option, NARROW)));
    body.push_str("</div></section>");
    body.push_str("<section class=\"card\"><h2>Faults</h2><p class=\"small\">runs in which each kind was scheduled; the red part failed</p>");
    faults.iter().for_each(|option| body.push_str(&values(option, WIDE)));
    body.push_str("</section>");
    let about =
        "runs that took each rare path of the code, on a logarithmic axis, with how often in all";
    body.push_str(&probes("Marks passed", about, &report.marks));
    let about = "runs in which each fault inside the code fired, likewise";
    body.push_str(&probes("In-code faults", about, &report.sites));
    document(&format!("swarm of {} runs", report.runs.len()), &body, "")
}

fn header(report: &SwarmReport) -> String {
    let (runs, failed) = (report.runs.len() as u64, report.failed());
    let badge = match failed {
        0 => "<span class=\"badge pass\">✓ pass</span>".to_owned(),
        n => format!("<span class=\"badge fail\">✗ {} failed</span>", grouped(n)),
    };
    let seeds = report.runs.iter().map(|run| run.seed);
    let seeds = match (seeds.clone().min(), seeds.max()) {
        (Some(first), Some(last)) => format!("seeds {first} to {last}"),
        _ => "no seed".to_owned(),
    };
    let sum = |of: fn(&SwarmRun) -> u64| report.runs.iter().map(of).sum::<u64>();
    let (virtual_ms, busy_ms) = (sum(|run| run.virtual_ms), sum(|run| run.wall_ms));
    let speed = match busy_ms {
        0 => "–".to_owned(),
        busy => format!("{} ×", three_digits(virtual_ms as f64 / busy as f64)),
    };
    let reached = |probes: &[Probe]| {
        let reached = probes.iter().filter(|probe| probe.times > 0).count();
        format!("{reached} of {}", probes.len())
    };
    let tiles = [
        ("runs", grouped(runs)),
        ("failed", grouped(failed)),
        ("virtual time", duration_ms(virtual_ms)),
        ("wall time", duration_ms(report.wall_ms)),
        ("speed of a run", speed),
        ("puts", grouped(sum(|run| run.puts))),
        ("marks passed", reached(&report.marks)),
        ("in-code faults fired", reached(&report.sites)),
    ];
    let tiles: String = tiles
        .iter()
        .map(|(name, value)| format!("<div><dt>{name}</dt><dd>{value}</dd></div>"))
        .collect();
    format!(
        "<header><p class=\"brand\">detkv · swarm</p><h1>{} runs {badge}</h1>\
         <p class=\"sub\">{seeds}; members, disks, network, clocks, load and faults of each are drawn from its seed</p></header>\
         <div class=\"reproduce\"><code>{}</code></div><dl class=\"figures\">{tiles}</dl>",
        grouped(runs),
        escape(&report.reproduce)
    )
}

fn failures(report: &SwarmReport) -> String {
    if report.failures.is_empty() {
        return String::new();
    }
    let mut out = "<section class=\"card\"><h2>Failures</h2>".to_owned();
    for failure in &report.failures {
        let shown: Vec<String> =
            failure.seeds.iter().take(SEEDS_SHOWN).map(u64::to_string).collect();
        let more = if failure.seeds.len() > SEEDS_SHOWN { ", …" } else { "" };
        write!(
            out,
            "<h3>✗ {}</h3><p class=\"small\">{} runs: seeds {}{more}</p><pre>{}</pre>\
             <div class=\"reproduce\"><code>{}</code></div>",
            escape(&failure.signature),
            failure.seeds.len(),
            shown.join(", "),
            escape(&failure.message),
            escape(&failure.reproduce)
        )
        .expect("writing to a String cannot fail");
    }
    out + "</section>"
}

fn time(report: &SwarmReport) -> String {
    let of = |time: fn(&SwarmRun) -> u64| report.runs.iter().map(time).collect::<Vec<u64>>();
    format!(
        "<section class=\"card\"><h2>Time</h2>{}<div class=\"charts\">{}{}{}</div></section>",
        times(&report.runs),
        histogram("virtual time of a run", &of(|run| run.virtual_ms), duration_ms),
        histogram("wall time of a run", &of(|run| run.wall_ms), duration_ms),
        histogram("puts of a run", &of(|run| run.puts), grouped),
    )
}

fn values(option: &SwarmOption, widths: Widths) -> String {
    let all: Vec<Bar> = option
        .values
        .iter()
        .map(|value| Bar {
            label: value.value.clone(),
            title: format!("{}: {} runs, {} failed", value.value, value.runs, value.failed),
            value: value.runs,
            part: value.failed,
            note: grouped(value.runs),
        })
        .collect();
    bars(&option.name, &all, widths, false)
}

/// The rarest first: those are what one looks for.
fn probes(title: &str, about: &str, probes: &[Probe]) -> String {
    let mut sorted: Vec<&Probe> = probes.iter().collect();
    sorted.sort_by_key(|probe| (probe.runs, probe.times));
    let never = sorted.iter().take_while(|probe| probe.times == 0).count();
    let all: Vec<Bar> = sorted
        .iter()
        .map(|probe| Bar {
            label: probe.name.clone(),
            title: format!("{}: {} runs, {} times", probe.what, probe.runs, probe.times),
            value: probe.runs,
            part: 0,
            note: match probe.times {
                0 => "✗ never".to_owned(),
                times => format!("{} · {} ×", grouped(probe.runs), grouped(times)),
            },
        })
        .collect();
    let verdict = match never {
        0 => "<span class=\"ok\">✓ all</span>".to_owned(),
        n => format!("<span class=\"wrong\">✗ {n} never</span>"),
    };
    format!(
        "<section class=\"card\"><h2>{title} {verdict}</h2><p class=\"small\">{about}</p>{}</section>",
        bars(title, &all, WIDE, true)
    )
}
