//! The picture of one run as SVG: panels above each other over one axis of virtual time.
//!
//! | Module | Panel |
//! |---|---|
//! | [`faults`] | what the scenario did, as labelled bands |
//! | [`lanes`] | one swimlane of roles and terms per member |
//! | [`latency`] | put latency, throughput and WAL syncs |
//!
//! Colours are CSS classes of `page/style.css`, so that the picture follows the reader's light or dark theme.
//! Nothing is told by colour alone: roles differ by label or hatching, failed puts are crosses.

mod faults;
mod lanes;
mod latency;

use std::fmt::Write as _;

use crate::html::{duration_us, escape, px};
use crate::run::{RunReport, Timeline};
use crate::scale::{LogScale, TimeScale, round_step};
use crate::thin::{self, Window};

/// Size of the picture in its own units; the page scales it to the reader's window.
const WIDTH: f64 = 1180.0;
const LEFT: f64 = 118.0;
const RIGHT: f64 = 16.0;

/// Height between panels.
const GUTTER: f64 = 19.0;

/// Rough width of a character of a label, to decide whether it fits.
const CHAR: f64 = 6.1;

/// Members have this many colours; further ones repeat them.
pub const MEMBER_COLOURS: usize = 7;

/// What all runs of a page share, so that they can be compared by eye.
pub struct Scales {
    pub time: TimeScale,
    pub put: LogScale,
    pub sync: LogScale,
    pub window_ms: f64,
    /// Top of the throughput axis, in puts per second.
    pub rate_max: f64,
}

/// One run's windows, computed once for scales, picture and tooltips.
pub struct Prepared<'a> {
    pub run: &'a RunReport,
    pub windows: Vec<Window>,
}

/// Cuts every run into windows and finds the axes that hold them all.
pub fn prepare(runs: &[RunReport]) -> (Vec<Prepared<'_>>, Scales) {
    let duration = runs.iter().map(duration_ms).max().unwrap_or(1).max(1);
    let window_ms = thin::window_ms(duration);
    let prepared: Vec<_> = runs
        .iter()
        .map(|run| {
            let windows = thin::windows(&run.timeline.puts, duration_ms(run), window_ms);
            Prepared { run, windows }
        })
        .collect();
    let busiest = prepared.iter().flat_map(|p| &p.windows).map(|w| w.returned.max(w.failed)).max();
    let rate_max = busiest.unwrap_or(0) as f64 * 1e3 / window_ms;
    let timelines = || runs.iter().map(|run| &run.timeline);
    let scales = Scales {
        time: TimeScale::new(duration, LEFT, WIDTH - LEFT - RIGHT),
        put: LogScale::covering(timelines().flat_map(|t| t.puts.iter().map(|p| p.latency_us))),
        sync: LogScale::covering(timelines().flat_map(|t| t.fsyncs.iter().map(|f| f.latency_us))),
        window_ms,
        rate_max: (round_step(rate_max.max(1.0), 2.0) * 2.0).max(2.0),
    };
    (prepared, scales)
}

/// Length of a run: its virtual time, or where its last role span ends if that is later.
fn duration_ms(run: &RunReport) -> u64 {
    let last_role = run.timeline.roles.iter().map(|span| span.to_ms).max().unwrap_or(0);
    run.summary.virtual_ms.max(last_role)
}

/// A picture in the making: panels are added from top to bottom.
struct Drawing<'a> {
    timeline: &'a Timeline,
    scales: &'a Scales,
    windows: &'a [Window],
    /// Length of this run, which may be shorter than the axis.
    duration_ms: u64,
    svg: String,
    /// Where the next panel begins.
    y: f64,
}

/// Draws `run`; `label` names the picture for a screen reader, `index` is the run's place on the page.
pub fn draw(prepared: &Prepared<'_>, scales: &Scales, index: usize, label: &str) -> String {
    let timeline = &prepared.run.timeline;
    let mut drawing = Drawing {
        timeline,
        scales,
        windows: &prepared.windows,
        duration_ms: duration_ms(prepared.run),
        svg: String::new(),
        y: 4.0,
    };
    let top = drawing.fault_rows();
    drawing.lanes();
    drawing.puts();
    drawing.throughput();
    if !timeline.fsyncs.is_empty() {
        drawing.syncs();
    }
    let bottom = drawing.y - GUTTER;
    drawing.axis(bottom);
    let height = bottom + 38.0;

    let mut out = String::with_capacity(drawing.svg.len() + 2048);
    write!(
        out,
        "<svg class=\"timeline\" data-run=\"{index}\" viewBox=\"0 0 {WIDTH} {h}\" role=\"img\" tabindex=\"0\" \
         aria-label=\"{label}\">{PATTERNS}",
        h = px(height),
        label = escape(label),
    )
    .expect("writing to a String cannot fail");
    out.push_str(&faults::shadows(timeline, scales, top, bottom));
    out.push_str(&lanes::leader_marks(timeline, scales, top, bottom));
    out.push_str(&drawing.svg);
    write!(
        out,
        "<line class=\"cursor\" y1=\"{}\" y2=\"{}\" x1=\"0\" x2=\"0\"/></svg>",
        px(top),
        px(bottom)
    )
    .expect("writing to a String cannot fail");
    out
}

