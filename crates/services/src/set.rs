//! A set of services that several users share: each is started once, when somebody first needs it, and stopped at the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use compose::{Condition, Project, Service};
use engine::{Attachment, Cancel, Engine, JoinedNetwork, Root, Scope};
use events::{Event, EventSink, Verdict};
use futures::future::{BoxFuture, join_all, try_join_all};
use oci::Digest;
use serde_json::json;
use tokio::{
    sync::{OnceCell, watch},
    task::JoinSet,
    time::Instant,
};

use crate::{
    Logs, ServiceError, Unordered, hash,
    image::{self, Image},
    links,
    order::{is_one_shot, levels, needed, required},
    solution::Over,
    spec::{self, Linked, container_name},
    start::Starting,
    up::Up,
};

/// What services are started with.
#[derive(Clone, Copy)]
pub struct ServiceContext<'a> {
    /// Who fetches and builds images.
    pub engine: &'a dyn Engine,
    /// Owner of the containers.
    pub scope: &'a dyn Scope,
    /// Who hears what happens.
    pub events: &'a EventSink,
    /// Who keeps what services say.
    pub logs: &'a dyn Logs,
    /// The services with their networks, volumes, configs and secrets.
    pub project: &'a Project,
    /// The environment of the program, for secrets that come from it.
    pub env: &'a BTreeMap<String, String>,
    /// The repository: host paths of services lie in it.
    pub directory: &'a Path,
    /// Images that the same run builds, by name.
    pub built: &'a BTreeMap<String, Root>,
    /// Ask registries for images even when their names are known.
    pub pull: bool,
    /// Build without the cache.
    pub no_cache: bool,
    /// Stops the work.
    pub cancel: &'a Cancel,
    /// What they are started for.
    pub purpose: Purpose,
    /// Devices of the host that its owner lets services have.
    pub devices: &'a AllowedDevices,
}

/// What services are started for: it decides what they share with the host, and what becomes of them when they end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// A run: nothing of them is reached from outside or stays.
    #[default]
    Run,
    /// Somebody works with them: ports are published on the host, volumes last, restart policies hold.
    Solution,
}

/// Devices of the host that its owner lets services have; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedDevices {
    is_all: bool,
    sources: BTreeSet<String>,
}

impl AllowedDevices {
    /// Reads what this machine permits (BuildKit's names of the entitlement): `device` is all, `device=/dev/fuse` this one;
    /// other lines permit other things.
    pub fn of(lines: &[String]) -> Self {
        Self {
            is_all: lines.iter().any(|line| line == "device"),
            sources: lines.iter().filter_map(|line| line.strip_prefix("device=")).map(str::to_owned).collect(),
        }
    }

    pub(crate) fn allow(&self, source: &str) -> bool {
        self.is_all || self.sources.contains(source)
    }
}

/// A service is not up. Why is told once, by [`Services::take_failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a service is not up")]
pub struct NotUp;

/// A service that became ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceOutcome {
    /// Its name.
    pub service: String,
    /// Its image, as the user names it.
    pub reference: String,
    /// What that was resolved to: docker's image id, or a digest of content and config for one that was built here.
    pub image: Digest,
    /// How it showed: `healthy at attempt 2 of 30`.
    pub how: String,
    /// From its start to ready.
    pub duration: Duration,
    /// It began from a snapshot.
    pub is_warm: bool,
}

/// The services of a run, or of one gate that wants its own.
pub struct Services<'a> {
    cx: ServiceContext<'a>,
    /// Name of the set when it is not the run's shared one; part of networks, volumes and stages.
    own: Option<String>,
    units: BTreeMap<&'a str, Unit>,
    /// In the order of their starts.
    started: Mutex<Vec<Arc<Up>>>,
    outcomes: Mutex<Vec<ServiceOutcome>>,
    failures: Arc<Failures>,
    /// Watch over services that are ready.
    watchers: Mutex<JoinSet<()>>,
    /// What of a solution is there already.
    over: Option<Over<'a>>,
}

/// What a container is told of a linked service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Variables.
    pub env: Vec<(String, String)>,
    /// Line of `/etc/hosts`: name, address.
    pub host: (String, String),
}

