//! Which tags an image earns. The same source always earns the same tags; whether one may move is judged in `registry`.

pub use registry::{Judgement, TagState, is_moving, judge_tag};

use std::collections::BTreeMap;

use globset::GlobBuilder;
use serde::Serialize;

use crate::{SkippedTag, Source, Values, interpolate};

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

/// Longest tag that registries take (distribution-spec, "Pulling manifests").
const TAG_LENGTH_MAX: usize = 128;

/// Chooses the tags that these rules give.
pub fn choose_tags(rules: &[TagRule], source: &Source, values: &Values) -> ChosenTags {
    let mut chosen = ChosenTags::default();
    for rule in rules {
        let tag = holds(&rule.when, source, &values.env)
            .and_then(|()| interpolate(&rule.tag, values).map_err(|error| error.to_string()))
            .and_then(|name| legal_tag(&name).ok_or_else(|| "nothing of it is legal in a tag".into()));
        match tag {
            Ok(tag) if chosen.tags.contains(&tag) => {}
            Ok(tag) => chosen.tags.push(tag),
            Err(reason) => chosen.skipped.push(SkippedTag { template: rule.tag.clone(), reason }),
        }
    }
    chosen
}

/// A legal tag like this name: `feature/x` becomes `feature-x`. `None` when nothing is left.
pub fn legal_tag(name: &str) -> Option<String> {
    let legal = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') { c } else { '-' };
    let tag: String = name.chars().map(legal).skip_while(|c| matches!(c, '.' | '-')).take(TAG_LENGTH_MAX).collect();
    (!tag.is_empty()).then_some(tag)
}

/// Whether one of the conditions holds; none at all always does.
///
/// # Errors
/// Why not, in words: `branch is not master`.
pub(crate) fn holds(conditions: &[When], source: &Source, env: &BTreeMap<String, String>) -> Result<(), String> {
    let mut reasons = Vec::new();
    for condition in conditions {
        match condition.holds(source, env) {
            Ok(()) => return Ok(()),
            Err(reason) if reasons.contains(&reason) => {}
            Err(reason) => reasons.push(reason),
        }
    }
    if reasons.is_empty() { Ok(()) } else { Err(reasons.join(" and ")) }
}

impl When {
    /// Whether all of it holds.
    ///
    /// # Errors
    /// The first part that does not, in words.
    pub fn holds(&self, source: &Source, env: &BTreeMap<String, String>) -> Result<(), String> {
        let one_of = |patterns: &[String], value: Option<&str>, what: &str, absent: &str| match value {
            _ if patterns.is_empty() => Ok(()),
            None => Err(absent.to_owned()),
            Some(value) if patterns.iter().any(|pattern| matches(pattern, value)) => Ok(()),
            Some(_) => Err(format!("{what} is not {}", patterns.join(" or "))),
        };
        one_of(&self.branch, source.branch.as_deref(), "branch", "HEAD is on no branch")?;
        one_of(&self.event, Some(source.event.as_str()), "event", "")?;
        one_of(&self.tag, source.tag.as_deref(), "Git tag", "the commit has no Git tag")?;
        if !self.path.is_empty() {
            let changed = source.changed.as_deref().ok_or("the changed files are not known")?;
            if !changed.iter().any(|path| self.path.iter().any(|pattern| matches(pattern, path))) {
                return Err(format!("the commit does not change {}", self.path.join(" or ")));
            }
        }
        for (name, pattern) in &self.env {
            match (env.get(name).filter(|value| !value.is_empty()), pattern) {
                (None, _) => return Err(format!("`{name}` is not set")),
                (Some(value), Some(pattern)) if !matches(pattern, value) => {
                    return Err(format!("`{name}` is not {pattern}"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// `*` and `?` stop at `/`, `**` does not. A malformed pattern was refused when the file was read; here it matches only itself.
fn matches(pattern: &str, value: &str) -> bool {
    pattern == value
        || GlobBuilder::new(pattern)
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .is_ok_and(|glob| glob.compile_matcher().is_match(value))
}

#[cfg(test)]
mod tests;
