//! The health check: the container as in production, and its HEALTHCHECK decides.

mod place;
mod prove;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use engine::{
    Attachment, Cancel, Container, ContainerSpec, EngineError, ExecSpec, Exit, Limits, NetworkMode, Root, Scope, Stdio,
};
use events::{Event, Place, Verdict};

use oci::signal::{self, SIGTERM};
use prove::Proof;
use services::health::{Attempt, Check, Healthy, SETTLE, Seen, Watch, is_healthy};

use super::{
    gate,
    log::{StageLog, StepText, Tail},
    record::{self, StageRecord},
    services::{Sets, Surroundings},
    words::{self, Stage},
};
use crate::{BoundsPlan, GateFailure, HealthOutcome, HealthPlan, Plan, RunContext, RunError};

/// The stage's id.
pub(super) const STAGE: &str = "health";
/// The verdict is known by then and the container is thrown away: waiting for a slow end would only cost time.
const STOP_GRACE: Duration = Duration::from_millis(100);
/// What docker gives a container between its stop signal and SIGKILL.
const STOP_GRACE_DEFAULT: Duration = Duration::from_secs(10);

/// Starts the image beside its services and awaits its health; a healthy one is watched until `gates_ended`. The containers
/// have ended when this returns.
pub(super) async fn probe(
    cx: RunContext<'_>,
    plan: &Plan,
    scope: &dyn Scope,
    root: &Root,
    surroundings: &Surroundings<'_>,
    gates_ended: &Cancel,
) -> Result<HealthOutcome, RunError> {
    if !plan.health.enabled {
        return Ok(skipped("switched off"));
    }
    let config = &root.config.config;
    let args: Vec<String> = config.entrypoint.iter().chain(&config.cmd).flatten().cloned().collect();
    if args.is_empty() {
        let outcome = skipped("the image has no command to start");
        Stage::start(cx.events, &plan.stage(STAGE)).finish(Verdict::Skipped, outcome.summary.clone());
        return Ok(outcome);
    }
    let trial = Trial {
        cx,
        name: plan.stage(STAGE),
        health: &plan.health,
        check: Check::of(root, &given(&plan.health)),
        root,
        place: match plan.health.command {
            Some(_) => plan.health.place.clone(),
            None => place::of_healthcheck(&plan.build).or_else(|| plan.health.place.clone()),
        },
        text: args.join(" "),
    };
    let spec = trial.spec(gate::container_name(&format!("{}-health", plan.name)), args);
    let sets = Sets::new(surroundings);
    let outcome = sets
        .during(&trial.name, &plan.health.uses, &spec, async |spec| trial.tell(scope, spec.clone(), gates_ended).await);
    let outcome = outcome.await;
    // A service that is not up is why nothing was tried: that leads.
    sets.finish().await?;
    outcome
}

/// What the file says instead of the image.
fn given(plan: &HealthPlan) -> compose::Healthcheck {
    compose::Healthcheck {
        test: plan.command.clone(),
        interval: plan.interval,
        timeout: plan.timeout,
        retries: plan.attempts,
        start_period: plan.start_period,
        ..compose::Healthcheck::default()
    }
}

fn skipped(summary: &str) -> HealthOutcome {
    HealthOutcome {
        verdict: Verdict::Skipped,
        summary: summary.into(),
        attempts: 0,
        flaps: 0,
        duration: Duration::ZERO,
        failure: None,
    }
}

/// What is tried.
struct Trial<'a> {
    cx: RunContext<'a>,
    /// Of the stage.
    name: String,
    health: &'a HealthPlan,
    check: Check,
    root: &'a Root,
    /// What says how health is checked.
    place: Option<Place>,
    /// The container's command, to show.
    text: String,
}

/// What came of it.
enum Found {
    Seen(Seen),
    /// It was healthy, and the proof that was asked for holds or not.
    Proven(Healthy, Proof),
}

