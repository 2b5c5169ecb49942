//! Reading answers: bodies within bounds, failures in the registry's own words.

use std::{
    io,
    time::{Duration, SystemTime},
};

use bytes::{Bytes, BytesMut};
use reqwest::{
    Response, StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};
use serde::Deserialize;
use tokio::time::timeout;

use super::{describe, retry::Failure};
use crate::ErrorKind;

/// An error document has a few hundred bytes; the rest of a longer one is not read.
const ERROR_BYTES_MAX: u64 = 64 * 1024;

/// Nothing came for too long.
pub(super) fn silent(limit: Duration) -> Failure {
    let error = io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {:.1} s", limit.as_secs_f64()));
    ErrorKind::Unreachable(Box::new(error)).into()
}

/// A transport error. Its URL is left out: storage URLs carry signatures.
pub(super) fn lost(error: reqwest::Error) -> Failure {
    let is_connect = error.is_connect();
    let error = error.without_url();
    // A certificate does not get better by asking again.
    let is_transient = !error.is_builder() && !describe(&error).contains("certificate");
    Failure { is_transient, is_connect, ..ErrorKind::Unreachable(Box::new(error)).into() }
}

/// Reads a body of at most `limit_bytes`; `idle` is the longest silence.
pub(super) async fn read_bounded(mut response: Response, limit_bytes: u64, idle: Duration) -> Result<Bytes, Failure> {
    let too_large = || Failure::from(ErrorKind::TooLarge { limit_bytes });
    if response.content_length().is_some_and(|length| length > limit_bytes) {
        return Err(too_large());
    }
    let mut bytes = BytesMut::new();
    while let Some(chunk) = next_chunk(&mut response, idle).await? {
        if (bytes.len() + chunk.len()) as u64 > limit_bytes {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

/// The next bytes of a body; `None` at its end.
pub(super) async fn next_chunk(response: &mut Response, idle: Duration) -> Result<Option<Bytes>, Failure> {
    match timeout(idle, response.chunk()).await {
        Ok(outcome) => outcome.map_err(lost),
        Err(_) => Err(silent(idle)),
    }
}

/// A header's value, where it is text.
pub(super) fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Passes success; turns everything else into a failure with the registry's own words.
pub(super) async fn check_status(response: Response, idle: Duration) -> Result<Response, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let retry_after = header_text(response.headers(), RETRY_AFTER.as_str()).and_then(retry_after);
    // The status is what counts; a body that is missing, too long or broken changes nothing.
    let body = read_bounded(response, ERROR_BYTES_MAX, idle).await.unwrap_or_default();
    let (code, message) = error_text(&body);
    let kind = match status {
        StatusCode::UNAUTHORIZED => ErrorKind::Unauthorized { message },
        StatusCode::FORBIDDEN => ErrorKind::Denied { message },
        StatusCode::NOT_FOUND => ErrorKind::NotFound { message },
        StatusCode::PAYLOAD_TOO_LARGE => ErrorKind::TooLarge { limit_bytes: 0 },
        StatusCode::TOO_MANY_REQUESTS => ErrorKind::RateLimited { retry_after },
        _ => ErrorKind::Unexpected { status: status.as_u16(), code, message },
    };
    let is_limited =
        status == StatusCode::TOO_MANY_REQUESTS || (status == StatusCode::SERVICE_UNAVAILABLE && retry_after.is_some());
    Err(Failure { kind, is_transient: may_pass(status), is_connect: false, retry_after, is_limited })
}

/// Whether the same request may get another answer later.
pub(super) fn may_pass(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502..=504 | 520..=599)
}

/// The wait that a registry asks for: seconds, or the time to come back at (RFC 9110, "Retry-After").
fn retry_after(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    // A time that has passed asks for no wait at all.
    Some(at.duration_since(SystemTime::now()).unwrap_or_default())
}

/// Code and message of an error document (distribution-spec, "Error Codes"); control characters are dropped.
fn error_text(body: &[u8]) -> (String, String) {
    #[derive(Deserialize)]
    struct Document {
        #[serde(default)]
        errors: Vec<Entry>,
        /// Token servers and proxies.
        #[serde(alias = "error_description", alias = "message")]
        details: Option<String>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let clean = |text: &str| text.chars().filter(|c| !c.is_control()).take(300).collect::<String>();
    let Ok(document) = serde_json::from_slice::<Document>(body) else { return Default::default() };
    match document.errors.first() {
        Some(entry) => (clean(&entry.code), clean(&entry.message)),
        None => (String::new(), clean(document.details.as_deref().unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_wait_are_read() {
        assert_eq!(retry_after(" 7 "), Some(Duration::from_secs(7)));
        let at = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        let wait = retry_after(&at).unwrap();
        assert!((90..=100).contains(&wait.as_secs()), "{wait:?}");
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(retry_after("soon"), None);
    }
}
