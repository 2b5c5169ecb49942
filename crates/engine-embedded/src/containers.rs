//! A started container, with the thread that hands its output on.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use engine::{
    BoundPort, Container, ContainerSpec, EngineError, ExecSpec, Exit, FileChange, OutputSink, Root, Stdio, TerminalSink,
};
use network::Membership;
use oci::{Digest, ImageConfig};
use runtime::ProcessSpec;
use rustix::io::Errno;
use store::{ActiveSnapshot, Store};

use crate::{embedded::blocking, failed, saved, scope::Shared, start_failed, terminal};

/// Read at once from a container's pipe.
const PIPE_READ_BYTES: usize = 64 * 1024;

/// Who takes care of a process's streams on our side.
pub(crate) enum Streams {
    Sink(OutputSink),
    Terminal,
    /// Somebody else's terminal.
    Master(TerminalSink),
    /// It has descriptors of its own.
    Nobody,
}

/// The runtime's view of the streams, and ours.
pub(crate) fn inner_stdio(stdio: &Stdio) -> Result<(runtime::Stdio, Streams), EngineError> {
    Ok(match stdio {
        Stdio::Sink(sink) => (runtime::Stdio::Pipe { stdin: None }, Streams::Sink(sink.clone())),
        Stdio::Inherit => match terminal::size() {
            Some((rows, cols)) => (runtime::Stdio::Terminal { rows, cols }, Streams::Terminal),
            None => (runtime::Stdio::Inherit, Streams::Nobody),
        },
        Stdio::Descriptors(fds) => {
            let copy = |fd: &OwnedFd| fd.try_clone().map_err(|error| failed("cannot copy a stream", error));
            let [stdin, stdout, stderr] = &**fds;
            (runtime::Stdio::Descriptors([copy(stdin)?, copy(stdout)?, copy(stderr)?]), Streams::Nobody)
        }
        Stdio::Terminal { rows, cols, master } => {
            (runtime::Stdio::Terminal { rows: *rows, cols: *cols }, Streams::Master(master.clone()))
        }
    })
}

/// What a container has on disk.
pub(crate) struct Files {
    pub(crate) active: ActiveSnapshot,
    pub(crate) dir: PathBuf,
    pub(crate) store: Store,
    /// Of its root.
    pub(crate) config: ImageConfig,
}

/// What a container has around it in its scope.
#[derive(Default)]
pub(crate) struct Around {
    /// Its room in the private networks, until it has ended.
    pub(crate) membership: Mutex<Option<Arc<Membership>>>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ports: Vec<BoundPort>,
    pub(crate) warnings: Vec<String>,
}

/// What the processes of a container may do: the first one, and those that come later (health checks, a shell).
pub(crate) struct Rights {
    pub(crate) no_new_privileges: bool,
    pub(crate) cap_add: Vec<String>,
    pub(crate) cap_drop: Vec<String>,
}

/// A container until its scope closes.
pub(crate) struct Running {
    container: runtime::Container,
    reader: Mutex<Option<JoinHandle<()>>>,
    rights: Rights,
    /// The file system that it writes to; gone with it.
    active: Mutex<Option<ActiveSnapshot>>,
    dir: PathBuf,
    /// For keeping it as a root.
    store: Store,
    config: ImageConfig,
    around: Around,
}

impl Running {
    pub(crate) fn new(
        mut container: runtime::Container,
        streams: Streams,
        rights: Rights,
        files: Files,
        around: Around,
    ) -> Result<Self, EngineError> {
        let (output, terminal) = (container.take_output(), container.take_terminal());
        let reader = Mutex::new(attend(streams, output, terminal)?);
        let Files { active, dir, store, config } = files;
        Ok(Self { container, reader, rights, active: Mutex::new(Some(active)), dir, store, config, around })
    }

    fn wait(&self) -> Result<Exit, EngineError> {
        let exit = self.container.wait().map_err(|error| failed("cannot wait for a container", error))?;
        self.leave();
        self.join_reader();
        Ok(exit_of(exit))
    }

    fn stop(&self, signal: i32, grace: Duration) -> Result<Exit, EngineError> {
        let exit = self.container.stop(signal, grace).map_err(|error| failed("cannot stop a container", error))?;
        self.leave();
        self.join_reader();
        Ok(exit_of(exit))
    }

