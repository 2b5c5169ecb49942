//! Requests: where a registry is, redirects, authorization, retries, time limits. Everything else is built on this.

use std::{
    collections::HashMap,
    future::Future,
    hash::{BuildHasher, RandomState},
    io,
    net::IpAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use oci::Reference;
use reqwest::{
    Method, Response, StatusCode,
    header::{
        AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LINK, LOCATION, RETRY_AFTER,
    },
};
use serde::Deserialize;
use tokio::{
    sync::{Mutex as AsyncMutex, OnceCell},
    time::{sleep, timeout},
};
use url::Url;

use super::{
    ClientOptions,
    auth::{self, Challenge, Scope, Token},
    body::Part,
    describe,
};
use crate::{Credential, ErrorKind};

/// Redirects followed for one request. Registries need one, to their storage.
const REDIRECTS_MAX: usize = 5;
/// Answers to 401 within one request: no token, an old token, a new token.
const AUTH_ROUNDS_MAX: usize = 3;
/// An error document has a few hundred bytes; the rest of a longer one is not read.
const ERROR_BYTES_MAX: u64 = 64 * 1024;
/// A token answer; tokens of large registries have some ten kilobytes.
const TOKEN_BYTES_MAX: u64 = 1024 * 1024;
/// Repetitions when not even a connection comes about: more would make a machine without network wait for nothing.
const CONNECT_RETRIES_MAX: u32 = 2;
/// TLS against a plain server on loopback or a named insecure host must end quickly.
const TLS_PROBE_WAIT: Duration = Duration::from_secs(5);
/// How often an upload's progress is looked at.
const STALL_TICK: Duration = Duration::from_millis(100);
/// After all bytes are sent, a registry may hash and sync gigabytes before it answers.
const COMMIT_WAIT_MAX: Duration = Duration::from_secs(600);

/// One request, which can be made again.
#[derive(Clone)]
pub(super) struct Call {
    method: Method,
    host: String,
    place: Place,
    headers: HeaderMap,
    body: CallBody,
    scope: Scope,
}

#[derive(Clone)]
enum Place {
    /// Below `/v2/` of the registry.
    Path(String),
    /// Where an answer of the registry pointed to.
    Url(Url),
}

#[derive(Clone)]
enum CallBody {
    Empty,
    Bytes(Bytes),
    Part(Part),
}

impl Call {
    pub(super) fn new(method: Method, repository: &Reference, below: String, scope: Scope) -> Self {
        let path = format!("{}/{below}", repository.path());
        Self { place: Place::Path(path), scope, ..Self::host(method, repository.domain()) }
    }

    /// A request for `/v2/` itself.
    pub(super) fn host(method: Method, host: &str) -> Self {
        Self {
            method,
            host: host.into(),
            place: Place::Path(String::new()),
            headers: HeaderMap::new(),
            body: CallBody::Empty,
            scope: Scope::default(),
        }
    }

    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub(super) fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    pub(super) fn body(mut self, bytes: Bytes) -> Self {
        self.body = CallBody::Bytes(bytes);
        self
    }

    pub(super) fn part(mut self, part: Part) -> Self {
        self.body = CallBody::Part(part);
        self
    }

    pub(super) fn at(mut self, url: Url) -> Self {
        self.place = Place::Url(url);
        self
    }
}

/// A failed attempt: what it was, and whether another one makes sense.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    pub(super) is_transient: bool,
    pub(super) is_connect: bool,
    pub(super) retry_after: Option<Duration>,
}

impl From<ErrorKind> for Failure {
    fn from(kind: ErrorKind) -> Self {
        // Wrong content may come from a proxy's bad copy or a cut connection: asking again is worth it.
        let is_transient = matches!(kind, ErrorKind::Unreachable(_) | ErrorKind::WrongContent { .. });
        Self { kind, is_transient, is_connect: false, retry_after: None }
    }
}

/// Counts the repetitions of one operation and waits between them.
pub(super) struct Retries {
    done: u32,
    connects: u32,
    max: u32,
    wait: Duration,
    wait_max: Duration,
}

