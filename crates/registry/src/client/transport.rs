//! Requests: where a registry is, redirects, authorization, retries, time limits. Everything else is built on this.

use std::{
    collections::HashMap,
    future::Future,
    net::IpAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use oci::Reference;
use reqwest::{
    Method, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LINK, LOCATION},
};
use tokio::{
    sync::{Mutex as AsyncMutex, OnceCell},
    time::timeout,
};
use url::Url;

use super::{
    ClientOptions,
    answer::{check_status, header_text, lost, may_pass, read_bounded, silent},
    auth::{self, Challenge, Scope, Token},
    body::Part,
    describe,
    pace::{Pace, Slot},
    retry::{Failure, Retries},
};
use crate::{
    Credential, ErrorKind, HostFilesError,
    hosts::{self, HostCertificates, Hosts},
};

/// Redirects followed for one request. Registries need one, to their storage.
const REDIRECTS_MAX: usize = 5;
/// Answers to 401 within one request: no token, an old token, a new token.
const AUTH_ROUNDS_MAX: usize = 3;
/// A token answer; tokens of large registries have some ten kilobytes.
const TOKEN_BYTES_MAX: u64 = 1024 * 1024;
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
    via: Via,
    /// Redirects to other origins are answers, and not followed.
    stays: bool,
}

/// Who may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// Only the registry itself: what is pushed, judged or copied.
    Origin,
    /// A mirror of it, if there is one that can: content that is checked by digest, and tags that are pulled.
    Mirrors,
}

