//! Blobs: reading (whole or in part), uploading in all the specification's ways, mounting, deleting.

use std::{ops::Range, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use oci::Digest;
use tokio::{task::spawn_blocking, time::timeout};

use super::{
    Shared,
    access::Caller,
    answer::{Refusal, is_unchanged},
    content::{First, stream},
    routes::Query,
    storage::RepositoryName,
    uploads::{Turn, Upload},
    upstream,
};

/// So much of a refused body is read, so that the client sees the refusal rather than a broken connection.
const DRAIN_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A question for an upload's state waits so long for a request that is just ending.
const STATUS_WAIT_MAX: Duration = Duration::from_secs(1);

pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// `GET` and `HEAD` of a blob.
pub(super) async fn get(
    shared: Arc<Shared>,
    name: RepositoryName,
    digest: Digest,
    headers: &HeaderMap,
    is_head: bool,
) -> Result<Response, Refusal> {
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    // A part of something else than the client thinks of is of no use (RFC 9110, 13.1.5).
    let same = |value: &HeaderValue| value.to_str().is_ok_and(|text| text.trim_matches('"') == digest.to_string());
    let range = range.filter(|_| headers.get(header::IF_RANGE).is_none_or(same)).map(str::to_owned);
    let is_known = is_unchanged(headers, &digest);
    if let Some(upstream) = shared.upstreams.of(&name)
        && let Some(coming) = upstream::find_blob(&shared, upstream, &name, &digest, is_head).await?
    {
        let requested = range.map(|text| parse_range(&text, coming.size_bytes));
        return answer(&digest, coming.size_bytes, requested, is_known, |range| match coming.download {
            Some(download) if !is_head => download.body(range),
            _ => Body::empty(),
        });
    }
    let wanted = digest.clone();
    let opened = spawn_blocking(move || {
        if is_head {
            let size = shared.storage.blob_size(&name, &wanted)?.ok_or_else(unknown)?;
            return Ok((None, size, range.map(|text| parse_range(&text, size))));
        }
        let (content, size) = shared.storage.open_blob(&name, &wanted)?.ok_or_else(unknown)?;
        let requested = range.map(|text| parse_range(&text, size));
        let first = match &requested {
            Some(Requested::Outside) => None,
            Some(Requested::Part(range)) => Some(First::read(content, range.clone())?),
            Some(Requested::Whole) | None => Some(First::read(content, 0..size)?),
        };
        Ok::<_, Refusal>((first, size, requested))
    });
    let (first, size, requested) = opened.await??;
    answer(&digest, size, requested, is_known, |_| first.map_or_else(Body::empty, stream))
}

pub(super) fn unknown() -> Refusal {
    Refusal::missing("BLOB_UNKNOWN", "the repository does not have this blob")
}

/// The answer to `GET` of a blob, with the body of its range.
fn answer(
    digest: &Digest,
    size: u64,
    requested: Option<Requested>,
    is_known: bool,
    body: impl FnOnce(Range<u64>) -> Body,
) -> Result<Response, Refusal> {
    let mut response = Response::builder()
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, format!("\"{digest}\""))
        .header(header::CACHE_CONTROL, "max-age=31536000, immutable")
        .header(CONTENT_DIGEST, digest.to_string());
    if is_known {
        let response = response.status(StatusCode::NOT_MODIFIED).body(Body::empty());
        return Ok(response.expect("the headers are legal"));
    }
    let (status, range) = match requested {
        None | Some(Requested::Whole) => (StatusCode::OK, 0..size),
        Some(Requested::Part(range)) => (StatusCode::PARTIAL_CONTENT, range),
        Some(Requested::Outside) => {
            let refusal =
                Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", "the range is outside the blob");
            return Err(refusal.header(header::CONTENT_RANGE, &format!("bytes */{size}")));
        }
    };
    response = response
        .status(status)
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::CONTENT_LENGTH, range.end - range.start);
    if status == StatusCode::PARTIAL_CONTENT {
        response = response.header(header::CONTENT_RANGE, format!("bytes {}-{}/{size}", range.start, range.end - 1));
    }
    Ok(response.body(body(range)).expect("the headers are legal"))
}

/// `DELETE` of a blob.
pub(super) async fn delete(shared: Arc<Shared>, name: RepositoryName, digest: Digest) -> Result<Response, Refusal> {
    if spawn_blocking(move || shared.storage.unlink_blob(&name, &digest)).await?? {
        Ok(StatusCode::ACCEPTED.into_response())
    } else {
        Err(unknown())
    }
}