impl Retries {
    /// Waits before the next attempt, or gives the failure back when there is to be none.
    pub(super) async fn again(&mut self, failure: Failure) -> Result<(), ErrorKind> {
        self.connects += u32::from(failure.is_connect);
        let is_over = self.done >= self.max || self.connects > CONNECT_RETRIES_MAX;
        if !failure.is_transient || is_over || failure.retry_after.is_some_and(|wait| wait > self.wait_max) {
            return Err(failure.kind);
        }
        let doubled = self.wait.saturating_mul(1 << self.done.min(16)).min(self.wait_max);
        // Half fixed, half random, so that many clients do not come back together.
        let jitter = RandomState::new().hash_one(self.done) % 1024;
        let wait = doubled / 2 + doubled.mul_f64(jitter as f64 / 2048.0);
        self.done += 1;
        sleep(failure.retry_after.map_or(wait, |asked| asked.max(wait))).await;
        Ok(())
    }

    /// Forgets past failures: there was progress since.
    pub(super) fn reset(&mut self) {
        self.done = 0;
        self.connects = 0;
    }
}

/// What is known of one registry.
#[derive(Default)]
struct Host {
    base: OnceCell<Url>,
    challenge: Mutex<Option<Challenge>>,
    tokens: AsyncMutex<HashMap<Scope, Token>>,
}

/// Connections, hosts and tokens.
pub(super) struct Transport {
    options: ClientOptions,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
    // By [`Trust`].
    clients: [OnceLock<Result<reqwest::Client, String>>; 3],
}

/// How a host is met.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// TLS with a valid certificate.
    Verified = 0,
    /// Named by the user as insecure.
    Insecure = 1,
    /// This machine: insecure is fine, and no proxy is asked (as Go's HTTP client does).
    Loopback = 2,
}

impl Transport {
    pub(super) fn new(options: ClientOptions) -> Self {
        Self { options, hosts: Mutex::default(), clients: Default::default() }
    }

    pub(super) fn options(&self) -> &ClientOptions {
        &self.options
    }

    pub(super) fn retries(&self) -> Retries {
        let ClientOptions { retries, retry_wait, retry_wait_max, .. } = self.options;
        Retries { done: 0, connects: 0, max: retries, wait: retry_wait, wait_max: retry_wait_max }
    }

    /// Makes a request until it succeeds, fails for good, or the repetitions are used up.
    pub(super) async fn send(&self, call: &Call) -> Result<Response, ErrorKind> {
        let mut retries = self.retries();
        loop {
            match self.attempt(call).await {
                Ok(response) => return Ok(response),
                Err(failure) => retries.again(failure).await?,
            }
        }
    }

    /// A whole small document: the URL it came from, its `Link` header, its bytes.
    pub(super) async fn get_document(
        &self,
        call: &Call,
        limit_bytes: u64,
    ) -> Result<(Url, Option<String>, Bytes), ErrorKind> {
        let mut retries = self.retries();
        loop {
            let attempt = async {
                let response = self.attempt(call).await?;
                let url = response.url().clone();
                let link = header_text(response.headers(), LINK.as_str()).map(str::to_owned);
                Ok((url, link, read_bounded(response, limit_bytes, self.options.idle_timeout).await?))
            };
            match attempt.await {
                Ok(document) => return Ok(document),
                Err(failure) => retries.again(failure).await?,
            }
        }
    }

    /// Sends basic authentication to `/v2/` even if the registry would let anybody in there, or asks its token server.
    pub(super) async fn check_login(&self, host: &str) -> Result<(), ErrorKind> {
        self.send(&Call::host(Method::GET, host)).await.map(drop)
    }

