//! File systems of ended containers that later ones start from. Each is a cache record, so that it stays for as long as it
//! is used, and goes as results of steps do when the store has to shrink.

use engine::Root;
use oci::{Digest, ImageConfig};
use store::{ActiveSnapshot, CacheRecord, Scope, Store, StoreError};

/// Seals what a container wrote and notes it under the key.
pub(crate) fn put(
    store: &Store,
    key: &Digest,
    active: ActiveSnapshot,
    config: &ImageConfig,
) -> Result<Root, StoreError> {
    let snapshot = active.commit()?;
    let root = Root { id: snapshot.to_string(), config: config.clone() };
    let result = serde_json::to_value(config).ok();
    store.cache_put(key, &CacheRecord { snapshot, parts: Vec::new(), made_ms: 0, result })?;
    Ok(root)
}

/// The root of a key, leased by the scope; `None` when there is none, or when it went meanwhile.
pub(crate) fn get(store: &Store, scope: &Scope, key: &Digest) -> Result<Option<Root>, StoreError> {
    let Some(record) = store.cache_get(key) else { return Ok(None) };
    let Some(config) = record.result.and_then(|value| serde_json::from_value(value).ok()) else { return Ok(None) };
    match scope.lease(&record.snapshot) {
        Ok(()) => Ok(Some(Root { id: record.snapshot.to_string(), config })),
        Err(StoreError::UnknownSnapshot(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
