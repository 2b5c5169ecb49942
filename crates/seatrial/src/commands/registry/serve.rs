//! `seatrial registry serve`: a directory as a registry, until a signal comes.

use std::{net::SocketAddr, path::PathBuf};

use ::registry::{DEFAULT_ADDRESS, Notices, Server, ServerError, ServerOptions, TlsFiles};
use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use super::Place;
use crate::{context::Context, exit::Exit, failure::Failure, terminal};

/// Flags of `seatrial registry serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(super) place: Place,
    /// Address to listen on; one that others can reach needs a certificate, or `--plain-http` [default: 127.0.0.1:5000]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Certificate of the server in PEM, with those between it and its authority; read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Listen without TLS also where others can reach it: passwords and images can then be read and changed on the way
    #[arg(long)]
    plain_http: bool,
    /// Take what the builds of this machine have without its being sent: publishing to it moves no bytes
    #[arg(long)]
    pub(super) store: bool,
}

/// Serves.
pub(super) fn run(args: &ServeArgs, context: &Context) -> anyhow::Result<Exit> {
    let (directory, config) = args.place.open(context)?;
    let store = if args.store || config.store { Some(context.store()?.clone()) } else { None };
    let cwd = &context.settings.cwd;
    let named = args.tls_cert.as_ref().zip(args.tls_key.as_ref());
    let named = named.map(|(certificate, key)| TlsFiles { certificate: cwd.join(certificate), key: cwd.join(key) });
    let tls = named.or(config.options.tls);
    let options = ServerOptions {
        store,
        tls,
        is_plain_allowed: args.plain_http || config.options.is_plain_allowed,
        notices: Notices::to(terminal::warning),
        ..config.options
    };
    let (is_guarded, is_audited) = (options.access.is_some(), options.audit.is_some());
    let scheme = if options.tls.is_some() { "https" } else { "http" };
    let listen = args.listen.or(config.listen).unwrap_or(DEFAULT_ADDRESS);
    let cancel = context.cancel.clone();
    context.block_on(async {
        let server = Server::bind(listen, &directory, options).await.map_err(failure)?;
        let address = server.local_addr();
        if !address.ip().is_loopback() && !is_guarded {
            terminal::warning(&format!(
                "{address} can be reached from outside, and whoever reaches it may do everything: there is no `access` in the settings"
            ));
        }
        let reopener = server.reopener();
        if is_audited {
            context.leave_hang_up();
        }
        terminal::result_line(&format!("serving {} on {scheme}://{address}", directory.display()));
        let serving = server.serve(async move { cancel.cancelled().await });
        if !is_audited {
            serving.await?;
            return anyhow::Ok(());
        }
        // Programs that rotate logs send this; without a log it keeps its usual meaning.
        let mut hangups = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
        let reopening = async {
            while hangups.recv().await.is_some() {
                reopener().await;
            }
            std::future::pending().await
        };
        tokio::select! {
            outcome = serving => outcome?,
            () = reopening => {}
        }
        anyhow::Ok(())
    })??;
    // Stopping it is how it is meant to end.
    Ok(Exit::Passed)
}

/// What the settings or flags are to blame for.
fn failure(error: ServerError) -> anyhow::Error {
    let wrong = || Failure::usage("the registry cannot be served like this").because(&error);
    match &error {
        ServerError::Plain(_) => wrong()
            .hint("give it a certificate: `--tls-cert FILE --tls-key FILE`")
            .hint("or say that anybody on the way may read and change everything: `--plain-http`")
            .into(),
        ServerError::StoreLeaks => wrong().hint("leave `--store` out, or give the same people all repositories").into(),
        ServerError::Users(_) | ServerError::Tls(_) => wrong().into(),
        _ => error.into(),
    }
}