impl Trial<'_> {
    fn spec(&self, name: String, args: Vec<String>) -> ContainerSpec {
        ContainerSpec {
            name,
            root: self.root.clone(),
            args,
            env: gate::environment(self.root, &self.health.environment, &[]),
            cwd: gate::workdir(None, self.root),
            user: self.root.config.config.user.clone(),
            mounts: Vec::new(),
            // A loopback of its own: ports never clash, and probes run inside.
            network: NetworkMode::Default,
            attachment: Attachment::default(),
            surroundings: engine::Surroundings::default(),
            limits: Limits::default(),
            init: false,
            stdio: Stdio::Inherit,
        }
    }

    /// The stage, from the start of the container on.
    async fn tell(
        &self,
        scope: &dyn Scope,
        spec: ContainerSpec,
        gates_ended: &Cancel,
    ) -> Result<HealthOutcome, RunError> {
        let stage = Stage::start(self.cx.events, &self.name);
        match self.run(scope, spec, &stage, gates_ended).await {
            Ok(outcome) => {
                let event = Event::HealthFinished {
                    verdict: outcome.verdict,
                    attempt: outcome.attempts,
                    duration_ms: words::millis(outcome.duration),
                    flaps: outcome.flaps,
                };
                self.cx.events.emit(event);
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

    async fn run(
        &self,
        scope: &dyn Scope,
        mut spec: ContainerSpec,
        stage: &Stage<'_>,
        gates_ended: &Cancel,
    ) -> Result<HealthOutcome, RunError> {
        let cx = self.cx;
        let log = StageLog::open(cx, &self.name, vec![StepText { text: self.text.clone(), place: None }], None, None)?;
        spec.stdio = Stdio::Sink(log.sink());
        record::write(cx, &StageRecord::of(&self.name, &spec));
        let exec = ExecSpec {
            args: Vec::new(),
            env: spec.env.clone(),
            cwd: spec.cwd.clone(),
            user: spec.user.clone(),
            stdio: Stdio::Inherit,
            timeout: None,
        };
        if cx.cancel.is_cancelled() {
            log.finish(128 + SIGTERM);
            return Err(RunError::Cancelled);
        }
        let found = match scope.start(spec).await {
            Ok(container) => {
                gate::warn(cx, &self.name, &*container);
                let found = self.look(&*container, &exec, gates_ended).await;
                // The first failure leads; a container that is gone already needs no stopping.
                let stopped = container.stop(self.stop_signal(), STOP_GRACE).await;
                match (found, stopped) {
                    (Ok(found), Ok(_)) => Ok(found),
                    (Err(error), _) | (Ok(_), Err(error)) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        match found {
            Err(error) if error.command_code.is_some() => {
                log.note(&error.with_causes());
                let exit = Exit { code: error.command_code.unwrap_or(127), ..Exit::default() };
                self.judge(Found::Seen(Seen::Ended(exit)), &log, stage)
            }
            Err(error) => {
                log.finish(1);
                Err(RunError::Engine(error))
            }
            Ok(found) => self.judge(found, &log, stage),
        }
    }

    async fn look(
        &self,
        container: &dyn Container,
        exec: &ExecSpec,
        gates_ended: &Cancel,
    ) -> Result<Found, EngineError> {
        let was_healthy = AtomicBool::new(false);
        let told = |look: Attempt<'_>| {
            let is_healthy = is_healthy(look.exit);
            // While gates run it is looked at again and again; that it is as before needs no words.
            if was_healthy.swap(is_healthy, Ordering::Relaxed) && is_healthy {
                return;
            }
            let slow = format!("(took longer than {})", crate::duration::human(self.check.timeout));
            let output = match (look.exit.timed_out, look.output) {
                (true, "") => slow,
                (true, output) => format!("{slow} {output}"),
                (false, output) => output.to_owned(),
            };
            let Attempt { attempt, attempts, exit, .. } = look;
            self.cx.events.emit(Event::HealthAttempt { attempt, attempts, exit_code: exit.code, output });
        };
        let watch = Watch { container, check: &self.check, exec, cancel: self.cx.cancel, told: &told };
        if self.check.command.is_none() {
            return Ok(Found::Seen(watch.start().await?));
        }
        let seen = match watch.until_healthy().await? {
            Seen::Healthy(healthy) => watch.while_healthy(healthy, gates_ended).await?,
            seen => seen,
        };
        match seen {
            Seen::Healthy(healthy) if self.health.prove => {
                let grace = self.health.stop_grace_period.unwrap_or(STOP_GRACE_DEFAULT);
                Ok(match prove::prove(watch, self.stop_signal(), grace).await? {
                    Proof::Over(Seen::Ended(exit)) => Found::Seen(Seen::Died(exit, healthy)),
                    Proof::Over(seen) => Found::Seen(seen),
                    proof => Found::Proven(healthy, proof),
                })
            }
            seen => Ok(Found::Seen(seen)),
        }
    }

    fn stop_signal(&self) -> i32 {
        signal::stop_signal(&self.root.config.config.stop_signal)
    }

    fn judge(&self, found: Found, log: &StageLog, stage: &Stage<'_>) -> Result<HealthOutcome, RunError> {
        let check = &self.check;
        let probe = check.command.as_ref().map_or("", |(_, text)| text);
        let passed = |summary: String, healthy: Option<Healthy>| {
            log.finish(0);
            HealthOutcome {
                verdict: Verdict::Passed,
                summary,
                attempts: healthy.map_or(1, |healthy| healthy.attempt),
                flaps: healthy.map_or(0, |healthy| healthy.flaps),
                duration: healthy.map_or_else(|| stage.elapsed(), |healthy| healthy.after),
                failure: None,
            }
        };
        Ok(match found {
            Found::Seen(Seen::Cancelled) => {
                log.finish(128 + SIGTERM);
                return Err(RunError::Cancelled);
            }
            Found::Seen(Seen::Healthy(healthy)) => passed(self.summary(healthy), Some(healthy)),
            Found::Proven(healthy, Proof::Holds { ended_after }) => {
                let (summary, took) = (self.summary(healthy), crate::duration::human(ended_after));
                let signal = signal::name(self.stop_signal());
                passed(format!("{summary}, proven unhealthy when frozen, ended {took} after {signal}"), Some(healthy))
            }
            Found::Proven(_, Proof::Fails { exit, reason, hint, output }) => {
                self.failed(log, stage, exit, reason, probe, &output, Some(hint))
            }
            Found::Proven(_, Proof::Over(seen)) => return self.judge(Found::Seen(seen), log, stage),
            Found::Seen(Seen::Alive | Seen::Ended(Exit { code: 0, .. }))
                if self.health.prove && check.command.is_none() =>
            {
                let reason = "there is no health check to prove".to_owned();
                let hint = "add a HEALTHCHECK to the Dockerfile, or `health.command` to the pipeline file";
                self.failed(log, stage, Exit::default(), reason, &self.text, "", Some(hint))
            }
            Found::Seen(Seen::Alive) => passed(format!("still running after {}", crate::duration::human(SETTLE)), None),
            Found::Seen(Seen::Ended(exit)) if check.command.is_none() && exit.code == 0 => {
                passed("ended with 0".into(), None)
            }
            Found::Seen(Seen::Ended(exit)) => {
                let reason = format!(
                    "the container {} before it was healthy",
                    gate::reason(&exit, None, &BoundsPlan::default())
                );
                let reason = match check.command {
                    Some(_) => reason,
                    None => format!("the container {}", gate::reason(&exit, None, &BoundsPlan::default())),
                };
                self.failed(log, stage, exit, reason, &self.text, "", None)
            }
            Found::Seen(Seen::Died(exit, healthy)) => {
                let after = crate::duration::human(healthy.after);
                let reason = format!(
                    "the container {}, healthy as it was after {after}",
                    gate::reason(&exit, None, &BoundsPlan::default())
                );
                self.failed(log, stage, exit, reason, &self.text, "", None)
            }
            Found::Seen(Seen::Unhealthy { exit, reason, output }) => {
                self.failed(log, stage, exit, reason, probe, &output, None)
            }
        })
    }

    fn summary(&self, healthy: Healthy) -> String {
        let Healthy { attempt, after, flaps } = healthy;
        let after = crate::duration::human(after);
        let flapped = match flaps {
            0 => String::new(),
            flaps => {
                let message = format!(
                    "the container was healthy and then unhealthy again {}: its check or its service is not stable",
                    words::count(u64::from(flaps), "time")
                );
                self.cx.events.emit(Event::Warning { message, place: self.health.place.clone() });
                format!(", flapped {}", words::count(u64::from(flaps), "time"))
            }
        };
        format!("healthy at attempt {attempt} of {} after {after}{flapped}", self.check.attempts)
    }

    #[expect(clippy::too_many_arguments, reason = "each is one thing that the failure tells")]
    fn failed(
        &self,
        log: &StageLog,
        stage: &Stage<'_>,
        exit: Exit,
        reason: String,
        command: &str,
        extra: &str,
        hint: Option<&str>,
    ) -> HealthOutcome {
        let duration = stage.elapsed();
        let Tail { mut lines, earlier, path } = log.finish(exit.code);
        lines.extend(extra.lines().map(str::to_owned));
        let failure = GateFailure {
            gate: self.name.clone(),
            command: command.to_owned(),
            place: self.place.clone(),
            exit,
            reason: reason.clone(),
            tail: lines,
            earlier_lines: earlier,
            duration,
            log: path,
            kept: Some(self.root.id.clone()),
            hint: hint.map(str::to_owned),
        };
        HealthOutcome {
            verdict: Verdict::Failed,
            summary: reason,
            attempts: self.check.attempt_at(duration),
            flaps: 0,
            duration,
            failure: Some(failure),
        }
    }
}
