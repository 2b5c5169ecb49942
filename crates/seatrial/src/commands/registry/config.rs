//! The registry's file of settings. Every mistake is told with its line and column.

/// A text that another reader of ours takes.
macro_rules! read_from_text {
    ($name:ident, $value:ty, $read:expr) => {
        #[derive(Debug)]
        pub(super) struct $name(pub(super) $value);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                $read(text.as_str()).map(Self).map_err(D::Error::custom)
            }
        }
    };
}

mod access;
mod secret;
mod upstreams;
mod webhooks;

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ::registry::{Backend, GitHistory, Pattern, RepositoryRules, Retention, Rules, ServerOptions, Webhook};
use fs_err as fs;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{failure::Failure, terminal::text};

/// Nobody writes more settings by hand.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What the file says; absent parts are the defaults.
#[derive(Debug, Default)]
pub(super) struct Config {
    /// Where to listen.
    pub(super) listen: Option<SocketAddr>,
    /// Directory of the registry's content.
    pub(super) directory: Option<PathBuf>,
    /// Blobs of this machine's builds are there without being sent.
    pub(super) store: bool,
    /// All the rest.
    pub(super) options: ServerOptions,
}

/// The file's form.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct File {
    listen: Option<SocketAddr>,
    directory: Option<PathBuf>,
    storage: Option<Storage>,
    store: bool,
    quota: Option<Size>,
    collect: Collect,
    uploads: Uploads,
    repositories: Vec<Repositories>,
    upstreams: Vec<upstreams::Entry>,
    tls: Option<access::Tls>,
    plain_http: bool,
    trusted_proxies: Vec<IpAddr>,
    access: Option<access::Access>,
    limits: access::Limited,
    audit: Option<access::Audit>,
    webhooks: Vec<webhooks::Entry>,
    pages: Option<bool>,
    metrics: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Collect {
    /// `0`: only by `seatrial registry gc`.
    every: Option<Span>,
    grace: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Uploads {
    life: Option<Span>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Repositories {
    #[serde(rename = "match")]
    pattern: Glob,
    #[serde(default)]
    immutable: Vec<Glob>,
    #[serde(default)]
    forward_only: bool,
    quota: Option<Size>,
    keep: Option<Keep>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Keep {
    #[serde(default)]
    tags: Vec<Glob>,
    #[serde(default)]
    last: usize,
    younger_than: Option<Span>,
    pulled_within: Option<Span>,
    untagged: Option<Span>,
    git: Option<Git>,
}

/// A repository whose commits decide.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Git {
    repository: PathBuf,
    refs: Vec<Ref>,
}

read_from_text!(Span, Duration, text::parse_duration);
read_from_text!(Size, u64, text::parse_bytes);
read_from_text!(Ref, String, |text: &str| {
    if text.starts_with("refs/") {
        Ok(text.to_owned())
    } else {
        Err("a branch is `refs/heads/NAME` here, a tag `refs/tags/NAME`")
    }
});
read_from_text!(Glob, Pattern, Pattern::parse);

/// Where records and content are kept instead of in the directory.
#[derive(Debug)]
struct Storage(Arc<dyn Backend>);

impl<'de> Deserialize<'de> for Storage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let url = String::deserialize(deserializer)?;
        open_storage(&url).map(Self).map_err(D::Error::custom)
    }
}

#[cfg(feature = "object-store")]
fn open_storage(url: &str) -> Result<Arc<dyn Backend>, String> {
    // Settings and keys come by the names that the clouds' own tools know; names that are not text are none of these.
    let named =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let wanted = named.filter(|(name, _)| ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|start| name.starts_with(start)));
    registry_object_store::open(url, wanted).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("{error}{cause}")
    })
}

#[cfg(not(feature = "object-store"))]
fn open_storage(url: &str) -> Result<Arc<dyn Backend>, String> {
    Err(format!("`{url}` needs a seatrial that was built with `--features object-store`"))
}

/// Whether a file says that the store is needed. What is wrong with it is told by [`read`].
pub(super) fn names_store(path: &Path) -> bool {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Part {
        store: bool,
    }
    let is_small = fs::metadata(path).is_ok_and(|file| file.len() <= FILE_BYTES_MAX);
    let text = if is_small { fs::read_to_string(path).ok() } else { None };
    text.is_some_and(|text| serde_saphyr::from_str::<Part>(&text).is_ok_and(|part| part.store))
}

/// Reads a file; relative paths in it are relative to it.
pub(super) fn read(path: &Path) -> anyhow::Result<Config> {
    let cannot = |error: std::io::Error| Failure::usage("cannot read the settings").because(&error);
    let length = fs::metadata(path).map_err(cannot)?.len();
    if length > FILE_BYTES_MAX {
        return Err(Failure::usage(format!("{} has more than {FILE_BYTES_MAX} bytes", path.display())).into());
    }
    let text = fs::read_to_string(path).map_err(cannot)?;
    let beside = path.parent().unwrap_or(Path::new("."));
    Ok(parse(&text, beside).map_err(|message| Failure::usage(format!("{}:{message}", path.display())))?)
}

