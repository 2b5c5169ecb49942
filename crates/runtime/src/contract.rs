//! CONTRACT (to be spread over modules by the crate's owner): names, fields and meaning are binding.
#![allow(missing_docs, unused_variables, clippy::unimplemented)]
use std::{collections::BTreeMap, os::fd::OwnedFd, path::{Path, PathBuf}, time::Duration};

/// First line of `main`: when this process is the re-executed helper of a container, does that work and never returns.
pub fn run_if_reexecuted() {}

/// What this process may do after [`enter`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// Real root. Containers get a user namespace of shifted ids through idmapped mounts where the kernel allows.
    Root { idmapped: bool },
    /// Root of an own user namespace with subordinate ids (newuidmap, newgidmap).
    Subordinate { uids: u32, gids: u32 },
    /// Root of an own user namespace that maps one id only: chown to other ids fails.
    SingleId,
    /// No user namespace could be made; the reason and remedy as text.
    None { reason: String },
}

/// Second step of `main` for commands that touch the store or start containers; the process must be single-threaded.
/// Ordinary user: forks a short-lived child that runs newuidmap/newgidmap for us while this very process does
/// unshare(CLONE_NEWUSER) — no re-exec, same pid; afterwards we are uid 0 in it. Everyone: unshare(CLONE_NEWNS) + private
/// propagation, so that any mount of ours dies with the process. Must cost < 1 ms as root, < 5 ms as an ordinary user.
pub fn enter() -> Result<Privilege, EnterError> { unimplemented!() }

/// The root file system of a container.
#[derive(Clone, Debug)]
pub enum Rootfs {
    /// overlayfs, mounted inside the container's own mount namespace only.
    Overlay(Overlay),
    /// A plain directory (copy fallback, or a bundle of the user's own).
    Dir(PathBuf),
}

/// An overlay mount as data. `lowers[0]` is the topmost. 500 lowers work with the new mount API; falls back to
/// mount(2) with chdir + relative names.
#[derive(Clone, Debug)]
pub struct Overlay {
    pub lowers: Vec<PathBuf>,
    /// `None`: read-only view.
    pub upper: Option<PathBuf>,
    pub work: Option<PathBuf>,
}

impl Overlay {
    /// A detached mount (fsmount), attached nowhere, gone when the descriptor closes; usable with openat2 and *at calls.
    /// One lower without upper is the directory itself. Used by COPY to look at the merged parent.
    pub fn open_view(&self) -> Result<OwnedFd, MountError> { unimplemented!() }
}

/// Whether overlayfs can be mounted on this directory's file system by this process (tried once, really).
pub fn overlay_works(dir: &Path) -> bool { unimplemented!() }

/// Everything about one container. Converted to an OCI runtime-spec bundle (config.json), which is what both our helper
/// and a foreign `--runtime` read.
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    /// Unique, [a-z0-9-]; names cgroup and directory.
    pub id: String,
    /// Scratch directory of this container (exists, empty): bundle, generated /etc/hosts and so on. The caller removes it.
    pub dir: PathBuf,
    pub rootfs: Rootfs,
    pub readonly_rootfs: bool,
    pub process: ProcessSpec,
    /// True: our tiny init is pid 1 (forwards signals, reaps). False: the process itself is pid 1, as in production.
    pub init: bool,
    pub hostname: String,
    pub network: Network,
    /// Extra `/etc/hosts` lines (address, name).
    pub extra_hosts: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub limits: Limits,
    /// Path of runc/crun to use instead of our own runtime.
    pub foreign_runtime: Option<PathBuf>,
    /// Size of /dev/shm in bytes, default 64 MiB.
    pub shm_size_bytes: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct ProcessSpec {
    /// Program and arguments; the program is looked up in the container's PATH when it has no slash.
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Absolute; made (0755, root) if absent, resolved inside the root.
    pub cwd: String,
    /// `user[:group]`, names or numbers, as the image config and Dockerfile USER say; resolved against the container's
    /// /etc/passwd and /etc/group (names, supplementary groups), HOME set from passwd if env lacks it.
    pub user: String,
    pub no_new_privileges: bool,
    pub stdio: Stdio,
    /// Default: docker's 14 capabilities for any user (as docker: effective only for root).
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
}

/// stdout and stderr are ONE pipe so that their order is kept.
#[derive(Debug)]
pub enum Stdio {
    /// stdin /dev/null, both outputs to `/dev/null`.
    Null,
    /// Both outputs into one pipe, readable by [`Container::take_output`]; stdin /dev/null, or the given descriptor.
    Pipe { stdin: Option<OwnedFd> },
    /// A pseudo-terminal from the container's own devpts; the master comes from [`Container::take_terminal`].
    Terminal { rows: u16, cols: u16 },
    /// This process's own three descriptors.
    Inherit,
}
impl Clone for Stdio { fn clone(&self) -> Self { unimplemented!("owner: decide; cloning duplicates the descriptor") } }

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Own network namespace with only a loopback device that is up.
    None,
    /// The host's.
    Host,
}

