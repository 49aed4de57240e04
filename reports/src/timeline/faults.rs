//! What the scenario did: rows of labelled bands, and their shadows over the panels below.

use super::{CHAR, Drawing, GUTTER, LEFT, Scales};
use crate::html::{duration_ms, escape, px};
use crate::run::{FaultSpan, Timeline};

const ROW: f64 = 19.0;

/// Rows at most; faults that find no free row share the last one.
const ROWS_MAX: usize = 8;

/// Faults drawn at most: more than this cannot be told apart, and the list below the picture has them.
const FAULTS_MAX: usize = 400;

/// Narrowest band: a momentary fault must still be seen.
const BAND_MIN: f64 = 3.0;

impl Drawing<'_> {
    /// Draws the rows; returns where the panels below begin to be shadowed.
    pub(super) fn fault_rows(&mut self) -> f64 {
        let top = self.y;
        let faults = &self.timeline.faults;
        if faults.is_empty() {
            self.panel(ROW, "Faults", "");
            self.write(format_args!(
                "<text class=\"note\" x=\"{}\" y=\"{}\">none</text>",
                px(LEFT + 6.0),
                px(self.y + 13.0)
            ));
            self.y += ROW + GUTTER;
            return top;
        }
        let placed = place(faults, self.scales);
        let rows = placed.iter().map(|(row, _)| row + 1).max().unwrap_or(1);
        self.panel(rows as f64 * ROW + 2.0, "Faults", "");
        for (row, fault) in placed {
            self.fault(fault, self.y + 2.0 + row as f64 * ROW);
        }
        if faults.len() > FAULTS_MAX {
            self.write(format_args!(
                "<text class=\"panel-unit\" x=\"0\" y=\"{}\">first {FAULTS_MAX} of {}</text>",
                px(self.y + 27.0),
                faults.len()
            ));
        }
        self.y += rows as f64 * ROW + 2.0 + GUTTER;
        top
    }

    fn fault(&mut self, fault: &FaultSpan, y: f64) {
        let (from, width) = extent(fault, self.scales);
        let label = label(fault);
        let (label_x, anchor) = label_place(from, width, &label, self.scales);
        let took = duration_ms(fault.to_ms.saturating_sub(fault.from_ms));
        self.write(format_args!(
            "<g><title>{label}\n{parameters}\nfrom {from_s} for {took}</title>\
             <rect class=\"fault\" x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" rx=\"3\"/>\
             <text class=\"fault-label\" x=\"{lx}\" y=\"{ly}\" text-anchor=\"{anchor}\">{label}</text></g>",
            label = escape(&label),
            parameters = escape(&fault.parameters),
            from_s = duration_ms(fault.from_ms),
            x = px(from),
            y = px(y),
            w = px(width),
            h = px(ROW - 4.0),
            lx = px(label_x),
            ly = px(y + 11.5),
        ));
    }
}

/// Gives each fault a row in which neither its band nor its label covers another.
fn place<'a>(faults: &'a [FaultSpan], scales: &Scales) -> Vec<(usize, &'a FaultSpan)> {
    let mut order: Vec<&FaultSpan> = faults.iter().take(FAULTS_MAX).collect();
    order.sort_by_key(|fault| fault.from_ms);
    let mut free_from: Vec<f64> = Vec::new();
    order
        .into_iter()
        .map(|fault| {
            let (from, width) = extent(fault, scales);
            let label = label(fault);
            let (label_x, anchor) = label_place(from, width, &label, scales);
            let text = label.chars().count() as f64 * CHAR;
            let (start, end) = match anchor {
                "end" => (label_x - text, from + width),
                _ => (from, (label_x + text).max(from + width)),
            };
            let row = free_from.iter().position(|free| *free <= start).unwrap_or_else(|| {
                if free_from.len() < ROWS_MAX {
                    free_from.push(0.0);
                }
                free_from.len() - 1
            });
            free_from[row] = free_from[row].max(end + 8.0);
            (row, fault)
        })
        .collect()
}

/// Left edge and width of a fault's band.
fn extent(fault: &FaultSpan, scales: &Scales) -> (f64, f64) {
    let from = scales.time.x(fault.from_ms as f64);
    let to = scales.time.x(fault.to_ms.max(fault.from_ms) as f64);
    let from = from.min(scales.time.right() - BAND_MIN);
    (from, (to - from).max(BAND_MIN))
}

fn label(fault: &FaultSpan) -> String {
    let mut label = fault.name.clone();
    if !fault.target.is_empty() {
        label.push_str(" · ");
        label.push_str(&fault.target);
    }
    if label.chars().count() > 60 {
        label = label.chars().take(59).chain(['…']).collect();
    }
    label
}

/// Inside the band if the label fits, else right of it, else left of it.
fn label_place(from: f64, width: f64, label: &str, scales: &Scales) -> (f64, &'static str) {
    let text = label.chars().count() as f64 * CHAR;
    if text + 10.0 <= width {
        (from + 6.0, "start")
    } else if from + width + 4.0 + text <= scales.time.right() {
        (from + width + 4.0, "start")
    } else {
        (from - 4.0, "end")
    }
}

/// Faint bands over all panels for the times when any fault is active; overlapping faults give one band.
pub(super) fn shadows(timeline: &Timeline, scales: &Scales, top: f64, bottom: f64) -> String {
    let mut spans: Vec<(f64, f64)> = timeline
        .faults
        .iter()
        .take(FAULTS_MAX)
        .map(|fault| extent(fault, scales))
        .map(|(from, width)| (from, from + width))
        .collect();
    spans.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut merged: Vec<(f64, f64)> = Vec::new();
    for (from, to) in spans {
        match merged.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    merged
        .iter()
        .map(|(from, to)| {
            format!(
                "<rect class=\"shadow\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>",
                px(*from),
                px(top),
                px(to - from),
                px(bottom - top)
            )
        })
        .collect()
}
