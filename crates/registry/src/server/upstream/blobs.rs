//! Blobs that are still at the upstream: handed on while they arrive, or told of by their size.

use std::sync::Arc;

use oci::Digest;
use tokio::task::spawn_blocking;

use super::{Known, digest_key, download::Download};
use crate::server::{Shared, answer::Refusal, blobs::unknown, metrics::CacheAnswer, storage::RepositoryName};

/// A blob that is not here yet.
pub(in super::super) struct Coming {
    /// Its size, as the upstream tells it.
    pub(in super::super) size_bytes: u64,
    /// Its download, unless only the size was asked for.
    pub(in super::super) download: Option<Arc<Download>>,
}

/// Finds a blob of a repository of `upstream`; `None` when it is here.
pub(in super::super) async fn find(
    shared: &Arc<Shared>,
    upstream: &Known,
    name: &RepositoryName,
    digest: &Digest,
    is_head: bool,
) -> Result<Option<Coming>, Refusal> {
    let tell = |answer| shared.metrics.cache(upstream.options.address.host(), "blob", answer);
    let key = digest_key(name, digest);
    let turn = shared.upstreams.turns.of(&key);
    let _turn = turn.lock().await;
    if let Some(download) = shared.upstreams.downloads.running(&key) {
        tell(CacheAnswer::Hit);
        return Ok(Some(Coming { size_bytes: download.size_bytes, download: Some(download) }));
    }
    if is_here(shared, name, digest).await? {
        tell(CacheAnswer::Hit);
        return Ok(None);
    }
    if upstream.is_absent(&key) {
        return Err(unknown());
    }
    if upstream.is_down() {
        return Err(upstream.down());
    }
    let remote = upstream.must_remote(name)?;
    let size_bytes = match upstream.options.client.blob_size(&remote, digest).await {
        Ok(size_bytes) => size_bytes,
        Err(error) if upstream.note_failure(&key, &error) => return Err(unknown()),
        Err(error) => return Err(upstream.refusal(&error)),
    };
    // The upstream says that its repository has it: what came here once need not come again. What was pushed here is not
    // given for its word.
    if link(shared, name, digest, size_bytes).await? {
        tell(CacheAnswer::Hit);
        return Ok(None);
    }
    if is_head {
        return Ok(Some(Coming { size_bytes, download: None }));
    }
    tell(CacheAnswer::Miss);
    let begun = Download::begin(shared, upstream, name, digest, remote, size_bytes).await?;
    Ok(Some(Coming { size_bytes, download: Some(begun) }))
}

async fn is_here(shared: &Arc<Shared>, name: &RepositoryName, digest: &Digest) -> Result<bool, Refusal> {
    let (shared, name, digest) = (Arc::clone(shared), name.clone(), digest.clone());
    Ok(spawn_blocking(move || shared.storage.blob_size(&name, &digest)).await??.is_some())
}

/// Gives the repository what another copy of an upstream's repository brought here; `false` when none did.
async fn link(shared: &Arc<Shared>, name: &RepositoryName, digest: &Digest, size_bytes: u64) -> Result<bool, Refusal> {
    let (shared, name, digest) = (Arc::clone(shared), name.clone(), digest.clone());
    spawn_blocking(move || {
        shared.storage.check_room(&shared.options.rules, &name, &digest, Some(size_bytes))?;
        Ok(shared.storage.mount(&name, None, &digest, &|from| shared.upstreams.of(from).is_some())?)
    })
    .await?
}