/// What is done once for each service.
#[derive(Default)]
struct Unit {
    image: OnceCell<Result<Image, NotUp>>,
    /// One container, or as many as a solution wants.
    up: OnceCell<Result<Vec<Arc<Up>>, NotUp>>,
    ready: OnceCell<Result<(), NotUp>>,
}

/// What went wrong, first things first.
struct Failures {
    list: Mutex<Vec<(String, ServiceError)>>,
    /// Whether one is among them that a user cannot do without.
    is_fatal: watch::Sender<bool>,
}

impl<'a> Services<'a> {
    /// Nothing is started yet. `own` names the set when its containers are to be apart from those of the run's other sets.
    pub fn new(cx: ServiceContext<'a>, own: Option<&str>) -> Self {
        let units = cx.project.services.iter().map(|service| (service.name.as_str(), Unit::default())).collect();
        Self {
            cx,
            own: own.map(str::to_owned),
            units,
            started: Mutex::default(),
            outcomes: Mutex::default(),
            failures: Arc::new(Failures { list: Mutex::default(), is_fatal: watch::channel(false).0 }),
            watchers: Mutex::default(),
            over: None,
        }
    }

    /// Those of a solution of which some are there already.
    pub(crate) fn over(cx: ServiceContext<'a>, over: Over<'a>) -> Self {
        Self { over: Some(over), ..Self::new(cx, None) }
    }

    /// Starts these services with all that they need, side by side as far as `depends_on` allows, and waits until all are
    /// ready. What is up already is not started again.
    ///
    /// # Errors
    /// One that cannot be done without is not up.
    pub async fn up(&self, names: &[String]) -> Result<(), NotUp> {
        let order = self.order(names)?;
        spec::check(&self.cx.project.services, names).map_err(|error| self.refuse(error))?;
        let required = required(&self.cx.project.services, names);
        let each = order.iter().map(|service| async {
            match self.ready(service).await {
                Err(NotUp) if required.contains(service.name.as_str()) => Err(NotUp),
                // Those that may be absent have told their story.
                _ => Ok(()),
            }
        });
        let all = self.all(each).await;
        if all.is_err() {
            self.failures.is_fatal.send_replace(true);
        }
        all
    }

    /// What identifies these services and all that they need: their definitions, their images and the content of what is
    /// mounted. Equal texts mean equal services. Images are fetched or built for it, nothing is started.
    ///
    /// # Errors
    /// An image cannot be had.
    pub async fn identities(&self, names: &[String]) -> Result<Vec<String>, NotUp> {
        let order = self.order(names)?;
        let all = try_join_all(order.into_iter().map(|service| async move {
            let image = self.image(service).await?;
            let identity = self.identity(service, &image).await;
            let identity = identity.map_err(|error| self.fail(service, error))?;
            Ok(format!("{} {identity}", service.name))
        }))
        .await;
        if all.is_err() {
            // Nobody goes on without it: why is told.
            self.failures.is_fatal.send_replace(true);
        }
        all
    }

    /// What a container called `parent` is told of linked services that are up: variables, and lines of `/etc/hosts`.
    pub fn links(&self, parent: &str, linked: &[(String, String)]) -> Vec<Told> {
        let started = lock(&self.started);
        let told = linked.iter().filter_map(|(name, alias)| {
            let up = started.iter().rev().find(|up| up.service.name == *name)?;
            let target = up.target();
            let host = (alias.clone(), target.address.to_string());
            Some(Told { env: links(parent, alias, &target), host })
        });
        told.collect()
    }

    /// How a container is attached that uses these services.
    pub fn attachment(&self, names: &[String]) -> Attachment {
        let used = self.cx.project.services.iter().filter(|service| names.contains(&service.name));
        let mut networks: Vec<JoinedNetwork> = Vec::new();
        for service in used {
            for network in spec::networks(&self.cx, service, self.own.as_deref()) {
                if !networks.iter().any(|joined| joined.name == network.name) {
                    networks.push(JoinedNetwork { aliases: Vec::new(), address: None, ..network });
                }
            }
        }
        if networks.iter().all(spec::is_shared) {
            // The one that everybody shares who names none.
            networks.clear();
        }
        Attachment { networks, ..Attachment::default() }
    }

    /// Ends when a service that is needed fails, also after it was ready.
    pub async fn failed(&self) {
        // The sender lives in `self`, so waiting cannot end by its loss.
        let _ = self.failures.is_fatal.subscribe().wait_for(|is_fatal| *is_fatal).await;
    }

