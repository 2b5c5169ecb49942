//! Containers as a pipeline sees them.

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{Attachment, BoundPort, EngineError, NetworkMode, Surroundings};

/// A root filesystem that containers start from: an image's, or one made by setup. Engines know what `id` means.
#[derive(Clone, Debug)]
pub struct Root {
    /// Opaque to callers; equal ids mean equal content.
    pub id: String,
    /// How the image says it is started.
    pub config: oci::ImageConfig,
}

impl Root {
    /// Follows from content and configuration: what stands for an image's id where it has none yet.
    pub fn digest(&self) -> oci::Digest {
        let config = serde_json::to_string(&self.config).unwrap_or_default();
        oci::Digest::of(format!("{}\n{config}", self.id).as_bytes())
    }
}

/// A root filesystem as a failed command left it, and how that command was started there: what `shell` enters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptRoot {
    /// [`Root::id`]; it goes away when its time is over.
    pub root: String,
    /// Environment of the command.
    pub env: Vec<(String, String)>,
    /// Its working directory.
    pub cwd: String,
    /// Its `user[:group]`; empty is root.
    pub user: String,
}

/// Takes the bytes of a container's single output pipe as they come; called from one thread at a time.
pub type OutputSink = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// Cancellation that is checked by blocking work and awaited by async work. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Cancel(Arc<tokio::sync::watch::Sender<bool>>);

impl Default for Cancel {
    fn default() -> Self {
        Self(Arc::new(tokio::sync::watch::channel(false).0))
    }
}

impl Cancel {
    /// Not cancelled yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks all work that holds a clone to stop in grace.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }

    /// Whether that was asked.
    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Ends when it is asked.
    pub async fn cancelled(&self) {
        // The sender lives in `self`, so waiting cannot end by its loss.
        let _ = self.0.subscribe().wait_for(|cancelled| *cancelled).await;
    }
}

/// A host path shown inside a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindMount {
    /// Absolute host path.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub target: String,
    /// Whether writing is refused.
    pub readonly: bool,
}

/// Bounds of one container; `None` is unlimited.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Processors, such as 1.5.
    pub cpus: Option<f64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// Where the process's streams go.
#[derive(Clone)]
pub enum Stdio {
    /// Both outputs into one pipe, read by the engine and handed on here; no input.
    Sink(OutputSink),
    /// The terminal (or pipes) of this program; with a terminal of its own if ours is one.
    Inherit,
    /// These: input, output, error output. Another program's, say.
    Descriptors(Arc<[OwnedFd; 3]>),
    /// A terminal of its own of this size. Whoever looks at it gets its other side, once.
    Terminal {
        /// Height in characters.
        rows: u16,
        /// Width in characters.
        cols: u16,
        /// Takes the other side.
        master: TerminalSink,
    },
}

/// Takes the master side of a process's terminal.
pub type TerminalSink = Arc<dyn Fn(OwnedFd) + Send + Sync>;

/// What to start.
#[derive(Clone)]
pub struct ContainerSpec {
    /// Short name for people and for the host name, `[a-z0-9-]`.
    pub name: String,
    /// Fresh copy of this.
    pub root: Root,
    /// Program and arguments, after entrypoint and command were put together.
    pub args: Vec<String>,
    /// Complete environment.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: String,
    /// `user[:group]`; empty is root.
    pub user: String,
    /// Host paths shown inside.
    pub mounts: Vec<BindMount>,
    /// Network.
    pub network: NetworkMode,
    /// Names and ports in the scope's networks.
    pub attachment: Attachment,
    /// File systems in memory, rights, limits of processes.
    pub surroundings: Surroundings,
    /// Bounds.
    pub limits: Limits,
    /// A small init as first process; without it the program itself is process 1, as in production.
    pub init: bool,
    /// Streams.
    pub stdio: Stdio,
}

/// A further process in a running container.
#[derive(Clone)]
pub struct ExecSpec {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Complete environment.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: String,
    /// `user[:group]`.
    pub user: String,
    /// Streams.
    pub stdio: Stdio,
    /// Killed after this time; the exit then says `timed_out`.
    pub timeout: Option<Duration>,
}

/// What becomes of one path in a running container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// The file, link or directory of the host that it becomes (a directory without what is in it); `None`: it goes away, with
    /// all that is below it.
    pub from: Option<PathBuf>,
    /// Absolute path in the container.
    pub to: PathBuf,
}

/// How a process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; 128 + signal when it was killed.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The memory limit ended it.
    pub out_of_memory: bool,
    /// The limit of processes was hit.
    pub out_of_pids: bool,
    /// Its time was over.
    pub timed_out: bool,
}

/// A started container.
#[async_trait]
pub trait Container: Send + Sync {
    /// Waits for its end (all output has been handed on by then). Repeatable.
    async fn wait(&self) -> Result<Exit, EngineError>;

    /// Runs a further process to its end.
    async fn exec(&self, spec: ExecSpec) -> Result<Exit, EngineError>;

    /// Sends a signal, and SIGKILL to everything in it after `grace`.
    async fn stop(&self, signal: i32, grace: Duration) -> Result<Exit, EngineError>;

    /// Changes files in it while it runs, as its root would, whatever programs its image has. What is not on the host any more
    /// changes nothing.
    async fn change_files(&self, _changes: Vec<FileChange>) -> Result<(), EngineError> {
        Err(cannot("change files of running containers"))
    }

    /// Starts an ended container again, on the file system that it left, as `docker restart` does. `spec` says what is started;
    /// its root is not looked at. This handle is of no use afterwards; when it fails, it can be tried again.
    async fn again(&self, _spec: ContainerSpec) -> Result<Box<dyn Container>, EngineError> {
        Err(cannot("start containers again"))
    }

    /// Ends it if it still runs, and removes what it wrote, which otherwise stays until its scope closes.
    async fn remove(&self) -> Result<(), EngineError> {
        Err(cannot("remove containers before the end of their scope"))
    }

    /// Keeps the file system that an ended container wrote to for the given time, for `shell`; gives its [`Root::id`].
    /// `None`: this engine cannot, or it is gone already.
    async fn keep(&self, time: Duration) -> Result<Option<String>, EngineError>;

    /// Keeps the file system of an ended container as a root that later containers, also of other runs, start from; found
    /// again by [`crate::Scope::saved`]. `None`: this engine cannot.
    async fn save(&self, _key: &oci::Digest) -> Result<Option<Root>, EngineError> {
        Ok(None)
    }

    /// Stops (`true`) or lets run again all its processes, without their notice. Processes that are started in between run.
    async fn freeze(&self, _frozen: bool) -> Result<(), EngineError> {
        Err(cannot("freeze containers"))
    }

    /// Its addresses in the scope's networks; none when it has no private one.
    fn addresses(&self) -> Vec<IpAddr> {
        Vec::new()
    }

    /// Where its published ports are reached on the host.
    fn ports(&self) -> Vec<BoundPort> {
        Vec::new()
    }

    /// Addresses on which something in its network listens for TCP, as the kernel lists them.
    async fn listening(&self) -> Result<Vec<SocketAddr>, EngineError> {
        Err(cannot("look at the ports of containers"))
    }

    /// A TCP connection to a port of it, from within its own network; nothing has to be published for it.
    async fn connect(&self, _port: u16) -> Result<TcpStream, EngineError> {
        Err(cannot("connect to containers"))
    }

    /// Things that did not work as asked, such as a limit without cgroups.
    fn warnings(&self) -> Vec<String>;
}

fn cannot(what: &str) -> EngineError {
    EngineError { message: format!("this engine cannot {what}"), hint: None, command_code: None, source: None }
}
