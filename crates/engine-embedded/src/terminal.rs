//! Our terminal as a container's: keys in, output out, size changes passed on, and everything put back afterwards.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    stdio::{stdin, stdout},
    termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize},
};

/// How often the window's size is compared. A signal handler would be quicker, but signals belong to the program's front.
const SIZE_POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
const COPY_BYTES: usize = 16 * 1024;

/// Rows and columns, when both our input and output are a terminal.
pub fn size() -> Option<(u16, u16)> {
    if !isatty(stdin()) || !isatty(stdout()) {
        return None;
    }
    let size = tcgetwinsize(stdout()).ok()?;
    Some((size.ws_row, size.ws_col))
}

/// Relays between our terminal and the master side of another until that one hangs up.
pub fn relay(master: &OwnedFd) {
    let _raw = Raw::enter();
    let mut size = tcgetwinsize(stdout()).ok().map(|size| (size.ws_row, size.ws_col));
    let mut is_input_open = true;
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let mut fds = vec![PollFd::from_borrowed_fd(master.as_fd(), PollFlags::IN)];
        if is_input_open {
            fds.push(PollFd::from_borrowed_fd(stdin(), PollFlags::IN));
        }
        match poll(&mut fds, Some(&SIZE_POLL)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready[0] && !copy(master.as_fd(), stdout(), &mut buffer) {
            // EIO: the last process on the terminal is gone.
            return;
        }
        if ready.get(1) == Some(&true) {
            is_input_open = copy(stdin(), master.as_fd(), &mut buffer);
        }
        if let Ok(now) = tcgetwinsize(stdout())
            && size != Some((now.ws_row, now.ws_col))
        {
            size = Some((now.ws_row, now.ws_col));
            // A terminal without a size works all the same.
            let _ = tcsetwinsize(master, now);
        }
    }
}

/// One read, written whole; false at the end.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, buffer: &mut [u8]) -> bool {
    let count = match rustix::io::read(from, &mut *buffer) {
        Ok(0) => return false,
        Ok(count) => count,
        Err(Errno::INTR | Errno::AGAIN) => return true,
        Err(_) => return false,
    };
    let mut rest = &buffer[..count];
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::from_borrowed_fd(to, PollFlags::OUT)];
                let _ = poll(&mut fds, Some(&SIZE_POLL));
            }
            Err(_) => return false,
        }
    }
    true
}

/// Raw mode until dropped.
struct Raw(Option<Termios>);

impl Raw {
    fn enter() -> Self {
        let Ok(former) = tcgetattr(stdin()) else { return Self(None) };
        let mut raw = former.clone();
        raw.make_raw();
        match tcsetattr(stdin(), OptionalActions::Flush, &raw) {
            Ok(()) => Self(Some(former)),
            Err(_) => Self(None),
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(former) = &self.0 {
            // Nothing can be told about it: the terminal is what would show it.
            let _ = tcsetattr(stdin(), OptionalActions::Drain, former);
        }
    }
}
