//! Looking into the merged tree of a snapshot without mounting anything.

use std::{fs::File, os::fd::AsFd as _, path::Path};

use rustix::fs::{FileType, Mode, OFlags};

use crate::{
    SnapshotId, Store, StoreError,
    tree::{self, View, join},
};

/// Links that are followed for one path, as many as the kernel follows.
const LINKS_MAX: usize = 40;

impl Store {
    /// Copies a directory of the merged tree, with owners and modes, onto an empty one. False when there is no such directory.
    pub fn copy_directory(&self, top: &SnapshotId, path: &str, to: &Path) -> Result<bool, StoreError> {
        let view = View::open(&self.lowers(top)?)?;
        let at = |source| StoreError::At { action: "copy", path: path.into(), source };
        let parts = view.directory(&tree::clean(path.as_bytes())).map_err(at)?;
        let Some(uppermost) = parts.first() else { return Ok(false) };
        let to = tree::open_dir(to)?;
        for part in parts.iter().rev() {
            tree::merge_copy_at(part.as_fd(), to.as_fd(), self.inner.options).map_err(at)?;
        }
        tree::copy_attributes(uppermost, &to, self.inner.options).map_err(at)?;
        Ok(true)
    }

    /// Opens a regular file of the merged tree; links are followed inside of it. `None` when there is no such file.
    pub fn open_in(&self, top: &SnapshotId, path: &str) -> Result<Option<File>, StoreError> {
        let view = View::open(&self.lowers(top)?)?;
        let at = |source| StoreError::At { action: "look at", path: path.into(), source };
        let mut path = tree::clean(path.as_bytes());
        for _ in 0..LINKS_MAX {
            let Some(found) = view.find(&path).map_err(at)? else { return Ok(None) };
            match tree::kind(&found.stat) {
                FileType::RegularFile => {
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                    let file = rustix::fs::openat(&found.parent, found.name.as_slice(), flags, Mode::empty());
                    return file.map(|file| Some(File::from(file))).map_err(|errno| at(errno.into()));
                }
                FileType::Symlink => {
                    let target = rustix::fs::readlinkat(&found.parent, found.name.as_slice(), Vec::new());
                    let target = target.map_err(|errno| at(errno.into()))?.into_bytes();
                    let whole = if target.starts_with(b"/") { target } else { join(tree::split(&path).0, &target) };
                    path = tree::clean(&whole);
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }
}
