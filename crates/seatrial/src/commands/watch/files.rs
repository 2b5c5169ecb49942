//! Changes of files, from the kernel (inotify(7)), in groups that belong together.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsStr,
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, net::UnixStream},
    },
    path::{Path, PathBuf},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};

use crate::failure::Failure;

/// Saving a file is several events, a checkout many: what comes within this time of quiet is one change.
const QUIET: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// The kernel allows some tens of thousands; whoever watches more has forgotten an `ignore`.
const DIRECTORIES_MAX: usize = 20_000;
/// Paths of one group; a checkout of another branch is taken whole all the same, in parts.
const CHANGES_MAX: usize = 10_000;

/// The directories below some roots.
pub(super) struct Changes<'a> {
    inotify: OwnedFd,
    directories: HashMap<i32, PathBuf>,
    /// Single files, which are watched by their directories, since editors replace them.
    files: BTreeSet<PathBuf>,
    is_seen: &'a dyn Fn(&Path) -> bool,
}

impl<'a> Changes<'a> {
    /// Watches what is below these roots, as far as `is_seen` leads.
    pub(super) fn new(roots: &BTreeSet<&Path>, is_seen: &'a dyn Fn(&Path) -> bool) -> anyhow::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(std::io::Error::from)?;
        let mut changes = Self { inotify, directories: HashMap::new(), files: BTreeSet::new(), is_seen };
        for root in roots {
            let metadata = std::fs::metadata(root)
                .map_err(|error| Failure::usage(format!("cannot watch {}", root.display())).because(&error))?;
            if metadata.is_dir() {
                changes.add(root, &mut BTreeSet::new())?;
            } else {
                changes.files.insert(root.to_path_buf());
                changes.watch(root.parent().unwrap_or(Path::new("/")))?;
            }
        }
        Ok(changes)
    }

    /// The next group of changed paths; `None` once the sleeper is woken.
    pub(super) fn next(&mut self, sleeper: &UnixStream) -> anyhow::Result<Option<BTreeSet<PathBuf>>> {
        let mut changed = BTreeSet::new();
        loop {
            let quiet = (!changed.is_empty()).then_some(&QUIET);
            let mut fds = [
                PollFd::from_borrowed_fd(self.inotify.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(sleeper.as_fd(), PollFlags::IN),
            ];
            match poll(&mut fds, quiet) {
                Ok(0) => return Ok(Some(changed)),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(std::io::Error::from(error).into()),
            }
            if !fds[1].revents().is_empty() {
                return Ok(None);
            }
            self.read(&mut changed)?;
            if changed.len() >= CHANGES_MAX {
                return Ok(Some(changed));
            }
        }
    }

    fn read(&mut self, changed: &mut BTreeSet<PathBuf>) -> anyhow::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
        let mut events = Vec::new();
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
                    events.push((event.wd(), event.events(), name));
                }
                Err(Errno::WOULDBLOCK) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(std::io::Error::from(error).into()),
            }
        }
        for (watch, what, name) in events {
            if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                // Nobody knows what was missed, so everything has changed.
                let roots: Vec<PathBuf> = self.directories.values().cloned().collect();
                for root in roots {
                    changed.extend(below(&root, &|_| true, self.is_seen));
                }
                continue;
            }
            if what.contains(ReadFlags::IGNORED) {
                self.directories.remove(&watch);
                continue;
            }
            let (Some(directory), Some(name)) = (self.directories.get(&watch), name) else { continue };
            let path = directory.join(name);
            if what.contains(ReadFlags::ISDIR) {
                if what.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
                    // What was in it before it was watched.
                    self.add(&path, changed)?;
                } else if what.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
                    changed.insert(path);
                }
                continue;
            }
            let is_whole = what.intersects(
                ReadFlags::CLOSE_WRITE
                    | ReadFlags::MOVED_TO
                    | ReadFlags::MOVED_FROM
                    | ReadFlags::DELETE
                    | ReadFlags::ATTRIB,
            );
            // A link is there at once; a file is when it is closed.
            let is_link = what.contains(ReadFlags::CREATE) && path.is_symlink();
            if is_whole || is_link {
                changed.insert(path);
            }
        }
        Ok(())
    }

    /// A directory with all below it. Files in it are changes for those who know that it is new.
    fn add(&mut self, directory: &Path, found: &mut BTreeSet<PathBuf>) -> anyhow::Result<()> {
        let mut open = vec![directory.to_owned()];
        while let Some(directory) = open.pop() {
            if !(self.is_seen)(&directory) {
                continue;
            }
            self.watch(&directory)?;
            // One that is gone again has nothing in it.
            for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => open.push(entry.path()),
                    Ok(_) => drop(found.insert(entry.path())),
                    Err(_) => {}
                }
            }
        }
        Ok(())
    }

    fn watch(&mut self, directory: &Path) -> anyhow::Result<()> {
        if self.directories.len() >= DIRECTORIES_MAX {
            return Err(Failure::usage(format!("there are more than {DIRECTORIES_MAX} directories to watch"))
                .hint("leave out what is not yours by `ignore`, such as `node_modules/`")
                .into());
        }
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR;
        match inotify::add_watch(&self.inotify, directory, flags) {
            Ok(watch) => drop(self.directories.insert(watch, directory.to_owned())),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(Errno::NOSPC) => {
                return Err(Failure::surroundings("this user may not watch so many directories")
                    .hint("as root: `sysctl fs.inotify.max_user_watches=524288`")
                    .into());
            }
            Err(error) => {
                let failure = Failure::surroundings(format!("cannot watch {}", directory.display()));
                return Err(failure.because(&std::io::Error::from(error)).into());
            }
        }
        Ok(())
    }
}

/// Files below a directory that matter; a file is below itself.
pub(super) fn below(
    root: &Path,
    concerns: &dyn Fn(&Path) -> bool,
    is_seen: &dyn Fn(&Path) -> bool,
) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    if !root.is_dir() {
        found.insert(root.to_owned());
        return found;
    }
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && is_seen(&path) => open.push(path),
                Ok(kind) if !kind.is_dir() && concerns(&path) => drop(found.insert(path)),
                _ => {}
            }
        }
    }
    found
}