    /// The first failure that somebody could not do without.
    pub fn take_failure(&self) -> Option<ServiceError> {
        if !*self.failures.is_fatal.borrow() {
            return None;
        }
        let mut list = lock(&self.failures.list);
        if list.is_empty() { None } else { Some(list.remove(0).1) }
    }

    /// Those that became ready, in that order.
    pub fn outcomes(&self) -> Vec<ServiceOutcome> {
        lock(&self.outcomes).clone()
    }

    /// Stops all that were started, each after those that need it, with its own signal and grace. All are attempted.
    ///
    /// # Errors
    /// The first one of the engine.
    pub async fn stop(&self) -> Result<(), ServiceError> {
        lock(&self.watchers).abort_all();
        let started: Vec<Arc<Up>> = std::mem::take(&mut *lock(&self.started));
        let all = &self.cx.project.services;
        let names: Vec<String> = all.iter().map(|service| service.name.clone()).collect();
        let order = needed(all, &names).unwrap_or_else(|_| all.iter().collect());
        let mut result = Ok(());
        for level in levels(&order).into_iter().rev() {
            let here = started.iter().filter(|up| level.iter().any(|service| service.name == up.service.name));
            let stopped = join_all(here.map(|up| async {
                let exit = up.stop().await;
                up.log.finish(exit.as_ref().map_or(1, |exit| exit.code));
                exit
            }));
            for stopped in stopped.await {
                if let (Err(error), true) = (stopped, result.is_ok()) {
                    result = Err(ServiceError::Engine(error));
                }
            }
        }
        result
    }

