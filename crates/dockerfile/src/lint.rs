//! Build checks: BuildKit's, by their names, and some of our own.
//!
//! Start at [`check`]; [`RULES`] describes each. `# check=skip=Rule,Rule;error=true;experimental=Rule` in the Dockerfile is
//! honoured, and the build argument `BUILDKIT_DOCKERFILE_CHECK` stands in for it.
//! Checks look at the text and the values only: what has to be known of the surroundings comes in [`LintInput`].

mod caches;
mod context;
mod image;
mod options;
mod order;
mod rules;
mod shell;
mod text_rules;
mod variables;

use crate::dockerignore::DockerIgnore;
use crate::stages::Stages;
use crate::{Diagnostic, Dockerfile, InstructionKind, Severity, Span, syntax};
pub use rules::{RULES, Rule, explain, is_secret_name, rule};

/// Overlay file systems and registries take no more layers than this.
pub const LAYER_LIMIT: usize = 127;

/// The build argument that replaces the `# check=` directive.
pub const CHECK_BUILD_ARG: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// Looks up an image by its name and the platform that is wanted (`None`: that of the build); `None` when it is not known.
pub type BaseLookup<'a> = dyn Fn(&str, Option<&str>) -> Option<BaseImage> + 'a;

/// What the checks ask of a base image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BaseImage {
    /// Names of the variables that it sets.
    pub variables: Vec<String>,
    /// Whether it has a SHELL of its own.
    pub has_shell: bool,
    /// Whether it has a HEALTHCHECK.
    pub has_healthcheck: bool,
    /// Its USER, if it sets one.
    pub user: Option<String>,
    /// `os/architecture` that it was found with.
    pub platform: String,
    /// `os/architecture` that was asked for.
    pub wanted_platform: String,
}

/// What the checks may know of the surroundings.
#[derive(Clone, Copy)]
pub struct LintInput<'a> {
    /// The context's `.dockerignore`.
    pub ignore: Option<&'a DockerIgnore>,
    /// Names at the top of the context's directory, whether left out by `.dockerignore` or not.
    pub context_names: &'a [String],
    /// The stage to be built; the last one if absent.
    pub target: Option<&'a str>,
    /// `--build-arg`s.
    pub build_args: &'a [(String, String)],
    /// Images that are at hand.
    pub base: Option<&'a BaseLookup<'a>>,
    /// More layers than this are reported.
    pub layer_limit: usize,
    /// Run experimental checks even if the file does not ask for them.
    pub experimental: bool,
    /// Leave stages alone that the target does not need, as a build does.
    pub only_needed_stages: bool,
}

impl Default for LintInput<'_> {
    fn default() -> Self {
        LintInput {
            ignore: None,
            context_names: &[],
            target: None,
            build_args: &[],
            base: None,
            layer_limit: LAYER_LIMIT,
            experimental: false,
            only_needed_stages: false,
        }
    }
}

/// Runs all checks that are not skipped; findings in the order of the text.
///
/// `text` is the text that `dockerfile` was read from. Findings are warnings and notes, or errors where the file says
/// `error=true` (notes stay notes, and our own checks warnings). A wrong `# check=` is an error itself.
pub fn check(dockerfile: &Dockerfile, text: &str, input: &LintInput<'_>) -> Vec<Diagnostic> {
    let raw = syntax::read(text);
    let stages = Stages::new(dockerfile, input.target, input.build_args, input.base);
    let mut findings = Findings::default();
    text_rules::check(&raw, text, &stages, &mut findings);
    variables::check(&stages, input, &mut findings);
    context::check(&stages, input, &mut findings);
    order::check(&stages, &mut findings);
    caches::check(&stages, &mut findings);
    image::check(&stages, input, &mut findings);
    if input.only_needed_stages {
        findings.list.retain(|finding| is_met(finding, &stages));
    }
    options::apply(dockerfile.directives.check.as_ref(), input, findings.list)
}

/// Whether a build of the target would come across the finding.
fn is_met(finding: &Diagnostic, stages: &Stages<'_>) -> bool {
    let is_of_stage = finding.rule.is_some_and(|name| rules::find(name).is_of_stage());
    let Some(span) = finding.span.as_ref().filter(|_| is_of_stage) else { return true };
    let after = stages.file.stages.partition_point(|stage| stage.span.start <= span.start);
    after == 0 || stages.needed[after - 1]
}

/// Collects findings.
#[derive(Default)]
struct Findings {
    list: Vec<Diagnostic>,
}

impl Findings {
    /// Adds a finding; gives it back so that notes can be added.
    fn add(&mut self, rule: &'static str, span: &Span, message: impl Into<String>) -> &mut Diagnostic {
        let rule = rules::find(rule);
        let diagnostic = Diagnostic {
            severity: rule.severity,
            code: rule.code,
            rule: Some(rule.name),
            message: message.into(),
            span: Some(span.clone()),
            label: None,
            notes: Vec::new(),
            help: None,
        };
        // The same thing at the same place is said once (a variable used twice in a word). Such findings follow each
        // other closely, so that only the latest few are compared.
        const LATEST: usize = 16;
        let from = self.list.len().saturating_sub(LATEST);
        let is_same = |earlier: &Diagnostic| {
            earlier.rule == diagnostic.rule && earlier.span == diagnostic.span && earlier.message == diagnostic.message
        };
        let known = self.list[from..].iter().position(is_same).map(|at| from + at);
        let at = known.unwrap_or_else(|| {
            self.list.push(diagnostic);
            self.list.len() - 1
        });
        &mut self.list[at]
    }
}

/// The worst severity among findings.
pub fn worst(findings: &[Diagnostic]) -> Option<Severity> {
    findings.iter().map(|finding| finding.severity).max()
}

/// The text that a RUN hands to the shell; nothing for other instructions and for the exec form.
fn shell_text(kind: &InstructionKind) -> &str {
    match kind {
        InstructionKind::Run(crate::Run { command: crate::Command::Shell(text), .. }) => text,
        _ => "",
    }
}
