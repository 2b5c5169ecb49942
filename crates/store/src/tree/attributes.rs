//! Extended attributes, overlayfs' own marks, and copying what is not content.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};

use super::proc_path;
use crate::{Skipped, StoreOptions};

/// Name and value, sorted by name.
pub(crate) type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// The kernel's bound on the list and on one value (XATTR_LIST_MAX, XATTR_SIZE_MAX).
const ATTRIBUTE_BYTES_MAX: usize = 64 * 1024;

/// A value of this size has room in every file system in use (ext4: one block for all of a file's attributes).
const ATTRIBUTE_FITS_BYTES: usize = 2048;

/// Attributes by which overlayfs itself keeps book: never in a layer, never from a layer.
pub(crate) fn is_overlay_attribute(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// Those of a file's extended attributes that belong into a layer: capabilities and the user's own. What the host adds
/// (SELinux labels, inherited ACLs, overlay marks) does not, or the same input would give other digests elsewhere.
pub(crate) fn read_attributes(parent: impl AsFd, name: &[u8]) -> io::Result<Attributes> {
    let path = proc_path(parent, name);
    read(&|names| rustix::fs::llistxattr(&*path, names), &|name, value| rustix::fs::lgetxattr(&*path, name, value))
}

/// The same of a file or directory that is open for reading: no path has to be walked.
pub(crate) fn read_attributes_of(file: impl AsFd) -> io::Result<Attributes> {
    let file = file.as_fd();
    read(&|names| rustix::fs::flistxattr(file, names), &|name, value| rustix::fs::fgetxattr(file, name, value))
}

type List<'a> = &'a dyn Fn(&mut [u8]) -> Result<usize, Errno>;
type Get<'a> = &'a dyn Fn(&[u8], &mut [u8]) -> Result<usize, Errno>;

fn read(list: List<'_>, get: Get<'_>) -> io::Result<Attributes> {
    let Some(names) = whole(&mut |buffer| list(buffer))? else { return Ok(Vec::new()) };
    let mut attributes = Vec::new();
    for name in names.split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let wanted = name == b"security.capability" || name.starts_with(b"user.");
        if !wanted || is_overlay_attribute(name) {
            continue;
        }
        if let Some(value) = whole(&mut |buffer| get(name, buffer))? {
            let value = if name == b"security.capability" { without_namespace(value) } else { value };
            attributes.push((name.to_vec(), value));
        }
    }
    attributes.sort_unstable();
    Ok(attributes)
}

/// What such a call gives, asked with a small buffer first: most files have no attributes at all. `None`: nothing is there.
fn whole(ask: &mut dyn FnMut(&mut [u8]) -> Result<usize, Errno>) -> io::Result<Option<Vec<u8>>> {
    let mut small = [0_u8; 256];
    match ask(&mut small) {
        Ok(length) => return Ok(Some(small[..length].to_vec())),
        Err(Errno::NODATA | Errno::NOTSUP) => return Ok(None),
        Err(Errno::RANGE) => {}
        Err(errno) => return Err(errno.into()),
    }
    let mut large = vec![0_u8; ATTRIBUTE_BYTES_MAX];
    let length = ask(&mut large)?;
    large.truncate(length);
    Ok(Some(large))
}

/// A capability set inside a user namespace carries that namespace's root id (version 3); in a layer it is version 2,
/// which is the same without the id (linux/capability.h).
fn without_namespace(mut value: Vec<u8>) -> Vec<u8> {
    if value.len() == 24 && value[3] == 3 {
        value[3] = 2;
        value.truncate(20);
    }
    value
}

/// Sets attributes of a layer's entry. Refused ones are counted; `security.capability` only where chown may fail too.
pub(crate) fn write_attributes(
    parent: impl AsFd,
    name: &[u8],
    attributes: &Attributes,
    options: StoreOptions,
    skipped: &mut Skipped,
) -> io::Result<()> {
    let path = proc_path(parent, name);
    for (attribute, value) in attributes {
        match rustix::fs::lsetxattr(&*path, &**attribute, value, XattrFlags::empty()) {
            Ok(()) => {}
            // File systems say so as well of a value that is too large for them, on however empty a disk.
            Err(errno @ (Errno::NOSPC | Errno::DQUOT)) if value.len() < ATTRIBUTE_FITS_BYTES => {
                return Err(errno.into());
            }
            Err(Errno::IO) => return Err(Errno::IO.into()),
            Err(errno) if attribute == b"security.capability" && !options.ignore_chown_errors => {
                return Err(errno.into());
            }
            Err(_) => skipped.attributes += 1,
        }
    }
    Ok(())
}

/// overlayfs hides a lower name behind a character device 0:0.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub(crate) fn make_whiteout(parent: impl AsFd, name: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)?)
}

fn opaque_name(options: StoreOptions) -> &'static str {
    if options.user_xattr { "user.overlay.opaque" } else { "trusted.overlay.opaque" }
}

/// Whether a directory hides everything below it in the chain. Either mark counts, as a store may have seen both users.
pub(crate) fn is_opaque(directory: impl AsFd) -> io::Result<bool> {
    for name in ["trusted.overlay.opaque", "user.overlay.opaque"] {
        let mut value = [0_u8; 4];
        match rustix::fs::fgetxattr(directory.as_fd(), name, value.as_mut_slice()) {
            Ok(1) if value[0] == b'y' => return Ok(true),
            Ok(_) | Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(false)
}

pub(crate) fn make_opaque(directory: impl AsFd, options: StoreOptions) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(directory, opaque_name(options), b"y", XattrFlags::empty())?)
}

/// Gives directory `to` the owner, mode and extended attributes of directory `from`; not its times.
pub(crate) fn copy_attributes(from: &OwnedFd, to: &OwnedFd, options: StoreOptions) -> io::Result<()> {
    let (stat, old) = (rustix::fs::fstat(from)?, rustix::fs::fstat(to)?);
    let mut skipped = Skipped::default();
    if (stat.st_uid, stat.st_gid) != (old.st_uid, old.st_gid) {
        let changed = rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
        if !options.ignore_chown_errors {
            changed?;
        }
    }
    if stat.st_mode != old.st_mode {
        rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    }
    let attributes = read_attributes(from, b".")?;
    write_attributes(to, b".", &attributes, options, &mut skipped)
}

/// Whether two directories agree in what [`copy_attributes`] copies.
pub(crate) fn same_attributes(one: &OwnedFd, other: &OwnedFd) -> io::Result<bool> {
    let (a, b) = (rustix::fs::fstat(one)?, rustix::fs::fstat(other)?);
    Ok((a.st_mode, a.st_uid, a.st_gid) == (b.st_mode, b.st_uid, b.st_gid)
        && read_attributes(one, b".")? == read_attributes(other, b".")?)
}

/// Sets owner, mode and modification time of a name that is already there, in the order that keeps set-id bits.
pub(crate) fn set_stat(parent: impl AsFd, name: &[u8], stat: &Stat, options: StoreOptions) -> io::Result<()> {
    let parent = parent.as_fd();
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    let owned = rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
    if !options.ignore_chown_errors {
        owned?;
    }
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        rustix::fs::chmodat(parent, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
    }
    Ok(())
}

pub(crate) fn set_mtime(parent: impl AsFd, name: &[u8], seconds: i64, nanoseconds: u32) -> io::Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
