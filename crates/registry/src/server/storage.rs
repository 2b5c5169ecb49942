//! What repositories have: blobs, manifests, referrers. Content is kept once and linked from each repository that has it, so
//! that what one repository has says nothing about another. What a method acknowledges is on disk.
//!
//! Keys: `blobs/sha256/<hex>` is content; `repositories/<name>/` holds what a repository has: `_blobs/<hex>` and
//! `_manifests/<hex>` (links), `_tags/<tag>`, `_referrers/<subject>/<hex>`, `_pulled/<hex>` (when last); `journal/<id>` is a
//! change of several tags under way. Repository names cannot begin with `_`, so the two kinds of names never meet.

use std::{
    fs::File,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use fs_err as fs;
use oci::{Descriptor, Digest, Reference};
use serde::{Deserialize, Serialize};

use super::{
    ServerError,
    backend::{Backend, ReadAt, Record, Taking},
    cache::{Cache, Kept},
    directory::{Directory, found, make_dir, names_in, remove},
    lease::{Held, Leases},
    usage::Usage,
};

/// Locks for writing tags, shared by repositories: so many repositories change tags side by side.
const TAG_LOCKS: usize = 64;

/// A repository's name that was checked; safe as a relative path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct RepositoryName(Arc<str>);

impl RepositoryName {
    /// The grammar of the distribution-spec ("Pulling manifests"), as references have it. It has no `.`, `..`, empty or
    /// `_`-led components, which is what keeps paths inside the directory.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let reference: Reference = format!("localhost/{text}").parse().ok()?;
        (reference.path() == text && reference.tag().is_none() && reference.digest().is_none())
            .then(|| Self(text.into()))
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

/// A manifest that was checked, ready to be kept.
pub(super) struct NewManifest {
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) bytes: Bytes,
    /// What it is about, and its descriptor in the list of referrers.
    pub(super) referrer: Option<(Digest, Descriptor)>,
}

/// The storage of one server.
#[derive(Debug)]
pub(super) struct Storage {
    /// Directory of what only this machine needs: uploads under way, the lock, the control socket.
    local: PathBuf,
    pub(super) backend: Arc<dyn Backend>,
    /// A store of local builds: its blobs are taken over without being sent.
    source: Option<store::Store>,
    pub(super) cache: Cache,
    pub(super) leases: Leases,
    pub(super) usage: Usage,
    pub(super) tag_locks: [Mutex<()>; TAG_LOCKS],
    /// One collection at a time.
    pub(super) is_collecting: AtomicBool,
    _lock: fs::File,
}

impl Storage {
    /// Opens and locks it; `None` when another process holds the lock.
    pub(super) fn open(
        local: &Path,
        backend: Option<Arc<dyn Backend>>,
        source: Option<store::Store>,
    ) -> Result<Option<Self>, ServerError> {
        let prepare = || -> io::Result<Option<Self>> {
            make_dir(local)?;
            let lock = fs::OpenOptions::new().create(true).append(true).open(local.join("lock"))?;
            match lock.file().try_lock() {
                Ok(()) => {}
                Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
                Err(std::fs::TryLockError::Error(error)) => return Err(error),
            }
            let backend = match backend {
                Some(backend) => backend,
                None => Arc::new(Directory::new(local)?),
            };
            let storage = Self {
                local: local.to_owned(),
                backend,
                source,
                cache: Cache::default(),
                leases: Leases::default(),
                usage: Usage::default(),
                tag_locks: std::array::from_fn(|_| Mutex::default()),
                is_collecting: AtomicBool::new(false),
                _lock: lock,
            };
            storage.finish_tag_changes()?;
            Ok(Some(storage))
        };
        prepare().map_err(ServerError::Storage)
    }

    /// Directory of what only this machine needs.
    pub(super) fn local(&self) -> &Path {
        &self.local
    }

    /// Where an upload's bytes are until it is finished. `id` was checked by the caller.
    pub(super) fn upload_path(&self, name: &RepositoryName, id: &str) -> PathBuf {
        self.local.join("repositories").join(name.as_str()).join("_uploads").join(id)
    }

    // ---- blobs

    /// Size of a blob that a repository has. It is safe from garbage collection for its grace period from now on.
    pub(super) fn blob_size(&self, name: &RepositoryName, digest: &Digest) -> io::Result<Option<u64>> {
        let held = self.leases.hold([digest]);
        self.held_blob_size(name, digest, &held)
    }

    fn held_blob_size(&self, name: &RepositoryName, digest: &Digest, held: &Held<'_>) -> io::Result<Option<u64>> {
        if self.backend.touch(&blob_link(name, digest))?
            && let Some(stat) = self.backend.stat(&content(digest))?
        {
            return Ok(Some(stat.size_bytes));
        }
        self.take_from_store(name, digest, held)
    }

    /// A blob of a repository, with its size.
    pub(super) fn open_blob(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> io::Result<Option<(Arc<dyn ReadAt>, u64)>> {
        if self.backend.stat(&blob_link(name, digest))?.is_none() && self.blob_size(name, digest)?.is_none() {
            return Ok(None);
        }
        self.backend.open(&content(digest))
    }

    /// Takes a blob over that local builds have; shares its bytes where it can.
    fn take_from_store(&self, name: &RepositoryName, digest: &Digest, held: &Held<'_>) -> io::Result<Option<u64>> {
        let Some(source) = &self.source else { return Ok(None) };
        let Some(file) = source.open_blob(digest).map_err(io::Error::other)? else { return Ok(None) };
        let size_bytes = file.metadata()?.len();
        if self.backend.stat(&content(digest))?.is_none() {
            let path = source.root().join("blobs/sha256").join(digest.hex());
            self.backend.adopt(&content(digest), &file, &path, Taking::Share)?;
            self.usage.stored(size_bytes);
        }
        self.link_blob(name, digest, size_bytes, held)?;
        Ok(Some(size_bytes))
    }

    /// Moves a finished upload, whose digest was checked, to its place and links it.
    pub(super) fn commit_upload(
        &self,
        name: &RepositoryName,
        file: &File,
        path: &Path,
        digest: &Digest,
    ) -> io::Result<()> {
        let held = self.leases.hold([digest]);
        let size_bytes = file.metadata()?.len();
        if self.backend.stat(&content(digest))?.is_none() {
            self.usage.stored(size_bytes);
        }
        self.backend.adopt(&content(digest), file, path, Taking::Move)?;
        self.link_blob(name, digest, size_bytes, &held)
    }

    /// Takes a blob over from another repository, or without `from` from any that `may_read` allows; `false` when none
    /// of them has it.
    pub(super) fn mount(
        &self,
        name: &RepositoryName,
        from: Option<&RepositoryName>,
        digest: &Digest,
        may_read: &dyn Fn(&RepositoryName) -> bool,
    ) -> io::Result<bool> {
        let held = self.leases.hold([digest]);
        // What is not even content is in no repository.
        if let Some(stat) = self.backend.stat(&content(digest))? {
            let sources = match from {
                Some(from) => vec![from.clone()],
                None => self.repository_names()?,
            };
            for from in sources {
                if may_read(&from) && self.backend.stat(&blob_link(&from, digest))?.is_some() {
                    self.link_blob(name, digest, stat.size_bytes, &held)?;
                    return Ok(true);
                }
            }
        }
        Ok(self.take_from_store(name, digest, &held)?.is_some())
    }

    fn link_blob(&self, name: &RepositoryName, digest: &Digest, size_bytes: u64, held: &Held<'_>) -> io::Result<()> {
        held.note();
        if self.backend.stat(&blob_link(name, digest))?.is_none() {
            self.usage.linked(name, size_bytes);
        }
        self.backend.write(&[Record::new(blob_link(name, digest), [])])
    }

    /// Unlinks a blob; the content stays for other repositories.
    pub(super) fn unlink_blob(&self, name: &RepositoryName, digest: &Digest) -> io::Result<bool> {
        let _claim = self.leases.claim(digest);
        self.usage.forget();
        Ok(self.backend.remove(&[blob_link(name, digest)])? == 1)
    }

    // ---- manifests

    /// A manifest of a repository.
    pub(super) fn manifest(&self, name: &RepositoryName, digest: &Digest) -> io::Result<Option<Arc<Kept>>> {
        if let Some(kept) = self.cache.manifest(name, digest) {
            return Ok(Some(kept));
        }
        // Nobody deletes it between reading and keeping it.
        let _held = self.leases.hold([digest]);
        let Some(link) = self.backend.read(&manifest_link(name, digest))? else { return Ok(None) };
        let link: ManifestLink = serde_json::from_slice(&link)?;
        let Some(bytes) = self.backend.read(&content(digest))? else {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("content of {digest} is missing")));
        };
        // Manifests are small: they are checked when they are read, so that a damaged disk is noticed here.
        if Digest::of(&bytes) != *digest {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("content of {digest} is damaged")));
        }
        let kept = Kept::new(digest.clone(), link.media_type, bytes.into());
        self.cache.keep(name, &kept);
        Ok(Some(kept))
    }

    /// Notes that a manifest was asked for: from now on it is young. Clients that pull often look
    /// first and then find that they have it, so that asking counts as pulling.
    pub(super) fn note_use(&self, name: &RepositoryName, digest: &Digest) -> io::Result<()> {
        let _held = self.leases.hold([digest]);
        if self.backend.touch(&manifest_link(name, digest))? {
            self.backend.write(&[Record::new(pulled(name, digest), [])])?;
        }
        Ok(())
    }

    /// Keeps a manifest whose parts are all there: content, link, referrer. `Err(digest)` inside names the first part
    /// that is missing. The returned lease keeps all of it in place until the tags are written.
    pub(super) fn put_manifest<'a>(
        &'a self,
        name: &RepositoryName,
        manifest: &'a NewManifest,
        blobs: &'a [Digest],
        children: &'a [Digest],
    ) -> io::Result<Result<Held<'a>, Digest>> {
        let held = self.leases.hold(blobs.iter().chain(children).chain([&manifest.digest]));
        for digest in blobs {
            if self.held_blob_size(name, digest, &held)?.is_none() {
                return Ok(Err(digest.clone()));
            }
        }
        for digest in children {
            let is_there = self.backend.touch(&manifest_link(name, digest))?
                || self.held_blob_size(name, digest, &held)?.is_some();
            if !is_there {
                return Ok(Err(digest.clone()));
            }
        }
        held.note();
        let link = oci::to_json(&ManifestLink { media_type: manifest.media_type.clone() });
        let mut records = vec![Record::new(manifest_link(name, &manifest.digest), link)];
        // Damaged content is replaced.
        if self.backend.read(&content(&manifest.digest))?.as_deref() != Some(&manifest.bytes) {
            records.push(Record::new(content(&manifest.digest), &manifest.bytes[..]));
        }
        if let Some((subject, descriptor)) = &manifest.referrer {
            records.push(Record::new(referrer(name, subject, &manifest.digest), oci::to_json(descriptor)));
        }
        self.backend.write(&records)?;
        let kept = Kept::new(manifest.digest.clone(), manifest.media_type.clone(), manifest.bytes.clone());
        self.cache.keep(name, &kept);
        Ok(Ok(held))
    }

    /// Removes a manifest with the tags that name it. The content stays until it is collected.
    pub(super) fn delete_manifest(&self, name: &RepositoryName, digest: &Digest) -> io::Result<bool> {
        let subject = match self.manifest(name, digest) {
            Ok(None) => return Ok(false),
            Ok(Some(kept)) => oci::ManifestOrIndex::parse(&kept.bytes).ok().and_then(|it| it.subject().cloned()),
            // A damaged one can be removed; what it was about cannot be told any more.
            Err(error) if error.kind() == ErrorKind::InvalidData => None,
            Err(error) => return Err(error),
        };
        // Whoever sets a tag to it holds it.
        let _claim = self.leases.claim(digest);
        for tag in self.tags(name)?.unwrap_or_default() {
            if self.tag(name, &tag)?.as_ref() == Some(digest) {
                self.delete_tag(name, &tag)?;
            }
        }
        self.cache.forget_manifest(name, digest);
        Ok(self.backend.remove(&manifest_keys(name, digest, subject.map(|subject| subject.digest).as_ref()))? > 0)
    }

    /// Whether anything was pushed to a repository.
    pub(super) fn exists(&self, name: &RepositoryName) -> io::Result<bool> {
        let names = self.backend.list(&repository(name))?;
        Ok(names.iter().any(|name| name == "_manifests" || name == "_blobs"))
    }

    /// Descriptors of at most `count` manifests about `subject` after `last`, by digest; and whether there are more.
    pub(super) fn referrers(
        &self,
        name: &RepositoryName,
        subject: &Digest,
        last: Option<&Digest>,
        count: usize,
        is_wanted: &dyn Fn(&Descriptor) -> bool,
    ) -> io::Result<(Vec<Descriptor>, bool)> {
        let mut descriptors = Vec::new();
        for hex in self.backend.list(&referrers(name, subject))? {
            if last.is_some_and(|last| hex.as_str() <= last.hex()) {
                continue;
            }
            // One that was deleted meanwhile is none.
            let Some(bytes) = self.backend.read(&format!("{}/{hex}", referrers(name, subject)))? else { continue };
            let descriptor: Descriptor = serde_json::from_slice(&bytes)?;
            if !is_wanted(&descriptor) {
                continue;
            }
            if descriptors.len() == count {
                return Ok((descriptors, true));
            }
            descriptors.push(descriptor);
        }
        Ok((descriptors, false))
    }

    // ---- repositories

    /// Names of all repositories that have a manifest, sorted.
    pub(super) fn repositories(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for name in self.repository_names()? {
            if !self.backend.list(&format!("{}/_manifests", repository(&name)))?.is_empty() {
                names.push(name.as_str().to_owned());
            }
        }
        Ok(names)
    }

    /// How many blobs and manifests there are, each counted once.
    pub(super) fn content_count(&self) -> io::Result<usize> {
        Ok(self.backend.list("blobs/sha256")?.len())
    }

    /// Names of all repositories that have or had anything, sorted.
    pub(super) fn repository_names(&self) -> io::Result<Vec<RepositoryName>> {
        let mut names = Vec::new();
        let mut open = vec![String::new()];
        while let Some(parent) = open.pop() {
            let children = self.backend.list(&join("repositories", &parent))?;
            if children.iter().any(|child| child.starts_with('_')) {
                names.extend(RepositoryName::parse(&parent));
            }
            open.extend(children.iter().filter(|child| !child.starts_with('_')).map(|child| join(&parent, child)));
        }
        names.sort();
        Ok(names)
    }

    /// Removes uploads that were last written to longer ago than `life`.
    pub(super) fn sweep_uploads(&self, life: Duration) -> io::Result<()> {
        let now = SystemTime::now();
        let mut open = vec![self.local.join("repositories")];
        while let Some(directory) = open.pop() {
            for child in names_in(&directory)? {
                if child == "_uploads" {
                    let uploads = directory.join(child);
                    for id in names_in(&uploads)? {
                        let path = uploads.join(id);
                        let Some(metadata) = found(fs::metadata(&path))? else { continue };
                        if now.duration_since(metadata.modified()?).is_ok_and(|age| age > life) {
                            remove(&path)?;
                        }
                    }
                } else if !child.starts_with('_') {
                    open.push(directory.join(child));
                }
            }
        }
        Ok(())
    }
}

