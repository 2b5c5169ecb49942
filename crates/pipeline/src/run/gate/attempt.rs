//! One attempt of a gate: a container from a fresh copy, its end, its reports.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use engine::{BindMount, Cancel, Container, ContainerSpec, EngineError, Exit, Scope, Stdio};
use events::{Event, Verdict};
use store::RunDir;

use super::{
    super::{
        checks::STOP_GRACE,
        locate::Locator,
        log::{StageLog, Tail},
        record::{self, StageRecord},
        reports, words,
    },
    Trial, outcome, spec,
};
use crate::{BoundsPlan, GateFailure, GateOutcome, GatePlan, RunContext, RunError};

const SIGTERM: i32 = 15;

/// How the wait for a container ended.
enum End {
    Exit(Exit),
    /// It was never started: there is no such program in the image.
    NoProgram(EngineError, i32),
    Cancelled,
}

/// The end, and the root that was kept of a failure.
struct Ended {
    end: End,
    kept: Option<String>,
}

impl From<End> for Ended {
    fn from(end: End) -> Self {
        Self { end, kept: None }
    }
}

/// Starts the gate's container and waits for its end.
pub(super) async fn attempt(
    trial: &Trial<'_>,
    gate: &GatePlan,
    spec: &ContainerSpec,
    keep_failed: Duration,
) -> Result<GateOutcome, RunError> {
    let (cx, started) = (trial.cx, Instant::now());
    let work_dir = cx.run.path.join("work").join(words::file_name(&gate.name));
    make_work_dir(&work_dir).map_err(|error| RunError::local(format!("prepare reports of {}", gate.name), error))?;
    let mark = (gate.commands.len() > 1).then(spec::nonce);
    let log = StageLog::open(cx, &gate.name, spec::steps(gate), mark.clone(), trial.secrets.masks.clone())?;
    let mut spec = spec.clone();
    spec.args = spec::args(&gate.entrypoint, &gate.commands, mark.as_deref());
    spec.stdio = Stdio::Sink(log.sink());
    let reports = BindMount { source: work_dir.clone(), target: spec::REPORTS_TARGET.into(), readonly: false };
    spec.mounts.push(reports);
    record::write(cx, &StageRecord::of(&gate.name, &spec));
    let plan = trial.plan;
    let root = plan.source.root.as_deref().unwrap_or(&plan.build.context);
    let locator = Locator::new(&spec, root, &plan.build.context);

    let end = start_and_wait(cx, trial.run.scope, spec, gate.timeout, keep_failed, Some(trial.begun)).await;
    let (Ended { end, kept }, error) = match end {
        Ok(end) => (end, None),
        Err(error) => (Ended::from(End::Cancelled), Some(error)),
    };
    let exit = match &end {
        End::Exit(exit) => exit.clone(),
        End::NoProgram(error, code) => {
            log.note(&error.with_causes());
            Exit { code: *code, ..Exit::default() }
        }
        End::Cancelled => Exit { code: 128 + SIGTERM, ..Exit::default() },
    };
    let begun = log.begun();
    let tail = log.finish(exit.code);
    // Reports are collected whatever the verdict is, also of a gate that was stopped.
    let collected = collect(trial, gate, work_dir, locator).await;
    if let Some(error) = error {
        return Err(RunError::Engine(error));
    }
    if matches!(end, End::Cancelled) {
        return Err(RunError::Cancelled);
    }

    let passed = exit == Exit::default();
    if passed && begun < gate.commands.len() && mark.is_some() {
        let message = format!("gate {} ended itself after {begun} of {} commands", gate.name, gate.commands.len());
        cx.events.emit(Event::Warning { message, place: gate.place.clone() });
    }
    let busy = started.elapsed();
    let failure = (!passed).then(|| failure(gate, exit, tail, busy, begun, kept, &end));
    Ok(GateOutcome {
        tests: collected.counts,
        coverage: collected.coverage,
        findings: collected.findings,
        problems: collected.problems,
        reports: collected.directory,
        busy,
        failure,
        ..outcome(gate, if passed { Verdict::Passed } else { Verdict::Failed })
    })
}

/// How it failed, in words.
pub(in crate::run) fn reason(exit: &Exit, timeout: Option<Duration>, bounds: &BoundsPlan) -> String {
    if exit.out_of_memory {
        let limit = bounds.memory_bytes.map(|bytes| format!("its memory limit of {}", words::memory(bytes)));
        format!("hit {}", limit.as_deref().unwrap_or("the memory limit"))
    } else if exit.out_of_pids {
        let limit = bounds.pids.map(|pids| format!("its limit of {}", words::processes(pids)));
        format!("hit {}", limit.as_deref().unwrap_or("the limit of processes"))
    } else if exit.timed_out {
        let after = timeout.map(|timeout| format!(" after {}", crate::duration::human(timeout))).unwrap_or_default();
        format!("was stopped{after} (timeout)")
    } else if let Some(signal) = exit.signal {
        format!("was ended by signal {signal}")
    } else {
        format!("exited {}", exit.code)
    }
}

