//! Two trees to one, by the rules of their keys (compose-spec, "Merge and override"); also how `extends` joins services.

use std::sync::Arc;

use dockerfile::{Diagnostic, Span};

use crate::{
    codes,
    source::Sources,
    yaml::{Entry, Kind, Node, Tag},
};

/// Merges files and services, and notes what cannot be merged.
pub(crate) struct Merger<'s> {
    pub(crate) sources: &'s Sources,
    /// `!reset` and `!override` stay in the result, because it is merged over a further file.
    pub(crate) keep_tags: bool,
    pub(crate) diagnostics: &'s mut Vec<Diagnostic>,
}

/// How the values of a key are joined.
enum Rule {
    /// The later value alone.
    Replace,
    /// `NAME=value` lists and maps, by name.
    Pairs,
    /// Host names with addresses; a name may have several.
    Hosts,
    /// A list of names stands for a map with these keys.
    Names,
    /// A text stands for a list with it.
    Texts,
    /// A text stands for a map with this key.
    Short(&'static str),
    /// Options belong to their driver.
    Logging,
    /// Maps entry by entry, lists one after the other, anything else the later one.
    Plain,
}

fn rule(path: &[&str]) -> Rule {
    match path {
        ["services", _, inner @ ..] => match inner {
            ["command" | "entrypoint"] | ["healthcheck", "test"] => Rule::Replace,
            ["environment" | "labels" | "annotations" | "sysctls"]
            | ["build", "args" | "labels" | "additional_contexts" | "ssh"]
            | ["deploy", "labels"] => Rule::Pairs,
            ["extra_hosts"] | ["build", "extra_hosts"] => Rule::Hosts,
            ["depends_on" | "networks" | "models"] => Rule::Names,
            ["env_file" | "label_file" | "dns" | "dns_search" | "dns_opt" | "tmpfs" | "seed" | "verify"] => Rule::Texts,
            ["build"] => Rule::Short("context"),
            ["logging"] => Rule::Logging,
            _ => Rule::Plain,
        },
        ["networks" | "volumes" | "configs" | "secrets", _, "labels"] => Rule::Pairs,
        _ => Rule::Plain,
    }
}

impl Merger<'_> {
    /// `over` merged over `base`; `path` says where they stand.
    pub(crate) fn merge(&mut self, base: &Arc<Node>, over: &Arc<Node>, path: &mut Vec<String>) -> Arc<Node> {
        if base.tag != Tag::None {
            // A tag that was kept says something about a file that is not here yet.
            let merged = match base.tag {
                Tag::Reset => Node::clone(over),
                _ => Node::clone(&*self.merge(&untagged(base), over, path)),
            };
            return Arc::new(merged.with_tag(Tag::Override));
        }
        let keys: Vec<&str> = path.iter().map(String::as_str).collect();
        let (base, over) = match rule(&keys) {
            // `command:` with nothing is the image's again.
            Rule::Replace => return Arc::clone(over),
            _ if matches!(over.kind, Kind::Null) => return Arc::clone(base),
            Rule::Pairs => (pairs(base), pairs(over)),
            Rule::Hosts => (hosts(base), hosts(over)),
            Rule::Names => (names(base), names(over)),
            Rule::Texts => (texts(base), texts(over)),
            Rule::Short(key) => (long(base, key), long(over, key)),
            Rule::Logging if drivers_differ(base, over) => return Arc::clone(over),
            Rule::Logging | Rule::Plain => (Arc::clone(base), Arc::clone(over)),
        };
        match (&base.kind, &over.kind) {
            (Kind::Map(_), Kind::Map(entries)) => self.merge_entries(&base, entries, &over.span, path),
            (Kind::List(former), Kind::List(items)) => {
                let is_new = |item: &&Arc<Node>| item.scalar().is_none() || !former.iter().any(|own| own.equals(item));
                let items = former.iter().chain(items.iter().filter(is_new)).cloned().collect();
                Arc::new(Node::new(Kind::List(items), over.span.clone()))
            }
            (Kind::Map(_), Kind::List(_)) | (Kind::List(_), Kind::Map(_)) => {
                let message = format!("{} cannot be merged with {}", over.describe(), base.describe());
                self.diagnostics.push(
                    Diagnostic::error(codes::NOT_MERGED, message)
                        .with_span(over.span.clone())
                        .with_note(format!("the former value stands in {}", self.sources.describe(&base.span)))
                        .with_help("write both in the same form, or `!override` before this one"),
                );
                over
            }
            _ => over,
        }
    }

