//! Lists: tags, repositories, referrers; in pages where they are long.

use std::sync::Arc;

use axum::{
    http::{HeaderName, header},
    response::{IntoResponse, Response},
};
use oci::{Digest, Index, media_type};
use serde_json::json;
use tokio::task::spawn_blocking;

use super::{
    Shared,
    access::Caller,
    answer::Refusal,
    routes::Query,
    storage::RepositoryName,
    upstream::{self, Stale},
};

/// Referrers of one page: with their annotations they stay below what clients read as a manifest (4 MiB), as a rule.
const REFERRERS_MAX: usize = 1000;

/// `GET` of the tag list, in pages when asked for.
pub(super) async fn tags(shared: Arc<Shared>, name: RepositoryName, query: Query) -> Result<Response, Refusal> {
    let upstream = shared.upstreams.of(&name);
    let there = match upstream {
        Some(upstream) => upstream::tags(&shared, upstream, &name).await?,
        None => None,
    };
    let stale = (upstream.is_some() && there.is_none()).then_some(Stale);
    let tags = match there {
        Some(tags) => tags,
        None => {
            let (shared, repository) = (Arc::clone(&shared), name.clone());
            let tags = spawn_blocking(move || shared.storage.tags(&repository)).await??;
            tags.ok_or_else(|| Refusal::missing("NAME_UNKNOWN", "nothing was pushed to this repository"))?
        }
    };
    let (page, next) = page(tags, &query)?;
    let path = format!("/v2/{}/tags/list", name.as_str());
    let mut response = listing(json!({ "name": name.as_str(), "tags": page }), &path, next);
    if let Some(stale) = stale {
        stale.mark(&mut response);
    }
    Ok(response)
}

/// `GET` of the names of the repositories that the caller may read, in pages when asked for.
pub(super) async fn catalog(shared: Arc<Shared>, caller: &Caller, query: Query) -> Result<Response, Refusal> {
    let mut names = spawn_blocking(move || shared.storage.repositories()).await??;
    names.retain(|name| caller.may_see(name));
    let (page, next) = page(names, &query)?;
    Ok(listing(json!({ "repositories": page }), "/v2/_catalog", next))
}

/// `GET` of what refers to a manifest (distribution-spec, "Listing Referrers").
pub(super) async fn referrers(
    shared: Arc<Shared>,
    name: RepositoryName,
    subject: Digest,
    query: Query,
) -> Result<Response, Refusal> {
    let last = query.get("last").map(|text| text.parse().map_err(|_| Refusal::digest())).transpose()?;
    let count = query.count()?.map_or(REFERRERS_MAX, |count| count.clamp(1, REFERRERS_MAX));
    let path = format!("/v2/{}/referrers/{subject}", name.as_str());
    let wanted = query.get("artifactType").map(str::to_owned);
    let kind = wanted.clone();
    let is_wanted = move |descriptor: &oci::Descriptor| kind.is_none() || descriptor.artifact_type == kind;
    let there = match shared.upstreams.of(&name) {
        Some(upstream) => Some(upstream::referrers(&shared, upstream, &name, &subject).await?),
        None => None,
    };
    let is_stale = matches!(there, Some(Err(Stale)));
    let (descriptors, is_more) = match there {
        Some(Ok(mut found)) => {
            found.retain(|it| is_wanted(it) && last.as_ref().is_none_or(|last| it.digest > *last));
            let is_more = found.len() > count;
            found.truncate(count);
            (found, is_more)
        }
        _ => {
            let shared = Arc::clone(&shared);
            spawn_blocking(move || shared.storage.referrers(&name, &subject, last.as_ref(), count, &is_wanted))
                .await??
        }
    };
    let next = descriptors.last().filter(|_| is_more).map(|last| last.digest.to_string());
    let mut response =
        ([(header::CONTENT_TYPE, media_type::INDEX)], oci::to_json(&Index::of(descriptors))).into_response();
    if is_stale {
        Stale.mark(&mut response);
    }
    if wanted.is_some() {
        let applied = "artifactType".parse().expect("this is ASCII");
        response.headers_mut().insert(HeaderName::from_static("oci-filters-applied"), applied);
    }
    if let Some(last) = next {
        let kind = wanted.iter().map(|kind| ("artifactType", kind.as_str()));
        link(&mut response, &path, [("n", count.to_string().as_str()), ("last", &last)].into_iter().chain(kind));
    }
    Ok(response)
}

/// Where the next page begins: after this name, with so many names.
type Next = (String, usize);

/// `n` names after `last`, and the name to go on after, when there are more.
fn page(mut names: Vec<String>, query: &Query) -> Result<(Vec<String>, Option<Next>), Refusal> {
    if let Some(last) = query.get("last") {
        names.retain(|name| name.as_str() > last);
    }
    let Some(count) = query.count()? else { return Ok((names, None)) };
    let is_more = names.len() > count;
    names.truncate(count);
    let next = names.last().filter(|_| is_more).map(|last| (last.clone(), count));
    Ok((names, next))
}

fn listing(document: serde_json::Value, path: &str, next: Option<Next>) -> Response {
    let mut response = ([(header::CONTENT_TYPE, "application/json")], document.to_string()).into_response();
    if let Some((last, count)) = next {
        link(&mut response, path, [("n", count.to_string().as_str()), ("last", &last)].into_iter());
    }
    response
}

/// Names the next page (RFC 8288).
fn link<'a>(response: &mut Response, path: &str, query: impl Iterator<Item = (&'a str, &'a str)>) {
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    let value = format!("<{path}?{query}>; rel=\"next\"");
    response.headers_mut().insert(header::LINK, value.parse().expect("encoded queries are ASCII"));
}
