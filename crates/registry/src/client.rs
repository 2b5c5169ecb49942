//! The client: one value for all registries, cheap to clone, with connections and tokens kept between calls.

mod answer;
mod auth;
mod body;
mod catalog;
mod config;
mod content;
mod copy;
mod ends;
mod pace;
mod pull;
mod push;
mod referrers;
mod retry;
mod sessions;
mod tags;
mod transport;
mod web;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use oci::{Descriptor, Digest, ManifestOrIndex, Reference, media_type};
use reqwest::{
    Method,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use serde::Deserialize;
use url::Url;

use crate::{Credentials, ErrorKind, HostFiles, RegistryError};
use answer::{header_text, read_bounded};
use auth::Scope;
use transport::{Call, Transport, Via};

pub(crate) use transport::provide_tls;

pub use body::BlobSource;
pub use config::VERSION_ANNOTATION;
pub use content::{ContentCheck, WrongPart};
pub use copy::{Copied, CopyOptions};
pub use ends::CopyPlace;
pub use pull::{BlobTarget, CommitError};
pub use push::UploadOutcome;
pub use tags::{TagCondition, TagsWritten};
pub use web::{WebAnswer, WebRequest};

/// Registries refuse manifests beyond 4 MiB; the largest in use are far smaller (distribution-spec, "Pushing Manifests").
pub(crate) const MANIFEST_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Manifests that are asked for, or written, side by side.
const PARALLEL_MANIFESTS: usize = 8;
/// A tag list comes in pages; this many tags are more than anybody reads.
const TAGS_MAX: usize = 1_000_000;
/// Tries behind the first where a registry misreads itself: the other push is done by then.
const MISREAD_MAX: usize = 3;
/// Bytes of one page of a tag list.
const TAG_PAGE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How a client behaves. `..ClientOptions::default()` fills in the rest.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Who we are.
    pub credentials: Credentials,
    /// Hosts (`host` or `host:port`) that may be spoken to without TLS or with an unknown certificate. Loopback hosts always may.
    pub insecure_hosts: Vec<String>,
    /// What the machine's configuration says of hosts: certificates, mirrors, more insecure hosts.
    pub hosts: HostFiles,
    /// The `User-Agent` header.
    pub user_agent: String,
    /// Time to connect, TLS included.
    pub connect_timeout: Duration,
    /// Longest silence on a connection, in either direction.
    pub idle_timeout: Duration,
    /// How often a request is repeated after a failure that may pass.
    pub retries: u32,
    /// The first wait before a repetition; it doubles each time up to [`ClientOptions::retry_wait_max`].
    pub retry_wait: Duration,
    /// Longest wait before a repetition. A registry that asks for a longer one (`Retry-After`) ends the attempt.
    pub retry_wait_max: Duration,
    /// Blobs that are transferred side by side.
    pub parallel_blobs: usize,
    /// Bytes of one part when a registry only takes uploads in parts.
    pub chunk_bytes: u64,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            credentials: Credentials::anonymous(),
            insecure_hosts: Vec::new(),
            hosts: HostFiles::default(),
            user_agent: concat!("seatrial/", env!("CARGO_PKG_VERSION")).into(),
            connect_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(60),
            retries: 5,
            retry_wait: Duration::from_millis(250),
            retry_wait_max: Duration::from_secs(60),
            parallel_blobs: 4,
            chunk_bytes: 16 * 1024 * 1024,
        }
    }
}

/// Hears how far transfers are. Called often, from the task that transfers: it must return at once.
pub trait Progress: Send + Sync {
    /// `done_bytes` of `total_bytes` of the blob `item` are through. A blob that need not be moved is told once, as done.
    fn advance(&self, item: &Digest, done_bytes: u64, total_bytes: u64);

    /// So many bytes of it are there already, and are not moved. Told before [`Progress::advance`] speaks of them.
    fn skip(&self, _item: &Digest, _bytes: u64, _total_bytes: u64) {}
}

/// Hears nothing.
pub struct NoProgress;

impl Progress for NoProgress {
    fn advance(&self, _: &Digest, _: u64, _: u64) {}
}

