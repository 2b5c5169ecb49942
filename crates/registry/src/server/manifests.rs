//! Manifests: reading, writing with checks, deleting.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use oci::{Descriptor, Digest, ManifestOrIndex, is_valid_tag, media_type};
use tokio::{task::spawn_blocking, time::timeout};

use super::{
    Shared,
    answer::{Refusal, is_unchanged},
    blobs::CONTENT_DIGEST,
    cache::Kept,
    hooks::{Change, HookEvent, Origin},
    routes::Query,
    rules,
    storage::{NewManifest, RepositoryName},
    tags::{Condition, TagFailure},
    upstream,
};

/// So much more of a manifest that is too large is read, so that the client sees the refusal.
const DRAIN_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Tags that one request sets. The specification asks for ten at least.
const TAGS_MAX: usize = 64;

/// What a manifest is addressed by.
pub(super) enum Address {
    Tag(String),
    Digest(Digest),
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        if text.contains(':') {
            return text.parse().map(Self::Digest).map_err(|_| Refusal::digest());
        }
        // A name that no tag can have is a name that nothing has.
        if is_valid_tag(text) { Ok(Self::Tag(text.to_owned())) } else { Err(unknown()) }
    }
}

pub(super) fn unknown() -> Refusal {
    Refusal::missing("MANIFEST_UNKNOWN", "the repository does not have this manifest")
}

fn illegal_tag() -> Refusal {
    Refusal::bad("MANIFEST_INVALID", "the tag is not legal")
}

/// `GET` and `HEAD` of a manifest. (The body is left out of answers to `HEAD` by the HTTP library.)
pub(super) async fn get(
    shared: Arc<Shared>,
    name: RepositoryName,
    reference: String,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let address = Address::parse(&reference)?;
    let stale = match shared.upstreams.of(&name) {
        Some(upstream) => upstream::refresh(&shared, upstream, &name, &address).await?,
        None => None,
    };
    let kept = match &address {
        Address::Tag(tag) => shared.storage.cache.tagged(&name, tag),
        Address::Digest(digest) => shared.storage.cache.manifest(&name, digest),
    };
    let kept = match kept {
        Some(kept) => kept,
        None => {
            let (shared, name) = (Arc::clone(&shared), name.clone());
            spawn_blocking(move || find(&shared, &name, address)).await??
        }
    };
    if kept.is_use_news(std::time::SystemTime::now()) {
        let digest = kept.digest.clone();
        // Retention looks at it. Nobody waits for it or fails with it.
        spawn_blocking(move || shared.storage.note_use(&name, &digest));
    }
    let digest = HeaderValue::from_str(&kept.digest.to_string()).expect("digests are ASCII");
    let tag = HeaderValue::from_str(&format!("\"{}\"", kept.digest)).expect("digests are ASCII");
    let mut response = if is_unchanged(headers, &kept.digest) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let media_type =
            HeaderValue::from_str(&kept.media_type).unwrap_or(HeaderValue::from_static(media_type::MANIFEST));
        ([(header::CONTENT_TYPE, media_type)], kept.bytes.clone()).into_response()
    };
    response.headers_mut().insert(CONTENT_DIGEST, digest);
    response.headers_mut().insert(header::ETAG, tag);
    if let Some(stale) = stale {
        stale.mark(&mut response);
    }
    Ok(response)
}

fn find(shared: &Shared, name: &RepositoryName, address: Address) -> Result<Arc<Kept>, Refusal> {
    let digest = match address {
        Address::Digest(digest) => digest,
        Address::Tag(tag) => shared.storage.tag(name, &tag)?.ok_or_else(unknown)?,
    };
    shared.storage.manifest(name, &digest)?.ok_or_else(unknown)
}

