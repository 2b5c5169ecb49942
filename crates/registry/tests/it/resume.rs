//! Pulls and pushes that were killed, and those that come after them: bytes are counted on the way.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::Ordering,
};

use fs_err as fs;
use oci::{Descriptor, Digest, Platform, Reference, media_type};
use registry::{NoProgress, UploadOutcome};
use store::{Store, StoreOptions};

use crate::{gate::Gate, support::*};

const BLOB_BYTES: usize = 24_000_000;
/// So much comes through before the kill.
const BEFORE_BYTES: u64 = 12_000_000;
/// So much of it may be lost with the process: what was on its way, in buffers of both ends and of the kernel.
const LOST_BYTES: u64 = 8_000_000;
/// What the victim is to do: `pull` or `push`, name, directory of the store, and for a push digest and size.
const ORDERS: &str = "SEATRIAL_TEST_VICTIM";

fn open(directory: &Path) -> Store {
    Store::open(directory, StoreOptions::default()).unwrap()
}

/// This program again, as the process that is killed.
fn victim(orders: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "resume::the_process_that_is_killed", "--ignored"]).env(ORDERS, orders);
    command.stdout(Stdio::null()).spawn().unwrap()
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn push_orders(name: &Reference, directory: &Path, blob: &Descriptor) -> String {
    format!("push {name} {} {} {}", directory.display(), blob.digest, blob.size)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is no test, but the process that others kill"]
async fn the_process_that_is_killed() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let words: Vec<&str> = orders.split(' ').collect();
    let (name, store): (Reference, _) = (words[1].parse().unwrap(), open(Path::new(words[2])));
    if words[0] == "pull" {
        let scope = store.open_scope().unwrap();
        client().pull(&name, &Platform::host(), &store, &scope, &NoProgress).await.unwrap();
    } else {
        let blob = Descriptor::new(media_type::LAYER, words[3].parse().unwrap(), words[4].parse().unwrap());
        client().push_blobs(&name, &[blob], &store, None, &NoProgress).await.unwrap();
    }
}

