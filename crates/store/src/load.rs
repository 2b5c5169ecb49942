//! Reading images in: docker archives, OCI layouts, plain root file systems.
//!
//! What an archive holds is streamed into the blob store first, whatever its order; nothing is unpacked elsewhere. What
//! turns out not to be needed goes with the next prune.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Write as _},
    path::Path,
    time::SystemTime,
};

use fs_err as fs;
use oci::{
    Descriptor, DiffId, Digest, Hasher, History, ImageConfig, Index, ManifestOrIndex, Platform, Reference, media_type,
};

use crate::{
    Image, ImportError, Scope, Store, StoreError,
    archive::{self, EntryKind, Format, TarReader},
    image::DOCUMENT_BYTES_MAX,
    save::{DockerImage, IMAGE_NAME, REF_NAME},
    tree,
};

/// How BuildKit marks what describes an image and is none (`unknown/unknown`).
const ATTESTATION_OS: &str = "unknown";
/// Indexes in indexes; one level is usual.
const INDEX_DEPTH_MAX: usize = 4;
/// Files in an archive of images: some for each layer.
const FILES_MAX: usize = 100_000;
/// Links to links in old docker archives.
const LINKS_MAX: usize = 16;

/// Where an archive comes from.
pub enum LoadSource<'a> {
    /// A file, or a directory with an OCI layout.
    Path(&'a Path),
    /// A stream, which is spooled to the scope's scratch directory.
    Reader(&'a mut dyn Read),
}

/// What an archive is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Docker,
    Layout,
    Rootfs,
}

impl Store {
    /// Reads a docker archive, an OCI layout (tar or directory) or the tar of a root file system (then `name` is its name), each
    /// gzip, zstd or plain, told apart by content. Gives the images with the names that the archive has for them; naming them
    /// ([`Store::tag`]) is the caller's.
    pub fn load(
        &self,
        scope: &Scope,
        source: LoadSource<'_>,
        name: Option<&Reference>,
    ) -> Result<Vec<(Option<Reference>, Image)>, ImportError> {
        let path = match source {
            LoadSource::Path(path) if path.is_dir() => return self.load_directory(scope, path, name),
            LoadSource::Path(path) => path.to_owned(),
            LoadSource::Reader(reader) => spool(scope, reader)?,
        };
        let kind = kind_of(open(&path)?).map_err(ImportError::Archive)?;
        if kind == Kind::Rootfs {
            return Ok(vec![(name.cloned(), self.load_rootfs(scope, &path)?)]);
        }
        let files = self.store_files(scope, open(&path)?)?;
        let mut images = match kind {
            Kind::Layout => {
                let index = self.file(&files, b"index.json")?;
                self.load_index(scope, &index, &|_| Ok(()))?
            }
            _ => Vec::new(),
        };
        // Docker 25 writes both forms into one archive; the layout keeps the registry's digests, the other one the names.
        if images.iter().all(|(reference, _)| reference.is_none()) && files.contains_key(b"manifest.json".as_slice()) {
            images = self.load_docker(scope, &files)?;
        }
        Ok(with_name(images, name))
    }

    fn load_directory(
        &self,
        scope: &Scope,
        directory: &Path,
        name: Option<&Reference>,
    ) -> Result<Vec<(Option<Reference>, Image)>, ImportError> {
        let index = fs::File::open(directory.join("index.json")).map_err(ImportError::Archive)?;
        let index = read_document(index).map_err(ImportError::Archive)?;
        let fetch = |wanted: &Descriptor| -> Result<(), ImportError> {
            if self.has_blob(&wanted.digest) == Some(wanted.size) {
                return Ok(());
            }
            let path = directory.join("blobs/sha256").join(wanted.digest.hex());
            let mut file = fs::File::open(path).map_err(ImportError::Archive)?;
            let mut blob = self.blob_writer()?;
            io::copy(&mut file, &mut blob).map_err(StoreError::from)?;
            blob.commit(Some((&wanted.digest, wanted.size)))?;
            Ok(())
        };
        Ok(with_name(self.load_index(scope, &index, &fetch)?, name))
    }

    /// All images of an index that run here, with those of other platforms that share a name with one; if none runs here,
    /// all there are.
    fn load_index(
        &self,
        scope: &Scope,
        index: &[u8],
        fetch: &dyn Fn(&Descriptor) -> Result<(), ImportError>,
    ) -> Result<Vec<(Option<Reference>, Image)>, ImportError> {
        let index: Index = serde_json::from_slice(index).map_err(oci::UnknownDocument::from)?;
        let host = Platform::host();
        let is_image =
            |listed: &&Descriptor| listed.platform.as_ref().is_none_or(|platform| platform.os != ATTESTATION_OS);
        let runs = |listed: &&Descriptor| listed.platform.as_ref().is_none_or(|platform| platform.runs_on(&host));
        let listed: Vec<&Descriptor> = index.manifests.iter().filter(is_image).collect();
        let has_own = listed.iter().any(runs);
        let mut images = Vec::new();
        for descriptor in listed.into_iter().filter(|listed| !has_own || runs(listed)) {
            let name = name_of(descriptor);
            let loaded = self.load_manifest(scope, descriptor, fetch, 0)?;
            images.extend(loaded.into_iter().map(|image| (name.clone(), image)));
        }
        if images.is_empty() {
            return Err(ImportError::Refused(format!("the archive has no image for {host}")));
        }
        Ok(images)
    }

