//! What can go wrong in the store itself.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
};

use oci::{DiffId, Digest};

use crate::SnapshotId;

/// An operation on the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file operation; its path is in the source.
    #[error("the store cannot be read or written")]
    File(#[from] io::Error),
    /// A file operation that has no path of its own in the source.
    #[error("cannot {action} {}", path.display())]
    At {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The directory holds a store of another format.
    #[error("{} holds a store of another format ({found:?}); remove it or name another directory", path.display())]
    Format {
        /// The store's directory.
        path: PathBuf,
        /// What its format file says.
        found: String,
    },
    /// A blob's bytes do not have its digest. It was moved aside, so that it counts as absent.
    #[error("blob {digest} of the store is corrupt (its bytes have {actual}); it was moved to {}", aside.display())]
    Corrupt {
        /// The blob's name.
        digest: Digest,
        /// What its bytes have.
        actual: Digest,
        /// Where it is now.
        aside: PathBuf,
    },
    /// Bytes that were written are not those that were announced. Nothing was kept.
    #[error("expected {expected} of {expected_bytes} bytes, received {actual} of {actual_bytes} bytes")]
    Mismatch {
        /// Announced digest.
        expected: Digest,
        /// Announced size.
        expected_bytes: u64,
        /// Digest of what came.
        actual: Digest,
        /// Size of what came.
        actual_bytes: u64,
    },
    /// A blob that should be small is not.
    #[error("blob {digest} has {size_bytes} bytes, more than the {limit_bytes} that are read at once")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// Its size.
        size_bytes: u64,
        /// The caller's limit.
        limit_bytes: u64,
    },
    /// A blob is needed and not there.
    #[error("blob {0} is not in the store")]
    MissingBlob(Digest),
    /// No such snapshot (any more).
    #[error("snapshot {0} is not in the store")]
    UnknownSnapshot(SnapshotId),
    /// No such image (any more).
    #[error("image {0} is not in the store")]
    UnknownImage(Digest),
    /// A record of the store is no longer readable.
    #[error("{} is not what the store wrote there", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The config lists other layers than are given.
    #[error("the image config lists {listed} layers where {given} are given")]
    LayerCount {
        /// In the config.
        listed: usize,
        /// Given.
        given: usize,
    },
    /// A layer came from elsewhere, and its original bytes are gone: a new tar would have another digest.
    #[error("the bytes of layer {diff_id} are gone from the store; pull or load its image again")]
    LayerGone {
        /// The layer.
        diff_id: DiffId,
    },
    /// A snapshot holds something that no layer can carry.
    #[error("cannot make a layer of {path:?}: {reason}")]
    Unsealable {
        /// Path within the image.
        path: String,
        /// Why not.
        reason: &'static str,
    },
    /// The caller wanted it to stop.
    #[error("it was stopped")]
    Stopped,
    /// An identifier prefix fits several images.
    #[error("`{prefix}` fits {count} images; give more digits")]
    Ambiguous {
        /// What was asked.
        prefix: String,
        /// How many fit.
        count: usize,
    },
}

impl StoreError {
    /// Whether the cause is a full disk or an exhausted quota, so that the hint can say what to free.
    pub fn is_no_space(&self) -> bool {
        is_no_space(self)
    }

    pub(crate) fn at(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(rustix::io::Errno) -> Self {
        let path = path.as_ref().to_owned();
        move |errno| Self::At { action, path, source: errno.into() }
    }
}

/// Looks through the chain of causes.
pub(crate) fn is_no_space(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            let kind = io.kind();
            if matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
                return true;
            }
            // An `io::Error` that wraps another error hands out that one's source, so look at it directly.
            if let Some(inner) = io.get_ref()
                && is_no_space(inner)
            {
                return true;
            }
        }
        next = error.source();
    }
    false
}
