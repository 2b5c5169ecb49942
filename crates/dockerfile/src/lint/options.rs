//! `# check=skip=…;error=…;experimental=…`

use super::{CHECK_BUILD_ARG, LintInput, rules};
use crate::{Diagnostic, Severity, Span, Word, nearest};

#[derive(Default)]
struct Options {
    skip_all: bool,
    skipped: Vec<String>,
    is_error: bool,
    all_experimental: bool,
    experimental: Vec<String>,
}

/// Where the options are written; the build argument has no place in the file.
struct Source<'a> {
    text: &'a str,
    span: Option<&'a Span>,
}

/// Drops what is skipped, raises what is an error, and sorts.
pub(super) fn apply(directive: Option<&Word>, input: &LintInput<'_>, findings: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    let given = input.build_args.iter().rfind(|(name, _)| name == CHECK_BUILD_ARG);
    let source = match (given, directive) {
        (Some((_, text)), _) => Source { text, span: None },
        (None, Some(word)) => Source { text: &word.raw, span: Some(&word.span) },
        (None, None) => Source { text: "", span: None },
    };
    let options = parse(&source, &mut problems);
    let is_wanted = |finding: &Diagnostic| {
        let name = finding.rule.unwrap_or_default();
        let listed = |names: &[String]| names.iter().any(|listed| listed.eq_ignore_ascii_case(name));
        // As in BuildKit, `skip` says nothing about experimental checks: they are asked for, or do not run.
        let is_asked_for = listed(&options.experimental);
        if rules::find(name).is_experimental {
            is_asked_for || options.all_experimental || input.experimental
        } else {
            is_asked_for || !(options.skip_all || listed(&options.skipped))
        }
    };
    let mut kept: Vec<Diagnostic> = findings.into_iter().filter(is_wanted).collect();
    if options.is_error {
        // Of our own checks BuildKit knows nothing: what it builds with `error=true` is to be built here too.
        let is_raised = |finding: &&mut Diagnostic| {
            finding.severity == Severity::Warning && finding.rule.is_some_and(|name| rules::find(name).is_buildkit)
        };
        for finding in kept.iter_mut().filter(is_raised) {
            finding.severity = Severity::Error;
        }
    }
    kept.extend(problems);
    kept.sort_by_key(|finding| finding.span.as_ref().map_or(0, |span| span.start));
    kept
}

fn parse(source: &Source<'_>, problems: &mut Vec<Diagnostic>) -> Options {
    let mut options = Options::default();
    for part in source.text.split(';').filter(|part| !part.trim().is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let (key, value) = (key.trim(), value.trim());
        match key {
            "skip" => names(value, source, &mut options.skip_all, &mut options.skipped, problems),
            "experimental" => {
                names(value, source, &mut options.all_experimental, &mut options.experimental, problems);
            }
            "error" => match value {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => options.is_error = true,
                "0" | "f" | "F" | "false" | "FALSE" | "False" => options.is_error = false,
                _ => {
                    let message = format!("check option `error` is true or false, not `{value}`");
                    problems.push(source.problem(Severity::Error, message));
                }
            },
            _ => problems.push(
                source
                    .problem(Severity::Error, format!("there is no check option `{key}`"))
                    .with_suggestion(nearest(key, ["skip", "error", "experimental"])),
            ),
        }
    }
    options
}

fn names(value: &str, source: &Source<'_>, all: &mut bool, names: &mut Vec<String>, problems: &mut Vec<Diagnostic>) {
    for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if name == "all" {
            *all = true;
        } else if let Some(rule) = rules::explain(name) {
            names.push(rule.name.to_owned());
        } else {
            problems.push(
                source
                    .problem(Severity::Warning, format!("there is no check `{name}`"))
                    .with_suggestion(nearest(name, rules::RULES.iter().map(|rule| rule.name))),
            );
        }
    }
}

impl Source<'_> {
    fn problem(&self, severity: Severity, message: String) -> Diagnostic {
        let message =
            if self.span.is_some() { message } else { format!("build argument {CHECK_BUILD_ARG}: {message}") };
        Diagnostic { severity, span: self.span.cloned(), ..Diagnostic::error("ST110", message) }
    }
}
