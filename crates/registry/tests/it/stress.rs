//! Writers, readers and garbage collection at once, while the server is killed again and again: what was acknowledged can be
//! pulled, byte for byte.

use std::{
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use fs_err as fs;
use oci::{Descriptor, Manifest, Reference, media_type};
use registry::{
    Client, ClientOptions, CollectOptions, NoProgress, RepositoryRules, Retention, Rules, Server, ServerOptions,
    collect,
};

use crate::{support::*, tags::rules_for};

/// Where the server that is to be killed has its directory; set for the process that runs it.
const DIRECTORY_VARIABLE: &str = "SEATRIAL_TEST_STRESS_DIRECTORY";
const ADDRESS_VARIABLE: &str = "SEATRIAL_TEST_STRESS_ADDRESS";
const WRITERS: u64 = 40;
const READERS: u64 = 24;
/// Images that one writer pushes.
const PUSHES: u64 = 6;
const KILLS: u64 = 10;
/// Nothing here takes this long unless it hangs.
const WAIT_MAX: Duration = Duration::from_secs(240);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(5);

fn rules() -> Rules {
    let retention = Retention { untagged_after: Some(Duration::from_secs(1)), ..Retention::default() };
    Rules { repositories: vec![RepositoryRules { retention: Some(retention), ..rules_for("**") }], bytes_max: None }
}

/// Not a test: the server of the test below, in a process of its own, until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_of_the_stress_test() {
    let Some(directory) = std::env::var_os(DIRECTORY_VARIABLE).map(PathBuf::from) else { return };
    let address: SocketAddr = std::env::var(ADDRESS_VARIABLE).unwrap().parse().unwrap();
    let options = ServerOptions {
        collect_every: Some(Duration::from_secs(1)),
        // Long enough for one push on a busy machine, short enough that collections remove something.
        collect_grace: Duration::from_secs(3),
        rules: rules(),
        ..ServerOptions::default()
    };
    let server = Server::bind(address, directory.join("registry"), options).await.unwrap();
    let temporary = directory.join("address.new");
    fs::write(&temporary, server.local_addr().to_string()).unwrap();
    fs::rename(temporary, directory.join("address")).unwrap();
    server.serve(std::future::pending()).await.unwrap();
}

struct Killable {
    child: Child,
}

impl Killable {
    /// Starts it; at the same address as before, if there was one.
    async fn start(directory: &Path, address: Option<SocketAddr>) -> (Self, SocketAddr) {
        let _ = fs::remove_file(directory.join("address"));
        let wanted = address.map_or("127.0.0.1:0".into(), |address| address.to_string());
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "stress::server_of_the_stress_test"])
            .env(DIRECTORY_VARIABLE, directory)
            .env(ADDRESS_VARIABLE, wanted)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self { child };
        let begun = Instant::now();
        let address = loop {
            if let Ok(text) = fs::read_to_string(directory.join("address")) {
                break text.parse().unwrap();
            }
            assert!(server.child.try_wait().unwrap().is_none(), "the server ended");
            assert!(begun.elapsed() < WAIT_MAX, "the server does not start");
            tokio::time::sleep(POLL).await;
        };
        (server, address)
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        // SIGKILL, as out of nowhere.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Acknowledged {
    reference: Reference,
    image: Fixture,
}

/// An image of one layer that many share and one of its own.
fn own_image(seed: u64) -> Fixture {
    let layers = [noise(seed % 7, 30_000), noise(1000 + seed, 20_000 + (seed as usize % 9) * 5_000)];
    let config = bytes::Bytes::from(format!("{{\"seed\":{seed}}}"));
    let mut blobs: Vec<_> =
        layers.into_iter().map(|bytes| (Descriptor::of(media_type::LAYER_GZIP, &bytes), bytes)).collect();
    let descriptors: Vec<Descriptor> = blobs.iter().map(|(descriptor, _)| descriptor.clone()).collect();
    let manifest = Manifest::image(Descriptor::of(media_type::CONFIG, &config), descriptors);
    blobs.push((manifest.config.clone(), config));
    let bytes = oci::to_json(&manifest).into();
    Fixture { manifest, bytes, blobs }
}

