//! Commands on this machine, in a copy of the context.

use std::{io::Read as _, os::unix::process::ExitStatusExt as _, path::Path, process::Stdio};

use engine::{Exit, FailedStep};
use rustix::process::{Pid, Signal, kill_process_group};
use store::copy_tree;
use tokio::process::Command;

use super::{STAGE, STOP_GRACE, Work, copy};
use crate::{
    BeforePlan, Plan, RunError, RunOptions, SourceEvent,
    run::log::{StageLog, StepText},
};

/// Read at once from a command's pipe.
const PIPE_READ_BYTES: usize = 64 * 1024;
const SIGTERM: i32 = 15;

/// Leaves the whole copy in `out`.
pub(super) async fn run(work: &Work<'_>, entry: &BeforePlan, out: &Path) -> Result<Result<(), FailedStep>, RunError> {
    let hint = "name an image for it: `in: IMAGE`";
    refuse(work.plan, work.options, "`before` without `in`", hint)?;
    let (base, over, target) = (work.base.to_owned(), work.over.clone(), out.to_owned());
    let ignored = work.ignored_by_git().await;
    let copied = tokio::task::spawn_blocking(move || {
        copy_tree(&base, &target, &copy::is_source)?;
        for path in ignored {
            let path = target.join(path.trim_end_matches('/'));
            drop(fs_err::remove_dir_all(&path).or_else(|_| fs_err::remove_file(&path)));
        }
        copy_tree(&over, &target, &copy::is_source)
    });
    let copied = copied.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    copied.map_err(|error| RunError::local("copy the build context", error))?;
    for command in &entry.commands {
        let step = StepText { text: command.run.clone(), place: command.place.clone() };
        let log = StageLog::told(work.cx, &work.plan.stage(STAGE), step);
        let start = std::time::Instant::now();
        let exit = command_in(work, entry, &command.run, out, &log).await?;
        let tail = log.finish(exit.code);
        if exit != Exit::default() {
            return Ok(Err(FailedStep {
                text: command.run.clone(),
                place: command.place.clone(),
                exit,
                tail: tail.lines,
                earlier_lines: tail.earlier,
                duration: start.elapsed(),
                kept: None,
            }));
        }
    }
    Ok(Ok(()))
}

/// What somebody else proposes runs in containers only, and nobody is surprised by a command outside of one.
pub(in crate::run) fn refuse(plan: &Plan, options: &RunOptions, what: &str, instead: &str) -> Result<(), RunError> {
    if plan.source.event == SourceEvent::PullRequest {
        let message = format!("{what} runs on this machine, which a change request may not ask for");
        return Err(RunError::Usage { message, hint: Some(instead.to_owned()) });
    }
    if !options.allow_host_commands {
        return Err(RunError::Usage {
            message: format!("{what} runs on this machine, which is not permitted here"),
            hint: Some(format!("{instead}; or write `before.host` into ~/.config/seatrial/allow")),
        });
    }
    Ok(())
}

async fn command_in(
    work: &Work<'_>,
    entry: &BeforePlan,
    command: &str,
    directory: &Path,
    log: &StageLog,
) -> Result<Exit, RunError> {
    let failed = |error| RunError::local(format!("run `{command}`"), error);
    let (mut reader, writer) = std::io::pipe().map_err(failed)?;
    let mut child = Command::new("/bin/sh");
    child.args(["-ec", command]).current_dir(directory).env("CI", "true").envs(&entry.environment);
    child.stdin(Stdio::null()).stdout(writer.try_clone().map_err(failed)?).stderr(writer).process_group(0);
    let spawned = child.spawn();
    // Our ends of the pipe would keep it open.
    drop(child);
    let mut child = spawned.map_err(failed)?;
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let signal_all = |signal| group.map(|group| kill_process_group(group, signal));
    let sink = log.sink();
    let reading = tokio::task::spawn_blocking(move || {
        let mut buffer = vec![0; PIPE_READ_BYTES];
        while let Ok(count @ 1..) = reader.read(&mut buffer) {
            sink(&buffer[..count]);
        }
    });
    let status = tokio::select! {
        biased;
        status = child.wait() => Some(status.map_err(failed)?),
        () = work.cx.cancel.cancelled() => {
            signal_all(Signal::TERM);
            let _ = tokio::time::timeout(STOP_GRACE, child.wait()).await;
            None
        }
    };
    // What it left in the background holds the pipe, and has nothing more to do here.
    signal_all(Signal::KILL);
    let _ = child.wait().await;
    let _ = tokio::time::timeout(STOP_GRACE, reading).await;
    let Some(status) = status else { return Err(RunError::Cancelled) };
    Ok(match status.signal() {
        Some(signal) => Exit { code: 128 + signal, signal: Some(signal), ..Exit::default() },
        None => Exit { code: status.code().unwrap_or(128 + SIGTERM), ..Exit::default() },
    })
}
