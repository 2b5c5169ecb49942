//! What a name means at the upstream: tags are asked for again when they are no longer fresh, digests never change.

use std::sync::Arc;

use oci::{Digest, Reference};
use tokio::task::spawn_blocking;

use super::{Known, Stale, digest_key, tag_key};
use crate::{
    RegistryError, ResolvedManifest,
    server::{
        Shared,
        answer::Refusal,
        manifests::{Address, described, unknown},
        metrics::CacheAnswer,
        storage::{RepositoryName, Storage},
        tags::{Condition, TagFailure},
    },
};

/// Sees to it that what a repository of `upstream` says of `address` is here, as far as the upstream must and can be asked.
pub(in super::super) async fn refresh(
    shared: &Arc<Shared>,
    upstream: &Known,
    name: &RepositoryName,
    address: &Address,
) -> Result<Option<Stale>, Refusal> {
    let outcome = match address {
        Address::Digest(digest) => by_digest(shared, upstream, name, digest).await.map(|answer| (answer, None)),
        Address::Tag(tag) => by_tag(shared, upstream, name, tag).await,
    };
    let (answer, stale) = outcome?;
    shared.metrics.cache(upstream.options.address.host(), "manifest", answer);
    Ok(stale)
}

async fn by_digest(
    shared: &Arc<Shared>,
    upstream: &Known,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<CacheAnswer, Refusal> {
    let key = digest_key(name, digest);
    let turn = shared.upstreams.turns.of(&key);
    let _turn = turn.lock().await;
    if has_manifest(shared, name, digest).await? {
        return Ok(CacheAnswer::Hit);
    }
    if upstream.is_absent(&key) {
        return Err(unknown());
    }
    if upstream.is_down() {
        return Err(upstream.down());
    }
    let remote = upstream.must_remote(name)?.with_digest(digest.clone());
    match fetch(shared, upstream, &remote).await {
        Ok(resolved) => keep(shared, name, resolved, None).await?,
        Err(error) if upstream.note_failure(&key, &error) => return Err(unknown()),
        Err(error) => return Err(upstream.refusal(&error)),
    }
    Ok(CacheAnswer::Miss)
}

async fn by_tag(
    shared: &Arc<Shared>,
    upstream: &Known,
    name: &RepositoryName,
    tag: &str,
) -> Result<(CacheAnswer, Option<Stale>), Refusal> {
    let key = tag_key(name, tag);
    let turn = shared.upstreams.turns.of(&key);
    let _turn = turn.lock().await;
    let here = tagged_here(shared, name, tag).await?;
    if here.is_some() && upstream.is_fresh(&key) {
        return Ok((CacheAnswer::Hit, None));
    }
    if here.is_none() && upstream.is_absent(&key) {
        return Err(unknown());
    }
    if upstream.is_down() {
        return if here.is_some() { Ok((CacheAnswer::Stale, Some(Stale))) } else { Err(upstream.down()) };
    }
    let remote = upstream.must_remote(name)?.with_tag(tag);
    let answer = match renew(shared, upstream, name, tag, &remote, here.as_ref()).await {
        Ok(answer) => answer?,
        Err(error) if upstream.note_failure(&key, &error) => {
            // It was removed there, and so it is here; its manifest can still be had by digest.
            if here.is_some() {
                let (shared, name, tag) = (Arc::clone(shared), name.clone(), tag.to_owned());
                spawn_blocking(move || shared.storage.delete_tag(&name, &tag)).await??;
            }
            return Err(unknown());
        }
        Err(_) if here.is_some() => return Ok((CacheAnswer::Stale, Some(Stale))),
        Err(error) => return Err(upstream.refusal(&error)),
    };
    upstream.note_checked(&key);
    Ok((answer, None))
}

/// Asks what a tag names there, and takes that over when it is news. The outer failure is the upstream's, the inner ours.
async fn renew(
    shared: &Arc<Shared>,
    upstream: &Known,
    name: &RepositoryName,
    tag: &str,
    remote: &Reference,
    here: Option<&Digest>,
) -> Result<Result<CacheAnswer, Refusal>, RegistryError> {
    let found = upstream.options.client.resolve(remote).await?;
    if here == Some(&found.digest) {
        return Ok(Ok(CacheAnswer::Revalidated));
    }
    // By the digest that was just told: that is what is checked.
    let resolved = fetch(shared, upstream, &remote.with_digest(found.digest)).await?;
    Ok(keep(shared, name, resolved, Some(tag.to_owned())).await.map(|()| CacheAnswer::Miss))
}

async fn fetch(shared: &Arc<Shared>, upstream: &Known, remote: &Reference) -> Result<ResolvedManifest, RegistryError> {
    upstream.options.client.fetch_manifest(remote, shared.options.manifest_bytes_max).await
}

/// Keeps a manifest whose parts may still be missing: they come when they are asked for.
async fn keep(
    shared: &Arc<Shared>,
    name: &RepositoryName,
    resolved: ResolvedManifest,
    tag: Option<String>,
) -> Result<(), Refusal> {
    let (shared, name) = (Arc::clone(shared), name.clone());
    spawn_blocking(move || {
        let ResolvedManifest { descriptor, bytes, document } = resolved;
        let manifest = described(&document, descriptor.media_type, descriptor.digest, bytes);
        let held = shared.storage.put_manifest(&name, &manifest, &[], &[])?;
        let _held = held.expect("no part was asked for");
        let tags: Vec<String> = tag.into_iter().collect();
        // Rules for tags are for those who push: a copy follows its upstream.
        let written = shared
            .storage
            .set_tags(&name, &tags, &manifest.digest, &Condition::None, |_| Ok(Ok::<(), std::convert::Infallible>(())));
        written.map_err(|failure| match failure {
            TagFailure::Storage(error) => error.into(),
            TagFailure::Unmet(..) => unreachable!("there is no condition"),
            TagFailure::Refused(never) => match never {},
        })
    })
    .await?
}

async fn has_manifest(shared: &Arc<Shared>, name: &RepositoryName, digest: &Digest) -> Result<bool, Refusal> {
    let (shared, name, digest) = (Arc::clone(shared), name.clone(), digest.clone());
    spawn_blocking(move || has(&shared.storage, &name, &digest)).await?
}

/// What a tag names here, if that can be answered.
async fn tagged_here(shared: &Arc<Shared>, name: &RepositoryName, tag: &str) -> Result<Option<Digest>, Refusal> {
    let (shared, name, tag) = (Arc::clone(shared), name.clone(), tag.to_owned());
    spawn_blocking(move || {
        let Some(digest) = shared.storage.tag(&name, &tag)? else { return Ok(None) };
        Ok(has(&shared.storage, &name, &digest)?.then_some(digest))
    })
    .await?
}

/// A damaged copy is none: it is fetched again.
fn has(storage: &Storage, name: &RepositoryName, digest: &Digest) -> Result<bool, Refusal> {
    match storage.manifest(name, digest) {
        Ok(found) => Ok(found.is_some()),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => Ok(false),
        Err(error) => Err(error.into()),
    }
}
