//! Other registries whose images this one hands out and keeps: a pull-through cache.
//!
//! [`manifests`] finds out what a name means there, [`blobs`] hands content on while it arrives ([`download`]). What is here
//! is answered as everything else is; nothing but the upstream that a repository belongs to is ever asked.

mod blobs;
mod download;
mod listing;
mod manifests;

use std::{
    collections::HashMap,
    io,
    path::Path,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use fs_err as fs;
use oci::{Digest, Reference};
use tokio::sync::Mutex as AsyncMutex;

use super::{Notices, answer::Refusal, background::Background, directory::make_dir, storage::RepositoryName};
use crate::{Client, ErrorKind, RegistryError};
use download::Downloads;

pub(super) use blobs::find as find_blob;
pub(super) use listing::{referrers, tags};
pub(super) use manifests::refresh;

/// What is remembered of tags and absences; beyond it everything is forgotten and asked for again.
const REMEMBERED_MAX: usize = 100_000;
/// An upstream that cannot be reached is not tried again for so long: what is here is answered at once.
const DOWN_FOR: Duration = Duration::from_secs(5);

/// Another registry whose images are handed out and kept.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Where it is.
    pub address: UpstreamAddress,
    /// Repositories `prefix/…` are its `…`; `None`: all that belong to no other upstream.
    pub prefix: Option<String>,
    /// How it is reached. It should know of no mirrors: they would be asked in its place.
    pub client: Client,
    /// What a tag names is asked for again after this time.
    pub fresh: Duration,
    /// That something does not exist is remembered for this time.
    pub absent: Duration,
}

/// A registry, or a part of it: `docker.io`, `ghcr.io/team`, `http://registry.example:5000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamAddress {
    host: String,
    path: String,
    is_plain: bool,
}

/// The text names no registry.
#[derive(Clone, Debug, thiserror::Error)]
#[error("`{0}` is not a registry such as `docker.io` or `https://registry.example:5000`")]
pub struct InvalidUpstream(pub String);

impl UpstreamAddress {
    /// Host and port, as references have it.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether it is named with `http://`: TLS is not insisted on.
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }
}

impl FromStr for UpstreamAddress {
    type Err = InvalidUpstream;

    fn from_str(text: &str) -> Result<Self, InvalidUpstream> {
        let (is_plain, rest) = match text.split_once("://") {
            Some(("http", rest)) => (true, rest),
            Some(("https", rest)) => (false, rest),
            Some(_) => return Err(InvalidUpstream(text.to_owned())),
            None => (false, text),
        };
        let rest = rest.trim_end_matches('/');
        let rest = rest.strip_suffix("/v2").unwrap_or(rest);
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = match host {
            "registry-1.docker.io" | "index.docker.io" => "docker.io",
            host => host,
        };
        let address = Self { host: host.to_owned(), path: path.to_owned(), is_plain };
        // What no reference can name cannot be asked for anything.
        let probe = address.reference("x").filter(|reference| reference.domain() == host);
        probe.map(|_| address.clone()).ok_or_else(|| InvalidUpstream(text.to_owned()))
    }
}

impl UpstreamAddress {
    /// A repository there.
    fn reference(&self, name: &str) -> Option<Reference> {
        let library =
            if self.host == "docker.io" && self.path.is_empty() && !name.contains('/') { "library" } else { "" };
        let parts = [&self.host, &self.path, library, name].into_iter().filter(|part| !part.is_empty());
        let reference: Reference = parts.collect::<Vec<_>>().join("/").parse().ok()?;
        (reference.tag().is_none() && reference.digest().is_none()).then_some(reference)
    }
}

/// The upstreams of a server.
#[derive(Debug)]
pub(super) struct Upstreams {
    list: Vec<Known>,
    downloads: Downloads,
    turns: Turns,
    background: Background,
}

/// An upstream, with what is known of it.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) options: Upstream,
    memory: Mutex<Memory>,
    notices: Notices,
}

#[derive(Debug, Default)]
struct Memory {
    /// When a tag was last found to be what it is here.
    checked: HashMap<String, Instant>,
    /// When something was last found missing.
    absent: HashMap<String, Instant>,
    down_until: Option<Instant>,
}

/// It could not be asked, and what is here is answered in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stale;