#[derive(Clone)]
enum Place {
    /// Below `/v2/` of the registry.
    Path { repository: String, below: String },
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
        let place = Place::Path { repository: repository.path().to_owned(), below };
        Self { place, scope, ..Self::host(method, repository.domain()) }
    }

    /// A request for `/v2/` itself.
    pub(super) fn host(method: Method, host: &str) -> Self {
        Self {
            method,
            host: host.into(),
            place: Place::Path { repository: String::new(), below: String::new() },
            headers: HeaderMap::new(),
            body: CallBody::Empty,
            scope: Scope::default(),
            via: Via::Origin,
            stays: false,
        }
    }

    /// A request for the list of repositories.
    pub(super) fn catalog(method: Method, host: &str, names: usize) -> Self {
        let place = Place::Path { repository: "_catalog".into(), below: format!("?n={names}") };
        Self { place, ..Self::host(method, host) }
    }

    /// A request to a server that is no registry.
    pub(super) fn elsewhere(method: Method, url: Url, headers: HeaderMap) -> Self {
        Self { headers, stays: true, ..Self::host(method, &authority(&url)) }.at(url)
    }

    pub(super) fn via(mut self, via: Via) -> Self {
        self.via = via;
        self
    }

    /// The same question to a mirror.
    fn to_mirror(&self, mirror: hosts::Place) -> Self {
        let Place::Path { below, .. } = &self.place else { unreachable!("only paths are looked up in mirrors") };
        let scope = Scope(format!("repository:{}:pull", mirror.path));
        let place = Place::Path { repository: mirror.path, below: below.clone() };
        Self { host: mirror.host, place, scope, via: Via::Origin, ..self.clone() }
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

/// What is known of one registry.
#[derive(Default)]
struct Host {
    base: OnceCell<Url>,
    challenge: Mutex<Option<Challenge>>,
    tokens: AsyncMutex<HashMap<Scope, Token>>,
    // By repository, because podman's files tell them apart. A helper is a program: it is asked once.
    credentials: AsyncMutex<HashMap<String, Option<Credential>>>,
    // With the host's own certificates, where it has some.
    client: OnceLock<Result<Option<reqwest::Client>, String>>,
    pace: Arc<Pace>,
    /// As a mirror it failed or gave wrong content: it is not asked again.
    is_bad_mirror: AtomicBool,
}

/// Connections, hosts and tokens.
pub(super) struct Transport {
    options: ClientOptions,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
    // By [`Trust`].
    clients: [OnceLock<Result<reqwest::Client, String>>; 3],
    configured: OnceLock<Result<Hosts, HostFilesError>>,
    /// Lists of referrers that are tags are read, changed and written by one at a time.
    pub(super) listing: tokio::sync::Mutex<()>,
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
        Self {
            options,
            hosts: Mutex::default(),
            clients: Default::default(),
            configured: OnceLock::new(),
            listing: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn options(&self) -> &ClientOptions {
        &self.options
    }

    pub(super) fn retries(&self) -> Retries {
        Retries::new(&self.options)
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

    /// Makes a request once (answering challenges and following redirects). Only success is `Ok`. A mirror that cannot
    /// answer is passed over, whatever it says.
    pub(super) async fn attempt(&self, call: &Call) -> Result<Response, Failure> {
        self.attempt_streaming(call).await.map(|(response, _)| response)
    }

    /// The same for a body that takes its time: the slot is held until it is read.
    pub(super) async fn attempt_streaming(&self, call: &Call) -> Result<(Response, Slot), Failure> {
        for mirror in self.mirrors(call)? {
            let host = self.host(&mirror.host);
            if host.is_bad_mirror.load(Ordering::Relaxed) {
                continue;
            }
            match self.attempt_paced(&call.to_mirror(mirror)).await {
                Ok(answer) => return Ok(answer),
                // That it lacks an image says nothing of the next one.
                Err(Failure { kind: ErrorKind::NotFound { .. }, .. }) => {}
                Err(_) => host.is_bad_mirror.store(true, Ordering::Relaxed),
            }
        }
        self.attempt_paced(call).await
    }

    /// Makes a request when its host may get one more, and learns from the answer how many it likes.
    async fn attempt_paced(&self, call: &Call) -> Result<(Response, Slot), Failure> {
        let slot = self.host(&call.host).pace.enter().await;
        let outcome = self.attempt_at(call).await;
        match &outcome {
            Ok(_) => slot.went_well(),
            Err(failure) if failure.is_limited => {
                slot.was_too_much(failure.retry_after.filter(|wait| *wait <= self.options.retry_wait_max));
            }
            Err(_) => {}
        }
        Ok((outcome?, slot))
    }

    /// Makes a request to a server that is no registry, once; every answer is `Ok` but those that may pass.
    pub(super) async fn attempt_elsewhere(
        &self,
        call: &Call,
        url: &Url,
        authorization: Option<HeaderValue>,
    ) -> Result<(Response, Slot), Failure> {
        if url.scheme() != "https" && self.trust(url)? == Trust::Verified {
            let reason =
                format!("{url} is reached without TLS; only loopback and hosts that are named insecure may be");
            return Err(Failure { is_transient: false, ..ErrorKind::Unreachable(reason.into()).into() });
        }
        let slot = self.host(&call.host).pace.enter().await;
        let response = self.follow(call, url.clone(), authorization, url).await?;
        if !may_pass(response.status()) {
            return Ok((response, slot));
        }
        let failure = check_status(response, self.options.idle_timeout).await.expect_err("the status is a failure's");
        if failure.is_limited {
            slot.was_too_much(failure.retry_after.filter(|wait| *wait <= self.options.retry_wait_max));
        }
        Err(failure)
    }

    fn mirrors(&self, call: &Call) -> Result<Vec<hosts::Place>, Failure> {
        let Place::Path { repository, below } = &call.place else { return Ok(Vec::new()) };
        if call.via == Via::Origin {
            return Ok(Vec::new());
        }
        let is_digest = below.contains(':');
        Ok(self.configured()?.mirrors(&call.host, repository, is_digest))
    }

    /// A mirror of this registry gave wrong content: from here on the registry itself is asked.
    pub(super) fn distrust_mirrors(&self, repository: &Reference) {
        if let Ok(configured) = self.configured() {
            for mirror in configured.mirrors(repository.domain(), repository.path(), true) {
                self.host(&mirror.host).is_bad_mirror.store(true, Ordering::Relaxed);
            }
        }
    }

    fn configured(&self) -> Result<&Hosts, Failure> {
        let configured = self.configured.get_or_init(|| self.options.hosts.read());
        configured.as_ref().map_err(|error| ErrorKind::local(error.clone()).into())
    }

    async fn attempt_at(&self, call: &Call) -> Result<Response, Failure> {
        let host = self.host(&call.host);
        let base = self.base(&call.host, &host).await?;
        let url = match &call.place {
            Place::Url(url) => url.clone(),
            Place::Path { repository, .. } if repository.is_empty() => base.clone(),
            Place::Path { repository, below } => {
                let slash = if below.starts_with('?') { "" } else { "/" };
                let joined = base.join(&format!("{repository}{slash}{below}"));
                joined.map_err(|error| ErrorKind::malformed(error.to_string()))?
            }
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
                let is_denied = challenge.is_insufficient_scope() && self.credential(call, &host).await?.is_some();
                let mut failure =
                    check_status(response, self.options.idle_timeout).await.expect_err("401 is a failure");
                if is_denied && let ErrorKind::Unauthorized { message } = failure.kind {
                    failure.kind = ErrorKind::Denied { message };
                }
                if self.credential(call, &host).await?.is_some() {
                    say_refused(&mut failure);
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
                let credential = self.credential(call, host).await?;
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
                let credential = self.credential(call, host).await?;
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

    async fn credential(&self, call: &Call, host: &Host) -> Result<Option<Credential>, Failure> {
        let path = call.scope.0.split(':').nth(1).unwrap_or_default();
        let mut known = host.credentials.lock().await;
        if let Some(credential) = known.get(path) {
            return Ok(credential.clone());
        }
        let credential = self.options.credentials.lookup(&call.host, path).await.map_err(ErrorKind::from)?;
        known.insert(path.to_owned(), credential.clone());
        Ok(credential)
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
            if credential.is_some() {
                say_refused(&mut failure);
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
            if call.stays && next.origin() != base.origin() {
                return Ok(response);
            }
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
            if self.trust(&secure)? == Trust::Verified || self.own_client(&secure)?.is_some() {
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

    fn trust(&self, url: &Url) -> Result<Trust, Failure> {
        let Some(name) = url.host_str() else { return Ok(Trust::Verified) };
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        if name == "localhost" || address.is_ok_and(|address| address.is_loopback()) {
            return Ok(Trust::Loopback);
        }
        let port = url.port_or_known_default().map(|port| format!("{name}:{port}"));
        let is_named = self.options.insecure_hosts.iter().chain(self.configured()?.insecure()).any(|host| {
            host.eq_ignore_ascii_case(name)
                || port.as_ref().is_some_and(|with_port| host.eq_ignore_ascii_case(with_port))
        });
        Ok(if is_named { Trust::Insecure } else { Trust::Verified })
    }

    /// The client of a host with own certificates, if it has some.
    fn own_client(&self, url: &Url) -> Result<Option<reqwest::Client>, Failure> {
        let (Some(_), "https") = (url.host_str(), url.scheme()) else { return Ok(None) };
        let with_port = authority(url);
        let host = self.host(&with_port);
        let own = host.client.get_or_init(|| {
            let configured = self.configured().map_err(|failure| describe(&failure.kind))?;
            let Some(own) = configured.certificates(&with_port).map_err(|error| error.to_string())? else {
                return Ok(None);
            };
            let trust = self.trust(url).map_err(|failure| describe(&failure.kind))?;
            build_client(&self.options, trust, Some(&own)).map(Some)
        });
        own.clone().map_err(|reason| ErrorKind::local(format!("certificates for {with_port}: {reason}")).into())
    }

    /// The client for a URL: one for all hosts that are met alike, one of its own for a host with own certificates.
    fn client(&self, url: &Url) -> Result<reqwest::Client, Failure> {
        if let Some(client) = self.own_client(url)? {
            return Ok(client);
        }
        let trust = self.trust(url)?;
        let client = self.clients[trust as usize].get_or_init(|| build_client(&self.options, trust, None));
        client.clone().map_err(|reason| {
            let reason = if reason.contains("No CA certificates") {
                "no certificates of authorities are installed; install `ca-certificates` or set SSL_CERT_FILE"
            } else {
                reason.as_str()
            };
            Failure { is_transient: false, ..ErrorKind::Unreachable(reason.into()).into() }
        })
    }
}

/// `host`, or `host:port`.
fn authority(url: &Url) -> String {
    let name = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"))
}

fn build_client(
    options: &ClientOptions,
    trust: Trust,
    own: Option<&HostCertificates>,
) -> Result<reqwest::Client, String> {
    provide_tls();
    let mut builder = reqwest::Client::builder()
        .user_agent(options.user_agent.as_str())
        .connect_timeout(options.connect_timeout)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .tcp_keepalive(Duration::from_secs(30));
    match own {
        // A host with certificates of its own is held to them, also on this machine.
        Some(own) => {
            for text in &own.authorities {
                let found = reqwest::Certificate::from_pem_bundle(text).map_err(|error| describe(&error))?;
                builder = builder.tls_certs_merge(found);
            }
            if let Some(text) = &own.client {
                builder = builder.identity(reqwest::Identity::from_pem(text).map_err(|error| describe(&error))?);
            }
        }
        None if trust != Trust::Verified => builder = builder.tls_danger_accept_invalid_certs(true),
        None => {}
    }
    if trust == Trust::Loopback {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| describe(&error))
}

/// Without it no client can be built. One provider for the process; an earlier choice of the program stands.
pub(crate) fn provide_tls() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// "asks for credentials" would be asked back: but I gave some.
fn say_refused(failure: &mut Failure) {
    if let ErrorKind::Unauthorized { message } = &mut failure.kind {
        let said = std::mem::take(message);
        let detail = if said.is_empty() { String::new() } else { format!(" ({said})") };
        *message = format!("it refuses those it was given{detail}");
    }
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

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing panics while these are held, and their values are whole at all times.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