    /// Makes a request once (answering challenges and following redirects). Only success is `Ok`.
    pub(super) async fn attempt(&self, call: &Call) -> Result<Response, Failure> {
        let host = self.host(&call.host);
        let base = self.base(&call.host, &host).await?;
        let url = match &call.place {
            Place::Url(url) => url.clone(),
            Place::Path(path) => base.join(path).map_err(|error| ErrorKind::malformed(error.to_string()))?,
        };
        // An upload may be sent to another host; our credentials are not.
        let is_ours = url.origin() == base.origin();
        for _ in 0..AUTH_ROUNDS_MAX {
            let authorization = if is_ours { self.authorization(call, &host, &base).await? } else { None };
            let header = authorization.as_ref().map(|(header, _)| header.clone());
            let response = self.follow(call, url.clone(), header.clone(), &base).await?;
            if response.status() != StatusCode::UNAUTHORIZED || response.url().origin() != base.origin() {
                return check_status(response, self.options.idle_timeout).await;
            }
            let Some(challenge) = Challenge::of(response.headers()) else {
                return check_status(response, self.options.idle_timeout).await;
            };
            let is_fresh = authorization.is_some_and(|(_, is_fresh)| is_fresh);
            if is_fresh {
                let is_denied = challenge.is_insufficient_scope() && self.credential(call).await?.is_some();
                let mut failure =
                    check_status(response, self.options.idle_timeout).await.expect_err("401 is a failure");
                if is_denied && let ErrorKind::Unauthorized { message } = failure.kind {
                    failure.kind = ErrorKind::Denied { message };
                }
                return Err(failure);
            }
            *lock(&host.challenge) = Some(challenge);
            if header.is_some() {
                host.tokens.lock().await.retain(|_, token| Some(&token.header) != header.as_ref());
            }
        }
        Err(ErrorKind::Unauthorized { message: "it refuses each token that it gave".into() }.into())
    }

    /// The `Authorization` for a call, and whether it is as new as can be (so that a refusal is final).
    async fn authorization(
        &self,
        call: &Call,
        host: &Host,
        base: &Url,
    ) -> Result<Option<(HeaderValue, bool)>, Failure> {
        let challenge = lock(&host.challenge).clone();
        match challenge {
            None => Ok(None),
            Some(Challenge::Basic) => {
                let credential = self.credential(call).await?;
                let header = credential.as_ref().and_then(auth::basic_of);
                let refusal = ErrorKind::Unauthorized { message: String::new() };
                header.map(|header| Some((header, true))).ok_or_else(|| refusal.into())
            }
            Some(Challenge::Bearer { realm, service, scope, .. }) => {
                // One at a time: the second asks when the first has put its answer here.
                let mut tokens = host.tokens.lock().await;
                if let Some(token) = tokens.get(&call.scope).filter(|token| token.is_fresh()) {
                    return Ok(Some((token.header.clone(), false)));
                }
                let credential = self.credential(call).await?;
                if let Some(Credential::RegistryToken(token)) = &credential {
                    let refusal = ErrorKind::Unauthorized { message: "the stored token is not legal".into() };
                    return auth::bearer(token).map(|header| Some((header, true))).ok_or_else(|| refusal.into());
                }
                // Our own scope, and the registry's where we have none (`/v2/`, extensions).
                let scope = if call.scope.0.is_empty() { scope.unwrap_or_default() } else { call.scope.0.clone() };
                let token = self.fetch_token(&realm, service.as_deref(), &scope, credential.as_ref(), base).await?;
                let header = token.header.clone();
                tokens.insert(call.scope.clone(), token);
                Ok(Some((header, true)))
            }
        }
    }

    async fn credential(&self, call: &Call) -> Result<Option<Credential>, Failure> {
        let path = call.scope.0.split(':').nth(1).unwrap_or_default();
        Ok(self.options.credentials.lookup(&call.host, path).await.map_err(ErrorKind::from)?)
    }

