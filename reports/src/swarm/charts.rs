//! The pictures of a swarm's page: bars, a histogram, and wall time over virtual time.

use std::fmt::Write as _;

use super::SwarmRun;
use crate::html::{duration_us, escape, grouped, px};
use crate::scale::LogScale;

/// One bar.
pub(super) struct Bar {
    pub label: String,
    pub title: String,
    pub value: u64,
    /// Of `value`, drawn dark.
    pub part: u64,
    /// Behind the bar.
    pub note: String,
}

/// Widths of a picture, of its labels, and of what stands behind the bars. Drawn at these sizes, so that all text is one
/// size.
pub(super) struct Widths(f64, f64, f64);

/// Several beside each other.
pub(super) const NARROW: Widths = Widths(380.0, 130.0, 56.0);
/// One alone.
pub(super) const WIDE: Widths = Widths(860.0, 280.0, 130.0);

const ROW: f64 = 18.0;
const BAR: f64 = 12.0;
/// Bars of one picture; those past it are counted below.
const BARS_MAX: usize = 80;
/// Letters of a label that fit.
const LABEL_LETTERS: usize = 36;

/// Horizontal bars under a heading.
pub(super) fn bars(heading: &str, all: &[Bar], widths: Widths, is_log: bool) -> String {
    let Widths(width, label_width, note_width) = widths;
    let shown = &all[..all.len().min(BARS_MAX)];
    let most = shown.iter().map(|bar| bar.value).max().unwrap_or(0).max(1);
    let room = width - label_width - note_width;
    let length = |value: u64| {
        let part = if is_log {
            ((1 + value) as f64).ln() / ((1 + most) as f64).ln()
        } else {
            value as f64 / most as f64
        };
        part * room
    };
    let height = 24.0 + shown.len() as f64 * ROW;
    let name = escape(heading);
    let mut svg = format!(
        "<svg class=\"bars swarm\" style=\"max-width:{width}px\" viewBox=\"0 0 {width} {}\" role=\"img\" aria-label=\"{name}\"><text class=\"soft\" x=\"0\" y=\"13\">{name}</text>",
        px(height)
    );
    for (place, bar) in shown.iter().enumerate() {
        let y = 22.0 + place as f64 * ROW;
        let (class, weight) = if bar.value == 0 { ("soft", "soft") } else { ("label", "strong") };
        let label: String = bar.label.chars().take(LABEL_LETTERS).collect();
        write!(
            svg,
            "<g><title>{title}</title><text class=\"{class}\" x=\"0\" y=\"{text}\">{label}</text>\
             <rect class=\"bar s0\" x=\"{label_width}\" y=\"{top}\" width=\"{all}\" height=\"{BAR}\" rx=\"2\"/>",
            title = escape(&bar.title),
            text = px(y + 10.0),
            label = escape(&label),
            top = px(y),
            all = px(length(bar.value)),
        )
        .expect("writing to a String cannot fail");
        if bar.part > 0 {
            let part = px(length(bar.part).max(2.0));
            write!(svg, "<rect class=\"bar failed\" x=\"{label_width}\" y=\"{}\" width=\"{part}\" height=\"{BAR}\" rx=\"2\"/>", px(y))
                .expect("writing to a String cannot fail");
        }
        write!(
            svg,
            "<text class=\"{weight}\" x=\"{}\" y=\"{}\">{}</text></g>",
            px(label_width + length(bar.value) + 6.0),
            px(y + 10.0),
            escape(&bar.note)
        )
        .expect("writing to a String cannot fail");
    }
    svg.push_str("</svg>");
    if all.len() > shown.len() {
        write!(svg, "<p class=\"small\">and {} more</p>", all.len() - shown.len())
            .expect("a String");
    }
    svg
}

const HISTOGRAM: (f64, f64) = (380.0, 130.0);
const BASE: f64 = 106.0;
/// Bins per factor of ten.
const BINS: f64 = 6.0;

