//! Uploading: existence check, mount, one PUT, and going on after a broken connection (distribution-spec, "Pushing Blobs").

use std::{future::Future, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use oci::{Descriptor, Digest, Reference};
use reqwest::{
    Method, Response, StatusCode,
    header::{CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION},
};
use store::Store;
use tokio::{sync::Semaphore, time::timeout};
use url::Url;

use super::{
    BlobSource, Client, Progress, answer::header_text, auth::Scope, body::Part, pull::is_there, retry::Failure,
    sessions::SessionNote, transport::Call,
};
use crate::{ErrorKind, RegistryError};

/// How often progress of an upload is told.
const PROGRESS_TICK: Duration = Duration::from_millis(100);
/// A registry may ask for larger parts (`OCI-Chunk-Min-Length`), within reason.
const CHUNK_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// How often a registry may change its mind about what it has of one upload.
const MISMATCHES_MAX: u32 = 3;

/// How a blob came to be in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadOutcome {
    /// It was there.
    Existed,
    /// The registry took it from another of its repositories.
    Mounted,
    /// It was sent.
    Uploaded,
}

/// An open upload: where it goes on, and what the registry has of it.
struct Session {
    location: Url,
    offset: u64,
    chunk_min: u64,
    /// A request failed in between: what is sent next must say where it belongs.
    is_resumed: bool,
    /// The registry said that it has more, or less, than it had said before.
    mismatches: u32,
}

/// How the bytes are sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// One PUT with everything; after a broken connection one PATCH with the rest.
    Whole,
    /// Parts of bounded size, for registries and proxies that refuse large requests.
    Chunked,
}

enum Step {
    Moved,
    Stored,
}

impl Client {
    /// Whether a repository has a blob.
    pub async fn has_blob(&self, repository: &Reference, digest: &Digest) -> Result<bool, RegistryError> {
        let found = self.blob_exists(repository, digest, Scope::pull(repository)).await;
        found.map_err(|kind| kind.during("look up a blob in", repository.repository()))
    }

