//! Writing what was selected: directories first, then files on a few threads, then the directories' own attributes.

use std::{
    collections::{HashMap, HashSet},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, fstat, linkat, mknodat, openat, statat, symlinkat, unlinkat, utimensat},
    io::Errno,
};

use super::{
    listing,
    mode::Chmod,
    source::Match,
    sparse,
    target::{Owner, Target, set_mode, set_owner, set_owner_of_link, set_time, timestamps},
};
use crate::{
    attributes,
    content::threads_for,
    tree::{self, Entry, Kind, Time},
};

/// Files above this size are handed to the kernel to copy; below, one read and one write are quicker.
const SMALL_FILE_BYTES: u64 = 64 * 1024;
/// ext4 takes 65,000 links to one file; some are left for others.
const LINKS_MAX: u32 = 60_000;
/// Files that one thread takes at once: mostly of one directory, which it then opens once.
const PIECE_FILES: usize = 64;

/// How entries are changed on their way.
#[derive(Clone, Copy)]
pub(crate) struct Changes<'a> {
    /// `--chown`, or root for a context's files; `None` keeps the owners.
    pub(crate) owner: Option<Owner>,
    /// `--chmod`.
    pub(crate) mode: Option<&'a Chmod>,
    /// Later file times become this.
    pub(crate) newest: Option<Time>,
}

impl Changes<'_> {
    pub(super) fn owner(&self, entry: &Entry) -> Owner {
        self.owner.unwrap_or((entry.uid, entry.gid))
    }

    pub(super) fn mode(&self, entry: &Entry) -> u32 {
        self.mode.map_or(entry.mode, |mode| mode.apply(entry.mode, entry.kind == Kind::Dir))
    }

    pub(super) fn time(&self, entry: &Entry) -> Time {
        self.newest.map_or(entry.mtime, |newest| newest.min(entry.mtime))
    }
}

/// A former result of the same instruction: files that are still the same are linked, not copied.
pub(crate) struct Former {
    /// The directories that together are its layer, topmost first.
    pub(crate) parts: Vec<OwnedFd>,
    /// Lines of its listing.
    pub(crate) lines: HashSet<Vec<u8>>,
}

/// One match on its way to one place.
pub(crate) struct Transfer<'a> {
    pub(crate) target: &'a Target,
    /// The tree that is read.
    pub(crate) source: BorrowedFd<'a>,
    pub(crate) changes: Changes<'a>,
    pub(crate) former: Option<&'a Former>,
    pub(crate) has_owners: bool,
    /// The tree is a directory of the machine, not an image.
    pub(crate) is_context: bool,
    pub(crate) is_stopped: &'a (dyn Fn() -> bool + Sync),
}

/// A file with its place.
struct Task<'a> {
    entry: &'a Entry,
    /// Path in the source tree.
    from: Vec<u8>,
    /// Canonical path at the destination.
    to: Vec<u8>,
    /// The directory that it goes to exists below, so that a directory of its own name may.
    is_below: bool,
    matched: &'a Match,
}

