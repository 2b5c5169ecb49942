//! Checks that follow variables through the stages.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::context::ignored_by;
use super::{BaseImage, Findings, LintInput, is_secret_name};
use crate::expand::{expand_heredoc, expand_noting, expand_words};
use crate::stages::{Base, Heirs, PLATFORM_ARGS, Stages, shortened};
use crate::{CopyLike, InstructionKind, Word, nearest};

/// Names that mean something to the builder alone: they are no variables, so nobody can define them wrongly.
const NO_VARIABLES: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// A suggestion is looked for this often in a file; comparing names is slow, and after that many slips nobody reads them.
const SUGGESTIONS_MAX: usize = 100;

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
    /// A declared argument without a known value is `None`. Shared until a stage changes them.
    values: Rc<BTreeMap<String, Option<String>>>,
    /// The base image's variables are not known.
    is_open: bool,
    has_workdir: bool,
}

impl Scope {
    fn set(&mut self, name: &str, value: Option<String>) {
        Rc::make_mut(&mut self.values).insert(name.to_owned(), value.map(shortened));
    }
}

pub(super) fn check(stages: &Stages<'_>, input: &LintInput<'_>, findings: &mut Findings) {
    let mut heirs = Heirs::new(stages);
    let mut suggestions = SUGGESTIONS_MAX;
    for (at, stage) in stages.file.stages.iter().enumerate() {
        from_line(stages, at, &mut suggestions, findings);
        let mut scope: Scope = match &stages.bases[at] {
            Base::Stage(earlier) => heirs.inherit(*earlier).unwrap_or_default(),
            Base::Scratch | Base::Image(_) => image_scope(stages.images[at].as_ref()),
        };
        let mut walk = Walk { stages, input, findings, scope: &mut scope, suggestions: &mut suggestions };
        for instruction in &stage.instructions {
            walk.instruction(&instruction.kind);
        }
        heirs.leave(scope);
    }
}

fn image_scope(image: Option<&BaseImage>) -> Scope {
    let mut scope = Scope { is_open: image.is_none(), ..Scope::default() };
    // The engine sets PATH where the image does not.
    scope.set("PATH", Some("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()));
    for name in image.into_iter().flat_map(|image| &image.variables) {
        scope.set(name, Some(String::new()));
    }
    scope
}

/// ``did you mean `x`?``, as long as suggestions are left.
fn suggest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>, left: &mut usize) -> Option<&'a str> {
    *left = left.checked_sub(1)?;
    nearest(name, known)
}

