//! Manifests and names: reading, writing with checks, deleting; tags, referrers, catalogue.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::BytesMut;
use futures::StreamExt;
use oci::{Descriptor, Digest, Index, ManifestOrIndex, is_valid_tag, media_type};
use serde_json::json;
use tokio::{task::spawn_blocking, time::timeout};

use super::{
    Shared,
    answer::Refusal,
    blobs::CONTENT_DIGEST,
    routes::Query,
    storage::{ManifestLink, RepositoryName},
};

/// So much more of a manifest that is too large is read, so that the client sees the refusal.
const DRAIN_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a manifest is addressed by.
enum Address {
    Tag(String),
    Digest(Digest),
}

impl Address {
    fn parse(text: &str) -> Result<Self, Refusal> {
        if text.contains(':') {
            let illegal = |_| Refusal::bad("DIGEST_INVALID", "the digest is not `sha256:` and 64 hex digits");
            return text.parse().map(Self::Digest).map_err(illegal);
        }
        // A name that no tag can have is a name that nothing has.
        if is_valid_tag(text) { Ok(Self::Tag(text.to_owned())) } else { Err(unknown()) }
    }
}

fn unknown() -> Refusal {
    Refusal::missing("MANIFEST_UNKNOWN", "the repository does not have this manifest")
}

/// `GET` and `HEAD` of a manifest. (The body is left out of answers to `HEAD` by the HTTP library.)
pub(super) async fn get(shared: Arc<Shared>, name: RepositoryName, reference: String) -> Result<Response, Refusal> {
    let address = Address::parse(&reference)?;
    let (digest, link, bytes) = spawn_blocking(move || {
        let digest = match address {
            Address::Digest(digest) => digest,
            Address::Tag(tag) => shared.storage.tag(&name, &tag)?.ok_or_else(unknown)?,
        };
        let (link, bytes) = shared.storage.manifest(&name, &digest)?.ok_or_else(unknown)?;
        Ok::<_, Refusal>((digest, link, bytes))
    })
    .await??;
    let headers = [
        (header::CONTENT_TYPE, link.media_type),
        (CONTENT_DIGEST, digest.to_string()),
        (header::ETAG, format!("\"{digest}\"")),
    ];
    Ok((headers, bytes).into_response())
}

/// `PUT` of a manifest.
pub(super) async fn put(
    shared: Arc<Shared>,
    name: RepositoryName,
    reference: String,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let bytes = read_body(body, &shared).await?;
    let address = Address::parse(&reference).map_err(|_| Refusal::bad("MANIFEST_INVALID", "the tag is not legal"))?;
    let digest = Digest::of(&bytes);
    if let Address::Digest(wanted) = &address
        && *wanted != digest
    {
        return Err(Refusal::bad("DIGEST_INVALID", format!("the content's digest is {digest}")));
    }
    let document =
        ManifestOrIndex::parse(&bytes).map_err(|error| Refusal::bad("MANIFEST_INVALID", error.to_string()))?;
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = agree_on_type(&document, content_type)?;
    let subject = subject(&document).cloned();
    let descriptor = referrer(&document, Descriptor::new(media_type.clone(), digest.clone(), bytes.len() as u64));

    let (stored, repository, about) = (digest.clone(), name.clone(), subject.clone());
    spawn_blocking(move || {
        check_parts(&shared, &repository, &document)?;
        let referrer = about.as_ref().map(|subject| (&subject.digest, &descriptor));
        let tag = match &address {
            Address::Tag(tag) => Some(tag.as_str()),
            Address::Digest(_) => None,
        };
        shared.storage.put_manifest(&repository, &stored, &bytes, &ManifestLink { media_type }, referrer, tag)?;
        Ok::<_, Refusal>(())
    })
    .await??;

    let location = format!("/v2/{}/manifests/{digest}", name.as_str());
    let mut response =
        (StatusCode::CREATED, [(header::LOCATION, location), (CONTENT_DIGEST, digest.to_string())]).into_response();
    if let Some(subject) = subject {
        // Tells the client that it need not keep the fallback tag (distribution-spec, "Pushing Manifests with Subject").
        let value = subject.digest.to_string().parse().expect("digests are ASCII");
        response.headers_mut().insert(HeaderName::from_static("oci-subject"), value);
    }
    Ok(response)
}

/// `DELETE` of a manifest or a tag.
pub(super) async fn delete(shared: Arc<Shared>, name: RepositoryName, reference: String) -> Result<Response, Refusal> {
    let address = Address::parse(&reference)?;
    let is_removed = spawn_blocking(move || match address {
        Address::Tag(tag) => shared.storage.delete_tag(&name, &tag),
        Address::Digest(digest) => {
            let Some((_, bytes)) = shared.storage.manifest(&name, &digest)? else { return Ok(false) };
            let document = ManifestOrIndex::parse(&bytes).ok();
            let subject = document.as_ref().and_then(subject).map(|subject| &subject.digest);
            shared.storage.delete_manifest(&name, &digest, subject)
        }
    })
    .await??;
    if is_removed { Ok(StatusCode::ACCEPTED.into_response()) } else { Err(unknown()) }
}

