//! Reading a tree: expectations, and what is said when they are not met.

use std::{sync::Arc, time::Duration};

use dockerfile::{Diagnostic, Span, nearest};

use crate::{
    codes, duration,
    yaml::{Entry, Kind, Node, is_bool},
};

/// A value with its place: a byte range in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub span: Span,
}

impl<T> At<T> {
    /// A value that stands at `span`.
    pub fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }
}

/// The keys of one kind of map.
pub struct Keys {
    /// For messages: `` `test` ``, `a gate`.
    pub what: &'static str,
    /// Those we act on.
    pub known: &'static [&'static str],
    /// Those that belong to the file and that this version does not act on.
    pub later: &'static [&'static str],
    /// Words of other tools, with ours.
    pub foreign: &'static [(&'static str, &'static str)],
}

/// Keys of the top level that several maps share.
pub struct TopLevel {
    /// The keys.
    pub keys: &'static [&'static str],
    /// Who shares them: `images`.
    pub by: &'static str,
}

/// Two lists of keys as one; `N` is the sum of their lengths.
pub const fn both<T: Copy, const N: usize>(first: &[T], second: &[T]) -> [T; N] {
    assert!(first.len() + second.len() == N, "the sum of their lengths");
    let mut all = [first[0]; N];
    let mut at = 0;
    while at < N {
        all[at] = if at < first.len() { first[at] } else { second[at - first.len()] };
        at += 1;
    }
    all
}

/// Collects what is wrong.
#[derive(Default)]
pub struct Reader {
    /// In the order in which it was found.
    pub diagnostics: Vec<Diagnostic>,
    /// [`Keys::later`] are warned of rather than refused: what Compose knows and Seatrial does not act on.
    pub later_is_warning: bool,
}

/// A map whose keys have been checked.
pub struct Fields<'n> {
    entries: &'n [Entry],
}

impl<'n> Fields<'n> {
    /// The value of a key with the key's own place.
    pub fn entry(&self, key: &str) -> Option<(&'n Span, &'n Arc<Node>)> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        (!matches!(entry.value.kind, Kind::Null)).then_some((&entry.key_span, &entry.value))
    }

    /// The value of a key; null counts as absent.
    pub fn get(&self, key: &str) -> Option<&'n Arc<Node>> {
        self.get_or_null(key).filter(|node| !matches!(node.kind, Kind::Null))
    }

    fn get_or_null(&self, key: &str) -> Option<&'n Arc<Node>> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }
}

impl Reader {
    /// Notes an error; what is given back can be told more.
    pub fn error(&mut self, code: &'static str, message: impl Into<String>, span: &Span) -> &mut Diagnostic {
        self.diagnostics.push(Diagnostic::error(code, message).with_span(span.clone()));
        let last = self.diagnostics.len() - 1;
        &mut self.diagnostics[last]
    }

    /// Notes that a value has another type than expected.
    pub fn wrong_type(&mut self, node: &Node, expected: &str) {
        self.error(codes::WRONG_TYPE, format!("expected {expected}, found {}", node.describe()), &node.span);
    }