    /// An image, or those of an index.
    fn load_manifest(
        &self,
        scope: &Scope,
        descriptor: &Descriptor,
        fetch: &dyn Fn(&Descriptor) -> Result<(), ImportError>,
        depth: usize,
    ) -> Result<Vec<Image>, ImportError> {
        fetch(descriptor)?;
        let bytes = self.read_blob(&descriptor.digest, DOCUMENT_BYTES_MAX)?;
        let bytes = bytes.ok_or_else(|| StoreError::MissingBlob(descriptor.digest.clone()))?;
        match ManifestOrIndex::parse(&bytes)? {
            ManifestOrIndex::Manifest(manifest) => {
                fetch(&manifest.config)?;
                for layer in &manifest.layers {
                    fetch(layer)?;
                }
                Ok(vec![self.import_manifest(scope, &bytes)?])
            }
            ManifestOrIndex::Index(_) if depth == INDEX_DEPTH_MAX => {
                Err(ImportError::Refused("its indexes are nested too deeply".into()))
            }
            ManifestOrIndex::Index(index) => {
                let mut images = Vec::new();
                for listed in &index.manifests {
                    if listed.platform.as_ref().is_some_and(|platform| platform.os == ATTESTATION_OS) {
                        continue;
                    }
                    // Docker saves an index whole, and of the images that it lists only those that it has.
                    let is_there = fetch(listed).is_ok() && self.has_blob(&listed.digest).is_some();
                    if is_there {
                        images.extend(self.load_manifest(scope, listed, fetch, depth + 1)?);
                    }
                }
                if images.is_empty() {
                    return Err(ImportError::Refused("the archive has none of the images that its index lists".into()));
                }
                Ok(images)
            }
        }
    }

    fn load_docker(&self, scope: &Scope, files: &Files) -> Result<Vec<(Option<Reference>, Image)>, ImportError> {
        let listed = self.file(files, b"manifest.json")?;
        let listed: Vec<DockerImage> = serde_json::from_slice(&listed).map_err(oci::UnknownDocument::from)?;
        let mut images = Vec::new();
        for item in listed {
            let id = find(files, item.config.as_bytes())?.digest;
            let mut layers = Vec::new();
            for layer in &item.layers {
                let stored = find(files, layer.as_bytes())?;
                layers.push(Descriptor::new(stored.format.media_type(), stored.digest, stored.size));
            }
            // Not recorded as pulled: docker archives hold plain layers, which no registry has by these digests.
            let image = self.import_parts(scope, None, id, &layers, SystemTime::UNIX_EPOCH, None)?;
            let tags = item.repo_tags.unwrap_or_default();
            let names: Vec<Option<Reference>> = tags.iter().map(|tag| tag.parse().ok()).collect();
            if names.iter().all(Option::is_none) {
                images.push((None, image.clone()));
            }
            images.extend(names.into_iter().flatten().map(|name| (Some(name), image.clone())));
        }
        Ok(images)
    }

    /// One layer, for this machine's platform.
    fn load_rootfs(&self, scope: &Scope, path: &Path) -> Result<Image, ImportError> {
        let mut blob = self.blob_writer()?;
        io::copy(&mut open(path)?, &mut blob).map_err(StoreError::from)?;
        let (digest, size) = blob.commit(None)?;
        scope.lease_blob(&digest)?;
        let (format, mut plain) = archive::decompress(open(path)?).map_err(ImportError::Archive)?;
        let mut hasher = Hasher::new();
        io::copy(&mut plain, &mut hasher).map_err(ImportError::Archive)?;
        let diff_id = DiffId(hasher.finish());
        let layer = Descriptor::new(format.media_type(), digest, size);
        let snapshot = self.apply_layer(scope, None, None, &layer, &diff_id)?;
        let mut config = ImageConfig::scratch(&Platform::host());
        config.rootfs.diff_ids.push(diff_id);
        config.history.push(History { created_by: Some("root file system".into()), ..History::default() });
        Ok(self.put_image(&config, &[snapshot], SystemTime::UNIX_EPOCH)?)
    }

