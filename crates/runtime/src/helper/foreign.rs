//! Containers by runc or crun: we mount, resolve the user and supervise; they do the rest by the bundle.
//!
//! Differences from our own: no init is put in, a killed program is known by its code (128 + signal) only, and limits are
//! theirs to apply, so that [`Exit::oom`](crate::Exit) stays false.

use super::{
    Stdio, offer_namespace, payload, sources,
    stubs::{self, Places, Want},
    users, watch,
};
use crate::{
    bundle, cgroup,
    protocol::{
        Attached, Channel, ExecRequest, Failure, FailureKind, IdMode, Inside, MountSource, NetworkPlan, Report,
        StartRequest, Step,
    },
    sys::{self, Child},
    sysctls,
};
use oci_spec::runtime::{LinuxNamespaceBuilder, LinuxNamespaceType, Process, Spec};
use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    process::{Pid, PidfdFlags, pidfd_open},
};
use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

pub(super) fn start(engine: &Channel, request: &StartRequest, fds: Vec<OwnedFd>) -> Result<(), Failure> {
    let started = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    let Some(runtime) = &request.foreign_runtime else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL)).step("find the other runtime");
    };
    sys::unshare(libc::CLONE_NEWNS).step("make a mount namespace")?;
    sys::set_propagation(libc::MS_PRIVATE).step("make a mount namespace")?;
    let stdio = Stdio::take(request.stdio, fds)?;
    let ground = sources::ground(request, started);
    let mut warnings = Vec::new();
    if request.ids == IdMode::Inherited {
        warnings.push("limits are not applied by another runtime for an ordinary user".to_owned());
    }

    if request.network == NetworkPlan::Joined {
        // Ours, which the other runtime's container inherits.
        sys::unshare(libc::CLONE_NEWNET).step("make a network namespace")?;
        sys::loopback_up().step("bring the loopback device up")?;
        let namespace = File::open("/proc/self/ns/net").step("open the network namespace")?;
        let ourselves = pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).step("find ourselves")?;
        offer_namespace(engine, namespace.as_fd(), ourselves.as_fd())?;
        engine.receive::<Attached>().step("hear from the engine")?;
        // The other runtime takes this network for the host's, and would refuse.
        let settings = openat(CWD, "/proc/sys", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .step("open /proc/sys")?;
        sysctls::write(settings.as_fd(), &request.spec, |namespace| namespace == sysctls::Namespace::Network)?;
    }
    let root = mount_all(request, &mut warnings)?;
    let mut places = Places::new(root.as_fd());
    let made = make_mount_points(request, &request.spec, &mut places);
    let stubs = places.stubs()?;
    drop(places);
    let outcome = made.and_then(|()| {
        let mut spec = request.spec.clone();
        if request.network == NetworkPlan::Joined {
            join_our_network(&mut spec).step("describe the network namespace")?;
        }
        write_resolved(&request.dir.join(bundle::CONFIG), root.as_fd(), spec, &request.user)?;
        let caller = Caller { runtime, dir: &request.dir, id: &request.id };
        let pid_file = request.dir.join("pid");
        let mut command = caller.command("run");
        command.arg("--bundle").arg(&request.dir).arg("--pid-file").arg(&pid_file).arg(&request.id);
        let outcome = supervise(engine, command, &stdio, &pid_file, &caller, Inside::default(), warnings);
        // Ends what a killed runtime left; nothing, usually.
        let deleted = caller.command("delete").arg("--force").arg(&request.id).output();
        drop(deleted);
        cgroup::sweep(&request.id);
        outcome
    });
    drop(root);
    if let Some(ground) = ground {
        stubs::remove(&ground, &stubs);
    }
    drop(engine.send(&outcome?, &[]));
    Ok(())
}

pub(super) fn exec(engine: &Channel, request: &ExecRequest, mut fds: Vec<OwnedFd>) -> Result<(), Failure> {
    let Some(foreign) = &request.foreign else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL)).step("find the other runtime");
    };
    if fds.is_empty() {
        return Err(io::Error::from_raw_os_error(libc::EBADF)).step("find the container");
    }
    // Kept open, so that its number cannot pass to another process while we look into its root.
    let _container = fds.remove(0);
    let stdio = Stdio::take(request.stdio, fds)?;
    let root = format!("/proc/{}/root", foreign.pid);
    let root = openat(CWD, &root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .step("look into the container")?;
    let process = resolved(root.as_fd(), request.process.clone(), &request.user)?;
    drop(root);
    let file = foreign.dir.join(format!("exec-{}.json", foreign.serial));
    let bytes = serde_json::to_vec(&process).step("describe the process")?;
    std::fs::write(&file, bytes).step_at("describe the process", &file)?;

    let caller = Caller { runtime: &foreign.runtime, dir: &foreign.dir, id: &foreign.id };
    let pid_file = foreign.dir.join(format!("exec-{}.pid", foreign.serial));
    let mut command = caller.command("exec");
    command.arg("--process").arg(&file).arg("--pid-file").arg(&pid_file).arg(&foreign.id);
    let report = supervise(engine, command, &stdio, &pid_file, &caller, request.inside.clone(), Vec::new())?;
    drop(engine.send(&report, &[]));
    Ok(())
}

