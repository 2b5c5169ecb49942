//! What CI systems tell by environment variables.

use std::collections::BTreeMap;

use super::{Source, SourceEvent};

/// Fills in what Git cannot know in a CI system's checkout: branch and tag of a detached HEAD, and the event.
pub(super) fn complete(env: &BTreeMap<String, String>, source: &mut Source) {
    let get = |name: &str| env.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let tag = [
        get("GITHUB_REF_NAME").filter(|_| get("GITHUB_REF_TYPE") == Some("tag")),
        get("CI_COMMIT_TAG"),
        get("DRONE_TAG"),
        get("TRAVIS_TAG"),
        get("CIRCLE_TAG"),
        get("BUILDKITE_TAG"),
        get("BITBUCKET_TAG"),
        get("TAG_NAME").filter(|_| get("JENKINS_URL").is_some()),
        get("BUILD_SOURCEBRANCH").and_then(|name| name.strip_prefix("refs/tags/")),
    ]
    .into_iter()
    .flatten()
    .next();
    let branch = [
        get("GITHUB_REF_NAME").filter(|_| get("GITHUB_REF_TYPE") == Some("branch")),
        get("GITHUB_HEAD_REF"),
        get("CI_COMMIT_BRANCH"),
        get("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME"),
        get("DRONE_BRANCH").filter(|_| tag.is_none()),
        get("TRAVIS_BRANCH").filter(|_| tag.is_none()),
        get("CIRCLE_BRANCH"),
        get("BUILDKITE_BRANCH").filter(|_| tag.is_none()),
        get("BITBUCKET_BRANCH"),
        get("BRANCH_NAME").filter(|_| get("JENKINS_URL").is_some() && tag.is_none()),
        get("BUILD_SOURCEBRANCH").and_then(|name| name.strip_prefix("refs/heads/")),
    ]
    .into_iter()
    .flatten()
    .next();
    let named_event =
        [get("GITHUB_EVENT_NAME"), get("CI_PIPELINE_EVENT"), get("CI_PIPELINE_SOURCE"), get("DRONE_BUILD_EVENT")]
            .into_iter()
            .flatten()
            .next();
    let is_request = named_event.is_some_and(|name| {
        name.starts_with("pull_request")
            || matches!(name, "merge_request_event" | "merge_group" | "external_pull_request_event")
    }) || [
        "CI_MERGE_REQUEST_IID",
        "CHANGE_ID",
        "CIRCLE_PULL_REQUEST",
        "BITBUCKET_PR_ID",
        "APPVEYOR_PULL_REQUEST_NUMBER",
        "SYSTEM_PULLREQUEST_PULLREQUESTID",
    ]
    .iter()
    .any(|name| get(name).is_some())
        || ["TRAVIS_PULL_REQUEST", "BUILDKITE_PULL_REQUEST"]
            .iter()
            .any(|name| get(name).is_some_and(|value| value != "false"))
        || get("BUILD_REASON") == Some("PullRequest");

    source.is_fork = is_request && !is_of_this_repository(&get);
    // The branch is a hint only: what is checked out decides.
    if source.branch.is_none() {
        source.branch = branch.map(str::to_owned);
    }
    if let Some(tag) = tag {
        source.tag = Some(tag.to_owned());
    }
    source.event = if is_request {
        SourceEvent::PullRequest
    } else if tag.is_some() {
        SourceEvent::Tag
    } else if branch.is_some() {
        // The CI system runs a branch; that its commit carries a tag as well is another run's business.
        SourceEvent::Push
    } else {
        source.event
    };
}

/// Whether a change request is known to come from the repository itself. Where the CI system does not say so, it is not.
fn is_of_this_repository<'e>(get: &dyn Fn(&str) -> Option<&'e str>) -> bool {
    let same = |one: &str, other: &str| get(one).is_some_and(|value| get(other) == Some(value));
    let is_github = get("GITHUB_EVENT_PATH").and_then(github_head);
    is_github.is_some_and(|(head, base)| head == base)
        || same("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", "CI_MERGE_REQUEST_PROJECT_ID")
        || same("TRAVIS_PULL_REQUEST_SLUG", "TRAVIS_REPO_SLUG")
        || same("BUILDKITE_PULL_REQUEST_REPO", "BUILDKITE_REPO")
        || same("APPVEYOR_PULL_REQUEST_HEAD_REPO_NAME", "APPVEYOR_REPO_NAME")
        || get("SYSTEM_PULLREQUEST_ISFORK").is_some_and(|value| value.eq_ignore_ascii_case("false"))
        // Jenkins sets the fork's name for forks only.
        || (get("JENKINS_URL").is_some() && get("CHANGE_ID").is_some() && get("CHANGE_FORK").is_none())
        // CircleCI sets the fork's owner for forks only.
        || (get("CIRCLECI").is_some() && get("CIRCLE_PULL_REQUEST").is_some() && get("CIRCLE_PR_USERNAME").is_none())
        // Bitbucket's pipelines do not run for forks.
        || get("BITBUCKET_PR_ID").is_some()
}

/// GitHub describes events in files; larger ones are none.
const EVENT_BYTES_MAX: u64 = 16 << 20;

/// Full names of the head's and the base's repository.
fn github_head(path: &str) -> Option<(String, String)> {
    let file = fs_err::File::open(path).ok()?;
    let event: serde_json::Value = serde_json::from_reader(std::io::Read::take(file, EVENT_BYTES_MAX)).ok()?;
    let name = |side: &str| event["pull_request"][side]["repo"]["full_name"].as_str().map(str::to_owned);
    Some((name("head")?, name("base")?))
}
