//! The last steps of a process before its program: descriptors, identity, rights, filter, exec.

use super::{Stdio, give_pipe, users};
use crate::{
    caps::CapSet,
    cgroup,
    protocol::{Channel, Failure, FailureKind, Step},
    rlimits, seccomp, sys,
};
use oci_spec::runtime::Process;
use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat, openat2},
    process::Resource,
};
use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// What is to run.
pub(super) struct Program<'a> {
    pub(super) process: &'a Process,
    pub(super) user: &'a str,
    pub(super) stdio: &'a Stdio,
    /// No control group counts the container's processes.
    pub(super) is_uncounted: bool,
    /// No filter, and as many of its capabilities as we have.
    pub(super) is_privileged: bool,
    /// Slave side, if `stdio` is a terminal.
    pub(super) terminal: Option<OwnedFd>,
}

/// Whose child the process is, and so with whom it dies.
#[derive(Clone, Copy)]
pub(super) enum Parent<'a> {
    Helper(&'a Channel),
    /// Our init: the pid namespace ends with it anyway.
    Init,
}

/// Becomes the program; returns only with a failure. The caller is root of the container, in its root directory.
pub(super) fn run(program: Program<'_>, parent: Parent<'_>) -> Failure {
    match become_program(program, parent) {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

fn become_program(program: Program<'_>, parent: Parent<'_>) -> Result<std::convert::Infallible, Failure> {
    let Program { process, user, stdio, is_uncounted, is_privileged, terminal } = program;
    let root = openat(rustix::fs::CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .step("open the root")?;
    let identity = users::look_up(root.as_fd(), user)?;
    drop(root);
    let mut caps = capabilities(process)?.bits();
    if is_privileged {
        // A caller in a container of its own has fewer than all.
        caps &= sys::own_capabilities().step("ask for our capabilities")?;
    }
    let _ = rustix::process::setsid();
    connect(stdio, terminal.as_ref(), &identity)?;
    rlimits::apply(process);
    if is_uncounted {
        // The kernel counts by user and user namespace, so this is nobody's but the containers' (user_namespaces(7)).
        rlimits::lower(Resource::Nproc, cgroup::PIDS_DEFAULT);
    }
    enter_directory(process)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));

    if process.no_new_privileges() == Some(true) {
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).step("give up new privileges")?;
    }
    // Loading a filter takes a right that is gone after the next steps; all calls that follow are in the filter.
    if !is_privileged {
        seccomp::install(CapSet::from_bits(caps)).step("load the seccomp filter")?;
    }
    sys::bound_capabilities(caps).step("bound capabilities")?;
    take_identity(&identity)?;
    // For others than root the kernel has emptied the effective set; it stays so, as in docker.
    sys::set_capabilities(if identity.uid == 0 { caps } else { 0 }).step("set capabilities")?;
    sys::hide_from_debuggers().step("hide from the container")?;
    if let Parent::Helper(helper) = parent {
        // Forgotten when the ids changed.
        sys::die_with_parent().step("tie the process to its helper")?;
        if helper.is_hung_up() {
            sys::exit_now(0);
        }
    }
    sys::close_on_exec_from(3).step("close descriptors")?;
    sys::restore_signals();
    execute(process, &identity)
}

/// What the process may have at most.
pub(super) fn capabilities(process: &Process) -> Result<CapSet, Failure> {
    let bounding = process.capabilities().as_ref().and_then(|caps| caps.bounding().clone()).unwrap_or_default();
    CapSet::from_oci(&bounding)
        .map_err(|_| Failure::new("understand the capabilities", &io::Error::from_raw_os_error(libc::EINVAL)))
}

fn connect(stdio: &Stdio, terminal: Option<&OwnedFd>, identity: &users::Identity) -> Result<(), Failure> {
    const STEP: &str = "connect input and output";
    let null = || openat(rustix::fs::CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).step(STEP);
    let put = |fds: [BorrowedFd<'_>; 3]| -> Result<(), Failure> {
        for (number, fd) in (0..).zip(fds) {
            sys::install_stdio(fd, number).step(STEP)?;
        }
        Ok(())
    };
    match (stdio, terminal) {
        (Stdio::Pipe { output, stdin }, _) => {
            give_pipe(output.as_fd(), identity.uid, identity.gid);
            match stdin {
                Some(stdin) => {
                    give_pipe(stdin.as_fd(), identity.uid, identity.gid);
                    put([stdin.as_fd(), output.as_fd(), output.as_fd()])
                }
                None => put([null()?.as_fd(), output.as_fd(), output.as_fd()]),
            }
        }
        (Stdio::Inherit(fds), _) => put([fds[0].as_fd(), fds[1].as_fd(), fds[2].as_fd()]),
        (Stdio::Terminal { .. }, Some(slave)) => {
            let owner = rustix::fs::Uid::from_raw(identity.uid);
            let _ = rustix::fs::fchown(slave, Some(owner), None);
            sys::control_terminal(slave.as_fd()).step("take the terminal")?;
            put([slave.as_fd(), slave.as_fd(), slave.as_fd()])
        }
        (Stdio::Null | Stdio::Terminal { .. }, _) => {
            let null = null()?;
            put([null.as_fd(), null.as_fd(), null.as_fd()])
        }
    }
}

