//! The registry server over an object store: the same promises as over a directory.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use object_store::{ObjectStore, ObjectStoreExt as _, memory::InMemory};
use oci::{Descriptor, Digest, Manifest, Reference, media_type};
use registry::{
    Backend, Client, ClientOptions, CollectOptions, NoProgress, Rules, Server, ServerOptions, TagCondition, collect,
};
use tokio::{sync::oneshot, task::JoinHandle};

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Running {
    async fn start(directory: &Path, backend: &Arc<dyn Backend>) -> Self {
        let options =
            ServerOptions { backend: Some(Arc::clone(backend)), collect_every: None, ..ServerOptions::default() };
        let server = Server::bind((Ipv4Addr::LOCALHOST, 0).into(), directory, options).await.unwrap();
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            server.serve(shutdown).await.unwrap();
        });
        Self { address, stop, serving }
    }

    async fn stop(self) {
        drop(self.stop);
        self.serving.await.unwrap();
    }

    fn repository(&self, name: &str) -> Reference {
        format!("127.0.0.1:{}/{name}", self.address.port()).parse().unwrap()
    }
}

fn client() -> Client {
    Client::new(ClientOptions { retry_wait: Duration::from_millis(5), ..ClientOptions::default() })
}

/// Bytes that are not the same all over.
fn content(length: usize) -> Vec<u8> {
    (0..length as u64).map(|place| (place.wrapping_mul(0x9e37_79b9) >> 13) as u8).collect()
}

/// What a registry promises, over any backend.
async fn check(backend: Arc<dyn Backend>, has_content: impl AsyncFn(&Digest) -> bool) {
    let directory = tempfile::tempdir().unwrap();
    let server = Running::start(directory.path(), &backend).await;
    let app = server.repository("team/app");
    let push = async |repository: &Reference, bytes: &[u8], kind: &str| {
        let descriptor = Descriptor::of(kind, bytes);
        client().upload_blob(repository, &descriptor, bytes.to_vec(), None, &NoProgress).await.unwrap();
        descriptor
    };
    // Larger than one request takes.
    let large = content(20_000_000);
    let config = push(&app, b"{}", media_type::CONFIG).await;
    let layer = push(&app, &large, media_type::LAYER_GZIP).await;
    let loose = push(&app, b"loose", media_type::LAYER_GZIP).await;
    let manifest = oci::to_json(&Manifest::image(config, vec![layer.clone()]));
    let tags = ["1.0".to_owned(), "latest".to_owned()];
    let put = async |repository: &Reference, condition: TagCondition| {
        let (client, bytes) = (client(), manifest.clone());
        client.put_manifest_tags(repository, &tags, &condition, media_type::MANIFEST, bytes, &mut |_| {}).await
    };
    assert!(put(&app, TagCondition::Absent).await.unwrap().is_atomic);
    put(&app, TagCondition::Absent).await.unwrap_err();
    server.stop().await;

    // A server on another machine finds all of it.
    let elsewhere = tempfile::tempdir().unwrap();
    let server = Running::start(elsewhere.path(), &backend).await;
    let app = server.repository("team/app");
    assert_eq!(client().list_tags(&app).await.unwrap(), tags);
    assert_eq!(client().resolve(&app.with_tag("latest")).await.unwrap().digest, Digest::of(&manifest));
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/v2/team/app/blobs/{}", server.address, layer.digest);
    assert!(http.get(&url).send().await.unwrap().bytes().await.unwrap() == large);
    let part = http.get(&url).header("range", "bytes=5000000-5000009").send().await.unwrap();
    assert_eq!(part.bytes().await.unwrap(), large[5_000_000..5_000_010]);
    let other = server.repository("other");
    let mounted = client().upload_blob(&other, &layer, large.clone(), Some("team/app"), &NoProgress).await.unwrap();
    assert_eq!(mounted, registry::UploadOutcome::Mounted);
    client().delete(&app.with_tag("latest")).await.unwrap();
    assert_eq!(client().list_tags(&app).await.unwrap(), tags[..1]);
    server.stop().await;

    let options = CollectOptions { rules: Rules::default(), grace: Duration::ZERO, is_dry_run: false };
    let (place, held) = (elsewhere.path().to_owned(), Arc::clone(&backend));
    let report = tokio::task::spawn_blocking(move || collect(&place, Some(held), &options).unwrap()).await.unwrap();
    assert_eq!((report.manifests, report.blobs, report.contents), (0, 2, 1), "{report:?}");
    assert!(!has_content(&loose.digest).await && has_content(&layer.digest).await);
}

fn key(prefix: &str, digest: &Digest) -> object_store::path::Path {
    format!("{prefix}blobs/sha256/{}", digest.hex()).into()
}

fn provide_tls() {
    // Whoever was first chose; all of them choose the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_in_memory() {
    provide_tls();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let backend = registry_object_store::with_store(Arc::clone(&store), "some/where".into()).unwrap();
    check(backend, async |digest| store.head(&key("some/where/", digest)).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_in_a_directory() {
    provide_tls();
    let root = tempfile::tempdir().unwrap();
    let backend = registry_object_store::open(&format!("file://{}", root.path().display()), []).unwrap();
    let path = root.path().join("blobs/sha256");
    check(backend, async |digest| path.join(digest.hex()).exists()).await;
}

/// Moto's server, which speaks S3.
struct Moto {
    child: std::process::Child,
    address: SocketAddr,
}

impl Moto {
    async fn start() -> Option<Self> {
        let port = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let child = std::process::Command::new("moto_server")
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn();
        let Ok(child) = child else {
            testkit::skip("`moto_server` is not installed (PyPI: moto[server,s3])");
            return None;
        };
        let moto = Self { child, address: (Ipv4Addr::LOCALHOST, port).into() };
        let begun = Instant::now();
        while tokio::net::TcpStream::connect(moto.address).await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "moto does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Some(moto)
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_in_s3() {
    provide_tls();
    let Some(moto) = Moto::start().await else { return };
    let endpoint = format!("http://{}", moto.address);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    assert!(http.put(format!("{endpoint}/bucket")).send().await.unwrap().status().is_success());
    let settings = [
        ("AWS_ENDPOINT", endpoint.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let backend = registry_object_store::open("s3://bucket/registry", settings).unwrap();
    let has = async |digest: &Digest| {
        let url = format!("{endpoint}/bucket/{}", key("registry/", digest));
        http.head(url).send().await.unwrap().status().is_success()
    };
    check(backend, has).await;
}

#[test]
fn urls_that_are_no_object_store_are_refused() {
    for url in ["bucket", "http://example.com/", "memory:///", "ftp://x/y"] {
        assert!(registry_object_store::open(url, []).is_err(), "{url}");
    }
}
