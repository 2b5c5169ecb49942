//! `seatrial exec`: a process in a running service.

use std::{io::IsTerminal as _, os::fd::AsFd as _};

use anyhow::Context as _;

use super::solution::owner;
use crate::{
    context::Context,
    exit::Exit,
    failure::Failure,
    solution::{
        client::Answering,
        protocol::{self, Answer, Request},
        source::ProjectArgs,
    },
};

/// Flags of `seatrial exec`.
#[derive(Debug, clap::Args)]
pub(crate) struct ExecArgs {
    /// Service
    service: String,
    /// Command with its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
    /// Do not wait for it, nor show what it says
    #[arg(short, long)]
    detach: bool,
    /// Variable for the environment; without `=`, ours
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// User and group, as names or numbers
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Which one, of several containers of the service
    #[arg(long, value_name = "NUMBER")]
    index: Option<u32>,
    /// Without a terminal, even if we have one
    #[arg(short = 'T', long = "no-tty")]
    no_tty: bool,
    /// What docker needs to be told, and happens here anyway
    #[arg(short, long, hide = true)]
    interactive: bool,
    #[arg(short, long, hide = true)]
    tty: bool,
    #[command(flatten)]
    project: ProjectArgs,
}

/// Runs a command in a service; its exit code is ours.
pub(crate) fn run(args: &ExecArgs, context: &Context) -> anyhow::Result<Exit> {
    let (_, stream) = owner(&args.project, context)?;
    let request = protocol::Exec {
        service: args.service.clone(),
        number: args.index,
        command: args.command.clone(),
        env: args.env.iter().map(|given| variable(given)).collect(),
        user: args.user.clone(),
        workdir: args.workdir.clone(),
        terminal: None,
        detached: args.detach,
    };
    inside(stream, request, !args.no_tty)
}

/// `NAME=value`; without a value, ours.
pub(super) fn variable(given: &str) -> (String, String) {
    match given.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (given.to_owned(), std::env::var(given).unwrap_or_default()),
    }
}

/// Starts a process on our streams, or on our terminal where we have one, and waits for it.
pub(super) fn inside(
    stream: std::os::unix::net::UnixStream,
    mut request: protocol::Exec,
    may_have_terminal: bool,
) -> anyhow::Result<Exit> {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let is_terminal = may_have_terminal && !request.detached && stdin.is_terminal();
    request.terminal = engine_embedded::terminal::size().filter(|_| is_terminal);
    if request.terminal.is_some() {
        request.env.insert(0, ("TERM".into(), std::env::var("TERM").unwrap_or_else(|_| "xterm".into())));
    }
    // Keys that are typed before the process is there are its own.
    let _quiet = request.terminal.is_some().then(engine_embedded::terminal::quiet);
    let fds = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    let fds = if request.terminal.is_some() || request.detached { &[][..] } else { &fds[..] };
    let mut answering = Answering::call(stream, Request::Exec(Box::new(request)), fds)?;
    loop {
        match answering.next()? {
            Some(Answer::Terminal) => {
                let master = answering.take_fds().pop().context("the terminal did not come along")?;
                engine_embedded::terminal::relay(&master);
            }
            Some(Answer::Exit(code)) => return Ok(Exit::Command(code)),
            Some(_) => {}
            None => return Err(Failure::surroundings("the container has ended").into()),
        }
    }
}
