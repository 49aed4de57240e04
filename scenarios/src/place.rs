//! Where a mistake in a file is: line, column, and what was expected there.

use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Why a file is no scenario: where, and what was expected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScenarioError {
    pub path: String,
    pub line: usize,
    pub column: usize,
    pub message: String,
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, column, message } = self;
        write!(f, "{path}:{line}:{column}: {message}")
    }
}

impl std::error::Error for ScenarioError {}

/// One step from a table or list to what is in it.
#[derive(Clone, Copy, Debug)]
pub enum Step<'s> {
    Key(&'s str),
    Entry(usize),
}

/// The key that a check's `message` complains about, in the part of the file that `path` leads to.
///
/// A check names keys in backquotes from the outside in: the first one that is there, and those inside of it. Without
/// any it is what [`find_cause`] finds, or the part itself; `None` when that is not in the file.
pub fn find_key(text: &str, path: &[Step<'_>], message: &str) -> Option<Range<usize>> {
    let file = DeTable::parse(text).ok()?;
    let mut at = Spanned::new(0..0, DeValue::Table(file.into_inner()));
    let mut span = 0..0;
    for step in path {
        (span, at) = inside(&at, *step)?;
    }
    let section = span.clone();
    let quoted = message.split('`').skip(1).step_by(2);
    for step in quoted.flat_map(steps) {
        if let Some((inner_span, inner)) = inside(&at, step) {
            (span, at) = (inner_span, inner);
        }
    }
    if span == section {
        let cause = find_cause(text, section, message);
        span = if cause.is_empty() { span } else { cause };
    }
    Some(span)
}

/// `links[1]` is a key and an entry.
fn steps(name: &str) -> Vec<Step<'_>> {
    let entry = name.strip_suffix(']').and_then(|name| name.split_once('['));
    match entry.map(|(key, place)| (key, place.parse())) {
        Some((key, Ok(place))) => vec![Step::Key(key), Step::Entry(place)],
        _ => vec![Step::Key(name)],
    }
}

/// Where a step leads to, and where its name is.
fn inside<'i>(
    at: &Spanned<DeValue<'i>>,
    step: Step<'_>,
) -> Option<(Range<usize>, Spanned<DeValue<'i>>)> {
    match (at.get_ref(), step) {
        (DeValue::Table(table), Step::Key(key)) => {
            let (name, value) = table.iter().find(|(name, _)| name.get_ref() == key)?;
            Some((name.span(), value.clone()))
        }
        (DeValue::Array(list), Step::Entry(place)) => {
            list.get(place).map(|entry| (entry.span(), entry.clone()))
        }
        // A list with a table at its end, as a link between two members.
        (DeValue::Array(list), Step::Key(_)) => list.iter().find_map(|entry| inside(entry, step)),
        _ => None,
    }
}

/// The place of the word that `message` complains about, inside `span`; else the start of `span`.
///
/// Entries are read as plain tables, which do not remember where their keys were.
pub fn find_cause(text: &str, span: Range<usize>, message: &str) -> Range<usize> {
    // A table's span may be that of its header alone: it goes on to the next header.
    let end = text[span.end..].find("\n[").map_or(text.len(), |next| span.end + next);
    let entry = &text[span.start..end];
    let quoted = message.split(['`', '"']).skip(1).step_by(2);
    for word in quoted {
        let found = entry.match_indices(word).find(|(at, _)| {
            let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
            let before = entry[..*at].chars().next_back().is_some_and(is_word);
            let after = entry[at + word.len()..].chars().next().is_some_and(is_word);
            let line = &entry[..*at];
            let in_comment = line[line.rfind('\n').map_or(0, |n| n + 1)..].contains('#');
            !before && !after && !in_comment && !word.is_empty()
        });
        if let Some((at, _)) = found {
            return span.start + at..span.start + at + word.len();
        }
    }
    span.start..span.start
}

pub fn error_at(path: &str, text: &str, span: Range<usize>, message: String) -> ScenarioError {
    let before = &text[..span.start.min(text.len())];
    ScenarioError {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before.len() - before.rfind('\n').map_or(0, |newline| newline + 1) + 1,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
a.b = 1
[net]
redial = 2
links = [
    [1, 2, { loss = 3 }],
    [1, 3, { loss = 4 }],
]
[net.peer]
loss = 5
[[load]]
keys = 6
[[load]]
keys = 7
";

    /// The line that `message` leads to, and the word there.
    fn found(path: &[Step<'_>], message: &str) -> Option<(usize, &'static str)> {
        let span = find_key(FILE, path, message)?;
        Some((FILE[..span.start].matches('\n').count() + 1, &FILE[span]))
    }

    #[test]
    fn names_lead_from_the_outside_in_to_the_key_itself() {
        let net = [Step::Key("net")];
        assert_eq!(found(&net, "`redial` is 2"), Some((3, "redial")));
        assert_eq!(found(&net, "`peer`: `loss` is 5"), Some((9, "loss")));
        assert_eq!(found(&net, "`links[1]`: `loss` is 4"), Some((6, "loss")));
        assert_eq!(found(&[], "`a`: `b` is 1"), Some((1, "b")));
        let second = [Step::Key("load"), Step::Entry(1)];
        assert_eq!(found(&second, "`keys` is 7"), Some((13, "keys")));
    }

    #[test]
    fn what_is_not_written_down_is_where_it_would_be() {
        let net = [Step::Key("net")];
        assert_eq!(found(&net, "`timeout` is 0"), Some((2, "net")));
        assert_eq!(found(&net, "`timeout` is less than `redial`"), Some((3, "redial")));
        assert_eq!(found(&[Step::Key("disk")], "`call` is 0"), None);
    }
}
