//! The image that a user names, wherever it is: here, in an archive or layout, or in its registry. What is brought for one
//! command gets no name, and goes with the next prune.

use std::path::Path;

use anyhow::Context as _;
use oci::{Platform, Reference};
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
        Ok(Place::OciDir(path, name) | Place::OciArchive(path, name)) => {
            return load(&path, name.as_deref(), wanted, store, scope);
        }
        Ok(Place::DockerArchive(path, name)) => {
            let name = name.map(|name| name.familiar());
            return load(&path, name.as_deref(), wanted, store, scope);
        }
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

fn load(
    path: &Path,
    name: Option<&str>,
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
    if let Some(name) = name {
        let is_named = |reference: &Option<Reference>| {
            reference.as_ref().is_some_and(|reference| reference.tag() == Some(name) || reference.familiar() == name)
        };
        loaded.retain(|(reference, _)| is_named(reference));
    }
    if let Some(platform) = wanted.platform {
        loaded.retain(|(_, image)| image.config.platform().runs_on(platform));
    }
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
