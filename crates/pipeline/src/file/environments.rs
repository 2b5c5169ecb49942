//! The section `environments`: where an image comes to, one after the other.

use dockerfile::Span;
use schemars::JsonSchema;

use super::{
    At, WhenRule,
    read::{Keys, Reader},
    schema,
    sections::{text, when},
    yaml::Node,
};

/// A place that images come to by `seatrial promote`. A tag of the repository stands for it.
#[derive(Clone, Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Environment {
    /// The place of the entry.
    #[schemars(skip)]
    pub span: Span,
    /// Environments that the image has to be in before, all of them.
    #[schemars(with = "Option<schema::TextsForm>")]
    pub after: Vec<At<String>>,
    /// Conditions of the source at hand: of a list one must hold, of a map all. Default: always.
    #[schemars(with = "Option<schema::WhenForm>")]
    pub when: Vec<WhenRule>,
    /// Keys whose owners have to approve the image by `seatrial approve`, all of them; names of files in `keys` without the ending.
    #[schemars(with = "Option<schema::TextsForm>")]
    pub approve: Vec<At<String>>,
    /// What has to be attached to the image, signed by one of `keys`: `signature`, `provenance`, `sbom`, `gates`; `content` reads
    /// all layers.
    #[schemars(with = "Option<schema::TextsForm>")]
    pub require: Vec<At<String>>,
    /// Files with public keys, relative to this file.
    #[schemars(with = "Option<schema::TextsForm>")]
    pub keys: Vec<At<String>>,
    /// The tag that stands for it. Default: its name.
    pub tag: Option<At<String>>,
}

pub(super) const ENVIRONMENT: Keys = Keys {
    what: "an environment",
    known: &["after", "when", "approve", "require", "keys", "tag"],
    later: &["deploy", "url", "auto"],
    foreign: &[("needs", "after"), ("approvers", "approve"), ("requires", "require"), ("if", "when"), ("key", "keys")],
};

/// Names of what evidence there is; what they ask for is the policies' business.
const REQUIREMENTS: [&str; 5] = ["signature", "provenance", "sbom", "gates", "content"];

/// Environments in the order of the file.
pub(super) fn environments(reader: &mut Reader, node: &Node) -> Vec<(At<String>, Environment)> {
    let entries = reader.entries(node, "a map from names to environments");
    entries.into_iter().filter_map(|(name, node)| Some((name, environment(reader, node)?))).collect()
}

fn environment(reader: &mut Reader, node: &Node) -> Option<Environment> {
    if matches!(node.kind, super::yaml::Kind::Null) {
        return Some(Environment { span: node.span.clone(), ..Environment::default() });
    }
    let fields = reader.fields(node, &ENVIRONMENT, "a map with keys such as `after`")?;
    let texts = |reader: &mut Reader, key: &str| fields.get(key).map(|node| reader.texts(node)).unwrap_or_default();
    let environment = Environment {
        span: node.span.clone(),
        after: texts(reader, "after"),
        when: fields.get("when").map(|node| when(reader, node)).unwrap_or_default(),
        approve: texts(reader, "approve"),
        require: texts(reader, "require"),
        keys: texts(reader, "keys"),
        tag: text(reader, &fields, "tag"),
    };
    for wanted in &environment.require {
        super::version::one_of(reader, wanted, &REQUIREMENTS);
    }
    Some(environment)
}
