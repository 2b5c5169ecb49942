//! Which tags an image earns. The same source always earns the same tags; whether one may move is judged in `registry`.

mod dates;
mod expression;
mod shorthand;

pub(crate) use dates::check as check_date;
pub(crate) use expression::{check as check_expressions, templates as expression_templates};
pub use registry::{Judgement, TagState, higher_tag, is_moving, judge_tag};
pub(crate) use shorthand::regex as match_regex;
pub use shorthand::{RefEvent, Shorthand, TagKind};

use std::{collections::BTreeMap, time::SystemTime};

use expression::Expressions;
use shorthand::Named;

use globset::GlobBuilder;
use serde::Serialize;

use crate::{SkippedTag, Source, SourceEvent, Values, interpolate};

/// A tag of the file: a template and when it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TagRule {
    /// `${version}`, `latest`, …
    pub tag: String,
    /// One of these must hold; empty: always.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<When>,
    /// What is meant instead of a template, which then is only what messages show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shorthand: Option<Shorthand>,
}

/// Conditions; all of them must hold, and of each list one pattern. Patterns are globs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct When {
    /// Branch names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub branch: Vec<String>,
    /// `push`, `tag`, `pull_request`, `schedule`.
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

/// What all tags of an image have in common (docker/metadata-action, `flavor`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Flavor {
    /// Whether `latest` comes along.
    pub latest: Latest,
    /// Before every tag.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// After every tag.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub suffix: String,
    /// The prefix is put before `latest` as well.
    pub prefix_latest: bool,
    /// The same of the suffix.
    pub suffix_latest: bool,
    /// Every tag once for each of these: `1.2.3-alpine`, and `alpine` for `latest`; an empty one is the tag itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<String>,
}

/// Whether the tag `latest` is made beside what the rules give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Latest {
    /// With a release that a Git tag (or the rule's own value) names: by `semver`, `pep440`, `match` and `ref` of a tag.
    #[default]
    Auto,
    /// Always.
    True,
    /// Never by itself.
    False,
}

/// What tags are chosen by.
#[derive(Clone, Copy, Debug)]
pub struct TagInputs<'a> {
    /// The file's rules.
    pub rules: &'a [TagRule],
    /// What all of them have in common.
    pub flavor: &'a Flavor,
    /// What Git and the CI system said.
    pub source: &'a Source,
    /// For templates.
    pub values: &'a Values,
    /// Time of the run, for dates in tags.
    pub now: Option<SystemTime>,
}

/// The tags of an image, and those it does not get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChosenTags {
    /// Legal, without duplicates, in the order of the rules.
    pub tags: Vec<String>,
    /// The others, with reasons.
    pub skipped: Vec<SkippedTag>,
    /// What tags are without the flavour's prefix and suffix, of those that have one.
    pub plain: BTreeMap<String, PlainTag>,
    /// The version that the tags were made of: that of the rule of `semver`, `pep440` or `match` with the highest priority.
    pub version: Option<String>,
}

/// A tag without what its flavour adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainTag {
    /// `1.2` of `1.2-alpine`; `latest` of `alpine`.
    pub tag: String,
    /// What other tags of this flavour begin with.
    pub prefix: String,
    /// What they end with: `-alpine`.
    pub suffix: String,
}

/// The name of the newest of all.
const NEWEST: &str = "latest";
/// Longest tag that registries take (distribution-spec, "Pulling manifests").
const TAG_LENGTH_MAX: usize = 128;

/// Chooses the tags that these rules give, without a flavour.
pub fn choose_tags(rules: &[TagRule], source: &Source, values: &Values) -> ChosenTags {
    choose_tags_by(TagInputs { rules, flavor: &Flavor::default(), source, values, now: None })
}

