//! The two ends of a copy: a repository of a registry, or an OCI layout.

use std::{
    collections::HashMap,
    io,
    sync::{Mutex, OnceLock, PoisonError},
};

use bytes::Bytes;
use oci::{Descriptor, Digest, ManifestOrIndex, Platform, Reference};

use super::{
    BlobTarget, Client, CommitError, MANIFEST_BYTES_MAX, Progress, ResolvedManifest, UploadOutcome, describe,
    pull::{blocking, is_there},
    transport::Via,
};
use crate::{ErrorKind, Layout, LayoutError, RegistryError, layout::Listed};

/// Where an image is copied from or to.
#[derive(Debug)]
pub enum CopyPlace {
    /// By its name in a registry.
    Registry(Reference),
    /// An OCI layout, and the image's name in it.
    Layout(Layout, Option<String>),
}

/// One end of a copy.
pub(super) struct End<'a> {
    pub(super) client: &'a Client,
    pub(super) place: &'a CopyPlace,
    /// What refers to each manifest of a layout.
    referrers: OnceLock<HashMap<Digest, Vec<Digest>>>,
    /// `index.json` is read, changed and written by one at a time.
    writing: Mutex<()>,
}

impl<'a> End<'a> {
    pub(super) fn new(client: &'a Client, place: &'a CopyPlace) -> Self {
        Self { client, place, referrers: OnceLock::new(), writing: Mutex::new(()) }
    }

