//! Directories while unpacking: parents that the archive does not list, replacing, whiteouts, times.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use super::{EntryErrorKind, Outcome, Unpacker, errno};
use crate::tree::{self, clean, join, split};

/// Dangling links followed to make one parent, as many as the kernel follows.
const LINKS_MAX: usize = 40;

/// What making a directory met.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    New,
    WasThere,
    /// A whiteout of this layer stood there: the directory replaces the one below instead of being merged with it.
    AboveWhiteout,
}

impl Unpacker {
    /// The directory of an entry, made where it is missing.
    pub(super) fn parent(&mut self, path: &[u8]) -> Outcome<OwnedFd> {
        if let Some((known, parent)) = self.parent.take()
            && known == path
        {
            return Ok(parent);
        }
        let parent = self.open_or_make(path, 0)?;
        if self.is_full {
            self.note_time(&parent, path)?;
        }
        Ok(parent)
    }

    /// A directory of the copy that the archive does not list keeps its time, as a layer's own directory does.
    fn note_time(&mut self, directory: &OwnedFd, path: &[u8]) -> Outcome<()> {
        use std::hash::BuildHasher as _;
        if !self.is_made(path) && self.entered.insert(self.hasher.hash_one(path)) {
            let stat = rustix::fs::fstat(directory).map_err(errno("cannot look at its directory"))?;
            self.times.push((path.to_vec(), stat.st_mtime, stat.st_mtime_nsec as u32));
        }
        Ok(())
    }

    fn open_or_make(&mut self, path: &[u8], links: usize) -> Outcome<OwnedFd> {
        match tree::open_in_root(&self.root, path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(directory) => return Ok(directory),
            Err(Errno::NOENT) => {}
            // A whiteout of this layer has the kind of a device.
            Err(Errno::NOTDIR) if self.is_below_whiteout(path) => {}
            Err(Errno::NOTDIR) => return Err(EntryErrorKind::Refused("it lies below something that is no directory")),
            Err(Errno::LOOP) => return Err(EntryErrorKind::Refused("its directory is a loop of symbolic links")),
            Err(other) => return Err(errno("cannot open its directory")(other)),
        }
        let (above_path, name) = split(path);
        let above = self.open_or_make(above_path, links)?;
        match tree::stat_at(&above, name).map_err(EntryErrorKind::io("cannot look at its directory"))? {
            Some(stat) if tree::kind(&stat).is_symlink() => {
                // A link to a directory that this layer does not have (`/var/run` → `/run`): that one is made.
                if links == LINKS_MAX {
                    return Err(EntryErrorKind::Refused("its directory is a loop of symbolic links"));
                }
                let target =
                    rustix::fs::readlinkat(&above, name, Vec::new()).map_err(errno("cannot read a symbolic link"))?;
                let target = target.to_bytes();
                let target = if target.starts_with(b"/") { clean(target) } else { clean(&join(above_path, target)) };
                self.open_or_make(&target, links + 1)
            }
            _ => self.make_parent(&above, path, name),
        }
    }

