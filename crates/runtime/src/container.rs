//! The engine's side: containers and further processes in them, as values.

use crate::{
    bundle, cgroup,
    error::{StartError, WaitError},
    files::{self, FileChange},
    freeze, ports,
    protocol::{Attached, Channel, ExecRequest, ForeignExec, Inside, Report, Request, StdioPlan, send_request},
    signals,
    spec::{ContainerSpec, Exit, Limits, Network, PrivateNetwork, ProcessSpec, Stdio},
    sys, zygote,
};
use std::{
    io,
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// A started container. Dropping it kills everything in it (pid namespace) and waits.
#[derive(Debug)]
pub struct Container {
    supervised: Supervised,
    id: String,
    limits: Limits,
    privileged: bool,
    foreign: Option<(PathBuf, PathBuf)>,
    execs: AtomicU64,
}

impl Container {
    /// Starts a container; returns when its program runs.
    ///
    /// # Errors
    /// When the program is not there or its surroundings cannot be made; then nothing of it is left.
    pub fn start(spec: ContainerSpec) -> Result<Container, StartError> {
        let request = bundle::request(&spec)?;
        let program = spec.process.args.first().cloned().unwrap_or_default();
        let supervised = Supervised::launch(
            &Request::Start(Box::new(request)),
            spec.process.stdio,
            None,
            match &spec.network {
                Network::Private(private) => Some(&**private),
                Network::None | Network::Host => None,
            },
            (&program, &spec.process.user),
        )
        .inspect_err(|error| {
            // A helper that reports has tidied up; one that was killed has not.
            if matches!(error, StartError::Setup { step, .. } if step == HELPER_LOST) {
                cgroup::sweep(&spec.id);
            }
        })?;
        Ok(Container {
            supervised,
            id: spec.id,
            limits: spec.limits,
            privileged: spec.privileged,
            foreign: spec.foreign_runtime.map(|runtime| (runtime, spec.dir)),
            execs: AtomicU64::new(0),
        })
    }

    /// Host pid of the container's first process (in the pid namespace of this process).
    pub fn pid(&self) -> i32 {
        self.supervised.pid
    }

    /// Pipe with both outputs (read end), for [`Stdio::Pipe`]; once.
    pub fn take_output(&mut self) -> Option<OwnedFd> {
        self.supervised.output.take()
    }

    /// Master of the terminal, for [`Stdio::Terminal`]; once.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.supervised.terminal.take()
    }

    /// Readable (poll/AsyncFd) when the container has ended.
    pub fn ended_fd(&self) -> BorrowedFd<'_> {
        self.supervised.channel.as_fd()
    }

    /// Blocks until the end. Safe from any thread, repeatable.
    ///
    /// # Errors
    /// When the supervising helper was killed from outside.
    pub fn wait(&self) -> Result<Exit, WaitError> {
        self.swept(self.supervised.wait())
    }

    /// As [`wait`](Container::wait), at most for this long: `None` when it still runs then.
    ///
    /// # Errors
    /// When the supervising helper was killed from outside.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<Exit>, WaitError> {
        self.swept(self.supervised.wait_timeout(timeout))
    }

    /// Sends a signal to the process (through init when there is one). A program that is pid 1 itself gets only signals
    /// that it handles, and SIGKILL. Nothing happens when it has ended.
    ///
    /// # Errors
    /// When the number is no signal.
    pub fn signal(&self, signal: i32) -> Result<(), WaitError> {
        self.supervised.signal(signal)
    }

    /// SIGKILL to everything in it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&self) -> Result<(), WaitError> {
        self.supervised.signal(libc::SIGKILL)
    }

    /// `signal`, then after `grace` SIGKILL to everything; waits. There is no grace where the first process cannot hear the
    /// signal: the kernel has thrown it away.
    ///
    /// # Errors
    /// When the number is no signal, or the supervising helper was killed from outside.
    pub fn stop(&self, signal: i32, grace: Duration) -> Result<Exit, WaitError> {
        let was_deaf = signals::is_lost(self.supervised.pid, signal);
        self.signal(signal)?;
        // Looked at twice, because a program that is just starting may have begun to listen between look and signal.
        let is_deaf = was_deaf && signals::is_lost(self.supervised.pid, signal);
        if !is_deaf && let Some(exit) = self.wait_timeout(grace)? {
            return Ok(exit);
        }
        self.kill()?;
        self.wait()
    }

    /// Stops all its processes (SIGSTOP, which nobody can catch), or lets them run again. Processes that are started
    /// afterwards run. Nothing happens when it has ended.
    ///
    /// # Errors
    /// When the kernel refuses, or `/proc` cannot be read.
    pub fn freeze(&self, frozen: bool) -> Result<(), WaitError> {
        match freeze::freeze(self.supervised.pid, frozen) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(WaitError::System { attempt: "freeze the container", source })
            }
            _ => Ok(()),
        }
    }

    /// Addresses on which something in its network listens for TCP.
    ///
    /// # Errors
    /// When it has ended, or `/proc` cannot be read.
    pub fn listening(&self) -> io::Result<Vec<SocketAddr>> {
        ports::listening(self.supervised.pid)
    }

    /// Connects to an address from within its network.
    ///
    /// # Errors
    /// When nobody accepts there, or it has ended.
    pub fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        ports::connect(self.supervised.pid, address)
    }

    /// A further process in the running container (health checks, shell). Same namespaces, control group, seccomp;
    /// capabilities as the process says.
    ///
    /// # Errors
    /// As [`start`](Container::start); also when the container has ended.
    pub fn exec(&self, process: ProcessSpec) -> Result<Exec, StartError> {
        let serial = self.execs.fetch_add(1, Ordering::Relaxed);
        let request = ExecRequest {
            process: bundle::process(&process, &self.limits)?,
            user: process.user.clone(),
            stdio: bundle::plan_stdio(&process.stdio),
            privileged: self.privileged,
            inside: self.supervised.inside.clone(),
            foreign: self.foreign.as_ref().map(|(runtime, dir)| ForeignExec {
                runtime: runtime.clone(),
                dir: dir.clone(),
                id: self.id.clone(),
                serial,
                pid: self.supervised.pid,
            }),
            is_files: false,
        };
        let program = process.args.first().cloned().unwrap_or_default();
        let container = Some(self.supervised.first.as_fd());
        Supervised::launch(&Request::Exec(Box::new(request)), process.stdio, container, None, (&program, &process.user))
            .map(Exec)
    }

    /// Changes files in it while it runs, one after the other, as its root would; its image needs no program for that. Files
    /// belong to its root and keep their modes and times. Each is replaced at once; the others stay when one fails.
    ///
    /// # Errors
    /// A file cannot be read here, or written there; or the container has ended.
    pub fn change_files(&self, changes: &[FileChange]) -> Result<(), StartError> {
        let stdio = Stdio::Pipe { stdin: Some(files::stream(changes)?.into()) };
        let process = ProcessSpec {
            args: vec!["files".to_owned()],
            env: Vec::new(),
            cwd: "/".to_owned(),
            user: String::new(),
            no_new_privileges: true,
            stdio: Stdio::Null,
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
        };
        let inside = match &self.foreign {
            None => self.supervised.inside.clone(),
            // Another runtime does not tell what it made; its root is all that is needed.
            Some(_) => Inside { namespaces: libc::CLONE_NEWNS, cgroups: Vec::new() },
        };
        let request = ExecRequest {
            process: bundle::process(&process, &self.limits)?,
            user: String::new(),
            stdio: bundle::plan_stdio(&stdio),
            privileged: self.privileged,
            inside,
            foreign: None,
            is_files: true,
        };
        let container = Some(self.supervised.first.as_fd());
        let written = Supervised::launch(&Request::Exec(Box::new(request)), stdio, container, None, ("files", ""))?;
        // Started means done; what is left is its end.
        drop(Exec(written));
        Ok(())
    }

    /// What could not be had and was done without: limits, control groups, id mapping.
    pub fn warnings(&self) -> &[String] {
        &self.supervised.warnings
    }

    /// A killed helper could not remove the control groups.
    fn swept<T>(&self, outcome: Result<T, WaitError>) -> Result<T, WaitError> {
        if let Err(WaitError::SupervisorLost) = outcome {
            cgroup::sweep(&self.id);
        }
        outcome
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(self.kill());
        drop(self.wait());
    }
}

