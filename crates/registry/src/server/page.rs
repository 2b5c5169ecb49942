//! Pages for people: what repositories there are, their tags, what an image is made of. Plain HTML without scripts, made here;
//! they show what is in the storage and ask no upstream.

mod image;
mod text;

use std::{path::Path, sync::Arc};

use askama::Template;
use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use oci::ManifestOrIndex;
use tokio::task::spawn_blocking;

use super::{
    Shared,
    answer::Refusal,
    hooks,
    manifests::Address,
    routes::Query,
    storage::{RepositoryName, tag_key},
};

/// Rows of one page.
const ROWS_MAX: usize = 100;
/// Nothing but our own style is loaded, nothing is run, nobody frames us.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A page that a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Repositories,
    Repository(RepositoryName),
    /// By tag or digest.
    Image(RepositoryName, String),
    Webhooks,
    Style,
}

impl Page {
    /// The page of a path, if it is one's.
    pub(super) fn at(path: &str) -> Option<Self> {
        match path {
            "/" => return Some(Self::Repositories),
            "/style.css" => return Some(Self::Style),
            "/ui/-/webhooks" => return Some(Self::Webhooks),
            _ => {}
        }
        let rest = path.strip_prefix("/ui/")?;
        // A name has neither of these characters.
        match rest.find(['@', ':']) {
            Some(at) => Some(Self::Image(RepositoryName::parse(&rest[..at])?, rest[at + 1..].to_owned())),
            None => RepositoryName::parse(rest).map(Self::Repository),
        }
    }

    /// The repository that it shows.
    pub(super) fn name(&self) -> Option<&RepositoryName> {
        match self {
            Self::Repository(name) | Self::Image(name, _) => Some(name),
            Self::Repositories | Self::Webhooks | Self::Style => None,
        }
    }
}

/// Whether a repository may be shown to whoever asks.
pub(super) type MaySee = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// `GET` of a page.
pub(super) async fn get(
    shared: Arc<Shared>,
    page: Page,
    query: Query,
    headers: &HeaderMap,
    may_see: MaySee,
) -> Result<Response, Refusal> {
    let host = text::host(headers.get(header::HOST).and_then(|host| host.to_str().ok()));
    let last = query.get("last").map(str::to_owned);
    let html = match page {
        Page::Style => {
            let style =
                ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("../../templates/style.css"));
            return Ok(guarded(style.into_response()));
        }
        Page::Repositories => spawn_blocking(move || repositories(&shared, last.as_deref(), &*may_see)).await??,
        Page::Repository(name) => spawn_blocking(move || repository(&shared, &name, last)).await??,
        Page::Image(name, reference) => {
            let address = Address::parse(&reference)?;
            spawn_blocking(move || image::page(&shared, &name, address, &host)).await??
        }
        Page::Webhooks => spawn_blocking(move || webhooks(shared.storage.local(), &*may_see)).await??,
    };
    Ok(guarded((StatusCode::OK, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response()))
}

fn guarded(mut response: Response) -> Response {
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (header::CACHE_CONTROL, "no-cache"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn render(page: &impl Template) -> Result<String, Refusal> {
    page.render().map_err(|_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "the page cannot be made"))
}

/// The first rows after `last`, and where the next page begins.
fn cut(mut names: Vec<String>, last: Option<&str>) -> (Vec<String>, Option<String>) {
    if let Some(last) = last {
        names.retain(|name| name.as_str() > last);
    }
    let is_more = names.len() > ROWS_MAX;
    names.truncate(ROWS_MAX);
    let next = names.last().filter(|_| is_more).cloned();
    (names, next)
}

#[derive(Template)]
#[template(path = "repositories.html")]
struct Repositories {
    rows: Vec<RepositoryRow>,
    next: Option<String>,
    has_webhooks: bool,
}

struct RepositoryRow {
    name: String,
    tags: usize,
    upstream: String,
}

fn repositories(shared: &Shared, last: Option<&str>, may_see: &dyn Fn(&str) -> bool) -> Result<String, Refusal> {
    let mut names = shared.storage.repositories()?;
    names.retain(|name| may_see(name));
    let (names, next) = cut(names, last);
    let mut rows = Vec::new();
    for name in names {
        let Some(parsed) = RepositoryName::parse(&name) else { continue };
        let tags = shared.storage.tags(&parsed)?.unwrap_or_default().len();
        rows.push(RepositoryRow { tags, upstream: upstream(shared, &parsed), name });
    }
    render(&Repositories { rows, next, has_webhooks: !shared.options.webhooks.is_empty() })
}

fn upstream(shared: &Shared, name: &RepositoryName) -> String {
    shared.upstreams.of(name).map_or_else(String::new, |known| known.options.address.host().to_owned())
}

#[derive(Template)]
#[template(path = "repository.html")]
struct Repository<'a> {
    name: &'a str,
    upstream: String,
    total: usize,
    after: Option<String>,
    rows: Vec<TagRow>,
    next: Option<String>,
}