/// `POST` of an upload: a mount, a whole blob, or a session.
pub(super) async fn begin(
    shared: Arc<Shared>,
    caller: Caller,
    name: RepositoryName,
    query: Query,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    if let Some(digest) = query.get("mount") {
        let digest = parse_digest(digest)?;
        // A source that is not legal has nothing to give; the client then uploads.
        let from = query.get("from").map(RepositoryName::parse);
        if from != Some(None) {
            let (shared, target, wanted) = (Arc::clone(&shared), name.clone(), digest.clone());
            let mounted = spawn_blocking(move || {
                shared.storage.check_room(&shared.options.rules, &target, &wanted, None)?;
                // What may not be read is as good as not there; the client then uploads.
                let may_read = |name: &RepositoryName| caller.may_read(name.as_str());
                Ok::<_, Refusal>(shared.storage.mount(&target, from.flatten().as_ref(), &wanted, &may_read)?)
            });
            if mounted.await?? {
                return Ok(created(&name, &digest));
            }
        }
    }
    let digest = query.get("digest").map(parse_digest).transpose()?;
    let upload = {
        let (shared, name) = (Arc::clone(&shared), name.clone());
        spawn_blocking(move || shared.uploads.begin(&shared, &name)).await??
    };
    match digest {
        Some(digest) => receive_all(shared, name, Turn::take(upload).await?, digest, headers, body).await,
        None => {
            let mut response = accepted(&name, &upload, StatusCode::ACCEPTED);
            response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
            Ok(response)
        }
    }
}

/// `GET` of an upload: how far it is.
pub(super) async fn status(shared: Arc<Shared>, name: RepositoryName, id: String) -> Result<Response, Refusal> {
    let upload = find(&shared, &name, id).await?;
    // Whoever asks after a broken connection wants to know what of it is still being written. Others hear how far it is.
    drop(timeout(STATUS_WAIT_MAX, Turn::take(Arc::clone(&upload))).await);
    Ok(accepted(&name, &upload, StatusCode::NO_CONTENT))
}

/// `PATCH` of an upload: more bytes, in order.
pub(super) async fn append(
    shared: Arc<Shared>,
    name: RepositoryName,
    id: String,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let upload = find(&shared, &name, id).await?;
    let turn = Turn::take(Arc::clone(&upload)).await?;
    if let Err(refusal) = check_range(&name, &upload, headers) {
        drain(body).await;
        return Err(refusal);
    }
    let idle = shared.options.idle_timeout;
    detached(async move {
        let mut turn = turn;
        turn.append(body, idle).await
    })
    .await?;
    Ok(accepted(&name, &upload, StatusCode::ACCEPTED))
}

/// `PUT` of an upload: the last bytes, if any, and the digest.
pub(super) async fn finish(
    shared: Arc<Shared>,
    name: RepositoryName,
    id: String,
    query: Query,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let digest = query.get("digest").ok_or_else(|| Refusal::bad("DIGEST_INVALID", "the digest is missing"))?;
    let digest = parse_digest(digest)?;
    let upload = find(&shared, &name, id).await?;
    let turn = Turn::take(Arc::clone(&upload)).await?;
    if let Err(refusal) = check_range(&name, &upload, headers) {
        drain(body).await;
        return Err(refusal);
    }
    receive_all(shared, name, turn, digest, headers, body).await
}