/// Hatchings, so that a state is told by more than its colour. Ids are the same in every picture of a page.
const PATTERNS: &str = "<defs>\
<pattern id=\"hatch-fault\" width=\"7\" height=\"7\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
<rect class=\"fault-ground\" width=\"7\" height=\"7\"/><line class=\"fault-line\" y2=\"7\"/></pattern>\
<pattern id=\"hatch-paused\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(-45)\">\
<rect class=\"paused-ground\" width=\"6\" height=\"6\"/><line class=\"paused-line\" y2=\"6\"/></pattern>\
<pattern id=\"hatch-recovering\" width=\"8\" height=\"8\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
<rect class=\"recovering-ground\" width=\"8\" height=\"8\"/><line class=\"recovering-line\" y2=\"8\"/></pattern>\
<pattern id=\"hatch-warm\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
<line class=\"warm-line\" y2=\"6\"/></pattern></defs>";

impl Drawing<'_> {
    fn write(&mut self, args: std::fmt::Arguments<'_>) {
        self.svg.write_fmt(args).expect("writing to a String cannot fail");
    }

    /// Ground of a panel, its title in the gutter and, below it, its unit.
    fn panel(&mut self, height: f64, title: &str, unit: &str) {
        let (y, width) = (px(self.y), px(self.scales.time.width));
        self.write(format_args!(
            "<rect class=\"panel\" x=\"{LEFT}\" y=\"{y}\" width=\"{width}\" height=\"{}\"/>\
             <text class=\"panel-title\" x=\"0\" y=\"{}\">{}</text>",
            px(height),
            px(self.y + 12.0),
            escape(title),
        ));
        if !unit.is_empty() {
            self.write(format_args!(
                "<text class=\"panel-unit\" x=\"0\" y=\"{}\">{}</text>",
                px(self.y + 27.0),
                escape(unit)
            ));
        }
    }

    /// A horizontal grid line with its label in the gutter.
    fn tick_line(&mut self, y: f64, label: &str) {
        let right = px(self.scales.time.right());
        self.write(format_args!(
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y}\" y2=\"{y}\"/>\
             <text class=\"tick\" x=\"{x}\" y=\"{text_y}\" text-anchor=\"end\">{label}</text>",
            y = px(y),
            x = px(LEFT - 7.0),
            text_y = px(y + 3.5),
            label = escape(label),
        ));
    }

    /// One tick line per decade of `scale`, over a panel of `height`.
    fn decades(&mut self, scale: LogScale, height: f64) {
        // A wide range gets a label at every second decade only.
        let every = if scale.max_exp - scale.min_exp > 6 { 2 } else { 1 };
        for (i, us) in scale.ticks().enumerate() {
            if i % every == 0 {
                let y = self.y + height * (1.0 - scale.fraction(us));
                self.tick_line(y, &duration_us(us));
            }
        }
    }

    /// The time before measuring starts, hatched over a panel, with a word in the first panel that has it.
    fn warm_up(&mut self, height: f64, labelled: bool) {
        let warm_up_ms = self.timeline.warm_up_ms;
        if warm_up_ms == 0 {
            return;
        }
        let width = self.scales.time.x(warm_up_ms as f64) - LEFT;
        self.write(format_args!(
            "<rect fill=\"url(#hatch-warm)\" x=\"{LEFT}\" y=\"{}\" width=\"{}\" height=\"{}\"/>",
            px(self.y),
            px(width),
            px(height)
        ));
        if labelled && width > 52.0 {
            self.write(format_args!(
                "<text class=\"note\" x=\"{}\" y=\"{}\">warm-up</text>",
                px(LEFT + 4.0),
                px(self.y + 13.0)
            ));
        }
    }

    /// Marks of one class as a single path of dots (round line caps), cheap even by the ten thousand.
    fn dots(&mut self, class: &str, marks: impl Iterator<Item = (f64, f64)>) {
        let mut path = String::new();
        for (x, y) in marks {
            write!(path, "M{} {}h0", px(x), px(y)).expect("writing to a String cannot fail");
        }
        if !path.is_empty() {
            self.write(format_args!("<path class=\"{class}\" d=\"{path}\"/>"));
        }
    }

    /// Virtual time under the last panel.
    fn axis(&mut self, bottom: f64) {
        let time = self.scales.time;
        let step = round_step(time.to_ms, 14.0).max(1.0);
        let mut ms = 0.0;
        while ms <= time.to_ms {
            let x = px(time.x(ms));
            let label =
                if step < 1000.0 { format!("{:.2}", ms / 1e3) } else { format!("{}", ms / 1e3) };
            self.write(format_args!(
                "<line class=\"axis\" x1=\"{x}\" x2=\"{x}\" y1=\"{}\" y2=\"{}\"/>\
                 <text class=\"tick\" x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
                px(bottom),
                px(bottom + 4.0),
                px(bottom + 16.0)
            ));
            ms += step;
        }
        self.write(format_args!(
            "<text class=\"panel-unit\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">virtual time in seconds</text>",
            px(time.left + time.width / 2.0),
            px(bottom + 32.0)
        ));
    }
}

/// `label` if it fits into `width`.
fn fitting(label: &str, width: f64) -> Option<&str> {
    (label.chars().count() as f64 * CHAR + 6.0 <= width).then_some(label)
}
