//! Programs that keep a key to themselves: started, talked to, and ended when they take too long or say too much.

use std::{
    io::{self, Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::SigningFailure;

/// A signature takes some seventy bytes, as base64 a hundred.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Starts a program, gives it its input, and takes its output. Its messages go where ours go.
pub(super) fn call(
    words: &[String],
    further: Option<&str>,
    input: &[u8],
    directory: &Path,
    time: Duration,
) -> Result<Vec<u8>, SigningFailure> {
    let (program, arguments) = words.split_first().expect("a source names a program");
    let mut child = Command::new(program)
        .args(arguments)
        .args(further)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(SigningFailure::Program)?;
    let deadline = Instant::now() + time;
    let answer = talk(&mut child, input, time).and_then(|answer| match ends_by(&child, deadline) {
        Ok(true) => Ok(answer),
        Ok(false) => Err(SigningFailure::TooSlow(time)),
        Err(error) => Err(SigningFailure::Program(error)),
    });
    if answer.is_err() {
        // It may have ended by itself meanwhile.
        let _ = child.kill();
    }
    let status = child.wait().map_err(SigningFailure::Program)?;
    let answer = answer?;
    if status.success() { Ok(answer) } else { Err(SigningFailure::Refused(status.to_string())) }
}

/// Threads of their own talk to it: whatever the program has started may hold its pipes open after its end, and nobody waits
/// for that.
fn talk(child: &mut Child, input: &[u8], time: Duration) -> Result<Vec<u8>, SigningFailure> {
    let (mut stdin, stdout) = (child.stdin.take().expect("it is piped"), child.stdout.take().expect("it is piped"));
    let input = input.to_vec();
    // A program that wants no input may close it, and one that has not read it all gives no right signature.
    thread::spawn(move || drop(stdin.write_all(&input)));
    let (told, answers) = mpsc::channel();
    thread::spawn(move || {
        let mut answer = Vec::new();
        let read = stdout.take(ANSWER_BYTES_MAX + 1).read_to_end(&mut answer);
        // Nobody listens any more once the time is over.
        let _ = told.send(read.map(|_| answer));
    });
    let answer = answers.recv_timeout(time).map_err(|_| SigningFailure::TooSlow(time))?;
    let answer = answer.map_err(SigningFailure::Program)?;
    if answer.len() as u64 > ANSWER_BYTES_MAX {
        return Err(SigningFailure::TooLong(ANSWER_BYTES_MAX));
    }
    Ok(answer)
}

/// Whether it ends by then.
fn ends_by(child: &Child, deadline: Instant) -> io::Result<bool> {
    let handle = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left =
            Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            found => return Ok(found? > 0),
        }
    }
}