    /// A directory that the archive does not list looks as it does below, or else plain.
    fn make_parent(&mut self, above: &OwnedFd, path: &[u8], name: &[u8]) -> Outcome<OwnedFd> {
        self.note_made(path);
        if self.make_directory(above, name)? == Made::AboveWhiteout {
            self.make_opaque(above, name)?;
        }
        let made = tree::open_dir_at(above, name).map_err(EntryErrorKind::io("cannot open its directory"))?;
        rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755)).map_err(errno("cannot set its directory's mode"))?;
        let below = self.below.find(path).map_err(EntryErrorKind::io("cannot look for its directory below"))?;
        let (mut mtime_s, mut mtime_ns) = (0, 0);
        if let Some(found) = below.filter(|found| tree::kind(&found.stat).is_dir()) {
            let look = tree::open_dir_at(&found.parent, &found.name)
                .and_then(|model| tree::copy_attributes(&model, &made, self.options));
            look.map_err(EntryErrorKind::io("cannot make its directory like the one below"))?;
            (mtime_s, mtime_ns) = (found.stat.st_mtime, found.stat.st_mtime_nsec as u32);
        }
        self.times.push((path.to_vec(), mtime_s, mtime_ns));
        Ok(made)
    }

    fn is_below_whiteout(&self, path: &[u8]) -> bool {
        let mut path = path;
        while !path.is_empty() {
            let (above, name) = split(path);
            if let Ok(above) = tree::open_in_root(&self.root, above, OFlags::PATH | OFlags::DIRECTORY) {
                return matches!(tree::stat_at(&above, name), Ok(Some(stat)) if tree::is_whiteout(&stat));
            }
            path = above;
        }
        false
    }

    pub(super) fn make_directory(&mut self, parent: &OwnedFd, name: &[u8]) -> Outcome<Made> {
        let old = tree::stat_at(parent, name).map_err(EntryErrorKind::io("cannot look at what is there"))?;
        let made = match old {
            Some(old) if tree::kind(&old).is_dir() => return Ok(Made::WasThere),
            Some(old) if tree::is_whiteout(&old) => Made::AboveWhiteout,
            _ => Made::New,
        };
        self.remove_old(parent, name)?;
        rustix::fs::mkdirat(parent, name, Mode::RWXU).map_err(errno("cannot make the directory"))?;
        Ok(made)
    }

    /// The last entry of a name wins.
    pub(super) fn remove_old(&mut self, parent: &OwnedFd, name: &[u8]) -> Outcome<()> {
        tree::remove_at(parent, name).map(drop).map_err(EntryErrorKind::io("cannot remove what is there"))
    }

    pub(super) fn make_opaque(&mut self, parent: &OwnedFd, name: &[u8]) -> Outcome<()> {
        if self.is_full {
            return Ok(());
        }
        tree::open_dir_at(parent, name)
            .and_then(|directory| tree::make_opaque(directory, self.options))
            .map_err(EntryErrorKind::io("cannot mark the directory as opaque"))
    }

    /// `.wh.NAME` hides NAME of the layers below, never what this layer itself has, in whatever order they come
    /// (image-spec, "Whiteouts").
    pub(super) fn whiteout(&mut self, parent: &OwnedFd, parent_path: &[u8], hidden: &[u8]) -> Outcome<()> {
        if hidden == b".wh..opq" {
            return if self.is_full { self.clear(parent, parent_path) } else { self.make_opaque(parent, b".") };
        }
        // Bookkeeping of AUFS (`.wh..wh.plnk`, `.wh..wh.aufs`), which old images carry.
        if hidden.starts_with(b".wh.") {
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(EntryErrorKind::Refused("it is a whiteout of no name"));
        }
        let path = join(parent_path, hidden);
        let there = tree::stat_at(parent, hidden).map_err(EntryErrorKind::io("cannot look at what is there"))?;
        match there {
            None if self.is_full => Ok(()),
            None => tree::make_whiteout(parent, hidden).map_err(EntryErrorKind::io("cannot make the whiteout")),
            Some(stat) if !self.is_full => {
                if tree::kind(&stat).is_dir() {
                    self.make_opaque(parent, hidden)
                } else {
                    Ok(())
                }
            }
            Some(_) if !self.is_made(&path) => self.remove_old(parent, hidden),
            Some(stat) if tree::kind(&stat).is_dir() => {
                let directory = tree::open_dir_at(parent, hidden).map_err(EntryErrorKind::io("cannot open it"))?;
                self.clear(&directory, &path)
            }
            Some(_) => Ok(()),
        }
    }

    fn is_made(&self, path: &[u8]) -> bool {
        use std::hash::BuildHasher as _;
        self.made.contains(&self.hasher.hash_one(path))
    }

    /// Removes from a copied directory what this layer did not make, at every depth.
    fn clear(&mut self, directory: &OwnedFd, path: &[u8]) -> Outcome<()> {
        let io = || EntryErrorKind::io("cannot clear an opaque directory");
        for name in tree::sorted_names(directory).map_err(io())? {
            let path = join(path, &name);
            if !self.is_made(&path) {
                self.remove_old(directory, &name)?;
            } else if let Ok(child) = tree::open_dir_at(directory.as_fd(), &name) {
                self.clear(&child, &path)?;
            }
        }
        Ok(())
    }

    /// Deepest last does not matter: setting one time does not touch another.
    pub(super) fn set_directory_times(&mut self) -> Outcome<()> {
        for (path, seconds, nanoseconds) in std::mem::take(&mut self.times) {
            let (above, name) = split(&path);
            let name = if name.is_empty() { b".".as_slice() } else { name };
            // A later entry may have replaced it.
            let Ok(above) = tree::open_in_root(&self.root, above, OFlags::PATH | OFlags::DIRECTORY) else { continue };
            let stat = tree::stat_at(&above, name).map_err(EntryErrorKind::io("cannot look at a directory"))?;
            if stat.is_some_and(|stat| tree::kind(&stat).is_dir()) {
                tree::set_mtime(&above, name, seconds, nanoseconds)
                    .map_err(EntryErrorKind::io("cannot set a directory's time"))?;
            }
        }
        Ok(())
    }
}
