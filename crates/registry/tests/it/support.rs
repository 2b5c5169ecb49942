//! Fixtures: small images, registries on free ports, broken networks.

use std::{
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use fs_err as fs;
use oci::{Descriptor, Digest, ImageConfig, Manifest, Platform, Reference, media_type};
use registry::{
    BlobTarget, Client, ClientOptions, CommitError, NoProgress, Progress, Server, ServerError, ServerOptions,
};
pub(crate) use testkit::has_tool;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};

/// Nothing here takes this long unless it hangs.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// A client that does not wait long between its attempts.
pub(crate) fn client() -> Client {
    Client::new(options())
}

pub(crate) fn options() -> ClientOptions {
    ClientOptions {
        retry_wait: Duration::from_millis(5),
        idle_timeout: Duration::from_secs(10),
        ..ClientOptions::default()
    }
}

pub(crate) fn reference(address: SocketAddr, rest: &str) -> Reference {
    format!("127.0.0.1:{}/{rest}", address.port()).parse().unwrap()
}

/// Bytes that do not repeat and do not compress, the same each time.
pub(crate) fn noise(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

/// An image in memory.
pub(crate) struct Fixture {
    pub(crate) manifest: Manifest,
    pub(crate) bytes: Bytes,
    pub(crate) blobs: Vec<(Descriptor, Bytes)>,
}

impl Fixture {
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }
}

/// An image whose layers hold one file each.
pub(crate) fn image(files: &[(&str, &[u8])]) -> Fixture {
    image_for(&Platform::host(), files)
}

pub(crate) fn image_for(platform: &Platform, files: &[(&str, &[u8])]) -> Fixture {
    let mut config = ImageConfig::scratch(platform);
    let (mut layers, mut blobs) = (Vec::new(), Vec::new());
    for (name, content) in files {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *content).unwrap();
        let tar = tar.into_inner().unwrap();
        config.rootfs.diff_ids.push(oci::DiffId(Digest::of(&tar)));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        let layer = Bytes::from(gzip.finish().unwrap());
        let descriptor = Descriptor::of(media_type::LAYER_GZIP, &layer);
        layers.push(descriptor.clone());
        blobs.push((descriptor, layer));
    }
    let config = Bytes::from(oci::to_json(&config));
    let descriptor = Descriptor::of(media_type::CONFIG, &config);
    blobs.push((descriptor.clone(), config));
    let manifest = Manifest::image(descriptor, layers);
    let bytes = Bytes::from(oci::to_json(&manifest));
    Fixture { manifest, bytes, blobs }
}

/// Uploads an image, names last.
pub(crate) async fn push(client: &Client, reference: &Reference, image: &Fixture) -> Digest {
    for (descriptor, bytes) in &image.blobs {
        client.upload_blob(reference, descriptor, bytes.clone(), None, &NoProgress).await.unwrap();
    }
    client.put_manifest(reference, media_type::MANIFEST, image.bytes.clone()).await.unwrap()
}

/// Fetches an image and compares every byte.
pub(crate) async fn check_pulled(client: &Client, reference: &Reference, image: &Fixture) {
    let resolved = client.fetch_manifest(reference, 1 << 20).await.unwrap();
    assert_eq!(resolved.descriptor.digest, image.digest());
    for (descriptor, bytes) in &image.blobs {
        assert_eq!(fetch(client, reference, descriptor).await.unwrap(), *bytes);
    }
}

/// Fetches a blob into memory.
pub(crate) async fn fetch(
    client: &Client,
    repository: &Reference,
    descriptor: &Descriptor,
) -> Result<Bytes, registry::RegistryError> {
    let kept = Arc::new(Mutex::new(None));
    let open = || -> Result<Box<dyn BlobTarget>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Box::new(Memory { bytes: Vec::new(), kept: Arc::clone(&kept) }))
    };
    client.fetch_blob(repository, descriptor, &open, &NoProgress).await?;
    Ok(kept.lock().unwrap().take().expect("a fetched blob was committed"))
}

