//! Downloading: the manifest for a platform, then blobs side by side, each checked and resumed (distribution-spec, "Pull").

use std::{collections::HashSet, error::Error, io, sync::Arc};

use futures::{StreamExt, stream::FuturesUnordered};
use oci::{Descriptor, Digest, Index, Manifest, ManifestOrIndex, Platform, Reference};
use reqwest::{
    Method, Response, StatusCode,
    header::{CONTENT_RANGE, HeaderValue, RANGE},
};
use store::{Arrivals, BlobWriter, Image, PartialBlob, Store, StoreError};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::Semaphore,
    task::{block_in_place, spawn_blocking},
};

use super::{
    Client, MANIFEST_BYTES_MAX, Progress, ResolvedManifest,
    answer::{header_text, next_chunk},
    auth::Scope,
    retry::Failure,
    transport::{Call, Via},
};
use crate::{ErrorKind, RegistryError, spool::Spool};

/// Image configs have some ten kilobytes; those with very long histories a few hundred.
pub(super) const CONFIG_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// An overlay takes 500 layers at most; docker makes 127.
const LAYERS_MAX: usize = 500;
/// A connection that brought this much before it broke counts as progress, and the retries begin anew.
const PROGRESS_BYTES: u64 = 1024 * 1024;
/// Wrong content is fetched once more from the start, in case the first copy was damaged on its way.
const WHOLE_FETCHES_MAX: u32 = 2;

/// Where a fetched blob is written. Dropped without `commit`, nothing may remain.
pub trait BlobTarget: io::Write + Send {
    /// Bytes that are there from an earlier attempt: fetching goes on behind them, and the digest tells in the end.
    fn present_bytes(&self) -> u64 {
        0
    }

    /// Keeps what was written, if it is what it should be; else nothing.
    fn commit(self: Box<Self>, digest: &Digest, size_bytes: u64) -> Result<(), CommitError>;
}

/// What was written to a [`BlobTarget`] was not kept.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// It is other content; this is its digest. It is fetched once more.
    #[error("its digest is {0}")]
    WrongDigest(Digest),
    /// It could not be kept.
    #[error(transparent)]
    Failed(Box<dyn Error + Send + Sync>),
}

impl BlobTarget for BlobWriter {
    fn commit(self: Box<Self>, digest: &Digest, size_bytes: u64) -> Result<(), CommitError> {
        match BlobWriter::commit(*self, Some((digest, size_bytes))) {
            Ok(_) => Ok(()),
            Err(StoreError::Mismatch { actual, .. }) => Err(CommitError::WrongDigest(actual)),
            Err(error) => Err(CommitError::Failed(error.into())),
        }
    }
}

impl BlobTarget for PartialBlob {
    fn present_bytes(&self) -> u64 {
        self.size_bytes()
    }

    fn commit(self: Box<Self>, digest: &Digest, size_bytes: u64) -> Result<(), CommitError> {
        match PartialBlob::commit(*self, (digest, size_bytes)) {
            Ok(()) => Ok(()),
            Err(StoreError::Mismatch { actual, .. }) => Err(CommitError::WrongDigest(actual)),
            Err(error) => Err(CommitError::Failed(error.into())),
        }
    }
}

type OpenTarget<'a> = &'a (dyn Fn() -> Result<Box<dyn BlobTarget>, Box<dyn Error + Send + Sync>> + Send + Sync);

impl Client {
    /// Brings an image into the store: the manifest for `platform`, its config and its layers, unpacked. What the store
    /// has is not fetched.
    pub async fn pull(
        &self,
        reference: &Reference,
        platform: &Platform,
        store: &Store,
        scope: &store::Scope,
        progress: &dyn Progress,
    ) -> Result<Image, RegistryError> {
        let image = self.pull_kind(reference, platform, store, scope, progress).await;
        image.map_err(|kind| kind.during("pull", reference))
    }

    async fn pull_kind(
        &self,
        reference: &Reference,
        platform: &Platform,
        store: &Store,
        scope: &store::Scope,
        progress: &dyn Progress,
    ) -> Result<Image, ErrorKind> {
        let (resolved, manifest) = self.manifest_for(reference, platform).await?;
        check_bounds(&manifest)?;
        let import = || blocking(|| store.import_manifest(scope, &resolved.bytes));
        let all: Vec<&Descriptor> = std::iter::once(&manifest.config).chain(&manifest.layers).collect();
        // A known image has its layers unpacked, whether their blobs were kept or not.
        if store.image(&manifest.config.digest).is_ok_and(|known| known.is_some())
            && let Ok(image) = import()
        {
            all.iter().for_each(|blob| is_there(progress, blob));
            return Ok(image);
        }
        if let Some(image) = self.fetch_and_import(reference, &resolved, &all, store, scope, progress).await? {
            return Ok(image);
        }
        // Something came in a way that could not be unpacked on the go; now all is here.
        let error = match import() {
            Ok(image) => return Ok(image),
            Err(error) => error,
        };
        // The store puts a damaged blob of an earlier day aside when it is read: it is fetched again, once.
        if all.iter().all(|blob| store.has_blob(&blob.digest) == Some(blob.size)) {
            return Err(ErrorKind::Import(Box::new(error)));
        }
        self.fetch_missing(reference, &all, store, scope, &Arc::new(Arrivals::of([])), progress).await?;
        import().map_err(|error| ErrorKind::Import(Box::new(error)))
    }

