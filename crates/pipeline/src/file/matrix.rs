//! `matrix` of a gate, as GitHub Actions writes it.

use dockerfile::Span;

use super::{
    At, Combination, Matrix,
    read::{Reader, shorten},
    yaml::{Kind, Node},
};
use crate::codes;

pub(super) fn matrix(reader: &mut Reader, node: &Node, span: &Span) -> Option<Matrix> {
    let mut matrix = Matrix { span: span.clone(), ..Matrix::default() };
    let before = reader.diagnostics.len();
    for (name, node) in reader.entries(node, "a map such as `{PYTHON: [\"3.11\", \"3.12\"]}`") {
        match name.value.as_str() {
            "include" => matrix.include = combinations(reader, node),
            "exclude" => matrix.exclude = combinations(reader, node),
            _ if !check_variable(reader, &name) => {}
            _ if matches!(node.kind, Kind::List(_)) => {
                let values = reader.texts(node);
                if values.is_empty() && matches!(&node.kind, Kind::List(items) if items.is_empty()) {
                    reader.error(codes::INVALID_VALUE, format!("`{}` has no values", name.value), &name.span);
                }
                matrix.axes.push((name, values));
            }
            _ => {
                let message = format!("expected a list of values, found {}", node.describe());
                reader.error(codes::WRONG_TYPE, message, &node.span);
            }
        }
    }
    if matrix.axes.is_empty() && matrix.include.is_empty() {
        if reader.diagnostics.len() == before {
            reader.error(codes::MISSING_KEY, "the matrix has no values", span);
        }
        return None;
    }
    Some(matrix)
}

fn combinations(reader: &mut Reader, node: &Node) -> Vec<Combination> {
    let Kind::List(items) = &node.kind else {
        let message = format!("expected a list of combinations, found {}", node.describe());
        reader.error(codes::WRONG_TYPE, message, &node.span);
        return Vec::new();
    };
    items
        .iter()
        .map(|item| {
            let entries = reader.entries(item, "a map from variables to values");
            let entries: Vec<_> = entries.into_iter().filter(|(name, _)| check_variable(reader, name)).collect();
            entries.into_iter().filter_map(|(name, node)| Some((name, reader.text(node)?))).collect()
        })
        .collect()
}

/// Names become variables of the environment.
fn check_variable(reader: &mut Reader, name: &At<String>) -> bool {
    let is_start = name.value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let is_legal = is_start && name.value.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_legal {
        let ours = name.value.replace(|c: char| !c.is_ascii_alphanumeric() && c != '_', "_").to_ascii_uppercase();
        let message = format!("`{}` cannot be the name of a variable", shorten(&name.value));
        let label = is_start.then(|| format!("did you mean `{}`?", shorten(&ours)));
        reader.error(codes::INVALID_VALUE, message, &name.span).label = label;
    }
    is_legal
}
