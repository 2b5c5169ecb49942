//! Fills a directory from a layer's tar. The archive is hostile until proven otherwise (safety.md, "Unpacking").
//!
//! Parents of an entry are resolved by the kernel inside the layer's own root (`openat2` with `RESOLVE_IN_ROOT`), as
//! docker and containerd do by path; the entry itself is made by `*at` calls that never follow its last part. Nobody else
//! writes to the directory meanwhile: it belongs to a snapshot in the making.

mod directory;

use std::{
    collections::HashSet,
    fs::File,
    hash::{BuildHasher, RandomState},
    io::{self, Read, Seek as _, SeekFrom, Write as _},
    os::fd::{AsFd as _, OwnedFd},
};

use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid},
    io::Errno,
};

use crate::{
    Skipped, StoreOptions,
    archive::{Entry, EntryKind, TarReader},
    flush::Flusher,
    tree::{self, View, clean, split},
};
use directory::Made;

/// Ten times the largest images known; bounds inodes and the memory for directories' times.
const ENTRIES_MAX: u64 = 5_000_000;
/// Bytes of files in one layer; also bounds what a sparse file claims to be.
const BYTES_MAX: u64 = 256 * 1024 * 1024 * 1024;
/// PATH_MAX of the kernel: nothing could open a longer one.
const PATH_BYTES_MAX: usize = 4096;
/// Directories in directories; real ones stay below 100.
const DEPTH_MAX: usize = 400;
/// Bytes moved at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// An entry of the archive cannot be unpacked.
#[derive(Debug, thiserror::Error)]
#[error("cannot unpack entry {:?}", String::from_utf8_lossy(path))]
pub struct EntryError {
    /// The entry's path as it stands in the archive.
    pub path: Vec<u8>,
    /// Why not.
    #[source]
    pub kind: EntryErrorKind,
}

/// Why an entry cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum EntryErrorKind {
    /// Names that a layer cannot have.
    #[error("{0}")]
    Refused(&'static str),
    /// A bound that no honest layer meets.
    #[error("{what} (the limit is {limit})")]
    Limit {
        /// What is too much.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// A hard link to nothing.
    #[error("it is a hard link to {0:?}, which neither this layer nor those below it have")]
    NoLinkTarget(String),
    /// The archive or the file system failed.
    #[error("{action}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl EntryErrorKind {
    pub(crate) fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }
}

type Outcome<T> = Result<T, EntryErrorKind>;

fn errno(action: &'static str) -> impl FnOnce(Errno) -> EntryErrorKind {
    move |errno| EntryErrorKind::Io { action, source: errno.into() }
}

/// Fills one directory.
pub(crate) struct Unpacker {
    root: OwnedFd,
    /// Layers below, for hard links and the attributes of directories that the archive does not list.
    below: View,
    options: StoreOptions,
    /// The directory holds a copy of the parent: whiteouts remove. Otherwise it is an overlay's upper: they are marks.
    is_full: bool,
    /// With `is_full`: hashes of paths that this layer made, which its own whiteouts must not remove.
    made: HashSet<u64>,
    /// With `is_full`: hashes of directories of the copy whose times are noted in `times`.
    entered: HashSet<u64>,
    hasher: RandomState,
    /// Directories' times are set last, because filling them changes them.
    times: Vec<(Vec<u8>, i64, u32)>,
    /// The parent of the last entry, which most often is that of the next too.
    parent: Option<(Vec<u8>, OwnedFd)>,
    skipped: Skipped,
    chunk: Vec<u8>,
    flusher: Flusher,
}

impl Unpacker {
    pub(crate) fn new(root: OwnedFd, below: View, options: StoreOptions, is_full: bool) -> Self {
        Self {
            root,
            below,
            options,
            is_full,
            made: HashSet::new(),
            entered: HashSet::new(),
            hasher: RandomState::new(),
            times: Vec::new(),
            parent: None,
            skipped: Skipped::default(),
            chunk: vec![0; CHUNK_BYTES],
            flusher: Flusher::new(),
        }
    }

