//! What the build checks say about the Dockerfile that is being built, as BuildKit shows it: a few lines at the end.

use dockerfile::{Lines, Severity};
use engine::BuildRequest;
use pipeline::Plan;

use crate::{
    commands::check::{self, CheckedDockerfile},
    context::Context,
    failure::Failure,
    terminal::{Palette, diagnostics::Findings, text},
};

/// More warnings than this are counted: the build is what was asked for.
const SHOWN_MAX: usize = 5;

/// A warning on one line.
pub(in crate::commands) struct Warning {
    rule: &'static str,
    message: String,
    /// `line 3`, or with its file where there may be others.
    place: Option<String>,
}

/// Warnings about the stages that are built; an error where the Dockerfile says `# check=error=true`.
///
/// A Dockerfile that cannot be read is left to the build, which says the same.
pub(super) fn check(request: &BuildRequest, context: &Context) -> Result<Vec<Warning>, Failure> {
    let checked = check::check_request(request, &context.settings.home, true);
    judge(checked, &request.dockerfile.name, &request.dockerfile.text, |line| format!("line {line}"))
}

/// The same of what a plan builds.
pub(in crate::commands) fn of_plan(plan: &Plan, context: &Context) -> Result<Vec<Warning>, Failure> {
    let Some(checked) = check::check_plan(plan, &context.settings.home) else { return Ok(Vec::new()) };
    let (checked, text) = checked;
    judge(checked, &plan.build.dockerfile, &text, |line| format!("{}:{line}", plan.build.dockerfile))
}

fn judge(
    checked: CheckedDockerfile,
    name: &str,
    text: &str,
    place: impl Fn(usize) -> String,
) -> Result<Vec<Warning>, Failure> {
    if checked.parsed.is_none() {
        return Ok(Vec::new());
    }
    let errors: Vec<_> = checked.diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).cloned().collect();
    if !errors.is_empty() {
        let findings = Findings { name, text, diagnostics: &errors };
        return Err(Failure::usage("the Dockerfile does not pass its own checks")
            .shown_as(findings.render(Palette::stderr()))
            .hint("leave a check out with `# check=skip=NAME`, or warn only: without `error=true`"));
    }
    let lines = Lines::new(text);
    let warnings = checked.diagnostics.into_iter().filter(|diagnostic| diagnostic.severity == Severity::Warning);
    Ok(warnings
        .map(|diagnostic| Warning {
            rule: diagnostic.rule.unwrap_or(diagnostic.code),
            place: diagnostic.span.as_ref().map(|span| place(lines.range(span).0)),
            message: diagnostic.message,
        })
        .collect())
}

/// The lines below the summary; nothing without a warning. `expand` says how to see them whole.
pub(in crate::commands) fn closing(warnings: &[Warning], expand: &str) -> String {
    if warnings.is_empty() {
        return String::new();
    }
    let palette = Palette::stderr();
    let found = palette.warn(&format!("{} found", text::count(warnings.len(), "warning")));
    let mut out = format!("  {found} ({expand}):\n");
    for warning in warnings.iter().take(SHOWN_MAX) {
        let place = warning.place.as_ref().map(|place| format!(" ({})", text::one_line(place))).unwrap_or_default();
        out.push_str(&format!("   - {}: {}{place}\n", warning.rule, text::one_line(&warning.message)));
    }
    if warnings.len() > SHOWN_MAX {
        out.push_str(&format!("   - and {} more\n", warnings.len() - SHOWN_MAX));
    }
    out
}
