//! A world whose engine and registry do what a script says; the store is the real one.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use engine::{
    BuildError, BuildRequest, Built, Cancel, Container, ContainerSpec, Engine, EngineError, ExecSpec, Exit, FailedStep,
    ImageRequest, ResolvedImage, Root, Scope, SetupRequest, Stdio,
};
use events::{Event, EventSink, Record, RunId, Subscriber};
use evidence::Attachment;
use oci::{Descriptor, Digest, ImageConfig, Platform, Reference};
use packages::{Login, Package, PublishError, State, Target};
use pipeline::{
    OpenSigner, Outcome, PlanInputs, Registry, RunContext, RunError, RunOptions, Source, SourceEvent, SourceText, file,
    plan,
};
use registry::{ErrorKind, ImageVersion, Progress, RegistryError, TagCondition};
use store::{Compression, RunDir, Store, StoreOptions};
use tokio::sync::Notify;

/// What a container does.
#[derive(Clone, Default)]
pub(crate) struct Act {
    code: i32,
    says: String,
    takes: Duration,
    hangs: bool,
    breaks: bool,
    no_program: bool,
    host: bool,
    probes: Vec<i32>,
    report: Option<(String, String)>,
    /// Codes of further starts; the last one repeats.
    then: Vec<i32>,
    out_of: Option<Limit>,
}

#[derive(Clone, Copy)]
pub(crate) enum Limit {
    Memory,
    Pids,
}

impl Act {
    pub(crate) fn exits(code: i32) -> Act {
        Act { code, ..Act::default() }
    }
    pub(crate) fn hangs() -> Act {
        Act { hangs: true, ..Act::default() }
    }
    pub(crate) fn breaks() -> Act {
        Act { breaks: true, ..Act::default() }
    }
    pub(crate) fn no_program() -> Act {
        Act { no_program: true, ..Act::default() }
    }
    /// Runs the arguments on the host, for what a shell makes of them.
    pub(crate) fn host() -> Act {
        Act { host: true, ..Act::default() }
    }
    /// Exits so when it is started again.
    pub(crate) fn then(mut self, code: i32) -> Act {
        self.then.push(code);
        self
    }
    pub(crate) fn hits(limit: Limit) -> Act {
        Act { code: 137, out_of: Some(limit), ..Act::default() }
    }
    pub(crate) fn says(mut self, text: &str) -> Act {
        self.says = text.into();
        self
    }
    pub(crate) fn takes(mut self, millis: u64) -> Act {
        self.takes = Duration::from_millis(millis);
        self
    }
    /// Exit codes of probes; the last one repeats.
    pub(crate) fn probes(mut self, codes: &[i32]) -> Act {
        self.probes = codes.to_vec();
        self
    }
    pub(crate) fn reports(mut self, name: &str, text: &str) -> Act {
        self.report = Some((name.into(), text.into()));
        self
    }
}

pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) run: RunDir,
    pub(crate) cancel: Cancel,
    dir: tempfile::TempDir,
    source: Source,
    env: BTreeMap<String, String>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    story: Mutex<Vec<String>>,
    steps: Mutex<BTreeMap<String, usize>>,
    events: Mutex<Vec<serde_json::Value>>,
    starts: Mutex<BTreeMap<String, usize>>,
    specs: Mutex<Vec<ContainerSpec>>,
    setup: Mutex<Option<SetupRequest>>,
    build: Mutex<Option<BuildRequest>>,
    /// Of several images, by stage.
    builds: Mutex<BTreeMap<String, BuildRequest>>,
    script: Mutex<Script>,
}

#[derive(Clone, Default)]
struct Script {
    acts: BTreeMap<String, Act>,
    build_fails: bool,
    /// Of several images: the stage that fails.
    fails_at: Option<String>,
    setup_fails: bool,
    close_fails: bool,
    registry_fails: bool,
    unpublishable: Option<String>,
    version: Option<String>,
    label: Option<String>,
}

