//! What a container is to be: plain values that the caller fills in.

use crate::overlay::Overlay;
use serde::{Deserialize, Serialize};
use std::{
    fmt, io,
    net::IpAddr,
    os::fd::{BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
};

/// Everything about one container. Converted to an OCI runtime spec, which is what both our helper and a foreign
/// `--runtime` (there as a bundle's `config.json`) read.
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    /// Unique, `[a-z0-9-]`, at most 64 bytes; names cgroup and directory.
    pub id: String,
    /// Scratch directory of this container, made when something must be written there: the bundle of a foreign runtime,
    /// what a read-only view needs. The caller removes it. At most one container at a time uses it.
    pub dir: PathBuf,
    /// The root file system.
    pub rootfs: Rootfs,
    /// The root file system is mounted read-only; what is mounted into it keeps its own mode.
    pub readonly_rootfs: bool,
    /// The first process.
    pub process: ProcessSpec,
    /// True: our tiny init is pid 1 (forwards signals, reaps). False: the process itself is pid 1, as in production.
    pub init: bool,
    /// Host name inside, at most 64 bytes.
    pub hostname: String,
    /// Which network it sees.
    pub network: Network,
    /// Extra `/etc/hosts` lines (address, name).
    pub extra_hosts: Vec<(String, String)>,
    /// Further mounts, made in this order.
    pub mounts: Vec<Mount>,
    /// Devices of the host that it may use.
    pub devices: Vec<Device>,
    /// Kernel parameters of its own namespaces, by sysctl(8)'s names: `net.*` (not in the host's network), `kernel.sem`,
    /// `kernel.shm*`, `kernel.msg*`, `fs.mqueue.*`. Others are refused.
    pub sysctls: Vec<(String, String)>,
    /// Bounds on memory, time and processes.
    pub limits: Limits,
    /// Path of runc or crun to use instead of our own runtime.
    pub foreign_runtime: Option<PathBuf>,
    /// Size of `/dev/shm` in bytes, default 64 MiB.
    pub shm_size_bytes: Option<u64>,
    /// Parent of its control groups: an absolute path in each hierarchy, or one below our own group. Made if absent, and
    /// left there.
    pub cgroup_parent: Option<String>,
    /// BuildKit's insecure mode (`security.insecure`): no user namespace of its own, all capabilities that we have, no
    /// system call filter, nothing of `/proc` and `/sys` masked or read-only.
    pub privileged: bool,
}

/// The root file system of a container.
#[derive(Clone, Debug)]
pub enum Rootfs {
    /// overlayfs, mounted inside the container's own mount namespace only.
    Overlay(Overlay),
    /// A plain directory (copy fallback, or a bundle of the user's own).
    Dir(PathBuf),
}

/// A process and its surroundings.
#[derive(Clone, Debug)]
pub struct ProcessSpec {
    /// Program and arguments; the program is looked up in the container's PATH when it has no slash.
    pub args: Vec<String>,
    /// The whole environment; `HOME` is added if absent.
    pub env: Vec<(String, String)>,
    /// Absolute; made (0755, root) if absent, resolved inside the root.
    pub cwd: String,
    /// `user[:group]`, names or numbers, as the image config and Dockerfile USER say; resolved against the container's
    /// `/etc/passwd` and `/etc/group` (names, supplementary groups), HOME set from passwd if env lacks it. Empty: root.
    pub user: String,
    /// Set-id programs and file capabilities have no effect (prctl(2), `PR_SET_NO_NEW_PRIVS`).
    pub no_new_privileges: bool,
    /// Where input comes from and output goes to.
    pub stdio: Stdio,
    /// Added to docker's 14 capabilities. As in docker they are effective only for root.
    pub cap_add: Vec<String>,
    /// Taken from docker's 14 capabilities; `ALL` takes all.
    pub cap_drop: Vec<String>,
}

/// Standard input and output. stdout and stderr are ONE pipe so that their order is kept.
#[derive(Debug)]
pub enum Stdio {
    /// stdin `/dev/null`, both outputs to `/dev/null`.
    Null,
    /// Both outputs into one pipe, readable by `take_output`.
    Pipe {
        /// stdin; `/dev/null` without.
        stdin: Option<OwnedFd>,
    },
    /// A pseudo-terminal from the container's own devpts; the master comes from `take_terminal`.
    Terminal {
        /// Height in characters.
        rows: u16,
        /// Width in characters.
        cols: u16,
    },
    /// This process's own three descriptors.
    Inherit,
    /// These three.
    Descriptors([OwnedFd; 3]),
}

