//! The helper: a single-threaded fork of the zygote that starts one process, watches it and tidies up after it.
//!
//! It stays outside the container's pid namespace. Its only tie to the engine is a socket, which is the way for the
//! request, for reports, and the lifeline: when the engine dies, however it dies, the socket closes and the helper kills
//! the container. When the helper dies, the kernel kills the container's first process (`PR_SET_PDEATHSIG`), and with it
//! the pid namespace. (The signal cannot hang on the engine itself: it is tied to threads, and the engine's come and go.)

mod attach;
mod foreign;
mod init;
mod inside;
mod join;
mod payload;
mod sources;
mod stubs;
mod users;

pub(crate) use stubs::Stub;

use crate::{
    bundle,
    cgroup::Cgroup,
    enter,
    protocol::{
        Attached, Channel, Failure, FailureKind, FromInside, Go, IdMode, Inside, NetworkPlan, Report, Request,
        StartRequest, StdioPlan, Step, receive_request,
    },
    rlimits,
    sys::{self, Child, Ending, Fork},
    zygote,
};
use oci_spec::runtime::Spec;
use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// What follows the program name when we are to be a zygote.
pub(crate) const MARKER: &str = "container-helper--";

/// First line of `main`: when this process was started again to make containers, does that work and never returns.
#[expect(clippy::exit, reason = "the helper has nothing to return to")]
pub fn run_if_reexecuted() {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == MARKER) {
        std::process::exit(if zygote::serve().is_ok() { 0 } else { 1 })
    }
}

/// All of a helper's life.
pub(crate) fn serve(engine: &Channel) -> io::Result<()> {
    let Some((request, fds)) = receive_request(engine)? else { return Ok(()) };
    let outcome = match request {
        Request::Start(request) if request.foreign_runtime.is_some() => foreign::start(engine, &request, fds),
        Request::Start(request) => start(engine, &request, fds),
        Request::Exec(request) if request.foreign.is_some() => foreign::exec(engine, &request, fds),
        Request::Exec(request) => join::exec(engine, &request, fds),
    };
    match outcome {
        Ok(()) => Ok(()),
        Err(failure) => engine.send(&Report::Failed(failure), &[]),
    }
}

/// A container's life: start, watch, tidy up.
fn start(engine: &Channel, request: &StartRequest, fds: Vec<OwnedFd>) -> Result<(), Failure> {
    // Before anything can be copied up.
    let started = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    let spec = &request.spec;
    sys::unshare(libc::CLONE_NEWNS).step("make a mount namespace")?;
    sys::set_propagation(libc::MS_PRIVATE).step("make a mount namespace")?;

    let stdio = Stdio::take(request.stdio, fds)?;
    let ground = sources::ground(request, started);
    let mut warnings = Vec::new();
    let cgroup = Cgroup::create(&request.id, &bundle::bounds(request), request.cgroup_parent.as_deref(), &mut warnings);
    if let Some(process) = spec.process() {
        // Only here, outside the container's user namespace, may a hard limit be raised.
        rlimits::raise(process, &mut warnings);
    }

    let mut notes = Notes { stubs: Vec::new(), warnings };
    let start = Start { engine, request, spec, stdio: &stdio, cgroup: &cgroup };
    let launched = match start.launch(request.ids, &mut notes) {
        Err(failure) if failure.kind == FailureKind::NoIdmap && request.ids == IdMode::Shifted => {
            notes.warnings.push(format!(
                "the container has no user namespace: cannot {} ({})",
                failure.step,
                io::Error::from_raw_os_error(failure.errno)
            ));
            start.launch(IdMode::Plain, &mut notes)
        }
        other => other,
    };
    // From here on only the container holds them, so that readers see the end of its output.
    drop(stdio);

    let outcome = launched.and_then(|running| {
        let inside = Inside { namespaces: running.namespaces, cgroups: cgroup.dirs().to_vec() };
        let report = Report::Started { pid: running.child.pid, inside, warnings: notes.warnings };
        let mut fds = vec![running.child.pidfd.as_fd()];
        fds.extend(running.terminal.as_ref().map(AsFd::as_fd));
        // An engine that has gone meanwhile is noticed below.
        drop(engine.send(&report, &fds));
        let Running { child, terminal, status, .. } = running;
        drop(terminal);
        let ending = watch(engine, &child, || drop(sys::signal_pidfd(child.pidfd.as_fd(), libc::SIGKILL)))?;
        Ok(status.and_then(init::read_ending).unwrap_or(ending))
    });

    let (oom, pids_limit_hit) = (cgroup.killed_for_memory(), cgroup.hit_pids_limit());
    cgroup.remove();
    if let Some(ground) = ground {
        stubs::remove(&ground, &notes.stubs);
    }
    drop(engine.send(&Report::Ended { ending: outcome?, oom, pids_limit_hit }, &[]));
    Ok(())
}

