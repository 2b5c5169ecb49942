//! Our client and our server.

use oci::{Descriptor, Digest, Index, Platform, media_type};
use registry::{NoProgress, UploadOutcome};

use crate::support::*;

#[tokio::test]
async fn image_goes_up_and_comes_down() {
    let server = Embedded::start().await;
    let (client, image) = (client(), image(&[("a", b"one"), ("b", b"two")]));
    let name = reference(server.address, "team/app:1.0");
    assert_eq!(push(&client, &name, &image).await, image.digest());
    assert_eq!(client.resolve(&name).await.unwrap().digest, image.digest());
    check_pulled(&client, &name, &image).await;
    assert_eq!(client.list_tags(&name).await.unwrap(), ["1.0"]);
    client.delete(&name.with_digest(image.digest())).await.unwrap();
    assert!(client.resolve(&name).await.unwrap_err().is_not_found());
    server.stop().await;
}

#[tokio::test]
async fn what_is_there_is_not_sent_again() {
    let server = Embedded::start().await;
    let relay = Relay::start(server.address, Vec::new()).await;
    let (client, blob) = (client(), noise(1, 1_000_000));
    let descriptor = Descriptor::of(media_type::LAYER, &blob);
    let (first, second) = (reference(relay.address, "first"), reference(relay.address, "second"));
    let upload =
        async |name, from| client.upload_blob(name, &descriptor, blob.clone(), from, &NoProgress).await.unwrap();
    assert_eq!(upload(&first, None).await, UploadOutcome::Uploaded);
    assert_eq!(upload(&first, None).await, UploadOutcome::Existed);
    assert_eq!(upload(&second, Some("first")).await, UploadOutcome::Mounted);
    assert_eq!(upload(&second, Some("absent")).await, UploadOutcome::Existed);
    assert_eq!(fetch(&client, &second, &descriptor).await.unwrap(), blob);
    let sent = relay.up.load(std::sync::atomic::Ordering::SeqCst);
    assert!(sent < 1_010_000, "{sent} bytes went up");
}

