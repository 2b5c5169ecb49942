//! Lists of the upstream, handed on; what is here when it cannot be asked.

use std::sync::Arc;

use oci::{Descriptor, Digest};

use super::{Known, Stale, tag_key};
use crate::server::{Shared, answer::Refusal, metrics::CacheAnswer, storage::RepositoryName};

/// Tags of a repository there, sorted; `None` when the upstream cannot be asked.
pub(in super::super) async fn tags(
    shared: &Arc<Shared>,
    upstream: &Known,
    name: &RepositoryName,
) -> Result<Option<Vec<String>>, Refusal> {
    // No tag is called so.
    let key = tag_key(name, "");
    if upstream.is_absent(&key) {
        return Err(Refusal::missing("NAME_UNKNOWN", "the upstream does not have this repository"));
    }
    if upstream.is_down() {
        return Ok(None);
    }
    match upstream.options.client.list_tags(&upstream.must_remote(name)?).await {
        Ok(mut tags) => {
            tags.sort();
            shared.metrics.cache(upstream.options.address.host(), "tags", CacheAnswer::Miss);
            Ok(Some(tags))
        }
        Err(error) if upstream.note_failure(&key, &error) => Err(upstream.refusal(&error)),
        Err(_) => Ok(None),
    }
}

/// What refers to a manifest there; `Stale` when the upstream cannot be asked.
pub(in super::super) async fn referrers(
    shared: &Arc<Shared>,
    upstream: &Known,
    name: &RepositoryName,
    subject: &Digest,
) -> Result<Result<Vec<Descriptor>, Stale>, Refusal> {
    if upstream.is_down() {
        return Ok(Err(Stale));
    }
    let subject = upstream.must_remote(name)?.with_digest(subject.clone());
    match upstream.options.client.referrers(&subject, None).await {
        Ok(mut found) => {
            found.sort_by(|one, other| one.digest.cmp(&other.digest));
            shared.metrics.cache(upstream.options.address.host(), "referrers", CacheAnswer::Miss);
            Ok(Ok(found))
        }
        Err(error) => {
            upstream.note_failure(&format!("{}@referrers", name.as_str()), &error);
            Ok(Err(Stale))
        }
    }
}