    fn merge_entries(&mut self, base: &Arc<Node>, over: &[Entry], span: &Span, path: &mut Vec<String>) -> Arc<Node> {
        let Kind::Map(former) = &base.kind else { return Arc::clone(base) };
        let mut entries = former.clone();
        for entry in over {
            let at = entries.iter().position(|own| own.key == entry.key);
            let value = match (entry.value.tag, at) {
                (Tag::Reset, Some(at)) if !self.keep_tags => {
                    entries.remove(at);
                    continue;
                }
                (Tag::None, Some(at)) if !entry.key.starts_with("x-") => {
                    path.push(entry.key.clone());
                    let value = self.merge(&entries[at].value, &entry.value, path);
                    path.pop();
                    value
                }
                _ => Arc::clone(&entry.value),
            };
            let entry = Entry { value, ..entry.clone() };
            match at {
                Some(at) => entries[at] = entry,
                None => entries.push(entry),
            }
        }
        Arc::new(Node::new(Kind::Map(entries), span.clone()))
    }
}

/// The tree without what `!reset` takes away, and without tags: for values that nothing is merged over any more.
pub(crate) fn settle(node: &Arc<Node>) -> Arc<Node> {
    if !has_tags(node) {
        return Arc::clone(node);
    }
    let kind = match &node.kind {
        Kind::List(items) => Kind::List(items.iter().filter(|item| item.tag != Tag::Reset).map(settle).collect()),
        Kind::Map(entries) => Kind::Map(
            entries
                .iter()
                .filter(|entry| entry.value.tag != Tag::Reset)
                .map(|entry| Entry { value: settle(&entry.value), ..entry.clone() })
                .collect(),
        ),
        other => other.clone(),
    };
    Arc::new(Node::new(kind, node.span.clone()))
}

fn has_tags(node: &Node) -> bool {
    node.tag != Tag::None
        || match &node.kind {
            Kind::List(items) => items.iter().any(|item| has_tags(item)),
            Kind::Map(entries) => entries.iter().any(|entry| has_tags(&entry.value)),
            _ => false,
        }
}

fn untagged(node: &Node) -> Arc<Node> {
    Arc::new(node.clone().with_tag(Tag::None))
}

/// A list of `NAME=value` as a map; of two values of a name the later one.
pub(crate) fn pairs(node: &Arc<Node>) -> Arc<Node> {
    let Kind::List(items) = &node.kind else { return Arc::clone(node) };
    let mut entries: Vec<Entry> = Vec::new();
    for item in items {
        let Some(text) = item.scalar() else { return Arc::clone(node) };
        let (key, kind) = match text.split_once('=') {
            Some((key, value)) => (key, Kind::Scalar { text: value.into(), plain: false }),
            None => (text, Kind::Null),
        };
        let value = Arc::new(Node::new(kind, item.span.clone()));
        let entry = Entry { key: key.into(), key_span: item.span.clone(), value };
        match entries.iter_mut().find(|own| own.key == key) {
            Some(own) => *own = entry,
            None => entries.push(entry),
        }
    }
    Arc::new(Node::new(Kind::Map(entries), node.span.clone()).with_tag(node.tag))
}

/// A map of host names as a list of `name=address`.
fn hosts(node: &Arc<Node>) -> Arc<Node> {
    let Kind::Map(entries) = &node.kind else { return Arc::clone(node) };
    let mut items = Vec::new();
    for entry in entries {
        let addresses = match &entry.value.kind {
            Kind::List(addresses) => addresses.as_slice(),
            _ => std::slice::from_ref(&entry.value),
        };
        for address in addresses {
            let Some(text) = address.scalar() else { return Arc::clone(node) };
            items.push(Arc::new(Node::text(format!("{}={text}", entry.key), address.span.clone())));
        }
    }
    Arc::new(Node::new(Kind::List(items), node.span.clone()))
}

/// A list of names as a map without values.
fn names(node: &Arc<Node>) -> Arc<Node> {
    let Kind::List(items) = &node.kind else { return Arc::clone(node) };
    let mut entries: Vec<Entry> = Vec::new();
    for item in items {
        let Some(text) = item.scalar() else { return Arc::clone(node) };
        if !entries.iter().any(|own| own.key == text) {
            let value = Arc::new(Node::new(Kind::Null, item.span.clone()));
            entries.push(Entry { key: text.into(), key_span: item.span.clone(), value });
        }
    }
    Arc::new(Node::new(Kind::Map(entries), node.span.clone()))
}

fn texts(node: &Arc<Node>) -> Arc<Node> {
    match &node.kind {
        Kind::Scalar { .. } => Arc::new(Node::list_of(node)),
        _ => Arc::clone(node),
    }
}

fn long(node: &Arc<Node>, key: &str) -> Arc<Node> {
    match &node.kind {
        Kind::Scalar { .. } => {
            let entry = Entry { key: key.into(), key_span: node.span.clone(), value: Arc::clone(node) };
            Arc::new(Node::new(Kind::Map(vec![entry]), node.span.clone()))
        }
        _ => Arc::clone(node),
    }
}

fn drivers_differ(base: &Node, over: &Node) -> bool {
    match (base.get("driver"), over.get("driver")) {
        (Some(a), Some(b)) => !a.equals(b),
        _ => false,
    }
}
