//! Other builders, which answer the same cases: docker with its BuildKit, and buildah.

use std::{
    ffi::OsString,
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

/// A daemon that has not started by then will not.
const START_MAX: Duration = Duration::from_secs(60);
/// How often its socket is tried.
const POLL: Duration = Duration::from_millis(50);
/// From this major version on, docker keeps images in containerd, which keeps all attributes of files.
const CONTAINERD_SINCE: u32 = 25;

/// One peer, ready to build, with a store of its own.
pub(crate) struct Peer {
    /// Name and version, as answers are signed.
    pub(crate) name: String,
    kind: Kind,
    path: OsString,
    /// docker's command line; a newer one than the daemon would ask for a plugin.
    client: PathBuf,
    /// Ends before its directory goes.
    daemon: Option<Daemon>,
    directory: tempfile::TempDir,
    next: AtomicUsize,
}

enum Kind {
    /// `docker build` and `docker save`, of Debian 12's age.
    Docker,
    /// `docker-buildx build --output`.
    Buildx,
    Buildah,
}

impl Peer {
    /// Starts it and gives it the base; `Err` says what is missing on this machine. `bin` goes before PATH.
    pub(crate) fn start(kind: &str, bin: Option<&Path>, base: &Path) -> Result<Peer, String> {
        let mut path = bin.map(|bin| bin.as_os_str().to_owned()).unwrap_or_default();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        if !testkit::is_root() {
            return Err(format!("only root can start a private {kind}"));
        }
        let directory = tempfile::Builder::new().prefix("seatrial-peer-").tempdir().expect("a temporary directory");
        let mut peer = Peer {
            name: String::new(),
            kind: Kind::Buildah,
            path,
            client: "docker".into(),
            daemon: None,
            directory,
            next: AtomicUsize::new(0),
        };
        match kind {
            "buildah" => {
                fs::write(peer.directory.path().join("config.json"), "{}").expect("a fresh directory takes files");
                let version = peer.output("buildah", &["--version"])?;
                peer.name = format!("buildah {}", version.split_whitespace().nth(2).unwrap_or("?"));
                peer.run("buildah", &["pull", "-q", &format!("docker-archive:{}", base.display())])?;
            }
            "docker" => {
                let version = peer.output("dockerd", &["--version"])?;
                let version = version.split_whitespace().nth(2).unwrap_or("?").trim_end_matches(',').to_owned();
                let version = version.split(['+', '-']).next().expect("a first part").to_owned();
                let clients = std::env::split_paths(&peer.path).map(|part| part.join("docker"));
                let is_of_version = |client: &PathBuf| {
                    let output = Command::new(client).arg("--version").output();
                    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(&version))
                };
                if let Some(client) = clients.into_iter().find(is_of_version) {
                    peer.client = client;
                }
                let major: u32 = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
                peer.kind = if major >= CONTAINERD_SINCE { Kind::Buildx } else { Kind::Docker };
                peer.daemon = Some(Daemon::start(&peer)?);
                peer.name = format!("docker {version}");
                peer.run(&peer.client(), &["load", "-q", "-i", &base.display().to_string()])?;
            }
            other => panic!("there is no peer `{other}`: say docker or buildah"),
        }
        Ok(peer)
    }

    /// Name without the last part of the version, which no answer depends on.
    pub(crate) fn series(&self) -> &str {
        let is_patch = self.name.matches('.').count() > 1;
        if is_patch { self.name.rsplit_once('.').expect("it has dots").0 } else { &self.name }
    }

    /// Builds and gives an archive of the image, or what the peer said.
    pub(crate) fn build(
        &self,
        context: &Path,
        dockerfile: &Path,
        name: Option<&str>,
        flags: &[String],
    ) -> Result<PathBuf, String> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let archive = self.directory.path().join(format!("{number}.tar"));
        let tag = name.map_or_else(|| format!("conformance:{number}"), str::to_owned);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let file = dockerfile.to_str().expect("paths of tests are text");
        let context = context.to_str().expect("paths of tests are text");
        let out = archive.to_str().expect("paths of tests are text");
        let common = ["--network=host", "--no-cache", "-f", file];
        match &self.kind {
            Kind::Buildx => {
                let output = format!("type=oci,dest={out}");
                let end: &[&str] = if name.is_some() { &["--load", "-t", &tag] } else { &["-o", &output] };
                self.run(
                    "docker-buildx",
                    &[&["build", "--progress=plain", "--provenance=false"][..], &common, &flags, end, &[context]]
                        .concat(),
                )?;
            }
            Kind::Docker => {
                self.run(
                    &self.client(),
                    &[&["build", "--progress=plain", "-t", &tag][..], &common, &flags, &[context]].concat(),
                )?;
                self.run(&self.client(), &["save", "-o", out, &tag])?;
            }
            Kind::Buildah => {
                let own = ["build", "--format=docker", "--identity-label=false", "--layers=false", "-t", &tag];
                self.run("buildah", &[&own[..], &common, &flags, &[context]].concat())?;
                self.run("buildah", &["push", "-q", &tag, &format!("docker-archive:{out}")])?;
            }
        }
        Ok(archive)
    }

    fn client(&self) -> String {
        self.client.to_string_lossy().into_owned()
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<(), String> {
        self.output(program, arguments).map(drop)
    }

    fn output(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let mut command = self.command(program);
        if program == "buildah" {
            let at = |name: &str| self.directory.path().join(name);
            command
                .arg("--root")
                .arg(at("root"))
                .arg("--runroot")
                .arg(at("runroot"))
                .args(["--storage-driver", "overlay"]);
        }
        let output =
            command.args(arguments).stdin(Stdio::null()).output().map_err(|error| format!("{program}: {error}"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
    }

    fn command(&self, program: &str) -> Command {
        // An empty part of PATH means the working directory.
        let path = std::env::split_paths(&self.path).filter(|part| !part.as_os_str().is_empty());
        let mut command = Command::new("env");
        command.env("PATH", std::env::join_paths(path).expect("parts of a PATH")).arg(program);
        command.env("DOCKER_HOST", format!("unix://{}", self.socket().display())).env("DOCKER_BUILDKIT", "1");
        command.env("DOCKER_CONFIG", self.directory.path()).env("HOME", self.directory.path());
        command
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }
}

/// A private daemon; ended by its own id.
struct Daemon(Child);

impl Daemon {
    fn start(peer: &Peer) -> Result<Daemon, String> {
        let directory = peer.directory.path();
        let log = fs::File::create(directory.join("log")).expect("a fresh directory takes files");
        let mut command = peer.command("dockerd");
        for (flag, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
            command.arg(flag).arg(directory.join(name));
        }
        command.arg("--host").arg(format!("unix://{}", peer.socket().display()));
        command.args(["--iptables=false", "--ip6tables=false", "--bridge=none"]);
        if matches!(peer.kind, Kind::Buildx) {
            command.args(["--feature", "containerd-snapshotter=true"]);
        }
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log).spawn();
        let mut daemon = Daemon(child.map_err(|error| format!("dockerd: {error}"))?);
        let start = Instant::now();
        while UnixStream::connect(peer.socket()).is_err() {
            let is_over = !matches!(daemon.0.try_wait(), Ok(None));
            if is_over || start.elapsed() > START_MAX {
                return Err(format!(
                    "dockerd does not start: {}",
                    fs::read_to_string(directory.join("log")).unwrap_or_default()
                ));
            }
            std::thread::sleep(POLL);
        }
        Ok(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let id = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw);
        // With SIGTERM it ends its containerd as well. It may have ended by itself, which is as good.
        let _ = rustix::process::kill_process(id.expect("a process has an id"), rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}
