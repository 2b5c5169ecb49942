//! Our terminal as a container's: keys in, output out, size changes passed on, and everything put back afterwards.

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, ioctl_fionbio},
    stdio::{stdin, stdout},
    termios::{
        InputModes, LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
    },
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

/// Our terminal is made ready for another's keys: what is typed from now on is neither shown nor edited here, and waits for
/// [`relay`], while Ctrl-C still reaches us. For those who are about to start what the keys are for; until dropped.
pub fn quiet() -> Quiet {
    Quiet { _mode: Mode::enter(false) }
}

/// See [`quiet`].
#[derive(Debug)]
pub struct Quiet {
    _mode: Mode,
}

/// Puts our terminal back as it was, for those who end the process without an end of [`relay`].
pub fn restore() {
    if let Some(former) = former().first() {
        // Nothing can be told about it: the terminal is what would show it.
        let _ = tcsetattr(stdin(), OptionalActions::Now, former);
    }
}

/// Relays between our terminal and the master side of another until that one hangs up.
pub fn relay(master: &OwnedFd) {
    let _raw = Mode::enter(true);
    // Keys that nobody reads inside must not keep what is said inside from being read.
    let _ = ioctl_fionbio(master, true);
    let mut size = None;
    let mut is_input_open = true;
    let mut buffer = vec![0; COPY_BYTES];
    let mut keys = Vec::new();
    loop {
        // First of all: it may have changed since the other terminal was made.
        if let Ok(now) = tcgetwinsize(stdout())
            && size != Some((now.ws_row, now.ws_col))
        {
            size = Some((now.ws_row, now.ws_col));
            // A terminal without a size works all the same.
            let _ = tcsetwinsize(master, now);
        }
        let wanted = if keys.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        let mut fds = vec![PollFd::from_borrowed_fd(master.as_fd(), wanted)];
        if is_input_open && keys.is_empty() {
            fds.push(PollFd::from_borrowed_fd(stdin(), PollFlags::IN));
        }
        match poll(&mut fds, Some(&SIZE_POLL)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        let inside = fds[0].revents();
        let is_typed = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        if !(inside - PollFlags::OUT).is_empty() && !show(master.as_fd(), &mut buffer) {
            // EIO: the last process on the terminal is gone.
            return;
        }
        if is_typed {
            match rustix::io::read(stdin(), &mut buffer[..]) {
                Ok(0) => is_input_open = false,
                Ok(count) => keys.extend_from_slice(&buffer[..count]),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(_) => is_input_open = false,
            }
        }
        if !keys.is_empty() {
            match rustix::io::write(master, &keys) {
                Ok(written) => drop(keys.drain(..written)),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(_) => {
                    is_input_open = false;
                    keys.clear();
                }
            }
        }
    }
}

/// One read of what is said inside, written whole to our terminal; false at the end.
fn show(from: BorrowedFd<'_>, buffer: &mut [u8]) -> bool {
    let count = match rustix::io::read(from, &mut *buffer) {
        Ok(0) => return false,
        Ok(count) => count,
        Err(Errno::INTR | Errno::AGAIN) => return true,
        Err(_) => return false,
    };
    let mut rest = &buffer[..count];
    while !rest.is_empty() {
        match rustix::io::write(stdout(), rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let to = stdout();
                let mut fds = [PollFd::from_borrowed_fd(to.as_fd(), PollFlags::OUT)];
                let _ = poll(&mut fds, Some(&SIZE_POLL));
            }
            Err(_) => return false,
        }
    }
    true
}

/// How our terminal was before each change that lasts.
fn former() -> MutexGuard<'static, Vec<Termios>> {
    static FORMER: Mutex<Vec<Termios>> = Mutex::new(Vec::new());
    FORMER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Another mode of our terminal until dropped. Keys that wait to be read stay, which is why nothing is flushed.
#[derive(Debug)]
struct Mode {
    is_changed: bool,
}

impl Mode {
    /// Fully raw, or only without editing and echo: signals and the newlines of our messages work as before.
    fn enter(is_raw: bool) -> Self {
        let changed = tcgetattr(stdin()).and_then(|now| {
            let mut wanted = now.clone();
            if is_raw {
                wanted.make_raw();
            } else {
                wanted.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::IEXTEN;
                wanted.input_modes -= InputModes::ICRNL;
            }
            tcsetattr(stdin(), OptionalActions::Now, &wanted)?;
            Ok(now)
        });
        let is_changed = changed.is_ok();
        former().extend(changed);
        Self { is_changed }
    }
}

impl Drop for Mode {
    fn drop(&mut self) {
        if !self.is_changed {
            return;
        }
        if let Some(before) = former().pop() {
            // Nothing can be told about it: the terminal is what would show it.
            let _ = tcsetattr(stdin(), OptionalActions::Drain, &before);
        }
    }
}