    /// The repository, where this is one.
    pub(super) fn repository(&self) -> Option<&'a Reference> {
        match self.place {
            CopyPlace::Registry(name) => Some(name),
            CopyPlace::Layout(..) => None,
        }
    }

    /// An error of this end.
    pub(super) fn failed(&self, action: &'static str, kind: ErrorKind) -> RegistryError {
        match self.place {
            CopyPlace::Registry(name) => kind.during(action, name),
            CopyPlace::Layout(layout, _) => kind.during(action, layout.path().display()),
        }
    }

    /// What the name means, or its image for one platform.
    pub(super) async fn root(&self, platform: Option<&Platform>) -> Result<ResolvedManifest, RegistryError> {
        let root = match (self.place, platform) {
            (CopyPlace::Registry(name), Some(platform)) => {
                self.client.manifest_for(name, platform).await.map(|(manifest, _)| manifest)
            }
            (CopyPlace::Registry(name), None) => self.client.fetch_kind(name, MANIFEST_BYTES_MAX, Via::Origin).await,
            (CopyPlace::Layout(layout, name), platform) => {
                layout.find(name.as_deref()).map_err(ErrorKind::from).and_then(|found| {
                    let root = document(layout, &found.digest)?;
                    match (&root.document, platform) {
                        (ManifestOrIndex::Index(index), Some(platform)) => {
                            let chosen = index.select(platform);
                            let chosen = chosen.ok_or_else(|| super::pull::missing(index, platform))?;
                            document(layout, &chosen.digest)
                        }
                        _ => Ok(root),
                    }
                })
            }
        };
        root.map_err(|kind| self.failed("copy", kind))
    }

    pub(super) async fn manifest(&self, digest: &Digest) -> Result<ResolvedManifest, RegistryError> {
        match self.place {
            CopyPlace::Registry(name) => {
                self.client.fetch_manifest(&name.with_digest(digest.clone()), MANIFEST_BYTES_MAX).await
            }
            CopyPlace::Layout(layout, _) => document(layout, digest).map_err(|kind| self.failed("copy", kind)),
        }
    }

    /// What a tag beside the image means; `None` without such a tag.
    pub(super) async fn tagged(&self, tag: &str) -> Result<Option<ResolvedManifest>, RegistryError> {
        let found = match self.place {
            CopyPlace::Registry(name) => {
                self.client.fetch_kind(&name.with_tag(tag), MANIFEST_BYTES_MAX, Via::Origin).await
            }
            CopyPlace::Layout(layout, _) => match layout.find(Some(tag)) {
                Ok(found) => document(layout, &found.digest),
                Err(_) => return Ok(None),
            },
        };
        match found {
            Ok(found) => Ok(Some(found)),
            Err(ErrorKind::NotFound { .. }) => Ok(None),
            Err(kind) => Err(self.failed("copy", kind)),
        }
    }

    /// Writes a manifest below a tag beside the image.
    pub(super) async fn put_tagged(&self, manifest: &ResolvedManifest, tag: &str) -> Result<(), RegistryError> {
        let ResolvedManifest { descriptor, bytes, .. } = manifest;
        match self.place {
            CopyPlace::Registry(name) => {
                let put = self.client.put_kind(&name.with_tag(tag), &descriptor.media_type, bytes.clone()).await;
                put.map(drop).map_err(|kind| self.failed("copy to", kind))
            }
            CopyPlace::Layout(..) => self.list(manifest, Listed::As(tag)),
        }
    }

    /// Writes what refers to others by its digest; the entries of those that the registry does not list by itself, with their
    /// subjects.
    pub(super) async fn put_referrer(
        &self,
        manifest: &ResolvedManifest,
    ) -> Result<Option<(Digest, Descriptor)>, RegistryError> {
        let ResolvedManifest { descriptor, bytes, .. } = manifest;
        match self.place {
            CopyPlace::Registry(name) => {
                let place = name.with_digest(descriptor.digest.clone());
                let put = self.client.put_only(&place, &descriptor.media_type, bytes.clone()).await;
                put.map_err(|kind| self.failed("copy to", kind))
            }
            CopyPlace::Layout(..) => self.list(manifest, Listed::Nameless).map(|()| None),
        }
    }

    /// Lists what refers to one manifest, where the registry does not do it by itself. `is_new`: it has just been written.
    pub(super) async fn list_referrers(
        &self,
        subject: &Digest,
        entries: &[Descriptor],
        is_new: bool,
    ) -> Result<(), RegistryError> {
        let Some(name) = self.repository() else { return Ok(()) };
        let listed = match is_new {
            true => self.client.list_referrers(name, subject, entries).await,
            false => self.client.list_again(name, subject, entries).await,
        };
        listed.map_err(|kind| self.failed("list what refers to the image at", kind))
    }

    /// What refers to a manifest.
    pub(super) async fn referrers(&self, digest: &Digest) -> Result<Vec<Digest>, RegistryError> {
        match self.place {
            CopyPlace::Registry(name) => {
                let found = self.client.referrers(&name.with_digest(digest.clone()), None).await?;
                Ok(found.into_iter().map(|descriptor| descriptor.digest).collect())
            }
            CopyPlace::Layout(layout, _) => {
                if self.referrers.get().is_none() {
                    let found = referrers(layout).map_err(|kind| self.failed("copy", kind))?;
                    let _ = self.referrers.set(found);
                }
                Ok(self.referrers.get().and_then(|all| all.get(digest)).cloned().unwrap_or_default())
            }
        }
    }

    /// Whether a manifest is there, and with it what it lists.
    pub(super) async fn has_manifest(&self, manifest: &Descriptor) -> Result<bool, RegistryError> {
        match self.place {
            CopyPlace::Registry(name) => {
                match self.client.resolve_kind(&name.with_digest(manifest.digest.clone())).await {
                    Ok(_) => Ok(true),
                    Err(ErrorKind::NotFound { .. }) => Ok(false),
                    Err(kind) => Err(self.failed("copy to", kind)),
                }
            }
            CopyPlace::Layout(layout, _) => Ok(layout.has(manifest)),
        }
    }

    /// Whether the name means this already.
    pub(super) async fn names(&self, digest: &Digest) -> Result<bool, RegistryError> {
        match self.place {
            CopyPlace::Registry(name) => match self.client.resolve_kind(name).await {
                Ok(found) => Ok(found.digest == *digest),
                Err(ErrorKind::NotFound { .. }) => Ok(false),
                Err(kind) => Err(self.failed("copy to", kind)),
            },
            CopyPlace::Layout(layout, name) => {
                Ok(layout.find(name.as_deref()).is_ok_and(|found| found.digest == *digest))
            }
        }
    }

    /// Writes a manifest by its digest.
    pub(super) async fn put(&self, manifest: &ResolvedManifest) -> Result<(), RegistryError> {
        let ResolvedManifest { descriptor, bytes, .. } = manifest;
        match self.place {
            CopyPlace::Registry(name) => {
                let place = name.with_digest(descriptor.digest.clone());
                let put = self.client.put_kind(&place, &descriptor.media_type, bytes.clone()).await;
                put.map(drop).map_err(|kind| self.failed("copy to", kind))
            }
            CopyPlace::Layout(..) => self.list(manifest, Listed::Not),
        }
    }

    /// Gives a manifest the name of this end, which writes it as well.
    pub(super) async fn put_named(&self, manifest: &ResolvedManifest) -> Result<(), RegistryError> {
        let ResolvedManifest { descriptor, bytes, .. } = manifest;
        match self.place {
            CopyPlace::Registry(name) => {
                let put = self.client.put_kind(name, &descriptor.media_type, bytes.clone()).await;
                put.map(drop).map_err(|kind| self.failed("copy to", kind))
            }
            CopyPlace::Layout(_, name) => self.list(manifest, name.as_deref().map_or(Listed::Nameless, Listed::As)),
        }
    }

    fn list(&self, manifest: &ResolvedManifest, listed: Listed<'_>) -> Result<(), RegistryError> {
        let CopyPlace::Layout(layout, _) = self.place else { unreachable!("only layouts have a list") };
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let put = blocking(|| layout.put(&manifest.descriptor, &manifest.bytes, listed));
        put.map_err(|error| self.failed("copy to", error.into()))
    }

    /// Takes a blob from the other end, of which nothing is here yet; only for layouts.
    pub(super) async fn take(
        &self,
        from: &End<'_>,
        blob: &Descriptor,
        progress: &dyn Progress,
    ) -> Result<UploadOutcome, RegistryError> {
        let CopyPlace::Layout(layout, _) = self.place else { unreachable!("registries are sent blobs") };
        if layout.has(blob) {
            is_there(progress, blob);
            return Ok(UploadOutcome::Existed);
        }
        match from.place {
            CopyPlace::Registry(name) => {
                let open = || -> Result<Box<dyn BlobTarget>, Box<dyn std::error::Error + Send + Sync>> {
                    Ok(Box::new(layout.writer()?))
                };
                let fetched = self.client.fetch_blob_kind(name, blob, &open, progress).await;
                fetched.map_err(|kind| from.failed("copy a layer of", kind))?;
            }
            CopyPlace::Layout(source, _) => {
                let copied = blocking(|| copy_blob(source, layout, blob));
                copied.map_err(|kind| from.failed("copy a layer of", kind))?;
                progress.advance(&blob.digest, blob.size, blob.size);
            }
        }
        Ok(UploadOutcome::Uploaded)
    }
}