    /// Uploads one blob, unless the repository has it. With `mount_from`, the path of another repository of the same
    /// registry, the registry is first asked to take it from there. `source` holds exactly the described content.
    pub async fn upload_blob(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
        source: impl Into<BlobSource>,
        mount_from: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<UploadOutcome, RegistryError> {
        let outcome = self.upload_kind(repository, descriptor, source.into(), mount_from, None, progress).await;
        outcome.map_err(|kind| kind.during("push a layer to", repository.repository()))
    }

    /// Uploads blobs of the store, several side by side; returns how each came to be there, in order. A manifest that
    /// refers to them can follow with [`Client::put_manifest`], any time later.
    pub async fn push_blobs(
        &self,
        repository: &Reference,
        blobs: &[Descriptor],
        store: &Store,
        mount_from: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<Vec<UploadOutcome>, RegistryError> {
        let permits = Semaphore::new(self.options().parallel_blobs.max(1));
        let mut work = FuturesUnordered::new();
        for (place, blob) in blobs.iter().enumerate() {
            let permits = &permits;
            work.push(async move {
                let _permit = permits.acquire().await.expect("the semaphore is never closed");
                let source = self.open_stored(store, blob);
                let failed = |kind: ErrorKind| kind.during("push a layer to", repository.repository());
                let source = source.map_err(failed)?;
                let outcome = self.upload_kind(repository, blob, source, mount_from, Some(store), progress).await;
                Ok::<_, RegistryError>((place, outcome.map_err(failed)?))
            });
        }
        let mut outcomes = vec![UploadOutcome::Existed; blobs.len()];
        while let Some(done) = work.next().await {
            let (place, outcome) = done?;
            outcomes[place] = outcome;
        }
        Ok(outcomes)
    }

    fn open_stored(&self, store: &Store, blob: &Descriptor) -> Result<BlobSource, ErrorKind> {
        let file = store.open_blob(&blob.digest).map_err(ErrorKind::local)?;
        let file = file.ok_or_else(|| ErrorKind::local(format!("blob {} is not in the store", blob.digest)))?;
        Ok(file.into())
    }

    pub(super) async fn upload_kind(
        &self,
        repository: &Reference,
        descriptor: &Descriptor,
        source: BlobSource,
        mount_from: Option<&str>,
        notes: Option<&Store>,
        progress: &dyn Progress,
    ) -> Result<UploadOutcome, ErrorKind> {
        let Descriptor { digest, size, .. } = descriptor;
        let note = SessionNote::new(notes, repository, descriptor);
        // A mount of a repository from itself is the existence check again.
        let mount_from = mount_from.filter(|from| *from != repository.path());
        let scope = mount_from.map_or_else(|| Scope::push(repository), |from| Scope::push(repository).and_pull(from));
        let mut retries = self.transport.retries();
        let mut mode = Mode::Whole;
        let done = |outcome| {
            note.forget();
            match outcome {
                UploadOutcome::Uploaded => progress.advance(digest, *size, *size),
                UploadOutcome::Existed | UploadOutcome::Mounted => is_there(progress, descriptor),
            }
            Ok(outcome)
        };
        let mut earlier = note.recall();
        // Each round is one upload session; a session that got lost is begun anew.
        loop {
            if self.blob_exists(repository, digest, scope.clone()).await? {
                return done(UploadOutcome::Existed);
            }
            let resumed = match earlier.take() {
                Some(location) => self.resume(location, repository, &scope, *size).await,
                None => None,
            };
            let mut session = match resumed {
                Some(session) => {
                    progress.skip(digest, session.offset, *size);
                    session
                }
                None => match self.begin(repository, digest, mount_from, &scope).await? {
                    Some(session) => session,
                    None => return done(UploadOutcome::Mounted),
                },
            };
            note.write(&session.location);
            loop {
                let failure =
                    match self.step(&mut session, repository, descriptor, &source, &scope, mode, progress).await {
                        Ok(Step::Stored) => return done(UploadOutcome::Uploaded),
                        Ok(Step::Moved) => {
                            note.write(&session.location);
                            retries.reset();
                            continue;
                        }
                        Err(failure) => failure,
                    };
                match recovery(&failure, mode, &mut session) {
                    Recovery::Chunks => {
                        mode = Mode::Chunked;
                        break;
                    }
                    Recovery::NewSession => {
                        retries.again(Failure { is_transient: true, ..failure }).await?;
                        break;
                    }
                    Recovery::AskAgain => retries.again(Failure { is_transient: true, ..failure }).await?,
                    Recovery::GoOn => retries.again(failure).await?,
                }
                // What arrived before the connection broke need not be sent again.
                if self.ask_offset(&mut session, repository, &scope, *size).await.is_err() {
                    break;
                }
            }
        }
    }

    /// An upload of an earlier process, where the registry still has something of it.
    async fn resume(&self, location: Url, repository: &Reference, scope: &Scope, size: u64) -> Option<Session> {
        let mut session = Session { location, offset: 0, chunk_min: 0, is_resumed: true, mismatches: 0 };
        // A session that is gone, for whatever reason, is begun anew.
        self.ask_offset(&mut session, repository, scope, size).await.ok()?;
        (session.offset > 0).then_some(session)
    }

    /// How a blob comes to be in a repository without being sent: it is there, or the registry takes it from another one.
    pub(super) async fn place_without_bytes(
        &self,
        repository: &Reference,
        digest: &Digest,
        mount_from: Option<&str>,
    ) -> Result<Option<UploadOutcome>, ErrorKind> {
        if self.blob_exists(repository, digest, Scope::push(repository)).await? {
            return Ok(Some(UploadOutcome::Existed));
        }
        let Some(from) = mount_from.filter(|from| *from != repository.path()) else { return Ok(None) };
        let scope = Scope::push(repository).and_pull(from);
        match self.begin(repository, digest, Some(from), &scope).await? {
            None => Ok(Some(UploadOutcome::Mounted)),
            Some(session) => {
                let cancel = Call::new(Method::DELETE, repository, String::new(), scope).at(session.location);
                // A session that cannot be ended is thrown away by the registry in time.
                let _ = self.transport.attempt(&cancel).await;
                Ok(None)
            }
        }
    }

    async fn blob_exists(&self, repository: &Reference, digest: &Digest, scope: Scope) -> Result<bool, ErrorKind> {
        let call = Call::new(Method::HEAD, repository, format!("blobs/{digest}"), scope);
        match self.transport.send(&call).await {
            Ok(_) => Ok(true),
            Err(ErrorKind::NotFound { .. }) => Ok(false),
            Err(kind) => Err(kind),
        }
    }

    /// Opens a session; `None` when the blob was mounted instead.
    async fn begin(
        &self,
        repository: &Reference,
        digest: &Digest,
        mount_from: Option<&str>,
        scope: &Scope,
    ) -> Result<Option<Session>, ErrorKind> {
        let query = mount_from.map_or_else(String::new, |from| format!("?mount={digest}&from={from}"));
        let call = Call::new(Method::POST, repository, format!("blobs/uploads/{query}"), scope.clone());
        let response = self.transport.send(&call).await?;
        if response.status() == StatusCode::CREATED {
            check_stored(response.headers(), digest)?;
            return Ok(None);
        }
        let chunk_min = header_text(response.headers(), "oci-chunk-min-length").and_then(|text| text.parse().ok());
        let chunk_min = chunk_min.unwrap_or(0).min(CHUNK_BYTES_MAX);
        Ok(Some(Session { location: location(&response)?, offset: 0, chunk_min, is_resumed: false, mismatches: 0 }))
    }

    /// Sends what comes next.
    #[expect(clippy::too_many_arguments, reason = "one call, and all of them belong to the one upload")]
    async fn step(
        &self,
        session: &mut Session,
        repository: &Reference,
        descriptor: &Descriptor,
        source: &BlobSource,
        scope: &Scope,
        mode: Mode,
        progress: &dyn Progress,
    ) -> Result<Step, Failure> {
        let Descriptor { digest, size, .. } = descriptor;
        let (from, to) = match mode {
            Mode::Whole => (session.offset, *size),
            Mode::Chunked => {
                let chunk = self.options().chunk_bytes.max(session.chunk_min).max(1);
                (session.offset, size.min(&session.offset.saturating_add(chunk)).to_owned())
            }
        };
        let part = Part::new(source.clone(), from, to);
        let is_last = from == to || (mode == Mode::Whole && !session.is_resumed);
        let method = if is_last { Method::PUT } else { Method::PATCH };
        let call = Call::new(method, repository, String::new(), scope.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let tell = || progress.advance(digest, from + part.sent(), *size);
        if is_last {
            let mut url = session.location.clone();
            url.query_pairs_mut().append_pair("digest", &digest.to_string());
            let call = if from == to { call.at(url) } else { call.at(url).part(part.clone()) };
            let response = telling(self.transport.attempt(&call), tell).await?;
            check_stored(response.headers(), digest)?;
            return Ok(Step::Stored);
        }
        let range = HeaderValue::from_str(&format!("{from}-{}", to - 1)).expect("numbers are ASCII");
        let call = call.header(CONTENT_RANGE, range).at(session.location.clone()).part(part.clone());
        let response = telling(self.transport.attempt(&call), tell).await?;
        session.location = location(&response)?;
        // What the registry says it has is what counts, except that `0-0` may mean nothing.
        session.offset = range_end(response.headers()).filter(|end| *end > from && *end <= to).unwrap_or(to);
        Ok(Step::Moved)
    }

    /// Asks how much of an upload arrived.
    async fn ask_offset(
        &self,
        session: &mut Session,
        repository: &Reference,
        scope: &Scope,
        size: u64,
    ) -> Result<(), ErrorKind> {
        let call = Call::new(Method::GET, repository, String::new(), scope.clone()).at(session.location.clone());
        let response = self.transport.send(&call).await?;
        let offset = range_end(response.headers()).unwrap_or(0);
        if offset > size {
            return Err(ErrorKind::malformed("the registry has more than was sent"));
        }
        session.offset = offset;
        session.is_resumed = true;
        if response.headers().contains_key(LOCATION) {
            session.location = location(&response)?;
        }
        Ok(())
    }
}

enum Recovery {
    GoOn,
    AskAgain,
    NewSession,
    Chunks,
}

/// What to do after a failed step.
fn recovery(failure: &Failure, mode: Mode, session: &mut Session) -> Recovery {
    match &failure.kind {
        // The last bytes of a request that broke off may come in after we had asked how many there are.
        ErrorKind::Unexpected { status: 416, .. } if session.mismatches < MISMATCHES_MAX => {
            session.mismatches += 1;
            Recovery::AskAgain
        }
        ErrorKind::NotFound { .. } | ErrorKind::Unexpected { status: 416, .. } => Recovery::NewSession,
        ErrorKind::TooLarge { .. } | ErrorKind::Unexpected { status: 405 | 411 | 415 | 501, .. }
            if mode == Mode::Whole =>
        {
            Recovery::Chunks
        }
        // Docker's registry cannot always go on with an upload that broke off; it says 400 then.
        ErrorKind::Unexpected { status: 400, .. } if mode == Mode::Whole && session.is_resumed => Recovery::NewSession,
        _ => Recovery::GoOn,
    }
}

/// Where to go on. It may be relative, and on another host.
fn location(response: &Response) -> Result<Url, ErrorKind> {
    let text = header_text(response.headers(), LOCATION.as_str())
        .ok_or_else(|| ErrorKind::malformed("an upload was accepted without a `Location`"))?;
    let url = response.url().join(text).map_err(|_| ErrorKind::malformed("illegal `Location` of an upload"))?;
    if url.scheme() != "https" && url.scheme() != response.url().scheme() {
        return Err(ErrorKind::malformed("the upload is to go on without TLS"));
    }
    Ok(url)
}

/// Bytes that the registry has, of `Range: 0-<last>`. `0-0` is what most say for nothing.
fn range_end(headers: &HeaderMap) -> Option<u64> {
    let text = header_text(headers, "range")?;
    let last: u64 = text.strip_prefix("bytes=").unwrap_or(text).strip_prefix("0-")?.parse().ok()?;
    Some(if last == 0 { 0 } else { last + 1 })
}

fn check_stored(headers: &HeaderMap, sent: &Digest) -> Result<(), ErrorKind> {
    match header_text(headers, "docker-content-digest") {
        Some(stored) if stored != sent.to_string() => {
            Err(ErrorKind::DigestMismatch { sent: sent.clone(), stored: stored.to_owned() })
        }
        _ => Ok(()),
    }
}

/// Awaits `work` and calls `tell` now and then.
async fn telling<T>(work: impl Future<Output = T>, tell: impl Fn()) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        match timeout(PROGRESS_TICK, &mut work).await {
            Ok(output) => return output,
            Err(_) => tell(),
        }
    }
}