struct Memory {
    bytes: Vec<u8>,
    kept: Arc<Mutex<Option<Bytes>>>,
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BlobTarget for Memory {
    fn commit(self: Box<Self>, digest: &Digest, size: u64) -> Result<(), CommitError> {
        assert_eq!(self.bytes.len() as u64, size, "the size was checked on the way");
        let found = Digest::of(&self.bytes);
        if found != *digest {
            return Err(CommitError::WrongDigest(found));
        }
        *self.kept.lock().unwrap() = Some(self.bytes.into());
        Ok(())
    }
}

/// Remembers the last word about each blob.
#[derive(Default)]
pub(crate) struct Recorder(pub(crate) Mutex<std::collections::HashMap<Digest, (u64, u64)>>);

impl Progress for Recorder {
    fn advance(&self, item: &Digest, done: u64, total: u64) {
        assert!(done <= total);
        self.0.lock().unwrap().insert(item.clone(), (done, total));
    }
}

/// The embedded server, running.
pub(crate) struct Embedded {
    pub(crate) address: SocketAddr,
    pub(crate) directory: PathBuf,
    _temporary: Option<tempfile::TempDir>,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
}

impl Embedded {
    pub(crate) async fn start() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let mut server = Self::on(temporary.path()).await;
        server._temporary = Some(temporary);
        server
    }

    pub(crate) async fn on(directory: &Path) -> Self {
        Self::with(directory, ServerOptions::default()).await
    }

    pub(crate) async fn with(directory: &Path, options: ServerOptions) -> Self {
        let options = ServerOptions { idle_timeout: Duration::from_secs(5), ..options };
        let begun = Instant::now();
        let server = loop {
            match Server::bind((Ipv4Addr::LOCALHOST, 0).into(), directory, options.clone()).await {
                // A process that another test starts has the former server's lock until it is another program.
                Err(ServerError::Busy(_)) if begun.elapsed() < WAIT_MAX => tokio::task::yield_now().await,
                bound => break bound.unwrap(),
            }
        };
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            server.serve(shutdown).await.unwrap();
        });
        let directory = directory.to_owned();
        Self { address, directory, _temporary: None, stop: Some(stop), serving: Some(serving) }
    }

    /// Ends it and waits for the end.
    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        self.serving.take().unwrap().await.unwrap();
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// Debian's docker-registry, running.
pub(crate) struct DockerRegistry {
    pub(crate) address: SocketAddr,
    child: Child,
    pub(crate) directory: tempfile::TempDir,
}

impl DockerRegistry {
    /// With user `user` and password `secret` when `with_login`. `None`, with a word on stderr, where it is not installed.
    pub(crate) async fn start(with_login: bool) -> Option<Self> {
        Self::start_with(with_login, false).await
    }

    /// With more lines in its settings.
    pub(crate) async fn start_more(settings: &str) -> Option<Self> {
        if !has_tool("docker-registry") {
            return None;
        }
        Some(Self::start_in(tempfile::tempdir().unwrap(), false, &format!("  # More.\n{settings}")).await)
    }

    /// With a certificate that nobody vouches for.
    pub(crate) async fn start_tls() -> Option<Self> {
        if has_tool("openssl") { Self::start_with(false, true).await } else { None }
    }