/// A manifest or index as a registry gave it, checked against its digest.
#[derive(Clone, Debug)]
pub struct ResolvedManifest {
    /// Type, digest and size.
    pub descriptor: Descriptor,
    /// The very bytes.
    pub bytes: Bytes,
    /// The same, read.
    pub document: ManifestOrIndex,
}

/// A client of all registries (distribution-spec 1.1 and the older docker registry protocol).
#[derive(Clone)]
pub struct Client {
    transport: Arc<Transport>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// A client. Nothing is read or connected before the first request.
    pub fn new(options: ClientOptions) -> Self {
        Self { transport: Arc::new(Transport::new(options)) }
    }

    fn options(&self) -> &ClientOptions {
        self.transport.options()
    }

    /// Type, digest and size of what a reference names now, without fetching it where the registry can tell.
    pub async fn resolve(&self, reference: &Reference) -> Result<Descriptor, RegistryError> {
        self.resolve_kind(reference).await.map_err(|kind| kind.during("resolve", reference))
    }

    async fn resolve_kind(&self, reference: &Reference) -> Result<Descriptor, ErrorKind> {
        let call = self.manifest_call(Method::HEAD, reference);
        let headers = match self.transport.send(&call).await {
            Ok(response) => response.headers().clone(),
            // Some registries do not know HEAD here; the GET tells what is really wrong.
            Err(ErrorKind::Unexpected { .. } | ErrorKind::Malformed(_)) => Default::default(),
            Err(kind) => return Err(kind),
        };
        let digest = header_text(&headers, "docker-content-digest").and_then(|text| text.parse::<Digest>().ok());
        let size = header_text(&headers, "content-length").and_then(|text| text.parse::<u64>().ok());
        let kind = header_text(&headers, "content-type").map(media_type_only);
        match (digest, size, kind) {
            (Some(digest), Some(size), Some(kind)) if size > 0 && reference.digest().is_none_or(|d| *d == digest) => {
                Ok(Descriptor::new(kind, digest, size))
            }
            _ => Ok(self.fetch_kind(reference, MANIFEST_BYTES_MAX, Via::Origin).await?.descriptor),
        }
    }

    /// The manifest or index that a reference names; at most `limit_bytes`. Checked against the reference's digest, or
    /// against the digest that the registry tells.
    pub async fn fetch_manifest(
        &self,
        reference: &Reference,
        limit_bytes: u64,
    ) -> Result<ResolvedManifest, RegistryError> {
        self.fetch_kind(reference, limit_bytes, Via::Origin).await.map_err(|kind| kind.during("fetch", reference))
    }

    async fn fetch_kind(
        &self,
        reference: &Reference,
        limit_bytes: u64,
        via: Via,
    ) -> Result<ResolvedManifest, ErrorKind> {
        let call = self.manifest_call(Method::GET, reference).via(via);
        let mut retries = self.transport.retries();
        let mut was_wrong = false;
        loop {
            let attempt = async {
                let response = self.transport.attempt(&call).await?;
                let headers = response.headers().clone();
                let bytes = read_bounded(response, limit_bytes, self.options().idle_timeout).await?;
                Ok((headers, bytes))
            };
            let (headers, bytes) = match attempt.await {
                Ok(answer) => answer,
                Err(failure) => {
                    retries.again(failure).await?;
                    continue;
                }
            };
            let digest = Digest::of(&bytes);
            let told = header_text(&headers, "docker-content-digest").and_then(|text| text.parse::<Digest>().ok());
            if let Some(expected) = reference.digest().or(told.as_ref())
                && *expected != digest
            {
                self.transport.distrust_mirrors(reference);
                let reason = format!("its digest is {digest}");
                let failure = ErrorKind::WrongContent { expected: expected.clone(), reason };
                // Once more, in case the first copy was damaged on its way.
                if std::mem::replace(&mut was_wrong, true) {
                    return Err(failure);
                }
                retries.again(failure.into()).await?;
                continue;
            }
            let document = ManifestOrIndex::parse(&bytes).map_err(|error| ErrorKind::malformed(describe(&error)))?;
            let kind = document_type(&document)
                .or_else(|| header_text(&headers, "content-type").map(media_type_only))
                .unwrap_or_else(|| media_type::MANIFEST.into());
            return Ok(ResolvedManifest {
                descriptor: Descriptor::new(kind, digest, bytes.len() as u64),
                bytes,
                document,
            });
        }
    }

