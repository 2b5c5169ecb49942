//! YAML text to a tree with a place on every node: anchors expanded, merge keys merged, everything bounded.
//!
//! A tree of our own rather than serde, because a key may be a text, a list or a map, several mistakes should be told at
//! once, and `1.10` has to stay `1.10`.

use std::{collections::HashMap, sync::Arc};

use dockerfile::{Diagnostic, Span};
use granit_parser::{Event, Options, Parser, ScalarStyle};

use crate::codes;

/// Nobody writes a longer pipeline by hand; hostile ones stop here before they cost anything.
const FILE_BYTES_MAX: usize = 1 << 20;
/// Values after anchors are expanded: a thousand gates fit, a billion laughs do not.
const NODES_MAX: usize = 20_000;
/// The file's own words need six levels.
const DEPTH_MAX: usize = 64;

/// A value with its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// Within one line, so that carets fit.
    pub span: Span,
    /// The value.
    pub kind: Kind,
    /// Nodes in it, itself included, with aliases expanded.
    size: usize,
    /// How it is merged over another file's value.
    pub tag: Tag,
}

/// Tags of Compose files that say how a value is merged (compose-spec, "Merge and override").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tag {
    /// None: by the rules of its key.
    #[default]
    None,
    /// `!reset`: the former value goes, and so does this one.
    Reset,
    /// `!override`: the former value goes.
    Override,
}

/// A value.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A plain scalar that means null in YAML's core schema.
    Null,
    /// Any other scalar; `plain` ones may be numbers and booleans.
    Scalar {
        /// Without quotes, escapes replaced.
        text: String,
        /// Written without quotes.
        plain: bool,
    },
    /// A sequence.
    List(Vec<Arc<Node>>),
    /// A mapping, in the order of the file; no key twice.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub key_span: Span,
    /// The value.
    pub value: Arc<Node>,
}

impl Node {
    /// A value that no file has in this form.
    pub fn new(kind: Kind, span: Span) -> Node {
        let size = 1 + match &kind {
            Kind::Null | Kind::Scalar { .. } => 0,
            Kind::List(items) => items.iter().map(|item| item.size).sum(),
            Kind::Map(entries) => entries.iter().map(|entry| 1 + entry.value.size).sum::<usize>(),
        };
        Node { span, kind, size, tag: Tag::None }
    }

    /// The same value with this tag.
    #[must_use]
    pub fn with_tag(self, tag: Tag) -> Node {
        Node { tag, ..self }
    }

    /// A text, as if in quotes.
    pub fn text(text: impl Into<String>, span: Span) -> Node {
        Node::new(Kind::Scalar { text: text.into(), plain: false }, span)
    }

    /// A list with this one item, for keys that take one or several.
    pub fn list_of(node: &Node) -> Node {
        Node::new(Kind::List(vec![Arc::new(node.clone())]), node.span.clone())
    }

