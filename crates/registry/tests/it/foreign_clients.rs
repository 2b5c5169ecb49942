//! Our server and the clients of Debian.

use std::path::Path;

use oci::{Digest, media_type};

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skopeo_copies_in_and_out() {
    if !has_tool("skopeo") {
        return;
    }
    let server = Embedded::start().await;
    let (client, image) = (client(), image(&[("a", b"one"), ("b", &noise(9, 2_000_000))]));
    push(&client, &reference(server.address, "from/us:1"), &image).await;
    let directory = tempfile::tempdir().unwrap();
    let layout = |name: &str| format!("oci:{}:x", directory.path().join(name).display());
    let remote = |rest: &str| format!("docker://{}/{rest}", server.address);
    let copy = async |from: &str, to: &str, extra: &[&str]| {
        let policy = ["--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
        run("skopeo", &[&policy[..], extra, &[from, to]].concat(), &[]).await
    };
    copy(&remote("from/us:1"), &layout("one"), &[]).await;
    copy(&layout("one"), &remote("back/again:2"), &[]).await;
    check_pulled(&client, &reference(server.address, "back/again:2"), &image).await;
    // Between repositories skopeo mounts; docker's format is another manifest.
    copy(&remote("back/again:2"), &remote("mounted/x:3"), &[]).await;
    copy(&remote("back/again:2"), &remote("docker/x:4"), &["--format", "v2s2"]).await;
    let resolved = client.resolve(&reference(server.address, "docker/x:4")).await.unwrap();
    assert_eq!(resolved.media_type, media_type::DOCKER_MANIFEST);
    let text = run("skopeo", &["inspect", "--tls-verify=false", &remote("mounted/x:3")], &[]).await;
    assert!(text.contains(&image.digest().to_string()), "{text}");
    let tags = run("skopeo", &["list-tags", "--tls-verify=false", &remote("mounted/x")], &[]).await;
    assert!(tags.contains("\"3\""), "{tags}");
    run("skopeo", &["delete", "--tls-verify=false", &remote("mounted/x:3")], &[]).await;
    assert!(client.resolve(&reference(server.address, "mounted/x:3")).await.unwrap_err().is_not_found());
}

/// Podman of this test's own, with its storage in `root`.
pub(crate) async fn podman(root: &Path, arguments: &[&str]) -> String {
    let (storage, run_root) = (root.join("storage"), root.join("run"));
    let (storage, run_root) = (storage.to_str().unwrap(), run_root.to_str().unwrap());
    let own = ["--root", storage, "--runroot", run_root, "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"];
    run("podman", &[&own, arguments].concat(), &[("HOME", root), ("XDG_RUNTIME_DIR", root)]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn podman_pulls_and_pushes() {
    if !has_tool("podman") || !is_root("podman's storage without root needs subordinate ids") {
        return;
    }
    let server = Embedded::start().await;
    let (client, image) = (client(), image(&[("a", b"one")]));
    push(&client, &reference(server.address, "app:1"), &image).await;
    let root = tempfile::tempdir().unwrap();
    let from = format!("{}/app:1", server.address);
    let to = format!("{}/pushed/app:2", server.address);
    podman(root.path(), &["pull", "-q", "--tls-verify=false", &from]).await;
    podman(root.path(), &["tag", &from, &to]).await;
    podman(root.path(), &["push", "-q", "--tls-verify=false", &to]).await;
    let resolved = client.fetch_manifest(&reference(server.address, "pushed/app:2"), 1 << 20).await.unwrap();
    let oci::ManifestOrIndex::Manifest(manifest) = resolved.document else { panic!("an image was pushed") };
    assert_eq!(manifest.config.digest, image.manifest.config.digest);
    assert_ne!(manifest.layers[0].digest, Digest::of(b""));
    podman(root.path(), &["rmi", "-a", "-f"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buildah_pulls_commits_and_pushes() {
    if !has_tool("buildah") || !is_root("buildah's storage without root needs subordinate ids") {
        return;
    }
    let server = Embedded::start().await;
    let (client, image) = (client(), image(&[("a", b"one"), ("b", b"two")]));
    push(&client, &reference(server.address, "base:1"), &image).await;
    let root = tempfile::tempdir().unwrap();
    let (storage, run_root) = (root.path().join("storage"), root.path().join("run"));
    let buildah = async |arguments: &[&str]| {
        let own =
            ["--root", storage.to_str().unwrap(), "--runroot", run_root.to_str().unwrap(), "--storage-driver", "vfs"];
        run("buildah", &[&own, arguments].concat(), &[("HOME", root.path()), ("XDG_RUNTIME_DIR", root.path())]).await
    };
    let (from, to) = (format!("{}/base:1", server.address), format!("docker://{}/made/app:2", server.address));
    buildah(&["from", "--tls-verify=false", "--name", "work", &from]).await;
    buildah(&["config", "--label", "made=here", "work"]).await;
    buildah(&["commit", "-q", "work", "localhost/made"]).await;
    buildah(&["push", "-q", "--tls-verify=false", "localhost/made", &to]).await;
    let made = client.fetch_manifest(&reference(server.address, "made/app:2"), 1 << 20).await.unwrap();
    let oci::ManifestOrIndex::Manifest(manifest) = made.document else { panic!("an image was pushed") };
    assert_eq!(manifest.layers.len(), image.manifest.layers.len() + 1);
    buildah(&["rm", "-a"]).await;
    buildah(&["rmi", "-a", "-f"]).await;
}

/// A docker daemon of the test's own, with its client.
pub(crate) struct Docker {
    pub(crate) root: tempfile::TempDir,
    daemon: std::process::Child,
}

impl Docker {
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// With more arguments for the daemon.
    pub(crate) fn start_with(more: &[&str]) -> Option<Self> {
        if !has_tool("dockerd") || !has_tool("docker") || !is_root("dockerd without root needs subordinate ids") {
            return None;
        }
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name).into_os_string();
        let mut host = std::ffi::OsString::from("unix://");
        host.push(path("sock"));
        let daemon = std::process::Command::new("dockerd")
            .args(more)
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--storage-driver=vfs"])
            .arg("--data-root")
            .arg(path("data"))
            .arg("--exec-root")
            .arg(path("exec"))
            .arg("--pidfile")
            .arg(path("pid"))
            .arg("--host")
            .arg(host)
            .stdout(std::process::Stdio::null())
            .stderr(fs_err::File::create(root.path().join("log")).unwrap().into_parts().0)
            .spawn()
            .unwrap();
        Some(Self { root, daemon })
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> String {
        let host = format!("unix://{}", self.root.path().join("sock").display());
        run("docker", &[&["--host", &host], arguments].concat(), &[("HOME", self.root.path())]).await
    }

    pub(crate) async fn run_failing(&self, arguments: &[&str]) -> String {
        let host = format!("unix://{}", self.root.path().join("sock").display());
        run_failing("docker", &[&["--host", &host], arguments].concat(), &[("HOME", self.root.path())]).await
    }

    /// Waits until it answers.
    pub(crate) async fn wait(&mut self) {
        let begun = std::time::Instant::now();
        while !self.root.path().join("sock").exists() {
            if self.daemon.try_wait().unwrap().is_some() {
                let log = fs_err::read_to_string(self.root.path().join("log")).unwrap();
                panic!("dockerd ended: {log}");
            }
            assert!(begun.elapsed() < std::time::Duration::from_secs(60), "dockerd does not start");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // With a word, so that it ends its containerd; it is killed when it does not listen.
        let id = self.daemon.id().to_string();
        let _ = std::process::Command::new("kill").arg(&id).status();
        let begun = std::time::Instant::now();
        while self.daemon.try_wait().is_ok_and(|ended| ended.is_none()) {
            if begun.elapsed() > std::time::Duration::from_secs(20) {
                let _ = self.daemon.kill();
                let _ = self.daemon.wait();
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_pulls_pushes_and_mounts() {
    let Some(mut docker) = Docker::start() else { return };
    docker.wait().await;
    let server = Embedded::start().await;
    let (client, image) = (client(), image(&[("a", b"one"), ("b", &noise(3, 300_000))]));
    push(&client, &reference(server.address, "app:1"), &image).await;
    let name = |rest: &str| format!("{}/{rest}", server.address);
    docker.run(&["pull", "-q", &name("app:1")]).await;
    for rest in ["team/copy:2", "app:again"] {
        docker.run(&["tag", &name("app:1"), &name(rest)]).await;
        // What it knows to be in another repository it mounts.
        let said = docker.run(&["push", &name(rest)]).await;
        assert!(said.contains("Mounted from app") || said.contains("Layer already exists"), "{said}");
    }
    let pushed = client.fetch_manifest(&reference(server.address, "team/copy:2"), 1 << 20).await.unwrap();
    let oci::ManifestOrIndex::Manifest(manifest) = pushed.document else { panic!("an image was pushed") };
    assert_eq!(manifest.config.digest, image.manifest.config.digest);
    docker.run(&["rmi", "-f", &name("app:1"), &name("app:again"), &name("team/copy:2")]).await;
    docker.run(&["pull", "-q", &name("team/copy:2")]).await;
    // By digest as well.
    docker.run(&["pull", "-q", &format!("{}@{}", name("app"), image.digest())]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_two_push_at_once() {
    if !has_tool("skopeo") {
        return;
    }
    let server = Embedded::start().await;
    let client = client();
    let layouts = tempfile::tempdir().unwrap();
    let mut work = tokio::task::JoinSet::new();
    for number in 0..32u64 {
        // Some layers are the same, some repositories as well.
        let image = image(&[("shared", &noise(number % 4, 50_000)), ("own", &noise(100 + number, 20_000))]);
        push(&client, &reference(server.address, &format!("source:{number}")), &image).await;
        let from = format!("docker://{}/source:{number}", server.address);
        let to = format!("oci:{}:x", layouts.path().join(number.to_string()).display());
        run("skopeo", &["--insecure-policy", "copy", "-q", "--src-tls-verify=false", &from, &to], &[]).await;
        let target = reference(server.address, &format!("target/{}:{number}", number % 5));
        let push = format!("docker://{}/target/{}:{number}", server.address, number % 5);
        work.spawn(async move {
            run("skopeo", &["--insecure-policy", "copy", "-q", "--dest-tls-verify=false", &to, &push], &[]).await;
            (target, image)
        });
    }
    for (target, image) in work.join_all().await {
        check_pulled(&client, &target, &image).await;
    }
}

#[tokio::test]
async fn tls_hello_is_answered_with_http() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = Embedded::start().await;
    let mut connection = tokio::net::TcpStream::connect(server.address).await.unwrap();
    // The beginning of a TLS 1.2 record with a ClientHello.
    let mut hello = vec![0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3];
    hello.resize(205, 0x0a);
    connection.write_all(&hello).await.unwrap();
    let mut answer = Vec::new();
    let read = connection.read_to_end(&mut answer);
    tokio::time::timeout(std::time::Duration::from_secs(5), read).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{:?}", String::from_utf8_lossy(&answer));
}
