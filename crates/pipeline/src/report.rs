//! Reports that gates write, as values: tests, covered lines, findings.
//!
//! They come from containers and are treated as hostile: entities of a document are never expanded, and depth, numbers and
//! lengths have bounds. Malformed ones are errors that say why.

mod coverage;
mod junit;
mod sarif;
mod xml;

pub(crate) use coverage::coverage;
pub(crate) use junit::problem;
pub use junit::{Case, CaseOutcome, junit};
pub(crate) use sarif::sarif;

/// Longer messages are cut: they are for one line.
const MESSAGE_CHARS_MAX: usize = 500;

/// The first line that says something, cut.
fn one_line(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    cut(line, MESSAGE_CHARS_MAX)
}

fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The report is not what it should be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct InvalidReport(String);

impl InvalidReport {
    fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

#[cfg(test)]
mod tests;