    async fn fetch_token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        credential: Option<&Credential>,
        base: &Url,
    ) -> Result<Token, Failure> {
        let mut url: Url =
            realm.parse().map_err(|_| ErrorKind::malformed(format!("`{realm}` is no URL of a token server")))?;
        // A registry met with TLS must not lure a password onto a plain connection.
        if url.scheme() != "https" && base.scheme() == "https" {
            return Err(ErrorKind::malformed(format!("token server `{realm}` is not reached by TLS")).into());
        }
        let client = self.client(&url)?;
        let scopes: Vec<&str> = scope.split(' ').filter(|scope| !scope.is_empty()).collect();
        let request = if let Some(Credential::IdentityToken(token)) = credential {
            client
                .post(url)
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(auth::refresh_form(token, service, &scopes))
        } else {
            {
                let mut query = url.query_pairs_mut();
                service.map(|service| query.append_pair("service", service));
                for scope in &scopes {
                    query.append_pair("scope", scope);
                }
            }
            let request = client.get(url);
            match credential.and_then(auth::basic_of) {
                Some(header) => request.header(AUTHORIZATION, header),
                None => request,
            }
        };
        let response = in_time(self.options.idle_timeout, request.send()).await?;
        let response = check_status(response, self.options.idle_timeout).await.map_err(|mut failure| {
            // A token server says 400 or 404 for users it does not know; a refusal is what it means.
            if let ErrorKind::NotFound { message } = failure.kind {
                failure.kind = ErrorKind::Unauthorized { message };
            }
            failure
        })?;
        let bytes = read_bounded(response, TOKEN_BYTES_MAX, self.options.idle_timeout).await?;
        Token::parse(&bytes).map_err(|reason| ErrorKind::Malformed(reason).into())
    }

    /// Sends and follows redirects; the authorization stays with the registry's own origin.
    async fn follow(
        &self,
        call: &Call,
        mut url: Url,
        authorization: Option<HeaderValue>,
        base: &Url,
    ) -> Result<Response, Failure> {
        for _ in 0..=REDIRECTS_MAX {
            let mut request =
                self.client(&url)?.request(call.method.clone(), url.clone()).headers(call.headers.clone());
            if let Some(header) = authorization.as_ref().filter(|_| url.origin() == base.origin()) {
                request = request.header(AUTHORIZATION, header.clone());
            }
            let response = match &call.body {
                CallBody::Empty => {
                    // POST and PUT without a body say so: some registries and proxies insist on a length.
                    if !matches!(call.method, Method::GET | Method::HEAD | Method::DELETE) {
                        request = request.header(CONTENT_LENGTH, 0);
                    }
                    in_time(self.options.idle_timeout, request.send()).await?
                }
                CallBody::Bytes(bytes) => {
                    in_time(self.options.idle_timeout, request.body(bytes.clone()).send()).await?
                }
                CallBody::Part(part) => {
                    let request = request.header(CONTENT_LENGTH, part.length()).body(part.body());
                    while_moving(part, self.options.idle_timeout, request.send()).await?
                }
            };
            let is_reading = matches!(call.method, Method::GET | Method::HEAD);
            let is_redirect = match response.status().as_u16() {
                301..=303 => is_reading,
                307 | 308 => true,
                _ => false,
            };
            let Some(target) = header_text(response.headers(), LOCATION.as_str()).filter(|_| is_redirect) else {
                return Ok(response);
            };
            let next = url.join(target).map_err(|_| ErrorKind::malformed("redirect to an illegal URL"))?;
            let is_safe = match next.scheme() {
                "https" => true,
                "http" => base.scheme() == "http",
                _ => false,
            };
            if !is_safe {
                return Err(ErrorKind::malformed(format!("redirect to {}://", next.scheme())).into());
            }
            url = next;
        }
        Err(ErrorKind::malformed(format!("more than {REDIRECTS_MAX} redirects")).into())
    }

    fn host(&self, name: &str) -> Arc<Host> {
        Arc::clone(lock(&self.hosts).entry(name.to_owned()).or_default())
    }

    /// The URL of `/v2/`: always TLS, but for loopback and named hosts whichever of TLS and plain HTTP answers.
    async fn base(&self, name: &str, host: &Host) -> Result<Url, Failure> {
        let find = async || {
            let address = if name == "docker.io" { "registry-1.docker.io" } else { name };
            let url = |scheme: &str| {
                format!("{scheme}://{address}/v2/")
                    .parse::<Url>()
                    .map_err(|_| ErrorKind::malformed(format!("`{name}` is no host name")))
            };
            let secure = url("https")?;
            if self.trust(&secure) == Trust::Verified {
                return Ok(secure);
            }
            if in_time(
                TLS_PROBE_WAIT.min(self.options.connect_timeout),
                self.client(&secure)?.get(secure.clone()).send(),
            )
            .await
            .is_ok()
            {
                return Ok(secure);
            }
            let plain = url("http")?;
            let response = in_time(self.options.idle_timeout, self.client(&plain)?.get(plain.clone()).send()).await?;
            *lock(&host.challenge) = Challenge::of(response.headers());
            Ok::<_, Failure>(plain)
        };
        host.base.get_or_try_init(find).await.cloned()
    }

    fn trust(&self, url: &Url) -> Trust {
        let Some(name) = url.host_str() else { return Trust::Verified };
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        if name == "localhost" || address.is_ok_and(|address| address.is_loopback()) {
            return Trust::Loopback;
        }
        let port = url.port_or_known_default().map(|port| format!("{name}:{port}"));
        let is_named = self.options.insecure_hosts.iter().any(|host| {
            host.eq_ignore_ascii_case(name)
                || port.as_ref().is_some_and(|with_port| host.eq_ignore_ascii_case(with_port))
        });
        if is_named { Trust::Insecure } else { Trust::Verified }
    }

    fn client(&self, url: &Url) -> Result<&reqwest::Client, Failure> {
        let trust = self.trust(url);
        let client = self.clients[trust as usize].get_or_init(|| build_client(&self.options, trust));
        client.as_ref().map_err(|reason| ErrorKind::local(reason.clone()).into())
    }
}

