//! Running one command to its end: output as lines, the last ones kept, cancellation, and the root filesystem of a failure.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use engine::{BuildError, EngineError, Exit, FailedStep, HOST_GATEWAY, KeptRoot, Masker, Masks, RunSettings};
use events::Place;
use runtime::{ContainerSpec, Limits, Mount, Overlay, ProcessSpec, Rootfs, Stdio};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
    io::Errno,
};
use store::{ActiveSnapshot, JournalEntry};

use crate::{
    step::Running,
    work::{During as _, Host, engine_error},
};

/// A line is told in pieces of this size, so that output without line ends stays bounded.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// Lines that a failure shows.
const TAIL_LINES: usize = 40;
/// How often cancellation is looked at while a command is silent.
const CANCEL_POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// A build step has nothing to save: it gets less time after SIGTERM than a service.
const STOP_GRACE: Duration = Duration::from_secs(2);
const SIGTERM: i32 = 15;
const PIPE_READ_BYTES: usize = 64 * 1024;

/// A command of a build.
pub(crate) struct Job<'a> {
    /// What the user wrote, and where.
    pub(crate) text: &'a str,
    pub(crate) place: Option<&'a Place>,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    /// Told to nobody, and not kept with the root of a failure.
    pub(crate) secret_env: Vec<(String, String)>,
    pub(crate) cwd: &'a str,
    pub(crate) user: &'a str,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) network: runtime::Network,
    /// All rights.
    pub(crate) privileged: bool,
    /// Bounds.
    pub(crate) settings: &'a RunSettings,
    /// What output must not show.
    pub(crate) masks: Option<&'a Arc<Masks>>,
    /// Name, address.
    pub(crate) extra_hosts: &'a [(String, String)],
    pub(crate) keep_failed: Duration,
}

/// Root filesystem of a container on top of a snapshot in the making.
pub fn rootfs(active: &ActiveSnapshot) -> Rootfs {
    if active.lowers().is_empty() {
        return Rootfs::Dir(active.upper().to_owned());
    }
    Rootfs::Overlay(Overlay {
        lowers: active.lowers().to_vec(),
        upper: Some(active.upper().to_owned()),
        work: Some(active.work().to_owned()),
    })
}

/// Runs the command on `active`. A failure is a [`BuildError::Step`], with the root filesystem kept if that is asked for.
pub(crate) fn run(
    host: &Host<'_>,
    running: &Running<'_>,
    active: ActiveSnapshot,
    job: Job<'_>,
    is_stopped: &dyn Fn() -> bool,
) -> Result<ActiveSnapshot, BuildError> {
    let start = Instant::now();
    let mut output = Lines::default();
    let mut masker = job.masks.cloned().map(Masker::new);
    let tell = &mut |line| running.log(line);
    let result = run_container(host, running, &active, &job, is_stopped, &mut |bytes| match &mut masker {
        Some(masker) => output.push(&masker.push(bytes), tell),
        None => output.push(bytes, tell),
    });
    if let Some(masker) = &mut masker {
        output.push(&masker.finish(), tell);
    }
    output.finish(tell);
    let exit = match result {
        Ok(exit) => exit,
        Err(Failure::Build(error)) => return Err(error),
        // The shell or program is missing: the user's mistake, told as a failed step.
        Err(Failure::Command { code, message }) => {
            running.log(message.clone());
            output.keep(message);
            Exit { code, ..Exit::default() }
        }
    };
    if exit.code == 0 && exit.signal.is_none() {
        return Ok(active);
    }
    let kept = match job.keep_failed {
        Duration::ZERO => None,
        // Its own loss must not hide the failure.
        keep => active.keep(SystemTime::now() + keep).ok().map(|id| KeptRoot {
            root: id.to_string(),
            env: job.env,
            cwd: job.cwd.to_owned(),
            user: job.user.to_owned(),
        }),
    };
    Err(BuildError::Step(Box::new(FailedStep {
        text: job.text.to_owned(),
        place: job.place.cloned(),
        exit,
        earlier_lines: output.total - output.tail.len() as u64,
        tail: output.tail.into(),
        duration: start.elapsed(),
        kept,
    })))
}

enum Failure {
    Build(BuildError),
    /// Exit code 126 or 127 and why.
    Command {
        code: i32,
        message: String,
    },
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        Self::Build(error)
    }
}

