//! The few system calls that neither std nor rustix offers in the shape we need.
//!
//! Every `unsafe` block of process creation and of mount attributes is here, so that the rest reads as plain code.

use std::{
    ffi::{CString, OsStr},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
};

/// Which side of a fork this is.
pub(crate) enum Fork {
    Child,
    Parent(Child),
}

/// A direct child, not yet reaped.
pub(crate) struct Child {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
}

/// `clone3(2)` as a fork, with namespace flags and a pidfd; the child is born in a v2 control group if one is given.
///
/// To be called from a single-threaded process only: the child goes on with ordinary Rust, and a lock held by another
/// thread at this moment would be held forever.
pub(crate) fn fork(flags: libc::c_int, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut pidfd: libc::c_int = -1;
    // SAFETY: all bytes zero is a valid `clone_args`.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::from(flags.cast_unsigned() | libc::CLONE_PIDFD.cast_unsigned());
    args.pidfd = (&raw mut pidfd) as u64;
    // The kernel takes no signal for CLONE_PARENT: the one of the caller is used.
    args.exit_signal = if flags & libc::CLONE_PARENT == 0 { libc::SIGCHLD as u64 } else { 0 };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    // SAFETY: no stack is given, so the child gets a copy of ours; `args` and `pidfd` outlive the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    match pid {
        -1 => match io::Error::last_os_error().raw_os_error() {
            // Seccomp filters of containers hide clone3, since they cannot see its flags.
            Some(libc::ENOSYS) => fork_old(flags),
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Err(io::Error::last_os_error()),
        },
        pid => Ok(forked(pid, pidfd)),
    }
}

/// The same with the older `clone(2)`, which knows no control groups.
fn fork_old(flags: libc::c_int) -> io::Result<Fork> {
    let mut pidfd: libc::c_int = -1;
    let flags = flags | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: no stack is given, so the child gets a copy of ours; `pidfd` is writable and outlives the call. The first
    // three arguments have the same order on x86_64 and aarch64.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags as libc::c_ulong, 0, &raw mut pidfd, 0, 0) };
    if pid == -1 { Err(io::Error::last_os_error()) } else { Ok(forked(pid, pidfd)) }
}

fn forked(pid: libc::c_long, pidfd: libc::c_int) -> Fork {
    if pid == 0 {
        return Fork::Child;
    }
    // SAFETY: the kernel just made this descriptor for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Fork::Parent(Child { pid: i32::try_from(pid).unwrap_or(-1), pidfd })
}

/// Leaves without running destructors or `atexit` handlers, which belong to the process we were forked from.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// How a child ended, from `waitid(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Ending {
    Exited(i32),
    Killed(i32),
}

impl Ending {
    /// A shell's number: the exit code, or 128 + signal.
    pub(crate) fn code(self) -> i32 {
        match self {
            Ending::Exited(code) => code,
            Ending::Killed(signal) => 128 + signal,
        }
    }

    /// The signal that ended it.
    pub(crate) fn signal(self) -> Option<i32> {
        match self {
            Ending::Exited(_) => None,
            Ending::Killed(signal) => Some(signal),
        }
    }
}

/// Waits for a child and reaps it.
pub(crate) fn reap(pidfd: BorrowedFd<'_>) -> io::Result<Ending> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    loop {
        match waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                return Ok(match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Ending::Exited(code),
                    (None, signal) => Ending::Killed(signal.unwrap_or(libc::SIGKILL)),
                });
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// `pidfd_send_signal(2)`.
pub(crate) fn signal_pidfd(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is passed.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// SIGKILL to a process group. `pid` must be an unreaped child that leads its group.
pub(crate) fn kill_group(pid: i32) {
    if pid > 1 {
        // SAFETY: no memory is passed.
        unsafe { libc::kill(-pid, libc::SIGKILL) };
    }
}

/// Waits until one of the descriptors has something to say or `timeout_ms` (-1: forever) is over.
/// Returns for each whether it is readable, hung up or broken.
pub(crate) fn poll(fds: &[BorrowedFd<'_>], timeout_ms: i32) -> io::Result<Vec<bool>> {
    let mut polls: Vec<libc::pollfd> =
        fds.iter().map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }).collect();
    loop {
        // SAFETY: `polls` has as many entries as told.
        let result = unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, timeout_ms) };
        if result >= 0 {
            break;
        }
        let error = io::Error::last_os_error();
        // With a bound the caller knows how much of it is left.
        if timeout_ms >= 0 || error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(polls.iter().map(|poll| poll.revents != 0).collect())
}