impl Shared {
    fn tell(&self, line: impl Into<String>) {
        self.story.lock().expect("no panic").push(line.into());
    }
    fn script(&self) -> Script {
        self.script.lock().expect("no panic").clone()
    }
}

impl Subscriber for Shared {
    fn event(&self, record: &Record) {
        self.events.lock().expect("no panic").push(serde_json::to_value(record).expect("it serialises"));
        if let Event::StepStarted { stage, .. } = &record.event {
            *self.steps.lock().expect("no panic").entry(stage.clone()).or_default() += 1;
        }
    }
}

impl World {
    /// A project `app` with a Dockerfile and this pipeline file, on branch master.
    pub(crate) fn new(yaml: &str) -> World {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let project = dir.path().join("app");
        std::fs::create_dir(&project).expect("made");
        std::fs::write(project.join("Dockerfile"), "FROM scratch\n").expect("written");
        let store = Store::open(&dir.path().join("store"), StoreOptions::default()).expect("a store");
        let run = store.new_run().expect("a run");
        let source = Source {
            sha: Some("3f2a91c0d4e5f60718293a4b5c6d7e8f90a1b2c3".into()),
            short: Some("3f2a91c".into()),
            branch: Some("master".into()),
            ..Source::default()
        };
        World { store, run, cancel: Cancel::new(), dir, source, env: BTreeMap::new(), shared: Arc::default() }
            .file(yaml)
    }

    pub(crate) fn file(self, yaml: &str) -> World {
        std::fs::write(self.project().join("seatrial.yaml"), yaml).expect("written");
        self
    }

    pub(crate) fn project(&self) -> std::path::PathBuf {
        self.dir.path().canonicalize().expect("it exists").join("app")
    }

    fn change(self, change: impl FnOnce(&mut Script)) -> World {
        change(&mut self.shared.script.lock().expect("no panic"));
        self
    }

    /// Gates without an act pass at once.
    pub(crate) fn act(self, container: &str, act: Act) -> World {
        self.change(|script| drop(script.acts.insert(container.into(), act)))
    }
    pub(crate) fn build_fails(self) -> World {
        self.change(|script| script.build_fails = true)
    }
    /// The build of one of several images.
    pub(crate) fn fails_at(self, stage: &str) -> World {
        self.change(|script| script.fails_at = Some(stage.into()))
    }
    pub(crate) fn setup_fails(self) -> World {
        self.change(|script| script.setup_fails = true)
    }
    pub(crate) fn close_fails(self) -> World {
        self.change(|script| script.close_fails = true)
    }
    pub(crate) fn registry_fails(self) -> World {
        self.change(|script| script.registry_fails = true)
    }
    pub(crate) fn unpublishable(self, reason: &str) -> World {
        self.change(|script| script.unpublishable = Some(reason.into()))
    }
    /// The image is of this version, and says so.
    pub(crate) fn version(self, version: &str) -> World {
        self.change(|script| script.version = Some(version.into()))
    }
    /// The image has the version label of its base.
    pub(crate) fn base_label(self, version: &str) -> World {
        self.change(|script| script.label = Some(version.into()))
    }
    /// The run is for a Git tag.
    pub(crate) fn git_tag(mut self, tag: &str) -> World {
        (self.source.event, self.source.tag) = (SourceEvent::Tag, Some(tag.into()));
        self
    }
    pub(crate) fn source(mut self, branch: &str, event: &str) -> World {
        self.source.branch = Some(branch.into());
        self.source.event = if event == "request" { SourceEvent::PullRequest } else { SourceEvent::Push };
        self
    }

