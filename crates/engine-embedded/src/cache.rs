//! Build caches at other places: `--cache-from`, `--cache-to`.
//!
//! A place holds one artefact (image-spec, "Guidelines for Artifact Usage") for each *scope*, usually a branch: its config
//! is a [`Document`], its layers are the blobs that the document speaks of, the very ones that images have. In a directory
//! the artefacts lie in an OCI layout whose index names the scopes; in a registry each scope has its own tag. Whoever
//! writes a scope replaces its artefact, unless a build that began later has done so already.

mod directory;
mod registry;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use builder::{Document, ExportRequest, Exported, PlaceError, Shared};
use oci::{Descriptor, Digest, Manifest, Reference, media_type};
use store::{LayerOptions, SnapshotId, Stop, Store, StoreError};

use crate::{Embedded, EmbeddedOptions};

/// Type of the artefact.
const ARTIFACT_TYPE: &str = "application/vnd.seatrial.cache.v1";
/// Its config: a [`Document`].
const DOCUMENT_TYPE: &str = "application/vnd.seatrial.cache.document.v1+json";
/// The scope, on the artefact's manifest and on its descriptor.
const SCOPE: &str = "io.seatrial.cache.scope";
/// When the build began that wrote it, in seconds since 1970.
const BEGAN: &str = "io.seatrial.cache.began";
/// An image's own steps, as a [`Document`] whose layers are told by position: `type=inline`.
const INLINE: &str = "io.seatrial.cache.inline";
/// A document has about a kilobyte for each step.
const DOCUMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Registries refuse larger ones (distribution-spec, "Pushing Manifests").
const MANIFEST_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A directory or a repository that holds caches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CachePlace {
    /// A directory with an OCI layout.
    Directory(PathBuf),
    /// A repository of a registry; the tag leads the tags of the scopes.
    Registry(Reference),
}

/// Where builds take steps from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheImport {
    /// Where.
    pub place: CachePlace,
    /// Scopes, the first that is there is taken; an empty name is what no scope has, such as an image with a cache inline.
    pub scopes: Vec<String>,
}

/// Where the steps of a build go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheExport {
    /// Where.
    pub place: CachePlace,
    /// In which scope; empty is none.
    pub scope: String,
    /// Steps of all stages (`mode=max`), or of the image only.
    pub all_stages: bool,
    /// How layers are compressed.
    pub layers: LayerOptions,
    /// Also the content of cache mounts.
    pub with_mounts: bool,
    /// When the build began: an older one never replaces a newer one.
    pub began: SystemTime,
}

/// What an export did.
#[derive(Debug)]
pub struct CacheWritten {
    /// Steps that it tells of.
    pub steps: usize,
    /// A build that began later wrote the scope already, so nothing was written.
    pub is_outdated: bool,
    /// What could not be taken along, and why.
    pub left_out: Vec<String>,
}

/// A cache could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the cache to {place}")]
pub struct CacheError {
    /// Where to.
    pub place: String,
    /// Why not.
    #[source]
    pub source: PlaceError,
}

impl std::fmt::Display for CachePlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::Registry(reference) => write!(f, "{}", reference.familiar()),
        }
    }
}

/// Everything that builds of an engine share with other machines.
pub(crate) fn shared(options: &EmbeddedOptions, imports: Vec<CacheImport>) -> Shared {
    let place = |import: CacheImport| -> Box<dyn builder::SharedPlace> {
        match import.place {
            CachePlace::Directory(path) => Box::new(directory::Directory { path, scopes: import.scopes }),
            CachePlace::Registry(reference) => {
                Box::new(registry::Repository::new(reference, import.scopes, options.client.clone()))
            }
        }
    };
    Shared::new(imports.into_iter().map(place).collect())
}

impl Embedded {
    /// Writes the steps that builds of this engine used to another place. `image` are the layers of the image, or of the
    /// images of several platforms, `epoch` is its time. Called only for builds that passed.
    ///
    /// # Errors
    /// The place cannot be written, the store failed, or it was stopped.
    pub fn export_cache(
        &self,
        image: &[SnapshotId],
        epoch: SystemTime,
        export: &CacheExport,
        stop: Stop<'_>,
    ) -> Result<CacheWritten, CacheError> {
        let fail = |source: PlaceError| CacheError { place: export.place.to_string(), source };
        let store = &self.inner.options.store;
        let scope = self.inner.scope().map_err(|error| fail(error.into()))?;
        let exported = self.exported(image, epoch, export, stop).map_err(|error| fail(error.into()))?;
        let steps = exported.document.steps.len();
        let left_out = exported.left_out.iter().map(|(id, error)| format!("cache mount `{id}`: {error}")).collect();
        let artifact = Artifact::new(export, &exported).map_err(|error| fail(error.into()))?;
        let bring = |blob: &builder::ExportBlob| self.inner.shared.bring(store, scope, blob);
        let job = WriteJob { store, scope, artifact: &artifact, exported: &exported, bring: &bring, stop };
        let is_written = match &export.place {
            CachePlace::Directory(path) => directory::write(path, &export.scope, &job),
            CachePlace::Registry(reference) => {
                registry::write(reference, &export.scope, &job, &self.inner.options.client)
            }
        };
        Ok(CacheWritten { steps, is_outdated: !is_written.map_err(fail)?, left_out })
    }