/// A process started by [`Container::exec`]; dropping it kills it and what is left of its process group.
#[derive(Debug)]
pub struct Exec(Supervised);

impl Exec {
    /// Host pid of the process.
    pub fn pid(&self) -> i32 {
        self.0.pid
    }

    /// Pipe with both outputs (read end), for [`Stdio::Pipe`]; once.
    pub fn take_output(&mut self) -> Option<OwnedFd> {
        self.0.output.take()
    }

    /// Master of the terminal, for [`Stdio::Terminal`]; once.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.0.terminal.take()
    }

    /// Readable (poll/AsyncFd) when the process has ended.
    pub fn ended_fd(&self) -> BorrowedFd<'_> {
        self.0.channel.as_fd()
    }

    /// Blocks until the end. Safe from any thread, repeatable.
    ///
    /// # Errors
    /// When the supervising helper was killed from outside.
    pub fn wait(&self) -> Result<Exit, WaitError> {
        self.0.wait()
    }

    /// As [`wait`](Exec::wait), at most for this long: `None` when it still runs then.
    ///
    /// # Errors
    /// When the supervising helper was killed from outside.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<Exit>, WaitError> {
        self.0.wait_timeout(timeout)
    }

    /// Sends a signal to the process.
    ///
    /// # Errors
    /// When the number is no signal.
    pub fn signal(&self, signal: i32) -> Result<(), WaitError> {
        self.0.signal(signal)
    }

    /// SIGKILL to the process and its process group.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&self) -> Result<(), WaitError> {
        self.0.hang_up();
        self.0.signal(libc::SIGKILL)
    }

    /// What could not be had and was done without.
    pub fn warnings(&self) -> &[String] {
        &self.0.warnings
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        drop(self.kill());
        drop(self.wait());
    }
}