    fn manifest_call(&self, method: Method, reference: &Reference) -> Call {
        let name = match (reference.digest(), reference.tag_or_latest()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.expect("a reference without a digest has a tag").to_owned(),
        };
        let accept = HeaderValue::from_str(&media_type::ACCEPT_MANIFESTS.join(", ")).expect("media types are ASCII");
        Call::new(method, reference, format!("manifests/{name}"), Scope::pull(reference)).header(ACCEPT, accept)
    }

    /// All tags of a repository, in the registry's order.
    pub async fn list_tags(&self, repository: &Reference) -> Result<Vec<String>, RegistryError> {
        self.tags_kind(repository).await.map_err(|kind| kind.during("list the tags of", repository.repository()))
    }

    async fn tags_kind(&self, repository: &Reference) -> Result<Vec<String>, ErrorKind> {
        #[derive(Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let mut tags = Vec::new();
        let mut call = Call::new(Method::GET, repository, "tags/list".into(), Scope::pull(repository));
        loop {
            let (url, link, bytes) = self.transport.get_document(&call, TAG_PAGE_BYTES_MAX).await?;
            let page: Page = serde_json::from_slice(&bytes).map_err(|error| ErrorKind::malformed(error.to_string()))?;
            let page = page.tags.unwrap_or_default();
            let is_empty = page.is_empty();
            tags.extend(page);
            match link.as_deref().and_then(|link| next_link(&url, link)) {
                // A page without tags that names a next one would go round for ever.
                Some(next) if !is_empty && tags.len() < TAGS_MAX => call = call.at(next),
                _ => return Ok(tags),
            }
        }
    }

    /// Removes what a reference names: by digest the manifest (and with it its tags), by tag the tag where the registry can.
    /// Where the list of referrers is a tag, a manifest that refers to another one is taken out of it as well.
    pub async fn delete(&self, reference: &Reference) -> Result<(), RegistryError> {
        self.delete_kind(reference).await.map_err(|kind| kind.during("delete", reference))
    }

    async fn delete_kind(&self, reference: &Reference) -> Result<(), ErrorKind> {
        let subject = match reference.digest() {
            // One that cannot be read can be removed all the same.
            Some(digest) => {
                let found = self.fetch_kind(reference, MANIFEST_BYTES_MAX, Via::Origin).await.ok();
                found.and_then(|found| Some((found.document.subject()?.digest.clone(), digest.clone())))
            }
            None => None,
        };
        let call = self.manifest_call(Method::DELETE, reference).scope(Scope::delete(reference));
        self.transport.send(&call).await?;
        match subject {
            Some((subject, referrer)) => self.unlist_referrer(reference, &subject, &referrer).await,
            None => Ok(()),
        }
    }

