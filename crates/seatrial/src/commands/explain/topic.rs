//! Codes and rules with their texts.

use crate::terminal::{table, text};

/// Lines of a text are broken here: longer ones are hard to read.
const COLUMNS: usize = 96;

/// One thing that can be explained.
pub(super) struct Topic {
    code: &'static str,
    name: &'static str,
    text: String,
}

fn topics() -> Vec<Topic> {
    let codes = dockerfile::codes::ALL.iter().chain(pipeline::codes::ALL).chain(compose::codes::ALL);
    let codes = codes.map(|&(code, name, text)| Topic { code, name, text: text.to_owned() });
    let rules = dockerfile::lint::RULES.iter().map(|rule| Topic {
        code: rule.code,
        name: rule.name,
        text: format!("{}.\n{}", rule.title, rule.docs),
    });
    let mut topics: Vec<Topic> = codes.chain(rules).collect();
    topics.sort_by_key(|topic| topic.code);
    topics
}

/// The topics of a code or name, whatever its letter case.
pub(super) fn find(wanted: &str) -> Vec<Topic> {
    let mut topics = topics();
    topics.retain(|topic| topic.code.eq_ignore_ascii_case(wanted) || topic.name.eq_ignore_ascii_case(wanted));
    topics
}

/// A code or name that was perhaps meant.
pub(super) fn nearest(wanted: &str) -> Option<&'static str> {
    dockerfile::nearest(wanted, topics().iter().flat_map(|topic| [topic.code, topic.name]))
}

/// Something wrong and the same put right, for a code that has an example.
pub(crate) fn example(code: &str) -> Option<(&'static str, &'static str)> {
    dockerfile::codes::examples::of(code)
        .or_else(|| pipeline::codes::example(code))
        .or_else(|| compose::codes::example(code))
}

/// Codes and what they say.
pub(super) fn list() -> String {
    let row = |topic: &Topic| vec![topic.code.to_owned(), topic.name.to_owned()];
    table::render(&["CODE", "SAYS"], &topics().iter().map(row).collect::<Vec<_>>())
}

/// Every text.
pub(super) fn all() -> String {
    texts(&topics())
}

/// The whole texts.
pub(super) fn texts(topics: &[Topic]) -> String {
    let text = |topic: &Topic| {
        let example = example(topic.code);
        let example = example.map(|(wrong, right)| format!("\nwrong:\n{}right:\n{}", indented(wrong), indented(right)));
        format!("{}: {}\n\n{}\n{}", topic.code, topic.name, wrapped(&topic.text), example.unwrap_or_default())
    };
    topics.iter().map(text).collect::<Vec<_>>().join("\n")
}

fn wrapped(long: &str) -> String {
    let lines = long.trim_end().lines().flat_map(|line| text::wrap(line, COLUMNS, usize::MAX));
    lines.collect::<Vec<_>>().join("\n")
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}
