//! Tags: several at once, on conditions, under rules.

use std::path::Path;

use oci::{Descriptor, Digest, Manifest, Reference, media_type};
use registry::{
    ErrorKind, Pattern, RegistryError, RepositoryRules, Retention, Rules, ServerOptions, TagCondition, TagsWritten,
};

use crate::support::*;

/// A manifest without layers, different for each `text`, with its config in the repository.
async fn manifest(repository: &Reference, text: &str) -> Vec<u8> {
    let config = Descriptor::of(media_type::CONFIG, b"{}");
    client().upload_blob(repository, &config, b"{}".to_vec(), None, &registry::NoProgress).await.unwrap();
    let mut manifest = Manifest::image(config, Vec::new());
    manifest.annotations.insert("text".into(), text.into());
    oci::to_json(&manifest)
}

async fn set(
    repository: &Reference,
    tags: &[&str],
    condition: TagCondition,
    bytes: &[u8],
) -> Result<TagsWritten, RegistryError> {
    let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
    client().put_manifest_tags(repository, &tags, &condition, media_type::MANIFEST, bytes.to_vec(), &mut |_| {}).await
}

async fn named(repository: &Reference, tag: &str) -> Option<Digest> {
    client().resolve(&repository.with_tag(tag)).await.ok().map(|descriptor| descriptor.digest)
}

