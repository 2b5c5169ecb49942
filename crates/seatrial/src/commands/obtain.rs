//! The image that a user names, wherever it is: here, in an archive or layout, or in its registry. What is brought for one
//! command gets no name, and goes with the next prune.

use std::path::Path;

use anyhow::Context as _;
use oci::{Descriptor, Digest, ManifestOrIndex, Platform, Reference};
use registry::{CopyPlace, Layout};
use store::{Image, LoadSource, Scope, Store};

use super::{copy::place::Place, named, transfer::Transfers};
use crate::{
    cli::Progress,
    context::Context,
    failure::Failure,
    terminal::{text, views::Views},
};

/// What an image is looked for by.
pub(crate) struct Wanted<'a> {
    /// A name or id, `oci:DIR[:NAME]`, `oci-archive:FILE`, `docker-archive:FILE`, `docker://NAME`, or the path of one of these.
    pub(crate) name: &'a str,
    /// `None` is this machine's.
    pub(crate) platform: Option<&'a Platform>,
    /// How a pull shows its progress.
    pub(crate) progress: Progress,
    /// See [`crate::cli::EngineArgs`].
    pub(crate) insecure_registries: &'a [String],
}

/// The image, with its name if it has one.
pub(crate) fn obtain(
    wanted: &Wanted<'_>,
    store: &Store,
    scope: &Scope,
    context: &Context,
) -> anyhow::Result<(Option<Reference>, Image)> {
    let cwd = &context.settings.cwd;
    let reference = match wanted.name.parse::<Place>().map(|place| place.within(cwd)) {
        Ok(place @ (Place::OciDir(..) | Place::OciArchive(..))) => return load_named(&place, wanted, store, scope),
        Ok(Place::DockerArchive(path, name)) => return load(&path, name.map(Named::Reference), wanted, store, scope),
        Ok(Place::Registry(_)) if wanted.name.starts_with("docker://") => wanted.name.trim_start_matches("docker://"),
        _ => wanted.name,
    };
    let missing = match named::find_all(store, reference) {
        Ok((reference, images)) => match fitting(images, wanted) {
            Some(image) => return Ok((reference, image)),
            None => Failure::refused(format!("`{}` is not here for {}", wanted.name, platform(wanted))).into(),
        },
        Err(error) => error,
    };
    let path = cwd.join(wanted.name);
    if path.exists() {
        return load(&path, None, wanted, store, scope);
    }
    match reference.parse::<Reference>() {
        Ok(name) if name.domain() != "localhost" => {
            pull(&named::with_default_tag(&name), wanted, store, scope, context)
        }
        _ => Err(missing),
    }
}

fn platform(wanted: &Wanted<'_>) -> Platform {
    wanted.platform.cloned().unwrap_or_else(Platform::host)
}

/// The first image is the one that runs here.
fn fitting(images: Vec<Image>, wanted: &Wanted<'_>) -> Option<Image> {
    match wanted.platform {
        None => images.into_iter().next(),
        Some(platform) => images.into_iter().find(|image| image.config.platform().runs_on(platform)),
    }
}

/// Which image of several is meant.
enum Named {
    Reference(Reference),
    /// Ids of the images of a name, one for each platform.
    Ids(Vec<Digest>),
}

/// From a layout, where names need not be references.
fn load_named(
    place: &Place,
    wanted: &Wanted<'_>,
    store: &Store,
    scope: &Scope,
) -> anyhow::Result<(Option<Reference>, Image)> {
    let (Place::OciDir(path, name) | Place::OciArchive(path, name)) = place else {
        unreachable!("only layouts are looked into")
    };
    let mut named = None;
    if name.is_some()
        && path.exists()
        && let CopyPlace::Layout(layout, name) = place.open()?
    {
        let listed = layout.find(name.as_deref()).map_err(|error| Failure::refused(error.to_string()))?;
        named = Some(Named::Ids(ids(&layout, &listed, 0)));
    }
    load(path, named, wanted, store, scope)
}

/// Ids of the images that a manifest or index of a layout is of.
fn ids(layout: &Layout, listed: &Descriptor, depth: usize) -> Vec<Digest> {
    /// An index in an index is all that there is.
    const DEPTH_MAX: usize = 2;
    if listed.size > DOCUMENT_BYTES_MAX || depth > DEPTH_MAX {
        return Vec::new();
    }
    let bytes = fs_err::read(layout.path().join("blobs/sha256").join(listed.digest.hex())).unwrap_or_default();
    match ManifestOrIndex::parse(&bytes) {
        Ok(ManifestOrIndex::Manifest(manifest)) => vec![manifest.config.digest],
        Ok(ManifestOrIndex::Index(index)) => {
            index.manifests.iter().flat_map(|manifest| ids(layout, manifest, depth + 1)).collect()
        }
        // Loading tells what is wrong with it.
        Err(_) => Vec::new(),
    }
}

/// Registries take no larger manifests either (distribution-spec, "Pushing Manifests").
const DOCUMENT_BYTES_MAX: u64 = 4 << 20;

fn load(
    path: &Path,
    named: Option<Named>,
    wanted: &Wanted<'_>,
    store: &Store,
    scope: &Scope,
) -> anyhow::Result<(Option<Reference>, Image)> {
    if !path.exists() {
        return Err(Failure::usage(format!("there is no {}", path.display())).into());
    }
    let mut loaded = store
        .load(scope, LoadSource::Path(path), None)
        .with_context(|| format!("cannot read {} as an image", path.display()))?;
    loaded.retain(|(reference, image)| match &named {
        None => true,
        Some(Named::Reference(name)) => reference.as_ref() == Some(name),
        Some(Named::Ids(ids)) => ids.contains(&image.id),
    });
    loaded.retain(|(_, image)| wanted.platform.is_none_or(|platform| image.config.platform().runs_on(platform)));
    // Several names of one image are one image.
    loaded.dedup_by(|(_, a), (_, b)| a.id == b.id);
    match <[_; 1]>::try_from(loaded) {
        Ok([found]) => Ok(found),
        Err(none) if none.is_empty() => {
            Err(Failure::refused(format!("there is no such image in {}", path.display())).into())
        }
        Err(several) => {
            Err(Failure::usage(format!("{} holds {}", path.display(), text::count(several.len(), "image")))
                .hint("name one of them: `oci:DIRECTORY:NAME` or `docker-archive:FILE:NAME`")
                .into())
        }
    }
}

fn pull(
    reference: &Reference,
    wanted: &Wanted<'_>,
    store: &Store,
    scope: &Scope,
    context: &Context,
) -> anyhow::Result<(Option<Reference>, Image)> {
    let client = context.client(wanted.insecure_registries);
    let views = Views::open(wanted.progress, context.settings.ci, None);
    let stage = format!("pull {}", reference.familiar());
    let progress = Transfers::begin(views.sink(), &stage);
    let platform = platform(wanted);
    let pulled =
        context.block_on_cancellable(async { Ok(client.pull(reference, &platform, store, scope, &progress).await?) });
    progress.end(pulled.as_ref().ok().map(|_| progress.words()));
    views.finish();
    Ok((Some(reference.clone()), pulled?))
}