fn run_container(
    host: &Host<'_>,
    running: &Running<'_>,
    active: &ActiveSnapshot,
    job: &Job<'_>,
    is_stopped: &dyn Fn() -> bool,
    output: &mut dyn FnMut(&[u8]),
) -> Result<Exit, Failure> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let id = format!("st-{}-b{}", host.scope.id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let attempt = || format!("cannot run `{}`", job.text);
    let dir = host.scope.dir().join(&id);
    let settings = job.settings;
    host.scope.journal(&JournalEntry::Container(id.clone())).during(attempt)?;
    let spec = ContainerSpec {
        id,
        dir: dir.clone(),
        rootfs: rootfs(active),
        readonly_rootfs: false,
        process: ProcessSpec {
            args: job.args.clone(),
            env: job.env.iter().chain(&job.secret_env).cloned().collect(),
            cwd: job.cwd.to_owned(),
            user: job.user.to_owned(),
            no_new_privileges: !matches!(host.privilege, runtime::Privilege::Root { .. }),
            stdio: Stdio::Pipe { stdin: None },
            cap_add: if job.privileged { vec!["ALL".into()] } else { Vec::new() },
            cap_drop: Vec::new(),
        },
        // Without it SIGTERM would not end a shell that is process 1, and orphans would stay unreaped.
        init: true,
        // The same for everyone: a build must not depend on the machine's name.
        hostname: "build".into(),
        network: job.network.clone(),
        extra_hosts: extra_hosts(job.extra_hosts),
        mounts: job.mounts.clone(),
        devices: Vec::new(),
        sysctls: Vec::new(),
        limits: Limits {
            memory_bytes: settings.memory_bytes,
            cpus: settings.cpus,
            ulimits: ulimits(&settings.ulimits),
            ..Limits::default()
        },
        foreign_runtime: host.foreign_runtime.map(Into::into),
        shm_size_bytes: settings.shm_size_bytes,
        cgroup_parent: settings.cgroup_parent.clone(),
        privileged: job.privileged,
    };
    let result = start_and_wait(spec, running, job, is_stopped, output);
    // Only another runtime has made it. The scope removes its own directory in the end in any case.
    if host.foreign_runtime.is_some() {
        let _ = fs_err::remove_dir_all(&dir);
    }
    result
}

/// Names with addresses as the runtime has them: address first.
pub fn extra_hosts(hosts: &[(String, String)]) -> Vec<(String, String)> {
    hosts.iter().map(host_line).collect()
}

/// Address and name. A container shares the host's network or has none, so this machine is behind the loopback.
fn host_line((name, address): &(String, String)) -> (String, String) {
    let address = if address == HOST_GATEWAY { "127.0.0.1" } else { address };
    (address.to_owned(), name.clone())
}

/// Limits of processes as the runtime has them.
pub fn ulimits(limits: &[engine::Ulimit]) -> Vec<runtime::Ulimit> {
    limits.iter().map(ulimit).collect()
}

fn ulimit(limit: &engine::Ulimit) -> runtime::Ulimit {
    runtime::Ulimit { name: limit.name.clone(), soft: limit.soft, hard: limit.hard }
}

fn start_and_wait(
    spec: ContainerSpec,
    running: &Running<'_>,
    job: &Job<'_>,
    is_stopped: &dyn Fn() -> bool,
    output: &mut dyn FnMut(&[u8]),
) -> Result<Exit, Failure> {
    let attempt = || format!("cannot run `{}`", job.text);
    let mut container = runtime::Container::start(spec).map_err(|error| start_failure(error, job))?;
    if job.settings.has_bounds() {
        // What was asked for and could not be had.
        container.warnings().iter().for_each(|warning| running.warn(warning.clone(), job.place));
    }
    let pipe = container.take_output();
    let mut open_pipe = pipe.as_ref();
    if let Some(pipe) = open_pipe {
        rustix::fs::fcntl_setfl(pipe, OFlags::NONBLOCK).map_err(std::io::Error::from).during(attempt)?;
    }
    let mut buffer = vec![0; PIPE_READ_BYTES];
    loop {
        if is_stopped() {
            container.stop(SIGTERM, STOP_GRACE).during(attempt)?;
            return Err(BuildError::Cancelled.into());
        }
        let ended = container.ended_fd();
        let mut fds = vec![PollFd::from_borrowed_fd(ended, PollFlags::IN)];
        fds.extend(open_pipe.map(|pipe| PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)));
        match poll(&mut fds, Some(&CANCEL_POLL)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => {
                return Err(Failure::from(Err::<(), _>(std::io::Error::from(errno)).during(attempt).unwrap_err()));
            }
        }
        let has_ended = !fds[0].revents().is_empty();
        if let Some(pipe) = open_pipe
            && !read_available(pipe, &mut buffer, READS_MAX, output)
        {
            open_pipe = None;
        }
        if has_ended {
            // Everything in it is dead, so what was written is in the pipe by now.
            if let Some(pipe) = open_pipe {
                read_available(pipe, &mut buffer, usize::MAX, output);
            }
            let exit = container.wait().during(attempt)?;
            return Ok(Exit {
                code: exit.code,
                signal: exit.signal,
                out_of_memory: exit.oom,
                out_of_pids: exit.pids_limit_hit,
                timed_out: false,
            });
        }
    }
}

