//! The seam: what is asked of a container engine.
//!
//! Knows none of its implementations. [`Engine`] builds images and opens a [`Scope`]; a scope owns everything that a run
//! starts and leaves nothing behind when it closes.

mod build;
mod container;
mod image;
mod mask;
mod material;
mod named;
mod remote;
mod run_settings;
mod surroundings;

pub use build::{
    BuildContext, BuildError, BuildRequest, Built, DockerfileSource, FailedStep, NamedContext, NetworkMode,
    SetupCommand, SetupRequest,
};
pub use container::{
    BindMount, Cancel, Container, ContainerSpec, ExecSpec, Exit, FileChange, KeptRoot, Limits, OutputSink, Root, Stdio,
    TerminalSink,
};
pub use image::{ImageRequest, Pull, ResolvedImage};
pub use mask::{Masker, Masks};
pub use material::Material;
pub use named::InvalidContext;
pub use run_settings::{Allow, HOST_GATEWAY, RunSettings, Secret, SshSource, Ulimit};

pub use surroundings::{
    AddressRange, Attachment, BoundPort, Device, JoinedNetwork, MemoryFile, Protocol, PublishedPort, Surroundings,
    Tmpfs, VolumeMount,
};

pub use remote::{GitSource, InvalidSource, RemoteSource, redacted};

use std::path::Path;

use async_trait::async_trait;
use events::{EventSink, RunId};
use oci::Digest;

/// What a pipeline asks of a container engine.
///
/// The image ends in the content store whichever engine built it, so that tagging, evidence and pushing are the same
/// for every engine.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Dockerfile and context to a root filesystem that can be started. Its layers need not be sealed yet.
    async fn build(&self, request: BuildRequest, events: &EventSink) -> Result<Built, BuildError>;

    /// Computes diff ids, compresses layers, writes config and manifest into the store. Idempotent; runs beside gates.
    /// Dropping the future ends the work soon.
    async fn seal(&self, built: &Built) -> Result<(store::Image, store::SealedManifest), EngineError>;

    /// The image that a name stands for: of the store, else fetched as bases are. It stays for as long as the engine.
    async fn image(&self, request: ImageRequest, _events: &EventSink) -> Result<ResolvedImage, BuildError> {
        let message = format!("this engine cannot fetch {}", request.reference);
        Err(EngineError { message, hint: None, command_code: None, source: None }.into())
    }

    /// The root of an image that is in the store already.
    async fn root(&self, image: &store::Image) -> Result<Root, EngineError>;

    /// Digest of a host path's names, modes and content, as of a mount that a setup sees. Unchanged files are not read again.
    async fn content(&self, path: &Path) -> Result<Digest, EngineError>;

    /// Whether there is a lasting volume of this name ([`VolumeMount::is_lasting`]).
    async fn has_volume(&self, _name: &str) -> Result<bool, EngineError> {
        Ok(false)
    }

    /// Removes a lasting volume with all that is in it; false when there is none.
    async fn remove_volume(&self, _name: &str) -> Result<bool, EngineError> {
        Ok(false)
    }

    /// Everything that a run starts belongs to one scope.
    async fn open_scope(&self, run: RunId) -> Result<Box<dyn Scope>, EngineError>;
}

/// Owner of a run's containers, throw-away layers, networks. Journals before it makes; sweeps on close.
#[async_trait]
pub trait Scope: Send + Sync {
    /// Runs commands once on top of a root, in a throw-away layer that is cached by content and never part of an image.
    async fn setup(&self, request: SetupRequest, events: &EventSink) -> Result<Root, BuildError>;

    /// Starts a container from a fresh copy of a root.
    async fn start(&self, spec: ContainerSpec) -> Result<Box<dyn Container>, EngineError>;

    /// The root that [`Container::save`] kept under this key, here or in an earlier run.
    async fn saved(&self, _key: &oci::Digest) -> Result<Option<Root>, EngineError> {
        Ok(None)
    }

    /// Stops and removes everything. Also happens on drop, without the error.
    async fn close(&mut self) -> Result<(), EngineError>;
}

/// The engine or its surroundings failed: nothing that the user's files say.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    /// What was attempted, on what.
    pub message: String,
    /// Whole command or action that helps, when known.
    pub hint: Option<String>,
    /// The program was not found (127) or could not be executed (126) in the container: the user's mistake, not the engine's.
    pub command_code: Option<i32>,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl EngineError {
    /// The message and all its causes in one line, as logs of containers tell it.
    pub fn with_causes(&self) -> String {
        let causes = std::iter::successors(std::error::Error::source(self), |cause| cause.source());
        causes.fold(self.message.clone(), |told, cause| format!("{told}: {cause}"))
    }
}
