//! `seatrial copy`: an image with everything that belongs to it, between registries, OCI layouts and archives.

pub(crate) mod place;

use anyhow::Context as _;
use oci::Platform;
use registry::{Client, Copied, CopyOptions, CopyPlace};
use serde_json::{Value, json};
use store::{ArchiveFormat, LoadSource, SaveOptions};

use super::{
    save::write_file,
    transfer::{self, Transfers},
};
use crate::{
    cli::{EngineArgs, Progress},
    context::Context,
    exit::Exit,
    failure::Failure,
    terminal::{self, table::Format, text, views::Views},
};
use place::Place;

/// Flags of `seatrial copy`.
#[derive(Debug, clap::Args)]
pub(crate) struct CopyArgs {
    /// What is copied: its name in a registry, `oci:DIR[:NAME]`, `oci-archive:FILE[:NAME]` or `docker-archive:FILE`
    from: Place,
    /// Where to: a name in a registry (without a tag, the same tag), or one of the others
    to: Place,
    /// Only the image for this platform, without the index around it
    #[arg(long)]
    platform: Option<Platform>,
    /// Leave behind what refers to the image: signatures, SBOMs, test results
    #[arg(long)]
    no_referrers: bool,
    /// Only the digest
    #[arg(short, long)]
    quiet: bool,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t)]
    progress: Progress,
    /// `json`, or a template such as `{{.Digest}}`
    #[arg(long)]
    format: Option<String>,
    #[command(flatten)]
    engine: EngineArgs,
}

impl CopyArgs {
    /// Docker's archives have no manifests: images go through the store.
    pub(crate) fn needs_store(&self) -> bool {
        matches!(self.from, Place::DockerArchive(..)) || matches!(self.to, Place::DockerArchive(..))
    }
}

/// Copies; prints `NAME@DIGEST`.
pub(crate) fn run(args: &CopyArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = Format::parse(args.format.as_deref())?;
    let client = context.client(&args.engine.insecure_registry);
    let from = args.from.clone().within(&context.settings.cwd).with_default_tag();
    let to = args.to.clone().within(&context.settings.cwd);
    let views = Views::open(if args.quiet { Progress::None } else { args.progress }, context.settings.ci, None);
    let progress = Transfers::begin(views.sink(), &format!("copy {from}"));
    let done = match (&from, &to) {
        (Place::DockerArchive(..), _) => unpack(&client, &from, &to, args, context, &progress),
        (_, Place::DockerArchive(..)) => pack(&client, &from, &to, args, context, &progress),
        _ => whole(&client, &from, &to, args, context, &progress),
    };
    progress.end(done.as_ref().ok().map(|done| done.summary.clone()));
    views.finish();
    let done = done?;
    if let Some(line) = format.line(&done.value)? {
        terminal::result_line(&line);
    } else if args.quiet {
        terminal::result_line(&done.digest);
    } else if views.progress != Progress::Json {
        terminal::result_line(&match &done.to {
            Place::Registry(name) => format!("{}@{}", name.repository(), done.digest),
            place => format!("{place} {}", done.digest),
        });
    }
    Ok(Exit::Passed)
}

/// A copy that went well.
struct Done {
    to: Place,
    digest: String,
    summary: String,
    value: Value,
}

/// Everything, byte for byte.
fn whole(
    client: &Client,
    from: &Place,
    to: &Place,
    args: &CopyArgs,
    context: &Context,
    progress: &Transfers<'_>,
) -> anyhow::Result<Done> {
    let source = from.open()?;
    let to = to.clone().named_like(&from.clone().called(&source));
    let target = to.create()?;
    let options =
        CopyOptions { platform: args.platform.clone(), referrers: !args.no_referrers, ..CopyOptions::default() };
    let copied =
        context.block_on_cancellable(async { Ok(client.copy_between(&source, &target, &options, progress).await?) })?;
    if let (Place::OciArchive(..), CopyPlace::Layout(layout, _)) = (&to, &target) {
        layout.pack()?;
    }
    let rate = progress.rate().map(|rate| format!(", {}", text::rate(rate))).unwrap_or_default();
    let value = json!({
        "Name": to.to_string(),
        "Digest": copied.digest,
        "Manifests": copied.manifests,
        "Referrers": copied.referrers,
        "BlobsSent": copied.sent,
        "BytesSent": copied.sent_bytes,
        "BlobsMounted": copied.mounted,
        "BlobsPresent": copied.present,
    });
    Ok(Done { to, digest: copied.digest.to_string(), summary: words(&copied, &rate), value })
}

