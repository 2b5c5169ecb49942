//! Names of several images, one for each platform, and the index that a registry knows such a name by.

use std::collections::BTreeMap;

use oci::{Descriptor, Digest, Index, Platform, Reference, media_type};

use serde::{Deserialize, Serialize};

use crate::{
    Image, ManifestOptions, Scope, SealedManifest, Store, StoreError,
    image::{DOCUMENT_BYTES_MAX, sealed},
    names::read_name,
    options::docker_type,
};

/// An index whose manifests and their blobs are all in the store.
#[derive(Clone, Debug)]
pub struct SealedIndex {
    /// Digest of the bytes.
    pub digest: Digest,
    /// The very bytes.
    pub bytes: Vec<u8>,
    /// The same, read.
    pub index: Index,
    /// What it lists, in its order.
    pub manifests: Vec<SealedManifest>,
}

/// A manifest that an index lists behind its images because it speaks of one of them. Its blobs are in the store.
#[derive(Clone, Debug)]
pub struct Beside {
    /// Digest of the manifest that it speaks of.
    pub about: Digest,
    /// How the index lists it.
    pub descriptor: Descriptor,
    /// The manifest.
    pub sealed: SealedManifest,
}

/// What a name keeps beside one of its images, so that a push of the name takes it along.
#[derive(Clone, Debug)]
pub struct KeptBeside {
    /// The image's id.
    pub image: Digest,
    /// How the manifest is made that it speaks of.
    pub options: ManifestOptions,
    /// The thing itself.
    pub beside: Beside,
}

/// The same in the file of a name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BesideRecord {
    image: Digest,
    options: ManifestOptions,
    about: Digest,
    pub(crate) descriptor: Descriptor,
}

impl From<&KeptBeside> for BesideRecord {
    fn from(kept: &KeptBeside) -> Self {
        let KeptBeside { image, options, beside } = kept.clone();
        Self { image, options, about: beside.about, descriptor: beside.descriptor }
    }
}

impl Store {
    /// All images of a name: the one that this machine runs first, where there is one. A name of one image has that one; a
    /// name that is unknown has none.
    pub fn resolve_all(&self, reference: &Reference) -> Result<Vec<Image>, StoreError> {
        if reference.digest().is_some() {
            return Ok(self.resolve(reference)?.into_iter().collect());
        }
        let Some(name) = read_name(&self.name_path(reference)) else { return Ok(Vec::new()) };
        let mut images = Vec::new();
        for id in name.ids() {
            images.extend(self.image(id)?);
        }
        Ok(images)
    }

    /// The image of a name for a platform; where it has none, the image that it means here.
    pub fn resolve_for(&self, reference: &Reference, platform: &Platform) -> Result<Option<Image>, StoreError> {
        let images = self.resolve_all(reference)?;
        let exact = images.iter().position(|image| image.config.platform() == *platform);
        let fitting = exact.or_else(|| images.iter().position(|image| image.config.platform().runs_on(platform)));
        Ok(images.into_iter().nth(fitting.unwrap_or(0)))
    }

    /// Gives images a name in common, one for each platform, as [`Store::tag`] does for one.
    pub fn tag_all(&self, reference: &Reference, images: &[Image]) -> Result<(), StoreError> {
        self.tag_all_with(reference, images, &[], true)
    }

    /// The same with what is said of the images, which a push of the name takes along. Without `durably` as
    /// [`Store::tag_relaxed`].
    pub fn tag_all_with(
        &self,
        reference: &Reference,
        images: &[Image],
        besides: &[KeptBeside],
        durably: bool,
    ) -> Result<(), StoreError> {
        self.tag_ids(reference, &in_order(images), besides.iter().map(BesideRecord::from).collect(), durably)
    }

    /// Gives the image the name beside those of other platforms that have it; one of the same platform loses it. What the
    /// name keeps beside images that stay goes on with them.
    pub fn tag_beside(&self, reference: &Reference, image: &Image) -> Result<(), StoreError> {
        let platform = image.config.platform();
        let mut images = self.resolve_all(reference)?;
        images.retain(|other| other.config.platform() != platform);
        images.push(image.clone());
        let name = read_name(&self.name_path(reference)).filter(|_| reference.digest().is_none());
        let besides = name.into_iter().flat_map(|name| name.besides);
        let besides = besides.filter(|beside| images.iter().any(|image| image.id == beside.image)).collect();
        self.tag_ids(reference, &in_order(&images), besides, true)
    }

    /// Takes an image away from a name, which keeps those of other platforms; a name without an image goes.
    pub(crate) fn untag_image(&self, reference: &Reference, image: &Digest) -> Result<(), StoreError> {
        let Some(name) = read_name(&self.name_path(reference)) else { return Ok(()) };
        let rest: Vec<Digest> = name.ids().filter(|id| *id != image).cloned().collect();
        if rest.is_empty() {
            return self.untag(reference).map(drop);
        }
        let besides = name.besides.into_iter().filter(|beside| beside.image != *image).collect();
        self.tag_ids(reference, &rest, besides, true)
    }