#[tokio::test]
async fn several_tags_are_set_in_one_step() {
    let server = Embedded::start().await;
    let repository = reference(server.address, "app");
    let one = manifest(&repository, "one").await;
    let written = set(&repository, &["1.2.3", "1.2", "latest"], TagCondition::Any, &one).await.unwrap();
    assert_eq!(written, TagsWritten { digest: Digest::of(&one), is_atomic: true });
    assert_eq!(client().list_tags(&repository).await.unwrap(), ["1.2", "1.2.3", "latest"]);
    assert_eq!(named(&repository, "1.2").await, Some(Digest::of(&one)));
    // One that is no tag, or too many: none is set.
    let two = manifest(&repository, "two").await;
    let url = server.url(&format!("/v2/app/manifests/{}?tag=fine&tag=not%20fine", Digest::of(&two)));
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    assert_eq!(http.put(url).body(two.clone()).send().await.unwrap().status(), 400);
    let many: Vec<String> = (0..65).map(|number| format!("tag=t{number}")).collect();
    let url = server.url(&format!("/v2/app/manifests/{}?{}", Digest::of(&two), many.join("&")));
    assert_eq!(http.put(url).body(two).send().await.unwrap().status(), 414);
    assert_eq!(client().list_tags(&repository).await.unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_are_set_one_by_one_where_the_registry_knows_no_better() {
    let Some(server) = DockerRegistry::start(false).await else { return };
    let repository = reference(server.address, "app");
    let one = manifest(&repository, "one").await;
    let written = set(&repository, &["a", "b"], TagCondition::Any, &one).await.unwrap();
    assert_eq!(written, TagsWritten { digest: Digest::of(&one), is_atomic: false });
    assert_eq!(
        (named(&repository, "a").await, named(&repository, "b").await),
        (Some(Digest::of(&one)), Some(Digest::of(&one)))
    );
}

#[tokio::test]
async fn a_tag_is_changed_only_from_what_it_was_thought_to_be() {
    let server = Embedded::start().await;
    let repository = reference(server.address, "app");
    let (one, two) = (manifest(&repository, "one").await, manifest(&repository, "two").await);
    let is_changed = |outcome: Result<TagsWritten, RegistryError>| match outcome.unwrap_err().kind {
        ErrorKind::TagChanged { message } => message,
        other => panic!("{other:?}"),
    };
    set(&repository, &["t"], TagCondition::Absent, &one).await.unwrap();
    let message = is_changed(set(&repository, &["t"], TagCondition::Absent, &two).await);
    assert!(message.contains(&Digest::of(&one).to_string()), "{message}");
    is_changed(set(&repository, &["t"], TagCondition::Names(vec![Digest::of(&two)]), &two).await);
    // All or none: `u` does not exist.
    is_changed(set(&repository, &["t", "u"], TagCondition::Names(vec![Digest::of(&one)]), &two).await);
    assert_eq!((named(&repository, "t").await, named(&repository, "u").await), (Some(Digest::of(&one)), None));
    set(&repository, &["t"], TagCondition::Names(vec![Digest::of(&one)]), &two).await.unwrap();
    assert_eq!(named(&repository, "t").await, Some(Digest::of(&two)));

    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = server.url("/v2/app/manifests/t");
    let response = http.put(&url).header("if-none-match", "*").body(one.clone()).send().await.unwrap();
    assert_eq!(response.status(), 412);
    assert_eq!(response.headers()["docker-content-digest"], Digest::of(&two).to_string());
    let delete = |digest: Digest| http.delete(&url).header("if-match", format!("\"{digest}\"")).send();
    assert_eq!(delete(Digest::of(&one)).await.unwrap().status(), 412);
    assert_eq!(delete(Digest::of(&two)).await.unwrap().status(), 202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_create_a_tag_one_wins() {
    let server = Embedded::start().await;
    let repository = reference(server.address, "app");
    let mut work = tokio::task::JoinSet::new();
    for number in 0..16 {
        let repository = repository.clone();
        work.spawn(async move {
            let bytes = manifest(&repository, &number.to_string()).await;
            set(&repository, &["t", "u"], TagCondition::Absent, &bytes).await.ok().map(|written| written.digest)
        });
    }
    let winners: Vec<Digest> = work.join_all().await.into_iter().flatten().collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(named(&repository, "t").await.as_ref(), winners.first());
    assert_eq!(named(&repository, "u").await.as_ref(), winners.first());
}

#[tokio::test]
async fn a_change_of_tags_that_was_cut_off_is_finished_at_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let server = Embedded::on(directory.path()).await;
    let repository = reference(server.address, "app");
    let one = manifest(&repository, "one").await;
    let two = manifest(&repository, "two").await;
    set(&repository, &["a", "b"], TagCondition::Any, &one).await.unwrap();
    set(&repository, &[], TagCondition::Any, &two).await.unwrap();
    server.stop().await;
    // As a process leaves it that is killed between the two tags.
    let change = serde_json::json!({ "repository": "app", "tags": ["a", "b"], "digest": Digest::of(&two) });
    fs_err::create_dir_all(directory.path().join("journal")).unwrap();
    fs_err::write(directory.path().join("journal/1"), change.to_string()).unwrap();
    fs_err::write(directory.path().join("repositories/app/_tags/a"), Digest::of(&two).to_string()).unwrap();
    let server = Embedded::on(directory.path()).await;
    let repository = reference(server.address, "app");
    assert_eq!(
        (named(&repository, "a").await, named(&repository, "b").await),
        (Some(Digest::of(&two)), Some(Digest::of(&two)))
    );
    assert_eq!(fs_err::read_dir(directory.path().join("journal")).unwrap().count(), 0);
}

pub(crate) fn rules_for(pattern: &str) -> RepositoryRules {
    RepositoryRules {
        repositories: Pattern::parse(pattern).unwrap(),
        immutable: Vec::new(),
        is_forward_only: false,
        bytes_max: None,
        retention: None::<Retention>,
    }
}

pub(crate) async fn server_with(directory: &Path, rules: RepositoryRules) -> Embedded {
    let rules = Rules { repositories: vec![rules], bytes_max: None };
    Embedded::with(directory, ServerOptions { rules, collect_every: None, ..ServerOptions::default() }).await
}

fn denied(outcome: Result<TagsWritten, RegistryError>) -> String {
    match outcome.unwrap_err().kind {
        ErrorKind::Denied { message } => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn immutable_tags_stay_what_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let rules = RepositoryRules { immutable: vec![Pattern::parse("v*").unwrap()], ..rules_for("team/*") };
    let server = server_with(directory.path(), rules).await;
    let (ruled, free) = (reference(server.address, "team/app"), reference(server.address, "other"));
    for repository in [&ruled, &free] {
        let (one, two) = (manifest(repository, "one").await, manifest(repository, "two").await);
        set(repository, &["v1", "main"], TagCondition::Any, &one).await.unwrap();
        // The same again is no change.
        set(repository, &["v1", "main"], TagCondition::Any, &one).await.unwrap();
        let outcome = set(repository, &["v1", "main"], TagCondition::Any, &two).await;
        if repository == &free {
            outcome.unwrap();
            client().delete(&repository.with_tag("v1")).await.unwrap();
            continue;
        }
        let message = denied(outcome);
        assert!(message.contains("`v1` is immutable") && message.contains("`v*`"), "{message}");
        assert_eq!(named(repository, "main").await, Some(Digest::of(&one)));
        set(repository, &["main"], TagCondition::Any, &two).await.unwrap();
        let error = client().delete(&repository.with_tag("v1")).await.unwrap_err();
        assert!(matches!(error.kind, ErrorKind::Denied { .. }), "{error:?}");
        let error = client().delete(&repository.with_digest(Digest::of(&one))).await.unwrap_err();
        assert!(matches!(error.kind, ErrorKind::Denied { .. }), "{error:?}");
        client().delete(&repository.with_tag("main")).await.unwrap();
    }
}

#[tokio::test]
async fn short_versions_and_latest_only_move_forward() {
    let directory = tempfile::tempdir().unwrap();
    let server = server_with(directory.path(), RepositoryRules { is_forward_only: true, ..rules_for("**") }).await;
    let repository = reference(server.address, "app");
    let release = async |version: &str, tags: &[&str]| {
        let bytes = manifest(&repository, version).await;
        set(&repository, &[&[version], tags].concat(), TagCondition::Any, &bytes).await
    };
    release("1.2.9", &["1.2", "1", "latest"]).await.unwrap();
    release("1.2.10", &["1.2", "1", "latest"]).await.unwrap();
    let message = denied(release("1.2.8", &["1.2", "latest"]).await);
    assert_eq!(message, "tag `1.2` only moves forward here: the repository has 1.2.10, which is higher");
    assert_eq!(named(&repository, "1.2.8").await, None);
    // Its own tag alone is no move, and neither is another family's.
    release("1.1.1", &["1.1"]).await.unwrap();
    denied(release("1.1.2", &["1.1", "1"]).await);
    release("2.0.0-rc.1", &[]).await.unwrap();
    release("1.3.0", &["1.3", "1", "latest"]).await.unwrap();
    // A version that is known by an older tag counts as well.
    let old = manifest(&repository, "1.2.9").await;
    denied(set(&repository, &["latest"], TagCondition::Any, &old).await);
    // Python's versions are ordered as Python orders them.
    release("2.0.0.post1", &["2.0", "2"]).await.unwrap();
    denied(release("2.0.0", &["2.0"]).await);
    denied(release("2.0.1rc1", &["2"]).await);
    release("2.0.1", &["2.0", "2"]).await.unwrap();
    // What no version is known of cannot be judged.
    let other = manifest(&repository, "nightly").await;
    set(&repository, &["latest", "nightly"], TagCondition::Any, &other).await.unwrap();
}
