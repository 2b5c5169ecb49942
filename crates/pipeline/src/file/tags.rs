//! The keys `publish.tags` and `publish.flavor`: templates, and docker/metadata-action's words as maps or as its own lines.

use std::sync::Arc;

use dockerfile::Span;

use super::{
    At, Flavor, Tag,
    read::{Fields, Keys, Reader},
    sections::when,
    version::one_of,
    yaml::{Kind, Node},
};
use crate::{TagKind, codes};

pub(super) const TAG: Keys = Keys {
    what: "a tag",
    known: &[
        "tag",
        "when",
        "type",
        "pattern",
        "match",
        "value",
        "event",
        "branch",
        "format",
        "group",
        "tz",
        "of",
        "prefix",
        "suffix",
        "enable",
        "priority",
        "major_zero",
    ],
    later: &["move"],
    foreign: &[("name", "tag"), ("if", "when"), ("kind", "type"), ("timezone", "tz")],
};

pub(super) const FLAVOR: Keys = Keys {
    what: "`flavor`",
    known: &["latest", "prefix", "suffix", "onlatest", "variants"],
    later: &[],
    foreign: &[("variant", "variants"), ("on_latest", "onlatest")],
};

/// Words that the values of some keys are taken from.
const EVENTS: [&str; 3] = ["branch", "tag", "pr"];
const FORMATS: [&str; 2] = ["short", "long"];
const TIMES: [&str; 2] = ["commit", "run"];
const YES_NO: [&str; 2] = ["true", "false"];
pub(super) const LATEST: [&str; 3] = ["auto", "true", "false"];
/// Priorities of docker/metadata-action have three or four digits.
const PRIORITY_MAX: u64 = 1_000_000;
/// Groups of a regular expression that somebody still counts.
const GROUP_MAX: u64 = 100;

/// One tag, a list, or a text of lines as workflows of GitHub have it.
pub(super) fn tags(reader: &mut Reader, node: &Node) -> Vec<Tag> {
    let items = match &node.kind {
        Kind::List(items) => items.clone(),
        _ => vec![Arc::new(node.clone())],
    };
    items.iter().flat_map(|item| of_item(reader, item)).collect()
}

fn of_item(reader: &mut Reader, node: &Node) -> Vec<Tag> {
    if let Kind::Map(_) = node.kind {
        return tag(reader, node).into_iter().collect();
    }
    let Some(text) = reader.text(node) else { return Vec::new() };
    lines(text).into_iter().filter_map(|line| written(reader, line)).collect()
}

/// The lines of a block of text: no tag and no word of a flavour holds a line break.
fn lines(text: At<String>) -> Vec<At<String>> {
    if !text.value.contains('\n') {
        return vec![text];
    }
    let lines = text.value.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| At::new(line.to_owned(), text.span.clone())).collect()
}

/// A tag as a map.
fn tag(reader: &mut Reader, node: &Node) -> Option<Tag> {
    let fields = reader.fields(node, &TAG, "a tag, or a map with `tag` or `type`, and `when`")?;
    let mut tag = Tag { span: node.span.clone(), ..Tag::default() };
    for key in TAG.known {
        let Some(value) = fields.get(key) else { continue };
        match *key {
            "when" => tag.when = when(reader, value),
            "pattern" => tag.pattern = reader.texts(value),
            key => {
                if let Some(value) = reader.text(value) {
                    set(reader, &mut tag, key, value);
                }
            }
        }
    }
    complete(reader, tag)
}

