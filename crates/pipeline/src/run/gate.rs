//! One gate: its verdict, known already or found out in one attempt or several.

mod attempt;
mod spec;

use std::{path::Path, time::Duration};

use engine::{Cancel, ContainerSpec, Root};
use events::{Event, GateImage, Verdict};

use super::{
    Run,
    secrets::Secrets,
    services::Sets,
    verdicts,
    words::{self, Stage},
};
use crate::{FormerAttempt, GateFailure, GateOutcome, GatePlan, Plan, RunContext, RunError, Values};

pub(super) use attempt::{Ending, reason, run_to_end, warn};
pub(super) use spec::{REPORTS_TARGET, SHELL, args, container_name, environment, nonce, seatrial_environment, workdir};

/// Failing tests and findings that an event tells; all are counted, and the outcome has more.
const PROBLEMS_TOLD_MAX: usize = 20;

/// What the gates of a run have in common.
pub(super) struct Trial<'a> {
    pub(super) run: Run<'a>,
    pub(super) cx: RunContext<'a>,
    pub(super) plan: &'a Plan,
    /// The built image; gates of several images have none of their own.
    pub(super) built: Option<&'a Root>,
    /// The same with its setup.
    pub(super) root: Option<&'a Root>,
    pub(super) values: &'a Values,
    pub(super) secrets: &'a Secrets,
    pub(super) services: &'a Sets<'a>,
    /// Set once the first gate runs.
    pub(super) begun: &'a Cancel,
}

impl Trial<'_> {
    fn keep_failed(&self) -> Duration {
        self.run.options.keep_failed.unwrap_or(self.plan.keep.failed)
    }

    /// Whether what passed in an earlier run is good enough.
    fn trusts_verdicts(&self) -> bool {
        !self.run.options.rerun && !self.run.options.no_cache
    }
}

/// A gate that did not run.
pub(super) fn skipped(cx: RunContext<'_>, gate: &GatePlan, reason: &str) -> GateOutcome {
    let stage = Stage::start(cx.events, &gate.name);
    let outcome = GateOutcome { skipped: Some(reason.to_owned()), ..outcome(gate, Verdict::Skipped) };
    finish(cx, stage, outcome, reason.to_owned())
}

/// Runs a gate, again where it may be tried again, unless its verdict is known.
pub(super) async fn run(trial: &Trial<'_>, gate: &GatePlan) -> Result<GateOutcome, RunError> {
    let stage = Stage::start(trial.cx.events, &gate.name);
    match verdict(trial, gate).await {
        Ok((outcome, summary)) => Ok(finish(trial.cx, stage, outcome, summary)),
        Err(error) => {
            let is_open = matches!(error, RunError::Cancelled | RunError::NotUp(_));
            let verdict = if is_open { Verdict::Skipped } else { Verdict::Failed };
            stage.finish(verdict, error.to_string());
            Err(error)
        }
    }
}

async fn verdict(trial: &Trial<'_>, gate: &GatePlan) -> Result<(GateOutcome, String), RunError> {
    let cx = trial.cx;
    let found = match &gate.image {
        Some(image) => Some((image, trial.run.images.find(&gate.name, image).await?)),
        None => None,
    };
    let root = found.as_ref().map(|(_, found)| &found.root).or(trial.root);
    let root = root.expect("the plan gives each gate of several images an image");
    let image =
        found.as_ref().map(|(image, found)| GateImage { reference: image.reference.familiar(), id: found.id.clone() });
    let spec = spec::spec(trial, gate, root);
    let services = trial.services.identities(gate).await?;
    let inputs = verdicts::Inputs { gate, built: trial.built.unwrap_or(root), spec: &spec, further: &services };
    let verdicts::Looked { key, configuration } = verdicts::look(cx, &inputs).await?;
    if let Some(known) =
        key.as_ref().filter(|_| trial.trusts_verdicts()).and_then(|key| verdicts::recall(cx.store, key))
    {
        let outcome = GateOutcome { image, configuration, ..recalled(cx, gate, known) };
        let summary = summary(gate, &outcome);
        return Ok((outcome, summary));
    }

    let (mut former, attempts) = (Vec::new(), gate.retries + 1);
    loop {
        let is_last = former.len() + 1 >= attempts as usize;
        let keep_failed = if is_last { trial.keep_failed() } else { Duration::ZERO };
        let attempt = async |spec: &ContainerSpec| attempt::attempt(trial, gate, spec, keep_failed).await;
        let mut outcome = trial.services.during(&gate.name, &gate.uses, &spec, attempt).await?;
        match &outcome.failure {
            Some(failure) if !is_last => former.push(set_aside(cx, gate, failure, &outcome, former.len() + 1)),
            _ => {
                outcome.busy += former.iter().map(|attempt| attempt.duration).sum();
                (outcome.former, outcome.image, outcome.configuration) = (former, image, configuration);
                if let Some(key) = key.filter(|_| outcome.verdict == Verdict::Passed && !outcome.is_flaky()) {
                    verdicts::remember(cx, &key, trial.built.unwrap_or(root), &outcome);
                }
                let summary = summary(gate, &outcome);
                return Ok((outcome, summary));
            }
        }
    }
}