/// Removes what a killed process of ours left of container `id`: processes and control groups. Idempotent.
pub fn sweep_container(id: &str) {
    cgroup::sweep(id);
}

/// A process with its helper.
#[derive(Debug)]
struct Supervised {
    /// The lifeline: its end kills the process. After the start, all that comes through it is the last report, so it is
    /// readable when the process has ended.
    channel: Channel,
    /// Pidfd of the process.
    first: OwnedFd,
    pid: i32,
    output: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    inside: Inside,
    warnings: Vec<String>,
    exit: OnceLock<Option<Exit>>,
    /// Only one thread at a time takes the last report.
    taking: Mutex<()>,
}

impl Supervised {
    fn launch(
        request: &Request,
        stdio: Stdio,
        container: Option<BorrowedFd<'_>>,
        network: Option<&dyn PrivateNetwork>,
        (program, user): (&str, &str),
    ) -> Result<Supervised, StartError> {
        let failed = |step: &'static str| move |source: io::Error| StartError::setup(step, source);
        let (fds, output) = stdio_descriptors(stdio).map_err(failed("prepare input and output"))?;
        let to_send: Vec<BorrowedFd<'_>> = container.into_iter().chain(fds.iter().map(AsFd::as_fd)).collect();
        let mut attempts = 1..=ATTEMPTS;
        let (channel, mut report, mut received) = loop {
            let is_last = attempts.next() == Some(ATTEMPTS);
            let (channel, theirs) = Channel::pair().map_err(failed("make a socket"))?;
            // Sent before the helper exists, so that it never waits.
            send_request(&channel, request, &to_send).map_err(failed("send the request to the helper"))?;
            zygote::start_helper(&theirs).map_err(failed("start the helper"))?;
            drop(theirs);
            match channel.receive_answer::<Report>() {
                Ok(Some((report, received))) => break (channel, report, received),
                Ok(None) => return Err(StartError::setup(HELPER_LOST, io::Error::other("it was killed, or crashed"))),
                // The zygote was killed before it came to us; nothing was begun.
                Err(error) if error.raw_os_error() == Some(libc::ECONNRESET) && !is_last => {}
                Err(error) => return Err(StartError::setup(HELPER_LOST, error)),
            }
        };
        drop(to_send);
        drop(fds);
        if let (Report::Namespace, Some(network)) = (&report, network) {
            (report, received) = attach(&channel, network, &received)?;
        }
        match report {
            Report::Started { pid, inside, warnings } if !received.is_empty() => Ok(Supervised {
                channel,
                first: received.remove(0),
                pid,
                output,
                terminal: received.pop(),
                inside,
                warnings,
                exit: OnceLock::new(),
                taking: Mutex::new(()),
            }),
            Report::Failed(failure) => Err(StartError::from_failure(failure, program, user)),
            Report::Namespace | Report::Started { .. } | Report::Ended { .. } => {
                Err(StartError::setup("understand the helper", io::Error::from_raw_os_error(libc::EPROTO)))
            }
        }
    }

    fn wait(&self) -> Result<Exit, WaitError> {
        self.await_end(-1)?;
        self.take_exit()
    }

