//! Whole graphs: indexes with their images, and what refers to them.

use oci::{Descriptor, Digest, Index, Manifest, Platform, Reference, media_type};
use registry::{Client, Copied, CopyOptions, CopyPlace, Layout, LayoutErrorKind, NoProgress};
use reqwest::Method;

use crate::{
    proxy::{Fault, Proxy},
    support::*,
};

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
async fn several_pushers_at_once_lose_nothing_where_the_list_is_a_tag() {
    let Some(old) = DockerRegistry::start(false).await else { return };
    let (name, image) = (reference(old.address, "app:1"), image(&[("a", b"one")]));
    push(&client(), &name, &image).await;
    let subject = Descriptor::of(media_type::MANIFEST, &image.bytes);
    // Clients that know nothing of each other, as on several machines.
    let pusher = async |who: usize| {
        let client = client();
        for number in 0..3 {
            refer(&client, &name, subject.clone(), &format!("application/vnd.example.{who}.{number}")).await;
        }
    };
    futures::join!(pusher(0), pusher(1), pusher(2));
    let found = referrers(&client(), &name, &image.digest(), None).await;
    assert_eq!(found.len(), 9, "{found:?}");
    // What is there already is not listed twice.
    pusher(1).await;
    assert_eq!(referrers(&client(), &name, &image.digest(), None).await.len(), 9);
    assert_eq!(client().list_tags(&name).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_list_that_is_a_tag_stays_clean() {
    let Some(old) = DockerRegistry::start(false).await else { return };
    let (client, server) = (client(), Embedded::start().await);
    let (name, image) = (reference(old.address, "app:1"), image(&[("a", b"one")]));
    push(&client, &name, &image).await;
    let subject = Descriptor::of(media_type::MANIFEST, &image.bytes);
    let kinds = ["application/vnd.example.a", "application/vnd.example.b", "application/vnd.example.c"];
    let mut made = Vec::new();
    for kind in kinds {
        made.push(refer(&client, &name, subject.clone(), kind).await.digest);
    }
    // What we delete is taken out of the list.
    client.delete(&name.with_digest(made[0].clone())).await.unwrap();
    assert_eq!(referrers(&client, &name, &image.digest(), None).await, made[1..]);
    // What others delete stays in it. It is not copied, and goes with the next change.
    let url = format!("http://{}/v2/app/manifests/{}", old.address, made[1]);
    assert!(reqwest::Client::new().delete(url).send().await.unwrap().status().is_success());
    assert_eq!(referrers(&client, &name, &image.digest(), None).await, made[1..]);
    let copied = copy(&client, &name, &reference(server.address, "app:1"), &CopyOptions::default()).await;
    assert_eq!((copied.manifests, copied.referrers), (2, 1));
    let last = refer(&client, &name, subject.clone(), "application/vnd.example.d").await.digest;
    assert_eq!(referrers(&client, &name, &image.digest(), None).await, [made[2].clone(), last.clone()]);
    // A push that was stopped between a manifest and its entry: the next copy lists it.
    let back = reference(old.address, "back:1");
    let target = reference(server.address, "app:1");
    copy(&client, &target, &back, &CopyOptions::default()).await;
    let tag = back.with_tag(&image.digest().to_string().replace(':', "-"));
    let empty = serde_json::to_vec(&Index::of(Vec::new())).unwrap();
    client.put_manifest(&tag, media_type::INDEX, empty).await.unwrap();
    copy(&client, &target, &back, &CopyOptions::default()).await;
    assert_eq!(referrers(&client, &back, &image.digest(), None).await, [made[2].clone()]);
}

/// A tag beside an image with one layer for each payload, as cosign 1 and 2 wrote them (cosign, `SIGNATURE_SPEC.md`).
async fn put_beside(client: &Client, name: &Reference, image: &Digest, kind: &str, payloads: &[&str]) -> Reference {
    let (config, mut layers) = (Descriptor::of(media_type::CONFIG, b"{}"), Vec::new());
    client.upload_blob(name, &config, b"{}".to_vec(), None, &NoProgress).await.unwrap();
    for payload in payloads {
        let mut layer = Descriptor::of("application/vnd.dev.cosign.simplesigning.v1+json", payload.as_bytes());
        layer.annotations.insert("dev.cosignproject.cosign/signature".into(), "c2ln".into());
        client.upload_blob(name, &layer, payload.as_bytes().to_vec(), None, &NoProgress).await.unwrap();
        layers.push(layer);
    }
    let tag = name.with_tag(&format!("{}.{kind}", image.to_string().replace(':', "-")));
    let bytes = serde_json::to_vec(&Manifest::image(config, layers)).unwrap();
    client.put_manifest(&tag, media_type::MANIFEST, bytes).await.unwrap();
    tag
}

#[tokio::test]
async fn cosigns_older_tags_are_taken_along_and_joined_with_those_of_the_target() {
    let server = Embedded::start().await;
    let client = client();
    let (from, to) = (reference(server.address, "app:1"), reference(server.address, "copied:1"));
    let image = image(&[("a", b"one")]);
    push(&client, &from, &image).await;
    put_beside(&client, &from, &image.digest(), "sig", &["one", "two"]).await;
    put_beside(&client, &from, &image.digest(), "att", &["statement"]).await;
    let there = put_beside(&client, &to, &image.digest(), "sig", &["two", "three"]).await;
    let copied = copy(&client, &from, &to, &CopyOptions::default()).await;
    assert_eq!((copied.manifests, copied.referrers), (3, 2));
    let manifest = client.fetch_manifest(&there, 1 << 20).await.unwrap();
    let oci::ManifestOrIndex::Manifest(manifest) = manifest.document else { panic!("no index") };
    let digests: Vec<Digest> = manifest.layers.iter().map(|layer| layer.digest.clone()).collect();
    assert_eq!(digests, ["two", "three", "one"].map(|payload| Digest::of(payload.as_bytes())));
    assert_eq!(client.list_tags(&to).await.unwrap().len(), 3);
    let again = copy(&client, &from, &to, &CopyOptions::default()).await;
    assert_eq!((again.manifests, again.sent, again.mounted), (0, 0, 0));
    // Through a layout, and without them.
    let directory = tempfile::tempdir().unwrap();
    let layout = || CopyPlace::Layout(Layout::create(directory.path()).unwrap(), Some("1".into()));
    let third = reference(server.address, "third:1");
    for (from, to) in [(CopyPlace::Registry(from.clone()), layout()), (layout(), CopyPlace::Registry(third.clone()))] {
        client.copy_between(&from, &to, &CopyOptions::default(), &NoProgress).await.unwrap();
    }
    assert_eq!(client.list_tags(&third).await.unwrap().len(), 3);
    let bare = CopyOptions { referrers: false, ..CopyOptions::default() };
    assert_eq!(copy(&client, &from, &reference(server.address, "bare:1"), &bare).await.manifests, 1);
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

#[tokio::test]
async fn each_manifest_is_written_once_and_a_name_that_is_right_not_at_all() {
    let server = Embedded::start().await;
    let proxy = Proxy::start(server.address, |_, _| Fault::Pass).await;
    let client = client();
    let (from, to) = (reference(server.address, "app:1"), reference(proxy.address, "release:1"));
    signed_index(&client, &from).await;
    copy(&client, &from, &to, &CopyOptions::default()).await;
    // Two images, the index by its name, a signature, a note.
    assert_eq!(proxy.count(Method::PUT, "/manifests/"), 5);
    assert_eq!(proxy.count(Method::PUT, "/manifests/1"), 1);
    copy(&client, &from, &to, &CopyOptions::default()).await;
    assert_eq!(proxy.count(Method::PUT, "/manifests/"), 5);
    // Another name of what is there.
    copy(&client, &from, &to.with_tag("2"), &CopyOptions::default()).await;
    assert_eq!(proxy.count(Method::PUT, "/manifests/"), 6);
}

async fn between(client: &Client, from: &CopyPlace, to: &CopyPlace) -> Copied {
    client.copy_between(from, to, &CopyOptions::default(), &NoProgress).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layouts_and_archives_hold_the_whole_graph() {
    let (one, two) = (Embedded::start().await, Embedded::start().await);
    let client = client();
    let from = reference(one.address, "app:1");
    let (index, signature, note) = signed_index(&client, &from).await;
    let directory = tempfile::tempdir().unwrap();
    let (layout, other) = (directory.path().join("layout"), directory.path().join("other"));
    let archive = directory.path().join("app.tar");
    let named = |layout: Layout| CopyPlace::Layout(layout, Some("1".into()));
    let create = || named(Layout::create(&layout).unwrap());

    let copied = between(&client, &CopyPlace::Registry(from), &create()).await;
    assert_eq!((&copied.digest, copied.manifests, copied.referrers, copied.sent), (&index, 5, 2, 8));
    let again = between(&client, &CopyPlace::Registry(reference(one.address, "app:1")), &create()).await;
    assert_eq!((again.manifests, again.sent), (0, 0));
    // Directory to archive, archive to another directory, and from there to a registry that has never seen any of it.
    let packed = named(Layout::for_archive(&archive).unwrap());
    between(&client, &named(Layout::open(&layout).unwrap()), &packed).await;
    let CopyPlace::Layout(target, _) = packed else { unreachable!() };
    target.pack().unwrap();
    let opened = named(Layout::open_archive(&archive).unwrap());
    between(&client, &opened, &named(Layout::create(&other).unwrap())).await;
    let to = reference(two.address, "back:1");
    let copied = between(&client, &named(Layout::open(&other).unwrap()), &CopyPlace::Registry(to.clone())).await;
    assert_eq!((&copied.digest, copied.manifests, copied.sent), (&index, 5, 8));
    assert_eq!(client.resolve(&to).await.unwrap().digest, index);
    assert_eq!(referrers(&client, &to, &index, None).await, std::slice::from_ref(&signature));
    assert_eq!(referrers(&client, &to, &signature, None).await, [note]);
    // The same content is the same archive.
    let first = std::fs::read(&archive).unwrap();
    target.pack().unwrap();
    assert_eq!(std::fs::read(&archive).unwrap(), first);
    drop(target);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 3, "nothing temporary stays");

    if has_tool("skopeo") {
        for place in [format!("oci:{}:1", layout.display()), format!("oci-archive:{}:1", archive.display())] {
            let shown = run("skopeo", &["inspect", "--raw", &place], &[]).await;
            assert_eq!(Digest::of(shown.trim_end().as_bytes()), index, "{shown}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_layout_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let malformed = |error: LayoutErrorKind| match error {
        LayoutErrorKind::Malformed(message) => message,
        other => panic!("{other:?}"),
    };
    let error = Layout::open(directory.path()).unwrap_err();
    assert_eq!(malformed(error.kind), "there is no `index.json`");
    fs_err::write(directory.path().join("index.json"), "[]").unwrap();
    assert_eq!(malformed(Layout::open(directory.path()).unwrap_err().kind), "`index.json` is no index");

    // An archive whose names lead elsewhere, and whose links do.
    let archive = directory.path().join("evil.tar");
    let mut tar = tar::Builder::new(fs_err::File::create(&archive).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.as_gnu_mut().unwrap().name[..14].copy_from_slice(b"../escaped.txt");
    header.set_cksum();
    tar.append(&header, &b"evil"[..]).unwrap();
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    tar.append_link(&mut link, "index.json", "/etc/passwd").unwrap();
    drop(tar.into_inner().unwrap());
    assert_eq!(malformed(Layout::open_archive(&archive).unwrap_err().kind), "there is no `index.json`");
    assert!(!directory.path().join("escaped.txt").exists());

    // A blob that was damaged is refused by whoever takes it.
    let server = Embedded::start().await;
    let name = reference(server.address, "app:1");
    let image = image(&[("a", b"one")]);
    push(&client(), &name, &image).await;
    let layout = directory.path().join("layout");
    let place = || CopyPlace::Layout(Layout::create(&layout).unwrap(), Some("1".into()));
    between(&client(), &CopyPlace::Registry(name), &place()).await;
    let blob = layout.join("blobs/sha256").join(image.blobs[0].0.digest.hex());
    let mut bytes = fs_err::read(&blob).unwrap();
    bytes[9] ^= 1;
    fs_err::write(&blob, bytes).unwrap();
    let elsewhere = CopyPlace::Layout(Layout::create(&directory.path().join("second")).unwrap(), None);
    for to in [CopyPlace::Registry(reference(server.address, "other:1")), elsewhere] {
        let error = client().copy_between(&place(), &to, &CopyOptions::default(), &NoProgress).await.unwrap_err();
        assert!(error.is_surroundings(), "{error:?}");
    }
    // Blobs that were whole may have arrived before; no name may.
    let tags = client().list_tags(&reference(server.address, "other")).await.unwrap_or_default();
    assert!(tags.is_empty(), "{tags:?}");
}
