//! The health check: the container as in production, and its HEALTHCHECK decides.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use engine::{
    Attachment, Container, ContainerSpec, EngineError, ExecSpec, Exit, Limits, NetworkMode, OutputSink, Root, Scope,
    Stdio, Surroundings,
};
use events::{Event, Verdict};
use tokio::time::Instant;

use super::{
    gate,
    log::{StageLog, StepText, Tail},
    words::{self, Stage},
};
use crate::{GateFailure, HealthOutcome, HealthPlan, Plan, RunContext, RunError};

/// The stage's id.
pub(super) const STAGE: &str = "health";
/// Docker's defaults (Dockerfile reference, HEALTHCHECK).
const INTERVAL_DEFAULT: Duration = Duration::from_secs(30);
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
const ATTEMPTS_DEFAULT: u32 = 3;
/// The first look; most services are up within a second.
const FIRST_GAP: Duration = Duration::from_millis(50);
/// Whatever the file says, a container that needs longer is a hang.
const WAIT_MAX: Duration = Duration::from_secs(60 * 60);
/// Without a HEALTHCHECK: a container that survives this counts as started.
const SETTLE: Duration = Duration::from_secs(1);
/// The verdict is known by then and the container is thrown away: waiting for a slow end would only cost time.
const STOP_GRACE: Duration = Duration::from_millis(100);
/// A probe's output is for people.
const PROBE_OUTPUT_BYTES_MAX: usize = 4096;
const SIGTERM: i32 = 15;

/// Starts the image and awaits its health. The container has ended when this returns.
pub(super) async fn probe(
    cx: RunContext<'_>,
    plan: &Plan,
    scope: &dyn Scope,
    root: &Root,
) -> Result<HealthOutcome, RunError> {
    if !plan.health.enabled {
        return Ok(skipped("switched off"));
    }
    let config = &root.config.config;
    let args: Vec<String> = config.entrypoint.iter().chain(&config.cmd).flatten().cloned().collect();
    let stage = Stage::start(cx.events, STAGE);
    if args.is_empty() {
        let outcome = skipped("the image has no command to start");
        stage.finish(Verdict::Skipped, outcome.summary.clone());
        return Ok(outcome);
    }
    let check = Check::of(&plan.health, root);
    match attempt(cx, plan, scope, root, args, check, &stage).await {
        Ok(outcome) => {
            let event = Event::HealthFinished {
                verdict: outcome.verdict,
                attempt: outcome.attempts,
                duration_ms: words::millis(outcome.duration),
            };
            cx.events.emit(event);
            stage.finish(outcome.verdict, outcome.summary.clone());
            Ok(outcome)
        }
        Err(error) => {
            let verdict = if matches!(error, RunError::Cancelled) { Verdict::Skipped } else { Verdict::Failed };
            stage.finish(verdict, error.to_string());
            Err(error)
        }
    }
}

fn skipped(summary: &str) -> HealthOutcome {
    HealthOutcome {
        verdict: Verdict::Skipped,
        summary: summary.into(),
        attempts: 0,
        duration: Duration::ZERO,
        failure: None,
    }
}

/// The check with its numbers filled in.
struct Check {
    /// Arguments of the probe, and the text to show.
    command: Option<(Vec<String>, String)>,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    attempts: u32,
}

