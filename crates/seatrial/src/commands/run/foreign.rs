//! For those who look for `docker run`: what does here what they mean.

use std::ffi::OsString;

use clap::error::{ContextKind, ErrorKind};

use super::{PipelineArgs, prepare};
use crate::{context::Context, failure::Failure, settings::find_pipeline_file};

/// Flags of docker's `run` that take a value as the next word.
const WITH_VALUE: [&str; 24] = [
    "-e",
    "--env",
    "--env-file",
    "-v",
    "--volume",
    "-p",
    "--publish",
    "--name",
    "-w",
    "--workdir",
    "-u",
    "--user",
    "--entrypoint",
    "--network",
    "--net",
    "--mount",
    "-h",
    "--hostname",
    "-m",
    "--memory",
    "--platform",
    "--restart",
    "-l",
    "--label",
];
/// Of them, those that `shell` has as well, with its name.
const OF_SHELL: [(&str, &str); 8] = [
    ("-e", "-e"),
    ("--env", "-e"),
    ("-w", "-w"),
    ("--workdir", "-w"),
    ("-u", "-u"),
    ("--user", "-u"),
    ("--network", "--network"),
    ("--net", "--network"),
];
/// Who says one of these wants a container that stays.
const STAYING: [&str; 8] = ["-d", "--detach", "-p", "--publish", "-P", "-v", "--volume", "--restart"];
/// Options of the program itself that take a value as the next word.
const GLOBAL: [&str; 3] = ["-C", "--directory", "--home"];

/// Refuses an image where the pipeline has no several images that could be meant.
pub(super) fn refuse_image(args: &PipelineArgs, words: &[String], context: &Context) -> anyhow::Result<()> {
    let has_several = match prepare(context, args.file.as_ref(), None) {
        Ok(prepared) => !prepared.plan.images.is_empty(),
        Err(_) => find_pipeline_file(&context.settings.cwd).is_some(),
    };
    if has_several {
        return Ok(());
    }
    let failure = Failure::usage("`seatrial run` runs the pipeline of a repository, and takes no image");
    Err(Docker::of(words).hints().into_iter().fold(failure, Failure::hint).into())
}

/// What helps whoever typed `run` as with docker, and heard of a flag that is not there. Nothing for other mistakes.
pub(crate) fn hints(error: &clap::Error, arguments: &[OsString]) -> Vec<String> {
    // A flag that is like one of ours is a slip.
    if error.kind() != ErrorKind::UnknownArgument || error.get(ContextKind::SuggestedArg).is_some() {
        return Vec::new();
    }
    let words: Vec<String> = arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let mut at = 1;
    while let Some(word) = words.get(at).filter(|word| word.starts_with('-')) {
        at += if GLOBAL.contains(&word.as_str()) { 2 } else { 1 };
    }
    match words.get(at..) {
        Some([command, rest @ ..]) if command == "run" => {
            let docker = Docker::of(rest);
            if docker.image.is_some() { docker.hints() } else { Vec::new() }
        }
        _ => Vec::new(),
    }
}

/// `docker run [FLAGS] IMAGE [COMMAND…]`.
#[derive(Debug, Default)]
struct Docker<'a> {
    image: Option<&'a str>,
    command: &'a [String],
    /// As `shell` takes them.
    flags: Vec<&'a str>,
    stays: bool,
}

impl<'a> Docker<'a> {
    fn of(words: &'a [String]) -> Self {
        let mut docker = Self::default();
        let mut at = 0;
        while let Some(word) = words.get(at) {
            at += 1;
            if !word.starts_with('-') {
                docker.image = Some(word);
                docker.command = &words[at..];
                break;
            }
            let (flag, value) = word.split_once('=').map_or((word.as_str(), None), |(flag, value)| (flag, Some(value)));
            let value = value.or_else(|| {
                let next = words.get(at).filter(|_| WITH_VALUE.contains(&flag))?;
                at += 1;
                Some(next.as_str())
            });
            docker.stays |= STAYING.contains(&flag);
            let ours = OF_SHELL.iter().find(|(theirs, _)| *theirs == flag);
            if let (Some((_, ours)), Some(value)) = (ours, value) {
                docker.flags.extend([*ours, value]);
            }
        }
        docker
    }

    fn hints(&self) -> Vec<String> {
        let mut words = vec!["seatrial", "shell"];
        words.extend(&self.flags);
        words.extend(self.image);
        if self.command.first().is_some_and(|word| word.starts_with('-')) {
            words.push("--");
        }
        words.extend(self.command.iter().map(String::as_str));
        let words: Vec<String> = words.into_iter().map(quoted).collect();
        let mut hints = vec![format!("start a command in an image with `{}`", words.join(" "))];
        if self.stays {
            hints.push("keep containers, with ports and volumes, as services of a Compose file: `seatrial up`".into());
        }
        hints.push("start a command in a service that is up with `seatrial exec SERVICE COMMAND`".into());
        hints
    }
}

/// As a shell reads it back.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@=,+%".contains(c);
    match word.chars().all(is_plain) && !word.is_empty() {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}
