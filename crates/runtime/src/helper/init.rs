//! The tiny init: pid 1 that forwards signals, reaps orphans and ends with the program.

use super::payload::{self, Parent, Program};
use crate::{
    caps::{Cap, CapSet},
    protocol::{Failure, Step},
    sys::{self, Ending, Fork},
};
use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
};

/// Forks the program and stays as its init. Returns only in the child, and only with a failure; also if forking fails.
pub(super) fn run(program: Program<'_>, tell_status: OwnedFd) -> Failure {
    // Before the fork, so that no SIGCHLD is missed; the program gets its signals back before exec.
    sys::block_signals();
    match sys::fork(0, None).step("make a process in the container") {
        Ok(Fork::Child) => payload::run(program, Parent::Init),
        Ok(Fork::Parent(child)) => serve(child.pid, tell_status),
        Err(failure) => failure,
    }
}

fn serve(program: i32, tell_status: OwnedFd) -> ! {
    // Nothing is kept: not the sockets (their end tells the helper that the program runs), not the output (its readers
    // wait for the end), no right but that of signalling another user's process.
    let tell_status = sys::keep_only(tell_status);
    drop(sys::bound_capabilities(CapSet::only(Cap::Kill).bits()));
    drop(sys::set_capabilities(CapSet::only(Cap::Kill).bits()));
    drop(sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0));
    loop {
        match sys::next_signal() {
            libc::SIGCHLD => {
                while let Some((pid, ending)) = sys::reap_any() {
                    if pid == program {
                        let text = serde_json::to_string(&ending).unwrap_or_default();
                        drop(File::from(tell_status).write_all(text.as_bytes()));
                        sys::exit_now(ending.code());
                    }
                }
            }
            signal if signal > 0 => sys::kill(program, signal),
            _ => {}
        }
    }
}

/// What [`serve`] wrote. `None` when it was killed before.
pub(super) fn read_ending(status: OwnedFd) -> Option<Ending> {
    // Everything that could hold the other end is dead.
    debug_assert!(sys::poll(&[status.as_fd()], 0).is_ok());
    let mut text = String::new();
    File::from(status).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}
