//! BuildKit's checks on the examples of docker's documentation (<https://docs.docker.com/reference/build-checks/>) and on
//! the cases of BuildKit's own tests: which lines are reported, and in which words.

use dockerfile::dockerignore::DockerIgnore;
use dockerfile::lint::{LintInput, check};
use dockerfile::{Lines, parse};

/// What BuildKit's checks say, as `line Rule: words`. `BUILDKIT_DOCKERFILE_CHECK` switches nothing but them on.
fn said(text: &str, ignore: Option<&str>, build_args: &[(&str, &str)]) -> Vec<String> {
    let file = parse(text).unwrap_or_else(|problems| panic!("{text:?}: {problems:?}"));
    let ignore = ignore.map(|ignore| DockerIgnore::parse(ignore).expect("a right .dockerignore"));
    let build_args: Vec<_> = build_args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let input = LintInput { ignore: ignore.as_ref(), build_args: &build_args, ..LintInput::default() };
    let lines = Lines::new(text);
    let findings = check(&file, text, &input).into_iter();
    let buildkit = findings.filter(|finding| {
        let rule = finding.rule.and_then(dockerfile::lint::rule);
        rule.is_none_or(|rule| rule.is_buildkit)
    });
    buildkit
        .map(|finding| {
            let line = finding.span.as_ref().map_or(0, |span| lines.range(span).0);
            let hint = finding.label.filter(|label| label.starts_with("did you")).map(|label| format!(" ({label})"));
            let hint = hint.unwrap_or_default().replace('`', "");
            format!("{line} {}: {}{hint}", finding.rule.unwrap_or(finding.code), finding.message)
        })
        .collect()
}

