//! `seatrial registry`: the embedded server and the care of its content, and what registries elsewhere hold.

mod collect;
mod config;
mod remote;
mod scrub;
mod serve;
mod webhooks;

use std::path::{Path, PathBuf};

use crate::{context::Context, exit::Exit, failure::Failure};

/// Flags of `seatrial registry`. Without a command they are those of `serve`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct RegistryArgs {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    serve: serve::ServeArgs,
}

/// What is done with a registry.
#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Serve a directory as a registry; also without this word
    Serve(serve::ServeArgs),
    /// Remove what nothing in a registry needs
    Gc(collect::CollectArgs),
    /// Read all content again, and name what is damaged
    Scrub(scrub::ScrubArgs),
    /// Show what was told to webhooks, what waits and what failed
    Webhooks(webhooks::WebhooksArgs),
    #[command(flatten)]
    Remote(remote::Remote),
}

impl RegistryArgs {
    /// Whether blobs of this machine's builds are to be there.
    pub(crate) fn needs_store(&self, cwd: &Path) -> bool {
        let (place, store) = match &self.action {
            None => (&self.serve.place, self.serve.store),
            Some(Action::Serve(args)) => (&args.place, args.store),
            Some(Action::Gc(args)) => (&args.place, false),
            Some(_) => return false,
        };
        store || place.config.as_ref().is_some_and(|file| config::names_store(&cwd.join(file)))
    }
}

/// Does what is asked for; serving ends with a signal.
pub(crate) fn run(args: &RegistryArgs, context: &Context) -> anyhow::Result<Exit> {
    match &args.action {
        None => serve::run(&args.serve, context),
        Some(Action::Serve(args)) => serve::run(args, context),
        Some(Action::Gc(args)) => collect::run(args, context),
        Some(Action::Scrub(args)) => scrub::run(args, context),
        Some(Action::Webhooks(args)) => webhooks::run(args, context),
        Some(Action::Remote(remote)) => remote::run(remote, context),
    }
}

/// A registry of this machine.
#[derive(Debug, clap::Args)]
struct Place {
    /// Directory of the registry's content [default: what the settings name, else `registry` beside the store]
    #[arg(value_name = "DIR")]
    named: Option<PathBuf>,
    /// The same as a flag
    #[arg(long, value_name = "DIR", conflicts_with = "named")]
    dir: Option<PathBuf>,
    /// Settings in YAML: see docs/registry.md
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Place {
    /// The directory, and what the settings say.
    fn open(&self, context: &Context) -> anyhow::Result<(PathBuf, config::Config)> {
        let cwd = &context.settings.cwd;
        let config = match &self.config {
            Some(file) => config::read(&cwd.join(file))?,
            None => config::Config::default(),
        };
        let directory = match self.named.as_ref().or(self.dir.as_ref()) {
            Some(directory) => cwd.join(directory),
            None => config.directory.clone().unwrap_or_else(|| context.settings.home.join("registry")),
        };
        Ok((directory, config))
    }

    /// As [`Self::open`]; the registry must be there.
    fn existing(&self, context: &Context) -> anyhow::Result<(PathBuf, config::Config)> {
        let (directory, config) = self.open(context)?;
        if !directory.is_dir() {
            return Err(Failure::usage(format!("there is no registry in {}", directory.display())).into());
        }
        Ok((directory, config))
    }
}