/// A started container, as its helper sees it.
struct Running {
    child: Child,
    namespaces: i32,
    terminal: Option<OwnedFd>,
    /// Where our init says how the program ended.
    status: Option<OwnedFd>,
}

/// What a start needs.
struct Start<'a> {
    engine: &'a Channel,
    request: &'a StartRequest,
    spec: &'a Spec,
    stdio: &'a Stdio,
    cgroup: &'a Cgroup,
}

/// What a start leaves to be known, also when it fails.
#[derive(Default)]
struct Notes {
    stubs: Vec<Stub>,
    warnings: Vec<String>,
}

impl Start<'_> {
    /// Makes the first process and leads it through its start. On failure nothing of it is left but the stubs.
    fn launch(&self, ids: IdMode, notes: &mut Notes) -> Result<Running, Failure> {
        let Start { request, spec, stdio, cgroup, .. } = self;
        let mut namespaces = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        if request.network.is_own() {
            namespaces |= libc::CLONE_NEWNET;
        }
        if ids == IdMode::Shifted {
            namespaces |= libc::CLONE_NEWUSER;
        }
        let (outer, inner) = Channel::pair().step("make a socket")?;
        let (status, tell_status) = if request.init {
            let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).step("make a pipe")?;
            (Some(read), Some(write))
        } else {
            (None, None)
        };
        if ids == IdMode::Shifted {
            stdio.give_to(enter::SHIFTED_BASE);
        }
        // A v2 group is entered by birth. Where that fails, as with v1 groups, the child enters through what we open.
        let unified = cgroup.unified();
        let mut entrances = cgroup.entrances(unified.is_some());
        let is_uncounted = !cgroup.bounds_pids();
        let mut forked = sys::fork(namespaces, unified.as_ref().map(AsFd::as_fd));
        if unified.is_some() && forked.is_err() {
            entrances = cgroup.entrances(false);
            forked = sys::fork(namespaces, None);
        }
        let child = match forked.step("make a process in new namespaces")? {
            Fork::Child => {
                drop((outer, status));
                let birth = inside::Birth { request, spec, ids, helper: &inner, stdio, is_uncounted };
                let failure = inside::run(&birth, tell_status, &mut entrances);
                drop(inner.send(&FromInside::Failed(failure), &[]));
                sys::exit_now(125)
            }
            Fork::Parent(child) => child,
        };
        drop((inner, tell_status, entrances));

        match self.lead(ids, &child, &outer, notes) {
            Ok(terminal) => {
                // Made by the first process for itself once it was in its control groups.
                namespaces |= libc::CLONE_NEWCGROUP;
                Ok(Running { child, namespaces, terminal, status })
            }
            Err(failure) => {
                drop(sys::signal_pidfd(child.pidfd.as_fd(), libc::SIGKILL));
                drop(sys::reap(child.pidfd.as_fd()));
                Err(failure)
            }
        }
    }

    /// Gives the first process what only we can give, and listens until its program runs.
    fn lead(&self, ids: IdMode, child: &Child, outer: &Channel, notes: &mut Notes) -> Result<Option<OwnedFd>, Failure> {
        let userns = if ids == IdMode::Shifted {
            enter::write_shifted_map(child.pid).step("map the ids of a user namespace")?;
            Some(File::open(format!("/proc/{}/ns/user", child.pid)).step("open the user namespace")?)
        } else {
            None
        };
        if self.request.network == NetworkPlan::Joined {
            let namespace = format!("/proc/{}/ns/net", child.pid);
            let namespace = File::open(namespace).step("open the network namespace")?;
            offer_namespace(self.engine, namespace.as_fd(), child.pidfd.as_fd())?;
        }
        let opened = sources::open(self.request, userns.as_ref().map(AsFd::as_fd), &mut notes.warnings)?;
        let fds: Vec<BorrowedFd<'_>> = opened.fds.iter().map(AsFd::as_fd).collect();
        outer.send(&Go { sources: opened.kinds }, &fds).step("send the mounts to the container")?;
        drop(fds);
        drop(opened.fds);
        listen(self.engine, outer, notes, self.request.network).map(|heard| heard.terminal)
    }
}

/// What a starting process told.
#[derive(Default)]
struct Heard {
    terminal: Option<OwnedFd>,
    joined: Option<i32>,
}

/// Lets the engine give a network namespace its devices.
fn offer_namespace(engine: &Channel, namespace: BorrowedFd<'_>, process: BorrowedFd<'_>) -> Result<(), Failure> {
    engine.send(&Report::Namespace, &[namespace, process]).step("send the network namespace")
}