// ---- keys

pub(super) fn content(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

pub(super) fn repository(name: &RepositoryName) -> String {
    format!("repositories/{}", name.as_str())
}

pub(super) fn blob_link(name: &RepositoryName, digest: &Digest) -> String {
    format!("repositories/{}/_blobs/{}", name.as_str(), digest.hex())
}

pub(super) fn manifest_link(name: &RepositoryName, digest: &Digest) -> String {
    format!("repositories/{}/_manifests/{}", name.as_str(), digest.hex())
}

pub(super) fn tag_key(name: &RepositoryName, tag: &str) -> String {
    format!("repositories/{}/_tags/{tag}", name.as_str())
}

fn referrers(name: &RepositoryName, subject: &Digest) -> String {
    format!("repositories/{}/_referrers/{}", name.as_str(), subject.hex())
}

fn referrer(name: &RepositoryName, subject: &Digest, digest: &Digest) -> String {
    format!("{}/{}", referrers(name, subject), digest.hex())
}

/// All that a repository has of a manifest, but for its tags.
pub(super) fn manifest_keys(name: &RepositoryName, digest: &Digest, subject: Option<&Digest>) -> Vec<String> {
    let mut keys = vec![manifest_link(name, digest), pulled(name, digest)];
    keys.extend(subject.map(|subject| referrer(name, subject, digest)));
    keys
}

pub(super) fn pulled(name: &RepositoryName, digest: &Digest) -> String {
    format!("repositories/{}/_pulled/{}", name.as_str(), digest.hex())
}

fn join(parent: &str, child: &str) -> String {
    if parent.is_empty() {
        child.to_owned()
    } else if child.is_empty() {
        parent.to_owned()
    } else {
        format!("{parent}/{child}")
    }
}
