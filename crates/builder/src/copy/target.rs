//! The destination: a snapshot in the making, seen merged with what lies below it, written beneath its upper directory.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, Uid, fchmod, fchown, futimens, mkdirat, openat},
    io::Errno,
};
use store::ActiveSnapshot;

use super::owner;
use crate::{
    attributes,
    tree::{self, Kind, Node, Resolved, Time},
};

/// User and group ids.
pub(crate) type Owner = (u32, u32);
/// Directories that an instruction makes on its way have this mode, as docker's have.
const NEW_DIRECTORY_MODE: u32 = 0o755;

/// Where files are put.
pub(crate) struct Target {
    pub(crate) upper: OwnedFd,
    /// What lies below; `None` when nothing does, or when the upper directory is the whole root.
    pub(crate) view: Option<OwnedFd>,
}

impl Target {
    pub(crate) fn open(active: &ActiveSnapshot) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let upper = openat(CWD, active.upper(), flags, Mode::empty())
            .map_err(|errno| tree::named(errno.into(), "open", active.upper().as_os_str().as_encoded_bytes()))?;
        let view = match active.lowers() {
            [] => None,
            lowers => Some(super::source::open_view(lowers)?),
        };
        Ok(Self { upper, view })
    }

    /// What stands at a canonical path, above or below.
    pub(crate) fn lookup(&self, path: &[u8]) -> io::Result<Option<Node>> {
        match tree::lookup(self.upper.as_fd(), path)? {
            // The upper root stands for the merged one.
            Some(node) => Ok(Some(node)),
            None => self.lookup_below(path),
        }
    }

    pub(crate) fn lookup_below(&self, path: &[u8]) -> io::Result<Option<Node>> {
        match &self.view {
            Some(view) => tree::lookup(view.as_fd(), path),
            None => Ok(None),
        }
    }

    /// Follows links within the merged root.
    pub(crate) fn resolve(&self, path: &[u8]) -> io::Result<Resolved> {
        tree::resolve(path, |path| self.lookup(path))
    }

    /// The ids that `user[:group]` stands for; `None` for nobody, and for a name that the image does not know.
    pub(crate) fn owner(&self, text: &str) -> Option<Owner> {
        let root = self.view.as_ref().unwrap_or(&self.upper);
        (!text.is_empty()).then(|| owner::parse_owner(text, Some(root.as_fd())).ok()).flatten()
    }

    /// Puts a directory in the place of each link on the way to a clean path, which then has nothing but directories
    /// (Dockerfile reference, "COPY --link").
    pub(crate) fn replace_links(&self, path: &[u8]) -> io::Result<()> {
        let mut walked = Vec::new();
        for part in tree::parts(path) {
            walked = tree::join(&walked, part);
            match self.lookup(&walked)? {
                None => break,
                Some(node) if node.kind == Kind::Symlink => {}
                Some(_) => continue,
            }
            let above = self.ensure_dir(tree::parent(&walked), None)?;
            match rustix::fs::unlinkat(&above, part, AtFlags::empty()) {
                // The link is below: the directory alone hides it.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(tree::named(errno.into(), "replace the link", &walked)),
            }
            let fail = |error: io::Error| tree::named(error, "make directory", &walked);
            mkdirat(&above, part, Mode::from_raw_mode(0o700)).map_err(|errno| fail(errno.into()))?;
            let made = open_dir(above.as_fd(), part).map_err(|errno| fail(errno.into()))?;
            set_mode(&made, NEW_DIRECTORY_MODE).map_err(fail)?;
        }
        Ok(())
    }

    /// Makes the directory at a canonical path and those above it. One that exists below is made to look the same; a new
    /// one gets `owner`, or root.
    pub(crate) fn ensure_dir(&self, path: &[u8], owner: Option<Owner>) -> io::Result<OwnedFd> {
        let mut current = self.upper.try_clone()?;
        let mut walked = Vec::new();
        for part in tree::parts(path) {
            walked = tree::join(&walked, part);
            let (next, _) = self.enter(current.as_fd(), part, &walked, owner)?;
            current = next;
        }
        Ok(current)
    }

    /// Opens or makes the directory `name` in `above`; says whether it exists below too.
    pub(crate) fn enter(
        &self,
        above: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        owner: Option<Owner>,
    ) -> io::Result<(OwnedFd, bool)> {
        let below = self.lookup_below(path)?;
        let is_below = below.as_ref().is_some_and(|node| node.kind == Kind::Dir);
        let fail = |error: io::Error| tree::named(error, "make directory", path);
        match open_dir(above, name) {
            Ok(opened) => return Ok((opened, is_below)),
            Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(fail(not_a_directory())),
            Err(errno) => return Err(fail(errno.into())),
        }
        if below.is_some() && !is_below {
            return Err(fail(not_a_directory()));
        }
        mkdirat(above, name, Mode::from_raw_mode(0o700)).map_err(|errno| fail(errno.into()))?;
        let made = open_dir(above, name).map_err(|errno| fail(errno.into()))?;
        match below {
            Some(node) => {
                if let Some(view) = &self.view {
                    let lower = tree::open_beneath(view.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY)?;
                    attributes::copy(&lower, &made, false).map_err(fail)?;
                }
                set_owner(&made, (node.stat.st_uid, node.stat.st_gid)).map_err(fail)?;
                set_mode(&made, node.stat.st_mode & 0o7777).map_err(fail)?;
                set_time(&made, tree::mtime(&node.stat)).map_err(fail)?;
            }
            None => {
                set_owner(&made, owner.unwrap_or((0, 0))).map_err(fail)?;
                set_mode(&made, NEW_DIRECTORY_MODE).map_err(fail)?;
            }
        }
        Ok((made, is_below))
    }
}

fn not_a_directory() -> io::Error {
    io::Error::new(io::ErrorKind::NotADirectory, "there is something that is no directory")
}

fn open_dir(above: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(above, name, flags, Mode::empty())
}

/// Owners outside this user namespace cannot be set by an ordinary user with one id; the file then is root's. Who has no
/// user namespace at all can set none: the file is ours, and an image says root's, because all ids of the store are one.
fn may_do_without(owner: Owner) -> bool {
    owner != (0, 0) || !rustix::process::geteuid().is_root()
}

pub(crate) fn set_owner(file: &OwnedFd, owner: Owner) -> io::Result<()> {
    match fchown(file, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1))) {
        Err(Errno::INVAL | Errno::PERM) if may_do_without(owner) => Ok(()),
        other => Ok(other?),
    }
}

pub(crate) fn set_owner_of_link(above: BorrowedFd<'_>, name: &[u8], owner: Owner) -> io::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)));
    match rustix::fs::chownat(above, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::INVAL | Errno::PERM) if may_do_without(owner) => Ok(()),
        other => Ok(other?),
    }
}

pub(crate) fn set_mode(file: &OwnedFd, mode: u32) -> io::Result<()> {
    Ok(fchmod(file, Mode::from_raw_mode(mode))?)
}

pub(crate) fn timestamps(time: Time) -> Timestamps {
    let time = Timespec { tv_sec: time.0, tv_nsec: time.1.into() };
    Timestamps { last_access: time, last_modification: time }
}

pub(crate) fn set_time(file: &OwnedFd, time: Time) -> io::Result<()> {
    Ok(futimens(file, &timestamps(time))?)
}
