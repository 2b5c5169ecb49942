//! A further process in a running container.
//!
//! The helper forks a scout, which joins the namespaces; the scout forks the process as a child of the helper
//! (`CLONE_PARENT`), since one enters a pid namespace only by being born in it. The helper itself stays outside.

use super::{Notes, Stdio, listen, payload, watch};
use crate::{
    cgroup::Entrances,
    files,
    protocol::{Channel, ExecRequest, Failure, FromInside, NetworkPlan, Report, Step},
    sys::{self, Child, Fork},
};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

pub(super) fn exec(engine: &Channel, request: &ExecRequest, mut fds: Vec<OwnedFd>) -> Result<(), Failure> {
    if fds.is_empty() {
        return Err(io::Error::from_raw_os_error(libc::EBADF)).step("find the container");
    }
    let container = fds.remove(0);
    let stdio = Stdio::take(request.stdio, fds)?;
    let (outer, inner) = Channel::pair().step("make a socket")?;
    let has_own_ids = request.inside.namespaces & libc::CLONE_NEWUSER != 0;
    if has_own_ids {
        stdio.give_to(crate::enter::SHIFTED_BASE);
    }
    let scout = match sys::fork(0, None).step("make a process")? {
        Fork::Child => {
            drop(outer);
            let failure = scout(request, &container, &inner, &stdio);
            drop(inner.send(&FromInside::Failed(failure), &[]));
            sys::exit_now(125)
        }
        Fork::Parent(scout) => scout,
    };
    drop((inner, stdio));

    let mut notes = Notes::default();
    let heard = listen(engine, &outer, &mut notes, NetworkPlan::Host);
    drop(sys::reap(scout.pidfd.as_fd()));
    let heard = heard?;
    let pid = heard.joined.ok_or_else(|| {
        Failure::new("join the container, which has ended", &io::Error::from_raw_os_error(libc::ESRCH))
    })?;
    // Our own unreaped child, so the number cannot have passed to another process.
    let pid_handle = rustix::process::Pid::from_raw(pid)
        .ok_or_else(|| Failure::new("find the process", &io::Error::from_raw_os_error(libc::ESRCH)))?;
    let pidfd =
        rustix::process::pidfd_open(pid_handle, rustix::process::PidfdFlags::empty()).step("find the process")?;
    let child = Child { pid, pidfd };

    let mut fds = vec![child.pidfd.as_fd()];
    fds.extend(heard.terminal.as_ref().map(AsFd::as_fd));
    drop(engine.send(&Report::Started { pid, inside: request.inside.clone(), warnings: notes.warnings }, &fds));
    drop(heard);
    // It leads a session and group of its own, so what it started goes with it.
    let ending = watch(engine, &child, || sys::kill_group(pid))?;
    drop(engine.send(&Report::Ended { ending, oom: false, pids_limit_hit: false }, &[]));
    Ok(())
}

/// In the scout: joins, forks the process, and is done. Returns only with a failure.
fn scout(request: &ExecRequest, container: &OwnedFd, inner: &Channel, stdio: &Stdio) -> Failure {
    let joined = (|| {
        let mut warnings = Vec::new();
        Entrances::open(&request.inside.cgroups).enter(&mut warnings);
        if !warnings.is_empty() {
            drop(inner.send(&FromInside::Mounted { stubs: Vec::new(), warnings }, &[]));
        }
        sys::setns(container.as_fd(), request.inside.namespaces).step("join the namespaces of the container")?;
        sys::fork(libc::CLONE_PARENT, None).step("make a process in the container")
    })();
    match joined {
        Ok(Fork::Parent(child)) => {
            drop(inner.send(&FromInside::Joined { pid: child.pid }, &[]));
            sys::exit_now(0)
        }
        Ok(Fork::Child) if request.is_files => {
            match settle(request, inner, stdio).and_then(|_| write(request, stdio)) {
                Ok(()) => sys::exit_now(0),
                Err(failure) => failure,
            }
        }
        Ok(Fork::Child) => match settle(request, inner, stdio) {
            Ok(terminal) => {
                let is_uncounted = request.inside.cgroups.is_empty();
                let program = payload::Program {
                    process: &request.process,
                    user: &request.user,
                    stdio,
                    is_uncounted,
                    is_privileged: request.privileged,
                    terminal,
                };
                payload::run(program, payload::Parent::Helper(inner))
            }
            Err(failure) => failure,
        },
        Err(failure) => failure,
    }
}

/// Our own work in the container, with the rights that its root has.
fn write(request: &ExecRequest, stdio: &Stdio) -> Result<(), Failure> {
    let Stdio::Pipe { stdin: Some(stream), .. } = stdio else {
        return Err(io::Error::from_raw_os_error(libc::EBADF)).step("find the changed files");
    };
    let stream = stream.try_clone().step("read the changed files")?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let caps = payload::capabilities(&request.process)?.bits();
    sys::bound_capabilities(caps).step("bound capabilities")?;
    sys::set_capabilities(caps).step("set capabilities")?;
    files::apply(std::fs::File::from(stream))
}

fn settle(request: &ExecRequest, inner: &Channel, stdio: &Stdio) -> Result<Option<OwnedFd>, Failure> {
    const STEP: &str = "become root of the container";
    sys::die_with_parent().step("tie the process to its helper")?;
    if request.inside.namespaces & libc::CLONE_NEWUSER != 0 || sys::become_user(0, 0, Some(&[])).is_err() {
        let groups: Option<&[u32]> =
            if request.inside.namespaces & libc::CLONE_NEWUSER != 0 { Some(&[]) } else { None };
        sys::become_user(0, 0, groups).step(STEP)?;
    }
    sys::hide_from_debuggers().step("hide from the container")?;
    sys::die_with_parent().step("tie the process to its helper")?;
    sys::fresh_session_keyring();
    rustix::process::chdir("/").step("enter the root of the container")?;

    let Stdio::Terminal { rows, cols } = stdio else { return Ok(None) };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let pts = openat(CWD, "/dev/pts", flags, Mode::empty()).step("open /dev/pts")?;
    const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
    // The container may have put something else there.
    if sys::file_system_magic(pts.as_fd()).step("look at /dev/pts")? != DEVPTS_SUPER_MAGIC {
        return Err(io::Error::from_raw_os_error(libc::ENODEV)).step("open a terminal in /dev/pts");
    }
    let (master, slave) = payload::new_terminal(pts.as_fd(), *rows, *cols)?;
    inner.send(&FromInside::Terminal, &[master.as_fd()]).step("send the terminal")?;
    Ok(Some(slave))
}