impl Transfer<'_> {
    /// Puts the contents of a directory into the directory at the canonical path `to`.
    pub(crate) fn contents(&self, matched: &Match, to: &[u8]) -> io::Result<()> {
        let is_made = self.target.lookup(to)?.is_none();
        let top = self.target.ensure_dir(to, self.changes.owner)?;
        if is_made && self.changes.mode.is_some() {
            set_mode(&top, self.changes.mode(&matched.entries[0]))?;
        }
        let mut below: HashMap<&[u8], bool> = HashMap::new();
        below.insert(b"", self.target.lookup_below(to)?.is_some());
        let mut tasks = Vec::new();
        let mut directories = Vec::new();
        // Names of one file within what is copied stay names of one file.
        let mut first_names: HashMap<u64, Vec<u8>> = HashMap::new();
        let mut further_names = Vec::new();
        for entry in &matched.entries[1..] {
            let is_below = *below.get(tree::parent(&entry.path)).expect("parents come before children");
            let path = tree::join(to, &entry.path);
            if entry.kind == Kind::Dir {
                let above = self.open_upper(tree::parent(&path))?;
                let (_, is_below) = self.target.enter(above.as_fd(), tree::base_name(&path), &path, None)?;
                below.insert(&entry.path, is_below);
                directories.push((entry, path));
                continue;
            }
            let task = Task { entry, from: tree::join(&matched.path, &entry.path), to: path, is_below, matched };
            if entry.kind == Kind::File && entry.links > 1 {
                if let Some(first) = first_names.get(&entry.inode) {
                    further_names.push((first.clone(), task));
                    continue;
                }
                first_names.insert(entry.inode, task.to.clone());
            }
            tasks.push(task);
        }
        drop(top);
        self.files(&tasks)?;
        for (first, task) in &further_names {
            self.link(first, task).map_err(|error| match error.raw_os_error() {
                Some(_) => tree::named(error, "link", &task.to),
                None => error,
            })?;
        }
        // The deepest first: writing into a directory moves its time.
        for (entry, path) in directories.iter().rev() {
            let directory = self.open_upper(path)?;
            self.finish_dir(entry, &tree::join(&matched.path, &entry.path), &directory)
                .map_err(|error| tree::named(error, "make directory", path))?;
        }
        Ok(())
    }

    /// Puts one file at the canonical path `to`; the directory above it exists.
    pub(crate) fn file(&self, matched: &Match, to: Vec<u8>) -> io::Result<()> {
        self.files(&[Task { entry: &matched.entries[0], from: matched.path.clone(), to, is_below: true, matched }])
    }

    /// Gives a file that was just written a further name.
    fn link(&self, first: &[u8], task: &Task<'_>) -> io::Result<()> {
        if task.is_below && self.target.lookup_below(&task.to)?.is_some_and(|node| node.kind == Kind::Dir) {
            return Err(conflict(&task.to));
        }
        let directory = self.open_upper(tree::parent(&task.to))?;
        let name = tree::base_name(&task.to);
        let upper = &self.target.upper;
        let linked =
            replacing(directory.as_fd(), name, &task.to, || linkat(upper, first, &directory, name, AtFlags::empty()));
        match linked {
            // The file system wants no more names for one file.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::MLINK) => Worker::new(self).one(task),
            other => other,
        }
    }

    fn finish_dir(&self, entry: &Entry, from: &[u8], directory: &OwnedFd) -> io::Result<()> {
        if self.has_owners {
            let source = tree::open_beneath(self.source, from, OFlags::RDONLY | OFlags::DIRECTORY)?;
            attributes::copy(&source, directory, self.is_context)?;
        }
        set_owner(directory, self.changes.owner(entry))?;
        set_mode(directory, self.changes.mode(entry))?;
        set_time(directory, self.changes.time(entry))
    }

    fn open_upper(&self, path: &[u8]) -> io::Result<OwnedFd> {
        tree::open_beneath(self.target.upper.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|error| tree::named(error, "open", path))
    }

    fn files(&self, tasks: &[Task<'_>]) -> io::Result<()> {
        let threads = threads_for(tasks.len());
        if threads == 1 {
            return Worker::new(self).all(tasks);
        }
        let pieces: Vec<&[Task<'_>]> = tasks.chunks(PIECE_FILES).collect();
        let next = AtomicUsize::new(0);
        let failure = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let mut worker = Worker::new(self);
                    while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(error) = worker.all(piece) {
                            next.store(pieces.len(), Ordering::Relaxed);
                            *crate::work::locked(&failure) = Some(error);
                        }
                    }
                });
            }
        });
        crate::work::locked(&failure).take().map_or(Ok(()), Err)
    }
}

/// One thread's part, with the directory that it is in and its buffer.
struct Worker<'t, 'a> {
    transfer: &'t Transfer<'a>,
    directory: Option<(Vec<u8>, OwnedFd)>,
    buffer: Vec<u8>,
}

impl<'t, 'a> Worker<'t, 'a> {
    fn new(transfer: &'t Transfer<'a>) -> Self {
        Self { transfer, directory: None, buffer: vec![0; SMALL_FILE_BYTES as usize] }
    }

