//! Reading everything again: disks forget, and it should be noticed before somebody pulls.

use std::io::{self, ErrorKind, Write as _};

use oci::{Digest, Hasher};
use serde::{Deserialize, Serialize};

use super::{
    backend::Taking,
    storage::{RepositoryName, Storage, blob_link, content, manifest_link},
};

/// Bytes read at a time.
const PIECE_BYTES: usize = 1024 * 1024;

/// What a scrub found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScrubReport {
    /// Blobs and manifests that were read.
    pub checked: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Those that are not what their digests say.
    pub corrupt: Vec<Corrupt>,
}

/// Content that is not what its digest says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Corrupt {
    /// What it should be.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What is wrong with it.
    pub reason: String,
    /// Repositories that have it.
    pub repositories: Vec<String>,
    /// It was put aside, so that it can be pushed or fetched again.
    pub is_quarantined: bool,
}

impl Storage {
    /// Reads all content and compares it with its digests. With `is_quarantine` what is wrong is moved to `quarantine/`.
    pub(super) fn scrub(&self, is_quarantine: bool) -> io::Result<ScrubReport> {
        let mut report = ScrubReport::default();
        for hex in self.backend.list("blobs/sha256")? {
            let Ok(digest) = format!("sha256:{hex}").parse::<Digest>() else { continue };
            let Some((size, reason)) = self.check(&digest)? else { continue };
            report.checked += 1;
            report.bytes += size;
            let Some(reason) = reason else { continue };
            let repositories = self.repositories_with(&digest)?;
            let is_quarantined = is_quarantine && self.quarantine(&digest)?;
            report.corrupt.push(Corrupt { digest, size, reason, repositories, is_quarantined });
        }
        Ok(report)
    }

    /// Size of content, and what is wrong with it; `None` for what was removed meanwhile.
    fn check(&self, digest: &Digest) -> io::Result<Option<(u64, Option<String>)>> {
        let Some((file, size)) = self.backend.open(&content(digest))? else { return Ok(None) };
        let (mut hasher, mut buffer) = (Hasher::new(), vec![0; PIECE_BYTES]);
        loop {
            match file.read_at(&mut buffer, hasher.length_bytes()) {
                Ok(0) => break,
                Ok(count) => hasher.update(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A disk that cannot read it has lost it.
                Err(error) => return Ok(Some((size, Some(format!("it cannot be read: {error}"))))),
            }
        }
        let found = hasher.finish();
        Ok(Some((size, (found != *digest).then(|| format!("its digest is {found}")))))
    }

    fn repositories_with(&self, digest: &Digest) -> io::Result<Vec<String>> {
        let has = |name: &RepositoryName| -> io::Result<bool> {
            let is_blob = self.backend.stat(&blob_link(name, digest))?.is_some();
            Ok(is_blob || self.backend.stat(&manifest_link(name, digest))?.is_some())
        };
        let mut names = Vec::new();
        for name in self.repository_names()? {
            if has(&name)? {
                names.push(name.as_str().to_owned());
            }
        }
        Ok(names)
    }

    /// Moves content aside; `false` when it is right after all, because somebody pushed it again.
    fn quarantine(&self, digest: &Digest) -> io::Result<bool> {
        // Nobody relies on it while it is looked at and moved.
        let _claim = self.leases.claim(digest);
        if self.check(digest)?.is_none_or(|(_, reason)| reason.is_none()) {
            return Ok(false);
        }
        let Some((file, size)) = self.backend.open(&content(digest))? else { return Ok(false) };
        let mut copy = tempfile::NamedTempFile::new_in(self.local())?;
        let (mut offset, mut buffer) = (0, vec![0; PIECE_BYTES]);
        while offset < size {
            match file.read_at(&mut buffer, offset) {
                Ok(0) => break,
                Ok(count) => {
                    copy.write_all(&buffer[..count])?;
                    offset += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // What can be read of it is kept.
                Err(_) => break,
            }
        }
        let (file, path) = copy.into_parts();
        self.backend.adopt(&format!("quarantine/{}", digest.hex()), &file, &path, Taking::Move)?;
        // It is no temporary file any more.
        let _ = path.keep();
        self.backend.remove(&[content(digest)])?;
        self.usage.forget();
        Ok(true)
    }
}
