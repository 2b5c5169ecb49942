//! Whether a registry still has what an image's manifests name: every blob is read once and nothing of it is kept.

use std::{
    collections::HashSet,
    io::{self, Write},
};

use futures::{StreamExt, TryStreamExt};
use oci::{Descriptor, Digest, Hasher, ManifestOrIndex, Reference};

use super::{BlobTarget, Client, CommitError, MANIFEST_BYTES_MAX, Progress};
use crate::{ErrorKind, RegistryError};

/// What was found in a registry of the content of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContentCheck {
    /// Different blobs that were read.
    pub blobs: usize,
    /// Their bytes.
    pub size_bytes: u64,
    /// What is not there, or not what it should be.
    pub wrong: Vec<WrongPart>,
}

/// A part of an image that is not there, or not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongPart {
    /// `manifest`, `config` or `layer`.
    pub kind: &'static str,
    /// Its digest, as the image names it.
    pub digest: Digest,
    /// What is wrong with it.
    pub reason: String,
}

impl Client {
    /// Reads the blobs of these manifests of a repository and compares their digests and sizes. Indexes among them are read
    /// themselves; what they list is not followed.
    ///
    /// # Errors
    /// The registry fails or refuses. Content that is missing or wrong is no error but the answer.
    pub async fn check_content(
        &self,
        repository: &Reference,
        manifests: &[Digest],
        progress: &dyn Progress,
    ) -> Result<ContentCheck, RegistryError> {
        let mut check = ContentCheck::default();
        let (mut blobs, mut seen) = (Vec::new(), HashSet::new());
        for digest in manifests {
            match self.fetch_manifest(&repository.with_digest(digest.clone()), MANIFEST_BYTES_MAX).await {
                Ok(found) => {
                    if let ManifestOrIndex::Manifest(manifest) = found.document {
                        blobs.push(("config", manifest.config));
                        // Layers with addresses of their own are not distributed by registries.
                        let own = manifest.layers.into_iter().filter(|layer| !layer.media_type.contains("foreign"));
                        blobs.extend(own.map(|layer| ("layer", layer)));
                    }
                }
                Err(error) => check.wrong.push(wrong("manifest", digest, error)?),
            }
        }
        blobs.retain(|(_, blob)| seen.insert(blob.digest.clone()));
        check.blobs = blobs.len();
        check.size_bytes = blobs.iter().map(|(_, blob)| blob.size).sum();
        let reads: Vec<_> =
            blobs.iter().map(|(kind, blob)| self.read_through(repository, kind, blob, progress)).collect();
        let at_once = self.options().parallel_blobs.max(1);
        let found: Vec<Option<WrongPart>> = futures::stream::iter(reads).buffered(at_once).try_collect().await?;
        check.wrong.extend(found.into_iter().flatten());
        Ok(check)
    }

    async fn read_through(
        &self,
        repository: &Reference,
        kind: &'static str,
        blob: &Descriptor,
        progress: &dyn Progress,
    ) -> Result<Option<WrongPart>, RegistryError> {
        let open = || -> Result<Box<dyn BlobTarget>, Box<dyn std::error::Error + Send + Sync>> {
            Ok(Box::new(Hashed(Hasher::new())))
        };
        match self.fetch_blob(repository, blob, &open, progress).await {
            Ok(()) => Ok(None),
            Err(error) => wrong(kind, &blob.digest, error).map(Some),
        }
    }
}

/// What an error says of a part; errors that say nothing of it stay errors.
fn wrong(kind: &'static str, digest: &Digest, error: RegistryError) -> Result<WrongPart, RegistryError> {
    let reason = match &error.kind {
        ErrorKind::WrongContent { reason, .. } => reason.clone(),
        ErrorKind::NotFound { .. } => "it is not there".to_owned(),
        ErrorKind::Malformed(_) | ErrorKind::TooLarge { .. } => error.kind.to_string(),
        _ => return Err(error),
    };
    Ok(WrongPart { kind, digest: digest.clone(), reason })
}

/// Keeps nothing but the hash.
struct Hashed(Hasher);

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BlobTarget for Hashed {
    fn commit(self: Box<Self>, digest: &Digest, _: u64) -> Result<(), CommitError> {
        let found = self.0.finish();
        if found == *digest { Ok(()) } else { Err(CommitError::WrongDigest(found)) }
    }
}
