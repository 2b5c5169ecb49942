//! `# check=skip=…;error=…;experimental=…`

use super::{LintInput, rules};
use crate::{Diagnostic, Severity, Word, nearest};

#[derive(Default)]
struct Options {
    skip_all: bool,
    skipped: Vec<String>,
    is_error: bool,
    all_experimental: bool,
    experimental: Vec<String>,
}

/// Drops what is skipped, raises what is an error, and sorts.
pub(super) fn apply(directive: Option<&Word>, input: &LintInput<'_>, findings: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    let options = directive.map(|word| parse(word, &mut problems)).unwrap_or_default();
    let is_wanted = |finding: &Diagnostic| {
        let name = finding.rule.unwrap_or_default();
        let listed = |names: &[String]| names.iter().any(|listed| listed.eq_ignore_ascii_case(name));
        let is_on = !rules::find(name).is_experimental
            || input.experimental
            || options.all_experimental
            || listed(&options.experimental);
        is_on && !options.skip_all && !listed(&options.skipped)
    };
    let mut kept: Vec<Diagnostic> = findings.into_iter().filter(is_wanted).collect();
    if options.is_error {
        for finding in kept.iter_mut().filter(|finding| finding.severity == Severity::Warning) {
            finding.severity = Severity::Error;
        }
    }
    kept.extend(problems);
    kept.sort_by_key(|finding| finding.span.as_ref().map_or(0, |span| span.start));
    kept
}

fn parse(word: &Word, problems: &mut Vec<Diagnostic>) -> Options {
    let mut options = Options::default();
    for part in word.raw.split(';').filter(|part| !part.trim().is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let (key, value) = (key.trim(), value.trim());
        match key {
            "skip" => names(value, word, &mut options.skip_all, &mut options.skipped, problems),
            "experimental" => {
                names(value, word, &mut options.all_experimental, &mut options.experimental, problems);
            }
            "error" => match value {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => options.is_error = true,
                "0" | "f" | "F" | "false" | "FALSE" | "False" => options.is_error = false,
                _ => problems.push(
                    Diagnostic::error("ST110", format!("check option `error` is true or false, not `{value}`"))
                        .with_span(word.span.clone()),
                ),
            },
            _ => problems.push(
                Diagnostic::error("ST110", format!("there is no check option `{key}`"))
                    .with_span(word.span.clone())
                    .with_suggestion(nearest(key, ["skip", "error", "experimental"])),
            ),
        }
    }
    options
}

fn names(value: &str, word: &Word, all: &mut bool, names: &mut Vec<String>, problems: &mut Vec<Diagnostic>) {
    for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if name == "all" {
            *all = true;
        } else if rules::RULES.iter().any(|rule| rule.name.eq_ignore_ascii_case(name)) {
            names.push(name.to_owned());
        } else {
            problems.push(
                Diagnostic::warning("ST110", format!("there is no check `{name}`"))
                    .with_span(word.span.clone())
                    .with_suggestion(nearest(name, rules::RULES.iter().map(|rule| rule.name))),
            );
        }
    }
}
