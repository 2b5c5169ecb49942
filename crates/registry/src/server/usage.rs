//! How much room repositories take: counted when a quota first asks, kept up to date from then on.

use std::{
    collections::HashMap,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use oci::Digest;

use super::{
    answer::Refusal,
    rules::Rules,
    storage::{RepositoryName, Storage, blob_link, content, repository},
};

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Usage {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    repositories: HashMap<RepositoryName, u64>,
    total: Option<u64>,
}

impl Usage {
    /// A repository has a blob more.
    pub(super) fn linked(&self, name: &RepositoryName, size_bytes: u64) {
        if let Some(bytes) = self.lock().repositories.get_mut(name) {
            *bytes += size_bytes;
        }
    }

    /// There is more content.
    pub(super) fn stored(&self, size_bytes: u64) {
        if let Some(total) = &mut self.lock().total {
            *total += size_bytes;
        }
    }

    /// Something was removed: all is counted again when it is asked for.
    pub(super) fn forget(&self) {
        *self.lock() = Known::default();
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage {
    /// Refuses what would not fit. A blob that is here already takes no room; one whose size is not known yet (`None`)
    /// is judged when it has arrived.
    pub(super) fn check_room(
        &self,
        rules: &Rules,
        name: &RepositoryName,
        digest: &Digest,
        size_bytes: Option<u64>,
    ) -> Result<(), Refusal> {
        let size_bytes = match size_bytes {
            Some(size_bytes) => size_bytes,
            None => self.backend.stat(&content(digest))?.map_or(0, |stat| stat.size_bytes),
        };
        let limit = rules.of(name.as_str()).and_then(|rules| rules.bytes_max);
        if let Some(limit) = limit
            && self.backend.stat(&blob_link(name, digest))?.is_none()
        {
            let used = self.repository_bytes(name)?;
            check(&format!("repository `{}`", name.as_str()), used, size_bytes, limit)?;
        }
        if let Some(limit) = rules.bytes_max
            && self.backend.stat(&content(digest))?.is_none()
        {
            check("the registry", self.total_bytes()?, size_bytes, limit)?;
        }
        Ok(())
    }

    fn repository_bytes(&self, name: &RepositoryName) -> io::Result<u64> {
        if let Some(bytes) = self.usage.lock().repositories.get(name) {
            return Ok(*bytes);
        }
        let mut bytes = 0;
        for hex in self.backend.list(&format!("{}/_blobs", repository(name)))? {
            bytes += self.backend.stat(&format!("blobs/sha256/{hex}"))?.map_or(0, |stat| stat.size_bytes);
        }
        self.usage.lock().repositories.insert(name.clone(), bytes);
        Ok(bytes)
    }

    fn total_bytes(&self) -> io::Result<u64> {
        if let Some(total) = self.usage.lock().total {
            return Ok(total);
        }
        let mut total = 0;
        for hex in self.backend.list("blobs/sha256")? {
            total += self.backend.stat(&format!("blobs/sha256/{hex}"))?.map_or(0, |stat| stat.size_bytes);
        }
        self.usage.lock().total = Some(total);
        Ok(total)
    }
}

fn check(what: &str, used: u64, more: u64, limit: u64) -> Result<(), Refusal> {
    if used.saturating_add(more) <= limit {
        return Ok(());
    }
    let message = format!("{what} has {used} of {limit} bytes, and this blob has {more}");
    Err(Refusal::new(axum::http::StatusCode::FORBIDDEN, "DENIED", message))
}
