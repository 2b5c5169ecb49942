//! What a run is given: its surroundings, what is asked of it, and how it can fail.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use engine::{BuildError, Cancel, Engine, EngineError};
use events::EventSink;
use evidence::{Attachment, Collected, Found, Signer, SigningFailed};
use futures::{StreamExt, TryStreamExt};
use oci::{Descriptor, Digest, Reference};
use packages::{Login, Package, PublishError, State, Target};
use registry::{ImageVersion, NoProgress, Progress, RegistryError, TagCondition};
use services::ServiceError;
use store::{RunDir, Store};

use crate::Invalid;

/// The surroundings of one run.
#[derive(Clone, Copy)]
pub struct RunContext<'a> {
    /// Who builds and starts containers.
    pub engine: &'a dyn Engine,
    /// Where images, logs and verdicts are kept.
    pub store: &'a Store,
    /// Who pushes. Nothing is asked of it unless something is to be published.
    pub registry: &'a dyn Registry,
    /// Who hears what happens.
    pub events: &'a EventSink,
    /// Number and directory of this run; logs and reports go there.
    pub run: &'a RunDir,
    /// Stops the run in grace.
    pub cancel: &'a Cancel,
}

/// Opens the key that signs what is said of a published image. Asked once, beside the gates, by a run that publishes.
#[derive(Clone)]
pub struct OpenSigner {
    open: Arc<dyn Fn() -> Result<Signer, SigningFailed> + Send + Sync>,
    look: Option<Arc<dyn Fn() -> Result<(), SigningFailed> + Send + Sync>>,
}

impl OpenSigner {
    /// It is opened by this.
    pub fn new(open: impl Fn() -> Result<Signer, SigningFailed> + Send + Sync + 'static) -> Self {
        Self { open: Arc::new(open), look: None }
    }

    /// The same, with something that takes no time and tells before a build what would fail after it.
    #[must_use]
    pub fn looked_at_by(self, look: impl Fn() -> Result<(), SigningFailed> + Send + Sync + 'static) -> Self {
        Self { look: Some(Arc::new(look)), ..self }
    }

    pub(crate) fn open(&self) -> Result<Signer, SigningFailed> {
        (self.open)()
    }

    pub(crate) fn look(&self) -> Result<(), SigningFailed> {
        self.look.as_ref().map_or(Ok(()), |look| look())
    }
}

impl std::fmt::Debug for OpenSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpenSigner")
    }
}

/// What is asked of a run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// `--publish`: push when the verdict and the rules allow it.
    pub publish: bool,
    /// `--dry-run`: ask the registry what publishing would do to each tag, and write nothing there.
    pub dry_run: bool,
    /// Which part of the pipeline.
    pub stages: Stages,
    /// Images, by their names under `images`, with those that they are built on; none means all.
    pub images: Vec<String>,
    /// `--no-cache`.
    pub no_cache: bool,
    /// `--pull`.
    pub pull: bool,
    /// How long root filesystems of failed steps are kept; `None`: as the file says.
    pub keep_failed: Option<Duration>,
    /// Run gates also when they passed before with the same image, definition and files.
    pub rerun: bool,
    /// Gates may use the host's network: this machine allows it.
    pub allow_host_network: bool,
    /// Gates that run at the same time; 0: as many as there are processors, two at least.
    pub jobs: usize,
    /// This machine permits that `before` runs commands on it.
    pub allow_host_commands: bool,
    /// Who signs what is said of a published image, by [`Plan::entry`](crate::Plan::entry); where there is nobody, nothing is
    /// attached to it.
    pub signers: BTreeMap<Option<String>, OpenSigner>,
    /// This machine permits that commands of the file say secrets.
    pub allow_secret_commands: bool,
    /// Devices that this machine lets services have.
    pub allowed_devices: services::AllowedDevices,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            publish: false,
            dry_run: false,
            stages: Stages::All,
            images: Vec::new(),
            no_cache: false,
            pull: false,
            keep_failed: None,
            rerun: false,
            allow_host_network: false,
            jobs: 0,
            allow_host_commands: false,
            signers: BTreeMap::new(),
            allow_secret_commands: false,
            allowed_devices: services::AllowedDevices::default(),
        }
    }
}

