//! Garbage collection, retention and room; the store of local builds as a source.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use fs_err as fs;
use oci::{Descriptor, Digest, Index, Manifest, Reference, media_type};
use registry::{
    CollectOptions, CollectReport, ErrorKind, NoProgress, Pattern, RepositoryRules, Retention, Rules, ServerOptions,
    UploadOutcome, collect,
};
use store::{Store, StoreOptions};

use crate::{
    support::*,
    tags::{rules_for, server_with},
};

const HOUR: Duration = Duration::from_secs(3600);

/// Collects as a command would: through the running server, or by itself.
async fn run(directory: &Path, rules: Rules, grace: Duration, is_dry_run: bool) -> CollectReport {
    let (directory, options) = (directory.to_owned(), CollectOptions { rules, grace, is_dry_run });
    tokio::task::spawn_blocking(move || collect(&directory, None, &options).unwrap()).await.unwrap()
}

fn counts(report: &CollectReport) -> [usize; 4] {
    [report.tags, report.manifests, report.blobs, report.contents]
}

async fn blob(repository: &Reference, text: &str) -> Descriptor {
    let descriptor = Descriptor::of(media_type::LAYER_GZIP, text.as_bytes());
    client().upload_blob(repository, &descriptor, text.as_bytes().to_vec(), None, &NoProgress).await.unwrap();
    descriptor
}

/// Pushes a manifest with one layer, by tag or (`None`) by digest.
async fn image_with(repository: &Reference, tag: Option<&str>, layer: &str, subject: Option<Descriptor>) -> Descriptor {
    let config = Descriptor { media_type: media_type::CONFIG.into(), ..blob(repository, "{}").await };
    let mut manifest = Manifest::image(config, vec![blob(repository, layer).await]);
    manifest.subject = subject;
    put(repository, tag, media_type::MANIFEST, oci::to_json(&manifest)).await
}

async fn put(repository: &Reference, tag: Option<&str>, kind: &str, bytes: Vec<u8>) -> Descriptor {
    let descriptor = Descriptor::of(kind, &bytes);
    let reference = match tag {
        Some(tag) => repository.with_tag(tag),
        None => repository.with_digest(descriptor.digest.clone()),
    };
    client().put_manifest(&reference, kind, bytes).await.unwrap();
    descriptor
}

/// Makes everything in a registry look two days old.
fn age(directory: &Path) {
    age_tree(&directory.join("blobs"));
    age_tree(&directory.join("repositories"));
}

fn age_tree(directory: &Path) {
    let then =
        fs::File::open(directory).unwrap().metadata().unwrap().modified().unwrap() - Duration::from_secs(2 * 86400);
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            age_tree(&path);
        } else {
            let times = std::fs::FileTimes::new().set_modified(then);
            fs::File::open(path).unwrap().into_parts().0.set_times(times).unwrap();
        }
    }
}

async fn has(repository: &Reference, digest: &Digest) -> bool {
    client().has_blob(repository, digest).await.unwrap()
}

