//! What the commands for projects that are up have in common.

use std::os::{fd::BorrowedFd, unix::net::UnixStream};

use compose::Project;

use crate::{
    context::Context,
    failure::Failure,
    solution::{
        client::{self, Answering},
        protocol::{Answer, Request},
        source::{ProjectArgs, Source},
    },
    terminal::containers::{News, Painter, Prefix},
};

/// The owner of the project that flags and files name; no project that is up is the user's mistake.
pub(super) fn owner(args: &ProjectArgs, context: &Context) -> anyhow::Result<(String, UnixStream)> {
    let name = Source::new(args, context).name()?;
    match client::find(context, &name)? {
        Some(stream) => Ok((name, stream)),
        None => Err(not_up(&name, context).into()),
    }
}

/// Nothing of this project is up.
pub(super) fn not_up(name: &str, context: &Context) -> Failure {
    let failure = Failure::refused(format!("project {name} is not up"));
    let others = crate::solution::place::all(&context.settings.home);
    match others.is_empty() {
        true => failure.hint("bring it up with `seatrial up -d`"),
        false => failure.hint(format!(
            "bring it up with `seatrial up -d`, or name one that is up: `-p {}`",
            others.join("`, `-p ")
        )),
    }
}

/// A service of the file, or the user's mistake.
pub(super) fn expect_service(project: &Project, name: &str) -> Result<(), Failure> {
    let all = project.services.iter().chain(&project.inactive);
    if all.clone().any(|service| service.name == name) {
        if project.service(name).is_none() {
            let profiles = project.inactive.iter().find(|service| service.name == name);
            let profile = profiles.and_then(|service| service.profiles.first()).cloned().unwrap_or_default();
            return Err(Failure::usage(format!("service `{name}` belongs to a profile that is not active"))
                .hint(format!("activate it with `--profile {profile}`")));
        }
        return Ok(());
    }
    let failure = Failure::usage(format!("no such service: {name}"));
    Err(match dockerfile::nearest(name, all.map(|service| service.name.as_str())) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None => failure,
    })
}

/// Makes a call and shows its news until it is done. Ctrl-C hangs up.
pub(super) fn hear(
    context: &Context,
    stream: UnixStream,
    request: Request,
    fds: &[BorrowedFd<'_>],
) -> anyhow::Result<()> {
    let mut news = News::new();
    let ends_owner = matches!(&request, Request::Down { services, .. } if services.is_empty());
    each(context, Answering::call(stream, request, fds)?, ends_owner, move |answer| news.show(answer))
}

/// Makes a call for logs and shows the lines.
pub(super) fn follow(context: &Context, stream: UnixStream, request: Request, prefix: Prefix) -> anyhow::Result<()> {
    each(context, Answering::call(stream, request, &[])?, false, lines(prefix))
}

/// Shows what containers say.
pub(super) fn lines(prefix: Prefix) -> impl FnMut(Answer) + Send + 'static {
    let mut painter = Painter::new(prefix);
    move |answer| {
        if let Answer::Lines(lines) = answer {
            painter.show(&lines);
        }
    }
}

fn each(
    context: &Context,
    mut answering: Answering,
    ends_owner: bool,
    mut show: impl FnMut(Answer) + Send + 'static,
) -> anyhow::Result<()> {
    let hang_up = answering.hang_up()?;
    let cancel = context.cancel.clone();
    context.block_on(async move {
        let listen = move || loop {
            match answering.next()? {
                None => return Ok(false),
                // An owner that ends with this call closes it when nothing of it is left.
                Some(Answer::Done) if ends_owner => {
                    while answering.next()?.is_some() {}
                    return Ok(true);
                }
                Some(Answer::Done) => return Ok(true),
                Some(answer) => show(answer),
            }
        };
        let mut listening = tokio::task::spawn_blocking(listen);
        let heard: Result<bool, anyhow::Error> = tokio::select! {
            heard = &mut listening => heard?,
            () = cancel.cancelled() => {
                // Its reader wakes up by it.
                let _ = hang_up.shutdown(std::net::Shutdown::Both);
                let _ = listening.await;
                return Err(Failure::cancelled().into());
            }
        };
        match heard? {
            true => Ok(()),
            false => Err(Failure::surroundings("the process that keeps the project up has ended")
                .hint("see what it says with `seatrial ps`")
                .into()),
        }
    })?
}

/// Takes a project down after Ctrl-C, or after its end; a second Ctrl-C kills.
pub(super) fn down(context: &Context, project: &str, is_interrupted: bool) -> anyhow::Result<()> {
    let Some(stream) = client::find(context, project)? else { return Ok(()) };
    let request = Request::Down {
        services: Vec::new(),
        volumes: Vec::new(),
        all_volumes: false,
        grace: None,
        kill_when_left: is_interrupted,
    };
    let mut answering = Answering::call(stream, request, &[])?;
    let mut news = News::new();
    // Not cancelled by the first signal, which is what brought us here.
    while let Some(answer) = answering.next()? {
        news.show(answer);
    }
    Ok(())
}