    /// Stores every file of an archive as a blob, leased.
    fn store_files(&self, scope: &Scope, source: File) -> Result<Files, ImportError> {
        let (_, plain) = archive::decompress(source).map_err(ImportError::Archive)?;
        let mut archive = TarReader::new(plain);
        let mut files = Files::new();
        let mut chunk = vec![0; 256 * 1024];
        while let Some(entry) = archive.next_entry().map_err(ImportError::Archive)? {
            if files.len() == FILES_MAX {
                return Err(ImportError::Refused(format!("the archive has more than {FILES_MAX} files")));
            }
            let path = tree::clean(&entry.path);
            match entry.kind {
                EntryKind::File => {
                    let mut blob = self.blob_writer()?;
                    let mut format = None;
                    loop {
                        let read = archive.read_data(&mut chunk).map_err(ImportError::Archive)?;
                        format.get_or_insert_with(|| archive::sniff(&chunk[..read]));
                        if read == 0 {
                            break;
                        }
                        blob.write_all(&chunk[..read]).map_err(StoreError::from)?;
                    }
                    let (digest, size) = blob.commit(None)?;
                    scope.lease_blob(&digest)?;
                    let format = format.unwrap_or(Format::Plain);
                    files.insert(path, Item::Stored(Stored { digest, size, format }));
                }
                EntryKind::Symlink | EntryKind::HardLink => {
                    let is_relative = entry.kind == EntryKind::Symlink && !entry.link.starts_with(b"/");
                    let base = if is_relative { tree::split(&path).0 } else { b"" };
                    files.insert(path.clone(), Item::Link(tree::clean(&tree::join(base, &entry.link))));
                }
                _ => {}
            }
        }
        Ok(files)
    }

    fn file(&self, files: &Files, name: &[u8]) -> Result<Vec<u8>, ImportError> {
        let stored = find(files, name)?;
        let bytes = self.read_blob(&stored.digest, DOCUMENT_BYTES_MAX)?;
        Ok(bytes.ok_or(StoreError::MissingBlob(stored.digest))?)
    }
}

impl Format {
    fn media_type(self) -> &'static str {
        match self {
            Self::Plain => media_type::LAYER,
            Self::Gzip => media_type::LAYER_GZIP,
            Self::Zstd => media_type::LAYER_ZSTD,
        }
    }
}

/// Files of an archive by path.
type Files = HashMap<Vec<u8>, Item>;

enum Item {
    Stored(Stored),
    Link(Vec<u8>),
}

#[derive(Clone)]
struct Stored {
    digest: Digest,
    size: u64,
    format: Format,
}

/// A file of an archive; old docker archives have links for layers that occur twice.
fn find(files: &Files, name: &[u8]) -> Result<Stored, ImportError> {
    let mut path = tree::clean(name);
    for _ in 0..LINKS_MAX {
        match files.get(&path) {
            Some(Item::Stored(stored)) => return Ok(stored.clone()),
            Some(Item::Link(target)) => path = target.clone(),
            None => break,
        }
    }
    Err(ImportError::Refused(format!("the archive lacks {:?}, which it speaks of", String::from_utf8_lossy(name))))
}

/// An image's name in a layout: the full one, or a reference name that is one. A mere tag names no repository.
fn name_of(descriptor: &Descriptor) -> Option<Reference> {
    let full = descriptor.annotations.get(IMAGE_NAME).and_then(|name| name.parse().ok());
    let reference = || {
        let name = descriptor.annotations.get(REF_NAME)?;
        name.parse::<Reference>().ok().filter(|_| name.contains(['/', ':']))
    };
    full.or_else(reference)
}

/// The caller's name goes to the only image, or to those that have none when there is one such.
fn with_name(mut images: Vec<(Option<Reference>, Image)>, name: Option<&Reference>) -> Vec<(Option<Reference>, Image)> {
    if let (Some(name), [(reference, _)]) = (name, &mut images[..]) {
        *reference = Some(name.clone());
    }
    images
}

/// Looks at names until one is telling.
fn kind_of(source: File) -> io::Result<Kind> {
    let (_, plain) = archive::decompress(source)?;
    let mut archive = TarReader::new(plain);
    let mut has_docker = false;
    while let Some(entry) = archive.next_entry()? {
        let path = tree::clean(&entry.path);
        match &*path {
            b"oci-layout" => return Ok(Kind::Layout),
            b"manifest.json" if entry.kind == EntryKind::File => has_docker = true,
            _ => {}
        }
        let first = path.split(|b| *b == b'/').next().unwrap_or_default();
        if matches!(first, b"bin" | b"dev" | b"etc" | b"home" | b"lib" | b"proc" | b"root" | b"sbin" | b"usr" | b"var")
        {
            return Ok(Kind::Rootfs);
        }
    }
    Ok(if has_docker { Kind::Docker } else { Kind::Rootfs })
}

fn spool(scope: &Scope, reader: &mut dyn Read) -> Result<std::path::PathBuf, ImportError> {
    let path = scope.dir().join(format!("archive-{:016x}", crate::store::random()));
    let mut file = fs::File::create(&path).map_err(StoreError::from)?;
    io::copy(reader, &mut file).map_err(ImportError::Archive)?;
    Ok(path)
}

fn open(path: &Path) -> Result<File, ImportError> {
    Ok(fs::File::open(path).map_err(ImportError::Archive)?.into_parts().0)
}

fn read_document(file: fs::File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "index.json is larger than 4 MiB"));
    }
    Ok(bytes)
}