#[derive(Clone, Debug)]
pub struct Mount {
    pub target: String,
    pub kind: MountKind,
    pub readonly: bool,
}
#[derive(Clone, Debug)]
pub enum MountKind {
    /// A host file or directory; idmapped when the container has shifted ids, so that owners look as on the host.
    Bind(PathBuf),
    Tmpfs { size_bytes: Option<u64>, mode: u32 },
    /// Another overlay (a stage's root as bind source, say), optionally a sub path of it.
    Overlay { overlay: Overlay, subpath: String },
}

/// None: unlimited. Applied by cgroup v2, v1, or not at all with a warning in `Container::warnings`.
#[derive(Clone, Debug, Default)]
pub struct Limits { pub memory_bytes: Option<u64>, pub cpus: Option<f64>, pub pids: Option<u64>, pub nofile: Option<u64> }

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// 0–255; 128+signal when killed.
    pub code: i32,
    pub signal: Option<i32>,
    /// The memory limit killed something in it.
    pub oom: bool,
    /// The pids limit was hit.
    pub pids_limit_hit: bool,
}

/// A started container. Dropping it kills everything in it (pid namespace) and waits.
pub struct Container { /* private */ }
impl Container {
    pub fn start(spec: ContainerSpec) -> Result<Container, StartError> { unimplemented!() }
    /// Host pid of the container's first process (in the pid namespace of this process).
    pub fn pid(&self) -> i32 { unimplemented!() }
    /// Pipe with both outputs (read end).
    pub fn take_output(&mut self) -> Option<OwnedFd> { unimplemented!() }
    pub fn take_terminal(&mut self) -> Option<OwnedFd> { unimplemented!() }
    /// Readable (poll/AsyncFd) when the container has ended.
    pub fn ended_fd(&self) -> std::os::fd::BorrowedFd<'_> { unimplemented!() }
    /// Blocks until the end. Safe from any thread, repeatable.
    pub fn wait(&self) -> Result<Exit, WaitError> { unimplemented!() }
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<Exit>, WaitError> { unimplemented!() }
    /// Sends a signal to the process (through init when there is one).
    pub fn signal(&self, signal: i32) -> Result<(), WaitError> { unimplemented!() }
    /// SIGKILL to everything in it.
    pub fn kill(&self) -> Result<(), WaitError> { unimplemented!() }
    /// `signal`, then after `grace` SIGKILL to everything; waits.
    pub fn stop(&self, signal: i32, grace: Duration) -> Result<Exit, WaitError> { unimplemented!() }
    /// A further process in the running container (health checks, shell). Same namespaces, cgroup, caps, seccomp.
    pub fn exec(&self, process: ProcessSpec) -> Result<Exec, StartError> { unimplemented!() }
    pub fn warnings(&self) -> &[String] { unimplemented!() }
}
/// A process started by [`Container::exec`]; same methods as [`Container`] where they make sense; drop kills it.
pub struct Exec { /* private */ }
impl Exec {
    pub fn take_output(&mut self) -> Option<OwnedFd> { unimplemented!() }
    pub fn take_terminal(&mut self) -> Option<OwnedFd> { unimplemented!() }
    pub fn ended_fd(&self) -> std::os::fd::BorrowedFd<'_> { unimplemented!() }
    pub fn wait(&self) -> Result<Exit, WaitError> { unimplemented!() }
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<Exit>, WaitError> { unimplemented!() }
    pub fn signal(&self, signal: i32) -> Result<(), WaitError> { unimplemented!() }
    pub fn kill(&self) -> Result<(), WaitError> { unimplemented!() }
}

/// Removes what a killed process of ours left of container `id` (cgroups). Idempotent.
pub fn sweep_container(id: &str) {}

/// One line of `seatrial doctor`: what the host offers and the exact remedy where it does not.
pub struct HostCheck { pub name: &'static str, pub ok: bool, pub detail: String, pub remedy: Option<String> }
pub fn host_checks(store_dir: &Path) -> Vec<HostCheck> { unimplemented!() }

#[derive(Debug, thiserror::Error)]
#[error("…")]
pub struct EnterError;
#[derive(Debug, thiserror::Error)]
#[error("…")]
pub struct MountError;
/// Variants that callers act on: `NotFound` (exec: no such program → 127), `NotExecutable` (126), `UnknownUser`, `Setup{step, source}`.
#[derive(Debug, thiserror::Error)]
#[error("…")]
pub struct StartError;
#[derive(Debug, thiserror::Error)]
#[error("…")]
pub struct WaitError;
type _Env = BTreeMap<String, String>;