    /// A map with these keys; unknown ones are reported.
    pub fn fields<'n>(&mut self, node: &'n Node, keys: &Keys, expected: &str) -> Option<Fields<'n>> {
        self.fields_of_one(node, keys, None, expected)
    }

    /// As [`Reader::fields`], for one of several maps, which share what the top level says: its keys are no slips here.
    pub fn fields_of_one<'n>(
        &mut self,
        node: &'n Node,
        keys: &Keys,
        shared: Option<&TopLevel>,
        expected: &str,
    ) -> Option<Fields<'n>> {
        let Kind::Map(entries) = &node.kind else {
            self.wrong_type(node, expected);
            return None;
        };
        for entry in entries {
            let key = entry.key.as_str();
            if keys.known.contains(&key) || key.starts_with("x-") {
                continue;
            }
            if keys.later.contains(&key) && self.later_is_warning {
                self.no_effect(key, keys.what, &entry.key_span);
                continue;
            }
            if keys.later.contains(&key) {
                self.error(codes::NOT_YET, format!("`{key}` is not supported yet"), &entry.key_span).help =
                    Some(format!("remove `{key}`, or keep it for later as `x-{key}`"));
                continue;
            }
            let top_level = shared.filter(|shared| shared.keys.contains(&key));
            let ours = keys.foreign.iter().find(|(foreign, _)| *foreign == key).map(|(_, ours)| *ours);
            let near = ours.or_else(|| nearest(key, keys.known.iter().copied()));
            let message = format!("{} has no key `{}`", keys.what, shorten(key));
            let diagnostic = self.error(codes::UNKNOWN_KEY, message, &entry.key_span);
            match (top_level, near) {
                (Some(shared), _) => {
                    diagnostic.help = Some(format!("all {} share `{key}`: write it at the top level", shared.by));
                }
                (None, Some(near)) => diagnostic.label = Some(format!("did you mean `{near}`?")),
                (None, None) => diagnostic.notes.push(format!("keys of {}: {}", keys.what, keys.known.join(", "))),
            }
        }
        Some(Fields { entries })
    }

    /// Warns of a key that belongs to `what` and that Seatrial does not act on.
    pub fn no_effect(&mut self, key: &str, what: &str, span: &Span) {
        let warning = Diagnostic::warning(codes::NO_EFFECT, format!("`{key}` has no effect here"));
        let note = format!("it belongs to {what}, and Seatrial does not act on it");
        self.diagnostics.push(warning.with_span(span.clone()).with_note(note));
    }

    /// Name and value of every entry except `x-`.
    pub fn entries<'n>(&mut self, node: &'n Node, expected: &str) -> Vec<(At<String>, &'n Arc<Node>)> {
        let Kind::Map(entries) = &node.kind else {
            self.wrong_type(node, expected);
            return Vec::new();
        };
        entries
            .iter()
            .filter(|entry| !entry.key.starts_with("x-"))
            .map(|entry| (At::new(entry.key.clone(), entry.key_span.clone()), &entry.value))
            .collect()
    }

    /// A text; numbers and booleans count as written.
    pub fn text(&mut self, node: &Node) -> Option<At<String>> {
        match &node.kind {
            Kind::Scalar { text, .. } => {
                if let Some(bad) = text.chars().find(|c| *c == '\0') {
                    self.error(codes::INVALID_VALUE, format!("the text has the character {bad:?}"), &node.span);
                    return None;
                }
                Some(At::new(text.clone(), node.span.clone()))
            }
            _ => {
                self.wrong_type(node, "a text");
                None
            }
        }
    }

    /// A text, or a list of texts.
    pub fn texts(&mut self, node: &Node) -> Vec<At<String>> {
        match &node.kind {
            Kind::List(items) => items.iter().filter_map(|item| self.text(item)).collect(),
            Kind::Scalar { .. } => self.text(node).into_iter().collect(),
            _ => {
                self.wrong_type(node, "a text or a list of texts");
                Vec::new()
            }
        }
    }

    /// A map of texts, or a list of `NAME=value`. No value means: from the environment.
    pub fn pairs(&mut self, node: &Node) -> Vec<(At<String>, Option<At<String>>)> {
        let pairs: Vec<(At<String>, Option<At<String>>)> = match &node.kind {
            Kind::List(items) => items
                .iter()
                .filter_map(|item| self.text(item))
                .map(|At { value, span }| match value.split_once('=') {
                    Some((name, value)) => (At::new(name.into(), span.clone()), Some(At::new(value.into(), span))),
                    None => (At::new(value, span), None),
                })
                .collect(),
            _ => self
                .entries(node, "a map, or a list of `NAME=value`")
                .into_iter()
                .map(|(name, node)| match node.kind {
                    Kind::Null => (name, None),
                    _ => (name, self.text(node)),
                })
                .collect(),
        };
        for (name, _) in &pairs {
            if name.value.is_empty() || name.value.contains('=') {
                self.error(codes::INVALID_VALUE, "a name may not be empty or contain `=`", &name.span);
            }
        }
        pairs
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, node: &Node) -> Option<bool> {
        match &node.kind {
            Kind::Scalar { text, plain: true } if is_bool(text) => Some(text.eq_ignore_ascii_case("true")),
            _ => {
                self.wrong_type(node, "`true` or `false`");
                None
            }
        }
    }

    /// A whole number within bounds.
    pub fn number(&mut self, node: &Node, low: u64, high: u64) -> Option<u64> {
        let value = match &node.kind {
            Kind::Scalar { text, plain: true } => text.parse::<u64>().ok(),
            _ => None,
        };
        match value {
            Some(value) if (low..=high).contains(&value) => Some(value),
            Some(value) => {
                self.error(codes::INVALID_VALUE, format!("{value} is not between {low} and {high}"), &node.span);
                None
            }
            None => {
                self.wrong_type(node, &format!("a whole number from {low} to {high}"));
                None
            }
        }
    }

    /// A duration with a unit.
    pub fn duration(&mut self, node: &Node) -> Option<Duration> {
        let text = self.text(node)?;
        match duration::parse(&text.value) {
            Ok(duration) => Some(duration),
            Err(error) => {
                let label = match &error {
                    duration::InvalidDuration::NoUnit(number) => format!("write `{number}s` for seconds"),
                    duration::InvalidDuration::NotADuration(_) => "write it like `2s`, `1m30s` or `500ms`".into(),
                };
                self.error(codes::INVALID_VALUE, error.to_string(), &node.span).label = Some(label);
                None
            }
        }
    }

    /// An amount of memory such as `512m` or `2g`, in bytes.
    pub fn memory(&mut self, node: &Node) -> Option<u64> {
        let text = self.text(node)?;
        let parsed = parse_memory(&text.value);
        if parsed.is_none() {
            let message = format!("`{}` is not an amount of memory", shorten(&text.value));
            self.error(codes::INVALID_VALUE, message, &node.span).label = Some("write it like `512m` or `2g`".into());
        }
        parsed
    }

    /// A size such as `300MB` (decimal) or `300MiB`, in bytes.
    pub fn size(&mut self, node: &Node) -> Option<u64> {
        let text = self.text(node)?;
        let parsed = parse_size(&text.value);
        if parsed.is_none() {
            let message = format!("`{}` is not a size", shorten(&text.value));
            self.error(codes::INVALID_VALUE, message, &node.span).label = Some("write it like `300MB`".into());
        }
        parsed
    }
}

/// Memory, which is counted in 1024s whatever the unit is called, as docker does (go-units, `RAMInBytes`).
pub fn parse_memory(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let number: f64 = lower[..end].parse().ok()?;
    let power = match lower[end..].trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return None,
    };
    let bytes = number * 1024_f64.powi(power);
    (bytes < 1e18).then_some(bytes as u64)
}

fn parse_size(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let scale = match text[end..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let bytes = number * scale;
    (bytes < 1e18).then_some(bytes as u64)
}

/// Foreign text in messages stays short.
pub fn shorten(text: &str) -> String {
    const SHOWN_MAX: usize = 80;
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
