//! Where base images come from: named contexts, the store, a registry.

use std::error::Error;

use dockerfile::{Diagnostic, Span};
use engine::{BuildError, NamedContext};
use oci::{ChainId, Digest, Platform, Reference};
use store::Image;

use crate::{
    layout,
    plan::{named_context, nearest_stage},
    step::Layers,
    work::{During as _, Work, locked},
};

/// Label of images that hold the machine's own files.
const BASE_LABEL: &str = "io.seatrial.base";

/// Gets images that the store does not have. Called from a thread that may block; several at once.
pub trait BaseSource: Send + Sync {
    /// Fetches an image into the store.
    ///
    /// # Errors
    /// It does not exist, or cannot be reached.
    fn pull(&self, reference: &Reference, platform: &Platform) -> Result<Image, BaseError>;
}

/// Why an image could not be fetched.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct BaseError {
    /// Credentials are missing or wrong.
    pub is_auth: bool,
    /// The cause.
    pub source: Box<dyn Error + Send + Sync>,
}

/// The image cannot be had; says what else can be done.
#[derive(Debug, thiserror::Error)]
#[error(
    "{reference} is neither in the store nor could it be fetched; without a registry, `seatrial base host` or \
     `seatrial base debian:SUITE` make a base, `seatrial load FILE` takes one from a file, and \
     `--build-context {reference}=oci-layout://DIRECTORY` from a directory"
)]
struct Unavailable {
    reference: String,
    #[source]
    source: Box<dyn Error + Send + Sync>,
}

/// An image as a base or a source of files.
pub(crate) struct BaseImage {
    pub(crate) image: Image,
    pub(crate) layers: Layers,
    /// Why an image built on it must not be published.
    pub(crate) unpublishable: Option<String>,
}

/// Finds the image that a FROM or `--from` names: named context, store, registry.
pub(crate) fn find(
    work: &Work<'_>,
    name: &str,
    platform: Option<&Platform>,
    span: &Span,
) -> Result<BaseImage, BuildError> {
    let wanted = platform.unwrap_or(&work.request.platform);
    let image = match named_context(&work.request.build_contexts, name).map(|(_, context)| context) {
        Some(NamedContext::OciLayout { path, name: within }) => {
            layout::image(work.host, path, within.as_deref(), wanted)
                .during(|| format!("cannot use the OCI layout {} as `{name}`", path.display()))?
        }
        Some(NamedContext::Image(reference)) => by_reference(work, reference, wanted, name, span)?,
        // Directories and stages were recognised before.
        _ => {
            let reference = name.parse::<Reference>().map_err(|error| {
                work.invalid(
                    Diagnostic::error("ST122", error.to_string())
                        .with_span(span.clone())
                        .with_suggestion(nearest_stage(work.file, name)),
                )
            })?;
            by_reference(work, &reference, wanted, name, span)?
        }
    };
    check_platform(work, &image, wanted, platform.is_some(), name, span)?;
    locked(&work.bases).insert(name.to_owned(), image.id.clone());
    if let Some(top) = image.top() {
        work.host.scope.lease(top).during(|| format!("cannot use image {name}"))?;
    }
    let layers = Layers { key: base_key(&image), layers: image.layers.clone() };
    let unpublishable =
        image.config.config.labels.get(BASE_LABEL).filter(|kind| *kind == "host").map(|_| {
            format!("it is built on `{name}`, which is made of this machine's own files (`seatrial base host`)")
        });
    Ok(BaseImage { image, layers, unpublishable })
}

/// Puts the mark of a base of this machine's files back, whatever a LABEL said.
pub(crate) fn keep_mark(config: &mut oci::ImageConfig) {
    config.config.labels.insert(BASE_LABEL.into(), "host".into());
}

/// The key of an image's file system: its chain of layers, so that equal files are equal whatever the config says.
fn base_key(image: &Image) -> Digest {
    match ChainId::of(&image.config.rootfs.diff_ids) {
        Some(chain) => chain.0,
        None => Digest::of(b"scratch"),
    }
}

fn by_reference(
    work: &Work<'_>,
    reference: &Reference,
    platform: &Platform,
    name: &str,
    span: &Span,
) -> Result<Image, BuildError> {
    let pull = |fallback: Option<Image>| {
        work.check()?;
        work.host.bases.pull(reference, platform).or_else(|error| match fallback {
            // `--pull` with an unreachable registry is an error for a name that was never here only.
            Some(image) if !error.is_auth => {
                work.warn(
                    format!("{name} could not be asked for again ({error}); the local image is used"),
                    Some(span),
                );
                Ok(image)
            }
            _ => Err(unavailable(work, name, error, span)),
        })
    };
    let known = work.host.store.resolve_for(reference, platform).during(|| format!("cannot look up image {name}"))?;
    match known {
        Some(image) if work.request.pull => pull(Some(image)),
        Some(image) if image.config.platform().runs_on(platform) => Ok(image),
        Some(image) => work.host.bases.pull(reference, platform).or(Ok(image)),
        None => pull(None),
    }
}

fn unavailable(work: &Work<'_>, name: &str, error: BaseError, span: &Span) -> BuildError {
    let BaseError { is_auth, source } = error;
    let source: Box<dyn Error + Send + Sync> =
        if is_auth { source } else { Box::new(Unavailable { reference: name.to_owned(), source }) };
    BuildError::Base { reference: name.to_owned(), place: Some(work.place(span)), is_auth, source }
}

fn check_platform(
    work: &Work<'_>,
    image: &Image,
    wanted: &Platform,
    is_explicit: bool,
    name: &str,
    span: &Span,
) -> Result<(), BuildError> {
    let has = image.config.platform();
    if has.runs_on(wanted) || image.config.architecture.is_empty() {
        return Ok(());
    }
    let message = format!("image `{name}` is for {has}, not for {wanted}");
    if is_explicit {
        return Err(work.invalid(Diagnostic::error("ST123", message).with_span(span.clone())));
    }
    work.warn(message, Some(span));
    Ok(())
}
