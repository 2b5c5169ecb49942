//! Mount points: found inside the root without ever leaving it, made where absent, and removed again afterwards.
//!
//! A `RUN true` on an empty base must leave an empty upper directory, or the image would get `/proc`, `/dev` and
//! `/etc/hosts` that nobody asked for. So every mount point that we make is noted down, with the directories that
//! overlayfs copied up for it; and [`remove`] takes away what is still exactly as we left it.

use crate::protocol::{Failure, Step};
use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, StatxFlags, Timespec, Timestamps, UTIME_OMIT, fstat,
        mkdirat, openat, openat2, readlinkat, statat, statx, unlinkat, utimensat,
    },
    io::Errno,
};
use serde::{Deserialize, Serialize};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// A mount point that we made, or a directory that changed because of one. Paths are relative to the root, free of links.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stub {
    Made { path: String, meta: Meta },
    Touched { path: String, before: Meta, after: Meta },
}

/// What tells whether somebody else has changed a file since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Meta {
    fn of(stat: &Stat) -> Meta {
        Meta {
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (stat.st_mtime, stat.st_mtime_nsec.cast_signed()),
            ctime: (stat.st_ctime, stat.st_ctime_nsec.cast_signed()),
        }
    }

    fn same_owner_and_mode(&self, other: &Meta) -> bool {
        (self.mode, self.uid, self.gid) == (other.mode, other.uid, other.gid)
    }
}

/// What a mount point must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    Directory,
    /// Anything that is no directory.
    File,
    /// A directory, and no link on the way: for the places whose meaning the kernel or we rely on.
    RealDirectory,
}

/// Finds and makes mount points below a root, whose contents are not to be trusted.
pub(crate) struct Places<'a> {
    root: BorrowedFd<'a>,
    made: Vec<(String, OwnedFd)>,
    touched: Vec<(String, OwnedFd, Meta)>,
}

/// Most symbolic links on one way, as the kernel's own `MAXSYMLINKS`.
const LINKS_MAX: usize = 40;

impl<'a> Places<'a> {
    pub(crate) fn new(root: BorrowedFd<'a>) -> Places<'a> {
        Places { root, made: Vec::new(), touched: Vec::new() }
    }

    /// A descriptor (`O_PATH`) of the place `target`; what is missing is made, and noted as a stub.
    pub(crate) fn mount_point(&mut self, target: &str, want: Want) -> Result<OwnedFd, Failure> {
        self.walk(target, want, true).step_at("make the mount point", target)
    }

    /// The same for a directory that stays.
    pub(crate) fn lasting_directory(&mut self, target: &str) -> Result<OwnedFd, Failure> {
        self.walk(target, Want::Directory, false).step_at("make the working directory", target)
    }

    /// The notes, to be taken when all is made.
    pub(crate) fn stubs(&self) -> Result<Vec<Stub>, Failure> {
        const STEP: &str = "look at a mount point";
        let mut stubs = Vec::with_capacity(self.made.len() + self.touched.len());
        for (path, fd) in &self.made {
            stubs.push(Stub::Made { path: path.clone(), meta: Meta::of(&fstat(fd).step_at(STEP, path)?) });
        }
        for (path, fd, before) in &self.touched {
            let after = Meta::of(&fstat(fd).step_at(STEP, path)?);
            stubs.push(Stub::Touched { path: path.clone(), before: before.clone(), after });
        }
        Ok(stubs)
    }

    /// One name after the other, each opened without following links, links expanded by hand: `..` goes back on our own
    /// stack, so that no path can leave the root.
    fn walk(&mut self, target: &str, want: Want, note: bool) -> io::Result<OwnedFd> {
        let mut stack: Vec<(String, OwnedFd)> = Vec::new();
        let mut names: Vec<String> = target.split('/').rev().map(str::to_owned).collect();
        let mut links = 0;
        while let Some(name) = names.pop() {
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    stack.pop();
                    continue;
                }
                _ => {}
            }
            let dir = stack.last().map_or(self.root, |(_, fd)| fd.as_fd());
            let last = names.iter().all(|name| name.is_empty() || name == ".");
            let fd = match open_path(dir, &name) {
                Err(Errno::NOENT) => {
                    if note {
                        let path_so_far: Vec<&str> = stack.iter().map(|(name, _)| name.as_str()).collect();
                        self.note_touched(&path_so_far, &stack)?;
                    }
                    let dir = stack.last().map_or(self.root, |(_, fd)| fd.as_fd());
                    let fd = make(dir, &name, last && want == Want::File)?;
                    if note {
                        let path = stack.iter().map(|(name, _)| name.as_str()).chain([name.as_str()]);
                        self.made.push((path.collect::<Vec<_>>().join("/"), fd.try_clone()?));
                    }
                    fd
                }
                result => result?,
            };
            match FileType::from_raw_mode(fstat(&fd)?.st_mode) {
                FileType::Symlink if want == Want::RealDirectory => {
                    return Err(io::Error::from_raw_os_error(libc::ELOOP));
                }
                FileType::Symlink => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(io::Error::from_raw_os_error(libc::ELOOP));
                    }
                    let text = readlinkat(&fd, "", Vec::new())?
                        .into_string()
                        .map_err(|_| io::Error::from_raw_os_error(libc::EILSEQ))?;
                    if text.starts_with('/') {
                        stack.clear();
                    }
                    names.extend(text.split('/').rev().map(str::to_owned));
                }
                FileType::Directory => stack.push((name, fd)),
                _ if last && want == Want::File => return Ok(fd),
                _ => return Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
            }
        }
        if want == Want::File {
            return Err(io::Error::from_raw_os_error(libc::EISDIR));
        }
        match stack.pop() {
            Some((_, fd)) => Ok(fd),
            None => Err(io::Error::from_raw_os_error(libc::EBUSY)),
        }
    }

    /// Before something is made in the last directory of `stack`: it and its ancestors are about to be copied up.
    fn note_touched(&mut self, names: &[&str], stack: &[(String, OwnedFd)]) -> io::Result<()> {
        for depth in 0..=names.len() {
            let path = names[..depth].join("/");
            let known = self.touched.iter().any(|(known, _, _)| *known == path)
                || self.made.iter().any(|(known, _)| *known == path);
            if known {
                continue;
            }
            let fd = match depth.checked_sub(1) {
                Some(index) => stack[index].1.try_clone()?,
                None => openat(self.root, ".", PATH_FLAGS | OFlags::DIRECTORY, Mode::empty())?,
            };
            let before = Meta::of(&fstat(&fd)?);
            self.touched.push((path, fd, before));
        }
        Ok(())
    }
}

