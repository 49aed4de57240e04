//! The page of a bench: the machine, one card of bars per row, ratios, and every number below.

use std::fmt::Write as _;

use super::{BenchReport, BenchRow, Ratio, Stat, StoreResult};
use crate::html::{duration_us, escape, grouped, px, rate, three_digits};
use crate::page::document;

/// Stores have this many colours; further ones repeat them.
const COLOURS: usize = 4;

/// Load average per core from which a machine counts as busy.
pub const BUSY_PER_CORE: f64 = 0.3;

/// One measured quantity of a row: its heading, whether more is better, and how to read and show it.
struct Measure {
    heading: &'static str,
    more_is_better: bool,
    stat: fn(&StoreResult) -> Option<Stat>,
    show: fn(f64) -> String,
}

const MEASURES: [Measure; 5] = [
    Measure {
        heading: "throughput, op/s",
        more_is_better: true,
        stat: |r| Some(r.ops_per_sec),
        show: rate,
    },
    Measure {
        heading: "latency p50",
        more_is_better: false,
        stat: |r| Some(r.p50_us),
        show: duration_us,
    },
    Measure {
        heading: "latency p99",
        more_is_better: false,
        stat: |r| Some(r.p99_us),
        show: duration_us,
    },
    Measure {
        heading: "server CPU per op",
        more_is_better: false,
        stat: |r| Some(r.server_cpu_secs_per_1000),
        // Seconds per 1000 operations are milliseconds per operation.
        show: |secs| duration_us(secs * 1e3),
    },
    Measure {
        heading: "disk bytes per payload byte",
        more_is_better: false,
        stat: |r| r.write_amplification,
        show: three_digits,
    },
];

/// One self-contained page; accepts any report, an empty one too.
pub fn bench_page(report: &BenchReport) -> String {
    let mut body = header(report);
    if report.stores.len() > 1 {
        body.push_str(&overview(report));
    }
    for row in &report.rows {
        body.push_str(&card(report, row));
    }
    body.push_str(&raw(report));
    document(&format!("detkv bench {}", report.date), &body, "")
}

fn header(report: &BenchReport) -> String {
    let labels: Vec<&str> = report.stores.iter().map(|store| store.label.as_str()).collect();
    let machine = &report.machine;
    let probe = &report.fsync_probe;
    let mut facts = String::new();
    let mut fact = |name: &str, value: &str| {
        write!(facts, "<div><dt>{name}</dt><dd>{}</dd></div>", escape(value))
            .expect("writing to a String cannot fail");
    };
    fact("CPU", &format!("{} · {} cores", machine.cpu, machine.cores));
    fact("memory", &format!("{} GiB", three_digits(machine.memory_bytes as f64 / 1_073_741_824.0)));
    fact("kernel", &machine.kernel);
    fact("disk", &format!("{} on {}", machine.filesystem, machine.disk));
    fact(
        "write 4 KiB + fdatasync",
        &format!(
            "p50 {}, p99 {}, worst {}",
            duration_us(probe.p50_us as f64),
            duration_us(probe.p99_us as f64),
            duration_us(probe.max_us as f64)
        ),
    );
    fact("load average before", &format!("{:.2}", machine.load_average));
    for store in &report.stores {
        fact(&escape(&store.label), &store.version);
    }
    format!(
        "<header><p class=\"brand\">detkv · bench on real disks · {}</p><h1>{}</h1>\
         <p class=\"sub\">bars are medians over the visits, whiskers span all visits</p></header>\
         {}<section class=\"card\"><h2>Machine and method</h2><dl class=\"facts\">{facts}</dl>\
         <p>{}</p><p class=\"small\"><code>{}</code></p></section>",
        escape(&report.date),
        escape(&title(&labels)),
        busy(report),
        escape(&method(report)),
        escape(&report.command)
    )
}

/// `a`, `a beside b`, `a beside b and c`.
fn title(labels: &[&str]) -> String {
    match labels {
        [] => "no store".to_owned(),
        [only] => (*only).to_owned(),
        [first, others @ ..] => format!("{first} beside {}", others.join(" and ")),
    }
}

/// A machine with other work gives numbers that are lower and less certain: said before any of them.
fn busy(report: &BenchReport) -> String {
    let machine = &report.machine;
    if machine.load_average <= BUSY_PER_CORE * machine.cores as f64 {
        return String::new();
    }
    format!(
        "<ul class=\"problems\"><li>The machine was busy with other work (load average {:.1} on {}): absolute numbers are lower \
         and spreads wider than on a quiet one. The stores took turns, so ratios suffer less.</li></ul>",
        machine.load_average,
        plural(machine.cores, "core")
    )
}