    /// It has ended: its names, addresses and ports are free.
    fn leave(&self) {
        drop(self.around.membership.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// All output has been handed on when it returns.
    fn join_reader(&self) {
        // The lock is held meanwhile, so that a second waiter waits for the output too.
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reader) = reader.take() {
            // A sink that panics has told its story on its own thread.
            let _ = reader.join();
        }
    }

    pub(crate) fn close(&self, signal: i32, grace: Duration) -> Result<(), EngineError> {
        let stopped = self.stop(signal, grace);
        drop(self.active.lock().unwrap_or_else(PoisonError::into_inner).take());
        let removed = match fs_err::remove_dir_all(&self.dir) {
            // The runtime makes it only when it needs one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        };
        stopped?;
        removed.map_err(|error| failed("cannot remove a container's directory", error))
    }

    /// The file system that it writes to, for somebody who goes on with it.
    pub(crate) fn take_files(&self) -> Option<ActiveSnapshot> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Gives it back.
    pub(crate) fn put_files(&self, active: ActiveSnapshot) {
        *self.active.lock().unwrap_or_else(PoisonError::into_inner) = Some(active);
    }

    fn keep(&self, time: Duration) -> Result<Option<String>, EngineError> {
        let Some(active) = self.take_files() else { return Ok(None) };
        let kept = active.keep(SystemTime::now() + time);
        Ok(Some(kept.map_err(|error| failed("cannot keep a container's file system", error))?.to_string()))
    }

    fn save(&self, key: &Digest) -> Result<Option<Root>, EngineError> {
        let Some(active) = self.take_files() else { return Ok(None) };
        let fail = |error| failed("cannot save a container's file system", error);
        saved::put(&self.store, key, active, &self.config).map(Some).map_err(fail)
    }

    fn exec(&self, spec: ExecSpec) -> Result<Exit, EngineError> {
        let (stdio, streams) = inner_stdio(&spec.stdio)?;
        let name = format!("`{}` in a container", spec.args.join(" "));
        let process = ProcessSpec {
            args: spec.args,
            env: spec.env,
            cwd: spec.cwd,
            user: spec.user,
            no_new_privileges: self.rights.no_new_privileges,
            stdio,
            cap_add: self.rights.cap_add.clone(),
            cap_drop: self.rights.cap_drop.clone(),
        };
        let mut exec = self.container.exec(process).map_err(|error| start_failed(&name, error))?;
        let reader = attend(streams, exec.take_output(), exec.take_terminal())?;
        let fail = |error| failed(format!("cannot wait for {name}"), error);
        let (exit, timed_out) = match spec.timeout {
            None => (exec.wait().map_err(fail)?, false),
            Some(timeout) => match exec.wait_timeout(timeout).map_err(fail)? {
                Some(exit) => (exit, false),
                None => {
                    exec.kill().map_err(fail)?;
                    (exec.wait().map_err(fail)?, true)
                }
            },
        };
        // Ends what of its process group still holds the pipe; otherwise the reader might wait for good.
        drop(exec);
        if let Some(reader) = reader {
            let _ = reader.join();
        }
        Ok(Exit { timed_out, ..exit_of(exit) })
    }
}

/// The handle that callers hold. The container lives until its scope closes, also when this is dropped.
pub(crate) struct Handle(pub(crate) Arc<Running>, pub(crate) Weak<Shared>);

/// What ends a container that is removed.
const SIGKILL: i32 = 9;

impl Handle {
    fn scope(&self) -> Result<Arc<Shared>, EngineError> {
        self.1.upgrade().ok_or_else(|| failed("cannot go on with a container", "its scope is closed"))
    }
}

#[async_trait]
impl Container for Handle {
    async fn wait(&self) -> Result<Exit, EngineError> {
        let running = self.0.clone();
        blocking(move || running.wait()).await
    }

    async fn exec(&self, spec: ExecSpec) -> Result<Exit, EngineError> {
        let running = self.0.clone();
        blocking(move || running.exec(spec)).await
    }

    async fn change_files(&self, changes: Vec<FileChange>) -> Result<(), EngineError> {
        let running = self.0.clone();
        blocking(move || {
            let one = |FileChange { from, to }| runtime::FileChange { from, to };
            let changes: Vec<runtime::FileChange> = changes.into_iter().map(one).collect();
            let changed = running.container.change_files(&changes);
            changed.map_err(|error| EngineError {
                hint: error.remedy().map(str::to_owned),
                ..failed("cannot change files in a container", error)
            })
        })
        .await
    }

    async fn stop(&self, signal: i32, grace: Duration) -> Result<Exit, EngineError> {
        let running = self.0.clone();
        blocking(move || running.stop(signal, grace)).await
    }

    async fn again(&self, spec: ContainerSpec) -> Result<Box<dyn Container>, EngineError> {
        let (running, scope) = (self.0.clone(), self.scope()?);
        blocking(move || {
            running.wait()?;
            let again = scope.start_again(spec, &running)?;
            Ok(Box::new(Handle(again, Arc::downgrade(&scope))) as Box<dyn Container>)
        })
        .await
    }

    async fn remove(&self) -> Result<(), EngineError> {
        let (running, scope) = (self.0.clone(), self.scope()?);
        blocking(move || {
            scope.forget(&running);
            running.close(SIGKILL, Duration::ZERO)
        })
        .await
    }

    async fn keep(&self, time: Duration) -> Result<Option<String>, EngineError> {
        let running = self.0.clone();
        blocking(move || {
            running.wait()?;
            running.keep(time)
        })
        .await
    }

    async fn freeze(&self, frozen: bool) -> Result<(), EngineError> {
        let running = self.0.clone();
        blocking(move || running.container.freeze(frozen).map_err(|error| failed("cannot freeze a container", error)))
            .await
    }

    async fn save(&self, key: &Digest) -> Result<Option<Root>, EngineError> {
        let (running, key) = (self.0.clone(), key.clone());
        blocking(move || {
            running.wait()?;
            running.save(&key)
        })
        .await
    }

    fn addresses(&self) -> Vec<IpAddr> {
        self.0.around.addresses.clone()
    }

    fn ports(&self) -> Vec<BoundPort> {
        self.0.around.ports.clone()
    }

    async fn listening(&self) -> Result<Vec<SocketAddr>, EngineError> {
        let running = self.0.clone();
        let look = move || running.container.listening();
        blocking(look).await.map_err(|error| failed("cannot look at the ports of a container", error))
    }

    async fn connect(&self, port: u16) -> Result<TcpStream, EngineError> {
        let running = self.0.clone();
        // By its own address where it has one: that is how others reach it.
        let address = self.addresses().first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let connect = move || running.container.connect(SocketAddr::new(address, port));
        blocking(connect).await.map_err(|error| failed(format!("cannot connect to port {port}"), error))
    }

    fn warnings(&self) -> Vec<String> {
        self.0.container.warnings().iter().chain(&self.0.around.warnings).cloned().collect()
    }
}

fn exit_of(exit: runtime::Exit) -> Exit {
    Exit {
        code: exit.code,
        signal: exit.signal,
        out_of_memory: exit.oom,
        out_of_pids: exit.pids_limit_hit,
        timed_out: false,
    }
}

/// Starts the thread that reads a process's output.
fn attend(
    streams: Streams,
    output: Option<OwnedFd>,
    master: Option<OwnedFd>,
) -> Result<Option<JoinHandle<()>>, EngineError> {
    let thread = std::thread::Builder::new();
    let started = match (streams, output, master) {
        (Streams::Sink(sink), Some(pipe), _) => {
            thread.name("container output".into()).spawn(move || read_all(&pipe, &sink))
        }
        (Streams::Terminal, _, Some(master)) => thread.name("terminal".into()).spawn(move || terminal::relay(&master)),
        (Streams::Master(sink), _, Some(master)) => {
            sink(master);
            return Ok(None);
        }
        _ => return Ok(None),
    };
    started.map(Some).map_err(|error| failed("cannot start a thread for a container's output", error))
}

fn read_all(pipe: &OwnedFd, sink: &OutputSink) {
    let mut buffer = vec![0; PIPE_READ_BYTES];
    loop {
        match rustix::io::read(pipe, &mut buffer[..]) {
            Ok(0) => return,
            Ok(count) => sink(&buffer[..count]),
            Err(Errno::INTR) => {}
            // The pipe has nothing more to say.
            Err(errno) => {
                debug_assert_ne!(io::Error::from(errno).kind(), io::ErrorKind::WouldBlock, "the pipe blocks");
                return;
            }
        }
    }
}