/// Out of docker's archive: its layers are unpacked here, sealed, and pushed or saved.
fn unpack(
    client: &Client,
    from: &Place,
    to: &Place,
    args: &CopyArgs,
    context: &Context,
    progress: &Transfers<'_>,
) -> anyhow::Result<Done> {
    let Place::DockerArchive(file, wanted) = from else { unreachable!("the source is docker's archive") };
    let (store, scope) = opened(context)?;
    if !file.is_file() {
        return Err(Failure::usage(format!("there is no file {}", file.display())).into());
    }
    let loaded = store.load(&scope, LoadSource::Path(file), None);
    let loaded = loaded.with_context(|| format!("cannot read {}", file.display()))?;
    let (own, image) = match (wanted, loaded.as_slice()) {
        (None, [(own, image)]) => (own.clone(), image),
        (None, many) => {
            let known: Vec<String> = many.iter().filter_map(|(name, _)| Some(name.as_ref()?.familiar())).collect();
            let hint = format!("name one behind the file: {}", known.join(", "));
            return Err(Failure::usage(format!("{} has {} images", file.display(), many.len())).hint(hint).into());
        }
        (Some(wanted), many) => {
            let found = many.iter().find(|(name, _)| name.as_ref() == Some(wanted));
            let missing = || Failure::refused(format!("{} has no image {}", file.display(), wanted.familiar()));
            (Some(wanted.clone()), &found.ok_or_else(missing)?.1)
        }
    };
    let to = to.clone().named_like(&Place::DockerArchive(file.clone(), own));
    let images = std::slice::from_ref(image);
    let digest = match &to {
        Place::Registry(name) => {
            context.block_on_cancellable(transfer::push(client, store, name, images, progress))?.digest.to_string()
        }
        Place::DockerArchive(path, name) => {
            let named = [(name.clone(), image.clone())];
            save_docker(store, &named, path)?;
            image.id.to_string()
        }
        Place::OciDir(..) | Place::OciArchive(..) => {
            // Sealed into a layout of its own first, so that both kinds of targets are written by the one copy.
            let sealed = tempfile::tempdir().context("cannot make a temporary directory")?;
            let options = SaveOptions { manifest: store.preferred_options(&image.id), ..SaveOptions::default() };
            store
                .save_layout_dir(&[(None, image.clone())], &options, sealed.path())
                .with_context(|| format!("cannot copy to {to}"))?;
            let from = Place::OciDir(sealed.path().to_owned(), None);
            return whole(client, &from, &to, args, context, progress);
        }
    };
    let value = json!({ "Name": to.to_string(), "Digest": digest });
    Ok(Done { to, digest, summary: progress.words(), value })
}

/// Into docker's archive: pulled into the store, and saved from there.
fn pack(
    client: &Client,
    from: &Place,
    to: &Place,
    args: &CopyArgs,
    context: &Context,
    progress: &Transfers<'_>,
) -> anyhow::Result<Done> {
    let Place::DockerArchive(path, name) = to else { unreachable!("the target is docker's archive") };
    let (store, scope) = opened(context)?;
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let image = match from.open()? {
        CopyPlace::Registry(source) => context
            .block_on_cancellable(async { Ok(client.pull(&source, &platform, store, &scope, progress).await?) })?,
        CopyPlace::Layout(layout, image) => {
            // The layout may list more; only this one is read.
            let one = tempfile::tempdir().context("cannot make a temporary directory")?;
            let target = Place::OciDir(one.path().to_owned(), None).create()?;
            let source = CopyPlace::Layout(layout, image);
            let options = CopyOptions { platform: Some(platform), referrers: false, ..CopyOptions::default() };
            context
                .block_on_cancellable(async { Ok(client.copy_between(&source, &target, &options, progress).await?) })?;
            let loaded = store.load(&scope, LoadSource::Path(one.path()), None);
            let loaded = loaded.with_context(|| format!("cannot read {from}"))?;
            loaded.into_iter().next().map(|(_, image)| image).context("the layout holds no image")?
        }
    };
    let name = name.clone().or_else(|| from.reference().cloned());
    save_docker(store, &[(name, image.clone())], path)?;
    let value = json!({ "Name": to.to_string(), "Digest": image.id });
    Ok(Done { to: to.clone(), digest: image.id.to_string(), summary: progress.words(), value })
}

/// The store, with what keeps an image there while it is copied.
fn opened(context: &Context) -> anyhow::Result<(&store::Store, store::Scope)> {
    let store = context.store()?;
    Ok((store, store.open_scope().context("cannot open a scope in the store")?))
}

fn save_docker(
    store: &store::Store,
    images: &[(Option<oci::Reference>, store::Image)],
    path: &std::path::Path,
) -> anyhow::Result<()> {
    write_file(path, |out| {
        store
            .save(images, ArchiveFormat::Docker, &SaveOptions::default(), out)
            .with_context(|| format!("cannot save to {}", path.display()))
    })
}

/// What was moved, in words.
fn words(copied: &Copied, rate: &str) -> String {
    if copied.manifests == 0 && copied.sent + copied.mounted == 0 {
        return "everything was there".to_owned();
    }
    let referrers = match copied.referrers {
        0 => String::new(),
        count => format!(" ({} about it)", text::count(count, "referrer")),
    };
    let mut parts = vec![format!("{}{referrers}", text::count(copied.manifests, "manifest"))];
    if copied.sent > 0 {
        parts.push(format!("{} sent ({}{rate})", text::count(copied.sent, "blob"), text::bytes(copied.sent_bytes)));
    }
    if copied.mounted > 0 {
        parts.push(format!("{} mounted", text::count(copied.mounted, "blob")));
    }
    if copied.present > 0 {
        parts.push(format!("{} there already", text::count(copied.present, "blob")));
    }
    parts.join(", ")
}
