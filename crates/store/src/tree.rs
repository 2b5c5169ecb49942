//! Directory trees whose content is not trusted: everything goes through descriptors, nothing follows links.

mod attributes;
mod copy;
mod merged;
mod remove;
mod view;

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    path::Path,
};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};

pub(crate) use attributes::{
    Attributes, copy_attributes, is_opaque, is_overlay_attribute, is_whiteout, make_opaque, make_whiteout,
    read_attributes, read_attributes_of, same_attributes, set_mtime, write_attributes,
};
pub(crate) use copy::{copy_content, copy_entry, merge_copy, merge_copy_at};
pub(crate) use merged::{DEPTH_MAX, Node, Slot, names, walk};
pub(crate) use remove::{remove, remove_at, size_of};
pub(crate) use view::{Found, View};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a directory by its path.
pub(crate) fn open_dir(path: &Path) -> Result<OwnedFd, crate::StoreError> {
    rustix::fs::open(path, DIRECTORY, Mode::empty()).map_err(crate::StoreError::at("open", path))
}

/// Opens a directory in another one, without following a link.
pub(crate) fn open_dir_at(parent: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())?)
}

/// Opens what `path` names inside `root`: links and `..` cannot leave it. Empty is the root itself.
pub(crate) fn open_in_root(root: impl AsFd, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { b".".as_slice() } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    retried(|| rustix::fs::openat2(root.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), resolve))
}

/// The kernel gives EAGAIN when any rename happens anywhere meanwhile (openat2(2)); other builds do rename.
pub(crate) fn retried<T>(open: impl Fn() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    for _ in 0..OPEN_ATTEMPTS {
        match open() {
            Err(rustix::io::Errno::AGAIN) => {}
            other => return other,
        }
    }
    Err(rustix::io::Errno::AGAIN)
}

/// Renames elsewhere can disturb a lookup; so many in a row are no accident.
const OPEN_ATTEMPTS: usize = 1000;

/// `lstat` of a name in a directory; `None` when there is nothing.
pub(crate) fn stat_at(parent: impl AsFd, name: &[u8]) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Names in a directory, sorted by bytes.
pub(crate) fn sorted_names(directory: impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// A path for calls that have no `*at` form; its last part is not followed by `l…` calls.
pub(crate) fn proc_path(parent: impl AsFd, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", parent.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

/// Lexically: `/a/./b/../c` is `a/c`, and nothing climbs above the root. No part of the result is empty, `.` or `..`.
pub(crate) fn clean(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

/// Parent and last part of a cleaned path.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(place) => (&path[..place], &path[place + 1..]),
        None => (b"", path),
    }
}

pub(crate) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, name].join(&b'/') }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaned_paths_stay_inside() {
        for (path, expected) in
            [("", ""), ("/", ""), ("./a", "a"), ("/a//b/", "a/b"), ("../../a", "a"), ("a/../../b", "b"), ("a/./..", "")]
        {
            assert_eq!(clean(path.as_bytes()), expected.as_bytes(), "{path}");
        }
        assert_eq!(split(b"a/b/c"), (b"a/b".as_slice(), b"c".as_slice()));
        assert_eq!(split(b"a"), (b"".as_slice(), b"a".as_slice()));
    }
}