    fn wait_timeout(&self, timeout: Duration) -> Result<Option<Exit>, WaitError> {
        let timeout_ms = i32::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
        if self.await_end(timeout_ms)? { self.take_exit().map(Some) } else { Ok(None) }
    }

    /// Whether the process has ended, after waiting for it (-1: without a bound).
    fn await_end(&self, timeout_ms: i32) -> Result<bool, WaitError> {
        let start = Instant::now();
        let mut left = timeout_ms;
        loop {
            if self.exit.get().is_some() {
                return Ok(true);
            }
            match sys::poll(&[self.channel.as_fd()], left) {
                Ok(ready) => return Ok(ready[0]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    if timeout_ms >= 0 {
                        let passed = i32::try_from(start.elapsed().as_millis()).unwrap_or(i32::MAX);
                        left = timeout_ms.saturating_sub(passed).max(0);
                    }
                }
                Err(source) => return Err(WaitError::System { attempt: "wait for the container", source }),
            }
        }
    }

    /// It has ended: the last report.
    fn take_exit(&self) -> Result<Exit, WaitError> {
        let _guard = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        let exit = self.exit.get_or_init(|| {
            let report = self.channel.receive::<Report>();
            match report {
                Ok(Some((Report::Ended { ending, oom, pids_limit_hit }, _))) => {
                    Some(Exit { code: ending.code(), signal: ending.signal(), oom, pids_limit_hit })
                }
                _ => {
                    // The kernel kills the process with its helper; unless the program has switched that off.
                    drop(sys::signal_pidfd(self.first.as_fd(), libc::SIGKILL));
                    drop(sys::poll(&[self.first.as_fd()], LOST_WAIT_MS));
                    None
                }
            }
        });
        exit.clone().ok_or(WaitError::SupervisorLost)
    }

    fn signal(&self, signal: i32) -> Result<(), WaitError> {
        match sys::signal_pidfd(self.first.as_fd(), signal) {
            Err(source) if source.raw_os_error() != Some(libc::ESRCH) => {
                Err(WaitError::System { attempt: "signal the container", source })
            }
            _ => Ok(()),
        }
    }

    /// Closes our half of the lifeline: the helper kills what it watches. Reports can still come.
    fn hang_up(&self) {
        let _ = rustix::net::shutdown(self.channel.as_fd(), rustix::net::Shutdown::Write);
    }
}

/// Lets the network be attached while the container makes its mounts; what the helper reports then.
fn attach(
    channel: &Channel,
    network: &dyn PrivateNetwork,
    received: &[OwnedFd],
) -> Result<(Report, Vec<OwnedFd>), StartError> {
    const STEP: &str = "join the private network";
    let lost = |source| StartError::setup(HELPER_LOST, source);
    let [namespace, process] = received else {
        return Err(lost(io::Error::from_raw_os_error(libc::EBADF)));
    };
    let attached = network.attach(namespace.as_fd(), process.as_fd());
    match &attached {
        // A helper that has gone has said why.
        Ok(()) => drop(channel.send(&Attached, &[])),
        // It ends what it began.
        Err(_) => drop(rustix::net::shutdown(channel.as_fd(), rustix::net::Shutdown::Write)),
    }
    let report = channel.receive::<Report>().map_err(lost)?;
    attached.map_err(|source| StartError::setup(STEP, source))?;
    report.ok_or_else(|| lost(io::Error::other("it was killed, or crashed")))
}

/// How often a helper is asked for when the zygote gets lost. Somebody who kills it again and again means it.
const ATTEMPTS: u32 = 3;

/// The step at which a helper went missing.
const HELPER_LOST: &str = "hear from the helper";

/// How long the kernel may take to end a killed pid namespace.
const LOST_WAIT_MS: i32 = 10_000;

/// Descriptors for the helper in the order of [`StdioPlan`], and our end of the output.
fn stdio_descriptors(stdio: Stdio) -> io::Result<(Vec<OwnedFd>, Option<OwnedFd>)> {
    debug_assert!(matches!(bundle::plan_stdio(&Stdio::Null), StdioPlan::Null));
    Ok(match stdio {
        Stdio::Null | Stdio::Terminal { .. } => (Vec::new(), None),
        Stdio::Pipe { stdin } => {
            let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
            ([Some(write), stdin].into_iter().flatten().collect(), Some(read))
        }
        Stdio::Inherit => {
            (vec![sys::duplicate(io::stdin())?, sys::duplicate(io::stdout())?, sys::duplicate(io::stderr())?], None)
        }
        Stdio::Descriptors(fds) => (fds.into(), None),
    })
}
