//! Refusals with the specification's error codes (distribution-spec, "Error Codes").

use std::io;

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use oci::Digest;
use serde_json::json;

/// Whether the client has just this (`If-None-Match`, RFC 9110, 13.1.2). Entity tags of ours are digests.
pub(super) fn is_unchanged(headers: &HeaderMap, digest: &Digest) -> bool {
    let lists = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let ours = digest.to_string();
    lists.flat_map(|list| list.split(',')).any(|entry| {
        let entry = entry.trim();
        entry == "*" || entry.strip_prefix("W/").unwrap_or(entry).trim_matches('"') == ours
    })
}

/// An error answer.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), headers: Vec::new() }
    }

    pub(super) fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(super) fn missing(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    pub(super) fn digest() -> Self {
        Self::bad("DIGEST_INVALID", "the digest is not `sha256:` and 64 lower-case hex digits")
    }

    /// The specification's code.
    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// Adds a header; text that is no header value is left out.
    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
        self
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        // Paths of the server are nobody's business; the kind of failure is.
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "UNKNOWN", "the registry's disk is full")
            }
            kind => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", format!("storage failed: {kind}")),
        }
    }
}

impl From<tokio::task::JoinError> for Refusal {
    fn from(_: tokio::task::JoinError) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "a worker of the registry panicked")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({ "errors": [{ "code": self.code, "message": self.message, "detail": null }] });
        let mut response =
            (self.status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response();
        response.headers_mut().extend(self.headers);
        response
    }
}
