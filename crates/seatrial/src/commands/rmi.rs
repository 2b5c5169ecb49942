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
        let (reference, images) = match named::find_all(store, name) {
            Err(error) if args.force && error.downcast_ref::<Failure>().is_some_and(|f| f.exit == Exit::Refused) => {
                continue;
            }
            found => found?,
        };
        let image = &images[0];
        let names = named::all(store)?
            .into_iter()
            .find(|named| named.image.id == image.id)
            .map(|named| named.references)
            .unwrap_or_default();
        let reference = reference.filter(|reference| reference.digest().is_none());
        let is_by_name = reference.is_some();
        match reference {
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
                    terminal::result_line(&format!("Untagged: {}", reference.familiar()));
                }
            }
        }
        for image in &images {
            // One of another platform may have names of its own.
            let has_names = |other: &store::NamedImage| other.image.id == image.id && !other.references.is_empty();
            if is_by_name && named::all(store)?.iter().any(has_names) {
                continue;
            }
            store.remove_image(&image.id).with_context(|| format!("cannot remove image {}", image.id))?;
            terminal::result_line(&format!("Deleted: {}", image.id));
        }
    }
    Ok(Exit::Passed)
}
