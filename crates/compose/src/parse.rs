//! A merged tree to values. Each map has its [`Keys`] beside its reader.

pub(crate) mod build;
pub(crate) mod health;
pub(crate) mod mounts;
pub(crate) mod networks;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod resources;
pub(crate) mod service;
pub(crate) mod top;
pub(crate) mod watch;

use std::{
    cell::Cell,
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use dockerfile::{Diagnostic, Span};
use events::Place;
use oci::Reference;

use crate::{
    At, bytes, codes,
    merge::pairs,
    read::{Fields, Keys, Reader, shorten},
    source::Sources,
    words,
    yaml::{Kind, Node},
};

/// What readers need beside the tree.
pub(crate) struct Cx<'s> {
    pub(crate) reader: Reader,
    pub(crate) sources: &'s Sources,
    /// Files of the host outside of it are refused.
    pub(crate) confine: Option<&'s Path>,
    /// What `~` means.
    pub(crate) home: Option<&'s Path>,
    /// Whether Seatrial's own keys are known: in the pipeline file.
    pub(crate) own_keys: bool,
    /// Ports that ranges have been expanded to.
    pub(crate) expanded: Cell<usize>,
}

impl Cx<'_> {
    pub(crate) fn error(&mut self, code: &'static str, message: impl Into<String>, span: &Span) -> &mut Diagnostic {
        self.reader.error(code, message, span)
    }

    pub(crate) fn invalid(&mut self, message: impl Into<String>, node: &Node) -> &mut Diagnostic {
        self.reader.error(codes::INVALID_VALUE, message, &node.span)
    }

    /// What is read and does nothing is said, so that nobody relies on it.
    pub(crate) fn no_effect(&mut self, message: impl Into<String>, span: &Span) {
        self.reader.diagnostics.push(Diagnostic::warning(codes::NO_EFFECT, message).with_span(span.clone()));
    }

    pub(crate) fn place(&self, span: &Span) -> Option<Place> {
        Some(self.sources.place(span))
    }

    pub(crate) fn fields<'n>(&mut self, node: &'n Node, keys: &Keys, expected: &str) -> Option<Fields<'n>> {
        self.reader.fields(node, keys, expected)
    }

    /// A text; numbers and booleans count as written.
    pub(crate) fn text(&mut self, node: &Node) -> Option<String> {
        self.reader.text(node).map(|text| text.value)
    }

    pub(crate) fn text_of(&mut self, fields: &Fields<'_>, key: &str) -> Option<String> {
        fields.get(key).and_then(|node| self.text(node))
    }

    /// A text that is not empty; an empty one (of an unset variable) counts as absent.
    pub(crate) fn name_of(&mut self, fields: &Fields<'_>, key: &str) -> Option<String> {
        self.text_of(fields, key).filter(|text| !text.is_empty())
    }

    /// A text or a list of texts, none twice.
    pub(crate) fn texts_of(&mut self, fields: &Fields<'_>, key: &str) -> Vec<At<String>> {
        let mut texts: Vec<At<String>> = Vec::new();
        for text in fields.get(key).map(|node| self.reader.texts(node)).unwrap_or_default() {
            if !texts.iter().any(|own| own.value == text.value) {
                texts.push(text);
            }
        }
        texts
    }

    pub(crate) fn values_of(&mut self, fields: &Fields<'_>, key: &str) -> Vec<String> {
        self.texts_of(fields, key).into_iter().map(|text| text.value).collect()
    }

    /// The items of a list.
    pub(crate) fn items<'n>(&mut self, node: &'n Node, expected: &str) -> &'n [Arc<Node>] {
        match &node.kind {
            Kind::List(items) => items,
            _ => {
                self.reader.wrong_type(node, expected);
                &[]
            }
        }
    }

    pub(crate) fn items_of<'n>(&mut self, fields: &Fields<'n>, key: &str, expected: &str) -> &'n [Arc<Node>] {
        fields.get(key).map(|node| self.items(node, expected)).unwrap_or_default()
    }

    /// A boolean, also as a text, as docker compose takes those that come from variables.
    pub(crate) fn flag(&mut self, node: &Node) -> Option<bool> {
        match node.scalar().map(str::to_ascii_lowercase).as_deref() {
            Some("true" | "yes" | "y" | "on") => Some(true),
            Some("false" | "no" | "n" | "off") => Some(false),
            _ => {
                self.reader.wrong_type(node, "`true` or `false`");
                None
            }
        }
    }

    pub(crate) fn flag_of(&mut self, fields: &Fields<'_>, key: &str) -> bool {
        fields.get(key).and_then(|node| self.flag(node)).unwrap_or(false)
    }

    /// A whole number within bounds, also as a text.
    pub(crate) fn whole(&mut self, node: &Node, low: u64, high: u64) -> Option<u64> {
        match node.scalar().and_then(|text| text.trim().parse::<u64>().ok()) {
            Some(value) if (low..=high).contains(&value) => Some(value),
            Some(value) => {
                self.invalid(format!("{value} is not between {low} and {high}"), node);
                None
            }
            None => {
                self.reader.wrong_type(node, &format!("a whole number from {low} to {high}"));
                None
            }
        }
    }

    pub(crate) fn whole_of(&mut self, fields: &Fields<'_>, key: &str, low: u64, high: u64) -> Option<u64> {
        fields.get(key).and_then(|node| self.whole(node, low, high))
    }

    pub(crate) fn count_of(&mut self, fields: &Fields<'_>, key: &str, high: u32) -> Option<u32> {
        self.whole_of(fields, key, 0, u64::from(high)).and_then(|count| u32::try_from(count).ok())
    }

    pub(crate) fn duration_of(&mut self, fields: &Fields<'_>, key: &str) -> Option<Duration> {
        fields.get(key).and_then(|node| self.reader.duration(node))
    }

    /// A size as docker writes it, in bytes.
    pub(crate) fn size(&mut self, node: &Node) -> Option<u64> {
        let text = self.text(node)?;
        let size = bytes::parse(&text);
        if size.is_none() {
            let message = format!("`{}` is not a size", shorten(&text));
            self.invalid(message, node).label = Some("write it like `64m` or `1.5g`".into());
        }
        size
    }

    pub(crate) fn size_of(&mut self, fields: &Fields<'_>, key: &str) -> Option<u64> {
        fields.get(key).and_then(|node| self.size(node))
    }

    /// Permission bits: YAML's `0440` and `0o440`, and the same in quotes.
    pub(crate) fn mode(&mut self, node: &Node) -> Option<u32> {
        let text = self.text(node)?;
        let digits = text.strip_prefix("0o").unwrap_or(&text);
        match u32::from_str_radix(digits, 8) {
            Ok(mode) if mode <= 0o7777 => Some(mode),
            _ => {
                self.invalid(format!("`{}` is no file mode", shorten(&text)), node).label =
                    Some("write it in octal, like `0440`".into());
                None
            }
        }
    }

    /// An image name.
    pub(crate) fn reference(&mut self, node: &Node) -> Option<Reference> {
        let text = self.text(node)?;
        match text.parse::<Reference>() {
            Ok(reference) => Some(reference),
            Err(error) => {
                self.invalid(error.to_string(), node);
                None
            }
        }
    }

    /// One of some words.
    pub(crate) fn word<T: Copy>(&mut self, node: &Node, what: &str, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(node)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        let near = dockerfile::nearest(&text, words.iter().map(|(word, _)| *word));
        let message = format!("`{}` is not {what}; there are {}", shorten(&text), known.join(", "));
        self.invalid(message, node).label = near.map(|near| format!("did you mean `{near}`?"));
        None
    }

    /// `NAME=value` lists and maps; a name without a value has the environment's, or is left out if that has none.
    pub(crate) fn environment(&mut self, node: &Arc<Node>) -> BTreeMap<String, String> {
        let mut map = BTreeMap::new();
        for (name, value) in self.reader.pairs(&pairs(node)) {
            match value {
                Some(value) => map.insert(name.value, value.value),
                None => match self.sources.of(&name.span).variables.look_up(&name.value) {
                    Ok(value) => map.insert(name.value, value),
                    Err(_) => map.remove(&name.value),
                },
            };
        }
        map
    }

    pub(crate) fn environment_of(&mut self, fields: &Fields<'_>, key: &str) -> BTreeMap<String, String> {
        fields.get(key).map(|node| self.environment(node)).unwrap_or_default()
    }

    /// As `environment`, but a name without a value has an empty one: labels.
    pub(crate) fn labels_of(&mut self, fields: &Fields<'_>, key: &str) -> BTreeMap<String, String> {
        let Some(node) = fields.get(key) else { return BTreeMap::new() };
        let labels = self.reader.pairs(&pairs(node));
        labels.into_iter().map(|(name, value)| (name.value, value.map(|v| v.value).unwrap_or_default())).collect()
    }

    /// A command: a list is program and arguments, a text is split as docker compose does. Empty: no command.
    pub(crate) fn command(&mut self, node: &Node) -> Option<Vec<String>> {
        if let Kind::List(items) = &node.kind {
            return Some(items.iter().filter_map(|item| self.text(item)).collect());
        }
        if matches!(node.kind, Kind::Map(_)) {
            self.reader.wrong_type(node, "a command: a text or a list");
            return None;
        }
        let text = self.text(node)?;
        match words::split(&text) {
            Ok(words) => {
                if let Some(operator) = words.cut_at {
                    let message = format!("the command ends before `{operator}`: no shell reads it");
                    self.reader.diagnostics.push(
                        Diagnostic::warning(codes::CUT_COMMAND, message)
                            .with_span(node.span.clone())
                            .with_help("write it as a list that starts a shell: `[sh, -c, \"…\"]`"),
                    );
                }
                Some(words.words)
            }
            Err(reason) => {
                self.invalid(reason, node);
                None
            }
        }
    }

    /// A path in a container.
    pub(crate) fn path_inside(&mut self, node: &Node) -> Option<String> {
        let text = self.text(node)?;
        if !text.starts_with('/') {
            let message = format!("`{}` is not an absolute path", shorten(&text));
            self.invalid(message, node).label =
                Some(format!("did you mean `/{}`?", shorten(text.trim_start_matches("./"))));
            return None;
        }
        Some(text)
    }

    /// A path of the host, absolute: relative ones start at the directory of the file that names them.
    pub(crate) fn host_path(&mut self, text: &str, span: &Span) -> Option<PathBuf> {
        let base = &self.sources.of(span).base;
        let path = match (text.strip_prefix('~'), self.home) {
            (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
                home.join(rest.trim_start_matches('/'))
            }
            _ => base.join(text),
        };
        let path = normalize(&path);
        match self.confine {
            Some(root) if !is_within(&path, root) => {
                let message = format!("`{}` is outside of the repository", shorten(text));
                self.error(codes::LEAVES_REPOSITORY, message, span);
                None
            }
            _ => Some(path),
        }
    }
}

/// The path without `.` and `..`, as Go's `filepath.Clean` does it: without asking the file system.
pub(crate) fn normalize(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

/// Whether a path is below a directory, also through links of the part that exists.
pub(crate) fn is_within(path: &Path, root: &Path) -> bool {
    let existing = path.ancestors().find_map(|ancestor| ancestor.canonicalize().ok());
    path.starts_with(root) && existing.is_none_or(|existing| existing.starts_with(root))
}
