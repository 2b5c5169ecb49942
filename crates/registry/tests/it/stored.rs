//! Images between a registry and the store.

use oci::{Platform, Reference};
use registry::{NoProgress, UploadOutcome};
use reqwest::Method;
use store::{Compression, Image, Store, StoreOptions};

use crate::{
    proxy::{Fault, Proxy},
    support::*,
};

fn open_store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), StoreOptions::default()).unwrap();
    (directory, store)
}

async fn pull(name: &Reference, store: &Store) -> Result<Image, registry::RegistryError> {
    let scope = store.open_scope().unwrap();
    client().pull(name, &Platform::host(), store, &scope, &NoProgress).await
}

fn content(store: &Store, image: &Image, layer: usize, file: &str) -> String {
    fs_err::read_to_string(store.snapshot_fs(&image.layers[layer]).join(file)).unwrap()
}

async fn there_and_back(from: &Reference, to: &Reference) {
    let fixture = image(&[("a", b"one"), ("b", b"two"), ("c", b"three")]);
    push(&client(), from, &fixture).await;
    let (_directory, store) = open_store();
    let recorder = Recorder::default();
    let scope = store.open_scope().unwrap();
    let image = client().pull(from, &Platform::host(), &store, &scope, &recorder).await.unwrap();
    assert_eq!(image.id, fixture.manifest.config.digest);
    assert_eq!(content(&store, &image, 1, "b"), "two");
    for (descriptor, _) in &fixture.blobs {
        assert_eq!(recorder.0.lock().unwrap()[&descriptor.digest], (descriptor.size, descriptor.size));
    }
    let sealed = store.manifest(&image, Compression::Gzip).unwrap();
    assert_eq!(sealed.digest, fixture.digest());
    let mut parts = sealed.manifest.layers.clone();
    parts.push(sealed.manifest.config.clone());
    let outcomes = client().push_blobs(to, &parts, &store, Some(from.path()), &NoProgress).await.unwrap();
    assert_eq!(outcomes, [UploadOutcome::Mounted; 4]);
    let media_type = sealed.manifest.media_type.as_deref().unwrap();
    assert_eq!(client().put_manifest(to, media_type, sealed.bytes).await.unwrap(), sealed.digest);
    check_pulled(&client(), to, &fixture).await;
}

#[tokio::test]
async fn image_is_unpacked_and_pushed_unchanged() {
    let server = Embedded::start().await;
    there_and_back(&reference(server.address, "a:1"), &reference(server.address, "b/c:2")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn image_of_docker_registry_is_unpacked_and_pushed_unchanged() {
    let Some(registry) = DockerRegistry::start(false).await else { return };
    there_and_back(&reference(registry.address, "a:1"), &reference(registry.address, "b/c:2")).await;
}

#[tokio::test]
async fn known_layers_are_not_fetched_and_damaged_ones_are() {
    let server = Embedded::start().await;
    let fixture = image(&[("a", b"one"), ("b", b"two")]);
    let proxy = Proxy::start(server.address, |_, _| Fault::Pass).await;
    let name = reference(proxy.address, "app:1");
    push(&client(), &name, &fixture).await;
    let (_directory, store) = open_store();
    let blobs = || proxy.count(Method::GET, "/blobs/");
    pull(&name, &store).await.unwrap();
    assert_eq!(blobs(), 3);
    pull(&name, &store).await.unwrap();
    assert_eq!(blobs(), 3);

    // A store that has the blobs, one of them damaged, but has not unpacked them.
    let (_directory, store) = open_store();
    for (descriptor, bytes) in &fixture.blobs {
        store.put_blob(bytes).unwrap();
        let path = store.root().join("blobs/sha256").join(descriptor.digest.hex());
        if descriptor == &fixture.manifest.layers[1] {
            let mut damaged = bytes.to_vec();
            let last = damaged.len() - 1;
            damaged[last] ^= 1;
            fs_err::remove_file(&path).unwrap();
            fs_err::write(&path, damaged).unwrap();
        }
    }
    let image = pull(&name, &store).await.unwrap();
    assert_eq!(content(&store, &image, 1, "b"), "two");
    assert_eq!(blobs(), 4);
}

#[tokio::test]
async fn what_is_no_image_is_refused() {
    let server = Embedded::start().await;
    let mut fixture = image(&[("a", b"one")]);
    fixture.manifest.config.media_type = oci::media_type::EMPTY.into();
    fixture.bytes = oci::to_json(&fixture.manifest).into();
    let name = reference(server.address, "artefact:1");
    push(&client(), &name, &fixture).await;
    let (_directory, store) = open_store();
    let error = pull(&name, &store).await.unwrap_err();
    assert!(matches!(error.kind, registry::ErrorKind::Import(_)), "{error:?}");
    assert!(store.images().unwrap().is_empty());
}
