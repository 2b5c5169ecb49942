//! `latest` and short versions against real registries: forward only, whoever comes first.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use evidence::Attachment;
use futures::future::BoxFuture;
use oci::{Descriptor, Digest, Reference};
use packages::{Login, Package, PublishError, State, Target};
use pipeline::{Foreseen, Outcome, Registry, RunOptions, TagFate};
use registry::{Client, ClientOptions, ImageVersion, Progress, RegistryError, Server, ServerOptions, TagCondition};
use store::Store;

use crate::{publish, script::World};

/// Our own registry, for as long as this lives.
struct Own {
    address: SocketAddr,
    serving: tokio::task::JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl Own {
    async fn start() -> Own {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let address = (std::net::Ipv4Addr::LOCALHOST, 0).into();
        let server = Server::bind(address, directory.path(), ServerOptions::default()).await.expect("a server");
        let address = server.local_addr();
        let serving = tokio::spawn(async move { server.serve(std::future::pending()).await.expect("it serves") });
        Own { address, serving, _directory: directory }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Debian's docker-registry, which knows neither conditions nor several tags at once.
struct Docker {
    address: SocketAddr,
    child: Child,
    _directory: tempfile::TempDir,
}

impl Docker {
    fn start() -> Option<Docker> {
        if !testkit::has_tool("docker-registry") {
            return None;
        }
        let directory = tempfile::tempdir().expect("a temporary directory");
        let free = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = free.local_addr().expect("bound");
        drop(free);
        let config = directory.path().join("config.yml");
        let data = directory.path().join("data");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{address}\"}}\n",
            data.display()
        );
        std::fs::write(&config, text).expect("written");
        let mut command = Command::new("docker-registry");
        let child = command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let registry = Docker { address, child: child.expect("it starts"), _directory: directory };
        let begun = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn client() -> Client {
    Client::new(ClientOptions::default())
}

fn world(address: SocketAddr, version: &str) -> World {
    world_of(address, "team/app", version)
}

fn world_of(address: SocketAddr, repository: &str, version: &str) -> World {
    let tags = "[\"${version}\", \"1\", latest]";
    World::new(&format!(
        "image: {address}/{repository}\nhealth: false\nversion: {{env: VERSION}}\npublish: {{tags: {tags}}}\n"
    ))
    .version(version)
}

async fn names(address: SocketAddr, tag: &str) -> Digest {
    name_of(address, "team/app", tag).await
}

async fn name_of(address: SocketAddr, repository: &str, tag: &str) -> Digest {
    let reference: Reference = format!("{address}/{repository}:{tag}").parse().expect("a reference");
    client().resolve(&reference).await.expect("the tag is there").digest
}

fn kept(outcome: &Outcome) -> Vec<(String, String)> {
    let tag = |reference: &str| reference.rsplit(':').next().unwrap_or_default().to_owned();
    outcome.kept_tags.iter().map(|kept| (tag(&kept.reference), kept.reason.clone())).collect()
}

async fn check_releases(address: SocketAddr) {
    let release = async |version: &str| {
        let outcome = world(address, version).run_with(&publish(), Some(&client())).await.expect("an outcome");
        let digest = outcome.image.as_ref().and_then(|image| image.digest.clone()).expect("it was sealed");
        (outcome, digest)
    };
    let (first, one) = release("1.9.0").await;
    assert_eq!(first.published.len(), 3);
    let (second, two) = release("1.10.0").await;
    assert!(one != two && kept(&second).is_empty());
    // A fix for the older line gets its own name only.
    let (fix, three) = release("1.9.1").await;
    let reason = "it names 1.10.0, which is higher".to_owned();
    assert_eq!(kept(&fix), [("1".into(), reason.clone()), ("latest".into(), reason)]);
    assert_eq!(fix.published.len(), 1);
    let found = (names(address, "1.9.1").await, names(address, "1").await, names(address, "latest").await);
    assert_eq!(found, (three, two.clone(), two));
    // The same again is no move, and writes nothing.
    let registry = Interrupted::new(None);
    let again = world(address, "1.10.0").run_with(&publish(), Some(&registry)).await.expect("an outcome");
    assert_eq!((again.published.len(), again.kept_tags.len(), registry.writes.into_inner()), (3, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fix_of_an_older_version_leaves_latest_where_it_is() {
    let own = Own::start().await;
    check_releases(own.address).await;
    if let Some(docker) = Docker::start() {
        check_releases(docker.address).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_publishing_would_do_is_told_and_nothing_is_written() {
    let own = Own::start().await;
    let dry = RunOptions { dry_run: true, ..publish() };
    let foresee = async |version: &str| {
        let outcome = world(own.address, version).run_with(&dry, Some(&client())).await.expect("an outcome");
        assert!(outcome.published.is_empty());
        assert_eq!(outcome.not_published.as_deref(), Some("`--dry-run` was given"));
        outcome.foreseen.into_iter().map(|Foreseen { fate, .. }| fate).collect::<Vec<_>>()
    };
    assert_eq!(foresee("1.3.0").await, [TagFate::New, TagFate::New, TagFate::New]);
    let repository: Reference = format!("{}/team/app", own.address).parse().expect("a reference");
    assert!(client().list_tags(&repository).await.is_err(), "the registry has heard of nothing");
    world(own.address, "1.3.0").run_with(&publish(), Some(&client())).await.expect("an outcome");
    assert_eq!(foresee("1.3.0").await, [TagFate::IsThere, TagFate::IsThere, TagFate::IsThere]);
    let moves = || TagFate::Moves("1.3.0".into());
    assert_eq!(foresee("1.4.0").await, [TagFate::New, moves(), moves()]);
    let stays = || TagFate::Stays("it names 1.3.0, which is higher".into());
    assert_eq!(foresee("1.2.9").await, [TagFate::New, stays(), stays()]);
}

type Meanwhile = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// A registry in which something happens between our looking at a tag and our moving it.
struct Interrupted {
    client: Client,
    /// Manifests and names that were sent.
    writes: AtomicUsize,
    meanwhile: Mutex<Option<Meanwhile>>,
}

impl Interrupted {
    fn new(meanwhile: Option<Meanwhile>) -> Self {
        Self { client: client(), writes: AtomicUsize::new(0), meanwhile: Mutex::new(meanwhile) }
    }
}

#[async_trait]
impl Registry for Interrupted {
    async fn push_blobs(
        &self,
        repository: &Reference,
        blobs: &[Descriptor],
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<(), RegistryError> {
        Registry::push_blobs(&self.client, repository, blobs, store, progress).await
    }

    async fn put_manifest(&self, reference: &Reference, kind: &str, bytes: &[u8]) -> Result<Digest, RegistryError> {
        self.writes.fetch_add(1, Relaxed);
        Registry::put_manifest(&self.client, reference, kind, bytes).await
    }

    async fn attach(&self, repository: &Reference, attachments: &[Attachment]) -> Result<(), RegistryError> {
        Registry::attach(&self.client, repository, attachments).await
    }

    async fn publish_files(
        &self,
        target: &Target,
        login: Option<&Login>,
        packages: &[Package],
        is_dry: bool,
        told: &mut (dyn for<'p> FnMut(&'p Package, State) + Send),
    ) -> Result<(), PublishError> {
        self.client.publish_files(target, login, packages, is_dry, told).await
    }

    async fn list_tags(&self, repository: &Reference) -> Result<Vec<String>, RegistryError> {
        Registry::list_tags(&self.client, repository).await
    }

    async fn digest_of(&self, reference: &Reference) -> Result<Option<Digest>, RegistryError> {
        Registry::digest_of(&self.client, reference).await
    }

    async fn version_of(&self, image: &Reference) -> Result<Option<ImageVersion>, RegistryError> {
        Registry::version_of(&self.client, image).await
    }

    async fn retag(&self, repository: &Reference, from: &str, to: &str) -> Result<(), RegistryError> {
        Registry::retag(&self.client, repository, from, to).await
    }

    async fn remove_tag(&self, reference: &Reference) -> Result<(), RegistryError> {
        Registry::remove_tag(&self.client, reference).await
    }

    async fn put_tags(
        &self,
        repository: &Reference,
        tags: &[String],
        condition: &TagCondition,
        media_type: &str,
        manifest: &[u8],
        written: &mut (dyn FnMut(String) + Send),
    ) -> Result<(), RegistryError> {
        self.writes.fetch_add(1, Relaxed);
        if *condition != TagCondition::Any {
            let meanwhile = self.meanwhile.lock().expect("no panic").take();
            if let Some(meanwhile) = meanwhile {
                meanwhile().await;
            }
        }
        Registry::put_tags(&self.client, repository, tags, condition, media_type, manifest, written).await
    }
}

/// The second run is done from beginning to end while the first one is about to move its tags.
async fn check_race(
    address: SocketAddr,
    repository: &str,
    (first, second): (&'static str, &'static str),
    higher: &str,
) {
    let meanwhile: Meanwhile = {
        let world = world_of(address, repository, second);
        Box::new(move || {
            Box::pin(async move {
                world.run_with(&publish(), Some(&client())).await.map(drop).expect("an outcome");
            })
        })
    };
    let interrupted = Interrupted::new(Some(meanwhile));
    let outcome = world_of(address, repository, first).run_with(&publish(), Some(&interrupted)).await;
    let outcome = outcome.expect("an outcome");
    let winner = name_of(address, repository, higher).await;
    for tag in ["latest", "1"] {
        assert_eq!(name_of(address, repository, tag).await, winner, "{tag}: {first} then {second}");
    }
    assert_eq!(outcome.kept_tags.is_empty(), higher == first, "{:?}", outcome.kept_tags);
    // What is told as written is what is there.
    assert_eq!(outcome.published.len(), if higher == first { 3 } else { 1 }, "{:?}", outcome.published);
}

/// In both orders, also where the tags are not there yet, and where both have no version in common but the numbers.
async fn check_races(address: SocketAddr) {
    for (number, (first, second)) in
        [("1.2.4", "1.3.0"), ("1.3.0", "1.2.4"), ("1.9.0", "1.10.0"), ("1.10.0", "1.9.0")].into_iter().enumerate()
    {
        let higher = if matches!(first, "1.3.0" | "1.10.0") { first } else { second };
        for is_there in [false, true] {
            let repository = format!("race/{number}-{is_there}");
            if is_there {
                let before = world_of(address, &repository, "1.0.0");
                before.run_with(&publish(), Some(&client())).await.expect("an outcome");
            }
            check_race(address, &repository, (first, second), higher).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_runs_that_race_the_higher_version_wins() {
    check_races(Own::start().await.address).await;
    // It writes whatever the condition: the one that wrote looks again, and puts right what it wrote over.
    if let Some(docker) = Docker::start() {
        check_races(docker.address).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_runs_at_once_the_highest_version_wins() {
    let own = Own::start().await;
    let address = own.address;
    let mut runs = tokio::task::JoinSet::new();
    for minor in [3, 7, 1, 8, 2, 6, 5, 4] {
        runs.spawn(async move {
            let outcome = world(address, &format!("1.{minor}.0")).run_with(&publish(), Some(&client())).await;
            outcome.map(drop).expect("an outcome");
        });
    }
    runs.join_all().await;
    assert_eq!(names(address, "latest").await, names(address, "1.8.0").await);
    assert_eq!(names(address, "1").await, names(address, "1.8.0").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_of_branch_and_commit_move_freely() {
    let own = Own::start().await;
    let yaml = format!(
        "image: {}/team/app\nhealth: false\npublish: {{tags: [\"${{git.branch}}\", \"${{git.short}}\"]}}\n",
        own.address
    );
    for version in ["1.3.0", "1.2.0"] {
        // A branch that looks like a short version is a branch.
        let world = World::new(&yaml).version(version).source("1.2", "push");
        let outcome = world.run_with(&publish(), Some(&client())).await.expect("an outcome");
        assert_eq!((outcome.published.len(), outcome.kept_tags.len()), (2, 0));
        assert_eq!(Some(names(own.address, "1.2").await), outcome.image.and_then(|image| image.digest));
    }
}

/// Two machines, each with a store of its own that numbers its runs from 1.
async fn check_numbers(address: SocketAddr, each: usize, removes_tags: bool) {
    let yaml =
        format!("image: {address}/team/numbers\nhealth: false\npublish: {{tags: [\"build-${{run.number}}\"]}}\n");
    let mut machines = tokio::task::JoinSet::new();
    for machine in ["one", "two"] {
        let mut world = World::new(&yaml).version(machine);
        machines.spawn(async move {
            let mut numbers = Vec::new();
            for _ in 0..each {
                let outcome = world.run_with(&publish(), Some(&client())).await.expect("an outcome");
                let name = &outcome.published.first().expect("it is published").reference;
                let number = name.rsplit_once("build-").expect("a number").1;
                numbers.push(number.parse::<u64>().expect("a number"));
                world = world.again();
            }
            numbers
        });
    }
    let machines = machines.join_all().await;
    for numbers in &machines {
        assert!(numbers.is_sorted_by(|one, other| one < other), "{numbers:?}");
    }
    let all: std::collections::BTreeSet<u64> = machines.iter().flatten().copied().collect();
    assert_eq!(all.len(), 2 * each, "none is given twice: {machines:?}");

    // Of the claims only the last one stays, where tags can be removed, and so the count goes on. Two of one number are left to
    // those who made them, but not for ever.
    let repository: Reference = format!("{address}/team/numbers").parse().expect("a reference");
    let first = format!("build-{}", all.first().expect("there are some"));
    for claim in ["_build.1.1-killed", "_build.1.1-killed.too"] {
        Registry::retag(&client(), &repository, &first, claim).await.expect("a claim");
    }
    let outcome = World::new(&yaml).version("last").run_with(&publish(), Some(&client())).await.expect("an outcome");
    let name = &outcome.published.first().expect("it is published").reference;
    let last: u64 = name.rsplit_once("build-").and_then(|(_, number)| number.parse().ok()).expect("a number");
    assert!(all.last().is_some_and(|highest| last > *highest), "{last} after {all:?}");
    let tags = client().list_tags(&repository).await.expect("tags");
    let (claims, names): (Vec<&String>, Vec<&String>) = tags.iter().partition(|tag| pipeline::is_claim_tag(tag));
    assert_eq!(names.len(), 2 * each + 1, "{names:?}");
    match removes_tags {
        true => assert!(claims.len() == 1 && claims[0].starts_with(&format!("_build.{last}.")), "{claims:?}"),
        false => assert!(claims.len() > 2 * each, "{claims:?}"),
    }

    // Another machine, whose own runs begin at 1, is told the number that it would get, and claims none.
    let dry = RunOptions { dry_run: true, ..publish() };
    let outcome = World::new(&yaml).version("dry").run_with(&dry, Some(&client())).await.expect("an outcome");
    let told: Vec<&str> = outcome.foreseen.iter().map(|foreseen| foreseen.reference.as_str()).collect();
    assert_eq!(told, [format!("{address}/team/numbers:build-{}", last + 1)]);
    assert_eq!(client().list_tags(&repository).await.expect("tags"), tags);
}

#[tokio::test(flavor = "multi_thread")]
async fn build_numbers_are_given_once_whoever_publishes_at_the_same_time() {
    check_numbers(Own::start().await.address, 10, true).await;
    if let Some(docker) = Docker::start() {
        check_numbers(docker.address, 10, false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn variants_move_forward_beside_each_other() {
    let own = Own::start().await;
    let release = async |version: &str, variant: &str| {
        let yaml = format!(
            "image: {}/team/app\nhealth: false\nversion: {{env: VERSION}}\n\
             publish: {{tags: [{{type: semver}}, latest], flavor: {{variants: \"{variant}\"}}}}\n",
            own.address
        );
        let outcome =
            World::new(&yaml).version(version).run_with(&publish(), Some(&client())).await.expect("an outcome");
        (kept(&outcome), outcome.image.and_then(|image| image.digest).expect("it was sealed"))
    };
    release("1.3.0", "").await;
    // The plain line being further holds no variant back.
    let (kept, alpine) = release("1.2.0", "alpine").await;
    assert_eq!(kept, []);
    assert_eq!(names(own.address, "1-alpine").await, alpine);
    assert_eq!(names(own.address, "alpine").await, alpine);
    let (kept, _) = release("1.1.9", "alpine").await;
    let reason = "it names 1.2.0, which is higher".to_owned();
    assert_eq!(kept, [("1-alpine".into(), reason.clone()), ("alpine".into(), reason)]);
    assert_eq!(names(own.address, "alpine").await, alpine);
}

/// The tags that stay where they are when these Git tags are published, one after the other.
async fn kept_of_git_tags(rules: &str, git_tags: &[&str]) -> Vec<String> {
    let own = Own::start().await;
    let yaml = format!("image: {}/team/app\nhealth: false\n{rules}\n", own.address);
    let mut all = Vec::new();
    for git_tag in git_tags {
        // Every version is an image of its own, on a base that tells its own version.
        let world = World::new(&yaml).version(registry::of_tag(git_tag)).base_label("24.04").git_tag(git_tag);
        let outcome = world.run_with(&publish(), Some(&client())).await.expect("an outcome");
        let mut tags: Vec<String> = kept(&outcome).into_iter().map(|(tag, _)| tag).collect();
        tags.sort();
        all.push(tags.join(" "));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_move_by_the_version_they_were_made_of() {
    for kind in [
        "type=semver,match=api-v(.*)",
        "type=semver,pattern={{version}},match=api-v(.*)",
        "type=match,pattern=api-v(.*),group=1",
    ] {
        let rules = format!("version: 0.3.0\npublish: {{tags: ['{kind}', '2', '2.0']}}");
        let kept = kept_of_git_tags(&rules, &["api-v2.0.8", "api-v2.0.9", "api-v2.0.1"]).await;
        assert_eq!(kept, ["", "", "2 2.0 latest"], "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_label_of_a_base_image_moves_nothing_back_and_holds_nothing() {
    let kept = kept_of_git_tags("publish: {tags: [{type: semver}]}", &["v2.0.0", "v1.9.1", "v2.0.1"]).await;
    assert_eq!(kept, ["", "latest", ""]);
}

fn git(directory: &std::path::Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=T", "-c", "user.email=t@example", "-c", "init.defaultBranch=master"])
        .args(args)
        .current_dir(directory)
        .env_remove("GIT_DIR")
        .output()
        .expect("git is part of the development machine");
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_git_tag_is_made_after_publishing_and_never_moved() {
    let own = Own::start().await;
    let yaml = format!(
        "image: {}/team/app\nhealth: false\nversion: {{env: VERSION}}\n\
         publish: {{tags: [\"${{version}}\"], git_tag: \"v${{version}}\"}}\n",
        own.address
    );
    let remote = tempfile::tempdir().expect("a temporary directory");
    git(remote.path(), &["init", "-q", "--bare"]);
    let tag_there =
        |name: &str| git(remote.path(), &["for-each-ref", "--format=%(objectname)", &format!("refs/tags/{name}")]);
    let commit = |world: World| {
        let project = world.project();
        git(&project, &["add", "-A"]);
        git(&project, &["commit", "-q", "--allow-empty", "-m", "next"]);
        let sha = git(&project, &["rev-parse", "HEAD"]);
        (world.commit(&sha).rooted(), sha)
    };
    let world = World::new(&yaml).version("1.2.0").env("PATH", &std::env::var("PATH").expect("there is one"));
    git(&world.project(), &["init", "-q"]);
    git(&world.project(), &["remote", "add", "origin", remote.path().to_str().expect("text")]);
    let (world, first) = commit(world);
    let dry = world.run_with(&RunOptions { dry_run: true, ..publish() }, Some(&client())).await.expect("an outcome");
    assert_eq!(dry.foreseen.last().map(|foreseen| foreseen.reference.as_str()), Some("Git tag v1.2.0"));
    assert_eq!(tag_there("v1.2.0"), "");
    for _ in 0..2 {
        let outcome = world.run_with(&publish(), Some(&client())).await.expect("an outcome");
        assert_eq!(outcome.git_tag.as_deref(), Some("v1.2.0"));
        assert_eq!(tag_there("v1.2.0"), first);
    }
    // Another commit of the same version: refused before a name is written.
    let was = names(own.address, "1.2.0").await;
    let (world, second) = commit(world.write("Dockerfile", "FROM scratch\n# changed\n"));
    git(&world.project(), &["tag", "-d", "v1.2.0"]);
    match world.run_with(&publish(), Some(&client())).await {
        Err(pipeline::RunError::Refused { message, .. }) => {
            assert_eq!(
                message,
                format!(
                    "the Git tag v1.2.0 exists at `origin` at another commit, {}: nothing was published",
                    &first[..7]
                )
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((names(own.address, "1.2.0").await, tag_there("v1.2.0")), (was, first));
    // An annotated tag of somebody else at the right commit is as good.
    let world = world.version("1.3.0");
    git(&world.project(), &["tag", "-a", "-m", "x", "v1.3.0"]);
    git(&world.project(), &["push", "-q", "origin", "v1.3.0"]);
    let outcome = world.run_with(&publish(), Some(&client())).await.expect("an outcome");
    assert_eq!(outcome.git_tag.as_deref(), Some("v1.3.0"));
    assert_eq!(git(remote.path(), &["rev-parse", "v1.3.0^{commit}"]), second);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_is_what_a_command_in_the_image_prints() {
    let own = Own::start().await;
    let run = async |command: &str, options: &RunOptions| {
        let yaml = format!(
            "image: {}/team/app\nhealth: false\nversion: {command}\npublish: {{tags: [\"${{version}}\"]}}\n",
            own.address
        );
        let act = crate::script::Act::host();
        World::new(&yaml)
            .act("version", act)
            .run_with(options, Some(&client()))
            .await
            .map(|outcome| outcome.publish_tags)
    };
    let told = run("{command: 'echo old >&2; echo 1.5.0'}", &publish()).await.expect("an outcome");
    assert_eq!(told, ["1.5.0"]);
    let message = |outcome: Result<Vec<String>, pipeline::RunError>| outcome.expect_err("no version").to_string();
    assert_eq!(
        message(run("{command: 'echo no such thing >&2; exit 3'}", &publish()).await),
        "`echo no such thing >&2; exit 3` tells no version: it exits 3: no such thing"
    );
    assert_eq!(message(run("{command: 'true'}", &publish()).await), "`true` tells no version: it prints nothing");
    let host = "{command: 'echo 1.6.0', in: host}";
    assert_eq!(
        message(run(host, &publish()).await),
        "`version.command` with `in: host` runs on this machine, which is not permitted here"
    );
    let allowed = RunOptions { allow_host_commands: true, ..publish() };
    assert_eq!(run(host, &allowed).await.expect("an outcome"), ["1.6.0"]);
}
