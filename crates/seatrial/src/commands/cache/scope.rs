//! Scopes of shared caches: what a branch may read and write.
//!
//! A branch reads its own scope, else that of the branch that it is to be merged into, else the default branch's. It
//! writes its own only: what a change request made must never be taken by the branch that it asks to change.

use std::{collections::BTreeMap, path::Path};

use pipeline::{Source, SourceEvent, read_source};

use crate::{commands::init::environment, failure::Failure};

/// Bytes of an event file of GitHub that are read for the default branch's name.
const EVENT_BYTES_MAX: u64 = 16 << 20;

/// Scopes of the source at hand.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scopes {
    /// Where it writes; empty outside of Git.
    pub(super) own: String,
    /// The branch that a change request is for.
    pub(super) target: Option<String>,
    /// The default branch.
    pub(super) default: String,
    pub(super) is_request: bool,
}

impl Scopes {
    /// Asks Git and the CI system.
    pub(super) fn find(directory: &Path) -> Self {
        let env = environment();
        let source = read_source(directory, &env);
        let get = |name: &str| env.get(name).filter(|value| !value.is_empty()).cloned();
        let default = get("CI_DEFAULT_BRANCH")
            .or_else(|| github_default(&env))
            .or_else(|| source.root.as_deref().and_then(default_of_origin))
            .unwrap_or_else(|| "main".to_owned());
        let is_request = source.event == SourceEvent::PullRequest;
        let target = [
            "GITHUB_BASE_REF",
            "CI_MERGE_REQUEST_TARGET_BRANCH_NAME",
            "CHANGE_TARGET",
            "BITBUCKET_PR_DESTINATION_BRANCH",
        ];
        let target = target.into_iter().find_map(get).filter(|_| is_request);
        Self { own: own(&source, &env), target, default, is_request }
    }

    /// What is read, the first that is there; at last what has no scope.
    pub(super) fn read(&self) -> Vec<String> {
        let mut scopes: Vec<String> = Vec::new();
        for scope in [Some(&self.own), self.target.as_ref(), Some(&self.default)].into_iter().flatten() {
            if !scope.is_empty() && !scopes.contains(scope) {
                scopes.push(scope.clone());
            }
        }
        scopes.push(String::new());
        scopes
    }

    /// What is written; `asked` is `scope=`.
    pub(super) fn write(&self, asked: Option<String>) -> Result<String, Failure> {
        let Some(scope) = asked else { return Ok(self.own.clone()) };
        let is_foreign = scope != self.own && !self.own.is_empty();
        let is_protected = scope == self.default || Some(&scope) == self.target.as_ref() || self.is_request;
        if is_foreign && is_protected {
            return Err(Failure::usage(format!(
                "`--cache-to`: the scope `{scope}` belongs to the branch of that name, and this is `{}`",
                self.own
            ))
            .hint("leave `scope=` out to write a scope of its own; `--cache-from` reads the other one"));
        }
        Ok(scope)
    }
}

/// A branch's name, or something that no branch is called by: a fork may name its branch `main` as well.
fn own(source: &Source, env: &BTreeMap<String, String>) -> String {
    let get = |name: &str| env.get(name).filter(|value| !value.is_empty() && *value != "false").cloned();
    match source.event {
        SourceEvent::PullRequest => {
            let of_github =
                get("GITHUB_REF").and_then(|name| Some(name.strip_prefix("refs/pull/")?.split('/').next()?.to_owned()));
            let numbers = [
                "CI_MERGE_REQUEST_IID",
                "CHANGE_ID",
                "BITBUCKET_PR_ID",
                "DRONE_PULL_REQUEST",
                "CI_COMMIT_PULL_REQUEST",
                "TRAVIS_PULL_REQUEST",
                "BUILDKITE_PULL_REQUEST",
                "APPVEYOR_PULL_REQUEST_NUMBER",
                "SYSTEM_PULLREQUEST_PULLREQUESTID",
            ];
            let number = of_github.or_else(|| numbers.into_iter().find_map(get));
            // `..` is in no branch's name (git-check-ref-format).
            format!("request..{}", number.or(source.branch.clone()).unwrap_or_default())
        }
        SourceEvent::Tag => format!("tag..{}", source.tag.clone().unwrap_or_default()),
        SourceEvent::Push => source.branch.clone().or_else(|| source.short.clone()).unwrap_or_default(),
    }
}

/// What a clone remembers of its origin's HEAD.
fn default_of_origin(root: &Path) -> Option<String> {
    let text = std::fs::read_to_string(root.join(".git/refs/remotes/origin/HEAD")).ok()?;
    Some(text.trim().strip_prefix("ref: refs/remotes/origin/")?.to_owned())
}

/// GitHub tells it in the file of the event.
fn github_default(env: &BTreeMap<String, String>) -> Option<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(env.get("GITHUB_EVENT_PATH")?).ok()?.take(EVENT_BYTES_MAX).read_to_string(&mut text).ok()?;
    let event: serde_json::Value = serde_json::from_str(&text).ok()?;
    Some(event.get("repository")?.get("default_branch")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_of(event: SourceEvent, env: &[(&str, &str)]) -> String {
        let source = Source { event, branch: Some("main".into()), tag: Some("v1".into()), ..Source::default() };
        own(&source, &env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn a_change_request_has_a_scope_of_its_own_however_its_branch_is_called() {
        let github = [("GITHUB_REF", "refs/pull/12/merge")];
        assert_eq!(own_of(SourceEvent::PullRequest, &github), "request..12");
        assert_eq!(own_of(SourceEvent::PullRequest, &[("CI_MERGE_REQUEST_IID", "7")]), "request..7");
        assert_eq!(own_of(SourceEvent::PullRequest, &[]), "request..main");
        assert_eq!(own_of(SourceEvent::Push, &[]), "main");
        assert_eq!(own_of(SourceEvent::Tag, &[]), "tag..v1");
    }

    #[test]
    fn others_scopes_are_read_and_not_written() {
        let scopes =
            Scopes { own: "request..12".into(), target: Some("next".into()), default: "main".into(), is_request: true };
        assert_eq!(scopes.read(), ["request..12", "next", "main", ""]);
        for foreign in ["main", "next", "other"] {
            assert!(scopes.write(Some(foreign.into())).is_err(), "{foreign}");
        }
        assert_eq!(scopes.write(None).unwrap(), "request..12");
        let branch = Scopes { own: "feature".into(), target: None, is_request: false, ..scopes.clone() };
        assert!(branch.write(Some("main".into())).is_err());
        assert_eq!(branch.write(Some("shared".into())).unwrap(), "shared");
        let default = Scopes { own: "main".into(), ..branch };
        assert_eq!(default.write(Some("main".into())).unwrap(), "main");
        assert_eq!(default.read(), ["main", ""]);
    }
}