impl Check {
    fn of(plan: &HealthPlan, root: &Root) -> Check {
        let config = &root.config.config;
        let image = config.healthcheck.clone().unwrap_or_default();
        let nanos = |value: u64| (value > 0).then(|| Duration::from_nanos(value));
        let test = plan.command.as_ref().unwrap_or(&image.test);
        let command = match test.split_first() {
            Some((kind, rest)) if kind == "CMD" && !rest.is_empty() => Some((rest.to_vec(), rest.join(" "))),
            Some((kind, [text, ..])) if kind == "CMD-SHELL" => {
                let shell: Vec<String> = match config.shell.as_slice() {
                    [] => ["/bin/sh", "-c"].map(str::to_owned).into(),
                    shell => shell.to_vec(),
                };
                Some((shell.into_iter().chain([text.clone()]).collect(), text.clone()))
            }
            _ => None,
        };
        Check {
            command,
            interval: plan.interval.or(nanos(image.interval)).unwrap_or(INTERVAL_DEFAULT).max(Duration::from_millis(1)),
            timeout: plan.timeout.or(nanos(image.timeout)).unwrap_or(TIMEOUT_DEFAULT),
            start_period: plan.start_period.or(nanos(image.start_period)).unwrap_or_default(),
            attempts: plan
                .attempts
                .or(u32::try_from(image.retries).ok().filter(|retries| *retries > 0))
                .unwrap_or(ATTEMPTS_DEFAULT),
        }
    }

    /// When to give up: as late as docker would, which probes at the end of each interval.
    fn patience(&self) -> Duration {
        (self.start_period + self.interval.saturating_mul(self.attempts)).min(WAIT_MAX)
    }

    /// The attempt that a moment belongs to. Probing early is ours and does not use up the user's attempts.
    fn attempt_at(&self, elapsed: Duration) -> u32 {
        let counted = elapsed.saturating_sub(self.start_period).as_nanos() / self.interval.as_nanos().max(1);
        u32::try_from(counted).unwrap_or(u32::MAX).saturating_add(1).min(self.attempts)
    }
}

/// What the watching found out.
enum Seen {
    Healthy { attempt: u32 },
    Alive,
    Unhealthy { exit: Exit, reason: String, output: String },
    Ended(Exit),
    Cancelled,
}

async fn attempt(
    cx: RunContext<'_>,
    plan: &Plan,
    scope: &dyn Scope,
    root: &Root,
    args: Vec<String>,
    check: Check,
    stage: &Stage<'_>,
) -> Result<HealthOutcome, RunError> {
    let config = &root.config.config;
    let text = args.join(" ");
    let log = StageLog::open(cx, STAGE, vec![StepText { text: text.clone(), place: None }], None)?;
    let spec = ContainerSpec {
        name: gate::container_name(&format!("{}-health", plan.name)),
        root: root.clone(),
        args,
        env: gate::environment(root, &Default::default(), &[]),
        cwd: gate::workdir(None, root),
        user: config.user.clone(),
        mounts: Vec::new(),
        // A loopback of its own: ports never clash, and probes run inside.
        network: NetworkMode::None,
        attachment: Attachment::default(),
        surroundings: Surroundings::default(),
        limits: Limits::default(),
        init: false,
        stdio: Stdio::Sink(log.sink()),
    };
    let exec = ExecSpec {
        args: check.command.as_ref().map(|(args, _)| args.clone()).unwrap_or_default(),
        env: spec.env.clone(),
        cwd: spec.cwd.clone(),
        user: spec.user.clone(),
        stdio: Stdio::Inherit,
        timeout: Some(check.timeout),
    };
    if cx.cancel.is_cancelled() {
        log.finish(128 + SIGTERM);
        return Err(RunError::Cancelled);
    }
    let seen = match scope.start(spec).await {
        Ok(container) => {
            gate::warn(cx, STAGE, &*container);
            let seen = match &check.command {
                Some(_) => watch_probes(cx, &*container, &check, exec).await,
                None => watch_start(cx, &*container).await,
            };
            // The first failure leads; a container that is gone already needs no stopping.
            let stopped = container.stop(stop_signal(&config.stop_signal), STOP_GRACE).await;
            match (seen, stopped) {
                (Ok(seen), Ok(_)) => Ok(seen),
                (Err(error), _) | (Ok(_), Err(error)) => Err(error),
            }
        }
        Err(error) => Err(error),
    };
    let seen = match seen {
        Err(error) if error.command_code.is_some() => {
            log.note(&error.with_causes());
            Seen::Ended(Exit { code: error.command_code.unwrap_or(127), ..Exit::default() })
        }
        Err(error) => {
            log.finish(1);
            return Err(RunError::Engine(error));
        }
        Ok(seen) => seen,
    };
    judge(seen, &check, &log, &text, plan, root, stage)
}

