//! Images: a config blob, the snapshots of its layers, and, once sealed or pulled, manifests.

use std::{
    path::PathBuf,
    sync::Mutex,
    thread,
    time::{Duration, SystemTime},
};

use fs_err as fs;
use oci::{ChainId, Descriptor, Digest, ImageConfig, Manifest, ManifestOrIndex, UnknownDocument, media_type};
use serde::{Deserialize, Serialize};

use crate::{
    ApplyError, Arrivals, ManifestOptions, Scope, SnapshotId, Stop, Store, StoreError, error::is_no_space,
    options::docker_type, seal::seconds,
};

/// Manifests and configs are a few kilobytes; registries refuse more than this (distribution-spec, "Pushing Manifests").
pub(crate) const DOCUMENT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Overlayfs takes 500 lower directories; images in use stay below docker's 127.
const LAYERS_MAX: usize = 500;
/// Manifests of one image that are remembered; a way of writing it that is not used any more need not be kept.
const MANIFESTS_MAX: usize = 16;
/// Layers sealed at once; each uses all processors itself, so more only takes memory.
const SEALED_AT_ONCE: usize = 2;

/// An image of this store.
#[derive(Clone, Debug)]
pub struct Image {
    /// Digest of the config: docker's image id.
    pub id: Digest,
    /// How to run it.
    pub config: ImageConfig,
    /// Snapshots, bottom first.
    pub layers: Vec<SnapshotId>,
    /// File times later than this are this, in layers made here.
    pub epoch: SystemTime,
    /// Uncompressed size of all layers in bytes, as far as known.
    pub size_bytes: u64,
}

impl Image {
    /// The snapshot that a container of this image starts from.
    pub fn top(&self) -> Option<&SnapshotId> {
        self.layers.last()
    }
}

/// A manifest whose blobs are all in the store.
#[derive(Clone, Debug)]
pub struct SealedManifest {
    /// Digest of the bytes: what a registry knows the image by.
    pub digest: Digest,
    /// The very bytes.
    pub bytes: Vec<u8>,
    /// The same, read.
    pub manifest: Manifest,
    /// Manifest, config and layers together, in bytes.
    pub size_bytes: u64,
}