/// Which part of the pipeline is wanted; what it needs comes along.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stages {
    /// `run`: build, setup, gates, health, tags, and publishing if [`RunOptions::publish`].
    #[default]
    All,
    /// `build` by the pipeline file: build, seal, local tags.
    Build,
    /// Build only, for services that start from it: nothing gets a name.
    Images,
    /// `test [GATE…]`: these gates with what they need; none named means all. With several images `api/unit` is a gate of the
    /// image `api`, `api` means all of its gates, and `unit` those of this name in all images.
    Gates(Vec<String>),
    /// `health`.
    Health,
    /// `publish`: push an image of this commit that passed before. Builds (from the cache) to know its digest, and
    /// refuses when no passing verdict is recorded for that digest.
    Publish,
}

/// What publishing asks of a registry. [`registry::Client`] is the real one, and connects to nothing before it is asked.
#[async_trait]
pub trait Registry: Send + Sync {
    /// Uploads blobs of the store that the repository lacks.
    async fn push_blobs(
        &self,
        repository: &Reference,
        blobs: &[Descriptor],
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<(), RegistryError>;

    /// Writes a manifest under the reference's digest or tag, and returns the digest that the registry acknowledged.
    async fn put_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        manifest: &[u8],
    ) -> Result<Digest, RegistryError>;

    /// Attaches evidence to a manifest that the repository has.
    async fn attach(&self, repository: &Reference, attachments: &[Attachment]) -> Result<(), RegistryError>;

    /// What is said of an image there; `None` where there is no such image.
    async fn evidence(&self, image: &Reference) -> Result<Option<Collected>, RegistryError> {
        let _ = image;
        Ok(None)
    }

    /// What is signed about an image there, named by its digest, of some kinds of predicates only.
    async fn evidence_of_kinds(&self, image: &Reference, kinds: &[&str]) -> Result<Vec<Found>, RegistryError> {
        let _ = (image, kinds);
        Ok(Vec::new())
    }

    /// All tags of a repository; none when there is no such repository.
    async fn list_tags(&self, repository: &Reference) -> Result<Vec<String>, RegistryError>;

    /// The manifest that a tag or digest names now; `None` when there is none. Asks for nothing but that.
    async fn digest_of(&self, reference: &Reference) -> Result<Option<Digest>, RegistryError>;

    /// The version that an image tells of itself, named by its digest.
    async fn version_of(&self, image: &Reference) -> Result<Option<ImageVersion>, RegistryError>;

    /// Publishes packages to one place, or only asks what would be sent. `told` hears of each; see [`packages::publish`].
    async fn publish_files(
        &self,
        target: &Target,
        login: Option<&Login>,
        packages: &[Package],
        is_dry: bool,
        told: &mut (dyn for<'p> FnMut(&'p Package, State) + Send),
    ) -> Result<(), PublishError>;

    /// Names what one tag names by another tag as well.
    async fn retag(&self, repository: &Reference, from: &str, to: &str) -> Result<(), RegistryError>;

    /// Removes a tag, and only the tag.
    async fn remove_tag(&self, reference: &Reference) -> Result<(), RegistryError>;

    /// Names a manifest that the repository has by tags, in one step where the registry can. A condition that does not hold
    /// (any more) is [`registry::ErrorKind::TagChanged`]. `written` hears each tag once it is there, also when a later one fails.
    async fn put_tags(
        &self,
        repository: &Reference,
        tags: &[String],
        condition: &TagCondition,
        media_type: &str,
        manifest: &[u8],
        written: &mut (dyn FnMut(String) + Send),
    ) -> Result<(), RegistryError>;
}

#[async_trait]
impl Registry for registry::Client {
    async fn push_blobs(
        &self,
        repository: &Reference,
        blobs: &[Descriptor],
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<(), RegistryError> {
        registry::Client::push_blobs(self, repository, blobs, store, None, progress).await.map(drop)
    }

    async fn put_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        manifest: &[u8],
    ) -> Result<Digest, RegistryError> {
        registry::Client::put_manifest(self, reference, media_type, manifest.to_vec()).await
    }