    /// Unpacks all entries and reads the source to its end. Gives what had to be left out.
    pub(crate) fn unpack<R: Read>(mut self, source: R) -> Result<Skipped, EntryError> {
        let mut archive = TarReader::new(source);
        let (mut entries, mut bytes, mut last) = (0_u64, 0_u64, Vec::new());
        let between = |path: &[u8], kind| EntryError { path: path.to_vec(), kind };
        loop {
            let read = archive.next_entry().map_err(EntryErrorKind::io("cannot read the entry after it"));
            let Some(entry) = read.map_err(|kind| between(&last, kind))? else { break };
            entries += 1;
            bytes = bytes.saturating_add(entry.size.saturating_mul((entry.kind == EntryKind::File).into()));
            let done = check_limits(&entry, entries, bytes).and_then(|()| self.entry(&entry, &mut archive));
            done.map_err(|kind| between(&entry.path, kind))?;
            last = entry.path;
        }
        archive.drain().map_err(EntryErrorKind::io("cannot read to the end")).map_err(|kind| between(&last, kind))?;
        self.set_directory_times().map_err(|kind| between(b"", kind))?;
        Ok(self.skipped)
    }

    fn entry<R: Read>(&mut self, entry: &Entry, archive: &mut TarReader<R>) -> Outcome<()> {
        let path = clean(&entry.path);
        if path.is_empty() {
            return self.root_entry(entry);
        }
        let (parent_path, name) = split(&path);
        if parent_path.split(|b| *b == b'/').any(|part| part.starts_with(b".wh.")) {
            return Err(EntryErrorKind::Refused("names that begin with `.wh.` are reserved for whiteouts"));
        }
        let parent = self.parent(parent_path)?;
        let outcome = match name.strip_prefix(b".wh.") {
            Some(hidden) => self.whiteout(&parent, parent_path, hidden),
            None => self.make(entry, &path, &parent, name, archive),
        };
        self.parent = Some((parent_path.to_vec(), parent));
        outcome
    }

    /// The root itself: it is there already, and takes owner, mode and attributes.
    fn root_entry(&mut self, entry: &Entry) -> Outcome<()> {
        if entry.kind != EntryKind::Directory {
            return Err(EntryErrorKind::Refused("its path is the root, which is a directory"));
        }
        let root = self.root.try_clone().map_err(EntryErrorKind::io("cannot use the root"))?;
        self.attributes(entry, &root, b".")?;
        self.times.push((Vec::new(), entry.mtime_s, entry.mtime_ns));
        Ok(())
    }

    fn make<R: Read>(
        &mut self,
        entry: &Entry,
        path: &[u8],
        parent: &OwnedFd,
        name: &[u8],
        archive: &mut TarReader<R>,
    ) -> Outcome<()> {
        self.note_made(path);
        match entry.kind {
            EntryKind::Directory => {
                if self.make_directory(parent, name)? == Made::AboveWhiteout {
                    self.make_opaque(parent, name)?;
                }
                self.times.push((path.to_vec(), entry.mtime_s, entry.mtime_ns));
                return self.attributes(entry, parent, name);
            }
            EntryKind::HardLink => return self.hard_link(entry, parent, name),
            EntryKind::File => {
                self.remove_old(parent, name)?;
                self.file(entry, parent, name, archive)?;
            }
            EntryKind::Symlink => {
                self.remove_old(parent, name)?;
                rustix::fs::symlinkat(&*entry.link, parent, name).map_err(errno("cannot make the symbolic link"))?;
            }
            EntryKind::Fifo => {
                self.remove_old(parent, name)?;
                rustix::fs::mknodat(parent, name, FileType::Fifo, Mode::RUSR, 0)
                    .map_err(errno("cannot make the FIFO"))?;
            }
            EntryKind::CharacterDevice | EntryKind::BlockDevice => {
                if !self.device(entry, parent, name)? {
                    return Ok(());
                }
            }
        }
        self.attributes(entry, parent, name)?;
        tree::set_mtime(parent, name, entry.mtime_s, entry.mtime_ns).map_err(EntryErrorKind::io("cannot set its time"))
    }

