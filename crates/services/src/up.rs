//! A service's container once it was started: until it is ready, while it runs, when it ends, and its next start.

use std::{
    ops::Deref,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use compose::{ExposedPort, Service};
use engine::{Cancel, Container, ContainerSpec, EngineError, ExecSpec, Exit};
use oci::Digest;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::JoinSet, time::Instant};

use crate::{
    LinkTarget, Purpose, ServiceError, ServiceFailure, ServiceLog,
    error::ended,
    health::{Look, Seen as HealthSeen, Watch, is_healthy},
    image::{self, Image},
    log::Watched,
    ready::{self, Readiness, Seen, Waiting},
    restart::Restarts,
};

/// A service that fails and is started again by its policy is awaited for this long in all; a hang is told within a coffee.
const RESTARTED_MAX: Duration = Duration::from_secs(120);
/// A healthy service is looked at less often than its interval may say, so that it has the processors.
const LOOK_GAP_MIN: Duration = Duration::from_secs(1);

const SIGKILL: i32 = 9;

/// How a container is, as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whether it runs.
    pub state: State,
    /// What its health check says; `None` without one.
    pub health: Option<Health>,
    /// Of its last end.
    pub exit_code: Option<i32>,
    /// Start of the running process, or end of the last one.
    pub since: SystemTime,
    /// Starts by its policy.
    pub restarts: u32,
}

/// Whether a container runs, in docker's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It runs.
    Running,
    /// It ended and is about to be started again.
    Restarting,
    /// It ended, or was stopped.
    Exited,
}

/// What a health check says, in docker's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Not healthy yet.
    Starting,
    /// It answers.
    Healthy,
    /// It has failed as often in a row as there are attempts.
    Unhealthy,
}

/// What a start gives.
pub(crate) struct Started {
    pub(crate) service: Service,
    pub(crate) number: u32,
    pub(crate) name: String,
    pub(crate) hash: Option<Digest>,
    pub(crate) image: Image,
    pub(crate) log: Arc<dyn ServiceLog>,
    pub(crate) begun: Instant,
    /// It began from a snapshot.
    pub(crate) is_warm: bool,
    pub(crate) readiness: Readiness,
    pub(crate) watched: Option<Arc<Watched>>,
    /// A further process as the service's own user.
    pub(crate) exec: ExecSpec,
    /// As it was started, and is again.
    pub(crate) spec: ContainerSpec,
    pub(crate) signal: i32,
    pub(crate) grace: Duration,
    /// Of the first start.
    pub(crate) container: Arc<dyn Container>,
}

/// A service whose container was started.
pub(crate) struct Up {
    started: Started,
    pub(crate) created: SystemTime,
    container: Mutex<Arc<dyn Container>>,
    /// Somebody asked for its end.
    stopping: Mutex<Cancel>,
    status: watch::Sender<Status>,
    restarts: Mutex<Restarts>,
    /// Held by whoever stops or starts it, so that no start follows a stop by accident.
    changing: tokio::sync::Mutex<()>,
    is_watched_over: Mutex<bool>,
    /// It was ready since its last start.
    is_ready: AtomicBool,
    /// It was ready once: its next starts find their files as it left them.
    has_been_ready: AtomicBool,
    is_removed: AtomicBool,
}

impl Deref for Up {
    type Target = Started;

    fn deref(&self) -> &Started {
        &self.started
    }
}

impl Up {
    pub(crate) fn new(started: Started) -> Self {
        let has_check = matches!(started.readiness, Readiness::Health(_));
        let status = Status {
            state: State::Running,
            health: has_check.then_some(Health::Starting),
            exit_code: None,
            since: SystemTime::now(),
            restarts: 0,
        };
        Self {
            created: SystemTime::now(),
            container: Mutex::new(Arc::clone(&started.container)),
            stopping: Mutex::default(),
            status: watch::channel(status).0,
            restarts: Mutex::new(Restarts::new(started.service.restart)),
            changing: tokio::sync::Mutex::default(),
            is_watched_over: Mutex::default(),
            is_ready: AtomicBool::new(false),
            has_been_ready: AtomicBool::new(false),
            is_removed: AtomicBool::new(false),
            started,
        }
    }

    /// The container of the last start.
    pub(crate) fn container(&self) -> Arc<dyn Container> {
        Arc::clone(&lock(&self.container))
    }

