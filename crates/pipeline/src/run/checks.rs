//! Setup, gates and health of a built image: what is wanted, in which order, and what came out.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use engine::{BuildError, Built, Cancel, FailedStep, NetworkMode, Root, Scope, SetupCommand, SetupRequest};
use events::Verdict;
use futures::future::join_all;
use services::ServiceOutcome;
use tokio::sync::{Semaphore, watch};

use super::{
    gate, health,
    images::Images,
    secrets::Secrets,
    services::{Sets, Surroundings},
    words::{self, Stage},
};
use crate::{GateOutcome, GatePlan, HealthOutcome, Plan, RunContext, RunError, RunOptions, Stages, Values};

/// The stage's id.
pub(super) const SETUP_STAGE: &str = "setup";
/// Gates mostly wait for their own processes; with one processor two still overlap well.
const JOBS_MIN: usize = 2;

/// What is wanted of a run.
pub(super) struct Selection<'p> {
    /// Gates, with those that they need, in the order of the file.
    pub(super) gates: Vec<&'p GatePlan>,
    /// Whether the health check is wanted.
    pub(super) health: bool,
    /// Whether the image becomes a sealed one with names.
    pub(super) seals: bool,
    /// Whether an earlier run must have passed with this image.
    pub(super) needs_verdict: bool,
}

impl<'p> Selection<'p> {
    pub(super) fn of(plan: &'p Plan, options: &RunOptions) -> Result<Self, RunError> {
        let all = || plan.test.gates.iter().collect();
        let nothing = Self { gates: Vec::new(), health: false, seals: false, needs_verdict: false };
        Ok(match &options.stages {
            Stages::All => Self { gates: all(), health: true, seals: true, ..nothing },
            Stages::Build => Self { seals: true, ..nothing },
            Stages::Publish => Self { seals: true, needs_verdict: true, ..nothing },
            Stages::Gates(names) if names.is_empty() => Self { gates: all(), ..nothing },
            Stages::Gates(names) => Self { gates: with_needs(plan, names)?, ..nothing },
            Stages::Health => Self { health: true, ..nothing },
        })
    }

    pub(super) fn has_setup(&self, plan: &Plan) -> bool {
        self.gates.iter().any(|gate| gate.image.is_none()) && !plan.test.setup.is_empty()
    }

    /// The file of a change request may ask for the host's network; only the machine's owner can give it.
    pub(super) fn check_rights(&self, options: &RunOptions) -> Result<(), RunError> {
        let asks = |gate: &&&GatePlan| gate.bounds.network.as_deref() == Some("host");
        match self.gates.iter().find(asks).filter(|_| !options.allow_host_network) {
            None => Ok(()),
            Some(gate) => Err(RunError::Usage {
                message: format!("gate `{}` asks for the host's network, which this machine does not allow", gate.name),
                hint: Some(
                    "allow it to all pipelines that run here: write `network.host` into /etc/seatrial/allow or \
                     ~/.config/seatrial/allow"
                        .into(),
                ),
            }),
        }
    }
}

fn with_needs<'p>(plan: &'p Plan, names: &[String]) -> Result<Vec<&'p GatePlan>, RunError> {
    let is_meant = |gate: &GatePlan, name: &str| gate.name == name || gate.group.as_deref() == Some(name);
    let known =
        || plan.test.gates.iter().flat_map(|gate| gate.group.as_deref().into_iter().chain([gate.name.as_str()]));
    let mut wanted = BTreeSet::new();
    let mut open: Vec<&str> = names.iter().map(String::as_str).collect();
    while let Some(name) = open.pop() {
        let found: Vec<&GatePlan> = plan.test.gates.iter().filter(|gate| is_meant(gate, name)).collect();
        if found.is_empty() {
            return Err(unknown_gate(name, &known().collect::<Vec<_>>()));
        }
        for gate in found {
            if wanted.insert(gate.name.as_str()) {
                open.extend(gate.needs.iter().map(String::as_str));
            }
        }
    }
    Ok(plan.test.gates.iter().filter(|gate| wanted.contains(gate.name.as_str())).collect())
}

