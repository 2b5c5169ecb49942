//! The engine through its traits: containers run for real, so this test has a `main` of its own for the re-executed helper.

#[path = "it/network.rs"]
mod private_networks;
#[path = "it/web.rs"]
mod web;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant, UNIX_EPOCH},
};

use engine::{
    Attachment, BindMount, BuildContext, BuildError, BuildRequest, Cancel, ContainerSpec, DockerfileSource, Engine,
    ExecSpec, Exit, ImageRequest, Limits, NetworkMode, Root, Scope, SetupCommand, SetupRequest, Stdio, Surroundings,
    VolumeMount,
};
use engine_embedded::{Embedded, EmbeddedOptions, sweep};
use events::{Event, EventSink, Record, RunId, Subscriber};
use oci::{Digest, Platform};
use private_networks::{
    networks_are_there_for_setup, networks_are_there_with_another_runtime, networks_containers_talk_by_name,
    networks_have_their_own_names_and_ways, networks_lead_out_but_not_to_the_loopback,
    networks_of_the_killed_are_swept, networks_publish_ports, networks_scopes_are_apart, ordinary_users,
    victim_of_networks,
};
use runtime::Privilege;
use store::{Compression, Store, StoreOptions};
use testkit::Test;
use web::{
    checksums_are_verified, contexts_come_from_the_web, credentials_stay_with_their_host, failures_of_the_web_are_told,
    files_of_the_web_are_added, unchanged_files_are_not_fetched_again,
};

type AsyncTest = fn(World) -> std::pin::Pin<Box<dyn Future<Output = ()>>>;

macro_rules! tests {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), |world| Box::pin($name(world)))),*] };
}

const TESTS: &[(&str, AsyncTest)] = tests![
    builds_and_seals,
    containers_start_fresh_and_end,
    output_is_whole_when_wait_returns,
    exec_and_stop,
    starting_what_is_not_there,
    setup_is_cached_by_content,
    setup_failure_names_the_command,
    scope_closes_everything,
    sweep_undoes_a_killed_process,
    many_containers_at_once,
    unreachable_registry_gives_a_hint,
    what_a_container_wrote_is_a_root_later,
    images_are_found_by_name,
    volumes_are_shared_and_begin_as_the_image_has_them,
    files_of_the_web_are_added,
    unchanged_files_are_not_fetched_again,
    checksums_are_verified,
    failures_of_the_web_are_told,
    credentials_stay_with_their_host,
    contexts_come_from_the_web,
    networks_containers_talk_by_name,
    networks_scopes_are_apart,
    networks_have_their_own_names_and_ways,
    networks_lead_out_but_not_to_the_loopback,
    networks_publish_ports,
    networks_are_there_for_setup,
    networks_are_there_with_another_runtime,
    networks_of_the_killed_are_swept,
];

/// A hang is longer, a busy machine is not.
const PATIENCE: Duration = Duration::from_secs(30);

static PRIVILEGE: OnceLock<Privilege> = OnceLock::new();

fn main() -> std::process::ExitCode {
    runtime::run_if_reexecuted();
    let privilege = runtime::enter().expect("the kernel lets us become root of something");
    if let Privilege::None { reason } = &privilege {
        testkit::skip(format_args!("containers cannot be started here: {reason}"));
        return std::process::ExitCode::SUCCESS;
    }
    PRIVILEGE.set(privilege).expect("set once");
    if std::env::var_os("SEATRIAL_TEST_VICTIM").is_some() {
        async_runtime().block_on(victim_of_networks(World::new()));
    }
    let in_world = |(name, test): &(&'static str, AsyncTest)| {
        let test = *test;
        Test::new(*name, move || async_runtime().block_on(test(World::new())))
    };
    // Those at the front take longest.
    testkit::run_tests(ordinary_users().into_iter().chain(TESTS.iter().map(in_world)).collect())
}

fn async_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// An engine on a store with a base made of this machine's shell.
struct World {
    dir: tempfile::TempDir,
    store: Store,
    engine: Embedded,
    events: EventSink,
    recorder: Arc<Recorder>,
}

#[derive(Default)]
struct Recorder(Mutex<Vec<Event>>);

impl Subscriber for Recorder {
    fn event(&self, record: &Record) {
        self.0.lock().unwrap().push(record.event.clone());
    }
}