/// `DELETE` of an upload.
pub(super) async fn cancel(shared: Arc<Shared>, name: RepositoryName, id: String) -> Result<Response, Refusal> {
    let upload = find(&shared, &name, id).await?;
    spawn_blocking(move || shared.uploads.cancel(&upload)).await??;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn find(shared: &Arc<Shared>, name: &RepositoryName, id: String) -> Result<Arc<Upload>, Refusal> {
    let (shared, name) = (Arc::clone(shared), name.clone());
    spawn_blocking(move || shared.uploads.find(&shared, &name, &id)).await?
}

async fn receive_all(
    shared: Arc<Shared>,
    name: RepositoryName,
    turn: Turn,
    digest: Digest,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let wanted = digest.clone();
    let length = content_length(headers).map(|length| turn.upload.offset().saturating_add(length));
    let (room, target) = (Arc::clone(&shared), name.clone());
    let fits = spawn_blocking({
        let digest = digest.clone();
        move || room.storage.check_room(&room.options.rules, &target, &digest, length)
    });
    if let Err(refusal) = fits.await? {
        let (shared, upload) = (Arc::clone(&shared), Arc::clone(&turn.upload));
        drain(body).await;
        spawn_blocking(move || shared.uploads.cancel(&upload)).await??;
        return Err(refusal);
    }
    detached(async move {
        let mut turn = turn;
        turn.append(body, shared.options.idle_timeout).await?;
        turn.finish(shared, wanted).await
    })
    .await?;
    Ok(created(&name, &digest))
}

/// Runs on when the connection goes: what has arrived is then written, and the upload is left as it is told to be.
async fn detached(work: impl Future<Output = Result<(), Refusal>> + Send + 'static) -> Result<(), Refusal> {
    tokio::spawn(work).await?
}

/// Checks `Content-Range: <first>-<last>` against what we have. Docker's clients send none.
fn check_range(name: &RepositoryName, upload: &Upload, headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(range) = headers.get(header::CONTENT_RANGE) else { return Ok(()) };
    let text = range.to_str().unwrap_or_default();
    let text = text.strip_prefix("bytes ").unwrap_or(text);
    let text = text.split('/').next().unwrap_or(text);
    let ends = text.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    let Some((first, last)) = ends.filter(|(first, last): &(u64, u64)| first <= last) else {
        return Err(Refusal::bad("BLOB_UPLOAD_INVALID", "`Content-Range` is not understood"));
    };
    if content_length(headers).is_some_and(|length| length != last - first + 1) {
        return Err(Refusal::bad("SIZE_INVALID", "`Content-Range` and `Content-Length` differ"));
    }
    if first != upload.offset() {
        let message = format!("the upload has {} bytes", upload.offset());
        let refusal = Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", message);
        return Err(refusal
            .header(header::LOCATION, &upload_location(name, upload))
            .header(header::RANGE, &received(upload)));
    }
    Ok(())
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads what is left of a body that is refused, as far as that is sensible.
pub(super) async fn drain(body: Body) {
    let mut stream = body.into_data_stream();
    let mut bytes = 0;
    while let Some(Ok(chunk)) = stream.next().await {
        bytes += chunk.len();
        if bytes > DRAIN_BYTES_MAX {
            return;
        }
    }
}

fn created(name: &RepositoryName, digest: &Digest) -> Response {
    let location = format!("/v2/{}/blobs/{digest}", name.as_str());
    (StatusCode::CREATED, [(header::LOCATION, location), (CONTENT_DIGEST, digest.to_string())]).into_response()
}

fn accepted(name: &RepositoryName, upload: &Upload, status: StatusCode) -> Response {
    let id = HeaderName::from_static("docker-upload-uuid");
    let headers =
        [(header::LOCATION, upload_location(name, upload)), (header::RANGE, received(upload)), (id, upload.id.clone())];
    (status, headers).into_response()
}

fn upload_location(name: &RepositoryName, upload: &Upload) -> String {
    format!("/v2/{}/blobs/uploads/{}", name.as_str(), upload.id)
}

/// What we have, as the specification writes it; `0-0` for nothing, as docker does.
fn received(upload: &Upload) -> String {
    format!("0-{}", upload.offset().saturating_sub(1))
}

fn parse_digest(text: &str) -> Result<Digest, Refusal> {
    text.parse().map_err(|_| Refusal::digest())
}

#[derive(Debug, PartialEq, Eq)]
enum Requested {
    Whole,
    Part(Range<u64>),
    Outside,
}

/// One range (RFC 9110, 14.2). Several at once, or what is not understood, mean the whole; one that ends before it begins
/// is refused.
fn parse_range(text: &str, size: u64) -> Requested {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-')) else {
        return Requested::Whole;
    };
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), _) if first >= size => Requested::Outside,
        (Ok(first), Ok(last)) if first <= last => Requested::Part(first..size.min(last.saturating_add(1))),
        (Ok(_), Ok(_)) => Requested::Outside,
        (Ok(first), Err(_)) if last.is_empty() => Requested::Part(first..size),
        (Err(_), Ok(0)) if first.is_empty() => Requested::Outside,
        (Err(_), Ok(length)) if first.is_empty() && size > 0 => Requested::Part(size.saturating_sub(length)..size),
        _ => Requested::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_the_rfc() {
        for (text, expected) in [
            ("bytes=0-3", Requested::Part(0..4)),
            ("bytes=2-", Requested::Part(2..10)),
            ("bytes=-3", Requested::Part(7..10)),
            ("bytes=-30", Requested::Part(0..10)),
            ("bytes=5-99999999999999999999", Requested::Whole),
            ("bytes=5-18446744073709551615", Requested::Part(5..10)),
            ("bytes=10-", Requested::Outside),
            ("bytes=-0", Requested::Outside),
            ("bytes=3-2", Requested::Outside),
            ("bytes=0-1,3-4", Requested::Whole),
            ("lines=0-1", Requested::Whole),
        ] {
            assert_eq!(parse_range(text, 10), expected, "{text}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Requested::Outside);
    }
}
