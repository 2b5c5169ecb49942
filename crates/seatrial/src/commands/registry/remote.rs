//! `seatrial registry ls`, `inspect` and `rm`: what other registries hold.

mod inspect;
mod list;
mod remove;

use crate::{context::Context, exit::Exit};

/// What is asked of a registry somewhere.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Remote {
    /// List the repositories of a registry, or the tags of a repository
    #[command(visible_alias = "list")]
    Ls(list::ListArgs),
    /// Show an image as it is in its registry: manifest or index, config, layers with their sizes, referrers
    Inspect(inspect::InspectArgs),
    /// Remove tags, or images by their digests, from their registry
    #[command(visible_alias = "remove")]
    Rm(remove::RemoveArgs),
}

/// Asks.
pub(crate) fn run(remote: &Remote, context: &Context) -> anyhow::Result<Exit> {
    match remote {
        Remote::Ls(args) => list::run(args, context),
        Remote::Inspect(args) => inspect::run(args, context),
        Remote::Rm(args) => remove::run(args, context),
    }
}