pub(crate) const MOUNT_ATTR_RDONLY: u64 = 0x1;
pub(crate) const MOUNT_ATTR_NOSUID: u64 = 0x2;
pub(crate) const MOUNT_ATTR_NODEV: u64 = 0x4;
pub(crate) const MOUNT_ATTR_NOEXEC: u64 = 0x8;
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// Sets attributes on the mount of `fd`, below it as well if `recursive`.
pub(crate) fn mount_attributes(fd: BorrowedFd<'_>, set: u64, recursive: bool) -> io::Result<()> {
    mount_setattr(fd, set, None, recursive)
}

/// Maps the ids of a detached mount through a user namespace.
pub(crate) fn idmap_mount(fd: BorrowedFd<'_>, userns: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
    mount_setattr(fd, MOUNT_ATTR_IDMAP, Some(userns), recursive)
}

fn mount_setattr(fd: BorrowedFd<'_>, set: u64, userns: Option<BorrowedFd<'_>>, recursive: bool) -> io::Result<()> {
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        userns_fd: u64,
    }
    let userns_fd = userns.map_or(0, |fd| u64::from(fd.as_raw_fd().unsigned_abs()));
    let attr = MountAttr { set, clear: 0, propagation: 0, userns_fd };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: `attr` is a `struct mount_attr` of the size told; the path is an empty C string.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `mount(2)` with a propagation flag on everything below `/`.