    /// Writes a manifest or index under a tag or its digest (as `reference` says). What it refers to must be there.
    pub async fn put_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: impl Into<Bytes>,
    ) -> Result<Digest, RegistryError> {
        self.put_kind(reference, media_type, bytes.into()).await.map_err(|kind| kind.during("push", reference))
    }

    /// Writes manifests that refer to others, each with its media type, under their digests. Where the list of referrers is a
    /// tag, it is written once for each subject.
    ///
    /// # Errors
    /// The registry fails or refuses.
    pub async fn put_referrers(
        &self,
        repository: &Reference,
        manifests: &[(&str, Bytes)],
    ) -> Result<(), RegistryError> {
        let puts: Vec<_> =
            manifests.iter().map(|(media_type, bytes)| self.put_referrer(repository, media_type, bytes)).collect();
        let put: Vec<_> = futures::stream::iter(puts).buffered(PARALLEL_MANIFESTS).try_collect().await?;
        let mut unlisted: BTreeMap<Digest, Vec<Descriptor>> = BTreeMap::new();
        for (subject, entry) in put.into_iter().flatten() {
            unlisted.entry(subject).or_default().push(entry);
        }
        for (subject, entries) in &unlisted {
            let listed = self.list_referrers(repository, subject, entries).await;
            listed.map_err(|kind| kind.during("list referrers in", repository.repository()))?;
        }
        Ok(())
    }

    async fn put_referrer(
        &self,
        repository: &Reference,
        media_type: &str,
        bytes: &Bytes,
    ) -> Result<Option<(Digest, Descriptor)>, RegistryError> {
        let place = repository.with_digest(Digest::of(bytes));
        self.put_only(&place, media_type, bytes.clone()).await.map_err(|kind| kind.during("push", &place))
    }

    async fn put_kind(&self, reference: &Reference, media_type: &str, bytes: Bytes) -> Result<Digest, ErrorKind> {
        let sent = Digest::of(&bytes);
        if let Some((subject, entry)) = self.put_only(reference, media_type, bytes).await? {
            self.list_referrers(reference, &subject, &[entry]).await?;
        }
        Ok(sent)
    }

    /// Writes a manifest; its subject and its entry for the list of referrers, where the registry keeps no such list.
    async fn put_only(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Option<(Digest, Descriptor)>, ErrorKind> {
        let sent = Digest::of(&bytes);
        let call = self.put_call(reference, media_type, bytes.clone())?;
        let headers = self.send_manifest(&call, sent).await?;
        Ok(referrers::unlisted(&headers, media_type, &bytes))
    }

    /// Sends a manifest, which has to be stored as it is; the answer's headers. docker's registry (distribution 2) takes a link
    /// of the repository that another push is just writing for a wrong digest; ours is right, so it is asked again.
    async fn send_manifest(&self, call: &Call, sent: Digest) -> Result<HeaderMap, ErrorKind> {
        let mut outcome = self.transport.send(call).await;
        for _ in 0..MISREAD_MAX {
            match &outcome {
                Err(ErrorKind::Unexpected { status: 400, code, .. }) if code == "DIGEST_INVALID" => {}
                _ => break,
            }
            tokio::time::sleep(self.options().retry_wait).await;
            outcome = self.transport.send(call).await;
        }
        let headers = outcome?.headers().clone();
        match header_text(&headers, "docker-content-digest") {
            Some(stored) if stored != sent.to_string() => {
                Err(ErrorKind::DigestMismatch { stored: stored.to_owned(), sent })
            }
            _ => Ok(headers),
        }
    }

    fn put_call(&self, reference: &Reference, media_type: &str, bytes: Bytes) -> Result<Call, ErrorKind> {
        let kind = HeaderValue::from_str(media_type).map_err(|_| ErrorKind::malformed("media type is not ASCII"))?;
        let call = self.manifest_call(Method::PUT, reference).scope(Scope::push(reference));
        Ok(call.header(CONTENT_TYPE, kind).body(bytes))
    }

    /// Whether a registry answers, and takes the credentials that we have for it (if it wants any).
    pub async fn ping(&self, host: &str) -> Result<(), RegistryError> {
        let call = Call::host(Method::GET, host);
        self.transport.send(&call).await.map(drop).map_err(|kind| kind.during("reach", host))
    }

    /// Checks a user's password (or token) against a registry, without keeping it. See [`Credentials::store`].
    pub async fn check_login(&self, host: &str, user: &str, password: &str) -> Result<(), RegistryError> {
        let client = self.with_login(host, user, password);
        client.transport.check_login(host).await.map_err(|kind| kind.during("log in to", host))
    }
}

/// The URL of the next page (RFC 8288), on the same origin only.
fn next_link(url: &Url, link: &str) -> Option<Url> {
    let entry = link.split(',').find(|entry| entry.contains("rel=\"next\"") || entry.contains("rel=next"))?;
    let target = entry.trim().strip_prefix('<')?.split_once('>')?.0;
    url.join(target).ok().filter(|next| next.origin() == url.origin())
}

fn media_type_only(text: &str) -> String {
    text.split(';').next().unwrap_or(text).trim().to_owned()
}

fn document_type(document: &ManifestOrIndex) -> Option<String> {
    match document {
        ManifestOrIndex::Manifest(manifest) => manifest.media_type.clone(),
        ManifestOrIndex::Index(index) => index.media_type.clone(),
    }
}

/// An error with its causes, on one line.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = text + ": " + &error.to_string();
        cause = error.source();
    }
    text
}
