//! Files into running containers: an archive that the container's own `tar` unpacks.

use std::{
    fs::File,
    io::Seek as _,
    os::{fd::AsFd as _, unix::net::UnixStream},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use compose::Service;

use crate::{
    exit::Exit,
    failure::Failure,
    solution::{
        client::Answering,
        protocol::{Answer, Exec, Request},
    },
};

/// Arguments of one `rm`: far below what the kernel takes.
const REMOVED_AT_ONCE: usize = 500;

/// A path of the host, and its place in the container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Move {
    pub(super) from: PathBuf,
    pub(super) to: PathBuf,
}

/// Brings files into a service's container, and removes there what is gone here.
pub(super) fn bring(
    call: &dyn Fn() -> anyhow::Result<UnixStream>,
    service: &Service,
    moves: &[Move],
) -> anyhow::Result<()> {
    let (there, gone): (Vec<&Move>, Vec<&Move>) = moves.iter().partition(|one| one.from.symlink_metadata().is_ok());
    for some in gone.chunks(REMOVED_AT_ONCE) {
        let paths = some.iter().map(|one| one.to.to_string_lossy().into_owned());
        let command = ["rm", "-rf", "--"].map(str::to_owned).into_iter().chain(paths).collect();
        expect(run(call()?, service, command, Some("root".into()), None)?, "rm", service)?;
    }
    if there.is_empty() {
        return Ok(());
    }
    let archive = pack(&there).context("cannot pack changed files")?;
    let command = ["tar", "-x", "-o", "-f", "-", "-C", "/"].map(str::to_owned).to_vec();
    expect(run(call()?, service, command, Some("root".into()), Some(&archive))?, "tar", service)
}

fn expect(code: u8, program: &str, service: &Service) -> anyhow::Result<()> {
    match code {
        0 => Ok(()),
        127 => Err(Failure::refused(format!(
            "the image of service {} has no `{program}`, which `sync` needs",
            service.name
        ))
        .hint("use `action: rebuild`, or mount the directory with `volumes`")
        .into()),
        code => Err(Failure::refused(format!("`{program}` in service {} exited {code}", service.name)).into()),
    }
}

fn pack(moves: &[&Move]) -> std::io::Result<File> {
    let mut archive = tar::Builder::new(tempfile::tempfile()?);
    archive.follow_symlinks(false);
    for Move { from, to } in moves {
        let inner = to.strip_prefix("/").unwrap_or(to);
        match archive.append_path_with_name(from, inner) {
            Ok(()) => {}
            // Gone since it was looked at; its removal is the next change.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let mut file = archive.into_inner()?;
    file.rewind()?;
    Ok(file)
}

/// Runs a command in the service's container, with our error output; its exit code.
pub(super) fn run(
    stream: UnixStream,
    service: &Service,
    command: Vec<String>,
    user: Option<String>,
    input: Option<&File>,
) -> anyhow::Result<u8> {
    let null = File::options().read(true).write(true).open(Path::new("/dev/null"))?;
    let request = Exec {
        service: service.name.clone(),
        number: None,
        command,
        env: Vec::new(),
        user,
        workdir: None,
        terminal: None,
        detached: false,
    };
    let stderr = std::io::stderr();
    let fds = [input.unwrap_or(&null).as_fd(), null.as_fd(), stderr.as_fd()];
    let mut answering = Answering::call(stream, Request::Exec(Box::new(request)), &fds)?;
    loop {
        match answering.next() {
            Ok(Some(Answer::Exit(code))) => return Ok(code),
            Ok(Some(_)) => {}
            Ok(None) => return Err(Failure::surroundings("the container has ended").into()),
            Err(error) => match error.downcast_ref::<Failure>().map(|failure| failure.exit) {
                Some(Exit::Command(code)) => return Ok(code),
                _ => return Err(error),
            },
        }
    }
}
