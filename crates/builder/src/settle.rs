//! File times of a finished step: none is later than the build's epoch.
//!
//! This happens when a step is made, not when its layer is sealed: a layer that is taken from the cache by a later build
//! with a later epoch keeps its digest, and a registry that has it is not sent it again.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, futimens, openat, utimensat};
use store::{ActiveSnapshot, Store};

use crate::{
    copy::timestamps,
    tree::{self, Entry, Keep, Time},
};

/// Begins the names by which a layer says what is gone (image-spec, "Whiteouts"): no file can have such a name.
pub(crate) const WHITEOUT_PREFIX: &[u8] = b".wh.";

/// The epoch as a file time.
pub(crate) fn time(epoch: SystemTime) -> Time {
    let seconds = epoch.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    (i64::try_from(seconds).unwrap_or(i64::MAX), 0)
}

/// Sets times that are later than the epoch to it, in everything that the step wrote. Where each snapshot is a copy of the
/// whole root nothing tells what that is, and sealing does the same for the layer.
pub(crate) fn settle(store: &Store, active: &ActiveSnapshot, epoch: SystemTime) -> io::Result<()> {
    if store.options().copy_snapshots { Ok(()) } else { Written::find(active)?.settle(epoch) }
}

/// What a step wrote; where each snapshot is a copy, the whole root.
pub(crate) struct Written {
    upper: OwnedFd,
    entries: Vec<Entry>,
}

impl Written {
    pub(crate) fn find(active: &ActiveSnapshot) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let upper = openat(CWD, active.upper(), flags, Mode::empty())?;
        let entries = tree::scan(upper.as_fd(), b"", &|_| Keep::Yes)?;
        Ok(Self { upper, entries })
    }

    /// The first path whose name a layer cannot hold.
    pub(crate) fn reserved_name(&self) -> Option<&[u8]> {
        let is_reserved = |entry: &&Entry| tree::base_name(&entry.path).starts_with(WHITEOUT_PREFIX);
        self.entries.iter().find(is_reserved).map(|entry| entry.path.as_slice())
    }

    /// As [`settle`].
    pub(crate) fn settle(&self, epoch: SystemTime) -> io::Result<()> {
        let epoch = time(epoch);
        let mut directory: Option<(&[u8], OwnedFd)> = None;
        for entry in self.entries.iter().filter(|entry| entry.mtime > epoch) {
            if entry.path.is_empty() {
                futimens(&self.upper, &timestamps(epoch))?;
                continue;
            }
            let above = tree::parent(&entry.path);
            if directory.as_ref().is_none_or(|(path, _)| *path != above) {
                let opened = tree::open_beneath(self.upper.as_fd(), above, OFlags::PATH | OFlags::DIRECTORY)?;
                directory = Some((above, opened));
            }
            let at = &directory.as_ref().expect("just set").1;
            utimensat(at, tree::base_name(&entry.path), &timestamps(epoch), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|errno| tree::named(errno.into(), "set the time of", &entry.path))?;
        }
        Ok(())
    }
}

/// The same for the directories from the root of `upper` down to a canonical path.
pub(crate) fn settle_way(upper: &OwnedFd, path: &[u8], epoch: SystemTime) -> io::Result<()> {
    let epoch = time(epoch);
    let mut way = path;
    loop {
        if let Ok(directory) = tree::open_beneath(upper.as_fd(), way, OFlags::RDONLY | OFlags::DIRECTORY)
            && tree::mtime(&fstat(&directory)?) > epoch
        {
            futimens(&directory, &timestamps(epoch))?;
        }
        if way.is_empty() {
            return Ok(());
        }
        way = tree::parent(way);
    }
}
