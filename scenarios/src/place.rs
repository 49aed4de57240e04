//! Where a mistake in a file is: line, column, and what was expected there.

use std::fmt;
use std::ops::Range;

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
