//! A cache in an OCI layout directory (image-spec, "Image Layout").

use std::{
    collections::HashSet,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use builder::{Document, PlaceError, SharedPlace};
use fs_err as fs;
use oci::{Descriptor, Digest, Index, Manifest};
use rustix::fs::{FlockOperation, flock};
use store::{Scope, Store};

use super::{
    ARTIFACT_TYPE, DOCUMENT_BYTES_MAX, MANIFEST_BYTES_MAX, SCOPE, WriteJob, Wrong, annotations, is_cache, is_newer,
};

/// The layout version that every reader knows (image-spec, "oci-layout file").
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// Tools that look at layouts show this name.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A directory to take from.
pub(super) struct Directory {
    pub(super) path: PathBuf,
    pub(super) scopes: Vec<String>,
}

impl SharedPlace for Directory {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn document(&self) -> Result<Option<Document>, PlaceError> {
        let Some(index) = read_index(&self.path)? else {
            return Err(format!("{} does not exist", self.path.join("index.json").display()).into());
        };
        for scope in &self.scopes {
            let Some(descriptor) = index.manifests.iter().find(|descriptor| is_of_scope(descriptor, scope)) else {
                continue;
            };
            let manifest = read_blob(&self.path, descriptor, "its manifest", MANIFEST_BYTES_MAX)?;
            let manifest: Manifest = serde_json::from_slice(&manifest)?;
            if is_cache(&manifest) {
                let document = read_blob(&self.path, &manifest.config, "its document", DOCUMENT_BYTES_MAX)?;
                return Ok(Some(serde_json::from_slice(&document)?));
            }
        }
        let scopes: Vec<&str> = self.scopes.iter().map(String::as_str).filter(|scope| !scope.is_empty()).collect();
        Err(format!("it has no cache for {}", if scopes.is_empty() { "us".into() } else { scopes.join(", ") }).into())
    }

    fn fetch(&self, store: &Store, scope: &Scope, blobs: &[Descriptor]) -> Result<(), PlaceError> {
        for blob in blobs {
            if scope.lease_blob(&blob.digest).is_ok() && store.has_blob(&blob.digest) == Some(blob.size) {
                continue;
            }
            let mut writer = store.blob_writer()?;
            io::copy(&mut fs::File::open(blob_path(&self.path, &blob.digest))?, &mut writer)?;
            writer.commit(Some((&blob.digest, blob.size)))?;
            scope.lease_blob(&blob.digest)?;
        }
        Ok(())
    }
}

/// Writes a scope; false when a build that began later has written it already.
pub(super) fn write(path: &Path, scope: &str, job: &WriteJob<'_>) -> Result<bool, PlaceError> {
    fs::create_dir_all(path.join("blobs/sha256"))?;
    // One writer at a time: the index of one must not lose the scope of another.
    let lock = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path.join(".seatrial-lock"))?;
    flock(&lock, FlockOperation::LockExclusive).map_err(io::Error::from)?;
    let mut index = read_index(path)?.unwrap_or_else(|| Index::of(Vec::new()));
    let outdated = |old: &Descriptor| is_of_scope(old, scope) && is_newer(&old.annotations, job.artifact.began_s);
    if index.manifests.iter().any(outdated) {
        return Ok(false);
    }
    for blob in &job.exported.blobs {
        job.stop.check()?;
        let Descriptor { digest, size, .. } = &blob.descriptor;
        if fs::metadata(blob_path(path, digest)).is_ok_and(|old| old.len() == *size) {
            continue;
        }
        (job.bring)(blob)?;
        let mut source = job.store.open_blob(digest)?.ok_or_else(|| format!("blob {digest} is gone from the store"))?;
        write_file(&blob_path(path, digest), &mut source)?;
    }
    let mut descriptor = job.artifact.descriptor();
    for bytes in [&job.artifact.document, &job.artifact.manifest] {
        write_file(&blob_path(path, &Digest::of(bytes)), &mut &bytes[..])?;
    }
    descriptor.annotations = annotations(scope, job.artifact.began_s);
    if !scope.is_empty() {
        descriptor.annotations.insert(REF_NAME.into(), scope.to_owned());
    }
    index.manifests.retain(|old| !is_of_scope(old, scope));
    index.manifests.push(descriptor);
    write_file(&path.join("oci-layout"), &mut LAYOUT.as_bytes())?;
    write_file(&path.join("index.json"), &mut &oci::to_json(&index)[..])?;
    remove_unused(path, &index)?;
    Ok(true)
}

/// Removes blobs that no scope needs any more, or the directory would grow for ever. Where somebody else's images lie in
/// the same layout, nothing is removed.
fn remove_unused(path: &Path, index: &Index) -> Result<(), PlaceError> {
    let mut used: HashSet<String> = HashSet::new();
    for descriptor in &index.manifests {
        if descriptor.artifact_type.as_deref() != Some(ARTIFACT_TYPE) {
            return Ok(());
        }
        let manifest = read_blob(path, descriptor, "a manifest", MANIFEST_BYTES_MAX)?;
        let manifest: Manifest = serde_json::from_slice(&manifest)?;
        let blobs = manifest.layers.iter().chain([&manifest.config, descriptor]);
        used.extend(blobs.map(|blob| blob.digest.hex().to_owned()));
    }
    for entry in fs::read_dir(path.join("blobs/sha256"))? {
        let entry = entry?;
        if !used.contains(entry.file_name().to_string_lossy().as_ref()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Descriptors without our annotation are somebody else's.
fn is_of_scope(descriptor: &Descriptor, scope: &str) -> bool {
    descriptor.annotations.get(SCOPE).is_some_and(|named| named == scope)
}

fn read_index(path: &Path) -> Result<Option<Index>, PlaceError> {
    match fs::File::open(path.join("index.json")) {
        Ok(file) => Ok(Some(serde_json::from_slice(&read_bounded(file, "index.json", MANIFEST_BYTES_MAX)?)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn read_blob(path: &Path, descriptor: &Descriptor, what: &'static str, limit: u64) -> Result<Vec<u8>, PlaceError> {
    let bytes = read_bounded(fs::File::open(blob_path(path, &descriptor.digest))?, what, limit)?;
    if Digest::of(&bytes) != descriptor.digest {
        return Err(Wrong::Digest { digest: descriptor.digest.clone() }.into());
    }
    Ok(bytes)
}

fn read_bounded(file: fs::File, what: &'static str, limit: u64) -> Result<Vec<u8>, PlaceError> {
    let bytes = file.metadata()?.len();
    if bytes > limit {
        return Err(Wrong::TooLarge { what, bytes, limit }.into());
    }
    let mut read = Vec::new();
    file.take(limit).read_to_end(&mut read)?;
    Ok(read)
}

fn blob_path(path: &Path, digest: &Digest) -> PathBuf {
    path.join("blobs/sha256").join(digest.hex())
}

/// Beside its place and renamed: a reader never sees half a file.
fn write_file(path: &Path, source: &mut dyn io::Read) -> Result<(), PlaceError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.tmp"));
    let mut file = fs::File::create(&temporary)?;
    io::copy(source, &mut file)?;
    file.flush()?;
    Ok(fs::rename(&temporary, path)?)
}
