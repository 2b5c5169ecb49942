//! From a request's path to what it is about. Repository names have slashes, so paths are read from their end.

use std::sync::Arc;

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use oci::Digest;
use tokio::time::timeout;

use super::{
    Shared,
    access::{self, Visit},
    answer::Refusal,
    blobs,
    listener::Peer,
    listing, manifests,
    metrics::{self, Seen},
    page::{self, Page},
    storage::RepositoryName,
};

/// Query parameters that are read; more are nobody's honest request.
const QUERY_PARAMETERS_MAX: usize = 256;

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// For people.
    Page(Page),
    /// What the server counts.
    Metrics,
    /// Whether it can serve.
    Health,
    /// Where clients get tokens.
    Token,
    Base,
    Catalog,
    Tags(RepositoryName),
    Manifest(RepositoryName, String),
    Blob(RepositoryName, Digest),
    Uploads(RepositoryName),
    Upload(RepositoryName, String),
    Referrers(RepositoryName, Digest),
}

impl Endpoint {
    /// The repository that it is about.
    fn name(&self) -> Option<&RepositoryName> {
        match self {
            Self::Metrics | Self::Health | Self::Token | Self::Page(_) | Self::Base | Self::Catalog => None,
            Self::Tags(name) | Self::Uploads(name) => Some(name),
            Self::Manifest(name, _) | Self::Upload(name, _) => Some(name),
            Self::Blob(name, _) | Self::Referrers(name, _) => Some(name),
        }
    }

    fn name_mut(&mut self) -> Option<&mut RepositoryName> {
        match self {
            Self::Metrics | Self::Health | Self::Token | Self::Page(_) | Self::Base | Self::Catalog => None,
            Self::Tags(name) | Self::Uploads(name) => Some(name),
            Self::Manifest(name, _) | Self::Upload(name, _) => Some(name),
            Self::Blob(name, _) | Self::Referrers(name, _) => Some(name),
        }
    }

    /// Its name in metrics.
    fn route(&self) -> &'static str {
        match self {
            Self::Page(_) => "page",
            Self::Metrics => "metrics",
            Self::Health => "health",
            Self::Token => "token",
            Self::Base => "base",
            Self::Catalog => "catalog",
            Self::Tags(_) => "tags",
            Self::Manifest(..) => "manifest",
            Self::Blob(..) => "blob",
            Self::Uploads(_) => "uploads",
            Self::Upload(..) => "upload",
            Self::Referrers(..) => "referrers",
        }
    }
}

fn route(path: &str) -> &'static str {
    endpoint(path).map_or("other", |endpoint| endpoint.route())
}

/// The endpoint with the repository that is meant: a mirror's clients name the mirrored registry beside it.
fn place(shared: &Shared, mut endpoint: Endpoint, query: &Query) -> Result<Endpoint, Refusal> {
    if let Some(name) = endpoint.name_mut() {
        let placed = shared.upstreams.place(name.clone(), query.get("ns"));
        *name = placed.ok_or_else(|| Refusal::missing("NAME_UNKNOWN", "nothing of this registry is here"))?;
    }
    Ok(endpoint)
}

/// The query of a request, decoded.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: &str) -> Self {
        let pairs = url::form_urlencoded::parse(text.as_bytes()).take(QUERY_PARAMETERS_MAX);
        Self(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    /// The first value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of a parameter.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// How many entries of a list are wanted.
    pub(super) fn count(&self) -> Result<Option<usize>, Refusal> {
        let illegal = |_| Refusal::bad("PAGINATION_NUMBER_INVALID", "`n` is not a number");
        self.get("n").map(|text| text.parse().map_err(illegal)).transpose()
    }
}

