//! A session at a terminal of its own, as somebody who sits in front of it has it.

use std::{
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::ExitStatusExt as _,
    },
    process::{Child, Command},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

/// How long words are waited for until somebody looks whether the session has ended.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// How often a session without a terminal is looked at.
const POLL: Duration = Duration::from_millis(10);

/// A program at a terminal.
pub struct Terminal {
    child: Child,
    /// `None` once it is hung up.
    master: Option<OwnedFd>,
    said: String,
    longest: Duration,
}

/// What came from the other side.
#[derive(PartialEq, Eq)]
enum Heard {
    Words,
    Nothing,
    End,
}

impl Terminal {
    /// Starts a command as the leader of a session that the terminal controls (setsid(1)).
    pub(crate) fn start(command: &Command, (rows, cols): (u16, u16), longest: Duration) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        unlockpt(&master).expect("a new terminal can be unlocked");
        let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a terminal has two sides");
        let mut leader = Command::new("setsid");
        // A shell at a terminal hears of its end, whatever these tests were told to ignore.
        leader.args(["--ctty", "env", "--default-signal=HUP"]);
        leader.arg(command.get_program()).args(command.get_args()).env_clear();
        leader.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("TERM", "xterm");
        leader.current_dir(command.get_current_dir().expect("sessions have a directory"));
        let copy = || slave.try_clone().expect("a descriptor can be copied");
        let child = leader.stdin(copy()).stdout(copy()).stderr(copy()).spawn().expect("the program starts");
        let terminal = Self { child, master: Some(master), said: String::new(), longest };
        terminal.resize(rows, cols);
        terminal
    }

    /// Types.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn keys(&mut self, keys: &str) -> &mut Self {
        let master = self.master.as_ref().expect("it is not hung up");
        let mut rest = keys.as_bytes();
        while !rest.is_empty() {
            let written = rustix::io::write(master, rest).expect("a terminal takes keys");
            rest = &rest[written..];
        }
        self
    }

    /// Changes the size of the window.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn resize(&self, rows: u16, cols: u16) {
        let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(self.master.as_ref().expect("it is not hung up"), size).expect("a window has a size");
    }

    /// Waits until these words are on the screen, after those that were waited for before.
    ///
    /// # Panics
    /// When they do not come, or the session ends before.
    pub fn wait_for(&mut self, words: &str) -> &mut Self {
        let start = Instant::now();
        loop {
            if let Some(at) = self.said.find(words) {
                self.said.drain(..at + words.len());
                return self;
            }
            let is_over = self.listen() == Heard::End || (self.has_ended() && self.listen() != Heard::Words);
            assert!(!is_over || self.said.contains(words), "the session ended before `{words}`:\n{}", self.said);
            assert!(start.elapsed() < self.longest, "`{words}` does not come:\n{}", self.said);
        }
    }

    /// Waits for the end: its exit code (128 + signal when it was killed), and what was not waited for.
    ///
    /// # Panics
    /// When it hangs.
    pub fn finish(mut self) -> (i32, String) {
        let start = Instant::now();
        // What others at the same terminal say is not waited for.
        while !(self.listen() != Heard::Words && self.has_ended()) {
            assert!(start.elapsed() < self.longest, "the session hangs:\n{}", self.said);
        }
        let status = self.child.wait().expect("a child can be waited for");
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        (code, std::mem::take(&mut self.said))
    }

    /// The window is closed, and what was left on it is lost; then as [`Terminal::finish`].
    pub fn hang_up(mut self) -> i32 {
        self.master = None;
        self.finish().0
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_some()
    }

    /// Reads what there is, or comes within a moment.
    fn listen(&mut self) -> Heard {
        let Some(master) = &self.master else {
            std::thread::sleep(POLL);
            return Heard::End;
        };
        let mut fds = [PollFd::from_borrowed_fd(master.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&LOOK)) {
            Ok(0) | Err(Errno::INTR) => return Heard::Nothing,
            other => drop(other.expect("a terminal can be waited for")),
        }
        let mut bytes = [0; 4096];
        match rustix::io::read(master, &mut bytes[..]) {
            Ok(count) if count > 0 => {
                self.said.push_str(&String::from_utf8_lossy(&bytes[..count]));
                Heard::Words
            }
            Err(Errno::INTR | Errno::AGAIN) => Heard::Nothing,
            // Nobody is on the other side any more (pty(7): EIO). It may be a moment before the session's end.
            _ => {
                std::thread::sleep(POLL);
                Heard::End
            }
        }
    }
}

/// A test that fails leaves no session behind.
impl Drop for Terminal {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
