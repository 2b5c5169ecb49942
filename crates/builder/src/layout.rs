//! Images from OCI layout directories (image-spec, "Image Layout"), taken into the store when a build names one.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use oci::{Descriptor, Digest, Index, Manifest, ManifestOrIndex, Platform, media_type};
use store::Image;

use crate::{step::digest_of, work::Host};

/// Memo namespace of layouts that were taken in: which image they gave.
const MEMO: &str = "oci-layouts";
/// Manifests and indexes are a few kilobytes (distribution-spec, "Pushing Manifests").
const DOCUMENT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// An index may list indexes; two levels are in use.
const DEPTH_MAX: usize = 4;
/// The annotation that names an image in a layout's index.
const NAME_ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// A layout cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayoutError {
    #[error("{0}")]
    Wrong(String),
    #[error("a file of it cannot be read")]
    File(#[from] io::Error),
    #[error("a document in it cannot be read")]
    Document(#[from] serde_json::Error),
    #[error("a document in it is neither manifest nor index")]
    Unknown(#[from] oci::UnknownDocument),
    #[error(transparent)]
    Store(#[from] store::StoreError),
    #[error(transparent)]
    Import(#[from] store::ImportError),
}

/// The image that `name` (tag, annotation or digest) means in the layout; the only one without a name. Taken in once for
/// each state of the index.
pub(crate) fn image(
    host: &Host<'_>,
    layout: &Path,
    name: Option<&str>,
    platform: &Platform,
) -> Result<Image, LayoutError> {
    let index_bytes = read(&layout.join("index.json"))?;
    let place = layout.as_os_str().as_encoded_bytes();
    let wanted = platform.to_string();
    let key = digest_of([place, name.unwrap_or("").as_bytes(), wanted.as_bytes(), &index_bytes]);
    let known = host.store.memo_get(MEMO, key.hex()).and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok());
    if let Some(id) = known
        && let Some(image) = host.store.image(&id)?
    {
        return Ok(image);
    }
    let index: Index = serde_json::from_slice(&index_bytes)?;
    let mut chosen = choose(&index, name, platform)?.clone();
    let mut bytes = Vec::new();
    for depth in 0.. {
        if depth == DEPTH_MAX {
            return Err(LayoutError::Wrong("its indexes are nested too deeply".into()));
        }
        bytes = read(&blob_path(layout, &chosen.digest))?;
        let actual = Digest::of(&bytes);
        if actual != chosen.digest {
            return Err(LayoutError::Wrong(format!(
                "blob {} of it is corrupt: its bytes have {actual}",
                chosen.digest
            )));
        }
        match ManifestOrIndex::parse(&bytes)? {
            ManifestOrIndex::Manifest(manifest) => {
                take_in(host, layout, &manifest)?;
                break;
            }
            ManifestOrIndex::Index(index) => {
                let found = index.select(platform);
                chosen = found.cloned().ok_or_else(|| LayoutError::Wrong(format!("it has no image for {platform}")))?;
            }
        }
    }
    let image = host.store.import_manifest(host.scope, &bytes)?;
    // A memo that cannot be written costs taking it in again.
    let _ = host.store.memo_put(MEMO, key.hex(), image.id.to_string().as_bytes());
    Ok(image)
}

fn choose<'a>(index: &'a Index, name: Option<&str>, wanted: &Platform) -> Result<&'a Descriptor, LayoutError> {
    let is_image = |descriptor: &&'a Descriptor| {
        media_type::is_manifest(&descriptor.media_type) || media_type::is_index(&descriptor.media_type)
    };
    let name_of = |descriptor: &'a Descriptor| descriptor.annotations.get(NAME_ANNOTATION).map(String::as_str);
    let fits = |descriptor: &&'a Descriptor| match name {
        None => true,
        Some(name) => {
            let known = descriptor.annotations.get(NAME_ANNOTATION);
            descriptor.digest.to_string() == name
                || known
                    .is_some_and(|known| known == name || known.rsplit_once(':').is_some_and(|(_, tag)| tag == name))
        }
    };
    let fitting: Vec<&Descriptor> = index.manifests.iter().filter(is_image).filter(fits).collect();
    // One image for several machines may stand here without an index of its own.
    let of_platform = |is_it: &dyn Fn(&Platform) -> bool| {
        let mut found = fitting.iter().filter(|descriptor| descriptor.platform.as_ref().is_some_and(is_it));
        found.next().filter(|_| found.next().is_none()).copied()
    };
    match fitting.as_slice() {
        [only] => Ok(only),
        [_, ..] => {
            of_platform(&|has| has == wanted).or_else(|| of_platform(&|has| has.runs_on(wanted))).ok_or_else(|| {
                LayoutError::Wrong(format!("it holds several images, and not one for {wanted}; name one as `PATH:TAG`"))
            })
        }
        [] => {
            let names: Vec<&str> = index.manifests.iter().filter_map(name_of).collect();
            let has = if names.is_empty() { "no named one".to_owned() } else { names.join(", ") };
            Err(LayoutError::Wrong(format!("it has no image `{}`; it has {has}", name.unwrap_or(""))))
        }
    }
}

/// Copies the config and layers into the store, checked on the way.
fn take_in(host: &Host<'_>, layout: &Path, manifest: &Manifest) -> Result<(), LayoutError> {
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        if host.store.has_blob(&blob.digest) == Some(blob.size) {
            continue;
        }
        let mut writer = host.store.blob_writer()?;
        io::copy(&mut open(&blob_path(layout, &blob.digest))?.take(blob.size + 1), &mut writer)?;
        writer.commit(Some((&blob.digest, blob.size)))?;
    }
    Ok(())
}

fn blob_path(layout: &Path, digest: &Digest) -> std::path::PathBuf {
    layout.join("blobs/sha256").join(digest.hex())
}

fn read(path: &Path) -> Result<Vec<u8>, LayoutError> {
    let mut bytes = Vec::new();
    open(path)?.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(LayoutError::Wrong(format!("{} is larger than 4 MiB", path.display())));
    }
    Ok(bytes)
}

/// Opens a regular file; anything else could block.
fn open(path: &Path) -> io::Result<File> {
    let is_file = fs_err::metadata(path)?.is_file();
    if !is_file {
        return Err(io::Error::other(format!("{} is not a file", path.display())));
    }
    Ok(fs_err::File::open(path)?.into_parts().0)
}
