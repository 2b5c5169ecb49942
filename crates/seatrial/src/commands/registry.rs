//! `seatrial registry`: the embedded server and its garbage collection, and what registries elsewhere hold.

mod config;
mod remote;
mod scrub;
mod webhooks;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use ::registry::{
    CollectOptions, CollectReport, DEFAULT_ADDRESS, Notices, Removed, Server, ServerError, ServerOptions, TlsFiles,
};
use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    context::Context,
    exit::Exit,
    failure::Failure,
    terminal::{self, table::Format, text},
};

/// Flags of `seatrial registry`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct RegistryArgs {
    #[command(subcommand)]
    remote: Option<remote::Remote>,
    /// `serve` a directory; `gc`: remove what nothing in it needs; `scrub`: find damaged blobs; `webhooks`: what was told to whom [default: `serve`, `registry` beside the store]
    #[arg(value_name = "[serve | gc | scrub | webhooks] [DIR]", num_args = 0..=2)]
    words: Vec<PathBuf>,
    /// Directory of the registry's content
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Settings in YAML: see docs/registry.md
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
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
    store: bool,
    /// With `gc`: only say what would go
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// With `scrub`: put damaged blobs aside, so that they can be pushed again
    #[arg(long)]
    quarantine: bool,
    /// With `webhooks`: send this failed delivery once more, or `all` of them
    #[arg(long, value_name = "ID")]
    redeliver: Option<String>,
    /// With `gc`, `scrub` and `webhooks`: `json`, or a template such as `{{.bytes}}`
    #[arg(long)]
    format: Option<String>,
}

impl RegistryArgs {
    /// Whether blobs of this machine's builds are to be there.
    pub(crate) fn needs_store(&self, cwd: &Path) -> bool {
        self.store || self.config.as_ref().is_some_and(|file| config::names_store(&cwd.join(file)))
    }
}

/// Serves until a signal comes, or collects.
pub(crate) fn run(args: &RegistryArgs, context: &Context) -> anyhow::Result<Exit> {
    if let Some(remote) = &args.remote {
        return remote::run(remote, context);
    }
    let (verb, named) = words(args)?;
    let cwd = &context.settings.cwd;
    let config = match &args.config {
        Some(file) => config::read(&cwd.join(file))?,
        None => config::Config::default(),
    };
    let directory = match named.or(args.dir.as_deref()) {
        Some(directory) => cwd.join(directory),
        None => config.directory.clone().unwrap_or_else(|| context.settings.home.join("registry")),
    };
    for (is_given, flag, verbs) in [
        (args.dry_run, "--dry-run", &[Verb::Collect][..]),
        (args.quarantine, "--quarantine", &[Verb::Scrub]),
        (args.redeliver.is_some(), "--redeliver", &[Verb::Webhooks]),
        (args.format.is_some(), "--format", &[Verb::Collect, Verb::Scrub, Verb::Webhooks]),
    ] {
        if is_given && !verbs.contains(&verb) {
            return Err(
                Failure::usage(format!("`{flag}` does not belong to `seatrial registry {}`", verb.word())).into()
            );
        }
    }
    match verb {
        Verb::Serve => serve(args, context, &directory, config),
        Verb::Collect => collect(args, &directory, &config.options),
        Verb::Scrub => scrub::run(&directory, config.options.backend.clone(), args.quarantine, args.format.as_deref()),
        Verb::Webhooks => webhooks::run(&directory, args.redeliver.as_deref(), args.format.as_deref()),
    }
}

fn serve(args: &RegistryArgs, context: &Context, directory: &Path, config: config::Config) -> anyhow::Result<Exit> {
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
        let server = Server::bind(listen, directory, options).await.map_err(failure)?;
        let address = server.local_addr();
        if !address.ip().is_loopback() && !is_guarded {
            terminal::warning(&format!(
                "{address} can be reached from outside, and whoever reaches it may do everything: there is no `access` in the settings"
            ));
        }
        let reopener = server.reopener();
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

fn collect(args: &RegistryArgs, directory: &Path, options: &ServerOptions) -> anyhow::Result<Exit> {
    let format = Format::parse(args.format.as_deref())?;
    if !directory.is_dir() {
        return Err(Failure::usage(format!("there is no registry in {}", directory.display())).into());
    }
    let collection =
        CollectOptions { rules: options.rules.clone(), grace: options.collect_grace, is_dry_run: args.dry_run };
    let report = ::registry::collect(directory, options.backend.clone(), &collection)
        .with_context(|| format!("cannot clean the registry in {}", directory.display()))?;
    if let Some(line) = format.line(&serde_json::to_value(&report)?)? {
        terminal::result_line(&line);
        return Ok(Exit::Passed);
    }
    for name in report.removed.iter().filter_map(name_of) {
        terminal::result_line(name);
    }
    terminal::message_line(&summary(&report));
    for repository in &report.untold {
        terminal::warning(&format!("tags were left alone: {}", text::one_line(repository)));
    }
    for repository in &report.unreadable {
        terminal::warning(&format!("repository `{repository}` was left alone: a manifest of it cannot be read"));
    }
    Ok(Exit::Passed)
}

/// Content has no name that says anything to a person.
fn name_of(removed: &Removed) -> Option<&str> {
    match removed {
        Removed::Tag(name) | Removed::Manifest(name) | Removed::Blob(name) => Some(name),
        Removed::Content(_) => None,
    }
}

fn summary(report: &CollectReport) -> String {
    let counted = [(report.tags, "tag"), (report.manifests, "manifest"), (report.blobs, "blob")];
    let mut parts: Vec<String> =
        counted.iter().filter(|(number, _)| *number > 0).map(|(number, word)| text::count(*number, word)).collect();
    if report.contents > 0 {
        parts.push(format!("{} of content", text::bytes(report.bytes)));
    }
    let verb = if report.is_dry_run { "would remove" } else { "removed" };
    if parts.is_empty() { "there is nothing to remove".into() } else { format!("{verb} {}", parts.join(", ")) }
}

/// What is done to a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Serve,
    Collect,
    Scrub,
    Webhooks,
}

impl Verb {
    const ALL: [Self; 4] = [Self::Serve, Self::Collect, Self::Scrub, Self::Webhooks];

    fn word(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Collect => "gc",
            Self::Scrub => "scrub",
            Self::Webhooks => "webhooks",
        }
    }
}

/// What is to be done, and the directory that is named.
fn words(args: &RegistryArgs) -> Result<(Verb, Option<&Path>), Failure> {
    let mut words = args.words.iter().map(PathBuf::as_path).peekable();
    let verb = words.peek().and_then(|word| Verb::ALL.into_iter().find(|verb| *word == Path::new(verb.word())));
    if verb.is_some() {
        words.next();
    }
    let named = words.next();
    if words.next().is_some() || (named.is_some() && args.dir.is_some()) {
        return Err(Failure::usage("a registry has one directory")
            .hint("`seatrial registry --listen 127.0.0.1:5000 --dir DIR`"));
    }
    Ok((verb.unwrap_or(Verb::Serve), named))
}
