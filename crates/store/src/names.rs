//! Names of images: `names/<percent-encoded reference>` holds the config digest, or those of several platforms.

use std::{collections::BTreeMap, path::PathBuf, time::SystemTime};

use fs_err as fs;
use oci::{Digest, Reference};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::{Image, KeptBeside, Store, StoreError, image::time, platforms::BesideRecord, save::named, store::names_in};

/// Fewer digits than this are too easily met by chance.
const PREFIX_DIGITS_MIN: usize = 4;
/// File systems allow 255; a temporary name or a suffix may need some.
const FILE_NAME_BYTES_MAX: usize = 240;

/// An image with everything it is called.
#[derive(Clone, Debug)]
pub struct NamedImage {
    /// Sorted; empty for an image without a name.
    pub references: Vec<Reference>,
    /// The image.
    pub image: Image,
    /// The manifest it was pulled with or sealed as, if any.
    pub manifest_digest: Option<Digest>,
    /// When it came into this store.
    pub created: SystemTime,
}

impl Store {
    /// Gives an image a name, durably: when this returns, neither a kill nor a power loss takes the image away.
    /// A reference without tag gets `latest`; a digest in it is not part of the name.
    pub fn tag(&self, reference: &Reference, image: &Digest) -> Result<(), StoreError> {
        self.tag_ids(reference, std::slice::from_ref(image), Vec::new(), true)
    }

    /// As [`Store::tag`] without any sync, for builds that tag each time: a power loss soon after may cost a rebuild, never
    /// gives a wrong image.
    pub fn tag_relaxed(&self, reference: &Reference, image: &Digest) -> Result<(), StoreError> {
        self.tag_ids(reference, std::slice::from_ref(image), Vec::new(), false)
    }

    /// Names images, the first of which is what the name means where one image is asked for.
    pub(crate) fn tag_ids(
        &self,
        reference: &Reference,
        ids: &[Digest],
        besides: Vec<BesideRecord>,
        durably: bool,
    ) -> Result<(), StoreError> {
        let expect_all = || ids.iter().try_for_each(|id| self.expect_image(id));
        let Some((first, others)) = ids.split_first() else { return Ok(()) };
        let file = NameFile { reference: named(reference), image: first.clone(), others: others.to_vec(), besides };
        if durably {
            expect_all()?;
            // Everything the name speaks of is on the disk before the name is.
            self.sync()?;
        }
        let _lock = self.lock_prune(FlockOperation::LockShared)?;
        expect_all()?;
        let (path, bytes) = (self.name_path(reference), oci::to_json(&file));
        if durably { self.write_durably(&path, &bytes) } else { self.write_file(&path, &bytes) }
    }

    /// What the name keeps beside its images.
    pub fn kept_beside(&self, reference: &Reference) -> Result<Vec<KeptBeside>, StoreError> {
        let name = read_name(&self.name_path(reference)).filter(|_| reference.digest().is_none());
        name.into_iter().flat_map(|name| name.besides).map(|record| self.open_beside(record)).collect()
    }

