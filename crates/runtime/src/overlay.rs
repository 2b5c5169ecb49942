//! overlayfs: mounted as detached mounts, from descriptors, with any number of layers that the kernel takes.

use crate::{
    error::MountError,
    protocol::{Failure, Step},
    sys,
};
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, openat, openat2, statx},
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_fd,
        fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
    },
};
use serde::{Deserialize, Serialize};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

/// The kernel's own bound (`OVL_MAX_STACK`).
pub(crate) const LOWERS_MAX: usize = 500;

/// Whatever the kernel was built with: layers that a differ can read (no renames by reference, no contents elsewhere), and
/// no following of such notes in layers that others made.
const PLAIN_LAYERS: &[(&str, &str)] = &[("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off")];

/// An overlay mount as data. `lowers[0]` is the topmost. 500 lowers work with the new mount API; kernels whose overlayfs
/// does not know `lowerdir+` (before 6.8) take what fits in one page, about 200.
///
/// Mounted `volatile`: the end of a container does not sync the file system (which would write out whatever anybody has
/// written to that disk). Who wants changes to survive a power loss syncs them when keeping them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    /// Read-only layers, the topmost first; at least one.
    pub lowers: Vec<PathBuf>,
    /// Where changes go. `None`: read-only view.
    pub upper: Option<PathBuf>,
    /// overlayfs' scratch directory on the same mount as `upper`; used for one mount at a time.
    pub work: Option<PathBuf>,
}

impl Overlay {
    /// A detached mount (fsmount), attached nowhere, gone when the descriptor closes; usable with openat2 and *at calls
    /// (as with `O_PATH`: to list the root, open `.` in it). One lower without upper is the directory itself. Used by COPY to look at the merged parent.
    ///
    /// # Errors
    /// When a layer is missing or the kernel refuses the overlay.
    pub fn open_view(&self) -> Result<OwnedFd, MountError> {
        if let ([only], None) = (self.lowers.as_slice(), &self.upper) {
            return Ok(open_directory(only).step_at("open the layer", only)?);
        }
        let layers = Layers::open(self, None)?;
        Ok(layers.mount()?)
    }
}

/// Whether overlayfs can be mounted on this directory's file system by this process (tried once, really).
pub fn overlay_works(dir: &Path) -> bool {
    try_overlay(dir).is_ok()
}

/// Mounts a tiny overlay below `dir`.
pub(crate) fn try_overlay(dir: &Path) -> Result<(), MountError> {
    let scratch = dir.join(format!(".overlay-try-{}", std::process::id()));
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| scratch.join(name));
    let attempt = (|| {
        for made in [&scratch, &lower, &upper, &work] {
            std::fs::create_dir_all(made).step_at("make a directory for a trial overlay", made)?;
        }
        let view = Overlay { lowers: vec![lower], upper: Some(upper), work: Some(work) }.open_view()?;
        // Writing is where file systems without the needed attributes show.
        rustix::fs::mkdirat(&view, "made", Mode::from_raw_mode(0o755)).step("write to a trial overlay")?;
        Ok(())
    })();
    // Best effort: what is left is empty directories in the store.
    drop(std::fs::remove_dir_all(&scratch));
    attempt
}

/// Opened layers, ready to mount.
pub(crate) struct Layers {
    lowers: Vec<OwnedFd>,
    upper: Option<(OwnedFd, OwnedFd)>,
    /// Seen through mapped mounts.
    mapped: bool,
}