    /// The annotation that carries the image's own steps within its manifest (`type=inline`): name and value.
    ///
    /// # Errors
    /// The store failed, or it was stopped.
    pub fn inline_cache(
        &self,
        image: &[SnapshotId],
        epoch: SystemTime,
        layers: LayerOptions,
        stop: Stop<'_>,
    ) -> Result<(String, String), StoreError> {
        let request = ExportRequest { only: Some(image), epoch, layers, with_mounts: false, stop };
        let scope = self.inner.scope().map_err(|error| StoreError::File(std::io::Error::other(error)))?;
        let store = &self.inner.options.store;
        let mut document = self.inner.shared.export(store, scope, &request)?.document;
        // A manifest has no room for what only explanations need, and lists the layers itself.
        document.steps.iter_mut().for_each(|step| step.parts.clear());
        document.selections.clear();
        Ok((INLINE.to_owned(), serde_json::to_string(&document).unwrap_or_default()))
    }

    fn exported(
        &self,
        image: &[SnapshotId],
        epoch: SystemTime,
        export: &CacheExport,
        stop: Stop<'_>,
    ) -> Result<Exported, StoreError> {
        let only = (!export.all_stages).then_some(image);
        let request = ExportRequest { only, epoch, layers: export.layers, with_mounts: export.with_mounts, stop };
        let scope = self.inner.scope().map_err(|error| StoreError::File(std::io::Error::other(error)))?;
        self.inner.shared.export(&self.inner.options.store, scope, &request)
    }
}

/// What a place writes.
struct WriteJob<'a> {
    store: &'a Store,
    scope: &'a store::Scope,
    artifact: &'a Artifact,
    exported: &'a Exported,
    /// Gets a blob into the store that another place has.
    bring: &'a dyn Fn(&builder::ExportBlob) -> Result<(), PlaceError>,
    stop: Stop<'a>,
}

/// Manifest and config of a cache.
struct Artifact {
    document: Vec<u8>,
    manifest: Vec<u8>,
    began_s: u64,
}

impl Artifact {
    fn new(export: &CacheExport, exported: &Exported) -> Result<Self, serde_json::Error> {
        let document = serde_json::to_vec(&exported.document)?;
        let began_s = export.began.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let layers = exported.blobs.iter().map(|blob| blob.descriptor.clone()).collect();
        let mut manifest = Manifest::image(Descriptor::of(DOCUMENT_TYPE, &document), layers);
        manifest.artifact_type = Some(ARTIFACT_TYPE.into());
        manifest.annotations = annotations(&export.scope, began_s);
        Ok(Self { manifest: oci::to_json(&manifest), document, began_s })
    }

    fn descriptor(&self) -> Descriptor {
        let mut descriptor = Descriptor::of(media_type::MANIFEST, &self.manifest);
        descriptor.artifact_type = Some(ARTIFACT_TYPE.into());
        descriptor
    }
}

fn annotations(scope: &str, began_s: u64) -> BTreeMap<String, String> {
    BTreeMap::from([(SCOPE.to_owned(), scope.to_owned()), (BEGAN.to_owned(), began_s.to_string())])
}

/// Whether a manifest (or its descriptor) was written by a build that began later.
fn is_newer(annotations: &BTreeMap<String, String>, than_s: u64) -> bool {
    annotations.get(BEGAN).and_then(|text| text.parse::<u64>().ok()).is_some_and(|began_s| began_s > than_s)
}

fn is_cache(manifest: &Manifest) -> bool {
    manifest.config.media_type == DOCUMENT_TYPE
}

/// The document of an image with its cache inline: the layers' blobs are those of its manifest.
fn inline_document(manifest: &Manifest, diff_ids: &[oci::DiffId]) -> Result<Option<Document>, serde_json::Error> {
    let Some(text) = manifest.annotations.get(INLINE) else { return Ok(None) };
    let mut document: Document = serde_json::from_str(text)?;
    for layer in &mut document.layers {
        // What the image does not have is found nowhere: the digest leads to an error when it is fetched.
        if let Some(at) = diff_ids.iter().position(|diff_id| *diff_id == layer.diff_id)
            && let Some(blob) = manifest.layers.get(at)
        {
            layer.blob = Descriptor { annotations: BTreeMap::new(), ..blob.clone() };
        }
    }
    Ok(Some(document))
}

/// Something is wrong with what a place holds.
#[derive(Debug, thiserror::Error)]
enum Wrong {
    #[error("{digest} has other bytes than its name says")]
    Digest { digest: Digest },
    #[error("{what} has {bytes} bytes, more than the {limit} that are read")]
    TooLarge { what: &'static str, bytes: u64, limit: u64 },
}
