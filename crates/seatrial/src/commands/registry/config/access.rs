//! `tls`, `access`, `limits`, `audit`: who may reach the registry, do what, how often, and where that is written down.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use ::registry::{AccessOptions, AccessRule, Action, AuditOptions, ChallengeKind, Limits, Rate, TlsFiles};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_saphyr::Spanned;

use super::{Glob, Size, Span};
use crate::terminal::text;

/// Docker takes each token for good for a minute, whatever it is told.
const TOKEN_LIFE_MIN: Duration = Duration::from_secs(60);
/// Past this size an audit log is moved aside, unless it says otherwise.
const AUDIT_BYTES_MAX: u64 = 100 << 20;
const AUDIT_KEEP: usize = 5;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Tls {
    certificate: PathBuf,
    key: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Access {
    users: PathBuf,
    #[serde(default)]
    challenge: Challenge,
    service: Option<Service>,
    realm: Option<Realm>,
    token_life: Option<TokenLife>,
    login_life: Option<Span>,
    #[serde(default)]
    groups: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    rules: Vec<Spanned<Rule>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Rule {
    #[serde(rename = "match")]
    pattern: Glob,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    groups: Vec<Spanned<String>>,
    /// Also those who are not logged in.
    #[serde(default)]
    anyone: bool,
    allow: Vec<Allowed>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Challenge {
    #[default]
    Bearer,
    Basic,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Allowed {
    Pull,
    Push,
    Delete,
    #[serde(rename = "*")]
    All,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct Limited {
    per_address: Option<Frequency>,
    per_user: Option<Frequency>,
    failed_logins: Option<Frequency>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Audit {
    file: PathBuf,
    rotate: Option<Size>,
    keep: Option<usize>,
}

read_from_text!(Frequency, Rate, Rate::parse);
// Both are written into quotes of a header.
read_from_text!(Service, String, |text: &str| {
    let is_legal =
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
    if is_legal {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is no name of a service such as `registry.example`"))
    }
});
read_from_text!(Realm, String, |text: &str| {
    let is_url = text.starts_with("https://") || text.starts_with("http://");
    let is_legal = is_url && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
    if is_legal {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is no URL such as `https://registry.example/token`"))
    }
});
read_from_text!(TokenLife, Duration, |text: &str| match text::parse_duration(text)? {
    life if life >= TOKEN_LIFE_MIN => Ok(life),
    _ => Err(format!("`{text}` is less than a minute, for which docker takes any token for good")),
});

impl Tls {
    pub(super) fn files(self, beside: &Path) -> TlsFiles {
        TlsFiles { certificate: beside.join(self.certificate), key: beside.join(self.key) }
    }
}

impl Access {
    /// The rules with their groups resolved, or what is wrong, with its place.
    pub(super) fn open(self, beside: &Path) -> Result<AccessOptions, String> {
        let rules = self.rules.into_iter().map(|rule| resolve(rule, &self.groups, self.challenge));
        let rules = rules.collect::<Result<_, _>>()?;
        let defaults = AccessOptions::new(beside.join(self.users));
        Ok(AccessOptions {
            rules,
            challenge: match self.challenge {
                Challenge::Bearer => ChallengeKind::Bearer,
                Challenge::Basic => ChallengeKind::Basic,
            },
            service: self.service.map_or(defaults.service, |service| service.0),
            realm: self.realm.map(|realm| realm.0),
            token_life: self.token_life.map_or(defaults.token_life, |life| life.0),
            refresh_life: self.login_life.map_or(defaults.refresh_life, |life| life.0),
            users: defaults.users,
        })
    }
}

fn resolve(
    rule: Spanned<Rule>,
    groups: &BTreeMap<String, Vec<String>>,
    challenge: Challenge,
) -> Result<AccessRule, String> {
    let at = |place: serde_saphyr::Location, what: String| format!("{}:{}: {what}", place.line(), place.column());
    let (place, rule) = (rule.referenced, rule.value);
    let mut users: BTreeSet<String> = rule.users.into_iter().collect();
    for group in rule.groups {
        let Some(members) = groups.get(&group.value) else {
            return Err(at(group.referenced, format!("group `{}` is not among `groups`", group.value)));
        };
        users.extend(members.iter().cloned());
    }
    if users.is_empty() && !rule.anyone {
        return Err(at(place, "the rule is for nobody: name `users`, `groups`, or `anyone: true`".into()));
    }
    if rule.anyone && challenge == Challenge::Basic {
        let why =
            "with `challenge: basic` clients ask for everything with a password, or for nothing: `anyone` needs bearer";
        return Err(at(place, why.into()));
    }
    let actions = rule.allow.into_iter().flat_map(|allowed| match allowed {
        Allowed::Pull => vec![Action::Pull],
        Allowed::Push => vec![Action::Push],
        Allowed::Delete => vec![Action::Delete],
        Allowed::All => Action::ALL.to_vec(),
    });
    Ok(AccessRule { repositories: rule.pattern.0, users, is_for_anyone: rule.anyone, actions: actions.collect() })
}

impl Limited {
    pub(super) fn limits(self) -> Limits {
        let defaults = Limits::default();
        Limits {
            per_address: self.per_address.map(|rate| rate.0),
            per_user: self.per_user.map(|rate| rate.0),
            failed_logins: self.failed_logins.map_or(defaults.failed_logins, |rate| rate.0),
        }
    }
}

impl Audit {
    pub(super) fn open(self, beside: &Path) -> AuditOptions {
        let bytes_max = self.rotate.map_or(AUDIT_BYTES_MAX, |size| size.0);
        AuditOptions {
            path: beside.join(self.file),
            bytes_max: Some(bytes_max).filter(|bytes| *bytes > 0),
            keep: self.keep.unwrap_or(AUDIT_KEEP),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::super::parse;
    use super::*;

    const ACCESS: &str = "access:\n  users: users\n  rules:\n";

    #[test]
    fn who_may_do_what_is_read() {
        let text = "tls: {certificate: cert.pem, key: /key.pem}\n\
             access:\n  users: users\n  service: here\n  token-life: 10m\n  groups: {team: [ann, bob]}\n  rules:\n\
             \x20   - {match: 'team/**', groups: [team], users: [ci], allow: [pull, push]}\n\
             \x20   - {match: '**', anyone: true, allow: [pull]}\n\
             \x20   - {match: '**', users: ['*'], allow: ['*']}\n\
             limits: {per-address: 600/m, failed-logins: 5/m}\n\
             audit: {file: audit.log, rotate: 1MB}\n";
        let options = parse(text, Path::new("/etc/registry")).unwrap().options;
        assert_eq!(options.tls.unwrap().certificate, Path::new("/etc/registry/cert.pem"));
        let access = options.access.unwrap();
        assert_eq!((access.service.as_str(), access.token_life), ("here", Duration::from_secs(600)));
        assert_eq!(access.users, Path::new("/etc/registry/users"));
        assert_eq!(access.rules[0].users.iter().collect::<Vec<_>>(), ["ann", "bob", "ci"]);
        assert!(access.rules[1].is_for_anyone && access.rules[2].actions.len() == 3);
        assert_eq!(options.limits.failed_logins, Rate::parse("5/m").unwrap());
        assert_eq!(options.limits.per_user, None);
        let audit = options.audit.unwrap();
        assert_eq!((audit.bytes_max, audit.keep), (Some(1_000_000), 5));
    }

    #[track_caller]
    fn check(text: &str, expected: Expect) {
        expected.assert_eq(&parse(text, Path::new("/")).map(drop).unwrap_err());
    }

    #[test]
    fn mistakes_of_rules_are_told_with_their_place() {
        let rule = |rule: &str| format!("{ACCESS}    - {rule}\n");
        check(&rule("{match: a, groups: [none], allow: [pull]}"), expect!["4:27: group `none` is not among `groups`"]);
        check(
            &rule("{match: a, allow: [pull]}"),
            expect!["4:7: the rule is for nobody: name `users`, `groups`, or `anyone: true`"],
        );
        check(
            &rule("{match: a, anyone: true, allow: [read]}"),
            expect!["4:40: unknown variant `read`, expected one of pull, push, delete, *"],
        );
        check(&rule("{match: a, anyone: true}"), expect!["4:18: missing field `allow`"]);
        check(
            "access:\n  users: u\n  challenge: basic\n  rules: [{match: a, anyone: true, allow: [pull]}]\n",
            expect![
                "4:11: with `challenge: basic` clients ask for everything with a password, or for nothing: `anyone` needs bearer"
            ],
        );
        check(
            "access:\n  users: u\n  token-life: 5s\n",
            expect!["3:15: `5s` is less than a minute, for which docker takes any token for good"],
        );
        check(
            "access:\n  users: u\n  realm: registry.example\n",
            expect!["3:10: `registry.example` is no URL such as `https://registry.example/token`"],
        );
        check("access: {rules: []}\n", expect!["1:10: missing field `users`"]);
        check("limits: {per-user: 5}\n", expect!["1:20: `5` is not a rate such as `100/s`, `600/m` or `5000/h`"]);
    }
}