/// `(text, what is said)`
const DOCUMENTED: &[(&str, &[&str])] = &[
    ("FROM alpine AS BuilderBase", &["1 StageNameCasing: stage name 'BuilderBase' should be lowercase"]),
    ("FROM alpine AS builder-base", &[]),
    ("FROM debian:latest as builder", &["1 FromAsCasing: 'as' and 'FROM' keywords' casing do not match"]),
    ("FROM debian:latest AS deb-builder", &[]),
    ("from debian:latest as deb-builder", &[]),
    ("from debian:latest AS base", &["1 FromAsCasing: 'AS' and 'from' keywords' casing do not match"]),
    ("FROM alpine\nEXPOSE \\\n\n80", &["3 NoEmptyContinuation: empty continuation line"]),
    ("FROM alpine\nEXPOSE \\\n# Port\n80", &[]),
    (
        "From alpine\nRun echo hello > /greeting.txt\nEntRYpOiNT [\"cat\", \"/greeting.txt\"]",
        &[
            "1 ConsistentInstructionCasing: command 'From' should match the case of the command majority (uppercase)",
            "2 ConsistentInstructionCasing: command 'Run' should match the case of the command majority (uppercase)",
            "3 ConsistentInstructionCasing: command 'EntRYpOiNT' should match the case of the command majority (uppercase)",
        ],
    ),
    ("FROM alpine\nRUN echo hello > /greeting.txt\nENTRYPOINT [\"cat\", \"/greeting.txt\"]", &[]),
    ("from alpine\nrun echo hello > /greeting.txt\nentrypoint [\"cat\", \"/greeting.txt\"]", &[]),
    (
        "FROM debian:latest AS builder\nRUN apt-get update; apt-get install -y curl\n\nFROM golang:latest AS builder",
        &["4 DuplicateStageName: duplicate stage name \"builder\", stage names should be unique"],
    ),
    ("FROM debian:latest AS deb-builder\n\nFROM golang:latest AS go-builder", &[]),
    (
        "FROM alpine AS scratch\nFROM alpine AS context",
        &[
            "1 ReservedStageName: stage name should not use the same name as reserved stage \"scratch\"",
            "2 ReservedStageName: stage name should not use the same name as reserved stage \"context\"",
        ],
    ),
    ("FROM alpine AS builder\nFROM scratch\nFROM scratch AS a", &[]),
    (
        "FROM alpine\nENTRYPOINT my-program start",
        &[
            "2 JSONArgsRecommended: JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related to OS signals",
        ],
    ),
    ("FROM alpine\nENTRYPOINT [\"my-program\", \"start\"]", &[]),
    ("FROM alpine\nRUN apk add bash\nSHELL [\"/bin/bash\", \"-c\"]\nENTRYPOINT echo \"hello world\"", &[]),
    ("FROM scratch AS base\nSHELL [\"/usr/bin/customshell\"]\n\nFROM base\nCMD mycommand", &[]),
    (
        "FROM alpine\nMAINTAINER moby@example.com",
        &["2 MaintainerDeprecated: maintainer instruction is deprecated in favor of using label"],
    ),
    ("FROM alpine\nLABEL org.opencontainers.image.authors=\"moby@example.com\"", &[]),
    ("FROM node:22${VARIANT} AS jsbuilder", &["1 UndefinedArgInFrom: FROM argument 'VARIANT' is not declared"]),
    ("ARG VARIANT=\"-alpine3.20\"\nFROM node:22${VARIANT} AS jsbuilder", &[]),
    (
        "FROM --platform=$BULIDPLATFORM scratch",
        &["1 UndefinedArgInFrom: FROM argument 'BULIDPLATFORM' is not declared (did you mean BUILDPLATFORM?)"],
    ),
    (
        "ARG MY_OS=linux\nARG MY_ARCH=amd64\nFROM --platform=linux/${MYARCH} busybox",
        &["3 UndefinedArgInFrom: FROM argument 'MYARCH' is not declared (did you mean MY_ARCH?)"],
    ),
    ("ARG DEBUG\nFROM scratch${DEBUG}", &[]),
    ("ARG DEBUG\nFROM scra${DEBUG:-tch}", &[]),
    ("ARG BUILDPLATFORM=linux/amd64\nFROM --platform=$BUILDPLATFORM scratch", &[]),
    (
        "FROM nginx AS web\nWORKDIR usr/share/nginx/html\nCOPY public .",
        &[
            "2 WorkdirRelativePath: relative workdir \"usr/share/nginx/html\" can have unexpected results if the base image changes",
        ],
    ),
    ("FROM nginx AS web\nWORKDIR /usr/share/nginx/html\nCOPY public .", &[]),
    ("FROM scratch AS a\nWORKDIR /app\n\nFROM a AS b\nWORKDIR subdir/", &[]),
    ("FROM alpine AS base\nCOPY $foo .", &["2 UndefinedVar: usage of undefined variable '$foo'"]),
    ("FROM alpine AS base\nARG foo\nCOPY $foo .", &[]),
    ("FROM alpine AS base\nARG VERSION=$foo", &["2 UndefinedVar: usage of undefined variable '$foo'"]),
    ("FROM python AS base\nARG VERSION=$PYTHON_VERSION", &[]),
    (
        "FROM alpine\nENV PATH=$PAHT:/app/bin",
        &["2 UndefinedVar: usage of undefined variable '$PAHT' (did you mean $PATH?)"],
    ),
    (
        "FROM alpine\nARG DIR_BINARIES=binaries/\nARG DIR_ASSETS=assets/\nARG DIR_CONFIG=config/\nCOPY $DIR_ASSET .",
        &["5 UndefinedVar: usage of undefined variable '$DIR_ASSET' (did you mean $DIR_ASSETS?)"],
    ),
    (
        "FROM scratch AS first\nCOPY $foo .\n\nFROM scratch AS second\nCOPY $bar .",
        &["2 UndefinedVar: usage of undefined variable '$foo'", "5 UndefinedVar: usage of undefined variable '$bar'"],
    ),
    (
        "FROM alpine\nENTRYPOINT [\"echo\", \"Hello, Norway!\"]\nENTRYPOINT [\"echo\", \"Hello, Sweden!\"]",
        &[
            "2 MultipleInstructionsDisallowed: multiple ENTRYPOINT instructions should not be used in the same stage because only the last one will be used",
        ],
    ),
    ("FROM alpine\nENTRYPOINT [\"echo\", \"Hello, Norway!\\nHello, Sweden!\"]", &[]),
    (
        "FROM scratch\nENTRYPOINT [\"/myapp\"]\nCMD [\"/myapp\"]\nHEALTHCHECK CMD [\"/myapp\"]\nCOPY <<EOF /a.txt\nHello, World!\nEOF\n\
         ENTRYPOINT [\"/myotherapp\"]\nCMD [\"/myotherapp\"]\nHEALTHCHECK CMD [\"/myotherapp\"]",
        &[
            "2 MultipleInstructionsDisallowed: multiple ENTRYPOINT instructions should not be used in the same stage because only the last one will be used",
            "3 MultipleInstructionsDisallowed: multiple CMD instructions should not be used in the same stage because only the last one will be used",
            "4 MultipleInstructionsDisallowed: multiple HEALTHCHECK instructions should not be used in the same stage because only the last one will be used",
        ],
    ),
    (
        "FROM alpine\nARG foo=bar\nENV DIR foo\nLABEL key value",
        &[
            "3 LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
            "4 LegacyKeyValueFormat: \"LABEL key=value\" should be used instead of legacy \"LABEL key value\" format",
        ],
    ),
    (
        "FROM alpine\nENV DEPS \\\n    curl \\\n    git \\\n    make",
        &["2 LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format"],
    ),
    ("FROM alpine\nENV DEPS=\"\\\n    curl \\\n    git \\\n    make\"\nLABEL key=value", &[]),
    (
        "FROM --platform=$TARGETPLATFORM alpine AS builder\nRUN apk add --no-cache git",
        &[
            "1 RedundantTargetPlatform: setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
        ],
    ),
    ("FROM alpine AS builder\nRUN apk add --no-cache git", &[]),
    (
        "FROM scratch\nARG AWS_SECRET_ACCESS_KEY",
        &[
            "2 SecretsUsedInArgOrEnv: do not use ARG or ENV instructions for sensitive data (ARG \"AWS_SECRET_ACCESS_KEY\")",
        ],
    ),
    (
        "FROM scratch\nARG SECRET_PASSPHRASE\nENV SUPER_Secret=foo\nENV password=bar secret=baz\n\
         ARG super_duper_secret_token=foo auth=bar\nENV apikey=bar sunflower=foo\nENV git_key=\nENV PUBLIC_KEY=\nARG public_token",
        &[
            "2 SecretsUsedInArgOrEnv: do not use ARG or ENV instructions for sensitive data (ARG \"SECRET_PASSPHRASE\")",
            "3 SecretsUsedInArgOrEnv: do not use ARG or ENV instructions for sensitive data (ENV \"SUPER_Secret\")",
            "4 SecretsUsedInArgOrEnv: do not use ARG or ENV instructions for sensitive data (ENV \"password\")",
            "4 SecretsUsedInArgOrEnv: do not use ARG or ENV instructions for sensitive data (ENV \"secret\")",
            "5 SecretsUsedInArgOrEnv: do not use ARG or ENV instructions for sensitive data (ARG \"super_duper_secret_token\")",
            "5 SecretsUsedInArgOrEnv: do not use ARG or ENV instructions for sensitive data (ARG \"auth\")",
            "6 SecretsUsedInArgOrEnv: do not use ARG or ENV instructions for sensitive data (ENV \"apikey\")",
            "7 SecretsUsedInArgOrEnv: do not use ARG or ENV instructions for sensitive data (ENV \"git_key\")",
        ],
    ),
    (
        "ARG TAG\nFROM busybox:${TAG}",
        &[
            "2 InvalidDefaultArgInFrom: default value for ARG busybox:${TAG} results in empty or invalid base image name",
        ],
    ),
    ("ARG TAG=latest\nFROM busybox:${TAG}", &[]),
    (
        "ARG SFX=\"box:\"\nFROM busy${SFX}",
        &["2 InvalidDefaultArgInFrom: default value for ARG busy${SFX} results in empty or invalid base image name"],
    ),
    // An empty argument is fine where the name stays valid without it.
    ("ARG VARIANT\nFROM busybox:stable${VARIANT}", &[]),
    ("ARG BUSYBOX_VARIANT=\"\"\nFROM busybox:stable${BUSYBOX_VARIANT}", &[]),
    (
        "FROM --platform=linux/amd64 alpine AS base\nRUN apk add --no-cache git",
        &["1 FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/amd64\""],
    ),
    ("FROM alpine AS base\nRUN apk add --no-cache git", &[]),
    ("FROM --platform=$BUILDPLATFORM alpine AS build\nRUN apk add --no-cache git", &[]),
    (
        "FROM --platform=linux/amd64 alpine AS build_amd64\nFROM --platform=linux/arm64 alpine AS build_arm64\nFROM build_${TARGETARCH} AS build",
        &[],
    ),
    ("FROM --platform=linux/amd64 scratch AS linux", &[]),
    (
        "# check=experimental=InvalidDefinitionDescription\n# a non-descriptive comment\nFROM scratch AS base\n\n# another non-descriptive comment\nARG VERSION=1",
        &[
            "2 InvalidDefinitionDescription: comment for FROM should follow the format: `# base <description>`",
            "5 InvalidDefinitionDescription: comment for ARG should follow the format: `# VERSION <description>`",
        ],
    ),
    (
        "# check=experimental=InvalidDefinitionDescription\n# a non-descriptive comment\n\nFROM scratch AS base\n\n# a non-descriptive comment\n\nARG VERSION=1",
        &[],
    ),
    (
        "# check=experimental=InvalidDefinitionDescription\n# base is a stage for compiling source\nFROM scratch AS base\n# VERSION This is the version number.\nARG VERSION=1",
        &[],
    ),
    (
        "# check=experimental=InvalidDefinitionDescription\n# bar this is the bar\nARG foo=bar\n# BasE this is the BasE image\nFROM scratch AS base\n\
         # definitely a bad comment\nARG version=latest\n# definitely a bad comment\nARG foo=baz bar=qux baz=quux",
        &[
            "2 InvalidDefinitionDescription: comment for ARG should follow the format: `# foo <description>`",
            "4 InvalidDefinitionDescription: comment for FROM should follow the format: `# base <description>`",
            "6 InvalidDefinitionDescription: comment for ARG should follow the format: `# version <description>`",
            "8 InvalidDefinitionDescription: comment for ARG should follow the format: `# <arg_key> <description>`",
        ],
    ),
    (
        "# check=experimental=InvalidDefinitionDescription\n# foo this is the foo\nARG foo=bar\n\n# base this is the base image\nFROM scratch AS base\n\n\
         # baz this is the baz\nARG foo=baz bar=qux baz=quux\n#\nARG bit=bat\n\n# comment for something other than ARG or FROM\nCOPY Dockerfile .",
        &[],
    ),
    (
        "FROM alpine\nEXPOSE 80/TcP",
        &["2 ExposeProtoCasing: defined protocol '80/TcP' in EXPOSE instruction should be lowercase"],
    ),
    ("FROM alpine\nEXPOSE 80/tcp", &[]),
    (
        "FROM alpine\nEXPOSE 127.0.0.1:80:80\nEXPOSE 80:80",
        &[
            "2 ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80'",
            "3 ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '80:80'",
        ],
    ),
    ("FROM alpine\nEXPOSE 80", &[]),
    ("#check=skip=all\nFROM scratch as base\ncopy Dockerfile .", &[]),
    ("#check=skip=all;error=true\nFROM scratch as base\ncopy Dockerfile .", &[]),
    ("#check=skip=ConsistentInstructionCasing,FromAsCasing;error=true\nFROM scratch as base\ncopy Dockerfile .", &[]),
    (
        "#check=skip=ConsistentInstructionCasing;error=true\nFROM scratch as base\ncopy Dockerfile .",
        &["2 FromAsCasing: 'as' and 'FROM' keywords' casing do not match"],
    ),
];

