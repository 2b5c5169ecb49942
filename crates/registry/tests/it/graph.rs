//! Whole graphs: indexes with their images, and what refers to them.

use oci::{Descriptor, Digest, Index, Manifest, Platform, Reference, media_type};
use registry::{Client, Copied, CopyOptions, NoProgress};

use crate::support::*;

const SIGNATURE: &str = "application/vnd.example.signature";

fn platform(text: &str) -> Platform {
    text.parse().unwrap()
}

/// An index of two images, a signature of the index, and a note about the signature.
async fn signed_index(client: &Client, name: &Reference) -> (Digest, Digest, Digest) {
    let mut listed = Vec::new();
    for text in ["linux/amd64", "linux/arm64"] {
        let image = image_for(&platform(text), &[("own", text.as_bytes()), ("shared", b"both")]);
        push(client, &name.with_digest(image.digest()), &image).await;
        let mut descriptor = Descriptor::of(media_type::MANIFEST, &image.bytes);
        descriptor.platform = Some(platform(text));
        listed.push(descriptor);
    }
    let index = serde_json::to_vec(&Index::of(listed)).unwrap();
    let digest = client.put_manifest(name, media_type::INDEX, index.clone()).await.unwrap();
    let signature = refer(client, name, Descriptor::of(media_type::INDEX, &index), SIGNATURE).await;
    let note = refer(client, name, signature.clone(), "application/vnd.example.note").await;
    (digest, signature.digest, note.digest)
}

/// Puts an artefact about `subject`.
async fn refer(client: &Client, name: &Reference, subject: Descriptor, kind: &str) -> Descriptor {
    let empty = Descriptor::of(media_type::EMPTY, b"{}");
    let payload = format!("about {}", subject.digest).into_bytes();
    let layer = Descriptor::of("text/plain", &payload);
    client.upload_blob(name, &empty, b"{}".to_vec(), None, &NoProgress).await.unwrap();
    client.upload_blob(name, &layer, payload, None, &NoProgress).await.unwrap();
    let mut manifest = Manifest::image(empty, vec![layer]);
    manifest.artifact_type = Some(kind.into());
    manifest.subject = Some(subject);
    let bytes = serde_json::to_vec(&manifest).unwrap();
    let descriptor = Descriptor::of(media_type::MANIFEST, &bytes);
    client.put_manifest(&name.with_digest(descriptor.digest.clone()), media_type::MANIFEST, bytes).await.unwrap();
    descriptor
}

async fn referrers(client: &Client, name: &Reference, digest: &Digest, kind: Option<&str>) -> Vec<Digest> {
    let found = client.referrers(&name.with_digest(digest.clone()), kind).await.unwrap();
    found.into_iter().map(|descriptor| descriptor.digest).collect()
}

async fn copy(client: &Client, from: &Reference, to: &Reference, options: &CopyOptions<'_>) -> Copied {
    client.copy(from, to, options, &NoProgress).await.unwrap()
}

/// Copies a signed index, checks that everything arrived, and that a second copy moves nothing.
async fn check_copied(client: &Client, from: &Reference, to: &Reference) -> Copied {
    let (index, signature, note) = signed_index(client, from).await;
    let copied = copy(client, from, to, &CopyOptions::default()).await;
    assert_eq!((&copied.digest, copied.manifests, copied.referrers), (&index, 5, 2));
    assert_eq!(client.resolve(to).await.unwrap().digest, index);
    assert_eq!(referrers(client, to, &index, None).await, std::slice::from_ref(&signature));
    assert_eq!(referrers(client, to, &index, Some(SIGNATURE)).await, std::slice::from_ref(&signature));
    assert!(referrers(client, to, &index, Some("other/type")).await.is_empty());
    assert_eq!(referrers(client, to, &signature, None).await, [note]);
    for text in ["linux/amd64", "linux/arm64"] {
        let (_, manifest) = client.fetch_image_manifest(to, &platform(text)).await.unwrap();
        let layer = fetch(client, to, &manifest.layers[0]).await.unwrap();
        assert_eq!(Digest::of(&layer), manifest.layers[0].digest);
    }
    let again = copy(client, from, to, &CopyOptions::default()).await;
    assert_eq!((again.manifests, again.sent, again.mounted), (0, 0, 0));
    copied
}

#[tokio::test]
async fn copy_takes_everything_along() {
    let (one, two) = (Embedded::start().await, Embedded::start().await);
    let client = client();
    let (from, to) = (reference(one.address, "team/app:1"), reference(two.address, "mirror/app:1"));
    let copied = check_copied(&client, &from, &to).await;
    // Two configs, three different layers, the empty config and two payloads of referrers.
    assert_eq!((copied.sent, copied.mounted), (8, 0));
}

#[tokio::test]
async fn within_a_registry_no_bytes_are_copied() {
    let server = Embedded::start().await;
    let (from, to) = (reference(server.address, "team/app:1"), reference(server.address, "release/app:1"));
    let copied = check_copied(&client(), &from, &to).await;
    assert_eq!((copied.sent, copied.mounted), (0, 8));
}

#[tokio::test]
async fn registries_without_the_referrers_api_get_a_tag() {
    let Some(old) = DockerRegistry::start(false).await else { return };
    let (client, new) = (client(), Embedded::start().await);
    let (there, back) = (reference(old.address, "app:1"), reference(new.address, "back:1"));
    let (index, _, _) = signed_index(&client, &there).await;
    let tags = client.list_tags(&there).await.unwrap();
    assert!(tags.contains(&index.to_string().replace(':', "-")), "{tags:?}");
    check_copied(&client, &there, &back).await;
    check_copied(&client, &back, &reference(old.address, "again:1")).await;
}

#[tokio::test]
async fn one_platform_alone_can_be_copied() {
    let (one, two) = (Embedded::start().await, Embedded::start().await);
    let client = client();
    let (from, to) = (reference(one.address, "app:1"), reference(two.address, "app:1"));
    signed_index(&client, &from).await;
    let options = CopyOptions { platform: Some(platform("linux/arm64")), referrers: false, ..CopyOptions::default() };
    let copied = copy(&client, &from, &to, &options).await;
    assert_eq!((copied.manifests, copied.sent), (1, 3));
    assert_eq!(client.resolve(&to).await.unwrap().media_type, media_type::MANIFEST);
    let options = CopyOptions { platform: Some(platform("linux/s390x")), ..CopyOptions::default() };
    let error = client.copy(&from, &to, &options, &NoProgress).await.unwrap_err();
    assert_eq!(error.kind.to_string(), "no image for linux/s390x; there is linux/amd64, linux/arm64");
}

#[tokio::test]
async fn a_ring_of_referrers_ends() {
    // Digests allow no ring; a registry that lies about them does not keep us for ever either: what was met is not met again.
    let server = Embedded::start().await;
    let client = client();
    let name = reference(server.address, "app:1");
    let image = image(&[("a", b"one")]);
    push(&client, &name, &image).await;
    let mut subject = Descriptor::of(media_type::MANIFEST, &image.bytes);
    for _ in 0..9 {
        subject = refer(&client, &name, subject, "application/vnd.example.chain").await;
    }
    let error = client
        .copy(&name, &reference(server.address, "other:1"), &CopyOptions::default(), &NoProgress)
        .await
        .unwrap_err();
    assert!(error.kind.to_string().contains("nest deeper than 8"), "{error:?}");
}