/// A verdict of an earlier run, with the reports that it left.
fn recalled(cx: RunContext<'_>, gate: &GatePlan, known: verdicts::Known) -> GateOutcome {
    let reports = cx.store.run(known.run.0).map(|run| attempt::reports_dir(&run, &gate.name));
    GateOutcome {
        known_from: Some(known.run),
        tests: known.tests,
        coverage: known.coverage,
        findings: known.findings,
        problems: known.problems,
        reports: reports.filter(|reports| reports.is_dir()),
        ..outcome(gate, Verdict::Passed)
    }
}

/// Keeps log and reports of a failed attempt under names of their own: `unit@1`.
fn set_aside(
    cx: RunContext<'_>,
    gate: &GatePlan,
    failure: &GateFailure,
    outcome: &GateOutcome,
    number: usize,
) -> FormerAttempt {
    let attempt = u32::try_from(number).unwrap_or(u32::MAX);
    cx.events.emit(Event::GateRetried {
        gate: gate.name.clone(),
        attempt,
        attempts: gate.retries + 1,
        reason: failure.reason.clone(),
        duration_ms: words::millis(failure.duration),
    });
    let aside = |path: &Path| {
        let name = format!("{}@{attempt}", path.file_name().unwrap_or_default().to_string_lossy());
        let aside = path.with_file_name(name);
        // What cannot be renamed is written over by the next attempt; the run goes on.
        fs_err::rename(path, &aside).ok().map(|()| aside)
    };
    FormerAttempt {
        reason: failure.reason.clone(),
        duration: failure.duration,
        log: aside(&failure.log),
        reports: outcome.reports.as_deref().and_then(aside),
    }
}

pub(super) fn outcome(gate: &GatePlan, verdict: Verdict) -> GateOutcome {
    GateOutcome {
        gate: gate.name.clone(),
        verdict,
        allow_failure: gate.allow_failure,
        configuration: Vec::new(),
        known_from: None,
        former: Vec::new(),
        image: None,
        tests: None,
        coverage: None,
        findings: None,
        problems: Vec::new(),
        reports: None,
        duration: Duration::ZERO,
        busy: Duration::ZERO,
        failure: None,
        skipped: None,
    }
}

fn finish(cx: RunContext<'_>, stage: Stage<'_>, mut outcome: GateOutcome, summary: String) -> GateOutcome {
    outcome.duration = stage.elapsed();
    cx.events.emit(Event::GateFinished {
        gate: outcome.gate.clone(),
        verdict: outcome.verdict,
        cached: outcome.known_from.is_some(),
        allow_failure: outcome.allow_failure,
        run: outcome.known_from,
        attempts: outcome.attempts(),
        image: outcome.image.clone(),
        tests: outcome.tests,
        coverage: outcome.coverage,
        findings: outcome.findings,
        problems: outcome.problems.iter().take(PROBLEMS_TOLD_MAX).cloned().collect(),
        duration_ms: words::millis(outcome.duration),
    });
    let summary = match (outcome.verdict, outcome.allow_failure) {
        (Verdict::Failed, true) => format!("{summary} (allowed to fail)"),
        _ => summary,
    };
    stage.finish(outcome.verdict, summary);
    outcome
}

/// One line: how it failed, or what it counted.
fn summary(gate: &GatePlan, outcome: &GateOutcome) -> String {
    if let Some(failure) = &outcome.failure {
        return match outcome.attempts() {
            1 => failure.reason.clone(),
            attempts => format!("{} ({attempts} attempts)", failure.reason),
        };
    }
    let mut parts = Vec::new();
    if let Some(run) = outcome.known_from {
        parts.push(format!("passed in run {run}, unchanged"));
    }
    if outcome.is_flaky() {
        parts.push(format!("flaky: passed at attempt {} of {}", outcome.attempts(), gate.retries + 1));
    }
    parts.extend(outcome.counts());
    if parts.is_empty() {
        parts.push(words::count(gate.commands.len().max(1) as u64, "command"));
    }
    parts.join(", ")
}