impl Upstreams {
    /// Upstreams for a server that keeps what it fetches below `directory` until it is whole.
    pub(super) fn open(list: Vec<Upstream>, directory: &Path, notices: Notices) -> io::Result<Self> {
        let downloads = directory.join("downloads");
        // Nobody else is here: what is there is of a process that was killed.
        match fs::remove_dir_all(&downloads) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if !list.is_empty() {
            make_dir(&downloads)?;
        }
        let known = |options| Known { options, memory: Mutex::default(), notices: notices.clone() };
        let list = list.into_iter().map(known).collect();
        let background = Background::default();
        Ok(Self { list, downloads: Downloads::new(downloads), turns: Turns::default(), background })
    }

    /// The upstream that a repository belongs to.
    pub(super) fn of(&self, name: &RepositoryName) -> Option<&Known> {
        let of_prefix = self.list.iter().find(|known| known.options.prefix.is_some() && known.remote(name).is_some());
        of_prefix.or_else(|| self.list.iter().find(|known| known.options.prefix.is_none()))
    }

    /// The repository that a client means which names the registry in `?ns=`, as containerd does with mirrors; `None` when
    /// nothing of that registry is here. Without upstreams the parameter says nothing.
    pub(super) fn place(&self, name: RepositoryName, namespace: Option<&str>) -> Option<RepositoryName> {
        let Some(namespace) = namespace.filter(|_| !self.list.is_empty()) else { return Some(name) };
        // A part of a registry is not what is meant by its name.
        let is_meant =
            |known: &&Known| known.options.address.host == namespace && known.options.address.path.is_empty();
        let known = self.list.iter().find(is_meant)?;
        match &known.options.prefix {
            Some(prefix) => RepositoryName::parse(&format!("{prefix}/{}", name.as_str())),
            None => Some(name),
        }
    }

    /// Downloads under way.
    pub(super) fn downloads_count(&self) -> usize {
        self.downloads.count()
    }

    /// Ends what is under way.
    pub(super) async fn end(&self) {
        self.background.end().await;
    }
}

impl Known {
    /// The repository there.
    fn remote(&self, name: &RepositoryName) -> Option<Reference> {
        let rest = match &self.options.prefix {
            Some(prefix) => name.as_str().strip_prefix(prefix.as_str())?.strip_prefix('/')?,
            None => name.as_str(),
        };
        self.options.address.reference(rest)
    }

    fn must_remote(&self, name: &RepositoryName) -> Result<Reference, Refusal> {
        self.remote(name).ok_or_else(|| Refusal::missing("NAME_UNKNOWN", "no repository of the upstream has this name"))
    }