    pub(crate) fn fork(mut self) -> World {
        (self.source.event, self.source.is_fork) = (SourceEvent::PullRequest, true);
        self
    }
    pub(crate) fn env(mut self, name: &str, value: &str) -> World {
        self.env.insert(name.into(), value.into());
        self
    }
    pub(crate) fn commit(mut self, sha: &str) -> World {
        self.source.sha = Some(sha.into());
        self
    }
    /// The project is a Git work tree.
    pub(crate) fn rooted(mut self) -> World {
        self.source.root = Some(self.project());
        self
    }
    pub(crate) fn write(self, name: &str, text: &str) -> World {
        std::fs::write(self.project().join(name), text).expect("written");
        self
    }
    /// The next run of the same store, with nothing told yet.
    pub(crate) fn again(mut self) -> World {
        self.run = self.store.new_run().expect("a run");
        self.shared.story.lock().expect("no panic").clear();
        self.shared.events.lock().expect("no panic").clear();
        self
    }
    /// Events whose name begins so, as their JSON lines have them.
    pub(crate) fn events(&self, name: &str) -> Vec<serde_json::Value> {
        let events = self.shared.events.lock().expect("no panic");
        let of_name = |event: &&serde_json::Value| event["event"].as_str().is_some_and(|event| event.starts_with(name));
        events.iter().filter(of_name).cloned().collect()
    }

    pub(crate) async fn run(&self, options: &RunOptions) -> Result<Outcome, RunError> {
        self.run_with(options, None).await
    }

    /// With this registry instead of the scripted one.
    pub(crate) async fn run_with(
        &self,
        options: &RunOptions,
        registry: Option<&dyn Registry>,
    ) -> Result<Outcome, RunError> {
        let path = self.project().join("seatrial.yaml");
        let text = std::fs::read_to_string(&path).expect("written");
        let (file, findings) = file::parse(&text);
        assert!(findings.is_empty(), "{findings:?}");
        let text = SourceText { name: "seatrial.yaml".into(), path, text };
        let base = self.project();
        let (plan, findings) = plan(PlanInputs {
            file: &file,
            text: Some(&text),
            base: &base,
            source: &self.source,
            env: &self.env,
            run_number: Some(self.run.number),
        });
        assert!(findings.is_empty(), "{findings:?}");
        let scripted = Scripted { shared: Arc::clone(&self.shared), store: self.store.clone() };
        let events = EventSink::new(vec![Arc::clone(&self.shared) as Arc<dyn Subscriber>]);
        let cx = RunContext {
            engine: &scripted,
            store: &self.store,
            registry: registry.unwrap_or(&scripted),
            events: &events,
            run: &self.run,
            cancel: &self.cancel,
        };
        pipeline::run(cx, &plan, options).await
    }

    /// A signer whose opening stands in the story as `open key`.
    pub(crate) fn signer(&self) -> OpenSigner {
        let shared = Arc::clone(&self.shared);
        OpenSigner::new(move || {
            shared.tell("open key");
            Ok(evidence::Signer::of(
                evidence::SigningKey::generate(evidence::KeyKind::Ed25519).expect("random numbers"),
            ))
        })
    }

    pub(crate) fn story(&self) -> Vec<String> {
        self.shared.story.lock().expect("no panic").clone()
    }

