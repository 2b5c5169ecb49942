//! The engine itself: builds, seals, opens scopes.

use std::{
    collections::HashMap,
    io::Read,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use builder::{FetchError, FetchedContext, Host, Shared};
use engine::{
    BuildContext, BuildError, BuildRequest, Built, Cancel, Engine, EngineError, ImageRequest, RemoteSource,
    ResolvedImage, Root, Scope,
};
use events::{Event, EventSink, RunId};
use evidence::Trust;
use oci::{DiffId, Digest, ImageConfig};
use runtime::{Network, Privilege};
use store::{Compression, Image, ManifestOptions, SealedManifest, Stop, Store};

use crate::{
    base_of,
    bases::{Bases, MakeClient},
    cache::{self, CacheImport},
    downloads::WebDownloads,
    failed,
    layered::Layered,
    scope::EmbeddedScope,
    volumes,
};

/// Layers sealed at once. Each reads, hashes and compresses on its own thread; more than a few only take memory.
const SEALED_AT_ONCE: usize = 4;

/// What the engine works with.
#[derive(Clone)]
pub struct EmbeddedOptions {
    /// Where everything lives.
    pub store: Store,
    /// What this process may do, from [`runtime::enter`].
    pub privilege: Privilege,
    /// runc or crun instead of our own runtime.
    pub foreign_runtime: Option<PathBuf>,
    /// For base images that the store does not have.
    pub client: MakeClient,
    /// What [`engine::NetworkMode::Default`] means for the RUN instructions of builds. In scopes it is a private network.
    pub default_network: Network,
    /// How sealed layers are compressed.
    pub compression: Compression,
    /// What images of registries need before they are used; see also [`Embedded::trusting`].
    pub trust: Arc<Trust>,
}

/// The engine in this process. Cheap to clone.
#[derive(Clone)]
pub struct Embedded {
    pub(crate) inner: Arc<Inner>,
    /// Of this handle: another one on the same engine may ask for more, or less.
    trust: Arc<Trust>,
}

pub(crate) struct Inner {
    pub(crate) options: EmbeddedOptions,
    /// Steps from elsewhere, and what builds used.
    pub(crate) shared: Shared,
    /// Keeps what builds made from prune until the engine goes; opened when first needed.
    scope: OnceLock<store::Scope>,
    opening: Mutex<()>,
}

impl Embedded {
    /// An engine. Nothing is opened or started.
    pub fn new(options: EmbeddedOptions) -> Self {
        Self::with_cache(options, Vec::new())
    }

    /// An engine whose builds take steps from other places as well.
    pub fn with_cache(options: EmbeddedOptions, imports: Vec<CacheImport>) -> Self {
        let (shared, trust) = (cache::shared(&options, imports), Arc::clone(&options.trust));
        Self { inner: Arc::new(Inner { options, shared, scope: OnceLock::new(), opening: Mutex::default() }), trust }
    }

    /// The same engine for one who asks for other things before images are used: what was said before does not count.
    pub fn trusting(&self, trust: Trust) -> Self {
        Self { inner: Arc::clone(&self.inner), trust: Arc::new(trust) }
    }

    /// As [`Engine::build`], for callers without an async runtime.
    ///
    /// # Errors
    /// As [`builder::build`].
    pub fn build_blocking(&self, request: &BuildRequest, events: &EventSink) -> Result<Built, BuildError> {
        let layered = self.inner.layered(request)?;
        let request = &match &layered {
            Some((layered, origin)) => {
                let context = BuildContext::Fetched { directory: layered.path().to_owned(), origin: origin.clone() };
                BuildRequest { context, ..request.clone() }
            }
            None => request.clone(),
        };
        let build = || self.with_host(&request.stage, events, |host| builder::build(request, host, events));
        let shared = &self.inner.shared;
        let built = build();
        let warn = |message| events.emit(Event::Warning { message, place: None });
        shared.take_warnings().into_iter().for_each(warn);
        match built {
            // A place lost what its records speak of: what it gave is made here.
            Err(BuildError::Engine(error)) if shared.give_up() => {
                let cause = error.source.map(|cause| format!(" ({cause})")).unwrap_or_default();
                warn(format!("a shared cache is not used{cause}; the build starts again without it"));
                build()
            }
            built => built,
        }
    }

    /// Fetches a build context that the user named on the command line. It lives as long as this engine.
    ///
    /// # Errors
    /// As [`builder::fetch_context`].
    pub fn fetch_context(
        &self,
        source: &RemoteSource,
        keeps_git_dir: bool,
        cancel: &Cancel,
        events: &EventSink,
    ) -> Result<FetchedContext, FetchError> {
        let is_stopped = || cancel.is_cancelled();
        self.with_host("build", events, |host| builder::fetch_context(host, source, keeps_git_dir, &is_stopped))
    }

    /// Unpacks an archive that is a build context; `None` when it is no archive. It lives as long as this engine.
    ///
    /// # Errors
    /// As [`builder::unpack_context`].
    pub fn unpack_context(&self, archive: &mut dyn Read, cancel: &Cancel) -> Result<Option<PathBuf>, FetchError> {
        let is_stopped = || cancel.is_cancelled();
        let events = EventSink::silent();
        self.with_host("build", &events, |host| builder::unpack_context(host, archive, &is_stopped))
    }

    fn with_host<T, E: From<EngineError>>(
        &self,
        stage: &str,
        events: &EventSink,
        act: impl FnOnce(&Host<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.inner.with_host(stage, events, &self.trust, act)
    }

    /// As [`Engine::seal`], for callers without an async runtime.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub fn seal_blocking(&self, built: &Built) -> Result<(Image, SealedManifest), EngineError> {
        self.seal_as(built, &self.inner.options.compression.into(), Stop::NEVER)
    }

    /// As [`Embedded::seal_blocking`] with a manifest of the caller's choice, unless it is stopped.
    ///
    /// # Errors
    /// The store cannot be read or written, or it was stopped.
    pub fn seal_as(
        &self,
        built: &Built,
        options: &ManifestOptions,
        stop: Stop<'_>,
    ) -> Result<(Image, SealedManifest), EngineError> {
        // Compressing a layer gives its diff id on the way, so it is read once.
        let image = self.put_image(built, Some(options), stop)?;
        let store = &self.inner.options.store;
        let sealed = store
            .manifest_or_stop(&image, options, stop)
            .map_err(|error| failed(format!("cannot seal image {}", image.id.short()), error))?;
        Ok((image, sealed))
    }

    /// The image with its id, without compressing anything: what a build needs that pushes nothing.
    ///
    /// # Errors
    /// The store cannot be read or written, or it was stopped.
    pub fn image_blocking(&self, built: &Built, stop: Stop<'_>) -> Result<Image, EngineError> {
        self.put_image(built, None, stop)
    }

    /// With `blobs`, layers are compressed so as well.
    fn put_image(&self, built: &Built, blobs: Option<&ManifestOptions>, stop: Stop<'_>) -> Result<Image, EngineError> {
        let options = &self.inner.options;
        let fail = |error| failed("cannot seal the built image", error);
        let diff_ids = self.inner.diff_ids(built, blobs, stop).map_err(fail)?;
        let mut config: ImageConfig = built.root.config.clone();
        config.rootfs.diff_ids = diff_ids;
        let image = options.store.put_image(&config, &built.layers, built.epoch).map_err(fail)?;
        base_of::remember(&options.store, &image, built);
        Ok(image)
    }
}

impl Inner {
    /// The scope of builds.
    pub(crate) fn scope(&self) -> Result<&store::Scope, EngineError> {
        let _guard = self.opening.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.scope.get().is_none() {
            let scope = self.options.store.open_scope().map_err(|error| failed("cannot open a scope", error))?;
            let _ = self.scope.set(scope);
        }
        Ok(self.scope.get().expect("set above while the guard is held"))
    }

    /// A context with files added as one directory, and how it is called.
    fn layered(&self, request: &BuildRequest) -> Result<Option<(Layered, String)>, EngineError> {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let BuildContext::Layered { base, over } = &request.context else { return Ok(None) };
        let directory = self.scope()?.dir().join(format!("context-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let layered = Layered::new(directory, base, over)
            .map_err(|error| failed(format!("cannot add files to the build context {}", base.display()), error))?;
        Ok(Some((layered, base.display().to_string())))
    }

    pub(crate) fn with_host<T, E: From<EngineError>>(
        &self,
        stage: &str,
        events: &EventSink,
        trust: &Trust,
        act: impl FnOnce(&Host<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let options = &self.options;
        let scope = self.scope()?;
        let bases = Bases {
            client: &options.client,
            store: &options.store,
            scope,
            events,
            stage,
            trust,
            slots: Mutex::new(HashMap::new()),
        };
        let downloads = WebDownloads { events, stage };
        act(&Host {
            store: &options.store,
            scope,
            bases: &bases,
            downloads: &downloads,
            shared: &self.shared,
            privilege: &options.privilege,
            foreign_runtime: options.foreign_runtime.as_deref(),
            default_network: &options.default_network,
        })
    }

    /// The diff ids of all layers, worked out a few side by side.
    fn diff_ids(
        &self,
        built: &Built,
        blobs: Option<&ManifestOptions>,
        stop: Stop<'_>,
    ) -> Result<Vec<DiffId>, store::StoreError> {
        let store = &self.options.store;
        let seal = |layer: &store::SnapshotId| {
            if let Some(options) = blobs {
                store.seal_or_stop(layer, built.epoch, options.into(), stop)?;
            }
            Ok(store.diff_id_or_stop(layer, built.epoch, stop)?.0)
        };
        let next = AtomicUsize::new(0);
        let found: Vec<OnceLock<Result<DiffId, store::StoreError>>> =
            built.layers.iter().map(|_| OnceLock::new()).collect();
        let work = || {
            while let Some(at) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < found.len()) {
                let _ = found[at].set(seal(&built.layers[at]));
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..SEALED_AT_ONCE.min(found.len()) {
                scope.spawn(work);
            }
            work();
        });
        found.into_iter().map(|result| result.into_inner().expect("every place was taken")).collect()
    }
}

#[async_trait]
impl Engine for Embedded {
    async fn build(&self, request: BuildRequest, events: &EventSink) -> Result<Built, BuildError> {
        let (this, events) = (self.clone(), events.clone());
        blocking(move || this.build_blocking(&request, &events)).await
    }

    async fn seal(&self, built: &Built) -> Result<(Image, SealedManifest), EngineError> {
        let (this, built) = (self.clone(), built.clone());
        let asked = StopOnDrop::default();
        let is_stopped = asked.0.clone();
        blocking(move || {
            let is_stopped = || is_stopped.load(Ordering::Relaxed);
            this.seal_as(&built, &this.inner.options.compression.into(), Stop::when(&is_stopped))
        })
        .await
    }

    async fn image(&self, request: ImageRequest, events: &EventSink) -> Result<ResolvedImage, BuildError> {
        let (this, events) = (self.clone(), events.clone());
        blocking(move || {
            let resolve = |host: &Host<'_>| builder::resolve(host, &request, &events);
            let image = this.with_host(&request.stage, &events, resolve)?;
            Ok(ResolvedImage { root: builder::image_root(&image), id: image.id })
        })
        .await
    }

    async fn root(&self, image: &Image) -> Result<Root, EngineError> {
        Ok(builder::image_root(image))
    }

    async fn content(&self, path: &Path) -> Result<Digest, EngineError> {
        let (store, owned) = (self.inner.options.store.clone(), path.to_owned());
        let attempt = format!("cannot read the mounted path {}", path.display());
        blocking(move || builder::content_digest(&store, &owned)).await.map_err(|error| failed(attempt, error))
    }

    async fn has_volume(&self, name: &str) -> Result<bool, EngineError> {
        Ok(volumes::exists(&self.inner.options.store, name))
    }

    async fn remove_volume(&self, name: &str) -> Result<bool, EngineError> {
        let (store, owned) = (self.inner.options.store.clone(), name.to_owned());
        let attempt = format!("cannot remove the volume {name}");
        blocking(move || volumes::remove(&store, &owned)).await.map_err(|error| failed(attempt, error))
    }

    async fn open_scope(&self, run: RunId) -> Result<Box<dyn Scope>, EngineError> {
        let inner = self.inner.clone();
        let scope = blocking(move || EmbeddedScope::open(inner, run)).await?;
        Ok(Box::new(scope))
    }
}

/// Tells blocking work that nobody waits for its result any more.
#[derive(Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Work that blocks, off the async threads. A panic in it goes on here.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => unreachable!("blocking work is never aborted"),
        },
    }
}
