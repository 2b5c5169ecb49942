//! Writing images out: docker archives and OCI layouts. The same images give the same bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read, Write},
    path::Path,
    thread,
};

use fs_err as fs;
use oci::{Descriptor, Digest, Hasher, Index, Platform, Reference, media_type};
use serde::{Deserialize, Serialize};

use crate::{
    Beside, Image, KeptBeside, ManifestOptions, SealedManifest, SnapshotId, Store, StoreError,
    archive::{self, Member, TarWriter},
};

/// The layout version that every reader knows (image-spec, "oci-layout file").
pub(crate) const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// The tag, by which skopeo and podman find an image in a layout.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The whole name, by which docker and containerd do.
pub(crate) const IMAGE_NAME: &str = "io.containerd.image.name";

/// Form of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// As `docker save` writes, for `docker load` and `podman load`.
    Docker,
    /// An OCI image layout.
    Oci,
}

/// How images are written into an archive or a layout.
#[derive(Clone, Debug, Default)]
pub struct SaveOptions {
    /// Their manifests; archives of docker have none.
    pub manifest: ManifestOptions,
    /// Annotations of the manifests' descriptors in the index.
    pub descriptor_annotations: BTreeMap<String, String>,
    /// Annotations of the index of a name that has images of several platforms.
    pub index_annotations: BTreeMap<String, String>,
    /// Annotations of such an index' descriptor.
    pub index_descriptor_annotations: BTreeMap<String, String>,
    /// Instead of the first two, for images of these platforms.
    pub platforms: Vec<(Platform, ManifestOptions, BTreeMap<String, String>)>,
    /// Images without a name are one for several platforms, rather than each on its own.
    pub nameless_are_one: bool,
    /// What speaks of these images. It needs an index, also around an image of one platform.
    pub besides: Vec<Beside>,
    /// What names keep beside their images, each for the images that are saved under that name.
    pub kept: Vec<(Reference, KeptBeside)>,
}

impl SaveOptions {
    fn of(&self, platform: &Platform) -> (&ManifestOptions, &BTreeMap<String, String>) {
        let own = self.platforms.iter().find(|(of, ..)| of == platform);
        own.map_or((&self.manifest, &self.descriptor_annotations), |(_, manifest, annotations)| (manifest, annotations))
    }
}

/// What the layout lists, and what has to be in it.
struct Listed {
    index: Index,
    blobs: BTreeSet<Digest>,
}

/// One image in a docker archive's `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DockerImage {
    pub(crate) config: String,
    #[serde(default)]
    pub(crate) repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) layers: Vec<String>,
}

impl Store {
    /// Writes images as one archive (an uncompressed tar). Images of several platforms under one name become an index in a
    /// layout; docker's archives have none, and take the first of them.
    pub fn save(
        &self,
        images: &[(Option<Reference>, Image)],
        format: ArchiveFormat,
        options: &SaveOptions,
        out: &mut dyn Write,
    ) -> Result<(), StoreError> {
        let mut tar = TarWriter::new(io::BufWriter::with_capacity(256 * 1024, out));
        match format {
            ArchiveFormat::Docker => self.save_docker(images, &mut tar)?,
            ArchiveFormat::Oci => self.save_oci(images, options, &mut tar)?,
        }
        let (mut out, _) = tar.finish()?;
        Ok(out.flush()?)
    }