/// `PUT` of a manifest, by digest or tag, with further tags in `?tag=`: all of them are set in one step.
pub(super) async fn put(
    shared: Arc<Shared>,
    origin: Origin,
    name: RepositoryName,
    reference: String,
    query: Query,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let bytes = read_body(body, &shared).await?;
    let address = match Address::parse(&reference) {
        Err(_) if !reference.contains(':') => return Err(illegal_tag()),
        parsed => parsed?,
    };
    let digest = Digest::of(&bytes);
    let mut tags = Vec::new();
    match address {
        Address::Digest(wanted) if wanted != digest => {
            return Err(Refusal::bad("DIGEST_INVALID", format!("the content's digest is {digest}")));
        }
        Address::Digest(_) => {}
        Address::Tag(tag) => tags.push(tag),
    }
    for tag in query.all("tag") {
        if !is_valid_tag(tag) {
            return Err(illegal_tag());
        }
        if !tags.iter().any(|known| known == tag) {
            tags.push(tag.to_owned());
        }
    }
    if tags.len() > TAGS_MAX {
        let message = format!("one request sets at most {TAGS_MAX} tags");
        return Err(Refusal::new(StatusCode::URI_TOO_LONG, "UNSUPPORTED", message));
    }
    let condition = condition(headers)?;
    let document =
        ManifestOrIndex::parse(&bytes).map_err(|error| Refusal::bad("MANIFEST_INVALID", describe(&error)))?;
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = agree_on_type(&document, content_type)?;
    let manifest = described(&document, media_type, digest.clone(), bytes);
    let subject = manifest.referrer.as_ref().map(|(subject, _)| subject.clone());

    let location = format!("/v2/{}/manifests/{digest}", name.as_str());
    let set = tags.clone();
    spawn_blocking(move || {
        let before = store(&shared, &name, &manifest, &document, &tags, &condition)?;
        tell_of_push(&shared, &origin, &name, &manifest, &tags, before);
        Ok::<_, Refusal>(())
    })
    .await??;

    let mut response =
        (StatusCode::CREATED, [(header::LOCATION, location), (CONTENT_DIGEST, digest.to_string())]).into_response();
    if let Some(subject) = subject {
        // Tells the client that it need not keep the fallback tag (distribution-spec, "Pushing Manifests with Subject").
        let value = subject.to_string().parse().expect("digests are ASCII");
        response.headers_mut().insert(HeaderName::from_static("oci-subject"), value);
    }
    for tag in set {
        let value = tag.parse().expect("tags are ASCII");
        response.headers_mut().append(HeaderName::from_static("oci-tag"), value);
    }
    Ok(response)
}

/// Stores it and sets the tags; gives what they named before, if that matters to anybody.
fn store(
    shared: &Shared,
    name: &RepositoryName,
    manifest: &NewManifest,
    document: &ManifestOrIndex,
    tags: &[String],
    condition: &Condition,
) -> Result<Vec<Option<Digest>>, Refusal> {
    let (blobs, children) = parts(document);
    let held = shared.storage.put_manifest(name, manifest, &blobs, &children)?;
    let _held = held
        .map_err(|missing| Refusal::missing("MANIFEST_BLOB_UNKNOWN", format!("{missing} is not in the repository")))?;
    let rules = shared.options.rules.of(name.as_str());
    let version = document.annotations().get("org.opencontainers.image.version").map(String::as_str);
    let mut before = Vec::new();
    let outcome = shared.storage.set_tags(name, tags, &manifest.digest, condition, |view| {
        if shared.hooks.hears_of(name.as_str()) {
            before = tags.iter().map(|tag| view.names(tag)).collect::<Result<_, _>>()?;
        }
        match rules {
            Some(rules) => rules::judge(rules, tags, &manifest.digest, version, view),
            None => Ok(Ok(())),
        }
    });
    outcome.map(|()| before).map_err(|failure| match failure {
        TagFailure::Unmet(tag, current) => unmet(&tag, current.as_ref()),
        TagFailure::Refused(denied) => Refusal::new(StatusCode::FORBIDDEN, "DENIED", denied.to_string()),
        TagFailure::Storage(error) => error.into(),
    })
}

fn tell_of_push(
    shared: &Shared,
    origin: &Origin,
    name: &RepositoryName,
    manifest: &NewManifest,
    tags: &[String],
    before: Vec<Option<Digest>>,
) {
    let change = |event, tag: Option<&String>, previous| Change {
        event,
        digest: Some(manifest.digest.clone()),
        manifest: Some((manifest.media_type.clone(), manifest.bytes.len() as u64)),
        tag: tag.cloned(),
        previous,
    };
    let mut changes: Vec<Change> = tags.iter().map(|tag| change(HookEvent::Push, Some(tag), None)).collect();
    if tags.is_empty() {
        changes.push(change(HookEvent::Push, None, None));
    }
    for (tag, previous) in tags.iter().zip(before) {
        if previous.as_ref().is_some_and(|previous| *previous != manifest.digest) {
            changes.push(change(HookEvent::Tag, Some(tag), previous));
        }
    }
    shared.hooks.tell(&shared.metrics, origin, name.as_str(), &changes);
}