    pub(crate) fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.status.borrow().state != State::Exited
    }

    /// What others are told of it by links.
    pub(crate) fn target(&self) -> LinkTarget {
        let expose = self.service.expose.iter().copied();
        let published =
            self.service.ports.iter().map(|port| ExposedPort { port: port.target, protocol: port.protocol });
        let image = ready::image_ports(&self.image.root).map(|(port, protocol)| ExposedPort { port, protocol });
        LinkTarget {
            // Without a network of its own, everybody shares one.
            address: self.container().addresses().first().copied().unwrap_or([127, 0, 0, 1].into()),
            ports: expose.chain(published).chain(image).collect(),
            env: self.spec.env.clone(),
        }
    }

    /// Waits until it is ready, or it is known that it never will be. In a solution its policy may start it again meanwhile.
    pub(crate) async fn ready(&self, purpose: Purpose, cancel: &Cancel) -> Result<String, ServiceError> {
        if self.is_ready.load(Ordering::SeqCst) && self.is_running() {
            return Ok("running".into());
        }
        let failed = loop {
            let container = self.container();
            let waiting = Waiting {
                container: &*container,
                exec: &self.exec,
                name: &self.service.name,
                network: self.spec.network,
                root: &self.image.root,
                watched: self.watched.as_ref(),
                is_initialised: self.is_warm || self.has_been_ready.load(Ordering::SeqCst),
                cancel,
            };
            match waiting.until(&self.readiness).await? {
                Seen::Ready(how) => {
                    self.healthy(Health::Healthy);
                    self.is_ready.store(true, Ordering::SeqCst);
                    self.has_been_ready.store(true, Ordering::SeqCst);
                    return Ok(how);
                }
                Seen::Completed => {
                    self.ended(&Exit::default());
                    return Ok("ended with 0".into());
                }
                Seen::Cancelled => {
                    self.stop().await?;
                    return Err(ServiceError::Cancelled);
                }
                Seen::NotReady { reason, output } => {
                    // In a solution it stays, for those who want to look at it.
                    self.healthy(Health::Unhealthy);
                    if purpose == Purpose::Run {
                        self.stop().await?;
                    }
                    break self.failure(reason, None, &output);
                }
                Seen::Ended(exit) => {
                    if purpose == Purpose::Solution
                        && self.begun.elapsed() < RESTARTED_MAX
                        && let Some(pause) = self.leave(&exit)
                        && self.start_after(pause).await
                    {
                        continue;
                    }
                    self.ended(&exit);
                    let reason = match self.readiness {
                        Readiness::Completion => ended(&exit),
                        _ => format!("{} before it was ready", ended(&exit)),
                    };
                    break self.failure(reason, Some(exit), "");
                }
            }
        };
        Err(ServiceError::Failed(Box::new(failed)))
    }

    /// Stops it in its grace; its end is nobody's failure.
    pub(crate) async fn stop(&self) -> Result<Exit, EngineError> {
        self.stop_in(None).await
    }

    /// Stops it in this grace, else in its own.
    pub(crate) async fn stop_in(&self, grace: Option<Duration>) -> Result<Exit, EngineError> {
        lock(&self.stopping).cancel();
        let _guard = self.changing.lock().await;
        let exit = self.container().stop(self.signal, grace.unwrap_or(self.grace)).await?;
        self.ended(&exit);
        Ok(exit)
    }

    /// Ends it without its notice, also while somebody waits for its grace.
    pub(crate) async fn kill(&self) {
        lock(&self.stopping).cancel();
        // What is gone already needs no killing.
        let _ = self.container().stop(SIGKILL, Duration::ZERO).await;
    }

    /// Starts it again by hand, on the files that it left.
    pub(crate) async fn start(&self) -> Result<(), EngineError> {
        let _guard = self.changing.lock().await;
        if self.status.borrow().state == State::Running {
            return Ok(());
        }
        *lock(&self.stopping) = Cancel::new();
        *lock(&self.restarts) = Restarts::new(self.service.restart);
        self.again().await
    }

    /// Stops it for good.
    pub(crate) async fn remove(&self, grace: Option<Duration>) -> Result<(), EngineError> {
        self.is_removed.store(true, Ordering::SeqCst);
        self.stop_in(grace).await?;
        self.container().remove().await
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.is_removed.load(Ordering::SeqCst)
    }

    /// Waits for an end that nobody asked for; what it was, if it is a failure.
    pub(crate) async fn died(&self) -> Option<ServiceFailure> {
        let exit = self.container().wait().await.ok()?;
        if self.is_stopping() || exit == Exit::default() {
            return None;
        }
        Some(self.failure(format!("{} while it was needed", ended(&exit)), Some(exit), ""))
    }

    /// Keeps its status right and follows its policy, until it has ended for good. Once is enough.
    pub(crate) fn watch_over(self: &Arc<Self>, tasks: &Mutex<JoinSet<()>>) {
        if std::mem::replace(&mut *lock(&self.is_watched_over), true) {
            return;
        }
        let up = Arc::clone(self);
        let mut tasks = lock(tasks);
        // Those that have ended are let go.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            up.follow().await;
            *lock(&up.is_watched_over) = false;
        });
    }

    async fn follow(&self) {
        loop {
            let Some(exit) = self.until_end().await else { return };
            let Some(pause) = self.leave(&exit) else { return };
            if !self.start_after(pause).await {
                return;
            }
        }
    }

    /// Looks at its health until it ends; `None` when nothing can be learned of it any more.
    async fn until_end(&self) -> Option<Exit> {
        let container = self.container();
        let Readiness::Health(check) = &self.readiness else { return container.wait().await.ok() };
        let never = Cancel::new();
        let watch = Watch { container: &*container, check, exec: &self.exec, cancel: &never, told: &|_| {} };
        if self.status.borrow().health == Some(Health::Starting) {
            match watch.until_healthy().await {
                Ok(HealthSeen::Healthy(_)) => self.healthy(Health::Healthy),
                Ok(HealthSeen::Ended(exit) | HealthSeen::Died(exit, _)) => return Some(exit),
                Ok(_) => self.healthy(Health::Unhealthy),
                Err(_) => return container.wait().await.ok(),
            }
        }
        let mut failures = 0;
        loop {
            match watch.look_at(Instant::now() + check.interval.max(LOOK_GAP_MIN), check.timeout).await {
                Ok(Look::Answer(exit, _)) if is_healthy(&exit) => {
                    failures = 0;
                    self.healthy(Health::Healthy);
                }
                Ok(Look::Answer(..)) => {
                    failures += 1;
                    if failures >= check.attempts {
                        self.healthy(Health::Unhealthy);
                    }
                }
                Ok(Look::Over(HealthSeen::Ended(exit))) => return Some(exit),
                Ok(Look::Over(_)) | Err(_) => return container.wait().await.ok(),
            }
        }
    }

    /// Waits, and starts it again; false when it was stopped meanwhile. A start that fails is an end like others.
    async fn start_after(&self, mut pause: Duration) -> bool {
        loop {
            let stopping = lock(&self.stopping).clone();
            tokio::select! {
                biased;
                () = stopping.cancelled() => return false,
                () = tokio::time::sleep(pause) => {}
            }
            let _guard = self.changing.lock().await;
            if stopping.is_cancelled() {
                return false;
            }
            let Err(error) = self.again().await else {
                self.status.send_modify(|status| status.restarts += 1);
                return true;
            };
            self.log.note(&format!("seatrial: {}", error.with_causes()));
            match self.next_pause(&Exit { code: 1, ..Exit::default() }) {
                Some(next) => pause = next,
                None => {
                    self.ended(&Exit { code: 1, ..Exit::default() });
                    return false;
                }
            }
        }
    }

    async fn again(&self) -> Result<(), EngineError> {
        self.is_ready.store(false, Ordering::SeqCst);
        let former = self.container();
        // All that it said has been looked at by then.
        former.wait().await?;
        self.watched.iter().for_each(|watched| watched.begin_again());
        let next: Arc<dyn Container> = former.again(self.spec.clone()).await?.into();
        *lock(&self.container) = next;
        self.status.send_modify(|status| {
            status.state = State::Running;
            status.health = status.health.map(|_| Health::Starting);
            status.since = SystemTime::now();
        });
        Ok(())
    }

    /// It has ended: the pause before its next start, if its policy wants one and nobody stopped it.
    fn leave(&self, exit: &Exit) -> Option<Duration> {
        let pause = self.next_pause(exit).filter(|_| !self.is_stopping());
        match pause {
            None => self.ended(exit),
            Some(_) => self.status.send_modify(|status| {
                status.state = State::Restarting;
                status.exit_code = Some(exit.code);
                status.since = SystemTime::now();
            }),
        }
        pause
    }

    /// Waits until it does not run, and is not about to.
    pub(crate) async fn exited(&self) {
        // The sender lives in `self`, so waiting cannot end by its loss.
        let _ = self.status.subscribe().wait_for(|status| status.state == State::Exited).await;
    }

    fn next_pause(&self, exit: &Exit) -> Option<Duration> {
        let since = self.status.borrow().since;
        let ran = SystemTime::now().duration_since(since).unwrap_or_default();
        lock(&self.restarts).next(exit.code, ran)
    }

    fn is_stopping(&self) -> bool {
        lock(&self.stopping).is_cancelled()
    }

    fn ended(&self, exit: &Exit) {
        self.status.send_if_modified(|status| {
            if status.state == State::Exited {
                return false;
            }
            status.state = State::Exited;
            status.exit_code = Some(exit.code);
            status.since = SystemTime::now();
            true
        });
    }

    fn healthy(&self, health: Health) {
        self.status.send_if_modified(|status| {
            let is_new = status.health.is_some_and(|former| former != health);
            status.health = status.health.map(|_| health);
            is_new
        });
    }

    fn failure(&self, reason: String, exit: Option<Exit>, output: &str) -> ServiceFailure {
        let end = self.log.finish(exit.as_ref().map_or(1, |exit| exit.code));
        ServiceFailure {
            service: self.service.name.clone(),
            place: self.service.place.clone(),
            is_own: image::is_own(&self.service),
            command: self.spec.args.join(" "),
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

/// A panic elsewhere is told there; what is kept here is whole all the same.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
