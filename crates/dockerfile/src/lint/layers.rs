//! Our own checks: caching, size, and what the finished image is like.

use std::sync::LazyLock;

use regex::Regex;

use super::stages::Stages;
use super::{Findings, LintInput, compile};
use crate::dockerignore::PatternSet;
use crate::{Command, CopyLike, InstructionKind, MountKind, Run};

/// Commands that fetch dependencies and so are worth a layer of their own.
static INSTALLS: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r"(?x)(?:^|[\s;&|(/])(?:
            (?:pip3?|uv\s+pip|poetry|pipenv|conda|npm|pnpm|yarn|bun|bundle|gem|composer|apt-get|apt|apk|dnf|microdnf|yum|zypper)
                \s+(?:-\S+\s+)*(?:install|ci|add|sync)\b
            | go\s+mod\s+download | cargo\s+fetch | dotnet\s+restore | mvn\s[^;&|]*dependency:
        )",
    )
});

/// `pip install .` needs the sources, so it has to stand behind them.
static INSTALLS_ITSELF: LazyLock<Regex> =
    LazyLock::new(|| compile(r"\bpip3?\s+install\s+(?:-\S+\s+)*['\x22]?\.(?:[\s\[/'\x22;&]|$)"));
static APT_UPDATE: LazyLock<Regex> = LazyLock::new(|| compile(r"\bapt(?:-get)?\s+(?:-\S+\s+)*update\b"));
static PIP_INSTALL: LazyLock<Regex> = LazyLock::new(|| compile(r"\bpip3?\s+(?:-\S+\s+)*install\b"));
static APK_ADD: LazyLock<Regex> = LazyLock::new(|| compile(r"\bapk\s+(?:-\S+\s+)*(?:add|update)\b"));
static DNF_INSTALL: LazyLock<Regex> =
    LazyLock::new(|| compile(r"\b(?:dnf|microdnf|yum)\s+(?:-\S+\s+)*(?:install|update|upgrade)\b"));

pub(super) fn check(stages: &Stages<'_>, input: &LintInput<'_>, findings: &mut Findings) {
    copy_before_install(stages, findings);
    git_directory(stages, input, findings);
    package_caches(stages, findings);
    finished_image(stages, findings);
    layer_count(stages, input, findings);
}

/// Why an image's name may mean another image tomorrow.
pub(super) fn unpinned(image: &str) -> Option<&'static str> {
    // Images of this machine have no publisher who could move them.
    if image.is_empty() || image.contains('@') || image.starts_with("localhost/") {
        return None;
    }
    let last_part = image.rsplit('/').next().unwrap_or(image);
    match last_part.split_once(':') {
        None => Some("has no tag, which means `latest`"),
        Some((_, "latest")) => Some("has the tag `latest`, which moves"),
        Some(_) => None,
    }
}

/// Whether the whole context is copied.
fn takes_all(copy: &CopyLike) -> bool {
    copy.from.is_none()
        && copy.sources.iter().any(|source| matches!(source.raw.as_str(), "." | "./" | "/" | "*" | "./*"))
}

fn shell_text(run: &Run) -> &str {
    match &run.command {
        Command::Shell(text) => text,
        Command::Exec(_) => "",
    }
}

fn copy_before_install(stages: &Stages<'_>, findings: &mut Findings) {
    for stage in &stages.file.stages {
        let mut copied = None;
        for instruction in &stage.instructions {
            match &instruction.kind {
                InstructionKind::Copy(copy) | InstructionKind::Add(copy) if takes_all(copy) => {
                    copied.get_or_insert(&instruction.span);
                }
                InstructionKind::Run(run) => {
                    let text = shell_text(run);
                    let Some(span) = copied else { continue };
                    if INSTALLS.is_match(text) && !INSTALLS_ITSELF.is_match(text) {
                        let message = "the whole context is copied before dependencies are installed";
                        let finding = findings.add("CopyAllBeforeInstall", span, message);
                        finding.notes.push(format!("every changed file repeats `{}`", shorten(&instruction.text)));
                        finding.help =
                            Some("copy the files that list the dependencies first, install, then copy the rest".into());
                        break;
                    }
                }
                _ => {}
            }
        }
    }
}

/// The beginning of a long instruction.
fn shorten(text: &str) -> String {
    const LENGTH: usize = 60;
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(LENGTH) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}

