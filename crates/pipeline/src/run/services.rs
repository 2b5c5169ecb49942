//! Services of a run: one set that gates share, and sets of those gates that want their own.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use compose::{Link, Replicated};
use engine::{ContainerSpec, Masks, NetworkMode, OutputSink, Root, Scope, Secret};
use services::{LogEnd, Logs, ServiceContext, ServiceError, ServiceLog, ServiceOutcome, Services};

use super::{
    Run,
    log::{StageLog, StepText, Tail},
};
use crate::{GatePlan, Plan, RunContext, RunError, UsesPlan};

/// What is needed to start services.
pub(super) struct Surroundings<'a> {
    cx: RunContext<'a>,
    plan: &'a Plan,
    /// The services, one for each container.
    services: Replicated,
    scope: &'a dyn Scope,
    logs: RunLogs<'a>,
    /// Images of the run, by name.
    built: &'a BTreeMap<String, Root>,
    pull: bool,
    no_cache: bool,
    devices: &'a services::AllowedDevices,
}

impl<'a> Surroundings<'a> {
    pub(super) fn new(run: Run<'a>, plan: &'a Plan, built: &'a BTreeMap<String, Root>) -> Self {
        let Run { cx, scope, options, .. } = run;
        let services = plan.services.project.replicated();
        let (pull, no_cache, devices) = (options.pull, options.no_cache, &options.allowed_devices);
        Self { cx, plan, services, scope, logs: RunLogs { cx }, built, pull, no_cache, devices }
    }

    /// What is used, as containers.
    fn containers(&self, uses: &UsesPlan) -> UsesPlan {
        let lead = |link: &Link| Link { service: self.services.first(&link.service), ..link.clone() };
        UsesPlan {
            names: self.services.names(&uses.names),
            links: uses.links.iter().map(lead).collect(),
            fresh: uses.fresh,
        }
    }

    fn context(&self) -> ServiceContext<'_> {
        ServiceContext {
            engine: self.cx.engine,
            scope: self.scope,
            events: self.cx.events,
            logs: &self.logs,
            project: &self.services.project,
            env: &self.plan.values.env,
            directory: self.plan.source.root.as_deref().unwrap_or(Path::new(&self.plan.services.project.directory)),
            built: self.built,
            pull: self.pull,
            no_cache: self.no_cache,
            cancel: self.cx.cancel,
            purpose: services::Purpose::Run,
            devices: self.devices,
        }
    }
}

/// The services of a run.
pub(super) struct Sets<'a> {
    surroundings: &'a Surroundings<'a>,
    shared: Services<'a>,
    /// Of sets that have ended.
    ended: Mutex<Ended>,
}

#[derive(Default)]
struct Ended {
    outcomes: Vec<ServiceOutcome>,
    failure: Option<ServiceError>,
}

impl<'a> Sets<'a> {
    /// Nothing is started yet.
    pub(super) fn new(surroundings: &'a Surroundings<'a>) -> Self {
        // Each of several images has services of its own: what the gates of one do to a database is nothing to another's.
        let own = surroundings.plan.entry.as_deref();
        Self { surroundings, shared: Services::new(surroundings.context(), own), ended: Mutex::default() }
    }

    /// What of a gate's services decides its verdict. Nothing is started for it.
    pub(super) async fn identities(&self, gate: &GatePlan) -> Result<Vec<String>, RunError> {
        Ok(self.shared.identities(&self.surroundings.services.names(&gate.uses.names)).await?)
    }

    /// Starts what somebody uses, unless it is up, and lets it do its work in a container that reaches them. The work ends
    /// when one of them does.
    pub(super) async fn during<T>(
        &self,
        name: &str,
        uses: &UsesPlan,
        spec: &ContainerSpec,
        work: impl AsyncFnOnce(&ContainerSpec) -> Result<T, RunError>,
    ) -> Result<T, RunError> {
        let uses = self.surroundings.containers(uses);
        if uses.names.is_empty() {
            return work(spec).await;
        }
        if !uses.fresh {
            return with(&self.shared, &uses, spec, work).await;
        }
        let own = Services::new(self.surroundings.context(), Some(name));
        let result = with(&own, &uses, spec, work).await;
        let stopped = self.end(&own).await;
        result.and_then(|value| stopped.map(|()| value))
    }

    /// Stops what is up. Gives those that became ready, or the failure of one.
    pub(super) async fn finish(&self) -> Result<Vec<ServiceOutcome>, RunError> {
        let stopped = self.end(&self.shared).await;
        let ended = std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner));
        match ended.failure {
            Some(ServiceError::Cancelled) => Err(RunError::Cancelled),
            Some(ServiceError::Engine(error)) => Err(RunError::Engine(error)),
            Some(failure) => Err(RunError::Service(failure)),
            None => stopped.map(|()| ended.outcomes),
        }
    }

    async fn end(&self, set: &Services<'_>) -> Result<(), RunError> {
        let stopped = set.stop().await;
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.outcomes.extend(set.outcomes());
        ended.failure = ended.failure.take().or_else(|| set.take_failure());
        stopped.map_err(RunError::Service)
    }
}

async fn with<T>(
    set: &Services<'_>,
    uses: &UsesPlan,
    spec: &ContainerSpec,
    work: impl AsyncFnOnce(&ContainerSpec) -> Result<T, RunError>,
) -> Result<T, RunError> {
    set.up(&uses.names).await?;
    let spec = linked(set, uses, spec);
    tokio::select! {
        biased;
        result = work(&spec) => result,
        () = set.failed() => Err(RunError::NotUp(services::NotUp)),
    }
}

/// The gate's container in the networks of its services, told of those that it is linked to.
fn linked(set: &Services<'_>, uses: &UsesPlan, spec: &ContainerSpec) -> ContainerSpec {
    let mut spec = spec.clone();
    if spec.network == NetworkMode::Default {
        spec.attachment.networks.extend(set.attachment(&uses.names).networks);
    }
    let pair = |link: &Link| (link.service.clone(), link.alias.clone());
    let links: Vec<(String, String)> = uses.links.iter().map(pair).collect();
    for services::Told { env, host } in set.links(&spec.name, &links) {
        for (name, value) in env {
            // What the user says wins over what a link tells.
            if !spec.env.iter().any(|(present, _)| *present == name) {
                spec.env.push((name, value));
            }
        }
        spec.attachment.extra_hosts.push(host);
    }
    spec
}

/// Logs of services lie beside those of gates: `seatrial logs RUN db`.
struct RunLogs<'a> {
    cx: RunContext<'a>,
}

impl Logs for RunLogs<'_> {
    fn open(&self, service: &str, command: &str, secrets: &[Secret]) -> Result<Arc<dyn ServiceLog>, String> {
        let masks = Masks::new(secrets).map(Arc::new);
        let step = StepText { text: command.to_owned(), place: None };
        let log = StageLog::open(self.cx, service, vec![step], None, masks);
        log.map(|log| Arc::new(log) as Arc<dyn ServiceLog>).map_err(|error| error.to_string())
    }
}

impl ServiceLog for StageLog {
    fn sink(&self) -> OutputSink {
        StageLog::sink(self)
    }

    fn note(&self, line: &str) {
        StageLog::note(self, line);
    }

    fn finish(&self, exit_code: i32) -> LogEnd {
        let Tail { lines, earlier, path } = StageLog::finish(self, exit_code);
        LogEnd { tail: lines, earlier_lines: earlier, path }
    }
}
