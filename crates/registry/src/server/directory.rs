//! The backend that is a directory. Records are written under a temporary name, synced and renamed; directories are synced
//! for all waiting writers at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use fs_err as fs;

use super::backend::{Backend, ReadAt, Record, Stat, Taking};

/// A directory as backend.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
    sync: DirectorySync,
}

impl Directory {
    /// Uses a directory that this process holds alone.
    pub(super) fn new(root: &Path) -> io::Result<Self> {
        make_dir(&root.join("blobs/sha256"))?;
        make_dir(&root.join("repositories"))?;
        // Nobody else is here: what is in `tmp` is of a process that was killed.
        match fs::remove_dir_all(root.join("tmp")) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => make_dir(&root.join("tmp"))?,
        }
        Ok(Self { root: root.to_owned(), sync: DirectorySync::default() })
    }

    fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    /// A name in `tmp` for a hard link on its way.
    fn temporary_path(&self) -> io::Result<PathBuf> {
        let (_, path) = tempfile::NamedTempFile::new_in(self.root.join("tmp"))?.into_parts();
        let path = path.to_path_buf();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(path),
        }
    }

    /// The same bytes under a second name, or a copy where the file system has no second names.
    fn share(&self, from: &Path, to: &Path) -> io::Result<()> {
        let temporary = self.temporary_path()?;
        match fs::hard_link(from, &temporary) {
            Ok(()) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::CrossesDevices | ErrorKind::PermissionDenied | ErrorKind::TooManyLinks
                ) =>
            {
                fs::copy(from, &temporary)?;
                fs::File::open(&temporary)?.sync_all()?;
            }
            Err(error) => return Err(error),
        }
        fs::rename(&temporary, to)
    }
}

impl Backend for Directory {
    fn read(&self, key: &str) -> io::Result<Option<Vec<u8>>> {
        found(fs::read(self.path(key)))
    }

    fn write(&self, records: &[Record]) -> io::Result<()> {
        let (mut written, mut parents) = (Vec::new(), BTreeSet::new());
        for record in records {
            let path = self.path(&record.key);
            let parent = parent_of(&path).to_owned();
            make_dir(&parent)?;
            parents.insert(parent);
            if record.bytes.is_empty() {
                // Nothing to tear: its name is all there is to it. One that is there counts as used now.
                fs::OpenOptions::new().create(true).append(true).open(&path)?;
                touch(&path)?;
                continue;
            }
            let mut file = tempfile::NamedTempFile::new_in(self.root.join("tmp"))?;
            file.write_all(&record.bytes)?;
            file.as_file().sync_all()?;
            written.push((file, path));
        }
        for (file, path) in written {
            file.persist(path).map_err(|error| error.error)?;
        }
        self.sync.sync(parents)
    }

    fn remove(&self, keys: &[String]) -> io::Result<usize> {
        let (mut count, mut parents) = (0, BTreeSet::new());
        for key in keys {
            let path = self.path(key);
            if found(fs::remove_file(&path))?.is_some() {
                count += 1;
                parents.insert(parent_of(&path).to_owned());
            }
        }
        self.sync.sync(parents)?;
        Ok(count)
    }

    fn stat(&self, key: &str) -> io::Result<Option<Stat>> {
        // Asked for each blob of each push: the plain call spares making an error text for what is not there.
        let Some(metadata) = found(std::fs::metadata(self.path(key)))? else { return Ok(None) };
        Ok(Some(Stat { size_bytes: metadata.len(), touched: metadata.modified()? }))
    }

    fn touch(&self, key: &str) -> io::Result<bool> {
        touch(&self.path(key))
    }

    fn list(&self, key: &str) -> io::Result<Vec<String>> {
        names_in(&self.path(key))
    }