/// Answers every request.
pub(super) async fn handle(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Response {
    let mut visit = Visit::begin(&shared.gate, peer, request.headers());
    let (seen, request) = Seen::begin(&shared, route(request.uri().path()), request);
    let (mut response, code) = match dispatch(Arc::clone(&shared), &mut visit, request).await {
        Ok(response) => (response, None),
        Err(refusal) => {
            let code = refusal.code();
            (refusal.into_response(), Some(code))
        }
    };
    response
        .headers_mut()
        .insert(HeaderName::from_static("docker-distribution-api-version"), HeaderValue::from_static("registry/2.0"));
    visit.end(&shared.gate, response.status(), response.headers(), code).await;
    seen.answer(response)
}

async fn dispatch(shared: Arc<Shared>, visit: &mut Visit, request: Request) -> Result<Response, Refusal> {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let endpoint = place(&shared, endpoint(request.uri().path())?, &query)?;
    let (parts, body) = request.into_parts();
    let headers = parts.headers;
    let method = &parts.method;
    let need = visit.is_about(&endpoint, method, &query);
    let caller = match shared.gate.admit(visit, &headers, &need).await {
        Ok(caller) => caller,
        Err(refusal) => {
            let _ = timeout(shared.options.idle_timeout, blobs::drain(body)).await;
            return Err(refusal);
        }
    };
    let is_read = method == Method::GET || method == Method::HEAD;
    if !is_read
        && method != Method::DELETE
        && let Some(upstream) = endpoint.name().and_then(|name| shared.upstreams.of(name))
    {
        return Err(upstream.refuse_write());
    }
    match endpoint {
        Endpoint::Page(_) if !shared.options.has_pages => Err(unknown()),
        Endpoint::Metrics if !shared.options.has_metrics => Err(unknown()),
        Endpoint::Page(page) if is_read => {
            page::get(shared, page, query, &headers, Arc::new(move |name| caller.may_see(name))).await
        }
        Endpoint::Metrics if is_read => metrics::get(&shared).await,
        Endpoint::Health if is_read => metrics::health(&shared).await,
        Endpoint::Token => access::give_token(&shared.gate, visit, method, query, &headers, body).await,
        Endpoint::Base if is_read => Ok(([(header::CONTENT_TYPE, "application/json")], "{}").into_response()),
        Endpoint::Catalog if is_read => listing::catalog(shared, &caller, query).await,
        Endpoint::Tags(name) if is_read => listing::tags(shared, name, query).await,
        Endpoint::Manifest(name, reference) if is_read => manifests::get(shared, name, reference, &headers).await,
        Endpoint::Manifest(name, reference) if method == Method::PUT => {
            manifests::put(shared, visit.origin(method, &headers), name, reference, query, &headers, body).await
        }
        Endpoint::Manifest(name, reference) if method == Method::DELETE => {
            manifests::delete(shared, visit.origin(method, &headers), name, reference, &headers).await
        }
        Endpoint::Referrers(name, subject) if is_read => listing::referrers(shared, name, subject, query).await,
        Endpoint::Blob(name, digest) if is_read => {
            blobs::get(shared, name, digest, &headers, method == Method::HEAD).await
        }
        Endpoint::Blob(name, digest) if method == Method::DELETE => blobs::delete(shared, name, digest).await,
        Endpoint::Uploads(name) if method == Method::POST => {
            blobs::begin(shared, caller, name, query, &headers, body).await
        }
        Endpoint::Upload(name, id) if is_read => blobs::status(shared, name, id).await,
        Endpoint::Upload(name, id) if method == Method::PATCH => blobs::append(shared, name, id, &headers, body).await,
        Endpoint::Upload(name, id) if method == Method::PUT => {
            blobs::finish(shared, name, id, query, &headers, body).await
        }
        Endpoint::Upload(name, id) if method == Method::DELETE => blobs::cancel(shared, name, id).await,
        _ => Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "the operation is not supported")),
    }
}

fn unknown() -> Refusal {
    Refusal::missing("NAME_UNKNOWN", "no such endpoint")
}

