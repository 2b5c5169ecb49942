//! Blobs that are being fetched: what has come of them stays when the process is killed, and the next one goes on from there.
//!
//! A file for each digest below `partial`, locked by whoever writes it. It is no blob before all of it has the digest.

use std::{
    fs::File,
    io::{Read as _, Write},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    time::Duration,
};

use fs_err as fs;
use oci::{Digest, Hasher};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use crate::{Store, StoreError, flush::Flusher};

/// The directory.
const PARTIAL: &str = "partial";
/// Nobody went on with it for this long: nobody will.
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// So much is on its way to the disk before the next begins.
const FLUSH_BYTES: u64 = 32 * 1024 * 1024;
/// Bytes read at once when what is there is hashed.
const CHUNK_BYTES: usize = 256 * 1024;

impl Store {
    /// The beginning of a blob of `size_bytes`, to be gone on with from [`PartialBlob::size_bytes`]. `None` while another process
    /// fetches the same. What is there is read once; whether it is right shows at the end.
    pub fn partial_blob(&self, digest: &Digest, size_bytes: u64) -> Result<Option<PartialBlob>, StoreError> {
        let directory = self.path(PARTIAL);
        fs::create_dir_all(&directory)?;
        self.sweep_partial(false)?;
        let path = directory.join(digest.hex());
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)).map_err(StoreError::at("open", &path))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(None);
        }
        let mut file = File::from(file);
        let metadata = file.metadata()?;
        // Whoever had the lock before may have given the file its name, or removed it.
        if !std::fs::metadata(&path).is_ok_and(|named| named.ino() == metadata.ino()) {
            return Ok(None);
        }
        if metadata.len() > size_bytes {
            file.set_len(0)?;
        }
        let mut hasher = Hasher::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match file.read(&mut chunk)? {
                0 => break,
                read => hasher.update(&chunk[..read]),
            }
        }
        Ok(Some(PartialBlob {
            store: self.clone(),
            file,
            path,
            hasher,
            flusher: Flusher::new(),
            unflushed_bytes: 0,
            at_end: AtEnd::Stays,
        }))
    }

    /// Removes what nobody goes on with: of a day ago, or all but what is being written when `all`.
    pub(crate) fn sweep_partial(&self, all: bool) -> Result<(), StoreError> {
        for name in crate::store::names_in(&self.path(PARTIAL))? {
            let path = self.path(PARTIAL).join(name);
            let Ok(file) = File::open(&path) else { continue };
            let metadata = file.metadata()?;
            let is_old = metadata.modified()?.elapsed().is_ok_and(|age| age > AGE_MAX);
            if (is_old || all) && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

/// A blob of which a part has come. Dropped without [`PartialBlob::commit`], what was written stays for the next attempt.
pub struct PartialBlob {
    store: Store,
    /// Locked.
    file: File,
    path: PathBuf,
    hasher: Hasher,
    flusher: Flusher,
    /// Bytes since the flusher was called.
    unflushed_bytes: u64,
    at_end: AtEnd,
}

/// What becomes of the file when it is let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtEnd {
    /// The next attempt goes on with it.
    Stays,
    /// It is of no use.
    Goes,
    /// It has the blob's name.
    IsBlob,
}

impl PartialBlob {
    /// Bytes that are there.
    pub fn size_bytes(&self) -> u64 {
        self.hasher.length_bytes()
    }

    /// The file, to be read from while it is written.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn reader(&self) -> Result<File, StoreError> {
        // Not a copy of the descriptor: the lock goes with the writer.
        Ok(fs::File::open(&self.path)?.into_parts().0)
    }

    /// Makes it a blob. Other content than `expected` is an error, and nothing of it stays.
    pub fn commit(mut self, expected: (&Digest, u64)) -> Result<(), StoreError> {
        self.at_end = AtEnd::Goes;
        let actual_bytes = self.hasher.length_bytes();
        let actual = std::mem::take(&mut self.hasher).finish();
        if *expected.0 != actual || expected.1 != actual_bytes {
            let (expected, expected_bytes) = (expected.0.clone(), expected.1);
            return Err(StoreError::Mismatch { expected, expected_bytes, actual, actual_bytes });
        }
        // As for a blob written in one go: a power loss has it checked.
        self.store.mark_dirty()?;
        fs::rename(&self.path, self.store.blob_path(&actual))?;
        self.at_end = AtEnd::IsBlob;
        self.store.mark_dirty()
    }
}

impl std::fmt::Debug for PartialBlob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartialBlob").field("size_bytes", &self.size_bytes()).finish_non_exhaustive()
    }
}

impl Write for PartialBlob {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // A full disk is not helped by what lies on it half.
        let written = self.file.write(bytes).inspect_err(|_| self.at_end = AtEnd::Goes)?;
        self.hasher.update(&bytes[..written]);
        self.unflushed_bytes += written as u64;
        if self.unflushed_bytes >= FLUSH_BYTES {
            self.flusher.take(&self.file, self.unflushed_bytes);
            self.unflushed_bytes = 0;
        }
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for PartialBlob {
    fn drop(&mut self) {
        let is_empty = self.at_end == AtEnd::Stays && self.hasher.length_bytes() == 0;
        if is_empty || self.at_end == AtEnd::Goes {
            // The lock goes after this, with the file. What cannot be removed goes with the next sweep.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