    fn order(&self, names: &[String]) -> Result<Vec<&'a Service>, NotUp> {
        needed(&self.cx.project.services, names).map_err(|error| {
            let hint = match &error {
                Unordered::Unknown { nearest: Some(near), .. } => Some(format!("did you mean `{near}`?")),
                _ => None,
            };
            self.refuse(ServiceError::Invalid { message: error.to_string(), place: None, hint })
        })
    }

    /// Nothing is begun.
    fn refuse(&self, error: ServiceError) -> NotUp {
        lock(&self.failures.list).push((String::new(), error));
        self.failures.is_fatal.send_replace(true);
        NotUp
    }

    /// Keeps a failure, and tells it.
    fn fail(&self, service: &Service, error: ServiceError) -> NotUp {
        tell(self.cx.events, &error);
        lock(&self.failures.list).push((service.name.clone(), error));
        NotUp
    }

    async fn image(&self, service: &'a Service) -> Result<Image, NotUp> {
        let found = self.units[service.name.as_str()]
            .image
            .get_or_init(|| async { image::find(&self.cx, service).await.map_err(|error| self.fail(service, error)) });
        found.await.clone()
    }

    async fn identity(&self, service: &Service, image: &Image) -> Result<Digest, ServiceError> {
        let draft = spec::draft(&self.cx, service, &image.root, self.own.as_deref(), 1)?;
        let mut content = Vec::new();
        let mounted = draft.spec.mounts.iter().map(|mount| &mount.source);
        for path in mounted.chain(&service.seed) {
            content.push(self.cx.engine.content(path).await?);
        }
        // Where it stands in the file changes nothing.
        let definition = Service { place: None, ..service.clone() };
        let files = draft.spec.surroundings.files.iter().map(|file| Digest::of(file.content.expose()));
        let files: Vec<Digest> = files.collect();
        let identity = json!({"service": definition, "image": image.id, "content": content, "files": files});
        Ok(Digest::of(identity.to_string().as_bytes()))
    }

    /// The stage that events and logs of a service belong to.
    fn stage(&self, service: &Service) -> String {
        match &self.own {
            Some(own) => format!("{} ({own})", service.name),
            None => service.name.clone(),
        }
    }

    async fn ready(&self, service: &'a Service) -> Result<(), NotUp> {
        let unit = &self.units[service.name.as_str()];
        let ready = unit.ready.get_or_init(|| async {
            let ups = self.launch(service).await?;
            let stage = Stage { events: self.cx.events, id: self.stage(service), is_told: false };
            let begun = ups.iter().map(|up| up.begun).max().unwrap_or_else(Instant::now);
            let hows = join_all(ups.iter().map(|up| self.one_ready(up))).await;
            match hows.into_iter().collect::<Result<Vec<String>, _>>() {
                Ok(hows) => {
                    let how = hows.last().cloned().unwrap_or_default();
                    stage.finish(Verdict::Passed, begun.elapsed(), how);
                    Ok(())
                }
                Err(error) => {
                    stage.finish(verdict_of(&error), begun.elapsed(), summary_of(&error));
                    Err(self.fail(service, error))
                }
            }
        });
        *ready.await
    }

    /// How it showed, for the line of its stage.
    async fn one_ready(&self, up: &Arc<Up>) -> Result<String, ServiceError> {
        if let Some(over) = &self.over {
            let ready = over.ready(up, self.cx.cancel).await;
            up.watch_over(over.tasks);
            return ready;
        }
        let how = up.ready(self.cx.purpose, self.cx.cancel).await?;
        let duration = up.begun.elapsed();
        self.cx.events.emit(Event::ServiceReady {
            service: up.service.name.clone(),
            how: how.clone(),
            warm: up.is_warm,
            duration_ms: millis(duration),
        });
        lock(&self.outcomes).push(ServiceOutcome {
            service: up.service.name.clone(),
            reference: up.image.name.clone(),
            image: up.image.id.clone(),
            how: how.clone(),
            duration,
            is_warm: up.is_warm,
        });
        let summary = if up.is_warm { format!("{how}, from its snapshot") } else { how };
        let (up, failures, events) = (Arc::clone(up), Arc::clone(&self.failures), self.cx.events.clone());
        lock(&self.watchers).spawn(async move {
            let Some(failure) = up.died().await else { return };
            let error = ServiceError::Failed(Box::new(failure));
            tell(&events, &error);
            lock(&failures.list).push((up.service.name.clone(), error));
            failures.is_fatal.send_replace(true);
        });
        Ok(summary)
    }

    /// Starts a service once what it waits for is there.
    fn launch(&self, service: &'a Service) -> BoxFuture<'_, Result<Vec<Arc<Up>>, NotUp>> {
        let unit = &self.units[service.name.as_str()];
        Box::pin(async move {
            let up = unit.up.get_or_init(|| async {
                self.dependencies(service).await?;
                let image = self.image(service).await?;
                let stage = Stage { events: self.cx.events, id: self.stage(service), is_told: false };
                self.cx.events.emit(Event::StageStarted { stage: stage.id.clone() });
                let begun = Instant::now();
                match self.start(service, image, begun).await {
                    Ok(ups) => {
                        // From here on whoever awaits it tells of its end.
                        stage.leave();
                        Ok(ups)
                    }
                    Err(error) => {
                        stage.finish(verdict_of(&error), begun.elapsed(), summary_of(&error));
                        Err(self.fail(service, error))
                    }
                }
            });
            up.await.clone()
        })
    }

    async fn dependencies(&self, service: &'a Service) -> Result<(), NotUp> {
        let each = service.depends_on.iter().filter_map(|dependency| {
            let other = self.cx.project.service(&dependency.service)?;
            Some(async move {
                let there = match dependency.condition {
                    // Compose's own meaning: its program runs. What comes after the services waits for all to be ready.
                    Condition::ServiceStarted => self.launch(other).await.map(drop),
                    Condition::ServiceHealthy | Condition::ServiceCompletedSuccessfully => {
                        let ready: BoxFuture<'_, _> = Box::pin(self.ready(other));
                        ready.await
                    }
                };
                if dependency.required { there } else { Ok(()) }
            })
        });
        self.all(each).await
    }

    /// Waits for all; in a run only until one fails, since its scope ends what is then half started.
    async fn all(&self, each: impl Iterator<Item = impl Future<Output = Result<(), NotUp>>>) -> Result<(), NotUp> {
        match self.over {
            Some(_) => join_all(each).await.into_iter().collect(),
            None => try_join_all(each).await.map(drop),
        }
    }

    /// The containers of a service: what a solution has already, and what is missing.
    async fn start(&self, service: &'a Service, image: Image, begun: Instant) -> Result<Vec<Arc<Up>>, ServiceError> {
        if self.cx.cancel.is_cancelled() {
            return Err(ServiceError::Cancelled);
        }
        let Some(over) = &self.over else { return Ok(vec![self.start_one(service, image, begun, 1, None).await?]) };
        let draft = spec::draft(&self.cx, service, &image.root, None, 1)?;
        let hash = hash::of(service, &image, &draft);
        let mut ups = over.keep(service, &hash).await?;
        let wanted = 1..=service.replicas.unwrap_or(1);
        let missing: Vec<u32> = wanted.filter(|number| !ups.iter().any(|up| up.number == *number)).collect();
        // Steps before the start are taken once, by the first.
        let mut missing = missing.into_iter();
        if let Some(first) = missing.next() {
            ups.push(self.start_one(service, image.clone(), begun, first, Some(hash.clone())).await?);
        }
        let service = Service { pre_start: Vec::new(), ..service.clone() };
        let rest = missing.map(|number| self.start_one(&service, image.clone(), begun, number, Some(hash.clone())));
        let rest: Result<Vec<_>, _> = join_all(rest).await.into_iter().collect();
        ups.extend(rest?);
        Ok(ups)
    }

    async fn start_one(
        &self,
        service: &Service,
        image: Image,
        begun: Instant,
        number: u32,
        hash: Option<Digest>,
    ) -> Result<Arc<Up>, ServiceError> {
        let draft = spec::draft(&self.cx, service, &image.root, self.own.as_deref(), number)?;
        let command = draft.spec.args.join(" ");
        let name = match &self.over {
            Some(_) => spec::full_name(self.cx.project, service, number),
            None => self.stage(service),
        };
        let log = self.cx.logs.open(&name, &command, &draft.secrets);
        let log = log.map_err(|reason| {
            ServiceError::Engine(engine::EngineError {
                message: format!("cannot write the log of service {}: {reason}", service.name),
                hint: None,
                command_code: None,
                source: None,
            })
        })?;
        self.cx.events.emit(Event::ServiceStarted {
            service: service.name.clone(),
            reference: image.name.clone(),
            image: image.id.clone(),
        });
        let linked: Vec<(String, String)> =
            service.links.iter().map(|link| (link.service.clone(), link.alias.clone())).collect();
        let told = self.links(&container_name(&service.name), &linked);
        let (env, hosts): (Vec<_>, Vec<_>) = told.into_iter().map(|told| (told.env, told.host)).unzip();
        let starting = Starting {
            service,
            number,
            name,
            hash,
            image,
            draft,
            linked: Linked { env: env.concat(), hosts },
            is_one_shot: is_one_shot(&self.cx.project.services, &service.name),
            log,
            begun,
        };
        let up = Arc::new(starting.start(&self.cx).await?);
        lock(&self.started).push(Arc::clone(&up));
        if let Some(over) = &self.over {
            over.started(&up);
        }
        Ok(up)
    }
}

