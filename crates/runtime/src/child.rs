//! Programs of the host that this process starts for itself.

use std::{io, os::unix::process::CommandExt as _, process::Command};

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

/// Lets a program be killed when the thread that starts it ends, as it does when this process is killed. The thread has to
/// wait for the program.
pub fn die_with_parent(command: &mut Command) {
    let parent = getpid();
    let prepare = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have died before it was asked for.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::Error::other("the parent is gone")) }
    };
    // SAFETY: between fork and exec only system calls are made, and nothing is allocated unless one fails for good.
    unsafe {
        command.pre_exec(prepare);
    }
}
