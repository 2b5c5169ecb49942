//! `seatrial registry rm`: a tag, or by digest an image with all its tags.

use ::registry::{Client, ErrorKind, RegistryError};
use anyhow::Context as _;
use oci::{Descriptor, Digest, Reference};

use crate::{
    cli::EngineArgs,
    context::Context,
    exit::Exit,
    failure::Failure,
    terminal::{self, text},
};

/// Flags of `seatrial registry rm`.
#[derive(Debug, clap::Args)]
pub(crate) struct RemoveArgs {
    /// `NAME:TAG` for a tag, `NAME@DIGEST` for an image with all its tags
    #[arg(required = true)]
    images: Vec<Reference>,
    /// Only say what would go
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

/// What goes, as far as it can be known before.
struct Removal {
    name: Reference,
    digest: Digest,
    /// Other tags of the image.
    others: Vec<String>,
    referrers: usize,
}

/// Removes, in the order given; prints what is gone.
pub(crate) fn run(args: &RemoveArgs, context: &Context) -> anyhow::Result<Exit> {
    if let Some(bare) = args.images.iter().find(|name| name.tag().is_none() && name.digest().is_none()) {
        return Err(Failure::usage(format!("`{}` names neither a tag nor a digest", bare.familiar()))
            .hint(format!("see what is there with `seatrial registry ls {}`", bare.familiar()))
            .into());
    }
    let client = context.client(&args.engine.insecure_registry);
    for name in &args.images {
        // All are looked at before the first one goes, and each again when its turn comes: tags may share an image.
        context.block_on_cancellable(async { Ok(client.resolve(name).await?) })?;
    }
    for name in &args.images {
        let removal = context.block_on_cancellable(async { Ok(look(&client, name).await?) })?;
        if args.dry_run {
            terminal::result_line(&format!("would remove {}", removal.words()));
            continue;
        }
        context.block_on_cancellable(remove(&client, &removal))?;
        terminal::result_line(&format!("removed {}", removal.words()));
    }
    Ok(Exit::Passed)
}

async fn look(client: &Client, name: &Reference) -> Result<Removal, RegistryError> {
    let digest = client.resolve(name).await?.digest;
    let tags = client.list_tags(name).await?;
    let is_other = |tag: &String| name.digest().is_some() || name.tag() != Some(tag.as_str());
    let found = client.resolve_tags(name, tags.into_iter().filter(is_other).collect()).await?;
    let names_it =
        |(tag, found): (String, Option<Descriptor>)| found.filter(|found| found.digest == digest).map(|_| tag);
    let others = found.into_iter().filter_map(names_it).collect();
    let referrers = client.referrers(&name.with_digest(digest.clone()), None).await?.len();
    Ok(Removal { name: name.clone(), digest, others, referrers })
}

impl Removal {
    fn is_tag(&self) -> bool {
        self.name.digest().is_none()
    }

    fn words(&self) -> String {
        let name = self.name.familiar();
        let about = match self.referrers {
            0 => String::new(),
            count => format!("; {} about it stay", text::count(count, "referrer")),
        };
        let others = self.others.join(", ");
        match (self.is_tag(), self.others.is_empty()) {
            (true, true) => format!("{name} ({}){about}", self.digest),
            (true, false) => format!("{name}; the image stays as {others}"),
            (false, true) => format!("{name}{about}"),
            (false, false) => format!("{name} with {} ({others}){about}", text::count(self.others.len(), "tag")),
        }
    }
}

async fn remove(client: &Client, removal: &Removal) -> anyhow::Result<()> {
    let Removal { name, digest, others, .. } = removal;
    let mut outcome = client.delete(name).await;
    let by_digest = name.with_digest(digest.clone());
    if removal.is_tag() && outcome.as_ref().is_err_and(knows_no_tags) {
        // Where a tag alone cannot go, an image that has no other one can.
        if !others.is_empty() {
            let message =
                format!("{} cannot be removed alone: the registry only removes whole images", name.familiar());
            let whole = by_digest.familiar();
            let hint = format!("`seatrial registry rm {whole}` removes the image, and with it {}", others.join(", "));
            return Err(Failure::refused(message).hint(hint).into());
        }
        outcome = client.delete(&by_digest).await;
    }
    match outcome {
        Ok(()) => Ok(()),
        Err(error) if matches!(error.kind, ErrorKind::Unexpected { status: 405 | 501, .. }) => {
            Err(Failure::surroundings(format!("cannot delete {}: the registry does not allow it", name.familiar()))
                .because(&error.kind)
                .hint("docker's registry is started with REGISTRY_STORAGE_DELETE_ENABLED=true for that")
                .into())
        }
        Err(error) => Err(error).context(format!("cannot remove {}", name.familiar())),
    }
}

/// Older registries take digests only here, and say so in several ways.
fn knows_no_tags(error: &RegistryError) -> bool {
    matches!(error.kind, ErrorKind::Unexpected { status: 400 | 405 | 501, .. } | ErrorKind::NotFound { .. })
}