/// How the other runtime is called for one container.
struct Caller<'a> {
    runtime: &'a Path,
    dir: &'a Path,
    id: &'a str,
}

impl Caller<'_> {
    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(self.runtime);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.arg("--root").arg(self.dir.join("state")).arg("--log").arg(self.log());
        command.arg("--log-format").arg("json").arg(verb).stdin(std::process::Stdio::null());
        command
    }

    fn log(&self) -> PathBuf {
        self.dir.join("runtime.log")
    }

    /// What the runtime complained about.
    fn complaint(&self, code: i32) -> Failure {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let messages: Vec<String> = log
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|entry| entry["level"] == "error")
            .filter_map(|entry| Some(entry["msg"].as_str()?.to_owned()))
            .collect();
        let said = messages.last().cloned().unwrap_or_else(|| format!("it ended with code {code}"));
        let is_exec = said.contains("exec") || said.contains("executable");
        let (kind, errno) = if is_exec && (said.contains("not found") || said.contains("no such file")) {
            (FailureKind::NotFound, libc::ENOENT)
        } else if is_exec && said.contains("permission denied") {
            (FailureKind::NotExecutable, libc::EACCES)
        } else {
            (FailureKind::Setup, libc::EIO)
        };
        let name = self.runtime.display();
        Failure { step: format!("start {} with {name}: {said}", self.id), path: None, errno, kind }
    }
}

/// Mounts root and sources where the bundle says they are.
fn mount_all(request: &StartRequest, warnings: &mut Vec<String>) -> Result<OwnedFd, Failure> {
    let opened = sources::open(request, None, warnings)?;
    let mut fds = opened.fds.into_iter();
    let mut generated: Vec<Option<(OwnedFd, bool)>> = request.mounts.iter().map(|_| None).collect();
    super::inside::generate_files(request, &mut generated)?;
    let missing = || Failure::new("take the root", &io::Error::from_raw_os_error(libc::EBADF));
    let root = fds.next().ok_or_else(missing)?;
    place_mount(root.as_fd(), &request.dir.join(bundle::ROOTFS), true)?;
    for (index, (kind, file)) in opened.kinds.iter().zip(generated).enumerate() {
        let (mount, is_directory) = match (kind, file) {
            (Some(is_directory), _) => (fds.next().ok_or_else(missing)?, *is_directory),
            (None, Some(file)) => file,
            (None, None) => continue,
        };
        place_mount(mount.as_fd(), &request.dir.join(format!("{}-{index}", bundle::SOURCE)), is_directory)?;
    }
    Ok(root)
}

fn place_mount(mount: BorrowedFd<'_>, path: &Path, is_directory: bool) -> Result<(), Failure> {
    const STEP: &str = "mount for the other runtime at";
    if is_directory {
        std::fs::create_dir_all(path).step_at(STEP, path)?;
    } else {
        std::fs::write(path, "").step_at(STEP, path)?;
    }
    let place = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step_at(STEP, path)?;
    super::attach::attach(mount, place.as_fd(), &path.display().to_string())
}

/// Made by us, so that we know what to remove; the other runtime finds them there.
fn make_mount_points(request: &StartRequest, spec: &Spec, places: &mut Places<'_>) -> Result<(), Failure> {
    for standard in ["/proc", "/sys", "/dev"] {
        places.mount_point(standard, Want::RealDirectory)?;
    }
    for mount in &request.mounts {
        // Below /dev comes a file system of its own, and devices are made by the other runtime.
        if mount.target.starts_with("/dev/") || matches!(mount.source, MountSource::Device(_)) {
            continue;
        }
        let is_file = match &mount.source {
            MountSource::Bind(path) => !path.is_dir(),
            MountSource::File { .. } | MountSource::Device(_) => true,
            MountSource::Tmpfs { .. } | MountSource::Overlay { .. } => false,
        };
        places.mount_point(&mount.target, if is_file { Want::File } else { Want::Directory })?;
    }
    if let Some(process) = spec.process() {
        places.lasting_directory_unless_root(process.cwd())?;
    }
    Ok(())
}

/// Named by its path, so that the runtime's `exec` enters it too: where the bundle names none, it stays where it is called.
fn join_our_network(spec: &mut Spec) -> io::Result<()> {
    let path = format!("/proc/{}/ns/net", std::process::id());
    let namespace = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Network).path(path).build();
    let mut linux = spec.linux().clone().unwrap_or_default();
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    namespaces.push(namespace.map_err(io::Error::other)?);
    linux.set_namespaces(Some(namespaces));
    // Those of the network are set already.
    let mut rest = linux.sysctl().clone().unwrap_or_default();
    rest.retain(|name, _| sysctls::Namespace::of(name) != Some(sysctls::Namespace::Network));
    linux.set_sysctl(Some(rest).filter(|rest| !rest.is_empty()));
    spec.set_linux(Some(linux));
    Ok(())
}