    /// Waits until the story has this line.
    pub(crate) async fn told(&self, line: &str) {
        let wait = async {
            while !self.story().iter().any(|told| told == line) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect("it comes soon");
    }

    /// Steps that began in a stage.
    pub(crate) fn steps(&self, stage: &str) -> usize {
        self.shared.steps.lock().expect("no panic").get(stage).copied().unwrap_or(0)
    }

    pub(crate) fn spec(&self, container: &str) -> Option<ContainerSpec> {
        self.shared.specs.lock().expect("no panic").iter().find(|spec| spec.name == container).cloned()
    }

    pub(crate) fn build_request(&self) -> Option<BuildRequest> {
        self.shared.build.lock().expect("no panic").clone()
    }

    pub(crate) fn build_of(&self, stage: &str) -> Option<BuildRequest> {
        self.shared.builds.lock().expect("no panic").get(stage).cloned()
    }

    pub(crate) fn setup_request(&self) -> Option<SetupRequest> {
        self.shared.setup.lock().expect("no panic").clone()
    }
}

struct Scripted {
    shared: Arc<Shared>,
    store: Store,
}

fn broken(message: &str, command_code: Option<i32>) -> EngineError {
    EngineError { message: message.into(), hint: None, command_code, source: None }
}

fn failed_step() -> BuildError {
    BuildError::Step(Box::new(FailedStep {
        text: "RUN false".into(),
        place: None,
        exit: Exit { code: 2, ..Exit::default() },
        tail: Vec::new(),
        earlier_lines: 0,
        duration: Duration::ZERO,
        kept: None,
    }))
}

#[async_trait]
impl Engine for Scripted {
    async fn build(&self, request: BuildRequest, _: &EventSink) -> Result<Built, BuildError> {
        let stage = request.stage.clone();
        let is_one_of_several = stage.contains('/');
        if is_one_of_several {
            self.shared.tell(format!("build {stage}"));
        }
        self.shared.builds.lock().expect("no panic").insert(stage.clone(), request.clone());
        *self.shared.build.lock().expect("no panic") = Some(request);
        let script = self.shared.script();
        if script.build_fails || script.fails_at.as_ref() == Some(&stage) {
            return Err(failed_step());
        }
        let mut config = ImageConfig::scratch(&Platform::host());
        config.config.cmd = Some(["/serve", "--port", "80"].map(str::to_owned).into());
        let version = script.version.as_deref().unwrap_or("2.7");
        config.config.env = vec!["IMAGE=yes".into(), format!("VERSION={version}")];
        if let Some(label) = script.label.as_ref().or(script.version.as_ref()) {
            config.config.labels.insert(registry::VERSION_ANNOTATION.into(), label.clone());
        }
        config.config.stop_signal = "SIGQUIT".into();
        let scope = self.store.open_scope().expect("a scope");
        let snapshot = self.store.prepare(&scope, None).expect("a snapshot");
        let (content, id) = match is_one_of_several {
            true => (stage.as_str(), format!("root of {stage}")),
            false => ("content", "root".to_owned()),
        };
        std::fs::write(snapshot.upper().join("file"), content).expect("written");
        let layer = snapshot.commit().expect("committed");
        Ok(Built {
            root: Root { id, config },
            layers: vec![layer],
            epoch: SystemTime::UNIX_EPOCH,
            steps: 2,
            steps_cached: 1,
            saved: Duration::ZERO,
            bases: Vec::new(),
            materials: Vec::new(),
            unpublishable: script.unpublishable,
        })
    }

    async fn seal(&self, built: &Built) -> Result<(store::Image, store::SealedManifest), EngineError> {
        let mut config = built.root.config.clone();
        for layer in &built.layers {
            config.rootfs.diff_ids.push(self.store.diff_id(layer, built.epoch).expect("readable").0);
        }
        let image = self.store.put_image(&config, &built.layers, built.epoch).expect("stored");
        let manifest = self.store.manifest(&image, Compression::Gzip).expect("sealed");
        Ok((image, manifest))
    }

    async fn root(&self, _: &store::Image) -> Result<Root, EngineError> {
        Err(broken("not asked for", None))
    }

    async fn image(&self, request: ImageRequest, _: &EventSink) -> Result<ResolvedImage, BuildError> {
        let name = request.reference.familiar();
        self.shared.tell(format!("image {name}"));
        let root = Root { id: format!("root of {name}"), config: ImageConfig::scratch(&Platform::host()) };
        Ok(ResolvedImage { root, id: Digest::of(name.as_bytes()) })
    }

    /// Of what a file says; directories are not asked for.
    async fn content(&self, path: &Path) -> Result<Digest, EngineError> {
        Ok(Digest::of(&std::fs::read(path).expect("a file")))
    }

