//! Small moves with mounts, all by descriptor, so that no path is looked up twice.

use crate::{
    overlay::clone_mount,
    protocol::{Failure, Step},
};
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
        fsconfig_set_string, fsmount, fsopen, move_mount,
    },
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Puts a detached mount on a place.
pub(super) fn attach(mount: BorrowedFd<'_>, place: BorrowedFd<'_>, what: &str) -> Result<(), Failure> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", place, "", flags).step(&format!("mount {what}"))
}

/// A new file system, detached. Options without a value are flags.
pub(super) fn file_system(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    // What /proc/mounts shows as the device.
    fsconfig_set_string(&fs, "source", kind)?;
    for (key, value) in options {
        if value.is_empty() {
            fsconfig_set_flag(&fs, *key)?;
        } else {
            fsconfig_set_string(&fs, *key, *value)?;
        }
    }
    fsconfig_create(&fs)?;
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// A name below `dir` by `O_PATH`, following no link of any kind.
pub(super) fn open_exactly(dir: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(dir, path, OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty(), resolve)
}

/// A detached mount of a host device, or `None` where the host has no such device.
pub(super) fn host_device(path: &str) -> Result<Option<OwnedFd>, Failure> {
    let Ok(device) = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()) else {
        return Ok(None);
    };
    if FileType::from_raw_mode(fstat(&device).step_at("look at the device", path)?.st_mode) != FileType::CharacterDevice
    {
        return Ok(None);
    }
    clone_mount(device.as_fd(), false).step_at("mount the device", path).map(Some)
}
