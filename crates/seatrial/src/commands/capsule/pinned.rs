//! The images that a capsule's run used, under the names that its file says, whatever those names mean by now.

use std::{collections::BTreeMap, path::Path};

use async_trait::async_trait;
use engine::{BuildError, BuildRequest, Built, Engine, EngineError, ImageRequest, Pull, ResolvedImage, Root, Scope};
use events::{Event, EventSink, RunId};
use oci::{Digest, Reference};

use super::Content;

/// An engine that looks up names as they were.
pub(in crate::commands) struct Pinned<'a> {
    engine: &'a dyn Engine,
    /// Manifests by name.
    manifests: BTreeMap<String, Digest>,
}

impl<'a> Pinned<'a> {
    /// By what `replay` handed over.
    pub(in crate::commands) fn new(engine: &'a dyn Engine, replayed: &Path) -> Self {
        let used = Content::read(replayed).used;
        let manifests = used.into_iter().filter_map(|one| Some((one.name, one.manifest?.parse().ok()?)));
        Self { engine, manifests: manifests.collect() }
    }

    fn pin(&self, reference: &Reference) -> Option<Reference> {
        let manifest = self.manifests.get(&reference.familiar())?;
        Some(reference.with_digest(manifest.clone()))
    }
}

#[async_trait]
impl Engine for Pinned<'_> {
    async fn build(&self, request: BuildRequest, events: &EventSink) -> Result<Built, BuildError> {
        self.engine.build(request, events).await
    }

    async fn seal(&self, built: &Built) -> Result<(store::Image, store::SealedManifest), EngineError> {
        self.engine.seal(built).await
    }

    async fn image(&self, request: ImageRequest, events: &EventSink) -> Result<ResolvedImage, BuildError> {
        let Some(pinned) = self.pin(&request.reference) else { return self.engine.image(request, events).await };
        let exact = ImageRequest { reference: pinned, pull: Pull::Missing, ..request.clone() };
        match self.engine.image(exact, events).await {
            // It is gone everywhere: what the name means now is the next best, and the difference is told in the end.
            Err(BuildError::Base { .. }) => {
                let message = format!("{} cannot be had as the capsule's run had it", request.reference.familiar());
                events.emit(Event::Warning { message, place: request.place.clone() });
                self.engine.image(request, events).await
            }
            found => found,
        }
    }

    async fn root(&self, image: &store::Image) -> Result<Root, EngineError> {
        self.engine.root(image).await
    }

    async fn content(&self, path: &Path) -> Result<Digest, EngineError> {
        self.engine.content(path).await
    }

    async fn open_scope(&self, run: RunId) -> Result<Box<dyn Scope>, EngineError> {
        self.engine.open_scope(run).await
    }
}
