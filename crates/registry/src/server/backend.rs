//! The seam behind the server's storage: records and content under keys. A directory stands behind it, or an object store.

use std::{fmt, fs::File, io, path::Path, sync::Arc, time::SystemTime};

/// Where a registry keeps what it was given. Keys are relative paths of ASCII names that the server makes; they never
/// hold `.`, `..` or empty parts. One server writes to a backend at a time; that is what lets it keep answers in memory.
///
/// Calls block; the server makes them on threads that may.
pub trait Backend: fmt::Debug + Send + Sync {
    /// A small record, whole; `None` when there is none.
    fn read(&self, key: &str) -> io::Result<Option<Vec<u8>>>;

    /// Writes records, each whole or not at all, in any order. All of them outlast a power loss once this returns.
    fn write(&self, records: &[Record]) -> io::Result<()>;

    /// Removes what is there of these; the names stay gone once this returns. Gives how many there were.
    fn remove(&self, keys: &[String]) -> io::Result<usize>;

    /// Size and time of a record or content.
    fn stat(&self, key: &str) -> io::Result<Option<Stat>>;

    /// Notes that a record is in use now; `false` when there is none. Need not outlast a power loss.
    fn touch(&self, key: &str) -> io::Result<bool>;

    /// Sorted names one level below a key: records, and groups of them.
    fn list(&self, key: &str) -> io::Result<Vec<String>>;

    /// Content for reading, with its size in bytes.
    fn open(&self, key: &str) -> io::Result<Option<(Arc<dyn ReadAt>, u64)>>;

    /// Takes a local file over as content. It outlasts a power loss once this returns.
    fn adopt(&self, key: &str, file: &File, path: &Path, taking: Taking) -> io::Result<()>;
}

/// A record to be written.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its key.
    pub key: String,
    /// Its bytes; empty for one that only says by its presence.
    pub bytes: Vec<u8>,
}

impl Record {
    pub(super) fn new(key: String, bytes: impl Into<Vec<u8>>) -> Self {
        Self { key, bytes: bytes.into() }
    }
}

/// Size and time.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// Size in bytes.
    pub size_bytes: u64,
    /// When it was written or touched last.
    pub touched: SystemTime,
}

/// What becomes of a local file that is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taking {
    /// It is the backend's from now on; nothing remains at its path.
    Move,
    /// It stays where it is, and never changes. A directory on the same file system shares its bytes.
    Share,
}

/// Content that can be read from any place.
pub trait ReadAt: Send + Sync {
    /// Reads up to the buffer's length from `offset`; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buffer, offset)
    }
}