async fn try_push(client: &Client, reference: &Reference, image: &Fixture) -> Result<(), registry::RegistryError> {
    for (descriptor, bytes) in &image.blobs {
        // Half of them come by a mount, if they are there already.
        let from = (descriptor.size % 2 == 0).then_some("writer/0");
        client.upload_blob(reference, descriptor, bytes.clone(), from, &NoProgress).await?;
    }
    let tags = [reference.tag().unwrap().to_owned(), "moving".to_owned()];
    let any = registry::TagCondition::Any;
    let bytes = image.bytes.clone();
    client.put_manifest_tags(reference, &tags, &any, media_type::MANIFEST, bytes, &mut |_| {}).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_pushes_outlast_kills_and_collections() {
    let directory = tempfile::tempdir().unwrap();
    let (mut server, address) = Killable::start(directory.path(), None).await;
    let client = Client::new(ClientOptions { retries: 3, ..options() });
    let acknowledged: Arc<Mutex<Vec<Arc<Acknowledged>>>> = Arc::default();
    let count = || acknowledged.lock().unwrap().len() as u64;
    let begun = Instant::now();

    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (client, acknowledged) = (client.clone(), Arc::clone(&acknowledged));
        writers.spawn(async move {
            for push in 0..PUSHES {
                let reference = reference(address, &format!("writer/{}:push-{writer}-{push}", writer % 5));
                let image = own_image(writer * 100 + push);
                // The server may be dead for a moment; what a collection took meanwhile is sent again.
                while try_push(&client, &reference, &image).await.is_err() {
                    assert!(begun.elapsed() < WAIT_MAX, "{reference} cannot be pushed");
                    tokio::time::sleep(POLL).await;
                }
                acknowledged.lock().unwrap().push(Arc::new(Acknowledged { reference, image }));
            }
        });
    }
    let mut readers = tokio::task::JoinSet::new();
    for reader in 0..READERS {
        let (client, acknowledged) = (client.clone(), Arc::clone(&acknowledged));
        readers.spawn(async move {
            let mut place = reader as usize;
            loop {
                let pick = {
                    let all = acknowledged.lock().unwrap();
                    place = place.wrapping_mul(31).wrapping_add(17);
                    all.get(place % all.len().max(1)).cloned()
                };
                let Some(pick) = pick else {
                    tokio::time::sleep(POLL).await;
                    continue;
                };
                check_if_reachable(&client, &pick).await;
            }
        });
    }
    for kill in 1..=KILLS {
        // Spread over the pushes; each time some are under way.
        while count() < kill * WRITERS * PUSHES / (KILLS + 2) {
            assert!(begun.elapsed() < WAIT_MAX, "{} of {} pushes", count(), WRITERS * PUSHES);
            tokio::time::sleep(POLL).await;
        }
        drop(server);
        server = Killable::start(directory.path(), Some(address)).await.0;
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    readers.shutdown().await;

    let all: Vec<_> = acknowledged.lock().unwrap().clone();
    assert_eq!(all.len() as u64, WRITERS * PUSHES);
    drop(server);
    let root = directory.path().join("registry");
    let nothing_young = CollectOptions { rules: rules(), grace: Duration::ZERO, is_dry_run: false };
    let report = tokio::task::spawn_blocking(move || collect(&root, None, &nothing_young).unwrap()).await.unwrap();
    assert_eq!(report.unreadable, Vec::<String>::new());
    let (_server, _) = Killable::start(directory.path(), Some(address)).await;
    for one in &all {
        check_pulled(&client, &one.reference, &one.image).await;
    }
    let _ = writeln!(std::io::stderr(), "{} pushes, {KILLS} kills, {:?}", all.len(), begun.elapsed());
}

/// What can be reached is right; the server may be dead for a moment.
async fn check_if_reachable(client: &Client, one: &Acknowledged) {
    match client.fetch_manifest(&one.reference, 1 << 20).await {
        Ok(resolved) => assert_eq!(resolved.descriptor.digest, one.image.digest()),
        Err(error) => return assert!(!error.is_not_found(), "{} is gone: {error:?}", one.reference),
    }
    for (descriptor, bytes) in &one.image.blobs {
        match fetch(client, &one.reference, descriptor).await {
            Ok(found) => assert_eq!(found, *bytes),
            Err(error) => assert!(!error.is_not_found(), "{} is gone: {error:?}", one.reference),
        }
    }
}
