//! Files of the host: bounded, and never one that blocks.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is none.
    #[error("does not exist")]
    Missing,
    /// A directory, a FIFO, a device.
    #[error("is not a regular file")]
    NotAFile,
    /// Too large.
    #[error("is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    /// Anything else.
    #[error("cannot be read: {0}")]
    Io(std::io::Error),
}

/// Nobody writes a longer file of services or variables by hand.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The text of a file; bytes that are not UTF-8 are replaced.
pub(crate) fn read(path: &Path) -> Result<String, ReadError> {
    let error = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => ReadError::Missing,
        _ => ReadError::Io(error),
    };
    // Before it is opened: a FIFO would block there.
    if !std::fs::metadata(path).map_err(error)?.is_file() {
        return Err(ReadError::NotAFile);
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(error)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(error)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(ReadError::TooLarge);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Names that docker compose looks for, the best one first.
const NAMES: &[&str] = &["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
const OVERRIDE_NAMES: &[&str] =
    &["compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml"];

/// The Compose file in `directory` or the nearest one above it, and its override file if there is one; empty when there is
/// none. Like docker compose without `-f` and without `COMPOSE_FILE`.
pub fn find_files(directory: &Path) -> Vec<PathBuf> {
    for directory in directory.ancestors() {
        let first = |names: &[&str]| names.iter().map(|name| directory.join(name)).find(|path| path.is_file());
        if let Some(file) = first(NAMES) {
            return [Some(file), first(OVERRIDE_NAMES)].into_iter().flatten().collect();
        }
    }
    Vec::new()
}