    fn all(&mut self, tasks: &[Task<'_>]) -> io::Result<()> {
        for task in tasks {
            if (self.transfer.is_stopped)() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            self.one(task).map_err(|error| match error.raw_os_error() {
                Some(_) => tree::named(error, "copy", &task.from),
                None => error,
            })?;
        }
        Ok(())
    }

    fn one(&mut self, task: &Task<'_>) -> io::Result<()> {
        let transfer = self.transfer;
        let above = tree::parent(&task.to);
        if self.directory.as_ref().is_none_or(|(path, _)| path != above) {
            self.directory = Some((above.to_vec(), transfer.open_upper(above)?));
        }
        let directory = &self.directory.as_ref().expect("just set").1;
        let name = tree::base_name(&task.to);
        if task.is_below && transfer.target.lookup_below(&task.to)?.is_some_and(|node| node.kind == Kind::Dir) {
            return Err(conflict(&task.to));
        }
        let entry = task.entry;
        match entry.kind {
            Kind::File => {
                if self.link_former(task, directory.as_fd(), name)? {
                    return Ok(());
                }
                let made = create(directory.as_fd(), name, &task.to)?;
                let source = tree::open_beneath(transfer.source, &task.from, OFlags::RDONLY | OFlags::NONBLOCK)?;
                check_unchanged(&source, entry, &task.from)?;
                copy_content(&source, &made, entry.size, &mut self.buffer)?;
                check_unchanged(&source, entry, &task.from)?;
                attributes::copy(&source, &made, transfer.is_context)?;
                // The owner first: changing it takes set-id bits and capabilities away.
                set_owner(&made, transfer.changes.owner(entry))?;
                set_mode(&made, transfer.changes.mode(entry))?;
                set_time(&made, transfer.changes.time(entry))
            }
            Kind::Symlink => {
                replacing(directory.as_fd(), name, &task.to, || symlinkat(entry.link.as_slice(), directory, name))?;
                self.finish_special(entry, directory.as_fd(), name)
            }
            Kind::Char | Kind::Block | Kind::Fifo => {
                let kind = rustix::fs::FileType::from_raw_mode(match entry.kind {
                    Kind::Char => 0o020_000,
                    Kind::Block => 0o060_000,
                    _ => 0o010_000,
                });
                let mode = Mode::from_raw_mode(transfer.changes.mode(entry));
                replacing(directory.as_fd(), name, &task.to, || mknodat(directory, name, kind, mode, entry.device))?;
                self.finish_special(entry, directory.as_fd(), name)
            }
            // A socket is nothing without the process that made it.
            Kind::Socket => Ok(()),
            Kind::Dir => unreachable!("directories are made before files"),
        }
    }

    fn finish_special(&self, entry: &Entry, directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
        set_owner_of_link(directory, name, self.transfer.changes.owner(entry))?;
        Ok(utimensat(directory, name, &timestamps(self.transfer.changes.time(entry)), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Links the former copy of a file whose listing line is the same, if it is the same in everything else too.
    fn link_former(&self, task: &Task<'_>, directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<bool> {
        let Some(former) = self.transfer.former else { return Ok(false) };
        let entry = task.entry;
        if !former.lines.contains(&listing::line(task.matched, entry, self.transfer.has_owners)) {
            return Ok(false);
        }
        let stat_in = |part| Some((part, statat(part, task.to.as_slice(), AtFlags::SYMLINK_NOFOLLOW).ok()?));
        let Some((part, stat)) = former.parts.iter().find_map(stat_in) else { return Ok(false) };
        let changes = self.transfer.changes;
        let time = changes.time(entry);
        // A time that was later than an earlier epoch stands for "new" as well as one that is later than today's.
        let is_same_time = tree::mtime(&stat) == time || (time != entry.mtime && tree::mtime(&stat) <= time);
        let is_same = Kind::of(stat.st_mode) == Kind::File
            && stat.st_mode & 0o7777 == changes.mode(entry)
            && (stat.st_uid, stat.st_gid) == changes.owner(entry)
            && stat.st_size as u64 == entry.size
            && is_same_time
            && (stat.st_nlink as u32) < LINKS_MAX;
        if !is_same {
            return Ok(false);
        }
        match linkat(part, task.to.as_slice(), directory, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            // Something of an earlier source is there, or the file system wants no more links: copy.
            Err(Errno::EXIST | Errno::MLINK | Errno::XDEV | Errno::PERM | Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// A new file that only we can read until it is complete; takes the place of an older one.
fn create(directory: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    replacing(directory, name, path, || openat(directory, name, flags, Mode::from_raw_mode(0o600)))
}

fn replacing<T>(
    directory: BorrowedFd<'_>,
    name: &[u8],
    path: &[u8],
    mut make: impl FnMut() -> rustix::io::Result<T>,
) -> io::Result<T> {
    match make() {
        Err(Errno::EXIST) => {}
        other => return Ok(other?),
    }
    match unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => return Err(conflict(path)),
        other => other?,
    }
    Ok(make()?)
}

/// A directory stands where a file is to be.
pub(crate) fn conflict(path: &[u8]) -> io::Error {
    io::Error::new(io::ErrorKind::IsADirectory, format!("cannot replace directory `/{}` with a file", tree::show(path)))
}

/// What was hashed is what is copied; otherwise the cache would give it out under a wrong key.
fn check_unchanged(source: &OwnedFd, entry: &Entry, path: &[u8]) -> io::Result<()> {
    let stat = fstat(source)?;
    let is_same = Kind::of(stat.st_mode) == Kind::File
        && stat.st_ino == entry.inode
        && stat.st_size as u64 == entry.size
        && tree::mtime(&stat) == entry.mtime;
    if is_same {
        return Ok(());
    }
    Err(io::Error::other(format!("`{}` changed while it was copied", tree::show(path))))
}

fn copy_content(from: &OwnedFd, to: &OwnedFd, size: u64, buffer: &mut [u8]) -> io::Result<()> {
    if size > SMALL_FILE_BYTES && sparse::copy(from, to, size)? {
        return Ok(());
    }
    let mut left = size;
    while size > SMALL_FILE_BYTES && left > 0 {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from, None, to, None, count) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => left -= count as u64,
            Err(Errno::INTR) => {}
            // Between unlike file systems the kernel may refuse; what is left is read and written.
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    while left > 0 {
        let count = rustix::io::retry_on_intr(|| rustix::io::read(from, &mut *buffer))?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::write(to, rest))?;
            rest = &rest[written..];
        }
        left = left.saturating_sub(count as u64);
    }
    Ok(())
}

/// Writes a file given inline.
pub(crate) fn inline(
    directory: &OwnedFd,
    name: &[u8],
    path: &[u8],
    content: &[u8],
    owner: Owner,
    mode: u32,
) -> io::Result<()> {
    let mut file = std::fs::File::from(create(directory.as_fd(), name, path)?);
    io::Write::write_all(&mut file, content)?;
    let made = OwnedFd::from(file);
    set_owner(&made, owner)?;
    set_mode(&made, mode)
}
