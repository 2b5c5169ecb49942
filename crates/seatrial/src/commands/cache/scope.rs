//! Scopes of shared caches: what a branch may read and write.
//!
//! A branch reads its own scope, else that of the branch that it is to be merged into, else the default branch's. It
//! writes its own only: what a change request made must never be taken by the branch that it asks to change.

use std::path::Path;

use pipeline::{Source, SourceEvent, read_source};

use crate::{commands::init::environment, failure::Failure};

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
        let source = read_source(directory, &environment());
        let default = source.default_branch.clone().unwrap_or_else(|| "main".to_owned());
        let is_request = source.event == SourceEvent::PullRequest;
        Self { own: own(&source), target: source.request_base, default, is_request }
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
fn own(source: &Source) -> String {
    match source.event {
        SourceEvent::PullRequest => {
            let name = source.request.clone().or(source.branch.clone()).unwrap_or_default();
            // `..` is in no branch's name (git-check-ref-format).
            format!("request..{name}")
        }
        SourceEvent::Tag => format!("tag..{}", source.tag.clone().unwrap_or_default()),
        SourceEvent::Push | SourceEvent::Schedule => {
            source.branch.clone().or_else(|| source.short.clone()).unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_request_has_a_scope_of_its_own_however_its_branch_is_called() {
        let own_of = |event, request: Option<&str>| {
            let (branch, tag) = (Some("main".into()), Some("v1".into()));
            own(&Source { event, branch, tag, request: request.map(str::to_owned), ..Source::default() })
        };
        assert_eq!(own_of(SourceEvent::PullRequest, Some("12")), "request..12");
        assert_eq!(own_of(SourceEvent::PullRequest, None), "request..main");
        assert_eq!(own_of(SourceEvent::Push, None), "main");
        assert_eq!(own_of(SourceEvent::Tag, None), "tag..v1");
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