    /// Writes images as an OCI layout directory, which is made when it is missing. One that is there gets the images added.
    pub fn save_layout_dir(
        &self,
        images: &[(Option<Reference>, Image)],
        options: &SaveOptions,
        dir: &Path,
    ) -> Result<(), StoreError> {
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        let listed = self.listed(images, options)?;
        for digest in listed.blobs {
            let path = blobs.join(digest.hex());
            let mut blob = self.open_blob(&digest)?.ok_or_else(|| StoreError::MissingBlob(digest.clone()))?;
            if fs::metadata(&path).is_ok_and(|old| blob.metadata().is_ok_and(|new| new.len() == old.len())) {
                continue;
            }
            let temporary = blobs.join(format!(".{}.tmp", digest.hex()));
            io::copy(&mut blob, &mut fs::File::create(&temporary)?)?;
            fs::rename(&temporary, &path)?;
        }
        let mut index = fs::read(dir.join("index.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Index>(&bytes).ok())
            .unwrap_or_else(|| Index::of(Vec::new()));
        for descriptor in listed.index.manifests {
            // A name moves; an image without a name is listed once.
            let name = descriptor.annotations.get(IMAGE_NAME).or_else(|| descriptor.annotations.get(REF_NAME)).cloned();
            index.manifests.retain(|old| {
                let old_name = old.annotations.get(IMAGE_NAME).or_else(|| old.annotations.get(REF_NAME));
                old_name != name.as_ref() || (name.is_none() && old.digest != descriptor.digest)
            });
            index.manifests.push(descriptor);
        }
        fs::write(dir.join("oci-layout"), LAYOUT)?;
        let temporary = dir.join(".index.json.tmp");
        fs::write(&temporary, oci::to_json(&index))?;
        Ok(fs::rename(&temporary, dir.join("index.json"))?)
    }

    fn save_oci<W: Write>(
        &self,
        images: &[(Option<Reference>, Image)],
        options: &SaveOptions,
        tar: &mut TarWriter<W>,
    ) -> Result<(), StoreError> {
        let listed = self.listed(images, options)?;
        add_file(tar, "oci-layout", LAYOUT.as_bytes())?;
        add_file(tar, "index.json", &oci::to_json(&listed.index))?;
        for directory in ["blobs/", "blobs/sha256/"] {
            let path = directory.as_bytes();
            tar.append(&Member { path, type_flag: b'5', mode: 0o755, ..Member::default() }, &mut io::empty())?;
        }
        for digest in listed.blobs {
            let mut blob = self.open_blob(&digest)?.ok_or_else(|| StoreError::MissingBlob(digest.clone()))?;
            let size = blob.metadata()?.len();
            let mut hashing = Hashing { source: &mut blob, hasher: Hasher::new() };
            add(tar, &format!("blobs/sha256/{}", digest.hex()), size, &mut hashing)?;
            self.expect_digest(&digest, hashing.hasher.finish())?;
        }
        Ok(())
    }

    fn save_docker<W: Write>(
        &self,
        images: &[(Option<Reference>, Image)],
        tar: &mut TarWriter<W>,
    ) -> Result<(), StoreError> {
        let mut listed: Vec<(Digest, DockerImage)> = Vec::new();
        let mut written = BTreeSet::new();
        let mut named_before = BTreeSet::new();
        for (reference, image) in images {
            if let Some(reference) = reference
                && !named_before.insert(named(reference).to_string())
            {
                continue;
            }
            let tag = reference.as_ref().map(|reference| named(reference).familiar());
            if let Some((_, known)) = listed.iter_mut().find(|(id, _)| *id == image.id) {
                known.repo_tags.get_or_insert_default().extend(tag);
                continue;
            }
            let config = self.read_blob(&image.id, crate::image::DOCUMENT_BYTES_MAX)?;
            let config = config.ok_or_else(|| StoreError::MissingBlob(image.id.clone()))?;
            let config_name = format!("{}.json", image.id.hex());
            add_file(tar, &config_name, &config)?;
            let mut layers = Vec::new();
            for (layer, diff_id) in image.layers.iter().zip(&image.config.rootfs.diff_ids) {
                let name = format!("{}.tar", diff_id.0.hex());
                if written.insert(diff_id.clone()) {
                    self.add_layer(tar, &name, layer, image, &diff_id.0)?;
                }
                layers.push(name);
            }
            let repo_tags = Some(tag.into_iter().collect());
            listed.push((image.id.clone(), DockerImage { config: config_name, repo_tags, layers }));
        }
        let manifest: Vec<_> = listed.into_iter().map(|(_, image)| image).collect();
        add_file(tar, "manifest.json", &oci::to_json(&manifest))
    }

    /// Adds a layer's tar: from a blob that holds it, or made on the way by a second thread.
    fn add_layer<W: Write>(
        &self,
        tar: &mut TarWriter<W>,
        name: &str,
        layer: &SnapshotId,
        image: &Image,
        diff_id: &Digest,
    ) -> Result<(), StoreError> {
        let (found, tar_bytes) = self.diff_id(layer, image.epoch)?;
        self.expect_digest(diff_id, found.0.clone())?;
        let record = self.layer_record(&found).unwrap_or_default();
        for known in record.all() {
            let Some(blob) = self.open_blob(&known.descriptor.digest)? else { continue };
            let (_, mut plain) = archive::decompress(blob)?;
            let mut hashing = Hashing { source: &mut *plain, hasher: Hasher::new() };
            add(tar, name, tar_bytes, &mut hashing)?;
            return self.expect_digest(diff_id, hashing.hasher.finish());
        }
        if self.meta_file(layer)?.is_some_and(|meta| meta.is_unpacked) {
            // Its tar was written by somebody else, so ours would have another digest, and mostly another size.
            return Err(StoreError::LayerGone { diff_id: found });
        }
        let (mut reader, writer) = io::pipe()?;
        thread::scope(|threads| {
            let maker = threads.spawn(move || self.write_layer_tar(layer, image.epoch, writer));
            let mut hashing = Hashing { source: &mut reader, hasher: Hasher::new() };
            let added = add(tar, name, tar_bytes, &mut hashing);
            let digest = hashing.hasher.finish();
            // A maker that has more to say than was announced is stopped by the closed pipe.
            drop(reader);
            let made = maker.join().expect("the thread that makes the tar does not panic");
            added?;
            made?;
            self.expect_digest(diff_id, digest)
        })
    }

    fn expect_digest(&self, expected: &Digest, actual: Digest) -> Result<(), StoreError> {
        if *expected == actual {
            return Ok(());
        }
        if self.has_blob(expected).is_some() {
            return Err(self.set_aside(expected, actual));
        }
        Err(StoreError::LayerGone { diff_id: oci::DiffId(expected.clone()) })
    }

    /// Seals the images; those that follow each other with the same name are one entry, and where they are one also those without.
    fn listed(&self, images: &[(Option<Reference>, Image)], options: &SaveOptions) -> Result<Listed, StoreError> {
        let mut listed = Listed { index: Index::of(Vec::new()), blobs: BTreeSet::new() };
        for group in images.chunk_by(|(one, _), (other, _)| one == other && (one.is_some() || options.nameless_are_one))
        {
            let kept = || options.kept.iter().filter(|(of, _)| group[0].0.as_ref() == Some(of)).map(|(_, kept)| kept);
            let mut parts = Vec::new();
            for (_, image) in group {
                let of_image = kept().find(|kept| kept.image == image.id);
                let sealed = self.manifest_of(image, of_image, || options.of(&image.config.platform()).0.clone())?;
                add_blobs(&mut listed.blobs, &sealed);
                parts.push((image.clone(), sealed));
            }
            let is_about = |beside: &&Beside| parts.iter().any(|(_, sealed)| sealed.digest == beside.about);
            let besides = options.besides.iter().chain(kept().map(|kept| &kept.beside));
            let besides: Vec<Beside> = besides.filter(is_about).cloned().collect();
            besides.iter().for_each(|beside| add_blobs(&mut listed.blobs, &beside.sealed));
            let mut descriptor = match &parts[..] {
                [(image, sealed)] if besides.is_empty() => {
                    let platform = Platform { os_version: None, ..image.config.platform() };
                    let kind = sealed.manifest.media_type.as_deref().unwrap_or(media_type::MANIFEST);
                    let mut descriptor = Descriptor::of(kind, &sealed.bytes);
                    descriptor.annotations = options.of(&platform).1.clone();
                    descriptor.platform = Some(platform);
                    descriptor
                }
                parts => {
                    let annotations = options.index_annotations.clone();
                    let index = self.index_with(parts, &besides, annotations, &|platform, descriptor| {
                        descriptor.annotations = options.of(platform).1.clone();
                    })?;
                    listed.blobs.insert(index.digest.clone());
                    let kind = index.index.media_type.as_deref().unwrap_or(media_type::INDEX);
                    let mut descriptor = Descriptor::of(kind, &index.bytes);
                    descriptor.annotations = options.index_descriptor_annotations.clone();
                    descriptor
                }
            };
            if let (Some(reference), _) = &group[0] {
                let name = named(reference);
                descriptor.annotations.insert(IMAGE_NAME.into(), name.to_string());
                descriptor.annotations.insert(REF_NAME.into(), name.tag().unwrap_or("latest").into());
            }
            listed.index.manifests.push(descriptor);
        }
        Ok(listed)
    }
}

fn add_blobs(blobs: &mut BTreeSet<Digest>, sealed: &SealedManifest) {
    blobs.insert(sealed.digest.clone());
    blobs.insert(sealed.manifest.config.digest.clone());
    blobs.extend(sealed.manifest.layers.iter().map(|layer| layer.digest.clone()));
}

/// The reference as a name: with a tag, without a digest.
pub(crate) fn named(reference: &Reference) -> Reference {
    reference.with_tag(reference.tag().unwrap_or("latest"))
}

fn add_file<W: Write>(tar: &mut TarWriter<W>, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
    add(tar, name, bytes.len() as u64, &mut &*bytes)
}

fn add<W: Write>(tar: &mut TarWriter<W>, name: &str, size: u64, data: &mut dyn Read) -> Result<(), StoreError> {
    let member = Member { path: name.as_bytes(), type_flag: b'0', mode: 0o644, size, ..Member::default() };
    Ok(tar.append(&member, data)?)
}

struct Hashing<'a, R: ?Sized> {
    source: &'a mut R,
    hasher: Hasher,
}

impl<R: Read + ?Sized> Read for Hashing<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}
