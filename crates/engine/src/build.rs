//! What is asked of a build, and what comes out.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use dockerfile::Diagnostic;
use events::Place;
use oci::{Digest, Platform, Reference};

use crate::{BindMount, Cancel, EngineError, KeptRoot, Masks, Material, MemoryFile, RemoteSource, Root, RunSettings};

/// `docker build`'s question, resolved: no environment, no defaults left to look up.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// Stage id for events: `build`, or `NAME/build` with several images.
    pub stage: String,
    /// Where COPY reads from.
    pub context: BuildContext,
    /// The Dockerfile.
    pub dockerfile: DockerfileSource,
    /// `--build-context`.
    pub build_contexts: BTreeMap<String, NamedContext>,
    /// `--target`.
    pub target: Option<String>,
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// `--label`; they come last, over the Dockerfile's.
    pub labels: BTreeMap<String, String>,
    /// `--platform`.
    pub platform: Platform,
    /// `--network`, the default of RUN.
    pub network: NetworkMode,
    /// `--add-host`: name, address.
    pub extra_hosts: Vec<(String, String)>,
    /// What RUN may see and use beyond the image.
    pub run: RunSettings,
    /// `--no-cache`.
    pub no_cache: bool,
    /// `--no-cache-filter`: names of stages.
    pub no_cache_filter: Vec<String>,
    /// `--pull`: ask the registry even when the name is known here.
    pub pull: bool,
    /// File times later than this are set to it; also the image's time of creation (`SOURCE_DATE_EPOCH`, commit time).
    /// `None`: the newest file of the context.
    pub epoch: Option<SystemTime>,
    /// How long the root filesystem of a failed step is kept for `shell`; zero: not at all.
    pub keep_failed: Duration,
    /// Stops the build.
    pub cancel: Cancel,
}

/// The build context.
#[derive(Clone, Debug)]
pub enum BuildContext {
    /// A directory, read in place through its `.dockerignore`.
    Directory(PathBuf),
    /// A directory that was filled for this build only, from what `origin` names: the same origin is the same context
    /// to the explanation of a cache miss, wherever the directory is.
    Fetched {
        /// The directory.
        directory: PathBuf,
        /// A Git repository, a URL, or `-`.
        origin: String,
    },
    /// A directory with what another one holds added; where both have a file, the added one counts. Nothing is written to
    /// either.
    Layered {
        /// The directory.
        base: PathBuf,
        /// What is added.
        over: PathBuf,
    },
    /// None (`docker build - < Dockerfile`): COPY has no sources.
    Empty,
}

/// A Dockerfile's text and how to speak of it.
#[derive(Clone, Debug)]
pub struct DockerfileSource {
    /// As the user would name it, for messages.
    pub name: String,
    /// Its path, for `<Dockerfile>.dockerignore`; `None` when it came from elsewhere.
    pub path: Option<PathBuf>,
    /// Its text.
    pub text: String,
}

/// What a `--build-context` name means.
#[derive(Clone, Debug)]
pub enum NamedContext {
    /// A directory.
    Directory(PathBuf),
    /// `docker-image://`.
    Image(Reference),
    /// An image of the store, by its id.
    Stored(Digest),
    /// `oci-layout://PATH[:TAG|@DIGEST]`.
    OciLayout {
        /// The layout's directory.
        path: PathBuf,
        /// Tag or digest in its index; `None` if it has one image only.
        name: Option<String>,
    },
    /// A Git repository, or a file on the web: an archive is unpacked.
    Remote(RemoteSource),
    /// `target:STAGE`: another stage of the same Dockerfile.
    Stage(String),
}

/// `--network`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkMode {
    /// The engine's choice of a network with outgoing connections.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's.
    Host,
}