    /// The image manifest that a reference names for a platform, through an index where there is one.
    pub async fn fetch_image_manifest(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<(ResolvedManifest, Manifest), RegistryError> {
        self.manifest_for(reference, platform).await.map_err(|kind| kind.during("fetch", reference))
    }

    /// That an index has no image for a platform, as a pull of it tells.
    pub fn platform_missing(&self, reference: &Reference, index: &Index, wanted: &Platform) -> RegistryError {
        missing(index, wanted).during("fetch", reference)
    }

    pub(super) async fn manifest_for(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<(ResolvedManifest, Manifest), ErrorKind> {
        let resolved = self.fetch_kind(reference, MANIFEST_BYTES_MAX, Via::Mirrors).await?;
        let index = match &resolved.document {
            ManifestOrIndex::Manifest(manifest) => {
                let manifest = manifest.clone();
                return Ok((resolved, manifest));
            }
            ManifestOrIndex::Index(index) => index,
        };
        let chosen = index.select(platform).ok_or_else(|| missing(index, platform))?;
        let resolved =
            self.fetch_kind(&reference.with_digest(chosen.digest.clone()), MANIFEST_BYTES_MAX, Via::Mirrors).await?;
        match &resolved.document {
            ManifestOrIndex::Manifest(manifest) => {
                let manifest = manifest.clone();
                Ok((resolved, manifest))
            }
            ManifestOrIndex::Index(_) => Err(ErrorKind::malformed("an index within an index")),
        }
    }

    /// Fetches the blobs and unpacks each layer while it comes. `None`: all is here, but that did not work.
    async fn fetch_and_import(
        &self,
        reference: &Reference,
        manifest: &ResolvedManifest,
        blobs: &[&Descriptor],
        store: &Store,
        scope: &store::Scope,
        progress: &dyn Progress,
    ) -> Result<Option<Image>, ErrorKind> {
        let arrivals = Arc::new(Arrivals::of(blobs.iter().map(|blob| &blob.digest)));
        let import = {
            let (arrivals, bytes) = (arrivals.clone(), manifest.bytes.clone());
            let (store, scope) = (store.clone(), scope.clone());
            spawn_blocking(move || store.import_arriving(&scope, &bytes, &arrivals))
        };
        // However this ends, also when it is dropped, nobody waits for what does not come.
        let end = EndOfArrivals(&arrivals);
        self.fetch_missing(reference, blobs, store, scope, &arrivals, progress).await?;
        drop(end);
        Ok(import.await.map_err(ErrorKind::local)?.ok())
    }

    /// Fetches the blobs that the store does not have, side by side.
    async fn fetch_missing(
        &self,
        reference: &Reference,
        blobs: &[&Descriptor],
        store: &Store,
        scope: &store::Scope,
        arrivals: &Arc<Arrivals>,
        progress: &dyn Progress,
    ) -> Result<(), ErrorKind> {
        let permits = Semaphore::new(self.options().parallel_blobs.max(1));
        let mut seen = HashSet::new();
        let mut work = FuturesUnordered::new();
        for &blob in blobs {
            if !seen.insert(&blob.digest) {
                continue;
            }
            // A blob that is leased stays, whatever a prune thinks meanwhile.
            if scope.lease_blob(&blob.digest).is_ok() && store.has_blob(&blob.digest) == Some(blob.size) {
                is_there(progress, blob);
                arrivals.is_here(&blob.digest);
                continue;
            }
            let permits = &permits;
            work.push(async move {
                let _permit = permits.acquire().await.expect("the semaphore is never closed");
                let open = || open_stored(store, blob, arrivals);
                self.fetch_blob_kind(reference, blob, &open, progress).await?;
                scope.lease_blob(&blob.digest).map_err(ErrorKind::local)
            });
        }
        while let Some(done) = work.next().await {
            done?;
        }
        Ok(())
    }

    /// Size of a blob in bytes, as the registry tells it. Nothing of it is fetched.
    ///
    /// # Errors
    /// The registry does not have the blob, fails or refuses, or does not tell.
    pub async fn blob_size(&self, repository: &Reference, digest: &Digest) -> Result<u64, RegistryError> {
        self.blob_size_kind(repository, digest)
            .await
            .map_err(|kind| kind.during("look for a blob of", repository.repository()))
    }

    async fn blob_size_kind(&self, repository: &Reference, digest: &Digest) -> Result<u64, ErrorKind> {
        let call = |method| {
            Call::new(method, repository, format!("blobs/{digest}"), Scope::pull(repository)).via(Via::Mirrors)
        };
        let told = |response: &Response| header_text(response.headers(), "content-length")?.parse().ok();
        match self.transport.send(&call(Method::HEAD)).await {
            Ok(response) => {
                if let Some(size) = told(&response) {
                    return Ok(size);
                }
            }
            // Storage that a redirect names may be signed for GET only.
            Err(ErrorKind::Unexpected { .. } | ErrorKind::Malformed(_) | ErrorKind::Denied { .. }) => {}
            Err(kind) => return Err(kind),
        }
        // The head of the answer is enough: the body is dropped.
        let response = self.transport.send(&call(Method::GET)).await?;
        told(&response).ok_or_else(|| ErrorKind::malformed("it does not tell the blob's size"))
    }

    /// Streams one blob into a target, checked by digest and size, resumed after broken connections. `open` makes an
    /// empty target; it is called again when everything has to be fetched anew.
    pub async fn fetch_blob(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
        open: OpenTarget<'_>,
        progress: &dyn Progress,
    ) -> Result<(), RegistryError> {
        let fetched = self.fetch_blob_kind(repository, descriptor, open, progress).await;
        fetched.map_err(|kind| kind.during("pull a layer of", repository.repository()))
    }

    pub(super) async fn fetch_blob_kind(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
        open: OpenTarget<'_>,
        progress: &dyn Progress,
    ) -> Result<(), ErrorKind> {
        let mut fetches = 1;
        loop {
            let target = blocking(open).map_err(ErrorKind::Local)?;
            let present = target.present_bytes().min(descriptor.size);
            if present > 0 {
                progress.skip(&descriptor.digest, present, descriptor.size);
                progress.advance(&descriptor.digest, present, descriptor.size);
            }
            let mut spool = Spool::new(target);
            // What came is written out also when the rest did not come: the next attempt goes on there.
            if let Err(kind) = self.fetch_whole(repository, descriptor, &mut spool, present, progress).await {
                drop(spool.finish().await);
                return Err(kind);
            }
            let (target, written) = spool.finish().await;
            written.map_err(ErrorKind::local)?;
            let target = target.expect("a spool that finished without an error has its writer");
            let Descriptor { digest, size, .. } = descriptor.clone();
            let committed = spawn_blocking(move || target.commit(&digest, size)).await.map_err(ErrorKind::local)?;
            let found = match committed {
                Ok(()) => return Ok(()),
                Err(CommitError::WrongDigest(found)) => found,
                Err(CommitError::Failed(error)) => return Err(ErrorKind::Local(error)),
            };
            if fetches == WHOLE_FETCHES_MAX {
                let reason = format!("its digest is {found}");
                return Err(ErrorKind::WrongContent { expected: descriptor.digest.clone(), reason });
            }
            self.transport.distrust_mirrors(repository);
            // What an earlier attempt left may be what is wrong: that is no fault of the registry's.
            fetches += u32::from(present == 0);
        }
    }

    /// Fetches all bytes, over as many connections as it takes within the bounds.
    async fn fetch_whole(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
        spool: &mut Spool<Box<dyn BlobTarget>>,
        present: u64,
        progress: &dyn Progress,
    ) -> Result<(), ErrorKind> {
        let (mut done, mut mark) = (present, present);
        let mut retries = self.transport.retries();
        loop {
            match self.fetch_some(repository, descriptor, spool, &mut done, progress).await {
                Ok(()) => return Ok(()),
                Err(failure) => {
                    if matches!(failure.kind, ErrorKind::WrongContent { .. }) {
                        self.transport.distrust_mirrors(repository);
                    }
                    if done - mark >= PROGRESS_BYTES {
                        mark = done;
                        retries.reset();
                    }
                    retries.again(failure).await?;
                }
            }
        }
    }

    /// Fetches from `done` on, over one connection.
    async fn fetch_some(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
        spool: &mut Spool<Box<dyn BlobTarget>>,
        done: &mut u64,
        progress: &dyn Progress,
    ) -> Result<(), Failure> {
        let Descriptor { digest, size, .. } = descriptor;
        if *done == *size {
            return Ok(());
        }
        let wrong = |reason: String| Failure::from(ErrorKind::WrongContent { expected: digest.clone(), reason });
        let mut call =
            Call::new(Method::GET, repository, format!("blobs/{digest}"), Scope::pull(repository)).via(Via::Mirrors);
        if *done > 0 {
            let range = HeaderValue::from_str(&format!("bytes={done}-")).expect("numbers are ASCII");
            call = call.header(RANGE, range);
        }
        let (mut response, _slot) = self.transport.attempt_streaming(&call).await?;
        // A registry that does not know ranges begins again; what we have is passed over.
        let mut skip = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = header_text(response.headers(), CONTENT_RANGE.as_str()).unwrap_or_default();
                if !range.starts_with(&format!("bytes {done}-")) {
                    return Err(wrong(format!("`{range}` came where bytes from {done} on were asked for")));
                }
                0
            }
            _ => {
                if let Some(length) = response.content_length().filter(|length| length != size) {
                    return Err(wrong(format!("it has {length} bytes instead of {size}")));
                }
                *done
            }
        };
        while let Some(mut chunk) = next_chunk(&mut response, self.options().idle_timeout).await? {
            let passed = skip.min(chunk.len() as u64);
            skip -= passed;
            let chunk = chunk.split_off(passed as usize);
            if *done + chunk.len() as u64 > *size {
                return Err(wrong(format!("it has more than {size} bytes")));
            }
            if chunk.is_empty() {
                continue;
            }
            *done += chunk.len() as u64;
            spool.push(chunk).await.map_err(ErrorKind::local)?;
            progress.advance(digest, *done, *size);
        }
        if *done < *size {
            let error =
                io::Error::new(io::ErrorKind::UnexpectedEof, format!("the connection ended at byte {done} of {size}"));
            return Err(ErrorKind::Unreachable(Box::new(error)).into());
        }
        Ok(())
    }
}

