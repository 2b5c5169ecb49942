//! Checks that follow variables through the stages.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;

use super::stages::{Base, PLATFORM_ARGS, Stages};
use super::{Findings, LintInput, compile, layers, rules};
use crate::expand::{expand_heredoc, expand_noting, expand_words};
use crate::{CopyLike, InstructionKind, Stage, Word, nearest};

/// Set by many base images; not reported where the base is not known.
const USUAL: [&str; 34] = [
    "CARGO_HOME",
    "CONDA_DIR",
    "DEBIAN_FRONTEND",
    "DOTNET_VERSION",
    "GEM_HOME",
    "GOLANG_VERSION",
    "GOPATH",
    "GOTOOLCHAIN",
    "GPG_KEY",
    "HOME",
    "HOSTNAME",
    "JAVA_HOME",
    "JAVA_VERSION",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "MAVEN_HOME",
    "NGINX_VERSION",
    "NODE_VERSION",
    "NPM_CONFIG_PREFIX",
    "PGDATA",
    "PG_MAJOR",
    "PHP_INI_DIR",
    "PHP_VERSION",
    "PYTHON_PIP_VERSION",
    "PYTHON_VERSION",
    "PYTHONPATH",
    "RUBY_VERSION",
    "RUSTUP_HOME",
    "RUST_VERSION",
    "SHELL",
    "TZ",
    "YARN_VERSION",
];

/// Variables at a point of a stage.
#[derive(Clone, Default)]
struct Scope {
    /// A declared argument without a known value is `None`.
    values: BTreeMap<String, Option<String>>,
    /// The base image's variables are not known.
    is_open: bool,
    has_workdir: bool,
}

impl Scope {
    fn set(&mut self, name: &str, value: Option<String>) {
        self.values.insert(name.to_owned(), value);
    }
}

pub(super) fn check(stages: &Stages<'_>, input: &LintInput<'_>, findings: &mut Findings) {
    let mut scopes: Vec<Scope> = Vec::new();
    for (stage, base) in stages.file.stages.iter().zip(&stages.bases) {
        from_line(stages, stage, base, findings);
        let mut scope = match base {
            Base::Stage(earlier) => scopes[*earlier].clone(),
            Base::Scratch => image_scope(Some(Vec::new())),
            Base::Image(name) => image_scope(input.base_variables.and_then(|variables| variables(name))),
        };
        let mut walk = Walk { stages, input, findings, scope: &mut scope };
        for instruction in &stage.instructions {
            walk.instruction(&instruction.kind);
        }
        scopes.push(scope);
    }
}