#[tokio::test]
async fn thirty_two_pushes_at_once() {
    let server = Embedded::start().await;
    let client = client();
    let shared = noise(7, 300_000);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..32_u64 {
        let (client, shared) = (client.clone(), shared.clone());
        let name = reference(server.address, &format!("p{}/app:t{number}", number % 4));
        tasks.spawn(async move {
            let own = noise(number + 100, 50_000);
            let image = image(&[("shared", &shared), ("own", &own)]);
            push(&client, &name, &image).await;
            check_pulled(&client, &name, &image).await;
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(client.list_tags(&reference(server.address, "p1/app")).await.unwrap().len(), 8);
}

#[tokio::test]
async fn files_are_streamed_and_progress_is_told() {
    let server = Embedded::start().await;
    let (client, blob) = (client(), noise(3, 20 * 1024 * 1024 + 17));
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, &blob).unwrap();
    let descriptor = Descriptor::of(media_type::LAYER, &blob);
    let name = reference(server.address, "big");
    let recorder = Recorder::default();
    client.upload_blob(&name, &descriptor, file, None, &recorder).await.unwrap();
    assert_eq!(recorder.0.lock().unwrap()[&descriptor.digest], (descriptor.size, descriptor.size));
    assert!(client.has_blob(&name, &descriptor.digest).await.unwrap());
    assert_eq!(fetch(&client, &name, &descriptor).await.unwrap(), blob);
}

#[tokio::test]
async fn empty_and_one_byte_blobs_work() {
    let server = Embedded::start().await;
    let name = reference(server.address, "small");
    for blob in [noise(1, 0), noise(1, 1), noise(1, 2)] {
        let descriptor = Descriptor::of(media_type::LAYER, &blob);
        client().upload_blob(&name, &descriptor, blob.clone(), None, &NoProgress).await.unwrap();
        assert_eq!(fetch(&client(), &name, &descriptor).await.unwrap(), blob);
    }
}

#[tokio::test]
async fn platform_is_chosen_and_a_missing_one_names_the_others() {
    let server = Embedded::start().await;
    let client = client();
    let mut entries = Vec::new();
    for platform in ["linux/amd64", "linux/arm64/v8"] {
        let platform: Platform = platform.parse().unwrap();
        let image = image_for(&platform, &[("who", platform.to_string().as_bytes())]);
        let digest = push(&client, &reference(server.address, "multi").with_digest(image.digest()), &image).await;
        let mut entry = Descriptor::new(media_type::MANIFEST, digest, image.bytes.len() as u64);
        entry.platform = Some(platform);
        entries.push(entry);
    }
    let index = oci::to_json(&Index::of(entries.clone()));
    let name = reference(server.address, "multi:latest");
    client.put_manifest(&name, media_type::INDEX, index).await.unwrap();
    let (resolved, manifest) = client.fetch_image_manifest(&name, &"linux/arm64".parse().unwrap()).await.unwrap();
    assert_eq!(resolved.descriptor.digest, entries[1].digest);
    assert_eq!(manifest.layers.len(), 1);
    let error = client.fetch_image_manifest(&name, &"linux/s390x".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.kind.to_string(), "no image for linux/s390x; there is linux/amd64, linux/arm64/v8");
    assert!(!error.is_surroundings());
}

#[tokio::test]
async fn wrong_source_content_is_refused_by_the_registry() {
    let server = Embedded::start().await;
    let name = reference(server.address, "x");
    let descriptor = Descriptor::new(media_type::LAYER, Digest::of(b"other"), 5);
    let error = client().upload_blob(&name, &descriptor, b"bytes".to_vec(), None, &NoProgress).await.unwrap_err();
    assert!(error.kind.to_string().contains("DIGEST_INVALID"), "{}", error.kind);
    let descriptor = Descriptor::new(media_type::LAYER, Digest::of(b"other"), 500);
    let error = client().upload_blob(&name, &descriptor, b"bytes".to_vec(), None, &NoProgress).await.unwrap_err();
    assert!(matches!(error.kind, registry::ErrorKind::Local(_)), "{}", error.kind);
}

#[test]
fn futures_can_be_spawned() {
    fn check<T: Send>(_: impl FnOnce() -> T) {}
    let platform = Platform::host();
    let _ = |client: registry::Client, name: oci::Reference, store: store::Store, scope: store::Scope| {
        check(|| client.pull(&name, &platform, &store, &scope, &NoProgress));
        check(|| client.push_blobs(&name, &[], &store, None, &NoProgress));
        check(|| client.put_manifest(&name, "", Vec::new()));
    };
}

/// In a process of its own: what tests beside it take is not counted. Takes a minute in a debug build.
#[test]
fn large_layers_do_not_need_memory() {
    if !testkit::wants_slow_tests() {
        return testkit::skip("large uploads take their time; set SEATRIAL_SLOW_TESTS=1");
    }
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "transfer::the_process_that_moves_a_large_layer", "--ignored"]).env(IN_PROCESS, "1");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

const IN_PROCESS: &str = "SEATRIAL_TEST_LARGE_LAYER";

/// 512 MB up and down, on disk at both ends; memory must not grow with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is no test, but the process whose memory another looks at"]
async fn the_process_that_moves_a_large_layer() {
    use std::io::Write;
    if std::env::var_os(IN_PROCESS).is_none() {
        return;
    }
    let docker = DockerRegistry::start(false).await;
    let server = Embedded::start().await;
    let block = noise(8, 8 * 1024 * 1024);
    let mut hasher = oci::Hasher::new();
    let mut file = tempfile::tempfile().unwrap();
    for _ in 0..64 {
        hasher.update(&block);
        file.write_all(&block).unwrap();
    }
    let descriptor = Descriptor::new(media_type::LAYER, hasher.finish(), 512 * 1024 * 1024);
    let store = tempfile::tempdir().unwrap();
    let store = store::Store::open(store.path(), store::StoreOptions::default()).unwrap();
    let before = peak_kb();
    for address in [Some(server.address), docker.as_ref().map(|docker| docker.address)].into_iter().flatten() {
        let name = reference(address, "large");
        let begun = std::time::Instant::now();
        client().upload_blob(&name, &descriptor, file.try_clone().unwrap(), None, &NoProgress).await.unwrap();
        let up = begun.elapsed();
        let open = || -> Result<Box<dyn registry::BlobTarget>, Box<dyn std::error::Error + Send + Sync>> {
            Ok(Box::new(store.blob_writer()?))
        };
        client().fetch_blob(&name, &descriptor, &open, &NoProgress).await.unwrap();
        let down = begun.elapsed() - up;
        let _ = writeln!(std::io::stderr(), "{address}: up {up:?}, down {down:?}");
    }
    let grown = peak_kb() - before;
    assert!(grown < 30_000, "memory grew by {grown} kB");
}

fn peak_kb() -> u64 {
    let status = fs_err::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
