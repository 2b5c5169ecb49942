//! Scopes: the work in progress of one process, which a later process can sweep up.
//!
//! `scopes/<id>/` holds `lock` (an exclusive flock, which the kernel frees at death), `journal` (JSON lines, appended
//! before the thing is made), `leases` (what prune must leave alone) and `tmp/`. A scope is prepared under a name that
//! starts with a dot and gets its own name when the lock is held, so a scope with a free lock is always a dead one.

use std::{
    collections::HashSet,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fs_err as fs;
use oci::Digest;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::{
    SnapshotId, Store, StoreError,
    store::{names_in, random},
    tree,
};

/// Making a scope's directory takes microseconds; one without a lock that is older than this was left by a killed process.
const UNFINISHED_SCOPE_MAX: Duration = Duration::from_secs(60);

/// Work in progress of one process. Dropping closes it: removes its directory. Snapshots in the making keep it open.
#[derive(Clone, Debug)]
pub struct Scope {
    pub(crate) inner: Arc<ScopeInner>,
}

/// Something outside the store that must be undone when its maker is dead.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub enum JournalEntry {
    /// A container, by its id.
    Container(String),
    /// A directory to remove.
    Directory(PathBuf),
    /// Anything else.
    Other {
        /// What kind of thing.
        kind: String,
        /// Which one.
        value: String,
    },
}

#[derive(Debug)]
pub(crate) struct ScopeInner {
    store: Store,
    id: String,
    directory: PathBuf,
    scratch: PathBuf,
    journal: Mutex<fs::File>,
    leases: Mutex<Leases>,
    next: AtomicU64,
    /// Held for as long as the scope lives; closing it frees the lock.
    _lock: fs::File,
}

#[derive(Debug)]
struct Leases {
    file: fs::File,
    /// `prune.lock`, opened once.
    lock: fs::File,
    held: HashSet<String>,
}

impl Store {
    /// Opens a scope for work of this process.
    pub fn open_scope(&self) -> Result<Scope, StoreError> {
        let id = format!("{:08x}", random() as u32);
        let unfinished = self.path("scopes").join(format!(".{id}"));
        let directory = self.path("scopes").join(&id);
        fs::create_dir(&unfinished)?;
        let lock = new_file(&unfinished.join("lock"))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(StoreError::at("lock", &unfinished))?;
        fs::create_dir(unfinished.join("tmp"))?;
        let journal = Mutex::new(new_file(&unfinished.join("journal"))?);
        let leases = Leases {
            file: new_file(&unfinished.join("leases"))?,
            lock: self.lock_file("prune.lock")?,
            held: HashSet::new(),
        };
        let leases = Mutex::new(leases);
        fs::rename(&unfinished, &directory)?;
        let scratch = directory.join("tmp");
        let next = AtomicU64::new(0);
        let store = self.clone();
        Ok(Scope { inner: Arc::new(ScopeInner { store, id, directory, scratch, journal, leases, next, _lock: lock }) })
    }

    /// Scopes whose owner is dead: gives their journal entries for the caller to undo (container ids …) and removes their
    /// files and snapshots. Cheap when there are none. A caller that may be killed itself before it has undone them uses
    /// [`Store::sweep_with`].
    pub fn sweep(&self) -> Result<Vec<JournalEntry>, StoreError> {
        let mut entries = Vec::new();
        self.sweep_with(&mut |entry| entries.push(entry))?;
        Ok(entries)
    }

    /// As [`Store::sweep`], but `undo` is called before the journal is removed: whoever is killed in between leaves the
    /// rest to the next sweep. An entry may therefore be seen twice.
    pub fn sweep_with(&self, undo: &mut dyn FnMut(JournalEntry)) -> Result<(), StoreError> {
        let scopes = self.path("scopes");
        for entry in fs::read_dir(&scopes)? {
            let entry = entry?;
            let directory = entry.path();
            let name = entry.file_name();
            let is_unfinished = crate::store::is_temporary(&name);
            let Some(_lock) = take_over(&directory, is_unfinished)? else { continue };
            for entry in read_journal(&directory.join("journal")) {
                undo(entry);
            }
            if !is_unfinished {
                self.remove_active_snapshots(&name.to_string_lossy())?;
            }
            remove_scope(&directory)?;
        }
        Ok(())
    }

    fn remove_active_snapshots(&self, scope: &str) -> Result<(), StoreError> {
        let prefix = format!("tmp.{scope}.");
        for name in names_in(&self.path("snapshots"))? {
            if name.starts_with(&prefix) {
                let path = self.path("snapshots").join(name);
                tree::remove(&path)?;
            }
        }
        Ok(())
    }

