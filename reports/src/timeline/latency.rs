//! Put latency, throughput and WAL syncs over time.

use std::fmt::Write as _;

use super::{CHAR, Drawing, GUTTER, MEMBER_COLOURS};
use crate::html::{duration_ms, px, rate, three_digits};
use crate::run::PutGap;
use crate::thin::{Grid, Window};

const PUTS: f64 = 190.0;
const THROUGHPUT: f64 = 64.0;
const SYNCS: f64 = 110.0;

/// A sync at least this wide on the page is drawn as a bar.
const LONG_SYNC: f64 = 5.0;

/// Room for about 5,000 bars per member; further long syncs are dots.
const BARS_BYTES_MAX: usize = 100_000;

/// A failed put is a cross with arms of this length.
const CROSS: f64 = 2.6;

impl Drawing<'_> {
    /// Every put as a dot on a logarithmic axis, p50 and p99 per window as lines, gaps as bands.
    pub(super) fn puts(&mut self) {
        self.panel(PUTS, "Put latency", "log scale");
        self.warm_up(PUTS, true);
        self.decades(self.scales.put, PUTS);
        let (mut ok, mut failed) = (Grid::default(), Grid::default());
        for put in &self.timeline.puts {
            let x = self.scales.time.x(put.time_ms as f64);
            let y = self.y + PUTS * (1.0 - self.scales.put.fraction(put.latency_us as f64));
            if put.ok { ok.add(x, y) } else { failed.add(x, y) }
        }
        self.gaps();
        self.dots("put few", ok.marks(1..=2));
        self.dots("put some", ok.marks(3..=9));
        self.dots("put many", ok.marks(10..=u32::MAX));
        self.crosses(&failed);
        self.quantile("p99", |window| window.p99_us);
        self.quantile("p50", |window| window.p50_us);
        self.y += PUTS + GUTTER;
    }

    fn crosses(&mut self, failed: &Grid) {
        let mut path = String::new();
        for (x, y) in failed.marks(1..=u32::MAX) {
            let (left, top, arm) = (px(x - CROSS), px(y - CROSS), px(2.0 * CROSS));
            write!(path, "M{left} {top}l{arm} {arm}m-{arm} 0l{arm}-{arm}")
                .expect("writing to a String cannot fail");
        }
        if !path.is_empty() {
            self.write(format_args!("<path class=\"put-failed\" d=\"{path}\"/>"));
        }
    }

    /// A stepped line that breaks where a window has no successful put.
    fn quantile(&mut self, class: &str, value: impl Fn(&Window) -> Option<u64>) {
        let mut path = String::new();
        let mut drawing = false;
        for window in self.windows {
            let Some(us) = value(window) else {
                drawing = false;
                continue;
            };
            let y = self.y + PUTS * (1.0 - self.scales.put.fraction(us as f64));
            let from = self.scales.time.x(window.from_ms);
            let to = self.scales.time.x(window.from_ms + self.scales.window_ms);
            let command = if drawing { 'L' } else { 'M' };
            write!(path, "{command}{} {}H{}", px(from), px(y), px(to))
                .expect("writing to a String cannot fail");
            drawing = true;
        }
        if !path.is_empty() {
            self.write(format_args!("<path class=\"quantile {class}\" d=\"{path}\"/>"));
        }
    }

    fn gaps(&mut self) {
        let gaps = &self.timeline.put_gaps;
        let length = |gap: &PutGap| gap.to_ms.saturating_sub(gap.from_ms);
        let longest = gaps.iter().map(length).max();
        for gap in gaps {
            let from = self.scales.time.x(gap.from_ms as f64);
            let width = (self.scales.time.x(gap.to_ms as f64) - from).max(1.0);
            self.write(format_args!(
                "<rect class=\"gap\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{PUTS}\"/>",
                px(from),
                px(self.y),
                px(width)
            ));
            if Some(length(gap)) == longest {
                self.gap_label(from, width, length(gap));
            }
        }
    }

    /// Below the crosses of timeouts at the panel's top, inside the band or beside it, with the election timeout as yardstick.
    fn gap_label(&mut self, from: f64, width: f64, length_ms: u64) {
        let mut lines = vec![format!("no put for {}", duration_ms(length_ms))];
        if self.timeline.election_timeout_ms > 0 {
            let timeouts = length_ms as f64 / self.timeline.election_timeout_ms as f64;
            lines.push(format!("{} × election timeout", three_digits(timeouts)));
        }
        let text = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0) as f64 * CHAR;
        let right = self.scales.time.right();
        let (x, anchor) = if text + 12.0 <= width {
            (from + width / 2.0, "middle")
        } else if from + width + 6.0 + text <= right {
            (from + width + 6.0, "start")
        } else {
            (from - 6.0, "end")
        };
        for (i, line) in lines.iter().enumerate() {
            self.write(format_args!(
                "<text class=\"gap-label\" x=\"{}\" y=\"{}\" text-anchor=\"{anchor}\">{line}</text>",
                px(x),
                px(self.y + 20.0 + i as f64 * 13.0)
            ));
        }
    }

    /// Puts that returned per second as a filled step line, failed ones as a second line.
    pub(super) fn throughput(&mut self) {
        self.panel(THROUGHPUT, "Throughput", "puts/s");
        self.warm_up(THROUGHPUT, false);
        let max = self.scales.rate_max;
        for per_sec in [0.0, max / 2.0, max] {
            self.tick_line(self.y + THROUGHPUT * (1.0 - per_sec / max), &rate(per_sec));
        }
        let base = self.y + THROUGHPUT;
        let (area, line) = self.steps(|window| Some(window.returned), base);
        let (_, failed) = self.steps(|window| Some(window.failed).filter(|n| *n > 0), base);
        for (class, path) in [("rate-area", area), ("rate", line), ("rate-failed", failed)] {
            if !path.is_empty() {
                self.write(format_args!("<path class=\"{class}\" d=\"{path}\"/>"));
            }
        }
        self.y += THROUGHPUT + GUTTER;
    }

    /// A step line over the throughput panel and the area below it; broken where `count` gives nothing.
    fn steps(&self, count: impl Fn(&Window) -> Option<u64>, base: f64) -> (String, String) {
        let (mut area, mut line) = (String::new(), String::new());
        let mut connected = false;
        for window in self.windows {
            let Some(count) = count(window) else {
                connected = false;
                continue;
            };
            // The last window may be cut short by the end of the run: its rate is over what it covers.
            let to_ms = (window.from_ms + self.scales.window_ms).min(self.duration_ms as f64);
            let covered_ms = to_ms - window.from_ms;
            if covered_ms <= 0.0 {
                continue;
            }
            let per_sec = count as f64 * 1e3 / covered_ms;
            let y = px(base - THROUGHPUT * (per_sec / self.scales.rate_max).min(1.0));
            let (from, to) =
                (px(self.scales.time.x(window.from_ms)), px(self.scales.time.x(to_ms)));
            let base = px(base);
            let command = if connected { 'L' } else { 'M' };
            connected = true;
            write!(line, "{command}{from} {y}H{to}").expect("writing to a String cannot fail");
            write!(area, "M{from} {base}V{y}H{to}V{base}z")
                .expect("writing to a String cannot fail");
        }
        (area, line)
    }

    /// Every sync of the WAL as a dot in its member's colour; one long enough to be seen on the axis of time
    /// as a bar from its issue to its end.
    pub(super) fn syncs(&mut self) {
        self.panel(SYNCS, "WAL sync", "log scale");
        self.decades(self.scales.sync, SYNCS);
        let timeline = self.timeline;
        for (i, member) in timeline.members.iter().enumerate() {
            let mut grid = Grid::default();
            let mut bars = String::new();
            for sync in timeline.fsyncs.iter().filter(|sync| sync.member == member.id) {
                let fraction = self.scales.sync.fraction(sync.latency_us as f64);
                let x = self.scales.time.x(sync.time_ms as f64);
                let y = self.y + SYNCS * (1.0 - fraction);
                let end = self.scales.time.x(sync.time_ms as f64 + sync.latency_us as f64 / 1e3);
                if end - x >= LONG_SYNC && bars.len() < BARS_BYTES_MAX {
                    write!(bars, "M{} {}H{}", px(x), px(y), px(end))
                        .expect("writing to a String cannot fail");
                } else {
                    grid.add(x, y);
                }
            }
            let class = format!("sync m{}", i % MEMBER_COLOURS);
            self.dots(&class, grid.marks(1..=u32::MAX));
            if !bars.is_empty() {
                self.write(format_args!("<path class=\"{class} long\" d=\"{bars}\"/>"));
            }
        }
        self.y += SYNCS + GUTTER;
    }
}
