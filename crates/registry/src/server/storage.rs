//! The directory: content by digest, links of repositories, tags. What a method acknowledges is on disk.

use std::{
    fs::File,
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    sync::RwLock,
    time::{Duration, SystemTime},
};

use fs_err as fs;
use oci::{Descriptor, Digest, Reference};
use serde::{Deserialize, Serialize};

use super::ServerError;

/// A repository's name that was checked; safe as a relative path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RepositoryName(String);

impl RepositoryName {
    /// The grammar of the distribution-spec ("Pulling manifests"), as references have it. It has no `.`, `..`, empty or
    /// `_`-led components, which is what keeps paths inside the directory.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let reference: Reference = format!("localhost/{text}").parse().ok()?;
        (reference.path() == text && reference.tag().is_none() && reference.digest().is_none())
            .then(|| Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is noted of a manifest beside its bytes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ManifestLink {
    pub(super) media_type: String,
}

/// The directory.
#[derive(Debug)]
pub(super) struct Storage {
    root: PathBuf,
    // Manifests are written side by side, but none while one is deleted: a tag must not be left pointing to nothing.
    names: RwLock<()>,
    _lock: fs::File,
}

impl Storage {
    /// Opens and locks it; `None` when another process holds the lock.
    pub(super) fn open(root: &Path) -> Result<Option<Self>, ServerError> {
        let prepare = || -> io::Result<Option<Self>> {
            for dir in ["blobs/sha256", "repositories"] {
                make_dir(&root.join(dir))?;
            }
            let lock = fs::OpenOptions::new().create(true).append(true).open(root.join("lock"))?;
            match lock.file().try_lock() {
                Ok(()) => {}
                Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
                Err(std::fs::TryLockError::Error(error)) => return Err(error),
            }
            // Nobody else is here: what is in `tmp` is of a process that was killed.
            match fs::remove_dir_all(root.join("tmp")) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => make_dir(&root.join("tmp"))?,
            }
            Ok(Some(Self { root: root.to_owned(), names: RwLock::new(()), _lock: lock }))
        };
        prepare().map_err(ServerError::Storage)
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    fn repository_path(&self, name: &RepositoryName) -> PathBuf {
        self.root.join("repositories").join(name.as_str())
    }

    fn blob_link(&self, name: &RepositoryName, digest: &Digest) -> PathBuf {
        self.repository_path(name).join("_blobs").join(digest.hex())
    }

    fn manifest_link(&self, name: &RepositoryName, digest: &Digest) -> PathBuf {
        self.repository_path(name).join("_manifests").join(digest.hex())
    }

    fn tag_path(&self, name: &RepositoryName, tag: &str) -> PathBuf {
        self.repository_path(name).join("_tags").join(tag)
    }

    fn referrers_path(&self, name: &RepositoryName, subject: &Digest) -> PathBuf {
        self.repository_path(name).join("_referrers").join(subject.hex())
    }

    /// Where an upload's bytes are until it is finished. `id` was checked by the caller.
    pub(super) fn upload_path(&self, name: &RepositoryName, id: &str) -> PathBuf {
        self.repository_path(name).join("_uploads").join(id)
    }

    // ---- blobs

    /// A blob of a repository, with its size.
    pub(super) fn open_blob(&self, name: &RepositoryName, digest: &Digest) -> io::Result<Option<(File, u64)>> {
        if !self.blob_link(name, digest).exists() {
            return Ok(None);
        }
        let Some(file) = found(fs::File::open(self.blob_path(digest)))? else { return Ok(None) };
        let size = file.metadata()?.len();
        Ok(Some((file.into_parts().0, size)))
    }

    pub(super) fn has_blob(&self, name: &RepositoryName, digest: &Digest) -> bool {
        self.blob_link(name, digest).exists() && self.blob_path(digest).exists()
    }

    /// Moves a finished upload, whose digest was checked, to its place and links it.
    pub(super) fn commit_upload(
        &self,
        name: &RepositoryName,
        file: &File,
        path: &Path,
        digest: &Digest,
    ) -> io::Result<()> {
        file.sync_all()?;
        fs::rename(path, self.blob_path(digest))?;
        sync_dir(&self.root.join("blobs/sha256"))?;
        self.link_blob(name, digest)
    }

    /// Takes a blob over from another repository; `false` when that one does not have it.
    pub(super) fn mount(&self, name: &RepositoryName, from: &RepositoryName, digest: &Digest) -> io::Result<bool> {
        if !self.has_blob(from, digest) {
            return Ok(false);
        }
        self.link_blob(name, digest)?;
        Ok(true)
    }

    fn link_blob(&self, name: &RepositoryName, digest: &Digest) -> io::Result<()> {
        let link = self.blob_link(name, digest);
        let dir = link.parent().expect("a link is in a directory");
        make_dir(dir)?;
        fs::OpenOptions::new().create(true).append(true).open(&link)?;
        sync_dir(dir)
    }

    /// Unlinks a blob; the content stays for other repositories.
    pub(super) fn unlink_blob(&self, name: &RepositoryName, digest: &Digest) -> io::Result<bool> {
        remove(&self.blob_link(name, digest))
    }

    // ---- manifests

    /// Digest of what a tag names.
    pub(super) fn tag(&self, name: &RepositoryName, tag: &str) -> io::Result<Option<Digest>> {
        let Some(text) = found(fs::read_to_string(self.tag_path(name, tag)))? else { return Ok(None) };
        text.trim().parse().map(Some).map_err(io::Error::other)
    }

    pub(super) fn manifest(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> io::Result<Option<(ManifestLink, Vec<u8>)>> {
        let Some(link) = found(fs::read(self.manifest_link(name, digest)))? else { return Ok(None) };
        let link = serde_json::from_slice(&link)?;
        let bytes = fs::read(self.blob_path(digest))?;
        // Manifests are small: they are checked each time, so that a damaged disk is noticed here.
        if Digest::of(&bytes) != *digest {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("content of {digest} is damaged")));
        }
        Ok(Some((link, bytes)))
    }

    pub(super) fn has_manifest(&self, name: &RepositoryName, digest: &Digest) -> bool {
        self.manifest_link(name, digest).exists()
    }

    /// Writes a manifest: content, link, referrer, and last the tag.
    pub(super) fn put_manifest(
        &self,
        name: &RepositoryName,
        digest: &Digest,
        bytes: &[u8],
        link: &ManifestLink,
        referrer: Option<(&Digest, &Descriptor)>,
        tag: Option<&str>,
    ) -> io::Result<()> {
        let _names = self.names.read().expect("nothing panics while names are written");
        // Damaged content is replaced.
        if fs::read(self.blob_path(digest)).ok().as_deref() != Some(bytes) {
            self.write(&self.blob_path(digest), bytes)?;
        }
        self.write(&self.manifest_link(name, digest), &oci::to_json(link))?;
        if let Some((subject, descriptor)) = referrer {
            self.write(&self.referrers_path(name, subject).join(digest.hex()), &oci::to_json(descriptor))?;
        }
        if let Some(tag) = tag {
            self.write(&self.tag_path(name, tag), digest.to_string().as_bytes())?;
        }
        Ok(())
    }

    pub(super) fn delete_tag(&self, name: &RepositoryName, tag: &str) -> io::Result<bool> {
        remove(&self.tag_path(name, tag))
    }

    /// Removes a manifest with the tags that name it. The content stays.
    pub(super) fn delete_manifest(
        &self,
        name: &RepositoryName,
        digest: &Digest,
        subject: Option<&Digest>,
    ) -> io::Result<bool> {
        let _names = self.names.write().expect("nothing panics while names are written");
        for tag in self.tags(name)?.unwrap_or_default() {
            if self.tag(name, &tag)?.as_ref() == Some(digest) {
                remove(&self.tag_path(name, &tag))?;
            }
        }
        if let Some(subject) = subject {
            remove(&self.referrers_path(name, subject).join(digest.hex()))?;
        }
        remove(&self.manifest_link(name, digest))
    }

    /// All tags, sorted; `None` for a repository that nothing was pushed to.
    pub(super) fn tags(&self, name: &RepositoryName) -> io::Result<Option<Vec<String>>> {
        let repository = self.repository_path(name);
        if !repository.join("_manifests").exists() && !repository.join("_blobs").exists() {
            return Ok(None);
        }
        names_in(&repository.join("_tags")).map(Some)
    }

    /// Descriptors of the manifests about `subject`, by digest.
    pub(super) fn referrers(&self, name: &RepositoryName, subject: &Digest) -> io::Result<Vec<Descriptor>> {
        let dir = self.referrers_path(name, subject);
        let mut descriptors = Vec::new();
        for entry in names_in(&dir)? {
            // One that was deleted meanwhile is none.
            if let Some(bytes) = found(fs::read(dir.join(entry)))? {
                descriptors.push(serde_json::from_slice(&bytes)?);
            }
        }
        Ok(descriptors)
    }

    /// Names of all repositories that have a manifest, sorted.
    pub(super) fn repositories(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        self.visit(|name, dir| {
            if !names_in(&dir.join("_manifests"))?.is_empty() {
                names.push(name.to_owned());
            }
            Ok(())
        })?;
        names.sort();
        Ok(names)
    }

    /// Removes uploads that were last written to longer ago than `life`.
    pub(super) fn sweep_uploads(&self, life: Duration) -> io::Result<()> {
        let now = SystemTime::now();
        self.visit(|_, dir| {
            let uploads = dir.join("_uploads");
            for id in names_in(&uploads)? {
                let path = uploads.join(id);
                let Some(metadata) = found(fs::metadata(&path))? else { continue };
                if now.duration_since(metadata.modified()?).is_ok_and(|age| age > life) {
                    remove(&path)?;
                }
            }
            Ok(())
        })
    }

    fn visit(&self, mut see: impl FnMut(&str, &Path) -> io::Result<()>) -> io::Result<()> {
        let mut open = vec![String::new()];
        while let Some(name) = open.pop() {
            let dir = self.root.join("repositories").join(&name);
            if !name.is_empty() {
                see(&name, &dir)?;
            }
            for child in names_in(&dir)?.into_iter().filter(|child| !child.starts_with('_')) {
                open.push(if name.is_empty() { child } else { format!("{name}/{child}") });
            }
        }
        Ok(())
    }

    /// A small file, whole or not at all, and durable.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let dir = path.parent().expect("each file of ours is in a directory");
        make_dir(dir)?;
        let mut file = tempfile::NamedTempFile::new_in(self.root.join("tmp"))?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        sync_dir(dir)
    }
}

/// Makes a directory with its parents, durably.
pub(super) fn make_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_dir(parent)?;
        match fs::create_dir(path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        return sync_dir(parent);
    }
    fs::create_dir_all(path)
}

fn sync_dir(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// `None` where there is no such file.
fn found<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a file durably; `false` when there was none.
pub(super) fn remove(path: &Path) -> io::Result<bool> {
    let is_removed = found(fs::remove_file(path))?.is_some();
    if is_removed {
        sync_dir(path.parent().expect("each file of ours is in a directory"))?;
    }
    Ok(is_removed)
}

/// Sorted names in a directory; none when it does not exist.
fn names_in(dir: &Path) -> io::Result<Vec<String>> {
    let Some(entries) = found(fs::read_dir(dir))? else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for entry in entries {
        // All names of ours are ASCII; something else was put here by somebody else.
        names.extend(entry?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}
