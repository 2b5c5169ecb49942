//! Exit codes: a promise, kept in one place.

use std::process::ExitCode;

/// How a command ended, as scripts see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: passed.
    Passed,
    /// 1: the verdict is no (a step, gate, health check or verification failed).
    Refused,
    /// 2: wrong invocation, Dockerfile or `seatrial.yaml`.
    Usage,
    /// 3: the surroundings failed (registry, kernel, disk, engine); repeating may help.
    Surroundings,
    /// 4: authentication.
    Authentication,
    /// 129: cancelled by SIGHUP: its terminal has gone.
    HungUp,
    /// 130: cancelled by SIGINT.
    Interrupted,
    /// 143: cancelled by SIGTERM.
    Terminated,
    /// `shell` passes the command's own code, with docker's 125, 126, 127.
    Command(u8),
}

impl Exit {
    /// The number.
    pub(crate) fn code(self) -> u8 {
        match self {
            Exit::Passed => 0,
            Exit::Refused => 1,
            Exit::Usage => 2,
            Exit::Surroundings => 3,
            Exit::Authentication => 4,
            Exit::HungUp => 129,
            Exit::Interrupted => 130,
            Exit::Terminated => 143,
            Exit::Command(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}
