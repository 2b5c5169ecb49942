//! What can go wrong, in words for the user.

use crate::protocol::{Failure, FailureKind};
use std::{io, path::PathBuf};

/// A container or a further process in it could not be started. Nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no such program in the container (a shell would say 127).
    #[error("no such program in the container: {program}")]
    NotFound {
        /// As it was asked for.
        program: String,
    },
    /// The program is there but cannot be executed (a shell would say 126).
    #[error("cannot execute {program} in the container")]
    NotExecutable {
        /// As it was asked for.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The container's `/etc/passwd` or `/etc/group` does not know it.
    #[error("no such user or group in the container: {user}")]
    UnknownUser {
        /// As it was asked for.
        user: String,
    },
    /// The surroundings of the process could not be made.
    #[error("cannot {step}{}", at(path.as_ref()))]
    Setup {
        /// Completes "cannot …".
        step: String,
        /// What it was about.
        path: Option<PathBuf>,
        /// What the user can do about it, when known.
        remedy: Option<String>,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl StartError {
    /// What the user can do about it, when known.
    pub fn remedy(&self) -> Option<&str> {
        match self {
            StartError::Setup { remedy, .. } => remedy.as_deref(),
            _ => None,
        }
    }

    pub(crate) fn setup(step: &str, source: io::Error) -> StartError {
        StartError::Setup { step: step.to_owned(), path: None, remedy: None, source }
    }

    pub(crate) fn setup_at(step: &str, path: impl Into<PathBuf>, source: io::Error) -> StartError {
        StartError::Setup { step: step.to_owned(), path: Some(path.into()), remedy: None, source }
    }

    pub(crate) fn from_failure(failure: Failure, program: &str, user: &str) -> StartError {
        let source = io::Error::from_raw_os_error(failure.errno);
        match failure.kind {
            FailureKind::NotFound => StartError::NotFound { program: program.to_owned() },
            FailureKind::NotExecutable => StartError::NotExecutable { program: program.to_owned(), source },
            FailureKind::UnknownUser => StartError::UnknownUser { user: user.to_owned() },
            FailureKind::Setup | FailureKind::NoIdmap => StartError::Setup {
                remedy: remedy_for(&failure),
                step: failure.step,
                path: failure.path.map(PathBuf::from),
                source,
            },
        }
    }
}

fn at(path: Option<&PathBuf>) -> String {
    path.map(|path| format!(" {}", path.display())).unwrap_or_default()
}

/// Causes that we have met and know a way out of.
fn remedy_for(failure: &Failure) -> Option<String> {
    let step = failure.step.as_str();
    let text = match failure.errno {
        libc::EPERM if step.contains("mount /proc") => {
            "parts of /proc are hidden here, as in a container; run the outer container with `--security-opt \
             systempaths=unconfined`, or on the host"
        }
        libc::EINVAL | libc::EPERM | libc::ENODEV if step.contains("overlay") => {
            "overlayfs does not work on this file system; move the store to ext4, xfs, btrfs or tmpfs (a volume, inside a \
             container)"
        }
        libc::ENOSPC if step.contains("process") => {
            "too many namespaces; raise the sysctls user.max_user_namespaces, user.max_mnt_namespaces and their like"
        }
        libc::EPERM if step.contains("namespaces") => {
            "namespaces are not allowed here; `seatrial doctor` tells which setting forbids them"
        }
        libc::ENOSPC | libc::EDQUOT => "the disk or a quota is full; `seatrial clean` frees space of the store",
        libc::EMFILE | libc::ENFILE => "too many open files; raise `ulimit -n`",
        _ => return None,
    };
    Some(text.to_owned())
}

/// A running container could not be asked, told or awaited.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The supervising helper was killed from outside, and the container with it; how the process ended is unknown.
    #[error("the supervisor of the container was killed")]
    SupervisorLost,
    /// A system call failed.
    #[error("cannot {attempt}")]
    System {
        /// Completes "cannot …".
        attempt: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// An overlay could not be mounted.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}{}", at(path.as_ref()))]
pub struct MountError {
    /// Completes "cannot …".
    pub step: String,
    /// The layer or directory it was about.
    pub path: Option<PathBuf>,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl From<Failure> for MountError {
    fn from(failure: Failure) -> Self {
        MountError {
            step: failure.step,
            path: failure.path.map(PathBuf::from),
            source: io::Error::from_raw_os_error(failure.errno),
        }
    }
}

/// [`enter`](crate::enter) failed in a way that no setting of the host explains.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt}")]
pub struct EnterError {
    /// Completes "cannot …".
    pub attempt: &'static str,
    /// Why.
    #[source]
    pub source: io::Error,
}
