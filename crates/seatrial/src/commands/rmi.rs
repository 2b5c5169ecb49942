//! `seatrial rmi`: names first, the image with its last name. Layers go with `clean`, when nothing else needs them.

use anyhow::Context as _;

use super::named;
use crate::{context::Context, exit::Exit, failure::Failure, terminal};

/// Flags of `seatrial rmi`.
#[derive(Debug, clap::Args)]
pub(crate) struct RmiArgs {
    /// Names or ids
    #[arg(required = true)]
    images: Vec<String>,
    /// Remove an image by its id also when it has several names; a missing image is no error
    #[arg(short, long)]
    force: bool,
}

/// Removes names and images.
pub(crate) fn run(args: &RmiArgs, context: &Context) -> anyhow::Result<Exit> {
    let store = context.store()?;
    for name in &args.images {
        let (reference, image) = match named::find(store, name) {
            Err(error) if args.force && error.downcast_ref::<Failure>().is_some_and(|f| f.exit == Exit::Refused) => {
                continue;
            }
            found => found?,
        };
        let names = named::all(store)?
            .into_iter()
            .find(|named| named.image.id == image.id)
            .map(|named| named.references)
            .unwrap_or_default();
        match reference.filter(|reference| reference.digest().is_none()) {
            Some(reference) => {
                store.untag(&reference).with_context(|| format!("cannot remove the name {reference}"))?;
                terminal::result_line(&format!("Untagged: {}", reference.familiar()));
                if names.len() > 1 {
                    continue;
                }
            }
            None if names.len() > 1 && !args.force => {
                let list: Vec<String> = names.iter().map(oci::Reference::familiar).collect();
                return Err(Failure::refused(format!(
                    "image {} has {} names: {}",
                    image.id.short(),
                    names.len(),
                    list.join(", ")
                ))
                .hint(format!("remove all of them with `seatrial rmi --force {name}`"))
                .into());
            }
            None => {
                for reference in &names {
                    store.untag(reference).with_context(|| format!("cannot remove the name {reference}"))?;
                    terminal::result_line(&format!("Untagged: {}", reference.familiar()));
                }
            }
        }
        store.remove_image(&image.id).with_context(|| format!("cannot remove image {}", image.id))?;
        terminal::result_line(&format!("Deleted: {}", image.id));
    }
    Ok(Exit::Passed)
}