fn judge(
    seen: Seen,
    check: &Check,
    log: &StageLog,
    text: &str,
    plan: &Plan,
    root: &Root,
    stage: &Stage<'_>,
) -> Result<HealthOutcome, RunError> {
    let duration = stage.elapsed();
    let passed = |summary: String, attempts| HealthOutcome {
        verdict: Verdict::Passed,
        summary,
        attempts,
        duration,
        failure: None,
    };
    let failed = |exit: Exit, reason: String, command: &str, extra: &str| {
        let Tail { mut lines, earlier, path } = log.finish(exit.code);
        lines.extend(extra.lines().map(str::to_owned));
        let failure = GateFailure {
            gate: STAGE.into(),
            command: command.to_owned(),
            place: plan.health.place.clone(),
            exit,
            reason: reason.clone(),
            tail: lines,
            earlier_lines: earlier,
            duration,
            log: path,
            kept: Some(root.id.clone()),
            hint: None,
        };
        HealthOutcome {
            verdict: Verdict::Failed,
            summary: reason,
            attempts: check.attempt_at(duration),
            duration,
            failure: Some(failure),
        }
    };
    Ok(match seen {
        Seen::Cancelled => {
            log.finish(128 + SIGTERM);
            return Err(RunError::Cancelled);
        }
        Seen::Healthy { attempt } => {
            log.finish(0);
            passed(format!("healthy at attempt {attempt} of {}", check.attempts), attempt)
        }
        Seen::Alive => {
            log.finish(0);
            passed(format!("still running after {}", crate::duration::human(SETTLE)), 1)
        }
        Seen::Ended(exit) if check.command.is_none() && exit.code == 0 => {
            log.finish(0);
            passed("ended with 0".into(), 1)
        }
        Seen::Ended(exit) => {
            let reason = format!("the container {} before it was healthy", gate::reason(&exit, None));
            let reason = if check.command.is_none() { gate::reason(&exit, None) } else { reason };
            failed(exit, reason, text, "")
        }
        Seen::Unhealthy { exit, reason, output } => {
            let probe = check.command.as_ref().map_or("", |(_, text)| text);
            failed(exit, reason, probe, &output)
        }
    })
}

/// Without a HEALTHCHECK.
async fn watch_start(cx: RunContext<'_>, container: &dyn Container) -> Result<Seen, EngineError> {
    tokio::select! {
        biased;
        exit = container.wait() => exit.map(Seen::Ended),
        () = cx.cancel.cancelled() => Ok(Seen::Cancelled),
        () = tokio::time::sleep(SETTLE) => Ok(Seen::Alive),
    }
}

