//! Files into running containers, and commands after them.

use std::{
    fs::File,
    os::{fd::AsFd as _, unix::net::UnixStream},
    path::Path,
};

use compose::Service;

use crate::{
    context::Context,
    exit::Exit,
    failure::Failure,
    solution::{
        client::Answering,
        protocol::{Answer, Exec, Move, Request},
    },
};

/// Bytes of paths that travel in one call, of which a message takes four times as many at most.
const CALL_BYTES_MAX: usize = 256 * 1024;

/// Brings files into all containers of a service, and removes there what is gone here.
pub(super) fn bring(
    call: &dyn Fn() -> anyhow::Result<UnixStream>,
    service: &Service,
    moves: &[Move],
    context: &Context,
) -> anyhow::Result<()> {
    let mut rest = moves;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|one| {
            bytes += one.from.len() + one.to.len();
            bytes <= CALL_BYTES_MAX
        });
        let (some, later) = rest.split_at(fits.count().max(1));
        let request = Request::Sync { service: service.name.clone(), moves: some.to_vec() };
        super::hear(context, call()?, request, &[])?;
        rest = later;
    }
    Ok(())
}

/// Runs a command in one of the service's containers, with our error output; its exit code.
pub(super) fn run(
    stream: UnixStream,
    service: &Service,
    number: u32,
    command: Vec<String>,
    user: Option<String>,
) -> anyhow::Result<u8> {
    let null = File::options().read(true).write(true).open(Path::new("/dev/null"))?;
    let request = Exec {
        service: service.name.clone(),
        number: Some(number),
        command,
        env: Vec::new(),
        user,
        workdir: None,
        terminal: None,
        detached: false,
    };
    let stderr = std::io::stderr();
    let fds = [null.as_fd(), null.as_fd(), stderr.as_fd()];
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
