//! Stops the processes of a container and lets them run again.
//!
//! By signals rather than by the freezer of its control group: a health check that is started meanwhile belongs to the same
//! group and has to run.

use std::{collections::BTreeSet, io, os::fd::AsFd, path::PathBuf};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::sys;

/// A program that forks faster than this many looks is not caught.
const LOOKS_MAX: usize = 20;

/// Sends SIGSTOP or SIGCONT to every process in the pid namespace of `first`, until a look finds no other one.
pub(crate) fn freeze(first: i32, frozen: bool) -> io::Result<()> {
    let namespace = namespace_of(first)?;
    let signal = if frozen { libc::SIGSTOP } else { libc::SIGCONT };
    let mut seen = BTreeSet::new();
    for _ in 0..LOOKS_MAX {
        let mut found_new = false;
        for pid in processes()? {
            // Others are not ours to look at, or have ended meanwhile.
            let is_inside = || namespace_of(pid).is_ok_and(|other| other == namespace);
            if seen.contains(&pid) || !is_inside() {
                continue;
            }
            let Some(fd) = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { continue };
            let fd = match fd {
                Ok(fd) => fd,
                Err(Errno::SRCH) => continue,
                Err(errno) => return Err(errno.into()),
            };
            // The descriptor is of whoever has this number now: looked at again, so that no stranger is stopped.
            if !is_inside() {
                continue;
            }
            match sys::signal_pidfd(fd.as_fd(), signal) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(error),
                _ => found_new |= seen.insert(pid),
            }
        }
        if !found_new {
            break;
        }
    }
    Ok(())
}

fn namespace_of(pid: i32) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/pid"))
}

fn processes() -> io::Result<impl Iterator<Item = i32>> {
    let entries = std::fs::read_dir("/proc")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()))
}