fn unknown_gate(name: &str, known: &[&str]) -> RunError {
    RunError::Usage {
        message: format!("there is no gate `{name}`"),
        hint: Some(match dockerfile::nearest(name, known.iter().copied()) {
            Some(near) if near.contains(' ') => format!("did you mean `seatrial test '{near}'`?"),
            Some(near) => format!("did you mean `seatrial test {near}`?"),
            None if known.is_empty() => "add gates under `test.gates` in `seatrial.yaml`".into(),
            None => format!("there are {}", known.join(", ")),
        }),
    }
}

/// What the checks found out.
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
}

/// Setup and gates beside the health check. `abandon` is set as soon as the verdict can only be no.
pub(super) async fn check(
    cx: RunContext<'_>,
    plan: &Plan,
    options: &RunOptions,
    work: &Selection<'_>,
    scope: &dyn Scope,
    subject: Subject<'_>,
    abandon: &Cancel,
) -> Result<Checked, RunError> {
    let gates_ended = Cancel::new();
    let gates = async {
        let result = setup_and_gates(cx, plan, options, work, scope, subject).await;
        gates_ended.cancel();
        if !matches!(&result, Ok((_, None, gates, _)) if !gates.iter().any(GateOutcome::blocks)) {
            abandon.cancel();
        }
        result
    };
    let health = async {
        if !work.health {
            return Ok(None);
        }
        let surroundings = Surroundings::new(cx, plan, options, scope, &subject.built.root);
        let result = health::probe(cx, plan, scope, &subject.built.root, &surroundings, &gates_ended).await;
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
    cx: RunContext<'_>,
    plan: &Plan,
    options: &RunOptions,
    work: &Selection<'_>,
    scope: &dyn Scope,
    subject: Subject<'_>,
) -> Result<(Option<Duration>, Option<FailedStep>, Vec<GateOutcome>, Vec<ServiceOutcome>), RunError> {
    let start = Instant::now();
    let mut duration = None;
    let root = if work.has_setup(plan) {
        let made = setup(cx, plan, options, scope, &subject.built.root, subject.secrets).await?;
        duration = Some(start.elapsed());
        match made {
            Ok(root) => root,
            Err(failed) => {
                let skipped = work.gates.iter().map(|gate| gate::skipped(cx, gate, "setup failed")).collect();
                return Ok((duration, Some(failed), skipped, Vec::new()));
            }
        }
    } else {
        subject.built.root.clone()
    };
    let (gates, services) = run_gates(cx, plan, options, work, scope, &root, subject).await?;
    Ok((duration, None, gates, services))
}

/// The root with the setup's layer, or the command that failed.
async fn setup(
    cx: RunContext<'_>,
    plan: &Plan,
    options: &RunOptions,
    scope: &dyn Scope,
    root: &Root,
    secrets: &Secrets,
) -> Result<Result<Root, FailedStep>, RunError> {
    let stage = Stage::start(cx.events, SETUP_STAGE);
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
        stage: SETUP_STAGE.into(),
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

/// All gates, side by side as far as `needs` and the number of jobs allow. One that fails does not stop the others.
async fn run_gates(
    cx: RunContext<'_>,
    plan: &Plan,
    options: &RunOptions,
    work: &Selection<'_>,
    scope: &dyn Scope,
    root: &Root,
    subject: Subject<'_>,
) -> Result<(Vec<GateOutcome>, Vec<ServiceOutcome>), RunError> {
    let jobs = match options.jobs {
        0 => std::thread::available_parallelism().map_or(JOBS_MIN, |number| number.get().max(JOBS_MIN)),
        jobs => jobs,
    };
    let permits = Semaphore::new(jobs);
    let Subject { built, secrets, values } = subject;
    let images = Images::new(cx, options.pull);
    let (built, images) = (&built.root, &images);
    let surroundings = Surroundings::new(cx, plan, options, scope, built);
    let services = &Sets::new(&surroundings);
    let trial = gate::Trial { cx, plan, options, scope, built, root, values, secrets, images, services };
    // Whether a gate lets those that need it begin; `None` until it has ended.
    let ended: Vec<watch::Sender<Option<bool>>> = work.gates.iter().map(|_| watch::channel(None).0).collect();
    let one = |index: usize| {
        let (gate, ended, permits, trial) = (work.gates[index], &ended, &permits, &trial);
        async move {
            let outcome = match unmet_need(work, gate, ended).await {
                Some(need) => Ok(gate::skipped(cx, gate, &format!("needs {need}, which did not pass"))),
                None => {
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