/// A template, or a line of docker/metadata-action.
fn written(reader: &mut Reader, text: At<String>) -> Option<Tag> {
    // `=` is legal in no tag, so that nothing else can be meant.
    if !text.value.trim_start().starts_with("type=") {
        return Some(Tag { span: text.span.clone(), tag: Some(text), ..Tag::default() });
    }
    let mut tag = Tag { span: text.span.clone(), ..Tag::default() };
    for (key, value) in words(&text.value) {
        let value = At::new(value, text.span.clone());
        match key.as_str() {
            // The line's own word for the value of `raw`: `type=raw,foo`.
            "" => tag.value = Some(value),
            "pattern" => tag.pattern.push(value),
            key if key != "tag" && key != "when" && TAG.known.contains(&key) => set(reader, &mut tag, key, value),
            key => {
                let near = dockerfile::nearest(key, TAG.known.iter().copied());
                reader.error(codes::UNKNOWN_KEY, format!("a tag has no key `{key}`"), &text.span).label =
                    near.map(|near| format!("did you mean `{near}`?"));
            }
        }
    }
    complete(reader, tag)
}

fn set(reader: &mut Reader, tag: &mut Tag, key: &str, value: At<String>) {
    match key {
        "tag" => tag.tag = Some(value),
        "type" => {
            one_of(reader, &value, &TagKind::NAMES);
            tag.kind = Some(value);
        }
        "value" => tag.value = Some(value),
        "match" => tag.within = Some(value),
        "branch" => tag.branch = Some(value),
        "format" => tag.format = Some(value),
        "tz" => tag.tz = Some(value),
        "prefix" => tag.prefix = Some(value),
        "suffix" => tag.suffix = Some(value),
        "enable" => tag.enable = Some(value),
        "event" => tag.event = one_of(reader, &value, &EVENTS).map(|_| value),
        "of" => tag.of = one_of(reader, &value, &TIMES).map(|_| value),
        "major_zero" => tag.major_zero = one_of(reader, &value, &YES_NO) == Some("true"),
        "priority" => tag.priority = number(reader, &value, PRIORITY_MAX).and_then(|number| u32::try_from(number).ok()),
        _ => tag.group = number(reader, &value, GROUP_MAX).and_then(|number| usize::try_from(number).ok()),
    }
}

fn number(reader: &mut Reader, value: &At<String>, highest: u64) -> Option<u64> {
    let number = value.value.trim().parse().ok().filter(|number| *number <= highest);
    if number.is_none() {
        reader.error(codes::INVALID_VALUE, format!("expected a whole number up to {highest}"), &value.span);
    }
    number
}

/// Checks that the keys belong together.
fn complete(reader: &mut Reader, tag: Tag) -> Option<Tag> {
    let kind = match (&tag.kind, &tag.tag) {
        (Some(_), Some(text)) => {
            reader.error(codes::INVALID_VALUE, "`tag` and `type` exclude each other", &text.span);
            return None;
        }
        (None, None) => {
            reader.error(codes::MISSING_KEY, "this entry needs `tag`, or `type`", &tag.span);
            return None;
        }
        (Some(kind), None) => TagKind::parse(&kind.value)?,
        (None, Some(_)) => TagKind::Raw,
    };
    let span_of = |value: &Option<At<String>>| value.as_ref().map(|value| value.span.clone());
    let has: [(&str, Option<Span>, &[TagKind]); 8] = [
        (
            "pattern",
            tag.pattern.first().map(|pattern| pattern.span.clone()),
            &[TagKind::Schedule, TagKind::Semver, TagKind::Pep440, TagKind::Match],
        ),
        ("match", span_of(&tag.within), &[TagKind::Semver, TagKind::Pep440]),
        ("event", span_of(&tag.event), &[TagKind::Ref]),
        ("branch", span_of(&tag.branch), &[TagKind::Edge]),
        ("format", span_of(&tag.format), &[TagKind::Sha, TagKind::Date]),
        ("tz", span_of(&tag.tz), &[TagKind::Date]),
        ("of", span_of(&tag.of), &[TagKind::Date]),
        ("group", tag.group.map(|_| tag.span.clone()), &[TagKind::Match]),
    ];
    for (key, span, kinds) in has {
        if let Some(span) = span
            && !kinds.contains(&kind)
        {
            let name = tag.kind.as_ref().map_or("tag", |kind| kind.value.as_str());
            reader.error(codes::INVALID_VALUE, format!("`{key}` means nothing for `{name}`"), &span);
        }
    }
    let missing = match kind {
        TagKind::Match if tag.pattern.is_empty() => Some("`match` needs `pattern`"),
        TagKind::Ref if tag.event.is_none() => Some("`ref` needs `event`: `branch`, `tag` or `pr`"),
        TagKind::Raw if tag.kind.is_some() && tag.value.is_none() => Some("`raw` needs `value`"),
        _ => None,
    };
    if let Some(missing) = missing {
        reader.error(codes::MISSING_KEY, missing, &tag.span);
    }
    if kind == TagKind::Sha
        && let Some(format) = &tag.format
    {
        one_of(reader, format, &FORMATS);
    }
    let expression = if kind == TagKind::Match { tag.pattern.first() } else { tag.within.as_ref() };
    if let Some(pattern) = expression
        && crate::tags::match_regex(&pattern.value).is_err()
    {
        reader.error(codes::INVALID_VALUE, "the regular expression is not valid", &pattern.span);
    }
    Some(tag)
}

