//! Small blobs in memory: the config of an image, and the version that it tells of itself.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use oci::{Descriptor, Digest, ImageConfig, ManifestOrIndex, Platform, Reference};

use super::{BlobTarget, Client, CommitError, MANIFEST_BYTES_MAX, NoProgress, pull::CONFIG_BYTES_MAX, transport::Via};
use crate::{ErrorKind, ImageVersion, RegistryError};

/// Label or annotation with the version of what an image holds (image-spec, "Pre-Defined Annotation Keys").
pub const VERSION_ANNOTATION: &str = "org.opencontainers.image.version";

impl Client {
    /// A small blob, such as a config, as its very bytes; checked by digest and size.
    ///
    /// # Errors
    /// The registry fails or refuses, or the blob is larger than any config.
    pub async fn fetch_small_blob(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
    ) -> Result<Bytes, RegistryError> {
        let fetched = self.small_blob_kind(repository, descriptor, CONFIG_BYTES_MAX).await;
        fetched.map_err(|kind| kind.during("fetch the config of", repository))
    }

    /// A blob of at most `limit_bytes` in memory: a document that refers to an image. Checked by digest and size.
    ///
    /// # Errors
    /// The registry fails or refuses, or the blob is larger.
    pub async fn fetch_document(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
        limit_bytes: u64,
    ) -> Result<Bytes, RegistryError> {
        let fetched = self.small_blob_kind(repository, descriptor, limit_bytes).await;
        fetched.map_err(|kind| kind.during("fetch a document of", repository))
    }

    async fn small_blob_kind(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
        limit_bytes: u64,
    ) -> Result<Bytes, ErrorKind> {
        if descriptor.size > limit_bytes {
            return Err(ErrorKind::TooLarge { limit_bytes });
        }
        let kept: Arc<Mutex<Bytes>> = Arc::default();
        let open = || -> Result<Box<dyn BlobTarget>, Box<dyn std::error::Error + Send + Sync>> {
            Ok(Box::new(InMemory { bytes: Vec::new(), kept: Arc::clone(&kept) }))
        };
        self.fetch_blob_kind(repository, descriptor, &open, &NoProgress).await?;
        Ok(std::mem::take(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// The version that an image tells of itself: the annotation of its manifest or index, else the label of its config. Of an
    /// image for several platforms, one speaks for all.
    ///
    /// # Errors
    /// The registry fails or refuses. That the image tells none is `None`.
    pub async fn image_version(&self, reference: &Reference) -> Result<Option<ImageVersion>, RegistryError> {
        self.version_kind(reference).await.map_err(|kind| kind.during("look up the version of", reference))
    }

    async fn version_kind(&self, reference: &Reference) -> Result<Option<ImageVersion>, ErrorKind> {
        let mut resolved = self.fetch_kind(reference, MANIFEST_BYTES_MAX, Via::Origin).await?;
        if let ManifestOrIndex::Index(index) = &resolved.document {
            if let Some(version) = index.annotations.get(VERSION_ANNOTATION) {
                return Ok(Some(ImageVersion::Annotation(version.clone())));
            }
            let Some(chosen) = index.select(&Platform::host()).or_else(|| index.manifests.first()) else {
                return Ok(None);
            };
            let place = reference.with_digest(chosen.digest.clone());
            resolved = self.fetch_kind(&place, MANIFEST_BYTES_MAX, Via::Origin).await?;
        }
        let ManifestOrIndex::Manifest(manifest) = &resolved.document else { return Ok(None) };
        if let Some(version) = manifest.annotations.get(VERSION_ANNOTATION) {
            return Ok(Some(ImageVersion::Annotation(version.clone())));
        }
        let bytes = self.small_blob_kind(reference, &manifest.config, CONFIG_BYTES_MAX).await?;
        // What is no image has no config of ours to look into.
        let config = serde_json::from_slice::<ImageConfig>(&bytes).ok();
        Ok(config.and_then(|mut config| config.config.labels.remove(VERSION_ANNOTATION)).map(ImageVersion::Label))
    }
}

struct InMemory {
    bytes: Vec<u8>,
    kept: Arc<Mutex<Bytes>>,
}

impl Write for InMemory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BlobTarget for InMemory {
    fn commit(self: Box<Self>, digest: &Digest, _: u64) -> Result<(), CommitError> {
        let found = Digest::of(&self.bytes);
        if found != *digest {
            return Err(CommitError::WrongDigest(found));
        }
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = self.bytes.into();
        Ok(())
    }
}
