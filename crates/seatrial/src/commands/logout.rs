//! `seatrial logout`.

use registry::Credentials;

use super::login::{DEFAULT_HOST, host_of};
use crate::{context::Context, exit::Exit, failure::Failure, terminal};

/// Flags of `seatrial logout`.
#[derive(Debug, clap::Args)]
pub(crate) struct LogoutArgs {
    /// Host of the registry
    #[arg(default_value = DEFAULT_HOST)]
    host: String,
}

/// Forgets a login wherever it is kept.
pub(crate) fn run(args: &LogoutArgs, context: &Context) -> anyhow::Result<Exit> {
    let host = host_of(&args.host);
    let places =
        context.block_on(async { Credentials::from_environment(|name| std::env::var_os(name)).erase(&host).await })?;
    let places =
        places.map_err(|error| Failure::surroundings(format!("cannot forget the login for {host}")).because(&error))?;
    terminal::message_line(&if places.is_empty() {
        format!("there was no login for {host}")
    } else {
        format!("logged out of {host}")
    });
    Ok(Exit::Passed)
}
