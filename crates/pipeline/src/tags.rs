//! Which tags an image earns. The same source always earns the same tags.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::SkippedTag;

/// A tag of the file: a template and when it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TagRule {
    /// `${version}`, `latest`, …
    pub tag: String,
    /// One of these must hold; empty: always.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<When>,
}

/// Conditions; all of them must hold, and of each list one pattern. Patterns are globs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct When {
    /// Branch names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub branch: Vec<String>,
    /// `push`, `tag`, `pull_request`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub event: Vec<String>,
    /// Git tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tag: Vec<String>,
    /// Files that the commit changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<String>,
    /// Environment variables; `None` means that it is set and not empty.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Option<String>>,
}

/// The tags of an image, and those it does not get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChosenTags {
    /// Legal, without duplicates, in the order of the rules.
    pub tags: Vec<String>,
    /// The others, with reasons.
    pub skipped: Vec<SkippedTag>,
}