fn failure(
    gate: &GatePlan,
    exit: Exit,
    tail: Tail,
    duration: Duration,
    begun: usize,
    kept: Option<String>,
    end: &End,
) -> GateFailure {
    let command = gate.commands.get(begun.saturating_sub(1)).or(gate.commands.first());
    let hint = match end {
        // 126 is about the user, or about a file that is no program: the message says which.
        End::NoProgram(error, 126) => error.hint.clone(),
        End::NoProgram(error, _) => error.hint.clone().or_else(|| {
            Some("gates are run by `/bin/sh` of the image; without a shell, give `entrypoint` and no `run`".into())
        }),
        _ => None,
    };
    GateFailure {
        gate: gate.name.clone(),
        command: command.map_or_else(|| gate.entrypoint.join(" "), |command| command.run.clone()),
        place: command.and_then(|command| command.place.clone()).or_else(|| gate.place.clone()),
        reason: reason(&exit, gate.timeout, &gate.bounds),
        exit,
        tail: tail.lines,
        earlier_lines: tail.earlier,
        duration,
        log: tail.path,
        kept,
        hint,
    }
}

/// How commands in a container of their own ended.
pub(in crate::run) struct Ending {
    pub(in crate::run) exit: Exit,
    /// Why it was never started.
    pub(in crate::run) note: Option<String>,
    /// Root that was kept of a failure.
    pub(in crate::run) kept: Option<String>,
    pub(in crate::run) duration: Duration,
}

/// Starts a container and waits for its end.
pub(in crate::run) async fn run_to_end(
    cx: RunContext<'_>,
    scope: &dyn Scope,
    spec: ContainerSpec,
    timeout: Option<Duration>,
    keep_failed: Duration,
) -> Result<Ending, RunError> {
    let started = Instant::now();
    let Ended { end, kept } =
        start_and_wait(cx, scope, spec, timeout, keep_failed, None).await.map_err(RunError::Engine)?;
    let (exit, note) = match end {
        End::Exit(exit) => (exit, None),
        End::NoProgram(error, code) => (Exit { code, ..Exit::default() }, Some(error.with_causes())),
        End::Cancelled => return Err(RunError::Cancelled),
    };
    Ok(Ending { exit, note, kept, duration: started.elapsed() })
}

async fn start_and_wait(
    cx: RunContext<'_>,
    scope: &dyn Scope,
    spec: ContainerSpec,
    timeout: Option<Duration>,
    keep_failed: Duration,
    begun: Option<&Cancel>,
) -> Result<Ended, EngineError> {
    if cx.cancel.is_cancelled() {
        return Ok(End::Cancelled.into());
    }
    let name = spec.name.clone();
    let container = match scope.start(spec).await {
        Ok(container) => container,
        Err(error) => {
            return match error.command_code {
                Some(code) => Ok(End::NoProgram(error, code).into()),
                None => Err(error),
            };
        }
    };
    if let Some(begun) = begun {
        begun.cancel();
    }
    warn(cx, &name, &*container);
    let time_is_over = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let end = tokio::select! {
        biased;
        exit = container.wait() => match exit {
            Err(error) if error.command_code.is_some() => {
                let code = error.command_code.unwrap_or_default();
                return Ok(End::NoProgram(error, code).into());
            }
            exit => End::Exit(exit?),
        },
        () = cx.cancel.cancelled() => {
            container.stop(SIGTERM, STOP_GRACE).await?;
            End::Cancelled
        }
        () = time_is_over => {
            let exit = container.stop(SIGTERM, STOP_GRACE).await?;
            // A program that tidies up and exits 0 has not finished its work all the same.
            End::Exit(Exit { timed_out: true, code: if exit.code == 0 { 128 + SIGTERM } else { exit.code }, ..exit })
        }
    };
    let kept = match &end {
        End::Exit(exit) if *exit != Exit::default() && !keep_failed.is_zero() => {
            // Its own loss must not hide the failure.
            container.keep(keep_failed).await.ok().flatten()
        }
        _ => None,
    };
    Ok(Ended { end, kept })
}

pub(in crate::run) fn warn(cx: RunContext<'_>, name: &str, container: &dyn Container) {
    for warning in container.warnings() {
        cx.events.emit(Event::Warning { message: format!("{name}: {warning}"), place: None });
    }
}

fn make_work_dir(dir: &Path) -> std::io::Result<()> {
    fs_err::create_dir_all(dir)?;
    // The gate's user may be anyone; the run's directory above it is ours alone.
    fs_err::set_permissions(dir, std::fs::Permissions::from_mode(0o1777))
}

/// Where a gate's reports are collected.
pub(super) fn reports_dir(run: &RunDir, gate: &str) -> PathBuf {
    run.path.join("reports").join(words::file_name(gate))
}

async fn collect(trial: &Trial<'_>, gate: &GatePlan, work_dir: PathBuf, locator: Locator) -> reports::Collected {
    let (cx, masks) = (trial.cx, trial.secrets.masks.clone());
    let target = reports_dir(cx.run, &gate.name);
    let (patterns, name) = (gate.reports.clone(), gate.name.clone());
    let task = tokio::task::spawn_blocking(move || {
        let collected =
            reports::collect(&work_dir, &target, &patterns, masks.as_ref(), &|path: &str| locator.find(path));
        // The scope's owner has ended everything in it, so nothing writes here any more.
        drop(fs_err::remove_dir_all(&work_dir));
        collected
    });
    let collected = task.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    for message in &collected.warnings {
        cx.events.emit(Event::Warning { message: format!("reports of {name}: {message}"), place: gate.place.clone() });
    }
    collected
}
