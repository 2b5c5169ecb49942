//! The table of checks.

use super::LAYER_LIMIT;
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
    /// One line; BuildKit's description where BuildKit has the check.
    pub title: &'static str,
    /// What is wrong and what to do, for `explain`.
    pub docs: &'static str,
    /// Whether BuildKit has it too.
    pub is_buildkit: bool,
    /// Whether it runs only when asked for (`# check=experimental=…`).
    pub is_experimental: bool,
}

impl Rule {
    /// Docker's page about the check; `None` for our own, and for the one that docker has no page of.
    pub fn url(&self) -> Option<String> {
        if !self.is_buildkit || self.name == "InvalidBaseImagePlatform" {
            return None;
        }
        let mut slug = String::new();
        let mut before = None;
        let mut letters = self.name.chars().peekable();
        while let Some(letter) = letters.next() {
            let begins_word = letters.peek().is_some_and(char::is_ascii_lowercase);
            let ends_capitals = before.is_some_and(|before: char| before.is_ascii_lowercase());
            if letter.is_ascii_uppercase() && before.is_some() && (begins_word || ends_capitals) {
                slug.push('-');
            }
            slug.push(letter.to_ascii_lowercase());
            before = Some(letter);
        }
        Some(format!("https://docs.docker.com/go/dockerfile/rule/{slug}/"))
    }

