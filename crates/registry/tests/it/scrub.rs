//! Scrubbing, and retention by the history of a Git repository.

use std::{path::Path, process::Command, time::Duration};

use fs_err as fs;
use registry::{CollectOptions, GitHistory, Pattern, RepositoryRules, Retention, Rules, collect, scrub};

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_content_is_named_and_put_aside_until_it_is_pushed_again() {
    let directory = tempfile::tempdir().unwrap();
    let server = Embedded::on(directory.path()).await;
    let (client, image) = (client(), image(&[("a", b"one"), ("b", b"two")]));
    let name = reference(server.address, "team/app:1");
    push(&client, &name, &image).await;
    let (layer, _) = image.blobs[0].clone();
    let path = directory.path().join("blobs/sha256").join(layer.digest.hex());
    let mut bytes = fs::read(&path).unwrap();
    bytes[20] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let check = async |is_quarantine| {
        let place = directory.path().to_owned();
        tokio::task::spawn_blocking(move || scrub(&place, None, is_quarantine).unwrap()).await.unwrap()
    };
    // Through the server that runs.
    let report = check(false).await;
    assert_eq!((report.checked, report.corrupt.len()), (4, 1), "{report:?}");
    let corrupt = &report.corrupt[0];
    assert_eq!((&corrupt.digest, &corrupt.repositories[..]), (&layer.digest, &["team/app".to_owned()][..]));
    assert!(corrupt.reason.starts_with("its digest is sha256:") && !corrupt.is_quarantined);
    assert!(path.exists());
    assert!(check(true).await.corrupt[0].is_quarantined);
    assert!(!path.exists());
    assert_eq!(fs::read(directory.path().join("quarantine").join(layer.digest.hex())).unwrap(), bytes);
    assert!(fetch(&client, &name, &layer).await.unwrap_err().is_not_found());
    // A client that pushes the image again sends what is missing.
    push(&client, &name, &image).await;
    assert_eq!(fetch(&client, &name, &layer).await.unwrap(), image.blobs[0].1);
    server.stop().await;
    // Without one.
    let report = check(true).await;
    assert_eq!((report.checked, report.corrupt.len()), (4, 0), "{report:?}");
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .arg("-C")
        .arg(directory)
        .args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_of_reached_commits_stay() {
    if !has_tool("git") {
        return;
    }
    let sources = tempfile::tempdir().unwrap();
    let source = sources.path();
    git(source, &["init", "-q", "-b", "main"]);
    let commit = |message: &str| {
        git(source, &["commit", "-q", "--allow-empty", "-m", message]);
        git(source, &["rev-parse", "HEAD"])
    };
    let (first, second) = (commit("first"), commit("second"));
    git(source, &["checkout", "-q", "-b", "feature"]);
    let feature = commit("feature");

    let directory = tempfile::tempdir().unwrap();
    let server = Embedded::on(directory.path()).await;
    let client = client();
    let name = reference(server.address, "app:x");
    let labelled = |commit: &str, seed: u64| {
        let mut image = image(&[("a", &noise(seed, 100))]);
        image.manifest.annotations.insert("org.opencontainers.image.revision".into(), commit.into());
        image.bytes = oci::to_json(&image.manifest).into();
        image
    };
    // By its tag, by its annotation; of a branch that does not count; of no commit at all.
    push(&client, &name.with_tag(&format!("main-{}", &first[..12])), &image(&[("a", b"1")])).await;
    push(&client, &name.with_tag("second"), &labelled(&second, 2)).await;
    push(&client, &name.with_tag("feature"), &labelled(&feature, 3)).await;
    push(&client, &name.with_tag(&feature), &image(&[("a", b"4")])).await;
    push(&client, &name.with_tag("other"), &image(&[("a", b"5")])).await;
    server.stop().await;

    let collected = async |repository: &Path| {
        let history = GitHistory {
            repository: repository.to_owned(),
            refs: vec!["refs/heads/main".into(), "refs/tags/*".into()],
        };
        let rules = RepositoryRules {
            repositories: Pattern::parse("**").unwrap(),
            immutable: Vec::new(),
            is_forward_only: false,
            bytes_max: None,
            retention: Some(Retention { history: Some(history), ..Retention::default() }),
        };
        let rules = Rules { repositories: vec![rules], bytes_max: None };
        let options = CollectOptions { rules, grace: Duration::ZERO, is_dry_run: false };
        let place = directory.path().to_owned();
        tokio::task::spawn_blocking(move || collect(&place, None, &options).unwrap()).await.unwrap()
    };
    // A history that cannot be read costs nothing.
    let report = collected(&source.join("none")).await;
    assert_eq!((report.tags, report.untold.len()), (0, 1), "{report:?}");
    assert_eq!(collected(source).await.tags, 3);
    let server = Embedded::on(directory.path()).await;
    let tags = client.list_tags(&reference(server.address, "app")).await.unwrap();
    assert_eq!(tags, [format!("main-{}", &first[..12]), "second".to_owned()]);
}