    async fn attach(&self, repository: &Reference, attachments: &[Attachment]) -> Result<(), RegistryError> {
        let attachments = absent(self, repository, attachments).await?;
        // They share their config, which says nothing.
        let blobs = attachments.iter().flat_map(|attachment| &attachment.blobs);
        let blobs: BTreeMap<_, _> = blobs.map(|blob| (&blob.0.digest, blob)).collect();
        let uploads: Vec<_> = blobs
            .into_values()
            .map(|(descriptor, bytes)| self.upload_blob(repository, descriptor, bytes.clone(), None, &NoProgress))
            .collect();
        futures::stream::iter(uploads).buffer_unordered(ATTACHED_AT_ONCE).try_for_each(|_| async { Ok(()) }).await?;
        let manifests: Vec<_> =
            attachments.iter().map(|each| (oci::media_type::MANIFEST, each.manifest.clone().into())).collect();
        self.put_referrers(repository, &manifests).await
    }

    async fn evidence(&self, image: &Reference) -> Result<Option<Collected>, RegistryError> {
        or_absent(evidence::collect(self, image, None).await)
    }

    async fn evidence_of_kinds(&self, image: &Reference, kinds: &[&str]) -> Result<Vec<Found>, RegistryError> {
        evidence::collect_kinds(self, image, kinds).await
    }

    async fn list_tags(&self, repository: &Reference) -> Result<Vec<String>, RegistryError> {
        or_absent(registry::Client::list_tags(self, repository).await).map(Option::unwrap_or_default)
    }

    async fn digest_of(&self, reference: &Reference) -> Result<Option<Digest>, RegistryError> {
        Ok(or_absent(self.resolve(reference).await)?.map(|descriptor| descriptor.digest))
    }

    async fn version_of(&self, image: &Reference) -> Result<Option<ImageVersion>, RegistryError> {
        Ok(or_absent(self.image_version(image).await)?.flatten())
    }

    async fn publish_files(
        &self,
        target: &Target,
        login: Option<&Login>,
        packages: &[Package],
        is_dry: bool,
        told: &mut (dyn for<'p> FnMut(&'p Package, State) + Send),
    ) -> Result<(), PublishError> {
        if is_dry {
            return packages::look(self, target, login, packages, told).await;
        }
        packages::publish(self, target, login, packages, told).await
    }

    async fn retag(&self, repository: &Reference, from: &str, to: &str) -> Result<(), RegistryError> {
        let found = self.fetch_manifest(&repository.with_tag(from), MANIFEST_BYTES_MAX).await?;
        let (kind, to) = (&found.descriptor.media_type, repository.with_tag(to));
        registry::Client::put_manifest(self, &to, kind, found.bytes).await.map(drop)
    }

    async fn remove_tag(&self, reference: &Reference) -> Result<(), RegistryError> {
        self.delete(reference).await
    }

    async fn put_tags(
        &self,
        repository: &Reference,
        tags: &[String],
        condition: &TagCondition,
        media_type: &str,
        manifest: &[u8],
        written: &mut (dyn FnMut(String) + Send),
    ) -> Result<(), RegistryError> {
        self.put_manifest_tags(repository, tags, condition, media_type, manifest.to_vec(), written).await.map(drop)
    }
}

/// Registries take no larger manifests either (distribution-spec, "Pushing Manifests").
const MANIFEST_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Statements are small: what costs time is the way to the registry.
const ATTACHED_AT_ONCE: usize = 8;

