//! Safety against power loss without a sync for each step.
//!
//! Every record carries a [`Stamp`]: the boot it was written in, and when, on that boot's clock. A record of the running
//! boot is right, because the page cache is. A record of an earlier boot counts only if it is older than that boot's last
//! completed `syncfs` ([`Store::sync`]); then everything it speaks of, which was written before it, was on the disk too.
//! So a step costs no sync, a power loss costs a rebuild of what was not synced, and never gives wrong content.

use std::{io::Read as _, os::fd::AsFd as _, path::PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Store, StoreError};

/// When a record was written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Stamp {
    boot: String,
    at_ns: u64,
}

/// A record as it lies on the disk.
#[derive(Serialize, Deserialize)]
struct Stamped<T> {
    stamp: Stamp,
    value: T,
}

/// Content of `synced/<boot id>`.
#[derive(Serialize, Deserialize)]
struct Mark {
    /// Everything written before this moment of that boot is on the disk.
    at_ns: u64,
    /// The same moment in seconds of the wall clock, to find blobs that may be torn.
    wall_s: i64,
}

/// The running boot's id. Where `/proc` lacks it, all boots count as one: then power loss is not noticed.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .ok()
        .filter(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-'))
        .unwrap_or_else(|| "unknown".to_owned())
}

/// Nanoseconds since boot, sleep included; never jumps.
pub(crate) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

impl Store {
    /// Makes everything written so far safe against power loss. Costs nothing when nothing was written since the last time.
    pub fn sync(&self) -> Result<(), StoreError> {
        if !self.path("dirty").exists() {
            return Ok(());
        }
        let lock = self.lock_file("sync.lock")?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
            .map_err(StoreError::at("lock", self.path("sync.lock")))?;
        // Whoever held the lock may have synced our writes as well.
        let dirty = self.path("dirty");
        if !dirty.exists() {
            return Ok(());
        }
        // Writers note `dirty` after they wrote: what is written from here on brings a new note.
        fs::remove_file(&dirty)?;
        let mark = Mark { at_ns: now_ns(), wall_s: wall_s() };
        let root = fs::File::open(self.root())?;
        let synced = rustix::fs::syncfs(root.file().as_fd()).map_err(StoreError::at("sync", self.root()));
        if synced.is_err() {
            self.mark_dirty()?;
        }
        synced?;
        self.write_durably(&self.mark_path(&self.inner.boot), &oci::to_json(&mark))
    }

    /// Writes one file so that it survives power loss: synced, renamed, directory synced.
    pub(crate) fn write_durably(&self, path: &std::path::Path, bytes: &[u8]) -> Result<(), StoreError> {
        self.write_then(path, bytes, |file| Ok(file.sync_all()?))?;
        let directory = path.parent().expect("files of the store lie in a directory of it");
        Ok(fs::File::open(directory)?.sync_all()?)
    }

    /// Notes that something was written since the last sync.
    pub(crate) fn mark_dirty(&self) -> Result<(), StoreError> {
        let path = self.path("dirty");
        if rustix::fs::access(&path, rustix::fs::Access::EXISTS).is_ok() {
            return Ok(());
        }
        fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        Ok(())
    }

    pub(crate) fn stamp(&self) -> Stamp {
        Stamp { boot: self.inner.boot.clone(), at_ns: now_ns() }
    }

    /// Writes a stamped record.
    pub(crate) fn put_record<T: Serialize>(&self, path: &std::path::Path, value: &T) -> Result<(), StoreError> {
        self.write_file(path, &self.record_bytes(value))
    }

    pub(crate) fn record_bytes<T: Serialize>(&self, value: &T) -> Vec<u8> {
        oci::to_json(&Stamped { stamp: self.stamp(), value })
    }

    /// Reads a stamped record. Absent, torn, of a foreign form, or lost to a power loss: `None`.
    pub(crate) fn get_record<T: DeserializeOwned>(&self, path: &std::path::Path) -> Option<T> {
        self.parse_record(&read_small(path).ok()?)
    }

    pub(crate) fn parse_record<T: DeserializeOwned>(&self, bytes: &[u8]) -> Option<T> {
        let record: Stamped<T> = serde_json::from_slice(bytes).ok()?;
        self.trusts(&record.stamp).then_some(record.value)
    }

    fn trusts(&self, stamp: &Stamp) -> bool {
        if stamp.boot == self.inner.boot {
            return true;
        }
        let mut marks = self.inner.marks.lock().expect("no panic while held");
        let mark =
            marks.entry(stamp.boot.clone()).or_insert_with(|| self.read_mark(&stamp.boot).map(|mark| mark.at_ns));
        mark.is_some_and(|at_ns| stamp.at_ns <= at_ns)
    }

    fn read_mark(&self, boot: &str) -> Option<Mark> {
        // A torn record may name anything; only the form of a boot id becomes a path.
        if boot.is_empty() || !boot.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return None;
        }
        serde_json::from_slice(&std::fs::read(self.mark_path(boot)).ok()?).ok()
    }

    fn mark_path(&self, boot: &str) -> PathBuf {
        self.path("synced").join(boot)
    }

    pub(crate) fn lock_file(&self, name: &str) -> Result<fs::File, StoreError> {
        Ok(fs::OpenOptions::new().create(true).truncate(false).write(true).open(self.path(name))?)
    }

    /// First opening after a boot: blobs carry no stamp, so those that were written after the last sync are hashed once.
    pub(crate) fn check_boot(&self) -> Result<(), StoreError> {
        let path = self.path("boot");
        let last = std::fs::read_to_string(&path).unwrap_or_default();
        if last == self.inner.boot {
            return Ok(());
        }
        let lock = self.lock_file("sync.lock")?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
            .map_err(StoreError::at("lock", self.path("sync.lock")))?;
        if std::fs::read_to_string(&path).unwrap_or_default() == self.inner.boot {
            return Ok(());
        }
        if !last.is_empty() && self.path("dirty").exists() {
            let since_s = self.read_mark(&last).map_or(i64::MIN, |mark| mark.wall_s);
            self.check_blobs_since(since_s)?;
            let _ = fs::remove_file(self.path("dirty"));
        }
        self.write_durably(&path, self.inner.boot.as_bytes())
    }
}

fn wall_s() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// Reads a file that is small most of the time. An unchanged build reads hundreds of them, and asking each for its size first
/// would double the calls.
pub(crate) fn read_small(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    const SMALL: usize = 4096;
    let mut file = std::fs::File::open(path)?;
    let mut bytes = vec![0; SMALL];
    let mut length = 0;
    loop {
        match file.read(&mut bytes[length..]) {
            Ok(count) => length += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        // A regular file gives less than was asked for at its end only.
        if length < bytes.len() {
            bytes.truncate(length);
            return Ok(bytes);
        }
        bytes.resize(bytes.len() * 4, 0);
    }
}
