//! One service from its image to ready: steps before its start, its container, a snapshot of it, what went wrong.

use std::sync::Arc;

use compose::Service;
use engine::{Container, EngineError, ExecSpec, Exit, Root};
use events::{Event, EventSink};
use oci::Digest;
use regex::Regex;
use tokio::time::Instant;

use crate::{
    ServiceContext, ServiceError, ServiceFailure, ServiceLog,
    error::ended,
    image::{self, Image},
    log::Watched,
    ready::Readiness,
    snapshot,
    spec::{Draft, Linked},
    up::{Started, Up},
};

/// What is known when a service is about to be started.
pub(crate) struct Starting<'s> {
    pub(crate) service: &'s Service,
    /// From 1; several containers of one service count up.
    pub(crate) number: u32,
    /// What people call the container.
    pub(crate) name: String,
    /// Of all that it is made from, for those who compare it later.
    pub(crate) hash: Option<Digest>,
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
        first.ready(cx.purpose, cx.cancel).await?;
        let exit = first.stop().await?;
        let warn = |reason: &str| {
            let message = format!("service {} has no snapshot: {reason}", self.service.name);
            cx.events.emit(Event::Warning { message, place: self.service.place.clone() });
        };
        if exit.signal == Some(SIGKILL) {
            warn("it did not stop within its grace period (`stop_grace_period`)");
            return self.container(cx, &self.image.root, false).await;
        }
        match first.container().save(&key).await? {
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
            for network in &mut spec.attachment.networks {
                network.aliases.clear();
                network.address = None;
            }
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
        let started = cx.scope.start(spec.clone()).await;
        let container: Arc<dyn Container> = started.map_err(|error| self.not_started(error))?.into();
        self.warn(cx.events, &*container);
        Ok(Up::new(Started {
            service: self.service.clone(),
            number: self.number,
            name: self.name.clone(),
            hash: self.hash.clone(),
            image: self.image.clone(),
            log: Arc::clone(&self.log),
            begun: self.begun,
            is_warm,
            readiness: Readiness::of(self.service, &self.image.root, self.is_one_shot),
            watched,
            exec: ExecSpec { env: spec.env.clone(), ..self.draft.exec() },
            spec,
            signal: self.draft.signal,
            grace: self.draft.grace,
            container,
        }))
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
