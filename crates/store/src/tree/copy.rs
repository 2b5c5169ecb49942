//! Copies of files and trees, for hosts without overlayfs and for hard links into lower layers.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat},
    io::Errno,
};

use super::{
    attributes::{set_mtime, set_stat},
    is_opaque, is_whiteout, kind, open_dir, open_dir_at, read_attributes, remove_at, sorted_names, stat_at,
    write_attributes,
};
use crate::{Skipped, StoreOptions};

/// One descriptor pair is held for each level.
const DEPTH_MAX: usize = 400;

/// Copies the content of one layer's directory onto `to`: whiteouts remove, opaque directories replace, the rest is merged.
pub(crate) fn merge_copy(from: &Path, to: &Path, options: StoreOptions) -> io::Result<()> {
    let (from, to) = (open_dir(from).map_err(io::Error::other)?, open_dir(to).map_err(io::Error::other)?);
    merge_copy_at(from.as_fd(), to.as_fd(), options)
}

/// The same for open directories.
pub(crate) fn merge_copy_at(from: BorrowedFd<'_>, to: BorrowedFd<'_>, options: StoreOptions) -> io::Result<()> {
    let mut copy = Copy { options, root: to, links: HashMap::new() };
    copy.directory(from, to, b"", 0)
}

struct Copy<'a> {
    options: StoreOptions,
    root: BorrowedFd<'a>,
    /// Where files with several names went: device and inode to path below the target's root.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl Copy<'_> {
    fn directory(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, path: &[u8], depth: usize) -> io::Result<()> {
        if depth > DEPTH_MAX {
            return Err(Errno::NAMETOOLONG.into());
        }
        for name in sorted_names(from)? {
            let Some(stat) = stat_at(from, &name)? else { continue };
            let old = stat_at(to, &name)?;
            let both_directories = old.as_ref().is_some_and(|old| kind(old).is_dir()) && kind(&stat).is_dir();
            if old.is_some() && !both_directories {
                remove_at(to, &name)?;
            }
            if is_whiteout(&stat) {
                continue;
            }
            let path = super::join(path, &name);
            if !kind(&stat).is_dir() {
                self.file(from, to, &name, &stat, path)?;
                continue;
            }
            let source = open_dir_at(from, &name)?;
            if both_directories && is_opaque(&source)? {
                remove_at(to, &name)?;
                rustix::fs::mkdirat(to, &*name, Mode::RWXU)?;
            } else if !both_directories {
                rustix::fs::mkdirat(to, &*name, Mode::RWXU)?;
            }
            self.directory(source.as_fd(), open_dir_at(to, &name)?.as_fd(), &path, depth + 1)?;
            let mut skipped = Skipped::default();
            set_stat(to, &name, &stat, self.options)?;
            write_attributes(to, &name, &read_attributes(from, &name)?, self.options, &mut skipped)?;
            set_mtime(to, &name, stat.st_mtime, stat.st_mtime_nsec as u32)?;
        }
        Ok(())
    }

    fn file(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &[u8],
        stat: &Stat,
        path: Vec<u8>,
    ) -> io::Result<()> {
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                return Ok(rustix::fs::linkat(self.root, &**first, to, name, AtFlags::empty())?);
            }
            self.links.insert((stat.st_dev, stat.st_ino), path);
        }
        copy_entry(from, name, to, name, stat, self.options)
    }
}

/// Copies one entry that is no directory, with owner, mode, extended attributes and time. Nothing is at the target.
pub(crate) fn copy_entry(
    from: impl AsFd,
    name: &[u8],
    to: impl AsFd,
    to_name: &[u8],
    stat: &Stat,
    options: StoreOptions,
) -> io::Result<()> {
    let (from, to) = (from.as_fd(), to.as_fd());
    match kind(stat) {
        FileType::RegularFile => copy_content(from, name, to, to_name)?,
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(target, to, to_name)?;
        }
        // A socket means nothing without the process that listens.
        FileType::Socket => return Ok(()),
        other => match rustix::fs::mknodat(to, to_name, other, Mode::RUSR | Mode::WUSR, stat.st_rdev) {
            Err(Errno::PERM) if other != FileType::Fifo => return Ok(()),
            made => made?,
        },
    }
    set_stat(to, to_name, stat, options)?;
    write_attributes(to, to_name, &read_attributes(from, name)?, options, &mut Skipped::default())?;
    set_mtime(to, to_name, stat.st_mtime, stat.st_mtime_nsec as u32)
}

pub(crate) fn copy_content(from: BorrowedFd<'_>, name: &[u8], to: BorrowedFd<'_>, to_name: &[u8]) -> io::Result<()> {
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let source = rustix::fs::openat(from, name, read, Mode::empty())?;
    let target = rustix::fs::openat(to, to_name, write, Mode::RUSR | Mode::WUSR)?;
    if rustix::fs::ioctl_ficlone(&target, &source).is_ok() {
        return Ok(());
    }
    let (mut source, mut target) = (std::fs::File::from(source), std::fs::File::from(target));
    io::copy(&mut source, &mut target).map(drop)
}