    /// The index of images for several platforms, whose manifests were made before. The same manifests give the same bytes.
    /// `list` may add to what the index says of each.
    pub fn index(
        &self,
        parts: &[(Image, SealedManifest)],
        annotations: BTreeMap<String, String>,
        list: &dyn Fn(&Platform, &mut Descriptor),
    ) -> Result<SealedIndex, StoreError> {
        self.index_with(parts, &[], annotations, list)
    }

    /// As [`Store::index`], with what speaks of these images behind them.
    pub fn index_with(
        &self,
        parts: &[(Image, SealedManifest)],
        besides: &[Beside],
        annotations: BTreeMap<String, String>,
        list: &dyn Fn(&Platform, &mut Descriptor),
    ) -> Result<SealedIndex, StoreError> {
        let describe = |(image, sealed): &(Image, SealedManifest)| {
            let kind = sealed.manifest.media_type.as_deref().unwrap_or(media_type::MANIFEST);
            let platform = image.config.platform();
            let mut descriptor = Descriptor::of(kind, &sealed.bytes);
            list(&platform, &mut descriptor);
            descriptor.platform = Some(platform);
            descriptor
        };
        let mut index = Index::of(parts.iter().map(describe).collect());
        index.annotations = annotations;
        // Docker's clients take an index of either kind; registries that know docker's types only want a list of them.
        if index.manifests.iter().all(|listed| listed.media_type == media_type::DOCKER_MANIFEST) {
            index.media_type = Some(docker_type(media_type::INDEX).to_owned());
        }
        index.manifests.extend(besides.iter().map(|beside| beside.descriptor.clone()));
        let bytes = oci::to_json(&index);
        let digest = self.put_blob(&bytes)?;
        if let Some((image, _)) = parts.first() {
            self.put_record(&self.manifest_path(&digest), &image.id)?;
        }
        let besides = besides.iter().map(|beside| &beside.sealed);
        let manifests = parts.iter().map(|(_, sealed)| sealed).chain(besides).cloned().collect();
        Ok(SealedIndex { digest, bytes, index, manifests })
    }

    /// Keeps a manifest that speaks of another one, with its blobs, for as long as the scope.
    pub fn put_beside(
        &self,
        scope: &Scope,
        about: &Digest,
        descriptor: Descriptor,
        manifest: Vec<u8>,
        blobs: &[(Descriptor, Vec<u8>)],
    ) -> Result<Beside, StoreError> {
        let blobs = blobs.iter().map(|(_, bytes)| bytes);
        for bytes in blobs.chain([&manifest]) {
            let digest = self.put_blob(bytes)?;
            scope.lease_blob(&digest)?;
        }
        let document = serde_json::from_slice(&manifest)
            .map_err(|source| StoreError::Malformed { path: self.blob_path(&descriptor.digest), source })?;
        Ok(Beside { about: about.clone(), sealed: sealed(descriptor.digest.clone(), manifest, document), descriptor })
    }

    /// The index of images as they are to be pushed: by what was said when they were built, with what a name keeps beside
    /// them.
    pub fn preferred_index(&self, images: &[Image], kept: &[KeptBeside]) -> Result<SealedIndex, StoreError> {
        let mut parts = Vec::new();
        let mut besides = Vec::new();
        for image in images {
            let kept = kept.iter().find(|kept| kept.image == image.id);
            let sealed = self.manifest_of(image, kept, || self.preferred_options(&image.id))?;
            besides.extend(kept.map(|kept| kept.beside.clone()).filter(|beside| beside.about == sealed.digest));
            parts.push((image.clone(), sealed));
        }
        self.index_with(&parts, &besides, BTreeMap::new(), &|_, _| ())
    }

    /// The manifest of an image: the very one that something is said of, also where the image has come with another since.
    pub(crate) fn manifest_of(
        &self,
        image: &Image,
        kept: Option<&KeptBeside>,
        otherwise: impl FnOnce() -> ManifestOptions,
    ) -> Result<SealedManifest, StoreError> {
        let Some(kept) = kept else { return self.manifest(image, otherwise()) };
        match self.whole_manifest(&kept.beside.about)? {
            Some(known) => Ok(known),
            None => self.manifest(image, kept.options.clone()),
        }
    }

    /// What the file of a name speaks of.
    pub(crate) fn open_beside(&self, record: BesideRecord) -> Result<KeptBeside, StoreError> {
        let BesideRecord { image, options, about, descriptor } = record;
        let digest = descriptor.digest.clone();
        let bytes = self.read_blob(&digest, DOCUMENT_BYTES_MAX)?.ok_or(StoreError::MissingBlob(digest.clone()))?;
        let document = serde_json::from_slice(&bytes)
            .map_err(|source| StoreError::Malformed { path: self.blob_path(&digest), source })?;
        let beside = Beside { about, descriptor, sealed: sealed(digest, bytes, document) };
        Ok(KeptBeside { image, options, beside })
    }
}

/// Ids, the image that this machine runs first: it is what the name means where one image is asked for.
fn in_order(images: &[Image]) -> Vec<Digest> {
    let host = Platform::host();
    let mut sorted: Vec<&Image> = images.iter().collect();
    sorted.sort_by_key(|image| !image.config.platform().runs_on(&host));
    let mut ids: Vec<Digest> = sorted.into_iter().map(|image| image.id.clone()).collect();
    ids.dedup();
    ids
}