/// Reads in a row, before somebody looks whether the build is cancelled: a program that writes faster than we read keeps
/// its pipe full for good, and one read is thousands of lines.
const READS_MAX: usize = 1;

/// Reads what is there now, in so many reads at most; false at the end of the pipe.
fn read_available(pipe: &OwnedFd, buffer: &mut [u8], reads_max: usize, output: &mut dyn FnMut(&[u8])) -> bool {
    for _ in 0..reads_max {
        match rustix::io::read(pipe, &mut *buffer) {
            Ok(0) => return false,
            Ok(count) => output(&buffer[..count]),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return true,
            // A pipe that cannot be read any more has nothing more to say.
            Err(_) => return false,
        }
    }
    true
}

fn start_failure(error: runtime::StartError, job: &Job<'_>) -> Failure {
    let program = job.args.first().map_or("", String::as_str);
    let (code, message) = match &error {
        runtime::StartError::NotFound { .. } => (127, format!("`{program}` is not in the image")),
        runtime::StartError::NotExecutable { source, .. }
            if source.raw_os_error() == Some(Errno::TOOBIG.raw_os_error()) =>
        {
            return Failure::Command { code: 126, message: too_long(job) };
        }
        runtime::StartError::NotExecutable { source, .. } => {
            let message = format!("`{program}` cannot be executed: {source}");
            return Failure::Command { code: 126, message };
        }
        runtime::StartError::UnknownUser { .. } => (125, format!("user `{}` is not known in the image", job.user)),
        _ => {
            let hint = error.remedy().unwrap_or("`seatrial doctor` checks what this machine offers").to_owned();
            let error = engine_error(format!("cannot run `{}`", job.text), error);
            return BuildError::Engine(EngineError { hint: Some(hint), ..error }).into();
        }
    };
    Failure::Command { code, message: format!("{message}: {error}") }
}

/// The kernel takes so many bytes in one argument or variable, its end included (`execve(2)`, MAX_ARG_STRLEN: 32 pages).
const ARGUMENT_BYTES_MAX: usize = 128 * 1024;

/// Why `execve` says E2BIG.
fn too_long(job: &Job<'_>) -> String {
    if let Some(argument) = job.args.iter().find(|argument| argument.len() >= ARGUMENT_BYTES_MAX) {
        return format!(
            "the command is too long: an argument has {} bytes, and the kernel takes {}; put it into a file of the context, \
             or into a heredoc that begins with `#!/bin/sh`",
            argument.len(),
            ARGUMENT_BYTES_MAX - 1
        );
    }
    let mut variables = job.env.iter().chain(&job.secret_env);
    match variables.find(|(name, value)| name.len() + value.len() + 1 >= ARGUMENT_BYTES_MAX) {
        Some((name, value)) => format!(
            "variable `{name}` is too long for a command: it has {} bytes, and the kernel takes {} with its name",
            value.len(),
            ARGUMENT_BYTES_MAX - 1
        ),
        None => {
            "arguments and variables are longer than the kernel takes for a command (a quarter of the stack's limit)"
                .into()
        }
    }
}

/// Cuts output into lines and keeps the last ones.
#[derive(Default)]
struct Lines {
    pending: Vec<u8>,
    tail: VecDeque<String>,
    total: u64,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], emit: &mut dyn FnMut(String)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for part in piece.chunks(LINE_BYTES_MAX) {
                if self.pending.len() + part.len() > LINE_BYTES_MAX {
                    self.flush(emit);
                }
                self.pending.extend(part);
            }
            if piece.ends_with(b"\n") {
                self.flush(emit);
            }
        }
    }

    fn finish(&mut self, emit: &mut dyn FnMut(String)) {
        if !self.pending.is_empty() {
            self.flush(emit);
        }
    }

    fn flush(&mut self, emit: &mut dyn FnMut(String)) {
        let line = self.pending.strip_suffix(b"\n").unwrap_or(&self.pending);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = String::from_utf8_lossy(line).into_owned();
        self.pending.clear();
        emit(line.clone());
        self.keep(line);
    }

    fn keep(&mut self, line: String) {
        self.total += 1;
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_kept_and_counted() {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        lines.push(b"a\nb", &mut |line| seen.push(line));
        lines.push(b"c\r\n\n\xff", &mut |line| seen.push(line));
        lines.finish(&mut |line| seen.push(line));
        assert_eq!(seen, ["a", "bc", "", "\u{fffd}"]);
        lines.push(&vec![b'x'; LINE_BYTES_MAX + 5], &mut |line| seen.push(line));
        assert_eq!(seen[4].len(), LINE_BYTES_MAX);
        for _ in 0..100 {
            lines.push(b"y\n", &mut |_| {});
        }
        assert_eq!((lines.tail.len(), lines.total), (TAIL_LINES, 105));
    }
}