/// A built image, perhaps not sealed yet.
#[derive(Clone, Debug)]
pub struct Built {
    /// What containers start from; `root.config` lacks diff ids until it is sealed.
    pub root: Root,
    /// Snapshots, bottom first.
    pub layers: Vec<store::SnapshotId>,
    /// Time used for clamping and `created`.
    pub epoch: SystemTime,
    /// Steps in all.
    pub steps: usize,
    /// Steps taken from the cache.
    pub steps_cached: usize,
    /// Time that the cache saved.
    pub saved: Duration,
    /// References of base images with what they resolved to (image id).
    pub bases: Vec<(String, oci::Digest)>,
    /// Everything that came from elsewhere, each once: images, files of the web, repositories. The context itself is not
    /// among them.
    pub materials: Vec<Material>,
    /// The image is made of the host's own files (`base host`) and must not be published.
    pub unpublishable: Option<String>,
}

/// Commands for a throw-away layer.
#[derive(Clone, Debug)]
pub struct SetupRequest {
    /// Stage id for events.
    pub stage: String,
    /// On top of this.
    pub root: Root,
    /// In order; each is a cached step.
    pub commands: Vec<SetupCommand>,
    /// Host paths shown inside; their content is part of the cache key.
    pub mounts: Vec<BindMount>,
    /// Network.
    pub network: NetworkMode,
    /// What output must not show.
    pub masks: Option<Arc<Masks>>,
    /// Ignore what is cached.
    pub no_cache: bool,
    /// How long the root filesystem of a failed step is kept; zero: not at all.
    pub keep_failed: Duration,
    /// Stops the work.
    pub cancel: Cancel,
}

/// One command of a setup.
#[derive(Clone, Debug)]
pub struct SetupCommand {
    /// As the user wrote it, for messages.
    pub text: String,
    /// Where.
    pub place: Option<Place>,
    /// Program and arguments.
    pub args: Vec<String>,
    /// Complete environment.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: String,
    /// `user[:group]`; empty is root.
    pub user: String,
    /// Files that only it sees, such as secrets. Of them the paths count for the cache, not what they hold.
    pub files: Vec<MemoryFile>,
}

/// An instruction or command that ended with another code than 0.
#[derive(Clone, Debug)]
pub struct FailedStep {
    /// What the user wrote.
    pub text: String,
    /// Where.
    pub place: Option<Place>,
    /// How it ended.
    pub exit: crate::Exit,
    /// Its last lines of output.
    pub tail: Vec<String>,
    /// Lines before the tail.
    pub earlier_lines: u64,
    /// How long it ran.
    pub duration: Duration,
    /// The kept root filesystem, for `shell`.
    pub kept: Option<KeptRoot>,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile (or what it names) is wrong: exit 2.
    #[error("{} cannot be built", .source_file.name)]
    Invalid {
        /// The file with its text, for showing the place.
        source_file: Box<DockerfileSource>,
        /// At least one.
        diagnostics: Vec<Diagnostic>,
        /// The root filesystem that a COPY or ADD found, for `shell`.
        kept: Option<Box<KeptRoot>>,
    },
    /// A command failed: the verdict is no, exit 1.
    #[error("`{}` exited {}", .0.text, .0.exit.code)]
    Step(Box<FailedStep>),
    /// A base image cannot be had: exit 3, or 4 for authentication.
    #[error("cannot get image {reference}")]
    Base {
        /// The image.
        reference: String,
        /// Where it is named.
        place: Option<Place>,
        /// Credentials are missing or wrong.
        is_auth: bool,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An image lacks evidence that it must have: exit 1.
    #[error("image {reference} is not trusted: {missing}")]
    Untrusted {
        /// The image.
        reference: String,
        /// Where it is named.
        place: Option<Place>,
        /// What is missing, in words.
        missing: String,
    },
    /// A file or repository that lies elsewhere cannot be had: exit 3, or 4 for authentication.
    #[error("cannot fetch {what}")]
    Remote {
        /// The source, without passwords.
        what: String,
        /// Where it is named.
        place: Option<Place>,
        /// Credentials are missing or wrong.
        is_auth: bool,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Cancelled: exit 130 or 143.
    #[error("cancelled")]
    Cancelled,
    /// The surroundings failed: exit 3.
    #[error(transparent)]
    Engine(#[from] EngineError),
}
