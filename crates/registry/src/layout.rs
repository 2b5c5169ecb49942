//! OCI image layouts as places to copy from and to (image-spec, "Image Layout"): a directory, or a tar of one.

use std::{
    io::{self, Read, Write},
    path::{Component, Path, PathBuf},
};

use fs_err as fs;
use oci::{Descriptor, Digest, Hasher, Index, ManifestOrIndex};

use crate::{CommitError, client::BlobTarget};

/// The annotation by which an image of a layout is named (image-spec, "Pre-Defined Annotation Keys").
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// What every reader knows (image-spec, "oci-layout file").
const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// The list of a layout; one with thousands of images has less.
const INDEX_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Files in an archive: some for each layer.
const FILES_MAX: usize = 100_000;

/// What a layout is asked for is not there, or it is none.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the OCI layout {}", .path.display())]
pub struct LayoutError {
    /// The directory or archive.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub kind: LayoutErrorKind,
}

/// Why a layout cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LayoutErrorKind {
    /// Files of it cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is no layout: what is missing or wrong.
    #[error("it is no OCI layout: {0}")]
    Malformed(String),
    /// No image has the name.
    #[error("no image in it is called `{name}`; there is {}", if .known.is_empty() { "none with a name".into() } else { .known.join(", ") })]
    NoSuchImage {
        /// The name that was asked for.
        name: String,
        /// Names of the others.
        known: Vec<String>,
    },
    /// A name is needed, because there are several images.
    #[error("it has {} images; name one: {}", .0.len(), .0.join(", "))]
    Several(Vec<String>),
}

/// An OCI layout in a directory.
#[derive(Debug)]
pub struct Layout {
    directory: PathBuf,
    /// For messages: the archive, where the directory was made from one.
    path: PathBuf,
    /// The directory of an unpacked archive goes with this.
    _temporary: Option<tempfile::TempDir>,
}

impl Layout {
    /// A layout that is there.
    pub fn open(directory: &Path) -> Result<Self, LayoutError> {
        let layout = Self { directory: directory.to_owned(), path: directory.to_owned(), _temporary: None };
        layout.index().map_err(|kind| layout.error(kind))?;
        Ok(layout)
    }

    /// A layout to write to, which may be there already.
    pub fn create(directory: &Path) -> Result<Self, LayoutError> {
        let layout = Self { directory: directory.to_owned(), path: directory.to_owned(), _temporary: None };
        layout.prepare().map_err(|kind| layout.error(kind))?;
        Ok(layout)
    }

    /// The layout of an uncompressed archive, unpacked for as long as this lives. What does not belong to a layout is passed over.
    pub fn open_archive(archive: &Path) -> Result<Self, LayoutError> {
        let failed = |kind: LayoutErrorKind| LayoutError { path: archive.to_owned(), kind };
        let temporary = tempfile::tempdir().map_err(|error| failed(error.into()))?;
        unpack(archive, temporary.path()).map_err(failed)?;
        let directory = temporary.path().to_owned();
        let layout = Self { directory, path: archive.to_owned(), _temporary: Some(temporary) };
        layout.index().map_err(|kind| layout.error(kind))?;
        Ok(layout)
    }

    /// An empty layout beside the place of an archive, to be written to and packed with [`Layout::pack`].
    pub fn for_archive(archive: &Path) -> Result<Self, LayoutError> {
        let failed = |kind: LayoutErrorKind| LayoutError { path: archive.to_owned(), kind };
        let beside = archive.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let temporary = tempfile::Builder::new().prefix(".seatrial-").tempdir_in(beside);
        let temporary = temporary.map_err(|error| failed(error.into()))?;
        let layout =
            Self { directory: temporary.path().to_owned(), path: archive.to_owned(), _temporary: Some(temporary) };
        layout.prepare().map_err(|kind| layout.error(kind))?;
        Ok(layout)
    }

    /// Writes the archive: the same content gives the same bytes. It has its name when it is whole.
    pub fn pack(&self) -> Result<(), LayoutError> {
        self.write_archive().map_err(|error| self.error(error.into()))
    }

    /// The directory or archive.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name under which an image is listed, if it has one.
    pub fn name_of(listed: &Descriptor) -> Option<&str> {
        listed.annotations.get(REF_NAME).map(String::as_str)
    }

