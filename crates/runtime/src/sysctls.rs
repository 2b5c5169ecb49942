//! Kernel parameters (sysctl(8)) of a container's own namespaces.
//!
//! Only those that the kernel keeps for each namespace are let through: any other one would change the host.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::{
    error::StartError,
    protocol::{Failure, Step},
};

/// What a failure was about.
const STEP: &str = "set the kernel parameter";

/// Parameters of an IPC namespace (ipc_namespaces(7)).
const OF_IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Whose parameter it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Namespace {
    Ipc,
    Network,
}

impl Namespace {
    /// `None`: the whole host's, or no name at all.
    pub(crate) fn of(name: &str) -> Option<Self> {
        let is_name = name.split(['.', '/']).all(|part| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        });
        match name {
            _ if !is_name => None,
            _ if OF_IPC.contains(&name) || name.starts_with("fs.mqueue.") => Some(Self::Ipc),
            _ if name.starts_with("net.") => Some(Self::Network),
            _ => None,
        }
    }
}

/// Refuses what is not the container's own.
pub(crate) fn check(sysctls: &[(String, String)], has_own_network: bool) -> Result<(), StartError> {
    for (name, value) in sysctls {
        let refuse =
            |reason: &str| Err(StartError::setup_at(STEP, name, io::Error::new(io::ErrorKind::InvalidInput, reason)));
        match Namespace::of(name) {
            None => return refuse("it belongs to the host, not to a container"),
            Some(Namespace::Network) if !has_own_network => {
                return refuse("the container has the host's network, whose parameters stay as they are");
            }
            Some(_) if value.contains('\0') => return refuse("its value holds a zero byte"),
            Some(_) => {}
        }
    }
    Ok(())
}

/// Writes those that `is_wanted`, below a `/proc/sys` that shows the namespaces of the caller.
pub(crate) fn write(
    proc_sys: BorrowedFd<'_>,
    spec: &Spec,
    is_wanted: impl Fn(Namespace) -> bool,
) -> Result<(), Failure> {
    let all = spec.linux().as_ref().and_then(|linux| linux.sysctl().as_ref());
    // In the order of their names: what is set does not hang on a table's whims.
    let mut all: Vec<(&String, &String)> = all.into_iter().flatten().collect();
    all.sort();
    for (name, value) in all {
        if !Namespace::of(name).is_some_and(&is_wanted) {
            continue;
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let path = name.replace('.', "/");
        let file =
            openat2(proc_sys, &path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve).step_at(STEP, name)?;
        // The kernel takes a value in one piece only.
        rustix::io::write(file.as_fd(), value.as_bytes()).step_at(STEP, name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parameters_of_namespaces_are_let_through() {
        for name in ["net.core.somaxconn", "net.ipv4.conf.eth0.forwarding"] {
            assert_eq!(Namespace::of(name), Some(Namespace::Network), "{name}");
        }
        for name in ["kernel.shmmax", "kernel.sem", "fs.mqueue.msg_max"] {
            assert_eq!(Namespace::of(name), Some(Namespace::Ipc), "{name}");
        }
        for name in [
            "kernel.core_pattern",
            "vm.swappiness",
            "fs.file-max",
            "kernel.shm",
            "net",
            "net./x",
            "net.../x",
            "net.x y",
            "",
        ] {
            assert_eq!(Namespace::of(name), None, "{name}");
        }
    }
}
