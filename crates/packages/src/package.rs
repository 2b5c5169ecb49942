//! One file that is to be published, read and checked.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use fs_err::File;
use oci::{Digest, Hasher};

use crate::{InvalidPackage, Target, crates, npm, pypi};

/// Bytes hashed at a time.
const READ_BYTES: usize = 256 * 1024;

/// A file with what its index wants to know of it.
#[derive(Clone, Debug)]
pub struct Package {
    /// The file.
    pub path: PathBuf,
    /// Its name.
    pub file_name: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its digest.
    pub sha256: Digest,
    pub(crate) about: About,
}

/// What a file says of itself.
#[derive(Clone, Debug)]
pub(crate) enum About {
    Python(Box<pypi::Metadata>),
    Npm(Box<npm::Manifest>),
    Crate(Box<crates::Manifest>),
    /// Any file.
    Nothing,
}

impl Package {
    /// Reads a file as a package of the target's kind. Blocks.
    ///
    /// # Errors
    /// The file cannot be read, or is no such package.
    pub fn read(path: &Path, target: &Target) -> Result<Self, InvalidPackage> {
        let wrong = |reason: String| InvalidPackage { path: path.to_owned(), reason };
        let file_name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if file_name.is_empty() || file_name.contains(|c: char| c.is_control() || c == '"') {
            return Err(wrong("its name is no plain text".into()));
        }
        let about = match target {
            Target::Pypi(_) => About::Python(Box::new(pypi::Metadata::read(path, &file_name).map_err(wrong)?)),
            Target::Npm(_) => About::Npm(Box::new(npm::Manifest::read(path).map_err(wrong)?)),
            Target::Crates(_) => About::Crate(Box::new(crates::Manifest::read(path).map_err(wrong)?)),
            Target::Oci(_) => About::Nothing,
        };
        let (sha256, size_bytes) = hash(path).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { path: path.to_owned(), file_name, size_bytes, sha256, about })
    }

    /// Hands out the content; it is an error when it is not what was read before.
    pub(crate) fn copy_to(&self, out: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut hasher = Hasher::new();
        let mut file = File::open(&self.path)?;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            out(&buffer[..count])?;
        }
        if hasher.finish() == self.sha256 {
            return Ok(());
        }
        Err(io::Error::other(format!("{} changed while it was published", self.file_name)))
    }
}

fn hash(path: &Path) -> io::Result<(Digest, u64)> {
    let mut hasher = Hasher::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    let length = hasher.length_bytes();
    Ok((hasher.finish(), length))
}