pub(crate) fn set_propagation(flag: libc::c_ulong) -> io::Result<()> {
    // SAFETY: C strings and null pointers, as mount(2) allows for a change of propagation.
    let result = unsafe {
        libc::mount(std::ptr::null(), c"/".as_ptr(), std::ptr::null(), libc::MS_REC | flag, std::ptr::null())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The old `mount(2)`, for kernels whose overlayfs does not know `lowerdir+`.
pub(crate) fn mount_old(source: &str, target: &OsStr, kind: &str, flags: libc::c_ulong, data: &str) -> io::Result<()> {
    let (source, target) = (c_string(source.as_bytes())?, c_string(target.as_bytes())?);
    let (kind, data) = (c_string(kind.as_bytes())?, c_string(data.as_bytes())?);
    // SAFETY: four C strings that outlive the call.
    let result = unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `unshare(2)` for the calling thread.
pub(crate) fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: no memory is passed.
    if unsafe { libc::unshare(flags) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `setns(2)` with a pidfd: enters several namespaces of a process at once.
pub(crate) fn setns(pidfd: BorrowedFd<'_>, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: no memory is passed.
    if unsafe { libc::setns(pidfd.as_raw_fd(), flags) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives all other rights up: supplementary groups, then group, then user, each real, effective and saved.
///
/// Raw system calls: we are single-threaded, and glibc's wrappers would signal threads that do not exist after a fork.
pub(crate) fn become_user(uid: u32, gid: u32, groups: Option<&[u32]>) -> io::Result<()> {
    let check = |result: libc::c_long| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: `groups` has as many entries as told; the other calls pass no memory.
    unsafe {
        if let Some(groups) = groups {
            check(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
        }
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))
    }
}

/// `prctl(2)` with up to two number arguments.
pub(crate) fn prctl(option: libc::c_int, arg2: libc::c_ulong, arg3: libc::c_ulong) -> io::Result<i32> {
    let zero: libc::c_ulong = 0;
    // SAFETY: used only with options whose arguments are numbers.
    let result = unsafe { libc::prctl(option, arg2, arg3, zero, zero) };
    if result >= 0 { Ok(result) } else { Err(io::Error::last_os_error()) }
}

/// Nobody may look into this process or open its `/proc/<pid>/exe` (CVE-2019-5736).
pub(crate) fn hide_from_debuggers() -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0, 0).map(drop)
}

/// The kernel kills us when our parent, which must be single-threaded, dies. Forgotten when ids change.
pub(crate) fn die_with_parent() -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0).map(drop)
}

/// Permitted and effective capabilities of this thread; inheritable becomes empty.
pub(crate) fn set_capabilities(bits: u64) -> io::Result<()> {
    let half = |bits: u64| CapData { effective: 0, permitted: bits as u32, inheritable: 0 };
    raise_capabilities([half(bits), half(bits >> 32)])
}

/// What this thread may make effective.
pub(crate) fn own_capabilities() -> io::Result<u64> {
    let [low, high] = permitted_capabilities()?;
    Ok(u64::from(low.permitted) | u64::from(high.permitted) << 32)
}

/// Removes everything outside `keep` from the bounding set, and all ambient capabilities.
pub(crate) fn bound_capabilities(keep: u64) -> io::Result<()> {
    for cap in (0..=last_capability()).filter(|cap| keep & (1 << cap) == 0) {
        prctl(libc::PR_CAPBSET_DROP, cap, 0)?;
    }
    match prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0) {
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The highest capability that this kernel knows.
pub(crate) fn last_capability() -> libc::c_ulong {
    static LAST: std::sync::OnceLock<libc::c_ulong> = std::sync::OnceLock::new();
    *LAST.get_or_init(|| (0..64).take_while(|cap| prctl(libc::PR_CAPBSET_READ, *cap, 0).is_ok()).last().unwrap_or(0))
}

/// A session keyring of its own, so that the caller's keys cannot be reached. Absent in some kernels, which is as good.
pub(crate) fn fresh_session_keyring() {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
}

/// Marks every descriptor from `first` up close-on-exec.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: no memory is passed.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes `fd` the standard descriptor `number` (0, 1 or 2).
pub(crate) fn install_stdio(fd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    // SAFETY: only ever called with 0, 1 and 2, which std treats as always open.
    if unsafe { libc::dup2(fd.as_raw_fd(), number) } >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A copy of a standard descriptor, close-on-exec and above 2.
pub(crate) fn duplicate(fd: impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?)
}

/// Takes descriptor 0 over, leaving `/dev/null` in its place.
pub(crate) fn take_stdin() -> io::Result<OwnedFd> {
    let taken = duplicate(io::stdin())?;
    let null = std::fs::File::open("/dev/null")?;
    install_stdio(null.as_fd(), 0)?;
    Ok(taken)
}

/// All signals to their default action, whatever a shell or `nohup` had ignored.
pub(crate) fn reset_signals() {
    // SAFETY: SIG_DFL needs no handler; numbers that may not be changed just fail.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

/// Signals from a terminal or an impatient user must not end a supervisor: it ends with its engine.
const IGNORED: [libc::c_int; 7] =
    [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGPIPE, libc::SIGUSR1, libc::SIGUSR2];

pub(crate) fn ignore_signals() {
    for signal in IGNORED {
        // SAFETY: SIG_IGN needs no handler.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Undoes [`ignore_signals`] and [`block_signals`], for a program that starts: it expects all actions to be the default
/// ones, which exec sees to for all but the ignored, and nothing blocked.
pub(crate) fn restore_signals() {
    // SAFETY: SIG_DFL needs no handler. The mask is a plain value.
    unsafe {
        for signal in IGNORED {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Whether children that end are buried by the kernel. Otherwise they wait for [`reap`], as is usual.
pub(crate) fn bury_children(by_kernel: bool) {
    // SAFETY: neither action needs a handler.
    unsafe { libc::signal(libc::SIGCHLD, if by_kernel { libc::SIG_IGN } else { libc::SIG_DFL }) };
}

/// Waits until there is no child any more; those are buried by the kernel.
pub(crate) fn await_children() {
    loop {
        // SAFETY: no status is asked for.
        let result = unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) };
        if result == -1 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            break;
        }
    }
}

/// Blocks all signals, so that [`next_signal`] can take them one by one.
pub(crate) fn block_signals() {
    // SAFETY: the mask is a plain value, filled before use.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
}

/// Waits for the next blocked signal.
pub(crate) fn next_signal() -> i32 {
    // SAFETY: the mask is a plain value, filled before use; no information is asked for.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigwaitinfo(&raw const all, std::ptr::null_mut())
    }
}

/// Reaps any child that has ended, without waiting: its pid and how it ended.
pub(crate) fn reap_any() -> Option<(i32, Ending)> {
    let mut status = 0;
    // SAFETY: `status` is writable.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    if pid <= 0 {
        return None;
    }
    let ending = if libc::WIFSIGNALED(status) {
        Ending::Killed(libc::WTERMSIG(status))
    } else {
        Ending::Exited(libc::WEXITSTATUS(status))
    };
    Some((pid, ending))
}

/// `kill(2)`; an ended process is no failure.
pub(crate) fn kill(pid: i32, signal: i32) {
    // SAFETY: no memory is passed.
    unsafe { libc::kill(pid, signal) };
}

/// Makes the terminal of `fd` the controlling one of this session.
pub(crate) fn control_terminal(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes a number.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSCTTY, 0) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// `sethostname(2)`.
pub(crate) fn set_hostname(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length belong together.
    if unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Brings the loopback device of this network namespace up.
pub(crate) fn loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: `ifreq` is plain data; the ioctl reads the name and the flags.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

/// A new network namespace with nothing in it but a loopback device that is down. It lives as long as its descriptor, and
/// whoever is in it.
///
/// # Errors
/// The kernel refuses: [`enter`](crate::enter()) was not called, or could not get the rights.
pub fn new_network_namespace() -> io::Result<OwnedFd> {
    // A thread of its own, so that nobody else's namespace changes.
    let made = std::thread::spawn(|| {
        unshare(libc::CLONE_NEWNET)?;
        std::fs::File::open("/proc/thread-self/ns/net").map(OwnedFd::from)
    });
    made.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
}

/// Whether the current directory is inside the root of this process (CVE-2024-21626): the kernel says otherwise.
pub(crate) fn cwd_is_inside_root() -> bool {
    let mut buffer = vec![0u8; libc::PATH_MAX as usize];
    // The system call itself, since C libraries differ in what they make of "(unreachable)".
    // SAFETY: pointer and length belong together.
    let length = unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) };
    length > 0 && buffer[0] == b'/'
}

/// `execve(2)`; returns only with an error.
pub(crate) fn execve(program: &CString, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: null-terminated arrays of C strings that outlive the call.
    unsafe { libc::execve(program.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

pub(crate) fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Closes every descriptor but `keep`, the standard ones included (they become `/dev/null`).
///
/// For a process that never returns to the owners of the others: their destructors must not run.
pub(crate) fn keep_only(keep: OwnedFd) -> OwnedFd {
    use std::os::fd::IntoRawFd;
    let null = std::fs::File::open("/dev/null");
    for number in 0..3 {
        if let Ok(null) = &null {
            drop(install_stdio(null.as_fd(), number));
        }
    }
    drop(null);
    let keep = keep.into_raw_fd();
    // SAFETY: number 3 is ours to overwrite, since all descriptors above 2 are closed here anyway and nobody uses them
    // again in this process; the returned owner is the only one.
    unsafe {
        if keep != 3 {
            libc::dup2(keep, 3);
        }
        libc::syscall(libc::SYS_close_range, 4, u32::MAX, 0);
        OwnedFd::from_raw_fd(3)
    }
}

/// Does `work` with another user and group for file access, but with all rights kept.
///
/// overlayfs makes files of its own with the ids of whoever mounted it. On layers whose ids are mapped these must be ids
/// that exist there, or the overlay comes up read-only (EOVERFLOW in its work directory).
pub(crate) fn with_file_ids<T>(id: u32, work: impl FnOnce() -> T) -> io::Result<T> {
    let permitted = permitted_capabilities()?;
    // SAFETY: no memory is passed. Both calls return the former id and never fail by themselves.
    let (old_gid, old_uid) = unsafe { (libc::setfsgid(id), libc::setfsuid(id)) };
    // Leaving id 0 took file capabilities from the effective set; they are still permitted.
    let raised = raise_capabilities(permitted);
    let result = raised.map(|()| work());
    // SAFETY: as above.
    unsafe {
        libc::setfsuid(old_uid.unsigned_abs());
        libc::setfsgid(old_gid.unsigned_abs());
    }
    raise_capabilities(permitted)?;
    result
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Version 3 of capset(2): two data elements of 32 bits.
const CAP_HEADER: CapHeader = CapHeader { version: 0x2008_0522, pid: 0 };

fn permitted_capabilities() -> io::Result<[CapData; 2]> {
    let mut data = [CapData::default(); 2];
    let header = CAP_HEADER;
    // SAFETY: version 3 of capget(2) fills two data elements.
    if unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) } == 0 {
        Ok(data)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn raise_capabilities(mut data: [CapData; 2]) -> io::Result<()> {
    for half in &mut data {
        half.effective = half.permitted;
    }
    let header = CAP_HEADER;
    // SAFETY: version 3 of capset(2) reads two data elements.
    if unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Which kind of file system a descriptor is on (statfs(2), `f_type`).
pub(crate) fn file_system_magic(fd: BorrowedFd<'_>) -> io::Result<i64> {
    Ok(rustix::fs::fstatfs(fd)?.f_type)
}