/// The settings of a text, or `line:column: what is wrong`.
fn parse(text: &str, beside: &Path) -> Result<Config, String> {
    let file: Option<File> = serde_saphyr::from_str(text).map_err(|error| {
        let place = error.location().map_or_else(|| "1:1".into(), |it| format!("{}:{}", it.line(), it.column()));
        format!("{place}: {}", message(&error, text))
    })?;
    let file = file.unwrap_or_default();
    let defaults = ServerOptions::default();
    let rules = Rules {
        repositories: file.repositories.into_iter().map(|entry| rules_of(entry, beside)).collect(),
        bytes_max: file.quota.map(|size| size.0),
    };
    let collect_every = match file.collect.every {
        None => defaults.collect_every,
        Some(Span(every)) => Some(every).filter(|every| !every.is_zero()),
    };
    let upstreams = file.upstreams.into_iter().map(|entry| entry.open(beside)).collect::<Result<_, _>>()?;
    let webhooks: Vec<Webhook> = file.webhooks.into_iter().map(|entry| entry.open(beside)).collect::<Result<_, _>>()?;
    let mut names: Vec<&str> = webhooks.iter().map(|webhook| webhook.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("1:1: two webhooks are called `{}`", twice[0]));
    }
    Ok(Config {
        listen: file.listen,
        directory: file.directory.map(|directory| beside.join(directory)),
        store: file.store,
        options: ServerOptions {
            upload_life: file.uploads.life.map_or(defaults.upload_life, |life| life.0),
            collect_every,
            backend: file.storage.map(|storage| storage.0),
            collect_grace: file.collect.grace.map_or(defaults.collect_grace, |grace| grace.0),
            rules,
            upstreams,
            access: file.access.map(|access| access.open(beside)).transpose()?,
            limits: file.limits.limits(),
            audit: file.audit.map(|audit| audit.open(beside)),
            tls: file.tls.map(|tls| tls.files(beside)),
            is_plain_allowed: file.plain_http,
            trusted_proxies: file.trusted_proxies,
            webhooks,
            has_pages: file.pages.unwrap_or(true),
            has_metrics: file.metrics.unwrap_or(true),
            ..defaults
        },
    })
}

fn rules_of(entry: Repositories, beside: &Path) -> RepositoryRules {
    let globs = |globs: Vec<Glob>| globs.into_iter().map(|glob| glob.0).collect();
    RepositoryRules {
        repositories: entry.pattern.0,
        immutable: globs(entry.immutable),
        is_forward_only: entry.forward_only,
        bytes_max: entry.quota.map(|size| size.0),
        retention: entry.keep.map(|keep| Retention {
            tags: globs(keep.tags),
            last: keep.last,
            younger_than: keep.younger_than.map(|span| span.0),
            pulled_within: keep.pulled_within.map(|span| span.0),
            history: keep.git.map(|git| GitHistory {
                repository: beside.join(git.repository),
                refs: git.refs.into_iter().map(|name| name.0).collect(),
            }),
            untagged_after: keep.untagged.map(|span| span.0),
        }),
    }
}