    async fn open_scope(&self, _: RunId) -> Result<Box<dyn Scope>, EngineError> {
        Ok(Box::new(ScriptedScope(Arc::clone(&self.shared))))
    }
}

struct ScriptedScope(Arc<Shared>);

#[async_trait]
impl Scope for ScriptedScope {
    async fn setup(&self, request: SetupRequest, _: &EventSink) -> Result<Root, BuildError> {
        let root = Root { id: format!("{}+setup", request.root.id), config: request.root.config.clone() };
        *self.0.setup.lock().expect("no panic") = Some(request);
        if self.0.script().setup_fails { Err(failed_step()) } else { Ok(root) }
    }

    async fn start(&self, spec: ContainerSpec) -> Result<Box<dyn Container>, EngineError> {
        let mut act = self.0.script().acts.get(&spec.name).cloned().unwrap_or_default();
        let started = {
            let mut starts = self.0.starts.lock().expect("no panic");
            let started = starts.entry(spec.name.clone()).or_default();
            *started += 1;
            *started
        };
        if let Some(code) = act.then.get(started.wrapping_sub(2)).or(act.then.last()).filter(|_| started > 1) {
            act.code = *code;
        }
        if act.no_program {
            return Err(broken("no `/bin/sh` in the image", Some(127)));
        }
        if act.breaks {
            return Err(broken("the engine broke", None));
        }
        self.0.tell(format!("start {}", spec.name));
        self.0.specs.lock().expect("no panic").push(spec.clone());
        let container = ScriptedContainer {
            shared: Arc::clone(&self.0),
            act,
            spec,
            started: tokio::time::Instant::now(),
            stopped: Notify::new(),
            exit: Mutex::new(None),
            probed: Mutex::new(0),
        };
        container.say();
        Ok(Box::new(container))
    }

    async fn close(&mut self) -> Result<(), EngineError> {
        self.0.tell("close");
        if self.0.script().close_fails { Err(broken("cannot close", None)) } else { Ok(()) }
    }
}

struct ScriptedContainer {
    shared: Arc<Shared>,
    act: Act,
    spec: ContainerSpec,
    started: tokio::time::Instant,
    stopped: Notify,
    exit: Mutex<Option<Exit>>,
    probed: Mutex<usize>,
}

impl ScriptedContainer {
    fn say(&self) {
        let Stdio::Sink(sink) = &self.spec.stdio else { return };
        sink(self.act.says.as_bytes());
        if let Some((name, text)) = &self.act.report {
            let mount = self.spec.mounts.iter().find(|mount| !mount.readonly).expect("a place for reports");
            std::fs::write(Path::new(&mount.source).join(name), text).expect("written");
        }
    }

    fn scripted(&self) -> Exit {
        let (out_of_memory, out_of_pids) =
            (matches!(self.act.out_of, Some(Limit::Memory)), matches!(self.act.out_of, Some(Limit::Pids)));
        Exit { code: self.act.code, out_of_memory, out_of_pids, ..Exit::default() }
    }

    fn on_host(&self) -> Exit {
        let Stdio::Sink(sink) = &self.spec.stdio else { return Exit::default() };
        let output = std::process::Command::new(&self.spec.args[0])
            .args(&self.spec.args[1..])
            .env_clear()
            .envs(self.spec.env.iter().cloned())
            .output()
            .expect("the host has a shell");
        // In small pieces, as pipes give them.
        output.stdout.chunks(5).chain(output.stderr.chunks(5)).for_each(|piece| sink(piece));
        Exit { code: output.status.code().unwrap_or(-1), ..Exit::default() }
    }
}

#[async_trait]
impl Container for ScriptedContainer {
    async fn wait(&self) -> Result<Exit, EngineError> {
        if let Some(exit) = self.exit.lock().expect("no panic").clone() {
            return Ok(exit);
        }
        if self.act.hangs {
            self.stopped.notified().await;
        }
        tokio::time::sleep_until(self.started + self.act.takes).await;
        let exit = if self.act.host { self.on_host() } else { self.scripted() };
        let exit = self.exit.lock().expect("no panic").get_or_insert(exit).clone();
        self.shared.tell(format!("end {}", self.spec.name));
        Ok(exit)
    }

