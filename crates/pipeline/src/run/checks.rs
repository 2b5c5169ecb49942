//! Setup, gates and health of a built image: in which order, and what came out.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use engine::{BuildError, Built, Cancel, FailedStep, NetworkMode, Root, SetupCommand, SetupRequest};
use events::Verdict;
use futures::future::join_all;
use services::ServiceOutcome;
use tokio::sync::watch;

use super::{
    Run, gate, health,
    secrets::Secrets,
    selection::{Part, Selection, images_of},
    services::{Sets, Surroundings},
    words::{self, Stage},
};
use crate::{GateOutcome, GatePlan, HealthOutcome, Plan, RunError, RunOptions, Values};

/// The stage's id.
pub(super) const SETUP_STAGE: &str = "setup";
/// Gates mostly wait for their own processes; with one processor two still overlap well.
const JOBS_MIN: usize = 2;

/// What the checks found out.
#[derive(Default)]
pub(super) struct Checked {
    /// Time of the setup, if there is one.
    pub(super) setup: Option<Duration>,
    pub(super) setup_failure: Option<FailedStep>,
    pub(super) gates: Vec<GateOutcome>,
    pub(super) health: Option<HealthOutcome>,
    pub(super) services: Vec<ServiceOutcome>,
}

impl Checked {
    pub(super) fn verdict(&self) -> Verdict {
        let gates = self.gates.iter().any(GateOutcome::blocks);
        let health = self.health.as_ref().is_some_and(|health| health.verdict == Verdict::Failed);
        if gates || health || self.setup_failure.is_some() { Verdict::Failed } else { Verdict::Passed }
    }
}

/// What is checked, and the secrets that checks may see.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) built: &'a Built,
    pub(super) secrets: &'a Secrets,
    /// With the version of the built image.
    pub(super) values: &'a Values,
    /// Is set once the first gate runs, or when none will: what can wait until then does.
    pub(super) begun: &'a Cancel,
}

/// Gates that may run at the same time.
pub(super) fn jobs(options: &RunOptions) -> usize {
    match options.jobs {
        0 => std::thread::available_parallelism().map_or(JOBS_MIN, |number| number.get().max(JOBS_MIN)),
        jobs => jobs,
    }
}

/// Setup and gates beside the health check. `abandon` is set as soon as the verdict can only be no.
pub(super) async fn check(
    run: Run<'_>,
    part: &Part<'_>,
    subject: Subject<'_>,
    abandon: &Cancel,
) -> Result<Checked, RunError> {
    let gates_ended = Cancel::new();
    let gates = async {
        let result = setup_and_gates(run, part, subject).await;
        gates_ended.cancel();
        subject.begun.cancel();
        if !matches!(&result, Ok((_, None, gates, _)) if !gates.iter().any(GateOutcome::blocks)) {
            abandon.cancel();
        }
        result
    };
    let health = async {
        if !part.work.health {
            return Ok(None);
        }
        let uses = part.plan.health.uses.images(&part.plan.services.project);
        let used = used_images(run, part, Some(&subject.built.root), uses).await;
        let surroundings = Surroundings::new(run, part.plan, &used);
        let root = &subject.built.root;
        let result = health::probe(run.cx, part.plan, run.scope, root, &surroundings, &gates_ended).await;
        if !matches!(&result, Ok(health) if health.verdict != Verdict::Failed) {
            abandon.cancel();
        }
        result.map(Some)
    };
    let (gates, health) = tokio::join!(gates, health);
    let (setup, setup_failure, gates, services) = gates?;
    Ok(Checked { setup, setup_failure, gates, health: health?, services })
}

async fn setup_and_gates(
    run: Run<'_>,
    part: &Part<'_>,
    subject: Subject<'_>,
) -> Result<(Option<Duration>, Option<FailedStep>, Vec<GateOutcome>, Vec<ServiceOutcome>), RunError> {
    let start = Instant::now();
    let mut duration = None;
    let root = if part.work.has_setup(part.plan) {
        let made = setup(run, part.plan, &subject.built.root, subject.secrets).await?;
        duration = Some(start.elapsed());
        match made {
            Ok(root) => root,
            Err(failed) => {
                let gates = part.work.gates.iter();
                let skipped = gates.map(|gate| gate::skipped(run.cx, gate, "setup failed")).collect();
                return Ok((duration, Some(failed), skipped, Vec::new()));
            }
        }
    } else {
        subject.built.root.clone()
    };
    let own = Own { built: subject.built, values: subject.values, root: &root };
    let (gates, services) = run_gates(run, part, Some(own), subject.secrets, subject.begun).await?;
    Ok((duration, None, gates, services))
}