impl World {
    fn new() -> Self {
        Self::by(None)
    }

    /// With containers by another runtime.
    fn by(foreign_runtime: Option<PathBuf>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let privilege = PRIVILEGE.get().unwrap().clone();
        let options = StoreOptions {
            copy_snapshots: !runtime::overlay_works(dir.path()),
            user_xattr: !matches!(privilege, Privilege::Root { .. }),
            ignore_chown_errors: privilege == Privilege::SingleId,
        };
        let store = Store::open(&dir.path().join("store"), options).unwrap();
        let client = Arc::new(|| registry::Client::new(registry::ClientOptions { retries: 0, ..Default::default() }));
        let engine = Embedded::new(EmbeddedOptions {
            store: store.clone(),
            privilege,
            foreign_runtime,
            client,
            default_network: runtime::Network::Host,
            compression: Compression::Gzip,
            trust: std::sync::Arc::default(),
        });
        let recorder = Arc::new(Recorder::default());
        let events = EventSink::new(vec![recorder.clone()]);
        fs::create_dir(dir.path().join("context")).unwrap();
        let world = Self { dir, store, engine, events, recorder };
        world.copy_tools(&["sh", "cat", "sleep", "echo", "id", "seq", "true", "touch", "ls", "head", "yes", "kill"]);
        world
    }

    fn context(&self) -> PathBuf {
        self.dir.path().join("context")
    }