fn write_resolved(path: &Path, root: BorrowedFd<'_>, mut spec: Spec, user: &str) -> Result<(), Failure> {
    if let Some(process) = spec.process().clone() {
        spec.set_process(Some(resolved(root, process, user)?));
    }
    let bytes = serde_json::to_vec(&spec).step("describe the container")?;
    std::fs::write(path, bytes).step_at("write the bundle", path)
}

/// The process with the user's numbers and home.
fn resolved(root: BorrowedFd<'_>, mut process: Process, user: &str) -> Result<Process, Failure> {
    let identity = users::look_up(root, user)?;
    let numbers = process.user_mut();
    numbers.set_uid(identity.uid).set_gid(identity.gid).set_username(None);
    numbers.set_additional_gids(Some(identity.groups.clone()));
    let mut env = process.env().clone().unwrap_or_default();
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(format!("HOME={}", identity.home));
        process.set_env(Some(env));
    }
    Ok(process)
}

/// Pause between two looks for the file with the process id.
const PID_FILE_PAUSE_MS: i32 = 2;

fn supervise(
    engine: &Channel,
    mut command: Command,
    stdio: &Stdio,
    pid_file: &Path,
    caller: &Caller<'_>,
    inside: Inside,
    warnings: Vec<String>,
) -> Result<Report, Failure> {
    let terminal = connect(&mut command, stdio)?;
    // SAFETY: between fork and exec only system calls are made, in a single-threaded process.
    unsafe {
        let has_terminal = terminal.is_some();
        command.pre_exec(move || {
            sys::die_with_parent()?;
            sys::restore_signals();
            rustix::process::setsid()?;
            if has_terminal {
                sys::control_terminal(io::stdin().as_fd())?;
            }
            Ok(())
        });
    }
    let spawned = command.spawn().step_at("start the other runtime", caller.runtime)?;
    drop(command);
    let handle = Pid::from_child(&spawned);
    let pidfd = pidfd_open(handle, PidfdFlags::empty()).step("find the other runtime")?;
    let child = Child { pid: handle.as_raw_nonzero().get(), pidfd };

    let first = loop {
        let written = std::fs::read_to_string(pid_file).ok().and_then(|text| text.trim().parse().ok());
        if let Some(pid) = written.and_then(Pid::from_raw) {
            break Some(pid);
        }
        let ready = sys::poll(&[child.pidfd.as_fd(), engine.as_fd()], PID_FILE_PAUSE_MS).unwrap_or_default();
        if ready.get(1) == Some(&true) {
            drop(sys::signal_pidfd(child.pidfd.as_fd(), libc::SIGKILL));
        }
        if ready.first() == Some(&true) {
            // A short program may have ended already; then the file is there now.
            if pid_file.exists() {
                break None;
            }
            let ending = sys::reap(child.pidfd.as_fd()).step("wait for the other runtime")?;
            return Err(caller.complaint(ending.code()));
        }
    };
    // Where it has gone already, the runtime itself stands for it.
    let first_fd = first.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let first_fd = first_fd.as_ref().unwrap_or(&child.pidfd);
    let pid = first.map_or(child.pid, |pid| pid.as_raw_nonzero().get());
    let mut fds = vec![first_fd.as_fd()];
    fds.extend(terminal.as_ref().map(AsFd::as_fd));
    drop(engine.send(&Report::Started { pid, inside, warnings }, &fds));
    let ending = watch(engine, &child, || {
        drop(sys::signal_pidfd(first_fd.as_fd(), libc::SIGKILL));
        drop(sys::signal_pidfd(child.pidfd.as_fd(), libc::SIGKILL));
    })?;
    Ok(Report::Ended { ending, oom: false, pids_limit_hit: false })
}

/// Gives the descriptors to the command; the master, if a terminal was asked for.
fn connect(command: &mut Command, stdio: &Stdio) -> Result<Option<OwnedFd>, Failure> {
    const STEP: &str = "connect input and output";
    let copy = |fd: &OwnedFd| fd.try_clone().step(STEP);
    let null = std::process::Stdio::null;
    match stdio {
        Stdio::Null => {
            command.stdin(null()).stdout(null()).stderr(null());
        }
        Stdio::Pipe { output, stdin } => {
            command.stdin(match stdin {
                Some(stdin) => copy(stdin)?.into(),
                None => null(),
            });
            command.stdout(copy(output)?).stderr(copy(output)?);
        }
        Stdio::Inherit([stdin, stdout, stderr]) => {
            command.stdin(copy(stdin)?).stdout(copy(stdout)?).stderr(copy(stderr)?);
        }
        Stdio::Terminal { rows, cols } => {
            // The host's /dev/ptmx: its /dev/pts/ptmx is often closed to all.
            let dev =
                openat(CWD, "/dev", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).step(STEP)?;
            let (master, slave) = payload::new_terminal(dev.as_fd(), *rows, *cols)?;
            command.stdin(copy(&slave)?).stdout(copy(&slave)?).stderr(slave);
            return Ok(Some(master));
        }
    }
    Ok(None)
}