/// What must hold of the tags (RFC 9110, 13.1). Entity tags of ours are digests.
fn condition(headers: &HeaderMap) -> Result<Condition, Refusal> {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or_default().trim());
    let refused = |what: &str| Err(Refusal::bad("UNSUPPORTED", format!("{what} is not understood")));
    match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
        (None, None) => Ok(Condition::None),
        (None, Some("*")) => Ok(Condition::Absent),
        (Some("*"), None) => Ok(Condition::Exists),
        (Some(list), None) => {
            let digests: Result<Vec<Digest>, _> =
                list.split(',').map(|entry| entry.trim().trim_matches('"').parse()).collect();
            match digests {
                Ok(digests) => Ok(Condition::Names(digests)),
                Err(_) => refused("`If-Match` other than digests in quotes, or `*`,"),
            }
        }
        _ => refused("`If-None-Match` other than `*`"),
    }
}

/// A condition does not hold: what the tag names now is told as well.
fn unmet(tag: &str, current: Option<&Digest>) -> Refusal {
    let message = match current {
        Some(current) => format!("tag `{tag}` names {current}"),
        None => format!("tag `{tag}` does not exist"),
    };
    let refusal = Refusal::new(StatusCode::PRECONDITION_FAILED, "DENIED", message);
    match current {
        Some(current) => {
            refusal.header(CONTENT_DIGEST, &current.to_string()).header(header::ETAG, &format!("\"{current}\""))
        }
        None => refusal,
    }
}

/// `DELETE` of a manifest or a tag; of a tag also under a condition.
pub(super) async fn delete(
    shared: Arc<Shared>,
    origin: Origin,
    name: RepositoryName,
    reference: String,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let address = Address::parse(&reference)?;
    let condition = condition(headers)?;
    let is_removed = spawn_blocking(move || {
        let (tag, digest) = match &address {
            Address::Tag(tag) => (Some(tag.clone()), None),
            Address::Digest(digest) => (None, Some(digest.clone())),
        };
        let is_removed = remove(&shared, &name, address, &condition)?;
        if is_removed {
            let change = Change { event: HookEvent::Delete, digest, manifest: None, tag, previous: None };
            shared.hooks.tell(&shared.metrics, &origin, name.as_str(), &[change]);
        }
        Ok::<_, Refusal>(is_removed)
    });
    if is_removed.await?? { Ok(StatusCode::ACCEPTED.into_response()) } else { Err(unknown()) }
}

/// Removes a manifest or a tag; `false` when there is none.
fn remove(shared: &Shared, name: &RepositoryName, address: Address, condition: &Condition) -> Result<bool, Refusal> {
    match address {
        Address::Tag(tag) => {
            if let Some(denied) = shared.options.rules.of(name.as_str()).and_then(|rules| rules.forbids_delete(&tag)) {
                return Err(Refusal::new(StatusCode::FORBIDDEN, "DENIED", denied.to_string()));
            }
            shared.storage.delete_tag_if(name, &tag, condition).map_err(|failure| match failure {
                TagFailure::Unmet(tag, current) => unmet(&tag, current.as_ref()),
                TagFailure::Storage(error) => error.into(),
                TagFailure::Refused(never) => match never {},
            })
        }
        Address::Digest(digest) => {
            if let Some(rules) = shared.options.rules.of(name.as_str()) {
                for tag in shared.storage.tags(name)?.unwrap_or_default() {
                    if let Some(denied) = rules.forbids_delete(&tag)
                        && shared.storage.tag(name, &tag)?.as_ref() == Some(&digest)
                    {
                        return Err(Refusal::new(StatusCode::FORBIDDEN, "DENIED", denied.to_string()));
                    }
                }
            }
            Ok(shared.storage.delete_manifest(name, &digest)?)
        }
    }
}