    /// The image of this name; without one, the only one there is.
    pub fn find(&self, name: Option<&str>) -> Result<Descriptor, LayoutError> {
        let index = self.index().map_err(|kind| self.error(kind))?;
        let known: Vec<String> = index.manifests.iter().filter_map(Self::name_of).map(str::to_owned).collect();
        let found = match name {
            Some(name) => index.manifests.iter().find(|listed| Self::name_of(listed) == Some(name)),
            // What refers to an image is listed without a name.
            None if known.len() > 1 => return Err(self.error(LayoutErrorKind::Several(known))),
            None => index.manifests.iter().find(|listed| Self::name_of(listed).is_some()).or(index.manifests.first()),
        };
        let wanted = || name.unwrap_or_default().to_owned();
        found.cloned().ok_or_else(|| self.error(LayoutErrorKind::NoSuchImage { name: wanted(), known }))
    }

    /// The manifests that the layout lists, named or not.
    pub(crate) fn listed(&self) -> Result<Vec<Descriptor>, LayoutError> {
        Ok(self.index().map_err(|kind| self.error(kind))?.manifests)
    }

    /// A document of at most `limit_bytes`, checked by its digest; `None` when it is not there.
    pub(crate) fn document(&self, digest: &Digest, limit_bytes: u64) -> Result<Option<Vec<u8>>, LayoutError> {
        let read = || -> Result<Option<Vec<u8>>, LayoutErrorKind> {
            let file = match fs::File::open(self.blob_path(digest)) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let mut bytes = Vec::new();
            file.take(limit_bytes + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > limit_bytes || Digest::of(&bytes) != *digest {
                return Err(LayoutErrorKind::Malformed(format!("blob {digest} has other content")));
            }
            Ok(Some(bytes))
        };
        read().map_err(|kind| self.error(kind))
    }

    /// A blob, unless it is missing or of another size. Its content is checked where it goes to.
    pub(crate) fn blob(&self, blob: &Descriptor) -> Result<std::fs::File, LayoutError> {
        let open = || -> Result<std::fs::File, LayoutErrorKind> {
            let file = fs::File::open(self.blob_path(&blob.digest))?;
            let length = file.metadata()?.len();
            if length != blob.size {
                let message = format!("blob {} has {length} bytes instead of {}", blob.digest, blob.size);
                return Err(LayoutErrorKind::Malformed(message));
            }
            Ok(file.into_parts().0)
        };
        open().map_err(|kind| self.error(kind))
    }

    /// Whether a blob of this size is there.
    pub(crate) fn has(&self, blob: &Descriptor) -> bool {
        std::fs::metadata(self.blob_path(&blob.digest)).is_ok_and(|metadata| metadata.len() == blob.size)
    }

    /// Takes a blob.
    pub(crate) fn writer(&self) -> io::Result<LayoutBlob> {
        let file = tempfile::Builder::new().prefix(".blob-").tempfile_in(self.directory.join("blobs/sha256"))?;
        Ok(LayoutBlob { file, hasher: Hasher::new(), blobs: self.directory.join("blobs/sha256") })
    }

    /// Takes a manifest; it is listed with a name, or without one when nothing else leads to it.
    pub(crate) fn put(&self, manifest: &Descriptor, bytes: &[u8], listed: Listed<'_>) -> Result<(), LayoutError> {
        let put = || -> Result<(), LayoutErrorKind> {
            if !self.has(manifest) {
                let mut blob = self.writer()?;
                blob.write_all(bytes)?;
                Box::new(blob).commit(&manifest.digest, bytes.len() as u64).map_err(io::Error::other)?;
            }
            let name = match listed {
                Listed::Not => return Ok(()),
                Listed::Nameless => None,
                Listed::As(name) => Some(name),
            };
            let mut index = self.index()?;
            // A name moves; what has no name is listed once.
            match name {
                Some(name) => index.manifests.retain(|listed| {
                    let has = Self::name_of(listed);
                    has != Some(name) && !(listed.digest == manifest.digest && has.is_none())
                }),
                None if index.manifests.iter().any(|listed| listed.digest == manifest.digest) => return Ok(()),
                None => {}
            }
            let mut entry = manifest.clone();
            entry.annotations.extend(name.map(|name| (REF_NAME.to_owned(), name.to_owned())));
            index.manifests.push(entry);
            Ok(write_whole(&self.directory.join("index.json"), &oci::to_json(&index))?)
        };
        put().map_err(|kind| self.error(kind))
    }

    pub(crate) fn error(&self, kind: LayoutErrorKind) -> LayoutError {
        LayoutError { path: self.path.clone(), kind }
    }

    fn prepare(&self) -> Result<(), LayoutErrorKind> {
        fs::create_dir_all(self.directory.join("blobs/sha256"))?;
        if !self.directory.join("index.json").exists() {
            write_whole(&self.directory.join("index.json"), &oci::to_json(&Index::of(Vec::new())))?;
            write_whole(&self.directory.join("oci-layout"), LAYOUT)?;
        }
        self.index().map(drop)
    }

    fn index(&self) -> Result<Index, LayoutErrorKind> {
        let mut bytes = Vec::new();
        let file = fs::File::open(self.directory.join("index.json"));
        let file = file.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => LayoutErrorKind::Malformed("there is no `index.json`".into()),
            _ => error.into(),
        })?;
        file.take(INDEX_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        match ManifestOrIndex::parse(&bytes) {
            Ok(ManifestOrIndex::Index(index)) if bytes.len() as u64 <= INDEX_BYTES_MAX => Ok(index),
            _ => Err(LayoutErrorKind::Malformed("`index.json` is no index".into())),
        }
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.directory.join("blobs/sha256").join(digest.hex())
    }

