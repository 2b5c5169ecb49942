//! One service from its image to ready: steps before its start, its container, a snapshot of it, what went wrong.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use compose::{ExposedPort, Service};
use engine::{Container, EngineError, ExecSpec, Exit, NetworkMode, Root};
use events::{Event, EventSink};
use regex::Regex;
use tokio::time::Instant;

use crate::{
    LinkTarget, ServiceContext, ServiceError, ServiceFailure, ServiceLog,
    error::ended,
    image::{self, Image},
    log::Watched,
    ready::{self, Readiness, Seen, Waiting},
    snapshot,
    spec::{Draft, Linked},
};

/// A service whose container was started.
pub(crate) struct Up {
    pub(crate) service: Service,
    pub(crate) image: Image,
    pub(crate) container: Arc<dyn Container>,
    pub(crate) log: Arc<dyn ServiceLog>,
    pub(crate) begun: Instant,
    /// It began from a snapshot.
    pub(crate) is_warm: bool,
    readiness: Readiness,
    watched: Option<Arc<Watched>>,
    exec: ExecSpec,
    network: NetworkMode,
    env: Vec<(String, String)>,
    args: Vec<String>,
    signal: i32,
    grace: Duration,
    is_stopping: AtomicBool,
}

impl Up {
    /// What others are told of it by links.
    pub(crate) fn target(&self) -> LinkTarget {
        let expose = self.service.expose.iter().copied();
        let published =
            self.service.ports.iter().map(|port| ExposedPort { port: port.target, protocol: port.protocol });
        let image = ready::image_ports(&self.image.root).map(|(port, protocol)| ExposedPort { port, protocol });
        LinkTarget {
            // Without a network of its own, everybody shares one.
            address: self.container.addresses().first().copied().unwrap_or([127, 0, 0, 1].into()),
            ports: expose.chain(published).chain(image).collect(),
            env: self.env.clone(),
        }
    }

    /// Waits until it is ready, or it is known that it never will be.
    pub(crate) async fn ready(&self, cx: &ServiceContext<'_>) -> Result<String, ServiceError> {
        let waiting = Waiting {
            container: &*self.container,
            exec: &self.exec,
            name: &self.service.name,
            network: self.network,
            root: &self.image.root,
            watched: self.watched.as_ref(),
            is_warm: self.is_warm,
            cancel: cx.cancel,
        };
        let failed = match waiting.until(&self.readiness).await? {
            Seen::Ready(how) => return Ok(how),
            Seen::Completed => return Ok("ended with 0".into()),
            Seen::Cancelled => {
                self.stop().await?;
                return Err(ServiceError::Cancelled);
            }
            Seen::NotReady { reason, output } => {
                self.stop().await?;
                self.failure(reason, None, &output)
            }
            Seen::Ended(exit) => {
                let reason = match self.readiness {
                    Readiness::Completion => ended(&exit),
                    _ => format!("{} before it was ready", ended(&exit)),
                };
                self.failure(reason, Some(exit), "")
            }
        };
        Err(ServiceError::Failed(Box::new(failed)))
    }

    /// Stops it in its grace; its end is nobody's failure.
    pub(crate) async fn stop(&self) -> Result<Exit, EngineError> {
        self.is_stopping.store(true, Ordering::SeqCst);
        self.container.stop(self.signal, self.grace).await
    }

    /// Waits for an end that nobody asked for; what it was, if it is a failure.
    pub(crate) async fn died(&self) -> Option<ServiceFailure> {
        let exit = self.container.wait().await.ok()?;
        if self.is_stopping.load(Ordering::SeqCst) || exit == Exit::default() {
            return None;
        }
        Some(self.failure(format!("{} while it was needed", ended(&exit)), Some(exit), ""))
    }

    fn failure(&self, reason: String, exit: Option<Exit>, output: &str) -> ServiceFailure {
        let end = self.log.finish(exit.as_ref().map_or(1, |exit| exit.code));
        ServiceFailure {
            service: self.service.name.clone(),
            place: self.service.place.clone(),
            is_own: image::is_own(&self.service),
            command: self.args.join(" "),
            reason,
            exit,
            duration: self.begun.elapsed(),
            tail: end.tail.into_iter().chain(output.lines().map(str::to_owned)).collect(),
            earlier_lines: end.earlier_lines,
            log: end.path,
            hint: None,
        }
    }
}

/// What is known when a service is about to be started.
pub(crate) struct Starting<'s> {
    pub(crate) service: &'s Service,
    pub(crate) image: Image,
    pub(crate) draft: Draft,
    pub(crate) linked: Linked,
    pub(crate) is_one_shot: bool,
    pub(crate) log: Arc<dyn ServiceLog>,
    pub(crate) begun: Instant,
}

