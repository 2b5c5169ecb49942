//! Checks of what COPY and ADD take from the build context.

use super::{Findings, LintInput};
use crate::dockerignore::{DockerIgnore, PatternSet};
use crate::stages::Stages;
use crate::{CopyLike, InstructionKind};

/// Names at the top of a working copy that a build makes anew, with what they are.
const BALLAST: [(&str, &str); 17] = [
    (".cache", "a cache"),
    (".gradle", "a cache"),
    (".mypy_cache", "a cache"),
    (".next", "build output"),
    (".nox", "test environments"),
    (".pytest_cache", "a cache"),
    (".ruff_cache", "a cache"),
    (".terraform", "downloaded providers"),
    (".tox", "test environments"),
    (".venv", "a virtual environment"),
    ("__pycache__", "compiled files"),
    ("bower_components", "installed packages"),
    ("coverage", "test output"),
    ("htmlcov", "test output"),
    ("node_modules", "installed packages"),
    ("target", "build output"),
    ("venv", "a virtual environment"),
];

/// `target` and `coverage` are common words: they count only beside a file that explains them.
const ONLY_BESIDE: [(&str, &[&str]); 2] =
    [("target", &["Cargo.toml", "pom.xml"]), ("coverage", &["package.json", "setup.cfg", "pyproject.toml"])];

/// Names of files that hold secrets.
const SECRETS: [&str; 13] = [
    ".aws",
    ".docker",
    ".env",
    ".git-credentials",
    ".kube",
    ".netrc",
    ".npmrc",
    ".pypirc",
    ".ssh",
    "credentials.json",
    "id_ed25519",
    "id_rsa",
    "kubeconfig",
];

/// Endings of the same.
const SECRET_ENDINGS: [&str; 4] = [".key", ".pem", ".p12", ".pfx"];

pub(super) fn check(stages: &Stages<'_>, input: &LintInput<'_>, findings: &mut Findings) {
    let copies = stages.file.stages.iter().flat_map(|stage| &stage.instructions).filter_map(|instruction| {
        match &instruction.kind {
            InstructionKind::Copy(copy) | InstructionKind::Add(copy) if takes_all(copy) => Some((instruction, copy)),
            _ => None,
        }
    });
    // The first such COPY is enough: `.dockerignore` mends all of them.
    let Some((instruction, copy)) = copies.into_iter().next() else { return };
    let excludes = PatternSet::new(copy.exclude.iter().map(|word| &word.raw)).unwrap_or_default();
    let is_taken = |name: &&String| {
        !input.ignore.is_some_and(|ignore| ignore.is_excluded(name.as_str(), true))
            && !excludes.is_excluded(name.as_str())
    };
    let ignore_it = |name: &str| Some(format!("add `{name}` to `.dockerignore`"));
    for name in input.context_names.iter().filter(is_taken) {
        let has = |other: &&str| input.context_names.iter().any(|name| name == other);
        let is_explained =
            ONLY_BESIDE.iter().find(|(word, _)| word == name).is_none_or(|(_, others)| others.iter().any(has));
        if name == ".git" {
            let message = "`.git` is copied along: it is large, changes with every commit, and holds the history";
            findings.add("GitDirInContext", &instruction.span, message).help = ignore_it(name);
        } else if let Some((_, what)) = BALLAST.iter().find(|(known, _)| known == name).filter(|_| is_explained) {
            let message = format!("`{name}` is copied along: {what} of the working copy");
            findings.add("BallastInContext", &instruction.span, message).help = ignore_it(name);
        } else if is_secret_file(name) {
            let message = format!("`{name}` is copied along: everybody who has the image can read it");
            findings.add("SecretFileInContext", &instruction.span, message).help = ignore_it(name);
        }
    }
}

/// Whether the whole context is copied.
pub(super) fn takes_all(copy: &CopyLike) -> bool {
    copy.from.is_none()
        && copy.sources.iter().any(|source| matches!(source.raw.as_str(), "." | "./" | "/" | "*" | "./*"))
}

fn is_secret_file(name: &str) -> bool {
    let is_sample = ["example", "sample", "template", "dist"].iter().any(|word| name.contains(word));
    let is_known = SECRETS.contains(&name) || name.starts_with(".env.");
    (is_known || SECRET_ENDINGS.iter().any(|ending| name.ends_with(ending))) && !is_sample
}

/// The line of `.dockerignore` that keeps a source of COPY away for certain (BuildKit's `validateCopySourcePath`).
///
/// Nothing is said of a source of which an exception may bring a part back, and of the context's root only if a pattern
/// leaves out everything in it.
pub(super) fn ignored_by(ignore: &DockerIgnore, source: &str) -> Option<usize> {
    let cleaned = String::from_utf8_lossy(&crate::dockerignore::clean(source.as_bytes())).into_owned();
    let relative = cleaned.trim_start_matches('/');
    if relative.is_empty() || relative == "." {
        return ignore.line_of_everything();
    }
    let is_kept_in_part = ignore.patterns().has_exceptions() && ignore.may_contain_included(relative);
    ignore.matching_line(relative).filter(|_| !is_kept_in_part)
}