/// A manifest could not become an image.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Not a manifest.
    #[error("the manifest cannot be read")]
    Document(#[from] UnknownDocument),
    /// Not of an image, or against the rules of the image-spec.
    #[error("{0}")]
    Refused(String),
    /// The config is not JSON of an image config.
    #[error("the image config cannot be read")]
    Config(#[source] serde_json::Error),
    /// A layer failed.
    #[error(transparent)]
    Layer(#[from] ApplyError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An archive could not be read.
    #[error("cannot read the archive")]
    Archive(#[source] std::io::Error),
}

impl ImportError {
    /// Whether the cause is a full disk or an exhausted quota.
    pub fn is_no_space(&self) -> bool {
        is_no_space(self)
    }
}

/// `images/<config hex>.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    pub(crate) layers: Vec<SnapshotId>,
    pub(crate) epoch_s: i64,
    pub(crate) size_bytes: u64,
    /// When the record was made, in seconds since 1970.
    pub(crate) recorded_s: i64,
    /// The manifest it was pulled or loaded with.
    #[serde(default)]
    pub(crate) pulled: Option<Digest>,
    /// Manifests made here, the latest last.
    #[serde(default)]
    pub(crate) made: Vec<(ManifestOptions, Digest)>,
    /// How the image is to be pushed, if that was ever said.
    #[serde(default)]
    pub(crate) preferred: Option<ManifestOptions>,
}

impl ImageRecord {
    /// The manifest by which the image is best known.
    pub(crate) fn manifest_digest(&self) -> Option<&Digest> {
        let made = |options: &ManifestOptions| self.made.iter().find(|(with, _)| with == options).map(|(_, d)| d);
        let preferred = self.preferred.as_ref().and_then(made);
        preferred.or(self.pulled.as_ref()).or_else(|| self.made.first().map(|(_, digest)| digest))
    }
}

impl Store {
    /// Writes the config blob and an image record. The config's diff ids must be those of `layers`; the manifest comes with
    /// [`Store::manifest`].
    pub fn put_image(
        &self,
        config: &ImageConfig,
        layers: &[SnapshotId],
        epoch: SystemTime,
    ) -> Result<Image, StoreError> {
        let listed = config.rootfs.diff_ids.len();
        if listed != layers.len() {
            return Err(StoreError::LayerCount { listed, given: layers.len() });
        }
        let id = self.put_blob(&oci::to_json(config))?;
        self.record_image(id, config.clone(), layers, epoch, None)
    }

    fn record_image(
        &self,
        id: Digest,
        config: ImageConfig,
        layers: &[SnapshotId],
        epoch: SystemTime,
        pulled: Option<Digest>,
    ) -> Result<Image, StoreError> {
        let mut size_bytes = 0;
        for layer in layers {
            let meta = self.snapshot(layer)?.ok_or_else(|| StoreError::UnknownSnapshot(layer.clone()))?;
            size_bytes += meta.tar_bytes.unwrap_or(0);
        }
        let old = self.image_record(&id);
        let record = ImageRecord {
            layers: layers.to_vec(),
            epoch_s: seconds(epoch),
            size_bytes,
            recorded_s: seconds(SystemTime::now()),
            pulled: pulled.or_else(|| old.as_ref().and_then(|old| old.pulled.clone())),
            preferred: old.as_ref().and_then(|old| old.preferred.clone()),
            made: old.map(|old| old.made).unwrap_or_default(),
        };
        self.put_image_record(&id, &record)?;
        Ok(Image { id, config, layers: record.layers, epoch: time(record.epoch_s), size_bytes })
    }

    /// The image with this id. `None` also when a power loss took part of it.
    pub fn image(&self, id: &Digest) -> Result<Option<Image>, StoreError> {
        let Some(record) = self.image_record(id) else { return Ok(None) };
        let Some(bytes) = self.read_blob(id, DOCUMENT_BYTES_MAX)? else { return Ok(None) };
        let config = serde_json::from_slice(&bytes)
            .map_err(|source| StoreError::Malformed { path: self.blob_path(id), source })?;
        if let Some(top) = record.layers.last()
            && self.meta_file(top)?.is_none()
        {
            return Ok(None);
        }
        let ImageRecord { layers, epoch_s, size_bytes, .. } = record;
        Ok(Some(Image { id: id.clone(), config, layers, epoch: time(epoch_s), size_bytes }))
    }

    /// The manifest that an image was pulled or loaded with: by it, a registry has the very image.
    pub fn pulled_manifest(&self, image: &Digest) -> Option<Digest> {
        self.image_record(image)?.pulled
    }

    /// Seals every layer and gives the manifest. Idempotent, deterministic and remembered. An image that was pulled keeps
    /// the registry's own manifest, unless the options ask for more than a compression.
    pub fn manifest(&self, image: &Image, options: impl Into<ManifestOptions>) -> Result<SealedManifest, StoreError> {
        self.manifest_or_stop(image, &options.into(), Stop::NEVER)
    }

    /// As [`Store::manifest`], unless it is stopped.
    pub fn manifest_or_stop(
        &self,
        image: &Image,
        options: &ManifestOptions,
        stop: Stop<'_>,
    ) -> Result<SealedManifest, StoreError> {
        let record = self.image_record(&image.id).ok_or_else(|| StoreError::UnknownImage(image.id.clone()))?;
        let made = record.made.iter().find(|(with, _)| with == options).map(|(_, digest)| digest);
        let pulled = record.pulled.iter().filter(|_| options.takes_pulled());
        for known in pulled.chain(made) {
            if let Some(sealed) = self.whole_manifest(known)? {
                return Ok(sealed);
            }
        }
        let layers = self.seal_all(image, options, stop)?;
        let config = oci::to_json(&image.config);
        // A pulled image's config keeps its own bytes, which are in the store under its id.
        let config_size = match self.has_blob(&image.id) {
            Some(size) => size,
            None if Digest::of(&config) == image.id => {
                self.put_blob(&config)?;
                config.len() as u64
            }
            None => return Err(StoreError::MissingBlob(image.id.clone())),
        };
        let mut manifest = Manifest::image(Descriptor::new(media_type::CONFIG, image.id.clone(), config_size), layers);
        manifest.annotations = options.annotations.clone();
        if options.docker_types {
            use_docker_types(&mut manifest);
        }
        let bytes = oci::to_json(&manifest);
        let digest = self.put_blob(&bytes)?;
        self.update_image_record(&image.id, |record| {
            record.made.retain(|(with, _)| with != options);
            record.made.push((options.clone(), digest.clone()));
            let surplus = record.made.len().saturating_sub(MANIFESTS_MAX);
            record.made.drain(..surplus);
        })?;
        self.put_record(&self.manifest_path(&digest), &image.id)?;
        Ok(sealed(digest, bytes, manifest))
    }

    /// Digest of the manifest by which an image is best known: as it is to be pushed, as it was pulled, as it was made first.
    /// `None` where it never had one.
    pub fn known_manifest(&self, image: &Digest) -> Option<Digest> {
        self.image_record(image)?.manifest_digest().cloned()
    }

    /// Has the image pushed with these options from now on.
    pub fn prefer_manifest(&self, image: &Digest, options: &ManifestOptions) -> Result<(), StoreError> {
        let record = self.image_record(image).ok_or_else(|| StoreError::UnknownImage(image.clone()))?;
        // The usual needs no note, so that most builds write none.
        let wanted = (*options != ManifestOptions::default()).then_some(options);
        if record.preferred.as_ref() == wanted {
            return Ok(());
        }
        self.update_image_record(image, |record| record.preferred = wanted.cloned())
    }

    /// How the image is to be pushed: as it was built, else as usual.
    pub fn preferred_options(&self, image: &Digest) -> ManifestOptions {
        self.image_record(image).and_then(|record| record.preferred).unwrap_or_default()
    }

    /// A remembered manifest, when its layers are all there.
    pub(crate) fn whole_manifest(&self, digest: &Digest) -> Result<Option<SealedManifest>, StoreError> {
        let Some(bytes) = self.read_blob(digest, DOCUMENT_BYTES_MAX)? else { return Ok(None) };
        let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else { return Ok(None) };
        let blobs = manifest.layers.iter().chain([&manifest.config]);
        let is_whole = blobs.into_iter().all(|blob| self.has_blob(&blob.digest) == Some(blob.size));
        Ok(is_whole.then(|| sealed(digest.clone(), bytes, manifest)))
    }

    /// Seals all layers, a few side by side, in the image's order.
    fn seal_all(
        &self,
        image: &Image,
        options: &ManifestOptions,
        stop: Stop<'_>,
    ) -> Result<Vec<Descriptor>, StoreError> {
        let next = Mutex::new(0..image.layers.len());
        let results = Mutex::new(Vec::new());
        thread::scope(|threads| {
            for _ in 0..SEALED_AT_ONCE.min(image.layers.len()) {
                threads.spawn(|| {
                    loop {
                        let Some(place) = next.lock().expect("no panic while held").next() else { return };
                        let result = self.seal_listed(image, place, options, stop);
                        if result.is_err() {
                            // The others stop early.
                            *next.lock().expect("no panic while held") = 0..0;
                        }
                        results.lock().expect("no panic while held").push((place, result));
                    }
                });
            }
        });
        let mut results = results.into_inner().expect("no panic while held");
        results.sort_by_key(|(place, _)| *place);
        results.into_iter().map(|(_, result)| result).collect()
    }

    fn seal_listed(
        &self,
        image: &Image,
        place: usize,
        options: &ManifestOptions,
        stop: Stop<'_>,
    ) -> Result<Descriptor, StoreError> {
        let layer = &image.layers[place];
        let descriptor = self.seal_or_stop(layer, image.epoch, options.layer(), stop)?;
        // What is pushed must be what the config lists.
        let (diff_id, _) = self.diff_id(layer, image.epoch)?;
        let listed = &image.config.rootfs.diff_ids[place];
        if diff_id != *listed {
            return Err(StoreError::LayerGone { diff_id: listed.clone() });
        }
        Ok(descriptor)
    }

    /// Records a manifest (pulled, loaded), whose blobs are in the store already, as an image: its layers become snapshots.
    pub fn import_manifest(&self, scope: &Scope, manifest: &[u8]) -> Result<Image, ImportError> {
        self.import_manifest_from(scope, manifest, None)
    }

    /// As [`Store::import_manifest`] while its blobs arrive: layers are unpacked as they come, in their order. Blocks until the
    /// last is here. Fails when one is lost on the way; what was unpacked by then stays.
    pub fn import_arriving(&self, scope: &Scope, manifest: &[u8], arrivals: &Arrivals) -> Result<Image, ImportError> {
        self.import_manifest_from(scope, manifest, Some(arrivals))
    }

    fn import_manifest_from(
        &self,
        scope: &Scope,
        manifest: &[u8],
        arrivals: Option<&Arrivals>,
    ) -> Result<Image, ImportError> {
        let refuse = |reason: String| Err(ImportError::Refused(reason));
        let ManifestOrIndex::Manifest(document) = ManifestOrIndex::parse(manifest)? else {
            return refuse("an index lists images; name the manifest of one of them".into());
        };
        let config_type = document.config.media_type.as_str();
        if !matches!(config_type, media_type::CONFIG | media_type::DOCKER_CONFIG) {
            return refuse(format!("the manifest is of no container image (its config is {config_type})"));
        }
        if let Some(foreign) = document.layers.iter().find(|layer| !is_layer(&layer.media_type)) {
            return refuse(format!("layers of type {} are not supported", foreign.media_type));
        }
        let digest = self.put_blob(manifest)?;
        let epoch = SystemTime::UNIX_EPOCH;
        let (config, layers) = (document.config.digest.clone(), &document.layers);
        let image = self.import_parts(scope, arrivals, config, layers, epoch, Some(digest.clone()))?;
        self.put_record(&self.manifest_path(&digest), &image.id)?;
        Ok(image)
    }

    /// Makes an image of a config and layers whose blobs are in the store. `pulled` is the manifest it came with.
    pub(crate) fn import_parts(
        &self,
        scope: &Scope,
        arrivals: Option<&Arrivals>,
        id: Digest,
        blobs: &[Descriptor],
        epoch: SystemTime,
        pulled: Option<Digest>,
    ) -> Result<Image, ImportError> {
        let refuse = |reason: String| Err(ImportError::Refused(reason));
        if let Some(arrivals) = arrivals {
            arrivals.wait_for(&id).map_err(StoreError::from)?;
        }
        // The lease comes before the look, so that prune cannot come between.
        let _ = scope.lease_blob(&id);
        let bytes = self.read_blob(&id, DOCUMENT_BYTES_MAX)?.ok_or(StoreError::MissingBlob(id.clone()))?;
        let config: ImageConfig = serde_json::from_slice(&bytes).map_err(ImportError::Config)?;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != blobs.len() {
            let (listed, given) = (diff_ids.len(), blobs.len());
            return refuse(format!("the image config lists {listed} layers where {given} are given"));
        }
        if diff_ids.len() > LAYERS_MAX {
            return refuse(format!("the image has {} layers; the limit is {LAYERS_MAX}", diff_ids.len()));
        }
        let mut layers: Vec<SnapshotId> = Vec::new();
        let mut chain: Option<ChainId> = None;
        for (layer, diff_id) in blobs.iter().zip(diff_ids) {
            let parent = layers.last();
            layers.push(self.apply_layer_from(scope, arrivals, parent, chain.as_ref(), layer, diff_id)?);
            chain = Some(ChainId::extend(chain.as_ref(), diff_id));
        }
        Ok(self.record_image(id, config, &layers, epoch, pulled)?)
    }

    /// Forgets an image and its names, as far as they are not of other platforms' images too. What only it needed goes with the next prune.
    pub fn remove_image(&self, id: &Digest) -> Result<(), StoreError> {
        for (reference, named) in self.names()? {
            if named == *id {
                self.untag_image(&reference, id)?;
            }
        }
        match fs::remove_file(self.image_path(id)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(StoreError::UnknownImage(id.clone())),
            other => Ok(other?),
        }
    }

    pub(crate) fn image_record(&self, id: &Digest) -> Option<ImageRecord> {
        self.get_record(&self.image_path(id))
    }

    fn put_image_record(&self, id: &Digest, record: &ImageRecord) -> Result<(), StoreError> {
        self.put_record(&self.image_path(id), record)
    }

    fn update_image_record(&self, id: &Digest, change: impl FnOnce(&mut ImageRecord)) -> Result<(), StoreError> {
        // Two processes that seal the same image find the same digests; whichever writes last is right.
        let mut record = self.image_record(id).ok_or_else(|| StoreError::UnknownImage(id.clone()))?;
        change(&mut record);
        self.put_image_record(id, &record)
    }

    fn image_path(&self, id: &Digest) -> PathBuf {
        self.path("images").join(format!("{}.json", id.hex()))
    }

    /// `manifests/<hex>.json` says which image a manifest is of.
    pub(crate) fn manifest_path(&self, digest: &Digest) -> PathBuf {
        self.path("manifests").join(format!("{}.json", digest.hex()))
    }
}

fn use_docker_types(manifest: &mut Manifest) {
    manifest.media_type = Some(media_type::DOCKER_MANIFEST.into());
    for descriptor in manifest.layers.iter_mut().chain([&mut manifest.config]) {
        descriptor.media_type = docker_type(&descriptor.media_type).to_owned();
    }
}

fn is_layer(kind: &str) -> bool {
    matches!(
        kind,
        media_type::LAYER
            | media_type::LAYER_GZIP
            | media_type::LAYER_ZSTD
            | media_type::DOCKER_LAYER
            | media_type::DOCKER_LAYER_GZIP
            | media_type::DOCKER_LAYER_ZSTD
    )
}

pub(crate) fn sealed(digest: Digest, bytes: Vec<u8>, manifest: Manifest) -> SealedManifest {
    let layers: u64 = manifest.layers.iter().map(|layer| layer.size).sum();
    let size_bytes = bytes.len() as u64 + manifest.config.size + layers;
    SealedManifest { digest, bytes, manifest, size_bytes }
}

pub(crate) fn time(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.max(0) as u64)
}