async fn large_image(server: &Embedded) -> (Fixture, Digest) {
    let large = image(&[("small", b"one"), ("large", &noise(11, BLOB_BYTES))]);
    push(&client(), &reference(server.address, "app:1"), &large).await;
    let digest = large.blobs[1].0.digest.clone();
    (large, digest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_goes_on_where_a_killed_one_was() {
    let server = Embedded::start().await;
    let (fixture, digest) = large_image(&server).await;
    let mut gate = Gate::start(server.address, u64::MAX, BEFORE_BYTES).await;
    let directory = tempfile::tempdir().unwrap();
    let name = reference(gate.address, "app:1");
    let child = victim(&format!("pull {name} {}", directory.path().display()));
    gate.holds().await;
    kill(child);
    let partial = directory.path().join("partial").join(digest.hex());
    let there = fs::metadata(&partial).unwrap().len();
    assert!(there > BEFORE_BYTES - LOST_BYTES, "{there} bytes are there");
    let store = open(directory.path());
    assert_eq!(store.has_blob(&digest), None, "a part is no blob");

    gate.open();
    let scope = store.open_scope().unwrap();
    let image = client().pull(&name, &Platform::host(), &store, &scope, &NoProgress).await.unwrap();
    assert_eq!(image.id, fixture.manifest.config.digest);
    let down = gate.down.load(Ordering::SeqCst);
    assert!(down < fixture.blobs[1].0.size - there + 200_000, "{down} bytes came although {there} were there");
    assert!(!partial.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_pull_left_is_not_believed() {
    let server = Embedded::start().await;
    let (fixture, digest) = large_image(&server).await;
    let name = reference(server.address, "app:1");
    let size = fixture.blobs[1].0.size as usize;
    // Other bytes, more than there should be, all of it but wrong, nothing at all.
    for left in [noise(1, 5_000_000), noise(1, size + 9), noise(1, size), noise(1, 0)] {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        fs::create_dir_all(directory.path().join("partial")).unwrap();
        fs::write(directory.path().join("partial").join(digest.hex()), &left).unwrap();
        let scope = store.open_scope().unwrap();
        let image = client().pull(&name, &Platform::host(), &store, &scope, &NoProgress).await.unwrap();
        assert_eq!(image.id, fixture.manifest.config.digest);
        assert_eq!(fs::read_dir(directory.path().join("partial")).unwrap().count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_pulls_of_the_same_do_not_meet() {
    let server = Embedded::start().await;
    let (fixture, _) = large_image(&server).await;
    let directory = tempfile::tempdir().unwrap();
    let name = reference(server.address, "app:1");
    let pull = async || {
        let store = open(directory.path());
        let scope = store.open_scope().unwrap();
        client().pull(&name, &Platform::host(), &store, &scope, &NoProgress).await.unwrap().id
    };
    let (one, two) = tokio::join!(pull(), pull());
    assert_eq!((&one, &two), (&fixture.manifest.config.digest, &fixture.manifest.config.digest));
    assert_eq!(fs::read_dir(directory.path().join("partial")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_goes_on_where_a_killed_one_was() {
    let server = Embedded::start().await;
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let blob = noise(12, BLOB_BYTES);
    store.put_blob(&blob).unwrap();
    let descriptor = Descriptor::of(media_type::LAYER, &blob);
    let mut gate = Gate::start(server.address, BEFORE_BYTES, u64::MAX).await;
    let name = reference(gate.address, "app");
    let child = victim(&push_orders(&name, directory.path(), &descriptor));
    gate.holds().await;
    kill(child);

    gate.open();
    let push = async || {
        client().push_blobs(&name, std::slice::from_ref(&descriptor), &store, None, &NoProgress).await.unwrap()
    };
    assert_eq!(push().await, [UploadOutcome::Uploaded]);
    let up = gate.up.load(Ordering::SeqCst);
    assert!(up < BLOB_BYTES as u64 - BEFORE_BYTES + LOST_BYTES, "{up} bytes went up");
    assert_eq!(fetch(&client(), &reference(server.address, "app"), &descriptor).await.unwrap(), blob);
    // And a third one sends nothing.
    gate.open();
    assert_eq!(push().await, [UploadOutcome::Existed]);
    let up = gate.up.load(Ordering::SeqCst);
    assert!(up < 5_000, "{up} bytes went up");
}

/// A registry that forgot the upload, or that cannot go on with one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_begins_anew_where_it_cannot_go_on() {
    let server = Embedded::start().await;
    let docker = DockerRegistry::start(false).await;
    for address in [Some(server.address), docker.as_ref().map(|docker| docker.address)].into_iter().flatten() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        let blob = noise(13, BLOB_BYTES / 4);
        store.put_blob(&blob).unwrap();
        let descriptor = Descriptor::of(media_type::LAYER, &blob);
        let mut gate = Gate::start(address, BEFORE_BYTES / 4, u64::MAX).await;
        let name = reference(gate.address, "app");
        let child = victim(&push_orders(&name, directory.path(), &descriptor));
        gate.holds().await;
        kill(child);
        gate.open();
        if address == server.address {
            // Whatever is noted, it leads to an upload that does not exist.
            let key = format!("{}@{}", name.repository(), descriptor.digest);
            let location = format!("http://{}/v2/app/blobs/uploads/{}", gate.address, "0".repeat(32));
            assert!(store.memo_get("uploads", &key).is_some(), "the victim had noted its upload");
            store.memo_put("uploads", &key, location.as_bytes()).unwrap();
        }
        let outcome = client().push_blobs(&name, std::slice::from_ref(&descriptor), &store, None, &NoProgress).await;
        assert_eq!(outcome.unwrap(), [UploadOutcome::Uploaded]);
        assert_eq!(fetch(&client(), &name, &descriptor).await.unwrap(), blob);
    }
}