/// How many values lie where, on a logarithmic axis.
pub(super) fn histogram(heading: &str, values: &[u64], show: fn(u64) -> String) -> String {
    let (width, height) = HISTOGRAM;
    let place = |value: u64| ((value.max(1) as f64).log10() * BINS) as usize;
    let (Some(least), Some(most)) = (values.iter().min(), values.iter().max()) else {
        return String::new();
    };
    let first = place(*least);
    let mut bins = vec![0_u64; place(*most) - first + 1];
    values.iter().for_each(|value| bins[place(*value) - first] += 1);
    let highest = bins.iter().max().copied().unwrap_or(1).max(1);
    let step = width / bins.len() as f64;
    let name = escape(heading);
    let mut svg = format!(
        "<svg class=\"bars\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{name}\"><text class=\"soft\" x=\"0\" y=\"13\">{name}, number of runs</text>"
    );
    for (bin, count) in bins.iter().enumerate() {
        let from = 10f64.powf((first + bin) as f64 / BINS);
        let until = 10f64.powf((first + bin + 1) as f64 / BINS);
        let tall = *count as f64 / highest as f64 * (BASE - 24.0);
        write!(
            svg,
            "<g><title>{} to {}: {} runs</title><rect class=\"bar s0\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/></g>",
            escape(&show(from as u64)),
            escape(&show(until as u64)),
            grouped(*count),
            px(bin as f64 * step + 1.0),
            px(BASE - tall),
            px((step - 2.0).max(1.0)),
            px(tall)
        )
        .expect("writing to a String cannot fail");
    }
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let median = sorted[(sorted.len() - 1) / 2];
    write!(
        svg,
        "<text class=\"soft\" x=\"0\" y=\"124\">{}</text><text x=\"{}\" y=\"124\" text-anchor=\"middle\">median {}</text>\
         <text class=\"soft\" x=\"{width}\" y=\"124\" text-anchor=\"end\">{}</text></svg>",
        escape(&show(*least)),
        px(width / 2.0),
        escape(&show(median)),
        escape(&show(*most))
    )
    .expect("writing to a String cannot fail");
    svg
}

const PLOT: (f64, f64) = (1240.0, 300.0);
const LEFT: f64 = 64.0;
const MARGIN: f64 = 30.0;
const BOTTOM: f64 = 34.0;
const TOP: f64 = 22.0;

/// Every run as a dot: wall time over virtual time, both logarithmic; failed ones are crosses.
pub(super) fn times(runs: &[SwarmRun]) -> String {
    if runs.is_empty() {
        return String::new();
    }
    let (width, height) = PLOT;
    let scale = |of: fn(&SwarmRun) -> u64| {
        LogScale::covering(runs.iter().map(|run| of(run).max(1) * 1_000))
    };
    let (across, up) = (scale(|run| run.virtual_ms), scale(|run| run.wall_ms));
    let x = |us: f64| LEFT + across.fraction(us) * (width - LEFT - MARGIN);
    let y = |us: f64| height - BOTTOM - up.fraction(us) * (height - BOTTOM - TOP);
    let mut svg = format!(
        "<svg class=\"bars dots\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"wall time over virtual time\">\
         <text class=\"soft\" x=\"0\" y=\"13\">wall time ↑ over virtual time → of each run; × failed</text>"
    );
    for tick in across.ticks() {
        let at = px(x(tick));
        write!(
            svg,
            "<path class=\"grid\" d=\"M{at} {TOP}V{}\"/><text class=\"soft\" x=\"{at}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            px(height - BOTTOM),
            px(height - BOTTOM + 18.0),
            duration_us(tick)
        )
        .expect("writing to a String cannot fail");
    }
    for tick in up.ticks() {
        let at = px(y(tick));
        write!(
            svg,
            "<path class=\"grid\" d=\"M{LEFT} {at}H{}\"/><text class=\"soft\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            px(width - MARGIN),
            px(LEFT - 6.0),
            px(y(tick) + 4.0),
            duration_us(tick)
        )
        .expect("writing to a String cannot fail");
    }
    for run in runs {
        let us = |ms: u64| (ms.max(1) * 1_000) as f64;
        let (cx, cy) = (px(x(us(run.virtual_ms))), px(y(us(run.wall_ms))));
        let shape = if run.failed {
            format!("<path class=\"cross\" d=\"M{cx} {cy}m-4 -4l8 8m-8 0l8 -8\"/>")
        } else {
            format!("<circle class=\"run-dot\" cx=\"{cx}\" cy=\"{cy}\" r=\"2.6\"/>")
        };
        write!(
            svg,
            "<g><title>seed {}: {} virtual in {}, {} puts</title>{shape}</g>",
            run.seed,
            duration_us(us(run.virtual_ms)),
            duration_us(us(run.wall_ms)),
            grouped(run.puts)
        )
        .expect("writing to a String cannot fail");
    }
    svg + "</svg>"
}
