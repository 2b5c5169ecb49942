//! What only the helper can open: the root file system and the sources of mounts, by their paths on the host.
//!
//! Everything becomes a detached mount, its ids mapped where the container has shifted ones, and travels to the
//! container's first process as a descriptor.

use super::{
    attach::{file_system, open_exactly},
    stubs::Ground,
};
use crate::{
    devices::{self, DevicePlan},
    enter,
    overlay::{Layers, Overlay, attach_hidden, clone_mount},
    protocol::{FDS_MAX, Failure, FailureKind, IdMode, MountSource, RootfsPlan, StartRequest, Step},
    sys,
};
use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, StatVfsMountFlags, Timespec, Uid, chmodat, chownat,
        fstat, fstatvfs, makedev, mknodat, openat, openat2,
    },
    mount::MountAttrFlags,
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

/// The mounts, the root first, the host's `/sys` last where that is wanted and possible.
pub(super) struct Opened {
    pub(super) fds: Vec<OwnedFd>,
    /// For each mount of the request: whether it has a descriptor, and is a directory.
    pub(super) kinds: Vec<Option<bool>>,
}

pub(super) fn open(
    request: &StartRequest,
    userns: Option<BorrowedFd<'_>>,
    warnings: &mut Vec<String>,
) -> Result<Opened, Failure> {
    // The root and `/sys` travel beside them.
    if request.mounts.len() + 2 > FDS_MAX {
        return Err(io::Error::from_raw_os_error(libc::E2BIG)).step("make so many mounts");
    }
    let mut fds = vec![root(request, userns)?];
    let mut kinds = Vec::with_capacity(request.mounts.len());
    for mount in &request.mounts {
        let opened = match &mount.source {
            MountSource::Tmpfs { .. } | MountSource::File { .. } => None,
            MountSource::Bind(path) => Some(bind(path, userns, warnings)?),
            MountSource::Overlay { overlay, subpath } => Some(overlay_part(overlay, subpath, userns)?),
            MountSource::Device(_) if request.foreign_runtime.is_some() => None,
            MountSource::Device(device) => {
                kinds.push(Some(false));
                // It keeps the one attribute that all others lose: it works.
                fds.push(self::device(device, request.ids, userns.is_some())?);
                continue;
            }
        };
        kinds.push(opened.as_ref().map(|(_, is_directory)| *is_directory));
        if let Some((fd, _)) = opened {
            let mut attributes = sys::MOUNT_ATTR_NODEV | sys::MOUNT_ATTR_NOSUID;
            if mount.readonly {
                attributes |= sys::MOUNT_ATTR_RDONLY;
            }
            sys::mount_attributes(fd.as_fd(), attributes, true)
                .step_at("set the attributes of the mount", &mount.target)?;
            fds.push(fd);
        }
    }
    fds.extend(host_sys(request));
    Ok(Opened { fds, kinds })
}

/// The host's sysfs for a container in the host's network, without the control groups and what else is mounted below it:
/// programs that look for their limits in the list of mounts, such as Java, would take them for their own and stumble.
/// In a user's namespace the kernel shows all or nothing; there the first process takes all.
fn host_sys(request: &StartRequest) -> Option<OwnedFd> {
    if request.network.is_own() {
        return None;
    }
    let source = openat(CWD, "/sys", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let clone = clone_mount(source.as_fd(), false).ok()?;
    let attributes = sys::MOUNT_ATTR_NODEV | sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NOEXEC;
    let readonly = if request.privileged { 0 } else { sys::MOUNT_ATTR_RDONLY };
    sys::mount_attributes(clone.as_fd(), attributes | readonly, false).ok()?;
    Some(clone)
}

/// Where mount points are cleaned up: nowhere if the root file system is a read-only view.
pub(super) fn ground(request: &StartRequest, started: Timespec) -> Option<Ground> {
    let (path, copied_up) = match &request.rootfs {
        RootfsPlan::Overlay(overlay) => (overlay.upper.as_deref()?, true),
        RootfsPlan::Dir(dir) => (dir.as_path(), false),
    };
    let dir = openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let was_empty = std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    Some(Ground { dir, copied_up, was_empty, started })
}

/// Room without which overlayfs cannot make its scratch directory.
const OVERLAY_ROOM_BYTES: u64 = 1024 * 1024;

/// overlayfs falls back to a read-only mount where it cannot make its scratch directory, and only the kernel's log says
/// so. A program would be told of a read-only file system where in truth the disk is full.
fn writable(mount: OwnedFd) -> Result<OwnedFd, Failure> {
    const STEP: &str = "mount an overlay that can be written";
    let state = fstatvfs(&mount).step(STEP)?;
    if !state.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(mount);
    }
    let is_full = state.f_bavail.saturating_mul(state.f_frsize) < OVERLAY_ROOM_BYTES || state.f_favail == 0;
    Err(io::Error::from_raw_os_error(if is_full { libc::ENOSPC } else { libc::EROFS })).step(STEP)
}