fn copy_blob(from: &Layout, to: &Layout, blob: &Descriptor) -> Result<(), ErrorKind> {
    let mut source = from.blob(blob)?;
    let mut target = to.writer().map_err(ErrorKind::local)?;
    io::copy(&mut source, &mut target).map_err(ErrorKind::local)?;
    match Box::new(target).commit(&blob.digest, blob.size) {
        Ok(()) => Ok(()),
        Err(CommitError::WrongDigest(found)) => {
            let reason = format!("its digest is {found}");
            Err(ErrorKind::WrongContent { expected: blob.digest.clone(), reason })
        }
        Err(CommitError::Failed(error)) => Err(ErrorKind::Local(error)),
    }
}

/// A manifest or index of a layout.
fn document(layout: &Layout, digest: &Digest) -> Result<ResolvedManifest, ErrorKind> {
    let bytes = layout.document(digest, MANIFEST_BYTES_MAX)?;
    let bytes = Bytes::from(bytes.ok_or_else(|| ErrorKind::NotFound { message: format!("manifest {digest}") })?);
    let document = ManifestOrIndex::parse(&bytes).map_err(|error| ErrorKind::malformed(describe(&error)))?;
    let kind = super::document_type(&document).unwrap_or_else(|| oci::media_type::MANIFEST.into());
    Ok(ResolvedManifest { descriptor: Descriptor::new(kind, digest.clone(), bytes.len() as u64), bytes, document })
}

/// What the manifests that a layout lists refer to.
fn referrers(layout: &Layout) -> Result<HashMap<Digest, Vec<Digest>>, ErrorKind> {
    let mut found: HashMap<Digest, Vec<Digest>> = HashMap::new();
    for listed in layout.listed()? {
        let Ok(manifest) = document(layout, &listed.digest) else { continue };
        if let Some(subject) = manifest.document.subject() {
            found.entry(subject.digest.clone()).or_default().push(listed.digest);
        }
    }
    Ok(found)
}

impl From<LayoutError> for ErrorKind {
    fn from(error: LayoutError) -> Self {
        ErrorKind::local(error)
    }
}