    fn write_archive(&self) -> io::Result<()> {
        let beside = self.directory.parent().expect("it was made beside the archive");
        let file = tempfile::Builder::new()
            .prefix(".seatrial-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(beside)?;
        let mut tar = tar::Builder::new(io::BufWriter::with_capacity(1 << 20, file));
        let mut names = vec![PathBuf::from("oci-layout"), PathBuf::from("index.json")];
        let mut blobs = Vec::new();
        for entry in fs::read_dir(self.directory.join("blobs/sha256"))? {
            blobs.push(Path::new("blobs/sha256").join(entry?.file_name()));
        }
        blobs.sort_unstable();
        names.extend(blobs);
        for name in names {
            let file = fs::File::open(self.directory.join(&name))?;
            let mut header = tar::Header::new_ustar();
            header.set_size(file.metadata()?.len());
            header.set_mode(0o644);
            tar.append_data(&mut header, &name, file)?;
        }
        let file = tar.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.persist(&self.path).map_err(|error| error.error)?;
        Ok(())
    }
}

/// How a manifest stands in `index.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listed<'a> {
    /// Not: an index leads to it.
    Not,
    /// Without a name.
    Nameless,
    /// By this name.
    As(&'a str),
}

/// A blob on its way into a layout.
pub(crate) struct LayoutBlob {
    file: tempfile::NamedTempFile,
    hasher: Hasher,
    blobs: PathBuf,
}

impl Write for LayoutBlob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl BlobTarget for LayoutBlob {
    fn commit(self: Box<Self>, digest: &Digest, _: u64) -> Result<(), CommitError> {
        let Self { file, hasher, blobs } = *self;
        let found = hasher.finish();
        if found != *digest {
            return Err(CommitError::WrongDigest(found));
        }
        let failed = |error: io::Error| CommitError::Failed(error.into());
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(mode).map_err(failed)?;
        file.persist(blobs.join(digest.hex())).map_err(|error| failed(error.error))?;
        Ok(())
    }
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().expect("files of a layout lie in it");
    let mut file = tempfile::Builder::new()
        .prefix(".seatrial-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Takes the files of a layout out of an archive. Only plain files with the names that a layout has are looked at, so that
/// nothing can be written elsewhere.
fn unpack(archive: &Path, to: &Path) -> Result<(), LayoutErrorKind> {
    fs::create_dir_all(to.join("blobs/sha256"))?;
    let mut tar = tar::Archive::new(fs::File::open(archive)?);
    for (number, entry) in tar.entries()?.enumerate() {
        let mut entry = entry?;
        if number >= FILES_MAX {
            return Err(LayoutErrorKind::Malformed(format!("the archive has more than {FILES_MAX} entries")));
        }
        let path = entry.path()?.into_owned();
        let Some(name) = name_in_layout(&path).filter(|_| entry.header().entry_type().is_file()) else { continue };
        io::copy(&mut entry, &mut fs::File::create(to.join(name))?)?;
    }
    Ok(())
}

fn name_in_layout(path: &Path) -> Option<PathBuf> {
    let parts: Option<Vec<&str>> = path
        .components()
        .filter(|part| *part != Component::CurDir)
        .map(|part| match part {
            Component::Normal(part) => part.to_str(),
            _ => None,
        })
        .collect();
    match parts?.as_slice() {
        [name @ ("oci-layout" | "index.json")] => Some(PathBuf::from(name)),
        ["blobs", "sha256", hex] if format!("sha256:{hex}").parse::<Digest>().is_ok() => {
            Some(Path::new("blobs/sha256").join(hex))
        }
        _ => None,
    }
}
