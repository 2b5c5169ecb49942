//! Build checks: BuildKit's, by their names, and some of our own.
//!
//! Start at [`check`]; [`RULES`] describes each. `# check=skip=Rule,Rule;error=true` in the Dockerfile is honoured.
//! Checks look at the text and the values only: what has to be known of the surroundings comes in [`LintInput`].

mod layers;
mod options;
mod rules;
mod stages;
mod text_rules;
mod variables;

use crate::dockerignore::DockerIgnore;
use crate::{Diagnostic, Dockerfile, Severity, Span, syntax};
pub use rules::{RULES, Rule, explain, is_secret_name};
use stages::Stages;

/// Overlay file systems and registries take no more layers than this.
pub const LAYER_LIMIT: usize = 127;

/// Names of the variables that an image sets; `None` when the image is not known.
pub type BaseVariables<'a> = dyn Fn(&str) -> Option<Vec<String>> + 'a;

/// What the checks may know of the surroundings.
#[derive(Clone, Copy)]
pub struct LintInput<'a> {
    /// The context's `.dockerignore`.
    pub ignore: Option<&'a DockerIgnore>,
    /// Whether the context's directory has a `.git`.
    pub git_in_context: bool,
    /// The stage to be built; the last one if absent.
    pub target: Option<&'a str>,
    /// `--build-arg`s.
    pub build_args: &'a [(String, String)],
    /// Variables of base images, for the check of undefined ones.
    pub base_variables: Option<&'a BaseVariables<'a>>,
    /// More layers than this are reported.
    pub layer_limit: usize,
    /// Run experimental checks even if the file does not ask for them.
    pub experimental: bool,
}

impl Default for LintInput<'_> {
    fn default() -> Self {
        LintInput {
            ignore: None,
            git_in_context: false,
            target: None,
            build_args: &[],
            base_variables: None,
            layer_limit: LAYER_LIMIT,
            experimental: false,
        }
    }
}

/// Runs all checks that the file does not skip; findings in the order of the text.
///
/// `text` is the text that `dockerfile` was read from. Findings are warnings and notes, or errors where the file says
/// `error=true` (notes stay notes). A wrong `# check=` is an error itself.
pub fn check(dockerfile: &Dockerfile, text: &str, input: &LintInput<'_>) -> Vec<Diagnostic> {
    let raw = syntax::read(text);
    let stages = Stages::new(dockerfile, input);
    let mut findings = Findings::default();
    text_rules::check(&raw, text, &stages, &mut findings);
    variables::check(&stages, input, &mut findings);
    layers::check(&stages, input, &mut findings);
    options::apply(dockerfile.directives.check.as_ref(), input, findings.list)
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

/// A pattern of our own, which the tests exercise.
fn compile(pattern: &str) -> regex::Regex {
    regex::Regex::new(pattern).unwrap_or_else(|error| panic!("constant pattern: {error}"))
}