/// Smaller blobs are fetched again sooner than they are looked for.
const PARTIAL_BYTES_MIN: u64 = 1024 * 1024;

/// Where a blob is written in the store: large ones so that a killed pull goes on where it was.
fn open_stored(
    store: &Store,
    blob: &Descriptor,
    arrivals: &Arc<Arrivals>,
) -> Result<Box<dyn BlobTarget>, Box<dyn Error + Send + Sync>> {
    let told = |target| Told { target, blob: blob.digest.clone(), arrivals: arrivals.clone() };
    if blob.size >= PARTIAL_BYTES_MIN
        && let Some(partial) = store.partial_blob(&blob.digest, blob.size)?
    {
        arrivals.begins(&blob.digest, partial.reader()?, partial.size_bytes());
        return Ok(Box::new(told(Box::new(partial) as Box<dyn BlobTarget>)));
    }
    Ok(Box::new(told(Box::new(store.blob_writer()?))))
}

/// Dropped, no more comes.
struct EndOfArrivals<'a>(&'a Arrivals);

impl Drop for EndOfArrivals<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Tells whoever unpacks it what has come of a blob.
struct Told {
    target: Box<dyn BlobTarget>,
    blob: Digest,
    arrivals: Arc<Arrivals>,
}

impl io::Write for Told {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.target.write(bytes)?;
        self.arrivals.grew(&self.blob, written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.target.flush()
    }
}