fn method(report: &BenchReport) -> String {
    format!(
        "Three members on loopback; stores take turns, {} each; {} s measured per row after {} s of warm-up; \
         the load generator has {} on the same machine.",
        plural(report.repeats, "visit"),
        report.seconds,
        report.warm_up_seconds,
        plural(report.client_threads, "thread")
    )
}

fn plural(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// All ratios in one table, wins and losses alike.
fn overview(report: &BenchReport) -> String {
    let ours = report.stores.first().map_or("", |store| store.label.as_str());
    let mut rows = String::new();
    for row in &report.rows {
        for ratios in &row.ratios {
            write!(
                rows,
                "<tr><th scope=\"row\">{}</th><td>{}</td>{}{}{}{}{}</tr>",
                escape(&row.title),
                escape(&ratios.against),
                ratio_cell(Some(ratios.ops_per_sec), true),
                ratio_cell(Some(ratios.p50_us), false),
                ratio_cell(Some(ratios.p99_us), false),
                ratio_cell(Some(ratios.server_cpu), false),
                ratio_cell(ratios.write_amplification, false)
            )
            .expect("writing to a String cannot fail");
        }
    }
    format!(
        "<section class=\"card\"><h2>{} divided by the other</h2><div class=\"scroll\"><table class=\"numbers\"><thead><tr><th></th>\
         <th scope=\"col\">against</th><th scope=\"col\">throughput ↑</th><th scope=\"col\">p50 ↓</th><th scope=\"col\">p99 ↓</th>\
         <th scope=\"col\">server CPU per op ↓</th><th scope=\"col\">disk bytes ↓</th></tr></thead><tbody>{rows}</tbody></table></div>\
         <p class=\"small\">↑ more is better, ↓ less is better; ± is the standard deviation over pairs of visits. \
         ✓ and ✗ mark differences larger than that.</p></section>",
        escape(ours)
    )
}

fn ratio_cell(ratio: Option<Ratio>, more_is_better: bool) -> String {
    let Some(Ratio { value, spread }) = ratio else {
        return "<td>–</td>".to_owned();
    };
    let text = match spread {
        Some(spread) => format!("{value:.2} ± {spread:.2}"),
        None => format!("{value:.2}"),
    };
    // One visit says nothing about what is noise.
    let clear = spread.is_some_and(|spread| (value - 1.0).abs() > spread.max(0.02));
    match (clear, (value > 1.0) == more_is_better) {
        (false, _) => format!("<td>{text}</td>"),
        (true, true) => format!("<td><span class=\"wins\">✓ {text}</span></td>"),
        (true, false) => format!("<td><span class=\"loses\">✗ {text}</span></td>"),
    }
}

fn card(report: &BenchReport, row: &BenchRow) -> String {
    let mut charts = String::new();
    for measure in &MEASURES {
        if row.results.iter().any(|result| (measure.stat)(result).is_some()) {
            charts.push_str(&chart(report, row, measure));
        }
    }
    let mut errors = String::new();
    for (store, result) in report.stores.iter().zip(&row.results) {
        if result.errors > 0 {
            let example = result.error_example.as_deref().unwrap_or("no message");
            write!(
                errors,
                "<li>{}: {} failed operations, for example “{}”</li>",
                escape(&store.label),
                grouped(result.errors),
                escape(example)
            )
            .expect("writing to a String cannot fail");
        }
    }
    if !errors.is_empty() {
        errors = format!("<ul class=\"problems\">{errors}</ul>");
    }
    format!(
        "<section class=\"card\"><h2>{}</h2><p class=\"small\"><code>{}</code> · {}</p>{errors}\
         <div class=\"charts\">{charts}</div></section>",
        escape(&row.title),
        escape(&row.name),
        plural(row.connections, "connection")
    )
}

const CHART_WIDTH: f64 = 380.0;
const LABEL_WIDTH: f64 = 96.0;
const VALUE_WIDTH: f64 = 66.0;
const BAR: f64 = 18.0;
const BAR_GAP: f64 = 9.0;

/// Horizontal bars, one per store, from zero to the median; whisker from the least to the most.
fn chart(report: &BenchReport, row: &BenchRow, measure: &Measure) -> String {
    let stats: Vec<Option<Stat>> = row.results.iter().map(measure.stat).collect();
    let max = stats.iter().flatten().map(|stat| stat.max).fold(f64::MIN_POSITIVE, f64::max);
    let room = CHART_WIDTH - LABEL_WIDTH - VALUE_WIDTH;
    let x = |value: f64| LABEL_WIDTH + (value / max).clamp(0.0, 1.0) * room;
    let arrow = if measure.more_is_better { "↑" } else { "↓" };
    let height = 26.0 + stats.len() as f64 * (BAR + BAR_GAP);
    let mut svg = format!(
        "<svg class=\"bars\" viewBox=\"0 0 {CHART_WIDTH} {}\" role=\"img\" aria-label=\"{heading} of {}\">\
         <text class=\"soft\" x=\"0\" y=\"13\">{heading} {arrow}</text>",
        px(height),
        escape(&row.title),
        heading = measure.heading,
    );
    for (i, (stat, store)) in stats.iter().zip(&report.stores).enumerate() {
        let y = 24.0 + i as f64 * (BAR + BAR_GAP);
        let middle = y + BAR / 2.0;
        let label: String = store.label.chars().take(15).collect();
        write!(svg, "<text x=\"0\" y=\"{}\">{}</text>", px(middle + 4.0), escape(&label))
            .expect("writing to a String cannot fail");
        let Some(stat) = stat else { continue };
        let value = (measure.show)(stat.median);
        write!(
            svg,
            "<g><title>{label}: median {value}, from {min} to {most}</title>\
             <rect class=\"bar s{colour}\" x=\"{LABEL_WIDTH}\" y=\"{y}\" width=\"{w}\" height=\"{BAR}\" rx=\"2\"/>\
             <path class=\"whisker\" d=\"M{x0} {up}V{down}M{x0} {mid}H{x1}M{x1} {up}V{down}\"/></g>\
             <text class=\"strong\" x=\"{vx}\" y=\"{vy}\">{value}</text>",
            label = escape(&store.label),
            min = (measure.show)(stat.min),
            most = (measure.show)(stat.max),
            colour = i % COLOURS,
            y = px(y),
            w = px(x(stat.median) - LABEL_WIDTH),
            x0 = px(x(stat.min)),
            x1 = px(x(stat.max)),
            up = px(middle - 4.0),
            down = px(middle + 4.0),
            mid = px(middle),
            vx = px(CHART_WIDTH - VALUE_WIDTH + 8.0),
            vy = px(middle + 4.0),
        )
        .expect("writing to a String cannot fail");
    }
    svg.push_str("</svg>");
    svg
}

/// Every repeat of every row: the raw data, for whoever wants to compute something else.
fn raw(report: &BenchReport) -> String {
    let mut rows = String::new();
    for row in &report.rows {
        for (store, result) in report.stores.iter().zip(&row.results) {
            for (i, repeat) in result.repeats.iter().enumerate() {
                let per_sec = repeat.ops as f64 / repeat.seconds.max(1e-9);
                let per_op = |secs: f64| match repeat.ops {
                    0 => "–".to_owned(),
                    ops => duration_us(secs * 1e6 / ops as f64),
                };
                let latency = |us: u64| duration_us(us as f64);
                write!(
                    rows,
                    "<tr><th scope=\"row\"><code>{}</code></th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
                     <td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                    escape(&row.name),
                    escape(&store.label),
                    i + 1,
                    grouped(per_sec.round() as u64),
                    latency(repeat.p50_us),
                    latency(repeat.p99_us),
                    latency(repeat.p999_us),
                    latency(repeat.max_us),
                    per_op(repeat.server_cpu_secs),
                    per_op(repeat.client_cpu_secs),
                    repeat.written_bytes.map_or("–".to_owned(), grouped),
                    grouped(repeat.errors)
                )
                .expect("writing to a String cannot fail");
            }
        }
    }
    format!(
        "<details class=\"card\"><summary>Every repeat</summary><div class=\"scroll\"><table class=\"numbers\"><thead><tr>\
         <th scope=\"col\">row</th><th scope=\"col\">store</th><th scope=\"col\">visit</th><th scope=\"col\">op/s</th><th scope=\"col\">p50</th>\
         <th scope=\"col\">p99</th><th scope=\"col\">p99.9</th><th scope=\"col\">worst</th><th scope=\"col\">server CPU/op</th>\
         <th scope=\"col\">client CPU/op</th><th scope=\"col\">bytes to disk</th><th scope=\"col\">errors</th></tr></thead><tbody>{rows}</tbody></table></div></details>"
    )
}
