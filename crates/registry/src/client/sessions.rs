//! Uploads that were begun: noted in the store, so that a push after a killed one goes on where that was.

use oci::{Descriptor, Reference};
use store::Store;
use url::Url;

/// Namespace of the notes.
const NAMESPACE: &str = "uploads";
/// Smaller blobs are sent again sooner than the registry is asked what it has of them.
const BYTES_MIN: u64 = 4 * 1024 * 1024;
/// Longest URL of an upload that is kept; registries put their state into it.
const URL_BYTES_MAX: usize = 16 * 1024;

/// The note about one blob on its way to one repository.
pub(super) struct SessionNote<'a> {
    store: Option<&'a Store>,
    key: String,
}

impl<'a> SessionNote<'a> {
    /// Without a store, nothing is noted.
    pub(super) fn new(store: Option<&'a Store>, repository: &Reference, blob: &Descriptor) -> Self {
        let store = store.filter(|_| blob.size >= BYTES_MIN);
        Self { store, key: format!("{}@{}", repository.repository(), blob.digest) }
    }

    /// Where an earlier upload of it goes on, if there is one.
    pub(super) fn recall(&self) -> Option<Url> {
        let bytes = self.store?.memo_get(NAMESPACE, &self.key)?;
        std::str::from_utf8(&bytes).ok()?.parse().ok()
    }

    /// An upload was begun, or goes on elsewhere.
    pub(super) fn write(&self, location: &Url) {
        if let Some(store) = self.store.filter(|_| location.as_str().len() <= URL_BYTES_MAX) {
            // Without the note, a killed push sends the blob again.
            let _ = store.memo_put(NAMESPACE, &self.key, location.as_str().as_bytes());
        }
    }

    /// It is done, or lost.
    pub(super) fn forget(&self) {
        if let Some(store) = self.store {
            store.memo_forget(NAMESPACE, &self.key);
        }
    }
}
