//! The main job on real input: `examples/number-api`, from its Debian base to a container that serves requests.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

const BASE: &[&str] = &[
    "base",
    "debian:bookworm-slim",
    "--include",
    "python3,python3-pip,python3-venv,ca-certificates",
    "--local-certificates",
    "--tag",
    "localhost/python:3.11",
];
/// A server that needs longer to listen hangs.
const START_MAX: Duration = Duration::from_secs(30);

#[test]
fn the_number_api_goes_from_its_repository_to_a_container_that_serves() {
    if !testkit::wants_slow_tests() {
        testkit::skip("needs the network and minutes; set SEATRIAL_SLOW_TESTS=1");
        return;
    }
    let missing: Vec<&str> = ["mmdebstrap", "docker-registry", "skopeo", "git", "podman"]
        .into_iter()
        .filter(|tool| Command::new("which").arg(tool).output().is_ok_and(|output| !output.status.success()))
        .collect();
    if !missing.is_empty() {
        assert!(std::env::var_os("CI").is_none(), "CI has to install {missing:?}");
        testkit::skip(format_args!("{missing:?} are not installed"));
        return;
    }

    let world = World::new();
    world.seatrial(BASE).passes();

    // On master, what passed is pushed under the branch's name and nothing else.
    world.git(&["init", "--quiet"]);
    world.git(&["checkout", "--quiet", "-b", "master"]);
    world.commit("A service that answers with numbers");
    world.seatrial(&["run", "--publish", "--progress=plain"]).passes();
    assert_eq!(world.tags(), ["master"]);
    let image = world.inspect("master");
    assert_eq!(image["Labels"]["commit"], world.git(&["rev-parse", "HEAD"]));
    assert_eq!(image["Labels"]["branch"], "master");
    let pushed = image["Digest"].as_str().unwrap().to_owned();

    // The same commit again is the same digest.
    world.seatrial(&["run", "--publish", "--progress=plain"]).passes();
    assert_eq!(world.inspect("master")["Digest"], pushed);

    // Another engine pulls it and it serves.
    if testkit::is_root() {
        world.serves_in_podman(&pushed);
    } else {
        testkit::skip("not root: the image is not started by podman");
    }

    // A gate that fails leaves the registry as it was. Every gate does.
    for (file, from, to, gate) in [
        ("number_api/numbers.py", "import random\n", "import random\nimport sys\n", "static"),
        ("tests/test_service.py", "(200, {\"status\": \"ok\"})", "(200, {\"status\": \"no\"})", "unit"),
        ("number_api/numbers.py", "if low > high:", "if low>high:", "style"),
    ] {
        world.edit(file, from, to);
        world.commit(&format!("Break {gate}"));
        let run = world.seatrial(&["run", "--publish", "--progress=plain"]);
        run.exits(1);
        assert!(run.said().contains(&format!("gate {gate}")), "{}", run.said());
        assert_eq!(
            (world.tags(), world.inspect("master")["Digest"].clone()),
            (vec!["master".into()], pushed.clone().into())
        );
        world.git(&["revert", "--no-edit", "HEAD"]);
    }

    // A health check that never passes does too.
    world.edit("number_api/service.py", "\"/health\", health", "\"/healthy\", health");
    world.edit("tests/test_service.py", "client.get(\"/health\")", "client.get(\"/healthy\")");
    world.commit("Move the health check away");
    world.seatrial(&["run", "--publish", "--progress=plain"]).exits(1);
    assert_eq!(world.inspect("master")["Digest"], pushed);
    world.git(&["revert", "--no-edit", "HEAD"]);

    // A branch is tried and not published; a Git tag is, also as `latest`.
    world.git(&["checkout", "--quiet", "-b", "feature/even"]);
    world.seatrial(&["run", "--publish", "--progress=plain"]).passes();
    assert_eq!(world.tags(), ["master"]);
    world.git(&["checkout", "--quiet", "master"]);
    world.git(&["tag", "v1.2.0"]);
    world.seatrial(&["run", "--publish", "--progress=plain"]).passes();
    let mut tags = world.tags();
    tags.sort();
    assert_eq!(tags, ["latest", "master", "v1.2.0"]);
    assert_eq!(world.inspect("v1.2.0")["Digest"], world.inspect("latest")["Digest"]);
    assert_eq!(world.inspect("latest")["Labels"]["version"], "1.2.0");
}