/// A stage that has begun; told as ended exactly once, also when nobody waits for it any more.
struct Stage<'a> {
    events: &'a EventSink,
    id: String,
    is_told: bool,
}

impl Stage<'_> {
    fn finish(mut self, verdict: Verdict, duration: Duration, summary: String) {
        self.is_told = true;
        let (stage, duration_ms) = (self.id.clone(), millis(duration));
        self.events.emit(Event::StageFinished { stage, verdict, duration_ms, summary });
    }

    fn leave(mut self) {
        self.is_told = true;
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        if !self.is_told {
            let (stage, summary) = (self.id.clone(), "not needed any more".to_owned());
            self.events.emit(Event::StageFinished { stage, verdict: Verdict::Skipped, duration_ms: 0, summary });
        }
    }
}

fn verdict_of(error: &ServiceError) -> Verdict {
    if matches!(error, ServiceError::Cancelled) { Verdict::Skipped } else { Verdict::Failed }
}

/// For the line of the service, which begins with its name.
fn summary_of(error: &ServiceError) -> String {
    match error {
        ServiceError::Failed(failure) => failure.reason.clone(),
        error => error.to_string(),
    }
}

fn tell(events: &EventSink, error: &ServiceError) {
    if let ServiceError::Failed(failure) = error {
        events.emit(Event::ServiceFailed {
            service: failure.service.clone(),
            reason: failure.reason.clone(),
            exit_code: failure.exit.as_ref().map(|exit| exit.code),
            duration_ms: millis(failure.duration),
        });
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A panic elsewhere is told there; what is kept here is whole all the same.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