impl Layers {
    /// Opens the directories; through mounts whose ids are mapped by `userns`, if given.
    ///
    /// The mapped trees are attached to the caller's mount namespace (stacked on `/`, where no path leads to), because
    /// kernels before 6.15 refuse detached layers. So with a `userns` the caller must have a mount namespace of its own.
    pub(crate) fn open(overlay: &Overlay, userns: Option<BorrowedFd<'_>>) -> Result<Layers, Failure> {
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        if overlay.lowers.is_empty() || overlay.lowers.len() > LOWERS_MAX {
            return Err(invalid()).step(&format!("mount an overlay of {} layers (1 to 500)", overlay.lowers.len()));
        }
        if overlay.upper.is_some() != overlay.work.is_some() {
            return Err(invalid()).step("mount an overlay with an upper but no work directory, or the reverse");
        }
        let mut paths: Vec<&Path> = overlay.lowers.iter().map(PathBuf::as_path).collect();
        paths.extend(overlay.upper.as_deref());
        paths.extend(overlay.work.as_deref());
        if let Some(work) = &overlay.work {
            // The mark that a volatile mount leaves would refuse the next one. It says that the layer may be incomplete
            // after a crash, which is the caller's to know.
            let mark = work.join("work/incompat/volatile");
            if std::fs::remove_file(mark.join("dirty")).is_ok() || mark.exists() {
                drop(std::fs::remove_dir(&mark));
                drop(std::fs::remove_dir(work.join("work/incompat")));
            }
        }
        let quickly = match userns {
            Some(userns) => idmapped_in_one_tree(&paths, userns)?,
            None => None,
        };
        let mut fds = match quickly {
            Some(fds) => fds,
            None => {
                let open = |path: &&Path| open_directory(path).step_at("open the layer", path);
                let fds = paths.iter().map(open).collect::<Result<Vec<OwnedFd>, Failure>>()?;
                match userns {
                    Some(userns) => idmapped(&fds, userns)?,
                    None => fds,
                }
            }
        };
        let upper = if overlay.upper.is_some() {
            let work = fds.pop();
            fds.pop().zip(work)
        } else {
            None
        };
        Ok(Layers { lowers: fds, upper, mapped: userns.is_some() })
    }

    /// The overlay as a detached mount, `nodev`.
    pub(crate) fn mount(&self) -> Result<OwnedFd, Failure> {
        if let ([only], None) = (self.lowers.as_slice(), &self.upper) {
            // overlayfs wants at least two layers.
            let mount = clone_mount(only.as_fd(), false).step("mount the layer")?;
            sys::mount_attributes(mount.as_fd(), sys::MOUNT_ATTR_NODEV, false).step("mount the layer")?;
            return Ok(mount);
        }
        if self.mapped {
            sys::with_file_ids(crate::enter::SHIFTED_BASE, || self.mount_as_we_are())
                .step("take the ids of the container")?
        } else {
            self.mount_as_we_are()
        }
    }

    fn mount_as_we_are(&self) -> Result<OwnedFd, Failure> {
        match self.mount_new() {
            Ok(mount) => Ok(mount),
            // `lowerdir+` is newer than the mount API itself (6.8).
            Err(first) if first.errno == libc::EINVAL || first.errno == libc::ENOSYS => {
                self.mount_classic().map_err(|_| first)
            }
            Err(error) => Err(error),
        }
    }