/// A new terminal from the `ptmx` in `dir` (a devpts, or a `/dev`): master and slave.
pub(super) fn new_terminal(dir: BorrowedFd<'_>, rows: u16, cols: u16) -> Result<(OwnedFd, OwnedFd), Failure> {
    const STEP: &str = "open a terminal";
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let master = openat(dir, "ptmx", flags, Mode::empty()).step(STEP)?;
    rustix::pty::unlockpt(&master).step(STEP)?;
    let open = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY | rustix::pty::OpenptFlags::CLOEXEC;
    // By ioctl, not by a name that could lead elsewhere.
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, open).step(STEP)?;
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&master, size).step("size the terminal")?;
    Ok((master, slave))
}

/// The working directory, by a way that follows links only inside the root and none of `/proc`'s magic ones
/// (CVE-2024-21626); then asks the kernel whether it is inside indeed.
fn enter_directory(process: &Process) -> Result<(), Failure> {
    const STEP: &str = "enter the working directory";
    let path = process.cwd();
    let root =
        openat(rustix::fs::CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).step(STEP)?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let dir = openat2(&root, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve)
        .step_at(STEP, path)?;
    rustix::process::fchdir(&dir).step_at(STEP, path)?;
    if sys::cwd_is_inside_root() { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EXDEV)).step_at(STEP, path) }
}

fn take_identity(identity: &users::Identity) -> Result<(), Failure> {
    let step = format!("become user {} of group {}", identity.uid, identity.gid);
    match sys::become_user(identity.uid, identity.gid, Some(&identity.groups)) {
        // In a namespace of one id the kernel forbids setgroups.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            sys::become_user(identity.uid, identity.gid, None).step(&step)
        }
        result => result.step(&step),
    }
}

/// Where programs are looked for when the environment does not say (moby, `DefaultPathEnv`).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn execute(process: &Process, identity: &users::Identity) -> Result<std::convert::Infallible, Failure> {
    let nothing =
        || Failure { kind: FailureKind::NotFound, ..Failure::new("run", &io::Error::from_raw_os_error(libc::ENOENT)) };
    let args = process.args().as_deref().unwrap_or_default();
    let name = args.first().filter(|name| !name.is_empty()).ok_or_else(nothing)?;
    let mut env = process.env().clone().unwrap_or_default();
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(format!("HOME={}", identity.home));
    }
    let c_strings = |strings: &[String]| -> Result<Vec<CString>, Failure> {
        strings.iter().map(|text| sys::c_string(text.as_bytes()).step("pass text with a zero byte")).collect()
    };
    let (c_args, c_env) = (c_strings(args)?, c_strings(&env)?);
    let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let candidates: Vec<String> = if name.contains('/') {
        vec![name.clone()]
    } else {
        // An empty entry means the working directory (execvp(3)).
        path.split(':').map(|dir| if dir.is_empty() { format!("./{name}") } else { format!("{dir}/{name}") }).collect()
    };
    let mut refused = None;
    for candidate in &candidates {
        let error = sys::execve(&sys::c_string(candidate.as_bytes()).step("run")?, &c_args, &c_env);
        match error.raw_os_error() {
            // A script whose interpreter is missing also says ENOENT; the file then exists.
            Some(libc::ENOENT | libc::ENOTDIR) if !std::path::Path::new(candidate).exists() => {}
            _ => {
                refused = Some(error);
                // As execvp(3): another directory may have one that may be executed.
                if refused.as_ref().and_then(io::Error::raw_os_error) != Some(libc::EACCES) {
                    break;
                }
            }
        }
    }
    Err(match refused {
        Some(error) => Failure { kind: FailureKind::NotExecutable, ..Failure::new("run", &error) },
        None => nothing(),
    })
}