/// `type=semver,pattern={{version}},"value=a,b"`: values with a comma stand in quotes, as in CSV.
fn words(line: &str) -> Vec<(String, String)> {
    let mut fields = vec![String::new()];
    let mut is_quoted = false;
    for c in line.chars() {
        match c {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(String::new()),
            c => fields.last_mut().expect("there is one").push(c),
        }
    }
    let word = |field: String| match field.split_once('=') {
        Some((key, value)) => (key.trim().to_owned(), value.trim().to_owned()),
        None => (String::new(), field.trim().to_owned()),
    };
    fields.into_iter().map(word).filter(|(key, value)| !key.is_empty() || !value.is_empty()).collect()
}

/// A map, or docker/metadata-action's lines: `latest=auto`, `suffix=-alpine,onlatest=true`.
pub(super) fn flavor(reader: &mut Reader, node: &Node) -> Flavor {
    let mut flavor = Flavor::default();
    if let Kind::Map(_) = node.kind {
        let Some(fields) = reader.fields(node, &FLAVOR, "a map with keys such as `suffix`") else { return flavor };
        let text = |reader: &mut Reader, fields: &Fields<'_>, key: &str| fields.get(key).and_then(|n| reader.text(n));
        flavor.latest =
            text(reader, &fields, "latest").and_then(|latest| one_of(reader, &latest, &LATEST).map(|_| latest));
        flavor.prefix = text(reader, &fields, "prefix");
        flavor.suffix = text(reader, &fields, "suffix");
        let on_latest = fields.get("onlatest").and_then(|node| reader.boolean(node)).unwrap_or(false);
        (flavor.prefix_latest, flavor.suffix_latest) = (on_latest, on_latest);
        flavor.variants = fields.get("variants").map(|node| reader.texts(node)).unwrap_or_default();
        return flavor;
    }
    for line in reader.texts(node).into_iter().flat_map(lines) {
        let mut last = String::new();
        for (key, value) in words(&line.value) {
            let value = At::new(value, line.span.clone());
            match (key.as_str(), last.as_str()) {
                ("latest", _) => flavor.latest = one_of(reader, &value, &LATEST).map(|_| value),
                ("prefix", _) => flavor.prefix = Some(value),
                ("suffix", _) => flavor.suffix = Some(value),
                ("onlatest", "prefix") => flavor.prefix_latest = one_of(reader, &value, &YES_NO) == Some("true"),
                ("onlatest", "suffix") => flavor.suffix_latest = one_of(reader, &value, &YES_NO) == Some("true"),
                (key, _) => {
                    let message = format!("`{key}` is no word of a flavour; there are `latest`, `prefix` and `suffix`");
                    reader.error(codes::INVALID_VALUE, message, &line.span);
                }
            }
            last = key;
        }
    }
    flavor
}
