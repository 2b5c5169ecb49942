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
