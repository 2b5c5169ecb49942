//! The first process of a container, from its birth in new namespaces until the program takes over.
//!
//! It is root of the container here: it makes the mounts, moves into the new root and closes the door behind itself. The
//! root file system may be hostile; nothing is looked up in it by a path that could leave it.

use super::{
    Stdio,
    attach::{attach, file_system, host_device, open_exactly},
    init, payload,
    stubs::{Places, Want},
};
use crate::{
    cgroup::Entrances,
    enter,
    overlay::{attach_hidden, clone_mount, fd_path},
    protocol::{Attached, Channel, Failure, FromInside, Go, IdMode, MountSource, NetworkPlan, StartRequest, Step},
    sys, sysctls,
};
use oci_spec::runtime::Spec;
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, fstat, mkdirat, openat, symlinkat},
    io::Errno,
    mount::MountAttrFlags,
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

/// What a first process knows from its helper, of which it is a copy.
pub(super) struct Birth<'a> {
    pub(super) request: &'a StartRequest,
    pub(super) spec: &'a Spec,
    pub(super) ids: IdMode,
    pub(super) helper: &'a Channel,
    pub(super) stdio: &'a Stdio,
    /// No control group counts the container's processes.
    pub(super) is_uncounted: bool,
}

/// Does everything; returns only with a failure.
pub(super) fn run(birth: &Birth<'_>, tell_status: Option<OwnedFd>, entrances: &mut Entrances) -> Failure {
    match prepare(birth, entrances) {
        Ok(terminal) => {
            let Some(process) = birth.spec.process() else {
                return Failure::new("find a process in the bundle", &io::Error::from_raw_os_error(libc::EINVAL));
            };
            let program = payload::Program {
                process,
                user: &birth.request.user,
                stdio: birth.stdio,
                is_uncounted: birth.is_uncounted,
                is_privileged: birth.request.privileged,
                terminal,
            };
            match tell_status {
                Some(tell_status) => init::run(program, tell_status),
                None => payload::run(program, payload::Parent::Helper(birth.helper)),
            }
        }
        Err(failure) => failure,
    }
}

/// Returns the slave side of the terminal, if one was asked for.
fn prepare(birth: &Birth<'_>, entrances: &mut Entrances) -> Result<Option<OwnedFd>, Failure> {
    let Birth { request, spec, ids, helper, stdio, .. } = birth;
    let mut warnings = Vec::new();
    entrances.enter(&mut warnings);
    sys::die_with_parent().step("tie the container to its helper")?;
    let go = helper.receive::<Go>().step("hear from the helper")?;
    let Some((go, fds)) = go else { sys::exit_now(0) };
    settle_in(*ids)?;
    // The signal would not have come if the helper had died before we asked for it.
    if helper.is_hung_up() {
        sys::exit_now(0);
    }
    rustix::process::umask(Mode::empty());
    sys::set_propagation(libc::MS_PRIVATE).step("make mounts private")?;
    sys::unshare(libc::CLONE_NEWCGROUP).step("make a control group namespace")?;

    let mut fds = fds.into_iter();
    let root = fds.next().ok_or_else(|| Failure::new("take the root", &io::Error::from_raw_os_error(libc::EBADF)))?;
    let mut sources: Sources =
        go.sources.iter().map(|kind| kind.and_then(|is_dir| Some((fds.next()?, is_dir)))).collect();
    let host_sys = fds.next();

    generate_files(request, &mut sources)?;
    attach_hidden(root.as_fd()).step("mount the root file system")?;
    let mut places = Places::new(root.as_fd());
    let built = build(request, spec, stdio, &mut places, sources, host_sys, &mut warnings);
    // Also after a failure: what was made is to be removed.
    let stubs = places.stubs()?;
    helper.send(&FromInside::Mounted { stubs, warnings }, &[]).step("report the mount points")?;
    drop(places);
    let Made { terminal, settings } = built?;

    if spec.root().as_ref().is_some_and(|root| root.readonly() == Some(true)) {
        sys::mount_attributes(root.as_fd(), sys::MOUNT_ATTR_RDONLY, false).step("make the root read-only")?;
    }
    move_in(&root)?;
    if let Some(hostname) = spec.hostname() {
        sys::set_hostname(hostname).step("set the host name")?;
    }
    if request.network == NetworkPlan::Joined && helper.receive::<Attached>().step("hear from the helper")?.is_none() {
        sys::exit_now(0);
    }
    // Behind the network's devices, which have parameters of their own.
    if let Some(settings) = settings {
        sysctls::write(settings.as_fd(), spec, |_| true)?;
    }
    Ok(match terminal {
        Some(Terminal { master, slave }) => {
            helper.send(&FromInside::Terminal, &[master.as_fd()]).step("send the terminal")?;
            Some(slave)
        }
        None => None,
    })
}