/// Chooses the tags that rules and flavour give.
pub fn choose_tags_by(inputs: TagInputs<'_>) -> ChosenTags {
    let TagInputs { rules, flavor, source, values, now } = inputs;
    let context = Expressions { source, values, now };
    let mut chosen = Chosen { context, flavor, tags: ChosenTags::default() };
    // Of the rules that apply, the one with the highest priority; of several the first.
    let mut decides: Option<(u32, bool)> = None;
    let mut speaks: Option<u32> = None;
    for rule in rules {
        let names = match holds(&rule.when, source, &values.env) {
            Ok(()) => match &rule.shorthand {
                Some(shorthand) => shorthand.names(&context),
                None => vec![interpolate(&rule.tag, values).map(Named::only).map_err(|error| error.to_string())],
            },
            Err(reason) => vec![Err(reason)],
        };
        let rank = rule.shorthand.as_ref().map_or(RAW_RANK, Shorthand::rank);
        for named in names {
            let added = named.and_then(|named| chosen.add(rule, &named.name, Came::ByRule).map(|()| named));
            let named = match added {
                Ok(named) => named,
                Err(reason) => {
                    chosen.tags.skipped.push(SkippedTag { template: rule.tag.clone(), reason });
                    continue;
                }
            };
            if decides.is_none_or(|(highest, _)| rank > highest) {
                decides = Some((rank, named.is_latest));
            }
            if named.version.is_some() && speaks.is_none_or(|highest| rank > highest) {
                (speaks, chosen.tags.version) = (Some(rank), named.version);
            }
        }
    }
    let is_latest = match (flavor.latest, decides) {
        (_, None) | (Latest::False, _) => false,
        (Latest::True, _) => true,
        (Latest::Auto, Some((_, is_latest))) => is_latest,
    };
    if is_latest {
        let shown = TagRule { tag: NEWEST.into(), ..TagRule::default() };
        if let Err(reason) = chosen.add(&shown, NEWEST, Came::ByItself) {
            chosen.tags.skipped.push(SkippedTag { template: NEWEST.into(), reason });
        }
    }
    chosen.tags
}

/// Priority of a plain text.
const RAW_RANK: u32 = 200;

/// How a tag came about. What a rule names gets what the flavour adds, as in docker/metadata-action; `latest` that comes along with
/// another tag gets it only where the flavour says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    ByRule,
    ByItself,
}

/// Collects tags.
struct Chosen<'a> {
    context: Expressions<'a>,
    flavor: &'a Flavor,
    tags: ChosenTags,
}

impl Chosen<'_> {
    /// Adds a name with what rule and flavour put around it, once for each variant.
    fn add(&mut self, rule: &TagRule, name: &str, came: Came) -> Result<(), String> {
        let flavor = self.flavor;
        let is_latest = name == NEWEST;
        let given = |own: Option<&String>, common: &str, on_latest: bool| match own {
            Some(own) => self.context.fill(own),
            None if came == Came::ByItself && !on_latest => Ok(String::new()),
            None => self.context.fill(common),
        };
        let shorthand = rule.shorthand.as_ref();
        let own_prefix = shorthand.and_then(Shorthand::own_prefix).map(str::to_owned);
        let own_prefix = shorthand.and_then(|rule| rule.prefix.clone()).or(own_prefix);
        let prefix = given(own_prefix.as_ref(), &flavor.prefix, flavor.prefix_latest)?;
        let suffix = given(shorthand.and_then(|rule| rule.suffix.as_ref()), &flavor.suffix, flavor.suffix_latest)?;
        let none = [String::new()];
        let variants = if flavor.variants.is_empty() { &none[..] } else { &flavor.variants[..] };
        // Whether what is left of an illegal name is a name at all shows without what is put around it.
        let plain = legal_tag(&format!("{prefix}{name}")).ok_or("nothing of it is legal in a tag")?;
        for variant in variants {
            let variant = self.context.fill(variant)?;
            let behind = if variant.is_empty() { suffix.clone() } else { format!("{suffix}-{variant}") };
            // `latest` of the variant alpine is `alpine`, as the official images have it.
            let is_bare = is_latest && !variant.is_empty() && prefix.is_empty() && suffix.is_empty();
            let full = if is_bare { variant.clone() } else { format!("{plain}{behind}") };
            let tag = legal_tag(&full).ok_or("nothing of it is legal in a tag")?;
            if !prefix.is_empty() || !behind.is_empty() {
                let around = PlainTag { tag: name.to_owned(), prefix: prefix.clone(), suffix: behind };
                self.tags.plain.entry(tag.clone()).or_insert(around);
            }
            if !self.tags.tags.contains(&tag) {
                self.tags.tags.push(tag);
            }
        }
        Ok(())
    }
}

/// A legal tag like this name: `feature/x` becomes `feature-x`, and a row of illegal characters one dash, as in
/// docker/metadata-action. `None` when nothing is left.
pub fn legal_tag(name: &str) -> Option<String> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let mut was_legal = true;
    let dashed = name.chars().filter_map(|c| {
        let was_legal = std::mem::replace(&mut was_legal, is_legal(c));
        if is_legal(c) { Some(c) } else { was_legal.then_some('-') }
    });
    let tag: String = dashed.skip_while(|c| matches!(c, '.' | '-')).take(TAG_LENGTH_MAX).collect();
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
                let what = match source.event {
                    SourceEvent::PullRequest => "change request",
                    _ => "commit",
                };
                return Err(format!("the {what} does not change {}", self.path.join(" or ")));
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
