//! Requests to servers that are no registries, such as package indexes: the same connections, certificates, proxies, limits
//! and repetitions.

use bytes::Bytes;
use reqwest::{
    Method,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use url::Url;

use super::{
    BlobSource, Client, ClientOptions, answer, answer::header_text, body::Part, retry::Failure, transport::Call,
};
use crate::{Credential, Credentials, ErrorKind, RegistryError};

/// One request, which can be made again.
#[derive(Clone)]
pub struct WebRequest {
    method: Method,
    url: Url,
    headers: HeaderMap,
    authorization: Option<HeaderValue>,
    body: Option<(BlobSource, u64)>,
}

/// An answer that is neither a lost connection nor "come back later".
#[derive(Clone, Debug)]
pub struct WebAnswer {
    /// HTTP status, of any class.
    pub status: u16,
    /// Media type, without parameters.
    pub content_type: String,
    /// The body.
    pub body: Bytes,
}

impl WebAnswer {
    /// Whether the status is one of success.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl WebRequest {
    /// A question.
    pub fn get(url: Url) -> Self {
        Self { method: Method::GET, url, headers: HeaderMap::new(), authorization: None, body: None }
    }

    /// A PUT of `length_bytes` of content.
    pub fn put(url: Url, content_type: &str, body: BlobSource, length_bytes: u64) -> Self {
        Self { method: Method::PUT, body: Some((body, length_bytes)), ..Self::get(url) }
            .header(CONTENT_TYPE, content_type)
    }

    /// A POST of `length_bytes` of content.
    pub fn post(url: Url, content_type: &str, body: BlobSource, length_bytes: u64) -> Self {
        Self { method: Method::POST, ..Self::put(url, content_type, body, length_bytes) }
    }

    /// Which media types are understood.
    #[must_use]
    pub fn accept(self, media_types: &str) -> Self {
        self.header(reqwest::header::ACCEPT, media_types)
    }

    /// The `Authorization` header, as a whole: `Bearer …`. It goes to the request's own origin only. What is no legal header is
    /// left out, and the server refuses.
    #[must_use]
    pub fn authorization(mut self, value: &str) -> Self {
        self.authorization = HeaderValue::from_str(value).ok().map(|mut value| {
            value.set_sensitive(true);
            value
        });
        self
    }

    /// Our own headers are legal.
    fn header(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
        self
    }
}

impl Client {
    /// Makes a request until there is an answer of at most `limit_bytes`. An answer that may pass (429, 502, …) is asked for again;
    /// questions follow redirects on the same origin only, because another host may mean another thing.
    ///
    /// # Errors
    /// The server cannot be reached, or is not reached by TLS though neither loopback nor named insecure.
    pub async fn exchange(&self, request: &WebRequest, limit_bytes: u64) -> Result<WebAnswer, RegistryError> {
        let answer = self.exchange_kind(request, limit_bytes).await;
        answer.map_err(|kind| kind.during("reach", request.url.origin().ascii_serialization()))
    }

    async fn exchange_kind(&self, request: &WebRequest, limit_bytes: u64) -> Result<WebAnswer, ErrorKind> {
        let mut retries = self.transport.retries();
        loop {
            match self.exchange_once(request, limit_bytes).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => retries.again(failure).await?,
            }
        }
    }

    async fn exchange_once(&self, request: &WebRequest, limit_bytes: u64) -> Result<WebAnswer, Failure> {
        let mut call = Call::elsewhere(request.method.clone(), request.url.clone(), request.headers.clone());
        if let Some((source, length)) = &request.body {
            call = call.part(Part::new(source.clone(), 0, *length));
        }
        let (response, _slot) =
            self.transport.attempt_elsewhere(&call, &request.url, request.authorization.clone()).await?;
        let content_type = header_text(response.headers(), CONTENT_TYPE.as_str()).map(super::media_type_only);
        Ok(WebAnswer {
            status: response.status().as_u16(),
            content_type: content_type.unwrap_or_default(),
            body: answer::read_bounded(response, limit_bytes, self.options().idle_timeout).await?,
        })
    }

    /// The same client as this user of one host, whatever logins are stored.
    #[must_use]
    pub fn with_login(&self, host: &str, user: &str, password: &str) -> Self {
        let credential = Credential::Password { user: user.into(), password: password.into() };
        let credentials = Credentials::anonymous().with(host, credential);
        Self::new(ClientOptions { credentials, ..self.options().clone() })
    }
}