    /// One that takes only clients with a certificate of its authority; `authority.pem`, `client.pem` and `client.key`
    /// lie in its directory.
    pub(crate) async fn start_mutual_tls() -> Option<Self> {
        if !has_tool("openssl") || !has_tool("docker-registry") {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        make_certificates(directory.path(), &["server", "client"]).await;
        let file = |name: &str| directory.path().join(name).display().to_string();
        let pem = file("authority.pem");
        let tls = format!(
            "  tls: {{certificate: {}, key: {}, clientcas: [{pem}]}}\n",
            file("server.pem"),
            file("server.key")
        );
        Some(Self::start_in(directory, false, &tls).await)
    }

    async fn start_with(with_login: bool, with_tls: bool) -> Option<Self> {
        if !has_tool("docker-registry") {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let mut tls = String::new();
        if with_tls {
            let [key, certificate] = ["key.pem", "cert.pem"].map(|name| directory.path().join(name));
            let (key, certificate) = (key.to_str().unwrap(), certificate.to_str().unwrap());
            let subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
            let kind =
                ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key, "-out", certificate];
            run("openssl", &[&kind[..], &subject[..]].concat(), &[]).await;
            tls = format!("  tls: {{certificate: {certificate}, key: {key}}}\n");
        }
        Some(Self::start_in(directory, with_login, &tls).await)
    }

    async fn start_in(directory: tempfile::TempDir, with_login: bool, tls: &str) -> Self {
        let port = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {0}/data}}\n  delete: {{enabled: true}}\n\
             http:\n  addr: 127.0.0.1:{port}\n",
            directory.path().display()
        );
        config += tls;
        if with_login {
            // `secret`, as `htpasswd -B` writes it.
            let hash = "$2b$04$nVV95ls4w7jkoDwOvtiNseZhPgIbXWD0mI2H/jgcmrkMUqdSfxN7e";
            fs::write(directory.path().join("htpasswd"), format!("user:{hash}\n")).unwrap();
            config += &format!("auth: {{htpasswd: {{realm: test, path: {}/htpasswd}}}}\n", directory.path().display());
        }
        let path = directory.path().join("config.yml");
        fs::write(&path, config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.path().join("log")).unwrap().into_parts().0)
            .spawn()
            .unwrap();
        let registry = Self { address: (Ipv4Addr::LOCALHOST, port).into(), child, directory };
        let begun = Instant::now();
        while TcpStream::connect(registry.address).await.is_err() {
            assert!(begun.elapsed() < WAIT_MAX, "docker-registry does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        registry
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An authority in a directory, with certificates for this machine: `authority.pem`, and `NAME.pem` and `NAME.key` for each.
pub(crate) async fn make_certificates(directory: &Path, names: &[&str]) {
    let file = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let new = ["req", "-newkey", "rsa:2048", "-nodes", "-keyout"];
    let (key, pem) = (file("authority.key"), file("authority.pem"));
    let authority = [key.as_str(), "-x509", "-days", "2", "-subj", "/CN=authority", "-out", &pem];
    run("openssl", &[&new[..], &authority].concat(), &[]).await;
    fs::write(file("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
    for name in names {
        let (own, request) = (file(&format!("{name}.key")), file(&format!("{name}.csr")));
        let subject = format!("/CN={name}");
        run("openssl", &[&new[..], &[&own, "-subj", &subject, "-out", &request]].concat(), &[]).await;
        let (out, names) = (file(&format!("{name}.pem")), file("names"));
        let sign = ["x509", "-req", "-in", &request, "-CA", &pem, "-CAkey", &key, "-CAcreateserial", "-days", "2"];
        run("openssl", &[&sign[..], &["-extfile", &names, "-out", &out]].concat(), &[]).await;
    }
}

/// Whether we are root; says on stderr why a test has to skip.
pub(crate) fn is_root(reason: &str) -> bool {
    let is_root = testkit::is_root();
    if !is_root {
        testkit::skip(reason);
    }
    is_root
}

/// Runs a program to its end and returns its output; fails the test when it fails.
pub(crate) async fn run(program: &str, arguments: &[&str], environment: &[(&str, &Path)]) -> String {
    let (is_success, text, errors) = attempt(program, arguments, environment).await;
    assert!(is_success, "{program} {arguments:?}\n{text}{errors}");
    text
}

/// Runs a program that has to fail, and returns what it says about that.
pub(crate) async fn run_failing(program: &str, arguments: &[&str], environment: &[(&str, &Path)]) -> String {
    let (is_success, text, errors) = attempt(program, arguments, environment).await;
    assert!(!is_success, "{program} {arguments:?} does not fail\n{text}{errors}");
    errors
}

/// Runs a program to its end: whether it succeeded, its output, its errors.
async fn attempt(program: &str, arguments: &[&str], environment: &[(&str, &Path)]) -> (bool, String, String) {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value.as_os_str()))).kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(120), command.output()).await.expect("it ends").unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// A TCP relay that cuts connections: the n-th connection passes `cuts[n]` bytes (up, down) and is then reset.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    /// Bytes sent towards the registry, over all connections.
    pub(crate) up: Arc<AtomicU64>,
    pub(crate) connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Relay {
    pub(crate) async fn start(target: SocketAddr, cuts: Vec<(u64, u64)>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (up, connections) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counter, number) = (Arc::clone(&up), Arc::clone(&connections));
        let task = tokio::spawn(async move {
            let mut tasks = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let cut = cuts.get(number.fetch_add(1, Ordering::SeqCst)).copied().unwrap_or((u64::MAX, u64::MAX));
                let counter = Arc::clone(&counter);
                tasks.spawn(async move {
                    let Ok(server) = TcpStream::connect(target).await else { return };
                    // A reset, not an orderly end.
                    #[expect(deprecated, reason = "the zero linger only resets, it does not block")]
                    let _ = client.set_linger(Some(Duration::ZERO));
                    let (client_in, client_out) = client.into_split();
                    let (server_in, server_out) = server.into_split();
                    tokio::select! {
                        () = copy(client_in, server_out, cut.0, Some(counter)) => {}
                        () = copy(server_in, client_out, cut.1, None) => {}
                    }
                });
            }
        });
        Self { address, up, connections, task }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn copy(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut left: u64,
    counter: Option<Arc<AtomicU64>>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while left > 0 {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
        let length = length.min(left.try_into().unwrap_or(usize::MAX));
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
        left -= length as u64;
        if let Some(counter) = &counter {
            counter.fetch_add(length as u64, Ordering::SeqCst);
        }
    }
}