    /// What live and not yet swept scopes hold: snapshot ids and blob digests, as text.
    pub(crate) fn leased(&self) -> Result<HashSet<String>, StoreError> {
        let mut leased = HashSet::new();
        for name in names_in(&self.path("scopes"))? {
            if let Ok(text) = std::fs::read_to_string(self.path("scopes").join(name).join("leases")) {
                leased.extend(text.lines().map(str::to_owned));
            }
        }
        Ok(leased)
    }
}

/// The lock of a dead scope, now ours; `None` when its owner lives or another process has swept it.
fn take_over(directory: &Path, is_unfinished: bool) -> Result<Option<fs::File>, StoreError> {
    let path = directory.join("lock");
    let old_enough = || {
        let age = std::fs::metadata(directory).and_then(|metadata| metadata.modified()).map(|made| made.elapsed());
        age.is_ok_and(|age| age.is_ok_and(|age| age > UNFINISHED_SCOPE_MAX))
    };
    let lock = match fs::OpenOptions::new().write(true).open(&path) {
        Ok(lock) => lock,
        // Killed while the scope was made or removed.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if old_enough() {
                remove_scope(directory)?;
            }
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(errno) => return Err(StoreError::at("lock", &path)(errno)),
    }
    let is_gone = rustix::fs::fstat(&lock).map_err(StoreError::at("look at", &path))?.st_nlink == 0;
    if is_gone || (is_unfinished && !old_enough()) {
        return Ok(None);
    }
    Ok(Some(lock))
}

fn remove_scope(directory: &Path) -> Result<(), StoreError> {
    // The lock goes last: until then another sweeper keeps off.
    for name in ["tmp", "leases", "journal", "lock"] {
        tree::remove(&directory.join(name))?;
    }
    tree::remove(directory).map(drop)
}

fn read_journal(path: &Path) -> Vec<JournalEntry> {
    // The last line may be cut: then the thing was not made yet.
    let text = std::fs::read(path).unwrap_or_default();
    text.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

fn new_file(path: &Path) -> Result<fs::File, StoreError> {
    Ok(fs::OpenOptions::new().create_new(true).append(true).open(path)?)
}

impl Scope {
    /// Names the scope; 8 hex digits.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// Scratch directory, removed with the scope.
    pub fn dir(&self) -> &Path {
        &self.inner.scratch
    }

    /// Notes what is about to be made, before it is made.
    pub fn journal(&self, entry: &JournalEntry) -> Result<(), StoreError> {
        let mut line = oci::to_json(entry);
        line.push(b'\n');
        // One write to a file opened for appending: threads and kills cannot mix lines.
        Ok(self.inner.journal.lock().expect("no panic while held").write_all(&line)?)
    }

    /// Keeps a snapshot and those below it from prune for as long as the scope lives. An error says that it is gone already.
    pub fn lease(&self, id: &SnapshotId) -> Result<(), StoreError> {
        if self.inner.lease(id.as_str(), || self.inner.store.snapshot_dir(id).exists())? {
            return Ok(());
        }
        Err(StoreError::UnknownSnapshot(id.clone()))
    }

    /// Keeps a blob from prune for as long as the scope lives. An error says that it is gone already.
    pub fn lease_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        if self.inner.lease(digest.hex(), || self.inner.store.has_blob(digest).is_some())? {
            return Ok(());
        }
        Err(StoreError::MissingBlob(digest.clone()))
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.inner.next.fetch_add(1, Ordering::Relaxed)
    }
}

impl ScopeInner {
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Prune removes names only while it holds `prune.lock` alone, and reads the leases first: what is leased under the
    /// shared lock and exists then, stays.
    pub(crate) fn lease(&self, name: &str, exists: impl FnOnce() -> bool) -> Result<bool, StoreError> {
        let mut leases = self.leases.lock().expect("no panic while held");
        if leases.held.contains(name) {
            return Ok(true);
        }
        let lock = |operation| {
            let path = self.store.path("prune.lock");
            rustix::fs::flock(&leases.lock, operation).map_err(StoreError::at("lock", path))
        };
        lock(FlockOperation::LockShared)?;
        let written = (&leases.file).write_all(format!("{name}\n").as_bytes());
        let exists = written.is_ok() && exists();
        lock(FlockOperation::Unlock)?;
        written?;
        if exists {
            leases.held.insert(name.to_owned());
        }
        Ok(exists)
    }
}

impl Drop for ScopeInner {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next process, because the lock is freed in any case.
        let _ = remove_scope(&self.directory);
    }
}
