//! One run of the program, as a user types it.

use std::{
    ffi::OsStr,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use expect_test::Expect;

use crate::{Terminal, filtered};

/// Few sessions of the tests take this long; what does hangs.
pub(crate) const SESSION_MAX: Duration = Duration::from_secs(120);
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);

/// A command line that was not started yet.
pub struct Session {
    command: Command,
    stdin: Vec<u8>,
    world: PathBuf,
    registry: Option<SocketAddr>,
    longest: Duration,
}

impl Session {
    pub(crate) fn new(command: Command, world: PathBuf, registry: Option<SocketAddr>) -> Self {
        Self { command, stdin: Vec::new(), world, registry, longest: SESSION_MAX }
    }

    /// What takes longer hangs; for those that install packages or start browsers.
    pub fn within(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self
    }

    /// A further argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// A variable of the environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Another working directory.
    pub fn cwd(mut self, directory: impl AsRef<Path>) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// What stdin holds.
    pub fn stdin(mut self, text: impl AsRef<[u8]>) -> Self {
        self.stdin = text.as_ref().to_vec();
        self
    }

    /// Runs to the end.
    ///
    /// # Panics
    /// When the program cannot be started, or hangs.
    pub fn run(self) -> Finished {
        self.start().finish()
    }

    /// Starts at a terminal of this many rows and columns.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn terminal(self, rows: u16, cols: u16) -> Terminal {
        Terminal::start(&self.command, (rows, cols), self.longest)
    }

    /// Starts without waiting.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn start(mut self) -> Running {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().expect("the program starts");
        let mut stdin = child.stdin.take().expect("it was asked for");
        // A program that does not read its input closes it, which is no failure of the test.
        let _ = stdin.write_all(&self.stdin);
        Running { child, world: self.world, registry: self.registry, longest: self.longest }
    }
}

/// A started session.
pub struct Running {
    child: Child,
    world: PathBuf,
    registry: Option<SocketAddr>,
    longest: Duration,
}

/// A test that fails leaves no session behind.
impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Running {
    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid =
            i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process has an id");
        rustix::process::kill_process(pid, signal).expect("the session still runs");
    }

    /// Sends a signal again and again until the session ends.
    ///
    /// # Panics
    /// When it hangs.
    pub fn repeat_until_end(mut self, signal: rustix::process::Signal) -> Finished {
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            assert!(start.elapsed() < self.longest, "the session hangs");
            self.signal(signal);
            std::thread::sleep(POLL);
        }
        self.finish()
    }

    /// The next line that it writes to stdout, without its end; what it writes later is there for [`Running::finish`].
    ///
    /// # Panics
    /// When it ends before.
    pub fn line(&mut self) -> String {
        use std::io::Read as _;
        let stdout = self.child.stdout.as_mut().expect("it was asked for");
        // One byte at a time: a buffer would keep what comes after the line.
        let (mut line, mut byte) = (Vec::new(), [0]);
        while stdout.read(&mut byte).expect("a pipe can be read") == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        assert!(!line.is_empty(), "the session ended, or its line is empty");
        String::from_utf8_lossy(&line).into_owned()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a condition holds, for a bounded time.
    ///
    /// # Panics
    /// When it does not hold in time, or the session ends before.
    pub fn wait_until(&mut self, what: &str, condition: impl FnMut() -> bool) {
        wait_until(what, self.longest, condition, || {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("the session ended ({status}) before: {what}");
            }
        });
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// When it hangs.
    pub fn finish(mut self) -> Finished {
        use std::io::Read as _;
        let mut stdout = self.child.stdout.take().expect("it was asked for");
        let mut stderr = self.child.stderr.take().expect("it was asked for");
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stdout.read_to_end(&mut bytes);
            bytes
        });
        let messages = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stderr.read_to_end(&mut bytes);
            bytes
        });
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                break status;
            }
            if start.elapsed() > self.longest {
                let _ = self.child.kill();
                panic!("the session hangs");
            }
            std::thread::sleep(POLL);
        };
        let output = Output {
            status,
            stdout: reader.join().expect("reading does not panic"),
            stderr: messages.join().expect("reading does not panic"),
        };
        Finished { output, world: self.world.clone(), registry: self.registry }
    }
}

/// Looks at a condition until it holds; `meanwhile` is asked in between.
pub(crate) fn wait_until(
    what: &str,
    longest: Duration,
    mut condition: impl FnMut() -> bool,
    mut meanwhile: impl FnMut(),
) {
    let start = Instant::now();
    while !condition() {
        meanwhile();
        assert!(start.elapsed() < longest, "in vain: {what}");
        std::thread::sleep(POLL);
    }
}

/// What a session left.
pub struct Finished {
    output: Output,
    world: PathBuf,
    registry: Option<SocketAddr>,
}

impl Finished {
    /// The exit code; 128 + signal when it was killed.
    pub fn code(&self) -> i32 {
        use std::os::unix::process::ExitStatusExt as _;
        self.output.status.code().unwrap_or_else(|| 128 + self.output.status.signal().unwrap_or(0))
    }

    /// Asserts the exit code.
    ///
    /// # Panics
    /// When it is another one.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "stdout:\n{}\nstderr:\n{}", self.stdout(), self.stderr());
        self
    }

    /// Results as they are.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    /// Result bytes.
    pub fn stdout_bytes(&self) -> &[u8] {
        &self.output.stdout
    }

    /// Messages, filtered.
    pub fn stderr(&self) -> String {
        self.filtered(&self.output.stderr)
    }

    /// Compares the filtered results.
    #[track_caller]
    pub fn stdout_is(self, expected: &Expect) -> Self {
        expected.assert_eq(&self.filtered(&self.output.stdout));
        self
    }

    /// Compares the filtered messages.
    #[track_caller]
    pub fn stderr_is(self, expected: &Expect) -> Self {
        expected.assert_eq(&self.stderr());
        self
    }

    /// Asserts that the filtered messages hold this text.
    ///
    /// # Panics
    /// When they do not.
    #[track_caller]
    pub fn stderr_has(self, text: &str) -> Self {
        assert!(self.stderr().contains(text), "`{text}` is missing in:\n{}", self.stderr());
        self
    }

    /// Asserts that the filtered results hold this text.
    ///
    /// # Panics
    /// When they do not.
    #[track_caller]
    pub fn stdout_has(self, text: &str) -> Self {
        let stdout = self.filtered(&self.output.stdout);
        assert!(stdout.contains(text), "`{text}` is missing in:\n{stdout}");
        self
    }

    fn filtered(&self, bytes: &[u8]) -> String {
        filtered(&String::from_utf8_lossy(bytes), &self.world, self.registry)
    }
}