fn from_line(stages: &Stages<'_>, at: usize, suggestions: &mut usize, findings: &mut Findings) {
    let stage = &stages.file.stages[at];
    for word in [Some(&stage.base), stage.platform.as_ref()].into_iter().flatten() {
        let found = stages.expand_from(word, false).unwrap_or_default();
        let is_declared = |name: &str| stages.globals.contains_key(name) || PLATFORM_ARGS.contains(&name);
        for name in found.undefined.iter().filter(|name| !is_declared(name)) {
            let known = stages.globals.keys().map(String::as_str).chain(PLATFORM_ARGS);
            let near = suggest(name, known, suggestions).map(|near| format!("did you mean `{near}`?"));
            let message = format!("FROM argument '{name}' is not declared");
            findings.add("UndefinedArgInFrom", &word.span, message).label = near;
        }
    }
    // The name of a stage, in whatever letters, is none of an image.
    let is_stage = matches!(stages.bases[at], Base::Stage(_)) && !stage.base.raw.contains('$');
    if let Some(found) = stages.expand_from(&stage.base, true)
        && !is_stage
        && !is_image_name(&found.value)
    {
        let message = format!("default value for ARG {} results in empty or invalid base image name", stage.base.raw);
        findings.add("InvalidDefaultArgInFrom", &stage.base.span, message).label =
            Some(format!("this becomes `{}`", found.value));
    }
    let Some(platform) = &stage.platform else { return };
    let Some(found) = stages.expand_from(platform, false) else { return };
    let target_platform = Word { raw: "$TARGETPLATFORM".to_owned(), span: platform.span.clone() };
    let is_target = stages.expand_from(&target_platform, false).is_some_and(|target| target.value == found.value);
    if found.matched == ["TARGETPLATFORM"] && found.unmatched.is_empty() && is_target {
        let message = format!(
            "setting platform to predefined {} in FROM is redundant as this is the default behavior",
            platform.raw
        );
        findings.add("RedundantTargetPlatform", &platform.span, message);
    }
    if found.matched.is_empty() && found.unmatched.is_empty() {
        let stage_name = stage.name.as_ref().map_or("", |name| &name.raw);
        // A stage named after its platform says that it is meant so.
        let parts = platform_parts(&found.value);
        let is_meant = parts.iter().any(|part| stage_name.contains(part));
        if !is_meant && !parts.is_empty() {
            let message = format!("FROM --platform flag should not use constant value \"{}\"", found.value);
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

/// Whether the text can name an image: host or bracketed address, path, tag, digest (the grammar of distribution's
/// `reference` package).
fn is_image_name(text: &str) -> bool {
    let (text, digest) = text.split_once('@').map_or((text, None), |(text, digest)| (text, Some(digest)));
    // A colon behind the last slash begins the tag.
    let path_end = text.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match text[path_end..].split_once(':') {
        Some((last, tag)) => (&text[..path_end + last.len()], Some(tag)),
        None => (text, None),
    };
    let is_path = |path: &str| path.split('/').all(is_path_part);
    let is_name = is_path(name) || name.split_once('/').is_some_and(|(host, path)| is_host(host) && is_path(path));
    is_name && tag.is_none_or(is_tag) && digest.is_none_or(is_digest)
}

/// Lower-case words, joined by `.`, `_`, `__` or any number of `-`.
fn is_path_part(part: &str) -> bool {
    let is_letter = |ch: char| ch.is_ascii_lowercase() || ch.is_ascii_digit();
    let joins = part.split(is_letter).filter(|join| !join.is_empty());
    part.starts_with(is_letter)
        && part.ends_with(is_letter)
        && joins.into_iter().all(|join| matches!(join, "." | "_" | "__") || join.bytes().all(|byte| byte == b'-'))
}

fn is_host(host: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some((address, port)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let is_address = !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':');
        return is_address && (port.is_empty() || port.strip_prefix(':').is_some_and(is_number));
    }
    let (name, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    // A plain word is the first part of a path, unless it is `localhost`, has a port, or capitals.
    let is_plain = port.is_none() && name != "localhost" && !name.contains('.') && name == name.to_lowercase();
    !is_plain && name.split('.').all(is_part) && port.is_none_or(is_number)
}

fn is_tag(tag: &str) -> bool {
    const LENGTH_MAX: usize = 128;
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= LENGTH_MAX
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    const LENGTH_MIN: usize = 32;
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        algorithm.starts_with(|ch: char| ch.is_ascii_alphabetic())
            && algorithm.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+._-".contains(&byte))
            && hex.len() >= LENGTH_MIN
            && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

struct Walk<'w, 'a> {
    stages: &'w Stages<'a>,
    input: &'w LintInput<'w>,
    findings: &'w mut Findings,
    scope: &'w mut Scope,
    suggestions: &'w mut usize,
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
                        format!("relative workdir \"{value}\" can have unexpected results if the base image changes");
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
            InstructionKind::Copy(copy) => self.copy("Copy", copy),
            InstructionKind::Add(copy) => self.copy("Add", copy),
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
        if (self.scope.is_open && is_usual) || NO_VARIABLES.contains(&name) {
            return;
        }
        let known = self.scope.values.keys().chain(self.stages.globals.keys()).map(String::as_str);
        let label = suggest(name, known, self.suggestions).map(|near| format!("did you mean `${near}`?"));
        let is_global = self.stages.globals.contains_key(name);
        let is_open = self.scope.is_open;
        let finding = self.findings.add("UndefinedVar", &word.span, format!("usage of undefined variable '${name}'"));
        finding.label = label;
        if is_global {
            finding.help = Some(format!("repeat `ARG {name}` inside the stage to use the global argument"));
        } else if is_open && finding.notes.is_empty() {
            finding.notes.push("unless the base image sets it".to_owned());
        }
    }

    fn secret(&mut self, instruction: &str, name: &Word) {
        if is_secret_name(&name.raw) {
            let message =
                format!("do not use ARG or ENV instructions for sensitive data ({instruction} \"{}\")", name.raw);
            self.findings.add("SecretsUsedInArgOrEnv", &name.span, message).help =
                Some("use `RUN --mount=type=secret,id=…`, which leaves nothing in the image".to_owned());
        }
    }

    /// The words of EXPOSE become several ports, or none, so that an undefined variable is no mistake as such.
    fn port(&mut self, word: &Word) {
        let values = &self.scope.values;
        let lookup = |name: &str| values.get(name).cloned().map(Option::unwrap_or_default);
        let ports = expand_words(&word.raw, self.stages.file.directives.escape, &lookup).unwrap_or_default();
        for port in ports {
            let (before, container_port) = port.rsplit_once(':').unwrap_or(("", &port));
            let protocol = container_port.split_once('/').map_or("", |(_, protocol)| protocol);
            if protocol != protocol.to_lowercase() {
                let message = format!("defined protocol '{port}' in EXPOSE instruction should be lowercase");
                self.findings.add("ExposeProtoCasing", &word.span, message);
            }
            if before.chars().any(|ch| ch != ':') {
                let message =
                    format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'");
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
            let ignore = self.input.ignore.filter(|_| copy.from.is_none() && !is_remote);
            if let Some(line) = ignore.and_then(|ignore| ignored_by(ignore, &path)) {
                let message = format!("attempting to {verb} file \"{path}\" that is excluded by .dockerignore");
                self.findings.add("CopyIgnoredFile", &source.span, message).label =
                    Some(format!("`.dockerignore` line {line} excludes it"));
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
