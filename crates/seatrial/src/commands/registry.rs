//! `seatrial registry`: the embedded server, and its garbage collection.

mod config;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use ::registry::{CollectOptions, CollectReport, DEFAULT_ADDRESS, Removed, Server, ServerOptions};
use anyhow::Context as _;

use crate::{
    context::Context,
    exit::Exit,
    failure::Failure,
    terminal::{self, table::Format, text},
};

/// Flags of `seatrial registry`.
#[derive(Debug, clap::Args)]
pub(crate) struct RegistryArgs {
    /// `serve` a directory, or `gc`: remove what nothing in it needs, also while it is served [default: `serve`, `registry` beside the store]
    #[arg(value_name = "[serve | gc] [DIR]", num_args = 0..=2)]
    words: Vec<PathBuf>,
    /// Directory of the registry's content
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Settings in YAML: see docs/registry.md
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on; it has no access control, so anything but loopback opens it to everybody there [default: 127.0.0.1:5000]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Take what the builds of this machine have without its being sent: publishing to it moves no bytes
    #[arg(long)]
    store: bool,
    /// With `gc`: only say what would go
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// With `gc`: `json`, or a template such as `{{.bytes}}`
    #[arg(long)]
    format: Option<String>,
}

/// Serves until a signal comes, or collects.
pub(crate) fn run(args: &RegistryArgs, context: &Context) -> anyhow::Result<Exit> {
    let (is_collection, named) = words(args)?;
    let cwd = &context.settings.cwd;
    let config = match &args.config {
        Some(file) => config::read(&cwd.join(file))?,
        None => config::Config::default(),
    };
    let directory = match named.or(args.dir.as_deref()) {
        Some(directory) => cwd.join(directory),
        None => config.directory.clone().unwrap_or_else(|| context.settings.home.join("registry")),
    };
    if is_collection {
        return collect(args, &directory, &config.options);
    }
    if args.dry_run || args.format.is_some() {
        return Err(Failure::usage("`--dry-run` and `--format` belong to `seatrial registry gc`").into());
    }
    serve(args, context, &directory, config)
}

fn serve(args: &RegistryArgs, context: &Context, directory: &Path, config: config::Config) -> anyhow::Result<Exit> {
    let store = if args.store || config.store { Some(context.store()?.clone()) } else { None };
    let options = ServerOptions { store, ..config.options };
    let listen = args.listen.or(config.listen).unwrap_or(DEFAULT_ADDRESS);
    let cancel = context.cancel.clone();
    context.block_on(async {
        let server = Server::bind(listen, directory, options).await?;
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

/// Whether it is a collection, and the directory that is named.
fn words(args: &RegistryArgs) -> Result<(bool, Option<&Path>), Failure> {
    let mut words = args.words.iter().map(PathBuf::as_path).peekable();
    let verb = words.next_if(|word| *word == Path::new("serve") || *word == Path::new("gc"));
    let named = words.next();
    if words.next().is_some() || (named.is_some() && args.dir.is_some()) {
        return Err(Failure::usage("a registry has one directory")
            .hint("`seatrial registry --listen 127.0.0.1:5000 --dir DIR`"));
    }
    Ok((verb == Some(Path::new("gc")), named))
}
