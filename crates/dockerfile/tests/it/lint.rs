//! Each check finds what it should, and nothing else.

use dockerfile::dockerignore::DockerIgnore;
use dockerfile::lint::{BaseImage, LintInput, RULES, check, explain, worst};
use dockerfile::{Diagnostic, Severity, codes, parse};

fn run(text: &str, input: &LintInput<'_>) -> Vec<Diagnostic> {
    let file = parse(text).unwrap_or_else(|problems| panic!("{text:?}: {problems:?}"));
    let findings = check(&file, text, input);
    for span in findings.iter().filter_map(|finding| finding.span.clone()) {
        assert!(text.get(span).is_some(), "{findings:?}");
    }
    findings
}

/// What the named check finds, as the text at each place.
fn found<'t>(rule: &str, text: &'t str, input: &LintInput<'_>) -> Vec<&'t str> {
    let findings = run(text, input);
    let of_rule = findings.iter().filter(|finding| finding.rule == Some(rule));
    of_rule.map(|finding| &text[finding.span.clone().expect("a place")]).collect()
}

/// `(rule, text, places where it is found)`
const CASES: &[(&str, &str, &[&str])] = &[
    ("StageNameCasing", "FROM a AS Build", &["Build"]),
    ("StageNameCasing", "FROM a AS build", &[]),
    ("FromAsCasing", "FROM a as b", &["as"]),
    ("FromAsCasing", "from a AS b", &["AS"]),
    ("FromAsCasing", "FROM a AS b", &[]),
    ("FromAsCasing", "from a as b", &[]),
    ("FromAsCasing", "From a as b", &[]),
    ("NoEmptyContinuation", "FROM a\nRUN x && \\\n  \n y", &["  "]),
    ("NoEmptyContinuation", "FROM a\nRUN x && \\\n\n \n y", &[""]),
    ("NoEmptyContinuation", "FROM a\nRUN x && \\\n # c\n y\n\n", &[]),
    ("ConsistentInstructionCasing", "FROM a\nRUN x\nrun y", &["run"]),
    ("ConsistentInstructionCasing", "from a\nrun x\nRUN y", &["RUN"]),
    ("ConsistentInstructionCasing", "FROM a\nRun x\nRUN y", &["Run"]),
    ("ConsistentInstructionCasing", "from a\nrun x", &[]),
    // Arguments before the first stage do not count.
    ("ConsistentInstructionCasing", "arg x\narg y\narg z\nFROM a\nRUN x", &[]),
    ("DuplicateStageName", "FROM a AS b\nFROM a AS B", &["B"]),
    ("DuplicateStageName", "FROM a AS b\nFROM a AS c", &[]),
    ("ReservedStageName", "FROM a AS scratch", &["scratch"]),
    ("ReservedStageName", "FROM a AS context", &["context"]),
    ("ReservedStageName", "FROM scratch AS b", &[]),
    ("JSONArgsRecommended", "FROM a\nCMD x", &["CMD x"]),
    ("JSONArgsRecommended", "FROM a\nENTRYPOINT x", &["ENTRYPOINT x"]),
    ("JSONArgsRecommended", "FROM a\nCMD [\"x\"]\nHEALTHCHECK CMD x", &[]),
    ("JSONArgsRecommended", "FROM a\nSHELL [\"bash\", \"-c\"]\nCMD x", &[]),
    ("JSONArgsRecommended", "FROM a AS b\nSHELL [\"bash\", \"-c\"]\nFROM b\nENTRYPOINT x", &[]),
    ("JSONArgsRecommended", "FROM a\nRUN x\nHEALTHCHECK CMD x\nONBUILD CMD x", &[]),
    ("MaintainerDeprecated", "FROM a\nMAINTAINER x", &["MAINTAINER"]),
    ("MaintainerDeprecated", "FROM a\nLABEL maintainer=x", &[]),
    ("UndefinedArgInFrom", "FROM a:$V", &["a:$V"]),
    ("UndefinedArgInFrom", "ARG V=1\nFROM --platform=$BULDPLATFORM a:$V", &["$BULDPLATFORM"]),
    ("UndefinedArgInFrom", "ARG V\nFROM --platform=$BUILDPLATFORM a:$V", &[]),
    ("UndefinedArgInFrom", "FROM a:${V:-1}", &[]),
    ("WorkdirRelativePath", "FROM a\nWORKDIR x", &["x"]),
    ("WorkdirRelativePath", "FROM a\nWORKDIR /x\nWORKDIR y", &[]),
    ("WorkdirRelativePath", "FROM a AS b\nWORKDIR /x\nFROM b\nWORKDIR y", &[]),
    ("WorkdirRelativePath", "FROM a\nENV P=/x\nWORKDIR $P/y", &[]),
    ("UndefinedVar", "FROM a\nCOPY $foo .", &["$foo"]),
    ("UndefinedVar", "ARG foo=1\nFROM a\nCOPY $foo .", &["$foo"]),
    ("UndefinedVar", "FROM scratch\nENV X=$LANG", &["$LANG"]),
    ("UndefinedVar", "FROM a\nENV A=1 B=$A", &["$A"]),
    ("UndefinedVar", "FROM a\nCOPY <<E /x\n$foo\nE", &["$foo\n"]),
    ("UndefinedVar", "FROM a\nRUN --mount=type=cache,target=$foo x", &["$foo"]),
    ("UndefinedVar", "FROM a\nLABEL x=$foo\nUSER $bar\nVOLUME $baz\nEXPOSE $none", &["$foo", "$bar", "$baz"]),
    ("UndefinedVar", "FROM scratch\nENV BUILDKIT_SBOM_SCAN_STAGE=$BUILDKIT_SBOM_SCAN_STAGE", &[]),
    ("UndefinedVar", "FROM a\nARG foo\nCOPY $foo .", &[]),
    ("UndefinedVar", "FROM a\nENV foo=1\nCOPY $foo .\nENV PATH=/x:$PATH", &[]),
    ("UndefinedVar", "FROM a\nCOPY ${foo:-x} ${bar:+y} .\nRUN $baz\nCMD $x", &[]),
    ("UndefinedVar", "FROM a\nENV X=$LANG", &[]),
    ("UndefinedVar", "FROM a AS b\nARG foo\nFROM b\nCOPY $foo .", &[]),
    ("UndefinedVar", "FROM a\nCOPY <<'E' /x\n$foo\nE", &[]),
    ("MultipleInstructionsDisallowed", "FROM a\nCMD [\"x\"]\nCMD [\"y\"]", &["CMD [\"x\"]"]),
    ("MultipleInstructionsDisallowed", "FROM a\nHEALTHCHECK NONE\nHEALTHCHECK CMD x", &["HEALTHCHECK NONE"]),
    ("MultipleInstructionsDisallowed", "FROM a\nCMD [\"x\"]\nFROM b\nCMD [\"y\"]\nENTRYPOINT [\"z\"]", &[]),
    ("LegacyKeyValueFormat", "FROM a\nENV A b", &["ENV A b"]),
    ("LegacyKeyValueFormat", "FROM a\nLABEL A b=c", &["LABEL A b=c"]),
    ("LegacyKeyValueFormat", "FROM a\nENV A=b", &[]),
    ("RedundantTargetPlatform", "FROM --platform=$TARGETPLATFORM a", &["$TARGETPLATFORM"]),
    ("RedundantTargetPlatform", "FROM --platform=${TARGETPLATFORM} a", &["${TARGETPLATFORM}"]),
    ("RedundantTargetPlatform", "ARG TARGETPLATFORM\nFROM --platform=$TARGETPLATFORM a", &["$TARGETPLATFORM"]),
    (
        "RedundantTargetPlatform",
        "ARG TARGETPLATFORM=linux/s390x\nFROM --platform=$TARGETPLATFORM a",
        &["$TARGETPLATFORM"],
    ),
    ("RedundantTargetPlatform", "FROM --platform=$BUILDPLATFORM a\nFROM b", &[]),
    ("RedundantTargetPlatform", "ARG X=\nFROM --platform=$TARGETPLATFORM$X a", &[]),
    ("SecretsUsedInArgOrEnv", "FROM a\nARG GITHUB_TOKEN", &["GITHUB_TOKEN"]),
    ("SecretsUsedInArgOrEnv", "FROM a\nENV API_KEY=x DB_PASSWORD=y", &["API_KEY", "DB_PASSWORD"]),
    ("SecretsUsedInArgOrEnv", "FROM a\nARG auth", &["auth"]),
    ("SecretsUsedInArgOrEnv", "FROM a\nARG KEYBOARD PUBLIC_KEY TOKENS\nENV AUTHOR=x", &[]),
    ("SecretsUsedInArgOrEnv", "ARG GITHUB_TOKEN\nFROM a\nENV GPG_KEY_FILE=/x TOKEN_VERSION=2", &[]),
    ("InvalidDefaultArgInFrom", "ARG V\nFROM $V", &["$V"]),
    ("InvalidDefaultArgInFrom", "ARG V\nFROM a:$V", &["a:$V"]),
    ("InvalidDefaultArgInFrom", "ARG V=1\nFROM a:$V", &[]),
    ("InvalidDefaultArgInFrom", "FROM a AS Build\nFROM Build", &[]),
    (
        "InvalidDefaultArgInFrom",
        "FROM localhost:5000/a/b:1\nFROM x.y/z\nFROM c@sha256:0123456789abcdef0123456789abcdef",
        &[],
    ),
    ("FromPlatformFlagConstDisallowed", "FROM --platform=linux/amd64 a", &["linux/amd64"]),
    ("FromPlatformFlagConstDisallowed", "FROM --platform=linux/amd64 a AS build_amd64", &[]),
    ("FromPlatformFlagConstDisallowed", "FROM --platform=arm64 a AS for-linux", &[]),
    ("FromPlatformFlagConstDisallowed", "FROM --platform=$BUILDPLATFORM a", &[]),
    ("FromPlatformFlagConstDisallowed", "ARG BUILDPLATFORM\nFROM --platform=$BUILDPLATFORM a", &[]),
    ("ExposeProtoCasing", "FROM a\nEXPOSE 80/TCP 81/tcp", &["80/TCP"]),
    ("ExposeProtoCasing", "FROM a\nEXPOSE 80/udp 81", &[]),
    ("ExposeInvalidFormat", "FROM a\nEXPOSE 127.0.0.1:80:80 81:82", &["127.0.0.1:80:80", "81:82"]),
    ("ExposeInvalidFormat", "FROM a\nEXPOSE [::1]:80:80/tcp", &["[::1]:80:80/tcp"]),
    ("ExposeInvalidFormat", "FROM a\nEXPOSE 80 81-90/tcp :80", &[]),
    ("CopyAllBeforeInstall", "FROM a\nCOPY . .\nRUN pip install -r requirements.txt", &["COPY . ."]),
    ("CopyAllBeforeInstall", "FROM a\nADD ./ /x\nRUN npm ci", &["ADD ./ /x"]),
    ("CopyAllBeforeInstall", "FROM a\nCOPY . .\nRUN apt-get update && apt-get install -y x", &["COPY . ."]),
    ("CopyAllBeforeInstall", "FROM a\nCOPY requirements.txt .\nRUN pip install -r requirements.txt\nCOPY . .", &[]),
    ("CopyAllBeforeInstall", "FROM a\nCOPY . .\nRUN pip install --no-cache-dir .", &[]),
    ("CopyAllBeforeInstall", "FROM a\nCOPY . .\nRUN make\nFROM b\nRUN npm ci\nCOPY --from=0 . .", &[]),
    ("CopyAllBeforeInstall", "FROM a\nCOPY . .\nRUN cd x && uv sync --frozen", &["COPY . ."]),
    ("AptUpdateAlone", "FROM a\nRUN apt-get update\nRUN apt-get install -y x", &["RUN apt-get update"]),
    ("AptUpdateAlone", "FROM a\nRUN apt-get update\nRUN apt-get update && apt-get install -y x", &[]),
    ("AptUpdateAlone", "FROM a\nRUN apt-get update\nFROM b\nRUN apt-get install -y x", &[]),
    ("InstallWithoutYes", "FROM a\nRUN apt-get install x", &["RUN apt-get install x"]),
    ("InstallWithoutYes", "FROM a\nRUN dnf -q install x && rm -y", &["RUN dnf -q install x && rm -y"]),
    (
        "InstallWithoutYes",
        "FROM a\nRUN apt-get -qy install x && apt install x --yes && yum install -y x && apt-get -y update",
        &[],
    ),
    ("InstallWithoutYes", "FROM a\nRUN apt-get -o APT::Get::Assume-Yes=true install x\nRUN echo apt-get update", &[]),
    ("ChangingArgEarly", "FROM a\nARG GIT_SHA\nRUN pip install -r x", &["GIT_SHA"]),
    ("ChangingArgEarly", "FROM a\nARG X=1 BUILD_DATE\nRUN apk add --no-cache x", &["BUILD_DATE"]),
    ("ChangingArgEarly", "FROM a\nRUN pip install -r x\nARG GIT_SHA\nRUN echo $GIT_SHA", &[]),
    ("ChangingArgEarly", "ARG GIT_SHA\nFROM a\nARG VERSION\nRUN pip install -r x", &[]),
    ("RemoteFileUnchecked", "FROM a\nADD https://x.y/z.tar.gz /", &["https://x.y/z.tar.gz"]),
    (
        "RemoteFileUnchecked",
        "FROM a\nADD --checksum=sha256:0 https://x.y/z /\nADD https://x.y/z.git#main /\nADD z /",
        &[],
    ),
    (
        "PackageCacheInLayer",
        "FROM a\nRUN apt-get update && apt-get install -y x",
        &["RUN apt-get update && apt-get install -y x"],
    ),
    ("PackageCacheInLayer", "FROM a\nRUN apt update", &["RUN apt update"]),
    ("PackageCacheInLayer", "FROM a\nRUN pip3 install x", &["RUN pip3 install x"]),
    ("PackageCacheInLayer", "FROM a\nRUN <<E\npip install x\nE", &["RUN <<E\npip install x\nE"]),
    ("PackageCacheInLayer", "FROM a\nRUN apk add x", &["RUN apk add x"]),
    ("PackageCacheInLayer", "FROM a\nRUN dnf -y install x", &["RUN dnf -y install x"]),
    ("PackageCacheInLayer", "FROM a\nRUN apt-get update && apt-get install -y x && rm -rf /var/lib/apt/lists/*", &[]),
    (
        "PackageCacheInLayer",
        "FROM a\nRUN --mount=type=cache,target=/var/lib/apt/lists apt-get update\nRUN apk --no-cache add x && pip install --no-cache-dir y",
        &[],
    ),
    ("PackageCacheInLayer", "FROM a\nRUN --mount=type=cache,target=/root/.cache/pip pip install x", &[]),
    ("PackageCacheInLayer", "FROM a\nENV PIP_NO_CACHE_DIR=1\nRUN pip install x", &[]),
    ("PackageCacheInLayer", "FROM a AS b\nRUN apt-get update\nFROM c\nCOPY --from=b /x /x", &[]),
    ("PackageCacheInLayer", "FROM a\nRUN npm ci", &["RUN npm ci"]),
    (
        "PackageCacheInLayer",
        "FROM a\nRUN --mount=type=cache,target=/root/.npm npm ci\nRUN npm i && npm cache clean --force",
        &[],
    ),
    ("PackageCacheInLayer", "FROM a\nRUN yarn install", &["RUN yarn install"]),
    ("PackageCacheInLayer", "FROM a\nRUN zypper -n install x", &["RUN zypper -n install x"]),
    ("PackageCacheInLayer", "FROM a\nRUN conda env create -f x", &["RUN conda env create -f x"]),
    (
        "PackageCacheInLayer",
        "FROM a\nRUN conda install -y x && conda clean -afy\nRUN zypper in -y x && zypper clean",
        &[],
    ),
    ("UnpinnedBase", "FROM a", &["a"]),
    ("UnpinnedBase", "FROM x:5000/a:latest", &["x:5000/a:latest"]),
    ("UnpinnedBase", "ARG V=latest\nFROM a:$V", &["a:$V"]),
    ("UnpinnedBase", "FROM x:5000/a", &["x:5000/a"]),
    ("UnpinnedBase", "ARG V=1\nFROM a:$V AS b\nFROM b\nFROM scratch\nFROM c@sha256:0", &[]),
    ("UnpinnedBase", "FROM localhost/a", &[]),
    ("RootUser", "FROM a", &["a"]),
    ("RootUser", "FROM a\nUSER x\nUSER root", &["root"]),
    ("RootUser", "FROM a\nUSER 0:0", &["0:0"]),
    ("RootUser", "FROM a\nUSER x", &[]),
    ("RootUser", "FROM a AS b\nUSER x\nFROM b", &[]),
    ("MissingHealthcheck", "FROM a\nCMD [\"x\"]", &["a"]),
    ("MissingHealthcheck", "FROM a\nHEALTHCHECK NONE", &[]),
    ("MissingHealthcheck", "FROM a AS b\nHEALTHCHECK CMD x\nFROM b", &[]),
    ("FrontEndIgnored", "# syntax=docker/dockerfile:1\nFROM a", &["docker/dockerfile:1"]),
    ("FrontEndIgnored", "# syntax=example/other\nFROM a", &["example/other"]),
    ("FrontEndIgnored", "# no directive\n# syntax=docker/dockerfile:1\nFROM a", &[]),
];