fn git_directory(stages: &Stages<'_>, input: &LintInput<'_>, findings: &mut Findings) {
    if !input.git_in_context || input.ignore.is_some_and(|ignore| ignore.is_excluded(".git", true)) {
        return;
    }
    for instruction in stages.file.stages.iter().flat_map(|stage| &stage.instructions) {
        let (InstructionKind::Copy(copy) | InstructionKind::Add(copy)) = &instruction.kind else { continue };
        let excludes = PatternSet::new(copy.exclude.iter().map(|word| &word.raw)).unwrap_or_default();
        if takes_all(copy) && !excludes.is_excluded(".git") {
            let message = "`.git` is copied along: it is large, changes with every commit, and holds the history";
            findings.add("GitDirInContext", &instruction.span, message).help =
                Some("add `.git` to `.dockerignore`".to_owned());
            return;
        }
    }
}

fn package_caches(stages: &Stages<'_>, findings: &mut Findings) {
    let mut pip_cache_is_off = false;
    for instruction in stages.built() {
        let run = match &instruction.kind {
            InstructionKind::Run(run) => run,
            InstructionKind::Env(pairs) => {
                pip_cache_is_off |= pairs.iter().any(|(name, _)| name.raw == "PIP_NO_CACHE_DIR");
                continue;
            }
            _ => continue,
        };
        let text = shell_text(run);
        let cached: Vec<&str> = run
            .mounts
            .iter()
            .filter(|mount| matches!(mount.kind, MountKind::Cache | MountKind::Tmpfs))
            .flat_map(|mount| &mount.options)
            .filter(|(key, _)| ["target", "dst", "destination"].contains(&key.raw.as_str()))
            .filter_map(|(_, value)| value.as_ref().map(|value| value.raw.as_str()))
            .collect();
        let is_mounted = |part: &str| cached.iter().any(|target| target.contains(part));
        let mut report = |what: &str, help: &str| {
            let message = format!("{what} stays in the layer");
            findings.add("PackageCacheInLayer", &instruction.span, message).help = Some(help.to_owned());
        };
        if APT_UPDATE.is_match(text) && !text.contains("/var/lib/apt/lists") && !is_mounted("/var/lib/apt") {
            report("apt's package list", "end the command with `&& rm -rf /var/lib/apt/lists/*`");
        }
        let pip_is_clean = pip_cache_is_off
            || text.contains("--no-cache-dir")
            || text.contains("PIP_NO_CACHE_DIR")
            || is_mounted("/.cache");
        if PIP_INSTALL.is_match(text) && !pip_is_clean {
            report("pip's cache", "add `--no-cache-dir`, or `--mount=type=cache,target=/root/.cache/pip`");
        }
        let apk_is_clean =
            text.contains("--no-cache") || text.contains("/var/cache/apk") || is_mounted("/var/cache/apk");
        if APK_ADD.is_match(text) && !apk_is_clean && !is_mounted("/etc/apk/cache") {
            report("apk's package index", "use `apk add --no-cache`");
        }
        let is_dnf_clean = text.contains("clean all") || text.contains("/var/cache/") || is_mounted("/var/cache/");
        if DNF_INSTALL.is_match(text) && !is_dnf_clean {
            report("the package cache", "end the command with `&& dnf clean all`");
        }
    }
}

fn finished_image(stages: &Stages<'_>, findings: &mut Findings) {
    let Some(stage) = stages.chain().first().copied() else { return };
    let user = stages.built().filter_map(|instruction| match &instruction.kind {
        InstructionKind::User(user) => Some(user),
        _ => None,
    });
    match user.last() {
        None => {
            let message = "the image runs as root: no USER is set";
            let finding = findings.add("RootUser", &stage.base.span, message);
            finding.notes.push("unless the base image sets one".to_owned());
        }
        Some(user) if matches!(user.raw.split(':').next(), Some("root" | "0")) => {
            findings.add("RootUser", &user.span, "the image runs as root");
        }
        Some(_) => {}
    }
    let has_healthcheck = stages.built().any(|instruction| matches!(instruction.kind, InstructionKind::Healthcheck(_)));
    if !has_healthcheck {
        let message = "the image has no HEALTHCHECK, so nobody can tell whether it works";
        findings.add("MissingHealthcheck", &stage.base.span, message);
    }
}

fn layer_count(stages: &Stages<'_>, input: &LintInput<'_>, findings: &mut Findings) {
    let makes_layer = |kind: &InstructionKind| {
        matches!(
            kind,
            InstructionKind::Run(_) | InstructionKind::Copy(_) | InstructionKind::Add(_) | InstructionKind::Workdir(_)
        )
    };
    let mut layers = stages.built().filter(|instruction| makes_layer(&instruction.kind));
    let Some(one_too_many) = layers.nth(input.layer_limit) else { return };
    let count = input.layer_limit + 1 + layers.count();
    let message = format!("{count} layers without those of the base, at most {} are allowed", input.layer_limit);
    findings.add("TooManyLayers", &one_too_many.span, message);
}