/// Those attachments that an image, named by its digest, does not have yet: they have to be there, and in the list as well.
async fn absent<'a>(
    client: &registry::Client,
    image: &Reference,
    attachments: &'a [Attachment],
) -> Result<Vec<&'a Attachment>, RegistryError> {
    if attachments.is_empty() {
        return Ok(Vec::new());
    }
    let listed = client.referrers(image, None).await?;
    let is_listed = |attachment: &Attachment| listed.iter().any(|referrer| referrer.digest == *attachment.digest());
    let asked: Vec<_> = attachments
        .iter()
        .map(|attachment| {
            let (place, is_listed) = (image.with_digest(attachment.digest().clone()), is_listed(attachment));
            async move {
                let is_there = is_listed && or_absent(client.resolve(&place).await)?.is_some();
                Ok::<_, RegistryError>((!is_there).then_some(attachment))
            }
        })
        .collect();
    let found: Vec<_> = futures::stream::iter(asked).buffered(ATTACHED_AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// That something is not there is an answer.
fn or_absent<T>(found: Result<T, RegistryError>) -> Result<Option<T>, RegistryError> {
    match found {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Why we could not find out whether the image is good.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The pipeline file, or what was asked, is wrong: exit 2.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// What was asked cannot be done with this file: exit 2.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// A whole command or change that helps.
        hint: Option<String>,
    },
    /// What was asked needs a verdict that is not there: exit 1.
    #[error("{message}")]
    Refused {
        /// What is missing.
        message: String,
        /// A whole command that helps.
        hint: String,
    },
    /// There is no image: exit by its variant (2 invalid, 3 engine, 4 authentication, 130 cancelled). Never
    /// [`BuildError::Step`]: that is an outcome.
    #[error("cannot build the image")]
    Build(#[from] BuildError),
    /// The engine or its surroundings failed: exit 3.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A service is not ready, or cannot be: exit 1 if its image is built from the repository, else 3; 2 for a mistake in its
    /// definition, as [`BuildError`] says for its image.
    #[error(transparent)]
    Service(ServiceError),
    /// A gate was not tried, because a service of its is not up. [`RunError::Service`] tells why, and takes its place.
    #[error(transparent)]
    NotUp(#[from] services::NotUp),
    /// There is no signature, so nothing was named: exit 2.
    #[error(transparent)]
    Signing(#[from] SigningFailed),
    /// Pushing failed: exit 4 if [`RegistryError::is_auth`], else 3.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A file was not published: exit 4 if [`PublishError::is_auth`], 1 if [`PublishError::is_taken`], else 3.
    #[error(transparent)]
    File(#[from] PublishError),
    /// Publishing stopped in the middle: exit by the cause.
    #[error("published only in part: {} out, not {}", .out.join(", "), .missing.join(", "))]
    InPart {
        /// Files that are out.
        out: Vec<String>,
        /// What is not.
        missing: Vec<String>,
        /// Why it stopped.
        #[source]
        cause: Box<RunError>,
    },
    /// Files or the store failed: exit 3.
    #[error("cannot {action}")]
    Local {
        /// What was attempted.
        action: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Cancelled: exit 130 or 143.
    #[error("cancelled")]
    Cancelled,
    /// The run itself went well, and its remains could not be removed: exit 3.
    #[error("cannot clean up after the run")]
    Cleanup(#[source] EngineError),
    /// Two failures; the first one leads.
    #[error("{first} (and cleaning up failed: {cleanup})")]
    WithCleanup {
        /// What went wrong first.
        #[source]
        first: Box<RunError>,
        /// What went wrong while cleaning up.
        cleanup: EngineError,
    },
}

impl RunError {
    /// Keeps both stories.
    #[must_use]
    pub fn with_cleanup(self, cleanup: EngineError) -> RunError {
        RunError::WithCleanup { first: Box::new(self), cleanup }
    }

    /// The first failure, without what happened while cleaning up.
    pub fn leading(&self) -> &RunError {
        match self {
            RunError::WithCleanup { first, .. } => first.leading(),
            other => other,
        }
    }

    /// Whether it speaks of what was tried: a service that is built from the same repository did not build, or failed.
    pub fn is_verdict(&self) -> bool {
        match self.leading() {
            RunError::Service(ServiceError::Failed(failure)) => failure.is_own,
            RunError::Service(ServiceError::Image { source: BuildError::Step(_), .. }) => true,
            _ => false,
        }
    }

    pub(crate) fn local<E>(action: impl Into<String>, source: E) -> RunError
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        RunError::Local { action: action.into(), source: source.into() }
    }
}