/// `GET` of the tag list, in pages when asked for.
pub(super) async fn tags(shared: Arc<Shared>, name: RepositoryName, query: Query) -> Result<Response, Refusal> {
    let repository = name.clone();
    let tags = spawn_blocking(move || shared.storage.tags(&repository)).await??;
    let tags = tags.ok_or_else(|| Refusal::missing("NAME_UNKNOWN", "nothing was pushed to this repository"))?;
    let (page, next) = page(tags, &query)?;
    let path = format!("/v2/{}/tags/list", name.as_str());
    Ok(listing(json!({ "name": name.as_str(), "tags": page }), &path, next))
}

/// `GET` of the repositories' names, in pages when asked for.
pub(super) async fn catalog(shared: Arc<Shared>, query: Query) -> Result<Response, Refusal> {
    let names = spawn_blocking(move || shared.storage.repositories()).await??;
    let (page, next) = page(names, &query)?;
    Ok(listing(json!({ "repositories": page }), "/v2/_catalog", next))
}

/// `GET` of what refers to a manifest.
pub(super) async fn referrers(
    shared: Arc<Shared>,
    name: RepositoryName,
    subject: Digest,
    query: Query,
) -> Result<Response, Refusal> {
    let mut descriptors = spawn_blocking(move || shared.storage.referrers(&name, &subject)).await??;
    let mut response_headers = vec![(header::CONTENT_TYPE, media_type::INDEX)];
    if let Some(wanted) = query.get("artifactType") {
        descriptors.retain(|descriptor| descriptor.artifact_type.as_ref() == Some(wanted));
        response_headers.push((HeaderName::from_static("oci-filters-applied"), "artifactType"));
    }
    let mut response = oci::to_json(&Index::of(descriptors)).into_response();
    for (name, value) in response_headers {
        response.headers_mut().insert(name, value.parse().expect("these are ASCII"));
    }
    Ok(response)
}

/// Reads a manifest within the bound.
async fn read_body(body: Body, shared: &Shared) -> Result<BytesMut, Refusal> {
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
    Ok(bytes)
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

/// Everything that a manifest names must be here, or it could not be pulled. Foreign layers are elsewhere on purpose.
fn check_parts(shared: &Shared, name: &RepositoryName, document: &ManifestOrIndex) -> Result<(), Refusal> {
    let missing =
        |digest: &Digest| Err(Refusal::missing("MANIFEST_BLOB_UNKNOWN", format!("{digest} is not in the repository")));
    match document {
        ManifestOrIndex::Manifest(manifest) => {
            for part in std::iter::once(&manifest.config).chain(&manifest.layers) {
                let is_foreign = !part.urls.is_empty() || part.media_type.contains("nondistributable");
                if !is_foreign && !shared.storage.has_blob(name, &part.digest) {
                    return missing(&part.digest);
                }
            }
        }
        ManifestOrIndex::Index(index) => {
            for part in &index.manifests {
                if !shared.storage.has_manifest(name, &part.digest) && !shared.storage.has_blob(name, &part.digest) {
                    return missing(&part.digest);
                }
            }
        }
    }
    Ok(())
}

fn subject(document: &ManifestOrIndex) -> Option<&Descriptor> {
    match document {
        ManifestOrIndex::Manifest(manifest) => manifest.subject.as_ref(),
        ManifestOrIndex::Index(index) => index.subject.as_ref(),
    }
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

/// Where the next page begins: after this name, with so many names.
type Next = (String, usize);

/// `n` names after `last`, and the name to go on after, when there are more.
fn page(mut names: Vec<String>, query: &Query) -> Result<(Vec<String>, Option<Next>), Refusal> {
    if let Some(last) = query.get("last") {
        names.retain(|name| name > last);
    }
    let Some(count) = query.get("n") else { return Ok((names, None)) };
    let illegal = |_| Refusal::bad("PAGINATION_NUMBER_INVALID", "`n` is not a number");
    let count: usize = count.parse().map_err(illegal)?;
    let is_more = names.len() > count;
    names.truncate(count);
    let next = names.last().filter(|_| is_more).map(|last| (last.clone(), count));
    Ok((names, next))
}

fn listing(document: serde_json::Value, path: &str, next: Option<Next>) -> Response {
    let mut response = ([(header::CONTENT_TYPE, "application/json")], document.to_string()).into_response();
    if let Some((last, count)) = next {
        let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("last", &last).finish();
        let link = format!("<{path}?n={count}&{query}>; rel=\"next\"");
        response.headers_mut().insert(header::LINK, link.parse().expect("names of ours are ASCII"));
    }
    response
}
