//! Blobs: files named by their digest.
//!
//! They are written without a name (`O_TMPFILE`) and linked once their digest is known, so a killed process leaves nothing.

use std::{
    fs::File,
    io::{Read as _, Write},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use fs_err as fs;
use oci::{Digest, Hasher};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};

use crate::{Store, StoreError, store::random};

/// Bytes read at once when a blob is hashed.
const CHUNK_BYTES: usize = 256 * 1024;

impl Store {
    /// A new blob, to be written piece by piece.
    pub fn blob_writer(&self) -> Result<BlobWriter, StoreError> {
        let directory = self.path("blobs/sha256");
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let (file, temporary) = match rustix::fs::open(&directory, flags, Mode::from_raw_mode(0o600)) {
            Ok(file) => (File::from(file), None),
            // Some file systems have no unnamed files; prune removes what a killed process leaves there.
            Err(_) => {
                let path = directory.join(format!(".{:016x}.tmp", random()));
                let file = fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
                (file.into_parts().0, Some(path))
            }
        };
        Ok(BlobWriter { store: self.clone(), file, temporary, hasher: Hasher::new() })
    }

    /// Stores bytes from memory. Known ones are not written again.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        if self.touch_blob(&digest, bytes.len() as u64)? {
            return Ok(digest);
        }
        let mut writer = self.blob_writer()?;
        writer.write_all(bytes)?;
        writer.commit(Some((&digest, bytes.len() as u64)))?;
        Ok(digest)
    }

    /// Size of a blob in bytes, if it is there. Whoever relies on finding it later leases it ([`crate::Scope::lease_blob`]).
    pub fn has_blob(&self, digest: &Digest) -> Option<u64> {
        std::fs::metadata(self.blob_path(digest)).ok().map(|metadata| metadata.len())
    }

    /// Opens a blob for reading. Its bytes are not verified: whoever reads all of it hashes it on the way.
    pub fn open_blob(&self, digest: &Digest) -> Result<Option<File>, StoreError> {
        match fs::File::open(self.blob_path(digest)) {
            Ok(file) => Ok(Some(file.into_parts().0)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A whole small blob (manifest, config), verified against its digest; more than `limit_bytes` is an error.
    /// A corrupt one is moved aside, so that it counts as absent, and named in the error.
    pub fn read_blob(&self, digest: &Digest, limit_bytes: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(file) = self.open_blob(digest)? else { return Ok(None) };
        let size_bytes = file.metadata()?.len();
        if size_bytes > limit_bytes {
            return Err(StoreError::TooLarge { digest: digest.clone(), size_bytes, limit_bytes });
        }
        let mut bytes = Vec::with_capacity(size_bytes as usize);
        file.take(limit_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
        let actual = Digest::of(&bytes);
        if actual != *digest {
            return Err(self.set_aside(digest, actual));
        }
        Ok(Some(bytes))
    }

    /// Moves a corrupt blob out of the way and gives the error that says so.
    pub fn set_aside(&self, digest: &Digest, actual: Digest) -> StoreError {
        let aside = self.path("trash").join(format!("corrupt-{}-{:016x}", digest.short(), random()));
        match fs::rename(self.blob_path(digest), &aside) {
            Ok(()) => StoreError::Corrupt { digest: digest.clone(), actual, aside },
            // Another process moved it first.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => StoreError::MissingBlob(digest.clone()),
            Err(error) => error.into(),
        }
    }

    /// Whether the blob is there. Its new time keeps it from a prune that runs now.
    fn touch_blob(&self, digest: &Digest, size_bytes: u64) -> Result<bool, StoreError> {
        if self.has_blob(digest) != Some(size_bytes) {
            return Ok(false);
        }
        let _lock = self.lock_prune(FlockOperation::LockShared)?;
        Ok(rustix::fs::utimensat(CWD, self.blob_path(digest), &now(), AtFlags::empty()).is_ok())
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path("blobs/sha256").join(digest.hex())
    }

    /// Hashes the blobs whose inode changed at or after `since_s` (seconds, wall clock) and removes torn ones.
    pub(crate) fn check_blobs_since(&self, since_s: i64) -> Result<(), StoreError> {
        use std::os::unix::fs::MetadataExt as _;
        for name in crate::store::names_in(&self.path("blobs/sha256"))? {
            let path = self.path("blobs/sha256").join(&name);
            let Ok(metadata) = std::fs::metadata(&path) else { continue };
            if metadata.ctime() >= since_s && hash_file(&path)?.hex() != name {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

fn hash_file(path: &Path) -> Result<Digest, StoreError> {
    let mut file = fs::File::open(path)?;
    let mut hasher = Hasher::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&chunk[..read]),
        }
    }
}

/// A blob in the making; hashes what it is given. Dropped without [`BlobWriter::commit`], nothing is kept.
pub struct BlobWriter {
    store: Store,
    file: File,
    /// Where the file system has no unnamed files.
    temporary: Option<PathBuf>,
    hasher: Hasher,
}

impl BlobWriter {
    /// Gives it its name. An `expected` digest or size in bytes that differs is an error, and nothing is kept.
    pub fn commit(mut self, expected: Option<(&Digest, u64)>) -> Result<(Digest, u64), StoreError> {
        let size_bytes = self.hasher.length_bytes();
        let digest = std::mem::take(&mut self.hasher).finish();
        if let Some((expected, expected_bytes)) = expected
            && (*expected != digest || expected_bytes != size_bytes)
        {
            return Err(StoreError::Mismatch {
                expected: expected.clone(),
                expected_bytes,
                actual: digest,
                actual_bytes: size_bytes,
            });
        }
        // Noted before and after: a blob has no stamp, so after a power loss this note is what has it checked.
        self.store.mark_dirty()?;
        self.link(&digest, size_bytes)?;
        self.store.mark_dirty()?;
        Ok((digest, size_bytes))
    }

    /// Bytes written so far.
    pub fn size_bytes(&self) -> u64 {
        self.hasher.length_bytes()
    }

    fn link(&mut self, digest: &Digest, size_bytes: u64) -> Result<(), StoreError> {
        let path = self.store.blob_path(digest);
        if let Some(temporary) = &self.temporary {
            fs::rename(temporary, &path)?;
            self.temporary = None;
            return Ok(());
        }
        let unnamed = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let link = |to: &Path| rustix::fs::linkat(CWD, &*unnamed, CWD, to, AtFlags::SYMLINK_FOLLOW);
        match link(&path) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::EXIST) if self.store.touch_blob(digest, size_bytes)? => Ok(()),
            // A torn one, or one that prune took a moment ago: put in its place at once.
            Err(rustix::io::Errno::EXIST) => {
                let temporary = path.with_file_name(format!(".{:016x}.tmp", random()));
                link(&temporary).map_err(StoreError::at("link", &temporary))?;
                Ok(fs::rename(&temporary, &path)?)
            }
            Err(errno) => Err(StoreError::at("link", &path)(errno)),
        }
    }
}

fn now() -> rustix::fs::Timestamps {
    let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    rustix::fs::Timestamps { last_access: now, last_modification: now }
}

impl std::fmt::Debug for BlobWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobWriter").field("size_bytes", &self.size_bytes()).finish_non_exhaustive()
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // Prune removes it otherwise.
            let _ = std::fs::remove_file(temporary);
        }
    }
}
