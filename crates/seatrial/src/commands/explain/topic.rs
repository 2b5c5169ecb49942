//! Codes and rules with their texts.

use crate::terminal::table;

/// One thing that can be explained.
#[derive(Clone, Copy)]
pub(super) struct Topic {
    code: &'static str,
    name: &'static str,
    text: &'static str,
}

fn topics() -> Vec<Topic> {
    let codes = dockerfile::codes::ALL.iter().chain(pipeline::codes::ALL);
    let codes = codes.map(|&(code, name, text)| Topic { code, name, text });
    let rules = dockerfile::lint::RULES.iter().map(|rule| Topic { code: rule.code, name: rule.name, text: rule.docs });
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
    let text = |topic: &Topic| format!("{}: {}\n\n{}\n", topic.code, topic.name, topic.text.trim_end());
    topics.iter().map(text).collect::<Vec<_>>().join("\n")
}