    fn open(&self, key: &str) -> io::Result<Option<(Arc<dyn ReadAt>, u64)>> {
        let Some(file) = found(std::fs::File::open(self.path(key)))? else { return Ok(None) };
        let size_bytes = file.metadata()?.len();
        Ok(Some((Arc::new(file), size_bytes)))
    }

    fn adopt(&self, key: &str, file: &File, path: &Path, taking: Taking) -> io::Result<()> {
        let to = self.path(key);
        file.sync_all()?;
        make_dir(parent_of(&to))?;
        match taking {
            Taking::Move => fs::rename(path, &to)?,
            Taking::Share => self.share(path, &to)?,
        }
        self.sync.sync([parent_of(&to).to_owned()])
    }
}

/// Syncs directories, one round for all who wait: while one round runs, the wishes of the next one gather.
#[derive(Debug, Default)]
struct DirectorySync {
    rounds: Mutex<Rounds>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Rounds {
    /// Directories of the round that gathers.
    wanted: BTreeSet<PathBuf>,
    /// Number of the round that gathers; all before it have ended, but for the one that `is_running`.
    gathering: u64,
    ended: u64,
    is_running: bool,
    /// Rounds that failed, for those who have not looked yet.
    failed: BTreeMap<u64, (ErrorKind, String)>,
}

/// Failures remembered: whoever is this far behind was woken long ago.
const FAILED_ROUNDS_MAX: usize = 1000;

impl DirectorySync {
    fn sync(&self, directories: impl IntoIterator<Item = PathBuf>) -> io::Result<()> {
        let mut directories = directories.into_iter().peekable();
        if directories.peek().is_none() {
            return Ok(());
        }
        let mut rounds = self.lock();
        rounds.wanted.extend(directories);
        let mine = rounds.gathering;
        loop {
            if rounds.ended > mine {
                return match rounds.failed.get(&mine) {
                    Some((kind, message)) => Err(io::Error::new(*kind, message.clone())),
                    None => Ok(()),
                };
            }
            if rounds.is_running {
                rounds = self.ended.wait(rounds).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            rounds.is_running = true;
            let batch = std::mem::take(&mut rounds.wanted);
            let number = rounds.gathering;
            rounds.gathering += 1;
            drop(rounds);
            let outcome = batch.iter().try_for_each(|directory| sync_dir(directory));
            rounds = self.lock();
            rounds.is_running = false;
            rounds.ended = number + 1;
            if let Err(error) = outcome {
                rounds.failed.insert(number, (error.kind(), error.to_string()));
                if rounds.failed.len() > FAILED_ROUNDS_MAX {
                    rounds.failed.pop_first();
                }
            }
            self.ended.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Rounds> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a directory with its parents, durably.
pub(super) fn make_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_dir(parent)?;
        match fs::create_dir(path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        return sync_dir(parent);
    }
    fs::create_dir_all(path)
}

fn sync_dir(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

fn parent_of(path: &Path) -> &Path {
    path.parent().expect("each file of ours is in a directory")
}

fn touch(path: &Path) -> io::Result<bool> {
    let now = std::fs::FileTimes::new().set_modified(std::time::SystemTime::now());
    // Written to by nobody: its times can be set through a descriptor for reading by its owner.
    let Some(file) = found(std::fs::File::open(path))? else { return Ok(false) };
    file.set_times(now)?;
    Ok(true)
}

/// `None` where there is no such file.
pub(super) fn found<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a file durably; `false` when there was none.
pub(super) fn remove(path: &Path) -> io::Result<bool> {
    let is_removed = found(fs::remove_file(path))?.is_some();
    if is_removed {
        sync_dir(parent_of(path))?;
    }
    Ok(is_removed)
}

/// Sorted names in a directory; none when it does not exist.
pub(super) fn names_in(dir: &Path) -> io::Result<Vec<String>> {
    let Some(entries) = found(std::fs::read_dir(dir))? else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for entry in entries {
        // All names of ours are ASCII; something else was put here by somebody else.
        names.extend(entry?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}
