//! The command's side of a call.

use std::{
    io::{BufRead as _, BufReader},
    os::{
        fd::BorrowedFd,
        unix::{net::UnixStream, process::CommandExt as _},
    },
    path::Path,
    process::{Command, Stdio},
};

use anyhow::Context as _;

use super::{
    owner::{READY, TAKEN},
    place::ProjectPlace,
    protocol::{self, Answer, Call, Receiver, Request, VERSION},
};
use crate::{cli::EngineArgs, context::Context, failure::Failure, terminal};

/// How often an owner is looked for that another command starts or ends at the same moment.
const ATTEMPTS: u32 = 50;

/// A call that was made: answers come one by one.
pub(crate) struct Answering {
    receiver: Receiver,
}

impl Answering {
    /// Makes a call. Descriptors go along.
    pub(crate) fn call(stream: UnixStream, request: Request, fds: &[BorrowedFd<'_>]) -> anyhow::Result<Self> {
        protocol::send(&stream, &Call { v: VERSION, request }, fds).context("cannot speak with the project's owner")?;
        Ok(Self { receiver: Receiver::new(stream) })
    }

    /// The next answer; failures are errors. `None` when the owner has ended.
    pub(crate) fn next(&mut self) -> anyhow::Result<Option<Answer>> {
        match self.receiver.next().context("cannot hear the project's owner")? {
            Some(Answer::Failed(told)) => Err(Failure::from(told).into()),
            answer => Ok(answer),
        }
    }

    /// Descriptors that came along.
    pub(crate) fn take_fds(&mut self) -> Vec<std::os::fd::OwnedFd> {
        self.receiver.take_fds()
    }

    /// A handle by which another thread ends the call.
    pub(crate) fn hang_up(&self) -> anyhow::Result<UnixStream> {
        self.receiver.stream().try_clone().context("cannot copy a socket")
    }
}

/// The project's owner, if it has one. Where one was killed, what it left is swept first, and that is told.
pub(crate) fn find(context: &Context, project: &str) -> anyhow::Result<Option<UnixStream>> {
    let place = ProjectPlace::of(&context.settings.home, project);
    if let Some(stream) = place.connect().with_context(|| format!("cannot reach the owner of project {project}"))? {
        return Ok(Some(stream));
    }
    if place.was_killed() {
        spawn(&context.settings.home, project, &EngineArgs::default(), true)?;
        terminal::warning(&format!(
            "the process that kept project {project} up was killed; what it left was removed (volumes stay)"
        ));
    }
    Ok(None)
}

/// The project's owner, started if there is none.
pub(crate) fn find_or_start(context: &Context, project: &str, engine: &EngineArgs) -> anyhow::Result<UnixStream> {
    match find(context, project)? {
        Some(stream) => Ok(stream),
        None => start(context, project, engine),
    }
}

fn start(context: &Context, project: &str, engine: &EngineArgs) -> anyhow::Result<UnixStream> {
    let place = ProjectPlace::of(&context.settings.home, project);
    for _ in 0..ATTEMPTS {
        let word = spawn(&context.settings.home, project, engine, false)?;
        if let Some(stream) = place.connect()? {
            return Ok(stream);
        }
        // Another command's owner is about to listen, or to end.
        anyhow::ensure!(
            matches!(word.as_str(), READY | TAKEN),
            Failure::surroundings("the project's owner did not start")
        );
        std::thread::yield_now();
    }
    Err(Failure::surroundings(format!("the owner of project {project} does not answer")).into())
}

/// Starts this program again as an owner, or as one that only sweeps; its first word.
fn spawn(home: &Path, project: &str, engine: &EngineArgs, is_sweep: bool) -> anyhow::Result<String> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("seatrial").arg("--home").arg(home).args(["solution-owner", project]);
    if is_sweep {
        command.arg("--sweep");
    }
    if let Some(runtime) = &engine.runtime {
        command.arg("--runtime").arg(runtime);
    }
    for host in &engine.insecure_registry {
        command.args(["--insecure-registry", host]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().context("cannot start the project's owner")?;
    let mut word = String::new();
    let stdout = child.stdout.take().context("cannot hear the project's owner")?;
    BufReader::new(stdout).read_line(&mut word).context("cannot hear the project's owner")?;
    let word = word.trim().to_owned();
    if word != READY {
        // It has said why, and ended.
        let status = child.wait().context("cannot wait for the project's owner")?;
        anyhow::ensure!(
            word == TAKEN || status.success(),
            Failure::surroundings("the project cannot be kept up here")
                .hint("see what this machine offers: `seatrial doctor`")
        );
    }
    Ok(word)
}