    /// Only real root may make device nodes; they are inert, as the store cannot be entered by others and containers mount
    /// it without devices. 0:0 would be a whiteout of overlayfs and is left out.
    fn device(&mut self, entry: &Entry, parent: &OwnedFd, name: &[u8]) -> Outcome<bool> {
        let kind = if entry.kind == EntryKind::BlockDevice { FileType::BlockDevice } else { FileType::CharacterDevice };
        let number = rustix::fs::makedev(entry.major, entry.minor);
        if number == 0 {
            self.skipped.devices += 1;
            return Ok(false);
        }
        self.remove_old(parent, name)?;
        match rustix::fs::mknodat(parent, name, kind, Mode::RUSR, number) {
            Ok(()) => Ok(true),
            Err(Errno::PERM) => {
                self.skipped.devices += 1;
                Ok(false)
            }
            Err(other) => Err(errno("cannot make the device node")(other)),
        }
    }

    fn file<R: Read>(
        &mut self,
        entry: &Entry,
        parent: &OwnedFd,
        name: &[u8],
        archive: &mut TarReader<R>,
    ) -> Outcome<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR).map_err(errno("cannot make the file"))?;
        let mut file = File::from(file);
        let mut write = || -> io::Result<()> {
            let Some(pieces) = &entry.pieces else {
                return copy(archive, &mut file, u64::MAX, &mut self.chunk);
            };
            for (offset, length) in pieces {
                file.seek(SeekFrom::Start(*offset))?;
                copy(archive, &mut file, *length, &mut self.chunk)?;
            }
            file.set_len(entry.size)
        };
        write().map_err(EntryErrorKind::io("cannot write its content"))?;
        self.flusher.take(&file, entry.size);
        Ok(())
    }

    fn hard_link(&mut self, entry: &Entry, parent: &OwnedFd, name: &[u8]) -> Outcome<()> {
        let target = clean(&entry.link);
        let (target_parent_path, target_name) = split(&target);
        if target_name.is_empty() {
            return Err(EntryErrorKind::Refused("it is a hard link to the root"));
        }
        let no_target = || EntryErrorKind::NoLinkTarget(String::from_utf8_lossy(&entry.link).into_owned());
        let (source, stat) = match self.look_up(target_parent_path, target_name)? {
            Some(found) => found,
            None => self.copy_up(&target)?.ok_or_else(no_target)?,
        };
        if tree::kind(&stat).is_dir() {
            return Err(EntryErrorKind::Refused("it is a hard link to a directory"));
        }
        let old = tree::stat_at(parent, name).map_err(EntryErrorKind::io("cannot look at what is there"))?;
        if old.is_some_and(|old| (old.st_dev, old.st_ino) == (stat.st_dev, stat.st_ino)) {
            return Ok(());
        }
        self.remove_old(parent, name)?;
        rustix::fs::linkat(&source, target_name, parent, name, AtFlags::empty())
            .map_err(errno("cannot make the hard link"))
    }

    /// What this layer has at a path; a whiteout counts as nothing.
    fn look_up(&self, parent: &[u8], name: &[u8]) -> Outcome<Option<(OwnedFd, rustix::fs::Stat)>> {
        let parent = match tree::open_in_root(&self.root, parent, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(parent) => parent,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(other) => return Err(errno("cannot find the link's target")(other)),
        };
        let stat = tree::stat_at(&parent, name).map_err(EntryErrorKind::io("cannot look at the link's target"))?;
        Ok(stat.filter(|stat| !tree::is_whiteout(stat)).map(|stat| (parent, stat)))
    }

    /// A link cannot cross layers: the lower file is copied to its own path in this layer first, as overlayfs does.
    fn copy_up(&mut self, target: &[u8]) -> Outcome<Option<(OwnedFd, rustix::fs::Stat)>> {
        let found = self.below.find(target).map_err(EntryErrorKind::io("cannot look for the link's target below"))?;
        let Some(found) = found.filter(|found| !tree::kind(&found.stat).is_dir()) else { return Ok(None) };
        let (parent_path, name) = split(target);
        let parent = self.parent(parent_path)?;
        // A whiteout in this very layer: then the target is gone.
        if tree::stat_at(&parent, name).map_err(EntryErrorKind::io("cannot look at the link's target"))?.is_some() {
            return Ok(None);
        }
        tree::copy_entry(&found.parent, &found.name, &parent, name, &found.stat, self.options)
            .map_err(EntryErrorKind::io("cannot copy the link's target up"))?;
        self.note_made(target);
        self.look_up(parent_path, name)
    }

    /// Owner, mode, extended attributes; in the order that keeps set-id bits and capabilities.
    fn attributes(&mut self, entry: &Entry, parent: &OwnedFd, name: &[u8]) -> Outcome<()> {
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        match rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::PERM | Errno::INVAL) if self.options.ignore_chown_errors => self.skipped.owners += 1,
            Err(other) => return Err(errno("cannot set its owner")(other)),
        }
        if entry.kind != EntryKind::Symlink {
            let mode = Mode::from_raw_mode(entry.mode);
            rustix::fs::chmodat(parent, name, mode, AtFlags::empty()).map_err(errno("cannot set its mode"))?;
        }
        let attributes: tree::Attributes =
            entry.attributes.iter().filter(|(name, _)| !tree::is_overlay_attribute(name)).cloned().collect();
        if attributes.is_empty() {
            return Ok(());
        }
        tree::write_attributes(parent.as_fd(), name, &attributes, self.options, &mut self.skipped)
            .map_err(EntryErrorKind::io("cannot set its extended attributes"))
    }

    fn note_made(&mut self, path: &[u8]) {
        if self.is_full {
            let mut end = path.len();
            // Its parents count as made too: a whiteout of one of them clears it, but keeps this entry.
            while end > 0 && self.made.insert(self.hasher.hash_one(&path[..end])) {
                end = split(&path[..end]).0.len();
            }
        }
    }
}