/// Becomes root of the user namespace, if there is a new one, with nothing left of the caller.
fn settle_in(ids: IdMode) -> Result<(), Failure> {
    match ids {
        IdMode::Shifted => sys::become_user(0, 0, Some(&[])).step("become root of the container")?,
        IdMode::Plain => sys::become_user(0, 0, Some(&[])).step("become root of the container")?,
        // With one id only, the kernel forbids setgroups; the groups then are the user's own anyway.
        IdMode::Inherited => {
            if sys::become_user(0, 0, Some(&[])).is_err() {
                sys::become_user(0, 0, None).step("become root of the container")?;
            }
        }
    }
    // A change of ids makes a process visible again and lets the kernel forget the signal.
    sys::hide_from_debuggers().step("hide from the container")?;
    sys::die_with_parent().step("tie the container to its helper")?;
    sys::fresh_session_keyring();
    Ok(())
}

/// What is needed after the mounts.
struct Made {
    terminal: Option<Terminal>,
    /// `/proc/sys` as it is below what makes it read-only, where parameters are to be set.
    settings: Option<OwnedFd>,
}

struct Terminal {
    master: OwnedFd,
    slave: OwnedFd,
}

/// Sources of the request's mounts as the helper opened them, with whether they are directories.
type Sources = Vec<Option<(OwnedFd, bool)>>;

fn build(
    request: &StartRequest,
    spec: &Spec,
    stdio: &Stdio,
    places: &mut Places<'_>,
    sources: Sources,
    host_sys: Option<OwnedFd>,
    warnings: &mut Vec<String>,
) -> Result<Made, Failure> {
    let proc = mount_proc(places)?;
    let sys_dir = mount_sys(places, host_sys, request.network.is_own(), request.privileged)?;
    let terminal = mount_dev(places, stdio, request.shm_size_bytes)?;
    if request.network.is_own() {
        sys::loopback_up().step("bring the loopback device up")?;
        open_network_settings(&proc);
    }
    for (mount, source) in request.mounts.iter().zip(sources) {
        let made = mount_one(places, &mount.target, &mount.source, mount.readonly, source);
        match made {
            Err(failure) if mount.optional => warnings.push(format!(
                "{} is not provided: cannot {} ({})",
                mount.target,
                failure.step,
                io::Error::from_raw_os_error(failure.errno)
            )),
            result => result?,
        }
    }
    let has_sysctls = spec.linux().as_ref().is_some_and(|linux| linux.sysctl().is_some());
    let settings = has_sysctls.then(|| open_exactly(proc.as_fd(), "sys").step("open /proc/sys")).transpose()?;
    restrict(spec, &proc, &sys_dir)?;
    if let Some(process) = spec.process() {
        places.lasting_directory_unless_root(process.cwd())?;
    }
    Ok(Made { terminal, settings })
}

fn mount_proc(places: &mut Places<'_>) -> Result<OwnedFd, Failure> {
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let proc = file_system("proc", &[], attributes).step("mount /proc")?;
    let place = places.mount_point("/proc", Want::RealDirectory)?;
    attach(proc.as_fd(), place.as_fd(), "/proc")?;
    Ok(proc)
}