/// Reads a manifest within the bound.
async fn read_body(body: Body, shared: &Shared) -> Result<Bytes, Refusal> {
    let limit = shared.options.manifest_bytes_max;
    let mut stream = body.into_data_stream();
    let (mut bytes, mut dropped) = (BytesMut::new(), 0);
    loop {
        let next = timeout(shared.options.idle_timeout, stream.next()).await;
        let slow = |_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "MANIFEST_INVALID", "no data came");
        match next.map_err(slow)? {
            Some(Ok(chunk)) if dropped > 0 || (bytes.len() + chunk.len()) as u64 > limit => {
                dropped += chunk.len();
                if dropped > DRAIN_BYTES_MAX {
                    break;
                }
            }
            Some(Ok(chunk)) => bytes.extend_from_slice(&chunk),
            Some(Err(_)) => return Err(Refusal::bad("MANIFEST_INVALID", "the connection was cut")),
            None => break,
        }
    }
    if dropped > 0 {
        let message = format!("a manifest has at most {limit} bytes");
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", message));
    }
    Ok(bytes.freeze())
}

/// The one media type of a manifest; header and document must not contradict each other (image-spec, `mediaType`).
fn agree_on_type(document: &ManifestOrIndex, content_type: Option<&str>) -> Result<String, Refusal> {
    let inside = match document {
        ManifestOrIndex::Manifest(manifest) => manifest.media_type.as_deref(),
        ManifestOrIndex::Index(index) => index.media_type.as_deref(),
    };
    let outside =
        content_type.map(|text| text.split(';').next().unwrap_or(text).trim()).filter(|text| !text.is_empty());
    match (inside, outside) {
        (Some(inside), Some(outside)) if inside != outside => {
            let message = format!("`mediaType` is {inside} where `Content-Type` is {outside}");
            Err(Refusal::bad("MANIFEST_INVALID", message))
        }
        (Some(media_type), _) | (None, Some(media_type)) => Ok(media_type.to_owned()),
        (None, None) => Ok(match document {
            ManifestOrIndex::Manifest(_) => media_type::MANIFEST.to_owned(),
            ManifestOrIndex::Index(_) => media_type::INDEX.to_owned(),
        }),
    }
}

/// Blobs and manifests that must be here, or it could not be pulled. Foreign layers are elsewhere on purpose.
fn parts(document: &ManifestOrIndex) -> (Vec<Digest>, Vec<Digest>) {
    let digest = |part: &Descriptor| part.digest.clone();
    match document {
        ManifestOrIndex::Manifest(manifest) => {
            let is_foreign = |part: &&Descriptor| !part.urls.is_empty() || part.media_type.contains("nondistributable");
            let layers = manifest.layers.iter().filter(|part| !is_foreign(part));
            (std::iter::once(&manifest.config).chain(layers).map(digest).collect(), Vec::new())
        }
        ManifestOrIndex::Index(index) => (Vec::new(), index.manifests.iter().map(digest).collect()),
    }
}

/// A manifest as it is kept.
pub(super) fn described(document: &ManifestOrIndex, media_type: String, digest: Digest, bytes: Bytes) -> NewManifest {
    let descriptor = referrer(document, Descriptor::new(media_type.clone(), digest.clone(), bytes.len() as u64));
    let referrer = document.subject().map(|subject| (subject.digest.clone(), descriptor));
    NewManifest { digest, media_type, bytes, referrer }
}

/// The descriptor that the list of referrers has (distribution-spec, "Listing Referrers").
fn referrer(document: &ManifestOrIndex, mut descriptor: Descriptor) -> Descriptor {
    match document {
        ManifestOrIndex::Manifest(manifest) => {
            let by_config = || Some(manifest.config.media_type.clone());
            descriptor.artifact_type =
                manifest.artifact_type.clone().filter(|kind| !kind.is_empty()).or_else(by_config);
            descriptor.annotations = manifest.annotations.clone();
        }
        ManifestOrIndex::Index(index) => {
            descriptor.artifact_type = index.artifact_type.clone();
            descriptor.annotations = index.annotations.clone();
        }
    }
    descriptor
}

/// An error with its causes, on one line.
fn describe(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", describe(cause)),
        None => error.to_string(),
    }
}
