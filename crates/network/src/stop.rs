//! How a thread that waits for others is told that it is no longer wanted.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
};

/// Said once, heard by all.
#[derive(Clone, Debug)]
pub(crate) struct Stop(Arc<OwnedFd>);

impl Stop {
    pub(crate) fn new() -> io::Result<Stop> {
        Ok(Stop(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    pub(crate) fn now(&self) {
        // Full is said as well.
        let _ = rustix::io::write(self.0.as_fd(), &1u64.to_ne_bytes());
    }

    /// Waits until one of the descriptors has something to say or the time is over: for each whether it has. `None`: stop.
    pub(crate) fn wait(&self, fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> Option<Vec<bool>> {
        let mut polls: Vec<PollFd<'_>> = std::iter::once(self.0.as_fd())
            .chain(fds.iter().copied())
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        loop {
            match poll(&mut polls, timeout.as_ref()) {
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
        let ready: Vec<bool> = polls.iter().map(|poll| !poll.revents().is_empty()).collect();
        (!ready[0]).then(|| ready[1..].to_vec())
    }
}
