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

    let is_scheduled = named_event.is_some_and(|name| matches!(name, "schedule" | "cron"))
        || get("BUILD_REASON") == Some("Schedule")
        || get("TRAVIS_EVENT_TYPE") == Some("cron")
        || get("BUILDKITE_SOURCE") == Some("schedule");

    source.is_fork = is_request && !is_of_this_repository(&get);
    source.default_branch = default_branch(&get).or_else(|| source.default_branch.take());
    if is_request {
        source.request = request_number(&get);
        source.request_base = REQUEST_BASES.iter().find_map(|name| get(name)).map(str::to_owned);
    }
    if let Some(url) = repository_url(&get) {
        source.url = Some(url);
    }
    // The branch is a hint only: what is checked out decides.
    if source.branch.is_none() {
        source.branch = branch.map(str::to_owned);
    }
    if let Some(tag) = tag {
        if !source.tags.iter().any(|known| known == tag) {
            source.tags.push(tag.to_owned());
        }
        source.tag = Some(tag.to_owned());
    }
    source.event = if is_request {
        SourceEvent::PullRequest
    } else if tag.is_some() {
        SourceEvent::Tag
    } else if is_scheduled {
        SourceEvent::Schedule
    } else if branch.is_some() {
        // The CI system runs a branch; that its commit carries a tag as well is another run's business.
        SourceEvent::Push
    } else {
        source.event
    };
}

/// Variables with the branch that a change request is for.
const REQUEST_BASES: [&str; 9] = [
    "GITHUB_BASE_REF",
    "CI_MERGE_REQUEST_TARGET_BRANCH_NAME",
    "CI_COMMIT_TARGET_BRANCH",
    "DRONE_TARGET_BRANCH",
    "CHANGE_TARGET",
    "BUILDKITE_PULL_REQUEST_BASE_BRANCH",
    "BITBUCKET_PR_DESTINATION_BRANCH",
    "SYSTEM_PULLREQUEST_TARGETBRANCH",
    "TRAVIS_BRANCH",
];

/// Commits that a change request is compared with, where the CI system names them: GitLab's is where it begins, GitHub's the
/// tip of the branch that it is for.
pub(super) fn request_base_commit(env: &BTreeMap<String, String>) -> Option<String> {
    let get = |name: &str| env.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let of_gitlab = get("CI_MERGE_REQUEST_DIFF_BASE_SHA").map(str::to_owned);
    let of_github = || {
        let event = github_event(get("GITHUB_EVENT_PATH")?)?;
        event["pull_request"]["base"]["sha"].as_str().map(str::to_owned)
    };
    let is_commit = |text: &String| matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    of_gitlab.or_else(of_github).filter(is_commit)
}

/// Number of a change request: in a variable of its own, or in GitHub's `refs/pull/2/merge`.
fn request_number<'e>(get: &dyn Fn(&str) -> Option<&'e str>) -> Option<String> {
    const NUMBERS: [&str; 11] = [
        "CI_MERGE_REQUEST_IID",
        "CI_COMMIT_PULL_REQUEST",
        "DRONE_PULL_REQUEST",
        "CHANGE_ID",
        "TRAVIS_PULL_REQUEST",
        "BUILDKITE_PULL_REQUEST",
        "BITBUCKET_PR_ID",
        "APPVEYOR_PULL_REQUEST_NUMBER",
        "SYSTEM_PULLREQUEST_PULLREQUESTNUMBER",
        "SYSTEM_PULLREQUEST_PULLREQUESTID",
        "CIRCLE_PR_NUMBER",
    ];
    let of_github = get("GITHUB_REF").and_then(|name| name.strip_prefix("refs/pull/")?.split('/').next());
    let of_circle = get("CIRCLE_PULL_REQUEST").and_then(|url| url.rsplit('/').next());
    let found = of_github.or_else(|| NUMBERS.iter().find_map(|name| get(name))).or(of_circle);
    found.filter(|number| *number != "false").map(str::to_owned)
}

fn default_branch<'e>(get: &dyn Fn(&str) -> Option<&'e str>) -> Option<String> {
    let told = get("CI_DEFAULT_BRANCH").or_else(|| get("CI_REPO_DEFAULT_BRANCH")).or_else(|| get("DRONE_REPO_BRANCH"));
    let told = told.or_else(|| get("BUILDKITE_PIPELINE_DEFAULT_BRANCH")).map(str::to_owned);
    told.or_else(|| {
        github_event(get("GITHUB_EVENT_PATH")?)?["repository"]["default_branch"].as_str().map(str::to_owned)
    })
}

/// The repository on the web.
fn repository_url<'e>(get: &dyn Fn(&str) -> Option<&'e str>) -> Option<String> {
    let of_github = || Some(format!("{}/{}", get("GITHUB_SERVER_URL")?, get("GITHUB_REPOSITORY")?));
    let others =
        ["CI_PROJECT_URL", "CI_REPO_URL", "DRONE_REPO_LINK", "BITBUCKET_GIT_HTTP_ORIGIN", "BUILD_REPOSITORY_URI"];
    of_github().or_else(|| others.iter().find_map(|name| get(name)).map(str::to_owned)).map(|url| super::web_url(&url))
}

/// The page of this run.
pub fn run_url(env: &BTreeMap<String, String>) -> Option<String> {
    let get = |name: &str| env.get(name).filter(|value| !value.is_empty()).cloned();
    let github = || {
        let (server, repository) = (get("GITHUB_SERVER_URL")?, get("GITHUB_REPOSITORY")?);
        Some(format!("{server}/{repository}/actions/runs/{}", get("GITHUB_RUN_ID")?))
    };
    let others =
        ["CI_JOB_URL", "CI_PIPELINE_URL", "DRONE_BUILD_LINK", "BUILDKITE_BUILD_URL", "CIRCLE_BUILD_URL", "BUILD_URL"];
    github().or_else(|| others.into_iter().find_map(get))
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
    let event = github_event(path)?;
    let name = |side: &str| event["pull_request"][side]["repo"]["full_name"].as_str().map(str::to_owned);
    Some((name("head")?, name("base")?))
}

fn github_event(path: &str) -> Option<serde_json::Value> {
    let file = fs_err::File::open(path).ok()?;
    serde_json::from_reader(std::io::Read::take(file, EVENT_BYTES_MAX)).ok()
}