fn root(request: &StartRequest, userns: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Failure> {
    match &request.rootfs {
        RootfsPlan::Overlay(overlay) if overlay.upper.is_some() => {
            Layers::open(overlay, userns)?.mount().and_then(writable)
        }
        RootfsPlan::Overlay(overlay) => {
            // A view still needs a place where mount points can be made. It goes with the scratch directory.
            let [upper, work] = ["view-upper", "view-work"].map(|name| request.dir.join(name));
            for dir in [&upper, &work] {
                std::fs::create_dir_all(dir).step_at("make a directory for mount points", dir)?;
            }
            let lowers = overlay.lowers.clone();
            Layers::open(&Overlay { lowers, upper: Some(upper), work: Some(work) }, userns)?.mount().and_then(writable)
        }
        RootfsPlan::Dir(dir) => {
            let source = openat(CWD, dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .step_at("open the root file system", dir)?;
            let mount = clone_mount(source.as_fd(), true).step_at("mount the root file system", dir)?;
            if let Some(userns) = userns {
                sys::idmap_mount(mount.as_fd(), userns, true)
                    .step_at("map the ids of the root file system", dir)
                    .map_err(|failure| Failure { kind: FailureKind::NoIdmap, ..failure })?;
            }
            sys::mount_attributes(mount.as_fd(), sys::MOUNT_ATTR_NODEV, true)
                .step_at("set the attributes of the root file system", dir)?;
            Ok(mount)
        }
    }
}

/// A host file or directory, with what is mounted below it where that can be mapped as well.
fn bind(path: &Path, userns: Option<BorrowedFd<'_>>, warnings: &mut Vec<String>) -> Result<(OwnedFd, bool), Failure> {
    const STEP: &str = "mount from the host";
    let source = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step_at(STEP, path)?;
    let is_directory = is_directory(&source).step_at(STEP, path)?;
    let whole = clone_mount(source.as_fd(), true).step_at(STEP, path)?;
    let Some(userns) = userns else { return Ok((whole, is_directory)) };
    let Err(error) = sys::idmap_mount(whole.as_fd(), userns, true) else { return Ok((whole, is_directory)) };
    // Perhaps only something mounted below cannot be mapped.
    if let Ok(top) = clone_mount(source.as_fd(), false)
        && sys::idmap_mount(top.as_fd(), userns, false).is_ok()
    {
        warnings.push(format!("what is mounted below {} is not visible in the container", path.display()));
        return Ok((top, is_directory));
    }
    warnings.push(format!(
        "files of {} have foreign owners in the container: its file system cannot map ids ({error})",
        path.display()
    ));
    let whole = clone_mount(source.as_fd(), true).step_at(STEP, path)?;
    Ok((whole, is_directory))
}

/// A device: as real root a node of our own with the host's owner and permissions in the container's numbers, as docker makes
/// it. Whoever may make none shows the host's, with the rights that it gives to them.
fn device(device: &DevicePlan, ids: IdMode, is_shifted: bool) -> Result<OwnedFd, Failure> {
    use devices::STEP;
    let path = &device.source;
    if ids == IdMode::Inherited {
        let node = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step_at(STEP, path)?;
        return clone_mount(node.as_fd(), false).step_at(STEP, path);
    }
    const NODE: &str = "node";
    let memory = file_system("tmpfs", &[("mode", "0755"), ("size", "4096")], MountAttrFlags::MOUNT_ATTR_NOSUID)
        .step_at(STEP, path)?;
    let kind = if device.is_block { FileType::BlockDevice } else { FileType::CharacterDevice };
    let mode = Mode::from_raw_mode(device.mode);
    mknodat(&memory, NODE, kind, mode, makedev(device.major, device.minor)).step_at(STEP, path)?;
    let base = if is_shifted { enter::SHIFTED_BASE } else { 0 };
    let (uid, gid) = (Uid::from_raw(base.saturating_add(device.uid)), Gid::from_raw(base.saturating_add(device.gid)));
    chownat(&memory, NODE, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).step_at(STEP, path)?;
    // The umask has taken its share above.
    chmodat(&memory, NODE, mode, AtFlags::empty()).step_at(STEP, path)?;
    let node = open_exactly(memory.as_fd(), NODE).step_at(STEP, path)?;
    clone_mount(node.as_fd(), false)
        .or_else(|_| {
            // Kernels before 6.15 clone only from attached mounts.
            attach_hidden(memory.as_fd())?;
            clone_mount(node.as_fd(), false)
        })
        .step_at(STEP, path)
}

fn overlay_part(overlay: &Overlay, subpath: &str, userns: Option<BorrowedFd<'_>>) -> Result<(OwnedFd, bool), Failure> {
    const STEP: &str = "mount a part of an image";
    let mount = Layers::open(overlay, userns)?.mount()?;
    if subpath.trim_matches('/').is_empty() {
        return Ok((mount, true));
    }
    // Attached, since kernels before 6.15 clone only from attached mounts.
    attach_hidden(mount.as_fd()).step_at(STEP, subpath)?;
    let part = openat2(
        &mount,
        subpath,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
    .step_at(STEP, subpath)?;
    let is_directory = is_directory(&part).step_at(STEP, subpath)?;
    Ok((clone_mount(part.as_fd(), false).step_at(STEP, subpath)?, is_directory))
}

fn is_directory(fd: &OwnedFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Directory)
}