    /// Puts programs with their libraries into the context, for `COPY root /`.
    fn copy_tools(&self, tools: &[&str]) {
        let root = self.context().join("root");
        for name in ["bin", "tmp", "etc", "dev", "proc", "sys"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        for tool in tools {
            let Some(path) =
                ["/usr/bin", "/bin"].iter().map(|dir| Path::new(dir).join(tool)).find(|path| path.exists())
            else {
                continue;
            };
            fs::copy(fs::canonicalize(&path).unwrap(), root.join("bin").join(tool)).unwrap();
            let output = Command::new("ldd").arg(&path).output().unwrap();
            for word in String::from_utf8_lossy(&output.stdout).split_whitespace().filter(|word| word.starts_with('/'))
            {
                let target = root.join(&word[1..]);
                fs::create_dir_all(target.parent().unwrap()).unwrap();
                fs::copy(word, target).unwrap();
            }
        }
    }

    fn request(&self, dockerfile: &str) -> BuildRequest {
        BuildRequest {
            stage: "build".into(),
            context: BuildContext::Directory(self.context()),
            dockerfile: DockerfileSource { name: "Dockerfile".into(), path: None, text: dockerfile.into() },
            build_contexts: BTreeMap::new(),
            target: None,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            platform: Platform::host(),
            network: NetworkMode::None,
            extra_hosts: Vec::new(),
            run: engine::RunSettings::default(),
            no_cache: false,
            no_cache_filter: Vec::new(),
            pull: false,
            epoch: Some(UNIX_EPOCH + Duration::from_secs(1_700_000_000)),
            keep_failed: Duration::ZERO,
            cancel: Cancel::new(),
        }
    }

    async fn root(&self) -> Root {
        let request = self.request("FROM scratch\nCOPY root /\nENV PATH=/bin\n");
        self.engine.build(request, &self.events).await.unwrap().root
    }

    async fn scope(&self) -> Box<dyn Scope> {
        self.engine.open_scope(RunId(1)).await.unwrap()
    }

    /// Whether files can belong to others than root here.
    fn has_owners(&self) -> bool {
        *PRIVILEGE.get().unwrap() != Privilege::SingleId
    }

    fn made_steps(&self) -> usize {
        self.recorder.0.lock().unwrap().iter().filter(|event| matches!(event, Event::StepStarted { .. })).count()
    }
}

/// A container of the shell, and what it writes.
fn shell(root: &Root, script: &str) -> (ContainerSpec, Arc<Mutex<Vec<u8>>>) {
    let output = Arc::new(Mutex::new(Vec::new()));
    let sink = output.clone();
    let spec = ContainerSpec {
        name: "test".into(),
        root: root.clone(),
        args: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec![("PATH".into(), "/bin".into())],
        cwd: "/".into(),
        user: String::new(),
        mounts: Vec::new(),
        network: NetworkMode::None,
        attachment: Attachment::default(),
        surroundings: Surroundings::default(),
        limits: Limits::default(),
        init: true,
        stdio: Stdio::Sink(Arc::new(move |bytes| sink.lock().unwrap().extend_from_slice(bytes))),
    };
    (spec, output)
}

fn text(output: &Mutex<Vec<u8>>) -> String {
    String::from_utf8(output.lock().unwrap().clone()).unwrap()
}

fn exec(script: &str) -> (ExecSpec, Arc<Mutex<Vec<u8>>>) {
    let output = Arc::new(Mutex::new(Vec::new()));
    let sink = output.clone();
    let spec = ExecSpec {
        args: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec![("PATH".into(), "/bin".into())],
        cwd: "/".into(),
        user: String::new(),
        stdio: Stdio::Sink(Arc::new(move |bytes| sink.lock().unwrap().extend_from_slice(bytes))),
        timeout: None,
    };
    (spec, output)
}

async fn builds_and_seals(world: World) {
    let request = world.request("FROM scratch\nCOPY root /\nENV PATH=/bin\nRUN echo hi > /x\nLABEL a=b\n");
    let built = world.engine.build(request.clone(), &world.events).await.unwrap();
    let (image, sealed) = world.engine.seal(&built).await.unwrap();
    assert_eq!(image.config.rootfs.diff_ids.len(), 2);
    assert_eq!(sealed.manifest.layers.len(), 2);
    assert_eq!(sealed.manifest.config.digest, image.id);
    // Again, without a runtime, gives the same.
    let engine = world.engine.clone();
    let again = tokio::task::spawn_blocking(move || {
        let built = engine.build_blocking(&request, &EventSink::silent()).unwrap();
        assert_eq!(built.steps_cached, built.steps);
        engine.seal_blocking(&built).unwrap()
    });
    let (image_again, sealed_again) = again.await.unwrap();
    assert_eq!((image.id.clone(), sealed.digest), (image_again.id, sealed_again.digest));
    // The image's root can be started.
    let root = world.engine.root(&world.store.image(&image.id).unwrap().unwrap()).await.unwrap();
    let mut scope = world.scope().await;
    let (spec, output) = shell(&root, "cat /x");
    assert_eq!(scope.start(spec).await.unwrap().wait().await.unwrap().code, 0);
    assert_eq!(text(&output), "hi\n");
    scope.close().await.unwrap();
}

async fn containers_start_fresh_and_end(world: World) {
    let root = world.root().await;
    let mut scope = world.scope().await;
    for _ in 0..2 {
        let (spec, output) = shell(&root, "test ! -e /tmp/f && touch /tmp/f && echo fresh; exit 3");
        let container = scope.start(spec).await.unwrap();
        let exit = container.wait().await.unwrap();
        assert_eq!(exit, Exit { code: 3, ..Exit::default() });
        assert_eq!(container.wait().await.unwrap(), exit, "waiting is repeatable");
        assert_eq!(text(&output), "fresh\n");
    }
    let shared = world.dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("in"), "in\n").unwrap();
    let (mut spec, output) = shell(&root, "cat /m/in; echo out > /m/out; echo no > /ro/x; id -u");
    let mount = |target: &str, readonly| BindMount { source: shared.clone(), target: target.into(), readonly };
    spec.mounts = vec![mount("/m", false), mount("/ro", true)];
    scope.start(spec).await.unwrap().wait().await.unwrap();
    assert_eq!(fs::read_to_string(shared.join("out")).unwrap(), "out\n");
    assert!(text(&output).starts_with("in\n") && text(&output).ends_with("0\n"), "{}", text(&output));
    assert!(!shared.join("x").exists());
    scope.close().await.unwrap();
}

async fn output_is_whole_when_wait_returns(world: World) {
    let root = world.root().await;
    let mut scope = world.scope().await;
    let (spec, output) = shell(&root, "seq 200000; echo err >&2");
    scope.start(spec).await.unwrap().wait().await.unwrap();
    assert!(text(&output).ends_with("\n200000\nerr\n"));
    assert_eq!(text(&output).lines().count(), 200_001);
    scope.close().await.unwrap();
}

