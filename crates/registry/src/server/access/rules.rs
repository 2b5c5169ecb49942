//! Who may do what in which repository. A rule only ever gives; what no rule gives is refused.

use std::collections::BTreeSet;

use crate::server::rules::Pattern;

/// Names every user that is logged in.
const ALL_USERS: &str = "*";

/// Something that is done in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Read manifests, blobs, tags and referrers.
    Pull,
    /// Write blobs, manifests and tags.
    Push,
    /// Delete blobs, manifests and tags.
    Delete,
}

impl Action {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Pull, Self::Push, Self::Delete];

    /// Its name in scopes of tokens (token specification, "Resource Scopes").
    pub fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        }
    }

    /// The action of a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }
}

/// Gives actions in the repositories that a pattern matches.
#[derive(Clone, Debug)]
pub struct AccessRule {
    /// Which repositories.
    pub repositories: Pattern,
    /// Names of users; `*` stands for everyone who is logged in.
    pub users: BTreeSet<String>,
    /// Also to those who are not logged in.
    pub is_for_anyone: bool,
    /// What they may do there.
    pub actions: BTreeSet<Action>,
}

impl AccessRule {
    fn is_for(&self, user: Option<&str>) -> bool {
        self.is_for_anyone || user.is_some_and(|user| self.users.contains(user) || self.users.contains(ALL_USERS))
    }
}

/// Whether a user (`None`: somebody who is not logged in) may do something in a repository.
pub(super) fn allow(rules: &[AccessRule], user: Option<&str>, repository: &str, action: Action) -> bool {
    rules
        .iter()
        .any(|rule| rule.actions.contains(&action) && rule.is_for(user) && rule.repositories.matches(repository))
}

/// Whether anything at all can be had without a login.
pub(super) fn has_anonymous(rules: &[AccessRule]) -> bool {
    rules.iter().any(|rule| rule.is_for_anyone && !rule.actions.is_empty())
}

/// Whether all who may read something may read everything: only then may repositories share what they did not get.
pub(super) fn is_all_or_nothing(rules: &[AccessRule]) -> bool {
    rules.iter().all(|rule| !rule.actions.contains(&Action::Pull) || rule.repositories.matches_all())
}

/// Names of users in rules that are none of these.
pub(super) fn unknown_users(rules: &[AccessRule], is_known: impl Fn(&str) -> bool) -> BTreeSet<&str> {
    let named = rules.iter().flat_map(|rule| &rule.users).map(String::as_str);
    named.filter(|name| *name != ALL_USERS && !is_known(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(pattern: &str, users: &[&str], is_for_anyone: bool, actions: &[Action]) -> AccessRule {
        AccessRule {
            repositories: Pattern::parse(pattern).unwrap(),
            users: users.iter().map(|&user| user.to_owned()).collect(),
            is_for_anyone,
            actions: actions.iter().copied().collect(),
        }
    }

    fn rules() -> Vec<AccessRule> {
        vec![
            rule("public/**", &[], true, &[Action::Pull]),
            rule("team/*", &["ann", "bob"], false, &[Action::Pull, Action::Push]),
            rule("team/*", &["ann"], false, &[Action::Delete]),
            rule("{shared,tools/*}", &["*"], false, &[Action::Pull]),
        ]
    }

    /// What may be done, as letters.
    #[track_caller]
    fn check(user: &str, repository: &str, expected: &str) {
        let user = Some(user).filter(|user| !user.is_empty());
        let given: Vec<_> = Action::ALL
            .iter()
            .filter(|&&action| allow(&rules(), user, repository, action))
            .map(|it| it.name())
            .collect();
        assert_eq!(given.join(","), expected, "{user:?} in {repository}");
    }

    #[test]
    fn rules_add_up_and_nothing_else_is_given() {
        check("", "public/app", "pull");
        check("ann", "public/app/deep", "pull");
        check("", "public", "");
        check("ann", "team/app", "pull,push,delete");
        check("bob", "team/app", "pull,push");
        check("bob", "team/app/deep", "");
        check("eve", "team/app", "");
        check("", "team/app", "");
        check("eve", "shared", "pull");
        check("eve", "tools/x", "pull");
        check("", "shared", "");
        check("Ann", "team/app", "");
        check("*", "team/app", "");
        check("ann", "teams/app", "");
    }

    #[test]
    fn names_that_nobody_has_are_found() {
        let rules = rules();
        assert_eq!(unknown_users(&rules, |name| name == "ann").into_iter().collect::<Vec<_>>(), ["bob"]);
    }

    #[test]
    fn reading_some_repositories_is_not_reading_all() {
        assert!(!is_all_or_nothing(&rules()));
        assert!(is_all_or_nothing(&[
            rule("**", &["*"], false, &[Action::Pull]),
            rule("team/*", &["ann"], false, &[Action::Push])
        ]));
    }
}