const PATH_FLAGS: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn open_path(dir: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    openat(dir, name, PATH_FLAGS, Mode::empty())
}

fn make(dir: BorrowedFd<'_>, name: &str, file: bool) -> io::Result<OwnedFd> {
    if file {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(dir, name, flags, Mode::from_raw_mode(0o644))?;
    } else {
        mkdirat(dir, name, Mode::from_raw_mode(0o755))?;
    }
    Ok(open_path(dir, name)?)
}

/// What [`remove`] must know about the directory that took the changes.
pub(crate) struct Ground {
    /// The upper directory, or the root file system itself if it is a plain directory.
    pub(crate) dir: OwnedFd,
    /// Directories in it were copied up by overlayfs.
    pub(crate) copied_up: bool,
    /// Nothing was in it when the container started.
    pub(crate) was_empty: bool,
    /// When the container started.
    pub(crate) started: Timespec,
}

/// Removes stubs that are still as we left them, with directories that were copied up only for them, and gives the others
/// their times back. The container has ended: nobody else changes anything, but everything may be a trap.
pub(crate) fn remove(ground: &Ground, stubs: &[Stub]) {
    struct Found<'a> {
        path: &'a str,
        fd: OwnedFd,
        before: &'a Meta,
        untouched: bool,
        removable: bool,
    }
    // First all looking, since removing changes times.
    let mut found: Vec<Found<'_>> = Vec::new();
    for stub in stubs {
        let Stub::Touched { path, before, after } = stub else { continue };
        let Ok(fd) = open_beneath(ground, path) else { continue };
        let Ok(stat) = fstat(&fd) else { continue };
        let now = Meta::of(&stat);
        let untouched = now.mtime == after.mtime && now.same_owner_and_mode(after);
        let removable =
            untouched && now.ctime == after.ctime && !path.is_empty() && ground.copied_up && is_new(ground, &fd);
        found.push(Found { path, fd, before, untouched, removable });
    }
    for stub in stubs.iter().rev() {
        let Stub::Made { path, meta } = stub else { continue };
        let _ = remove_made(ground, path, meta);
    }
    // Deepest first.
    found.sort_by_key(|entry| std::cmp::Reverse(entry.path.len()));
    for entry in &found {
        let (parent, name) = split(entry.path);
        let removed = entry.removable
            && open_beneath(ground, parent).is_ok_and(|parent| unlinkat(&parent, name, AtFlags::REMOVEDIR).is_ok());
        if !removed && entry.untouched {
            let times = Timestamps {
                last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ },
                last_modification: Timespec { tv_sec: entry.before.mtime.0, tv_nsec: entry.before.mtime.1 as _ },
            };
            // Through /proc, since an O_PATH descriptor cannot be changed directly.
            let path = crate::overlay::fd_path(entry.fd.as_fd());
            let _ = utimensat(rustix::fs::CWD, path, &times, AtFlags::empty());
        }
    }
}

fn remove_made(ground: &Ground, path: &str, meta: &Meta) -> Result<(), Errno> {
    let (parent, name) = split(path);
    let parent = open_beneath(ground, parent)?;
    let stat = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let now = Meta::of(&stat);
    if !now.same_owner_and_mode(meta) {
        return Ok(());
    }
    match FileType::from_raw_mode(stat.st_mode) {
        // Fails where the container left something in it, which is then worth keeping.
        FileType::Directory => unlinkat(&parent, name, AtFlags::REMOVEDIR),
        FileType::RegularFile if stat.st_size == 0 && stat.st_nlink == 1 && now.mtime == meta.mtime => {
            unlinkat(&parent, name, AtFlags::empty())
        }
        _ => Ok(()),
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// A directory below the ground, without following any link or crossing any mount.
fn open_beneath(ground: &Ground, path: &str) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { "." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(&ground.dir, path, PATH_FLAGS | OFlags::DIRECTORY, Mode::empty(), resolve)
}

/// Whether a directory of the upper layer came to be during this run.
fn is_new(ground: &Ground, fd: &OwnedFd) -> bool {
    if ground.was_empty {
        return true;
    }
    let Ok(stat) = statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BTIME) else { return false };
    stat.stx_mask & StatxFlags::BTIME.bits() != 0
        && (stat.stx_btime.tv_sec, i64::from(stat.stx_btime.tv_nsec)) >= (ground.started.tv_sec, ground.started.tv_nsec)
}
