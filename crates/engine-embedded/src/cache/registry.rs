//! A cache in a repository of a registry: one tag for each scope.

use std::sync::OnceLock;

use builder::{Document, PlaceError, SharedPlace};
use oci::{Descriptor, Digest, ImageConfig, Manifest, ManifestOrIndex, Platform, Reference, media_type};
use registry::{BlobTarget, Client, NoProgress, RegistryError};
use store::{Scope, Store};
use tokio::runtime::Runtime;

use super::{
    DOCUMENT_BYTES_MAX, DOCUMENT_TYPE, MANIFEST_BYTES_MAX, WriteJob, Wrong, inline_document, is_cache, is_newer,
};
use crate::MakeClient;

/// Blobs fetched side by side.
const FETCHED_AT_ONCE: usize = 4;
/// A tag has 128 characters at most (distribution-spec, "Pulling manifests").
const TAG_CHARS_MAX: usize = 128;
/// Digits that tell scopes apart whose names had to be changed for a tag.
const SCOPE_DIGITS: usize = 8;

/// A repository to take from.
pub(super) struct Repository {
    reference: Reference,
    scopes: Vec<String>,
    make_client: MakeClient,
    /// Started by the first request.
    connection: OnceLock<std::io::Result<(Runtime, Client)>>,
}

impl Repository {
    pub(super) fn new(reference: Reference, scopes: Vec<String>, make_client: MakeClient) -> Self {
        Self { reference, scopes, make_client, connection: OnceLock::new() }
    }

    /// Runs requests on a thread of their own: this may be called from inside a runtime or without any.
    fn wait<T: Send>(&self, work: impl AsyncFnOnce(&Client) -> Result<T, PlaceError> + Send) -> Result<T, PlaceError> {
        let connection = self.connection.get_or_init(|| Ok((runtime()?, (self.make_client)())));
        let (runtime, client) = connection.as_ref().map_err(|error| PlaceError::from(error.to_string()))?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| runtime.block_on(work(client)));
            thread.join().unwrap_or_else(|_| Err("a request panicked".into()))
        })
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        // Waiting for its threads is not allowed inside of another runtime; nothing runs in it any more.
        if let Some(Ok((runtime, _))) = self.connection.take() {
            runtime.shutdown_background();
        }
    }
}

impl SharedPlace for Repository {
    fn name(&self) -> String {
        self.reference.familiar()
    }

    fn document(&self) -> Result<Option<Document>, PlaceError> {
        self.wait(async |client| {
            let mut missing = None;
            for scope in &self.scopes {
                let reference = of_scope(&self.reference, scope);
                match document_of(client, &reference).await {
                    Ok(Some(document)) => return Ok(Some(document)),
                    Ok(None) => missing = Some(format!("{} has no cache in it", reference.familiar()).into()),
                    Err(error) => match error.downcast::<RegistryError>() {
                        Ok(error) if error.is_not_found() => missing = Some(PlaceError::from(error)),
                        Ok(error) => return Err(error.into()),
                        Err(other) => return Err(other),
                    },
                }
            }
            missing.map_or(Ok(None), Err)
        })
    }