/// The root with the setup's layer, or the command that failed.
async fn setup(
    run: Run<'_>,
    plan: &Plan,
    root: &Root,
    secrets: &Secrets,
) -> Result<Result<Root, FailedStep>, RunError> {
    let Run { cx, options, scope, .. } = run;
    let stage = Stage::start(cx.events, &plan.stage(SETUP_STAGE));
    let workdir = gate::workdir(plan.test.setup_workdir.as_deref(), root);
    // Nothing of the commit is in this environment: it would make a new layer for each one.
    let env = gate::environment(root, &plan.test.setup_environment, &[("CI".into(), "true".into())]);
    let command = |command: &crate::CommandPlan| SetupCommand {
        text: command.run.clone(),
        place: command.place.clone(),
        args: gate::SHELL.iter().map(|word| (*word).to_owned()).chain([command.run.clone()]).collect(),
        env: env.clone(),
        cwd: workdir.clone(),
        user: command.user.clone().unwrap_or_else(|| root.config.config.user.clone()),
        files: secrets.files(&command.secrets),
    };
    let request = SetupRequest {
        stage: plan.stage(SETUP_STAGE),
        root: root.clone(),
        commands: plan.test.setup.iter().map(command).collect(),
        mounts: plan.test.setup_mounts.iter().map(|mount| mount.bind(&workdir)).collect(),
        network: NetworkMode::Default,
        masks: secrets.masks.clone(),
        no_cache: options.no_cache,
        keep_failed: options.keep_failed.unwrap_or(plan.keep.failed),
        cancel: cx.cancel.clone(),
    };
    match scope.setup(request, cx.events).await {
        Ok(root) => {
            stage.finish(Verdict::Passed, words::count(plan.test.setup.len() as u64, "command"));
            Ok(Ok(root))
        }
        Err(BuildError::Step(failed)) => {
            stage.finish(Verdict::Failed, format!("exited {}", failed.exit.code));
            Ok(Err(*failed))
        }
        Err(BuildError::Cancelled) => {
            stage.finish(Verdict::Skipped, "cancelled");
            Err(RunError::Cancelled)
        }
        Err(BuildError::Engine(error)) => {
            stage.finish(Verdict::Failed, error.to_string());
            Err(RunError::Engine(error))
        }
        Err(error) => {
            stage.finish(Verdict::Failed, error.to_string());
            Err(RunError::Build(error))
        }
    }
}

/// The image that gates run in which name no other one.
#[derive(Clone, Copy)]
pub(super) struct Own<'a> {
    built: &'a Built,
    values: &'a Values,
    /// The same with its setup.
    root: &'a Root,
}

/// All gates, side by side as far as `needs` and the number of jobs allow. One that fails does not stop the others. They
/// begin when the images of the run that they use are built.
pub(super) async fn run_gates(
    run: Run<'_>,
    part: &Part<'_>,
    own: Option<Own<'_>>,
    secrets: &Secrets,
    begun: &Cancel,
) -> Result<(Vec<GateOutcome>, Vec<ServiceOutcome>), RunError> {
    let (Run { cx, permits, .. }, Part { plan, work }) = (run, part);
    let values = own.map_or(&plan.values, |own| own.values);
    let names = work.gates.iter().flat_map(|gate| images_of(plan, gate)).collect();
    let used = used_images(run, part, own.map(|own| &own.built.root), names).await;
    let surroundings = Surroundings::new(run, plan, &used);
    let services = &Sets::new(&surroundings);
    let (built, root) = (own.map(|own| &own.built.root), own.map(|own| own.root));
    let trial = gate::Trial { run, cx, plan, built, root, values, secrets, services, begun };
    // Whether a gate lets those that need it begin; `None` until it has ended.
    let ended: Vec<watch::Sender<Option<bool>>> = work.gates.iter().map(|_| watch::channel(None).0).collect();
    let one = |index: usize| {
        let (gate, ended, trial, used) = (work.gates[index], &ended, &trial, &used);
        async move {
            let missing = images_of(plan, gate).into_iter().find(|image| !used.contains_key(image));
            let outcome = match (missing, unmet_need(work, gate, ended).await) {
                (Some(image), _) => Ok(gate::skipped(cx, gate, &format!("needs {image}, which was not built"))),
                (None, Some(need)) => Ok(gate::skipped(cx, gate, &format!("needs {need}, which did not pass"))),
                (None, None) => {
                    let _permit = permits.acquire().await.expect("the semaphore is never closed");
                    gate::run(trial, gate).await
                }
            };
            // After an error nobody's result counts; whoever waits has to go on nevertheless.
            let lets_pass = outcome.as_ref().is_ok_and(|outcome| !outcome.blocks());
            ended[index].send_replace(Some(lets_pass));
            outcome
        }
    };
    let outcomes = join_all((0..work.gates.len()).map(one)).await;
    // A service that is not up is why gates were not tried: that leads.
    let ready = services.finish().await?;
    Ok((outcomes.into_iter().collect::<Result<_, _>>()?, ready))
}

/// Images of the run that gates use, once they are built; those that will not be are left out.
async fn used_images(
    run: Run<'_>,
    part: &Part<'_>,
    own: Option<&Root>,
    names: BTreeSet<String>,
) -> BTreeMap<String, Root> {
    let mut used: BTreeMap<String, Root> = own.iter().map(|root| (part.plan.name.clone(), (*root).clone())).collect();
    for name in names {
        if used.contains_key(&name) || !run.siblings.has(&name) {
            continue;
        }
        if let Ok(root) = run.siblings.built(&name).await {
            used.insert(name, root);
        }
    }
    used
}

/// Waits for the gates that this one needs; the first that did not pass.
async fn unmet_need<'p>(
    work: &Selection<'p>,
    gate: &'p GatePlan,
    ended: &[watch::Sender<Option<bool>>],
) -> Option<&'p str> {
    for need in &gate.needs {
        let Some(index) = work.gates.iter().position(|other| other.name == *need) else { continue };
        let passed = ended[index].subscribe().wait_for(Option::is_some).await.is_ok_and(|value| *value == Some(true));
        if !passed {
            return Some(need);
        }
    }
    None
}

/// What a gate that gets SIGTERM has to tidy up before SIGKILL.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(10);
