//! One swimlane per member: its roles as coloured spans with their terms.

use std::collections::BTreeMap;

use super::{Drawing, GUTTER, LEFT, MEMBER_COLOURS, Scales, fitting};
use crate::html::{duration_ms, escape, px};
use crate::run::{Role, RoleSpan, Timeline};

const LANE: f64 = 24.0;
const LANE_GAP: f64 = 5.0;

/// Leader changes marked with a line through all panels at most: beyond it the lines would hide the data.
const LEADER_MARKS_MAX: usize = 40;

impl Role {
    /// For a person, and as CSS class suffix with `-` for spaces.
    pub fn words(self) -> &'static str {
        match self {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::PreCandidate => "pre-candidate",
            Role::Candidate => "candidate",
            Role::Learner => "learner",
            Role::Recovering => "recovering",
            Role::Paused => "paused",
            Role::Down => "down",
        }
    }

    pub const ALL: [Role; 8] = [
        Role::Leader,
        Role::Follower,
        Role::PreCandidate,
        Role::Candidate,
        Role::Learner,
        Role::Recovering,
        Role::Paused,
        Role::Down,
    ];

    /// Which of two spans that fall on the same spot is shown: the rarer state.
    fn weight(self) -> u8 {
        match self {
            Role::Follower => 0,
            Role::Learner => 1,
            Role::Recovering => 2,
            Role::Paused => 3,
            Role::PreCandidate => 4,
            Role::Candidate => 5,
            Role::Down => 6,
            Role::Leader => 7,
        }
    }
}

impl Drawing<'_> {
    pub(super) fn lanes(&mut self) {
        let timeline = self.timeline;
        for (i, member) in timeline.members.iter().enumerate() {
            self.write(format_args!(
                "<rect class=\"member-key m{}\" x=\"0\" y=\"{}\" width=\"4\" height=\"{}\" rx=\"1\"/>",
                i % MEMBER_COLOURS,
                px(self.y),
                px(LANE)
            ));
            self.write(format_args!(
                "<text class=\"lane-name\" x=\"10\" y=\"{}\">{}</text>\
                 <rect class=\"panel unknown\" x=\"{LEFT}\" y=\"{}\" width=\"{}\" height=\"{}\"/>",
                px(self.y + LANE / 2.0 + 4.0),
                escape(&shortened(&member.name)),
                px(self.y),
                px(self.scales.time.width),
                px(LANE)
            ));
            let mut spans: Vec<&RoleSpan> =
                timeline.roles.iter().filter(|span| span.member == member.id).collect();
            // Rare states last, so that a brief leadership is not painted over by its neighbours.
            spans.sort_by_key(|span| (span.role.weight(), span.from_ms));
            self.spans(&spans);
            self.y += LANE + LANE_GAP;
        }
        self.y += GUTTER - LANE_GAP;
    }

    fn spans(&mut self, spans: &[&RoleSpan]) {
        // A storm has thousands of spans narrower than a pixel: the rarest state per pixel is enough.
        let time = self.scales.time;
        let place = |span: &RoleSpan| {
            let from = time.x(span.from_ms as f64);
            (from, (time.x(span.to_ms as f64) - from).max(0.0))
        };
        let mut narrow = BTreeMap::new();
        for span in spans {
            let (from, width) = place(span);
            if width < 1.0 {
                narrow.insert(from as i64, *span);
            }
        }
        for span in spans {
            let (from, width) = place(span);
            if width < 1.0 && !std::ptr::eq(narrow[&(from as i64)], *span) {
                continue;
            }
            let words = span.role.words();
            self.write(format_args!(
                "<g class=\"role {words}\"><title>{words}{term}, from {from_s} for {took}</title>\
                 <rect x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{LANE}\"/>",
                term =
                    if span.term > 0 { format!(" in term {}", span.term) } else { String::new() },
                from_s = duration_ms(span.from_ms),
                took = duration_ms(span.to_ms.saturating_sub(span.from_ms)),
                x = px(from),
                y = px(self.y),
                w = px(width.max(1.0)),
            ));
            let label = [span_label(span, true), span_label(span, false)];
            if let Some(label) = label.iter().find_map(|label| fitting(label, width)) {
                self.write(format_args!(
                    "<text x=\"{}\" y=\"{}\">{}</text>",
                    px(from + 5.0),
                    px(self.y + LANE / 2.0 + 4.0),
                    escape(label)
                ));
            }
            self.write(format_args!("</g>"));
        }
    }
}

/// `leader · term 3`, or `t3` where there is little room.
fn span_label(span: &RoleSpan, long: bool) -> String {
    match (span.role, span.term, long) {
        (role, 0, _) => role.words().to_owned(),
        (role, term, true) => format!("{} · term {term}", role.words()),
        (_, term, false) => format!("t{term}"),
    }
}

/// Names longer than the gutter are cut; the tables below have them whole.
fn shortened(name: &str) -> String {
    if name.chars().count() <= 15 {
        return name.to_owned();
    }
    name.chars().take(14).chain(['…']).collect()
}

/// A line through all panels wherever a leadership begins.
pub(super) fn leader_marks(timeline: &Timeline, scales: &Scales, top: f64, bottom: f64) -> String {
    let starts: Vec<&RoleSpan> =
        timeline.roles.iter().filter(|span| span.role == Role::Leader).collect();
    if starts.len() > LEADER_MARKS_MAX {
        return String::new();
    }
    starts
        .iter()
        .map(|span| {
            format!(
                "<line class=\"leader-mark\" x1=\"{x}\" x2=\"{x}\" y1=\"{}\" y2=\"{}\"/>",
                px(top),
                px(bottom),
                x = px(scales.time.x(span.from_ms as f64))
            )
        })
        .collect()
}