    fn fetch(&self, store: &Store, scope: &Scope, blobs: &[Descriptor]) -> Result<(), PlaceError> {
        let is_here = |blob: &&Descriptor| {
            scope.lease_blob(&blob.digest).is_ok() && store.has_blob(&blob.digest) == Some(blob.size)
        };
        let missing: Vec<&Descriptor> = blobs.iter().filter(|blob| !is_here(blob)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        self.wait(async |client| {
            for some in missing.chunks(FETCHED_AT_ONCE) {
                let fetches = some.iter().map(|blob| fetch_blob(client, &self.reference, blob, store));
                futures::future::try_join_all(fetches).await?;
            }
            Ok(())
        })?;
        missing.iter().try_for_each(|blob| Ok(scope.lease_blob(&blob.digest)?))
    }
}

/// Writes a scope; false when a build that began later has written it already.
pub(super) fn write(
    reference: &Reference,
    scope: &str,
    job: &WriteJob<'_>,
    make_client: &MakeClient,
) -> Result<bool, PlaceError> {
    let target = of_scope(reference, scope);
    let repository = Repository::new(reference.clone(), Vec::new(), make_client.clone());
    let began_s = job.artifact.began_s;
    let is_outdated = || {
        repository.wait(async |client| match client.fetch_manifest(&target, MANIFEST_BYTES_MAX).await {
            Ok(found) => Ok(match &found.document {
                ManifestOrIndex::Manifest(manifest) => is_newer(&manifest.annotations, began_s),
                ManifestOrIndex::Index(_) => false,
            }),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        })
    };
    if is_outdated()? {
        return Ok(false);
    }
    for blob in &job.exported.blobs {
        job.stop.check()?;
        let digest = &blob.descriptor.digest;
        // What the repository has need not come here first.
        if blob.is_elsewhere() && repository.wait(async |client| Ok(client.has_blob(&target, digest).await?))? {
            continue;
        }
        (job.bring)(blob)?;
        let blobs = std::slice::from_ref(&blob.descriptor);
        repository.wait(async |client| {
            client.push_blobs(&target, blobs, job.store, None, &NoProgress).await?;
            Ok(())
        })?;
    }
    let digest = job.store.put_blob(&job.artifact.document)?;
    job.scope.lease_blob(&digest)?;
    let document = Descriptor::of(DOCUMENT_TYPE, &job.artifact.document);
    repository.wait(async |client| {
        client.push_blobs(&target, std::slice::from_ref(&document), job.store, None, &NoProgress).await?;
        Ok(())
    })?;
    // Once more, right before the name is written: uploading took its time.
    if is_outdated()? {
        return Ok(false);
    }
    repository.wait(async |client| {
        client.put_manifest(&target, media_type::MANIFEST, job.artifact.manifest.clone()).await?;
        Ok(())
    })?;
    Ok(true)
}

/// What a tag has: a cache, or an image with its cache inline.
async fn document_of(client: &Client, reference: &Reference) -> Result<Option<Document>, PlaceError> {
    let found = client.fetch_manifest(reference, MANIFEST_BYTES_MAX).await?;
    let manifest = match found.document {
        ManifestOrIndex::Manifest(manifest) => manifest,
        ManifestOrIndex::Index(_) => client.fetch_image_manifest(reference, &Platform::host()).await?.1,
    };
    if is_cache(&manifest) {
        let bytes = read_blob(client, reference, &manifest.config, "its document").await?;
        return Ok(Some(serde_json::from_slice(&bytes)?));
    }
    inline(client, reference, &manifest).await
}

async fn inline(client: &Client, reference: &Reference, manifest: &Manifest) -> Result<Option<Document>, PlaceError> {
    if inline_document(manifest, &[])?.is_none() {
        return Ok(None);
    }
    let config = read_blob(client, reference, &manifest.config, "its config").await?;
    let config: ImageConfig = serde_json::from_slice(&config)?;
    Ok(inline_document(manifest, &config.rootfs.diff_ids)?)
}

/// A small blob, checked by the client.
async fn read_blob(
    client: &Client,
    reference: &Reference,
    descriptor: &Descriptor,
    what: &'static str,
) -> Result<Vec<u8>, PlaceError> {
    if descriptor.size > DOCUMENT_BYTES_MAX {
        return Err(Wrong::TooLarge { what, bytes: descriptor.size, limit: DOCUMENT_BYTES_MAX }.into());
    }
    let bytes = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let open = || -> Result<Box<dyn BlobTarget>, PlaceError> {
        Ok(Box::new(Memory { bytes: Vec::new(), kept: bytes.clone() }))
    };
    client.fetch_blob(reference, descriptor, &open, &NoProgress).await?;
    let read = std::mem::take(&mut *bytes.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    Ok(read)
}

struct Memory {
    bytes: Vec<u8>,
    kept: std::sync::Arc<std::sync::Mutex<Vec<u8>>>,
}

impl std::io::Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl BlobTarget for Memory {
    fn commit(self: Box<Self>, digest: &Digest, _: u64) -> Result<(), registry::CommitError> {
        let actual = Digest::of(&self.bytes);
        if actual != *digest {
            return Err(registry::CommitError::WrongDigest(actual));
        }
        *self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = self.bytes;
        Ok(())
    }
}

async fn fetch_blob(
    client: &Client,
    reference: &Reference,
    blob: &Descriptor,
    store: &Store,
) -> Result<(), PlaceError> {
    let open = || -> Result<Box<dyn BlobTarget>, PlaceError> { Ok(Box::new(store.blob_writer()?)) };
    Ok(client.fetch_blob(reference, blob, &open, &NoProgress).await?)
}

/// The reference of a scope: `cache` and `main` are `cache.main`. What a tag cannot hold is replaced, and told apart by
/// some digits of the scope's digest.
fn of_scope(reference: &Reference, scope: &str) -> Reference {
    if scope.is_empty() {
        return reference.clone();
    }
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let mut name: String = scope.chars().map(|c| if is_legal(c) { c } else { '-' }).collect();
    let lead = reference.tag().unwrap_or("cache");
    let room = TAG_CHARS_MAX.saturating_sub(lead.len() + 1);
    if name != scope || name.len() > room {
        name.truncate(room.saturating_sub(SCOPE_DIGITS + 1));
        name = format!("{name}-{}", &Digest::of(scope.as_bytes()).hex()[..SCOPE_DIGITS]);
    }
    reference.with_tag(&format!("{lead}.{name}"))
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_tags() {
        let tag = |reference: &str, scope: &str| {
            of_scope(&reference.parse().unwrap(), scope).tag_or_latest().unwrap_or_default().to_owned()
        };
        assert_eq!(tag("r/app:cache", "main"), "cache.main");
        assert_eq!(tag("r/app", "main"), "cache.main");
        assert_eq!(tag("r/app:1", ""), "1");
        let odd = tag("r/app:c", "feature/ä b");
        assert!(odd.starts_with("c.feature---b-") && odd != tag("r/app:c", "feature--ä-b"), "{odd}");
        assert!(tag("r/app:c", &"x".repeat(500)).len() <= TAG_CHARS_MAX);
    }
}