struct TagRow {
    tag: String,
    digest: String,
    size: String,
    platforms: String,
    written: String,
}

fn repository(shared: &Shared, name: &RepositoryName, last: Option<String>) -> Result<String, Refusal> {
    let tags = shared.storage.tags(name)?;
    let tags = tags.ok_or_else(|| Refusal::missing("NAME_UNKNOWN", "nothing was pushed to this repository"))?;
    let total = tags.len();
    let (tags, next) = cut(tags, last.as_deref());
    let mut rows = Vec::new();
    for tag in tags {
        // One that was deleted meanwhile is none.
        let Some(digest) = shared.storage.tag(name, &tag)? else { continue };
        let written = shared.storage.backend.stat(&tag_key(name, &tag))?.map(|stat| stat.touched);
        let kept = shared.storage.manifest(name, &digest).ok().flatten();
        let document = kept.and_then(|kept| ManifestOrIndex::parse(&kept.bytes).ok());
        let (size, platforms) = match &document {
            Some(document) => image::in_short(document),
            None => (String::new(), "it cannot be read".to_owned()),
        };
        let written = written.map_or_else(String::new, text::time);
        rows.push(TagRow { tag, digest: digest.short().to_owned(), size, platforms, written });
    }
    let upstream = upstream(shared, name);
    render(&Repository { name: name.as_str(), upstream, total, after: last, rows, next })
}

#[derive(Template)]
#[template(path = "webhooks.html")]
struct Webhooks {
    rows: Vec<DeliveryRow>,
    rows_max: usize,
}

struct DeliveryRow {
    webhook: String,
    state: &'static str,
    summary: String,
    since: String,
    attempts: u32,
    answer: String,
    id: String,
}

fn webhooks(directory: &Path, may_see: &dyn Fn(&str) -> bool) -> Result<String, Refusal> {
    let mut rows = Vec::new();
    for state in hooks::list(directory)? {
        let failed = state.failed.into_iter().map(|delivery| ("failed", delivery));
        for (word, delivery) in failed.chain(state.pending.into_iter().map(|delivery| ("pending", delivery))) {
            if rows.len() == ROWS_MAX || !may_see(&delivery.repository) {
                continue;
            }
            let answer = delivery.answer.map_or_else(String::new, |answer| match answer.status {
                Some(status) => format!("{status} {}", answer.text),
                None => answer.text,
            });
            let since = text::time(std::time::UNIX_EPOCH + std::time::Duration::from_millis(delivery.created_ms));
            let (webhook, summary, attempts) = (state.name.clone(), delivery.summary, delivery.attempts);
            rows.push(DeliveryRow { webhook, state: word, summary, since, attempts, answer, id: delivery.id });
        }
    }
    render(&Webhooks { rows, rows_max: ROWS_MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_told_by_their_paths() {
        let name = |text| RepositoryName::parse(text).unwrap();
        assert_eq!(Page::at("/"), Some(Page::Repositories));
        assert_eq!(Page::at("/ui/a/b"), Some(Page::Repository(name("a/b"))));
        assert_eq!(Page::at("/ui/a/b:1.0"), Some(Page::Image(name("a/b"), "1.0".into())));
        assert_eq!(Page::at("/ui/a@sha256:00"), Some(Page::Image(name("a"), "sha256:00".into())));
        for path in ["/ui", "/ui/", "/ui/../x", "/ui/A", "/ui/-/x", "/index.html"] {
            assert_eq!(Page::at(path), None, "{path}");
        }
    }
}