    /// Whether it concerns what a stage does. A build meets such findings only in stages that its target needs; the
    /// others are about the file and come up while reading it.
    pub(super) fn is_of_stage(&self) -> bool {
        const OF_THE_FILE: [&str; 13] = [
            "StageNameCasing",
            "FromAsCasing",
            "NoEmptyContinuation",
            "ConsistentInstructionCasing",
            "DuplicateStageName",
            "ReservedStageName",
            "MaintainerDeprecated",
            "UndefinedArgInFrom",
            "RedundantTargetPlatform",
            "InvalidDefaultArgInFrom",
            "FromPlatformFlagConstDisallowed",
            "InvalidDefinitionDescription",
            "TooManyLayers",
        ];
        !OF_THE_FILE.contains(&self.name)
    }
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

const fn experimental(rule: Rule) -> Rule {
    Rule { is_experimental: true, ..rule }
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
        "the 'as' keyword should match the case of the 'from' keyword",
        "bad:  FROM alpine as builder\ngood: FROM alpine AS builder\ngood: from alpine as builder",
    ),
    buildkit(
        "ST203",
        "NoEmptyContinuation",
        "empty continuation lines will become errors in a future release",
        "An empty line inside a continuation is skipped, but docker may refuse it in future. Remove it, or put a \
         comment there.",
    ),
    buildkit(
        "ST204",
        "ConsistentInstructionCasing",
        "all commands within the Dockerfile should use the same casing (either upper or lower)",
        "Write all instructions in upper case, or all in lower case; the majority decides which are reported. ARG before \
         the first FROM is left alone.",
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
        "reserved words should not be used as stage names",
        "`scratch` is the empty image, `context` the build context. A stage of such a name hides them.",
    ),
    buildkit(
        "ST207",
        "JSONArgsRecommended",
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
        "In shell form the program is a child of `/bin/sh -c`, which does not pass signals on: `docker stop` then waits \
         ten seconds and kills. Write CMD [\"program\", \"argument\"]. If a shell is wanted, say so with SHELL.",
    ),
    buildkit(
        "ST208",
        "MaintainerDeprecated",
        "the MAINTAINER instruction is deprecated, use a label instead to define an image author",
        "Use a label: LABEL org.opencontainers.image.authors=\"name\". Labels are seen by all tools.",
    ),
    buildkit(
        "ST209",
        "UndefinedArgInFrom",
        "FROM command must use declared ARGs",
        "A variable in FROM is an ARG that stands before the first FROM. An undeclared one is empty.\n\
         good: ARG VERSION=3.20\n      FROM alpine:${VERSION}",
    ),
    buildkit(
        "ST210",
        "WorkdirRelativePath",
        "relative workdir without an absolute workdir declared within the build can have unexpected results if the base \
         image changes",
        "A relative WORKDIR continues that of the base image, which may change with the next version of the base. Make \
         the first WORKDIR of a chain of stages absolute.",
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
        "multiple instructions of the same type should not be used in the same stage",
        "Only the last CMD, ENTRYPOINT and HEALTHCHECK of a stage has an effect. Remove the others.",
    ),
    buildkit(
        "ST213",
        "LegacyKeyValueFormat",
        "legacy key/value format with whitespace separator should not be used",
        "`ENV key value` is the old form: it takes the rest of the line as the value, whatever it is. Write \
         ENV key=\"value\".",
    ),
    buildkit(
        "ST214",
        "RedundantTargetPlatform",
        "setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
        "FROM takes the target platform anyway. Remove the flag.",
    ),
    buildkit(
        "ST215",
        "SecretsUsedInArgOrEnv",
        "sensitive data should not be used in the ARG or ENV commands",
        "Values of ARG and ENV are kept in the image's configuration and history, for everybody to read. Pass secrets \
         with RUN --mount=type=secret. Judged by the name: `key`, `token`, `password` and the like as a word of it, unless \
         another word is `public`, `file` or `version`.",
    ),
    buildkit(
        "ST216",
        "InvalidDefaultArgInFrom",
        "default value for global ARG results in an empty or invalid base image name",
        "Without --build-arg the FROM line has an empty or invalid image name, so the Dockerfile cannot be built as it \
         is. Give the ARG a default that works.",
    ),
    buildkit(
        "ST217",
        "FromPlatformFlagConstDisallowed",
        "FROM --platform flag should not use a constant value",
        "A constant platform makes a multi-platform build contain the wrong one. Use $BUILDPLATFORM or $TARGETPLATFORM, \
         or name the stage after the platform if it is meant.",
    ),
    buildkit(
        "ST218",
        "CopyIgnoredFile",
        "attempting to Copy file that is excluded by .dockerignore",
        "The file is not in the build context, so COPY cannot find it. Take it back in `.dockerignore` with a later \
         `!pattern`, or remove the COPY. (Experimental in BuildKit, always on here.)",
    ),
    experimental(buildkit(
        "ST219",
        "InvalidDefinitionDescription",
        "comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is \
         not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
        "A comment right above FROM … AS name, or ARG name, is shown as its description (`build --call=outline`) if it \
         begins with that name. Write `# name what it is`, or put an empty line below other comments.",
    )),
    buildkit(
        "ST220",
        "ExposeProtoCasing",
        "protocol in EXPOSE instruction should be lowercase",
        "bad:  EXPOSE 80/TCP\ngood: EXPOSE 80/tcp",
    ),
    buildkit(
        "ST221",
        "ExposeInvalidFormat",
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a \
         future release",
        "IP addresses and host ports belong to `docker run -p`; EXPOSE ignores them.\nbad:  EXPOSE 127.0.0.1:80:80\n\
         good: EXPOSE 80",
    ),
    buildkit(
        "ST222",
        "InvalidBaseImagePlatform",
        "base image platform does not match expected target platform",
        "The base image is for another platform than the build. Name an image that has the platform, or say which one is \
         meant with FROM --platform. Found where the image is at hand.",
    ),
    own(
        "ST251",
        "CopyAllBeforeInstall",
        Severity::Warning,
        "dependencies should be installed before the whole context is copied",
        "After COPY of the whole context every changed file invalidates the steps behind it. What needs nothing of the \
         context (`apt-get install`) goes above the COPY; for language packages copy the files that list them first:\n  \
         COPY requirements.txt .\n  RUN pip install -r requirements.txt\n  COPY . .",
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
         Join commands with && or a heredoc. `limits.layers` in seatrial.yaml sets a smaller number.",
    ),
    own(
        "ST258",
        "BallastInContext",
        Severity::Warning,
        "what a build makes anew should stay out of the context",
        "Installed packages, virtual environments and caches of the working copy (`node_modules`, `.venv`, `__pycache__`, …) \
         make the context large, invalidate COPY when nothing has changed, and may not even fit the image's platform. Add \
         them to `.dockerignore`.",
    ),
    own(
        "ST259",
        "SecretFileInContext",
        Severity::Warning,
        "files with secrets should stay out of the context",
        "COPY of the whole context takes `.env`, private keys and credential files along, and whoever can pull the image can \
         read them, also if a later step removes them. Add them to `.dockerignore`; hand secrets to a step with RUN \
         --mount=type=secret.",
    ),
    own(
        "ST260",
        "AptUpdateAlone",
        Severity::Warning,
        "apt-get update belongs into the RUN that installs",
        "A RUN with `apt-get update` alone is cached: later the package list is old, and `apt-get install` in another RUN asks \
         for versions that are gone. Write RUN apt-get update && apt-get install -y … && rm -rf /var/lib/apt/lists/*.",
    ),
    own(
        "ST261",
        "InstallWithoutYes",
        Severity::Warning,
        "package installation would ask a question",
        "A build has no terminal, so a question is answered by the end of input and the installation stops. Add `-y`.",
    ),
    own(
        "ST262",
        "ChangingArgEarly",
        Severity::Warning,
        "arguments that change with every build should stand below expensive steps",
        "From its ARG on, a build argument is part of the environment of each RUN, so a new commit, date or build number \
         repeats all steps below it. Move the ARG (and what uses it) down, behind the installation of packages.",
    ),
    own(
        "ST263",
        "RemoteFileUnchecked",
        Severity::Note,
        "remote files should have a checksum",
        "What a URL gives may change or be tampered with. `ADD --checksum=sha256:… URL TARGET` makes the build fail then.",
    ),
    experimental(own(
        "ST264",
        "BaseWithoutDigest",
        Severity::Note,
        "base images should be pinned by digest",
        "A tag can be moved by its publisher. FROM image:1.2@sha256:… always means the same image; the tag then only tells \
         people which version it is.",
    )),
    own(
        "ST265",
        "FrontEndIgnored",
        Severity::Note,
        "the front end that `# syntax=` names is not fetched",
        "BuildKit fetches the image that `# syntax=` names and lets it read the Dockerfile. Seatrial reads it itself, as the \
         current release of docker/dockerfile does: for that front end nothing is lost. Another one may give the file another \
         meaning, so it is a warning then.",
    ),
];

// `explain` states the number.
const _: () = assert!(LAYER_LIMIT == 127);

/// The check of this name.
///
/// # Panics
/// There is none: checks name themselves by constants, which a test compares with the table.
pub(super) fn find(name: &str) -> &'static Rule {
    rule(name).unwrap_or_else(|| panic!("check {name} is not in the table"))
}

/// The check of exactly this name.
pub fn rule(name: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.name == name)
}

/// The check of this name or code; letter case is ignored.
pub fn explain(name_or_code: &str) -> Option<&'static Rule> {
    RULES
        .iter()
        .find(|rule| rule.name.eq_ignore_ascii_case(name_or_code) || rule.code.eq_ignore_ascii_case(name_or_code))
}

/// Whether a variable's name says that its value is secret: one of the words between `_` is such a word, and none says that
/// it is something about a secret.
pub fn is_secret_name(name: &str) -> bool {
    const SECRET: [&str; 10] =
        ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
    const HARMLESS: [&str; 3] = ["public", "file", "version"];
    let name = name.to_ascii_lowercase();
    name.split('_').any(|word| SECRET.contains(&word)) && !name.split('_').any(|word| HARMLESS.contains(&word))
}