    /// Takes a name away; false when there was none. The image stays until prune.
    pub fn untag(&self, reference: &Reference) -> Result<bool, StoreError> {
        match fs::remove_file(self.name_path(reference)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The image of a name, or of a manifest digest (`name@sha256:…`).
    pub fn resolve(&self, reference: &Reference) -> Result<Option<Image>, StoreError> {
        let id: Option<Digest> = match reference.digest() {
            Some(digest) => self.get_record(&self.manifest_path(digest)),
            None => read_name(&self.name_path(reference)).map(|name| name.image),
        };
        match id {
            Some(id) => self.image(&id),
            None => Ok(None),
        }
    }

    /// The image whose id or manifest digest begins with these hex digits (`sha256:` may stand before them). Fewer than four
    /// digits find nothing; several images are an error.
    pub fn resolve_id(&self, prefix: &str) -> Result<Option<Image>, StoreError> {
        let digits = prefix.strip_prefix("sha256:").unwrap_or(prefix);
        let is_hex = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if digits.len() < PREFIX_DIGITS_MIN || !is_hex {
            return Ok(None);
        }
        let mut found = std::collections::BTreeSet::new();
        for name in names_in(&self.path("images"))? {
            if name.starts_with(digits) {
                found.extend(digest_of(&name));
            }
        }
        for name in names_in(&self.path("manifests"))? {
            if name.starts_with(digits)
                && let Some(digest) = digest_of(&name)
            {
                found.extend(self.get_record::<Digest>(&self.manifest_path(&digest)));
            }
        }
        match found.len() {
            0 => Ok(None),
            1 => self.image(&found.pop_first().expect("there is one")),
            count => Err(StoreError::Ambiguous { prefix: prefix.to_owned(), count }),
        }
    }

    /// All images, newest first, then by id.
    pub fn images(&self) -> Result<Vec<NamedImage>, StoreError> {
        let mut references: BTreeMap<Digest, Vec<Reference>> = BTreeMap::new();
        for (reference, id) in self.names()? {
            references.entry(id).or_default().push(reference);
        }
        let mut images = Vec::new();
        for name in names_in(&self.path("images"))? {
            let Some(id) = digest_of(&name) else { continue };
            let (Some(record), Some(image)) = (self.image_record(&id), self.image(&id)?) else { continue };
            let mut references = references.remove(&id).unwrap_or_default();
            references.sort();
            let manifest_digest = record.manifest_digest().cloned();
            images.push(NamedImage { references, image, manifest_digest, created: time(record.recorded_s) });
        }
        images.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.image.id.cmp(&b.image.id)));
        Ok(images)
    }

    /// Images that cannot be used any more because a layer or the config is gone (a power loss, a damaged disk), with their
    /// names: they are missing in [`Store::images`].
    pub fn lost_images(&self) -> Result<Vec<(Digest, Vec<Reference>)>, StoreError> {
        let mut lost: BTreeMap<Digest, Vec<Reference>> = BTreeMap::new();
        for (reference, id) in self.names()? {
            if !lost.contains_key(&id) && self.image(&id).is_ok_and(|image| image.is_some()) {
                continue;
            }
            lost.entry(id).or_default().push(reference);
        }
        Ok(lost.into_iter().collect())
    }

    /// Every name with each image that it means; torn ones are left out.
    pub(crate) fn names(&self) -> Result<Vec<(Reference, Digest)>, StoreError> {
        let mut names = Vec::new();
        for name in names_in(&self.path("names"))? {
            if let Some(file) = read_name(&self.path("names").join(&name)) {
                names.extend(file.ids().map(|id| (file.reference.clone(), id.clone())));
            }
        }
        Ok(names)
    }

    /// Manifests that names keep beside their images.
    pub(crate) fn besides(&self) -> Result<Vec<Digest>, StoreError> {
        let names = names_in(&self.path("names"))?;
        let files = names.iter().filter_map(|name| read_name(&self.path("names").join(name)));
        Ok(files.flat_map(|file| file.besides).map(|record| record.descriptor.digest).collect())
    }

    fn expect_image(&self, id: &Digest) -> Result<(), StoreError> {
        self.image_record(id).map(drop).ok_or_else(|| StoreError::UnknownImage(id.clone()))
    }

    pub(crate) fn name_path(&self, reference: &Reference) -> PathBuf {
        self.path("names").join(encode(&named(reference).to_string()))
    }
}

/// File names hold no slash and end at 255 bytes; a long name is called by its digest. The first byte is never a dot,
/// because no reference begins so.
fn encode(text: &str) -> String {
    let name = text.replace('%', "%25").replace('/', "%2F");
    if name.len() <= FILE_NAME_BYTES_MAX { name } else { format!("%{}", Digest::of(text.as_bytes()).hex()) }
}

/// A torn file is no name.
pub(crate) fn read_name(path: &std::path::Path) -> Option<NameFile> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// The file of a name.
#[derive(Serialize, Deserialize)]
pub(crate) struct NameFile {
    reference: Reference,
    image: Digest,
    /// Images of further platforms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    others: Vec<Digest>,
    /// What is said of them, and goes along when they are pushed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) besides: Vec<BesideRecord>,
}

impl NameFile {
    /// Its images, the usual one first.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &Digest> {
        std::iter::once(&self.image).chain(&self.others)
    }
}

/// `<hex>.json`.
pub(crate) fn digest_of(file_name: &str) -> Option<Digest> {
    format!("sha256:{}", file_name.strip_suffix(".json").unwrap_or(file_name)).parse().ok()
}