#[test]
fn a_front_end_of_another_language_is_a_warning() {
    let severity = |name: &str| {
        let text = format!("# syntax={name}\nFROM a\n");
        run(&text, &LintInput::default())
            .into_iter()
            .find(|finding| finding.rule == Some("FrontEndIgnored"))
            .unwrap()
            .severity
    };
    assert_eq!(severity("docker.io/docker/dockerfile:1.7-labs"), Severity::Note);
    assert_eq!(severity("docker/dockerfile-upstream"), Severity::Note);
    assert_eq!(severity("docker/dockerfiles"), Severity::Warning);
    assert_eq!(severity("example/other:1"), Severity::Warning);
}

#[test]
fn cases() {
    let mut failures = String::new();
    for (rule, text, expected) in CASES {
        let places = found(rule, text, &LintInput::default());
        if places != *expected {
            failures += &format!("\n{rule}: {text:?}\n expected {expected:?}\n    found {places:?}");
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn ignored_sources() {
    let found = |ignore: &str, text: &str| -> Vec<String> {
        let ignore = DockerIgnore::parse(ignore).expect("it is right");
        let input = LintInput { ignore: Some(&ignore), ..LintInput::default() };
        found("CopyIgnoredFile", text, &input).into_iter().map(str::to_owned).collect()
    };
    let text =
        "FROM a\nCOPY x.log /\nADD secret/y /\nCOPY vendor /v\nCOPY --from=b secret /\nADD https://x/y.log /\nCOPY z /";
    assert_eq!(found("*.log\nsecret\nvendor\n!vendor/keep\n", text), ["x.log", "secret/y"]);
    // The root itself is never a file that is left out; only patterns for everything leave nothing of it.
    assert_eq!(found("*", "FROM a\nCOPY . /\nCOPY ./ /\nCOPY x/.. /"), [".", "./", "x/.."]);
    assert_eq!(found("**/*", "FROM a\nADD / /"), ["/"]);
    assert_eq!(found("*.md\nsrc", "FROM a\nCOPY . /"), [""; 0]);
    assert_eq!(found("*\n!src", "FROM a\nCOPY . /\nCOPY src /\nCOPY src/x /\nCOPY other /"), ["other"]);
    assert_eq!(found("*\n!*/keep", "FROM a\nCOPY sub /\nCOPY sub/keep /"), [""; 0]);
    assert_eq!(
        found("secret", "FROM a\nCOPY /secret ./secret/ x/../secret /\nCOPY <<E secret /\nx\nE"),
        ["/secret", "./secret/", "x/../secret", "secret"]
    );
    let text = "FROM a\nCOPY secret /";
    let without = run(text, &LintInput::default());
    assert!(without.iter().all(|finding| finding.rule != Some("CopyIgnoredFile")));
}

#[test]
fn what_comes_along_with_the_whole_context() {
    let names = [".env", ".env.example", ".git", "Cargo.toml", "node_modules", "server.key", "src", "target"];
    let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    let found = |text: &str, ignore: &str| -> Vec<String> {
        let ignore = DockerIgnore::parse(ignore).expect("it is right");
        let input = LintInput { ignore: Some(&ignore), context_names: &names, ..LintInput::default() };
        let rules = ["GitDirInContext", "BallastInContext", "SecretFileInContext"];
        let findings =
            run(text, &input).into_iter().filter(|finding| finding.rule.is_some_and(|rule| rules.contains(&rule)));
        findings
            .map(|finding| format!("{} {}", finding.rule.expect("a rule"), finding.help.expect("a remedy")))
            .collect()
    };
    assert_eq!(
        found("FROM a\nCOPY . /\nCOPY . /again", ""),
        [
            "SecretFileInContext add `.env` to `.dockerignore`",
            "GitDirInContext add `.git` to `.dockerignore`",
            "BallastInContext add `node_modules` to `.dockerignore`",
            "SecretFileInContext add `server.key` to `.dockerignore`",
            "BallastInContext add `target` to `.dockerignore`",
        ]
    );
    assert_eq!(found("FROM a\nCOPY . /", ".git\n.env\n*.key\ntarget\nnode_modules"), [""; 0]);
    let kept = found("FROM a\nCOPY --exclude=.git --exclude=*.key . /", "**/target\n.env");
    assert_eq!(kept, ["BallastInContext add `node_modules` to `.dockerignore`"]);
    assert_eq!(found("FROM a\nCOPY src /\nCOPY --from=b . /", ""), [""; 0]);
    // Without Cargo.toml beside it `target` is a directory like any other.
    let names = ["target".to_owned()];
    let input = LintInput { context_names: &names, ..LintInput::default() };
    assert!(run("FROM a\nCOPY . /", &input).iter().all(|finding| finding.rule != Some("BallastInContext")));
}

#[test]
fn what_to_move_is_named() {
    let help = |text: &str| {
        let findings = run(text, &LintInput::default());
        let finding = findings.into_iter().find(|finding| finding.rule == Some("CopyAllBeforeInstall"));
        finding.and_then(|finding| finding.help).expect("a remedy")
    };
    assert_eq!(
        help("FROM a\nCOPY . .\nRUN apt-get  install -y gcc"),
        "move `RUN apt-get install -y gcc` above this line: it needs nothing of the context"
    );
    assert_eq!(
        help("FROM a\nCOPY . .\nRUN npm ci"),
        "copy package.json and package-lock.json first, then `RUN npm ci`, and move this line below it"
    );
}

#[test]
fn layers_are_counted_down_the_chain() {
    let text = "FROM a AS b\nRUN 1\nRUN 2\nFROM b\nENV x=y\nCOPY 3 /\nRUN 4\n";
    let input = LintInput { layer_limit: 3, ..LintInput::default() };
    assert_eq!(found("TooManyLayers", text, &input), ["RUN 4"]);
    assert_eq!(found("TooManyLayers", text, &LintInput { layer_limit: 4, ..input }), [""; 0]);
    assert_eq!(found("TooManyLayers", text, &LintInput { target: Some("b"), ..input }), [""; 0]);
}

#[test]
fn what_is_known_of_the_base_counts() {
    let known = BaseImage {
        variables: vec!["FROM_BASE".to_owned()],
        has_shell: true,
        has_healthcheck: true,
        user: Some("app".to_owned()),
        platform: "linux/arm64".to_owned(),
        wanted_platform: "linux/amd64".to_owned(),
    };
    let lookup = |image: &str, platform: Option<&str>| {
        (image == "known:1").then(|| match platform {
            Some(platform) => BaseImage { wanted_platform: platform.to_owned(), ..known.clone() },
            None => known.clone(),
        })
    };
    let input = LintInput { base: Some(&lookup), ..LintInput::default() };
    assert_eq!(found("UndefinedVar", "FROM known:1\nENV A=$FROM_BASE B=$LANG", &input), ["$LANG"]);
    assert_eq!(found("UndefinedVar", "FROM other:1\nENV B=$LANG", &input), [""; 0]);
    assert_eq!(found("InvalidBaseImagePlatform", "FROM known:1\nFROM other:1", &input), ["known:1"]);
    let arm = "ARG P=linux/arm64\nFROM --platform=$P known:1";
    assert_eq!(found("InvalidBaseImagePlatform", arm, &input), [""; 0]);
    let text = "FROM known:1 AS a\nFROM a\nCMD x\n";
    let names: Vec<&str> = run(text, &input).iter().filter_map(|finding| finding.rule).collect();
    assert_eq!(names, ["InvalidBaseImagePlatform"]);
    let root = BaseImage { user: Some("0".to_owned()), ..BaseImage::default() };
    let lookup = |_: &str, _: Option<&str>| Some(root.clone());
    let input = LintInput { base: Some(&lookup), ..LintInput::default() };
    assert_eq!(found("RootUser", "FROM known:1", &input), ["known:1"]);
    assert_eq!(found("RootUser", "FROM known:1\nUSER x", &input), [""; 0]);
}

#[test]
fn build_arguments_count() {
    let build_args = [("V".to_owned(), "1".to_owned())];
    let input = LintInput { build_args: &build_args, ..LintInput::default() };
    assert_eq!(found("UnpinnedBase", "ARG V=latest\nFROM a:$V", &input), [""; 0]);
    // Defaults are judged without build arguments.
    assert_eq!(found("InvalidDefaultArgInFrom", "ARG V\nFROM a:$V", &input), ["a:$V"]);
}

#[test]
fn a_build_meets_the_stages_that_it_needs() {
    let text =
        "FROM x:1 AS a\nCMD a\nFROM x:1 AS B\nCMD b\nFROM x:1 AS c\nCMD c\nFROM a\nRUN --mount=from=c,target=/c x\n";
    let found = |input: &LintInput<'_>| found("JSONArgsRecommended", text, input);
    assert_eq!(found(&LintInput::default()), ["CMD a", "CMD b", "CMD c"]);
    let needed = LintInput { only_needed_stages: true, ..LintInput::default() };
    assert_eq!(found(&needed), ["CMD a", "CMD c"]);
    assert_eq!(found(&LintInput { target: Some("b"), ..needed }), ["CMD b"]);
    // What is about the file is met while reading it.
    assert!(run(text, &needed).iter().any(|finding| finding.rule == Some("StageNameCasing")));
}

#[test]
fn descriptions_are_checked_on_demand() {
    let rule = "InvalidDefinitionDescription";
    let text = "# a thing\nARG foo=1\n# foo is\nARG foo\n# free\n\nARG bar\n# the base\nFROM a AS b\n";
    assert_eq!(found(rule, text, &LintInput::default()), [""; 0]);
    let input = LintInput { experimental: true, ..LintInput::default() };
    assert_eq!(found(rule, text, &input), ["# a thing", "# the base"]);
    let asked = format!("# check=experimental={rule}\n{text}");
    assert_eq!(found(rule, &asked, &LintInput::default()), ["# a thing", "# the base"]);
}

#[test]
fn a_tag_is_no_digest() {
    let input = LintInput { experimental: true, ..LintInput::default() };
    let text = "FROM a:1\nFROM b:2@sha256:0\nFROM c\nFROM localhost/d:1\nFROM scratch";
    assert_eq!(found("BaseWithoutDigest", text, &input), ["a:1"]);
    assert_eq!(found("BaseWithoutDigest", text, &LintInput::default()), [""; 0]);
}

#[test]
fn check_directive() {
    let text = "FROM a\nCMD x\nMAINTAINER y\n";
    let rules = |directive: &str| {
        let text = format!("# check={directive}\n{text}");
        let findings = run(&text, &LintInput::default());
        findings.iter().map(|finding| finding.rule.unwrap_or(finding.code)).collect::<Vec<_>>()
    };
    assert_eq!(
        rules("error=false"),
        ["UnpinnedBase", "RootUser", "MissingHealthcheck", "JSONArgsRecommended", "MaintainerDeprecated"]
    );
    assert_eq!(rules("skip=all"), [""; 0]);
    assert_eq!(
        rules("skip=UnpinnedBase, RootUser,missinghealthcheck,JSONArgsRecommended;error=true"),
        ["MaintainerDeprecated"]
    );
    // A code does as well as a name.
    assert_eq!(rules("skip=st254,ST255,ST256"), ["JSONArgsRecommended", "MaintainerDeprecated"]);
    // `skip` does not touch what is asked for.
    assert_eq!(rules("skip=all;experimental=MaintainerDeprecated"), ["MaintainerDeprecated"]);
    assert_eq!(rules("skip=all;experimental=UnpinnedBase,BaseWithoutDigest"), ["UnpinnedBase"]);
    assert_eq!(rules("skip=all;nope=1"), ["ST110"]);
    assert_eq!(rules("skip=all;error=maybe"), ["ST110"]);
    assert_eq!(rules("skip=all,MaintainerDeprecatd"), ["ST110"]);
    let raised = format!("# check=error=true\n{text}");
    let findings = run(&raised, &LintInput::default());
    assert_eq!(worst(&findings), Some(Severity::Error));
    let severity = |rule| findings.iter().find(|finding| finding.rule == Some(rule)).map(|finding| finding.severity);
    assert_eq!(severity("JSONArgsRecommended"), Some(Severity::Error));
    assert_eq!(severity("RootUser"), Some(Severity::Note));
    // What BuildKit does not check does not stop a build that BuildKit makes.
    assert_eq!(severity("UnpinnedBase"), Some(Severity::Warning));
}

#[test]
fn the_build_argument_replaces_the_directive() {
    let text = "# check=skip=all\nFROM a:1\nCMD x\nMAINTAINER y\n";
    let rules = |value: &str| {
        let build_args = [("BUILDKIT_DOCKERFILE_CHECK".to_owned(), value.to_owned())];
        let findings = run(text, &LintInput { build_args: &build_args, ..LintInput::default() });
        findings.iter().map(|finding| finding.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(rules("skip=all"), [""; 0]);
    assert_eq!(
        rules("skip=RootUser,MissingHealthcheck,JSONArgsRecommended;error=true"),
        ["error[ST208]: maintainer instruction is deprecated in favor of using label"]
    );
    assert_eq!(
        rules("skip=all;what=1"),
        ["error[ST110]: build argument BUILDKIT_DOCKERFILE_CHECK: there is no check option `what`"]
    );
}

#[test]
fn suggestions() {
    let label = |text: &str, rule: &str| {
        let findings = run(text, &LintInput::default());
        findings.into_iter().find(|finding| finding.rule == Some(rule)).expect("a finding").label
    };
    let label_of_var = label("FROM a\nARG version=1\nENV X=$verison", "UndefinedVar");
    assert_eq!(label_of_var.as_deref(), Some("did you mean `$version`?"));
    let label_of_arg = label("ARG VERSION=1\nFROM a:$VERSOIN", "UndefinedArgInFrom");
    assert_eq!(label_of_arg.as_deref(), Some("did you mean `VERSION`?"));
}

#[test]
fn a_good_file_has_no_findings() {
    let text = "ARG PYTHON=3.12\nFROM python:${PYTHON}-slim AS build\nWORKDIR /app\n\
                COPY requirements.txt .\nRUN pip install --no-cache-dir -r requirements.txt\nCOPY . .\n\n\
                FROM build\nARG PORT=8080\nENV PORT=$PORT PATH=/app/bin:$PATH\nEXPOSE $PORT\nUSER 1000\n\
                HEALTHCHECK --interval=2s CMD [\"/app/check\"]\nENTRYPOINT [\"python\", \"-m\", \"app\"]\n";
    assert_eq!(run(text, &LintInput::default()), []);
}

#[test]
fn tables_are_whole() {
    let buildkit = RULES.iter().filter(|rule| rule.is_buildkit).count();
    assert_eq!(buildkit, 22);
    let url = |name: &str| explain(name).and_then(|rule| rule.url()).unwrap_or_default();
    let page = |slug: &str| format!("https://docs.docker.com/go/dockerfile/rule/{slug}/");
    assert_eq!(url("JSONArgsRecommended"), page("json-args-recommended"));
    assert_eq!(url("StageNameCasing"), page("stage-name-casing"));
    assert_eq!(url("SecretsUsedInArgOrEnv"), page("secrets-used-in-arg-or-env"));
    assert_eq!(url("FromAsCasing"), page("from-as-casing"));
    assert_eq!((url("InvalidBaseImagePlatform"), url("RootUser")), (String::new(), String::new()));
    for pair in RULES.windows(2) {
        assert!(pair[0].code < pair[1].code);
    }
    for pair in codes::ALL.windows(2) {
        assert!(pair[0].0 < pair[1].0);
    }
    for rule in RULES {
        assert!(!rule.docs.is_empty() && !rule.title.starts_with(' '));
        let is_tested = CASES.iter().any(|(name, ..)| *name == rule.name);
        let elsewhere = [
            "BallastInContext",
            "BaseWithoutDigest",
            "CopyIgnoredFile",
            "GitDirInContext",
            "InvalidBaseImagePlatform",
            "InvalidDefinitionDescription",
            "SecretFileInContext",
            "TooManyLayers",
        ];
        assert!(is_tested || elsewhere.contains(&rule.name), "{}", rule.name);
    }
    assert_eq!(explain("undefinedvar").map(|rule| rule.code), Some("ST211"));
    assert_eq!(explain("st251").map(|rule| rule.name), Some("CopyAllBeforeInstall"));
    assert!(codes::explain("st104").is_some_and(|(title, _)| title.contains("build context")));
    assert!(codes::explain("ST999").is_none());
}
