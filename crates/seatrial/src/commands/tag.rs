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
    let (reference, images) = named::find_all(store, &args.image)?;
    let cannot = || format!("cannot tag {}", args.name);
    // What is said of the images goes with every name of theirs.
    let besides = reference.map(|reference| store.kept_beside(&reference)).transpose().with_context(cannot)?;
    let besides = besides.unwrap_or_default();
    store.tag_all_with(&named::with_default_tag(&args.name), &images, &besides, true).with_context(cannot)?;
    Ok(Exit::Passed)
}