async fn exec_and_stop(world: World) {
    let root = world.root().await;
    let mut scope = world.scope().await;
    let (mut spec, output) =
        shell(&root, "trap 'echo bye; exit 5' TERM; echo up; touch /tmp/up; while true; do sleep 0.05; done");
    (spec.surroundings.cap_drop, spec.surroundings.cap_add) = (vec!["ALL".into()], vec!["KILL".into()]);
    spec.surroundings.no_new_privileges = true;
    let container = scope.start(spec).await.unwrap();
    let (probe, probed) = exec("until test -e /tmp/up; do sleep 0.02; done; echo probed; exit 4");
    assert_eq!(container.exec(probe).await.unwrap().code, 4);
    assert_eq!(text(&probed), "probed\n");
    // A later process may do what the container may, and no more.
    let (rights, read) = exec(
        "while read -r name value; do case $name in CapBnd:|NoNewPrivs:) echo $value;; esac; done </proc/self/status",
    );
    container.exec(rights).await.unwrap();
    assert_eq!(text(&read), "0000000000000020\n1\n");
    let (mut slow, _) = exec("sleep 60");
    slow.timeout = Some(Duration::from_millis(200));
    let start = Instant::now();
    assert!(container.exec(slow).await.unwrap().timed_out);
    assert!(start.elapsed() < PATIENCE);
    let (mut missing, _) = exec("");
    missing.args = vec!["nope".into()];
    assert_eq!(container.exec(missing).await.unwrap_err().command_code, Some(127));
    let exit = container.stop(15, Duration::from_secs(5)).await.unwrap();
    assert_eq!(exit.code, 5);
    assert_eq!(text(&output), "up\nbye\n");
    // One that ignores the signal is killed after the grace.
    let (spec, output) = shell(&root, "trap '' TERM; echo up; while true; do sleep 1; done");
    let stubborn = scope.start(spec).await.unwrap();
    while text(&output).is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let start = Instant::now();
    assert_eq!(stubborn.stop(15, Duration::from_millis(300)).await.unwrap().signal, Some(9));
    assert!(start.elapsed() < PATIENCE);
    scope.close().await.unwrap();
}

async fn starting_what_is_not_there(world: World) {
    let root = world.root().await;
    let mut scope = world.scope().await;
    let (mut spec, _) = shell(&root, "");
    spec.args = vec!["/bin/nope".into()];
    let error = scope.start(spec.clone()).await.err().expect("there is no such program");
    assert_eq!(error.command_code, Some(127));
    spec.args = vec!["sh".into()];
    spec.user = "nobody-here".into();
    let error = scope.start(spec).await.err().expect("there is no such user");
    assert_eq!(error.command_code, Some(126));
    scope.close().await.unwrap();
}

fn setup_request(root: &Root, scripts: &[&str], mounts: Vec<BindMount>) -> SetupRequest {
    let command = |script: &&str| SetupCommand {
        text: (*script).to_owned(),
        place: None,
        args: ["sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec![("PATH".into(), "/bin".into())],
        cwd: "/".into(),
        user: String::new(),
        files: Vec::new(),
    };
    SetupRequest {
        stage: "setup".into(),
        root: root.clone(),
        commands: scripts.iter().map(command).collect(),
        mounts,
        network: NetworkMode::None,
        masks: None,
        no_cache: false,
        keep_failed: Duration::from_secs(600),
        cancel: Cancel::new(),
    }
}

async fn setup_is_cached_by_content(world: World) {
    let root = world.root().await;
    let scope = world.scope().await;
    let shared = world.dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("f"), "one").unwrap();
    let mount = BindMount { source: shared.clone(), target: "/m".into(), readonly: true };
    let request = || setup_request(&root, &["cat /m/f > /f", "echo two >> /f"], vec![mount.clone()]);
    let before = world.made_steps();
    let first = scope.setup(request(), &world.events).await.unwrap();
    let second = scope.setup(request(), &world.events).await.unwrap();
    assert_eq!(world.made_steps() - before, 2);
    assert_eq!(first.id, second.id);
    let (spec, output) = shell(&second, "cat /f; ls /m 2>&1");
    scope.start(spec).await.unwrap().wait().await.unwrap();
    assert!(text(&output).starts_with("onetwo\n"), "{}", text(&output));
    fs::write(shared.join("f"), "changed").unwrap();
    let third = scope.setup(request(), &world.events).await.unwrap();
    assert_eq!(world.made_steps() - before, 4);
    assert_ne!(third.id, second.id);
}