#[test]
fn documented_examples() {
    let mut failures = String::new();
    for (text, expected) in DOCUMENTED {
        let said = said(text, None, &[]);
        if said != *expected {
            failures += &format!("\n{text:?}\n expected {expected:?}\n     said {said:?}");
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn copies_of_ignored_files() {
    let ignored = |verb: &str, line: u32| {
        format!("{line} CopyIgnoredFile: attempting to {verb} file \"Dockerfile\" that is excluded by .dockerignore")
    };
    let text = "FROM scratch\nCOPY Dockerfile .\nADD Dockerfile /windy";
    assert_eq!(said(text, Some("Dockerfile"), &[]), [ignored("Copy", 2), ignored("Add", 3)]);
    let asked = format!("# check=skip=all;experimental=CopyIgnoredFile\n{text}");
    assert_eq!(said(&asked, Some("Dockerfile"), &[]), [ignored("Copy", 3), ignored("Add", 4)]);
    let other = "FROM scratch AS base\nCOPY Dockerfile /foobar\nADD Dockerfile /windy\n\nFROM base\nCOPY --from=base /foobar /Dockerfile";
    assert_eq!(said(other, Some("foobar"), &[]), [""; 0]);
}

#[test]
fn build_arguments() {
    let text = "#check=skip=all\nFROM scratch as base\ncopy Dockerfile .\n";
    let check = [("BUILDKIT_DOCKERFILE_CHECK", "skip=ConsistentInstructionCasing;error=true")];
    assert_eq!(said(text, None, &check), ["2 FromAsCasing: 'as' and 'FROM' keywords' casing do not match"]);
    let text = "#check=error=true\nFROM scratch as base\ncopy Dockerfile .\n";
    assert_eq!(said(text, None, &[("BUILDKIT_DOCKERFILE_CHECK", "skip=all")]), [""; 0]);
    // The default is judged, whatever is given.
    let found = said("ARG IMAGE\nFROM $IMAGE", None, &[("IMAGE", "busybox:latest")]);
    assert_eq!(
        found,
        ["2 InvalidDefaultArgInFrom: default value for ARG $IMAGE results in empty or invalid base image name"]
    );
}
