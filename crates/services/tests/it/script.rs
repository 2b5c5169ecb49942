//! An engine whose containers do what a script says, on a clock that the test moves.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use compose::{Condition, Dependency, Project, Service};
use engine::{
    BuildError, BuildRequest, Built, Cancel, Container, ContainerSpec, Engine, EngineError, ExecSpec, Exit,
    ImageRequest, OutputSink, ResolvedImage, Root, Scope, Secret, SetupRequest, Stdio,
};
use events::{Event, EventSink, Record, RunId, Subscriber};
use oci::{Digest, ImageConfig, Platform};
use services::{LogEnd, Logs, NotUp, ServiceContext, ServiceError, ServiceLog, Services};
use tokio::{sync::Notify, time::Instant};

/// What a service's container does; times in milliseconds from its start.
#[derive(Clone, Default)]
pub(crate) struct Act {
    /// Ports with the time from which they accept, and the address.
    pub(crate) ports: Vec<(u64, &'static str)>,
    pub(crate) lines: Vec<(u64, &'static str)>,
    pub(crate) ends: Option<(u64, i32)>,
    /// Probes fail until then; `None` for ever.
    pub(crate) healthy: Option<u64>,
    /// Goes on after its signal until it is killed.
    pub(crate) is_stubborn: bool,
}

pub(crate) struct World {
    pub(crate) project: Project,
    pub(crate) cancel: Cancel,
    pub(crate) cannot_save: bool,
    acts: BTreeMap<String, Act>,
    config: ImageConfig,
    directory: tempfile::TempDir,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    story: Mutex<Vec<String>>,
    specs: Mutex<Vec<ContainerSpec>>,
    saved: Mutex<BTreeMap<String, Root>>,
    warnings: Mutex<Vec<String>>,
    verdicts: Mutex<Vec<String>>,
}

impl Shared {
    fn tell(&self, line: String) {
        self.story.lock().expect("no panic").push(line);
    }
}

impl Subscriber for Shared {
    fn event(&self, record: &Record) {
        match &record.event {
            Event::Warning { message, .. } => self.warnings.lock().expect("no panic").push(message.clone()),
            Event::ServiceReady { service, how, warm, .. } => {
                self.tell(format!("ready {service}: {how}{}", if *warm { " (warm)" } else { "" }));
            }
            Event::StageFinished { stage, verdict, .. } => {
                let line = format!("{stage} {verdict:?}").to_lowercase();
                self.verdicts.lock().expect("no panic").push(line);
            }
            _ => {}
        }
    }
}

/// A service by name: `db`, or `api: db cache!` with what it needs (`!` healthy, `.` ended, `?` not for good).
pub(crate) fn service(text: &str) -> Service {
    let (name, needs) = text.split_once(':').unwrap_or((text, ""));
    let depends_on = needs.split_whitespace().map(|need| Dependency {
        service: need.trim_end_matches(['!', '?', '.']).to_owned(),
        place: None,
        condition: match need {
            need if need.contains('!') => Condition::ServiceHealthy,
            need if need.contains('.') => Condition::ServiceCompletedSuccessfully,
            _ => Condition::ServiceStarted,
        },
        required: !need.contains('?'),
        restart: false,
    });
    Service {
        name: name.to_owned(),
        image: Some(format!("registry.example/{name}:1").parse().expect("a reference")),
        depends_on: depends_on.collect(),
        ..Service::default()
    }
}

impl World {
    pub(crate) fn new(services: Vec<Service>) -> Self {
        let mut config = ImageConfig::scratch(&Platform::host());
        config.config.cmd = Some(vec!["/serve".into()]);
        config.config.stop_signal = "SIGINT".into();
        config.config.env = vec!["PATH=/bin".into(), "FROM_IMAGE=yes".into()];
        Self {
            project: Project { services, ..Project::default() },
            cancel: Cancel::new(),
            cannot_save: false,
            acts: BTreeMap::new(),
            config,
            directory: tempfile::tempdir().expect("a temporary directory"),
            shared: Arc::default(),
        }
    }

    pub(crate) fn act(mut self, service: &str, act: Act) -> Self {
        self.acts.insert(service.to_owned(), act);
        self
    }

    pub(crate) fn expose(mut self, port: &str) -> Self {
        self.config.config.exposed_ports.insert(port.to_owned(), oci::Empty {});
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A whole run of these services: up, what `between` does, stopped. The failure, if somebody could not do without.
    pub(crate) async fn run(&self, names: &[&str]) -> Option<ServiceError> {
        self.run_with(names, async |_| {}).await
    }

    pub(crate) async fn run_with(
        &self,
        names: &[&str],
        between: impl AsyncFnOnce(&Services<'_>),
    ) -> Option<ServiceError> {
        let engine = Scripted {
            shared: Arc::clone(&self.shared),
            acts: self.acts.clone(),
            config: self.config.clone(),
            cannot_save: self.cannot_save,
        };
        let logs = TestLogs::default();
        let events = EventSink::new(vec![Arc::clone(&self.shared) as Arc<dyn Subscriber>]);
        let (env, built, devices) = (BTreeMap::new(), BTreeMap::new(), services::AllowedDevices::default());
        let services = Services::new(
            ServiceContext {
                engine: &engine,
                scope: &engine,
                events: &events,
                logs: &logs,
                project: &self.project,
                env: &env,
                directory: self.directory.path(),
                built: &built,
                pull: false,
                no_cache: false,
                cancel: &self.cancel,
                purpose: services::Purpose::Run,
                devices: &devices,
            },
            None,
        );
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let up = services.up(&names).await;
        if up.is_ok() {
            between(&services).await;
        }
        services.stop().await.expect("the scripted engine stops everything");
        let failure = services.take_failure();
        assert_eq!(up == Err(NotUp), up.is_err());
        if up.is_err() {
            assert!(failure.is_some(), "what is not up has a reason");
        }
        failure
    }

    /// What happened so far, in lines; told once.
    pub(crate) fn story(&self) -> String {
        std::mem::take(&mut *self.shared.story.lock().expect("no panic")).join("\n")
    }

    pub(crate) fn warnings(&self) -> String {
        self.shared.warnings.lock().expect("no panic").join("\n")
    }

    pub(crate) fn verdicts(&self) -> String {
        self.shared.verdicts.lock().expect("no panic").join(", ")
    }

    pub(crate) fn spec(&self, name: &str) -> ContainerSpec {
        let specs = self.shared.specs.lock().expect("no panic");
        specs.iter().rev().find(|spec| spec.name == name).cloned().expect("it was started")
    }
}

#[derive(Default)]
struct TestLogs(Mutex<BTreeMap<String, Arc<TestLog>>>);

#[derive(Default)]
struct TestLog(Mutex<Vec<u8>>);

impl Logs for TestLogs {
    fn open(&self, service: &str, _: &str, _: &[Secret]) -> Result<Arc<dyn ServiceLog>, String> {
        let log: Arc<TestLog> = Arc::default();
        let former = self.0.lock().expect("no panic").insert(service.to_owned(), Arc::clone(&log));
        assert!(former.is_none(), "{service} has one log");
        Ok(Arc::new(Handle(log)))
    }
}

struct Handle(Arc<TestLog>);

impl ServiceLog for Handle {
    fn sink(&self) -> OutputSink {
        let log = Arc::clone(&self.0);
        Arc::new(move |bytes| log.0.lock().expect("no panic").extend_from_slice(bytes))
    }

    fn note(&self, line: &str) {
        (self.sink())(format!("{line}\n").as_bytes());
    }

    fn finish(&self, _: i32) -> LogEnd {
        let text = String::from_utf8_lossy(&self.0.0.lock().expect("no panic")).into_owned();
        LogEnd { tail: text.lines().map(str::to_owned).collect(), earlier_lines: 0, path: PathBuf::from("log") }
    }
}

struct Scripted {
    shared: Arc<Shared>,
    acts: BTreeMap<String, Act>,
    config: ImageConfig,
    cannot_save: bool,
}

fn broken(message: &str) -> EngineError {
    EngineError { message: message.into(), hint: None, command_code: None, source: None }
}

#[async_trait]
impl Engine for Scripted {
    async fn build(&self, _: BuildRequest, _: &EventSink) -> Result<Built, BuildError> {
        Err(broken("nothing is built here").into())
    }

    async fn seal(&self, _: &Built) -> Result<(store::Image, store::SealedManifest), EngineError> {
        Err(broken("nothing is sealed here"))
    }

    async fn image(&self, request: ImageRequest, _: &EventSink) -> Result<ResolvedImage, BuildError> {
        let name = request.reference.to_string();
        if name.contains("missing") {
            let source = "not found".into();
            return Err(BuildError::Base { reference: name, place: None, is_auth: false, source });
        }
        Ok(ResolvedImage {
            id: Digest::of(name.as_bytes()),
            root: Root { id: format!("root of {name}"), config: self.config.clone() },
        })
    }

    async fn root(&self, _: &store::Image) -> Result<Root, EngineError> {
        Err(broken("not asked for"))
    }

    async fn content(&self, path: &Path) -> Result<Digest, EngineError> {
        std::fs::read(path).map(|bytes| Digest::of(&bytes)).map_err(|error| broken(&error.to_string()))
    }

    async fn open_scope(&self, _: RunId) -> Result<Box<dyn Scope>, EngineError> {
        Err(broken("there is one already"))
    }
}

#[async_trait]
impl Scope for Scripted {
    async fn setup(&self, _: SetupRequest, _: &EventSink) -> Result<Root, BuildError> {
        Err(broken("not asked for").into())
    }

    async fn start(&self, spec: ContainerSpec) -> Result<Box<dyn Container>, EngineError> {
        let act = self.acts.get(&spec.name).cloned().unwrap_or_default();
        self.shared.tell(format!("start {}{}", spec.name, if spec.root.id == "saved" { " (saved)" } else { "" }));
        self.shared.specs.lock().expect("no panic").push(spec.clone());
        let container = ScriptedContainer {
            shared: Arc::clone(&self.shared),
            act: act.clone(),
            cannot_save: self.cannot_save,
            spec: spec.clone(),
            begun: Instant::now(),
            stopped: Notify::new(),
            exit: Mutex::default(),
        };
        let Stdio::Sink(sink) = spec.stdio else { return Err(broken("services have sinks")) };
        tokio::spawn(async move {
            let begun = Instant::now();
            for (at, line) in act.lines {
                tokio::time::sleep_until(begun + Duration::from_millis(at)).await;
                sink(format!("{line}\n").as_bytes());
            }
        });
        Ok(Box::new(container))
    }

    async fn saved(&self, key: &Digest) -> Result<Option<Root>, EngineError> {
        Ok(self.shared.saved.lock().expect("no panic").get(&key.to_string()).cloned())
    }

    async fn close(&mut self) -> Result<(), EngineError> {
        Ok(())
    }
}

struct ScriptedContainer {
    shared: Arc<Shared>,
    act: Act,
    cannot_save: bool,
    spec: ContainerSpec,
    begun: Instant,
    stopped: Notify,
    exit: Mutex<Option<Exit>>,
}

impl ScriptedContainer {
    fn since(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).expect("tests are short")
    }
}

#[async_trait]
impl Container for ScriptedContainer {
    async fn wait(&self) -> Result<Exit, EngineError> {
        let stopped = self.stopped.notified();
        if let Some(exit) = self.exit.lock().expect("no panic").clone() {
            return Ok(exit);
        }
        match self.act.ends {
            Some((at, code)) => {
                tokio::select! {
                    () = tokio::time::sleep_until(self.begun + Duration::from_millis(at)) => {
                        let mut exit = self.exit.lock().expect("no panic");
                        exit.get_or_insert(Exit { code, ..Exit::default() });
                    }
                    () = stopped => {}
                }
            }
            None => stopped.await,
        }
        Ok(self.exit.lock().expect("no panic").clone().expect("it has ended"))
    }

    async fn exec(&self, spec: ExecSpec) -> Result<Exit, EngineError> {
        let Stdio::Sink(sink) = &spec.stdio else { return Err(broken("probes have sinks")) };
        if self.act.healthy.is_some_and(|at| self.since() >= at) {
            return Ok(Exit::default());
        }
        sink(b"connection refused\n");
        Ok(Exit { code: 2, ..Exit::default() })
    }

    async fn stop(&self, signal: i32, grace: Duration) -> Result<Exit, EngineError> {
        let mut exit = self.exit.lock().expect("no panic");
        if let Some(exit) = &*exit {
            return Ok(exit.clone());
        }
        self.shared.tell(format!("stop {} {signal} {}", self.spec.name, compose::duration::human(grace)));
        let killed = Exit { code: 137, signal: Some(9), ..Exit::default() };
        let exit = exit.insert(if self.act.is_stubborn { killed } else { Exit::default() }).clone();
        self.stopped.notify_waiters();
        Ok(exit)
    }

    async fn keep(&self, _: Duration) -> Result<Option<String>, EngineError> {
        Ok(None)
    }

    async fn save(&self, key: &Digest) -> Result<Option<Root>, EngineError> {
        if self.cannot_save {
            return Ok(None);
        }
        self.shared.tell(format!("save {}", self.spec.name));
        let root = Root { id: "saved".into(), config: self.spec.root.config.clone() };
        self.shared.saved.lock().expect("no panic").insert(key.to_string(), root.clone());
        Ok(Some(root))
    }

    async fn listening(&self) -> Result<Vec<SocketAddr>, EngineError> {
        let open = self.act.ports.iter().filter(|(at, _)| self.since() >= *at);
        Ok(open.map(|(_, address)| address.parse().expect("an address")).collect())
    }

    fn addresses(&self) -> Vec<IpAddr> {
        vec![[10, 1, 2, 3].into()]
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}