async fn setup_failure_names_the_command(world: World) {
    let root = world.root().await;
    let scope = world.scope().await;
    let request = setup_request(&root, &["true", "echo oops; exit 9", "true"], Vec::new());
    let Err(BuildError::Step(step)) = scope.setup(request, &world.events).await else { panic!("it should fail") };
    assert_eq!(
        (step.text.as_str(), step.exit.code, step.tail.as_slice()),
        ("echo oops; exit 9", 9, &["oops".to_owned()][..])
    );
    // The kept root can be entered.
    let kept = Root { id: step.kept.unwrap().root, config: root.config.clone() };
    let (spec, output) = shell(&kept, "echo inside");
    scope.start(spec).await.unwrap().wait().await.unwrap();
    assert_eq!(text(&output), "inside\n");
}

async fn scope_closes_everything(world: World) {
    let root = world.root().await;
    let mut scope = world.scope().await;
    let (spec, _) = shell(&root, "sleep 100");
    let container = scope.start(spec).await.unwrap();
    let start = Instant::now();
    scope.close().await.unwrap();
    assert!(start.elapsed() < PATIENCE);
    assert_ne!(container.wait().await.unwrap().code, 0);
    drop((container, scope));
    let snapshots = fs::read_dir(world.store.root().join("snapshots")).unwrap();
    let unfinished =
        snapshots.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("tmp."));
    assert_eq!(unfinished.count(), 0);
}

async fn sweep_undoes_a_killed_process(world: World) {
    let directory = world.dir.path().join("left");
    fs::create_dir(&directory).unwrap();
    // A scope whose lock nobody holds, as a killed process leaves it.
    let scope = world.store.root().join("scopes/deadbeef");
    fs::create_dir_all(scope.join("tmp")).unwrap();
    fs::write(scope.join("lock"), "").unwrap();
    fs::write(scope.join("leases"), "").unwrap();
    let entries = [store::JournalEntry::Directory(directory.clone()), store::JournalEntry::Container("st-gone".into())];
    let lines: Vec<String> = entries.iter().map(|entry| format!("{entry:?}")).collect();
    assert_eq!(lines.len(), 2);
    fs::write(
        scope.join("journal"),
        format!("{{\"Directory\":{:?}}}\n{{\"Container\":\"st-gone\"}}\n", directory.display().to_string()),
    )
    .unwrap();
    sweep(&world.store).unwrap();
    assert!(!directory.exists() && !scope.exists());
}

async fn many_containers_at_once(world: World) {
    let root = world.root().await;
    let mut scope = world.scope().await;
    let mut started = Vec::new();
    for number in 0..12 {
        let (spec, output) = shell(&root, &format!("sleep 0.3; echo {number}"));
        started.push((scope.start(spec).await.unwrap(), output, number));
    }
    for (container, output, number) in &started {
        assert_eq!(container.wait().await.unwrap().code, 0);
        assert_eq!(text(output), format!("{number}\n"));
    }
    scope.close().await.unwrap();
}

async fn unreachable_registry_gives_a_hint(world: World) {
    // Nothing listens on the discard port of this machine.
    let request = world.request("FROM 127.0.0.1:9/nothing\nRUN true\n");
    let error = world.engine.build(request, &world.events).await.unwrap_err();
    let BuildError::Base { reference, source, is_auth, .. } = error else { panic!("{error:?}") };
    assert_eq!((reference.as_str(), is_auth), ("127.0.0.1:9/nothing", false));
    for hint in ["seatrial base", "seatrial load", "--build-context"] {
        assert!(source.to_string().contains(hint), "{source}");
    }
}