    /// That repositories of it take no pushes.
    pub(super) fn refuse_write(&self) -> Refusal {
        let message = format!("this repository is a copy of one in {}: push there", self.options.address.host);
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message)
    }

    fn is_down(&self) -> bool {
        self.memory().down_until.is_some_and(|until| Instant::now() < until)
    }

    /// Notes a failure, and says whether it is the upstream's word that there is nothing.
    fn note_failure(&self, key: &str, error: &RegistryError) -> bool {
        let mut memory = self.memory();
        if error.is_unreachable() && memory.down_until.replace(Instant::now() + DOWN_FOR).is_none() {
            let host = &self.options.address.host;
            self.notices.say(&format!("upstream {host} cannot be reached: what is here is answered"));
        }
        let is_absent = error.is_not_found();
        if is_absent {
            memory.checked.remove(key);
            remember(&mut memory.absent, key);
        }
        is_absent
    }

    fn note_checked(&self, key: &str) {
        let mut memory = self.memory();
        memory.absent.remove(key);
        if memory.down_until.take().is_some() {
            self.notices.say(&format!("upstream {} answers again", self.options.address.host));
        }
        remember(&mut memory.checked, key);
    }

    fn is_fresh(&self, key: &str) -> bool {
        self.memory().checked.get(key).is_some_and(|at| at.elapsed() < self.options.fresh)
    }

    fn is_absent(&self, key: &str) -> bool {
        self.memory().absent.get(key).is_some_and(|at| at.elapsed() < self.options.absent)
    }

    /// What a client hears of a failure there.
    fn refusal(&self, error: &RegistryError) -> Refusal {
        let host = &self.options.address.host;
        match &error.kind {
            ErrorKind::NotFound { .. } => Refusal::missing("NAME_UNKNOWN", format!("{host} does not have it")),
            ErrorKind::RateLimited { retry_after } => {
                let message = format!("{host} limits the rate of requests");
                let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", message);
                match retry_after {
                    Some(wait) => refusal.header(header::RETRY_AFTER, &wait.as_secs().to_string()),
                    None => refusal,
                }
            }
            // To log in here would not help: it is this server that is refused there.
            ErrorKind::Unauthorized { .. } | ErrorKind::Denied { .. } | ErrorKind::Credentials(_) => {
                Refusal::new(StatusCode::FORBIDDEN, "DENIED", format!("{host} refuses this registry"))
            }
            kind => Refusal::new(StatusCode::BAD_GATEWAY, "UNKNOWN", format!("{host}: {kind}")),
        }
    }

    fn down(&self) -> Refusal {
        let message = format!("{} cannot be reached", self.options.address.host);
        Refusal::new(StatusCode::BAD_GATEWAY, "UNKNOWN", message)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stale {
    /// Says so to the client (RFC 7234, 5.5.3).
    pub(super) fn mark(self, response: &mut Response) {
        let warning = HeaderValue::from_static("111 seatrial \"Revalidation Failed\"");
        response.headers_mut().insert(header::WARNING, warning);
    }
}

fn remember(times: &mut HashMap<String, Instant>, key: &str) {
    if times.len() >= REMEMBERED_MAX {
        times.clear();
    }
    times.insert(key.to_owned(), Instant::now());
}

fn tag_key(name: &RepositoryName, tag: &str) -> String {
    format!("{}:{tag}", name.as_str())
}

fn digest_key(name: &RepositoryName, digest: &Digest) -> String {
    format!("{}@{digest}", name.as_str())
}

/// One at a time asks the same question.
#[derive(Debug, Default)]
struct Turns(Mutex<HashMap<String, Weak<AsyncMutex<()>>>>);

impl Turns {
    fn of(&self, key: &str) -> Arc<AsyncMutex<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(key).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        turns.insert(key.to_owned(), Arc::downgrade(&turn));
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_references_are() {
        let read = |text: &str| text.parse::<UpstreamAddress>().ok();
        let name = |text: &str, name: &str| read(text).unwrap().reference(name).unwrap().repository();
        assert_eq!(name("docker.io", "alpine"), "docker.io/library/alpine");
        assert_eq!(name("https://registry-1.docker.io/v2/", "team/app"), "docker.io/team/app");
        assert_eq!(name("ghcr.io/team/", "app"), "ghcr.io/team/app");
        assert_eq!(name("http://localhost:5000", "a/b"), "localhost:5000/a/b");
        assert!(read("http://localhost:5000").unwrap().is_plain());
        for text in ["", "registry", "ftp://x.y", "x.y/UPPER", "x.y:port", "x.y/a:1", "user@x.y"] {
            assert!(read(text).is_none(), "{text}");
        }
    }

    #[test]
    fn repositories_belong_to_the_upstream_of_their_prefix() {
        let upstream = |address: &str, prefix: Option<&str>| Upstream {
            address: address.parse().unwrap(),
            prefix: prefix.map(str::to_owned),
            client: Client::new(crate::ClientOptions::default()),
            fresh: Duration::ZERO,
            absent: Duration::ZERO,
        };
        let directory = tempfile::tempdir().unwrap();
        let list = vec![upstream("docker.io", None), upstream("ghcr.io", Some("gh"))];
        let upstreams = Upstreams::open(list, directory.path(), Notices::default()).unwrap();
        let name = |text: &str| RepositoryName::parse(text).unwrap();
        let of = |text: &str| {
            let name = name(text);
            upstreams.of(&name).and_then(|known| known.remote(&name)).map(|it| it.repository())
        };
        assert_eq!(of("gh/a/b").as_deref(), Some("ghcr.io/a/b"));
        assert_eq!(of("ghx/a").as_deref(), Some("docker.io/ghx/a"));
        assert_eq!(of("debian").as_deref(), Some("docker.io/library/debian"));
        assert_eq!(upstreams.place(name("a/b"), Some("ghcr.io")), Some(name("gh/a/b")));
        assert_eq!(upstreams.place(name("a/b"), Some("docker.io")), Some(name("a/b")));
        assert_eq!(upstreams.place(name("a/b"), Some("quay.io")), None);
        assert_eq!(upstreams.place(name("a/b"), None), Some(name("a/b")));
    }
}
