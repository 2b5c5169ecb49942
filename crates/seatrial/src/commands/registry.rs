//! `seatrial registry`: the embedded server.

use std::{net::SocketAddr, path::PathBuf};

use ::registry::{Server, ServerOptions};

use crate::{context::Context, exit::Exit, failure::Failure, terminal};

/// Flags of `seatrial registry`.
#[derive(Debug, clap::Args)]
pub(crate) struct RegistryArgs {
    /// Directory of the registry's content [default: `registry` beside the store]
    #[arg(value_name = "[serve] [DIR]", num_args = 0..=2)]
    words: Vec<PathBuf>,
    /// Directory of the registry's content
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Address to listen on; it has no access control, so anything but loopback opens it to everybody there
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:5000")]
    listen: SocketAddr,
}

/// Serves until a signal comes.
pub(crate) fn run(args: &RegistryArgs, context: &Context) -> anyhow::Result<Exit> {
    let directory = directory(args, context)?;
    let cancel = context.cancel.clone();
    context.block_on(async {
        let server = Server::bind(args.listen, &directory, ServerOptions::default()).await?;
        let address = server.local_addr();
        if !address.ip().is_loopback() {
            terminal::warning(&format!(
                "{address} can be reached from outside, and this registry has no access control"
            ));
        }
        terminal::result_line(&format!("serving {} on http://{address}", directory.display()));
        server.serve(async move { cancel.cancelled().await }).await?;
        anyhow::Ok(())
    })??;
    // Stopping it is how it is meant to end.
    Ok(Exit::Passed)
}

fn directory(args: &RegistryArgs, context: &Context) -> Result<PathBuf, Failure> {
    let mut words = args.words.iter().map(PathBuf::as_path).peekable();
    words.next_if(|word| *word == std::path::Path::new("serve"));
    let named = words.next();
    if words.next().is_some() || (named.is_some() && args.dir.is_some()) {
        return Err(Failure::usage("a registry has one directory")
            .hint("`seatrial registry --listen 127.0.0.1:5000 --dir DIR`"));
    }
    Ok(match named.or(args.dir.as_deref()) {
        Some(directory) => context.settings.cwd.join(directory),
        None => context.settings.home.join("registry"),
    })
}
