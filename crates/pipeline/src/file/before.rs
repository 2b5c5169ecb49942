//! The `before` section: what is made of the source before the image is built.

use std::sync::Arc;

use super::{
    Before,
    read::{Keys, Reader},
    sections::{pairs, text},
    yaml::{Kind, Node},
};
use crate::codes;

pub(super) const BEFORE: Keys = Keys {
    what: "an entry of `before`",
    known: &["in", "run", "output", "environment"],
    later: &[],
    foreign: &[
        ("image", "in"),
        ("command", "run"),
        ("commands", "run"),
        ("script", "run"),
        ("env", "environment"),
        ("outputs", "output"),
        ("artifacts", "output"),
    ],
};

/// One entry, or a list of them.
pub(super) fn before(reader: &mut Reader, node: &Node) -> Vec<Before> {
    let items = match &node.kind {
        Kind::List(items) => items.clone(),
        _ => vec![Arc::new(node.clone())],
    };
    items.iter().filter_map(|item| entry(reader, item)).collect()
}

fn entry(reader: &mut Reader, node: &Node) -> Option<Before> {
    let fields = reader.fields(node, &BEFORE, "a map with `run`, and with `in` the image that it runs in")?;
    let entry = Before {
        span: node.span.clone(),
        image: text(reader, &fields, "in"),
        run: fields.get("run").map(|node| reader.texts(node)).unwrap_or_default(),
        output: fields.get("output").map(|node| reader.texts(node)).unwrap_or_default(),
        environment: pairs(reader, &fields, "environment"),
    };
    if entry.run.is_empty() {
        reader.error(codes::MISSING_KEY, "this entry needs `run`", &node.span);
    }
    if entry.output.is_empty() {
        let message = "this entry needs `output`: the files that it adds to the build context, such as `dist/*.whl`";
        reader.error(codes::MISSING_KEY, message, &node.span);
    }
    Some(entry)
}