    async fn exec(&self, spec: ExecSpec) -> Result<Exit, EngineError> {
        let mut probed = self.probed.lock().expect("no panic");
        let code = self.act.probes.get(*probed).or(self.act.probes.last()).copied().unwrap_or(0);
        *probed += 1;
        if let Stdio::Sink(sink) = &spec.stdio {
            sink(format!("probe says {code}\n").as_bytes());
        }
        Ok(Exit { code, ..Exit::default() })
    }

    async fn freeze(&self, frozen: bool) -> Result<(), EngineError> {
        self.shared.tell(format!("{} {}", if frozen { "freeze" } else { "thaw" }, self.spec.name));
        Ok(())
    }

    async fn keep(&self, _time: Duration) -> Result<Option<String>, EngineError> {
        Ok(Some(format!("kept-{}", self.spec.name)))
    }

    async fn stop(&self, signal: i32, grace: Duration) -> Result<Exit, EngineError> {
        self.shared.tell(format!("stop {} {signal} {}", self.spec.name, pipeline::duration::human(grace)));
        let exit = Exit { code: 128 + signal, signal: Some(signal), ..Exit::default() };
        let exit = self.exit.lock().expect("no panic").get_or_insert(exit).clone();
        self.stopped.notify_waiters();
        Ok(exit)
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

#[async_trait]
impl Registry for Scripted {
    async fn push_blobs(
        &self,
        repository: &Reference,
        blobs: &[Descriptor],
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<(), RegistryError> {
        for blob in blobs {
            assert_eq!(store.has_blob(&blob.digest), Some(blob.size), "what is pushed is in the store");
            progress.advance(&blob.digest, blob.size, blob.size);
        }
        self.shared.tell(format!("upload {repository}"));
        Ok(())
    }

    async fn publish_files(
        &self,
        target: &Target,
        _: Option<&Login>,
        packages: &[Package],
        is_dry: bool,
        told: &mut (dyn for<'p> FnMut(&'p Package, State) + Send),
    ) -> Result<(), PublishError> {
        for package in packages {
            self.shared.tell(format!("{} {} to {target}", if is_dry { "look" } else { "send" }, package.file_name));
            told(package, if is_dry { State::Absent } else { State::Sent });
        }
        Ok(())
    }

    async fn put_manifest(&self, reference: &Reference, _: &str, bytes: &[u8]) -> Result<Digest, RegistryError> {
        if self.shared.script().registry_fails {
            let kind = ErrorKind::Unauthorized { message: String::new() };
            return Err(RegistryError { action: "push", target: reference.to_string(), kind });
        }
        self.shared.tell(format!("manifest {reference}"));
        Ok(Digest::of(bytes))
    }

    async fn attach(&self, repository: &Reference, attachments: &[Attachment]) -> Result<(), RegistryError> {
        self.shared.tell(format!("attach {} to {repository}", attachments.len()));
        Ok(())
    }

    async fn list_tags(&self, _: &Reference) -> Result<Vec<String>, RegistryError> {
        Ok(Vec::new())
    }

    async fn digest_of(&self, _: &Reference) -> Result<Option<Digest>, RegistryError> {
        Ok(None)
    }

    async fn version_of(&self, _: &Reference) -> Result<Option<ImageVersion>, RegistryError> {
        Ok(None)
    }

    async fn retag(&self, _: &Reference, _: &str, _: &str) -> Result<(), RegistryError> {
        Ok(())
    }

    async fn remove_tag(&self, _: &Reference) -> Result<(), RegistryError> {
        Ok(())
    }

    async fn put_tags(
        &self,
        repository: &Reference,
        tags: &[String],
        _: &TagCondition,
        media_type: &str,
        manifest: &[u8],
        written: &mut (dyn FnMut(String) + Send),
    ) -> Result<(), RegistryError> {
        for tag in tags {
            self.put_manifest(&repository.with_tag(tag), media_type, manifest).await?;
            written(tag.clone());
        }
        Ok(())
    }
}