/// A sysfs of the own network namespace, or the host's, read-only unless asked otherwise. Its control groups are the container's own, or hidden.
fn mount_sys(
    places: &mut Places<'_>,
    host_sys: Option<OwnedFd>,
    own_network: bool,
    writable: bool,
) -> Result<OwnedFd, Failure> {
    let mut attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    if !writable {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    let sole = if own_network { file_system("sysfs", &[], attributes).ok() } else { host_sys };
    let sysfs = match sole {
        Some(sysfs) => sysfs,
        None => {
            let host = openat(CWD, "/sys", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .step("open the host's /sys")?;
            let clone = clone_mount(host.as_fd(), true).step("mount the host's /sys")?;
            let mut bits = sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NODEV | sys::MOUNT_ATTR_NOEXEC;
            if !writable {
                bits |= sys::MOUNT_ATTR_RDONLY;
            }
            sys::mount_attributes(clone.as_fd(), bits, true).step("set the attributes of /sys")?;
            clone
        }
    };
    let place = places.mount_point("/sys", Want::RealDirectory)?;
    attach(sysfs.as_fd(), place.as_fd(), "/sys")?;
    if let Ok(place) = open_exactly(sysfs.as_fd(), "fs/cgroup") {
        const CGROUP2_MAGIC: i64 = 0x6367_7270;
        let is_unified = fstatfs_of("/sys/fs/cgroup").is_some_and(|magic| magic == CGROUP2_MAGIC);
        let groups = if is_unified { file_system("cgroup2", &[], attributes).ok() } else { None };
        let groups = match groups {
            Some(groups) => groups,
            None => file_system("tmpfs", &[("size", "0"), ("mode", "0555")], attributes).step("hide control groups")?,
        };
        attach(groups.as_fd(), place.as_fd(), "/sys/fs/cgroup")?;
    }
    Ok(sysfs)
}

fn fstatfs_of(path: &str) -> Option<i64> {
    let fd = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    sys::file_system_magic(fd.as_fd()).ok()
}

/// Devices every program may expect (runtime-spec, "Default Devices").
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Links every program may expect (runtime-spec, "Dev symbolic links").
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

fn mount_dev(places: &mut Places<'_>, stdio: &Stdio, shm_size_bytes: u64) -> Result<Option<Terminal>, Failure> {
    let nosuid = MountAttrFlags::MOUNT_ATTR_NOSUID;
    let data = nosuid | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let dev = file_system("tmpfs", &[("mode", "0755"), ("size", "65536k")], nosuid).step("mount /dev")?;
    let place = places.mount_point("/dev", Want::RealDirectory)?;
    attach(dev.as_fd(), place.as_fd(), "/dev")?;

    for name in DEVICES {
        // Bound, not made: the kernel lets only the real root make devices that work.
        if let Some(device) = host_device(&format!("/dev/{name}"))? {
            let place = make_file(dev.as_fd(), name).step_at("make the device", name)?;
            attach(device.as_fd(), place.as_fd(), name)?;
        }
    }
    for (name, target) in LINKS {
        symlinkat(target, &dev, name).step_at("make a link in /dev", name)?;
    }

    let options = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
    let pts_attributes = nosuid | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    // Group 5 is `tty` everywhere, but may not exist in a small user namespace.
    let pts = file_system("devpts", &options, pts_attributes)
        .or_else(|_| file_system("devpts", &options[..3], pts_attributes))
        .step("mount /dev/pts")?;
    attach(pts.as_fd(), make_dir(dev.as_fd(), "pts")?.as_fd(), "/dev/pts")?;

    let shm_size = shm_size_bytes.to_string();
    let shm = file_system("tmpfs", &[("mode", "1777"), ("size", &shm_size)], data).step("mount /dev/shm")?;
    attach(shm.as_fd(), make_dir(dev.as_fd(), "shm")?.as_fd(), "/dev/shm")?;
    // Kernels without message queues do without.
    if let Ok(mqueue) = file_system("mqueue", &[], data) {
        attach(mqueue.as_fd(), make_dir(dev.as_fd(), "mqueue")?.as_fd(), "/dev/mqueue")?;
    }

    let Stdio::Terminal { rows, cols } = stdio else { return Ok(None) };
    let terminal = open_terminal(pts.as_fd(), *rows, *cols)?;
    let console = clone_mount(terminal.slave.as_fd(), false).step("mount /dev/console")?;
    let place = make_file(dev.as_fd(), "console").step("make /dev/console")?;
    attach(console.as_fd(), place.as_fd(), "/dev/console")?;
    Ok(Some(terminal))
}

fn open_terminal(pts: BorrowedFd<'_>, rows: u16, cols: u16) -> Result<Terminal, Failure> {
    let (master, slave) = payload::new_terminal(pts, rows, cols)?;
    Ok(Terminal { master, slave })
}

fn make_file(dir: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::from_raw_mode(0o666))?;
    open_exactly(dir, name)
}

fn make_dir(dir: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Failure> {
    mkdirat(dir, name, Mode::from_raw_mode(0o755)).step_at("make a directory in /dev", name)?;
    open_exactly(dir, name).step_at("open a directory in /dev", name)
}

/// As docker: in a network of its own a container may use any port and ping. Older kernels lack the settings.
fn open_network_settings(proc: &OwnedFd) {
    // Groups above do not exist here, and the kernel wants ones that do.
    let groups = enter::ids_in("/proc/self/gid_map").min(i32::MAX.unsigned_abs());
    let ping = format!("0 {}", groups.saturating_sub(1));
    for (name, value) in
        [("sys/net/ipv4/ip_unprivileged_port_start", "0"), ("sys/net/ipv4/ping_group_range", ping.as_str())]
    {
        if let Ok(file) = openat(proc, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
            let _ = rustix::io::write(&file, value.as_bytes());
        }
    }
}

fn mount_one(
    places: &mut Places<'_>,
    target: &str,
    source: &MountSource,
    readonly: bool,
    opened: Option<(OwnedFd, bool)>,
) -> Result<(), Failure> {
    let (mount, is_directory) = match (source, opened) {
        (MountSource::Tmpfs { size_bytes, mode }, _) => {
            (tmpfs(*size_bytes, *mode, readonly).step_at("mount tmpfs on", target)?, true)
        }
        (_, Some(opened)) => opened,
        (_, None) => return Err(io::Error::from_raw_os_error(libc::EBADF)).step_at("mount", target),
    };
    let want = if is_directory { Want::Directory } else { Want::File };
    let place = places.mount_point(target, want)?;
    const PROC_SUPER_MAGIC: i64 = 0x9fa0;
    if sys::file_system_magic(place.as_fd()).step_at("look at the mount point", target)? == PROC_SUPER_MAGIC {
        // It could replace what is masked, or what programs and we ourselves believe (CVE-2019-16884).
        return Err(io::Error::from_raw_os_error(libc::EPERM)).step_at("mount inside /proc at", target);
    }
    attach(mount.as_fd(), place.as_fd(), target)
}

/// Room for what a container adds to its `/etc/hosts`, beyond the content of generated files.
const GENERATED_ROOM_BYTES: usize = 1 << 20;
/// A page for each file and its name.
const GENERATED_FILE_BYTES: usize = 8 * 1024;

/// Makes the generated files in a file system in memory; their mounts join what the helper opened.
pub(super) fn generate_files(request: &StartRequest, sources: &mut [Option<(OwnedFd, bool)>]) -> Result<(), Failure> {
    const STEP: &str = "generate";
    let lengths = request.mounts.iter().map(|mount| match &mount.source {
        MountSource::File { content, .. } => content.0.len() + GENERATED_FILE_BYTES,
        _ => 0,
    });
    let size = (lengths.sum::<usize>() + GENERATED_ROOM_BYTES).to_string();
    let mut memory: Option<OwnedFd> = None;
    let mut is_attached = false;
    for (number, (mount, source)) in request.mounts.iter().zip(sources).enumerate() {
        let MountSource::File { content, mode, uid, gid } = &mount.source else { continue };
        let dir = match memory.take() {
            Some(dir) => dir,
            None => {
                let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
                let options = [("mode", "0755"), ("size", size.as_str())];
                file_system("tmpfs", &options, attributes).step_at(STEP, &mount.target)?
            }
        };
        // Numbered: two targets may differ in a slash only.
        let name = format!("{number}{}", mount.target.replace('/', "-"));
        let name = name.get(..NAME_BYTES_MAX).unwrap_or(&name);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&dir, name, flags, Mode::from_raw_mode(0o600)).step_at(STEP, &mount.target)?;
        std::io::Write::write_all(&mut std::fs::File::from(file.try_clone().step(STEP)?), &content.0)
            .step_at(STEP, &mount.target)?;
        if (*uid, *gid) != (0, 0) {
            let (uid, gid) = (rustix::fs::Uid::from_raw(*uid), rustix::fs::Gid::from_raw(*gid));
            rustix::fs::fchown(&file, Some(uid), Some(gid)).step_at("set the owner of", &mount.target)?;
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(*mode & 0o7777)).step_at(STEP, &mount.target)?;
        let mut clone = clone_mount(file.as_fd(), false);
        if clone.is_err() && !is_attached {
            // Kernels before 6.15 clone only from attached mounts.
            attach_hidden(dir.as_fd()).step_at(STEP, &mount.target)?;
            is_attached = true;
            clone = clone_mount(file.as_fd(), false);
        }
        let clone = clone.step_at(STEP, &mount.target)?;
        if mount.readonly {
            sys::mount_attributes(clone.as_fd(), sys::MOUNT_ATTR_RDONLY, false).step_at(STEP, &mount.target)?;
        }
        *source = Some((clone, false));
        memory = Some(dir);
    }
    if let (Some(dir), true) = (memory, is_attached) {
        // Nothing but the old root may be on top of the new one when that is let go of: see `move_in`.
        let flags = rustix::mount::UnmountFlags::DETACH;
        rustix::mount::unmount(fd_path(dir.as_fd()), flags).step("let generated files go")?;
    }
    Ok(())
}

/// File systems allow 255.
const NAME_BYTES_MAX: usize = 200;

fn tmpfs(size_bytes: Option<u64>, mode: u32, readonly: bool) -> Result<OwnedFd, Errno> {
    let mode = format!("{:04o}", mode & 0o7777);
    let size = size_bytes.map(|bytes| bytes.to_string());
    let mut options = vec![("mode", mode.as_str())];
    if let Some(size) = &size {
        options.push(("size", size));
    }
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    if readonly {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    file_system("tmpfs", &options, attributes)
}

/// Masks paths and makes others read-only, as the bundle says. Only below our own `/proc` and `/sys`, by descriptors.
fn restrict(spec: &Spec, proc: &OwnedFd, sysfs: &OwnedFd) -> Result<(), Failure> {
    let Some(linux) = spec.linux() else { return Ok(()) };
    let base = |path: &'_ str| -> Option<(BorrowedFd<'_>, String)> {
        let (fd, below) = if let Some(below) = path.strip_prefix("/proc/") {
            (proc.as_fd(), below)
        } else {
            (sysfs.as_fd(), path.strip_prefix("/sys/")?)
        };
        Some((fd, below.to_owned()))
    };
    for path in linux.readonly_paths().iter().flatten() {
        let Some((fd, below)) = base(path) else { continue };
        let Ok(place) = open_exactly(fd, &below) else { continue };
        let clone = clone_mount(place.as_fd(), true).step_at("make read-only", path)?;
        let bits = sys::MOUNT_ATTR_RDONLY | sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NODEV | sys::MOUNT_ATTR_NOEXEC;
        sys::mount_attributes(clone.as_fd(), bits, true).step_at("make read-only", path)?;
        attach(clone.as_fd(), place.as_fd(), path)?;
    }
    // One file system for all masked directories; each gets a mount of it.
    let mut empty: Option<OwnedFd> = None;
    for path in linux.masked_paths().iter().flatten() {
        let Some((fd, below)) = base(path) else { continue };
        let Ok(place) = open_exactly(fd, &below) else { continue };
        let is_directory = FileType::from_raw_mode(fstat(&place).step_at("mask", path)?.st_mode) == FileType::Directory;
        let cover = if is_directory {
            let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
                | MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NODEV
                | MountAttrFlags::MOUNT_ATTR_NOEXEC;
            match &empty {
                Some(attached) => clone_mount(attached.as_fd(), false).step_at("mask", path)?,
                None => file_system("tmpfs", &[("mode", "0555"), ("size", "0")], attributes).step_at("mask", path)?,
            }
        } else {
            match host_device("/dev/null")? {
                Some(null) => null,
                None => return Err(io::Error::from_raw_os_error(libc::ENODEV)).step_at("mask", path),
            }
        };
        attach(cover.as_fd(), place.as_fd(), path)?;
        if is_directory && empty.is_none() {
            empty = Some(cover);
        }
    }
    Ok(())
}

/// Makes `root` the root and lets go of the old one, with everything mounted in it.
fn move_in(root: &OwnedFd) -> Result<(), Failure> {
    const STEP: &str = "move into the root file system";
    rustix::process::fchdir(root).step(STEP)?;
    // New and old root in one place (pivot_root(2), "NOTES"): no directory is needed for the old one.
    rustix::process::pivot_root(".", ".").step(STEP)?;
    rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH).step(STEP)?;
    rustix::process::chdir("/").step(STEP)?;
    Ok(())
}

impl Places<'_> {
    /// The working directory, made if absent. It stays: that is what `WORKDIR` means.
    pub(super) fn lasting_directory_unless_root(&mut self, path: &Path) -> Result<(), Failure> {
        let text = path.to_string_lossy();
        let is_root = text.split('/').all(|name| name.is_empty() || name == ".");
        if is_root { Ok(()) } else { self.lasting_directory(&text).map(drop) }
    }
}
