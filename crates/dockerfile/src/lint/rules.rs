//! The table of checks.

use std::sync::LazyLock;

use regex::Regex;

use super::compile;
use crate::Severity;

/// One check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name; BuildKit's where BuildKit has the check.
    pub name: &'static str,
    /// Its stable code.
    pub code: &'static str,
    /// How bad a finding is.
    pub severity: Severity,
    /// One line.
    pub title: &'static str,
    /// What is wrong and what to do, for `explain`.
    pub docs: &'static str,
    /// Whether BuildKit has it too.
    pub is_buildkit: bool,
    /// Whether it runs only when asked for (`# check=experimental=…`).
    pub is_experimental: bool,
}

const fn buildkit(code: &'static str, name: &'static str, title: &'static str, docs: &'static str) -> Rule {
    Rule { name, code, severity: Severity::Warning, title, docs, is_buildkit: true, is_experimental: false }
}

const fn own(
    code: &'static str,
    name: &'static str,
    severity: Severity,
    title: &'static str,
    docs: &'static str,
) -> Rule {
    Rule { name, code, severity, title, docs, is_buildkit: false, is_experimental: false }
}

/// All checks, ordered by code.
pub const RULES: &[Rule] = &[
    buildkit(
        "ST201",
        "StageNameCasing",
        "stage names should be lowercase",
        "Letter case of stage names is ignored, so upper case only suggests a difference that is not there.\n\
         bad:  FROM alpine AS Builder\ngood: FROM alpine AS builder",
    ),
    buildkit(
        "ST202",
        "FromAsCasing",
        "the casing of AS should match that of FROM",
        "bad:  FROM alpine as builder\ngood: FROM alpine AS builder\ngood: from alpine as builder",
    ),
    buildkit(
        "ST203",
        "NoEmptyContinuation",
        "no empty lines inside a continued instruction",
        "An empty line inside a continuation is skipped, but docker may refuse it in future. Remove it, or put a \
         comment there.",
    ),
    buildkit(
        "ST204",
        "ConsistentInstructionCasing",
        "all instructions should have the same casing",
        "Write all instructions in upper case, or all in lower case; the majority decides which are reported.",
    ),
    buildkit(
        "ST205",
        "DuplicateStageName",
        "stage names should be unique",
        "Of two stages with one name the later one is meant from there on, which is easily overlooked.",
    ),
    buildkit(
        "ST206",
        "ReservedStageName",
        "reserved words should not name a stage",
        "`scratch` is the empty image, `context` the build context. A stage of such a name hides them.",
    ),
    buildkit(
        "ST207",
        "JSONArgsRecommended",
        "CMD and ENTRYPOINT should use the exec form",
        "In shell form the program is a child of `/bin/sh -c`, which does not pass signals on: `docker stop` then waits \
         ten seconds and kills. Write CMD [\"program\", \"argument\"]. If a shell is wanted, say so with SHELL.",
    ),
    buildkit(
        "ST208",
        "MaintainerDeprecated",
        "MAINTAINER is deprecated",
        "Use a label: LABEL org.opencontainers.image.authors=\"name\". Labels are seen by all tools.",
    ),
    buildkit(
        "ST209",
        "UndefinedArgInFrom",
        "FROM should use declared arguments only",
        "A variable in FROM is an ARG that stands before the first FROM. An undeclared one is empty.\n\
         good: ARG VERSION=3.20\n      FROM alpine:${VERSION}",
    ),
    buildkit(
        "ST210",
        "WorkdirRelativePath",
        "the first WORKDIR should be absolute",
        "A relative WORKDIR continues that of the base image, which may change with the next version of the base.",
    ),
    buildkit(
        "ST211",
        "UndefinedVar",
        "variables should be defined before their use",
        "An undefined variable is empty. Declare it with ARG or ENV in the same stage (global ARGs have to be repeated), \
         or give a default: ${NAME:-default}. Variables of the base image are known only where the image is.",
    ),
    buildkit(
        "ST212",
        "MultipleInstructionsDisallowed",
        "CMD, ENTRYPOINT and HEALTHCHECK count once a stage",
        "Only the last one of a stage has an effect. Remove the others.",
    ),
    buildkit(
        "ST213",
        "LegacyKeyValueFormat",
        "ENV and LABEL should be written with =",
        "`ENV key value` is the old form: it takes the rest of the line as the value, whatever it is. Write \
         ENV key=\"value\".",
    ),
    buildkit(
        "ST214",
        "RedundantTargetPlatform",
        "--platform=$TARGETPLATFORM is the default",
        "FROM takes the target platform anyway. Remove the flag.",
    ),
    buildkit(
        "ST215",
        "SecretsUsedInArgOrEnv",
        "secrets do not belong into ARG or ENV",
        "Values of ARG and ENV are kept in the image's configuration and history, for everybody to read. Pass secrets \
         with RUN --mount=type=secret.",
    ),
    buildkit(
        "ST216",
        "InvalidDefaultArgInFrom",
        "argument defaults should give a valid image name",
        "Without --build-arg the FROM line has an empty or invalid image name, so the Dockerfile cannot be built as it \
         is. Give the ARG a default that works.",
    ),
    buildkit(
        "ST217",
        "FromPlatformFlagConstDisallowed",
        "--platform of FROM should not be a constant",
        "A constant platform makes a multi-platform build contain the wrong one. Use $BUILDPLATFORM or $TARGETPLATFORM, \
         or name the stage after the platform if it is meant.",
    ),
    buildkit(
        "ST218",
        "CopyIgnoredFile",
        "a copied file is excluded by .dockerignore",
        "The file is not in the build context, so COPY cannot find it. Take it back in `.dockerignore` with a later \
         `!pattern`, or remove the COPY.",
    ),
    Rule {
        is_experimental: true,
        ..buildkit(
            "ST219",
            "InvalidDefinitionDescription",
            "comments of stages and arguments should describe them",
            "A comment right above FROM … AS name, or ARG name, is shown as its description if it begins with that \
             name. Write `# name what it is`, or put an empty line below other comments.",
        )
    },
    buildkit(
        "ST220",
        "ExposeProtoCasing",
        "the protocol in EXPOSE should be lowercase",
        "bad:  EXPOSE 80/TCP\ngood: EXPOSE 80/tcp",
    ),
    buildkit(
        "ST221",
        "ExposeInvalidFormat",
        "EXPOSE takes container ports only",
        "IP addresses and host ports belong to `docker run -p`; EXPOSE ignores them.\nbad:  EXPOSE 127.0.0.1:80:80\n\
         good: EXPOSE 80",
    ),
    buildkit(
        "ST222",
        "InvalidBaseImagePlatform",
        "the base image's platform should be the wanted one",
        "The base image was found for another platform than the build is for. This is found while building.",
    ),
    own(
        "ST251",
        "CopyAllBeforeInstall",
        Severity::Warning,
        "dependencies should be installed before the whole context is copied",
        "After COPY of the whole context every changed file invalidates the installation of dependencies. Copy the \
         files that list them first:\n  COPY requirements.txt .\n  RUN pip install -r requirements.txt\n  COPY . .",
    ),
    own(
        "ST252",
        "GitDirInContext",
        Severity::Warning,
        ".git should stay out of the context",
        "`.git` makes the context large, invalidates COPY with every commit, and puts the whole history into the image. \
         Add `.git` to `.dockerignore`. (Commit and branch are available as labels and build arguments.)",
    ),
    own(
        "ST253",
        "PackageCacheInLayer",
        Severity::Warning,
        "package caches should not stay in a layer",
        "What a package manager downloads stays in the layer unless the same RUN removes it, or keeps it in a cache \
         mount (RUN --mount=type=cache,target=…), which also makes the next build faster.",
    ),
    own(
        "ST254",
        "UnpinnedBase",
        Severity::Warning,
        "base images should have a tag",
        "Without a tag, or with `latest`, the same Dockerfile gives another image tomorrow. Name a version, or better a \
         digest: FROM image:1.2@sha256:….",
    ),
    own(
        "ST255",
        "RootUser",
        Severity::Note,
        "the image should not run as root",
        "A process that runs as root in the container has more ways out of it. Create a user and name it with USER.",
    ),
    own(
        "ST256",
        "MissingHealthcheck",
        Severity::Note,
        "the image should have a HEALTHCHECK",
        "With a HEALTHCHECK, `seatrial health`, Compose and Docker can tell when the service is ready. `HEALTHCHECK NONE` \
         says that there is none on purpose.",
    ),
    own(
        "ST257",
        "TooManyLayers",
        Severity::Warning,
        "too many layers",
        "Each RUN, COPY, ADD and WORKDIR makes a layer, and an image can have 127 of them, those of the base included. \
         Join commands with && or a heredoc.",
    ),
];

/// The check of this name.
///
/// # Panics
/// There is none: checks name themselves by constants, which a test compares with the table.
pub(super) fn find(name: &str) -> &'static Rule {
    RULES.iter().find(|rule| rule.name == name).unwrap_or_else(|| panic!("check {name} is not in the table"))
}

/// The check of this name or code; letter case is ignored.
pub fn explain(name_or_code: &str) -> Option<&'static Rule> {
    RULES
        .iter()
        .find(|rule| rule.name.eq_ignore_ascii_case(name_or_code) || rule.code.eq_ignore_ascii_case(name_or_code))
}

/// Whether a variable's name says that its value is secret: one of the words, between `_`, and no `public`.
pub fn is_secret_name(name: &str) -> bool {
    static SECRET: LazyLock<Regex> = LazyLock::new(|| {
        compile("(?i)(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)")
    });
    static PUBLIC: LazyLock<Regex> = LazyLock::new(|| compile("(?i)(?:_|^)public(?:_|$)"));
    SECRET.is_match(name) && !PUBLIC.is_match(name)
}