    fn mount_new(&self) -> Result<OwnedFd, Failure> {
        const STEP: &str = "mount the overlay";
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).step(STEP)?;
        fsconfig_set_string(&fs, "source", "overlay").step(STEP)?;
        // Kernels before 6.14 take no descriptor that was opened as a path only.
        let mut by_descriptor = true;
        let mut set = |key: &str, dir: &OwnedFd| {
            if by_descriptor && fsconfig_set_fd(&fs, key, dir).is_ok() {
                return Ok(());
            }
            by_descriptor = false;
            // A path through /proc is short whatever the store is called; the kernel takes 255 bytes here.
            fsconfig_set_string(&fs, key, fd_path(dir.as_fd())).step(STEP)
        };
        for lower in &self.lowers {
            set("lowerdir+", lower)?;
        }
        if let Some((upper, work)) = &self.upper {
            set("upperdir", upper)?;
            set("workdir", work)?;
        }
        if self.upper.is_some() {
            fsconfig_set_flag(&fs, "volatile").step(STEP)?;
        }
        for (key, value) in PLAIN_LAYERS {
            fsconfig_set_string(&fs, *key, *value).step(STEP)?;
        }
        if in_user_namespace() {
            fsconfig_set_flag(&fs, "userxattr").step(STEP)?;
        }
        if let Err(error) = fsconfig_create(&fs) {
            return Err(io::Error::from(error)).step(&format!("{STEP}{}", kernel_message(&fs)));
        }
        fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV).step(STEP)
    }

    /// With mount(2): all options in one page, and a place in the tree for a moment.
    pub(crate) fn mount_classic(&self) -> Result<OwnedFd, Failure> {
        const STEP: &str = "mount the overlay the old way";
        let lowers: Vec<String> = self.lowers.iter().map(|fd| fd_path(fd.as_fd())).collect();
        let mut options = format!("lowerdir={}", lowers.join(":"));
        if let Some((upper, work)) = &self.upper {
            options.push_str(&format!(",upperdir={},workdir={}", fd_path(upper.as_fd()), fd_path(work.as_fd())));
        }
        for (key, value) in PLAIN_LAYERS {
            options.push_str(&format!(",{key}={value}"));
        }
        if in_user_namespace() {
            options.push_str(",userxattr");
        }
        // The place: a directory that every system has. Only this process' mount namespace sees it, and only for a
        // moment; threads that look at /sys meanwhile would be surprised, so they wait.
        static PLACE: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let place = std::ffi::OsStr::new("/sys/kernel");
        let guard = PLACE.lock();
        sys::mount_old("overlay", place, "overlay", libc::MS_NODEV, &options).step(STEP)?;
        let clone = open_tree(CWD, place, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC);
        let unmounted = rustix::mount::unmount(place, rustix::mount::UnmountFlags::DETACH);
        drop(guard);
        unmounted.step(STEP)?;
        clone.step(STEP)
    }
}