fn build_client(options: &ClientOptions, trust: Trust) -> Result<reqwest::Client, String> {
    // One provider for the process; an earlier choice of the program stands.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let mut builder = reqwest::Client::builder()
        .user_agent(options.user_agent.as_str())
        .connect_timeout(options.connect_timeout)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .tcp_keepalive(Duration::from_secs(30));
    if trust != Trust::Verified {
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    if trust == Trust::Loopback {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| describe(&error))
}

/// Awaits the head of an answer, with a limit.
async fn in_time(limit: Duration, send: impl Future<Output = reqwest::Result<Response>>) -> Result<Response, Failure> {
    match timeout(limit, send).await {
        Ok(outcome) => outcome.map_err(lost),
        Err(_) => Err(silent(limit)),
    }
}

/// Awaits the answer to an upload, which may take any time as long as bytes move.
async fn while_moving(
    part: &Part,
    idle: Duration,
    send: impl Future<Output = reqwest::Result<Response>>,
) -> Result<Response, Failure> {
    let mut send = std::pin::pin!(send);
    let (mut seen, mut still) = (0, Duration::ZERO);
    loop {
        match timeout(STALL_TICK, &mut send).await {
            Ok(Err(_)) if part.failure().is_some() => {
                return Err(ErrorKind::local(part.failure().unwrap_or_default()).into());
            }
            Ok(outcome) => return outcome.map_err(lost),
            Err(_) => {
                let sent = part.sent();
                still = if sent == seen { still + STALL_TICK } else { Duration::ZERO };
                seen = sent;
                let limit = if sent == part.length() { COMMIT_WAIT_MAX.max(idle) } else { idle };
                if still >= limit {
                    return Err(silent(limit));
                }
            }
        }
    }
}

fn silent(limit: Duration) -> Failure {
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
async fn check_status(response: Response, idle: Duration) -> Result<Response, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let seconds = header_text(response.headers(), RETRY_AFTER.as_str()).and_then(|text| text.trim().parse().ok());
    let retry_after = seconds.map(Duration::from_secs);
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
    let is_transient = matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502..=504 | 520..=599);
    Err(Failure { kind, is_transient, is_connect: false, retry_after })
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

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing panics while these are held, and their values are whole at all times.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