/// Probes with growing gaps until healthy, or until docker would have given up.
async fn watch_probes(
    cx: RunContext<'_>,
    container: &dyn Container,
    check: &Check,
    exec: ExecSpec,
) -> Result<Seen, EngineError> {
    let start = Instant::now();
    let deadline = start + check.patience();
    let mut gap = FIRST_GAP.min(check.interval);
    let mut probes: u32 = 0;
    let mut next = start + gap;
    loop {
        let probe = async {
            tokio::time::sleep_until(next).await;
            let output: Arc<Mutex<Vec<u8>>> = Arc::default();
            let spec = ExecSpec { stdio: Stdio::Sink(bounded(Arc::clone(&output))), ..exec.clone() };
            let exit = container.exec(spec).await;
            let bytes = output.lock().unwrap_or_else(PoisonError::into_inner).clone();
            (exit, String::from_utf8_lossy(&bytes).trim_end().to_owned())
        };
        let (exit, output) = tokio::select! {
            biased;
            () = cx.cancel.cancelled() => return Ok(Seen::Cancelled),
            exit = container.wait() => return exit.map(Seen::Ended),
            probed = probe => probed,
        };
        let (exit, output) = match exit {
            Ok(exit) => (exit, output),
            // The program of the probe is missing in the image: it never gets better.
            Err(error) if error.command_code.is_some() => {
                let exit = Exit { code: error.command_code.unwrap_or(127), ..Exit::default() };
                let reason = "the health check's program cannot be started".to_owned();
                return Ok(Seen::Unhealthy { exit, reason, output: error.with_causes() });
            }
            // The container may have ended under the probe: that tells more than the probe's error.
            Err(error) => {
                return match tokio::time::timeout(SETTLE, container.wait()).await {
                    Ok(Ok(exit)) => Ok(Seen::Ended(exit)),
                    _ => Err(error),
                };
            }
        };
        probes = probes.saturating_add(1);
        let attempt = check.attempt_at(start.elapsed());
        cx.events.emit(Event::HealthAttempt {
            attempt,
            attempts: check.attempts,
            exit_code: exit.code,
            output: output.clone(),
        });
        if exit.code == 0 && !exit.timed_out {
            return Ok(Seen::Healthy { attempt });
        }
        if Instant::now() >= deadline && (probes >= check.attempts || start.elapsed() >= WAIT_MAX) {
            let reason = match exit.timed_out {
                true => format!("not healthy after {} attempts: the last one took too long", check.attempts),
                false => format!("not healthy after {} attempts", check.attempts),
            };
            return Ok(Seen::Unhealthy { exit, reason, output });
        }
        // Half as long again each time: at most a third of the time to healthy is waited too long.
        gap = (gap.saturating_mul(3) / 2).min(check.interval);
        let soon = Instant::now() + gap;
        // The last look is at the very end of the patience.
        next = if Instant::now() < deadline { soon.min(deadline) } else { soon };
    }
}

fn bounded(output: Arc<Mutex<Vec<u8>>>) -> OutputSink {
    Arc::new(move |bytes| {
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        let room = PROBE_OUTPUT_BYTES_MAX.saturating_sub(output.len());
        output.extend_from_slice(&bytes[..bytes.len().min(room)]);
    })
}

/// STOPSIGNAL: a number or a name, with or without `SIG`.
fn stop_signal(text: &str) -> i32 {
    const NAMES: &[(&str, i32)] = &[
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("KILL", 9),
        ("USR1", 10),
        ("USR2", 12),
        ("ALRM", 14),
        ("TERM", 15),
        ("CONT", 18),
        ("WINCH", 28),
        ("PWR", 30),
    ];
    /// `SIGRTMIN` of glibc and of the signals that systemd documents.
    const RTMIN: i32 = 34;
    if let Ok(number) = text.parse() {
        return number;
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        return RTMIN + offset.trim_start_matches('+').parse::<i32>().unwrap_or(0);
    }
    NAMES.iter().find(|(known, _)| *known == name).map_or(SIGTERM, |(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_are_read() {
        for (text, number) in
            [("", 15), ("SIGQUIT", 3), ("quit", 3), ("9", 9), ("SIGRTMIN+3", 37), ("RTMIN", 34), ("NONSENSE", 15)]
        {
            assert_eq!(stop_signal(text), number, "{text}");
        }
    }

    #[test]
    fn early_probes_do_not_use_up_attempts() {
        let check = Check {
            command: None,
            interval: Duration::from_secs(2),
            timeout: TIMEOUT_DEFAULT,
            start_period: Duration::from_secs(1),
            attempts: 10,
        };
        assert_eq!(check.patience(), Duration::from_secs(21));
        for (seconds, attempt) in [(0.1, 1), (0.9, 1), (2.9, 1), (3.1, 2), (19.5, 10), (21.0, 10), (99.0, 10)] {
            assert_eq!(check.attempt_at(Duration::from_secs_f64(seconds)), attempt, "{seconds}");
        }
    }
}