impl Starting<'_> {
    /// The container, from a snapshot where there is one or may be made.
    pub(crate) async fn start(&self, cx: &ServiceContext<'_>) -> Result<Up, ServiceError> {
        self.before(cx).await?;
        if self.service.snapshot.is_none() {
            return self.container(cx, &self.image.root, false).await;
        }
        let key = snapshot::key(cx, self.service, &self.image, &self.draft).await?;
        if let Some(root) = cx.scope.saved(&key).await? {
            return self.container(cx, &root, true).await;
        }
        // The first start initialises. What is kept has to be the state after a clean end, which needs no recovery.
        let first = self.container(cx, &self.image.root, false).await?;
        first.ready(cx).await?;
        let exit = first.stop().await?;
        let warn = |reason: &str| {
            let message = format!("service {} has no snapshot: {reason}", self.service.name);
            cx.events.emit(Event::Warning { message, place: self.service.place.clone() });
        };
        if exit.signal == Some(SIGKILL) {
            warn("it did not stop within its grace period (`stop_grace_period`)");
            return self.container(cx, &self.image.root, false).await;
        }
        match first.container.save(&key).await? {
            Some(root) => {
                self.log.note("seatrial: it is initialised; its files are kept, and this start begins with them");
                self.container(cx, &root, true).await
            }
            None => {
                warn("this engine cannot keep files");
                self.container(cx, &self.image.root, false).await
            }
        }
    }

    /// `pre_start`: each step in a container of its own, to its end.
    async fn before(&self, cx: &ServiceContext<'_>) -> Result<(), ServiceError> {
        for (number, hook) in self.service.pre_start.iter().enumerate() {
            let text = hook.command.join(" ");
            let root = match &hook.image {
                None => self.image.root.clone(),
                Some(image) => {
                    let other = Service {
                        image: Some(image.clone()),
                        build: None,
                        from: None,
                        verify: Vec::new(),
                        ..self.service.clone()
                    };
                    image::find(cx, &other).await?.root
                }
            };
            let mut spec = self.draft.container(&root, &self.linked, self.log.sink());
            spec.name = format!("{}-before-{}", spec.name, number + 1);
            // It has names of its own, so that nobody takes it for the service.
            spec.attachment.aliases.clear();
            spec.attachment.networks.iter_mut().for_each(|network| network.aliases.clear());
            spec.args = hook.command.clone();
            spec.user = hook.user.clone().unwrap_or(spec.user);
            spec.cwd = hook.working_dir.clone().unwrap_or(spec.cwd);
            for (name, value) in &hook.environment {
                spec.env.retain(|(present, _)| present != name);
                spec.env.push((name.clone(), value.clone()));
            }
            let exit = self.run(cx, spec).await?;
            if exit != Exit::default() {
                let reason = format!("has a step before its start that {}: `{text}`", ended(&exit));
                return Err(self.failed(reason, Some(exit), None));
            }
        }
        Ok(())
    }

    async fn run(&self, cx: &ServiceContext<'_>, spec: engine::ContainerSpec) -> Result<Exit, ServiceError> {
        let started = cx.scope.start(spec).await;
        let container = started.map_err(|error| self.not_started(error))?;
        self.warn(cx.events, &*container);
        tokio::select! {
            biased;
            () = cx.cancel.cancelled() => {
                container.stop(self.draft.signal, self.draft.grace).await?;
                Err(ServiceError::Cancelled)
            }
            exit = container.wait() => Ok(exit?),
        }
    }

    async fn container(&self, cx: &ServiceContext<'_>, root: &Root, is_warm: bool) -> Result<Up, ServiceError> {
        let log = self.service.ready.as_ref().and_then(|ready| ready.log.as_ref());
        let watched = match log.map(|log| Regex::new(&log.pattern)) {
            Some(Ok(pattern)) => Some(Watched::new(pattern)),
            Some(Err(error)) => return Err(ServiceError::invalid(self.service, error)),
            None => None,
        };
        let sink = match &watched {
            Some(watched) => watched.sink(self.log.sink()),
            None => self.log.sink(),
        };
        let spec = self.draft.container(root, &self.linked, sink);
        let (env, args, network) = (spec.env.clone(), spec.args.clone(), spec.network);
        let started = cx.scope.start(spec).await;
        let container: Arc<dyn Container> = started.map_err(|error| self.not_started(error))?.into();
        self.warn(cx.events, &*container);
        Ok(Up {
            service: self.service.clone(),
            image: self.image.clone(),
            container,
            log: Arc::clone(&self.log),
            begun: self.begun,
            is_warm,
            readiness: Readiness::of(self.service, &self.image.root, self.is_one_shot),
            watched,
            exec: ExecSpec { env: env.clone(), ..self.draft.exec() },
            network,
            env,
            args,
            signal: self.draft.signal,
            grace: self.draft.grace,
            is_stopping: AtomicBool::new(false),
        })
    }

    fn warn(&self, events: &EventSink, container: &dyn Container) {
        for warning in container.warnings() {
            let message = format!("service {}: {warning}", self.service.name);
            events.emit(Event::Warning { message, place: self.service.place.clone() });
        }
    }

    /// A program that is not there is the definition's mistake; everything else is the engine's.
    fn not_started(&self, error: EngineError) -> ServiceError {
        match error.command_code {
            Some(code) => {
                self.log.note(&error.with_causes());
                let exit = Exit { code, ..Exit::default() };
                self.failed("cannot be started".into(), Some(exit), error.hint)
            }
            None => ServiceError::Engine(error),
        }
    }

    fn failed(&self, reason: String, exit: Option<Exit>, hint: Option<String>) -> ServiceError {
        let end = self.log.finish(exit.as_ref().map_or(1, |exit| exit.code));
        ServiceError::Failed(Box::new(ServiceFailure {
            service: self.service.name.clone(),
            place: self.service.place.clone(),
            is_own: image::is_own(self.service),
            command: self.draft.spec.args.join(" "),
            reason,
            exit,
            duration: self.begun.elapsed(),
            tail: end.tail,
            earlier_lines: end.earlier_lines,
            log: end.path,
            hint,
        }))
    }
}

const SIGKILL: i32 = 9;