#[tokio::test]
async fn what_no_manifest_needs_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let options = ServerOptions { collect_every: None, collect_grace: HOUR, ..ServerOptions::default() };
    let server = Embedded::with(directory.path(), options.clone()).await;
    let (one, two) = (reference(server.address, "one"), reference(server.address, "two/three"));
    let kept = image_with(&one, Some("t"), "kept", None).await;
    let (loose, shared) = (blob(&one, "loose").await, blob(&two, "kept").await);
    assert_eq!(counts(&run(directory.path(), Rules::default(), HOUR, false).await), [0; 4]);
    age(directory.path());
    // A look first; then in earnest, by the running server.
    let expected = [0, 0, 2, 1];
    let report = run(directory.path(), Rules::default(), HOUR, true).await;
    assert_eq!((counts(&report), report.bytes, report.is_dry_run), (expected, 5, true));
    let report = run(directory.path(), Rules::default(), HOUR, false).await;
    assert_eq!((counts(&report), report.bytes), (expected, 5));
    assert!(!has(&one, &loose.digest).await && !has(&two, &shared.digest).await);
    assert!(has(&one, &shared.digest).await);
    // Deleted, everything of it goes; the server need not run.
    client().delete(&one.with_digest(kept.digest)).await.unwrap();
    server.stop().await;
    age(directory.path());
    assert_eq!(counts(&run(directory.path(), Rules::default(), HOUR, false).await), [0, 0, 2, 3]);
    assert_eq!(fs::read_dir(directory.path().join("blobs/sha256")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_a_push_relies_on_stays() {
    let directory = tempfile::tempdir().unwrap();
    let options = ServerOptions { collect_every: None, collect_grace: HOUR, ..ServerOptions::default() };
    let server = Embedded::with(directory.path(), options).await;
    let (one, two) = (reference(server.address, "one"), reference(server.address, "two"));
    let [asked, mounted, forgotten] =
        [blob(&one, "asked").await, blob(&one, "mounted").await, blob(&one, "forgotten").await];
    age(directory.path());
    assert!(has(&one, &asked.digest).await);
    let outcome = client().upload_blob(&two, &mounted, b"mounted".to_vec(), Some("one"), &NoProgress).await.unwrap();
    assert_eq!(outcome, UploadOutcome::Mounted);
    let report = run(directory.path(), Rules::default(), HOUR, false).await;
    assert_eq!(counts(&report), [0, 0, 2, 1], "{report:?}");
    assert!(has(&one, &asked.digest).await && has(&two, &mounted.digest).await);
    assert!(!has(&one, &forgotten.digest).await);
}

#[tokio::test]
async fn retention_keeps_the_youngest_the_pulled_and_what_they_refer_to() {
    let directory = tempfile::tempdir().unwrap();
    let retention = Retention {
        tags: vec![Pattern::parse("build-*").unwrap()],
        last: 1,
        younger_than: Some(HOUR),
        pulled_within: Some(HOUR),
        untagged_after: Some(HOUR),
        ..Retention::default()
    };
    let rules = RepositoryRules { retention: Some(retention), ..rules_for("app") };
    let (all, options) = (
        Rules { repositories: vec![rules.clone()], bytes_max: None },
        ServerOptions { collect_every: None, collect_grace: Duration::ZERO, ..ServerOptions::default() },
    );
    let server = Embedded::with(directory.path(), ServerOptions { rules: all.clone(), ..options }).await;
    let (app, other) = (reference(server.address, "app"), reference(server.address, "other"));
    let release = image_with(&app, Some("1.0.0"), "release", None).await;
    let signature = image_with(&app, None, "signature", Some(release.clone())).await;
    let child = image_with(&app, None, "child", None).await;
    put(&app, Some("multi"), media_type::INDEX, oci::to_json(&Index::of(vec![child.clone()]))).await;
    let loose = image_with(&app, None, "loose", None).await;
    let asked = image_with(&app, None, "asked", None).await;
    let elsewhere = image_with(&other, None, "loose", None).await;
    let pulled = image_with(&app, Some("build-1"), "pulled", None).await;
    let expired = image_with(&app, Some("build-2"), "expired", None).await;
    image_with(&app, Some("build-0"), "youngest", None).await;
    age(directory.path());
    // Pulled now, and `build-0` written last.
    client().fetch_manifest(&app.with_tag("build-1"), 1 << 20).await.unwrap();
    wait_for(|| directory.path().join("repositories/app/_pulled").join(pulled.digest.hex()).exists()).await;
    // A manifest that is asked for is in use, also without a tag.
    client().resolve(&app.with_digest(asked.digest.clone())).await.unwrap();
    wait_for(|| directory.path().join("repositories/app/_pulled").join(asked.digest.hex()).exists()).await;
    let times = std::fs::FileTimes::new().set_modified(SystemTime::now() - 2 * HOUR);
    let tag = directory.path().join("repositories/app/_tags/build-0");
    fs::File::open(tag).unwrap().into_parts().0.set_times(times).unwrap();

    let report = run(directory.path(), all.clone(), Duration::ZERO, true).await;
    assert_eq!(counts(&report)[..3], [1, 2, 2], "{report:?}");
    let report = run(directory.path(), all, Duration::ZERO, false).await;
    assert_eq!(counts(&report)[..3], [1, 2, 2], "{report:?}");
    assert_eq!(client().list_tags(&app).await.unwrap(), ["1.0.0", "build-0", "build-1", "multi"]);
    for kept in [&release, &signature, &child, &pulled, &asked] {
        client().fetch_manifest(&app.with_digest(kept.digest.clone()), 1 << 20).await.unwrap();
    }
    for gone in [&loose, &expired] {
        assert!(client().resolve(&app.with_digest(gone.digest.clone())).await.unwrap_err().is_not_found());
    }
    client().resolve(&other.with_digest(elsewhere.digest)).await.unwrap();
}

/// Waits for what the server does after it answered.
async fn wait_for(condition: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_repository_that_cannot_be_read_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let server = Embedded::on(directory.path()).await;
    let repository = reference(server.address, "app");
    let image = image_with(&repository, Some("t"), "layer", None).await;
    blob(&repository, "loose").await;
    server.stop().await;
    fs::write(directory.path().join("blobs/sha256").join(image.digest.hex()), "damaged").unwrap();
    let report = run(directory.path(), Rules::default(), Duration::ZERO, false).await;
    assert_eq!((counts(&report), report.unreadable), ([0; 4], vec!["app".to_owned()]));
}

#[tokio::test]
async fn quotas_hold_back_what_does_not_fit() {
    let directory = tempfile::tempdir().unwrap();
    let server = server_with(directory.path(), RepositoryRules { bytes_max: Some(1000), ..rules_for("small") }).await;
    let (small, free) = (reference(server.address, "small"), reference(server.address, "free"));
    let push = async |repository: &Reference, bytes: Vec<u8>| {
        let descriptor = Descriptor::of(media_type::LAYER_GZIP, &bytes);
        client().upload_blob(repository, &descriptor, bytes, None, &NoProgress).await
    };
    push(&small, vec![1; 600]).await.unwrap();
    push(&free, vec![2; 2000]).await.unwrap();
    let error = push(&small, vec![3; 500]).await.unwrap_err();
    let ErrorKind::Denied { message } = error.kind else { panic!("{error:?}") };
    assert_eq!(message, "repository `small` has 600 of 1000 bytes, and this blob has 500");
    // Neither sent in parts nor mounted it fits; what is there takes no more room, and what goes makes room.
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let location = http.post(server.url("/v2/small/blobs/uploads/")).send().await.unwrap();
    let location = server.url(location.headers()["location"].to_str().unwrap());
    http.patch(&location).body(vec![3; 500]).send().await.unwrap();
    let put = http.put(format!("{location}?digest={}", Digest::of(&[3; 500]))).send().await.unwrap();
    assert_eq!(put.status(), 403);
    let mount = format!("/v2/small/blobs/uploads/?from=free&mount={}", Digest::of(&[2; 2000]));
    assert_eq!(http.post(server.url(&mount)).send().await.unwrap().status(), 403);
    push(&small, vec![1; 600]).await.unwrap();
    let gone = server.url(&format!("/v2/small/blobs/{}", Digest::of(&[1; 600])));
    assert_eq!(http.delete(gone).send().await.unwrap().status(), 202);
    push(&small, vec![3; 500]).await.unwrap();
}

#[tokio::test]
async fn publishing_to_ones_own_machine_moves_no_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store"), StoreOptions::default()).unwrap();
    let fixture = image(&[("a", &noise(7, 3_000_000))]);
    for (_, bytes) in &fixture.blobs {
        store.put_blob(bytes).unwrap();
    }
    let options = ServerOptions { store: Some(store.clone()), ..ServerOptions::default() };
    let registry = directory.path().join("registry");
    let server = Embedded::with(&registry, options).await;
    let relay = Relay::start(server.address, Vec::new()).await;
    let name = reference(relay.address, "app:1");
    let parts: Vec<Descriptor> = fixture.blobs.iter().map(|(descriptor, _)| descriptor.clone()).collect();
    let outcomes = client().push_blobs(&name, &parts, &store, None, &NoProgress).await.unwrap();
    assert_eq!(outcomes, [UploadOutcome::Existed; 2]);
    client().put_manifest(&name, media_type::MANIFEST, fixture.bytes.clone()).await.unwrap();
    let sent = relay.up.load(std::sync::atomic::Ordering::SeqCst);
    assert!(sent < 20_000, "{sent} bytes were sent for an image of three megabytes");
    // On the disk it is there once, and the store may forget it.
    use std::os::unix::fs::MetadataExt as _;
    let inode = |root: &Path| fs::metadata(root.join("blobs/sha256").join(parts[0].digest.hex())).unwrap().ino();
    assert_eq!(inode(store.root()), inode(&registry));
    for part in &parts {
        fs::remove_file(store.root().join("blobs/sha256").join(part.digest.hex())).unwrap();
    }
    check_pulled(&client(), &reference(server.address, "app:1"), &fixture).await;
}

#[tokio::test]
async fn content_of_another_repository_is_out_of_reach() {
    let server = Embedded::start().await;
    let (secret, open) = (reference(server.address, "secret"), reference(server.address, "open"));
    let layer = blob(&secret, "secret").await;
    let image = image_with(&secret, Some("t"), "secret", None).await;
    assert!(!has(&open, &layer.digest).await);
    assert!(fetch(&client(), &open, &layer).await.unwrap_err().is_not_found());
    assert!(client().resolve(&open.with_digest(image.digest.clone())).await.unwrap_err().is_not_found());
    // Nor does naming it make it one's own.
    let config = Descriptor { media_type: media_type::CONFIG.into(), ..blob(&open, "{}").await };
    let manifest = oci::to_json(&Manifest::image(config, vec![layer.clone()]));
    assert!(
        client().put_manifest(&open.with_tag("t"), media_type::MANIFEST, manifest).await.unwrap_err().is_not_found()
    );
    let index = oci::to_json(&Index::of(vec![image]));
    assert!(client().put_manifest(&open.with_tag("t"), media_type::INDEX, index).await.unwrap_err().is_not_found());
    assert!(!has(&open, &layer.digest).await);
}