impl Clone for Stdio {
    /// Duplicates the descriptor.
    ///
    /// # Panics
    /// When the process has no descriptor left: a program that lost its input without notice would be worse.
    #[expect(clippy::expect_used, reason = "stated above")]
    fn clone(&self) -> Self {
        match self {
            Stdio::Null => Stdio::Null,
            Stdio::Pipe { stdin } => Stdio::Pipe {
                stdin: stdin.as_ref().map(|fd| fd.try_clone().expect("a descriptor is left for a copy of stdin")),
            },
            Stdio::Terminal { rows, cols } => Stdio::Terminal { rows: *rows, cols: *cols },
            Stdio::Inherit => Stdio::Inherit,
            Stdio::Descriptors(fds) => Stdio::Descriptors(
                fds.each_ref().map(|fd| fd.try_clone().expect("a descriptor is left for a copy of a stream")),
            ),
        }
    }
}

/// Which network a container sees.
#[derive(Clone, Debug)]
pub enum Network {
    /// Own network namespace with only a loopback device that is up.
    None,
    /// The host's.
    Host,
    /// Own network namespace, which somebody joins to others before the program runs.
    Private(Arc<dyn PrivateNetwork>),
}

/// Joins a container's network namespace to others.
pub trait PrivateNetwork: fmt::Debug + Send + Sync {
    /// Its addresses: the host name has the first one in `/etc/hosts`.
    fn addresses(&self) -> Vec<IpAddr>;

    /// Content of its `/etc/resolv.conf`.
    fn resolv_conf(&self) -> String;

    /// Gives the namespace its devices. Called once while the container starts, beside its mounts; `process` is the pidfd of
    /// its first process, whose program waits for the end of this.
    ///
    /// # Errors
    /// The container cannot start so.
    fn attach(&self, namespace: BorrowedFd<'_>, process: BorrowedFd<'_>) -> io::Result<()>;
}

/// A further mount.
#[derive(Clone, Debug)]
pub struct Mount {
    /// Absolute path inside; links are followed inside the root; made if absent and removed again afterwards.
    pub target: String,
    /// What is mounted.
    pub kind: MountKind,
    /// No writing through it.
    pub readonly: bool,
}

/// What is mounted.
#[derive(Clone, Debug)]
pub enum MountKind {
    /// A host file or directory with what is mounted below it; idmapped when the container has shifted ids, so that
    /// owners look as on the host. Devices and set-id bits have no effect in it.
    Bind(PathBuf),
    /// An empty file system in memory.
    Tmpfs {
        /// Most bytes it holds; half of the memory without.
        size_bytes: Option<u64>,
        /// Permission bits of its root.
        mode: u32,
    },
    /// A file that exists in memory, in this one container only.
    File {
        /// What it holds.
        content: FileContent,
        /// Permission bits.
        mode: u32,
        /// Owner, as the container sees it.
        uid: u32,
        /// Group, as the container sees it.
        gid: u32,
    },
    /// Another overlay (a stage's root as bind source, say).
    Overlay {
        /// The overlay.
        overlay: Overlay,
        /// A path in it, resolved inside; empty for the whole.
        subpath: String,
    },
}

/// A device of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The node on the host.
    pub source: PathBuf,
    /// Absolute path inside. The node there has the host's permission bits, owner and group; for an ordinary user it is the
    /// host's own, whose rights hold.
    pub target: String,
    /// Some of `rwm`. Less than `rw` needs control groups of version 1; elsewhere there is a warning.
    pub access: String,
}

/// Content of a [`MountKind::File`], perhaps secret: `Debug` shows its length only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileContent(pub Vec<u8>);

impl fmt::Debug for FileContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileContent({} bytes)", self.0.len())
    }
}

/// Bounds of a container. `None`: unlimited. Applied by cgroup v2, v1, or not at all with a warning in
/// `Container::warnings`.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Memory in bytes, without swap.
    pub memory_bytes: Option<u64>,
    /// Processors' worth of time, such as 1.5.
    pub cpus: Option<f64>,
    /// Processes and threads; without a bound of their own 16,384, where the kernel lets us count them.
    pub pids: Option<u64>,
    /// Open files of a process (`RLIMIT_NOFILE`); never above our own hard limit.
    pub nofile: Option<u64>,
    /// Further resource limits of each process.
    pub ulimits: Vec<Ulimit>,
}

/// A resource limit (setrlimit(2)). A hard limit above our own needs CAP_SYS_RESOURCE; without, ours stays with a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ulimit {
    /// The kernel's name without `RLIMIT_`, in any case: `nofile`, `nproc`, `core`, ….
    pub name: String,
    /// In the limit's own unit; `u64::MAX` is unlimited.
    pub soft: u64,
    /// At least `soft`.
    pub hard: u64,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// 0–255; 128+signal when killed.
    pub code: i32,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// The memory limit killed something in it.
    pub oom: bool,
    /// The pids limit was hit.
    pub pids_limit_hit: bool,
}
