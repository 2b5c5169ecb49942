//! `publish.files`: what is published beside the image.

use std::sync::Arc;

use super::{
    PublishFiles,
    read::{Keys, Reader},
    sections::{required_text, text},
    yaml::{Kind, Node},
};

pub(super) const FILES: Keys = Keys {
    what: "an entry of `publish.files`",
    known: &["in", "run", "path", "to", "secret", "user"],
    later: &["environment", "when"],
    foreign: &[
        ("image", "in"),
        ("from", "in"),
        ("command", "run"),
        ("commands", "run"),
        ("script", "run"),
        ("paths", "path"),
        ("files", "path"),
        ("output", "path"),
        ("artifacts", "path"),
        ("registry", "to"),
        ("index", "to"),
        ("url", "to"),
        ("token", "secret"),
        ("password", "secret"),
        ("username", "user"),
    ],
};

/// One entry, or a list of them.
pub(super) fn files(reader: &mut Reader, node: &Node) -> Vec<PublishFiles> {
    let items = match &node.kind {
        Kind::List(items) => items.clone(),
        _ => vec![Arc::new(node.clone())],
    };
    items.iter().filter_map(|item| entry(reader, item)).collect()
}

fn entry(reader: &mut Reader, node: &Node) -> Option<PublishFiles> {
    let fields = reader.fields(node, &FILES, "a map with `to`, and with `run` or `path` what is published")?;
    Some(PublishFiles {
        span: node.span.clone(),
        image: text(reader, &fields, "in"),
        run: fields.get("run").map(|node| reader.texts(node)).unwrap_or_default(),
        path: fields.get("path").map(|node| reader.texts(node)).unwrap_or_default(),
        to: required_text(reader, &fields, "to", node, "this entry")?,
        secret: text(reader, &fields, "secret"),
        user: text(reader, &fields, "user"),
    })
}