    /// The value of a key, if this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Arc<Node>> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value),
            _ => None,
        }
    }

    /// The text of a scalar, as written.
    pub fn scalar(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Nodes in it, itself included.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether two values are the same, wherever they stand.
    pub fn equals(&self, other: &Node) -> bool {
        match (&self.kind, &other.kind) {
            (Kind::Null, Kind::Null) => true,
            (Kind::Scalar { text: a, .. }, Kind::Scalar { text: b, .. }) => a == b,
            (Kind::List(a), Kind::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.equals(b)),
            (Kind::Map(a), Kind::Map(b)) => {
                a.len() == b.len() && a.iter().all(|entry| other.get(&entry.key).is_some_and(|b| entry.value.equals(b)))
            }
            _ => false,
        }
    }

    /// For messages.
    pub fn describe(&self) -> &'static str {
        match &self.kind {
            Kind::Null => "nothing",
            Kind::Scalar { text, plain: true } if is_bool(text) => "a boolean",
            Kind::Scalar { text, plain: true } if text.parse::<f64>().is_ok() => "a number",
            Kind::Scalar { .. } => "a text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }
}

/// Whether a plain scalar is a boolean of YAML 1.2's core schema.
pub fn is_bool(text: &str) -> bool {
    matches!(text, "true" | "True" | "TRUE" | "false" | "False" | "FALSE")
}

/// How a text is parsed.
#[derive(Clone, Copy, Debug, Default)]
pub struct ParseOptions {
    /// Added to all places, so that several files can share one range of places.
    pub start: usize,
    /// Whether `!reset` and `!override` mean something.
    pub merge_tags: bool,
}

/// The one document of the text; `None` when it is empty. Duplicate keys are reported and the first one is kept.
pub fn parse(text: &str, options: ParseOptions, diagnostics: &mut Vec<Diagnostic>) -> Option<Arc<Node>> {
    let ParseOptions { start, merge_tags } = options;
    if text.len() > FILE_BYTES_MAX {
        let message = format!("the file is larger than {FILE_BYTES_MAX} bytes");
        diagnostics.push(Diagnostic::error(codes::TOO_LARGE, message).with_span(start..start));
        return None;
    }
    let mut options = Options::default();
    options.emit_comments = false;
    let parser = Parser::new_from_str_with_options(text, options);
    let mut loader = Loader { text, start, merge_tags, parser, anchors: HashMap::new(), nodes: 0, diagnostics };
    match loader.document() {
        Ok(node) => node,
        Err(diagnostic) => {
            diagnostics.push(*diagnostic);
            None
        }
    }
}

struct Loader<'t, 'd> {
    text: &'t str,
    start: usize,
    merge_tags: bool,
    parser: Parser<'t, granit_parser::StrInput<'t>>,
    anchors: HashMap<usize, Arc<Node>>,
    nodes: usize,
    diagnostics: &'d mut Vec<Diagnostic>,
}

type Stop = Box<Diagnostic>;

impl<'t> Loader<'t, '_> {
    fn document(&mut self) -> Result<Option<Arc<Node>>, Stop> {
        let mut root = None;
        let mut documents = 0;
        while let Some((event, span)) = self.next()? {
            match event {
                Event::DocumentStart(..) => {
                    documents += 1;
                    if documents > 1 {
                        let message = "the file has a second document";
                        return Err(Box::new(Diagnostic::error(codes::NOT_YAML, message).with_span(span)));
                    }
                }
                Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..) | Event::Alias(_) => {
                    root = Some(self.node(event, span, 0)?);
                }
                _ => {}
            }
        }
        Ok(root.filter(|node: &Arc<Node>| !matches!(node.kind, Kind::Null)))
    }

    fn next(&mut self) -> Result<Option<(Event<'t>, Span)>, Stop> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok((event, span))) => {
                let start = span.start.byte_offset().unwrap_or(0);
                let end = span.end.byte_offset().unwrap_or(start);
                Ok(Some((event, self.clip(start, end))))
            }
            Some(Err(error)) => {
                let start = error.marker().byte_offset().unwrap_or(0);
                let message = error.info();
                let message = if message.is_empty() { "not valid YAML" } else { &message };
                Err(Box::new(
                    Diagnostic::error(codes::NOT_YAML, message.to_lowercase()).with_span(self.clip(start, start + 1)),
                ))
            }
        }
    }

    /// The place of a range of the text, cut to its first line and without blanks at its end.
    fn clip(&self, start: usize, end: usize) -> Span {
        let mut start = start.min(self.text.len());
        while !self.text.is_char_boundary(start) {
            start -= 1;
        }
        let mut end = end.clamp(start, self.text.len());
        while !self.text.is_char_boundary(end) {
            end += 1;
        }
        let line = self.text[start..end].split(['\n', '\r']).next().unwrap_or_default().trim_end();
        let length = match line.len() {
            0 => self.text[start..].chars().next().filter(|c| !c.is_whitespace()).map_or(0, char::len_utf8),
            length => length,
        };
        self.start + start..self.start + start + length
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Arc<Node>, Stop> {
        if depth > DEPTH_MAX {
            let message = format!("more than {DEPTH_MAX} levels");
            return Err(Box::new(Diagnostic::error(codes::TOO_LARGE, message).with_span(span)));
        }
        self.count(1, &span)?;
        let mut span = span;
        let (kind, anchor, tag, size) = match event {
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id).cloned() else {
                    let message = "the alias stands inside its own anchor, or names none";
                    return Err(Box::new(Diagnostic::error(codes::NOT_YAML, message).with_span(span)));
                };
                self.count(node.size, &span)?;
                return Ok(node);
            }
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = tag.as_ref().is_some_and(|tag| tag.core_suffix() == Some("str"));
                let plain = style == ScalarStyle::Plain && !is_text;
                let kind = match &*text {
                    "" | "~" | "null" | "Null" | "NULL" if plain => Kind::Null,
                    _ => Kind::Scalar { text: text.into_owned(), plain },
                };
                (kind, anchor, tag, 1)
            }
            Event::SequenceStart(_, anchor, tag) => {
                let (mut items, mut size) = (Vec::new(), 1);
                loop {
                    let (event, item_span) = self.inner()?;
                    if matches!(event, Event::SequenceEnd) {
                        span = self.clip(span.start - self.start, item_span.end - self.start);
                        break;
                    }
                    let item = self.node(event, item_span, depth + 1)?;
                    size += item.size;
                    items.push(item);
                }
                (Kind::List(items), anchor, tag, size)
            }
            Event::MappingStart(_, anchor, tag) => {
                let (entries, size, end) = self.entries(depth)?;
                span = self.clip(span.start - self.start, end - self.start);
                (Kind::Map(entries), anchor, tag, size)
            }
            _ => {
                let message = "a value was expected here";
                return Err(Box::new(Diagnostic::error(codes::NOT_YAML, message).with_span(span)));
            }
        };
        let tag = match tag {
            Some(tag) if tag.core_suffix().is_some() => Tag::None,
            Some(tag) => match &*tag.original() {
                "!reset" if self.merge_tags => Tag::Reset,
                "!override" if self.merge_tags => Tag::Override,
                other => {
                    let message = format!("the tag `{other}` means nothing here");
                    return Err(Box::new(Diagnostic::error(codes::NOT_YAML, message).with_span(span)));
                }
            },
            None => Tag::None,
        };
        let node = Arc::new(Node { span, kind, size, tag });
        if anchor != 0 {
            self.anchors.insert(anchor, Arc::clone(&node));
        }
        Ok(node)
    }

    /// The entries, their size, and the byte at which the map ends.
    fn entries(&mut self, depth: usize) -> Result<(Vec<Entry>, usize, usize), Stop> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut merges: Vec<Arc<Node>> = Vec::new();
        let mut seen: HashMap<String, Span> = HashMap::new();
        let mut size = 1;
        let end = loop {
            let (event, key_span) = self.inner()?;
            if matches!(event, Event::MappingEnd) {
                break key_span.end;
            }
            let key_node = self.node(event, key_span.clone(), depth + 1)?;
            let (event, span) = self.inner()?;
            let value = self.node(event, span, depth + 1)?;
            size += key_node.size + value.size;
            let key = match &key_node.kind {
                Kind::Scalar { text, .. } => text.clone(),
                Kind::Null => "null".into(),
                Kind::List(_) | Kind::Map(_) => {
                    self.diagnostics.push(
                        Diagnostic::error(codes::WRONG_TYPE, "a key has to be a text").with_span(key_node.span.clone()),
                    );
                    continue;
                }
            };
            if key == "<<" && matches!(key_node.kind, Kind::Scalar { plain: true, .. }) {
                merges.push(value);
                continue;
            }
            if let Some(first) = seen.get(&key) {
                let (line, _) = dockerfile::line_column(self.text, first.start - self.start);
                self.diagnostics.push(
                    Diagnostic::error(codes::DUPLICATE_KEY, format!("`{key}` is given twice"))
                        .with_span(key_span)
                        .with_label(format!("first given in line {line}")),
                );
                continue;
            }
            seen.insert(key.clone(), key_span.clone());
            entries.push(Entry { key, key_span, value });
        };
        for merge in merges {
            size += self.merge(&merge, &mut entries)?;
        }
        Ok((entries, size, end))
    }

    /// Adds the entries of a map, or of a list of maps, that are not there yet (YAML's merge key).
    fn merge(&mut self, merge: &Arc<Node>, entries: &mut Vec<Entry>) -> Result<usize, Stop> {
        let maps = match &merge.kind {
            Kind::List(maps) => maps.as_slice(),
            _ => std::slice::from_ref(merge),
        };
        let mut added = 0;
        for map in maps {
            let Kind::Map(merged) = &map.kind else {
                self.diagnostics.push(
                    Diagnostic::error(codes::WRONG_TYPE, format!("`<<` merges maps, found {}", map.describe()))
                        .with_span(map.span.clone()),
                );
                continue;
            };
            for entry in merged {
                if !entries.iter().any(|own| own.key == entry.key) {
                    added += 1 + entry.value.size;
                    entries.push(entry.clone());
                }
            }
        }
        self.count(added, &merge.span)?;
        Ok(added)
    }

    fn inner(&mut self) -> Result<(Event<'t>, Span), Stop> {
        self.next()?.ok_or_else(|| {
            let end = self.start + self.text.len();
            Box::new(Diagnostic::error(codes::NOT_YAML, "the file ends too early").with_span(end..end))
        })
    }

    fn count(&mut self, nodes: usize, span: &Span) -> Result<(), Stop> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > NODES_MAX {
            let message = format!("more than {NODES_MAX} values once anchors are expanded");
            return Err(Box::new(Diagnostic::error(codes::TOO_LARGE, message).with_span(span.clone())));
        }
        Ok(())
    }
}
