//! Where base images come from: named contexts, the store, a registry.

use std::error::Error;

use dockerfile::{Diagnostic, Span};
use engine::{BuildError, EngineError, ImageRequest, Material, NamedContext, Pull};
use events::{Event, EventSink, Place};
use oci::{ChainId, Digest, Platform, Reference};
use store::Image;

use crate::{
    layout,
    plan::{named_context, nearest_stage},
    step::Layers,
    work::{During as _, Host, Work, check, locked},
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

    /// Judges an image before it is used, also when it is in the store. `verify`: what its user asks for beside the rules.
    /// `Some` is the reference by digest that was found good and has to be used; `None`: nothing is asked of it.
    ///
    /// # Errors
    /// It lacks something, or that could not be found out.
    fn admit(
        &self,
        reference: &Reference,
        platform: &Platform,
        verify: &[String],
    ) -> Result<Option<Reference>, AdmitError>;
}

/// Why an image may not be used.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// It lacks evidence; says which.
    #[error("{0}")]
    Refused(String),
    /// Its registry could not be asked.
    #[error(transparent)]
    Failed(#[from] BaseError),
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
    let mut reference = None;
    let image = match named_context(&work.request.build_contexts, name).map(|(_, context)| context) {
        Some(NamedContext::OciLayout { path, name: within }) => {
            layout::image(work.host, path, within.as_deref(), wanted)
                .during(|| format!("cannot use the OCI layout {} as `{name}`", path.display()))?
        }
        Some(NamedContext::Stored(id)) => {
            let found = work.host.store.image(id).during(|| format!("cannot use image {id} as `{name}`"))?;
            found.ok_or_else(|| {
                let message = format!("image {id}, which is `{name}` here, is not in the store any more");
                EngineError { message, hint: None, command_code: None, source: None }
            })?
        }
        Some(NamedContext::Image(named)) => by_reference(work, reference.insert(named.clone()), wanted, name, span)?,
        // Directories and stages were recognised before.
        _ => {
            let named = name.parse::<Reference>().map_err(|error| {
                work.invalid(
                    Diagnostic::error("ST122", error.to_string())
                        .with_span(span.clone())
                        .with_suggestion(nearest_stage(work.file, name)),
                )
            })?;
            by_reference(work, reference.insert(named), wanted, name, span)?
        }
    };
    check_platform(work, &image, wanted, platform.is_some(), name, span)?;
    locked(&work.bases).insert(name.to_owned(), image.id.clone());
    work.took(Material::Image {
        name: name.to_owned(),
        reference,
        id: image.id.clone(),
        manifest: work.host.store.known_manifest(&image.id),
        platform: image.config.platform(),
    });
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

/// The image that a name stands for, outside of any Dockerfile. It is leased by the host's scope.
///
/// # Errors
/// It cannot be had, or the store failed.
pub fn resolve(host: &Host<'_>, request: &ImageRequest, events: &EventSink) -> Result<Image, BuildError> {
    let name = request.reference.familiar();
    let wanted = Wanted {
        host,
        reference: &request.reference,
        platform: &request.platform,
        name: &name,
        pull: request.pull,
        place: request.place.clone(),
        verify: &request.verify,
        check: &|| check(&request.cancel),
        warn: &|message| events.emit(Event::Warning { message, place: request.place.clone() }),
    };
    let image = wanted.find()?;
    let has = image.config.platform();
    if !is_for(&image, &request.platform) {
        (wanted.warn)(format!("image `{name}` is for {has}, not for {}", request.platform));
    }
    if let Some(top) = image.top() {
        host.scope.lease(top).during(|| format!("cannot use image {name}"))?;
    }
    Ok(image)
}

fn by_reference(
    work: &Work<'_>,
    reference: &Reference,
    platform: &Platform,
    name: &str,
    span: &Span,
) -> Result<Image, BuildError> {
    let wanted = Wanted {
        host: work.host,
        reference,
        platform,
        name,
        pull: Pull::newer(work.request.pull),
        place: Some(work.place(span)),
        verify: &[],
        check: &|| work.check(),
        warn: &|message| work.warn(message, Some(span)),
    };
    wanted.find()
}

/// An image that is looked for by its name.
struct Wanted<'a> {
    host: &'a Host<'a>,
    reference: &'a Reference,
    platform: &'a Platform,
    /// As the user wrote it.
    name: &'a str,
    pull: Pull,
    place: Option<Place>,
    /// Evidence that is asked for beside the rules.
    verify: &'a [String],
    check: &'a dyn Fn() -> Result<(), BuildError>,
    warn: &'a dyn Fn(String),
}