async fn what_a_container_wrote_is_a_root_later(world: World) {
    let key = Digest::of(b"initialised");
    let root = world.root().await;
    let mut scope = world.scope().await;
    assert!(scope.saved(&key).await.unwrap().is_none());
    let (spec, _) = shell(&root, "echo data > /tmp/data; rm /etc/gone 2>/dev/null; sleep 60");
    let container = scope.start(spec).await.unwrap();
    let (probe, _) = exec("until test -s /tmp/data; do sleep 0.02; done");
    container.exec(probe).await.unwrap();
    container.stop(15, Duration::from_secs(5)).await.unwrap();
    let saved = container.save(&key).await.unwrap().expect("the engine can");
    assert!(container.save(&key).await.unwrap().is_none(), "it is given away once");
    scope.close().await.unwrap();
    // Another run forks it, twice, and neither sees the other.
    let mut scope = world.scope().await;
    let found = scope.saved(&key).await.unwrap().expect("it is known");
    assert_eq!((&found.id, &found.config), (&saved.id, &root.config));
    for _ in 0..2 {
        let (spec, output) = shell(&found, "cat /tmp/data; echo more >> /tmp/data");
        scope.start(spec).await.unwrap().wait().await.unwrap();
        assert_eq!(text(&output), "data\n");
    }
    let other = Digest::of(b"other");
    assert!(scope.saved(&other).await.unwrap().is_none());
    scope.close().await.unwrap();
    // What prune takes away is missed, and is no error.
    world.store.prune(&store::PruneOptions { unused_for: Some(Duration::ZERO), ..Default::default() }).unwrap();
    let mut scope = world.scope().await;
    assert!(scope.saved(&key).await.unwrap().is_none());
    scope.close().await.unwrap();
}

async fn images_are_found_by_name(world: World) {
    let request = world.request("FROM scratch\nCOPY root /\nENV A=b\n");
    let built = world.engine.build(request, &world.events).await.unwrap();
    let (image, _) = world.engine.seal(&built).await.unwrap();
    let reference: oci::Reference = "localhost/tools:1".parse().unwrap();
    world.store.tag(&reference, &image.id).unwrap();
    let request = |name: &str| ImageRequest {
        stage: "db".into(),
        reference: name.parse().unwrap(),
        platform: Platform::host(),
        pull: engine::Pull::Missing,
        place: None,
        verify: Vec::new(),
        cancel: Cancel::new(),
    };
    let found = world.engine.image(request("localhost/tools:1"), &world.events).await.unwrap();
    assert_eq!((&found.id, found.root.id), (&image.id, built.root.id));
    assert!(found.root.config.config.env.contains(&"A=b".to_owned()));
    let never = |name: &str| ImageRequest { pull: engine::Pull::Never, ..request(name) };
    assert_eq!(world.engine.image(never("localhost/tools:1"), &world.events).await.unwrap().id, image.id);
    let error = world.engine.image(never("127.0.0.1:9/nothing"), &world.events).await.unwrap_err();
    let BuildError::Base { source, .. } = &error else { panic!("{error:?}") };
    assert!(source.to_string().contains("`pull_policy: never`"), "{source}");
    let error = world.engine.image(request("127.0.0.1:9/nothing"), &world.events).await.unwrap_err();
    assert!(matches!(&error, BuildError::Base { reference, .. } if reference == "127.0.0.1:9/nothing"), "{error:?}");
}

async fn volumes_are_shared_and_begin_as_the_image_has_them(world: World) {
    let dockerfile = "FROM scratch\nCOPY root /\nENV PATH=/bin\nRUN echo first > /tmp/both; echo old > /tmp/gone\n\
                      RUN echo second > /tmp/more; rm /tmp/gone\n";
    world.copy_tools(&["rm"]);
    let root = world.engine.build(world.request(dockerfile), &world.events).await.unwrap().root;
    let mut scope = world.scope().await;
    let volume = |readonly| VolumeMount { name: "a volume".into(), target: "/tmp".into(), readonly, is_lasting: false };
    let (mut writer, output) = shell(&root, "ls /tmp; echo third > /tmp/last");
    writer.surroundings.volumes = vec![volume(false)];
    scope.start(writer).await.unwrap().wait().await.unwrap();
    assert_eq!(text(&output), "both\nmore\n");
    let (mut reader, output) = shell(&root, "cat /tmp/last; touch /tmp/x || echo refused");
    reader.surroundings.volumes = vec![volume(true)];
    scope.start(reader).await.unwrap().wait().await.unwrap();
    assert!(text(&output).starts_with("third\n") && text(&output).ends_with("refused\n"), "{}", text(&output));
    let (alone, output) = shell(&root, "ls /tmp");
    scope.start(alone).await.unwrap().wait().await.unwrap();
    assert_eq!(text(&output), "both\nmore\n", "the image itself is as it was");
    scope.close().await.unwrap();
}
