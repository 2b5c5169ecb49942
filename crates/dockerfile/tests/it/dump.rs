//! A Dockerfile as short text, so that tables can say what they expect.

use dockerfile::{Command, CopyLike, Dockerfile, Healthcheck, Heredoc, InstructionKind, MountKind, Run, Word, parse};

/// What parsing gives: one line an instruction, or the codes of the errors.
pub(crate) fn outcome(text: &str) -> String {
    match parse(text) {
        Ok(file) => dockerfile(&file),
        Err(problems) => {
            let errors = problems.iter().filter(|problem| problem.is_error());
            errors.map(|problem| problem.code).collect::<Vec<_>>().join(" ")
        }
    }
}

/// Compares each case, and shows all that differ.
pub(crate) fn check(cases: &[(&str, &str, &str)]) {
    let mut failures = String::new();
    for (name, text, expected) in cases {
        let found = outcome(text);
        if found != *expected {
            failures += &format!("\n== {name}\n{text:?}\nexpected {expected:?}\n   found {found:?}\n");
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

fn dockerfile(file: &Dockerfile) -> String {
    let mut lines = Vec::new();
    for arg in &file.global_args {
        lines.push(format!("ARG {}", declaration(&arg.name, arg.default.as_ref())));
    }
    for stage in &file.stages {
        let mut line = format!("FROM {}", stage.base.raw);
        line += &option("platform", stage.platform.as_ref());
        line += &option("as", stage.name.as_ref());
        lines.push(line);
        lines.extend(stage.instructions.iter().map(|instruction| kind(&instruction.kind)));
    }
    lines.join("; ")
}

fn declaration(name: &Word, default: Option<&Word>) -> String {
    default.map_or_else(|| name.raw.clone(), |default| format!("{}={}", name.raw, default.raw))
}

fn option(name: &str, value: Option<&Word>) -> String {
    value.map_or_else(String::new, |value| format!(" {name}={}", value.raw))
}

fn pairs(pairs: &[(Word, Word)]) -> String {
    pairs.iter().map(|(name, value)| format!("({})=({})", name.raw, value.raw)).collect::<Vec<_>>().join(" ")
}

fn words(words: &[Word]) -> String {
    words.iter().map(|word| format!("({})", word.raw)).collect::<Vec<_>>().join(" ")
}

fn command(command: &Command) -> String {
    match command {
        Command::Shell(text) => format!("sh({text})"),
        Command::Exec(words) => format!("{words:?}"),
    }
}

fn heredoc(heredoc: &Heredoc) -> String {
    let expand = if heredoc.expand { "" } else { " raw" };
    format!(" <{}{expand}: {:?}>", heredoc.name, heredoc.content)
}

fn copy_like(copy: &CopyLike) -> String {
    let mut text = words(&copy.sources);
    text.extend(copy.heredocs.iter().map(heredoc));
    text += &format!(" -> ({})", copy.dest.raw);
    text += &option("from", copy.from.as_ref());
    text += &option("chown", copy.chown.as_ref());
    text += &option("chmod", copy.chmod.as_ref());
    text += &option("checksum", copy.checksum.as_ref());
    for (name, is_set) in [("link", copy.link), ("parents", copy.parents), ("keep-git-dir", copy.keep_git_dir)] {
        if is_set {
            text += &format!(" {name}");
        }
    }
    if let Some(unpack) = copy.unpack {
        text += &format!(" unpack={unpack}");
    }
    text.extend(copy.exclude.iter().map(|pattern| format!(" exclude={}", pattern.raw)));
    text.trim_start().to_owned()
}

fn run(run: &Run) -> String {
    let mut text = String::new();
    for mount in &run.mounts {
        let kind = match mount.kind {
            MountKind::Bind => "bind",
            MountKind::Cache => "cache",
            MountKind::Tmpfs => "tmpfs",
            MountKind::Secret => "secret",
            MountKind::Ssh => "ssh",
        };
        let options = mount.options.iter().map(|(name, value)| format!(",{}", declaration(name, value.as_ref())));
        text += &format!("mount:{kind}{} ", options.collect::<String>());
    }
    text += &command(&run.command);
    text += &option("network", run.network.as_ref());
    text += &option("security", run.security.as_ref());
    text.extend(run.devices.iter().map(|device| format!(" device={}", device.raw)));
    text.extend(run.script.iter().map(|script| format!(" script{}", heredoc(script))));
    text.extend(run.heredocs.iter().map(heredoc));
    text
}

fn healthcheck(healthcheck: &Healthcheck) -> String {
    let Healthcheck::Cmd { interval, timeout, start_period, start_interval, retries, command: test } = healthcheck
    else {
        return "NONE".to_owned();
    };
    let mut text = command(test);
    for (name, value) in [
        ("interval", interval),
        ("timeout", timeout),
        ("start-period", start_period),
        ("start-interval", start_interval),
        ("retries", retries),
    ] {
        text += &option(name, value.as_ref());
    }
    text
}

fn kind(kind: &InstructionKind) -> String {
    match kind {
        InstructionKind::Add(copy) => format!("ADD {}", copy_like(copy)),
        InstructionKind::Arg(args) => {
            let args = args.iter().map(|arg| declaration(&arg.name, arg.default.as_ref()));
            format!("ARG {}", args.collect::<Vec<_>>().join(" "))
        }
        InstructionKind::Cmd(test) => format!("CMD {}", command(test)),
        InstructionKind::Copy(copy) => format!("COPY {}", copy_like(copy)),
        InstructionKind::Entrypoint(test) => format!("ENTRYPOINT {}", command(test)),
        InstructionKind::Env(env) => format!("ENV {}", pairs(env)),
        InstructionKind::Expose(ports) => format!("EXPOSE {}", words(ports)),
        InstructionKind::Healthcheck(check) => format!("HEALTHCHECK {}", healthcheck(check)),
        InstructionKind::Label(labels) => format!("LABEL {}", pairs(labels)),
        InstructionKind::Maintainer(name) => format!("MAINTAINER ({})", name.raw),
        InstructionKind::Onbuild { trigger, instruction } => {
            format!("ONBUILD {trigger:?} = {}", self::kind(&instruction.kind))
        }
        InstructionKind::Run(command) => format!("RUN {}", run(command)),
        InstructionKind::Shell(words) => format!("SHELL {words:?}"),
        InstructionKind::Stopsignal(signal) => format!("STOPSIGNAL ({})", signal.raw),
        InstructionKind::User(user) => format!("USER ({})", user.raw),
        InstructionKind::Volume(paths) => format!("VOLUME {}", words(paths)),
        InstructionKind::Workdir(path) => format!("WORKDIR ({})", path.raw),
    }
}