/// A copy of the example, a store, and Debian's registry on a free port; all of it gone in the end.
struct World {
    directory: tempfile::TempDir,
    port: u16,
    registry: Child,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/number-api");
        let copied =
            Command::new("cp").arg("-a").arg(example).arg(directory.path().join("repository")).status().unwrap();
        assert!(copied.success());

        let port = free_port();
        let config = directory.path().join("registry.yaml");
        let storage = directory.path().join("registry");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n",
            storage.display()
        );
        fs_err::write(&config, text).unwrap();
        let registry = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        await_port(port);
        Self { directory, port, registry }
    }

    fn repository(&self) -> PathBuf {
        self.directory.path().join("repository")
    }

    fn reference(&self, tag: &str) -> String {
        format!("127.0.0.1:{}/number-api:{tag}", self.port)
    }

    fn seatrial(&self, arguments: &[&str]) -> Ended {
        let output = Command::new(env!("CARGO_BIN_EXE_seatrial"))
            .args(arguments)
            .current_dir(self.repository())
            .env("SEATRIAL_HOME", self.directory.path().join("store"))
            .env("REGISTRY", format!("127.0.0.1:{}", self.port))
            .env_remove("GITHUB_ACTIONS")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Ended { command: arguments.join(" "), output }
    }

    fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=Test", "-c", "user.email=test@localhost", "-c", "init.defaultBranch=start"])
            .args(arguments)
            .current_dir(self.repository())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .output()
            .unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn commit(&self, message: &str) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", message]);
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.repository().join(file);
        let text = fs_err::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} holds {from}");
        fs_err::write(&path, text.replacen(from, to, 1)).unwrap();
    }

    fn skopeo(&self, verb: &str, reference: &str) -> serde_json::Value {
        let output = Command::new("skopeo")
            .args([verb, "--tls-verify=false", &format!("docker://{reference}")])
            .output()
            .unwrap();
        assert!(output.status.success(), "skopeo {verb}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn inspect(&self, tag: &str) -> serde_json::Value {
        self.skopeo("inspect", &self.reference(tag))
    }

    fn tags(&self) -> Vec<String> {
        let list = self.skopeo("list-tags", &format!("127.0.0.1:{}/number-api", self.port));
        list["Tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()).collect()
    }

    /// Podman pulls the digest and starts it, with storage of its own; the service answers over HTTP.
    fn serves_in_podman(&self, digest: &str) {
        let port = free_port();
        let podman = |arguments: &[&str]| {
            Command::new("podman")
                .arg("--root")
                .arg(self.directory.path().join("podman"))
                .arg("--runroot")
                .arg(self.directory.path().join("podman-run"))
                .args(["--runtime", "runc", "--cgroup-manager", "cgroupfs"])
                .args(arguments)
                .output()
                .unwrap()
        };
        let image = format!("127.0.0.1:{}/number-api@{digest}", self.port);
        let number = format!("PORT={port}");
        // Limits of its own: podman's defaults are higher than what root may set on some machines.
        let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
        let run = ["run", "--detach", "--tls-verify=false", "--network=host", "--env", &number, "--name", "number"];
        let started = podman(&[&run[..], &limits, &[&image]].concat());
        assert!(started.status.success(), "podman run: {}", String::from_utf8_lossy(&started.stderr));
        await_port(port);
        let answer = get(port, "/even?low=3&high=5");
        let removed = podman(&["rm", "--force", "--time", "1", "number"]);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.ends_with("{\"number\": 4}"), "{answer}");
        assert!(removed.status.success(), "podman rm: {}", String::from_utf8_lossy(&removed.stderr));
        // Layers of other owners are podman's to remove.
        podman(&["system", "reset", "--force"]);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.registry.kill();
        let _ = self.registry.wait();
        // The store of an ordinary user holds files of its subordinate ids, which only the program can remove.
        if !testkit::is_root() {
            let _ = self.seatrial(&["clean", "--all"]);
        }
    }
}

struct Ended {
    command: String,
    output: Output,
}

impl Ended {
    fn said(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    fn exits(&self, code: i32) {
        let stdout = String::from_utf8_lossy(&self.output.stdout);
        assert_eq!(self.output.status.code(), Some(code), "seatrial {}\n{}\n{stdout}", self.command, self.said());
    }

    fn passes(&self) {
        self.exits(0);
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn await_port(port: u16) {
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(start.elapsed() < START_MAX, "nobody listens on port {port}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