impl BlobTarget for Told {
    fn present_bytes(&self) -> u64 {
        self.target.present_bytes()
    }

    fn commit(self: Box<Self>, digest: &Digest, size_bytes: u64) -> Result<(), CommitError> {
        let Self { target, blob, arrivals } = *self;
        target.commit(digest, size_bytes)?;
        arrivals.is_here(&blob);
        Ok(())
    }
}

/// Tells of a blob that need not be moved.
pub(super) fn is_there(progress: &dyn Progress, blob: &Descriptor) {
    progress.skip(&blob.digest, blob.size, blob.size);
    progress.advance(&blob.digest, blob.size, blob.size);
}

/// Refuses manifests that no honest image has, before anything of them is fetched.
fn check_bounds(manifest: &Manifest) -> Result<(), ErrorKind> {
    if manifest.config.size > CONFIG_BYTES_MAX {
        return Err(ErrorKind::TooLarge { limit_bytes: CONFIG_BYTES_MAX });
    }
    if manifest.layers.len() > LAYERS_MAX {
        return Err(ErrorKind::malformed(format!("the image has more than {LAYERS_MAX} layers")));
    }
    Ok(())
}

/// That an index has no image for the platform.
pub(super) fn missing(index: &Index, wanted: &Platform) -> ErrorKind {
    ErrorKind::PlatformMissing { wanted: Box::new(wanted.clone()), available: platforms(index) }
}

/// The platforms of an index, without the placeholders that attestations have.
fn platforms(index: &Index) -> Vec<Platform> {
    let named = index.manifests.iter().filter_map(|descriptor| descriptor.platform.clone());
    named.filter(|platform| platform.os != "unknown").collect()
}

/// Runs blocking work without holding up other tasks. On a single-threaded runtime there is no other thread to move
/// them to, and borrowed arguments cannot be sent to one.
pub(super) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => block_in_place(work),
        _ => work(),
    }
}