fn copy<R: Read>(archive: &mut TarReader<R>, file: &mut File, mut length: u64, chunk: &mut [u8]) -> io::Result<()> {
    while length > 0 {
        let wanted = usize::try_from(length).unwrap_or(usize::MAX).min(chunk.len());
        match archive.read_data(&mut chunk[..wanted])? {
            0 => break,
            read => {
                file.write_all(&chunk[..read])?;
                length -= read as u64;
            }
        }
    }
    Ok(())
}

fn check_limits(entry: &Entry, entries: u64, bytes: u64) -> Outcome<()> {
    let depth = entry.path.split(|b| *b == b'/').filter(|part| !part.is_empty()).count();
    let limit = |what, limit| Err(EntryErrorKind::Limit { what, limit });
    if entry.path.len() > PATH_BYTES_MAX || entry.link.len() > PATH_BYTES_MAX {
        return limit("its path or link is too long, in bytes", PATH_BYTES_MAX as u64);
    }
    if depth > DEPTH_MAX {
        return limit("it lies too deep", DEPTH_MAX as u64);
    }
    if entries > ENTRIES_MAX {
        return limit("the layer has too many entries", ENTRIES_MAX);
    }
    if bytes > BYTES_MAX {
        return limit("the layer's files have too many bytes", BYTES_MAX);
    }
    if entry.path.contains(&0) || entry.link.contains(&0) {
        return Err(EntryErrorKind::Refused("its name holds a NUL byte"));
    }
    Ok(())
}