/// Takes messages until the program runs (the socket closes on exec) or a step failed. Meanwhile the engine may have one
/// thing to say: that the network is attached, which is passed on.
fn listen(engine: &Channel, outer: &Channel, notes: &mut Notes, network: NetworkPlan) -> Result<Heard, Failure> {
    const STEP: &str = "hear from the container";
    let mut heard = Heard::default();
    let mut awaits_network = network == NetworkPlan::Joined;
    loop {
        // A start may hang on a dead network file system; the end of the engine ends that, too.
        let ready = sys::poll(&[outer.as_fd(), engine.as_fd()], -1).step(STEP)?;
        if !ready[0] {
            if awaits_network && engine.receive::<Attached>().step("hear from the engine")?.is_some() {
                awaits_network = false;
                // One that has failed meanwhile says so.
                drop(outer.send(&Attached, &[]));
                continue;
            }
            return Err(Failure::new("go on without the engine", &io::Error::from_raw_os_error(libc::EPIPE)));
        }
        match outer.receive::<FromInside>().step(STEP)? {
            Some((FromInside::Mounted { stubs: made, warnings: more }, _)) => {
                notes.stubs.extend(made);
                notes.warnings.extend(more);
            }
            Some((FromInside::Terminal, mut fds)) => heard.terminal = fds.pop(),
            Some((FromInside::Joined { pid }, _)) => heard.joined = Some(pid),
            Some((FromInside::Failed(failure), _)) => return Err(failure),
            None => return Ok(heard),
        }
    }
}

/// Waits for a child; kills it when the engine goes.
fn watch(engine: &Channel, child: &Child, kill: impl Fn()) -> Result<Ending, Failure> {
    let mut engine_is_there = true;
    loop {
        let mut fds = vec![child.pidfd.as_fd()];
        if engine_is_there {
            fds.push(engine.as_fd());
        }
        match sys::poll(&fds, -1) {
            Ok(ready) if ready[0] => {
                // The engine hangs up before it kills the process, so both can be seen at once: what the process started
                // has to go too, and its group is known only until it is reaped.
                if ready.get(1) == Some(&true) {
                    kill();
                }
                return sys::reap(child.pidfd.as_fd()).step("wait for the container");
            }
            Ok(_) => {
                // The engine says nothing after the request, so this is its end.
                engine_is_there = false;
                kill();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                kill();
                return Err(Failure::new("watch the container", &error));
            }
        }
    }
}

/// The standard descriptors that the engine passed.
enum Stdio {
    Null,
    Pipe { output: OwnedFd, stdin: Option<OwnedFd> },
    Terminal { rows: u16, cols: u16 },
    Inherit([OwnedFd; 3]),
}

impl Stdio {
    fn take(plan: StdioPlan, fds: Vec<OwnedFd>) -> Result<Stdio, Failure> {
        let missing = || Failure::new("take the standard descriptors", &io::Error::from_raw_os_error(libc::EBADF));
        let mut fds = fds.into_iter();
        let mut next = || fds.next().ok_or_else(missing);
        Ok(match plan {
            StdioPlan::Null => Stdio::Null,
            StdioPlan::Pipe { stdin } => {
                Stdio::Pipe { output: next()?, stdin: if stdin { Some(next()?) } else { None } }
            }
            StdioPlan::Terminal { rows, cols } => Stdio::Terminal { rows, cols },
            StdioPlan::Inherit => Stdio::Inherit([next()?, next()?, next()?]),
        })
    }

    /// Lets the container's users open `/dev/stdout` and `/dev/stdin`: an inode of a pipe has an owner, who must be
    /// somebody in there. Only pipes: a file or terminal of the user's own stays theirs.
    fn give_to(&self, owner: u32) {
        if let Stdio::Pipe { output, stdin } = self {
            for fd in [Some(output), stdin.as_ref()].into_iter().flatten() {
                give_pipe(fd.as_fd(), owner, owner);
            }
        }
    }
}

/// Changes the owner of an anonymous pipe. Failing is harmless: only opening it by name would be refused.
fn give_pipe(fd: BorrowedFd<'_>, uid: u32, gid: u32) {
    const PIPEFS_MAGIC: i64 = 0x5049_5045;
    if sys::file_system_magic(fd).is_ok_and(|magic| magic == PIPEFS_MAGIC) {
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        let _ = rustix::fs::fchown(fd, Some(uid), Some(gid));
    }
}

/// Really mounts a fresh `/proc`, in a pid namespace of its own. Must be called from a process that may fork: the child
/// makes system calls only.
pub(crate) fn try_proc() -> io::Result<()> {
    let namespaces = libc::CLONE_NEWPID | libc::CLONE_NEWNS;
    match sys::fork(namespaces, None)? {
        Fork::Child => {
            let mounted = attach::file_system("proc", &[], rustix::mount::MountAttrFlags::empty());
            sys::exit_now(mounted.map_or_else(|error| error.raw_os_error(), |_| 0))
        }
        Fork::Parent(child) => match sys::reap(child.pidfd.as_fd())? {
            Ending::Exited(0) => Ok(()),
            Ending::Exited(errno) => Err(io::Error::from_raw_os_error(errno)),
            Ending::Killed(_) => Err(io::Error::from_raw_os_error(libc::EINTR)),
        },
    }
}
