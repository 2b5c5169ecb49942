//! `{{version}}`, `{{branch}}`, `{{date 'YYYYMMDD'}}` in tags, as docker/metadata-action has them, beside our own `${…}`.
//!
//! A text is read once: what a value holds is never read as a template, whatever a branch is called.

use std::time::SystemTime;

use super::{dates, shorthand::Parts};
use crate::{Source, SourceEvent, Values, interpolate};

/// What expressions are filled in with.
#[derive(Clone, Copy)]
pub(super) struct Expressions<'a> {
    pub(super) source: &'a Source,
    pub(super) values: &'a Values,
    /// Time of the run.
    pub(super) now: Option<SystemTime>,
}

/// Names that may stand between double braces.
pub(crate) const NAMES: [&str; 15] = [
    "version",
    "raw",
    "major",
    "minor",
    "patch",
    "branch",
    "tag",
    "sha",
    "base_ref",
    "is_default_branch",
    "is_not_default_branch",
    "date",
    "commit_date",
    "number",
    "default_branch",
];

impl Expressions<'_> {
    /// Fills in everything that is known without a version.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) fn fill(&self, text: &str) -> Result<String, String> {
        self.fill_with(text, None)
    }

    /// The same with the parts of a version.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) fn fill_version(&self, text: &str, parts: &Parts) -> Result<String, String> {
        self.fill_with(text, Some(parts))
    }

    fn fill_with(&self, text: &str, parts: Option<&Parts>) -> Result<String, String> {
        let mut out = String::new();
        for piece in pieces(text) {
            match piece {
                Piece::Template(text) => {
                    out.push_str(&interpolate(text, self.values).map_err(|error| error.to_string())?);
                }
                Piece::Expression(expression) => out.push_str(&self.value(expression, parts)?),
            }
        }
        Ok(out)
    }

    fn value(&self, expression: &str, parts: Option<&Parts>) -> Result<String, String> {
        let call = Call::parse(expression)?;
        let source = self.source;
        let given = |value: &Option<String>, absent: &str| value.clone().ok_or_else(|| absent.to_owned());
        let number = |index: usize| parts.map(|parts| parts.numbers.get(index).copied().unwrap_or(0).to_string());
        let of_version = |value: Option<String>| {
            value.ok_or_else(|| {
                format!("`{{{{{}}}}}` stands for a version, which only `semver` and `pep440` have", call.name)
            })
        };
        let is_default = source.branch.is_some()
            && source.branch == source.default_branch
            && matches!(source.event, SourceEvent::Push | SourceEvent::Schedule);
        let date = |time: Option<SystemTime>, absent: &str| {
            dates::format(time.ok_or(absent)?, call.format.unwrap_or("YYYYMMDDHHmmss"), call.tz)
        };
        match call.name {
            "version" => of_version(parts.map(|parts| parts.version.clone())),
            "raw" => of_version(parts.map(|parts| parts.raw.clone())),
            "major" => of_version(number(0)),
            "minor" => of_version(number(1)),
            "patch" => of_version(number(2)),
            "branch" => given(&source.branch, "HEAD is on no branch"),
            "tag" => given(&source.tag, "the commit has no Git tag"),
            "sha" => given(&source.short, "there is no Git commit"),
            "base_ref" => given(&source.request_base, "the run is for no change request"),
            "default_branch" => given(&source.default_branch, "the default branch is not known"),
            "is_default_branch" => Ok(is_default.to_string()),
            "is_not_default_branch" => Ok((!is_default).to_string()),
            "number" => self.values.run_number.map(|number| number.to_string()).ok_or_else(|| "there is no run".into()),
            "date" => date(self.now, "the time is not known"),
            "commit_date" => date(source.commit_time, "there is no Git commit"),
            other => Err(format!("`{{{{{other}}}}}` is not known")),
        }
    }
}

/// Whether a text is this expression and nothing else.
pub(super) fn is_only(text: &str, name: &str) -> bool {
    matches!(pieces(text)[..], [Piece::Expression(expression)] if expression == name)
}

/// Whether the expressions of a text can be understood.
///
/// # Errors
/// The first that cannot, and the nearest name.
pub(crate) fn check(text: &str) -> Result<(), (String, Option<String>)> {
    for piece in pieces(text) {
        let Piece::Expression(expression) = piece else { continue };
        let call = Call::parse(expression).map_err(|error| (error, None))?;
        if !NAMES.contains(&call.name) {
            let near = dockerfile::nearest(call.name, NAMES).map(|near| format!("{{{{{near}}}}}"));
            return Err((format!("`{{{{{}}}}}` is not known", call.name), near));
        }
        if let Some(format) = call.format {
            dates::check(format, call.tz).map_err(|error| (error, None))?;
        }
    }
    Ok(())
}

/// The parts of a text that are no expressions, for those who check templates.
pub(crate) fn templates(text: &str) -> Vec<&str> {
    let templates = pieces(text).into_iter();
    templates.filter_map(|piece| if let Piece::Template(text) = piece { Some(text) } else { None }).collect()
}

enum Piece<'t> {
    Template(&'t str),
    Expression(&'t str),
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((expression, behind)) = after.split_once("}}") else { break };
        if !before.is_empty() {
            pieces.push(Piece::Template(before));
        }
        pieces.push(Piece::Expression(expression.trim()));
        rest = behind;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Template(rest));
    }
    pieces
}

/// `date 'YYYYMMDD' tz='Europe/Berlin'`.
struct Call<'t> {
    name: &'t str,
    format: Option<&'t str>,
    tz: Option<&'t str>,
}

impl<'t> Call<'t> {
    fn parse(text: &'t str) -> Result<Self, String> {
        let (name, mut rest) = text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()));
        let mut call = Self { name, format: None, tz: None };
        let broken = || format!("`{{{{{text}}}}}` is not understood");
        loop {
            rest = rest.trim_start();
            if rest.is_empty() {
                break;
            }
            let (is_tz, quoted) = rest.strip_prefix("tz=").map_or((false, rest), |rest| (true, rest));
            let quote = quoted.chars().next().filter(|c| matches!(c, '\'' | '"')).ok_or_else(broken)?;
            let (value, behind) = quoted[1..].split_once(quote).ok_or_else(broken)?;
            *if is_tz { &mut call.tz } else { &mut call.format } = Some(value);
            rest = behind;
        }
        if !matches!(call.name, "date" | "commit_date") && (call.format.is_some() || call.tz.is_some()) {
            return Err(format!("`{{{{{}}}}}` takes no values", call.name));
        }
        Ok(call)
    }
}
