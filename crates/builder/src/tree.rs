//! Looking into directory trees that others wrote: every path is opened beneath the tree's root, links are resolved by
//! ourselves, and a link that is swapped meanwhile makes an error, never a way out.

mod scan;

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{Dir, FileType, Mode, OFlags, ResolveFlags, Stat, openat2, readlinkat},
    io::Errno,
};

/// As many links as the kernel follows in one path (path_resolution(7)).
const LINKS_MAX: usize = 40;
/// `openat2` says EAGAIN when a rename elsewhere might have interfered; it is not an answer, so it is asked again.
const RACE_RETRIES: usize = 64;

pub(crate) use scan::scan;

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Dir,
    Symlink,
    Char,
    Block,
    Fifo,
    Socket,
}

impl Kind {
    pub(crate) fn of(mode: u32) -> Self {
        match FileType::from_raw_mode(mode) {
            FileType::Directory => Self::Dir,
            FileType::Symlink => Self::Symlink,
            FileType::CharacterDevice => Self::Char,
            FileType::BlockDevice => Self::Block,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            _ => Self::File,
        }
    }

    /// One letter for key lists, as `ls` shows it.
    pub(crate) fn letter(self) -> char {
        match self {
            Self::File => '-',
            Self::Dir => 'd',
            Self::Symlink => 'l',
            Self::Char => 'c',
            Self::Block => 'b',
            Self::Fifo => 'p',
            Self::Socket => 's',
        }
    }
}

/// Seconds and nanoseconds since 1970.
pub(crate) type Time = (i64, u32);

/// One file of a tree with everything that `lstat` says.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Relative to where the scan began; empty for that place itself.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    /// The twelve permission bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) inode: u64,
    pub(crate) device: u64,
    /// Names that the file has.
    pub(crate) links: u64,
    pub(crate) mtime: Time,
    pub(crate) ctime: Time,
    /// Where a symbolic link points.
    pub(crate) link: Vec<u8>,
    /// SHA-256 of content (and of extended attributes, if any), once it is known.
    pub(crate) digest: Option<[u8; 32]>,
}

impl Entry {
    pub(crate) fn new(path: Vec<u8>, stat: &Stat, link: Vec<u8>) -> Self {
        Self {
            path,
            kind: Kind::of(stat.st_mode),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: stat.st_size.try_into().unwrap_or(0),
            inode: stat.st_ino,
            device: stat.st_rdev,
            links: stat.st_nlink,
            mtime: mtime(stat),
            ctime: (stat.st_ctime, stat.st_ctime_nsec as u32),
            link,
            digest: None,
        }
    }
}

pub(crate) fn mtime(stat: &Stat) -> Time {
    (stat.st_mtime, stat.st_mtime_nsec as u32)
}

/// What stands at one path.
pub(crate) struct Node {
    pub(crate) stat: Stat,
    pub(crate) kind: Kind,
    pub(crate) link: Vec<u8>,
}

/// Opens a canonical path (no links, no `..`) beneath `root`; the last part is not followed either.
pub(crate) fn open_beneath(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..RACE_RETRIES {
        match openat2(root, path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            other => return Ok(other?),
        }
    }
    Err(Errno::AGAIN.into())
}

/// Opens a file by a path with links, all of them resolved as if `root` were `/`. For reading `/etc/passwd` of an image.
pub(crate) fn open_in_root(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..RACE_RETRIES {
        match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            other => return Ok(other?),
        }
    }
    Err(Errno::AGAIN.into())
}

/// What stands at a canonical path; `None` when nothing does.
pub(crate) fn lookup(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<Option<Node>> {
    let descriptor = match open_beneath(root, path, OFlags::PATH) {
        Ok(descriptor) => descriptor,
        Err(error) => {
            return match Errno::from_io_error(&error) {
                // LOOP: a part that was no link a moment ago is one now; to us it is gone.
                Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
                _ => Err(error),
            };
        }
    };
    let stat = rustix::fs::fstat(&descriptor)?;
    let kind = Kind::of(stat.st_mode);
    let link = match kind {
        Kind::Symlink => readlinkat(&descriptor, c"", Vec::new())?.into_bytes(),
        _ => Vec::new(),
    };
    Ok(Some(Node { stat, kind, link }))
}

/// A path after all links were followed.
pub(crate) struct Resolved {
    /// Canonical, relative to the root, no `.` or `..`, empty for the root.
    pub(crate) path: Vec<u8>,
    /// What stands there, if anything.
    pub(crate) node: Option<Node>,
}

/// Follows links in `path` as if the tree's root were `/`. What does not exist is kept as it is written.
pub(crate) fn resolve(path: &[u8], mut lookup: impl FnMut(&[u8]) -> io::Result<Option<Node>>) -> io::Result<Resolved> {
    let mut pending: Vec<Vec<u8>> = parts(path).rev().map(<[u8]>::to_vec).collect();
    let mut done: Vec<Vec<u8>> = Vec::new();
    let mut links = 0;
    let mut node = None;
    let mut is_missing = false;
    while let Some(part) = pending.pop() {
        if part == b".." {
            done.pop();
            is_missing = false;
            node = None;
            continue;
        }
        done.push(part);
        if is_missing {
            continue;
        }
        node = lookup(&done.join(&b'/'))?;
        match &node {
            None => is_missing = true,
            Some(found) if found.kind == Kind::Symlink => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Errno::LOOP.into());
                }
                if found.link.starts_with(b"/") {
                    done.clear();
                } else {
                    done.pop();
                }
                pending.extend(parts(&found.link).rev().map(<[u8]>::to_vec));
                node = None;
            }
            Some(_) => {}
        }
    }
    let path = done.join(&b'/');
    if node.is_none() && !is_missing {
        node = lookup(&path)?;
    }
    Ok(Resolved { path, node })
}

/// Parts of a path without empty ones and `.`.
pub(crate) fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}

/// `directory/name`, where an empty directory is the root.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() {
        return name.to_vec();
    }
    if name.is_empty() {
        return directory.to_vec();
    }
    [directory, b"/", name].concat()
}

/// The last part of a path; empty for the root.
pub(crate) fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// Everything but the last part; empty for the root.
pub(crate) fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(b"", |at| &path[..at])
}

/// What a filter says about a path of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// It belongs to the tree.
    Yes,
    /// It does not, but something below it may.
    Below,
    /// Neither it nor anything below.
    No,
}

/// Names in a directory with the type that the file system tells along with them.
pub(crate) fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<(Vec<u8>, FileType)>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push((name.to_vec(), entry.file_type()));
        }
    }
    Ok(names)
}

/// An error that says on which path of the tree it happened.
pub(crate) fn named(error: io::Error, action: &str, path: &[u8]) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {action} `{}`: {error}", show(path)))
}

/// A path for messages: control characters and bytes that are not UTF-8 are escaped.
pub(crate) fn show(path: &[u8]) -> String {
    if path.is_empty() {
        return ".".into();
    }
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() { text.extend(character.escape_default()) } else { text.push(character) }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}
