//! The server as a pull-through cache of another registry.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use fs_err as fs;
use futures::StreamExt;
use oci::{Digest, Index, media_type};
use registry::{Client, ClientOptions, Credential, Credentials, ServerOptions, Upstream};
use reqwest::{Method, StatusCode, header};
use tokio::sync::Semaphore;

use crate::{
    foreign_clients::{Docker, podman},
    proxy::{Fault, Proxy},
    support::*,
};

fn upstream(address: SocketAddr, prefix: Option<&str>) -> Upstream {
    let credentials = Credentials::anonymous();
    Upstream {
        address: format!("http://{address}").parse().unwrap(),
        prefix: prefix.map(str::to_owned),
        client: Client::new(ClientOptions { credentials, retries: 1, ..options() }),
        fresh: Duration::from_secs(600),
        absent: Duration::from_secs(600),
    }
}

async fn cache_in(directory: &Path, upstreams: Vec<Upstream>) -> Embedded {
    Embedded::with(directory, ServerOptions { upstreams, ..ServerOptions::default() }).await
}

fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// Whether content is kept.
fn is_kept(directory: &Path, digest: &Digest) -> bool {
    directory.join("blobs/sha256").join(digest.hex()).exists()
}

fn downloads(directory: &Path) -> usize {
    fs::read_dir(directory.join("downloads")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_come_through_and_stay_when_the_upstream_is_gone() {
    if !has_tool("skopeo") {
        return;
    }
    let Some(origin) = DockerRegistry::start(true).await else { return };
    let login = Credentials::anonymous()
        .with(origin.address.to_string(), Credential::Password { user: "user".into(), password: "secret".into() });
    let pushing = Client::new(ClientOptions { credentials: login.clone(), ..options() });
    let image = image(&[("a", b"one"), ("b", &noise(1, 3_000_000))]);
    push(&pushing, &reference(origin.address, "team/app:1"), &image).await;

    let directory = tempfile::tempdir().unwrap();
    let mut source = upstream(origin.address, Some("far"));
    source.client = Client::new(ClientOptions { credentials: login, retries: 1, ..options() });
    source.fresh = Duration::ZERO;
    let server = cache_in(directory.path(), vec![source]).await;
    let layouts = tempfile::tempdir().unwrap();
    let from = format!("docker://{}/far/team/app:1", server.address);
    let pull = async |name: &str| {
        let to = format!("oci:{}:x", layouts.path().join(name).display());
        run("skopeo", &["--insecure-policy", "copy", "-q", "--src-tls-verify=false", &from, &to], &[]).await;
    };
    pull("one").await;
    // What was handed on is here.
    for (blob, _) in &image.blobs {
        assert!(is_kept(directory.path(), &blob.digest));
    }
    assert_eq!(downloads(directory.path()), 0);
    check_pulled(&client(), &reference(server.address, "far/team/app:1"), &image).await;
    assert_eq!(client().list_tags(&reference(server.address, "far/team/app")).await.unwrap(), ["1"]);

    drop(origin);
    pull("two").await;
    let response = http().get(server.url("/v2/far/team/app/manifests/1")).send().await.unwrap();
    assert_eq!(response.headers()[header::WARNING], "111 seatrial \"Revalidation Failed\"");
    let response = http().get(server.url("/v2/far/team/app/tags/list")).send().await.unwrap();
    assert!(response.headers().contains_key(header::WARNING));
    let response = http().get(server.url("/v2/far/team/other/manifests/1")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert!(response.text().await.unwrap().contains("cannot be reached"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_server_is_a_mirror_for_docker_and_podman() {
    let origin = Embedded::start().await;
    let image = image(&[("a", b"one"), ("b", b"two")]);
    push(&client(), &reference(origin.address, "library/tiny:1"), &image).await;
    let directory = tempfile::tempdir().unwrap();
    let server = cache_in(directory.path(), vec![upstream(origin.address, None)]).await;
    let mirror = format!("http://{}", server.address);
    if let Some(mut docker) = Docker::start_with(&["--registry-mirror", &mirror]) {
        docker.wait().await;
        docker.run(&["pull", "-q", "tiny:1"]).await;
        assert!(is_kept(directory.path(), &image.digest()));
    }
    if has_tool("podman") && is_root("podman's storage without root needs subordinate ids") {
        let root = tempfile::tempdir().unwrap();
        let config = root.path().join("registries.conf");
        let text = format!(
            "[[registry]]\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n",
            server.address
        );
        fs::write(&config, text).unwrap();
        let (storage, run_root) = (root.path().join("storage"), root.path().join("run"));
        let own = ["--root", storage.to_str().unwrap(), "--runroot", run_root.to_str().unwrap(), "--storage-driver"];
        let pull = [&own[..], &["vfs", "pull", "-q", "docker.io/library/tiny:1"]].concat();
        run("podman", &pull, &[("HOME", root.path()), ("CONTAINERS_REGISTRIES_CONF", &config)]).await;
        podman(root.path(), &["rmi", "-a", "-f"]).await;
    }
    check_pulled(&client(), &reference(server.address, "library/tiny:1"), &image).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_clients_of_one_blob_are_one_download() {
    let origin = Embedded::start().await;
    let image = image(&[("big", &noise(2, 4_000_000))]);
    push(&client(), &reference(origin.address, "app:1"), &image).await;
    let permits = Arc::new(Semaphore::new(0));
    let (layer, bytes) = image.blobs[0].clone();
    let (path, gate) = (format!("/v2/app/blobs/{}", layer.digest), Arc::clone(&permits));
    let proxy = Proxy::start(origin.address, move |now, _| {
        if now.is(Method::GET, &path) { Fault::Held(2_000_000, Arc::clone(&gate)) } else { Fault::Pass }
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let server = cache_in(directory.path(), vec![upstream(proxy.address, None)]).await;
    let url = server.url(&format!("/v2/app/blobs/{}", layer.digest));
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..20_usize {
        let (url, bytes, permits) = (url.clone(), bytes.clone(), Arc::clone(&permits));
        clients.spawn(async move {
            let mut request = http().get(url);
            if number == 1 {
                request = request.header(header::RANGE, "bytes=1000-2999999");
            }
            let response = request.send().await.unwrap();
            let expected = if number == 1 { bytes.slice(1000..3_000_000) } else { bytes };
            assert_eq!(response.content_length(), Some(expected.len() as u64));
            let (mut stream, mut got) = (response.bytes_stream(), Vec::new());
            while let Some(piece) = stream.next().await {
                got.extend_from_slice(&piece.unwrap());
                // The first one lets the upstream go on when it has a part of what came before.
                if number == 0 && got.len() > 1_000_000 && permits.available_permits() == 0 {
                    permits.add_permits(1);
                }
            }
            assert_eq!(got, expected);
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    assert_eq!(proxy.count(Method::GET, "/blobs/"), 1);
    assert!(is_kept(directory.path(), &layer.digest));
    // From here on it is answered without the upstream.
    check_pulled(&client(), &reference(server.address, "app:1"), &image).await;
    assert_eq!(proxy.count(Method::GET, &layer.digest.to_string()), 1);
    let text = http().get(server.url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(text.contains("kind=\"blob\",answer=\"miss\"} 2\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_bytes_are_cut_off_and_never_kept() {
    let origin = Embedded::start().await;
    let image = image(&[("a", &noise(3, 1_000_000))]);
    push(&client(), &reference(origin.address, "app:1"), &image).await;
    let (layer, bytes) = image.blobs[0].clone();
    let mut wrong = bytes.to_vec();
    wrong[5] ^= 1;
    let path = format!("/v2/app/blobs/{}", layer.digest);
    let proxy = Proxy::start(origin.address, move |now, all| {
        let is_first = all.iter().all(|seen| !seen.is(Method::GET, &path));
        let is_lie = is_first && now.is(Method::GET, &path);
        if is_lie { Fault::Answer(200, Vec::new(), wrong.clone()) } else { Fault::Pass }
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let server = cache_in(directory.path(), vec![upstream(proxy.address, Some("x"))]).await;
    let url = server.url(&format!("/v2/x/app/blobs/{}", layer.digest));
    let response = http().get(&url).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.bytes().await.unwrap_err();
    assert!(!is_kept(directory.path(), &layer.digest));
    assert_eq!(downloads(directory.path()), 0);
    // An honest answer is taken.
    assert_eq!(http().get(&url).send().await.unwrap().bytes().await.unwrap(), bytes);
    assert!(is_kept(directory.path(), &layer.digest));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_manifest_is_not_handed_on() {
    let origin = Embedded::start().await;
    let (good, other) = (image(&[("a", b"one")]), image(&[("a", b"two")]));
    push(&client(), &reference(origin.address, "app:1"), &good).await;
    let lie = other.bytes.to_vec();
    let proxy = Proxy::start(origin.address, move |now, _| {
        let headers = vec![("content-type", media_type::MANIFEST.to_owned())];
        if now.is(Method::GET, "/manifests/") { Fault::Answer(200, headers, lie.clone()) } else { Fault::Pass }
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let server = cache_in(directory.path(), vec![upstream(proxy.address, None)]).await;
    for name in ["1".to_owned(), good.digest().to_string()] {
        let response = http().get(server.url(&format!("/v2/app/manifests/{name}"))).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY, "{name}");
    }
    assert!(!is_kept(directory.path(), &other.digest()) && !is_kept(directory.path(), &good.digest()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_follow_when_they_are_no_longer_fresh() {
    let origin = Embedded::start().await;
    let (old, new) = (image(&[("a", b"old")]), image(&[("a", b"new")]));
    let name = reference(origin.address, "app:1");
    push(&client(), &name, &old).await;
    let proxy = Proxy::start(origin.address, |_, _| Fault::Pass).await;
    let directory = tempfile::tempdir().unwrap();
    let slow = upstream(proxy.address, Some("slow"));
    let quick = Upstream { fresh: Duration::ZERO, absent: Duration::ZERO, ..upstream(proxy.address, Some("quick")) };
    let server = cache_in(directory.path(), vec![slow, quick]).await;
    let digest = async |name: &str| client().resolve(&reference(server.address, name)).await.map(|found| found.digest);
    for prefix in ["slow", "quick"] {
        assert_eq!(digest(&format!("{prefix}/app:1")).await.unwrap(), old.digest());
    }
    assert_eq!(proxy.count(Method::GET, "/manifests/"), 2);
    push(&client(), &name, &new).await;
    assert_eq!(digest("slow/app:1").await.unwrap(), old.digest());
    assert_eq!(digest("quick/app:1").await.unwrap(), new.digest());
    // Unchanged, the question is all.
    let asked = proxy.count(Method::GET, "/manifests/");
    assert_eq!(digest("quick/app:1").await.unwrap(), new.digest());
    assert_eq!(proxy.count(Method::GET, "/manifests/"), asked);
    // What was once the tag's is had by its digest, as long as it is kept.
    check_pulled(&client(), &reference(server.address, &format!("quick/app@{}", old.digest())), &old).await;

    // What is not there is not asked for again at once.
    let asked = proxy.seen().len();
    for _ in 0..3 {
        assert!(digest("slow/app:none").await.unwrap_err().is_not_found());
    }
    assert!(proxy.seen().len() <= asked + 2, "{:?}", &proxy.seen()[asked..]);
    // A tag that was removed there is removed here.
    client().delete(&name).await.unwrap();
    assert!(digest("quick/app:1").await.unwrap_err().is_not_found());
    assert!(!directory.path().join("repositories/quick/app/_tags/1").exists());

    // A server that starts again knows what it has, and asks before it says so.
    server.stop().await;
    let server = cache_in(directory.path(), vec![upstream(origin.address, Some("slow"))]).await;
    let response = http().get(server.url("/v2/slow/app/manifests/1")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_take_no_pushes_and_containerd_names_its_registry() {
    let origin = Embedded::start().await;
    let image = image(&[("a", b"one")]);
    let there = reference(origin.address, "team/app:1");
    push(&client(), &there, &image).await;
    let index = oci::to_json(&Index::of(vec![oci::Descriptor::of(media_type::MANIFEST, &image.bytes)]));
    client().put_manifest(&there.with_tag("all"), media_type::INDEX, index).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let server = cache_in(directory.path(), vec![upstream(origin.address, Some("far"))]).await;
    let status = async |method: Method, path: &str| {
        http().request(method, server.url(path)).send().await.unwrap().status().as_u16()
    };
    assert_eq!(status(Method::POST, "/v2/far/team/app/blobs/uploads/").await, 405);
    assert_eq!(status(Method::PUT, "/v2/far/team/app/manifests/2").await, 405);
    assert_eq!(status(Method::POST, "/v2/own/blobs/uploads/").await, 202);

    let ns = origin.address.to_string();
    let digest = image.digest();
    assert_eq!(status(Method::HEAD, &format!("/v2/team/app/manifests/all?ns={ns}")).await, 200);
    // An image of the index comes by its digest, a blob by its own.
    assert_eq!(status(Method::GET, &format!("/v2/team/app/manifests/{digest}?ns={ns}")).await, 200);
    let layer = &image.blobs[0].0.digest;
    assert_eq!(status(Method::HEAD, &format!("/v2/team/app/blobs/{layer}?ns={ns}")).await, 200);
    assert!(!is_kept(directory.path(), layer), "a question for the size fetches nothing");
    assert_eq!(status(Method::GET, &format!("/v2/team/app/blobs/{layer}?ns={ns}")).await, 200);
    assert_eq!(status(Method::GET, "/v2/team/app/manifests/1?ns=ghcr.io").await, 404);
    assert_eq!(status(Method::GET, "/v2/team/app/manifests/1").await, 404);
    assert!(directory.path().join("repositories/far/team/app/_manifests").exists());
    // Its own blobs are not handed out for an upstream's word.
    let secret = b"pushed here".to_vec();
    let path = format!("/v2/own/blobs/uploads/?digest={}", Digest::of(&secret));
    http().post(server.url(&path)).body(secret.clone()).send().await.unwrap().error_for_status().unwrap();
    let path = format!("/v2/far/team/app/blobs/{}", Digest::of(&secret));
    assert_eq!(status(Method::GET, &path).await, 404);
}