/// Attaches a detached mount where no path leads to, so that kernels which want it attached are content.
pub(crate) fn attach_hidden(mount: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_mount(mount, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// A detached copy of the mount at `fd` (which may be a file), with what is mounted below if `recursive`.
pub(crate) fn clone_mount(fd: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(open_tree(fd, "", flags)?)
}

/// Whether our root is not the real one. Then overlayfs keeps its notes in `user.*` attributes.
pub(crate) fn in_user_namespace() -> bool {
    static ANSWER: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *ANSWER.get_or_init(|| !crate::enter::uid_map_is_whole())
}

/// The same as [`idmapped`], for layers that lie as in a store: below one directory, without links or other mounts on the
/// way. `None` where they do not.
fn idmapped_in_one_tree(paths: &[&Path], userns: BorrowedFd<'_>) -> Result<Option<Vec<OwnedFd>>, Failure> {
    let Some((first, others)) = paths.split_first() else { return Ok(None) };
    let ancestor = others.iter().fold(first.to_path_buf(), |ancestor, path| common_ancestor(&ancestor, path));
    let Ok(tree) = open_directory(&ancestor) else { return Ok(None) };
    let below = |dir: &OwnedFd, path: &Path| {
        let below = path.strip_prefix(&ancestor).unwrap_or(path);
        let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        openat2(dir, below, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve)
    };
    // In the clone a directory on which something is mounted would be found without that.
    if paths.iter().any(|path| below(&tree, path).is_err()) {
        return Ok(None);
    }
    let clone = idmapped_tree(&tree, &ancestor, userns)?;
    Ok(paths.iter().map(|path| below(&clone, path)).collect::<Result<Vec<_>, _>>().ok())
}

/// A copy of the mount of `source`, opened by `path`, with its ids mapped, attached where no path leads to.
fn idmapped_tree(source: &OwnedFd, path: &Path, userns: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    const STEP: &str = "map the ids of a layer";
    let clone = clone_mount(source.as_fd(), false).step_at(STEP, path)?;
    sys::idmap_mount(clone.as_fd(), userns, false)
        .step_at(STEP, path)
        .map_err(|failure| Failure { kind: crate::protocol::FailureKind::NoIdmap, ..failure })?;
    attach_hidden(clone.as_fd()).step_at(STEP, path)?;
    Ok(clone)
}

/// The same directories, seen through mounts whose ids are mapped: one clone for each mount that they lie on, made of the
/// deepest directory that all of its layers share.
fn idmapped(fds: &[OwnedFd], userns: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, Failure> {
    const STEP: &str = "map the ids of a layer";
    struct Tree {
        mount_id: u64,
        ancestor: PathBuf,
    }
    let mut trees: Vec<Tree> = Vec::new();
    let mut places: Vec<(usize, PathBuf)> = Vec::with_capacity(fds.len());
    for fd in fds {
        let mount_id = statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).step(STEP)?.stx_mnt_id;
        let path = std::fs::read_link(fd_path(fd.as_fd())).step(STEP)?;
        match trees.iter_mut().position(|tree| tree.mount_id == mount_id) {
            Some(index) => {
                trees[index].ancestor = common_ancestor(&trees[index].ancestor, &path);
                places.push((index, path));
            }
            None => {
                trees.push(Tree { mount_id, ancestor: path.clone() });
                places.push((trees.len() - 1, path));
            }
        }
    }
    let mut clones = Vec::with_capacity(trees.len());
    for tree in &trees {
        let source = open_directory(&tree.ancestor).step_at(STEP, &tree.ancestor)?;
        clones.push(idmapped_tree(&source, &tree.ancestor, userns)?);
    }
    places
        .iter()
        .map(|(index, path)| {
            let below = path.strip_prefix(&trees[*index].ancestor).unwrap_or(Path::new(""));
            let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            openat(&clones[*index], below, flags, Mode::empty()).step_at(STEP, path)
        })
        .collect()
}

fn common_ancestor(one: &Path, other: &Path) -> PathBuf {
    one.components().zip(other.components()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

pub(crate) fn fd_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// What the kernel has to say about a refused mount, from the log of its descriptor.
fn kernel_message(fs: &OwnedFd) -> String {
    let mut buffer = [0u8; 256];
    match rustix::io::read(fs, &mut buffer) {
        Ok(length) if length > 2 => format!(" ({})", String::from_utf8_lossy(&buffer[2..length]).trim()),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ancestors_end_at_whole_names() {
        let ancestor = |one, other| common_ancestor(Path::new(one), Path::new(other));
        assert_eq!(ancestor("/store/a/fs", "/store/ab/fs"), Path::new("/store"));
        assert_eq!(ancestor("/a", "/b"), Path::new("/"));
        assert_eq!(ancestor("/a/b", "/a/b"), Path::new("/a/b"));
    }

    #[test]
    fn too_many_layers_are_named() {
        let overlay = Overlay { lowers: vec![PathBuf::from("/"); 501], upper: None, work: None };
        let error = overlay.open_view().expect_err("too many");
        assert!(error.to_string().contains("501"), "{error}");
    }

    #[test]
    fn the_old_call_mounts_as_well() {
        if !rustix::process::geteuid().is_root() {
            return testkit::skip("only root mounts an overlay outside of a user namespace");
        }
        let dir = std::env::temp_dir().join(format!("runtime-classic-{}", std::process::id()));
        let names: Vec<PathBuf> = (0..127).map(|number| dir.join(format!("lower-{number}"))).collect();
        for name in names.iter().chain([&dir.join("upper"), &dir.join("work")]) {
            std::fs::create_dir_all(name).expect("writable");
            std::fs::write(name.join(name.file_name().expect("a name")), "").expect("writable");
        }
        // A thread of its own, since it gets a mount namespace of its own.
        let overlay = Overlay { lowers: names, upper: Some(dir.join("upper")), work: Some(dir.join("work")) };
        std::thread::spawn(move || {
            sys::unshare(libc::CLONE_NEWNS).expect("a mount namespace");
            sys::set_propagation(libc::MS_PRIVATE).expect("private mounts");
            let mount = Layers::open(&overlay, None).and_then(|layers| layers.mount_classic()).expect("an overlay");
            for name in ["lower-0", "lower-126", "upper"] {
                rustix::fs::statat(&mount, name, AtFlags::empty()).expect(name);
            }
        })
        .join()
        .expect("no panic");
        std::fs::remove_dir_all(dir).expect("removable");
    }
}
