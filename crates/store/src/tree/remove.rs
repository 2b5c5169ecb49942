//! Removing a tree whatever is in it: modes without access, depth without end, links to anywhere.

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags},
    io::Errno,
};

use super::{kind, open_dir_at, proc_path, stat_at};
use crate::StoreError;

/// One descriptor is held for each level. Deeper directories are first moved up, so that neither descriptors nor stack run out.
const DEPTH_MAX: usize = 64;
/// A directory is emptied again when something was put into it meanwhile; a writer that outruns this many rounds is alive.
const ROUNDS_MAX: usize = 1000;

/// Removes a file or a whole tree; nothing there is fine. Gives the bytes of disk that were freed (hard links not counted).
pub(crate) fn remove(path: &Path) -> Result<u64, StoreError> {
    let fail = |source| StoreError::At { action: "remove", path: path.to_owned(), source };
    remove_at(CWD, path.as_os_str().as_bytes()).map_err(fail)
}

/// As [`remove`], for a name in a directory.
pub(crate) fn remove_at(parent: impl AsFd, name: &[u8]) -> io::Result<u64> {
    let mut freed = 0;
    remove_entry(parent.as_fd(), name, None, 0, &mut freed)?;
    Ok(freed)
}

/// `top` is the root of the tree that goes away; too deep directories are moved there.
fn remove_entry(
    parent: BorrowedFd<'_>,
    name: &[u8],
    top: Option<BorrowedFd<'_>>,
    depth: usize,
    freed: &mut u64,
) -> io::Result<()> {
    let Some(stat) = stat_at(parent, name)? else { return Ok(()) };
    if !kind(&stat).is_dir() {
        if stat.st_nlink == 1 {
            *freed += stat.st_blocks as u64 * 512;
        }
        return absent_is_fine(rustix::fs::unlinkat(parent, name, AtFlags::empty()));
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        other => return absent_is_fine(other),
    }
    if depth >= DEPTH_MAX
        && let Some(top) = top
    {
        let moved = format!("deep-{:016x}", crate::store::random());
        return Ok(rustix::fs::renameat(parent, name, top, &*moved)?);
    }
    let directory = open_writable(parent, name)?;
    for _ in 0..ROUNDS_MAX {
        for entry in rustix::fs::Dir::read_from(&directory)? {
            let entry = entry?;
            let child = entry.file_name().to_bytes();
            if child != b"." && child != b".." {
                let top = top.unwrap_or_else(|| directory.as_fd());
                remove_entry(directory.as_fd(), child, Some(top), depth + 1, freed)?;
            }
        }
        match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            other => return absent_is_fine(other),
        }
    }
    Err(Errno::NOTEMPTY.into())
}

fn absent_is_fine(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens a directory that we mean to empty; an ordinary user first gives himself the right to.
fn open_writable(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let mode = rustix::fs::fstat(&handle)?.st_mode & 0o7777;
    if mode & 0o700 != 0o700 {
        // A path through the descriptor cannot be swapped for a link.
        rustix::fs::chmod(&*proc_path(&handle, b"."), Mode::from_raw_mode(mode | 0o700))
            .or_else(|_| rustix::fs::chmodat(parent, name, Mode::from_raw_mode(0o700), AtFlags::empty()))?;
    }
    open_dir_at(&handle, b".")
}

/// Bytes of disk that a tree takes (hard links counted once for each name).
pub(crate) fn size_of(path: &Path) -> u64 {
    fn walk(directory: &OwnedFd, depth: usize) -> io::Result<u64> {
        let mut bytes = 0;
        for name in super::sorted_names(directory)? {
            let Some(stat) = stat_at(directory, &name)? else { continue };
            bytes += stat.st_blocks as u64 * 512;
            if kind(&stat).is_dir()
                && depth < DEPTH_MAX * 4
                && let Ok(child) = open_dir_at(directory, &name)
            {
                bytes += walk(&child, depth + 1)?;
            }
        }
        Ok(bytes)
    }
    open_dir_at(CWD, path.as_os_str().as_bytes()).and_then(|directory| walk(&directory, 0)).unwrap_or(0)
}
