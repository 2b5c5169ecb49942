//! `seatrial tag`.

use anyhow::Context as _;
use oci::Reference;

use super::named;
use crate::{context::Context, exit::Exit, failure::Failure};

/// Flags of `seatrial tag`.
#[derive(Debug, clap::Args)]
pub(crate) struct TagArgs {
    /// Name or id of an image
    image: String,
    /// The new name
    name: Reference,
}

/// Names an image.
pub(crate) fn run(args: &TagArgs, context: &Context) -> anyhow::Result<Exit> {
    if args.name.digest().is_some() {
        return Err(Failure::usage("an image cannot be named by a digest; its digest follows from its content").into());
    }
    let store = context.store()?;
    let (_, images) = named::find_all(store, &args.image)?;
    store
        .tag_all(&named::with_default_tag(&args.name), &images)
        .with_context(|| format!("cannot tag {}", args.name))?;
    Ok(Exit::Passed)
}