impl Wanted<'_> {
    fn find(&self) -> Result<Image, BuildError> {
        let Wanted { host, reference, platform, name, .. } = *self;
        (self.check)()?;
        match host.bases.admit(reference, platform, self.verify) {
            Ok(None) => {}
            // What was judged is what is used, whatever the name means in the store.
            Ok(Some(judged)) => return self.judged(&judged),
            Err(AdmitError::Refused(missing)) => {
                return Err(BuildError::Untrusted { reference: name.to_owned(), place: self.place.clone(), missing });
            }
            Err(AdmitError::Failed(error)) => return Err(self.unavailable(error)),
        }
        let known = host.store.resolve_for(reference, platform).during(|| format!("cannot look up image {name}"))?;
        match known {
            Some(image) if self.pull == Pull::Always => self.fetch(Some(image)),
            Some(image) if image.config.platform().runs_on(platform) => Ok(image),
            Some(image) if self.pull == Pull::Never => Ok(image),
            Some(image) => host.bases.pull(reference, platform).or(Ok(image)),
            None if self.pull == Pull::Never => Err(self.not_here()),
            None => self.fetch(None),
        }
    }

    /// What was found good, by its digest.
    fn judged(&self, judged: &Reference) -> Result<Image, BuildError> {
        let Wanted { host, platform, name, .. } = *self;
        if self.pull == Pull::Never {
            let known = host.store.resolve_for(judged, platform).during(|| format!("cannot look up image {name}"))?;
            return known.ok_or_else(|| self.not_here());
        }
        host.bases.pull(judged, platform).map_err(|error| self.unavailable(error))
    }

    fn not_here(&self) -> BuildError {
        let reason = "it is not here, and no registry may be asked for it (`pull_policy: never`)";
        BuildError::Base {
            reference: self.name.to_owned(),
            place: self.place.clone(),
            is_auth: false,
            source: reason.into(),
        }
    }

    fn fetch(&self, fallback: Option<Image>) -> Result<Image, BuildError> {
        (self.check)()?;
        self.host.bases.pull(self.reference, self.platform).or_else(|error| match fallback {
            // `--pull` with an unreachable registry is an error for a name that was never here only.
            Some(image) if !error.is_auth => {
                let name = self.name;
                (self.warn)(format!("{name} could not be asked for again ({error}); the local image is used"));
                Ok(image)
            }
            _ => Err(self.unavailable(error)),
        })
    }

    fn unavailable(&self, error: BaseError) -> BuildError {
        let BaseError { is_auth, source } = error;
        let reference = self.name.to_owned();
        let source: Box<dyn Error + Send + Sync> =
            if is_auth { source } else { Box::new(Unavailable { reference: reference.clone(), source }) };
        BuildError::Base { reference, place: self.place.clone(), is_auth, source }
    }
}

fn is_for(image: &Image, wanted: &Platform) -> bool {
    image.config.platform().runs_on(wanted) || image.config.architecture.is_empty()
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
    if is_for(image, wanted) {
        return Ok(());
    }
    let message = format!("image `{name}` is for {has}, not for {wanted}");
    if is_explicit {
        return Err(work.invalid(Diagnostic::error("ST123", message).with_span(span.clone())));
    }
    work.warn(message, Some(span));
    Ok(())
}
