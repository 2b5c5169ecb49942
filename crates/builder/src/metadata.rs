//! Instructions that change the image's config and no file: ENV, LABEL, CMD and their kind.

use dockerfile::{Command, Diagnostic, Healthcheck, InstructionKind, Word};
use engine::BuildError;
use oci::{Empty, ImageConfig, signal};

use crate::{
    stage::{At, State},
    variables::DEFAULT_PATH,
    work::locked,
};

/// What docker uses until SHELL says otherwise.
const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];
/// Fields that old docker versions wrote about the container that an image was made in.
const CONTAINER_FIELDS: &[&str] = &[
    "AttachStderr",
    "AttachStdin",
    "AttachStdout",
    "Domainname",
    "Hostname",
    "Image",
    "MacAddress",
    "NetworkDisabled",
    "OpenStdin",
    "StdinOnce",
    "Tty",
];
/// The same outside `config`.
const IMAGE_FIELDS: &[&str] =
    &["container", "container_config", "docker_version", "id", "parent", "moby.buildkit.buildinfo.v1"];
/// A range of ports that is longer is a slip.
const PORTS_MAX: u32 = 65535;

/// What a child takes over of its base's config.
pub(crate) fn inherit(config: &mut ImageConfig) {
    for field in CONTAINER_FIELDS {
        config.config.other.remove(*field);
    }
    for field in IMAGE_FIELDS {
        config.other.remove(*field);
    }
    config.created = None;
}

/// The shell of shell forms.
pub(crate) fn shell(config: &ImageConfig) -> Vec<String> {
    if config.config.shell.is_empty() { DEFAULT_SHELL.map(str::to_owned).to_vec() } else { config.config.shell.clone() }
}

/// Program and arguments of a command.
pub(crate) fn arguments(config: &ImageConfig, command: &Command) -> Vec<String> {
    match command {
        Command::Exec(args) => args.clone(),
        Command::Shell(text) => {
            let mut args = shell(config);
            args.push(text.clone());
            args
        }
    }
}

/// Applies the instruction to the state's config and variables.
pub(crate) fn apply(at: &At<'_>, state: &mut State) -> Result<(), BuildError> {
    match &at.instruction.kind {
        InstructionKind::Arg(declarations) => {
            // Each sees those before it, also of the same instruction, as BuildKit does.
            for declaration in declarations {
                let name = at.expand(state, &declaration.name)?;
                let default = declaration.default.as_ref().map(|word| at.expand(state, word)).transpose()?;
                let value = at.work.plan.globals.declare(&name, default);
                locked(&at.work.declared_args).insert(name.clone());
                if let Some(value) = value {
                    state.env.set(&name, &value);
                    state.args.set(&name, &value);
                }
            }
        }
        InstructionKind::Env(pairs) => {
            for (name, value) in expand_pairs(at, state, pairs)? {
                state.env.set(&name, &value);
                state.config.config.set_env(&name, &value);
            }
        }
        InstructionKind::Label(pairs) => {
            let pairs = expand_pairs(at, state, pairs)?;
            state.config.config.labels.extend(pairs);
        }
        InstructionKind::Cmd(command) => {
            state.config.config.cmd = Some(arguments(&state.config, command));
            state.is_cmd_set = true;
        }
        InstructionKind::Entrypoint(command) => {
            state.config.config.entrypoint = Some(arguments(&state.config, command));
            if !state.is_cmd_set {
                state.config.config.cmd = None;
            }
        }
        InstructionKind::Expose(ports) => {
            for word in ports {
                for port in at.expand_words(state, word)? {
                    for port in expand_ports(&port).ok_or_else(|| {
                        let message = format!("`{port}` is not a port");
                        let help = "a port is written `80`, `80/udp` or `8000-8010/tcp`";
                        at.invalid(Diagnostic::error("ST123", message).with_help(help), Some(&word.span))
                    })? {
                        state.config.config.exposed_ports.insert(port, Empty {});
                    }
                }
            }
        }
        InstructionKind::Volume(paths) => {
            for word in paths {
                let path = at.expand(state, word)?;
                if path.is_empty() {
                    let message = "a volume's path is empty after expansion";
                    return Err(at.invalid(Diagnostic::error("ST123", message), Some(&word.span)));
                }
                state.config.config.volumes.insert(path, Empty {});
            }
        }
        InstructionKind::User(word) => {
            let user = at.expand(state, word)?;
            if user.is_empty() {
                return Err(
                    at.invalid(Diagnostic::error("ST123", "the user is empty after expansion"), Some(&word.span))
                );
            }
            state.config.config.user = user;
        }
        InstructionKind::Stopsignal(word) => {
            let signal = at.expand(state, word)?;
            if signal::parse(&signal).is_none() {
                let message = format!("`{signal}` is not a signal");
                return Err(at.invalid(Diagnostic::error("ST123", message), Some(&word.span)));
            }
            state.config.config.stop_signal = signal;
        }
        InstructionKind::Shell(shell) => state.config.config.shell.clone_from(shell),
        InstructionKind::Maintainer(word) => state.config.author = Some(word.raw.clone()),
        InstructionKind::Onbuild { trigger, .. } => state.config.config.on_build.push(trigger.clone()),
        InstructionKind::Healthcheck(check) => state.config.config.healthcheck = Some(healthcheck(at, state, check)?),
        InstructionKind::Add(_) | InstructionKind::Copy(_) | InstructionKind::Run(_) | InstructionKind::Workdir(_) => {
            unreachable!("the stage makes layers itself")
        }
    }
    Ok(())
}

