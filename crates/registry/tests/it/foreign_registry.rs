//! Our client and Debian's docker-registry.

use oci::{Descriptor, media_type};
use registry::{Credential, Credentials, ErrorKind, NoProgress, UploadOutcome};

use crate::support::*;

#[tokio::test]
async fn push_and_pull_work() {
    let Some(registry) = DockerRegistry::start(false).await else { return };
    let (client, image) = (client(), image(&[("a", b"one"), ("b", b"two")]));
    let name = reference(registry.address, "team/app:1.0");
    push(&client, &name, &image).await;
    check_pulled(&client, &name, &image).await;
    assert_eq!(client.list_tags(&name).await.unwrap(), ["1.0"]);
    let (descriptor, bytes) = &image.blobs[0];
    let other = reference(registry.address, "other");
    let outcome = client.upload_blob(&other, descriptor, bytes.clone(), Some("team/app"), &NoProgress).await.unwrap();
    assert_eq!(outcome, UploadOutcome::Mounted);
    client.delete(&name.with_digest(image.digest())).await.unwrap();
    assert!(client.resolve(&name).await.unwrap_err().is_not_found());
    assert!(client.list_tags(&reference(registry.address, "absent")).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn logins_are_asked_for_and_used() {
    let Some(registry) = DockerRegistry::start(true).await else { return };
    let image = image(&[("a", b"one")]);
    let name = reference(registry.address, "app:1");
    let host = name.domain().to_owned();
    let error = client().resolve(&name).await.unwrap_err();
    assert!(error.is_auth() && matches!(error.kind, ErrorKind::Unauthorized { .. }), "{error:?}");
    let error = client().check_login(&host, "user", "wrong").await.unwrap_err();
    assert!(error.is_auth(), "{error:?}");
    assert!(error.kind.to_string().starts_with("registry asks for credentials: it refuses those"), "{error:?}");
    client().check_login(&host, "user", "secret").await.unwrap();

    let directory = tempfile::tempdir().unwrap();
    let credentials = Credentials::from_files([directory.path().join("config.json")]);
    credentials.store(&host, "user", "secret").await.unwrap();
    let known = registry::Client::new(registry::ClientOptions { credentials, ..options() });
    push(&known, &name, &image).await;
    check_pulled(&known, &name, &image).await;

    let wrong = Credential::Password { user: "user".into(), password: "no".into() };
    let credentials = Credentials::anonymous().with(&host, wrong);
    let wrong = registry::Client::new(registry::ClientOptions { credentials, ..options() });
    assert!(wrong.resolve(&name).await.unwrap_err().is_auth());
}

#[tokio::test]
async fn broken_upload_and_download_are_completed() {
    let Some(registry) = DockerRegistry::start(false).await else { return };
    let blob = noise(5, 3_000_000);
    let descriptor = Descriptor::of(media_type::LAYER, &blob);
    // TLS probe, plain probe and requests share the first connections; one of them breaks in the middle of the blob.
    let relay = Relay::start(registry.address, vec![(u64::MAX, u64::MAX), (1_500_000, u64::MAX)]).await;
    let name = reference(relay.address, "cut");
    client().upload_blob(&name, &descriptor, blob.clone(), None, &NoProgress).await.unwrap();
    assert!(relay.connections.load(std::sync::atomic::Ordering::SeqCst) >= 3);
    let cuts = vec![(u64::MAX, u64::MAX), (u64::MAX, 1_000_000), (u64::MAX, 1_000_000)];
    let relay = Relay::start(registry.address, cuts).await;
    assert_eq!(fetch(&client(), &reference(relay.address, "cut"), &descriptor).await.unwrap(), blob);
}

#[tokio::test]
async fn tls_with_an_unknown_certificate_is_fine_on_this_machine() {
    let Some(registry) = DockerRegistry::start_tls().await else { return };
    let (client, image) = (client(), image(&[("a", b"one"), ("b", &noise(2, 3_000_000))]));
    let name = reference(registry.address, "app:1");
    push(&client, &name, &image).await;
    check_pulled(&client, &name, &image).await;
}

#[tokio::test]
async fn a_registry_that_is_a_cache_of_another_gives_and_refuses() {
    let server = Embedded::start().await;
    let image = image(&[("a", b"one"), ("b", &noise(3, 3_000_000))]);
    push(&client(), &reference(server.address, "team/app:1"), &image).await;
    let upstream = format!("proxy: {{remoteurl: \"http://{}\"}}\n", server.address);
    let Some(cache) = DockerRegistry::start_more(&upstream).await else { return };
    let name = reference(cache.address, "team/app:1");
    check_pulled(&client(), &name, &image).await;
    assert!(client().resolve(&name.with_tag("absent")).await.unwrap_err().is_not_found());
    let (descriptor, bytes) = &image.blobs[0];
    let new = Descriptor::of(media_type::LAYER, b"new");
    let error = client().upload_blob(&name, &new, b"new".to_vec(), None, &NoProgress).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Unexpected { status: 405, .. }), "{error:?}");
    // What it has needs no sending.
    let there = client().upload_blob(&name, descriptor, bytes.clone(), None, &NoProgress).await.unwrap();
    assert_eq!(there, UploadOutcome::Existed);
}