fn endpoint(path: &str) -> Result<Endpoint, Refusal> {
    match path {
        "/metrics" => return Ok(Endpoint::Metrics),
        "/healthz" => return Ok(Endpoint::Health),
        access::TOKEN_PATH => return Ok(Endpoint::Token),
        _ => {}
    }
    // The one character that clients escape although they need not is the colon of digests.
    let path = path.replace("%3A", ":").replace("%3a", ":");
    if let Some(page) = Page::at(&path) {
        return Ok(Endpoint::Page(page));
    }
    let rest = path.strip_prefix("/v2").ok_or_else(unknown)?;
    let rest = match rest {
        "" | "/" => return Ok(Endpoint::Base),
        _ => rest.strip_prefix('/').ok_or_else(unknown)?,
    };
    if rest == "_catalog" {
        return Ok(Endpoint::Catalog);
    }
    let name = |text: &str| {
        RepositoryName::parse(text).ok_or_else(|| Refusal::bad("NAME_INVALID", "the repository's name is not legal"))
    };
    let digest = |text: &str| text.parse::<Digest>().map_err(|_| Refusal::digest());
    if let Some(rest) = rest.strip_suffix("/tags/list") {
        return Ok(Endpoint::Tags(name(rest)?));
    }
    if let Some(rest) = rest.strip_suffix("/blobs/uploads/").or_else(|| rest.strip_suffix("/blobs/uploads")) {
        return Ok(Endpoint::Uploads(name(rest)?));
    }
    let (rest, last) = rest.rsplit_once('/').ok_or_else(unknown)?;
    if let Some(rest) = rest.strip_suffix("/blobs/uploads") {
        return Ok(Endpoint::Upload(name(rest)?, last.to_owned()));
    }
    match rest.rsplit_once('/') {
        Some((rest, "blobs")) => Ok(Endpoint::Blob(name(rest)?, digest(last)?)),
        Some((rest, "manifests")) => Ok(Endpoint::Manifest(name(rest)?, last.to_owned())),
        Some((rest, "referrers")) => Ok(Endpoint::Referrers(name(rest)?, digest(last)?)),
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_from_their_end() {
        let name = |text| RepositoryName::parse(text).unwrap();
        let digest = Digest::of(b"x");
        let check = |path: &str, expected: Endpoint| assert_eq!(endpoint(path).unwrap(), expected, "{path}");
        check("/v2", Endpoint::Base);
        check("/v2/", Endpoint::Base);
        check("/v2/a/b/tags/list", Endpoint::Tags(name("a/b")));
        check("/v2/tags/list/tags/list", Endpoint::Tags(name("tags/list")));
        check("/v2/manifests/manifests/latest", Endpoint::Manifest(name("manifests"), "latest".into()));
        check("/v2/a/blobs/uploads/", Endpoint::Uploads(name("a")));
        check("/v2/a/blobs/uploads/0f", Endpoint::Upload(name("a"), "0f".into()));
        check(&format!("/v2/a/blobs/{digest}"), Endpoint::Blob(name("a"), digest.clone()));
        check(&format!("/v2/a/blobs/sha256%3A{}", digest.hex()), Endpoint::Blob(name("a"), digest));
    }

    #[test]
    fn path_tricks_are_refused() {
        for path in [
            "/v2/../etc/manifests/x",
            "/v2/a/../b/manifests/x",
            "/v2/%2e%2e/manifests/x",
            "/v2/a%2f..%2fb/manifests/x",
            "/v2/_uploads/manifests/x",
            "/v2/a/_tags/manifests/x",
            "/v2/A/manifests/x",
            "/v2//manifests/x",
            "/v2/a:b/manifests/x",
            "/v2/a@b/manifests/x",
            "/v2/a/blobs/sha256:..",
            "/v1/a",
            "/v2x",
        ] {
            assert!(endpoint(path).is_err(), "{path}");
        }
    }
}