/// Pairs see the variables as they were before the instruction (Dockerfile reference, "Environment replacement").
fn expand_pairs(at: &At<'_>, state: &State, pairs: &[(Word, Word)]) -> Result<Vec<(String, String)>, BuildError> {
    pairs.iter().map(|(name, value)| Ok((at.expand(state, name)?, at.expand(state, value)?))).collect()
}

fn healthcheck(at: &At<'_>, state: &State, check: &Healthcheck) -> Result<oci::Healthcheck, BuildError> {
    let Healthcheck::Cmd { interval, timeout, start_period, start_interval, retries, command } = check else {
        return Ok(oci::Healthcheck { test: vec!["NONE".into()], ..oci::Healthcheck::default() });
    };
    let nanoseconds = |word: &Option<Word>| -> Result<u64, BuildError> {
        let Some(word) = word else { return Ok(0) };
        let text = at.expand(state, word)?;
        let duration = dockerfile::parse_duration(&text).ok_or_else(|| {
            at.invalid(Diagnostic::error("ST115", format!("`{text}` is not a duration")), Some(&word.span))
        })?;
        Ok(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    };
    let retries = match retries {
        None => 0,
        Some(word) => at.expand(state, word)?.parse().map_err(|_| {
            at.invalid(Diagnostic::error("ST115", format!("`{}` is not a number", word.raw)), Some(&word.span))
        })?,
    };
    let test = match command {
        Command::Shell(text) => vec!["CMD-SHELL".to_owned(), text.clone()],
        Command::Exec(args) => std::iter::once("CMD".to_owned()).chain(args.iter().cloned()).collect(),
    };
    Ok(oci::Healthcheck {
        test,
        interval: nanoseconds(interval)?,
        timeout: nanoseconds(timeout)?,
        start_period: nanoseconds(start_period)?,
        start_interval: nanoseconds(start_interval)?,
        retries,
    })
}

/// `80`, `80/udp`, `8000-8010`, with docker's forgotten host part before a colon left out.
fn expand_ports(text: &str) -> Option<Vec<String>> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let ports = ports.rsplit(':').next()?;
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return None;
    }
    let number = |text: &str| text.parse::<u32>().ok().filter(|port| *port <= PORTS_MAX);
    let (first, last) = match ports.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(ports)?, number(ports)?),
    };
    (first <= last).then(|| (first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// The environment of a command: the stage's variables and a PATH.
pub(crate) fn environment(state: &State) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> =
        state.env.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    if state.env.get("PATH").is_none() {
        env.push(("PATH".into(), DEFAULT_PATH.into()));
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_signals_are_read_as_docker_does() {
        assert_eq!(expand_ports("80"), Some(vec!["80/tcp".into()]));
        assert_eq!(expand_ports("53/UDP"), Some(vec!["53/udp".into()]));
        assert_eq!(expand_ports("1-3").map(|ports| ports.len()), Some(3));
        assert_eq!(expand_ports("8080:80"), Some(vec!["80/tcp".into()]));
        for wrong in ["", "x", "3-1", "70000", "80/icmp"] {
            assert_eq!(expand_ports(wrong), None, "{wrong}");
        }
        for signal in ["SIGTERM", "term", "9", "RTMIN+3"] {
            assert!(signal::parse(signal).is_some(), "{signal}");
        }
        for wrong in ["", "0", "65", "SIGNOPE"] {
            assert!(signal::parse(wrong).is_none(), "{wrong}");
        }
    }
}
