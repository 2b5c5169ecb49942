//! A socket in the server's directory by which commands on the same machine reach the running server: who may open the
//! directory's `control` may ask.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{RawQuery, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use fs_err as fs;
use tokio::net::UnixListener;

use super::{
    ServerError, Shared,
    collect::{CollectOptions, CollectReport},
    scrub::ScrubReport,
    storage::Storage,
};

/// A collection or scrub that takes longer than this is told of by the server's log alone.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(24 * 3600);
/// A report names a thousand things at most.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Removes what nobody needs from the storage in a directory (and `options.backend`, if it is elsewhere): through the
/// server that runs on it, with that server's rules and grace, or else right here.
pub fn collect(
    directory: &Path,
    backend: Option<Arc<dyn super::Backend>>,
    options: &CollectOptions,
) -> Result<CollectReport, ServerError> {
    match Storage::open(directory, backend, None)? {
        Some(storage) => storage.collect(options).map_err(ServerError::Storage),
        None => ask(directory, options.is_dry_run)
            .map_err(|source| ServerError::Control { directory: directory.to_owned(), source }),
    }
}

/// Reads all content in a directory (and `backend`, if it is elsewhere) again and compares it with its digests: through the
/// server that runs on it, or else right here. With `is_quarantine` what is wrong is put aside.
///
/// # Errors
/// The storage cannot be read or written.
pub fn scrub(
    directory: &Path,
    backend: Option<Arc<dyn super::Backend>>,
    is_quarantine: bool,
) -> Result<ScrubReport, ServerError> {
    match Storage::open(directory, backend, None)? {
        Some(storage) => storage.scrub(is_quarantine).map_err(ServerError::Storage),
        None => {
            let query = if is_quarantine { "?quarantine" } else { "" };
            let answer = post_to(directory, &format!("/scrub{query}"));
            let report = answer.and_then(|body| serde_json::from_str(&body).map_err(io::Error::other));
            report.map_err(|source| ServerError::Control { directory: directory.to_owned(), source })
        }
    }
}

/// Tells the server that runs on a directory, if one does, that webhooks have something to deliver.
pub(super) fn look_at_webhooks(directory: &Path) -> Result<(), ServerError> {
    match post_to(directory, "/webhooks") {
        Ok(_) => Ok(()),
        // None runs: it looks when it starts.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(()),
        Err(source) => Err(ServerError::Control { directory: directory.to_owned(), source }),
    }
}

fn ask(directory: &Path, is_dry_run: bool) -> io::Result<CollectReport> {
    let query = if is_dry_run { "?dry-run" } else { "" };
    let body = post_to(directory, &format!("/collect{query}"))?;
    serde_json::from_str(&body).map_err(io::Error::other)
}

/// The body of a good answer to a request without one.
fn post_to(directory: &Path, path: &str) -> io::Result<String> {
    // Paths of sockets have at most 107 bytes; those of directories have more.
    let open = fs::File::open(directory.join("control"))?;
    let mut stream = UnixStream::connect(short_path(&open))?;
    stream.set_read_timeout(Some(ANSWER_WAIT_MAX))?;
    write!(stream, "POST {path} HTTP/1.1\r\nhost: control\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("the server gave no answer"))?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(io::Error::other(body.to_owned()));
    }
    Ok(body.to_owned())
}

/// Serves the socket for ever; without one where it cannot be made, since nothing else depends on it.
pub(super) async fn serve(shared: &Arc<Shared>) {
    let Ok(listener) = listen(shared.storage.local()) else { return std::future::pending().await };
    let app = Router::new()
        .route("/collect", post(answer))
        .route("/webhooks", post(look))
        .route("/scrub", post(scrub_here))
        .with_state(Arc::clone(shared));
    let _ = axum::serve(listener, app).await;
    std::future::pending().await
}

fn listen(directory: &Path) -> io::Result<UnixListener> {
    let control = directory.join("control");
    match fs::create_dir(&control) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::set_permissions(&control, std::fs::Permissions::from_mode(0o700))?;
    // We hold the directory's lock: a socket that is there is of a server that was killed.
    match fs::remove_file(control.join("socket")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let open = fs::File::open(&control)?;
    UnixListener::bind(short_path(&open))
}

fn short_path(control: &fs::File) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}/socket", control.as_raw_fd()).into()
}

async fn answer(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    let is_dry_run = query.as_deref() == Some("dry-run");
    match tokio::task::spawn_blocking(move || shared.collect(is_dry_run)).await {
        Ok(Ok(report)) => Json(report).into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the collection panicked").into_response(),
    }
}

async fn look(State(shared): State<Arc<Shared>>) -> Response {
    match tokio::task::spawn_blocking(move || shared.hooks.look()).await {
        Ok(Ok(())) => StatusCode::OK.into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "looking for webhooks panicked").into_response(),
    }
}

async fn scrub_here(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    let is_quarantine = query.as_deref() == Some("quarantine");
    let scrubbing = tokio::task::spawn_blocking(move || shared.storage.scrub(is_quarantine));
    match scrubbing.await {
        Ok(Ok(report)) => Json(report).into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the scrub panicked").into_response(),
    }
}
