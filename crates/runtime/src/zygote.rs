//! The zygote: our own program started once more, which forks a helper for each container and exec.
//!
//! Starting a program of our size costs more than all else of a container's start; forking one that is small, warm and
//! single-threaded costs next to nothing. An engine has at most one zygote, started with its first container. It holds
//! nothing of any container. When it is killed, containers go on, since each helper has its own socket to the engine, and
//! the next start makes a new one. When the engine ends, it waits for the last helper and ends too.

use crate::{
    cgroup, helper, overlay,
    protocol::{Channel, Report, Step},
    sys::{self, Fork},
};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Lets a helper take this channel, on which a request waits already. That the helper runs is told by its first report;
/// the end of the channel tells its end.
pub(crate) fn start_helper(theirs: &Channel) -> io::Result<()> {
    let mut zygote = ZYGOTE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = &*zygote {
        match running.channel.send(&(), &[theirs.as_fd()]) {
            // It was killed. Nothing was lost with it.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)) => {}
            result => return result,
        }
        drop(zygote.take());
    }
    let started = Zygote::start()?;
    let sent = started.channel.send(&(), &[theirs.as_fd()]);
    *zygote = Some(started);
    sent
}

/// Lets the zygote go, if there is one, and waits until nothing of it and its helpers is left. For the end of `main`, so
/// that whoever waits for this process finds no other process of ours; without it they are gone a moment later.
pub fn leave() {
    let zygote = ZYGOTE.lock().unwrap_or_else(PoisonError::into_inner).take();
    drop(zygote);
}

static ZYGOTE: Mutex<Option<Zygote>> = Mutex::new(None);

/// How long the end of a zygote is awaited. It comes at once unless containers still run.
const LEAVE_WAIT: Duration = Duration::from_millis(500);

/// What the engine has of its zygote.
struct Zygote {
    channel: Channel,
    pidfd: OwnedFd,
}

impl Zygote {
    /// posix_spawn of our own program: safe whatever the other threads do. It gets nothing but one end of the channel;
    /// all other descriptors of ours are close-on-exec.
    fn start() -> io::Result<Zygote> {
        let (channel, theirs) = Channel::pair()?;
        let child = Command::new("/proc/self/exe")
            .arg(helper::MARKER)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs.into_fd()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        // The child is ours and unreaped, so the number is still its.
        let pid = rustix::process::Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
        Ok(Zygote { channel, pidfd })
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(self.channel.as_fd(), rustix::net::Shutdown::Write);
        let timeout_ms = i32::try_from(LEAVE_WAIT.as_millis()).unwrap_or(i32::MAX);
        if sys::poll(&[self.pidfd.as_fd()], timeout_ms).is_ok_and(|ready| ready[0]) {
            drop(sys::reap(self.pidfd.as_fd()));
        }
    }
}

/// In the zygote: forks a helper for each channel that comes, until the engine goes. Returns in the zygote only.
pub(crate) fn serve() -> io::Result<()> {
    sys::hide_from_debuggers()?;
    // What a shell or `nohup` left ignored would stay ignored in containers.
    sys::reset_signals();
    sys::ignore_signals();
    sys::bury_children(true);
    // Out of the engine's process group, so that Ctrl-C reaches the engine alone.
    let _ = rustix::process::setsid();
    let engine = Channel::from_fd(sys::take_stdin()?);
    // What all helpers would find out anew.
    let _ = (overlay::in_user_namespace(), cgroup::hierarchies(), sys::last_capability());
    while let Some(((), mut fds)) = engine.receive::<()>()? {
        let Some(channel) = fds.pop().map(Channel::from_fd) else { continue };
        match sys::fork(0, None).step("start the helper") {
            Ok(Fork::Child) => {
                drop(engine);
                sys::bury_children(false);
                sys::exit_now(if helper::serve(&channel).is_ok() { 0 } else { 1 });
            }
            Ok(Fork::Parent(_)) => {}
            Err(failure) => drop(channel.send(&Report::Failed(failure), &[])),
        }
    }
    sys::await_children();
    Ok(())
}