fn image_scope(names: Option<Vec<String>>) -> Scope {
    let mut scope = Scope { is_open: names.is_none(), ..Scope::default() };
    // The engine sets PATH where the image does not.
    scope.set("PATH", Some("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()));
    for name in names.unwrap_or_default() {
        scope.set(&name, Some(String::new()));
    }
    scope
}

fn from_line(stages: &Stages<'_>, stage: &Stage, base: &Base, findings: &mut Findings) {
    let known: Vec<&str> = stages.globals.keys().map(String::as_str).chain(PLATFORM_ARGS).collect();
    for word in [Some(&stage.base), stage.platform.as_ref()].into_iter().flatten() {
        let found = stages.expand_from(word, false).unwrap_or_default();
        for name in found.undefined.iter().filter(|name| !known.contains(&name.as_str())) {
            let near = nearest(name, known.iter().copied()).map(|near| format!("did you mean `{near}`?"));
            let message = format!("FROM argument `{name}` is not declared");
            findings.add("UndefinedArgInFrom", &word.span, message).label = near;
        }
    }
    if let Some(found) = stages.expand_from(&stage.base, true)
        && !is_image_name(&found.value)
    {
        let message = format!("defaults of the arguments in `{}` give an empty or invalid image name", stage.base.raw);
        findings.add("InvalidDefaultArgInFrom", &stage.base.span, message).label =
            Some(format!("this becomes `{}`", found.value));
    }
    if let Base::Image(name) = base
        && let Some(reason) = layers::unpinned(name)
    {
        findings.add("UnpinnedBase", &stage.base.span, format!("base image `{name}` {reason}"));
    }
    let Some(platform) = &stage.platform else { return };
    let Some(found) = stages.expand_from(platform, false) else { return };
    if found.matched == ["TARGETPLATFORM"] && found.unmatched.is_empty() && found.value == "linux/amd64" {
        let message = format!("setting the platform to `{}` is redundant, this is the default", platform.raw);
        findings.add("RedundantTargetPlatform", &platform.span, message);
    }
    if found.matched.is_empty() && found.unmatched.is_empty() {
        let stage_name = stage.name.as_ref().map_or("", |name| &name.raw);
        // A stage named after its platform says that it is meant so.
        let is_meant = platform_parts(&found.value).iter().any(|part| stage_name.contains(part));
        if !is_meant {
            let message = format!("--platform should not be the constant `{}`", found.value);
            findings.add("FromPlatformFlagConstDisallowed", &platform.span, message);
        }
    }
}

/// Operating system and architecture of a platform's name, as containerd reads them.
fn platform_parts(platform: &str) -> Vec<String> {
    const SYSTEMS: [&str; 4] = ["linux", "windows", "darwin", "freebsd"];
    let architecture = |name: &str| match name {
        "x86_64" | "x86-64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        "i386" => "386".to_owned(),
        "armhf" | "armel" => "arm".to_owned(),
        other => other.to_owned(),
    };
    let lower = platform.to_ascii_lowercase();
    let mut parts = lower.split('/').filter(|part| !part.is_empty());
    match (parts.next(), parts.next()) {
        (Some(system), Some(arch)) => vec![system.to_owned(), architecture(arch)],
        (Some(system), None) if SYSTEMS.contains(&system) => vec![system.to_owned()],
        (Some(arch), None) => vec!["linux".to_owned(), architecture(arch)],
        _ => Vec::new(),
    }
}

/// Whether the text can name an image: host or bracketed address, path, tag, digest.
fn is_image_name(name: &str) -> bool {
    static NAME: LazyLock<Regex> = LazyLock::new(|| {
        compile(
            r"(?x)^
            (?:(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+:[0-9]+)(?::[0-9]+)?/)?
            [a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*
            (?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*
            (?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?
            (?:@[A-Za-z][A-Za-z0-9+.-]*:[0-9a-fA-F]{32,})?$",
        )
    });
    NAME.is_match(name)
}

struct Walk<'w, 'a> {
    stages: &'w Stages<'a>,
    input: &'w LintInput<'w>,
    findings: &'w mut Findings,
    scope: &'w mut Scope,
}

impl Walk<'_, '_> {
    fn instruction(&mut self, kind: &InstructionKind) {
        match kind {
            InstructionKind::Arg(args) => {
                for arg in args {
                    self.secret("ARG", &arg.name);
                    let default = arg.default.as_ref().map(|default| self.word(default));
                    let name = &arg.name.raw;
                    let given = self.input.build_args.iter().rfind(|(given, _)| given == name);
                    let value = given.map(|(_, value)| value.clone()).or(default);
                    let value = value.or_else(|| self.stages.globals.get(name).cloned().flatten());
                    // An ARG without a value leaves what an earlier ENV or ARG has set.
                    if self.scope.values.get(name).is_none_or(Option::is_none) || value.is_some() {
                        self.scope.set(name, value);
                    }
                }
            }
            InstructionKind::Env(pairs) => {
                let values: Vec<(String, String)> = pairs
                    .iter()
                    .map(|(name, value)| {
                        self.secret("ENV", name);
                        (self.word(name), self.word(value))
                    })
                    .collect();
                for (name, value) in values {
                    self.scope.set(&name, Some(value));
                }
            }
            InstructionKind::Label(pairs) => {
                for (name, value) in pairs {
                    self.word(name);
                    self.word(value);
                }
            }
            InstructionKind::Workdir(path) => {
                let value = self.word(path);
                if !self.scope.has_workdir && !value.starts_with('/') {
                    let message =
                        format!("relative working directory `{value}` can have unexpected results if the base changes");
                    self.findings.add("WorkdirRelativePath", &path.span, message);
                }
                self.scope.has_workdir = true;
            }
            InstructionKind::User(word) | InstructionKind::Stopsignal(word) => {
                self.word(word);
            }
            InstructionKind::Volume(words) => words.iter().for_each(|word| {
                self.word(word);
            }),
            InstructionKind::Expose(words) => words.iter().for_each(|word| self.port(word)),
            InstructionKind::Copy(copy) => self.copy("copy", copy),
            InstructionKind::Add(copy) => self.copy("add", copy),
            InstructionKind::Run(run) => {
                let values = run.mounts.iter().flat_map(|mount| &mount.options).filter_map(|(_, value)| value.as_ref());
                for value in values {
                    self.word(value);
                }
            }
            _ => {}
        }
    }

    /// Expands a word and reports names that nobody defined.
    fn word(&mut self, word: &Word) -> String {
        let values = &self.scope.values;
        let lookup = |name: &str| values.get(name).cloned().map(Option::unwrap_or_default);
        // A word that cannot be expanded stops the build anyway.
        let found = expand_noting(&word.raw, self.stages.file.directives.escape, &lookup).unwrap_or_default();
        for name in &found.undefined {
            self.undefined(name, word);
        }
        found.value
    }

    fn undefined(&mut self, name: &str, word: &Word) {
        let is_usual = USUAL.contains(&name) || !name.starts_with(|ch: char| ch.is_alphabetic() || ch == '_');
        if self.scope.is_open && is_usual {
            return;
        }
        let known = self.scope.values.keys().chain(self.stages.globals.keys()).map(String::as_str);
        let near = nearest(name, known);
        let is_global = self.stages.globals.contains_key(name);
        let label = near.map(|near| format!("did you mean `${near}`?"));
        let is_open = self.scope.is_open;
        let finding = self.findings.add("UndefinedVar", &word.span, format!("usage of undefined variable `${name}`"));
        finding.label = label;
        if is_global {
            finding.help = Some(format!("repeat `ARG {name}` inside the stage to use the global argument"));
        } else if is_open && finding.notes.is_empty() {
            finding.notes.push("unless the base image sets it".to_owned());
        }
    }

    fn secret(&mut self, instruction: &str, name: &Word) {
        if rules::is_secret_name(&name.raw) {
            let message = format!("do not use ARG or ENV for sensitive data ({instruction} `{}`)", name.raw);
            self.findings.add("SecretsUsedInArgOrEnv", &name.span, message).help =
                Some("use `RUN --mount=type=secret,id=…`, which leaves nothing in the image".to_owned());
        }
    }

    fn port(&mut self, word: &Word) {
        self.word(word);
        let values = &self.scope.values;
        let lookup = |name: &str| values.get(name).cloned().map(Option::unwrap_or_default);
        let ports = expand_words(&word.raw, self.stages.file.directives.escape, &lookup).unwrap_or_default();
        for port in ports {
            let protocol = port.split_once('/').map_or("", |(_, protocol)| protocol);
            if protocol != protocol.to_lowercase() {
                let message = format!("protocol of `{port}` in EXPOSE should be lowercase");
                self.findings.add("ExposeProtoCasing", &word.span, message);
            }
            if port.contains(':') {
                let message = format!("EXPOSE takes no IP address and no host port: `{port}`");
                self.findings.add("ExposeInvalidFormat", &word.span, message);
            }
        }
    }

    fn copy(&mut self, verb: &str, copy: &CopyLike) {
        let flags = [&copy.from, &copy.chown, &copy.chmod, &copy.checksum];
        let words = flags.into_iter().flatten().chain(&copy.exclude);
        for word in words {
            self.word(word);
        }
        for source in &copy.sources {
            let path = self.word(source);
            let is_remote = path.contains("://") || path.starts_with("git@");
            if let Some(ignore) = self.input.ignore.filter(|_| copy.from.is_none() && !is_remote)
                && let relative = path.trim_start_matches('/')
                && !relative.is_empty()
                && ignore.is_excluded(relative, false)
            {
                // A directory of which an exception keeps a part is fine.
                let is_kept_in_part = ignore.patterns().has_exceptions() && ignore.may_contain_included(relative);
                if !is_kept_in_part {
                    let line = ignore.matching_line(relative).unwrap_or_default();
                    let message = format!("attempting to {verb} `{path}`, which `.dockerignore` excludes");
                    let finding = self.findings.add("CopyIgnoredFile", &source.span, message);
                    finding.label = Some(format!("`.dockerignore` line {line} excludes it"));
                }
            }
        }
        self.word(&copy.dest);
        for heredoc in copy.heredocs.iter().filter(|heredoc| heredoc.expand) {
            let values = &self.scope.values;
            let missing = std::cell::RefCell::new(Vec::new());
            let lookup = |name: &str| {
                let value = values.get(name).cloned().map(Option::unwrap_or_default);
                if value.is_none() {
                    missing.borrow_mut().push(name.to_owned());
                }
                value
            };
            // Only names matter here; a text that cannot be expanded stops the build anyway.
            if expand_heredoc(&heredoc.content, &lookup).is_ok() {
                let at = Word { raw: String::new(), span: heredoc.span.clone() };
                for name in missing.into_inner() {
                    self.undefined(&name, &at);
                }
            }
        }
    }
}
