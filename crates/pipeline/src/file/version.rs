//! The key `version`: which source of the version is meant, and how it is read.

use dockerfile::Span;

use super::{
    At,
    read::{Fields, Keys, Reader, shorten},
    sections::text,
    yaml::{Kind, Node},
};
use crate::{codes, version::DescribeForm};

/// Where the version comes from.
#[derive(Clone, Debug)]
pub enum VersionRule {
    /// A text, usually with `${VARIABLE}`.
    Literal(At<String>),
    /// `git: tag` or `git: describe`, perhaps of certain tags only.
    Git(GitRule),
    /// An ENV of the built image.
    Env(At<String>),
    /// A label of the built image.
    Label(At<String>),
    /// A build argument.
    Arg(At<String>),
    /// A package file.
    File {
        /// Its path, relative to the pipeline file.
        path: At<String>,
        /// What is looked for in it instead of what its kind has; checked to be a regular expression.
        regex: Option<At<String>>,
    },
    /// What a command prints.
    Command {
        /// For `/bin/sh -e`.
        command: At<String>,
        /// On this machine, beside the pipeline file, instead of in the built image.
        on_host: bool,
    },
}

/// A version that Git knows.
#[derive(Clone, Debug)]
pub struct GitRule {
    /// The place of the value.
    pub span: Span,
    /// `describe` rather than `tag`, and how it is said.
    pub describe: Option<DescribeForm>,
    /// Which tags count, as a glob; what it says before its first wildcard is no part of the version.
    pub tags: Option<String>,
}

pub(super) const VERSION: Keys = Keys {
    what: "`version`",
    known: &["git", "tag", "prefix", "form", "env", "label", "arg", "file", "regex", "command", "in"],
    later: &[],
    foreign: &[
        ("tags", "tag"),
        ("match", "tag"),
        ("pattern", "regex"),
        ("run", "command"),
        ("path", "file"),
        ("as", "form"),
        ("format", "form"),
        ("scheme", "form"),
    ],
};

/// Keys that name a source; the others say more about one of them.
const SOURCES: [&str; 6] = ["git", "env", "label", "arg", "file", "command"];

/// A text, or a map with one source.
pub(super) fn version(reader: &mut Reader, node: &Node) -> Option<VersionRule> {
    if matches!(node.kind, Kind::Scalar { .. }) {
        return reader.text(node).map(VersionRule::Literal);
    }
    let fields = reader.fields(node, &VERSION, "a text, or a map such as `{git: describe}`")?;
    let mut given: Vec<(&str, At<String>)> =
        SOURCES.iter().filter_map(|key| Some((*key, text(reader, &fields, key)?))).collect();
    let names_tags = fields.get("tag").or_else(|| fields.get("prefix"));
    // `{tag: "api-v*"}` says enough.
    if let (true, Some(tags)) = (given.is_empty(), names_tags) {
        given.push(("git", At::new("tag".into(), tags.span.clone())));
    }
    let (key, value) = match <[_; 1]>::try_from(given) {
        Ok([one]) => one,
        Err(given) if given.is_empty() => {
            let message = "`version` needs one of `git`, `env`, `label`, `arg`, `file`, `command`";
            reader.error(codes::MISSING_KEY, message, &node.span);
            return None;
        }
        Err(_) => {
            reader.error(codes::INVALID_VALUE, "`version` takes one source only", &node.span);
            return None;
        }
    };
    for (more, of) in [("tag", "git"), ("prefix", "git"), ("form", "git"), ("regex", "file"), ("in", "command")] {
        if let Some((span, _)) = fields.entry(more)
            && of != key
        {
            reader.error(codes::INVALID_VALUE, format!("`{more}` belongs to `{of}`, not to `{key}`"), span);
        }
    }
    Some(match key {
        "git" => VersionRule::Git(git(reader, &fields, value)?),
        "env" => VersionRule::Env(value),
        "label" => VersionRule::Label(value),
        "arg" => VersionRule::Arg(value),
        "file" => {
            let regex = regex(reader, &fields);
            // What was meant is not known; that its file has no version otherwise is no further mistake.
            if regex.is_none() && fields.get("regex").is_some() {
                return None;
            }
            VersionRule::File { path: value, regex }
        }
        _ => VersionRule::Command { command: value, on_host: on_host(reader, &fields) },
    })
}

fn git(reader: &mut Reader, fields: &Fields<'_>, value: At<String>) -> Option<GitRule> {
    let form = text(reader, fields, "form").and_then(|form| {
        let known = one_of(reader, &form, &DescribeForm::NAMES)?;
        DescribeForm::parse(known)
    });
    let describe = match one_of(reader, &value, &["describe", "tag"])? {
        "describe" => Some(form.unwrap_or_default()),
        _ => {
            if let (Some((span, _)), true) = (fields.entry("form"), form.is_some()) {
                reader.error(codes::INVALID_VALUE, "`form` is how `git: describe` is said; a tag is what it is", span);
            }
            None
        }
    };
    let tag = text(reader, fields, "tag");
    let prefix = text(reader, fields, "prefix");
    if let (Some(_), Some(prefix)) = (&tag, &prefix) {
        reader.error(codes::INVALID_VALUE, "`tag` and `prefix` exclude each other", &prefix.span);
    }
    if let Some(tag) = &tag
        && globset::Glob::new(&tag.value).is_err()
    {
        reader.error(codes::INVALID_VALUE, "the pattern is not a valid glob", &tag.span);
    }
    // Characters of globs are not allowed in the names of tags (git-check-ref-format), so a prefix needs no escapes.
    let tags = tag.map(|tag| tag.value).or_else(|| prefix.map(|prefix| format!("{}*", prefix.value)));
    Some(GitRule { span: value.span, describe, tags })
}

fn regex(reader: &mut Reader, fields: &Fields<'_>) -> Option<At<String>> {
    let given = text(reader, fields, "regex")?;
    if let Err(error) = pattern(&given.value) {
        let reason = match error {
            regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
            error => error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
        };
        reader.error(codes::INVALID_VALUE, format!("the regular expression is not valid: {reason}"), &given.span);
        return None;
    }
    Some(given)
}

/// As it is used: `^` and `$` are the ends of lines, as one expects of a file.
pub(crate) fn pattern(text: &str) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(text).multi_line(true).build()
}

fn on_host(reader: &mut Reader, fields: &Fields<'_>) -> bool {
    text(reader, fields, "in").and_then(|value| one_of(reader, &value, &["image", "host"])) == Some("host")
}

/// One of these words; another one is told with the nearest.
pub(super) fn one_of(reader: &mut Reader, value: &At<String>, words: &[&'static str]) -> Option<&'static str> {
    let found = words.iter().find(|word| **word == value.value);
    if found.is_none() {
        let (last, rest) = words.split_last()?;
        let list = rest.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        let message = format!("`{}` is not known; there are {list} and `{last}`", shorten(&value.value));
        let near = dockerfile::nearest(&value.value, words.iter().copied());
        reader.error(codes::INVALID_VALUE, message, &value.span).label =
            near.map(|near| format!("did you mean `{near}`?"));
    }
    found.copied()
}
