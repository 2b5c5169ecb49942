//! `trust`: what images have to have before they are used, by keys that are trusted.

use super::{
    TrustRule,
    read::{Keys, Reader, shorten},
    yaml::{Entry, Kind, Node},
};
use crate::codes;

pub(super) const TRUST: Keys = Keys {
    what: "`trust`",
    known: &["keys", "pull"],
    later: &["deploy"],
    foreign: &[("key", "keys"), ("require", "pull"), ("verify", "pull")],
};

/// One rule for the file's own images, or rules by the beginnings of names.
pub(super) fn trust(reader: &mut Reader, node: &Node) -> Vec<TrustRule> {
    let Kind::Map(entries) = &node.kind else {
        reader.wrong_type(node, "a map with `keys` and `pull`, or one of such maps by the beginnings of images' names");
        return Vec::new();
    };
    let (named, own): (Vec<&Entry>, Vec<&Entry>) = entries.iter().partition(|entry| is_prefix(&entry.key));
    let mut rules = Vec::new();
    if !own.iter().all(|entry| entry.key.starts_with("x-")) {
        let mut rule_of_own = node.clone();
        rule_of_own.kind = Kind::Map(own.into_iter().cloned().collect());
        rules.extend(rule(reader, &rule_of_own, None));
    }
    for entry in named {
        let prefix = super::At::new(entry.key.clone(), entry.key_span.clone());
        rules.extend(rule(reader, &entry.value, Some(prefix)));
    }
    rules
}

/// Names begin with a host.
fn is_prefix(key: &str) -> bool {
    key.contains(['.', ':', '/']) || key == "localhost"
}

fn rule(reader: &mut Reader, node: &Node, prefix: Option<super::At<String>>) -> Option<TrustRule> {
    let fields = reader.fields(node, &TRUST, "a map with `keys` and `pull`")?;
    let texts = |reader: &mut Reader, key: &str| fields.get(key).map(|node| reader.texts(node)).unwrap_or_default();
    let rule = TrustRule { span: node.span.clone(), prefix, keys: texts(reader, "keys"), pull: texts(reader, "pull") };
    if rule.keys.is_empty() {
        reader.error(codes::MISSING_KEY, "`trust` needs `keys`: files with public keys", &node.span);
    }
    for wanted in &rule.pull {
        if let Err(error) = wanted.value.parse::<evidence::Requirement>() {
            let near = dockerfile::nearest(&wanted.value, evidence::Requirement::NAMES);
            let diagnostic = reader.error(codes::INVALID_VALUE, shorten(&error).to_owned(), &wanted.span);
            diagnostic.label = near.map(|near| format!("did you mean `{near}`?"));
        }
    }
    Some(rule)
}
