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
async fn podman(root: &Path, arguments: &[&str]) -> String {
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