/// What is wrong, on one line, without the place: that is told in front. The nearest key, what is there and what for are looked
/// up in the text.
fn message(error: &serde_saphyr::Error, text: &str) -> String {
    let whole = error.without_snippet().to_string();
    let line = whole.lines().next().unwrap_or_default();
    let what = line.rsplit_once(" at line ").map_or(line, |(what, _)| what);
    if let Some((field, known)) =
        what.strip_prefix("unknown field `").and_then(|rest| rest.split_once("`, expected one of "))
    {
        return match dockerfile::nearest(field, known.split(", ")) {
            Some(near) => format!("unknown field `{field}`: did you mean `{near}`?"),
            None => what.to_owned(),
        };
    }
    let wanted = match what {
        _ if what.starts_with("expected string scalar") => "one value",
        _ if what.starts_with("expected sequence") => "a list",
        _ if what.starts_with("expected mapping") => "a map",
        _ => return what.to_owned(),
    };
    let place = error.location().map_or((1, 1), |at| (at.line() as usize, at.column() as usize));
    let line = text.lines().nth(place.0 - 1).unwrap_or_default();
    let before: String = line.chars().take(place.1 - 1).collect();
    let found = match line.chars().nth(place.1 - 1) {
        Some('[') => "a list",
        Some('{') => "a map",
        Some('-') if line.trim_start().starts_with("- ") => "a list",
        _ if line.contains(": ") && !before.contains(": ") => "a map",
        _ => "one value",
    };
    let key = before.trim_end().strip_suffix(':').and_then(|rest| rest.rsplit([' ', '{', ',']).next());
    let key = key.filter(|key| !key.is_empty()).map(|key| format!("`{key}` is to be ")).unwrap_or("expected ".into());
    format!("{key}{wanted}, and this is {found}")
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[test]
    fn upstreams_are_read_with_their_secrets() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("secret"), "word\n").unwrap();
        let config = parse(
            "upstreams:\n  - {registry: docker.io, prefix: hub, fresh: 1h}\n\
             \x20 - {registry: 'http://mirror:5000', user: me, password: {file: secret}}\n",
            directory.path(),
        )
        .unwrap();
        let [hub, mirror] = &config.options.upstreams[..] else { panic!("two are named") };
        assert_eq!((hub.prefix.as_deref(), hub.fresh), (Some("hub"), Duration::from_secs(3600)));
        assert_eq!((mirror.address.host(), mirror.prefix.as_deref()), ("mirror:5000", None));
        let wrong = |text: &str| parse(text, directory.path()).map(drop).unwrap_err();
        assert!(wrong("upstreams: [{registry: docker.io, user: me}]").contains("`user` and `password`"));
        assert!(wrong("upstreams: [{registry: docker.io, user: me, password: {file: none}}]").contains("none"));
        assert!(wrong("upstreams: [{registry: 'ftp://x.y'}]").contains("is not a registry such as"));
        assert!(wrong("upstreams: [{registry: docker.io, prefix: _x}]").contains("cannot begin a repository's name"));
    }

    #[test]
    fn webhooks_are_read_with_their_secrets() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("key"), "word\n").unwrap();
        let config = parse(
            "webhooks:\n  - {name: ci, url: 'https://ci.example/x', secret: {file: key}, events: [push, tag], repositories: ['a/*'],\n\
             \x20    retry: {first: 1s, give-up: 2h}}\n",
            directory.path(),
        )
        .unwrap();
        let [hook] = &config.options.webhooks[..] else { panic!("one is named") };
        assert_eq!(hook.secret.as_ref().unwrap().0, "word");
        assert_eq!((hook.events.len(), hook.repositories.len()), (2, 1));
        assert_eq!((hook.retry_wait.as_secs(), hook.give_up_after.as_secs()), (1, 7200));
        let wrong = |text: &str| parse(text, directory.path()).map(drop).unwrap_err();
        assert!(wrong("webhooks: [{name: CI, url: 'http://x'}]").contains("lower-case"));
        let secret = wrong("webhooks: [{name: ci, url: 'ftp://token@x'}]");
        assert!(secret.contains("https://") && !secret.contains("token"), "{secret}");
        assert!(wrong("webhooks: [{name: a, url: 'http://x'}, {name: a, url: 'http://y'}]").contains("two webhooks"));
    }

    #[test]
    fn settings_are_read_with_defaults_for_the_rest() {
        let config = parse(
            "listen: 127.0.0.1:5555\ndirectory: data\nquota: 100GB\ncollect: {every: 0, grace: 1h}\n\
             repositories:\n  - match: team/*\n    immutable: ['v*']\n    forward-only: true\n    quota: 10GB\n\
             \x20   keep: {tags: ['pr-*'], last: 5, younger-than: 30d, untagged: 7d}\n  - match: '**'\n",
            Path::new("/etc/registry"),
        )
        .unwrap();
        assert_eq!(config.directory.unwrap(), Path::new("/etc/registry/data"));
        assert_eq!((config.options.collect_every, config.options.collect_grace), (None, Duration::from_secs(3600)));
        let rules = &config.options.rules.repositories;
        assert_eq!((rules.len(), rules[0].is_forward_only, rules[1].is_forward_only), (2, true, false));
        let retention = rules[0].retention.as_ref().unwrap();
        assert_eq!((retention.last, retention.pulled_within), (5, None));
        assert_eq!(config.options.rules.bytes_max, Some(100_000_000_000));
        assert!(parse("", Path::new("/")).unwrap().options.collect_every.is_some());
    }

    #[track_caller]
    fn check(text: &str, expected: Expect) {
        expected.assert_eq(&parse(text, Path::new("/")).map(drop).unwrap_err());
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        check("listen: 5000\n", expect!["1:9: invalid socket address syntax"]);
        check("repositories:\n  - match: '['\n", expect!["2:12: `[` is not a pattern"]);
        check("collect:\n  grace: soon\n", expect!["2:10: `soon` is not a duration such as `24h` or `7d`"]);
        check("quotas: 1GB\n", expect!["1:1: unknown field `quotas`: did you mean `quota`?"]);
        check(
            "repositories:\n  - {match: a, forward-only: [latest]}\n",
            expect!["2:30: `forward-only` is to be one value, and this is a list"],
        );
        check("repositories: {match: a}\n", expect!["1:15: `repositories` is to be a list, and this is a map"]);
        check("collect: 6h\n", expect!["1:10: `collect` is to be a map, and this is one value"]);
        check("repositories:\n  - immutable: ['*']\n", expect!["2:5: missing field `match`"]);
    }
}
