//! What is asked for all the time, in memory: manifests, and what tags name. One server writes to a storage, so whatever it
//! writes it can note here.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use oci::Digest;

use super::storage::RepositoryName;

/// Bytes of manifests and names kept: some thousand manifests. Beyond it everything is forgotten and read again.
const BYTES_MAX: usize = 8 * 1024 * 1024;
/// What an entry costs beside its content.
const ENTRY_BYTES: usize = 256;
/// A larger manifest would push out a hundred others.
const MANIFEST_BYTES_MAX: usize = 256 * 1024;
/// That a manifest is in use is written down this often at most: less than any sensible grace of garbage collection.
const USE_NOTED_EVERY: Duration = Duration::from_secs(60);

/// A manifest as it is answered.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) bytes: Bytes,
    /// When its last use was written down, in seconds since 1970.
    use_noted_s: AtomicU64,
}

impl Kept {
    pub(super) fn new(digest: Digest, media_type: String, bytes: Bytes) -> Arc<Self> {
        Arc::new(Self { digest, media_type, bytes, use_noted_s: AtomicU64::new(0) })
    }

    /// Whether its being asked for now should be written down; says so once.
    pub(super) fn is_use_news(&self, now: SystemTime) -> bool {
        let now_s = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let last_s = self.use_noted_s.load(Ordering::Relaxed);
        now_s.saturating_sub(last_s) >= USE_NOTED_EVERY.as_secs()
            && self.use_noted_s.compare_exchange(last_s, now_s, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[derive(Debug, Default)]
pub(super) struct Cache {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    repositories: HashMap<RepositoryName, Known>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Known {
    tags: HashMap<String, Digest>,
    manifests: HashMap<Digest, Arc<Kept>>,
}

impl Cache {
    /// A manifest by its digest.
    pub(super) fn manifest(&self, name: &RepositoryName, digest: &Digest) -> Option<Arc<Kept>> {
        self.lock().repositories.get(name)?.manifests.get(digest).cloned()
    }

    /// A manifest by a tag.
    pub(super) fn tagged(&self, name: &RepositoryName, tag: &str) -> Option<Arc<Kept>> {
        let state = self.lock();
        let known = state.repositories.get(name)?;
        known.manifests.get(known.tags.get(tag)?).cloned()
    }

    /// What a tag names.
    pub(super) fn tag(&self, name: &RepositoryName, tag: &str) -> Option<Digest> {
        self.lock().repositories.get(name)?.tags.get(tag).cloned()
    }

    pub(super) fn keep(&self, name: &RepositoryName, manifest: &Arc<Kept>) {
        if manifest.bytes.len() > MANIFEST_BYTES_MAX {
            return;
        }
        let mut state = self.lock();
        state.make_room(manifest.bytes.len() + ENTRY_BYTES);
        let known = state.repositories.entry(name.clone()).or_default();
        known.manifests.insert(manifest.digest.clone(), Arc::clone(manifest));
    }

    /// Notes what tags name now, all at once. Called while no other request writes tags of the repository.
    pub(super) fn keep_tags(&self, name: &RepositoryName, tags: &[String], digest: &Digest) {
        let mut state = self.lock();
        state.make_room(tags.len() * ENTRY_BYTES);
        let known = state.repositories.entry(name.clone()).or_default();
        known.tags.extend(tags.iter().map(|tag| (tag.clone(), digest.clone())));
    }

    pub(super) fn forget_tag(&self, name: &RepositoryName, tag: &str) {
        if let Some(known) = self.lock().repositories.get_mut(name) {
            known.tags.remove(tag);
        }
    }

    pub(super) fn forget_manifest(&self, name: &RepositoryName, digest: &Digest) {
        if let Some(known) = self.lock().repositories.get_mut(name) {
            known.manifests.remove(digest);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn make_room(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes > BYTES_MAX {
            self.repositories.clear();
            self.bytes = bytes;
        }
    }
}
